//! The state that a role wants, from what the file means.
//!
//! Owns the placement of VIPs, parameters, services and daemon per role. Pure. Called by `basis`; `plan` compares the
//! result with what the kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Arp, Config, WantedService};
use crate::model::{
    AddressKey, DaemonState, Ownership, Parameter, Role, ServerKey, ServiceKey, SyncDaemon, Timeouts,
};

/// The state that a role wants.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Whether this director serves the VIPs
    pub active: bool,
    /// VIPs that must stand on lo with a host prefix, with their labels
    pub loopback: BTreeMap<IpAddr, Option<String>>,
    /// VIPs that must stand on a client-side interface, with any prefix
    pub interface: BTreeSet<AddressKey>,
    /// VIPs that must not stand on lo
    pub off_loopback: BTreeSet<IpAddr>,
    /// VIPs that must not stand on an interface with a host prefix
    pub off_interface: BTreeSet<AddressKey>,
    pub parameters: BTreeMap<Parameter, String>,
    /// The ARP values found before come back
    pub restore: bool,
    pub ipvs_parameters: BTreeMap<Parameter, String>,
    pub services: BTreeMap<ServiceKey, WantedService>,
    pub ownership: Ownership,
    pub timeouts: Timeouts,
    /// The sync daemon that must run
    pub daemon: Option<(DaemonState, SyncDaemon)>,
    /// Addresses to announce once they stand, how often, and how far apart
    pub announce: BTreeSet<AddressKey>,
    pub announce_count: u32,
    pub announce_interval: Duration,
    /// What the file in /etc/sysctl.d must hold
    pub persist: Persist,
    /// How long connections may live on between the VIP's leaving the interface and the rest
    pub drain: Duration,
    /// Real servers drained by hand, with the time at which that ends in seconds since 1970
    pub drained: BTreeMap<(ServiceKey, ServerKey), Option<u64>>,
}

/// What becomes of the parameters' file in /etc/sysctl.d.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Persist {
    /// Not ours to touch
    #[default]
    Leave,
    Keep,
    /// It goes, if it is there
    Remove,
}

impl Desired {
    /// The state wanted in a role (placement: the table of the manual).
    pub fn for_role(config: &Config, role: Role) -> Self {
        let active = role == Role::Master;
        let mut desired = Self {
            active,
            timeouts: config.timeouts,
            announce_count: config.announce.0,
            announce_interval: config.announce.1,
            ownership: config.ownership(),
            ..Self::default()
        };
        for vip in &config.vips {
            if active || config.keep_vips {
                desired.loopback.insert(vip.address, vip.label.clone());
            } else {
                desired.off_loopback.insert(vip.address);
            }
            if let Some(interface) = &vip.interface {
                let key = AddressKey { interface: interface.clone(), address: vip.address };
                if active {
                    if config.announce.0 > 0 {
                        desired.announce.insert(key.clone());
                    }
                    desired.interface.insert(key);
                } else {
                    desired.off_interface.insert(key);
                }
            }
        }
        if let Some(arp) = config.arp {
            desired.restore = arp.restore && !active && !config.keep_vips;
            if !desired.restore {
                desired.parameters = arp_parameters(config, arp);
            }
            let kept = arp.persist && !desired.restore;
            desired.persist = if kept { Persist::Keep } else { Persist::Remove };
        }
        if role == Role::Backup {
            desired.drain = config.drain;
        }
        if active || config.keep_services {
            desired.services = config.services.clone();
        }
        desired.ipvs_parameters = config
            .ipvs_parameters
            .iter()
            .map(|(name, value)| (Parameter::Ipvs(name.clone()), value.clone()))
            .collect();
        let state = if active { DaemonState::Master } else { DaemonState::Backup };
        desired.daemon = config.daemon.clone().map(|daemon| (state, daemon));
        desired
    }
}

fn arp_parameters(config: &Config, arp: Arp) -> BTreeMap<Parameter, String> {
    let mut names = config.interfaces();
    names.extend(["all".to_owned(), "lo".to_owned()]);
    names
        .into_iter()
        .flat_map(|name| {
            [
                (Parameter::ArpIgnore(name.clone()), arp.ignore.to_string()),
                (Parameter::ArpAnnounce(name), arp.announce.to_string()),
            ]
        })
        .collect()
}
