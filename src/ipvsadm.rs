//! The language of ipvsadm(8): settings in its words, and settings from its words.
//!
//! Owns its options and defaults, the checks that ipvsadm 1.31 itself makes, and what the lines of a saved table make one
//! after the other. Leaves names of hosts and ports to `names`. Used by whoever prints a command, and by `import`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, anyhow, bail};

use crate::config::WantedService;
use crate::model::{
    DEFAULT_PERSISTENCE, DaemonState, Endpoint, Family, Forward, MAX_SECONDS, Protocol, RealServer,
    ServerKey, Servers, Service, ServiceKey, SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::names::Hosts;
use crate::text::{did_you_mean, shown};

/// At most this many lines are told at once.
const MAX_PROBLEMS: usize = 20;

/// Every command: its long name, its letters after a slash, and `=` when it takes a value.
const COMMANDS: &str = "add-service/A edit-service/E delete-service/D clear/C restore/R save/S add-server/a edit-server/e \
    delete-server/d list/Ll zero/Z set start-daemon= stop-daemon= help/h version/v";

/// Every other option, in the same way; `?` when it may have a value.
const OPTIONS: &str = "tcp-service/t= udp-service/u= sctp-service= fwmark-service/f= ipv6/6 scheduler/s= persistent/p? \
    netmask/M= pe= ops/o sched-flags/b= real-server/r= gatewaying/g ipip/i masquerading/m weight/w= u-threshold/x= \
    l-threshold/y= tun-type= tun-port= tun-nocsum tun-csum tun-remcsum mcast-interface= syncid= sync-maxlen= \
    mcast-group= mcast-port= mcast-ttl= numeric/n connection/c exact nosort sort timeout daemon stats rate thresholds \
    persistent-conn tun-info";

/// Forwarding methods: as they are written, and their long names.
const METHODS: [(Forward, &str, &str); 3] =
    [(Forward::DR, "-g", "gatewaying"), (Forward::TUN, "-i", "ipip"), (Forward::NAT, "-m", "masquerading")];

// Settings in ipvsadm's words.

impl ServiceKey {
    /// The words with which ipvsadm(8) names this service.
    pub fn ipvsadm(&self) -> String {
        match self {
            Self::Endpoint { address, port, protocol } => {
                let option = match *protocol {
                    Protocol::TCP => "-t".to_owned(),
                    Protocol::UDP => "-u".to_owned(),
                    other => format!("--{other}-service"),
                };
                format!("{option} {}", Endpoint { address: *address, port: *port })
            }
            Self::Fwmark { mark, family: Family::Ipv4 } => format!("-f {mark}"),
            Self::Fwmark { mark, family: Family::Ipv6 } => format!("-f {mark} -6"),
        }
    }
}

impl Service {
    /// The options with which ipvsadm(8) sets exactly this, after the service's name.
    pub fn ipvsadm(&self, family: Family) -> String {
        let mut words = format!("-s {}", self.scheduler);
        if self.is_persistent() {
            words += &format!(" -p {}", self.timeout);
            if self.netmask != Self::full_netmask(family) {
                words += &format!(" -M {}", self.netmask_text(family));
            }
        }
        if !self.engine.is_empty() {
            words += &format!(" --pe {}", self.engine);
        }
        if self.flags & service_flag::ONE_PACKET != 0 {
            words += " -o";
        }
        let flags = self.scheduler_flags();
        if !flags.is_empty() {
            words += &format!(" -b {}", flags.join(","));
        }
        words
    }
}

impl RealServer {
    /// The options with which ipvsadm(8) sets exactly this, after the server's name.
    pub fn ipvsadm(&self) -> String {
        let method = METHODS.iter().find(|(forward, ..)| *forward == self.forward);
        let mut words = format!("{} -w {}", method.map_or("(other)", |(_, option, _)| option), self.weight);
        if self.upper_threshold != 0 || self.lower_threshold != 0 {
            words += &format!(" -x {} -y {}", self.upper_threshold, self.lower_threshold);
        }
        if self.forward == Forward::TUN {
            words += &format!(" --tun-type {}", self.tunnel.kind_name());
            if self.tunnel.kind == 1 {
                words += &format!(" --tun-port {}", self.tunnel.port);
            }
            if self.tunnel.kind != 0 {
                words += &format!(" --tun-{}", self.tunnel.checksum_name());
            }
        }
        words
    }
}

impl SyncDaemon {
    /// ipvsadm's options for it.
    pub fn ipvsadm(&self) -> String {
        let options = [
            ("sync-maxlen", self.max_len.map(|value| value.to_string())),
            ("mcast-group", self.group.map(|value| value.to_string())),
            ("mcast-port", self.port.map(|value| value.to_string())),
            ("mcast-ttl", self.ttl.map(|value| value.to_string())),
        ];
        let mut words = format!("--mcast-interface {} --syncid {}", self.interface, self.id);
        for (name, value) in options {
            words += &value.map_or(String::new(), |value| format!(" --{name} {value}"));
        }
        words
    }
}

// Settings from ipvsadm's words.

/// What the lines of a saved table make.
#[derive(Debug, Default)]
pub struct Rules {
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// 0 where no line says anything
    pub timeouts: Timeouts,
    pub daemons: BTreeMap<DaemonState, SyncDaemon>,
}

impl Rules {
    /// Reads a save file whole: a line that is not understood would be a service lost.
    ///
    /// # Errors
    /// Every such line, with its number.
    pub fn read(name: &str, text: &str, hosts: &Hosts) -> anyhow::Result<Self> {
        let (mut rules, mut problems) = (Self::default(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            // ipvsadm-restore takes comments out.
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(why) = Line::split(line, hosts).and_then(|line| rules.carry_out(&line)) {
                problems.push(format!("{name}:{}: {why}\n    {}", number + 1, shown(line)));
            }
        }
        if problems.is_empty() {
            return Ok(rules);
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

    /// Does what ipvsadm would do to the kernel's table, and refuses what the kernel would refuse.
    fn carry_out(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        match line.command()? {
            command @ ("add-service" | "edit-service") => {
                let key = line.service_key()?;
                let settings = line.service(key.family())?;
                match (command, self.services.get_mut(&key)) {
                    ("add-service", Some(_)) => bail!("the service {key} exists already"),
                    ("add-service", None) => {
                        self.services.insert(key, WantedService { settings, servers: Servers::new() });
                    }
                    (_, found) => {
                        found.with_context(|| format!("there is no service {key}"))?.settings = settings
                    }
                }
            }
            "delete-service" => {
                let key = line.service_key()?;
                self.services.remove(&key).with_context(|| format!("there is no service {key}"))?;
            }
            command @ ("add-server" | "edit-server" | "delete-server") => {
                let (key, server, settings) = line.server()?;
                let servers = self.services.get_mut(&key).map(|service| &mut service.servers);
                let servers = servers.with_context(|| format!("there is no service {key} yet"))?;
                match (command, servers.contains_key(&server)) {
                    ("add-server", true) => bail!("the real server {server} of {key} exists already"),
                    ("edit-server" | "delete-server", false) => {
                        bail!("there is no real server {server} of {key}")
                    }
                    ("delete-server", true) => servers.remove(&server),
                    _ => servers.insert(server, settings),
                };
            }
            "clear" => self.services.clear(),
            "restore" => bail!("`-R` cannot stand in what it reads"),
            "set" => {
                let Timeouts { tcp, tcp_fin, udp } = &mut self.timeouts;
                for (known, word) in [tcp, tcp_fin, udp].into_iter().zip(&line.words) {
                    let new = number("--set", word, 0, MAX_SECONDS)?;
                    // 0 keeps what is set.
                    *known = if new == 0 { *known } else { new };
                }
            }
            "start-daemon" => {
                self.daemons.insert(line.daemon_state("start-daemon")?, line.daemon()?);
            }
            "stop-daemon" => {
                self.daemons.remove(&line.daemon_state("stop-daemon")?);
            }
            // The others only look at the table.
            _ => {}
        }
        Ok(())
    }
}

/// An option that ipvsadm knows.
struct Known {
    name: &'static str,
    letters: &'static str,
    /// `=` when it takes a value, `?` when it may have one
    value: Option<char>,
    is_command: bool,
}

fn known() -> impl Iterator<Item = Known> {
    let words = |list: &'static str, is_command| list.split_whitespace().map(move |word| (word, is_command));
    words(COMMANDS, true).chain(words(OPTIONS, false)).map(|(word, is_command)| {
        let value = word.chars().last().filter(|last| "=?".contains(*last));
        let name = word.trim_end_matches(['=', '?']);
        let (name, letters) = name.split_once('/').unwrap_or((name, ""));
        Known { name, letters, value, is_command }
    })
}

/// One command line.
struct Line<'a> {
    hosts: &'a Hosts,
    /// Its options with their values, in order
    given: Vec<(Known, Option<&'a str>)>,
    /// The words that are none
    words: Vec<&'a str>,
}

/// The options of a word, as popt(3) finds them, with the values attached to them: `--name=value`, `-At`, `-w3`.
fn options(word: &str) -> anyhow::Result<Vec<(Known, Option<&str>)>> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let option = known().find(|known| known.name == name).with_context(|| {
            let names: Vec<&str> = known().map(|known| known.name).collect();
            format!("ipvsadm has no option `--{}`{}", shown(name), did_you_mean(name, &names))
        })?;
        return Ok(vec![(option, value)]);
    }
    let (mut found, mut letters) = (Vec::new(), word.trim_start_matches('-').chars());
    while let Some(letter) = letters.next() {
        let option = known()
            .find(|known| known.letters.contains(letter))
            .with_context(|| format!("ipvsadm has no option `-{}`", shown(&letter.to_string())))?;
        let mut value = None;
        if option.value.is_some() {
            let attached = std::mem::replace(&mut letters, "".chars()).as_str();
            value = Some(attached.strip_prefix('=').unwrap_or(attached)).filter(|value| !value.is_empty());
        }
        found.push((option, value));
    }
    Ok(found)
}

impl<'a> Line<'a> {
    /// Tells options from values.
    fn split(text: &'a str, hosts: &'a Hosts) -> anyhow::Result<Self> {
        let mut line = Self { hosts, given: Vec::new(), words: Vec::new() };
        // ipvsadm's own reader knows blanks, and no quotes (config_stream.c).
        let mut rest = text.split_whitespace().peekable();
        rest.next_if_eq(&"ipvsadm");
        while let Some(word) = rest.next() {
            if word == "-" || !word.starts_with('-') {
                line.words.push(word);
                continue;
            }
            for (option, attached) in options(word)? {
                let value = match (option.value, attached) {
                    (None, Some(_)) => bail!("--{} takes no value", option.name),
                    (None, None) | (_, Some(_)) => attached,
                    (Some('?'), None) => rest.next_if(|next| !next.starts_with('-')),
                    // A mark can be negative; any other value that looks like an option is left to its own check.
                    _ => Some(rest.next().with_context(|| format!("--{} lacks its value", option.name))?),
                };
                line.given.push((option, value));
            }
        }
        Ok(line)
    }

    /// The one command of the line.
    fn command(&self) -> anyhow::Result<&'static str> {
        let mut commands = self.given.iter().filter(|(option, _)| option.is_command);
        let command = match (commands.next(), commands.next()) {
            // As ipvsadm alone.
            (None, _) if self.given.is_empty() && self.words.is_empty() => "list",
            (None, _) => bail!("there is no command such as -A or -a"),
            (Some((command, _)), None) => command.name,
            (Some((one, _)), Some((other, _))) => {
                bail!("--{} and --{} cannot be had together", one.name, other.name)
            }
        };
        match self.words.as_slice() {
            [_, _, _] if command == "set" => Ok(command),
            _ if command == "set" => bail!("--set takes three numbers: tcp, tcpfin and udp"),
            [word, ..] => Err(wrong(word, "is unexpected")),
            [] => Ok(command),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(option, _)| option.name == name)
    }

    /// The value of an option; of several the last, as with ipvsadm.
    fn value(&self, name: &str) -> Option<&'a str> {
        self.given.iter().rev().find(|(option, _)| option.name == name).and_then(|(_, value)| *value)
    }

    fn number<T: TryFrom<u32>>(&self, name: &str, least: u32, most: u32) -> anyhow::Result<Option<T>> {
        self.value(name).map(|text| number(&format!("--{name}"), text, least, most)).transpose()
    }

    fn service_key(&self) -> anyhow::Result<ServiceKey> {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            if let Some(text) = self.value(&format!("{protocol}-service")) {
                let (address, port) = self.endpoint(text, protocol)?;
                return Ok(ServiceKey::Endpoint { address, port: port.unwrap_or(0), protocol });
            }
        }
        let text =
            self.value("fwmark-service").context("there is no service: -t, -u, --sctp-service or -f")?;
        // `ipvsadm -S` prints marks from 2^31 as negative numbers.
        let signed = || text.parse::<i32>().map(|mark| u32::from_ne_bytes(mark.to_ne_bytes()));
        let mark = text.parse().or_else(|_| signed()).ok().filter(|mark| *mark != 0);
        let mark = mark.ok_or_else(|| wrong(text, "is not a firewall mark: 1 to 4294967295"))?;
        Ok(ServiceKey::Fwmark { mark, family: if self.has("ipv6") { Family::Ipv6 } else { Family::Ipv4 } })
    }

    fn service(&self, family: Family) -> anyhow::Result<Service> {
        let mut service = Service {
            scheduler: self.value("scheduler").unwrap_or("wlc").to_owned(),
            flags: 0,
            timeout: 0,
            netmask: Service::full_netmask(family),
            engine: self.value("pe").unwrap_or_default().to_owned(),
        };
        if self.has("persistent") {
            service.flags |= service_flag::PERSISTENT;
            service.timeout = self.number("persistent", 1, MAX_SECONDS)?.unwrap_or(DEFAULT_PERSISTENCE);
        }
        if let Some(text) = self.value("netmask") {
            if !service.is_persistent() {
                bail!("--netmask needs --persistent");
            }
            service.netmask = match family {
                Family::Ipv4 => {
                    let mask = text.parse::<Ipv4Addr>().map(u32::from);
                    mask.map_err(|_| wrong(text, "is not a netmask, as in 255.255.255.0"))?
                }
                Family::Ipv6 => number("--netmask", text, 1, 128)?,
            };
        }
        if self.has("ops") {
            service.flags |= service_flag::ONE_PACKET;
        }
        for name in self.value("sched-flags").into_iter().flat_map(|list| list.split(',')) {
            service.flags |= service.scheduler_flag(name).with_context(|| {
                format!("the scheduler {} has no flag `{}`", shown(&service.scheduler), shown(name))
            })?;
        }
        Ok(service)
    }

    fn server(&self) -> anyhow::Result<(ServiceKey, ServerKey, RealServer)> {
        let service = self.service_key()?;
        let (protocol, service_port) = match service {
            ServiceKey::Endpoint { protocol, port, .. } => (protocol, port),
            ServiceKey::Fwmark { .. } => (Protocol::TCP, 0),
        };
        let text = self.value("real-server").context("there is no real server: -r")?;
        let (address, port) = self.endpoint(text, protocol)?;
        let mut chosen = METHODS.iter().filter(|(.., name)| self.has(name));
        let forward = chosen.next().map_or(Forward::DR, |(forward, ..)| *forward);
        if chosen.next().is_some() {
            bail!("only one of -g, -i and -m can be had");
        }
        let port = match (service, port) {
            // As ipvsadm does, whatever the line says: such a packet keeps its port.
            (ServiceKey::Endpoint { .. }, _) if forward != Forward::NAT => service_port,
            (_, port) => port.unwrap_or(service_port),
        };
        let most = i32::MAX.unsigned_abs();
        let settings = RealServer {
            forward,
            weight: self.number("weight", 0, most)?.unwrap_or(1),
            upper_threshold: self.number("u-threshold", 0, most)?.unwrap_or(0),
            lower_threshold: self.number("l-threshold", 0, most)?.unwrap_or(0),
            tunnel: if forward == Forward::TUN { self.tunnel()? } else { Tunnel::default() },
        };
        Ok((service, Endpoint { address, port }, settings))
    }

    fn tunnel(&self) -> anyhow::Result<Tunnel> {
        let kind = self.value("tun-type").unwrap_or("ipip");
        let place = Tunnel::KINDS.iter().position(|known| *known == kind);
        let place = place.ok_or_else(|| wrong(kind, "is not a tunnel type: ipip, gue, gre"))?;
        let checksum = Tunnel::CHECKSUMS.iter().rposition(|name| self.has(&format!("tun-{name}")));
        Ok(Tunnel {
            kind: place.try_into()?,
            port: self.number("tun-port", 1, 65535)?.unwrap_or(0),
            checksum: checksum.unwrap_or(0).try_into()?,
        })
    }

    fn daemon_state(&self, command: &str) -> anyhow::Result<DaemonState> {
        match self.value(command).unwrap_or_default() {
            "master" => Ok(DaemonState::Master),
            "backup" => Ok(DaemonState::Backup),
            other => Err(wrong(other, "is neither master nor backup")),
        }
    }

    fn daemon(&self) -> anyhow::Result<SyncDaemon> {
        let group = self.value("mcast-group");
        let group = group.map(|text| text.parse().map_err(|_| wrong(text, "is not a multicast address")));
        Ok(SyncDaemon {
            interface: self.value("mcast-interface").unwrap_or("eth0").to_owned(),
            id: self.number("syncid", 0, 255)?.unwrap_or(0),
            max_len: self.number("sync-maxlen", 1, 65535)?,
            group: group.transpose()?,
            port: self.number("mcast-port", 1, 65535)?,
            ttl: self.number("mcast-ttl", 1, 255)?,
        })
    }

    /// Reads `HOST`, `HOST:PORT`, `[V6]` and `[V6]:PORT` as ipvsadm does (`parse_service` in `ipvsadm.c`).
    fn endpoint(&self, text: &str, protocol: Protocol) -> anyhow::Result<(IpAddr, Option<u16>)> {
        let (host, port) = if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or_else(|| wrong(text, "lacks its `]`"))?;
            match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err(wrong(text, "has no `:PORT` after its `]`")),
                port => (host, port),
            }
        } else if text.parse::<IpAddr>().is_ok() {
            (text, None)
        } else {
            text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map(|port| self.hosts.port(port, protocol)).transpose()?;
        Ok((self.hosts.address(host, text.starts_with('['))?, port))
    }
}

fn number<T: TryFrom<u32>>(what: &str, text: &str, least: u32, most: u32) -> anyhow::Result<T> {
    let value = text.parse().ok().filter(|value| (least..=most).contains(value));
    value
        .and_then(|value| T::try_from(value).ok())
        .with_context(|| format!("{what}: `{}` is not a number from {least} to {most}", shown(text)))
}

fn wrong(text: &str, why: &str) -> anyhow::Error {
    anyhow!("`{}` {why}", shown(text))
}
