//! A model of the kernel: carries out changes on an [`Observed`].
//!
//! Owns what the kernel would do with a change, and what it would refuse. Used by `laws` and `faults`.

use lvs_notify::config::WantedService;
use lvs_notify::model::Family;
use lvs_notify::observed::{Observed, ObservedAddress, ObservedService};
use lvs_notify::plan::Change;

/// A service as the kernel would have it.
pub fn found(wanted: WantedService) -> ObservedService {
    ObservedService { settings: wanted.settings, servers: wanted.servers, counters: Default::default() }
}

/// Carries out one change as the kernel would; a change that the kernel would refuse is a bug.
pub fn carry_out(observed: &mut Observed, change: &Change) {
    let table = observed.ipvs.as_mut().unwrap();
    match change {
        Change::AddService { key, new, servers } => {
            let service = found(WantedService { settings: new.clone(), servers: servers.clone() });
            assert!(table.services.insert(*key, service).is_none(), "EEXIST: {change}");
        }
        Change::SetService { key, new, .. } => {
            table.services.get_mut(key).expect("ESRCH").settings = new.clone()
        }
        Change::DeleteService { key, .. } => assert!(table.services.remove(key).is_some(), "ESRCH: {change}"),
        Change::AddServer { service, key, new } => {
            let servers = &mut table.services.get_mut(service).expect("ESRCH").servers;
            assert!(servers.insert(*key, *new).is_none(), "EEXIST: {change}");
        }
        Change::SetServer { service, key, new, .. } => {
            let servers = &mut table.services.get_mut(service).expect("ESRCH").servers;
            assert!(servers.insert(*key, *new).is_some(), "ENOENT: {change}");
        }
        Change::DeleteServer { service, key, .. } => {
            let servers = &mut table.services.get_mut(service).expect("ESRCH").servers;
            assert!(servers.remove(key).is_some(), "ENOENT: {change}");
        }
        Change::SetTimeouts { new, .. } => {
            for (new, old) in [(new.tcp, &mut table.timeouts.tcp), (new.udp, &mut table.timeouts.udp)] {
                *old = if new == 0 { *old } else { new };
            }
        }
        Change::SetParameter { parameter, new, .. } => {
            observed.parameters.insert(parameter.clone(), new.clone());
        }
        Change::AddAddress { key, label } => {
            let prefix = Family::of(key.address).host_prefix();
            observed.addresses.push(ObservedAddress { key: key.clone(), prefix, label: label.clone() });
        }
        Change::RemoveAddress { key, prefix } => {
            let before = observed.addresses.len();
            observed.addresses.retain(|found| found.key != *key || found.prefix != *prefix);
            assert_eq!(observed.addresses.len() + 1, before, "EADDRNOTAVAIL: {change}");
        }
        Change::StartDaemon { .. } | Change::StopDaemon { .. } => panic!("no daemon was declared"),
    }
}
