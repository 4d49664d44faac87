//! What an operator sees: the verdict in every situation that pages somebody, who answers on the
//! wire, and the forms for programs.
//!
//! Owns `status` on a real kernel; its figures are judged by `ipvsadm`, `ip` and `arping`. Leaves what
//! the judgement is made of to unit tests, and drift's repair to `services` and `netns`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::here::held_up::{log_of, logged};
use crate::support::told::assert_told;
use crate::support::{Host, LVS_NOTIFY, behind_nat, wait_for};
use serde_json::Value;

const VIP: &str = "192.0.2.100";
const VIP6: &str = "2001:db8::100";
const PATIENCE: Duration = Duration::from_secs(20);

const FILE: &str = "\
version: 1
interface: eth0
vips: [192.0.2.100, \"2001:db8::100\"]
announce: {count: 1}
virtual_services:
  - address: 192.0.2.100:80
    scheduler: rr
    real_servers: [203.0.113.11:80, 203.0.113.12:80]
  - address: \"[2001:db8::100]:80\"
    scheduler: wlc
    real_servers: [\"[2001:db8:1::11]:80\"]
";

/// Two directors of one pair and a client, on one wire.
struct Pair {
    lb1: Host,
    lb2: Host,
    client: Host,
    _switch: Host,
}

fn pair() -> Pair {
    let switch = Host::new("switch");
    switch.ok("ip link add wire type bridge");
    switch.ok("ip link set wire up");
    let plug = |name: &str, number: u8| {
        let host = Host::new(name);
        host.link("eth0", &switch, name);
        switch.ok(&format!("ip link set {name} master wire"));
        host.address(&format!("192.0.2.{number}/24"), "eth0");
        host.address(&format!("2001:db8::{number}/64"), "eth0");
        host
    };
    let (lb1, lb2, client) = (plug("lb1", 1), plug("lb2", 2), plug("client", 9));
    for host in [&lb1, &lb2] {
        host.desire("VI_1", FILE);
        wait_for("a link-local address", PATIENCE, || {
            let addresses = host.ok("ip -6 address show dev eth0 scope link");
            addresses.contains("fe80") && !addresses.contains("tentative")
        });
    }
    Pair { lb1, lb2, client, _switch: switch }
}

fn mac(host: &Host) -> String {
    host.ok("cat /sys/class/net/eth0/address").trim().to_owned()
}

/// Runs `status` and shows it; gives its exit status and its text.
fn status(host: &Host, arguments: &str) -> (i32, String) {
    let ran = host.lvs(&format!("status VI_1 {arguments}"));
    println!("--- {} status {arguments}: exit {}\n{}", host.name(), ran.status, ran.all());
    (ran.status, ran.stdout)
}

fn verdict(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn the_first_line_is_the_verdict() {
    let Pair { lb1, lb2, client: _client, _switch } = pair();
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 3, "compared with BACKUP, the parameters are missing");
    assert!(verdict(&text).starts_with("VI_1: no role since boot"), "{text}");

    lb2.lvs_ok("backup VI_1");
    let (exit, text) = status(&lb2, "");
    assert_eq!(exit, 0);
    assert!(verdict(&text).starts_with("VI_1: BACKUP since ") && verdict(&text).ends_with(", in sync"));
    assert!(text.contains("ARP not answered: the VIP is not here"), "{text}");

    lb1.lvs_ok("master VI_1");
    lb1.ok("ipvsadm -A -t 198.51.100.7:25 -s wlc");
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 0);
    assert!(verdict(&text).starts_with("VI_1: MASTER since ") && verdict(&text).ends_with(", in sync"));
    assert!(text.contains(&format!("answers ARP on eth0; MAC {}", mac(&lb1))), "{text}");
    assert!(text.contains(&format!("answers ND on eth0; MAC {}", mac(&lb1))), "{text}");
    let foreign = text.split("Foreign services (never touched)").nth(1).expect("foreign services apart");
    assert!(foreign.contains("198.51.100.7:25") && !foreign.contains(VIP), "{text}");
    assert!(text.contains("Last run: master (process "), "{text}");

    // Somebody was here: a drained server, one too many, a missing one, a wrong scheduler.
    lb1.ok("ipvsadm -e -t 192.0.2.100:80 -r 203.0.113.11:80 -m -w 0");
    lb1.ok("ipvsadm -a -t 192.0.2.100:80 -r 203.0.113.13:80 -m");
    lb1.ok("ipvsadm -d -t 192.0.2.100:80 -r 203.0.113.12:80");
    lb1.ok("ipvsadm -E -t [2001:db8::100]:80 -s sh");
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 3);
    assert!(verdict(&text).ends_with("OUT OF SYNC, 4 differences"), "{text}");
    let row = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert!(row("~   203.0.113.11:80")[0].ends_with("<- weight 0 -> 1"), "{text}");
    assert!(row("-   203.0.113.13:80")[0].ends_with("<- not wanted"), "{text}");
    assert!(row("+   203.0.113.12:80")[0].ends_with("<- missing"), "{text}");
    assert!(row("~ tcp [2001:db8::100]:80")[0].contains("<- scheduler sh -> wlc"), "{text}");
    lb1.lvs_ok("apply VI_1");

    // In sync, and nobody can reach it.
    lb1.ok("ip link set eth0 down");
    // IPv6 addresses go with the link.
    lb1.lvs("apply VI_1");
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 3);
    assert!(verdict(&text).contains("PROBLEM"), "{text}");
    assert!(text.contains("PROBLEM: no client can reach it: eth0 is down; `ip link set eth0 up`"), "{text}");
    lb1.ok("ip link set eth0 up");

    // A broken file: what would be used is told.
    lb1.lvs("apply VI_1");
    lb1.desire("VI_1", &FILE.replace("rr", "[rr"));
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 4);
    assert!(verdict(&text).contains("UNUSABLE") && text.contains("the last good copy"), "{text}");
    assert!(text.contains("VI_1.yaml:"), "{text}");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_takeover_that_failed_and_services_that_refuse_clients_are_told() {
    let Pair { lb1, lb2: _lb2, client: _client, _switch } = pair();
    let log = log_of(&lb1);
    let told = |way: &str, words: &str| assert_told(&lb1, way, "MASTER", words, &logged(&log));
    // Nothing to fall back to: what can be made is made.
    lb1.desire("VI_1", &FILE.replace("scheduler: rr", "scheduler: nosuch"));
    let ran = lb1.lvs("master VI_1");
    assert!(ran.status == 1 && ran.stdout.contains("MASTER: FAILED: "), "{}", ran.all());
    told("this kernel lacks a scheduler", "TAKEOVER FAILED: this kernel has no scheduler `nosuch`");
    lb1.desire(
        "VI_1",
        &FILE.replace("scheduler: wlc", "scheduler: nosuch").replace("scheduler: rr", "scheduler: nosuch"),
    );
    lb1.lvs("backup VI_1");
    lb1.lvs("master VI_1");
    told("this kernel lacks every scheduler", "; nobody is served");
    // The file is put right, and what failed has been made up for.
    lb1.desire("VI_1", FILE);
    lb1.lvs_ok("apply VI_1");
    assert!(verdict(&status(&lb1, "").1).ends_with(", in sync"));
    // Now there is something to fall back to, which is not what the file says.
    lb1.desire("VI_1", &FILE.replace("scheduler: rr", "scheduler: nosuch"));
    assert_eq!(lb1.lvs("apply VI_1").status, 4);
    told("this kernel refuses the file, and the last good copy serves", "APPLY FAILED: this kernel refuses ");
    lb1.desire("VI_1", FILE);
    lb1.lvs_ok("apply VI_1");
    assert!(verdict(&status(&lb1, "").1).ends_with(", in sync"));
    lb1.ok(&format!("ipvsadm -D -t {VIP}:80"));
    told(
        "a service is gone",
        &format!("PROBLEM: tcp {VIP}:80 refuses its clients: there is no such service"),
    );
    lb1.lvs_ok("apply VI_1");
    // Drained on purpose, and its clients are refused all the same.
    lb1.lvs_ok("drain 2001:db8:1::11 VI_1");
    told("every real server is drained", "refuses its clients: it has no real server above weight 0");
    lb1.lvs_ok("undrain 2001:db8:1::11 VI_1");

    for (settings, words) in [
        ("scheduler: sh", "sh refuses its clients"),
        ("scheduler: mh", "mh refuses its clients"),
        ("scheduler: dh", "dh refuses its clients"),
        ("scheduler: rr\n    persistence: 5m", "its persistent clients come back to it"),
    ] {
        lb1.desire("VI_1", &FILE.replace("scheduler: rr", settings));
        lb1.lvs_ok("apply VI_1");
        let said = lb1.lvs_ok("drain 203.0.113.11 VI_1");
        assert!(said.contains(words) && said.contains("other director"), "{said}");
        told(&format!("a drain: {words}"), &format!("203.0.113.11:80 of tcp {VIP}:80 is drained"));
        lb1.lvs_ok("undrain --all VI_1");
    }
    for settings in [
        "scheduler: sh\n    scheduler_flags: [sh-fallback]",
        "scheduler: mh\n    scheduler_flags: [mh-fallback]",
        "scheduler: rr",
    ] {
        lb1.desire("VI_1", &FILE.replace("scheduler: rr", settings));
        lb1.lvs_ok("apply VI_1");
        lb1.lvs_ok("drain 203.0.113.11 VI_1");
        assert!(verdict(&status(&lb1, "").1).ends_with(", in sync"), "{settings}");
        lb1.lvs_ok("undrain --all VI_1");
    }
}

/// Two instances are no strangers to each other, and how packets are wrapped is told.
#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn services_of_another_instance_are_told_apart_and_tunnels_with_their_kind() {
    let Pair { lb1, lb2: _lb2, client: _client, _switch } = pair();
    let other = "version: 1\ninterface: eth0\nvips: [192.0.2.101]\nvirtual_services:\n  - address: 192.0.2.101:80\n    \
                 forward: tun\n    real_servers:\n      - 203.0.113.11:80\n      - {address: 203.0.113.12:80, tunnel: {type: gue, port: 6080}}\n";
    lb1.desire("VI_2", other);
    for instance in ["VI_1", "VI_2"] {
        lb1.lvs_ok(&format!("master {instance}"));
    }
    lb1.ok("ipvsadm -A -t 198.51.100.7:25 -s wlc");
    let (exit, text) = status(&lb1, "");
    assert_eq!(exit, 0);
    let (_, rest) = text.split_once("\nServices of VI_2 ").expect("the other instance's services apart");
    let (theirs, foreign) =
        rest.split_once("\nForeign services (never touched)").expect("and so are foreign ones");
    assert!(theirs.contains("192.0.2.101:80") && !theirs.contains("198.51.100.7"), "{text}");
    assert!(foreign.contains("198.51.100.7:25") && !foreign.contains("192.0.2.101"), "{text}");
    for (server, forward) in [("203.0.113.11:80", "tun/ipip"), ("203.0.113.12:80", "tun/gue:6080")] {
        let row = theirs.lines().find(|line| line.contains(server)).unwrap();
        assert_eq!(row.split_whitespace().nth(1), Some(forward), "{text}");
    }
    // For programs they stay among the foreign ones, with their instance's name.
    let value: Value = serde_json::from_str(&lb1.lvs_ok("status VI_1 --json")).unwrap();
    let list = value["foreign_services"].as_array().unwrap();
    let names: Vec<&Value> = list.iter().map(|service| &service["instance"]).collect();
    assert_eq!(names, [&Value::from("VI_2"), &Value::Null], "{list:?}");
    assert_eq!(value["services"][0]["instance"], Value::Null);
    // Without its record nobody can say whose they are.
    lb1.ok("rm /run/lvs-notify/VI_2.json");
    let (_, text) = status(&lb1, "");
    assert!(!text.contains("Services of VI_2"), "{text}");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_backup_that_answers_is_a_problem() {
    let Pair { lb1: _lb1, lb2, client, _switch } = pair();
    lb2.lvs_ok("backup VI_1");
    // As keepalived's own VIP with a subnet's prefix, left behind.
    lb2.address(&format!("{VIP}/24"), "eth0");
    let (exit, text) = status(&lb2, "");
    assert_eq!(exit, 3);
    assert!(text.contains("PROBLEM: this director is not MASTER and answers for it on eth0"), "{text}");
    assert!(text.contains(&format!("`ip address del {VIP}/24 dev eth0`")), "what `apply` leaves: {text}");
    assert_eq!(client.run(&format!("arping -c 1 -w 3 -I eth0 {VIP}")).status, 0, "and so it does");
    // Of our own making, but a parameter that is not: with `arp: off` nobody repairs it.
    lb2.ok(&format!("ip address del {VIP}/24 dev eth0"));
    lb2.desire("VI_1", &FILE.replace("announce", "arp: off\nbackup: {vips: keep}\nannounce"));
    lb2.lvs_ok("backup VI_1");
    lb2.ok("sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0");
    let (exit, text) = status(&lb2, "");
    assert_eq!(exit, 3);
    assert!(
        text.contains("because it stands on lo and arp_ignore is 0; set net.ipv4.conf.all.arp_ignore=1"),
        "{text}"
    );
    lb2.ok("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    assert_eq!(status(&lb2, "").0, 0);
}

fn claims(host: &Host, vip: &str) -> (Value, Value) {
    let ran = host.lvs("status VI_1 --json --probe");
    let value: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.all()));
    let found =
        value["vips"].as_array().unwrap().iter().find(|found| found["address"] == vip).unwrap().clone();
    (found["claims"].clone(), found["problem"].clone())
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn two_hosts_that_claim_a_vip_are_seen() {
    let Pair { lb1, lb2, client, _switch } = pair();
    let (one, two) = (mac(&lb1), mac(&lb2));
    for host in [&lb1, &lb2] {
        host.lvs_ok("backup VI_1");
        let (exit, text) = status(host, "--probe");
        assert_eq!(exit, 3, "no MASTER anywhere");
        assert!(text.contains("PROBLEM: nobody answers for it"), "{text}");
    }
    lb1.lvs_ok("master VI_1");
    for vip in [VIP, VIP6] {
        for host in [&lb1, &lb2] {
            let (claims, problem) = claims(host, vip);
            assert_eq!(claims, serde_json::json!([one]), "{vip} as {} sees it: {problem}", host.name());
            assert_eq!(problem, Value::Null, "{vip}");
        }
    }
    // Both believe to be MASTER.
    lb2.lvs_ok("master VI_1");
    let both: BTreeSet<&String> = [&one, &two].into();
    for vip in [VIP, VIP6] {
        for host in [&lb1, &lb2] {
            let (claims, problem) = claims(host, vip);
            assert_eq!(claims, serde_json::json!(both), "{vip} as {} sees it", host.name());
            assert!(problem.as_str().unwrap().starts_with("SPLIT BRAIN: 2 hosts"), "{problem}");
        }
    }
    let (exit, text) = status(&lb1, "--probe");
    assert_eq!(exit, 3);
    assert!(verdict(&text).ends_with("192.0.2.100 and 1 more: PROBLEM"), "{text}");
    // The other judge.
    let arping = client.run(&format!("arping -c 3 -w 4 -I eth0 {VIP}")).all().to_lowercase();
    assert!(arping.contains(&one) && arping.contains(&two), "{arping}");
    // Asking has not made anybody believe anything.
    client.ok("ip neigh flush dev eth0");
    let before = client.ok("ip neigh show dev eth0");
    lb1.lvs("status VI_1 --probe");
    let after = client.ok("ip neigh show dev eth0");
    assert!(!after.contains(VIP), "before: {before}\nafter: {after}");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn figures_are_those_of_ipvsadm() {
    let (lb, client, server) = behind_nat("203.0.113.11");
    lb.desire("VI_1", &FILE.replace(", 203.0.113.12:80", ""));
    lb.lvs_ok("master VI_1");
    let _httpd = server.start("busybox httpd -f -p 80 -h /etc");
    let transfer = || client.run(&format!("curl -s -o /dev/null --max-time 5 http://{VIP}/services"));
    wait_for("an answer", PATIENCE, || transfer().status == 0);
    // The kernel estimates every two seconds.
    let begun = Instant::now();
    let mut rates = (0, 0, 0);
    let told = |rates: (u64, u64, u64)| rates.0 > 0 && rates.1 > 0 && rates.2 > rates.1;
    while begun.elapsed() < PATIENCE && !told(rates) {
        for _ in 0..20 {
            transfer();
        }
        let value: Value = serde_json::from_str(&lb.lvs("status VI_1 --json").stdout).unwrap();
        let server = &value["services"][0]["servers"][0];
        let rate = |name: &str| server["counters"]["rates"][name].as_u64().unwrap();
        rates = (rate("connections"), rate("bytes_in"), rate("bytes_out"));
    }
    println!("{} connections/s, {} bytes/s in, {} bytes/s out", rates.0, rates.1, rates.2);
    assert!(told(rates), "{rates:?}");
    let shown = lb.ok("ipvsadm -Ln");
    let line = shown.lines().find(|line| line.contains("203.0.113.11:80")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, text) = status(&lb, "");
    let row = text.lines().find(|line| line.trim_start().starts_with("203.0.113.11:80")).unwrap();
    let ours: Vec<&str> = row.split_whitespace().collect();
    // weight, active, inactive; connections end between two looks
    assert_eq!(ours[2], words[3], "{shown}\n{text}");
    assert!(ours[4].parse::<u32>().unwrap() > 0, "{shown}\n{text}");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn the_forms_for_programs() {
    let Pair { lb1, lb2: _lb2, client: _client, _switch } = pair();
    lb1.lvs_ok("master VI_1");
    let value: Value = serde_json::from_str(&lb1.lvs_ok("status VI_1 --json")).unwrap();
    for (name, expected) in [
        ("version", Value::from(2)),
        ("instance", "VI_1".into()),
        ("role", "MASTER".into()),
        ("in_sync", true.into()),
        ("healthy", true.into()),
    ] {
        assert_eq!(value[name], expected, "{name}");
    }
    // The same, taken elsewhere, is what a plan can be made against.
    lb1.write("/run/test/saved.json", &value.to_string());
    assert_eq!(lb1.lvs("plan VI_1 --current /run/test/saved.json").status, 0);
    let backup = lb1.lvs("plan backup VI_1 --current /run/test/saved.json");
    assert_eq!(backup.status, 3, "{}", backup.all());

    let metrics = lb1.lvs_ok("status VI_1 --prometheus");
    let mut names = BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').expect("labels");
        let (labels, number) = rest.split_once("} ").expect("a value");
        assert!(labels.starts_with("instance=\"VI_1\""), "{line}");
        assert!(number.parse::<f64>().is_ok(), "{line}");
        assert!(metrics.contains(&format!("# TYPE {name} gauge\n")), "{line}");
        names.insert(name.to_owned());
    }
    println!("{} metrics: {names:?}", names.len());
    for line in [
        "lvs_notify_role{instance=\"VI_1\",role=\"master\"} 1",
        "lvs_notify_healthy{instance=\"VI_1\"} 1",
        "lvs_notify_vip_answers{instance=\"VI_1\",vip=\"192.0.2.100\"} 1",
        "lvs_notify_real_servers{instance=\"VI_1\",vip=\"192.0.2.100\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    // Watching ends with its reader.
    let watched = lb1.sh(&format!("{LVS_NOTIFY} status VI_1 --watch=1 | head -n 30"));
    assert!(watched.matches("VI_1: MASTER since").count() >= 2, "{watched}");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn ten_thousand_real_servers_are_told_in_time() {
    let Pair { lb1, lb2: _lb2, client: _client, _switch } = pair();
    let mut yaml = "version: 1\ninterface: eth0\nvips: [192.0.2.100]\nvirtual_services:\n".to_owned();
    for service in 0..1000 {
        yaml += &format!("  - {{address: \"192.0.2.100:{}\", real_servers: [", 1000 + service);
        let servers: Vec<String> = (1..=10).map(|server| format!("203.0.113.{server}:80")).collect();
        yaml += &format!("{}]}}\n", servers.join(", "));
    }
    lb1.desire("VI_1", &yaml);
    lb1.lvs_ok("master VI_1");
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        lb1.sh(&format!("{LVS_NOTIFY} status VI_1 > /run/test/status"));
        times.push(begun.elapsed());
    }
    times.sort();
    let lines = lb1.read("/run/test/status").lines().count();
    println!("10,000 real servers, {lines} lines: {:?} in the median", times[2]);
    assert!(lines > 11_000);
}
