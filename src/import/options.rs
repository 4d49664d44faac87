//! One ipvsadm command line, as ipvsadm 1.31 reads it.
//!
//! Owns its options, short and long, their defaults and the checks that ipvsadm itself makes; gives a typed
//! [`Command`]. Leaves what the command does to a table to `ipvsadm`. Called by `ipvsadm` and `script`.

use std::net::{IpAddr, Ipv4Addr};

use super::shown;
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::names::Hosts;
use crate::text::did_you_mean;

/// `-p` without a number: `IPVS_SVC_PERSISTENT_TIMEOUT`, whatever the manual says.
const PERSISTENCE: u32 = 360;
/// The longest timeout, `MAX_TIMEOUT` of ipvsadm: 31 days.
const MAX_SECONDS: u32 = 31 * 24 * 3600;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    AddService(ServiceKey, Service),
    EditService(ServiceKey, Service),
    DeleteService(ServiceKey),
    AddServer(ServiceKey, ServerKey, RealServer),
    EditServer(ServiceKey, ServerKey, RealServer),
    DeleteServer(ServiceKey, ServerKey),
    Clear,
    /// `-R`: the commands are on its standard input
    Restore,
    Timeouts(Timeouts),
    StartDaemon(DaemonState, SyncDaemon),
    StopDaemon(DaemonState),
    /// `-L`, `-S`, `-Z`, `-h`, `-v`: the table stays as it is
    Look,
}

/// Whether an option takes a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Optional,
    Required,
}

use Value::{None as Bare, Optional, Required};

/// Long name, letter, value. Commands come first.
const OPTIONS: [(&str, Option<char>, Value); 52] = [
    ("add-service", Some('A'), Bare),
    ("edit-service", Some('E'), Bare),
    ("delete-service", Some('D'), Bare),
    ("clear", Some('C'), Bare),
    ("restore", Some('R'), Bare),
    ("save", Some('S'), Bare),
    ("add-server", Some('a'), Bare),
    ("edit-server", Some('e'), Bare),
    ("delete-server", Some('d'), Bare),
    ("list", Some('L'), Bare),
    ("list", Some('l'), Bare),
    ("zero", Some('Z'), Bare),
    ("set", None, Bare),
    ("start-daemon", None, Required),
    ("stop-daemon", None, Required),
    ("help", Some('h'), Bare),
    ("version", Some('v'), Bare),
    ("tcp-service", Some('t'), Required),
    ("udp-service", Some('u'), Required),
    ("sctp-service", None, Required),
    ("fwmark-service", Some('f'), Required),
    ("ipv6", Some('6'), Bare),
    ("scheduler", Some('s'), Required),
    ("persistent", Some('p'), Optional),
    ("netmask", Some('M'), Required),
    ("pe", None, Required),
    ("ops", Some('o'), Bare),
    ("sched-flags", Some('b'), Required),
    ("real-server", Some('r'), Required),
    ("gatewaying", Some('g'), Bare),
    ("ipip", Some('i'), Bare),
    ("masquerading", Some('m'), Bare),
    ("weight", Some('w'), Required),
    ("u-threshold", Some('x'), Required),
    ("l-threshold", Some('y'), Required),
    ("tun-type", None, Required),
    ("tun-port", None, Required),
    ("tun-nocsum", None, Bare),
    ("tun-csum", None, Bare),
    ("tun-remcsum", None, Bare),
    ("mcast-interface", None, Required),
    ("syncid", None, Required),
    ("sync-maxlen", None, Required),
    ("mcast-group", None, Required),
    ("mcast-port", None, Required),
    ("mcast-ttl", None, Required),
    ("numeric", Some('n'), Bare),
    ("connection", Some('c'), Bare),
    ("exact", None, Bare),
    ("nosort", None, Bare),
    ("sort", None, Bare),
    ("timeout", None, Bare),
];

/// More options of `-L`, which change nothing.
const LISTING: [&str; 6] = ["daemon", "stats", "rate", "thresholds", "persistent-conn", "tun-info"];

/// The options of a line in its order, and the words that are none.
#[derive(Default)]
struct Line {
    given: Vec<(&'static str, Option<String>)>,
    words: Vec<String>,
}

/// Reads the words after `ipvsadm`.
///
/// # Errors
/// What is wrong, in words that go after the line's number.
pub fn parse(words: &[String], hosts: &Hosts) -> Result<Command, String> {
    let line = Line::split(words)?;
    let commands: Vec<&str> =
        line.given.iter().map(|(name, _)| *name).filter(|name| is_command(name)).collect();
    let command = match commands.as_slice() {
        [] if line.given.is_empty() && line.words.is_empty() => return Ok(Command::Look),
        [] => return Err("there is no command such as -A or -a".to_owned()),
        [command] => *command,
        [one, other, ..] => return Err(format!("--{one} and --{other} cannot be had together")),
    };
    if let Some(word) = line.words.first().filter(|_| command != "set") {
        return Err(format!("`{}` is unexpected", shown(word)));
    }
    Ok(match command {
        "add-service" => Command::AddService(line.service_key(hosts)?, line.service(hosts)?),
        "edit-service" => Command::EditService(line.service_key(hosts)?, line.service(hosts)?),
        "delete-service" => Command::DeleteService(line.service_key(hosts)?),
        "add-server" => {
            let (service, key, new) = line.server(hosts)?;
            Command::AddServer(service, key, new)
        }
        "edit-server" => {
            let (service, key, new) = line.server(hosts)?;
            Command::EditServer(service, key, new)
        }
        "delete-server" => {
            let (service, key, _) = line.server(hosts)?;
            Command::DeleteServer(service, key)
        }
        "clear" => Command::Clear,
        "restore" => Command::Restore,
        "set" => Command::Timeouts(line.timeouts()?),
        "start-daemon" => Command::StartDaemon(line.state(command)?, line.daemon()?),
        "stop-daemon" => Command::StopDaemon(line.state(command)?),
        _ => Command::Look,
    })
}

fn is_command(name: &str) -> bool {
    OPTIONS.iter().position(|(known, ..)| *known == name).is_some_and(|place| place < 17)
}

impl Line {
    /// Tells options from values as popt(3) does: `--name value`, `--name=value`, `-At value`, `-w3`.
    fn split(words: &[String]) -> Result<Self, String> {
        let mut line = Self::default();
        let mut rest = words.iter().peekable();
        while let Some(word) = rest.next() {
            if let Some(long) = word.strip_prefix("--") {
                let (name, inline) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if LISTING.contains(&name) {
                    continue;
                }
                let Some((name, _, value)) = OPTIONS.iter().find(|(known, ..)| *known == name) else {
                    let names: Vec<&str> = OPTIONS.iter().map(|(known, ..)| *known).collect();
                    return Err(format!(
                        "ipvsadm has no option `--{}`{}",
                        shown(name),
                        did_you_mean(name, &names)
                    ));
                };
                let value = take(name, *value, inline, &mut rest)?;
                line.given.push((name, value));
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                let mut letters = letters.chars();
                while let Some(letter) = letters.next() {
                    let Some((name, _, value)) = OPTIONS.iter().find(|(_, known, _)| *known == Some(letter))
                    else {
                        return Err(format!("ipvsadm has no option `-{}`", shown(&letter.to_string())));
                    };
                    let mut inline = None;
                    if *value != Bare {
                        let attached = letters.as_str();
                        let attached = attached.strip_prefix('=').unwrap_or(attached);
                        inline = (!attached.is_empty()).then(|| attached.to_owned());
                        letters = "".chars();
                    }
                    let value = take(name, *value, inline, &mut rest)?;
                    line.given.push((name, value));
                }
            } else {
                line.words.push(word.clone());
            }
        }
        Ok(line)
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(known, _)| *known == name)
    }

    /// The value of an option; of several the last, as with ipvsadm.
    fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref())
    }

    fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, String> {
        self.value(name).map(|text| number(&format!("--{name}"), text, least, most)).transpose()
    }

    fn service_key(&self, hosts: &Hosts) -> Result<ServiceKey, String> {
        for (name, protocol) in
            [("tcp-service", Protocol::TCP), ("udp-service", Protocol::UDP), ("sctp-service", Protocol::SCTP)]
        {
            if let Some(text) = self.value(name) {
                let (address, port) = endpoint(hosts, text, protocol)?;
                return Ok(ServiceKey::Endpoint { address, port: port.unwrap_or(0), protocol });
            }
        }
        let Some(text) = self.value("fwmark-service") else {
            return Err("there is no service: -t, -u, --sctp-service or -f".to_owned());
        };
        let family = if self.has("ipv6") { Family::Ipv6 } else { Family::Ipv4 };
        // `ipvsadm -S` prints marks from 2^31 as negative numbers.
        let mark = match text.parse::<i64>() {
            Ok(mark @ 1..) => u32::try_from(mark).ok(),
            Ok(mark) if mark != 0 && mark >= i64::from(i32::MIN) => u32::try_from(mark & 0xffff_ffff).ok(),
            _ => None,
        };
        let mark =
            mark.ok_or_else(|| format!("`{}` is not a firewall mark: 1 to 4294967295", shown(text)))?;
        Ok(ServiceKey::Fwmark { mark, family })
    }

    fn service(&self, hosts: &Hosts) -> Result<Service, String> {
        let family = self.service_key(hosts)?.family();
        let mut service = Service {
            scheduler: self.value("scheduler").unwrap_or("wlc").to_owned(),
            flags: 0,
            timeout: 0,
            netmask: Service::full_netmask(family),
            engine: self.value("pe").unwrap_or_default().to_owned(),
        };
        if self.has("persistent") {
            service.flags |= service_flag::PERSISTENT;
            service.timeout = self.number("persistent", 1, MAX_SECONDS)?.unwrap_or(PERSISTENCE);
        }
        if let Some(text) = self.value("netmask") {
            if !self.has("persistent") {
                return Err("--netmask needs --persistent".to_owned());
            }
            service.netmask = match family {
                Family::Ipv4 => text
                    .parse::<Ipv4Addr>()
                    .map(u32::from)
                    .map_err(|_| format!("`{}` is not a netmask, as in 255.255.255.0", shown(text)))?,
                Family::Ipv6 => number("--netmask", text, 1, 128)?,
            };
        }
        if self.has("ops") {
            service.flags |= service_flag::ONE_PACKET;
        }
        for name in self.value("sched-flags").into_iter().flat_map(|list| list.split(',')) {
            service.flags |= match (name, service.scheduler.as_str()) {
                ("flag-1", _) | ("sh-fallback", "sh") | ("mh-fallback", "mh") => service_flag::SCHED1,
                ("flag-2", _) | ("sh-port", "sh") | ("mh-port", "mh") => service_flag::SCHED2,
                ("flag-3", _) => service_flag::SCHED3,
                (_, scheduler) => {
                    return Err(format!("the scheduler {} has no flag `{}`", shown(scheduler), shown(name)));
                }
            };
        }
        Ok(service)
    }

    fn server(&self, hosts: &Hosts) -> Result<(ServiceKey, ServerKey, RealServer), String> {
        let service = self.service_key(hosts)?;
        let (protocol, service_port) = match service {
            ServiceKey::Endpoint { protocol, port, .. } => (protocol, port),
            ServiceKey::Fwmark { .. } => (Protocol::TCP, 0),
        };
        let text = self.value("real-server").ok_or("there is no real server: -r")?;
        let (address, port) = endpoint(hosts, text, protocol)?;
        let chosen: Vec<Forward> = self.given.iter().filter_map(|(name, _)| forward(name)).collect();
        let forward = match chosen.as_slice() {
            [] => Forward::DR,
            [one] => *one,
            _ => return Err("only one of -g, -i and -m can be had".to_owned()),
        };
        let mut port = port.unwrap_or(service_port);
        if forward != Forward::NAT && matches!(service, ServiceKey::Endpoint { .. }) {
            // As ipvsadm does, whatever the line says: such a packet keeps its port.
            port = service_port;
        }
        let most = i32::MAX.unsigned_abs();
        let mut tunnel = Tunnel::default();
        if forward == Forward::TUN {
            tunnel = self.tunnel()?;
        }
        let settings = RealServer {
            forward,
            weight: self.number("weight", 0, most)?.unwrap_or(1),
            upper_threshold: self.number("u-threshold", 0, most)?.unwrap_or(0),
            lower_threshold: self.number("l-threshold", 0, most)?.unwrap_or(0),
            tunnel,
        };
        Ok((service, Endpoint { address, port }, settings))
    }

    fn tunnel(&self) -> Result<Tunnel, String> {
        let kind = self.value("tun-type").unwrap_or("ipip");
        let place = Tunnel::KINDS.iter().position(|known| *known == kind);
        let kind = place
            .and_then(|place| u8::try_from(place).ok())
            .ok_or_else(|| format!("`{}` is not a tunnel type: {}", shown(kind), Tunnel::KINDS.join(", ")))?;
        let port = self.number("tun-port", 1, 65535)?.unwrap_or(0);
        let checksum = match (self.has("tun-remcsum"), self.has("tun-csum")) {
            (true, _) => 2,
            (_, true) => 1,
            _ => 0,
        };
        Ok(Tunnel { kind, port: u16::try_from(port).unwrap_or(0), checksum })
    }

    fn timeouts(&self) -> Result<Timeouts, String> {
        let [tcp, tcp_fin, udp] = self.words.as_slice() else {
            return Err("--set takes three numbers: tcp, tcpfin and udp".to_owned());
        };
        let read = |text: &String| number("--set", text, 0, MAX_SECONDS);
        Ok(Timeouts { tcp: read(tcp)?, tcp_fin: read(tcp_fin)?, udp: read(udp)? })
    }

    fn state(&self, command: &str) -> Result<DaemonState, String> {
        match self.value(command) {
            Some("master") => Ok(DaemonState::Master),
            Some("backup") => Ok(DaemonState::Backup),
            other => Err(format!("`{}` is neither master nor backup", shown(other.unwrap_or_default()))),
        }
    }

    fn daemon(&self) -> Result<SyncDaemon, String> {
        let group = match self.value("mcast-group") {
            Some(text) => Some(
                text.parse::<IpAddr>()
                    .map_err(|_| format!("`{}` is not a multicast address", shown(text)))?,
            ),
            None => None,
        };
        let short = |value: Option<u32>| value.and_then(|value| u16::try_from(value).ok());
        let byte = |value: Option<u32>| value.and_then(|value| u8::try_from(value).ok());
        Ok(SyncDaemon {
            interface: self.value("mcast-interface").unwrap_or("eth0").to_owned(),
            id: byte(self.number("syncid", 0, 255)?).unwrap_or(0),
            max_len: short(self.number("sync-maxlen", 1, 65535)?),
            group,
            port: short(self.number("mcast-port", 1, 65535)?),
            ttl: byte(self.number("mcast-ttl", 1, 255)?),
        })
    }
}

/// The value of an option: attached, or the next word.
fn take<'w>(
    name: &str,
    value: Value,
    inline: Option<String>,
    rest: &mut std::iter::Peekable<impl Iterator<Item = &'w String>>,
) -> Result<Option<String>, String> {
    match (value, inline) {
        (Bare, Some(_)) => Err(format!("--{name} takes no value")),
        (Bare, None) => Ok(None),
        (_, Some(text)) => Ok(Some(text)),
        (Optional, None) => Ok(rest.next_if(|next| !next.starts_with('-')).cloned()),
        // A mark can be negative; any other value that looks like an option is left to its own check.
        (Required, None) => rest.next().cloned().map(Some).ok_or_else(|| format!("--{name} lacks its value")),
    }
}

fn forward(name: &str) -> Option<Forward> {
    match name {
        "gatewaying" => Some(Forward::DR),
        "ipip" => Some(Forward::TUN),
        "masquerading" => Some(Forward::NAT),
        _ => None,
    }
}

fn number(what: &str, text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("{what}: `{}` is not a number from {least} to {most}", shown(text)))
}

/// Reads `HOST`, `HOST:PORT`, `[V6]` and `[V6]:PORT` as ipvsadm does (`parse_service` in `ipvsadm.c`).
fn endpoint(hosts: &Hosts, text: &str, protocol: Protocol) -> Result<(IpAddr, Option<u16>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or_else(|| format!("`{}` lacks its `]`", shown(text)))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(hosts.port(port, protocol)?),
            None if rest.is_empty() => None,
            None => return Err(format!("`{}` has no `:PORT` after its `]`", shown(text))),
        };
        return Ok((hosts.address(host, true)?, port));
    }
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((hosts.address(host, false)?, Some(hosts.port(port, protocol)?))),
        None => Ok((hosts.address(text, false)?, None)),
    }
}
