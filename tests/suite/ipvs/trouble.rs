//! Broken files, damaged records, links, missing rights and interfaces in trouble: what can still be
//! done is done, what is not ours is not touched, and the words say what is the matter.
//!
//! Owns single runs under bad circumstances, by the real program on a real kernel; leaves refused
//! kernel operations to `faults`, overlapping and killed runs to `races`. The judges are `ip`,
//! `ipvsadm`, `arping` and the file system.

use std::time::{Duration, Instant};

use crate::here::held_up::Stopped;
use crate::support::{Host, LVS_NOTIFY, wait_for};
use lvs_notify::config::Config;
use lvs_notify::config::source::Source;

const VIP: &str = "192.0.2.100";
const PATIENCE: Duration = Duration::from_secs(20);
const FOREIGN: &str = "-A -t 198.51.100.7:25 -s wlc\n-a -t 198.51.100.7:25 -r 203.0.113.250:25 -m -w 7\n";
const OURS: &str = "-A -t 192.0.2.100:80 -s rr\n-a -t 192.0.2.100:80 -r 203.0.113.11:80 -m -w 1\n-a -t 192.0.2.100:80 -r 203.0.113.12:80 -m -w 2\n";

/// A valid file; `extra` adds keys.
fn file(extra: &str) -> String {
    format!(
        "version: 1\ninterface: eth0\nvips: [{VIP}]\nannounce: {{count: 1, again: 0s}}\n{extra}\nvirtual_services:\n  - address: {VIP}:80\n    scheduler: rr\n    real_servers:\n      - 203.0.113.11:80\n      - {{address: 203.0.113.12:80, weight: 2}}\n"
    )
}

/// A director with a neighbour, somebody else's service and somebody else's address.
fn director(extra: &str) -> (Host, Host) {
    let (lb, neighbour) = (Host::new("lb"), Host::new("neighbour"));
    lb.link("eth0", &neighbour, "eth0");
    lb.address("192.0.2.1/24", "eth0");
    lb.address("198.51.100.7/32", "lo");
    neighbour.address("192.0.2.9/24", "eth0");
    lb.desire("VI_1", &file(extra));
    lb.sh(&format!("ipvsadm -R <<'END'\n{FOREIGN}END"));
    (lb, neighbour)
}

/// Everything that a run could change in the kernel.
const STATE: &str = "ip -o address show scope global | sed 's/ *valid_lft.*//'; ipvsadm -Sn; ipvsadm -Ln --timeout --daemon; \
    sysctl -a 2>/dev/null | grep -E 'arp_(ignore|announce)|net.ipv4.vs'";

fn state(lb: &Host) -> String {
    lb.sh(STATE)
}

fn assert_serves(lb: &Host, what: &str) {
    assert_eq!(lb.ok("ipvsadm -Sn"), format!("{OURS}{FOREIGN}"), "{what}");
    let addresses = lb.ok(&format!("ip -o address show to {VIP}"));
    assert_eq!(addresses.lines().count(), 2, "{what}: {addresses}");
}

fn assert_gone(lb: &Host, what: &str) {
    assert_eq!(lb.ok("ipvsadm -Sn"), FOREIGN, "{what}");
    assert_eq!(lb.ok(&format!("ip -o address show to {VIP}")), "", "{what}");
    assert_ne!(lb.ok("ip -o address show to 198.51.100.7"), "", "{what}: somebody else's address");
}

/// One damaged version of a file for each number.
fn damaged(whole: &str, number: usize) -> Vec<u8> {
    let mut seed = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let mut bytes = whole.as_bytes().to_vec();
    match number % 8 {
        // What a full disk or a killed editor leaves.
        0 => bytes.truncate(random(bytes.len() - 60)),
        1 => {
            let at = random(bytes.len());
            bytes[at] = b"\t{}[]:&*!\"'\x00\xff%@`"[random(16)];
        }
        2 => {
            let (from, length) = (random(bytes.len() - 40), 1 + random(39));
            bytes.drain(from..from + length);
        }
        3 => {
            // A line twice: a key, a service or a server given twice.
            let lines: Vec<&str> = whole.lines().collect();
            let at = random(lines.len());
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at]);
            bytes = doubled.join("\n").into_bytes();
        }
        4 => {
            let words = ["80", "192.0.2.100", "rr", "eth0", "version", "scheduler", "weight", "1", "count"];
            let wrong = ["-1", "99999999999", "~", "[a]", "{a: b}", "none", "schedulr", "\"\"", "1.5"];
            bytes = whole.replacen(words[random(9)], wrong[random(9)], 1).into_bytes();
        }
        5 => bytes = format!("{whole}\n{}", "[".repeat(1 + random(5000))).into_bytes(),
        6 => {
            let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for level in 1..3 + random(12) {
                let below = level - 1;
                bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 9].join(", "));
            }
            bytes = format!("{bomb}{whole}").into_bytes();
        }
        _ => {
            let at = random(bytes.len());
            let noise: Vec<u8> = (0..1 + random(200)).map(|_| u8::try_from(random(256)).unwrap()).collect();
            bytes.splice(at..at, noise);
        }
    }
    bytes
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_thousand_broken_files_touch_nothing() {
    const FILES: usize = 1000;
    let (lb, _neighbour) = director("");
    let whole = file("backup: {vips: remove}\nipvs: {timeouts: {tcp: 20m}}\n");
    lb.sh("mkdir /run/test/broken");
    // Damage can leave a file that is valid.
    let is_valid = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec());
        text.is_ok_and(|text| Config::parse(&Source { name: "damaged".to_owned(), text }).is_ok())
    };
    let mut refused = Vec::new();
    for number in 0..FILES {
        let bytes = damaged(&whole, number);
        if !is_valid(&bytes) {
            std::fs::write(lb.path(&format!("/run/test/broken/{number}.yaml")), bytes).unwrap();
            refused.push(number);
        }
    }
    let before = state(&lb);
    let begun = Instant::now();
    lb.sh(&format!(
        "cd /run/test/broken
         for file in *.yaml; do
            {LVS_NOTIFY} master VI_1 -c $PWD/$file > $file.told 2>&1
            echo $? >> $file.told
         done"
    ));
    let seconds = begun.elapsed().as_secs_f32();
    for number in &refused {
        let told = lb.read(&format!("/run/test/broken/{number}.yaml.told"));
        assert_eq!(told.lines().last(), Some("4"), "{number}: {told}");
        assert!(!told.contains("panicked"), "{number}: {told}");
        let place = told.split_once(&format!("{number}.yaml:")).expect("the file is named").1;
        let mut numbers = place.split(':').map(|word| word.parse::<usize>().is_ok());
        assert_eq!((numbers.next(), numbers.next()), (Some(true), Some(true)), "no line and column: {told}");
    }
    assert_eq!(state(&lb), before);
    assert_gone(&lb, "after a thousand broken files");
    assert_eq!(lb.sh("ls -A /var/lib/lvs-notify /etc/sysctl.d").split_whitespace().count(), 2);
    println!(
        "{FILES} damaged files: {} refused with their place in {seconds:.0} s, the rest is valid still; no change",
        refused.len()
    );
    assert!(refused.len() > FILES / 2, "the damage was too mild to show anything");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_damaged_record_is_no_obstacle() {
    let (lb, _neighbour) = director("");
    lb.lvs_ok("master VI_1");
    let good = lb.read("/run/lvs-notify/VI_1.json");
    let damages = [
        String::new(),
        "{".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"complete\":true", "\"complete\":9"),
        good.replace("MASTER", "EMPEROR"),
        "\u{0}\u{1}\u{2}".repeat(1000),
        "[".repeat(1_000_000),
        format!("{good}{}", " ".repeat(20 << 20)),
    ];
    for (number, damage) in damages.iter().enumerate() {
        for role in ["backup", "master"] {
            lb.write("/run/lvs-notify/VI_1.json", damage);
            let ran = lb.lvs(&format!("{role} VI_1"));
            assert_eq!(ran.status, 0, "damage {number}, {role}: {}", ran.all());
            match role {
                "master" => assert_serves(&lb, &format!("damage {number}")),
                _ => assert_gone(&lb, &format!("damage {number}")),
            }
            let status = lb.lvs("status VI_1");
            assert_eq!(status.status, 0, "damage {number}, {role}: {}", status.all());
        }
    }
    println!("{} damaged records, each no obstacle in both directions", damages.len());
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn links_lead_nowhere() {
    let (lb, _neighbour) = director("");
    let victim = "precious\n";
    for (link, status) in [
        ("/run/lvs-notify/VI_1.json", 0),
        ("/var/lib/lvs-notify/VI_1.yaml", 0),
        ("/var/lib/lvs-notify/VI_1.compiled", 0),
        ("/etc/sysctl.d/90-lvs-notify-VI_1.conf", 0),
        ("/run/lvs-notify/lock", 0),
        ("/run/lvs-notify/VI_1.notifications", 1),
    ] {
        for role in ["master", "backup"] {
            lb.sh("rm -rf /run/lvs-notify/* /var/lib/lvs-notify/* /etc/sysctl.d/*; mkdir -p /run/test/dir");
            lb.write("/run/test/victim", victim);
            let target = if link.ends_with("notifications") { "/run/test/dir" } else { "/run/test/victim" };
            lb.sh(&format!("ln -s {target} {link}"));
            let ran = lb.lvs(&format!("{role} VI_1"));
            assert_eq!(ran.status, status, "{link}, {role}: {}", ran.all());
            assert_eq!(lb.read("/run/test/victim"), victim, "{link}, {role}");
            assert_eq!(lb.sh("ls -A /run/test/dir"), "", "{link}, {role}");
            match role {
                "master" => assert_serves(&lb, link),
                _ => assert_gone(&lb, link),
            }
        }
    }
    // The directory itself, as somebody would plant it in a world-writable place.
    lb.sh("mount -t tmpfs tmpfs /run && mkdir -p /run/test/dir && ln -s /run/test/dir /run/lvs-notify");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("/run/lvs-notify is not a directory"), "{}", ran.all());
    assert_serves(&lb, "a planted directory");
    assert_eq!(lb.sh("ls -A /run/test/dir"), "");
    lb.sh("rm /run/lvs-notify");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn sigterm_lets_a_run_finish() {
    let (lb, _neighbour) = director("");
    let mut finished = 0;
    for when in 1..=12 {
        for role in ["master", "stop"] {
            let ran = lb.run(&format!(
                "strace -o /run/test/trace -e trace=sendmsg -e inject=sendmsg:signal=TERM:when={when} {LVS_NOTIFY} {role} VI_1"
            ));
            assert_eq!(ran.status, 0, "SIGTERM at request {when} of {role}: {}", ran.all());
            finished += usize::from(lb.read("/run/test/trace").matches("sendmsg(").count() >= when);
            match role {
                "master" => assert_serves(&lb, "after SIGTERM"),
                _ => assert_gone(&lb, "after SIGTERM"),
            }
        }
    }
    assert!(finished >= 10, "SIGTERM came too late in all but {finished} runs");
    println!("{finished} runs got SIGTERM in their middle and finished");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn an_interface_in_trouble_is_named() {
    let (lb, neighbour) = director("");
    // Gone: the services are ready, the VIP stands on lo.
    lb.ok("ip link set eth0 down");
    lb.ok("ip link set eth0 name uplink");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("eth0") && ran.all().contains("no such interface"), "{}", ran.all());
    assert_eq!(lb.ok("ipvsadm -Sn"), format!("{OURS}{FOREIGN}"));
    let status = lb.lvs("status VI_1");
    assert_eq!(status.status, 3, "{}", status.all());
    assert!(status.stdout.contains("there is no interface eth0"), "{}", status.all());
    // It is back, and down: all is in place for when it comes up.
    lb.ok("ip link set uplink name eth0");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("the interface is down"), "{}", ran.all());
    assert_serves(&lb, "down");
    assert!(lb.lvs("status VI_1").stdout.contains("eth0 is down"));
    lb.ok("ip link set eth0 up");
    lb.lvs_ok("master VI_1");
    wait_for("an answer", PATIENCE, || neighbour.run(&format!("arping -c 1 -w 2 -I eth0 {VIP}")).status == 0);
    // Leaving without the interface: nothing of it is left.
    lb.ok("ip link del eth0");
    lb.lvs_ok("backup VI_1");
    assert_gone(&lb, "without its interface");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn others_that_change_addresses_and_services_hold_nothing_up() {
    let (lb, _neighbour) = director("");
    // Long lists, which take the kernel several steps to tell, and which change all the time.
    let many: String =
        (0..1000).map(|n| format!("address add 198.18.{}.{}/32 dev lo\n", n / 250, n % 250 + 1)).collect();
    lb.write("/run/test/many", &many);
    lb.ok("ip -batch /run/test/many");
    lb.write(
        "/run/test/churn",
        "while :; do ip address add 198.18.99.1/32 dev lo; ip address del 198.18.99.1/32 dev lo
            ipvsadm -A -t 198.51.100.8:80; ipvsadm -D -t 198.51.100.8:80; done\n",
    );
    let churn = lb.start("bash /run/test/churn");
    for round in 0..8 {
        for role in ["master", "backup"] {
            let ran = lb.lvs(&format!("{role} VI_1"));
            assert_eq!(ran.status, 0, "round {round}, {role}: {}", ran.all());
        }
    }
    lb.lvs_ok("master VI_1");
    drop(churn);
    lb.sh("ipvsadm -D -t 198.51.100.8:80 2>/dev/null || true");
    assert_serves(&lb, "after the others' changes");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn without_ipv6_the_ipv4_vip_is_served() {
    let (lb, _neighbour) = director("");
    lb.desire("VI_1", &file("").replace(&format!("[{VIP}]"), &format!("[{VIP}, \"2001:db8::100\"]")));
    lb.ok("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("sysctl -w net/ipv6/conf/eth0/disable_ipv6=0"), "{}", ran.all());
    assert_serves(&lb, "without IPv6");
    lb.ok("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
    lb.lvs_ok("apply VI_1");
    assert!(lb.ok("ip -o address show dev eth0").contains("2001:db8::100/128"));
}

/// The program as a user without rights, with these capabilities.
fn as_nobody(lb: &Host, capabilities: &str, arguments: &str) -> crate::support::Ran {
    let sets = if capabilities.is_empty() {
        String::new()
    } else {
        format!("--inh-caps {capabilities} --ambient-caps {capabilities}")
    };
    lb.run(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups {sets} {LVS_NOTIFY} {arguments}"))
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn two_capabilities_are_enough() {
    let (lb, neighbour) = director("arp: {persist: false}");
    lb.sh("chown nobody /run/lvs-notify /var/lib/lvs-notify; chmod 644 /etc/lvs-notify/VI_1.yaml");
    let both = "+net_admin,+net_raw";
    let ran = as_nobody(&lb, both, "master VI_1");
    assert_eq!(ran.status, 0, "{}", ran.all());
    assert_serves(&lb, "as nobody");
    assert_eq!(lb.ok("sysctl -n net.ipv4.conf.eth0.arp_ignore").trim(), "1");
    assert_eq!(neighbour.run(&format!("arping -c 1 -w 3 -I eth0 {VIP}")).status, 0);
    assert!(as_nobody(&lb, both, "master VI_1").all().contains("no change"));
    assert_eq!(as_nobody(&lb, both, "status VI_1").status, 0);
    let ran = as_nobody(&lb, both, "backup VI_1");
    assert_eq!(ran.status, 0, "{}", ran.all());
    assert_gone(&lb, "as nobody");

    // Without the right to announce, the VIP is served and the gap is named.
    let ran = as_nobody(&lb, "+net_admin", "master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("CAP_NET_RAW"), "{}", ran.all());
    assert_serves(&lb, "without CAP_NET_RAW");
    lb.sh("rm -rf /run/lvs-notify/*");
    as_nobody(&lb, both, "backup VI_1");

    // Without any, nothing is touched.
    let before = state(&lb);
    for capabilities in ["", "+net_raw"] {
        let ran = as_nobody(&lb, capabilities, "master VI_1");
        assert_eq!(ran.status, 1, "{}", ran.all());
        assert!(ran.all().contains("CAP_NET_ADMIN"), "{}", ran.all());
        assert_eq!(state(&lb), before, "{capabilities}");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn root_keeps_only_what_it_needs() {
    let (lb, _neighbour) = director("");
    let master = Stopped::at("sendmsg", &lb, "master VI_1");
    let status = std::fs::read_to_string(format!("/proc/{}/status", master.pid)).unwrap();
    let set = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13 (linux/capability.h).
    for name in ["CapPrm", "CapEff"] {
        assert!(set(name).ends_with("\t0000000000003000"), "{status}");
    }
    assert!(set("CapInh").ends_with("\t0000000000000000"), "{status}");
    assert!(set("Umask").ends_with("0022"), "{status}");
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", master.pid)).unwrap().to_str(), Some("/"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn what_others_could_write_is_refused() {
    let (lb, _neighbour) = director("");
    let before = state(&lb);
    for (spoil, mend, reason) in [
        (
            "chown nobody /etc/lvs-notify/VI_1.yaml",
            "chown root /etc/lvs-notify/VI_1.yaml",
            "belongs to user 65534",
        ),
        ("chmod 777 /etc/lvs-notify", "chmod 755 /etc/lvs-notify", "its directory is writable by others"),
        (
            "chmod 660 /etc/lvs-notify/VI_1.yaml; chgrp 65534 /etc/lvs-notify/VI_1.yaml",
            "chmod 600 /etc/lvs-notify/VI_1.yaml",
            "is writable by others",
        ),
    ] {
        lb.sh(spoil);
        let ran = lb.lvs("master VI_1");
        assert_eq!(ran.status, 4, "{spoil}: {}", ran.all());
        assert!(ran.all().contains(reason), "{spoil}: {}", ran.all());
        assert_eq!(state(&lb), before, "{spoil}");
        lb.sh(mend);
    }
    // The record and its directory: a takeover does without them, and says so.
    lb.sh("chmod 777 /run/lvs-notify");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("/run/lvs-notify is writable by others"), "{}", ran.all());
    assert_serves(&lb, "without a record");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn stop_is_done_within_keepalived_s_second() {
    let (lb, _neighbour) = director("");
    let mut yaml = file("");
    for service in 0..20 {
        yaml += &format!("  - address: {VIP}:{}\n    real_servers:\n", 1000 + service);
        for server in 1..=10 {
            yaml += &format!("      - 203.0.113.{server}:80\n");
        }
    }
    lb.desire("VI_1", &yaml);
    lb.lvs_ok("master VI_1");
    let begun = Instant::now();
    let told = lb.lvs_ok("stop VI_1");
    println!(
        "stop with 21 services and 202 real servers took {:?}: {}",
        begun.elapsed(),
        told.lines().last().unwrap()
    );
    assert_gone(&lb, "after stop");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn two_instances_share_what_is_common() {
    let (lb, _neighbour) = director("arp: {restore: true, persist: false}");
    let other = file("arp: {restore: true, persist: false}").replace(VIP, "192.0.2.200");
    lb.desire("VI_2", &other);
    let values = || lb.ok("sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.eth0.arp_announce");
    lb.ok("sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_announce=1");
    // Whoever comes first and leaves first: the values stay while one needs them, and then come back.
    for (first, second) in [("VI_1", "VI_2"), ("VI_2", "VI_1")] {
        for leaves_first in [first, second] {
            let stays = if leaves_first == first { second } else { first };
            lb.lvs_ok(&format!("master {first}"));
            lb.lvs_ok(&format!("master {second}"));
            lb.lvs_ok(&format!("backup {leaves_first}"));
            assert_eq!(values(), "1\n2\n", "{first} came, {second} came, {leaves_first} left");
            assert_eq!(lb.lvs(&format!("status {stays}")).status, 0);
            assert_eq!(lb.lvs(&format!("status {leaves_first}")).status, 0);
            lb.lvs_ok(&format!("backup {stays}"));
            assert_eq!(values(), "0\n1\n", "{first} came, {second} came, both left");
        }
    }
    // Each one's services and addresses are nobody else's business.
    lb.lvs_ok("master VI_1");
    lb.lvs_ok("master VI_2");
    lb.lvs_ok("stop VI_2");
    assert_serves(&lb, "VI_2 left");
    assert_eq!(lb.ok("ip -o address show to 192.0.2.200"), "");
}
