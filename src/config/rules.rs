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
use super::source::{Invalid, Problem, Source};
use super::{Arp, Config, Vip, WantedService};
use crate::model::{
    DEFAULT_PERSISTENCE, Endpoint, Family, Forward, MAX_SECONDS, Parameter, Protocol, RealServer,
    SCHEDULER_FLAGS, ServerKey, Servers, Service, ServiceKey, SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::text::{did_you_mean, parse_duration, parse_endpoint};

impl Config {
    /// Reads and checks a file's text, and tells every problem in its place.
    pub fn parse(source: &Source) -> Result<Self, Invalid> {
        Self::of(source.document()?).map_err(|problems| source.explain(&problems))
    }

    /// The same of a document, with the problems as they are.
    pub fn of(document: Document) -> Result<Self, Vec<Problem>> {
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

/// Stands for the address of a VIP, a service or a real server that is wrong.
const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const NOWHERE: Endpoint = Endpoint { address: PLACEHOLDER, port: 0 };

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

    fn location(&self) -> Vec<String> {
        let Some((above, key)) = &self.way else { return Vec::new() };
        let mut location = above.location();
        location.push(key.to_string());
        location
    }

    fn wrong(&self, message: String) {
        let mut problems = self.problems.borrow_mut();
        // Nobody reads a thousand; a damaged file could have millions.
        if problems.len() < 1000 {
            problems.push(Problem { location: self.location(), message });
        }
    }

    /// A rule about the value here.
    fn must(&self, right: bool, message: impl ToString) {
        if !right {
            self.wrong(message.to_string());
        }
    }

    /// A number within bounds, or any and a problem.
    fn number<T: TryFrom<u32> + Default>(&self, value: u32, bounds: RangeInclusive<u32>) -> T {
        let (least, most) = (bounds.start(), bounds.end());
        self.must(bounds.contains(&value), format_args!("{value} is out of range: {least} to {most}"));
        T::try_from(value).unwrap_or_default()
    }

    /// What a word of a list stands for.
    fn word<'w, T: Copy>(&self, word: impl Into<Option<&'w String>>, default: T, list: &[(&str, T)]) -> T {
        let Some(word) = word.into() else { return default };
        let found = list.iter().find(|(known, _)| known == word);
        if found.is_none() {
            let choices: Vec<&str> = list.iter().map(|(known, _)| *known).collect();
            let lower = word.to_ascii_lowercase();
            let other = OTHER_TOOLS.iter().find(|(_, theirs)| theirs.contains(&lower.as_str()));
            let meant = other.map_or(word.as_str(), |(ours, _)| ours);
            let hint = did_you_mean(meant, &choices);
            self.wrong(format!("`{word}` is not one of {}{hint}", choices.join(", ")));
        }
        found.map_or(default, |(_, meaning)| *meaning)
    }

    fn duration(&self, text: &Option<String>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        let duration = parse_duration(text);
        self.must(duration.is_some(), format_args!("`{text}` is not a duration: a number with ms, s, m, h or d, or plain seconds, as in 5m or 300"));
        duration.unwrap_or(Duration::from_secs(1))
    }

    fn seconds(&self, text: &Option<String>, default: u32) -> u32 {
        let Some(given) = text else { return default };
        let duration = self.duration(text, Duration::ZERO);
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let whole = duration.subsec_nanos() == 0 && (1..=MAX_SECONDS).contains(&seconds);
        self.must(whole, format_args!("`{given}` must be whole seconds, from 1s to 31d"));
        seconds
    }

    fn document(&self, document: Document) -> Config {
        let (at, version) = (self.key("version"), document.version);
        let known = "is not known; this lvs-notify reads version 1";
        at.must(version == 1, format_args!("version {version} {known}"));
        let interface = document.interface.map(|name| self.key("interface").interface(name));
        let mut seen = BTreeSet::new();
        let mut config = Config::default();
        for (at, ShortOr(item)) in self.key("vips").items(&document.vips) {
            let vip = at.vip(item, interface.as_ref());
            let once = vip.address == PLACEHOLDER || seen.insert(vip.address);
            at.must(once, format_args!("the VIP {} is given twice", vip.address));
            config.vips.push(vip);
        }
        config.arp = self.key("arp").arp(document.arp.map_or_else(raw::Arp::default, |ShortOr(arp)| arp));
        let (at, announce) = (self.key("announce"), document.announce.unwrap_or_default());
        let interval = at.key("interval").duration(&announce.interval, Duration::from_millis(200));
        at.key("interval").must(interval <= MINUTE, "at most 60s between two announcements");
        let again = at.key("again").duration(&announce.again, Duration::from_secs(5));
        at.key("again").must(again <= MINUTE, "at most 60s after the takeover");
        let count = at.key("count").number(announce.count.unwrap_or(5), 0..=100);
        config.announce = (0..count).map(|number| interval * number).collect();
        config.announce.extend(Some(again).filter(|again| count > 0 && !again.is_zero()));
        self.key("backup").backup(&document.backup.unwrap_or_default(), &mut config);
        self.key("ipvs").ipvs(document.ipvs.unwrap_or_default(), &mut config);
        let mut services = BTreeMap::new();
        for (at, item) in self.key("virtual_services").items(&document.virtual_services) {
            let (key, wanted) = at.service(item, &config);
            let unknown = matches!(key, ServiceKey::Endpoint { address: PLACEHOLDER, .. });
            let once = services.insert(key, wanted).is_none() || unknown;
            at.must(once, format_args!("the service {key} is given twice"));
        }
        config.services = services;
        let none = document.virtual_services.is_empty();
        self.key("virtual_services").must(document.allow_empty || !none, "no service is declared, so every service of the VIPs would be removed; if that is meant, say `allow_empty: true`");
        let only_marks = config.services.keys().all(|key| matches!(key, ServiceKey::Fwmark { .. }));
        let no_vips = only_marks && (document.allow_empty || !config.services.is_empty());
        let message = "`vips` is empty; that is allowed only when every service is a fwmark service";
        self.key("vips").must(!config.vips.is_empty() || no_vips, message);
        // Two directors that both hold services and the VIP hand the same packet to each other for ever, unless the
        // one that is not MASTER is told to stay out (kernel commit 0c12582fbcde).
        let answers = config.keep_vips && config.arp.is_some_and(|arp| arp.ignore == 0);
        self.key("backup").must(!answers, "with `vips: keep` the VIP stays on lo, and arp_ignore 0 would answer ARP for it while not MASTER; set arp.arp_ignore to 1");
        let backup_only = config.ipvs_parameters.get("backup_only").is_some_and(|value| value != "0");
        let loops = config.keep_vips && config.keep_services && !(backup_only && config.daemon.is_some());
        self.key("backup").must(!loops, "`vips: keep` with `services: keep` makes two directors bounce packets for ever; it needs `ipvs.sysctl.backup_only: 1` and `ipvs.sync_daemon`, or leave out `services: keep`");
        config
    }

    fn interface(&self, name: String) -> String {
        // dev_valid_name() of net/core/dev.c, and what sysctl.d(5) can name
        let valid = is_name(&name, |c| "/:=*?[".contains(c)) && name != "." && name != "..";
        self.must(valid, "not an interface name: 1 to 15 characters, no slash, colon or blank, nor = * ? [");
        let faces = !["lo", "all", "default"].contains(&name.as_str());
        self.must(faces, format_args!("`{name}` cannot face clients; name the interface on which they reach the VIP, or leave `interface` out when the VIP is routed"));
        name
    }

    fn vip(&self, vip: &raw::Vip, interface: Option<&String>) -> Vip {
        let address = self.key("address").vip_address(&vip.address);
        let at = self.key("label");
        // What `ifconfig lo:0` would have made, as the field's instructions do.
        let usual = address.is_ipv4().then(|| "lo:0".to_owned());
        let label = vip.label.clone().or(usual);
        let on_lo = |label: &String| label == "lo" || label.starts_with("lo:") && is_name(label, |_| false);
        let message = "a label is `lo` or begins with `lo:`, and has at most 15 characters, as in `lo:0`";
        at.must(address.is_ipv6() || label.as_ref().is_none_or(on_lo), message);
        let message = "IPv6 addresses have no label; leave it out";
        at.must(address.is_ipv4() || label.is_none(), message);
        let own = vip.interface.clone().map(|name| self.key("interface").interface(name));
        Vip { address, label, interface: own.or_else(|| interface.cloned()) }
    }

    fn vip_address(&self, text: &str) -> IpAddr {
        let (bare, prefix) = text.split_once('/').map_or((text, None), |(bare, prefix)| (bare, Some(prefix)));
        let Ok(address) = bare.parse::<IpAddr>() else {
            self.wrong(format!("`{text}` is not an IP address"));
            return PLACEHOLDER;
        };
        let host = Family::of(address).host_prefix();
        let alone = prefix.is_none_or(|prefix| prefix == host.to_string());
        self.must(alone, format_args!("a VIP is one address: write `{address}` or `{address}/{host}`; any other prefix on lo would make the whole subnet local"));
        let why = "it is not a unicast address that clients can reach";
        let reachable = !address.is_loopback() && usable(address);
        self.must(reachable, format_args!("{address} cannot be a VIP: {why}"));
        address
    }

    fn arp(&self, arp: raw::Arp) -> Option<Arp> {
        if let Some(word) = arp.word {
            self.must(word == "off", format_args!("`{word}` is not known here; write `off` or a mapping with arp_ignore, arp_announce, persist, restore"));
            return None;
        }
        let (ignore, announce) = (arp.arp_ignore.unwrap_or(1), arp.arp_announce.unwrap_or(2));
        let hides = "arp_ignore is 0, 1 or 2; 1 hides the VIP on lo; with 3 it is not hidden, and with 8 the MASTER answers nobody";
        self.key("arp_ignore").must(ignore <= 2, hides);
        let never = "arp_announce is 0, 1 or 2; 2 never uses the VIP as ARP source on another link";
        self.key("arp_announce").must(announce <= 2, never);
        let (persist, restore) = (arp.persist.unwrap_or(true), arp.restore.unwrap_or(false));
        Some(Arp { ignore, announce, persist, restore })
    }

    fn backup(&self, backup: &raw::Backup, config: &mut Config) {
        let keep = |key, word| self.key(key).word(word, false, &[("keep", true), ("remove", false)]);
        config.keep_vips = keep("vips", &backup.vips);
        config.keep_services = keep("services", &backup.services);
        let at = self.key("drain");
        config.drain = at.duration(&backup.drain, Duration::ZERO);
        at.must(config.drain <= MINUTE, "at most 60s; a newer notification ends it at once");
        let kept = config.keep_vips || config.keep_services;
        let message =
            "`drain` has no effect together with `vips: keep` or `services: keep`; remove one of them";
        at.must(!kept || backup.drain.is_none(), message);
    }

    fn ipvs(&self, ipvs: raw::Ipvs, config: &mut Config) {
        config.exclusive = ipvs.exclusive.unwrap_or(false);
        config.graceful_removal =
            self.key("graceful_removal").duration(&ipvs.graceful_removal, Duration::ZERO);
        let (at, timeouts) = (self.key("timeouts"), ipvs.timeouts.unwrap_or_default());
        config.timeouts = Timeouts {
            tcp: at.key("tcp").seconds(&timeouts.tcp, 0),
            tcp_fin: at.key("tcp_fin").seconds(&timeouts.tcp_fin, 0),
            udp: at.key("udp").seconds(&timeouts.udp, 0),
        };
        config.ipvs_parameters = self.key("sysctl").parameters(&ipvs.sysctl.unwrap_or_default());
        config.daemon = ipvs.sync_daemon.map(|daemon| self.key("sync_daemon").daemon(daemon));
    }

    fn parameters(&self, list: &Mapping) -> BTreeMap<String, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            other => serde_yaml::to_string(other).unwrap_or_default().trim_end().to_owned(),
        };
        let read = |(name, value): (&Value, &Value)| {
            let (name, value) = (text(name), text(value));
            let at = self.key(name.clone());
            let known = || Parameter::of_ipvs().map(|(known, _)| known);
            if !known().any(|known| known == name) {
                let known: Vec<&str> = known().collect();
                at.wrong(format!("there is no parameter net.ipv4.vs.{name}{}", did_you_mean(&name, &known)));
            }
            let number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit() || " ,-".contains(c));
            at.must(number, format_args!("`{value}` is not a number"));
            (name, value)
        };
        list.iter().map(read).collect()
    }

    fn daemon(&self, daemon: raw::SyncDaemon) -> SyncDaemon {
        let multicast = |text: String| {
            let group = text.parse().unwrap_or(PLACEHOLDER);
            let at = self.key("group");
            at.must(group.is_multicast(), format_args!("`{text}` is not a multicast address"));
            group
        };
        let group = daemon.group.map(multicast);
        // The kernel leaves room for the headers of IP and UDP in 65535 bytes, and a backup daemon raises less to 1024
        // (ip_vs_sync.c, start_sync_thread): it would differ for ever.
        let longest = if group.is_some_and(|group| group.is_ipv6()) { 65487 } else { 65507 };
        SyncDaemon {
            interface: self.key("interface").interface(daemon.interface),
            // The kernel takes 32 bits and keeps 8 of them.
            id: self.key("id").number(daemon.id.unwrap_or(0), 0..=255),
            max_len: daemon.max_len.map(|value| self.key("max_len").number(value, 1024..=longest)),
            group,
            port: daemon.port.map(|value| self.key("port").number(value, 1..=65535)),
            ttl: daemon.ttl.map(|value| self.key("ttl").number(value, 1..=255)),
        }
    }

    fn service(&self, service: &raw::VirtualService, config: &Config) -> (ServiceKey, WantedService) {
        let key = self.service_key(service, config);
        let settings = self.settings(service, key);
        let forward = self.key("forward").word(&service.forward, Forward::NAT, &Forward::DECLARED);
        let any_port = matches!(key, ServiceKey::Endpoint { port: 0, address, .. } if address != PLACEHOLDER);
        self.key("address").must(!any_port || settings.is_persistent(), "port 0 stands for every port and needs `persistence`; without it the kernel never schedules a packet");
        let mut servers = Servers::new();
        for (at, ShortOr(item)) in self.key("real_servers").items(&service.real_servers) {
            let settings = at.server(item, forward);
            let server = at.key("address").server_key(&item.address, key, settings.forward, config);
            let once = servers.insert(server, settings).is_none() || server.address == PLACEHOLDER;
            at.must(once, format_args!("the real server {server} is given twice in this service"));
        }
        (key, WantedService { settings, servers: servers.into() })
    }

    fn service_key(&self, service: &raw::VirtualService, config: &Config) -> ServiceKey {
        let (address, mark) = (&service.address, service.fwmark);
        let message = "`family` belongs to a fwmark service; the address tells it here";
        self.key("family").must(mark.is_some() || service.family.is_none(), message);
        let message = "a fwmark service takes every protocol of the marked packets; leave `protocol` out";
        self.key("protocol").must(mark.is_none() || service.protocol.is_none(), message);
        let message = "a service has either `address` or `fwmark`, not both";
        self.key("fwmark").must(mark.is_none() || address.is_none(), message);
        self.key("fwmark").must(mark != Some(0), "mark 0 means no mark; use 1 to 4294967295");
        if let Some(mark) = mark {
            let families = [("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
            let family = self.key("family").word(&service.family, Family::Ipv4, &families);
            return ServiceKey::Fwmark { mark, family };
        }
        let protocol = self.key("protocol").word(&service.protocol, Protocol::TCP, Protocol::WORDS);
        self.must(address.is_some(), "a service needs `address` (VIP and port) or `fwmark`");
        let endpoint = address.as_ref().map(|text| self.key("address").service_address(text, config));
        let Endpoint { address, port } = endpoint.unwrap_or(NOWHERE);
        ServiceKey::Endpoint { address, port, protocol }
    }

    fn service_address(&self, text: &str, config: &Config) -> Endpoint {
        let Some((address, Some(port))) = parse_endpoint(text) else {
            let example = "192.0.2.1:80 or \"[2001:db8::1]:80\"";
            self.wrong(format!("`{text}` is not an address with a port, as in {example}"));
            return NOWHERE;
        };
        if !config.vips.iter().any(|vip| vip.address == address) {
            let listed: Vec<String> = config.vips.iter().map(|vip| vip.address.to_string()).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            let hint = did_you_mean(&address.to_string(), &listed);
            self.wrong(format!("{address} is not among the declared `vips`{hint}"));
        }
        Endpoint { address, port }
    }

    fn settings(&self, service: &raw::VirtualService, key: ServiceKey) -> Service {
        let scheduler = service.scheduler.as_deref().unwrap_or("wlc");
        let at = self.key("scheduler");
        at.must(scheduler != "none", "`none` would refuse every connection");
        let name = is_name(scheduler, |c| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        at.must(name, format_args!("`{scheduler}` is not a scheduler's name, as in rr, wrr, wlc, sh, mh"));
        let mut settings = Service::plain(scheduler, key.family());
        let flags = service.scheduler_flags.as_deref().unwrap_or_default();
        for (at, name) in self.key("scheduler_flags").items(flags) {
            let known = SCHEDULER_FLAGS.map(|(name, owner, bit)| (name, (owner, bit)));
            let (owner, bit) = at.word(name, (None, 0), &known);
            let (owner, of) = (owner.unwrap_or(scheduler), "belongs to the scheduler");
            at.must(owner == scheduler, format_args!("`{name}` {of} {owner}; this service has {scheduler}"));
            at.must(settings.flags & bit == 0, format_args!("`{name}` repeats a flag given before"));
            settings.flags |= bit;
        }
        if let Some(ShortOr(persistence)) = &service.persistence {
            self.key("persistence").persistence(persistence, key, &mut settings);
        }
        if service.one_packet == Some(true) {
            let message = "one-packet scheduling is for UDP and fwmark services";
            self.key("one_packet").must(datagrams(key), message);
            settings.flags |= service_flag::ONE_PACKET;
        }
        settings
    }

    fn persistence(&self, persistence: &raw::Persistence, key: ServiceKey, settings: &mut Service) {
        settings.flags |= service_flag::PERSISTENT;
        settings.timeout = self.key("timeout").seconds(&persistence.timeout, DEFAULT_PERSISTENCE);
        let ipv6 = key.family() == Family::Ipv6;
        let message = "an IPv6 service has `prefix` (1 to 128) instead of `netmask`";
        self.key("netmask").must(!ipv6 || persistence.netmask.is_none(), message);
        let message = "an IPv4 service has `netmask` (as in 255.255.255.0) instead of `prefix`";
        self.key("prefix").must(ipv6 || persistence.prefix.is_none(), message);
        if let Some(prefix) = persistence.prefix {
            settings.netmask = self.key("prefix").number(prefix, 1..=128);
        } else if let Some(text) = persistence.netmask.as_ref().filter(|_| !ipv6) {
            // The kernel takes any bits here and matches clients by them.
            settings.netmask = text.parse::<Ipv4Addr>().map_or(0, u32::from);
            let length = settings.netmask.leading_ones();
            let whole = length > 0 && length + settings.netmask.trailing_zeros() == 32;
            let at = self.key("netmask");
            at.must(whole, format_args!("`{text}` is not a netmask, as in 255.255.255.0"));
        }
        let at = self.key("engine");
        let engine = at.word(&persistence.engine, "", &[("sip", "sip")]);
        let message = "the engine sip reads UDP packets; this service is not UDP";
        at.must(engine.is_empty() || datagrams(key), message);
        settings.engine = engine.to_owned();
    }

    fn server(&self, server: &raw::RealServer, forward: Forward) -> RealServer {
        let forward = self.key("forward").word(&server.forward, forward, &Forward::DECLARED);
        let count = |key, value: Option<u32>, default| self.key(key).number(value.unwrap_or(default), COUNT);
        let at = self.key("tunnel");
        at.must(server.tunnel.is_none() || forward == Forward::TUN, "`tunnel` belongs to `forward: tun`");
        let wanted = RealServer {
            forward,
            weight: count("weight", server.weight, 1),
            upper_threshold: count("upper_threshold", server.upper_threshold, 0),
            lower_threshold: count("lower_threshold", server.lower_threshold, 0),
            tunnel: server.tunnel.as_ref().map_or_else(Tunnel::default, |tunnel| at.tunnel(tunnel)),
        };
        let ordered = wanted.lower_threshold <= wanted.upper_threshold;
        self.key("lower_threshold").must(ordered, "the lower threshold must not be above the upper one");
        wanted
    }

    fn server_key(&self, text: &str, service: ServiceKey, forward: Forward, config: &Config) -> ServerKey {
        let Some((address, port)) = parse_endpoint(text) else {
            let example = "192.0.2.11:80 or \"[2001:db8::11]:80\"";
            self.wrong(format!("`{text}` is not a real server's address, as in {example}"));
            return NOWHERE;
        };
        let server = Endpoint { address, port: port.unwrap_or(0) };
        let service_port = match service {
            ServiceKey::Endpoint { address: PLACEHOLDER, .. } => return server,
            ServiceKey::Endpoint { port, .. } => port,
            // A mark has no port that another could contradict.
            ServiceKey::Fwmark { .. } => server.port,
        };
        let why = "it is not a unicast address";
        self.must(usable(address), format_args!("{address} cannot be a real server: {why}"));
        let lacks = server.port == 0 && service_port != 0;
        let message = "lacks the port; a real server of a service with a port needs one";
        self.must(!lacks, format_args!("`{text}` {message}"));
        if forward != Forward::NAT && server.port != service_port && !lacks {
            // DR and TUN never rewrite it.
            let same = format!("write port {service_port}");
            let remedy = if service_port == 0 { "leave the port out" } else { &same };
            let why = "the packet keeps the port that the client asked for";
            self.wrong(format!("with {forward} {why}: {remedy}, or use nat"));
        }
        let (other_family, tun) = (Family::of(address) != service.family(), forward == Forward::TUN);
        let message = "a real server of the other address family needs `forward: tun`";
        self.must(!other_family || tun, message);
        let message = "a real server of the other address family cannot be combined with `ipvs.sync_daemon`";
        self.must(!other_family || !tun || config.daemon.is_none(), message);
        server
    }

    fn tunnel(&self, tunnel: &raw::Tunnel) -> Tunnel {
        let numbered = |[a, b, c]: [&'static str; 3]| [(a, 0), (b, 1), (c, 2)];
        let kind = self.key("type").word(&tunnel.kind, Tunnel::IPIP, &numbered(Tunnel::KINDS));
        let checksum = self.key("checksum").word(&tunnel.checksum, 0, &numbered(Tunnel::CHECKSUMS));
        let gue = kind == Tunnel::GUE;
        self.must(!gue || tunnel.port.is_some(), "gue needs a `port`");
        self.key("port").must(gue || tunnel.port.is_none(), "only gue has a port");
        // Of the checksums, ipip has the first, gre the first two.
        let fits = gue || checksum == 0 || (kind == Tunnel::GRE && checksum == 1);
        self.key("checksum").must(fits, "csum is for gue and gre, remcsum for gue only");
        let port = tunnel.port.map_or(0, |port| self.key("port").number(port, 1..=65535));
        Tunnel { kind, port, checksum: checksum.into() }
    }
}

fn datagrams(key: ServiceKey) -> bool {
    matches!(key, ServiceKey::Fwmark { .. } | ServiceKey::Endpoint { protocol: Protocol::UDP, .. })
}

/// Whether packets can be sent to an address that needs no interface to mean anything.
fn usable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !special && !address.is_unspecified() && !address.is_multicast()
}

/// A name as the kernel has them, of an interface, a label or a scheduler: 1 to 15 characters that are seen.
fn is_name(text: &str, refused: impl Fn(char) -> bool) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || refused(c);
    (1..=15).contains(&text.len()) && !text.contains(odd)
}
