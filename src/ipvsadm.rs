//! The language of ipvsadm(8): settings in its words, and settings from what it saves.
//!
//! Owns its options, and the lines of `ipvsadm -S` as versions 1.28 to 1.31 write them (`print_service_entry` in
//! `ipvsadm.c`): few options, always in the same order. What else ipvsadm understands is left to ipvsadm itself, which
//! `import --run` lets read it. Leaves names of hosts and ports to `names`, and what a setting may be to the
//! desired-state file's rules. Used by whoever prints a command, and by `import`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::Ipv4Addr;
use std::str::{FromStr, SplitWhitespace};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};

use crate::config::WantedService;
use crate::model::{
    Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon, Tunnel,
    service_flag,
};
use crate::names::{self, Ask};
use crate::text::shown;

const REMEDY: &str = "nothing was written: only what `ipvsadm -S` writes is read here. Let ipvsadm itself read such a file, given with its full path and not in /tmp or /run: `lvs-notify import --run sh -c 'ipvsadm -R </FILE'`; or use `--from kernel` where the table is loaded";

/// Services that have an address.
const PROTOCOLS: [(Protocol, &str); 3] =
    [(Protocol::TCP, "-t"), (Protocol::UDP, "-u"), (Protocol::SCTP, "--sctp-service")];

const METHODS: [(Forward, &str); 3] = [(Forward::DR, "-g"), (Forward::TUN, "-i"), (Forward::NAT, "-m")];

impl ServiceKey {
    /// The words with which ipvsadm(8) names this service.
    pub fn ipvsadm(&self) -> String {
        match self {
            Self::Endpoint { address, port, protocol } => {
                let known = PROTOCOLS.iter().find(|(known, _)| known == protocol);
                let option = known.map_or(format!("--{protocol}-service"), |(_, option)| option.to_string());
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
            let masked = self.netmask != Self::full_netmask(family);
            words.extend(masked.then(|| format!(" -M {}", self.netmask_text(family))));
        }
        words.extend((!self.engine.is_empty()).then(|| format!(" --pe {}", self.engine)));
        words.extend((self.flags & service_flag::ONE_PACKET != 0).then_some(" -o"));
        let flags = self.scheduler_flags();
        words.extend((!flags.is_empty()).then(|| format!(" -b {}", flags.join(","))));
        words
    }
}

impl RealServer {
    /// The options with which ipvsadm(8) sets exactly this, after the server's name.
    pub fn ipvsadm(&self) -> String {
        let method = METHODS.iter().find(|(forward, _)| *forward == self.forward);
        let mut words = format!("{} -w {}", method.map_or("(other)", |(_, option)| option), self.weight);
        let (upper, lower, tunnel) = (self.upper_threshold, self.lower_threshold, &self.tunnel);
        words.extend((upper != 0 || lower != 0).then(|| format!(" -x {upper} -y {lower}")));
        if self.forward == Forward::TUN {
            words += &format!(" --tun-type {}", tunnel.kind_name());
            words.extend((tunnel.kind == Tunnel::GUE).then(|| format!(" --tun-port {}", tunnel.port)));
            words.extend((tunnel.kind != Tunnel::IPIP).then(|| format!(" --tun-{}", tunnel.checksum_name())));
        }
        words
    }
}

impl SyncDaemon {
    pub fn ipvsadm(&self) -> String {
        let mut words = format!("--mcast-interface {} --syncid {}", self.interface, self.id);
        words.extend(self.max_len.map(|value| format!(" --sync-maxlen {value}")));
        words.extend(self.group.map(|value| format!(" --mcast-group {value}")));
        words.extend(self.port.map(|value| format!(" --mcast-port {value}")));
        words.extend(self.ttl.map(|value| format!(" --mcast-ttl {value}")));
        words
    }
}

/// Reads a save file whole, or tells every line that is not understood, with its number: it would be a service lost.
pub fn read(name: &str, text: &str, ask: Ask) -> anyhow::Result<BTreeMap<ServiceKey, WantedService>> {
    let (mut services, mut problems) = (BTreeMap::new(), Vec::new());
    // Distributions' files of saved rules begin with comments, which ipvsadm-restore takes out.
    let nothing = |line: &str| line.is_empty() || line.starts_with('#');
    for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !nothing(line)) {
        if let Err(why) = (Line { ask, words: line.split_whitespace().peekable() }).add_to(&mut services) {
            problems.push(format!("{name}:{}: {why}\n    {}", number + 1, shown(line)));
        }
    }
    if problems.is_empty() {
        return Ok(services);
    }
    // Nobody reads more at once.
    problems.truncate(20);
    bail!("{}\n{REMEDY}", problems.join("\n"))
}

/// What is left to read of a line.
struct Line<'a> {
    ask: Ask,
    words: Peekable<SplitWhitespace<'a>>,
}

impl Line<'_> {
    fn add_to(mut self, services: &mut BTreeMap<ServiceKey, WantedService>) -> anyhow::Result<()> {
        let command = self.words.next_if(|word| ["-A", "-a"].contains(word));
        let command = command.ok_or_else(|| self.other_than("-A or -a"))?;
        let key = self.service_key()?;
        if command == "-A" {
            let settings = self.service(key.family())?;
            if services.insert(key, WantedService { settings, servers: Arc::default() }).is_some() {
                bail!("the service {key} is there already");
            }
        } else {
            let (server, settings) = self.server(key)?;
            let service = services.get_mut(&key).with_context(|| format!("there is no service {key} yet"))?;
            if Arc::make_mut(&mut service.servers).insert(server, settings).is_some() {
                bail!("the real server {server} of {key} is there already");
            }
        }
        match self.words.next() {
            Some(word) => bail!("`{}` is not what `ipvsadm -S` writes there", shown(word)),
            None => Ok(()),
        }
    }

    /// The value of an option, if that comes next.
    fn option<T: FromStr>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        if self.words.next_if_eq(&name).is_none() {
            return Ok(None);
        }
        let text = self.words.next().with_context(|| format!("`{name}` lacks its value"))?;
        text.parse().map(Some).map_err(|_| anyhow!("`{}` is no value of `{name}`", shown(text)))
    }

    /// The value of the option that must come next.
    fn required<T: FromStr>(&mut self, name: &str) -> anyhow::Result<T> {
        self.option(name)?.ok_or_else(|| self.other_than(name))
    }

    fn other_than(&mut self, expected: &str) -> anyhow::Error {
        match self.words.peek() {
            Some(word) => anyhow!("`{}` stands where `ipvsadm -S` writes {expected}", shown(word)),
            None => anyhow!("the line ends where `ipvsadm -S` writes {expected}"),
        }
    }

    fn service_key(&mut self) -> anyhow::Result<ServiceKey> {
        for (protocol, option) in PROTOCOLS {
            if let Some(text) = self.option::<String>(option)? {
                let Endpoint { address, port } = names::endpoint(&text, protocol, self.ask)?;
                return Ok(ServiceKey::Endpoint { address, port, protocol });
            }
        }
        let text: Option<String> = self.option("-f")?;
        let text = text.ok_or_else(|| self.other_than("-t, -u, --sctp-service or -f"))?;
        // Up to 1.30, marks from 2^31 are printed as negative numbers.
        let mark = text.parse().or_else(|_| text.parse::<i32>().map(|mark| mark as u32));
        let mark = mark.map_err(|_| anyhow!("`{}` is not a firewall mark", shown(&text)))?;
        let ipv6 = self.words.next_if_eq(&"-6").is_some();
        Ok(ServiceKey::Fwmark { mark, family: if ipv6 { Family::Ipv6 } else { Family::Ipv4 } })
    }

    fn service(&mut self, family: Family) -> anyhow::Result<Service> {
        let mut service = Service::plain(&self.required::<String>("-s")?, family);
        if let Some(timeout) = self.option("-p")? {
            service.timeout = timeout;
            service.flags |= service_flag::PERSISTENT;
            let netmask = match family {
                Family::Ipv4 => self.option::<Ipv4Addr>("-M")?.map(u32::from),
                Family::Ipv6 => self.option("-M")?,
            };
            service.netmask = netmask.unwrap_or(service.netmask);
        }
        service.engine = self.option("--pe")?.unwrap_or_default();
        if self.words.next_if_eq(&"-o").is_some() {
            service.flags |= service_flag::ONE_PACKET;
        }
        for name in self.option::<String>("-b")?.iter().flat_map(|list| list.split(',')) {
            service.flags |= service.scheduler_flag(name).with_context(|| {
                format!("the scheduler {} has no flag `{}`", shown(&service.scheduler), shown(name))
            })?;
        }
        Ok(service)
    }

    fn server(&mut self, service: ServiceKey) -> anyhow::Result<(ServerKey, RealServer)> {
        let protocol = match service {
            ServiceKey::Endpoint { protocol, .. } => protocol,
            ServiceKey::Fwmark { .. } => Protocol::TCP,
        };
        let name: String = self.required("-r")?;
        let server = names::endpoint(&name, protocol, self.ask)?;
        let method = METHODS.iter().find(|(_, option)| self.words.next_if_eq(option).is_some());
        let (forward, _) = *method.ok_or_else(|| self.other_than("-m, -g or -i"))?;
        let weight = self.required("-w")?;
        let mut tunnel = Tunnel::default();
        if let Some(text) = self.option::<String>("--tun-type")? {
            let kind = Tunnel::KINDS.iter().position(|kind| *kind == text);
            tunnel.kind =
                kind.with_context(|| format!("`{}` is not a tunnel type", shown(&text)))?.try_into()?;
        }
        tunnel.port = self.option("--tun-port")?.unwrap_or(0);
        let checksum = |name: &&str| self.words.next_if(|word| *word == format!("--tun-{name}")).is_some();
        tunnel.checksum = Tunnel::CHECKSUMS.iter().position(checksum).unwrap_or(0).try_into()?;
        Ok((server, RealServer { forward, weight, upper_threshold: 0, lower_threshold: 0, tunnel }))
    }
}
