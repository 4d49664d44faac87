//! The desired-state file: what a valid one means, apart from any role.
//!
//! Owns the meaning's shape. The way to it is `source` (text, places of errors), `document` (the YAML's shape) and `rules`
//! (what values and keys must be). Used by `desired` and `basis`.

pub mod document;
pub mod rules;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Ownership, Servers, Service, ServiceKey, SyncDaemon, Timeouts};
use crate::serial::pairs;

/// A valid file: every value is legal and every rule between values holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub vips: Vec<Vip>,
    /// ARP parameters; `None` leaves the kernel's values alone
    pub arp: Option<Arp>,
    /// When, after the takeover
    pub announce: Vec<Duration>,
    /// The VIP stays on lo while not MASTER
    pub keep_vips: bool,
    /// The services stay while not MASTER
    pub keep_services: bool,
    /// How long connections may live on when MASTER is left in a planned switch
    pub drain: Duration,
    pub exclusive: bool,
    /// How long the connections of a real server that left the file may live on
    pub graceful_removal: Duration,
    pub timeouts: Timeouts,
    pub ipvs_parameters: BTreeMap<String, String>,
    pub daemon: Option<SyncDaemon>,
    #[serde(with = "pairs")]
    pub services: BTreeMap<ServiceKey, WantedService>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    pub address: IpAddr,
    pub label: Option<String>,
    /// Client-side interface, when it is to answer ARP or ND
    pub interface: Option<String>,
}

/// ARP parameters (`Documentation/networking/ip-sysctl.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    pub ignore: u32,
    pub announce: u32,
    pub persist: bool,
    /// The values found before come back on leaving MASTER
    pub restore: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedService {
    pub settings: Service,
    #[serde(with = "pairs")]
    pub servers: Arc<Servers>,
}

impl Config {
    /// What may be touched: all that the file names.
    pub fn ownership(&self) -> Ownership {
        let mark = |key: &ServiceKey| match key {
            ServiceKey::Fwmark { mark, .. } => Some(*mark),
            ServiceKey::Endpoint { .. } => None,
        };
        Ownership {
            vips: self.vips.iter().map(|vip| vip.address).collect(),
            fwmarks: self.services.keys().filter_map(mark).collect(),
            exclusive: self.exclusive,
            ..Ownership::default()
        }
    }

    pub fn interfaces(&self) -> BTreeSet<String> {
        self.vips.iter().filter_map(|vip| vip.interface.clone()).collect()
    }
}
