//! Tests against a real IPVS: each in a network namespace of its own.
//!
//! Owns no code of the program. Run in the guest by the test suite, where ipvsadm gives a second opinion.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;
use std::process::Command;

use nix::errno::Errno;

use super::ipvs_sockopt::Table;
use super::tests::in_namespace;
use super::{Kernel, Linux, Result};
use crate::model::Ownership;
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers, Service, ServiceKey,
    SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::observed::{ObservedIpvs, Scope};
use crate::plan::{Change, Needs};

/// Runs a test with a kernel that has IPVS and an interface, 192.0.2.254 and 2001:db8::fe, with real servers behind.
fn with_ipvs(test: impl FnOnce(&mut Linux) + Send + 'static) {
    in_namespace(|| {
        let mut kernel = Linux::default();
        assert!(kernel.ipvs().is_ok(), "this kernel has no IPVS");
        for words in [
            "link add eth7 type veth peer name eth8",
            "link set lo up",
            "link set eth7 up",
            "link set eth8 up",
            "address add 192.0.2.254/24 dev eth7",
            "address add 2001:db8::fe/64 dev eth7 nodad",
        ] {
            let status = Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(status.success(), "ip {words}");
        }
        test(&mut kernel);
    });
}

fn service(scheduler: &str) -> Service {
    Service {
        scheduler: scheduler.to_owned(),
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        engine: String::new(),
    }
}

fn key(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Endpoint { address: address.parse().unwrap(), port, protocol: Protocol::TCP }
}

fn server(address: &str, port: u16) -> ServerKey {
    Endpoint { address: address.parse().unwrap(), port }
}

fn real(forward: Forward, weight: u32) -> RealServer {
    RealServer { forward, weight, upper_threshold: 0, lower_threshold: 0, tunnel: Tunnel::default() }
}

fn table(kernel: &mut Linux) -> ObservedIpvs {
    table_of(kernel, Ownership { exclusive: true, ..Ownership::default() })
}

fn table_of(kernel: &mut Linux, ours: Ownership) -> ObservedIpvs {
    let scope = Scope { servers: Some(ours), ..Scope::default() };
    kernel.observe(&scope).unwrap().ipvs.unwrap()
}

fn add(key: ServiceKey, new: &Service, servers: &Servers) -> Change {
    Change::Service {
        key,
        old: None,
        new: Some(new.clone()),
        servers: servers.clone().into(),
        connections: 0,
    }
}

fn delete(key: ServiceKey) -> Change {
    Change::Service { key, old: Some(service("rr")), new: None, servers: Default::default(), connections: 0 }
}

fn set(key: ServiceKey, old: Service, new: Service) -> Change {
    Change::Service { key, old: Some(old), new: Some(new), servers: Default::default(), connections: 0 }
}

fn real_server(
    service: ServiceKey,
    key: ServerKey,
    old: Option<RealServer>,
    new: Option<RealServer>,
) -> Change {
    Change::Server { service, key, old, new, connections: 0 }
}

fn failed(result: &Result<()>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| panic!("it worked"))
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn every_setting_is_read_back_as_it_was_asked_for() {
    with_ipvs(|kernel| {
        let persistent = |scheduler: &str, netmask| Service {
            flags: service_flag::PERSISTENT,
            timeout: 300,
            netmask,
            ..service(scheduler)
        };
        let v6 = |settings: Service| Service { netmask: 128, ..settings };
        let tunnel = |kind, port, checksum| RealServer {
            tunnel: Tunnel { kind, port, checksum },
            ..real(Forward::TUN, 1)
        };
        let limited = RealServer { upper_threshold: 1000, lower_threshold: 800, ..real(Forward::DR, 7) };
        let four: Servers = [
            (server("192.0.2.11", 8080), real(Forward::NAT, 2)),
            (server("192.0.2.12", 80), limited),
            (server("192.0.2.13", 80), tunnel(0, 0, 0)),
            (server("192.0.2.14", 80), tunnel(1, 6080, 2)),
            (server("192.0.2.15", 80), tunnel(2, 0, 1)),
            (server("2001:db8::11", 80), tunnel(0, 0, 0)),
            (server("192.0.2.16", 80), real(Forward::NAT, 0)),
        ]
        .into();
        let six: Servers = [(server("2001:db8::11", 80), real(Forward::NAT, i32::MAX as u32))].into();
        let sh = Service { flags: service_flag::SCHED1 | service_flag::SCHED2, ..service("sh") };
        let one_packet = Service { flags: service_flag::ONE_PACKET, ..service("rr") };
        let sip = Service { engine: "sip".to_owned(), ..persistent("rr", u32::MAX) };
        let udp = |port| ServiceKey::Endpoint {
            address: "192.0.2.1".parse().unwrap(),
            port,
            protocol: Protocol::UDP,
        };
        let mark = |family| ServiceKey::Fwmark { mark: u32::MAX, family };
        let wanted: Vec<(ServiceKey, Service, Servers)> = vec![
            (key("192.0.2.1", 80), service("rr"), four.clone()),
            (key("192.0.2.1", 443), persistent("wlc", 0xffff_ff00), four.clone()),
            (key("192.0.2.1", 444), sh, four),
            (udp(53), one_packet, Servers::new()),
            (udp(5060), sip, Servers::new()),
            (key("2001:db8::1", 80), v6(service("mh")), six.clone()),
            (key("2001:db8::1", 443), persistent("wrr", 64), six.clone()),
            (mark(Family::Ipv4), service("lc"), Servers::new()),
            (mark(Family::Ipv6), v6(service("lc")), six),
        ];
        let changes: Vec<Change> = wanted.iter().map(|(key, new, servers)| add(*key, new, servers)).collect();
        for (change, result) in changes.iter().zip(kernel.apply(&changes)) {
            assert_eq!(result, Ok(()), "{change:?}");
        }
        let found = table(kernel);
        assert_eq!(found.services.len(), wanted.len());
        for (key, settings, servers) in &wanted {
            assert_eq!(found.services[key].settings, *settings, "{key}");
            assert_eq!(found.services[key].servers, *servers, "{key}");
        }

        // The other opinion; sh and mh go by this order.
        let listed = Command::new("ipvsadm").args(["-Sn"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("-A -t 192.0.2.1:443 -s wlc -p 300 -M 255.255.255.0\n"), "{listed}");
        assert!(listed.contains("--tun-type gue --tun-port 6080 --tun-remcsum"), "{listed}");
        let order = Command::new("ipvsadm").args(["-ln", "--nosort", "-t", "192.0.2.1:80"]).output().unwrap();
        let order = String::from_utf8(order.stdout).unwrap();
        let at = |text: &str| order.find(text).unwrap_or_else(|| panic!("{text} not in {order}"));
        assert!(
            at("192.0.2.11:8080") < at("192.0.2.12:80") && at("192.0.2.12:80") < at("192.0.2.16:80"),
            "{order}"
        );
    });
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn services_and_servers_change_and_go() {
    with_ipvs(|kernel| {
        let vip = key("192.0.2.1", 80);
        let (one, two) = (server("192.0.2.11", 80), server("192.0.2.12", 80));
        let old = real(Forward::NAT, 1);
        let new = RealServer {
            weight: 5,
            forward: Forward::TUN,
            tunnel: Tunnel { kind: 1, port: 6080, checksum: 0 },
            ..old
        };
        let sticky = Service { flags: service_flag::PERSISTENT, timeout: 60, ..service("wlc") };
        let changes = [
            add(vip, &service("rr"), &[(one, old)].into()),
            real_server(vip, two, None, Some(old)),
            real_server(vip, one, Some(old), Some(new)),
            set(vip, service("rr"), sticky.clone()),
            Change::Timeouts { old: Timeouts::default(), new: Timeouts { tcp: 1000, tcp_fin: 0, udp: 30 } },
        ];
        assert_eq!(kernel.apply(&changes), [Ok(()), Ok(()), Ok(()), Ok(()), Ok(())]);
        let found = table(kernel);
        assert_eq!(found.services[&vip].settings, sticky);
        assert_eq!(found.services[&vip].servers, [(one, new), (two, old)].into());
        assert_eq!(found.timeouts, Timeouts { tcp: 1000, tcp_fin: 120, udp: 30 });

        // And back: what only the former settings had is gone.
        let changes = [real_server(vip, one, Some(new), Some(old)), set(vip, sticky, service("rr"))];
        assert_eq!(kernel.apply(&changes), [Ok(()), Ok(())]);
        let found = table(kernel);
        assert_eq!(found.services[&vip].settings, service("rr"));
        assert_eq!(found.services[&vip].servers, [(one, old), (two, old)].into());

        let gone = [
            real_server(vip, two, Some(old), None),
            real_server(vip, two, Some(old), None),
            delete(vip),
            delete(vip),
            real_server(vip, one, Some(old), None),
        ];
        assert_eq!(kernel.apply(&gone), [Ok(()), Ok(()), Ok(()), Ok(()), Ok(())]);
        assert!(table(kernel).services.is_empty());
    });
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn refusals_are_told_where_they_belong() {
    with_ipvs(|kernel| {
        let (vip, other, third) = (key("192.0.2.1", 80), key("192.0.2.2", 80), key("192.0.2.3", 80));
        let good = real(Forward::NAT, 1);
        let servers = |last: &str| [(server("192.0.2.11", 80), good), (server(last, 80), good)].into();
        let changes = [
            add(vip, &service("rr"), &servers("192.0.2.255")),
            add(other, &service("nosuch"), &servers("192.0.2.12")),
            add(third, &service("rr"), &servers("192.0.2.12")),
            add(third, &service("rr"), &servers("192.0.2.13")),
            add(third, &service("nosuch"), &servers("192.0.2.13")),
            real_server(third, server("192.0.2.99", 80), Some(good), Some(good)),
            set(key("192.0.2.9", 80), service("rr"), service("rr")),
            set(third, service("rr"), service("nosuch")),
        ];
        let results = kernel.apply(&changes);
        let text = failed(&results[0]);
        assert!(text.starts_with("adding real server 192.0.2.255:80 of tcp 192.0.2.1:80: "), "{text}");
        let text = failed(&results[1]);
        assert!(text.contains("no scheduler `nosuch`; the service was taken away again (ENOENT)"), "{text}");
        assert_eq!(results[2], Ok(()));
        // What is there already is done, and is not taken away for what it cannot have.
        assert_eq!(results[3], Ok(()));
        let text = failed(&results[4]);
        assert!(text.contains("no scheduler `nosuch`") && !text.contains("taken away"), "{text}");
        assert!(failed(&results[5]).contains("it is gone"), "{results:?}");
        assert!(failed(&results[6]).contains("the service is gone"), "{results:?}");
        assert!(failed(&results[7]).contains("no scheduler `nosuch`"), "{results:?}");

        let found = table(kernel);
        assert_eq!(found.services.keys().collect::<Vec<_>>(), [&vip, &third]);
        assert_eq!(found.services[&vip].settings.scheduler, "rr");
        assert_eq!(found.services[&vip].servers.len(), 1);
        assert_eq!(found.services[&third].servers.len(), 3);
    });
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn looking_for_schedulers_finds_them_and_changes_nothing() {
    with_ipvs(|kernel| {
        let needs = Needs::from([("rr", ""), ("mh", ""), ("none", ""), ("none", "sip")]);
        assert_eq!(kernel.prepare(&needs), []);
        // In the order of names: "none" comes before "nosuch".
        let needs = Needs::from([("nosuch", ""), ("rr", ""), ("none", "h323")]);
        let errors: Vec<String> = kernel.prepare(&needs).iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors[1].contains("this kernel has no scheduler `nosuch` (ENOENT); `modprobe ip_vs_nosuch`"),
            "{errors:?}"
        );
        assert!(errors[0].contains("`modprobe ip_vs_pe_h323`"), "{errors:?}");
        assert!(table(kernel).services.is_empty());
    });
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn sync_daemons_start_and_stop() {
    with_ipvs(|kernel| {
        let daemon = |interface: &str, group: Option<IpAddr>| SyncDaemon {
            interface: interface.to_owned(),
            id: 51,
            // Of a backup daemon the kernel makes at least 1024 (ip_vs_sync.c, start_sync_thread).
            max_len: Some(1400),
            group,
            port: Some(9000),
            ttl: Some(3),
        };
        let group = Some("224.0.0.99".parse().unwrap());
        let start =
            |state, daemon: &SyncDaemon| Change::Daemon { state, old: None, new: Some(daemon.clone()) };
        let stop = |state| Change::Daemon { state, old: Some(daemon("eth7", None)), new: None };
        let (master, backup) = (daemon("eth7", group), daemon("eth7", Some("ff02::99".parse().unwrap())));
        let results = kernel.apply(&[
            start(DaemonState::Master, &master),
            start(DaemonState::Backup, &backup),
            start(DaemonState::Master, &master),
            start(DaemonState::Backup, &daemon("nosuch0", None)),
        ]);
        assert_eq!(results[..2], [Ok(()), Ok(())]);
        assert!(failed(&results[2]).contains("one runs already"), "{results:?}");
        assert!(results[3].is_err());
        let found = table(kernel).daemons;
        assert!(master.matches(&found[&DaemonState::Master]), "{found:?}");
        assert!(backup.matches(&found[&DaemonState::Backup]), "{found:?}");
        let plain = SyncDaemon { max_len: None, port: None, ttl: None, ..daemon("eth7", None) };
        let results = kernel.apply(&[
            stop(DaemonState::Master),
            stop(DaemonState::Backup),
            stop(DaemonState::Backup),
            start(DaemonState::Backup, &plain),
        ]);
        assert_eq!(results, [Ok(()), Ok(()), Ok(()), Ok(())]);
        let found = table(kernel).daemons;
        assert_eq!(found.len(), 1);
        assert_eq!(found[&DaemonState::Backup].port, Some(8848));
        assert_eq!(kernel.apply(&[stop(DaemonState::Backup)]), [Ok(())]);
        // Stopped before its thread ran, which the kernel does not answer.
        for _ in 0..10 {
            let results = kernel.apply(&[start(DaemonState::Backup, &plain), stop(DaemonState::Backup)]);
            assert_eq!(results, [Ok(()), Ok(())]);
        }
        assert!(table(kernel).daemons.is_empty());
        let missing = kernel.apply(&[start(DaemonState::Backup, &daemon("nosuch0", None))]);
        assert_eq!(missing[0].as_ref().unwrap_err().errno, Some(Errno::ENODEV));
    });
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_large_table_goes_in_and_comes_back() {
    with_ipvs(|kernel| {
        // 1,500 real servers take some 200 KiB, which is more than one datagram.
        let many: Servers = (0..1500u16)
            .map(|number| (server("192.0.2.11", 1000 + number), real(Forward::NAT, u32::from(number))))
            .collect();
        let few: Servers =
            (11..16).map(|last| (server(&format!("192.0.2.{last}"), 80), real(Forward::NAT, 1))).collect();
        let mut changes = vec![add(key("192.0.2.1", 80), &service("mh"), &many)];
        changes.extend((1000..1500).map(|port| add(key("192.0.2.1", port), &service("rr"), &few)));
        assert!(kernel.apply(&changes).iter().all(Result::is_ok));
        let found = table(kernel);
        assert_eq!(found.services.len(), 501);
        assert_eq!(found.services[&key("192.0.2.1", 80)].servers, many);
        assert!((1000..1500).all(|port| found.services[&key("192.0.2.1", port)].servers == few));

        // Both ways to read say the same, in the same order.
        let short = Table::open().unwrap();
        let ipvs = kernel.ipvs().unwrap();
        for service in [key("192.0.2.1", 80), key("192.0.2.1", 1000), key("192.0.2.1", 1499)] {
            assert_eq!(short.servers(&service), Some(ipvs.servers(&service).unwrap()));
        }
        assert_eq!(short.servers(&key("192.0.2.9", 80)), None);
        // Nothing is said when the kernel counts one that is not shown.
        let service = key("192.0.2.1", 1000);
        let v6 = RealServer { forward: Forward::TUN, ..real(Forward::NAT, 1) };
        let (four, six) = (server("192.0.2.99", 80), server("2001:db8::11", 80));
        let mut change = |change: Change| assert_eq!(kernel.apply(&[change]), [Ok(())]);
        for (key, new) in [(four, real(Forward::NAT, 1)), (six, v6)] {
            assert!(short.servers(&service).is_some());
            change(real_server(service, key, None, Some(new)));
        }
        assert_eq!(short.servers(&service), None);
        for (key, old) in [(six, v6), (four, real(Forward::NAT, 1))] {
            change(real_server(service, key, Some(old), None));
            assert!(short.servers(&service).is_some());
        }

        let ours = Ownership { vips: ["192.0.2.2".parse().unwrap()].into(), ..Ownership::default() };
        let foreign = table_of(kernel, ours);
        assert_eq!(foreign.services.len(), 501);
        assert!(foreign.services.values().all(|service| service.servers.is_empty()));

        // What is there already is done, with two errors for each and more at once.
        assert!(kernel.apply(&changes).iter().all(Result::is_ok));
    });
}
