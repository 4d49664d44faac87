//! What a source of `import` says, as a table, and the desired-state file's text: what of the table it can say, and in
//! comments the rest and why.
//!
//! Owns layout, short forms, quotes and comments; a serialiser writes no comments. Owns no rule: the file is read as
//! `check` reads it, and what is refused there is taken out and told, until nothing is. So the writer cannot disagree with
//! the reader. Called by `import`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::bail;

use crate::config::source::{Problem, Source};
use crate::config::{Config, WantedService};
use crate::model::service_flag::ONE_PACKET;
use crate::model::{DaemonState, Endpoint, Family, Forward, RealServer, ServiceKey, SyncDaemon, Timeouts};
use crate::observed::ObservedAddress;
use crate::plan::Change;
use crate::text::{clean_json, shown};

/// Comments are broken at about this many characters.
const WIDTH: usize = 110;

const NEXT: &str =
    "`lvs-notify check FILE` validates it; `lvs-notify plan master -c FILE` shows what would change.";
const LOST: &str = "Some things are not written: see the end of this file.";
const NOT_WRITTEN: &str = "Not written, because a desired-state file refuses it. Where the service's VIP or mark is declared above, `plan` shows the removal of what is missing there.";

/// A key, its value, and the value that need not be written.
type Key<'a> = (&'a str, String, &'a str);

/// What a source says, in the terms of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Where it comes from, for the first line of the file
    pub origin: String,
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// 0 where the source says nothing
    pub timeouts: Timeouts,
    pub daemons: BTreeMap<DaemonState, SyncDaemon>,
    pub parameters: BTreeMap<String, String>,
    /// Where the VIPs stand, and others
    pub addresses: Vec<ObservedAddress>,
    /// ARP parameters that a file without `arp` would change
    pub arp: Vec<String>,
    /// What the reader of the file should know, before the first key
    pub notes: Vec<String>,
    /// What belongs to a service and has no key, told next to it
    pub remarks: BTreeMap<ServiceKey, String>,
}

impl Table {
    /// The addresses of its services.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        let vip = |key: &ServiceKey| match key {
            ServiceKey::Endpoint { address, .. } => Some(*address),
            ServiceKey::Fwmark { .. } => None,
        };
        self.services.keys().filter_map(vip).collect()
    }
}

/// The file's text. Fails when its reader refuses what cannot be taken out, which would be a mistake in this program.
pub fn write(table: &Table) -> anyhow::Result<String> {
    let (mut kept, mut refused) = (table.clone(), String::new());
    loop {
        let source = Source { name: "import".to_owned(), text: document(&kept, &refused) };
        let problems = problems(&kept, &source)?;
        let Some(first) = problems.first() else { return Ok(source.text) };
        let tried = kept.clone();
        // One part of the file at a time: what the others may be can depend on it.
        for problem in problems.iter().filter(|problem| problem.location.first() == first.location.first()) {
            let way: Vec<&str> = problem.location.iter().map(String::as_str).collect();
            let changes = std::iter::from_fn(|| take_out(&mut kept, &tried, &way));
            let commands = changes.flat_map(|change| change.commands());
            commands.for_each(|command| comment(&mut refused, "# ", &command));
            comment(&mut refused, "#     ", &problem.message);
        }
        if kept == tried {
            bail!("the file written would not be valid; please report this input: {problems:?}");
        }
    }
}

/// Why the reader refuses a file, or where it would read something else than was written.
fn problems(table: &Table, source: &Source) -> anyhow::Result<Vec<Problem>> {
    let problem = |way: [&str; 2], message| Problem { location: way.map(str::to_owned).into(), message };
    if table.daemons.len() > 1 {
        let why =
            "`sync_daemon` is one daemon that follows the role, and two run here; they stay as they are";
        return Ok(vec![problem(["ipvs", "sync_daemon"], why.to_owned())]);
    }
    let read = match Config::of(source.document()?) {
        Ok(config) => config.services,
        Err(problems) => return Ok(problems),
    };
    let services = table.services.iter().enumerate();
    let differing = services.filter(|(_, (key, wanted))| read.get(key) != Some(wanted));
    let no_words = |(index, (_, wanted)): (usize, (_, &WantedService))| {
        let why = "a desired-state file has no words for these settings; flags";
        problem(["virtual_services", &index.to_string()], format!("{why}: {:#x}", wanted.settings.flags))
    };
    Ok(differing.map(no_words).collect())
}

/// Takes out of a table, one thing a call, what a problem of it as it was tried is about; gives what would make it.
fn take_out(kept: &mut Table, tried: &Table, way: &[&str]) -> Option<Change> {
    let number = |step: usize| way.get(step).and_then(|step| step.parse().ok()).unwrap_or(0);
    let vip = || tried.vips().into_iter().nth(number(1));
    let key = match way {
        ["ipvs", "timeouts", ..] => {
            let (old, new) = (Timeouts::default(), std::mem::take(&mut kept.timeouts));
            return (new != old).then_some(Change::Timeouts { old, new });
        }
        ["ipvs", "sync_daemon", ..] => {
            let (state, new) = kept.daemons.pop_first()?;
            return Some(Change::Daemon { state, old: None, new: Some(new) });
        }
        ["virtual_services", _, "real_servers", ..] => {
            let (service, wanted) = tried.services.iter().nth(number(1))?;
            let key = *wanted.servers.keys().nth(number(3))?;
            let new = Some(Arc::make_mut(&mut kept.services.get_mut(service)?.servers).remove(&key)?);
            return Some(Change::Server { service: *service, key, old: None, new, connections: 0 });
        }
        ["virtual_services", _, ..] => *tried.services.keys().nth(number(1))?,
        ["vips", _, "address"] => {
            let vip = vip()?;
            let on_it =
                |key: &&ServiceKey| matches!(key, ServiceKey::Endpoint { address, .. } if *address == vip);
            *kept.services.keys().find(on_it)?
        }
        ["vips", ..] | ["interface"] => {
            let vip = vip()?;
            let place = kept.addresses.iter().position(|found| found.key.address == vip)?;
            let ObservedAddress { key, prefix, label, .. } = kept.addresses.remove(place);
            return Some(Change::Address { key, old: None, new: Some(prefix), label });
        }
        _ => return None,
    };
    let WantedService { settings, servers } = kept.services.remove(&key)?;
    Some(Change::Service { key, old: None, new: Some(settings), servers, connections: 0 })
}

fn document(table: &Table, refused: &str) -> String {
    let mut text = String::new();
    let origin = format!("Written by `lvs-notify import` from {}.", table.origin);
    let notes = table.notes.iter().map(String::as_str);
    let lost = (!refused.is_empty()).then_some(LOST);
    for words in [&*origin, NEXT].into_iter().chain(notes).chain(lost) {
        comment(&mut text, "#", words);
    }
    text += "version: 1\n";
    vips(&mut text, table);
    if !table.arp.is_empty() {
        let without = "without this line arp_ignore becomes 1 and arp_announce 2, which hides the VIPs on lo while not MASTER.";
        comment(&mut text, "#", &format!("As they are here: {}; {without}", table.arp.join(", ")));
        text += "arp: off\n";
    }
    if table.daemons.keys().eq([&DaemonState::Backup]) && !table.services.is_empty() {
        text += "backup: {services: keep}   # here the services stand beside a backup sync daemon\n";
    }
    let ipvs = ipvs(table);
    if !ipvs.is_empty() {
        let _ = writeln!(text, "ipvs:\n  {}", ipvs.join("\n  "));
    }
    text += match table.services.is_empty() {
        true => "allow_empty: true\nvirtual_services: []\n",
        false => "virtual_services:\n",
    };
    for (key, wanted) in &table.services {
        table.remarks.get(key).into_iter().for_each(|remark| comment(&mut text, "  #", remark));
        service(&mut text, key, wanted);
    }
    if !refused.is_empty() {
        text.push('\n');
        comment(&mut text, "#", NOT_WRITTEN);
    }
    text + refused
}

fn vips(text: &mut String, table: &Table) {
    let mut vips: BTreeMap<_, _> = table.vips().into_iter().map(|vip| (vip, ("lo:0", ""))).collect();
    for ObservedAddress { key, label, .. } in &table.addresses {
        match vips.get_mut(&key.address) {
            Some((known, _)) if key.is_on_lo() => *known = label.as_deref().unwrap_or(known),
            Some((_, interface)) if interface.is_empty() => *interface = &key.interface,
            _ => {}
        }
    }
    let interfaces: BTreeSet<&str> = vips.values().map(|(_, interface)| *interface).collect();
    // That of all VIPs is said once.
    let shared = interfaces.len() < 2;
    match interfaces.first() {
        Some(name) if shared && !name.is_empty() => _ = writeln!(text, "interface: {}", scalar(name)),
        _ if !shared => {}
        _ => *text += "# interface: eth0   # where clients reach the VIPs; without it nothing is announced\n",
    }
    *text += if vips.is_empty() { "vips: []\n" } else { "vips:\n" };
    for (vip, (label, interface)) in vips {
        let keys = [
            ("address", scalar(&vip.to_string()), ""),
            ("label", scalar(label), "lo:0"),
            ("interface", scalar(if shared { "" } else { interface }), "\"\""),
        ];
        let _ = writeln!(text, "  - {}", mapping(keys));
    }
}

fn ipvs(table: &Table) -> Vec<String> {
    let timeouts = table.timeouts.fields().into_iter().map(|(name, seconds)| (name, seconds, "0s"));
    let parameters = table.parameters.iter().map(|(name, value)| (name.as_str(), scalar(value), ""));
    // The model's names of what a daemon has are the file's.
    let daemon = serde_json::json!(table.daemons.values().next());
    let setting = |name| match daemon.get(name) {
        Some(serde_json::Value::String(text)) => scalar(text),
        value => value.map_or(String::new(), ToString::to_string),
    };
    let daemon =
        ["interface", "id", "max_len", "group", "port", "ttl"].map(|name| (name, setting(name), "null"));
    written([
        ("timeouts", mapping(timeouts), "{}"),
        ("sysctl", mapping(parameters), "{}"),
        ("sync_daemon", mapping(daemon), "{}"),
    ])
}

fn service(text: &mut String, key: &ServiceKey, WantedService { settings, servers }: &WantedService) {
    let [first, second] = match key {
        ServiceKey::Endpoint { address, port, protocol } => [
            ("address", scalar(&Endpoint { address: *address, port: *port }.to_string()), ""),
            ("protocol", protocol.to_string(), "tcp"),
        ],
        ServiceKey::Fwmark { mark, family } => {
            let family = if *family == Family::Ipv6 { "ipv6" } else { "" };
            [("fwmark", mark.to_string(), ""), ("family", family.to_owned(), "")]
        }
    };
    let (mask, full) = match key.family() {
        Family::Ipv4 => ("netmask", "255.255.255.255"),
        Family::Ipv6 => ("prefix", "128"),
    };
    let persistence = [
        ("timeout", format!("{}s", settings.timeout), ""),
        (mask, settings.netmask_text(key.family()), full),
        ("engine", scalar(&settings.engine), "\"\""),
    ];
    // Those that are reached as the first one need not say it.
    let known = |server: &RealServer| Forward::DECLARED.iter().any(|(_, known)| *known == server.forward);
    let forward = servers.values().find(|server| known(server)).map_or(Forward::NAT, |server| server.forward);
    let keys = written([
        first,
        second,
        ("scheduler", scalar(&settings.scheduler), "wlc"),
        ("scheduler_flags", format!("[{}]", settings.scheduler_flags().join(", ")), "[]"),
        ("persistence", mapping(persistence), "0s"),
        ("one_packet", (settings.flags & ONE_PACKET != 0).to_string(), "false"),
        ("forward", forward.to_string(), "nat"),
    ]);
    let none = if servers.is_empty() { " []" } else { "" };
    let _ = writeln!(text, "  - {}\n    real_servers:{none}", keys.join("\n    "));
    let usual = forward.to_string();
    for (key, RealServer { forward, weight, upper_threshold, lower_threshold, tunnel }) in servers.iter() {
        // Without a port the client's is kept.
        let name = if key.port == 0 { key.address.to_string() } else { key.to_string() };
        let tunnel = [
            ("type", tunnel.kind_name().to_owned(), "ipip"),
            ("port", tunnel.port.to_string(), "0"),
            ("checksum", tunnel.checksum_name().to_owned(), "nocsum"),
        ];
        let server = mapping([
            ("address", scalar(&name), ""),
            ("weight", weight.to_string(), "1"),
            ("forward", forward.to_string(), &usual),
            ("upper_threshold", upper_threshold.to_string(), "0"),
            ("lower_threshold", lower_threshold.to_string(), "0"),
            ("tunnel", mapping(tunnel), "{}"),
        ]);
        let _ = writeln!(text, "      - {server}");
    }
}

/// `key: value` of each key that has to be written.
fn written<'a>(keys: impl IntoIterator<Item = Key<'a>>) -> Vec<String> {
    let keys = keys.into_iter().filter(|(_, value, usual)| value != usual && !value.is_empty());
    keys.map(|(name, value, _)| format!("{name}: {value}")).collect()
}

/// Keys and values on one line; in the short form where an address or a timeout is all there is.
fn mapping<'a>(keys: impl IntoIterator<Item = Key<'a>>) -> String {
    let keys = written(keys);
    let short = match keys.as_slice() {
        [only] => ["address: ", "timeout: "].iter().find_map(|name| only.strip_prefix(name)),
        _ => None,
    };
    short.map_or_else(|| format!("{{{}}}", keys.join(", ")), str::to_owned)
}

/// A scalar, in quotes where the reader of the file would take it for something else.
fn scalar(text: &str) -> String {
    // `arp` may be any word, as far as the file's shape goes; within braces and without.
    let inside = format!("{{version: 1, vips: [], virtual_services: [], arp: {text}}}");
    let alone = format!("version: 1\nvips: []\nvirtual_services: []\narp: {text}\n");
    let is_read = |text: String| {
        let document = Source { name: String::new(), text }.document().ok();
        document.and_then(|document| document.arp?.0.word)
    };
    match text.is_ascii() && [inside, alone].map(is_read).iter().all(|read| read.as_deref() == Some(text)) {
        true => text.to_owned(),
        false => clean_json(&serde_json::Value::from(text).to_string()),
    }
}

/// A comment of one or more lines.
fn comment(text: &mut String, margin: &str, words: &str) {
    let mut line = margin.to_owned();
    for word in shown(words).split_whitespace() {
        if line != margin && line.chars().count() + word.chars().count() >= WIDTH {
            let _ = writeln!(text, "{line}");
            line = margin.to_owned();
        }
        line = line + " " + word;
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_is_plain_where_every_place_reads_it_so() {
        for plain in ["rr", "eth0.100", "192.0.2.1:80", "a-b", "80"] {
            assert_eq!(scalar(plain), plain);
        }
        for odd in ["-", "?", "a: b", "a, b", "}", "yes #", "~", "", "*"] {
            assert_eq!(scalar(odd), format!("\"{odd}\""));
        }
    }
}
