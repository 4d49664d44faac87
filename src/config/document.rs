//! The shape of a desired-state file: its keys, and the short and long forms of their values.
//!
//! Owns what YAML may stand where. Knows no meaning: that is `rules`. Read by `source`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// The file, word for word. Every leaf that has a meaning of its own stays text until `desired`
/// reads it, so that all errors of meaning can be told together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    pub count: Option<u32>,
    pub interval: Option<Text>,
}

/// What stays while not MASTER
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    pub vips: Option<String>,
    pub services: Option<String>,
    /// How long connections may live on
    pub drain: Option<Text>,
}

/// Settings of IPVS as a whole
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipvs {
    /// The whole table belongs to this file
    pub exclusive: Option<bool>,
    pub timeouts: Option<Timeouts>,
    pub sysctl: Option<Parameters>,
    pub sync_daemon: Option<SyncDaemon>,
}

/// Timeouts of idle connections
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    pub tcp: Option<Text>,
    pub tcp_fin: Option<Text>,
    pub udp: Option<Text>,
}

/// Connection synchronisation
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncDaemon {
    pub interface: String,
    pub id: Option<u32>,
    pub max_len: Option<u32>,
    pub group: Option<String>,
    pub port: Option<u32>,
    pub ttl: Option<u32>,
}

/// A virtual service
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualService {
    pub address: Option<String>,
    pub fwmark: Option<u32>,
    /// Family of a fwmark service
    pub family: Option<String>,
    pub protocol: Option<String>,
    pub scheduler: Option<String>,
    pub scheduler_flags: Option<Vec<String>>,
    pub persistence: Option<ShortOr<Persistence>>,
    pub one_packet: Option<bool>,
    /// Forwarding method of its real servers
    pub forward: Option<String>,
    pub real_servers: Vec<ShortOr<RealServer>>,
}

/// Long form of persistence
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// How long a client stays with its real server
    pub timeout: Option<Text>,
    pub netmask: Option<String>,
    pub prefix: Option<u32>,
    pub engine: Option<String>,
}

/// Long form of a real server
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    pub address: String,
    pub weight: Option<u32>,
    pub forward: Option<String>,
    pub upper_threshold: Option<u32>,
    pub lower_threshold: Option<u32>,
    pub tunnel: Option<Tunnel>,
}

/// Tunnel encapsulation
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// ipip, gue, gre
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub port: Option<u32>,
    pub checksum: Option<String>,
}

/// A scalar in its text form, whatever YAML takes it for.
#[derive(Debug)]
pub struct Text(pub String);

/// A list of parameters in the order of the file; a map would let the last of two equal keys win.
#[derive(Debug, Default)]
pub struct Parameters(pub Vec<(String, String)>);

/// A scalar (the short form) or a mapping (the long one).
#[derive(Debug)]
pub enum ShortOr<T> {
    Short(String),
    Long(T),
}

struct ScalarOr<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ScalarOr<T> {
    type Value = ShortOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value or a mapping")
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(ShortOr::Short(value.to_owned()))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(ShortOr::Short(value.to_string()))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(ShortOr::Short(value.to_string()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(ShortOr::Short(value.to_string()))
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(ShortOr::Short(value.to_string()))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(ShortOr::Long)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ShortOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarOr(PhantomData))
    }
}

/// A key whose value was forgotten is not the same as a key that is left out: without an interface
/// nothing is announced.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Takes the place of the long form where there is none.
struct NoLongForm;

impl<'de> Deserialize<'de> for NoLongForm {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("expected a single value, found a mapping"))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ScalarOr::<NoLongForm>(PhantomData))? {
            ShortOr::Short(text) => Ok(Self(text)),
            ShortOr::Long(_) => Err(de::Error::custom("expected a single value")),
        }
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
                let mut list = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    if list.iter().any(|(known, _)| *known == key) {
                        return Err(de::Error::custom(format!("duplicate field `{key}`")));
                    }
                    list.push((key, value));
                }
                Ok(Parameters(list))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
