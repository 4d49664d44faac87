//! The shape of a desired-state file: its keys, its words, and the short and long forms of their values.
//!
//! Owns what YAML may stand where. Knows no meaning: that is `rules`. Read by `source`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::model::Family;

/// The file, word for word. Numbers and texts with a meaning of their own stay as they are until `rules` reads them, so
/// that all errors of meaning can be told together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping with `version`, `vips` and `virtual_services`")]
pub struct Document {
    /// Version of the format: 1
    pub version: u32,
    /// Client-side interface
    #[serde(default, deserialize_with = "given")]
    pub interface: Option<String>,
    pub vips: Vec<ShortOr<Vip>>,
    pub arp: Option<ShortOr<Arp>>,
    /// Gratuitous ARP and unsolicited neighbour advertisements
    pub announce: Option<Announce>,
    /// What stays while not MASTER
    pub backup: Option<Backup>,
    /// Settings of IPVS as a whole
    pub ipvs: Option<Ipvs>,
    /// An empty list of services is meant
    #[serde(default)]
    pub allow_empty: bool,
    pub virtual_services: Vec<VirtualService>,
}

/// Long form of a VIP
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Address, with or without its host prefix
    pub address: String,
    pub label: Option<String>,
    /// Client-side interface of this VIP
    #[serde(default, deserialize_with = "given")]
    pub interface: Option<String>,
}

/// ARP parameters
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Arp {
    pub arp_ignore: Option<u32>,
    pub arp_announce: Option<u32>,
    /// Keep them over a reboot
    pub persist: Option<bool>,
    /// Put the values found before back on leaving MASTER
    pub restore: Option<bool>,
}

/// Announcement of the VIPs
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Announce {
    pub count: Option<u32>,
    pub interval: Option<Text>,
}

/// What stays while not MASTER
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Backup {
    pub vips: Option<Word<Leaving>>,
    pub services: Option<Word<Leaving>>,
    /// How long connections may live on
    pub drain: Option<Text>,
}

/// Settings of IPVS as a whole
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Ipvs {
    /// The whole table belongs to this file
    pub exclusive: Option<bool>,
    pub timeouts: Option<Timeouts>,
    pub sysctl: Option<Parameters>,
    pub sync_daemon: Option<SyncDaemon>,
}

/// Timeouts of idle connections
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Timeouts {
    pub tcp: Option<Text>,
    pub tcp_fin: Option<Text>,
    pub udp: Option<Text>,
}

/// Connection synchronisation
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct SyncDaemon {
    pub interface: String,
    pub id: Option<u32>,
    pub max_len: Option<u32>,
    pub group: Option<String>,
    pub port: Option<u32>,
    pub ttl: Option<u32>,
}

/// A virtual service
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping with `real_servers` and `address` or `fwmark`")]
pub struct VirtualService {
    pub address: Option<String>,
    pub fwmark: Option<u32>,
    /// Family of a fwmark service
    pub family: Option<Word<Family>>,
    pub protocol: Option<Word<Transport>>,
    pub scheduler: Option<String>,
    pub scheduler_flags: Option<Vec<String>>,
    pub persistence: Option<ShortOr<Persistence>>,
    pub one_packet: Option<bool>,
    /// Forwarding method of its real servers
    pub forward: Option<Word<Method>>,
    pub real_servers: Vec<ShortOr<RealServer>>,
}

/// Long form of persistence
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// How long a client stays with its real server
    pub timeout: Option<Text>,
    pub netmask: Option<String>,
    pub prefix: Option<u32>,
    pub engine: Option<Word<Engine>>,
}

/// Long form of a real server
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    pub address: String,
    pub weight: Option<u32>,
    pub forward: Option<Word<Method>>,
    pub upper_threshold: Option<u32>,
    pub lower_threshold: Option<u32>,
    pub tunnel: Option<Tunnel>,
}

/// Tunnel encapsulation
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Tunnel {
    #[serde(rename = "type")]
    pub kind: Option<Word<TunnelKind>>,
    pub port: Option<u32>,
    pub checksum: Option<Word<Checksum>>,
}

/// A word of the list that `T` is. Read by the rules: a wrong one is told together with all the other errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = ""))]
#[serde(transparent)]
pub struct Word<T> {
    #[cfg_attr(feature = "schema", schemars(with = "T"))]
    pub text: String,
    list: PhantomData<T>,
}

macro_rules! words {
    ($($(#[$doc:meta])* $list:ident: $($word:ident = $number:literal),*;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = ""))]
        #[serde(rename_all = "lowercase")]
        pub enum $list { $($word = $number),* }
    )*};
}

words! {
    /// What becomes of something when MASTER is left
    Leaving: Keep = 0, Remove = 1;
    /// Protocols, with their IP protocol numbers
    Transport: Tcp = 6, Udp = 17, Sctp = 132;
    /// Forwarding methods, with the kernel's numbers
    Method: Nat = 0, Dr = 3, Tun = 2;
    /// Persistence engines
    Engine: Sip = 0;
    /// Kinds of tunnels, with the kernel's numbers
    TunnelKind: Ipip = 0, Gue = 1, Gre = 2;
    /// Checksums of tunnelled packets, with the kernel's numbers
    Checksum: Nocsum = 0, Csum = 1, Remcsum = 2;
}

/// A scalar in its text form, whatever YAML takes it for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = ""))]
pub struct Text(pub String);

/// Parameters by name. Not a plain map, in which the last of two equal keys would win.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Parameters(pub BTreeMap<String, String>);

/// A scalar (the short form) or a mapping (the long one).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = ""))]
#[serde(untagged)]
pub enum ShortOr<T> {
    Short(String),
    Long(T),
}

impl<T: Clone + From<String>> ShortOr<T> {
    /// The long form, in which the short one is the only value given.
    pub fn long(&self) -> Cow<'_, T> {
        match self {
            Self::Short(text) => Cow::Owned(T::from(text.clone())),
            Self::Long(long) => Cow::Borrowed(long),
        }
    }
}

impl From<String> for Vip {
    fn from(address: String) -> Self {
        Self { address, ..Self::default() }
    }
}

impl From<String> for Persistence {
    fn from(timeout: String) -> Self {
        Self { timeout: Some(Text(timeout)), ..Self::default() }
    }
}

impl From<String> for RealServer {
    fn from(address: String) -> Self {
        Self { address, ..Self::default() }
    }
}

/// A key whose value was forgotten is not the same as a key that is left out: without an interface
/// nothing is announced.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Every scalar in its text form.
macro_rules! scalars {
    ($form:expr; $($visit:ident: $type:ty),*) => {$(
        fn $visit<E: de::Error>(self, value: $type) -> Result<Self::Value, E> {
            Ok($form(value.to_string()))
        }
    )*};
    ($form:expr) => {
        scalars!($form; visit_str: &str, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_bool: bool);
    };
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }
            scalars!(Text);
        }
        deserializer.deserialize_any(Scalar)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ShortOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarOr<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ScalarOr<T> {
            type Value = ShortOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value or a mapping")
            }
            scalars!(ShortOr::Short);
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(ShortOr::Long)
            }
        }
        deserializer.deserialize_any(ScalarOr(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Parameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names below net.ipv4.vs to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut list = BTreeMap::new();
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    if list.insert(name.clone(), value).is_some() {
                        return Err(de::Error::custom(format!("duplicate field `{name}`")));
                    }
                }
                Ok(Parameters(list))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
