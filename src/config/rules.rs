//! The rules of a desired-state file: every value is legal, and every rule between values holds.
//!
//! Owns values, defaults and what excludes what. Does no input or output: takes a document, gives all problems at once or
//! the meaning. Called through `Config::parse`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::document::{self as raw, Document, ShortOr};
use super::notation::{parse_duration, parse_endpoint};
use super::parameters::IPVS_PARAMETERS;
use super::source::{Invalid, Location, Problem, Source};
use super::{Arp, Config, Vip, WantedService};
use crate::model::{
    DEFAULT_PERSISTENCE, Endpoint, Family, Forward, MAX_SECONDS, Protocol, RealServer, SCHEDULER_FLAGS,
    ServerKey, Servers, Service, ServiceKey, SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::text::did_you_mean;

impl Config {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// [`Invalid`], with every problem in its place.
    pub fn parse(source: &Source) -> Result<Self, Invalid> {
        Self::try_from(&source.document()?).map_err(|problems| source.explain(&problems))
    }
}

impl TryFrom<&Document> for Config {
    type Error = Vec<Problem>;

    fn try_from(document: &Document) -> Result<Self, Vec<Problem>> {
        let problems = RefCell::default();
        let config = At { problems: &problems, way: None }.document(document);
        let problems = problems.into_inner();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

/// A place in the document, at which values are checked. Each rule gives a value, right or not, so that all the others
/// are checked as well.
struct At<'a> {
    problems: &'a RefCell<Vec<Problem>>,
    /// The place around it, and the key or the index that leads from there to here
    way: Option<(&'a At<'a>, Cow<'a, str>)>,
}

/// Stands for the address of a VIP or a service that is wrong.
const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What real servers' numbers may be: kernel ints, in which larger values are negative.
pub const COUNT: RangeInclusive<u32> = 0..=i32::MAX.unsigned_abs();

/// The longest interval of announcements, and the longest drain.
const MINUTE: Duration = Duration::from_secs(60);

/// Words of other tools, and ours.
const OTHER_TOOLS: [(&str, &[&str]); 3] = [
    ("nat", &["masq", "masquerade", "masquerading", "-m"]),
    ("dr", &["direct", "route", "gate", "gatewaying", "-g"]),
    ("tun", &["tunnel", "ipip", "-i"]),
];

impl At<'_> {
    fn key<'b>(&'b self, key: impl Into<Cow<'b, str>>) -> At<'b> {
        At { problems: self.problems, way: Some((self, key.into())) }
    }

    fn items<'b, T>(&'b self, items: &'b [T]) -> impl Iterator<Item = (At<'b>, &'b T)> {
        items.iter().enumerate().map(move |(index, item)| (self.key(index.to_string()), item))
    }

    fn location(&self) -> Location {
        let Some((above, key)) = &self.way else { return Location::new() };
        let mut location = above.location();
        location.push(key.to_string());
        location
    }

    fn wrong(&self, message: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        // Nobody reads a thousand; a damaged file could have millions.
        if problems.len() < 1000 {
            problems.push(Problem { location: self.location(), message: message.into() });
        }
    }

    /// A rule about the value of a key.
    fn must(&self, key: &str, right: bool, message: &str) {
        if !right {
            self.key(key).wrong(message);
        }
    }

    /// A number within bounds, or any and a problem.
    fn number<T: TryFrom<u32> + Default>(&self, key: &str, value: u32, bounds: RangeInclusive<u32>) -> T {
        if !bounds.contains(&value) {
            let (least, most) = bounds.into_inner();
            self.key(key).wrong(format!("{value} is out of range: {least} to {most}"));
        }
        T::try_from(value).unwrap_or_default()
    }

    /// What a word of a list stands for.
    fn word<T: Copy, const N: usize>(
        &self,
        key: &str,
        word: &Option<String>,
        list: [(&str, T); N],
    ) -> Option<T> {
        let word = word.as_ref()?;
        let found = list.iter().find(|(known, _)| known == word);
        if found.is_none() {
            self.key(key).wrong(unknown_word(word, &list.map(|(known, _)| known)));
        }
        found.map(|(_, meaning)| *meaning)
    }

    fn duration(&self, key: &str, text: &Option<String>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        parse_duration(text).unwrap_or_else(|| {
            self.key(key).wrong(format!(
                "`{text}` is not a duration: a number with ms, s, m, h or d, or plain seconds, as in 5m or 300"
            ));
            Duration::from_secs(1)
        })
    }

    fn seconds(&self, key: &str, text: &Option<String>, default: u32) -> u32 {
        let duration = self.duration(key, text, Duration::from_secs(default.into()));
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let whole = duration.subsec_nanos() == 0 && (1..=MAX_SECONDS).contains(&seconds);
        if let Some(text) = text.as_ref().filter(|_| !whole) {
            self.key(key).wrong(format!("`{text}` must be whole seconds, from 1s to 31d"));
        }
        seconds
    }

    fn document(&self, document: &Document) -> Config {
        if document.version != 1 {
            let known = "is not known; this lvs-notify reads version 1";
            self.key("version").wrong(format!("version {} {known}", document.version));
        }
        let mut config = Config { announce: (5, Duration::from_millis(200)), ..Config::default() };
        let interface = document.interface.as_ref().map(|name| self.key("interface").interface(name));
        let mut seen = BTreeSet::new();
        for (at, ShortOr(item)) in self.key("vips").items(&document.vips) {
            let vip = at.vip(item, interface.as_ref());
            if vip.address != PLACEHOLDER && !seen.insert(vip.address) {
                at.wrong(format!("the VIP {} is given twice", vip.address));
            }
            config.vips.push(vip);
        }
        let default = ShortOr(raw::Arp::default());
        config.arp = self.key("arp").arp(&document.arp.as_ref().unwrap_or(&default).0);
        if let Some(announce) = &document.announce {
            config.announce = self.key("announce").announce(announce, config.announce);
        }
        if let Some(backup) = &document.backup {
            self.key("backup").backup(backup, &mut config);
        }
        if let Some(ipvs) = &document.ipvs {
            self.key("ipvs").ipvs(ipvs, &mut config);
        }
        let mut services = BTreeMap::new();
        for (at, item) in self.key("virtual_services").items(&document.virtual_services) {
            let before = self.problems.borrow().len();
            let (key, wanted) = at.service(item, &config);
            let good = self.problems.borrow().len() == before;
            if good && services.insert(key, wanted).is_some() {
                at.wrong(format!("the service {key} is given twice"));
            }
        }
        config.services = services;
        self.document_rules(document, &config);
        config
    }

    fn document_rules(&self, document: &Document, config: &Config) {
        self.must("virtual_services", document.allow_empty || !document.virtual_services.is_empty(), "no service is declared, so every service of the VIPs would be removed; if that is meant, say `allow_empty: true`");
        let only_marks = config.services.keys().all(|key| matches!(key, ServiceKey::Fwmark { .. }));
        let no_vips = only_marks && (document.allow_empty || !config.services.is_empty());
        let message = "`vips` is empty; that is allowed only when every service is a fwmark service";
        self.must("vips", !config.vips.is_empty() || no_vips, message);
        // Two directors that both hold services and the VIP hand the same packet to each other for ever, unless the
        // one that is not MASTER is told to stay out (kernel commit 0c12582fbcde).
        let answers = config.keep_vips && config.arp.is_some_and(|arp| arp.ignore == 0);
        self.must("backup", !answers, "with `vips: keep` the VIP stays on lo, and arp_ignore 0 would answer ARP for it while not MASTER; set arp.arp_ignore to 1");
        let backup_only = config.ipvs_parameters.get("backup_only").is_some_and(|value| value != "0");
        let loops = config.keep_vips && config.keep_services && !(backup_only && config.daemon.is_some());
        self.must("backup", !loops, "`vips: keep` with `services: keep` makes two directors bounce packets for ever; it needs `ipvs.sysctl.backup_only: 1` and `ipvs.sync_daemon`, or leave out `services: keep`");
    }

    fn interface(&self, name: &str) -> String {
        // dev_valid_name() of net/core/dev.c
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ["", ".", ".."].contains(&name) || name.len() > 15 || name.contains(odd) {
            self.wrong("not an interface name: 1 to 15 characters, no slash, colon or blank");
        } else if ["lo", "all", "default"].contains(&name) {
            self.wrong(format!("`{name}` cannot face clients; name the interface on which they reach the VIP, or leave `interface` out when the VIP is routed"));
        }
        name.to_owned()
    }

    fn vip(&self, vip: &raw::Vip, interface: Option<&String>) -> Vip {
        let address = self.key("address").vip_address(&vip.address);
        if let Some(label) = &vip.label {
            let on_lo = label == "lo" || label.starts_with("lo:");
            let odd = |c: char| c.is_whitespace() || c.is_control();
            if address.is_ipv6() {
                self.key("label").wrong("IPv6 addresses have no label; leave it out");
            } else if !on_lo || label.len() > 15 || label.contains(odd) {
                let message =
                    "a label is `lo` or begins with `lo:`, and has at most 15 characters, as in `lo:0`";
                self.key("label").wrong(message);
            }
        }
        // What `ifconfig lo:0` would have made, as the field's instructions do.
        let usual = address.is_ipv4().then(|| "lo:0".to_owned());
        let own = vip.interface.as_ref().map(|name| self.key("interface").interface(name));
        Vip { address, label: vip.label.clone().or(usual), interface: own.or_else(|| interface.cloned()) }
    }

    fn vip_address(&self, text: &str) -> IpAddr {
        let (bare, prefix) = text.split_once('/').map_or((text, None), |(bare, prefix)| (bare, Some(prefix)));
        let Ok(address) = bare.parse::<IpAddr>() else {
            self.wrong(format!("`{text}` is not an IP address"));
            return PLACEHOLDER;
        };
        let host = Family::of(address).host_prefix();
        if prefix.is_some_and(|prefix| prefix != host.to_string()) {
            self.wrong(format!("a VIP is one address: write `{address}` or `{address}/{host}`; any other prefix on lo would make the whole subnet local"));
        }
        if address.is_loopback() || unusable(address) {
            let why = "it is not a unicast address that clients can reach";
            self.wrong(format!("{address} cannot be a VIP: {why}"));
        }
        address
    }

    fn arp(&self, arp: &raw::Arp) -> Option<Arp> {
        if let Some(word) = &arp.word {
            if word != "off" {
                self.wrong(format!("`{word}` is not known here; write `off` or a mapping with arp_ignore, arp_announce, persist, restore"));
            }
            return None;
        }
        let (ignore, announce) = (arp.arp_ignore.unwrap_or(1), arp.arp_announce.unwrap_or(2));
        let hides = "arp_ignore is 0, 1, 2, 3 or 8; 1 hides the VIP on lo";
        self.must("arp_ignore", matches!(ignore, 0..=3 | 8), hides);
        let never = "arp_announce is 0, 1 or 2; 2 never uses the VIP as ARP source on another link";
        self.must("arp_announce", announce <= 2, never);
        let (persist, restore) = (arp.persist.unwrap_or(true), arp.restore.unwrap_or(false));
        Some(Arp { ignore, announce, persist, restore })
    }

    fn announce(&self, announce: &raw::Announce, (count, interval): (u32, Duration)) -> (u32, Duration) {
        let interval = self.duration("interval", &announce.interval, interval);
        self.must("interval", interval <= MINUTE, "at most 60s between two announcements");
        (self.number("count", announce.count.unwrap_or(count), 0..=100), interval)
    }

    fn backup(&self, backup: &raw::Backup, config: &mut Config) {
        let keep = |key, word| self.word(key, word, [("keep", true), ("remove", false)]).unwrap_or(false);
        config.keep_vips = keep("vips", &backup.vips);
        config.keep_services = keep("services", &backup.services);
        config.drain = self.duration("drain", &backup.drain, Duration::ZERO);
        self.must("drain", config.drain <= MINUTE, "at most 60s; a newer notification ends it at once");
        let kept = config.keep_vips || config.keep_services;
        let message =
            "`drain` has no effect together with `vips: keep` or `services: keep`; remove one of them";
        self.must("drain", !kept || backup.drain.is_none(), message);
    }

    fn ipvs(&self, ipvs: &raw::Ipvs, config: &mut Config) {
        config.exclusive = ipvs.exclusive.unwrap_or(false);
        if let Some(timeouts) = &ipvs.timeouts {
            let at = self.key("timeouts");
            config.timeouts = Timeouts {
                tcp: at.seconds("tcp", &timeouts.tcp, 0),
                tcp_fin: at.seconds("tcp_fin", &timeouts.tcp_fin, 0),
                udp: at.seconds("udp", &timeouts.udp, 0),
            };
        }
        if let Some(list) = &ipvs.sysctl {
            config.ipvs_parameters = self.key("sysctl").parameters(list);
        }
        config.daemon = ipvs.sync_daemon.as_ref().map(|daemon| self.key("sync_daemon").daemon(daemon));
    }

    fn parameters(&self, list: &Mapping) -> BTreeMap<String, String> {
        let known = IPVS_PARAMETERS.map(|(name, _)| name);
        let text = |value: &Value| match value {
            Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            other => serde_yaml::to_string(other).unwrap_or_default().trim_end().to_owned(),
        };
        let read = |(name, value): (&Value, &Value)| {
            let (name, value) = (text(name), text(value));
            let at = self.key(name.clone());
            if !known.contains(&name.as_str()) {
                let hint = did_you_mean(&name, &known);
                at.wrong(format!("there is no parameter net.ipv4.vs.{name}{hint}"));
            }
            if value.is_empty() || !value.chars().all(|c| c.is_ascii_digit() || " ,-".contains(c)) {
                at.wrong(format!("`{value}` is not a number"));
            }
            (name, value)
        };
        list.iter().map(read).collect()
    }

    fn daemon(&self, daemon: &raw::SyncDaemon) -> SyncDaemon {
        let group: Option<IpAddr> = daemon.group.as_ref().map(|text| text.parse().unwrap_or(PLACEHOLDER));
        if let (Some(text), Some(false)) = (&daemon.group, group.map(|group| group.is_multicast())) {
            self.key("group").wrong(format!("`{text}` is not a multicast address"));
        }
        SyncDaemon {
            interface: self.key("interface").interface(&daemon.interface),
            // The kernel takes 32 bits and keeps 8 of them.
            id: self.number("id", daemon.id.unwrap_or(0), 0..=255),
            // A backup daemon raises less to 1024 (ip_vs_sync.c), and would differ for ever.
            max_len: daemon.max_len.map(|value| self.number("max_len", value, 1024..=65535)),
            group,
            port: daemon.port.map(|value| self.number("port", value, 1..=65535)),
            ttl: daemon.ttl.map(|value| self.number("ttl", value, 1..=255)),
        }
    }

    fn service(&self, service: &raw::VirtualService, config: &Config) -> (ServiceKey, WantedService) {
        let key = self.service_key(service, config);
        let settings = self.settings(service, key);
        let forward = self.word("forward", &service.forward, Forward::WORDS).unwrap_or(Forward::NAT);
        let any_port = matches!(key, ServiceKey::Endpoint { port: 0, address, .. } if address != PLACEHOLDER);
        self.must("address", !any_port || settings.is_persistent(), "port 0 stands for every port and needs `persistence`; without it the kernel never schedules a packet");
        let mut servers = Servers::new();
        for (at, ShortOr(item)) in self.key("real_servers").items(&service.real_servers) {
            let settings = at.server(item, forward);
            let server = at.key("address").server_key(&item.address, key, settings.forward, config);
            if servers.insert(server, settings).is_some() && server.address != PLACEHOLDER {
                at.wrong(format!("the real server {server} is given twice in this service"));
            }
        }
        (key, WantedService { settings, servers: servers.into() })
    }

    fn service_key(&self, service: &raw::VirtualService, config: &Config) -> ServiceKey {
        let (address, mark) = (&service.address, service.fwmark);
        let message = "`family` belongs to a fwmark service; the address tells it here";
        self.must("family", mark.is_some() || service.family.is_none(), message);
        let message = "a fwmark service takes every protocol of the marked packets; leave `protocol` out";
        self.must("protocol", mark.is_none() || service.protocol.is_none(), message);
        let message = "a service has either `address` or `fwmark`, not both";
        self.must("fwmark", mark.is_none() || address.is_none(), message);
        self.must("fwmark", mark != Some(0), "mark 0 means no mark; use 1 to 4294967295");
        if let Some(mark) = mark {
            let families = [("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
            let family = self.word("family", &service.family, families).unwrap_or(Family::Ipv4);
            return ServiceKey::Fwmark { mark, family };
        }
        let protocol = self.word("protocol", &service.protocol, Protocol::WORDS).unwrap_or(Protocol::TCP);
        let endpoint = match address {
            Some(text) => self.key("address").service_address(text, config),
            None => {
                self.wrong("a service needs `address` (VIP and port) or `fwmark`");
                None
            }
        };
        let Endpoint { address, port } = endpoint.unwrap_or(Endpoint { address: PLACEHOLDER, port: 0 });
        ServiceKey::Endpoint { address, port, protocol }
    }

    fn service_address(&self, text: &str, config: &Config) -> Option<Endpoint> {
        let Some((address, Some(port))) = parse_endpoint(text) else {
            self.wrong(format!(
                "`{text}` is not an address with a port, as in 192.0.2.1:80 or \"[2001:db8::1]:80\""
            ));
            return None;
        };
        if !config.vips.iter().any(|vip| vip.address == address) {
            let listed: Vec<String> = config.vips.iter().map(|vip| vip.address.to_string()).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            let hint = did_you_mean(&address.to_string(), &listed);
            self.wrong(format!("{address} is not among the declared `vips`{hint}"));
        }
        Some(Endpoint { address, port })
    }

    fn settings(&self, service: &raw::VirtualService, key: ServiceKey) -> Service {
        let scheduler = service.scheduler.as_deref().unwrap_or("wlc");
        let odd = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
        if scheduler == "none" {
            self.key("scheduler").wrong("`none` would refuse every connection");
        } else if scheduler.is_empty() || scheduler.len() > 15 || scheduler.contains(odd) {
            let message = format!("`{scheduler}` is not a scheduler's name, as in rr, wrr, wlc, sh, mh");
            self.key("scheduler").wrong(message);
        }
        let mut settings = Service {
            flags: 0,
            timeout: 0,
            netmask: Service::full_netmask(key.family()),
            engine: String::new(),
            scheduler: scheduler.to_owned(),
        };
        let flags = service.scheduler_flags.as_deref().unwrap_or_default();
        for (at, name) in self.key("scheduler_flags").items(flags) {
            let bit = at.scheduler_flag(name, scheduler);
            if settings.flags & bit != 0 {
                at.wrong(format!("`{name}` repeats a flag given before"));
            }
            settings.flags |= bit;
        }
        if let Some(ShortOr(persistence)) = &service.persistence {
            self.key("persistence").persistence(persistence, key, &mut settings);
        }
        if service.one_packet == Some(true) {
            self.must("one_packet", datagrams(key), "one-packet scheduling is for UDP and fwmark services");
            settings.flags |= service_flag::ONE_PACKET;
        }
        settings
    }

    fn scheduler_flag(&self, name: &str, scheduler: &str) -> u32 {
        let Some((_, owner, bit)) = SCHEDULER_FLAGS.iter().find(|(known, ..)| *known == name) else {
            self.wrong(unknown_word(name, &SCHEDULER_FLAGS.map(|(known, ..)| known)));
            return 0;
        };
        if let Some(owner) = owner.filter(|owner| *owner != scheduler) {
            self.wrong(format!("`{name}` belongs to the scheduler {owner}; this service has {scheduler}"));
        }
        *bit
    }

    fn persistence(&self, persistence: &raw::Persistence, key: ServiceKey, settings: &mut Service) {
        settings.flags |= service_flag::PERSISTENT;
        settings.timeout = self.seconds("timeout", &persistence.timeout, DEFAULT_PERSISTENCE);
        let ipv6 = key.family() == Family::Ipv6;
        let message = "an IPv6 service has `prefix` (1 to 128) instead of `netmask`";
        self.must("netmask", !ipv6 || persistence.netmask.is_none(), message);
        let message = "an IPv4 service has `netmask` (as in 255.255.255.0) instead of `prefix`";
        self.must("prefix", ipv6 || persistence.prefix.is_none(), message);
        if let Some(prefix) = persistence.prefix {
            settings.netmask = self.number("prefix", prefix, 1..=128);
        } else if let Some(text) = persistence.netmask.as_ref().filter(|_| !ipv6) {
            // The kernel takes any bits here and matches clients by them.
            settings.netmask = text.parse::<Ipv4Addr>().map_or(0, u32::from);
            let length = settings.netmask.leading_ones();
            if length == 0 || length + settings.netmask.trailing_zeros() != 32 {
                self.key("netmask").wrong(format!("`{text}` is not a netmask, as in 255.255.255.0"));
            }
        }
        if let Some(engine) = self.word("engine", &persistence.engine, [("sip", "sip")]) {
            let message = "the engine sip reads UDP packets; this service is not UDP";
            self.must("engine", datagrams(key), message);
            settings.engine = engine.to_owned();
        }
    }

    fn server(&self, server: &raw::RealServer, forward: Forward) -> RealServer {
        let forward = self.word("forward", &server.forward, Forward::WORDS).unwrap_or(forward);
        let wanted = RealServer {
            forward,
            weight: self.number("weight", server.weight.unwrap_or(1), COUNT),
            upper_threshold: self.number("upper_threshold", server.upper_threshold.unwrap_or(0), COUNT),
            lower_threshold: self.number("lower_threshold", server.lower_threshold.unwrap_or(0), COUNT),
            tunnel: server.tunnel.as_ref().map_or_else(Tunnel::default, |tunnel| {
                self.must("tunnel", forward == Forward::TUN, "`tunnel` belongs to `forward: tun`");
                self.key("tunnel").tunnel(tunnel)
            }),
        };
        let ordered = wanted.lower_threshold <= wanted.upper_threshold;
        self.must("lower_threshold", ordered, "the lower threshold must not be above the upper one");
        wanted
    }

    fn server_key(&self, text: &str, service: ServiceKey, forward: Forward, config: &Config) -> ServerKey {
        let Some((address, port)) = parse_endpoint(text) else {
            self.wrong(format!(
                "`{text}` is not a real server's address, as in 192.0.2.11:80 or \"[2001:db8::11]:80\""
            ));
            return Endpoint { address: PLACEHOLDER, port: 0 };
        };
        let server = Endpoint { address, port: port.unwrap_or(0) };
        let service_port = match service {
            ServiceKey::Endpoint { address: PLACEHOLDER, .. } => return server,
            ServiceKey::Endpoint { port, .. } => port,
            // A mark has no port that another could contradict.
            ServiceKey::Fwmark { .. } => server.port,
        };
        if unusable(address) {
            self.wrong(format!("{address} cannot be a real server: it is not a unicast address"));
        }
        if server.port == 0 && service_port != 0 {
            self.wrong(format!("`{text}` lacks the port; a real server of a service with a port needs one"));
        } else if forward != Forward::NAT && server.port != service_port {
            // DR and TUN never rewrite it.
            let remedy = match service_port {
                0 => "leave the port out".to_owned(),
                port => format!("write port {port}"),
            };
            let why = "the packet keeps the port that the client asked for";
            self.wrong(format!("with {forward} {why}: {remedy}, or use nat"));
        }
        let other_family = Family::of(address) != service.family();
        if other_family && forward != Forward::TUN {
            self.wrong("a real server of the other address family needs `forward: tun`");
        } else if other_family && config.daemon.is_some() {
            self.wrong(
                "a real server of the other address family cannot be combined with `ipvs.sync_daemon`",
            );
        }
        server
    }

    fn tunnel(&self, tunnel: &raw::Tunnel) -> Tunnel {
        let numbered = |[a, b, c]: [&'static str; 3]| [(a, 0), (b, 1), (c, 2)];
        let kind = self.word("type", &tunnel.kind, numbered(Tunnel::KINDS)).unwrap_or(Tunnel::IPIP);
        let checksum = self.word("checksum", &tunnel.checksum, numbered(Tunnel::CHECKSUMS)).unwrap_or(0);
        if kind == Tunnel::GUE && tunnel.port.is_none() {
            self.wrong("gue needs a `port`");
        }
        self.must("port", kind == Tunnel::GUE || tunnel.port.is_none(), "only gue has a port");
        // Of the checksums, ipip has the first, gre the first two.
        let fits = kind == Tunnel::GUE || checksum == 0 || (kind == Tunnel::GRE && checksum == 1);
        self.must("checksum", fits, "csum is for gue and gre, remcsum for gue only");
        let port = tunnel.port.map_or(0, |port| self.number("port", port, 1..=65535));
        Tunnel { kind, port, checksum: checksum.into() }
    }
}

fn unknown_word(word: &str, choices: &[&str]) -> String {
    let lower = word.to_ascii_lowercase();
    let other = |(ours, theirs): &&(&str, &[&str])| choices.contains(ours) && theirs.contains(&&*lower);
    let meant = OTHER_TOOLS.iter().find(other).map_or(word, |(ours, _)| ours);
    format!("`{word}` is not one of {}{}", choices.join(", "), did_you_mean(meant, choices))
}

fn datagrams(key: ServiceKey) -> bool {
    matches!(key, ServiceKey::Fwmark { .. } | ServiceKey::Endpoint { protocol: Protocol::UDP, .. })
}

/// Addresses that no packet can be sent to, or that need an interface to mean anything.
fn unusable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified() || address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local()
        }
    }
}
