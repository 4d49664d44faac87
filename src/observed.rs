//! What the kernel has, and what of it to read.
//!
//! Owns the shape of the observed state. Filled by `kernel`; `plan` compares it with the desired state, `status`
//! judges it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::desired::Desired;
use crate::model::{
    AddressKey, DaemonState, Family, Mac, Owned, Ownership, Parameter, ServerKey, Servers, Service,
    ServiceKey, SyncDaemon, Timeouts,
};
use crate::serial::pairs;

/// What the kernel has: everything that a plan looks at, and nothing that it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Addresses on the interfaces; one can be there with several prefix lengths.
    pub addresses: Vec<ObservedAddress>,
    /// What the default routes name as source; empty when they were not asked for
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sources: BTreeSet<IpAddr>,
    /// lo and those that a file is about; all, where neighbours' questions are asked for
    #[serde(default)]
    pub interfaces: BTreeMap<String, Interface>,
    /// The link that gets neighbours' questions for an address, and what becomes of them
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    pub heard: BTreeMap<AddressKey, (String, Fate)>,
    #[serde(with = "pairs")]
    pub parameters: BTreeMap<Parameter, String>,
    /// IPVS, or `None` when the kernel has none loaded.
    pub ipvs: Option<ObservedIpvs>,
}

impl Observed {
    pub fn table(&self) -> Cow<'_, ObservedIpvs> {
        self.ipvs.as_ref().map_or_else(Cow::default, Cow::Borrowed)
    }

    /// Whether a parameter has to be set for this value; the kernel separates several numbers with a tab.
    pub fn differs(&self, parameter: &Parameter, wanted: &str) -> bool {
        match self.parameters.get(parameter) {
            Some(found) => !found.split_whitespace().eq(wanted.split_whitespace()),
            // Of an interface that is gone there is nothing to set; those of IPVS come with it, as far as this kernel has
            // them.
            None => matches!(parameter, Parameter::Ipvs(_)) && self.ipvs.is_none(),
        }
    }
}

/// What a link is, as far as announcing and answering on it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    pub index: u32,
    /// Its own name, where it was asked for by an alternative one
    pub name: String,
    pub up: bool,
    /// IFF_LOWER_UP: the link has a carrier
    pub carrier: bool,
    pub noarp: bool,
    /// Link-layer address, when it has one of Ethernet's size
    pub mac: Option<Mac>,
    /// Index of what it is a port of
    pub master: u32,
    /// Index of the link whose broadcasts it hears: its own, or a macvlan's lower one
    pub wire: u32,
    pub vrf: bool,
}

impl Interface {
    /// Whether packets can pass.
    pub fn works(&self) -> bool {
        self.up && self.carrier
    }
}

/// What becomes of a neighbour's question for an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Answered: it is the link's, or local and this arp_ignore lets it pass, or another host's
    Stands,
    Local(u32),
    Proxied,
    Absent,
    /// The link is down or has no carrier
    Deaf,
    Noarp,
    /// By arp_ignore
    Ignored(u32),
    /// By arp_filter or rp_filter: this neighbour is reached by another link
    Filtered(String, Ipv4Addr),
    Tentative,
}

impl Fate {
    pub fn answers(&self) -> bool {
        matches!(self, Self::Stands | Self::Local(_) | Self::Proxied)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObservedAddress {
    pub key: AddressKey,
    pub prefix: u8,
    pub label: Option<String>,
    #[serde(default)]
    pub nature: Nature,
}

/// What of an address decides, besides its place, whether it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nature {
    /// Of IPv4, by which its subnet is known: on a point-to-point link the other end
    pub network: Option<Ipv4Addr>,
    pub scope: u8,
    /// Duplicate address detection runs, or has failed
    pub tentative: bool,
    #[serde(default)]
    pub failed: bool,
}

impl ObservedAddress {
    pub fn is_host(&self) -> bool {
        self.prefix == Family::of(self.key.address).host_prefix()
    }

    /// Whether it is another IPv4 address of the same subnet on the same link.
    pub fn is_beside(&self, other: &Self) -> bool {
        let network = |found: &Self| match found.key.address {
            IpAddr::V4(address) => Some(u64::from(address.to_bits()) >> 32_u8.saturating_sub(found.prefix)),
            IpAddr::V6(_) => None,
        };
        let place = |found: &Self| Some((found.key.interface.clone(), found.prefix, network(found)?));
        self != other && place(self).is_some_and(|own| Some(own) == place(other))
    }

    /// Whether it is the link's own, which the kernel makes by itself.
    pub fn is_of_the_link(&self) -> bool {
        let link_local = matches!(self.key.address, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local || self.key.address.is_loopback()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedIpvs {
    #[serde(with = "pairs")]
    pub services: BTreeMap<ServiceKey, ObservedService>,
    pub timeouts: Timeouts,
    pub daemons: BTreeMap<DaemonState, SyncDaemon>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedService {
    pub settings: Service,
    /// Its real servers; empty when they were not asked for.
    #[serde(with = "pairs")]
    pub servers: Servers,
    /// Connections per real server; never part of a difference.
    #[serde(default, with = "pairs")]
    pub counters: BTreeMap<ServerKey, Counters>,
}

/// Connections of a real server (`IPVS_DEST_ATTR_ACTIVE_CONNS` and its kin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counters {
    pub active: u32,
    /// Not established: closing, or UDP
    pub inactive: u32,
    pub persistent: u32,
    /// What passes in a second; zeroes when it was not asked for.
    #[serde(default)]
    pub rates: Rates,
}

impl Counters {
    pub fn connections(&self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), |sum, Self { active, inactive, persistent, rates }| Self {
            active: sum.active.saturating_add(active),
            inactive: sum.inactive.saturating_add(inactive),
            persistent: sum.persistent.saturating_add(persistent),
            rates: Rates {
                connections: sum.rates.connections.saturating_add(rates.connections),
                bytes_in: sum.rates.bytes_in.saturating_add(rates.bytes_in),
                bytes_out: sum.rates.bytes_out.saturating_add(rates.bytes_out),
            },
        })
    }
}

/// What passed a real server in a second, as the kernel estimates it every two seconds
/// (`IPVS_STATS_ATTR_*`, `ip_vs_est.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rates {
    pub connections: u64,
    pub bytes_in: u64,
    /// Bytes to clients; none pass the director with dr and tun
    pub bytes_out: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Interfaces whose addresses and links matter.
    pub interfaces: BTreeSet<String>,
    /// VIPs that go, unless the host lives on them: only where one is found are routes read, of which there can be many
    pub doubtful: BTreeSet<AddressKey>,
    /// Addresses of which is asked whether neighbours are answered that look for them
    pub asked: BTreeSet<AddressKey>,
    pub parameters: BTreeSet<Parameter>,
    /// Services whose real servers matter, which cost a request each; every service itself is read. Without it IPVS
    /// is not read at all: [`Observed::ipvs`] stays empty.
    pub servers: Option<Ownership>,
    /// Services that there may be, which are looked for when a list lacks them
    pub expected: Vec<ServiceKey>,
}

impl Scope {
    pub fn of(desired: &Desired, owned: &Owned) -> Self {
        let addresses = desired.client_side().chain(&owned.addresses);
        let daemon = desired.daemon.iter().map(|(_, daemon)| daemon.interface.clone());
        let names = addresses.map(|key| key.interface.clone());
        let interfaces = names.chain(daemon).chain(["lo".to_owned()]).collect();
        let goes = |key: &&AddressKey| !desired.addresses.contains_key(*key) && !owned.has_made(key);
        let doubtful = desired.off.iter().chain(&owned.addresses).filter(goes).cloned().collect();
        let originals = desired.restore.then_some(&owned.originals).into_iter().flatten();
        let parameters = desired.parameters.iter().chain(&desired.ipvs_parameters).chain(originals);
        let parameters = parameters.map(|(parameter, _)| parameter.clone()).collect();
        let servers = Some(desired.ownership.with_record(owned));
        let expected = desired.services.keys().chain(&owned.services).copied().collect();
        Self { interfaces, doubtful, parameters, servers, expected, ..Self::default() }
    }
}
