//! Laws of the plan, over generated pairs of a wanted and a found state.
//!
//! Owns the laws and their generators; leaves the real kernel to `netns`, `services` and `system`. Needs no privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::support::model::{carry_out, found};
use lvs_notify::config::{Arp, Config, Vip, WantedService};
use lvs_notify::desired::Desired;
use lvs_notify::model::{
    AddressKey, Endpoint, Family, Forward, Owned, Parameter, Protocol, RealServer, Role, Service, ServiceKey,
    Timeouts, Tunnel, service_flag,
};
use lvs_notify::observed::{Observed, ObservedAddress, ObservedIpvs, ObservedService};
use lvs_notify::plan::{Phase, Plan};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// VIPs of the file, one of each family, and addresses that belong to somebody else.
const OURS: [&str; 2] = ["192.0.2.100", "2001:db8::100"];
const FOREIGN: [&str; 2] = ["198.51.100.7", "2001:db8:f::7"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(pool: &'static [&'static str]) -> impl Strategy<Value = ServiceKey> {
    let endpoint = (select(pool), 1..4u16, select(vec![Protocol::TCP, Protocol::UDP]))
        .prop_map(|(text, port, protocol)| ServiceKey::Endpoint { address: address(text), port, protocol });
    let ours = pool == OURS;
    let fwmark = (1..3u32, any::<bool>()).prop_map(move |(mark, v6)| ServiceKey::Fwmark {
        mark: if ours { mark } else { mark + 100 },
        family: if v6 { Family::Ipv6 } else { Family::Ipv4 },
    });
    prop_oneof![4 => endpoint, 1 => fwmark]
}

fn settings(key: &ServiceKey) -> impl Strategy<Value = Service> + use<> {
    let netmask = Service::full_netmask(key.family());
    (select(vec!["rr", "wlc", "sh", "mh"]), any::<bool>(), 1..3u32).prop_map(
        move |(scheduler, persistent, timeout)| Service {
            scheduler: scheduler.to_owned(),
            flags: if persistent { service_flag::PERSISTENT } else { 0 },
            timeout: if persistent { timeout } else { 0 },
            netmask,
            engine: String::new(),
        },
    )
}

fn servers() -> impl Strategy<Value = BTreeMap<Endpoint, RealServer>> {
    let server = (0..3u32, select(vec![Forward::NAT, Forward::DR])).prop_map(|(weight, forward)| {
        RealServer { forward, weight, upper_threshold: 0, lower_threshold: 0, tunnel: Tunnel::default() }
    });
    let endpoint =
        (1..5u8).prop_map(|last| Endpoint { address: IpAddr::from([203, 0, 113, last]), port: 80 });
    btree_map(endpoint, server, 0..4)
}

fn table(pool: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<ServiceKey, WantedService>> {
    let service = key(pool).prop_flat_map(|key| {
        (Just(key), settings(&key), servers())
            .prop_map(|(key, settings, servers)| (key, WantedService { settings, servers: servers.into() }))
    });
    vec(service, 0..5).prop_map(|list| list.into_iter().collect())
}

fn configs() -> impl Strategy<Value = Config> {
    let arp =
        prop::option::of((0..2u32, 0..3u32, any::<bool>()).prop_map(|(ignore, announce, restore)| Arp {
            ignore,
            announce,
            persist: false,
            restore,
        }));
    (table(&OURS), arp, any::<bool>(), any::<bool>(), btree_set(select(OURS.to_vec()), 1..3), any::<bool>())
        .prop_map(|(services, arp, keep_vips, keep_services, vips, interface)| Config {
            services: services
                .into_iter()
                .filter(|(key, _)| match key {
                    ServiceKey::Endpoint { address, .. } => vips.contains(address.to_string().as_str()),
                    ServiceKey::Fwmark { .. } => true,
                })
                .collect(),
            vips: vips
                .into_iter()
                .map(|text| Vip {
                    address: address(text),
                    label: None,
                    interface: interface.then(|| "eth0".into()),
                })
                .collect(),
            arp,
            announce: vec![Duration::ZERO],
            keep_vips,
            keep_services,
            drain: Duration::ZERO,
            exclusive: false,
            graceful_removal: Duration::ZERO,
            timeouts: Timeouts { tcp: 100, tcp_fin: 0, udp: 0 },
            ipvs_parameters: BTreeMap::new(),
            daemon: None,
        })
}

fn observed() -> impl Strategy<Value = Observed> {
    let places = vec((select(vec!["lo", "eth0"]), select([OURS, FOREIGN].concat()), any::<bool>()), 0..6)
        .prop_map(|list| {
            let found = list.into_iter().map(|(interface, text, host)| {
                let address = address(text);
                let prefix = if host { Family::of(address).host_prefix() } else { 24 };
                ObservedAddress {
                    key: AddressKey { interface: interface.into(), address },
                    prefix,
                    label: None,
                    nature: Default::default(),
                }
            });
            found.collect::<BTreeSet<_>>().into_iter().collect()
        });
    let parameters = vec(0..3u32, 6).prop_map(|values| {
        let names = ["all", "lo", "eth0"].map(str::to_owned);
        let ignore = names.clone().map(Parameter::ArpIgnore);
        let announce = names.map(Parameter::ArpAnnounce);
        ignore.into_iter().chain(announce).zip(values.iter().map(ToString::to_string)).collect()
    });
    (table(&OURS), table(&FOREIGN), places, parameters).prop_map(|(ours, foreign, addresses, parameters)| {
        Observed {
            addresses,
            parameters,
            ipvs: Some(ObservedIpvs {
                services: ours.into_iter().chain(foreign).map(|(key, wanted)| (key, found(wanted))).collect(),
                timeouts: Timeouts { tcp: 900, tcp_fin: 120, udp: 300 },
                daemons: BTreeMap::new(),
            }),
            ..Observed::default()
        }
    })
}

fn roles() -> impl Strategy<Value = Role> {
    select(vec![Role::Master, Role::Backup, Role::Fault, Role::Stop])
}

fn count(observed: &Observed, family: Family) -> usize {
    observed.ipvs.as_ref().unwrap().services.keys().filter(|key| key.family() == family).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Carrying out a plan leaves nothing to do; the same states give the same plan.
    #[test]
    fn a_plan_carried_out_is_empty(file in configs(), role in roles(), mut state in observed()) {
        let desired = Desired::for_role(&file, role);
        let plan = Plan::between(&desired, &state, &Owned::default());
        prop_assert_eq!(&plan, &Plan::between(&desired, &state, &Owned::default()));
        for change in plan.changes() {
            carry_out(&mut state, change);
        }
        prop_assert_eq!(Plan::between(&desired, &state, &Owned::default()), Plan::default());
        let services = &state.ipvs.as_ref().unwrap().services;
        for (key, wanted) in &desired.services {
            prop_assert_eq!(&services[key], &found(wanted.clone()));
        }
    }

    /// A run killed between any two changes is completed by the next.
    #[test]
    fn a_kill_at_any_change_converges(file in configs(), role in roles(), mut state in observed(), at in 0..20usize) {
        let desired = Desired::for_role(&file, role);
        let mut whole = state.clone();
        for change in Plan::between(&desired, &state, &Owned::default()).changes() {
            carry_out(&mut whole, change);
        }
        for change in Plan::between(&desired, &state, &Owned::default()).changes().take(at) {
            carry_out(&mut state, change);
        }
        for change in Plan::between(&desired, &state, &Owned::default()).changes() {
            carry_out(&mut state, change);
        }
        whole.addresses.sort();
        state.addresses.sort();
        prop_assert_eq!(state, whole);
    }

    /// What is neither declared nor recorded stays as it was.
    #[test]
    fn foreign_objects_stay(file in configs(), role in roles(), mut state in observed()) {
        let desired = Desired::for_role(&file, role);
        let ownership = desired.ownership.clone();
        let foreign = |state: &Observed| -> (Vec<ObservedAddress>, Vec<(ServiceKey, ObservedService)>) {
            let addresses = state.addresses.iter().filter(|found| !ownership.vips.contains(&found.key.address));
            let services = state.ipvs.as_ref().unwrap().services.iter().filter(|(key, _)| !ownership.owns(key));
            (addresses.cloned().collect(), services.map(|(key, service)| (*key, service.clone())).collect())
        };
        let before = foreign(&state);
        for change in Plan::between(&desired, &state, &Owned::default()).changes() {
            carry_out(&mut state, change);
        }
        prop_assert_eq!(foreign(&state), before);
    }

    /// The number of services of a family never passes through zero on the way from one table to
    /// another: the kernel would unhook IPVS and reset open connections.
    #[test]
    fn a_family_never_passes_through_zero(file in configs(), role in roles(), mut state in observed()) {
        let plan = Plan::between(&Desired::for_role(&file, role), &state, &Owned::default());
        let mut after = state.clone();
        plan.changes().for_each(|change| carry_out(&mut after, change));
        let kept = [Family::Ipv4, Family::Ipv6].map(|family| (family, count(&state, family) > 0 && count(&after, family) > 0));
        for change in plan.changes() {
            carry_out(&mut state, change);
            for (family, kept) in kept {
                prop_assert!(!kept || count(&state, family) > 0, "{family:?} has no service after {change}");
            }
        }
    }

    /// No client meets a VIP without its services: services first when becoming MASTER, the VIP
    /// first when leaving.
    #[test]
    fn the_order_of_a_role_change(file in configs(), role in roles(), state in observed()) {
        let plan = Plan::between(&Desired::for_role(&file, role), &state, &Owned::default());
        let phases: Vec<Phase> = plan.steps.iter().map(|step| step.phase).collect();
        let place = |phase: Phase| phases.iter().position(|found| *found == phase);
        if let (Some(services), Some(interface)) = (place(Phase::Services), place(Phase::Interface)) {
            prop_assert_eq!(services < interface, role == Role::Master);
        }
        if let (Some(parameters), Some(loopback)) = (place(Phase::Parameters), place(Phase::Loopback)) {
            prop_assert!(parameters < loopback);
        }
    }

    /// A file that follows another, with the record between them, leaves nothing of the first.
    #[test]
    fn one_file_after_another(first in configs(), second in configs(), mut state in observed()) {
        let mut owned = Owned::default();
        for file in [&first, &second] {
            let desired = Desired::for_role(file, Role::Master);
            for change in Plan::between(&desired, &state, &owned).changes() {
                carry_out(&mut state, change);
            }
            owned.services.extend(desired.services.keys());
            owned.addresses.extend(desired.client_side().cloned());
        }
        let kept = Desired::for_role(&second, Role::Master).services;
        for gone in first.services.keys().filter(|key| !kept.contains_key(key)) {
            prop_assert!(!state.ipvs.as_ref().unwrap().services.contains_key(gone), "{gone} is still there");
        }
    }
}
