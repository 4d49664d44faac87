//! keepalived.conf's `virtual_server` blocks.
//!
//! Owns what they are in IPVS: settings with their defaults (`check_parser.c`, `check_data.c`). What has no counterpart,
//! such as health checks, is told next to the service with file and line. Leaves the syntax and the meaning of
//! keepalived's words to `keepalived_conf`. Called by `import`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};

use super::table::{Place, Table};
use crate::config::WantedService;
use crate::keepalived_conf::meaning::{self, Conf, VirtualServer};
use crate::keepalived_conf::{self, Statement, files};
use crate::model::{
    DEFAULT_PERSISTENCE, DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers,
    Service, ServiceKey, SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::names::Hosts;
use crate::text::shown;

/// Reads a configuration with its includes. Never fails: what is not understood is told in the comments.
pub fn read(name: &str, text: &str, hosts: &Hosts) -> Table {
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
    tree.globals("lvs_timeouts").for_each(|line| timeouts(&mut table, line));
    tree.globals("lvs_sync_daemon").for_each(|line| sync_daemon(&mut table, line, &conf));
    for server in &conf.servers {
        if let Err(why) = virtual_server(&mut table, server, hosts) {
            table.notes.push(note(server.at, &format!("not written, {}", shown(&why.to_string()))));
        }
    }
    // Interfaces of the VIPs, where a vrrp_instance has them.
    for instance in conf.instances() {
        for vip in &instance.vips {
            // One that is bound to lo is reached by the instance's interface.
            let name = if vip.device == "lo" { instance.interface } else { vip.device };
            let interface = (!name.is_empty()).then(|| name.to_owned());
            table.places.entry(vip.address).or_insert(Place { interface, ..Place::default() });
        }
    }
    table
}

fn timeouts(table: &mut Table, line: &Statement) {
    for (name, value) in pairs(line.values()) {
        let Timeouts { tcp, tcp_fin, udp } = &mut table.timeouts;
        match (name, value.parse()) {
            ("tcp", Ok(seconds)) => *tcp = seconds,
            ("tcpfin", Ok(seconds)) => *tcp_fin = seconds,
            ("udp", Ok(seconds)) => *udp = seconds,
            _ => table.notes.push(not_understood(line)),
        }
    }
}

fn sync_daemon(table: &mut Table, line: &Statement, conf: &Conf<'_>) {
    let mut words = line.values().peekable();
    let interface = words.next().unwrap_or_default().to_owned();
    let mut daemon = SyncDaemon { interface, id: 0, max_len: None, group: None, port: None, ttl: None };
    words.next_if_eq(&"inst");
    if let Some(instance) = words.next_if(|word| !["id", "maxlen", "port", "ttl", "group"].contains(word)) {
        // Without an id keepalived takes the instance's virtual_router_id.
        let found = conf.instances().find(|block| block.name == instance);
        let id = found.and_then(|block| block.at.last("virtual_router_id"));
        daemon.id = id.and_then(|id| id.value(1).parse().ok()).unwrap_or(0);
    }
    let understood = pairs(words).into_iter().map(|(name, value)| match name {
        "id" => value.parse().map(|id| daemon.id = id).is_ok(),
        "maxlen" => set(&mut daemon.max_len, value),
        "port" => set(&mut daemon.port, value),
        "ttl" => set(&mut daemon.ttl, value),
        "group" => set(&mut daemon.group, value),
        _ => false,
    });
    if understood.filter(|understood| !understood).count() > 0 {
        table.notes.push(note(line, "not understood in part"));
    }
    table.daemons.insert(DaemonState::Master, daemon);
}

fn set<T: FromStr>(setting: &mut Option<T>, value: &str) -> bool {
    *setting = value.parse().ok();
    setting.is_some()
}

/// Adds the services that a block stands for: one, or those of its group and its ranges.
fn virtual_server(table: &mut Table, server: &VirtualServer<'_>, hosts: &Hosts) -> anyhow::Result<()> {
    let mut lost = Vec::new();
    let common = Common::of(server.at, hosts, &mut lost)?;
    let (protocol, mut keys) = (common.protocol, Vec::new());
    for service in &server.services {
        match service.as_ref().map_err(|why| anyhow!("{why}"))? {
            meaning::Service::Mark(mark, family) => {
                keys.push(ServiceKey::Fwmark { mark: *mark, family: family.unwrap_or(common.family) });
            }
            meaning::Service::Addresses(range, port) => {
                let port = if port.is_empty() { 0 } else { hosts.port(port, protocol)? };
                let addresses = range.addresses().map_err(anyhow::Error::msg)?;
                keys.extend(addresses.map(|address| ServiceKey::Endpoint { address, port, protocol }));
            }
        }
    }
    for key in keys {
        if table.services.contains_key(&key) {
            let why = format!("{key} is defined before; the first one is written");
            table.notes.push(note(server.at, &why));
            continue;
        }
        let mut lost = lost.clone();
        table.services.insert(key, common.wanted(key, &mut lost));
        if !lost.is_empty() {
            table.remarks.insert(key, format!("No counterpart here: {}", lost.join("; ")));
        }
    }
    Ok(())
}

/// A `virtual_server` block as far as it does not depend on the address.
struct Common<'a> {
    block: &'a Statement,
    hosts: &'a Hosts,
    settings: Service,
    granularity: Option<&'a str>,
    protocol: Protocol,
    /// What its real servers have, unless they say otherwise
    server: RealServer,
    /// The family of a mark that names none
    family: Family,
}

impl<'a> Common<'a> {
    fn of(block: &'a Statement, hosts: &'a Hosts, lost: &mut Vec<String>) -> anyhow::Result<Self> {
        let mut settings =
            Service { scheduler: "wlc".to_owned(), flags: 0, timeout: 0, netmask: 0, engine: String::new() };
        let (forward, tunnel) = (Forward::NAT, Tunnel::default());
        let mut server = RealServer { forward, weight: 1, upper_threshold: 0, lower_threshold: 0, tunnel };
        let (mut protocol, mut granularity, mut timeout, mut ipv6) = (Protocol::TCP, None, None, false);
        for line in &block.children {
            let value = line.value(1);
            match line.keyword() {
                _ if sets_server(line, &mut server)? => {}
                "lvs_sched" | "lb_algo" => value.clone_into(&mut settings.scheduler),
                "protocol" => {
                    let known = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
                    let named = |known: &Protocol| known.to_string() == value.to_ascii_lowercase();
                    protocol = known.into_iter().find(named).with_context(|| not_understood(line))?;
                }
                "ops" => settings.flags |= service_flag::ONE_PACKET,
                "persistence_timeout" if value.is_empty() => timeout = Some(DEFAULT_PERSISTENCE),
                "persistence_timeout" => timeout = Some(number(line)?),
                "persistence_engine" => value.clone_into(&mut settings.engine),
                "persistence_granularity" => granularity = Some(value),
                "ip_family" => ipv6 = value == "inet6",
                "real_server" => {}
                // keepalived ignores flags of another scheduler than the one named before.
                keyword => match settings.scheduler_flag(keyword) {
                    Some(bit) => settings.flags |= bit,
                    None => lost.push(without(line)),
                },
            }
        }
        // Either of them makes a service persistent.
        let implied = granularity.is_some() || !settings.engine.is_empty();
        settings.timeout = timeout.unwrap_or(if implied { DEFAULT_PERSISTENCE } else { 0 });
        if settings.timeout > 0 {
            settings.flags |= service_flag::PERSISTENT;
        }
        // A mark's family is that of its granularity, or of its real servers.
        let mut servers = block.all("real_server").peekable();
        ipv6 |= match granularity {
            Some(text) => !text.contains('.'),
            None => servers.peek().is_some() && servers.all(|server| server.value(1).contains(':')),
        };
        let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        Ok(Self { block, hosts, settings, granularity, protocol, server, family })
    }

    fn wanted(&self, key: ServiceKey, lost: &mut Vec<String>) -> WantedService {
        let netmask = Service::full_netmask(key.family());
        let mut settings = Service { netmask, ..self.settings.clone() };
        if let Some(text) = self.granularity {
            // A netmask, or for IPv6 a prefix length.
            let mask = match key.family() {
                Family::Ipv6 => text.parse().ok().filter(|prefix| (1..=128).contains(prefix)),
                Family::Ipv4 => text.parse::<Ipv4Addr>().ok().map(u32::from),
            };
            match mask {
                Some(mask) => settings.netmask = mask,
                None => lost.push(format!("persistence_granularity {}", shown(text))),
            }
        }
        let mut servers = Servers::new();
        for line in self.block.all("real_server") {
            match self.real_server(line, key, lost) {
                Ok((server, _)) if servers.contains_key(&server) => {
                    lost.push(format!("{} a second real server {server}", line.place()));
                }
                Ok((server, settings)) => drop(servers.insert(server, settings)),
                Err(why) => lost.push(format!("{} NOT WRITTEN, {why}", line.place())),
            }
        }
        WantedService { settings, servers }
    }

    fn real_server(
        &self,
        block: &Statement,
        key: ServiceKey,
        lost: &mut Vec<String>,
    ) -> anyhow::Result<(ServerKey, RealServer)> {
        let address = self.hosts.address(block.value(1), block.value(1).contains(':'))?;
        let mut server = self.server;
        for line in &block.children {
            match line.keyword() {
                _ if sets_server(line, &mut server)? => {}
                "uthreshold" => server.upper_threshold = number(line)?,
                "lthreshold" => server.lower_threshold = number(line)?,
                _ => lost.push(format!("{} of {address}", without(line))),
            }
        }
        let port = match (key, block.value(2)) {
            // As keepalived does: such a packet keeps its port.
            (ServiceKey::Endpoint { port, .. }, _) if server.forward != Forward::NAT => port,
            (ServiceKey::Endpoint { port, .. }, "") => port,
            (ServiceKey::Fwmark { .. }, "") => 0,
            (_, text) => self.hosts.port(text, self.protocol)?,
        };
        Ok((Endpoint { address, port }, server))
    }
}

/// Whether a line sets what a `virtual_server` gives to its real servers, or one of them to itself.
fn sets_server(line: &Statement, server: &mut RealServer) -> anyhow::Result<bool> {
    match line.keyword() {
        "weight" => server.weight = number(line)?,
        _ if meaning::is_method(line) => {
            (server.forward, server.tunnel) = meaning::method(line).with_context(|| not_understood(line))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn number(line: &Statement) -> anyhow::Result<u32> {
    line.value(1).parse().map_err(|_| anyhow!(not_understood(line)))
}

fn note(line: &Statement, why: &str) -> String {
    format!("{}: {why}: {}", line.place(), shown(&line.raw))
}

fn not_understood(line: &Statement) -> String {
    format!("{}: `{}` is not understood", line.place(), shown(&line.raw))
}

/// A statement for the list of what has no counterpart.
fn without(line: &Statement) -> String {
    format!("{} {}", line.place(), shown(&line.raw).trim_end_matches(['{', ' ']))
}

fn pairs<'w>(words: impl Iterator<Item = &'w str>) -> Vec<(&'w str, &'w str)> {
    let words: Vec<&str> = words.collect();
    words.chunks(2).filter_map(|pair| Some((*pair.first()?, pair.get(1).copied().unwrap_or("")))).collect()
}
