//! The shape of a desired-state file: its keys, and the short and long forms of their values.
//!
//! Owns what YAML may stand where. Knows no meaning: that is `rules`. Read by `source`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_yaml::Mapping;

/// The file, word for word. Numbers and texts with a meaning of their own stay as they are until `rules` reads them, so
/// that all errors of meaning can be told together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with `version`, `vips` and `virtual_services`")]
pub struct Document {
    pub version: u32,
    #[serde(default, deserialize_with = "given")]
    pub interface: Option<String>,
    pub vips: Vec<ShortOr<Vip>>,
    pub arp: Option<ShortOr<Arp>>,
    pub announce: Option<Announce>,
    pub backup: Option<Backup>,
    pub ipvs: Option<Ipvs>,
    #[serde(default)]
    pub allow_empty: bool,
    pub virtual_services: Vec<VirtualService>,
}

/// Long form of a VIP
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    pub address: String,
    pub label: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub interface: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arp {
    /// The short form, `off`
    #[serde(skip)]
    pub word: Option<String>,
    pub arp_ignore: Option<u32>,
    pub arp_announce: Option<u32>,
    pub persist: Option<bool>,
    pub restore: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Announce {
    pub count: Option<u32>,
    pub interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Backup {
    pub vips: Option<String>,
    pub services: Option<String>,
    pub drain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Ipvs {
    pub exclusive: Option<bool>,
    pub timeouts: Option<Timeouts>,
    pub sysctl: Option<Mapping>,
    pub sync_daemon: Option<SyncDaemon>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Timeouts {
    pub tcp: Option<String>,
    pub tcp_fin: Option<String>,
    pub udp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct SyncDaemon {
    pub interface: String,
    pub id: Option<u32>,
    pub max_len: Option<u32>,
    pub group: Option<String>,
    pub port: Option<u32>,
    pub ttl: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with `real_servers` and `address` or `fwmark`")]
pub struct VirtualService {
    pub address: Option<String>,
    pub fwmark: Option<u32>,
    pub family: Option<String>,
    pub protocol: Option<String>,
    pub scheduler: Option<String>,
    pub scheduler_flags: Option<Vec<String>>,
    pub persistence: Option<ShortOr<Persistence>>,
    pub one_packet: Option<bool>,
    pub forward: Option<String>,
    pub real_servers: Vec<ShortOr<RealServer>>,
}

/// Long form of persistence
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    pub timeout: Option<String>,
    pub netmask: Option<String>,
    pub prefix: Option<u32>,
    pub engine: Option<String>,
}

/// Long form of a real server
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    pub address: String,
    pub weight: Option<u32>,
    pub forward: Option<String>,
    pub upper_threshold: Option<u32>,
    pub lower_threshold: Option<u32>,
    pub tunnel: Option<Tunnel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Tunnel {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub port: Option<u32>,
    pub checksum: Option<String>,
}

/// A mapping (the long form), or a scalar (the short one), which is the only value given then.
#[derive(Debug)]
pub struct ShortOr<T>(pub T);

macro_rules! short_forms {
    ($($long:ident { $key:ident }),*) => {$(
        impl From<String> for $long {
            fn from(text: String) -> Self {
                Self { $key: text.into(), ..Self::default() }
            }
        }
    )*};
}
short_forms!(Vip { address }, Arp { word }, Persistence { timeout }, RealServer { address });

impl<'de, T: Deserialize<'de> + From<String>> Deserialize<'de> for ShortOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarOr(PhantomData)).map(Self)
    }
}

/// An untagged enum would lose the places of errors within.
struct ScalarOr<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + From<String>> Visitor<'de> for ScalarOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a whole number or a mapping")
    }
    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(text.to_owned().into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(number.to_string().into())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A key whose value was forgotten is not the same as a key that is left out: without an interface
/// nothing is announced.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}
