//! What `ipvsadm -S` wrote, and what ipvsadm's commands do to a table.
//!
//! Owns the lines of a save file and the effect of each command. Leaves the options to `options`. Called by
//! `import`.

use std::collections::btree_map::Entry;

use anyhow::bail;

use super::options::{self, Command};
use super::{Table, shown};
use crate::config::WantedService;
use crate::model::Timeouts;
use crate::names::Hosts;

/// At most this many lines are told at once.
const MAX_PROBLEMS: usize = 20;

/// Reads a save file whole: a line that is not understood would be a service lost.
///
/// # Errors
/// Every such line.
pub fn read(name: &str, text: &str, hosts: &Hosts) -> anyhow::Result<Table> {
    let mut table = Table {
        origin: format!("ipvsadm-save text, {name}"),
        notes: vec![
            "ipvsadm does not save thresholds (-x, -y), timeouts (--set) and sync daemons; `--from kernel` reads them."
                .to_owned(),
        ],
        ..Table::default()
    };
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Err(why) = carry_out_line(&mut table, line, hosts) {
            problems.push(format!("{name}:{}: {why}\n    {}", number + 1, shown(line.trim())));
        }
    }
    if problems.is_empty() {
        return Ok(table);
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(format!("{name}: {more} more lines"));
    }
    bail!(
        "{}\nnothing was written; correct these lines, or use `--from kernel` where the table is loaded",
        problems.join("\n")
    );
}

/// One line of a save file, as `ipvsadm -R` would carry it out.
pub fn carry_out_line(table: &mut Table, line: &str, hosts: &Hosts) -> Result<(), String> {
    let line = line.trim();
    // ipvsadm-restore takes comments out.
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    // ipvsadm's own reader knows blanks, and no quotes (config_stream.c).
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|word| word == "ipvsadm") {
        words.remove(0);
    }
    match options::parse(&words, hosts)? {
        Command::Restore => Err("`-R` cannot stand in what it reads".to_owned()),
        command => carry_out(table, command),
    }
}

/// Does to a table what ipvsadm does to the kernel's.
///
/// # Errors
/// What the kernel would refuse.
pub fn carry_out(table: &mut Table, command: Command) -> Result<(), String> {
    match command {
        Command::AddService(key, settings) => match table.services.entry(key) {
            Entry::Occupied(_) => return Err(format!("the service {key} exists already")),
            Entry::Vacant(free) => {
                free.insert(WantedService { settings, servers: Default::default() });
            }
        },
        Command::EditService(key, settings) => {
            table.services.get_mut(&key).ok_or_else(|| format!("there is no service {key}"))?.settings =
                settings;
        }
        Command::DeleteService(key) => {
            table.services.remove(&key).ok_or_else(|| format!("there is no service {key}"))?;
        }
        Command::AddServer(key, server, new) => {
            let service =
                table.services.get_mut(&key).ok_or_else(|| format!("there is no service {key} yet"))?;
            if service.servers.contains_key(&server) {
                return Err(format!("the real server {server} of {key} exists already"));
            }
            service.servers.insert(server, new);
        }
        Command::EditServer(key, server, new) => {
            let found = table.services.get_mut(&key).and_then(|service| service.servers.get_mut(&server));
            *found.ok_or_else(|| format!("there is no real server {server} of {key}"))? = new;
        }
        Command::DeleteServer(key, server) => {
            let found = table.services.get_mut(&key).and_then(|service| service.servers.remove(&server));
            found.ok_or_else(|| format!("there is no real server {server} of {key}"))?;
        }
        Command::Clear => table.services.clear(),
        Command::Timeouts(new) => {
            let merged = |new: u32, old: u32| if new == 0 { old } else { new };
            let old = table.timeouts;
            table.timeouts = Timeouts {
                tcp: merged(new.tcp, old.tcp),
                tcp_fin: merged(new.tcp_fin, old.tcp_fin),
                udp: merged(new.udp, old.udp),
            };
        }
        Command::StartDaemon(state, daemon) => {
            table.daemons.insert(state, daemon);
        }
        Command::StopDaemon(state) => {
            table.daemons.remove(&state);
        }
        Command::Restore | Command::Look => {}
    }
    Ok(())
}
