//! keepalived.conf's `virtual_server` blocks.
//!
//! Owns what they are in IPVS: settings with their defaults (`check_parser.c`, `check_data.c`). What has no counterpart,
//! such as health checks, is told next to the service with file and line. Leaves the syntax and the meaning of
//! keepalived's words to `keepalived_conf`. Called by `import`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, anyhow};

use super::write::Table;
use crate::config::WantedService;
use crate::keepalived_conf::meaning::{self, Conf, VirtualServer};
use crate::keepalived_conf::{self, Statement, files};
use crate::model::{
    AddressKey, DEFAULT_PERSISTENCE, DaemonState, Endpoint, Family, Forward, RealServer, ServerKey, Servers,
    Service, ServiceKey, SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::observed::{Nature, ObservedAddress};
use crate::text::shown;

/// Reads a configuration with its includes. Never fails: what is not understood is told in the comments.
pub fn read(name: &str, text: &str) -> Table {
    let start = Path::new(name);
    let tree = keepalived_conf::parse(start, &files::id(), &mut |pattern| match pattern == start {
        true => vec![(start.to_owned(), Ok(text.as_bytes().to_vec()))],
        false => files::find(pattern),
    });
    let conf = Conf::of(&tree);
    let mut table = Table { origin: format!("the virtual_server blocks of {name}"), ..Table::default() };
    table.notes.push("Health checks have no counterpart: weights are what this file says. Take the virtual_server blocks out of keepalived.conf before this file is used; two managers of one service undo each other's work.".to_owned());
    let troubles = tree.troubles.iter();
    table.notes.extend(
        troubles.map(|trouble| format!("{}:{}: {}", trouble.file.display(), trouble.line, trouble.message)),
    );
    for line in tree.globals("lvs_timeouts") {
        let mut seconds = |word| after(line, word, &mut table.notes).unwrap_or(0);
        table.timeouts = Timeouts { tcp: seconds("tcp"), tcp_fin: seconds("tcpfin"), udp: seconds("udp") };
    }
    for line in tree.globals("lvs_sync_daemon") {
        // Without an id keepalived takes the virtual_router_id of the instance, which older files name without `inst`.
        let instance = line.values().skip(1).find(|word| *word != "inst");
        let block = conf.instances().find(|block| Some(block.name) == instance);
        let id = block.and_then(|block| block.at.last("virtual_router_id")?.value(1).parse().ok());
        let daemon = SyncDaemon {
            interface: line.value(1).to_owned(),
            id: after(line, "id", &mut table.notes).or(id).unwrap_or(0),
            max_len: after(line, "maxlen", &mut table.notes),
            group: after(line, "group", &mut table.notes),
            port: after(line, "port", &mut table.notes),
            ttl: after(line, "ttl", &mut table.notes),
        };
        table.daemons.insert(DaemonState::Master, daemon);
    }
    for server in &conf.servers {
        if let Err(why) = virtual_server(&mut table, server) {
            table.notes.push(format!("{}: not written, {}", without(server.at), shown(&why.to_string())));
        }
    }
    // Interfaces of the VIPs, where a vrrp_instance has them.
    for instance in conf.instances() {
        for vip in &instance.vips {
            // One that is bound to lo is reached by the instance's interface.
            let interface = if vip.device == "lo" { instance.interface } else { vip.device };
            let key = AddressKey { interface: interface.to_owned(), address: vip.address };
            let (prefix, label, nature) = (vip.prefix, None, Nature::default());
            table.addresses.push(ObservedAddress { key, prefix, label, nature });
        }
    }
    table
}

/// What follows a word of a line, where that word is.
fn after<T: FromStr>(line: &Statement, word: &str, notes: &mut Vec<String>) -> Option<T> {
    let value = line.values().skip_while(|found| *found != word).nth(1)?;
    value.parse().map_err(|_| notes.push(line.not_understood())).ok()
}

/// Adds the services that a block stands for: one, or those of its group and its ranges.
fn virtual_server(table: &mut Table, server: &VirtualServer<'_>) -> Result<()> {
    let keys: Result<Vec<_>, String> = server.services.iter().cloned().collect();
    for key in keys.map_err(Error::msg)?.into_iter().flatten() {
        if table.services.contains_key(&key) {
            let why = "is defined before; the first one is written";
            table.notes.push(format!("{}: {key} {why}", without(server.at)));
            continue;
        }
        let mut lost = Vec::new();
        table.services.insert(key, wanted(server.at, key, &mut lost)?);
        if !lost.is_empty() {
            table.remarks.insert(key, format!("No counterpart here: {}", lost.join("; ")));
        }
    }
    Ok(())
}

/// What a block makes of one of its services, and what of it has no counterpart.
fn wanted(block: &Statement, key: ServiceKey, lost: &mut Vec<String>) -> Result<WantedService> {
    // Either of them makes a service persistent.
    let implied = block.last("persistence_granularity").or(block.last("persistence_engine"));
    let timeout = implied.map_or(0, |_| DEFAULT_PERSISTENCE);
    let mut settings = Service { timeout, ..Service::plain("wlc", key.family()) };
    let (forward, tunnel) = (Forward::NAT, Tunnel::default());
    // What real servers have, unless they say otherwise.
    let mut usual = RealServer { forward, weight: 1, upper_threshold: 0, lower_threshold: 0, tunnel };
    for line in &block.children {
        let value = line.value(1);
        match line.keyword() {
            _ if sets_server(line, &mut usual)? => {}
            "protocol" | "ip_family" | "real_server" => {}
            "lvs_sched" | "lb_algo" => value.clone_into(&mut settings.scheduler),
            "ops" => settings.flags |= service_flag::ONE_PACKET,
            "persistence_timeout" if value.is_empty() => settings.timeout = DEFAULT_PERSISTENCE,
            "persistence_timeout" => settings.timeout = parsed(line, 1)?,
            "persistence_engine" => value.clone_into(&mut settings.engine),
            // A netmask, or for IPv6 a prefix length.
            "persistence_granularity" => match (key.family(), value.parse::<Ipv4Addr>(), value.parse()) {
                (Family::Ipv4, Ok(mask), _) => settings.netmask = mask.into(),
                (Family::Ipv6, _, Ok(prefix)) => settings.netmask = prefix,
                _ => lost.push(without(line)),
            },
            // keepalived ignores flags of another scheduler than the one named before.
            keyword => match settings.scheduler_flag(keyword) {
                Some(bit) => settings.flags |= bit,
                None => lost.push(without(line)),
            },
        }
    }
    if settings.timeout > 0 {
        settings.flags |= service_flag::PERSISTENT;
    }
    let mut servers = Servers::new();
    for line in block.all("real_server") {
        match real_server(line, usual, key, lost) {
            Ok((server, settings)) => _ = servers.insert(server, settings),
            Err(why) => lost.push(format!("{} NOT WRITTEN, {why}", line.place())),
        }
    }
    Ok(WantedService { settings, servers: servers.into() })
}

fn real_server(
    block: &Statement,
    mut server: RealServer,
    service: ServiceKey,
    lost: &mut Vec<String>,
) -> Result<(ServerKey, RealServer)> {
    let address = parsed(block, 1)?;
    for line in &block.children {
        match line.keyword() {
            _ if sets_server(line, &mut server)? => {}
            "uthreshold" => server.upper_threshold = parsed(line, 1)?,
            "lthreshold" => server.lower_threshold = parsed(line, 1)?,
            _ => lost.push(format!("{} of {address}", without(line))),
        }
    }
    let (unnamed, keeps_port) = (block.value(2).is_empty(), server.forward != Forward::NAT);
    let port = match service {
        ServiceKey::Endpoint { port, .. } if unnamed || keeps_port => port,
        ServiceKey::Fwmark { .. } if unnamed => 0,
        _ => parsed(block, 2)?,
    };
    Ok((Endpoint { address, port }, server))
}

/// Whether a line sets what a `virtual_server` gives to its real servers, or one of them to itself.
fn sets_server(line: &Statement, server: &mut RealServer) -> Result<bool> {
    match line.keyword() {
        "weight" => server.weight = parsed(line, 1)?,
        "lvs_method" | "lb_kind" => {
            (server.forward, server.tunnel) = meaning::method(line).with_context(|| line.not_understood())?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A word of a line. keepalived looks up no names of hosts or ports.
fn parsed<T: FromStr>(line: &Statement, index: usize) -> Result<T> {
    line.value(index).parse().map_err(|_| anyhow!(line.not_understood()))
}

/// A statement that has no counterpart, as it is told.
fn without(line: &Statement) -> String {
    format!("{} {}", line.place(), shown(&line.raw))
}
