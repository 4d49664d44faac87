//! The shape of a desired-state file: its keys, and the short and long forms of their values.
//!
//! Owns what YAML may stand where. Knows no meaning: that is `rules`. Read by `source`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_yaml::Mapping;

/// The file's mappings: their keys, all known, each with the value that it may have; the key that a scalar in the
/// mapping's place is the value of; and what is said where something else stands there.
macro_rules! mappings {
    ($($(#[$about:meta])* $name:ident $(or $short:ident)?: $expected:literal { $($keys:tt)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Default, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields, expecting = $expected)]
        pub struct $name { $($keys)* }

        $(impl From<String> for $name {
            fn from(text: String) -> Self {
                Self { $short: text.into(), ..Self::default() }
            }
        })?
    )*};
}

mappings! {
    /// The file, word for word. Numbers and texts with a meaning of their own stay as they are until `rules` reads them, so
    /// that all errors of meaning can be told together.
    Document: "a mapping with `version`, `vips` and `virtual_services`" {
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

    /// A virtual service
    VirtualService: "a mapping with `real_servers` and `address` or `fwmark`" {
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

    /// Long form of a VIP
    Vip or address: "a mapping" {
        /// Address, with or without its host prefix
        pub address: String,
        pub label: Option<String>,
        /// Client-side interface of this VIP
        #[serde(default, deserialize_with = "given")]
        pub interface: Option<String>,
    }

    /// ARP parameters
    Arp or word: "a mapping" {
        /// The short form, `off`
        #[serde(skip)]
        pub word: Option<String>,
        pub arp_ignore: Option<u32>,
        pub arp_announce: Option<u32>,
        /// Keep them over a reboot
        pub persist: Option<bool>,
        /// Put the values found before back on leaving MASTER
        pub restore: Option<bool>,
    }

    /// Announcement of the VIPs
    Announce: "a mapping" {
        pub count: Option<u32>,
        pub interval: Option<String>,
        pub again: Option<String>,
    }

    /// What stays while not MASTER
    Backup: "a mapping" {
        pub vips: Option<String>,
        pub services: Option<String>,
        /// How long connections may live on
        pub drain: Option<String>,
    }

    /// Settings of IPVS as a whole
    Ipvs: "a mapping" {
        /// The whole table belongs to this file
        pub exclusive: Option<bool>,
        /// How long the connections of a real server that left the file may live on
        pub graceful_removal: Option<String>,
        pub timeouts: Option<Timeouts>,
        #[cfg_attr(feature = "schema", schemars(with = "Option<std::collections::BTreeMap<String, String>>"))]
        pub sysctl: Option<Mapping>,
        pub sync_daemon: Option<SyncDaemon>,
    }

    /// Timeouts of idle connections
    Timeouts: "a mapping" {
        pub tcp: Option<String>,
        pub tcp_fin: Option<String>,
        pub udp: Option<String>,
    }

    /// Connection synchronisation
    SyncDaemon: "a mapping" {
        pub interface: String,
        pub id: Option<u32>,
        pub max_len: Option<u32>,
        pub group: Option<String>,
        pub port: Option<u32>,
        pub ttl: Option<u32>,
    }

    /// Long form of persistence
    Persistence or timeout: "a mapping" {
        /// How long a client stays with its real server
        pub timeout: Option<String>,
        pub netmask: Option<String>,
        pub prefix: Option<u32>,
        pub engine: Option<String>,
    }

    /// Long form of a real server
    RealServer or address: "a mapping" {
        pub address: String,
        pub weight: Option<u32>,
        pub forward: Option<String>,
        pub upper_threshold: Option<u32>,
        pub lower_threshold: Option<u32>,
        pub tunnel: Option<Tunnel>,
    }

    /// Tunnel encapsulation
    Tunnel: "a mapping" {
        #[serde(rename = "type")]
        pub kind: Option<String>,
        pub port: Option<u32>,
        pub checksum: Option<String>,
    }
}

/// A mapping (the long form), or a scalar (the short one), which is the only value given then.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, description = "", transform = or_text))]
pub struct ShortOr<T>(pub T);

impl<'de, T: Deserialize<'de> + From<String>> Deserialize<'de> for ShortOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarOr(PhantomData)).map(Self)
    }
}

#[cfg(feature = "schema")]
fn or_text(long: &mut schemars::Schema) {
    *long = schemars::json_schema!({"anyOf": [{"type": "string"}, long.clone()]});
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
