//! The rules of a desired-state file: every value is legal, and every rule between values holds.
//!
//! Owns values, defaults and what excludes what. Does no input or output: takes a document, gives all problems at once or
//! the meaning. Called through `Config::parse`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::document::{self as raw, Document, ShortOr, Text};
use super::notation::{parse_duration, parse_endpoint};
use super::source::{Invalid, Location, Problem, Segment, Source};
use super::{Arp, Config, Vip, WantedService};
use crate::model::{
    Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::text::{did_you_mean, nearest};

/// The longest persistence and idle timeout: 31 days, ipvsadm's limit. The kernel counts in
/// jiffies in 32 bits and overflows silently beyond (`ip_vs_ctl.c`).
const MAX_SECONDS: u64 = 31 * 24 * 3600;

/// Persistence without a timeout: `IP_VS_PERSISTENT_TIMEOUT` of `linux/ip_vs.h`.
const DEFAULT_PERSISTENCE: u32 = 360;

/// Parameters below net.ipv4.vs that are per network namespace (`ip_vs_ctl.c`, `vs_vars`).
const IPVS_PARAMETERS: [&str; 32] = [
    "am_droprate",
    "amemthresh",
    "backup_only",
    "cache_bypass",
    "conn_lfactor",
    "conn_reuse_mode",
    "conntrack",
    "drop_entry",
    "drop_packet",
    "est_cpulist",
    "est_nice",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "ignore_tunneled",
    "nat_icmp_send",
    "pmtu_disc",
    "run_estimation",
    "schedule_icmp",
    "secure_tcp",
    "sloppy_sctp",
    "sloppy_tcp",
    "snat_reroute",
    "svc_lfactor",
    "sync_persist_mode",
    "sync_ports",
    "sync_qlen_max",
    "sync_refresh_period",
    "sync_retries",
    "sync_sock_size",
    "sync_threshold",
    "sync_version",
    "debug_level",
];

impl Config {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// [`Invalid`], with every problem in its place.
    pub fn parse(source: &Source) -> Result<Self, Invalid> {
        let document = source.document()?;
        Self::try_from(&document).map_err(|problems| source.explain(&problems))
    }
}

impl TryFrom<&Document> for Config {
    type Error = Vec<Problem>;

    /// Checks a document.
    ///
    /// # Errors
    /// Every problem of meaning, each with its place.
    fn try_from(document: &Document) -> Result<Self, Vec<Problem>> {
        let mut check = Validator::default();
        let config = check.document(document);
        if check.problems.is_empty() { Ok(config) } else { Err(check.problems) }
    }
}

/// Collects problems along the way through a document.
#[derive(Default)]
struct Validator {
    at: Location,
    problems: Vec<Problem>,
}

/// Accepted in place of a VIP or a service that is wrong, so that checking can go on.
const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Validator {
    fn wrong(&mut self, message: impl Display) {
        // Nobody reads a thousand; a damaged file could have millions.
        if self.problems.len() < 1000 {
            self.problems.push(Problem { location: self.at.clone(), message: message.to_string() });
        }
    }

    fn within<T>(&mut self, key: impl Into<Cow<'static, str>>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(Segment::Key(key.into()));
        let result = work(self);
        self.at.pop();
        result
    }

    fn each<'a, T>(&mut self, key: &'static str, items: &'a [T], mut work: impl FnMut(&mut Self, &'a T)) {
        self.within(key, |check| {
            for (index, item) in items.iter().enumerate() {
                check.at.push(Segment::Index(index));
                work(check, item);
                check.at.pop();
            }
        });
    }

    fn document(&mut self, document: &Document) -> Config {
        if document.version != 1 {
            self.within("version", |check| {
                check.wrong(format!(
                    "version {} is not known; this lvs-notify reads version 1",
                    document.version
                ));
            });
        }
        let interface =
            document.interface.as_ref().map(|name| self.within("interface", |check| check.interface(name)));
        let mut vips: Vec<Vip> = Vec::new();
        let mut seen = BTreeSet::new();
        self.each("vips", &document.vips, |check, item| {
            let vip = check.vip(item, interface.as_ref());
            if vip.address != PLACEHOLDER && !seen.insert(vip.address) {
                check.wrong(format!("the VIP {} is given twice", vip.address));
            }
            vips.push(vip);
        });
        let mut config = Config {
            vips,
            arp: self.arp(document.arp.as_ref()),
            announce: self.announce(document.announce.as_ref()),
            keep_vips: false,
            keep_services: false,
            drain: Duration::ZERO,
            exclusive: false,
            timeouts: Timeouts::default(),
            ipvs_parameters: BTreeMap::new(),
            daemon: None,
            services: BTreeMap::new(),
        };
        if let Some(backup) = &document.backup {
            self.within("backup", |check| {
                config.keep_vips = check.keep("vips", backup.vips.as_ref());
                config.keep_services = check.keep("services", backup.services.as_ref());
                if let Some(Text(text)) = &backup.drain {
                    config.drain = check.within("drain", |check| check.drain(text, &config));
                }
            });
        }
        if let Some(ipvs) = &document.ipvs {
            self.within("ipvs", |check| check.ipvs(ipvs, &mut config));
        }
        let mut services = BTreeMap::new();
        self.each("virtual_services", &document.virtual_services, |check, item| {
            let before = check.problems.len();
            let (key, wanted) = check.service(item, &config);
            if check.problems.len() == before && services.insert(key, wanted).is_some() {
                check.wrong(format!("the service {key} is given twice"));
            }
        });
        config.services = services;
        if document.virtual_services.is_empty() && !document.allow_empty {
            self.within("virtual_services", |check| {
                check.wrong("no service is declared, so every service of the VIPs would be removed; if that is meant, say `allow_empty: true`");
            });
        }
        let only_marks = config.services.keys().all(|key| matches!(key, ServiceKey::Fwmark { .. }));
        let nothing_meant = config.services.is_empty() && !document.allow_empty;
        if config.vips.is_empty() && (nothing_meant || !only_marks) {
            self.within("vips", |check| {
                check.wrong(
                    "no VIP is declared; only files whose services are all fwmark services can do without",
                )
            });
        }
        self.loops(&config);
        config
    }

    /// Two directors that both hold services and the VIP hand the same packet to each other for
    /// ever, unless the one that is not MASTER is told to stay out (kernel commit 0c12582fbcde).
    fn loops(&mut self, config: &Config) {
        if !config.keep_vips {
            return;
        }
        if config.arp.is_some_and(|arp| arp.ignore == 0) {
            self.within("backup", |check| {
                check.wrong("with `vips: keep` the VIP stays on lo, and arp_ignore 0 would answer ARP for it while not MASTER; set arp.arp_ignore to 1");
            });
        }
        let backup_only = config.ipvs_parameters.get("backup_only").is_some_and(|value| value != "0");
        if config.keep_services && !(backup_only && config.daemon.is_some()) {
            self.within("backup", |check| {
                check.wrong("`vips: keep` with `services: keep` makes two directors bounce packets for ever; it needs `ipvs.sysctl.backup_only: 1` and `ipvs.sync_daemon`, or leave out `services: keep`");
            });
        }
    }

    fn interface(&mut self, name: &str) -> String {
        // dev_valid_name() of net/core/dev.c
        if name.is_empty()
            || name.len() > 15
            || name == "."
            || name == ".."
            || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        {
            self.wrong("not an interface name: 1 to 15 characters, no slash, colon or blank");
        } else if ["lo", "all", "default"].contains(&name) {
            self.wrong(format!("`{name}` cannot face clients; name the interface on which they reach the VIP, or leave `interface` out when the VIP is routed"));
        }
        name.to_owned()
    }

    fn vip(&mut self, item: &ShortOr<raw::Vip>, interface: Option<&String>) -> Vip {
        match item {
            ShortOr::Short(text) => {
                let address = self.vip_address(text);
                Vip { address, label: default_label(address), interface: interface.cloned() }
            }
            ShortOr::Long(vip) => {
                let address = self.within("address", |check| check.vip_address(&vip.address));
                let label = match &vip.label {
                    None => default_label(address),
                    Some(label) => self.within("label", |check| check.label(label, address)),
                };
                let interface = match &vip.interface {
                    None => interface.cloned(),
                    Some(name) => Some(self.within("interface", |check| check.interface(name))),
                };
                Vip { address, label, interface }
            }
        }
    }

    fn label(&mut self, label: &str, address: IpAddr) -> Option<String> {
        if address.is_ipv6() {
            self.wrong("IPv6 addresses have no label; leave it out");
        } else if label.len() > 15
            || !(label == "lo" || label.starts_with("lo:"))
            || label.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            self.wrong("a label is `lo` or begins with `lo:`, and has at most 15 characters, as in `lo:0`");
        }
        Some(label.to_owned())
    }

    fn vip_address(&mut self, text: &str) -> IpAddr {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            self.wrong(format!("`{text}` is not an IP address"));
            return PLACEHOLDER;
        };
        let host = Family::of(address).host_prefix();
        if prefix.is_some_and(|prefix| prefix != host.to_string()) {
            self.wrong(format!("a VIP is one address: write `{address}` or `{address}/{host}`; any other prefix on lo would make the whole subnet local"));
        }
        let unusable = address.is_loopback() || unusable_address(address);
        if unusable {
            self.wrong(format!(
                "{address} cannot be a VIP: it is no unicast address that clients could reach"
            ));
        }
        address
    }

    fn arp(&mut self, arp: Option<&ShortOr<raw::Arp>>) -> Option<Arp> {
        let defaults = Arp { ignore: 1, announce: 2, persist: true, restore: false };
        match arp {
            None => Some(defaults),
            Some(ShortOr::Short(word)) => {
                if word != "off" {
                    self.within("arp", |check| check.wrong(format!("`{word}` is not known here; write `off` or a mapping with arp_ignore, arp_announce, persist, restore")));
                }
                None
            }
            Some(ShortOr::Long(arp)) => self.within("arp", |check| {
                let ignore = arp.arp_ignore.unwrap_or(defaults.ignore);
                if !matches!(ignore, 0..=3 | 8) {
                    check.within("arp_ignore", |check| {
                        check.wrong("arp_ignore is 0, 1, 2, 3 or 8; 1 hides the VIP on lo")
                    });
                }
                let announce = arp.arp_announce.unwrap_or(defaults.announce);
                if announce > 2 {
                    check.within("arp_announce", |check| {
                        check.wrong(
                            "arp_announce is 0, 1 or 2; 2 never uses the VIP as ARP source on another link",
                        )
                    });
                }
                Some(Arp {
                    ignore,
                    announce,
                    persist: arp.persist.unwrap_or(defaults.persist),
                    restore: arp.restore.unwrap_or(defaults.restore),
                })
            }),
        }
    }

    fn announce(&mut self, announce: Option<&raw::Announce>) -> (u32, Duration) {
        let defaults = raw::Announce::default();
        let announce = announce.unwrap_or(&defaults);
        self.within("announce", |check| {
            let count = announce.count.unwrap_or(5);
            if count > 100 {
                check.within("count", |check| check.wrong("at most 100 announcements"));
            }
            let interval = match &announce.interval {
                None => Duration::from_millis(200),
                Some(Text(text)) => check.within("interval", |check| {
                    let interval = check.duration(text);
                    if interval > Duration::from_secs(60) {
                        check.wrong("at most 60s between two announcements");
                    }
                    interval
                }),
            };
            (count, interval)
        })
    }

    fn drain(&mut self, text: &str, config: &Config) -> Duration {
        let period = self.duration(text);
        if period > Duration::from_secs(60) {
            self.wrong("at most 60s; a newer notification ends it at once");
        }
        if config.keep_vips || config.keep_services {
            self.wrong("what is kept is not drained; leave out `drain`, or `keep`");
        }
        period
    }

    fn keep(&mut self, key: &'static str, word: Option<&String>) -> bool {
        match word.map(String::as_str) {
            None | Some("remove") => false,
            Some("keep") => true,
            Some(other) => {
                self.within(key, |check| check.unknown_word(other, &["keep", "remove"]));
                false
            }
        }
    }

    fn unknown_word(&mut self, word: &str, choices: &[&str]) {
        let hint = did_you_mean(word, choices);
        self.wrong(format!("`{word}` is not one of {}{hint}", choices.join(", ")));
    }

    fn duration(&mut self, text: &str) -> Duration {
        if let Some(duration) = parse_duration(text) {
            return duration;
        }
        self.wrong(format!(
            "`{text}` is not a duration: a number with ms, s, m, h or d, or plain seconds, as in 5m or 300"
        ));
        Duration::from_secs(1)
    }

    fn seconds(&mut self, text: &str) -> u32 {
        let duration = self.duration(text);
        let seconds = duration.as_secs();
        if duration.subsec_nanos() != 0 || seconds == 0 || seconds > MAX_SECONDS {
            self.wrong(format!("`{text}` must be whole seconds, from 1s to 31d"));
            return 1;
        }
        u32::try_from(seconds).unwrap_or(1)
    }

    fn ipvs(&mut self, ipvs: &raw::Ipvs, config: &mut Config) {
        config.exclusive = ipvs.exclusive.unwrap_or(false);
        if let Some(timeouts) = &ipvs.timeouts {
            self.within("timeouts", |check| {
                let mut read = |key: &'static str, value: &Option<Text>| {
                    value.as_ref().map_or(0, |Text(text)| check.within(key, |check| check.seconds(text)))
                };
                config.timeouts = Timeouts {
                    tcp: read("tcp", &timeouts.tcp),
                    tcp_fin: read("tcp_fin", &timeouts.tcp_fin),
                    udp: read("udp", &timeouts.udp),
                };
            });
        }
        if let Some(raw::Parameters(list)) = &ipvs.sysctl {
            self.within("sysctl", |check| {
                for (name, value) in list {
                    check.within(name.clone(), |check| check.ipvs_parameter(name, value, config));
                }
            });
        }
        if let Some(daemon) = &ipvs.sync_daemon {
            config.daemon = Some(self.within("sync_daemon", |check| check.daemon(daemon)));
        }
    }

    fn ipvs_parameter(&mut self, name: &str, value: &str, config: &mut Config) {
        if !IPVS_PARAMETERS.contains(&name) {
            let hint = did_you_mean(name, &IPVS_PARAMETERS);
            self.wrong(format!("there is no parameter net.ipv4.vs.{name}{hint}"));
        }
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if value.is_empty() || !value.chars().all(|c| c.is_ascii_digit() || " ,-".contains(c)) {
            self.wrong(format!("`{value}` is not a number"));
        }
        config.ipvs_parameters.insert(name.to_owned(), value);
    }

    /// A number within bounds, or 0 and a problem.
    fn number<T: TryFrom<u32> + Default>(
        &mut self,
        key: &'static str,
        value: u32,
        least: u32,
        most: u32,
    ) -> T {
        if value < least || value > most {
            self.within(key, |check| check.wrong(format!("{value} is out of range: {least} to {most}")));
        }
        T::try_from(value).unwrap_or_default()
    }

    fn daemon(&mut self, daemon: &raw::SyncDaemon) -> SyncDaemon {
        let interface = self.within("interface", |check| check.interface(&daemon.interface));
        let group = daemon.group.as_ref().and_then(|text| {
            let group = text.parse::<IpAddr>().ok().filter(IpAddr::is_multicast);
            if group.is_none() {
                self.within("group", |check| check.wrong(format!("`{text}` is not a multicast address")));
            }
            group
        });
        SyncDaemon {
            interface,
            // The kernel takes 32 bits and keeps 8 of them.
            id: self.number("id", daemon.id.unwrap_or(0), 0, 255),
            // A backup daemon raises less to 1024 (ip_vs_sync.c), and would differ for ever.
            max_len: daemon.max_len.map(|value| self.number("max_len", value, 1024, 65535)),
            group,
            port: daemon.port.map(|value| self.number("port", value, 1, 65535)),
            ttl: daemon.ttl.map(|value| self.number("ttl", value, 1, 255)),
        }
    }

    fn service(&mut self, service: &raw::VirtualService, config: &Config) -> (ServiceKey, WantedService) {
        let key = self.service_key(service, config);
        let settings = self.settings(service, key);
        let forward = match &service.forward {
            None => Forward::NAT,
            Some(word) => self.within("forward", |check| check.forward(word)),
        };
        let any_port = matches!(key, ServiceKey::Endpoint { port: 0, address, .. } if address != PLACEHOLDER);
        if any_port && !settings.is_persistent() {
            self.within("address", |check| {
                check.wrong("port 0 stands for every port and needs `persistence`; without it the kernel never schedules a packet");
            });
        }
        let mut servers = Servers::new();
        self.each("real_servers", &service.real_servers, |check, item| {
            let (server, settings) = check.server(item, key, forward, config);
            if servers.insert(server, settings).is_some() && server.address != PLACEHOLDER {
                check.wrong(format!("the real server {server} is given twice in this service"));
            }
        });
        (key, WantedService { settings, servers })
    }

    fn service_key(&mut self, service: &raw::VirtualService, config: &Config) -> ServiceKey {
        let protocol = match service.protocol.as_deref() {
            None | Some("tcp") => Protocol::TCP,
            Some("udp") => Protocol::UDP,
            Some("sctp") => Protocol::SCTP,
            Some(other) => {
                self.within("protocol", |check| check.unknown_word(other, &["tcp", "udp", "sctp"]));
                Protocol::TCP
            }
        };
        match (&service.address, service.fwmark) {
            (Some(text), None) => {
                if service.family.is_some() {
                    self.within("family", |check| {
                        check.wrong("`family` belongs to a fwmark service; the address tells it here")
                    });
                }
                let Endpoint { address, port } =
                    self.within("address", |check| check.service_address(text, config));
                ServiceKey::Endpoint { address, port, protocol }
            }
            (None, Some(mark)) => {
                if mark == 0 {
                    self.within("fwmark", |check| check.wrong("mark 0 means no mark; use 1 to 4294967295"));
                }
                if service.protocol.is_some() {
                    self.within("protocol", |check| check.wrong("a fwmark service takes every protocol of the marked packets; leave `protocol` out"));
                }
                let family = match service.family.as_deref() {
                    None | Some("ipv4") => Family::Ipv4,
                    Some("ipv6") => Family::Ipv6,
                    Some(other) => {
                        self.within("family", |check| check.unknown_word(other, &["ipv4", "ipv6"]));
                        Family::Ipv4
                    }
                };
                ServiceKey::Fwmark { mark, family }
            }
            (Some(_), Some(_)) => {
                self.within("fwmark", |check| {
                    check.wrong("a service has either `address` or `fwmark`, not both")
                });
                ServiceKey::Endpoint { address: PLACEHOLDER, port: 0, protocol }
            }
            (None, None) => {
                self.wrong("a service needs `address` (VIP and port) or `fwmark`");
                ServiceKey::Endpoint { address: PLACEHOLDER, port: 0, protocol }
            }
        }
    }

    fn service_address(&mut self, text: &str, config: &Config) -> Endpoint {
        let nowhere = Endpoint { address: PLACEHOLDER, port: 0 };
        let Some((address, port)) = parse_endpoint(text) else {
            self.wrong(format!(
                "`{text}` is not an address with a port, as in 192.0.2.1:80 or \"[2001:db8::1]:80\""
            ));
            return nowhere;
        };
        let Some(port) = port else {
            self.wrong(format!("`{text}` lacks the port"));
            return nowhere;
        };
        if !config.vips.iter().any(|vip| vip.address == address) {
            let listed: Vec<String> = config.vips.iter().map(|vip| vip.address.to_string()).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            let hint = nearest(&address.to_string(), &listed)
                .map_or(String::new(), |vip| format!("; did you mean {vip}?"));
            self.wrong(format!("{address} is not among the declared `vips`{hint}"));
        }
        Endpoint { address, port }
    }

    fn settings(&mut self, service: &raw::VirtualService, key: ServiceKey) -> Service {
        let family = key.family();
        let scheduler = service.scheduler.as_deref().unwrap_or("wlc");
        self.within("scheduler", |check| {
            if scheduler == "none" {
                check.wrong("`none` would refuse every connection");
            } else if scheduler.is_empty()
                || scheduler.len() > 15
                || !scheduler.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            {
                check.wrong(format!("`{scheduler}` is not a scheduler's name, as in rr, wrr, wlc, sh, mh"));
            }
        });
        let mut settings = Service {
            flags: 0,
            timeout: 0,
            netmask: Service::full_netmask(family),
            engine: String::new(),
            scheduler: scheduler.to_owned(),
        };
        let flags = service.scheduler_flags.as_deref().unwrap_or_default();
        self.each("scheduler_flags", flags, |check, name| {
            let bit = check.scheduler_flag(name, &settings.scheduler);
            if settings.flags & bit != 0 {
                check.wrong(format!("`{name}` sets a flag that is set already"));
            }
            settings.flags |= bit;
        });
        if let Some(persistence) = &service.persistence {
            self.within("persistence", |check| check.persistence(persistence, key, &mut settings));
        }
        if service.one_packet == Some(true) {
            let datagrams = match key {
                ServiceKey::Endpoint { protocol, .. } => protocol == Protocol::UDP,
                ServiceKey::Fwmark { .. } => true,
            };
            if !datagrams {
                self.within("one_packet", |check| {
                    check.wrong("one-packet scheduling is for UDP and fwmark services")
                });
            }
            settings.flags |= service_flag::ONE_PACKET;
        }
        settings
    }

    fn scheduler_flag(&mut self, name: &str, scheduler: &str) -> u32 {
        let bit = match name {
            "flag-1" | "sh-fallback" | "mh-fallback" => service_flag::SCHED1,
            "flag-2" | "sh-port" | "mh-port" => service_flag::SCHED2,
            "flag-3" => service_flag::SCHED3,
            _ => {
                self.unknown_word(
                    name,
                    &["sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"],
                );
                0
            }
        };
        match name.split_once('-') {
            Some((owner @ ("sh" | "mh"), _)) if owner != scheduler => {
                self.wrong(format!(
                    "`{name}` belongs to the scheduler {owner}; this service has {scheduler}"
                ));
            }
            _ => {}
        }
        bit
    }

    fn persistence(
        &mut self,
        persistence: &ShortOr<raw::Persistence>,
        key: ServiceKey,
        settings: &mut Service,
    ) {
        settings.flags |= service_flag::PERSISTENT;
        settings.timeout = DEFAULT_PERSISTENCE;
        let long = match persistence {
            ShortOr::Short(text) => {
                settings.timeout = self.seconds(text);
                return;
            }
            ShortOr::Long(long) => long,
        };
        if let Some(Text(text)) = &long.timeout {
            settings.timeout = self.within("timeout", |check| check.seconds(text));
        }
        let family = key.family();
        if let Some(text) = &long.netmask {
            self.within("netmask", |check| {
                // The kernel takes any bits here and matches clients by them.
                match text.parse::<Ipv4Addr>().map(u32::from) {
                    _ if family == Family::Ipv6 => {
                        check.wrong("an IPv6 service has `prefix` (1 to 128) instead of `netmask`")
                    }
                    Ok(mask) if mask != 0 && mask.leading_ones() + mask.trailing_zeros() == 32 => {
                        settings.netmask = mask
                    }
                    _ => check.wrong(format!("`{text}` is not a netmask, as in 255.255.255.0")),
                }
            });
        }
        if let Some(prefix) = long.prefix {
            if family == Family::Ipv4 {
                self.within("prefix", |check| {
                    check.wrong("an IPv4 service has `netmask` (as in 255.255.255.0) instead of `prefix`")
                });
            }
            settings.netmask = self.number("prefix", prefix, 1, 128);
        }
        if let Some(engine) = &long.engine {
            self.within("engine", |check| {
                if engine != "sip" {
                    check.unknown_word(engine, &["sip"]);
                }
                if matches!(key, ServiceKey::Endpoint { protocol, .. } if protocol != Protocol::UDP) {
                    check.wrong("the engine sip reads UDP packets; this service is not UDP");
                }
            });
            settings.engine.clone_from(engine);
        }
    }

    fn forward(&mut self, word: &str) -> Forward {
        match word {
            "nat" => Forward::NAT,
            "dr" => Forward::DR,
            "tun" => Forward::TUN,
            _ => {
                let meant = match word.to_ascii_lowercase().as_str() {
                    "masq" | "masquerade" | "masquerading" | "-m" => Some("nat"),
                    "direct" | "route" | "gate" | "gatewaying" | "-g" => Some("dr"),
                    "tunnel" | "ipip" | "-i" => Some("tun"),
                    other => nearest(other, &["nat", "dr", "tun"]),
                };
                let hint = meant.map_or(String::new(), |word| format!("; did you mean `{word}`?"));
                self.wrong(format!("`{word}` is not one of nat, dr, tun{hint}"));
                Forward::NAT
            }
        }
    }

    fn server(
        &mut self,
        item: &ShortOr<raw::RealServer>,
        service: ServiceKey,
        forward: Forward,
        config: &Config,
    ) -> (ServerKey, RealServer) {
        let mut wanted = RealServer {
            forward,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
        };
        let key = match item {
            ShortOr::Short(text) => self.server_address(text, service, wanted.forward, config),
            ShortOr::Long(server) => {
                if let Some(word) = &server.forward {
                    wanted.forward = self.within("forward", |check| check.forward(word));
                }
                // Kernel ints: larger values are negative there.
                let most = i32::MAX.unsigned_abs();
                wanted.weight = self.number("weight", server.weight.unwrap_or(1), 0, most);
                wanted.upper_threshold =
                    self.number("upper_threshold", server.upper_threshold.unwrap_or(0), 0, most);
                wanted.lower_threshold =
                    self.number("lower_threshold", server.lower_threshold.unwrap_or(0), 0, most);
                if wanted.lower_threshold > wanted.upper_threshold {
                    self.within("lower_threshold", |check| {
                        check.wrong("the lower threshold must not be above the upper one")
                    });
                }
                if let Some(tunnel) = &server.tunnel {
                    wanted.tunnel = self.within("tunnel", |check| check.tunnel(tunnel, wanted.forward));
                }
                self.within("address", |check| {
                    check.server_address(&server.address, service, wanted.forward, config)
                })
            }
        };
        (key, wanted)
    }

    fn server_address(
        &mut self,
        text: &str,
        service: ServiceKey,
        forward: Forward,
        config: &Config,
    ) -> ServerKey {
        let Some((address, port)) = parse_endpoint(text) else {
            self.wrong(format!(
                "`{text}` is not a real server's address, as in 192.0.2.11:80 or \"[2001:db8::11]:80\""
            ));
            return Endpoint { address: PLACEHOLDER, port: 0 };
        };
        let service_port = match service {
            ServiceKey::Endpoint { address: PLACEHOLDER, .. } => {
                return Endpoint { address, port: port.unwrap_or(0) };
            }
            ServiceKey::Endpoint { port, .. } => port,
            ServiceKey::Fwmark { .. } => 0,
        };
        if unusable_address(address) {
            self.wrong(format!("{address} cannot be a real server: it is no unicast address"));
        }
        if port.is_none() && service_port != 0 {
            self.wrong(format!("`{text}` lacks the port"));
        }
        let port = port.unwrap_or(0);
        // A mark has no port that another could contradict; DR and TUN never rewrite it.
        let marked = matches!(service, ServiceKey::Fwmark { .. });
        if forward != Forward::NAT && port != service_port && !marked {
            let remedy = if service_port == 0 {
                "leave the port out".to_owned()
            } else {
                format!("write port {service_port}")
            };
            self.wrong(format!(
                "with {forward} the packet keeps the port that the client asked for: {remedy}, or use nat"
            ));
        }
        if port == 0 && service_port != 0 {
            self.wrong("a real server of a service with a port needs one");
        }
        if Family::of(address) != service.family() {
            if forward != Forward::TUN {
                self.wrong("a real server of the other address family needs `forward: tun`");
            } else if config.daemon.is_some() {
                self.wrong("a real server of the other address family cannot be had together with `ipvs.sync_daemon`");
            }
        }
        Endpoint { address, port }
    }

    fn tunnel(&mut self, tunnel: &raw::Tunnel, forward: Forward) -> Tunnel {
        if forward != Forward::TUN {
            self.wrong("`tunnel` belongs to `forward: tun`");
        }
        let kind = self.word_index("type", tunnel.kind.as_ref(), &Tunnel::KINDS);
        let checksum = self.word_index("checksum", tunnel.checksum.as_ref(), &Tunnel::CHECKSUMS);
        let port = tunnel.port.map_or(0, |port| self.number("port", port, 1, 65535));
        match (kind, port) {
            (1, 0) => self.wrong("gue needs a `port`"),
            (0 | 2, 1..) => self.within("port", |check| check.wrong("only gue has a port")),
            _ => {}
        }
        if (kind == 0 && checksum != 0) || (kind == 2 && checksum == 2) {
            self.within("checksum", |check| check.wrong("csum is for gue and gre, remcsum for gue only"));
        }
        Tunnel { kind, port, checksum: u16::from(checksum) }
    }

    fn word_index(&mut self, key: &'static str, word: Option<&String>, words: &[&str]) -> u8 {
        let Some(word) = word else { return 0 };
        match words.iter().position(|known| known == word) {
            Some(index) => u8::try_from(index).unwrap_or(0),
            None => {
                self.within(key, |check| check.unknown_word(word, words));
                0
            }
        }
    }
}

/// The article's label: what `ifconfig lo:0` would have made.
fn default_label(address: IpAddr) -> Option<String> {
    address.is_ipv4().then(|| "lo:0".to_owned())
}

/// Addresses that no packet can be sent to, or that need an interface to mean anything.
fn unusable_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified() || address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local()
        }
    }
}
