//! The state that a role wants, from what the file means.
//!
//! Owns the placement of VIPs, parameters, services and daemon per role. Pure. Called by `basis`; `plan` compares the
//! result with what the kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, WantedService};
use crate::model::{
    AddressKey, DaemonState, Ownership, Parameter, Role, ServerKey, ServiceKey, SyncDaemon, Timeouts,
};

#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub active: bool,
    /// VIPs that must stand, with their labels: on lo with a host prefix, on a client-side interface with any
    pub addresses: BTreeMap<AddressKey, Option<String>>,
    /// VIPs that must not stand: on lo with any prefix, on a client-side interface with a host prefix
    pub off: BTreeSet<AddressKey>,
    pub parameters: BTreeMap<Parameter, String>,
    /// The ARP values found before come back
    pub restore: bool,
    pub ipvs_parameters: BTreeMap<Parameter, String>,
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// How long a real server that left the file stays while it has connections, at weight 0
    pub graceful: Duration,
    /// Those whose time is over
    pub overdue: BTreeSet<(ServiceKey, ServerKey)>,
    pub ownership: Ownership,
    pub timeouts: Timeouts,
    pub daemon: Option<(DaemonState, SyncDaemon)>,
    /// Addresses to announce once they stand
    pub announce: BTreeSet<AddressKey>,
    pub persist: Persist,
    /// How long connections may live on between the VIP's leaving the interface and the rest
    pub drain: Duration,
    /// Real servers drained by hand, with the time at which that ends in seconds since 1970
    pub drained: BTreeMap<(ServiceKey, ServerKey), Option<u64>>,
}

/// What becomes of the parameters' file in /etc/sysctl.d.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Persist {
    #[default]
    Leave,
    Keep,
    Remove,
}

impl Desired {
    /// The state wanted in a role (placement: the table of the manual).
    pub fn for_role(config: &Config, role: Role) -> Self {
        let active = role == Role::Master;
        let mut desired =
            Self { active, timeouts: config.timeouts, ownership: config.ownership(), ..Self::default() };
        for vip in &config.vips {
            let mut place = |key: AddressKey, label: &Option<String>, stands| match stands {
                true => _ = desired.addresses.insert(key, label.clone()),
                false => _ = desired.off.insert(key),
            };
            place(AddressKey::on_lo(vip.address), &vip.label, active || config.keep_vips);
            if let Some(interface) = &vip.interface {
                let key = AddressKey { interface: interface.clone(), address: vip.address };
                place(key.clone(), &None, active);
                if active && !config.announce.is_empty() {
                    desired.announce.insert(key);
                }
            }
        }
        desired.persist = Persist::Remove;
        if let Some(arp) = config.arp {
            desired.restore = arp.restore && !active && !config.keep_vips;
            if arp.persist && !desired.restore {
                desired.persist = Persist::Keep;
            }
            let names = config.interfaces().into_iter().chain(["all".to_owned(), "lo".to_owned()]);
            for name in names.filter(|_| !desired.restore) {
                desired.parameters.insert(Parameter::ArpIgnore(name.clone()), arp.ignore.to_string());
                desired.parameters.insert(Parameter::ArpAnnounce(name), arp.announce.to_string());
            }
        }
        if active || config.keep_services {
            desired.services = config.services.clone();
        }
        desired.graceful = if active { config.graceful_removal } else { Duration::ZERO };
        let parameters = config.ipvs_parameters.clone().into_iter();
        desired.ipvs_parameters = parameters.map(|(name, value)| (Parameter::Ipvs(name), value)).collect();
        let state = if active { DaemonState::Master } else { DaemonState::Backup };
        desired.daemon = config.daemon.clone().map(|daemon| (state, daemon));
        desired
    }

    /// On the way from MASTER, while connections are waited for: clients no longer find the VIPs, and those who are here
    /// are served on, because the VIPs stay on lo and the services get no new connections.
    pub fn draining(config: &Config) -> Self {
        let mut desired = Self::for_role(config, Role::Master);
        (desired.active, desired.drain) = (false, config.drain);
        desired.announce.clear();
        let (stay, leave) = desired.addresses.into_iter().partition(|(key, _)| key.is_on_lo());
        (desired.addresses, desired.off) = (stay, BTreeMap::into_keys(leave).collect());
        for wanted in desired.services.values_mut() {
            Arc::make_mut(&mut wanted.servers).values_mut().for_each(|server| server.weight = 0);
        }
        desired
    }

    /// When a real server that left the file at this time is to be gone, in seconds since 1970.
    pub fn leaves_at(&self, since: u64) -> u64 {
        since.saturating_add(self.graceful.as_secs())
    }

    /// Whether a real server that left the file has time left for its connections.
    pub fn may_stay(&self, service: ServiceKey, server: ServerKey) -> bool {
        !self.graceful.is_zero() && !self.overdue.contains(&(service, server))
    }

    pub fn client_side(&self) -> impl Iterator<Item = &AddressKey> {
        self.addresses.keys().chain(&self.off).filter(|key| !key.is_on_lo())
    }
}
