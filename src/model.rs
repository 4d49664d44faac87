//! The field's words as types: roles, VIPs, virtual services, real servers and their settings.
//!
//! Owns names, identities (what makes two objects the same one), settings (what may differ between two versions of one
//! object) and their text form. Leaves ipvsadm's words to `ipvsadm`. Reads nothing, decides nothing, imports nothing
//! local but `serial`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};

use crate::serial::{pairs, words};

/// The longest persistence and idle timeout: 31 days, ipvsadm's limit. The kernel counts in jiffies in 32 bits and
/// overflows silently beyond (`ip_vs_ctl.c`).
pub const MAX_SECONDS: u32 = 31 * 24 * 3600;

/// The scheduler of a service without one, since Linux 4.2 (`ip_vs_ctl.c`, `ip_vs_add_service`).
pub const NO_SCHEDULER: &str = "none";

/// Persistence without a timeout: `IP_VS_PERSISTENT_TIMEOUT` of `linux/ip_vs.h`.
pub const DEFAULT_PERSISTENCE: u32 = 360;

/// The state of a VRRP instance, as keepalived names it in its notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// This director serves the VIPs.
    Master,
    Backup,
    /// An interface or a tracked script failed.
    Fault,
    /// keepalived stops, or the instance was deleted.
    // What keepalived sends for an instance that was removed at reload.
    #[serde(alias = "DELETED")]
    Stop,
}

impl Role {
    pub fn command(self) -> String {
        self.to_string().to_lowercase()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let word = text.to_ascii_uppercase();
        Self::deserialize(word.into_deserializer()).map_err(|_: serde::de::value::Error| ())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = ""))]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// Bits of an address: the prefix length of a host route.
    pub fn host_prefix(self) -> u8 {
        if self == Self::Ipv4 { 32 } else { 128 }
    }
}

words! {
    /// IP protocol of a virtual service. The kernel accepts any number over netlink; files may name these only.
    Protocol(u16): "proto", ["tcp" TCP 6, "udp" UDP 17, "sctp" SCTP 132];

    /// How packets reach a real server (`linux/ip_vs.h`, `IP_VS_CONN_F_FWD_MASK`). Files may name nat, dr and tun; the others
    /// are seen only in foreign services.
    Forward(u32): "forward", [
        /// Masquerading: the director rewrites the destination, replies pass it again.
        "nat" NAT 0,
        /// Direct routing: packets go out unchanged to the real server's link address.
        "dr" DR 3,
        /// Tunnelling: packets are wrapped and sent to the real server.
        "tun" TUN 2,
        "local" LOCAL 1,
        "bypass" BYPASS 4
    ];
}

impl Forward {
    /// What files may name
    pub const DECLARED: [(&'static str, Self); 3] =
        [("nat", Self::NAT), ("dr", Self::DR), ("tun", Self::TUN)];
}

/// What makes a virtual service that service: the kernel's key (`ip_vs_ctl.c`,
/// `ip_vs_genl_parse_service`). The order of values is the order of every output: firewall marks last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceKey {
    /// Protocol, virtual address and port. Port 0 means every port and needs persistence.
    Endpoint { address: IpAddr, port: u16, protocol: Protocol },
    /// Packets that carry this firewall mark.
    Fwmark {
        mark: u32,
        /// One mark can stand for a service of either family, or for two
        family: Family,
    },
}

impl ServiceKey {
    pub fn family(&self) -> Family {
        match self {
            Self::Endpoint { address, .. } => Family::of(*address),
            Self::Fwmark { family, .. } => *family,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { address, port, protocol } => {
                write!(f, "{protocol} {}", Endpoint { address: *address, port: *port })
            }
            Self::Fwmark { mark, family: Family::Ipv4 } => write!(f, "fwmark {mark}"),
            Self::Fwmark { mark, family: Family::Ipv6 } => write!(f, "fwmark {mark} ipv6"),
        }
    }
}

/// An address and a port: the identity of a real server within its service, and the text form
/// of both ends (`192.0.2.1:80`, `[2001:db8::1]:80`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Endpoint {
    pub address: IpAddr,
    /// Port; 0 keeps the client's port
    pub port: u16,
}

pub type ServerKey = Endpoint;

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

/// Flag bits of a service (`linux/ip_vs.h`, `IP_VS_SVC_F_*`).
pub mod service_flag {
    pub const PERSISTENT: u32 = 0x1;
    /// The kernel's own mark that the service is in its table; never sent, masked when read.
    pub const HASHED: u32 = 0x2;
    /// Every packet is scheduled anew (UDP, fwmark).
    pub const ONE_PACKET: u32 = 0x4;
    pub const SCHED1: u32 = 0x8;
    pub const SCHED2: u32 = 0x10;
    pub const SCHED3: u32 = 0x20;
}

/// Scheduler flags by ipvsadm's names: name, the scheduler whose own it is, and bit.
pub const SCHEDULER_FLAGS: [(&str, Option<&str>, u32); 7] = [
    ("sh-port", Some("sh"), service_flag::SCHED2),
    ("sh-fallback", Some("sh"), service_flag::SCHED1),
    ("mh-port", Some("mh"), service_flag::SCHED2),
    ("mh-fallback", Some("mh"), service_flag::SCHED1),
    ("flag-1", None, service_flag::SCHED1),
    ("flag-2", None, service_flag::SCHED2),
    ("flag-3", None, service_flag::SCHED3),
];

/// The settings of a virtual service, in the kernel's terms and normalised: without persistence,
/// timeout is 0 and the mask is full, so that two services compare equal when they act alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    /// Scheduler name; `none` when the kernel has none bound.
    pub scheduler: String,
    #[serde(with = "flag_names")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub flags: u32,
    /// Persistence, in seconds
    pub timeout: u32,
    /// Persistence granularity: an IPv4 netmask as a number, or an IPv6 prefix length.
    pub netmask: u32,
    /// Persistence engine, `sip` or empty.
    pub engine: String,
}

impl Service {
    /// The mask that tells every client from every other.
    pub fn full_netmask(family: Family) -> u32 {
        if family == Family::Ipv4 { u32::MAX } else { 128 }
    }

    pub fn is_persistent(&self) -> bool {
        self.flags & service_flag::PERSISTENT != 0
    }

    /// One that has nothing but its scheduler.
    pub fn plain(scheduler: &str, family: Family) -> Self {
        let (scheduler, netmask) = (scheduler.to_owned(), Self::full_netmask(family));
        Self { scheduler, flags: 0, timeout: 0, netmask, engine: String::new() }
    }

    pub fn scheduler_flags(&self) -> Vec<&'static str> {
        let bits = [service_flag::SCHED1, service_flag::SCHED2, service_flag::SCHED3].into_iter();
        // A name of its own stands before the number.
        let name = |bit| self.known_flags().find(|(_, known)| *known == bit).map(|(name, _)| name);
        bits.filter(|bit| self.flags & bit != 0).filter_map(name).collect()
    }

    /// The bit of a flag that the scheduler has: by number, as every one, or by a name of its own.
    pub fn scheduler_flag(&self, name: &str) -> Option<u32> {
        self.known_flags().find(|(known, _)| *known == name).map(|(_, bit)| bit)
    }

    /// What clients meet of a real server of weight 0, where it is not what draining means. sh, mh and dh leave it its share of
    /// their tables (`ip_vs_sh.c`, `ip_vs_mh.c`, `ip_vs_dh.c`); a persistence template outlives it (`ip_vs_core.c`), unless
    /// `expire_quiescent_template` is set.
    pub fn drain_caveat(&self, expires: bool) -> Option<String> {
        let scheduler = &self.scheduler;
        if scheduler == "dh" {
            Some("dh refuses its clients; mh with mh-fallback gives them to others".to_owned())
        } else if self.refuses_for_drained() {
            Some(format!(
                "{scheduler} refuses its clients, and gives them to no other: `scheduler_flags: [{scheduler}-fallback]` does"
            ))
        } else if self.is_persistent() && !expires {
            let ends = "`ipvs: {sysctl: {expire_quiescent_template: 1}}` ends that";
            Some(format!("its persistent clients come back to it: {ends}"))
        } else {
            None
        }
    }

    /// Whether clients are refused that the scheduler leads to a real server of weight 0.
    pub fn refuses_for_drained(&self) -> bool {
        let fallback = self.scheduler_flag(&format!("{}-fallback", self.scheduler));
        fallback.map_or(self.scheduler == "dh", |bit| self.flags & bit == 0)
    }

    fn known_flags(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let own = |owner: Option<&str>| owner.is_none_or(|owner| owner == self.scheduler);
        SCHEDULER_FLAGS.into_iter().filter(move |flag| own(flag.1)).map(|(name, _, bit)| (name, bit))
    }

    pub fn netmask_text(&self, family: Family) -> String {
        match family {
            Family::Ipv4 => std::net::Ipv4Addr::from(self.netmask).to_string(),
            Family::Ipv6 => self.netmask.to_string(),
        }
    }

    pub fn fields(&self, family: Family) -> Vec<(&'static str, String)> {
        let persistence = if self.is_persistent() { format!("{}s", self.timeout) } else { "off".to_owned() };
        vec![
            ("scheduler", self.scheduler.clone()),
            ("scheduler_flags", self.scheduler_flags().join(",")),
            ("persistence", persistence),
            ("netmask", self.netmask_text(family)),
            ("engine", self.engine.clone()),
            ("one_packet", (self.flags & service_flag::ONE_PACKET != 0).to_string()),
        ]
    }
}

/// How packets to a tunnelled real server are wrapped. The default is what every other
/// forwarding method has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tunnel {
    /// 0 ipip, 1 gue (Linux 5.2), 2 gre (Linux 5.3): `IP_VS_CONN_F_TUNNEL_TYPE_*`
    pub kind: u8,
    pub port: u16,
    /// 0 nocsum, 1 csum, 2 remcsum: `IP_VS_TUNNEL_ENCAP_FLAG_*`
    pub checksum: u16,
}

impl Tunnel {
    pub const IPIP: u8 = 0;
    pub const GUE: u8 = 1;
    pub const GRE: u8 = 2;
    pub const KINDS: [&'static str; 3] = ["ipip", "gue", "gre"];
    pub const CHECKSUMS: [&'static str; 3] = ["nocsum", "csum", "remcsum"];

    pub fn kind_name(&self) -> &'static str {
        Self::KINDS.get(usize::from(self.kind)).copied().unwrap_or("unknown")
    }

    pub fn checksum_name(&self) -> &'static str {
        Self::CHECKSUMS.get(usize::from(self.checksum)).copied().unwrap_or("unknown")
    }
}

/// The settings of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RealServer {
    pub forward: Forward,
    /// Share of new connections; 0 drains.
    pub weight: u32,
    /// No new connections at or above this number; 0 is no limit.
    pub upper_threshold: u32,
    /// New connections again below this number.
    pub lower_threshold: u32,
    /// How packets are wrapped, with [`Forward::TUN`].
    pub tunnel: Tunnel,
}

pub type Servers = BTreeMap<ServerKey, RealServer>;

impl RealServer {
    pub fn forwarding(&self) -> String {
        let mut words = self.forward.to_string();
        if self.forward == Forward::TUN {
            words += &format!("/{}", self.tunnel.kind_name());
            words.extend((self.tunnel.port != 0).then(|| format!(":{}", self.tunnel.port)));
        }
        words
    }

    pub fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("forward", self.forwarding()),
            ("checksum", self.tunnel.checksum_name().to_owned()),
            ("weight", self.weight.to_string()),
            ("upper_threshold", self.upper_threshold.to_string()),
            ("lower_threshold", self.lower_threshold.to_string()),
        ]
    }
}

/// IPVS timeouts of idle connections in seconds (`ipvsadm --set`); 0 keeps the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timeouts {
    pub tcp: u32,
    pub tcp_fin: u32,
    pub udp: u32,
}

impl Timeouts {
    /// These, and of those that are there what these keep.
    pub fn over(self, there: Self) -> Self {
        let one = |wanted: u32, there| if wanted == 0 { there } else { wanted };
        let (tcp, tcp_fin) = (one(self.tcp, there.tcp), one(self.tcp_fin, there.tcp_fin));
        Self { tcp, tcp_fin, udp: one(self.udp, there.udp) }
    }

    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let seconds = |(name, value)| (name, format!("{value}s"));
        [("tcp", self.tcp), ("tcp_fin", self.tcp_fin), ("udp", self.udp)].map(seconds).into()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    Master,
    Backup,
}

impl fmt::Display for DaemonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// An IPVS connection synchronisation daemon. Unset values are the kernel's defaults:
/// `max_len` from the MTU, group 224.0.0.81, port 8848, ttl 1 (`ip_vs_sync.c`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SyncDaemon {
    pub interface: String,
    /// Sync id, 0 to 255; a backup daemon with 0 accepts every id
    pub id: u8,
    pub max_len: Option<u16>,
    pub group: Option<IpAddr>,
    pub port: Option<u16>,
    pub ttl: Option<u8>,
}

impl SyncDaemon {
    /// Whether a running daemon is this one. What is not said is the kernel's default, but for `max_len`, whose default
    /// follows the MTU.
    pub fn matches(&self, running: &Self) -> bool {
        let whole = |daemon: &Self| Self {
            max_len: daemon.max_len.filter(|_| self.max_len.is_some()),
            group: daemon.group.or(Some(IpAddr::from([224, 0, 0, 81]))),
            port: daemon.port.or(Some(8848)),
            ttl: daemon.ttl.or(Some(1)),
            ..daemon.clone()
        };
        whole(self) == whole(running)
    }
}

/// An address on an interface: what makes it that address, whatever its prefix length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddressKey {
    pub interface: String,
    pub address: IpAddr,
}

impl AddressKey {
    pub fn on_lo(address: IpAddr) -> Self {
        Self { interface: "lo".to_owned(), address }
    }

    pub fn is_on_lo(&self) -> bool {
        self.interface == "lo"
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.address, self.interface)
    }
}

pub type Mac = [u8; 6];

/// Who answers for addresses on the wire: the link-layer addresses, or why asking failed.
pub type Claims = BTreeMap<AddressKey, Result<Vec<Mac>, String>>;

/// A kernel parameter that this tool may set. Typed, because an interface name may hold dots,
/// which a dotted name could not tell from its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// `net.ipv4.conf.INTERFACE.arp_ignore` (INTERFACE may be `all`)
    ArpIgnore(String),
    ArpAnnounce(String),
    Ipvs(String),
}

/// Parameters of IPVS, each with the value that the kernel gives it (`ip_vs_ctl.c`: `vs_vars`,
/// `ip_vs_control_net_init_sysctl`); none where that depends on the machine or on how the kernel was built. Each network
/// namespace has its own, but for `debug_level`.
const IPVS_PARAMETERS: &str = "am_droprate 10, amemthresh 1024, backup_only 0, cache_bypass 0, conn_lfactor, \
    conn_max, conn_reuse_mode 1, conntrack 0, debug_level, drop_entry 0, drop_packet 0, est_cpulist, est_nice, \
    expire_nodest_conn 0, expire_quiescent_template 0, ignore_tunneled 0, nat_icmp_send 0, pmtu_disc 1, \
    run_estimation 1, schedule_icmp 0, secure_tcp 0, sloppy_sctp 0, sloppy_tcp 0, snat_reroute 1, svc_lfactor, \
    sync_persist_mode 0, sync_ports 1, sync_qlen_max, sync_refresh_period 0, sync_retries 0, sync_sock_size 0, \
    sync_threshold 3 50, sync_version 1";

impl Parameter {
    /// Names of the parameters of IPVS, and their defaults.
    pub fn of_ipvs() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        let read = |entry: &'static str| match entry.split_once(' ') {
            Some((name, usual)) => (name, Some(usual)),
            None => (entry, None),
        };
        IPVS_PARAMETERS.split(", ").map(read)
    }

    pub fn parts(&self) -> Vec<&str> {
        match self {
            Self::ArpIgnore(interface) => vec!["net", "ipv4", "conf", interface, "arp_ignore"],
            Self::ArpAnnounce(interface) => vec!["net", "ipv4", "conf", interface, "arp_announce"],
            Self::Ipvs(name) => vec!["net", "ipv4", "vs", name],
        }
    }
}

impl fmt::Display for Parameter {
    /// The name as sysctl(8) and sysctl.d(5) take it: with slashes when a part holds a dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        let separator = if parts.iter().any(|part| part.contains('.')) { "/" } else { "." };
        f.write_str(&parts.join(separator))
    }
}

/// Which services of the table belong to the desired-state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Services on these addresses are ours, whatever their port.
    pub vips: BTreeSet<IpAddr>,
    /// Services of these marks are ours, in either family.
    pub fwmarks: BTreeSet<u32>,
    /// Services that the record says we made.
    pub recorded: BTreeSet<ServiceKey>,
    pub exclusive: bool,
}

impl Ownership {
    pub fn with_record(&self, owned: &Owned) -> Self {
        Self { recorded: &self.recorded | &owned.services, ..self.clone() }
    }

    pub fn owns(&self, key: &ServiceKey) -> bool {
        self.exclusive
            || self.recorded.contains(key)
            || match key {
                ServiceKey::Endpoint { address, .. } => self.vips.contains(address),
                ServiceKey::Fwmark { mark, .. } => self.fwmarks.contains(mark),
            }
    }
}

/// What earlier runs made, from the record: a help, not the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owned {
    pub addresses: BTreeSet<AddressKey>,
    /// Those of them that were there before
    pub found: BTreeSet<AddressKey>,
    pub services: BTreeSet<ServiceKey>,
    /// Real servers that left the file and stay for a while, each with the time when it left, in seconds since 1970
    #[serde(with = "pairs")]
    pub leaving: BTreeMap<(ServiceKey, ServerKey), u64>,
    /// ARP parameters that are set for the instance
    pub parameters: BTreeSet<Parameter>,
    /// A sync daemon was declared
    pub daemon: bool,
    /// Indices of the links by the names that they had
    pub links: BTreeMap<String, u32>,
    /// VIPs with a wrong prefix that were taken off lo. One that is back is put there by somebody who would put it back
    /// for ever.
    pub taken: BTreeSet<(AddressKey, u8)>,
    /// Values that parameters had before they were first set
    #[serde(with = "pairs")]
    pub originals: BTreeMap<Parameter, String>,
}

impl Owned {
    pub fn has_made(&self, key: &AddressKey) -> bool {
        self.addresses.contains(key) && !self.found.contains(key)
    }
}

/// Flags of a service by ipvsadm's names, which every scheduler has; an unknown one by its number.
mod flag_names {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{SCHEDULER_FLAGS, service_flag};

    fn known() -> impl Iterator<Item = (&'static str, u32)> {
        let every = SCHEDULER_FLAGS.into_iter().filter(|(_, owner, _)| owner.is_none());
        let own = [("persistent", service_flag::PERSISTENT), ("one_packet", service_flag::ONE_PACKET)];
        own.into_iter().chain(every.map(|(name, _, bit)| (name, bit)))
    }

    pub fn serialize<S: Serializer>(flags: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return flags.serialize(serializer);
        }
        let rest = known().fold(*flags, |rest, (_, bit)| rest & !bit);
        let names = known().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| name.to_owned());
        serializer.collect_seq(names.chain((rest != 0).then(|| format!("{rest}"))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        if !deserializer.is_human_readable() {
            return u32::deserialize(deserializer);
        }
        let bit = |name: &String| known().find(|(known, _)| known == name).map(|(_, bit)| bit);
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(names.iter().fold(0, |flags, name| flags | bit(name).or(name.parse().ok()).unwrap_or(0)))
    }
}
