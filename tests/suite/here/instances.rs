//! Several instances, links with other names, and what was there before: who owns what, and what comes back.
//!
//! Owns VIPs that move between files, links that are renamed, made anew or called otherwise, values that are restored
//! after a power failure and a renaming, the host's own addresses, and names that must not reach sysctl.d. The judges are
//! `ip`, `arping` and `sysctl`. Leaves one instance on one link to `netns`, and what hangs to `held_up`.

use super::held_up::{Announcements, log_of, logged, with_vips};
use super::netns::{PATIENCE, VIP, arp_answers, file, mac, parameters, places, set, wire};
use crate::support::{Host, LVS_NOTIFY, wait_for};

const OTHER: &str = "192.0.2.200";
const MOVES: &str = "192.0.2.150";
const LEAVING: [&str; 3] = ["backup", "fault", "stop"];
const SERVED: [&str; 2] = ["eth0 32", "lo 32"];

fn wired(extra: &str) -> (Host, Host) {
    let (director, neighbour) = wire("eth0");
    director.desire("VI_1", &with_vips(VIP, extra));
    (director, neighbour)
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_vip_that_moves_to_another_file_stays() {
    for first in ["old", "new"] {
        for role in ["apply", "backup", "fault", "stop", "master"] {
            let (director, neighbour) = wire("eth0");
            let what = format!("the {first} one is applied first, then {role}");
            let files = |has: &str| {
                for (instance, own) in [("VI_1", VIP), ("VI_2", OTHER)] {
                    let vips = if instance == has { format!("{own}, {MOVES}") } else { own.to_owned() };
                    director.desire(instance, &with_vips(&vips, "arp: {persist: false}"));
                }
            };
            files("VI_2");
            director.lvs_ok("master VI_1");
            director.lvs_ok("master VI_2");
            files("VI_1");
            if first == "new" {
                director.lvs_ok("apply VI_1");
                director.lvs_ok(&format!("{role} VI_2"));
            } else {
                // Between the two, nobody has it, unless the other's file counts already.
                director.lvs_ok(&format!("{role} VI_2"));
                director.lvs_ok("apply VI_1");
            }
            assert_eq!(places(&director, MOVES), SERVED, "{what}");
            assert_eq!(places(&director, VIP), SERVED, "{what}");
            director.lvs_ok("backup VI_2");
            assert_eq!(places(&director, MOVES), SERVED, "{what}, and then it is BACKUP");
            let reply = neighbour.run(&format!("arping -f -c 2 -w 2 -I eth0 {MOVES}"));
            assert!(reply.stdout.contains("Unicast reply from"), "{what}: {}", reply.all());
            // Whose it is takes it away.
            director.lvs_ok("backup VI_1");
            assert_eq!((places(&director, MOVES), places(&director, VIP)), (vec![], vec![]), "{what}");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn who_leaves_finds_a_link_that_was_renamed() {
    for impostor in [false, true] {
        for role in LEAVING {
            let (director, neighbour) = wired("");
            let what = format!("{role}, another link has the old name: {impostor}");
            director.lvs_ok("master");
            director.sh("ip link set eth0 down; ip link set eth0 name ens3; ip link set ens3 up");
            if impostor {
                director.sh(
                    "ip link add eth0 type veth peer name peer0; ip link set peer0 up; ip link set eth0 up",
                );
            }
            let ran = director.lvs(role);
            assert_eq!(places(&director, VIP), [""; 0], "{what}: {}", ran.all());
            assert_eq!(arp_answers(&neighbour), [""; 0], "{what}");
        }
    }
    // The file follows the new name, and the VIP the file.
    let (director, neighbour) = wired("");
    director.lvs_ok("master");
    director.sh("ip link set eth0 down; ip link set eth0 name ens3; ip link set ens3 up");
    director.desire("VI_1", &with_vips(VIP, "").replace("eth0", "ens3"));
    director.lvs_ok("apply");
    assert_eq!(places(&director, VIP), ["ens3 32", "lo 32"]);
    assert_eq!(arp_answers(&neighbour), vec![mac(&director, "ens3"); 2]);
    director.lvs_ok("backup");
    assert_eq!(places(&director, VIP), [""; 0]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_link_that_was_made_anew_gets_its_vip_back() {
    let (director, _neighbour) = wired("");
    director.lvs_ok("master");
    for role in LEAVING {
        let other = Host::new("other");
        director.run("ip link del eth0");
        director.link("eth0", &other, "eth0");
        director.address("192.0.2.1/24", "eth0");
        other.address("192.0.2.2/24", "eth0");
        director.lvs_ok("apply");
        assert_eq!(places(&director, VIP), SERVED);
        assert_eq!(parameters(&director, &["eth0"]), ["eth0 1 2"]);
        assert_eq!(arp_answers(&other), vec![mac(&director, "eth0"); 2]);
        // Gone while MASTER: nothing is left on lo either.
        director.ok("ip link del eth0");
        director.lvs(role);
        assert_eq!(places(&director, VIP), [""; 0], "{role}");
        director.link("eth0", &other, "eth0");
        director.lvs_ok("master");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_alternative_name_is_the_link_itself() {
    for own in ["eth0", "eth0.100"] {
        let (director, neighbour) = wire(own);
        director.ok(&format!("ip link property add dev {own} altname enp0s3"));
        director.desire("VI_1", &with_vips(VIP, "").replace("eth0", "enp0s3"));
        let announcements = Announcements::to(&neighbour);
        director.lvs_ok("backup");
        director.lvs_ok("master");
        wait_for("the announcement", PATIENCE, || announcements.of(VIP) > 0);
        assert_eq!(places(&director, VIP), [format!("{own} 32"), "lo 32".to_owned()]);
        assert_eq!(arp_answers(&neighbour), vec![mac(&director, own); 2]);
        let names = ["all", "lo", own];
        let values = names.map(|name| format!("{name} 1 2"));
        assert_eq!(parameters(&director, &names), values);
        // sysctl(8) judges the file.
        for name in names {
            set(&director, name, "arp_ignore", 0);
            set(&director, name, "arp_announce", 0);
        }
        director.ok("sysctl -e -p /etc/sysctl.d/90-lvs-notify-VI_1.conf");
        assert_eq!(parameters(&director, &names), values);
        let again = director.lvs_ok("master");
        assert!(again.contains("no change"), "{again}");
        director.lvs_ok("status");
        for role in LEAVING {
            director.lvs_ok(role);
            assert_eq!(places(&director, VIP), [""; 0], "{role}");
            director.lvs_ok("master");
        }
    }
}

/// What a reboot after a power failure leaves: no addresses, nothing in /run, and the parameters of /etc/sysctl.d.
fn reboots(director: &Host, before: &[(&str, u32, u32)]) {
    director.sh("rm -rf /run/lvs-notify/*");
    for vip in [VIP, OTHER] {
        for interface in ["eth0", "lo"] {
            director.run(&format!("ip address del {vip}/32 dev {interface}"));
        }
    }
    start_with(director, before);
    director.sh("for f in /etc/sysctl.d/*; do [ ! -e $f ] || sysctl -q -p $f || exit 1; done");
}

fn start_with(director: &Host, values: &[(&str, u32, u32)]) {
    for (name, ignore, announce) in values {
        set(director, name, "arp_ignore", *ignore);
        set(director, name, "arp_announce", *announce);
    }
}

/// What the host had before lvs-notify came.
const BEFORE: [(&str, u32, u32); 3] = [("all", 0, 1), ("lo", 8, 0), ("eth0", 2, 1)];
const RESTORED: [&str; 3] = ["all 0 1", "lo 8 0", "eth0 2 1"];
const SET: [&str; 3] = ["all 1 2", "lo 1 2", "eth0 1 2"];
const NAMES: [&str; 3] = ["all", "lo", "eth0"];

#[test]
#[ignore = "needs root: run tests/run"]
fn values_come_back_after_a_power_failure() {
    for instances in [&["VI_1"][..], &["VI_1", "VI_2"]] {
        for leaves in LEAVING {
            let (director, _neighbour) = wired("arp: {restore: true}");
            director.desire("VI_2", &with_vips(OTHER, "arp: {restore: true}"));
            let what = format!("{instances:?}, {leaves}");
            start_with(&director, &BEFORE);
            for _ in 0..2 {
                for instance in instances {
                    director.lvs_ok(&format!("master {instance}"));
                }
                assert_eq!(parameters(&director, &NAMES), SET, "{what}");
                reboots(&director, &BEFORE);
                for instance in instances {
                    director.lvs_ok(&format!("{leaves} {instance}"));
                }
                assert_eq!(parameters(&director, &NAMES), RESTORED, "{what}");
                assert_eq!(director.ok("ls -A /etc/sysctl.d"), "", "{what}");
                // And a reboot changes nothing about that.
                reboots(&director, &BEFORE);
                assert_eq!(parameters(&director, &NAMES), RESTORED, "{what}");
            }
            // With the first of two MASTER again after the reboot, the last to leave restores.
            for instance in instances {
                director.lvs_ok(&format!("master {instance}"));
            }
            reboots(&director, &BEFORE);
            for instance in instances {
                director.lvs_ok(&format!("master {instance}"));
            }
            for (left, instance) in instances.iter().enumerate() {
                assert_eq!(parameters(&director, &NAMES), SET, "{what}: {left} have left");
                director.lvs_ok(&format!("{leaves} {instance}"));
            }
            assert_eq!(parameters(&director, &NAMES), RESTORED, "{what}");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn values_come_back_after_a_renaming() {
    for (what, between) in [
        ("keepalived reloads, and calls the new name only", ""),
        ("keepalived calls notify_deleted", "stop VI_1"),
    ] {
        let (director, _neighbour) = wired("arp: {restore: true}");
        start_with(&director, &BEFORE);
        director.lvs_ok("master VI_1");
        director.ok("mv /etc/lvs-notify/VI_1.yaml /etc/lvs-notify/NEW.yaml");
        if !between.is_empty() {
            director.lvs(between);
        }
        director.lvs_ok("master NEW");
        assert_eq!(places(&director, VIP), SERVED, "{what}");
        assert_eq!(parameters(&director, &NAMES), SET, "{what}");
        director.lvs_ok("backup NEW");
        assert_eq!(places(&director, VIP), [""; 0], "{what}");
        assert_eq!(parameters(&director, &NAMES), RESTORED, "{what}");
        // A reboot leaves it so: the old name has nothing in sysctl.d.
        assert_eq!(director.ok("ls -A /etc/sysctl.d"), "", "{what}");
        director.lvs_ok("status NEW");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_address_that_a_host_lives_on_is_never_removed() {
    const OWN: &str = "192.0.2.1";
    let away = "ip address flush dev eth0 scope global";
    for (what, prepare, vip, place) in [
        // As clouds give it.
        (
            "the only address",
            format!("{away}; ip address add {OWN}/32 dev eth0; ip route add 192.0.2.0/24 dev eth0"),
            OWN,
            "eth0 32",
        ),
        (
            "the only address, with its network",
            format!("{away}; ip address add {OWN}/24 dev eth0"),
            OWN,
            "eth0 24",
        ),
        (
            "the only IPv6 address",
            format!("{away}; ip address add 2001:db8::1/128 dev eth0 nodad"),
            "\"2001:db8::1\"",
            "eth0 128",
        ),
    ] {
        let (director, _neighbour) = wire("eth0");
        director.desire("VI_1", &with_vips(vip, ""));
        director.sh(&prepare);
        let address = vip.trim_matches('"');
        // keepalived calls notify_backup at every start.
        for role in LEAVING {
            director.lvs(role);
            assert_eq!(places(&director, address), [place], "{what}: {role}");
        }
        assert_eq!(told_as_own(&director), [format!("error: {address} on eth0")], "{what}");
        // Nor does a time as MASTER make it ours; and a VIP beside it is none of the host's.
        director.desire("VI_1", &with_vips(&format!("{vip}, {OTHER}, \"2001:db8::200\""), ""));
        for role in LEAVING {
            for again in ["master", "apply", role] {
                director.lvs(again);
            }
            assert_eq!(places(&director, address), [place], "{what}: {role} after MASTER");
            assert_eq!(places(&director, OTHER), [""; 0], "{what}: {role} after MASTER");
            assert_eq!(places(&director, "2001:db8::200"), [""; 0], "{what}: {role} after MASTER");
        }
        // Nobody is told to delete it.
        let status = director.lvs("status").all();
        assert!(
            status.contains("it is this host's own") && !status.contains("ip address del"),
            "{what}: {status}"
        );
    }
    // What a MASTER has put up itself is not the host's, even where it is the only one.
    let (director, _neighbour) = wired("");
    director.sh(away);
    for role in LEAVING {
        director.lvs_ok("master");
        assert_eq!(places(&director, VIP), SERVED, "an unnumbered link");
        assert_eq!(told_as_own(&director), [""; 0], "an unnumbered link");
        director.lvs_ok(role);
        assert_eq!(places(&director, VIP), [""; 0], "an unnumbered link: {role}");
    }
}

/// What `check --host` says of the host's own addresses.
fn told_as_own(director: &Host) -> Vec<String> {
    let found: serde_json::Value = serde_json::from_str(&director.lvs("check --host --json").stdout).unwrap();
    let found = found["findings"].as_array().unwrap().iter().filter(|one| one["rule"] == "E64");
    found
        .map(|one| format!("{}: {}", one["severity"].as_str().unwrap(), one["what"].as_str().unwrap()))
        .collect()
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_source_of_a_default_route_is_never_removed() {
    const VIP6: &str = "2001:db8::100";
    for (place, prepare, vip) in [
        (
            "eth0 32",
            format!("ip address add {VIP}/32 dev eth0; ip route add default via 192.0.2.2 src {VIP}"),
            VIP,
        ),
        (
            "eth0 128",
            format!(
                "ip address add {VIP6}/128 dev eth0 nodad
                 ip route add default via 2001:db8::2 dev eth0 src {VIP6}"
            ),
            VIP6,
        ),
        // As a router announces it.
        (
            "lo 32",
            format!("ip address add {VIP}/32 dev lo; ip route add default via 192.0.2.2 src {VIP}"),
            VIP,
        ),
    ] {
        let (director, _neighbour) = wire("eth0");
        director.desire("VI_1", &with_vips(&format!("\"{vip}\""), ""));
        director.sh(&prepare);
        let socket = log_of(&director);
        let routes = || director.ok("ip route show default") + &director.ok("ip -6 route show default");
        let (before, interface) = (routes(), place.split(' ').next().unwrap());
        assert!(before.contains(&format!("src {vip} ")), "{before}");
        // keepalived calls notify_backup at every start. A time as MASTER makes nothing ours.
        for role in ["backup", "fault", "stop", "master", "apply", "backup", "apply", "master", "stop"] {
            director.lvs(role);
            let log = logged(&socket);
            let active = director.lvs("status --json").stdout.contains("\"role\": \"MASTER\"");
            let stands = places(&director, vip);
            assert!(
                stands.contains(&place.to_owned()) && stands.len() == 1 + usize::from(active),
                "{role}: {stands:?}"
            );
            let told = log.contains(&format!("{vip} on {interface} stays: this host lives on it"));
            assert_eq!(told, !active, "{role}: {log}");
            assert_eq!(routes(), before, "{place}: {role}");
            assert_eq!(told_as_own(&director), [format!("error: {vip} on {interface}")], "{role}");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn other_routes_make_a_vip_no_host_s_address() {
    let stands = format!("ip address add {VIP}/32 dev eth0");
    for (what, prepare) in [
        ("another table", format!("{stands}; ip route add default via 192.0.2.2 src {VIP} table 100")),
        ("a route elsewhere", format!("{stands}; ip route add 198.51.100.0/24 via 192.0.2.2 src {VIP}")),
        ("the half of all", format!("{stands}; ip route add 0.0.0.0/1 via 192.0.2.2 src {VIP}")),
        ("another source", format!("{stands}; ip route add default via 192.0.2.2 src 192.0.2.1")),
        // What this program has put up stays a VIP, whoever uses it since.
        ("a VIP of ours", format!("{LVS_NOTIFY} master; ip route add default via 192.0.2.2 src {VIP}")),
    ] {
        let (director, _neighbour) = wired("");
        director.sh(&prepare);
        let own = if what == "another source" { vec!["error: 192.0.2.1 on eth0"] } else { vec![] };
        let vips = if own.is_empty() { VIP.to_owned() } else { format!("{VIP}, 192.0.2.1") };
        assert_eq!(told_as_own(&director), [""; 0], "{what}");
        director.desire("VI_1", &with_vips(&vips, ""));
        assert_eq!(told_as_own(&director), own, "{what}");
        director.lvs_ok("backup");
        assert_eq!(places(&director, VIP), [""; 0], "{what}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_vanishes_with_a_repaired_vip_is_put_back() {
    for promotes in [0, 1] {
        for role in ["master", "backup", "fault", "stop", "apply"] {
            let (director, _neighbour) = wired("");
            let what = format!("promote_secondaries {promotes}, {role}");
            for name in ["all", "lo"] {
                set(&director, name, "promote_secondaries", promotes);
            }
            if role == "apply" {
                director.lvs_ok("master");
                director.ok(&format!("ip address del {VIP}/32 dev lo"));
            }
            director.address(&format!("{VIP}/24"), "lo");
            // Somebody else's: in the VIP's network, in a part of it, and elsewhere.
            let others =
                ["192.0.2.102/24", "192.0.2.103/24", "192.0.2.104/32", "192.0.2.129/25", "10.0.0.1/24"];
            others.iter().for_each(|address| director.address(address, "lo"));
            director.lvs_ok(role);
            let there = |address: &str| director.ok(&format!("ip -br address show dev lo to {address}"));
            for address in others {
                assert!(there(address.split('/').next().unwrap()).contains(address), "{what}: {address}");
            }
            let wanted: &[&str] = if matches!(role, "master" | "apply") { &SERVED } else { &[] };
            assert_eq!(places(&director, VIP), wanted, "{what}");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_leaves_the_file_leaves_the_host() {
    let (director, _neighbour) = wired("");
    director.lvs_ok("master");
    assert_eq!(director.ok("ls /etc/sysctl.d"), "90-lvs-notify-VI_1.conf\n");
    for arp in ["arp: off", "arp: {persist: false}"] {
        director.desire("VI_1", &with_vips(VIP, arp));
        director.lvs_ok("apply");
        assert_eq!(director.ok("ls /etc/sysctl.d"), "", "{arp}");
        director.lvs_ok("status");
        director.desire("VI_1", &with_vips(VIP, ""));
        director.lvs_ok("apply");
        assert_eq!(director.ok("ls /etc/sysctl.d"), "90-lvs-notify-VI_1.conf\n", "{arp}");
    }
    // A VIP that was declared for a while, though keepalived had put it up; one with a network is never ours.
    for (address, stays) in [("192.0.2.101/32", &[][..]), ("192.0.2.102/24", &["eth0 24"])] {
        let (vip, _) = address.split_once('/').unwrap();
        director.address(address, "eth0");
        director.desire("VI_1", &with_vips(&format!("{VIP}, {vip}"), ""));
        director.lvs_ok("apply");
        director.desire("VI_1", &with_vips(VIP, ""));
        director.lvs_ok("apply");
        assert_eq!(places(&director, vip), stays, "{address}");
    }
    assert_eq!(places(&director, VIP), SERVED);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn odd_names_never_reach_sysctl_d() {
    let (director, _neighbour) = wire("eth0");
    let file_for =
        |interface: &str| file("eth0", "").replace("interface: eth0", &format!("interface: '{interface}'"));
    let make = |name: &str| {
        director.sh(&format!("ip link add name '{name}' type veth peer; ip link set dev '{name}' up"))
    };
    for name in ["a=b", "a*b", "a?b", "a[b]", "="] {
        make(name);
        director.desire("VI_1", &file_for(name));
        for role in ["master", "backup"] {
            let ran = director.lvs(&format!("{role} VI_1"));
            assert_eq!(ran.status, 4, "{name}: {}", ran.all());
        }
        assert_eq!(director.ok("ls -A /etc/sysctl.d"), "", "{name}");
    }
    for name in ["a.b", "#a", ";a", "-a", "a\"b", "a\\b", "a,b", "a$b", "é", "a..b"] {
        make(name);
        director.desire("VI_1", &file_for(name));
        director.lvs_ok("master VI_1");
        let at = |which: &str| format!("/proc/sys/net/ipv4/conf/{name}/arp_{which}");
        let values = || director.sh(&format!("cat '{}' '{}'", at("ignore"), at("announce")));
        assert_eq!(values(), "1\n2\n", "{name}");
        // sysctl(8) reads every line, and means this very link by it.
        director.sh(&format!("echo 0 > '{}'; echo 0 > '{}'", at("ignore"), at("announce")));
        director.ok("sysctl -p /etc/sysctl.d/90-lvs-notify-VI_1.conf");
        assert_eq!(values(), "1\n2\n", "{name}");
        director.lvs_ok("backup VI_1");
    }
    // An instance's name is in the file's name, and in its first line.
    director.sh("rm -f /etc/sysctl.d/*");
    for name in ["x\nkernel.sysrq = 1\n#", "x\rkernel.sysrq = 1", ".x", "x\u{1b}[2J"] {
        director.write("/run/test/name", name);
        director.write(&format!("/run/test/{name}.yaml"), &with_vips(VIP, ""));
        let text = director.sh(&format!(
            "{} -c \"/run/test/$(cat /run/test/name).yaml\" master 2>&1; echo status $?",
            crate::support::LVS_NOTIFY
        ));
        assert!(text.ends_with("status 2\n"), "{name:?}: {text}");
        assert_eq!(director.ok("ls -A /etc/sysctl.d"), "", "{name:?}");
    }
    director.sh("rm -f /etc/lvs-notify/*");
    for name in ["a b", "# a", "-", "a=b", "a*", "é", "a;b", "%n"] {
        director.write("/run/test/name", name);
        director.desire(name, &with_vips(VIP, ""));
        director.sh(&format!("{} master -- \"$(cat /run/test/name)\"", crate::support::LVS_NOTIFY));
        set(&director, "eth0", "arp_announce", 0);
        director.sh("for f in /etc/sysctl.d/*; do sysctl -p \"$f\" || exit 1; done");
        assert_eq!(parameters(&director, &["eth0"]), ["eth0 1 2"], "{name}");
        director.sh(&format!(
            "{} backup -- \"$(cat /run/test/name)\"; rm /etc/lvs-notify/* /etc/sysctl.d/*",
            crate::support::LVS_NOTIFY
        ));
    }
}
