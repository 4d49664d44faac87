//! keepalived.conf's `virtual_server` blocks.
//!
//! Owns what their keywords mean for IPVS (`check_parser.c`, `check_data.c`): defaults, groups, ranges. What
//! has no counterpart, such as health checks, is told next to the service with file and line. Leaves the syntax
//! to `keepalived_conf`. Called by `import`.

use std::net::IpAddr;
use std::path::Path;

use crate::names::Hosts;
use super::{Place, Table, shown};
use crate::desired::Wanted;
use crate::keepalived_conf::{self, Statement, Tree, files};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::sorted_map::SortedMap;

/// `IPVS_SVC_PERSISTENT_TIMEOUT`
const PERSISTENCE: u32 = 360;
/// A range that holds more addresses is not unrolled.
const MOST_ADDRESSES: u32 = 4096;

/// Reads a configuration with its includes. Never fails: what is not understood is told in the comments.
pub fn read(name: &str, text: &str, hosts: &Hosts) -> Table {
    let id = nix::sys::utsname::uname()
        .map(|uname| uname.nodename().to_string_lossy().split('.').next().unwrap_or_default().to_owned())
        .unwrap_or_default();
    let start = Path::new(name);
    let tree = keepalived_conf::parse(start, &id, &mut |pattern| match pattern == start {
        true => vec![(start.to_owned(), Ok(text.as_bytes().to_vec()))],
        false => files::find(pattern),
    });
    let mut reading = Reading {
        hosts,
        tree: &tree,
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
    for block in tree.all("virtual_server") {
        reading.virtual_server(block);
    }
    reading.places();
    reading.table
}

struct Reading<'a> {
    hosts: &'a Hosts,
    tree: &'a Tree,
    table: Table,
}

/// Where a statement stands.
fn at(statement: &Statement) -> String {
    format!("{}:{}", statement.file.display(), statement.line)
}

/// A `virtual_server` block as far as it does not depend on the address.
struct Common {
    settings: Service,
    granularity: Option<String>,
    protocol: Protocol,
    forward: (Forward, Tunnel),
    weight: u32,
    six: bool,
}

impl Reading<'_> {
    fn note(&mut self, statement: &Statement, why: &str) {
        self.table.notes.push(format!("{}: {why}: {}", at(statement), shown(&statement.raw)));
    }

    fn globals(&mut self) {
        let tree = self.tree;
        for statement in tree.globals("lvs_timeouts") {
            let Timeouts { tcp, tcp_fin, udp } = &mut self.table.timeouts;
            for (name, value) in pairs(statement.values()) {
                match (name, value.parse()) {
                    ("tcp", Ok(seconds)) => *tcp = seconds,
                    ("tcpfin", Ok(seconds)) => *tcp_fin = seconds,
                    ("udp", Ok(seconds)) => *udp = seconds,
                    _ => self.table.notes.push(format!(
                        "{}: not understood: {}",
                        at(statement),
                        shown(&statement.raw)
                    )),
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
            let found = self.tree.all("vrrp_instance").find(|block| block.value(1) == instance);
            let id = found.and_then(|block| block.last("virtual_router_id")).map(|line| line.value(1));
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

    fn virtual_server(&mut self, block: &Statement) {
        let mut lost = Vec::new();
        let common = match self.common(block, &mut lost) {
            Ok(common) => common,
            Err(why) => return self.note(block, &format!("not written, {why}")),
        };
        let keys = match self.keys(block, &common) {
            Ok(keys) => keys,
            Err(why) => return self.note(block, &format!("not written, {why}")),
        };
        for key in keys {
            let mut remarks = lost.clone();
            let wanted = self.wanted(block, key, &common, &mut remarks);
            if self.table.services.contains_key(&key) {
                self.note(block, &format!("{key} is declared before; the first one is written"));
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
            six: false,
        };
        let mut timeout = None;
        for line in &block.children {
            let value = line.value(1);
            let wrong = || format!("{}: `{}` is not understood", at(line), shown(&line.raw));
            match line.keyword() {
                "lvs_sched" | "lb_algo" => value.clone_into(&mut common.settings.scheduler),
                "lvs_method" | "lb_kind" => common.forward = method(line).ok_or_else(wrong)?,
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
                "ip_family" => common.six = value == "inet6",
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
        common.six |= match &common.granularity {
            Some(text) => !text.contains('.'),
            None => !servers.is_empty() && servers.iter().all(|six| *six),
        };
        Ok(common)
    }

    /// The services that a block stands for: one, or those of its group.
    fn keys(&self, block: &Statement, common: &Common) -> Result<Vec<ServiceKey>, String> {
        match block.value(1) {
            "group" => {
                let name = block.value(2);
                let group = self.tree.all("virtual_server_group").find(|group| group.value(1) == name);
                let group =
                    group.ok_or_else(|| format!("there is no virtual_server_group {}", shown(name)))?;
                let mut keys = Vec::new();
                for line in &group.children {
                    let words: Vec<&str> = line.words.iter().map(|word| word.text.as_str()).collect();
                    keys.extend(self.key(&words, common).map_err(|why| format!("{}: {why}", at(line)))?);
                }
                Ok(keys)
            }
            _ => self.key(&block.values().collect::<Vec<_>>(), common),
        }
    }

    fn key(&self, words: &[&str], common: &Common) -> Result<Vec<ServiceKey>, String> {
        let protocol = common.protocol;
        match words {
            ["fwmark", mark, rest @ ..] => {
                let six = rest.first().map_or(common.six, |family| *family == "inet6");
                let mark = mark.parse().map_err(|_| format!("`{}` is not a firewall mark", shown(mark)))?;
                Ok(vec![ServiceKey::Fwmark { mark, family: if six { Family::Ipv6 } else { Family::Ipv4 } }])
            }
            [range, rest @ ..] => {
                let port = rest.first().map_or(Ok(0), |port| self.hosts.port(port, protocol))?;
                let addresses = addresses(range)?;
                Ok(addresses
                    .into_iter()
                    .map(|address| ServiceKey::Endpoint { address, port, protocol })
                    .collect())
            }
            [] => Err("it names no service".to_owned()),
        }
    }

    fn wanted(&self, block: &Statement, key: ServiceKey, common: &Common, lost: &mut Vec<String>) -> Wanted {
        let mut settings = common.settings.clone();
        settings.netmask = Service::full_netmask(key.family());
        if let Some(text) = &common.granularity {
            match granularity(text, key.family()) {
                Some(mask) => settings.netmask = mask,
                None => lost.push(format!("persistence_granularity {}", shown(text))),
            }
        }
        let mut servers: SortedMap<ServerKey, RealServer> = SortedMap::default();
        for line in block.all("real_server") {
            match self.real_server(line, key, common, lost) {
                Ok((server, wanted)) if !servers.contains_key(&server) => {
                    servers.insert(server, wanted);
                }
                Ok((server, _)) => lost.push(format!("{} a second real server {server}", at(line))),
                Err(why) => lost.push(format!("{} NOT WRITTEN, {why}", at(line))),
            }
        }
        Wanted { settings, servers }
    }

    fn real_server(
        &self,
        block: &Statement,
        key: ServiceKey,
        common: &Common,
        lost: &mut Vec<String>,
    ) -> Result<(ServerKey, RealServer), String> {
        let address = self.hosts.address(block.value(1), block.value(1).contains(':'))?;
        let (mut forward, mut tunnel) = common.forward;
        let mut server =
            RealServer { forward, weight: common.weight, upper_threshold: 0, lower_threshold: 0, tunnel };
        for line in &block.children {
            let read = || {
                let value = line.value(1).parse::<u32>();
                value.map_err(|_| format!("{}: `{}` is not understood", at(line), shown(&line.raw)))
            };
            match line.keyword() {
                "weight" => server.weight = read()?,
                "uthreshold" => server.upper_threshold = read()?,
                "lthreshold" => server.lower_threshold = read()?,
                "lvs_method" | "lb_kind" => {
                    (forward, tunnel) =
                        method(line).ok_or_else(|| format!("`{}` is not understood", shown(&line.raw)))?;
                }
                _ => lost.push(format!("{} of {address}", without(line))),
            }
        }
        (server.forward, server.tunnel) = (forward, tunnel);
        let mut port = match (block.value(2), key) {
            ("", ServiceKey::Endpoint { port, .. }) => port,
            ("", ServiceKey::Fwmark { .. }) => 0,
            (text, _) => self.hosts.port(text, common.protocol)?,
        };
        match key {
            // As keepalived does: such a packet keeps its port.
            ServiceKey::Endpoint { port: service_port, .. } if forward != Forward::NAT => port = service_port,
            _ => {}
        }
        Ok((Endpoint { address, port }, server))
    }

    /// Interfaces of the VIPs, where a vrrp_instance has them.
    fn places(&mut self) {
        for instance in self.tree.all("vrrp_instance") {
            let own = instance.last("interface").map(|line| line.value(1));
            let lists = instance.all("virtual_ipaddress").chain(instance.all("virtual_ipaddress_excluded"));
            for line in lists.flat_map(|list| &list.children) {
                let text = line.keyword().split('/').next().unwrap_or_default();
                let Ok(vip) = text.parse::<IpAddr>() else { continue };
                let words: Vec<&str> = line.values().collect();
                let device =
                    words.windows(2).find(|pair| pair.first() == Some(&"dev")).and_then(|pair| pair.last());
                // One that is bound to lo is reached by the instance's interface.
                let interface = device.copied().filter(|name| *name != "lo").or(own);
                let place = Place { interface: interface.map(str::to_owned), ..Place::default() };
                self.table.places.entry(vip).or_insert(place);
            }
        }
    }
}

/// A statement for the list of what has no counterpart.
fn without(line: &Statement) -> String {
    format!("{} {}", at(line), shown(&line.raw).trim_end_matches(['{', ' ']))
}

fn pairs<'w>(words: impl Iterator<Item = &'w str>) -> Vec<(&'w str, &'w str)> {
    let words: Vec<&str> = words.collect();
    words
        .chunks(2)
        .map(|pair| (pair.first().copied().unwrap_or(""), pair.get(1).copied().unwrap_or("")))
        .collect()
}

/// `NAT`, `DR`, `TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]`.
fn method(line: &Statement) -> Option<(Forward, Tunnel)> {
    let mut words = line.values();
    let forward = match words.next()? {
        "NAT" => Forward::NAT,
        "DR" => Forward::DR,
        "TUN" => Forward::TUN,
        _ => return None,
    };
    let mut tunnel = Tunnel::default();
    while let Some(word) = words.next() {
        let place = |names: [&str; 3], word: &str| names.iter().position(|known| *known == word);
        match word {
            "type" => tunnel.kind = u8::try_from(place(Tunnel::KINDS, words.next()?)?).ok()?,
            "port" => tunnel.port = words.next()?.parse().ok()?,
            _ => tunnel.checksum = u16::try_from(place(Tunnel::CHECKSUMS, word)?).ok()?,
        }
    }
    Some((forward, tunnel))
}

/// A netmask, or for IPv6 a prefix length.
fn granularity(text: &str, family: Family) -> Option<u32> {
    match family {
        Family::Ipv6 => text.parse().ok().filter(|prefix| (1..=128).contains(prefix)),
        Family::Ipv4 => text.parse::<std::net::Ipv4Addr>().ok().map(u32::from),
    }
}

/// The addresses of `A`, `A-N`, `A-B` or `A/PREFIX`.
fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let wrong = || format!("`{}` is not an address or a range of addresses", shown(text));
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let start: IpAddr = first.parse().map_err(|_| wrong())?;
        let last = match last.parse::<IpAddr>() {
            Ok(last) if last.is_ipv4() == start.is_ipv4() => number(last),
            Ok(_) => return Err(wrong()),
            // The last part alone: decimal for IPv4, hexadecimal for IPv6.
            Err(_) if start.is_ipv4() => {
                number(start) & !0xff | u128::from(last.parse::<u8>().map_err(|_| wrong())?)
            }
            Err(_) => {
                number(start) & !0xffff | u128::from(u16::from_str_radix(last, 16).map_err(|_| wrong())?)
            }
        };
        (start, last)
    } else {
        let (first, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let start: IpAddr = first.parse().map_err(|_| wrong())?;
        let bits = u32::from(Family::of(start).host_prefix());
        let rest = bits.checked_sub(prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)?;
        let host = 1u128.checked_shl(rest).map_or(u128::MAX, |size| size - 1);
        (start, number(start) | host)
    };
    let start = number(first);
    match last.checked_sub(start) {
        None => Err(wrong()),
        Some(count) if count >= u128::from(MOST_ADDRESSES) => {
            Err(format!("the range `{}` has more than {MOST_ADDRESSES} addresses", shown(text)))
        }
        Some(_) => Ok((start..=last)
            .map(|value| match first {
                IpAddr::V4(_) => IpAddr::from(u32::try_from(value).unwrap_or(0).to_be_bytes()),
                IpAddr::V6(_) => IpAddr::from(value.to_be_bytes()),
            })
            .collect()),
    }
}
