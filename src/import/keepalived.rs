//! keepalived.conf's `virtual_server` blocks.
//!
//! Owns what they are in IPVS: settings with their defaults (`check_parser.c`, `check_data.c`). What has no counterpart,
//! such as health checks, is told next to the service with file and line. Leaves the syntax and the meaning of
//! keepalived's words to `keepalived_conf`. Called by `import`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{Place, Table, shown};
use crate::config::WantedService;
use crate::keepalived_conf::meaning::{self, Conf, VirtualServer};
use crate::keepalived_conf::{self, Statement, files};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers, Service, ServiceKey,
    SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::names::Hosts;

/// `IPVS_SVC_PERSISTENT_TIMEOUT`
const PERSISTENCE: u32 = 360;

/// Reads a configuration with its includes. Never fails: what is not understood is told in the comments.
pub fn read(name: &str, text: &str, hosts: &Hosts) -> Table {
    let start = Path::new(name);
    let tree = keepalived_conf::parse(start, &files::id(), &mut |pattern| match pattern == start {
        true => vec![(start.to_owned(), Ok(text.as_bytes().to_vec()))],
        false => files::find(pattern),
    });
    let conf = Conf::of(&tree);
    let mut reading = Reading {
        hosts,
        conf: &conf,
        table: Table {
            origin: format!("the virtual_server blocks of {name}"),
            notes: vec![
                "Health checks have no counterpart: weights are what this file says. Take the virtual_server blocks out of keepalived.conf before this file is used; two managers of one service undo each other's work."
                    .to_owned(),
            ],
            ..Table::default()
        },
    };
    for trouble in &tree.troubles {
        let told = format!("{}:{}: {}", trouble.file.display(), trouble.line, trouble.message);
        reading.table.notes.push(told);
    }
    reading.globals();
    for server in &conf.servers {
        reading.virtual_server(server);
    }
    reading.places();
    reading.table
}

struct Reading<'a> {
    hosts: &'a Hosts,
    conf: &'a Conf<'a>,
    table: Table,
}

/// A `virtual_server` block as far as it does not depend on the address.
struct Common {
    settings: Service,
    granularity: Option<String>,
    protocol: Protocol,
    forward: (Forward, Tunnel),
    weight: u32,
    ipv6: bool,
}

impl Reading<'_> {
    fn note(&mut self, statement: &Statement, why: &str) {
        self.table.notes.push(format!("{}: {why}: {}", statement.place(), shown(&statement.raw)));
    }

    fn globals(&mut self) {
        let tree = self.conf.tree;
        for statement in tree.globals("lvs_timeouts") {
            let Timeouts { tcp, tcp_fin, udp } = &mut self.table.timeouts;
            for (name, value) in pairs(statement.values()) {
                match (name, value.parse()) {
                    ("tcp", Ok(seconds)) => *tcp = seconds,
                    ("tcpfin", Ok(seconds)) => *tcp_fin = seconds,
                    ("udp", Ok(seconds)) => *udp = seconds,
                    _ => self.table.notes.push(not_understood(statement)),
                }
            }
        }
        for statement in tree.globals("lvs_sync_daemon") {
            self.sync_daemon(statement);
        }
    }

    fn sync_daemon(&mut self, statement: &Statement) {
        let mut words = statement.values().peekable();
        let mut daemon = SyncDaemon {
            interface: words.next().unwrap_or_default().to_owned(),
            id: 0,
            max_len: None,
            group: None,
            port: None,
            ttl: None,
        };
        words.next_if_eq(&"inst");
        let keys = ["id", "maxlen", "port", "ttl", "group"];
        if let Some(instance) = words.next_if(|word| !keys.contains(word)) {
            // Without an id keepalived takes the instance's virtual_router_id.
            let found = self.conf.instances().find(|block| block.name == instance);
            let id = found.and_then(|block| block.at.last("virtual_router_id")).map(|line| line.value(1));
            daemon.id = id.and_then(|id| id.parse().ok()).unwrap_or(0);
        }
        let mut understood = true;
        for (name, value) in pairs(words) {
            let (byte, short) = (value.parse::<u8>().ok(), value.parse::<u16>().ok());
            match name {
                "id" if byte.is_some() => daemon.id = byte.unwrap_or(0),
                "maxlen" if short.is_some() => daemon.max_len = short,
                "port" if short.is_some() => daemon.port = short,
                "ttl" if byte.is_some() => daemon.ttl = byte,
                "group" if value.parse::<IpAddr>().is_ok() => daemon.group = value.parse().ok(),
                _ => understood = false,
            }
        }
        if !understood {
            self.note(statement, "not understood in part");
        }
        self.table.daemons.insert(DaemonState::Master, daemon);
    }

    fn virtual_server(&mut self, server: &VirtualServer<'_>) {
        let (block, mut lost) = (server.at, Vec::new());
        let found =
            self.common(block, &mut lost).and_then(|common| Ok((self.keys(server, &common)?, common)));
        let (keys, common) = match found {
            Ok(found) => found,
            Err(why) => return self.note(block, &format!("not written, {}", shown(&why))),
        };
        for key in keys {
            let mut remarks = lost.clone();
            let wanted = self.wanted(block, key, &common, &mut remarks);
            if self.table.services.contains_key(&key) {
                self.note(block, &format!("{key} is defined before; the first one is written"));
                continue;
            }
            self.table.services.insert(key, wanted);
            if !remarks.is_empty() {
                let text = format!("No counterpart here: {}", remarks.join("; "));
                self.table.remarks.insert(key, vec![text]);
            }
        }
    }

    fn common(&self, block: &Statement, lost: &mut Vec<String>) -> Result<Common, String> {
        let mut common = Common {
            settings: Service {
                scheduler: "wlc".to_owned(),
                flags: 0,
                timeout: 0,
                netmask: 0,
                engine: String::new(),
            },
            granularity: None,
            protocol: Protocol::TCP,
            forward: (Forward::NAT, Tunnel::default()),
            weight: 1,
            ipv6: false,
        };
        let mut timeout = None;
        for line in &block.children {
            let value = line.value(1);
            let wrong = || not_understood(line);
            match line.keyword() {
                "lvs_sched" | "lb_algo" => value.clone_into(&mut common.settings.scheduler),
                _ if meaning::is_method(line) => common.forward = meaning::method(line).ok_or_else(wrong)?,
                "protocol" => {
                    common.protocol = match value.to_ascii_uppercase().as_str() {
                        "TCP" => Protocol::TCP,
                        "UDP" => Protocol::UDP,
                        "SCTP" => Protocol::SCTP,
                        _ => return Err(wrong()),
                    }
                }
                "ops" => common.settings.flags |= service_flag::ONE_PACKET,
                "flag-1" => common.settings.flags |= service_flag::SCHED1,
                "flag-2" => common.settings.flags |= service_flag::SCHED2,
                "flag-3" => common.settings.flags |= service_flag::SCHED3,
                // keepalived ignores those of another scheduler than the one named before.
                flag @ ("sh-fallback" | "mh-fallback" | "sh-port" | "mh-port")
                    if flag.split('-').next() == Some(common.settings.scheduler.as_str()) =>
                {
                    let fallback = flag.ends_with("fallback");
                    common.settings.flags |=
                        if fallback { service_flag::SCHED1 } else { service_flag::SCHED2 };
                }
                "persistence_timeout" if value.is_empty() => timeout = Some(PERSISTENCE),
                "persistence_timeout" => timeout = Some(value.parse().map_err(|_| wrong())?),
                "persistence_engine" => value.clone_into(&mut common.settings.engine),
                "persistence_granularity" => common.granularity = Some(value.to_owned()),
                "weight" => common.weight = value.parse().map_err(|_| wrong())?,
                "ip_family" => common.ipv6 = value == "inet6",
                "real_server" => {}
                _ => lost.push(without(line)),
            }
        }
        // Either of them makes a service persistent.
        let implied = common.granularity.is_some() || !common.settings.engine.is_empty();
        let timeout = timeout.unwrap_or(if implied { PERSISTENCE } else { 0 });
        if timeout > 0 {
            common.settings.flags |= service_flag::PERSISTENT;
            common.settings.timeout = timeout;
        }
        // A mark's family is that of its granularity, or of its real servers.
        let servers: Vec<bool> =
            block.all("real_server").map(|server| server.value(1).contains(':')).collect();
        common.ipv6 |= match &common.granularity {
            Some(text) => !text.contains('.'),
            None => !servers.is_empty() && servers.iter().all(|six| *six),
        };
        Ok(common)
    }

    /// The services that a block stands for: one, or those of its group and its ranges.
    fn keys(&self, server: &VirtualServer<'_>, common: &Common) -> Result<Vec<ServiceKey>, String> {
        let (protocol, mut keys) = (common.protocol, Vec::new());
        for service in &server.services {
            match service.as_ref()? {
                meaning::Service::Mark(mark, family) => {
                    let default = if common.ipv6 { Family::Ipv6 } else { Family::Ipv4 };
                    keys.push(ServiceKey::Fwmark { mark: *mark, family: family.unwrap_or(default) });
                }
                meaning::Service::Addresses(range, port) => {
                    let port = if port.is_empty() { 0 } else { self.hosts.port(port, protocol)? };
                    keys.extend(range.addresses()?.map(|address| ServiceKey::Endpoint {
                        address,
                        port,
                        protocol,
                    }));
                }
            }
        }
        Ok(keys)
    }

    fn wanted(
        &self,
        block: &Statement,
        key: ServiceKey,
        common: &Common,
        lost: &mut Vec<String>,
    ) -> WantedService {
        let mut settings = common.settings.clone();
        settings.netmask = Service::full_netmask(key.family());
        if let Some(text) = &common.granularity {
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
        for line in block.all("real_server") {
            match self.real_server(line, key, common, lost) {
                Ok((server, wanted)) if !servers.contains_key(&server) => {
                    servers.insert(server, wanted);
                }
                Ok((server, _)) => lost.push(format!("{} a second real server {server}", line.place())),
                Err(why) => lost.push(format!("{} NOT WRITTEN, {why}", line.place())),
            }
        }
        WantedService { settings, servers }
    }

    fn real_server(
        &self,
        block: &Statement,
        key: ServiceKey,
        common: &Common,
        lost: &mut Vec<String>,
    ) -> Result<(ServerKey, RealServer), String> {
        let address = self.hosts.address(block.value(1), block.value(1).contains(':'))?;
        let (forward, tunnel) = common.forward;
        let mut server =
            RealServer { forward, weight: common.weight, upper_threshold: 0, lower_threshold: 0, tunnel };
        for line in &block.children {
            let number = || line.value(1).parse().map_err(|_| not_understood(line));
            match line.keyword() {
                "weight" => server.weight = number()?,
                "uthreshold" => server.upper_threshold = number()?,
                "lthreshold" => server.lower_threshold = number()?,
                _ if meaning::is_method(line) => {
                    (server.forward, server.tunnel) =
                        meaning::method(line).ok_or_else(|| not_understood(line))?;
                }
                _ => lost.push(format!("{} of {address}", without(line))),
            }
        }
        let port = match (key, block.value(2)) {
            // As keepalived does: such a packet keeps its port.
            (ServiceKey::Endpoint { port, .. }, _) if server.forward != Forward::NAT => port,
            (ServiceKey::Endpoint { port, .. }, "") => port,
            (ServiceKey::Fwmark { .. }, "") => 0,
            (_, text) => self.hosts.port(text, common.protocol)?,
        };
        Ok((Endpoint { address, port }, server))
    }

    /// Interfaces of the VIPs, where a vrrp_instance has them.
    fn places(&mut self) {
        for instance in self.conf.instances() {
            for vip in &instance.vips {
                // One that is bound to lo is reached by the instance's interface.
                let name = if vip.device == "lo" { instance.interface } else { vip.device };
                let interface = (!name.is_empty()).then(|| name.to_owned());
                self.table.places.entry(vip.address).or_insert(Place { interface, ..Place::default() });
            }
        }
    }
}

fn not_understood(line: &Statement) -> String {
    format!("{}: `{}` is not understood", line.place(), shown(&line.raw))
}

/// A statement for the list of what has no counterpart.
fn without(line: &Statement) -> String {
    format!("{} {}", line.place(), shown(&line.raw).trim_end_matches(['{', ' ']))
}

fn pairs<'w>(mut words: impl Iterator<Item = &'w str>) -> Vec<(&'w str, &'w str)> {
    let mut pairs = Vec::new();
    while let Some(name) = words.next() {
        pairs.push((name, words.next().unwrap_or("")));
    }
    pairs
}
