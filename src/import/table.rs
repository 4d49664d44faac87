//! What a source of `import` says, in the terms of the model.
//!
//! Owns the shape between the sources and the writer. Filled by each source, read by `write`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::WantedService;
use crate::model::{DaemonState, ServiceKey, SyncDaemon, Timeouts};
use crate::observed::ObservedAddress;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Where it comes from, for the first line of the file
    pub origin: String,
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// 0 where the source says nothing
    pub timeouts: Timeouts,
    pub daemons: BTreeMap<DaemonState, SyncDaemon>,
    pub parameters: BTreeMap<String, String>,
    /// Where the VIPs stand, and others
    pub addresses: Vec<ObservedAddress>,
    /// ARP parameters that a file without `arp` would change
    pub arp: Vec<String>,
    /// What the reader of the file should know, before the first key
    pub notes: Vec<String>,
    /// What belongs to a service and has no key, told next to it
    pub remarks: BTreeMap<ServiceKey, String>,
}

impl Table {
    /// The addresses of its services.
    pub(super) fn vips(&self) -> BTreeSet<IpAddr> {
        let vip = |key: &ServiceKey| match key {
            ServiceKey::Endpoint { address, .. } => Some(*address),
            ServiceKey::Fwmark { .. } => None,
        };
        self.services.keys().filter_map(vip).collect()
    }
}
