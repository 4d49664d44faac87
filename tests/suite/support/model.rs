//! A model of the kernel: carries out changes on an [`Observed`].
//!
//! Owns what the kernel would do with a change, and what it would refuse. Used by `laws` and `faults`.

use std::sync::Arc;

use lvs_notify::config::WantedService;
use lvs_notify::observed::{Observed, ObservedAddress, ObservedService};
use lvs_notify::plan::Change;

/// A service as the kernel would have it.
pub fn found(wanted: WantedService) -> ObservedService {
    let servers = Arc::unwrap_or_clone(wanted.servers);
    ObservedService { settings: wanted.settings, servers, counters: Default::default() }
}

/// Carries out one change as the kernel would; a change that the kernel would refuse is a bug.
pub fn carry_out(observed: &mut Observed, change: &Change) {
    let table = observed.ipvs.as_mut().unwrap();
    match change {
        Change::Service { key, old, new: Some(new), servers, .. } => match table.services.get_mut(key) {
            Some(service) if old.is_some() => service.settings = new.clone(),
            Some(_) => panic!("EEXIST: {change}"),
            None => {
                assert!(old.is_none(), "ESRCH: {change}");
                let wanted = WantedService { settings: new.clone(), servers: servers.clone() };
                table.services.insert(*key, found(wanted));
            }
        },
        Change::Service { key, .. } => assert!(table.services.remove(key).is_some(), "ESRCH: {change}"),
        Change::Server { service, key, old, new, .. } => {
            let servers = &mut table.services.get_mut(service).expect("ESRCH").servers;
            let before = match new {
                Some(new) => servers.insert(*key, *new),
                None => servers.remove(key),
            };
            assert_eq!(before.is_some(), old.is_some(), "EEXIST or ENOENT: {change}");
        }
        Change::Timeouts { new, .. } => {
            for (new, old) in [(new.tcp, &mut table.timeouts.tcp), (new.udp, &mut table.timeouts.udp)] {
                *old = if new == 0 { *old } else { new };
            }
        }
        Change::Parameter { parameter, new, .. } => {
            observed.parameters.insert(parameter.clone(), new.clone());
        }
        Change::Address { key, old: None, new, label } => {
            let (key, label) = (key.clone(), label.clone());
            observed.addresses.push(ObservedAddress {
                key,
                prefix: new.unwrap(),
                label,
                nature: Default::default(),
            });
        }
        Change::Address { key, old, .. } => {
            let before = observed.addresses.len();
            observed.addresses.retain(|found| found.key != *key || Some(found.prefix) != *old);
            assert_eq!(observed.addresses.len() + 1, before, "EADDRNOTAVAIL: {change}");
        }
        Change::Daemon { .. } => panic!("no daemon was declared"),
    }
}
