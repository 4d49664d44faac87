//! VIPs, ARP parameters and announcements on a real kernel, judged by a neighbour on the wire.
//!
//! Owns: what a role puts on lo and on the client-side interface and what it leaves alone, the ARP
//! parameters and their file in /etc/sysctl.d, ARP and ND as another host sees them, idempotence as
//! strace and `ip monitor` see it, and what happens without a usable file. Needs root on any Linux,
//! but no IPVS: every file here declares no service. Leaves services to `services`.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use crate::support::{Background, Host, LVS_NOTIFY, netlink_messages, wait_for};

pub(super) const VIP: &str = "192.0.2.100";
const VIP6: &str = "2001:db8::100";
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A director and a neighbour on one wire; the director's end has the given name.
pub(super) fn wire(interface: &str) -> (Host, Host) {
    let (director, neighbour) = (Host::new("director"), Host::new("neighbour"));
    director.link(interface, &neighbour, "eth0");
    for (host, interface, number) in [(&director, interface, 1), (&neighbour, "eth0", 2)] {
        host.address(&format!("192.0.2.{number}/24"), interface);
        host.address(&format!("2001:db8::{number}/64"), interface);
    }
    (director, neighbour)
}

/// A file without services; `extra` adds keys.
pub(super) fn file(interface: &str, extra: &str) -> String {
    let announce = if extra.contains("announce:") { "" } else { "announce: {count: 1}\n" };
    format!(
        "version: 1\ninterface: {interface}\nvips: [{VIP}, \"{VIP6}\"]\nallow_empty: true\nvirtual_services: []\n{announce}{extra}\n"
    )
}

fn wired(extra: &str) -> (Host, Host) {
    let (director, neighbour) = wire("eth0");
    director.desire("VI_1", &file("eth0", extra));
    (director, neighbour)
}

/// Global addresses as `ip` shows them, without their interface's number: "lo inet ... ".
fn addresses(host: &Host) -> Vec<String> {
    let text = host.ok("ip -o address show scope global");
    text.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")).collect()
}

/// Where an address stands, as "INTERFACE PREFIX", in order.
pub(super) fn places(host: &Host, address: &str) -> Vec<String> {
    let mut list: Vec<String> = addresses(host)
        .iter()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (found, prefix) = words[2].split_once('/')?;
            (found == address).then(|| format!("{} {prefix}", words[0]))
        })
        .collect();
    list.sort();
    list
}

fn parameter(host: &Host, interface: &str, name: &str) -> String {
    host.ok(&format!("cat /proc/sys/net/ipv4/conf/{interface}/{name}")).trim().to_owned()
}

pub(super) fn parameters(host: &Host, interfaces: &[&str]) -> Vec<String> {
    let both = |interface: &&str| {
        format!(
            "{interface} {} {}",
            parameter(host, interface, "arp_ignore"),
            parameter(host, interface, "arp_announce")
        )
    };
    interfaces.iter().map(both).collect()
}

pub(super) fn set(host: &Host, interface: &str, name: &str, value: u32) {
    host.sh(&format!("echo {value} > /proc/sys/net/ipv4/conf/{interface}/{name}"));
}

pub(super) fn mac(host: &Host, interface: &str) -> String {
    let text = host.ok(&format!("ip -o link show dev {interface}"));
    text.split("link/ether ").nth(1).expect("a MAC").split(' ').next().unwrap().to_owned()
}

/// MACs that answer for the IPv4 VIP; none within three seconds is an empty list.
pub(super) fn arp_answers(neighbour: &Host) -> Vec<String> {
    let ran = neighbour.run(&format!("arping -c 2 -w 3 -I eth0 {VIP}"));
    assert!(ran.stdout.contains("Sent 2 probes") || ran.stdout.contains("Sent 3 probes"), "{}", ran.all());
    let replies = ran.stdout.lines().filter(|line| line.starts_with("Unicast reply from"));
    replies.map(|line| line.split(['[', ']']).nth(1).unwrap().to_lowercase()).collect()
}

/// The MAC that answers for the IPv6 VIP.
fn nd_answer(neighbour: &Host) -> Option<String> {
    let ran = neighbour.run(&format!("ndisc6 -q -r 2 -w 1000 {VIP6} eth0"));
    (ran.status == 0).then(|| ran.stdout.trim().to_lowercase())
}

/// Starts a command whose output goes to a file, and waits until it is ready. By bash, because
/// busybox's sh prefers its own `ip`.
pub(super) fn recorder(host: &Host, command: &str, file: &str, ready: impl FnMut() -> bool) -> Background {
    host.write("/run/test/start", &format!("exec {command} > {file} 2>&1\n"));
    let background = host.start("bash /run/test/start");
    wait_for(command, PATIENCE, ready);
    background
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_full_run_directory_holds_nothing_up() {
    let (director, neighbour) = wired("arp: {persist: false}");
    director.sh("mount -t tmpfs -o size=4k,mode=755 none /run/lvs-notify; head -c 100000 /dev/zero > /run/lvs-notify/full || true");
    let ran = director.lvs("master VI_1");
    assert_eq!(ran.status, 1, "a record that cannot be written is reported: {}", ran.all());
    assert!(ran.all().contains("No space left"), "{}", ran.all());
    assert_eq!(arp_answers(&neighbour), vec![mac(&director, "eth0"); 2]);
    assert_eq!(director.lvs("backup VI_1").status, 1);
    assert_eq!(places(&director, VIP), [""; 0]);
    director.sh("umount /run/lvs-notify");
    director.lvs_ok("master VI_1");
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn parameters_that_cannot_be_written_are_told_and_hold_nothing_up() {
    let (director, neighbour) = wired("arp: {persist: false}");
    director.sh("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys");
    let ran = director.lvs("master VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(
        ran.all().contains("net.ipv4.conf.all.arp_ignore") && ran.all().contains("EROFS"),
        "{}",
        ran.all()
    );
    assert_eq!(arp_answers(&neighbour), vec![mac(&director, "eth0"); 2]);
    director.sh("umount /proc/sys");
    director.lvs_ok("apply VI_1");
    assert_eq!(parameters(&director, &["all", "lo", "eth0"]), ["all 1 2", "lo 1 2", "eth0 1 2"]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_dry_run_changes_nothing_and_records_nothing() {
    let (director, _neighbour) = wired("");
    let before = (addresses(&director), parameters(&director, &["all", "lo", "eth0"]));
    let ran = director.lvs("master VI_1 --dry-run");
    assert_eq!(ran.status, 3, "{}", ran.all());
    assert!(ran.stdout.contains(&format!("ip address add {VIP}/32 dev lo label lo:0")), "{}", ran.all());
    assert_eq!((addresses(&director), parameters(&director, &["all", "lo", "eth0"])), before);
    for directory in ["/run/lvs-notify", "/var/lib/lvs-notify", "/etc/sysctl.d"] {
        assert_eq!(director.ok(&format!("ls -A {directory}")), "", "{directory}");
    }
    assert_eq!(director.lvs("apply VI_1").status, 1, "a dry run must not record a role");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn vips_stand_on_lo_and_on_the_interface_while_master() {
    let (director, _neighbour) = wired("");
    director.lvs_ok("master");
    // At once, so that duplicate address detection would be seen at work.
    let found = addresses(&director);
    let with =
        |words: &[&str]| found.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(with(&[&format!("lo inet {VIP}/32 scope global lo:0\\ ")]), 1, "{found:#?}");
    assert_eq!(with(&[&format!("eth0 inet {VIP}/32 scope global eth0\\ ")]), 1, "{found:#?}");
    for interface in ["lo", "eth0"] {
        let line = format!("{interface} inet6 {VIP6}/128 scope global ");
        let words = [&line, " deprecated ", " valid_lft forever preferred_lft 0sec"];
        assert_eq!(with(&words), 1, "{found:#?}");
    }
    assert_eq!(with(&["tentative"]), 0, "{found:#?}");
    for (role, again) in [("backup", "master"), ("fault", "master"), ("stop", "backup")] {
        director.lvs_ok(role);
        assert_eq!((places(&director, VIP), places(&director, VIP6)), (vec![], vec![]), "after {role}");
        director.lvs_ok(again);
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_wrong_prefix_on_lo_is_repaired() {
    let (director, _neighbour) = wired("");
    director.address(&format!("{VIP}/24"), "lo");
    director.address(&format!("{VIP6}/64"), "lo");
    director.lvs_ok("master");
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
    assert_eq!(places(&director, VIP6), ["eth0 128", "lo 128"]);
    director.address(&format!("{VIP}/25"), "lo");
    assert_eq!(director.lvs("plan").status, 3);
    director.lvs_ok("apply");
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
    director.address(&format!("{VIP}/25"), "lo");
    director.lvs_ok("backup");
    assert_eq!(places(&director, VIP), [""; 0]);
}

/// keepalived gives MASTER up when an address of its own is deleted, and puts the address back when it is MASTER again.
#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn a_wrong_prefix_that_keepalived_puts_back_is_left_to_it() {
    let (director, _neighbour) = wired("");
    director.write(
        "/run/test/keepalived.conf",
        &format!(
            "global_defs {{\n script_user root\n enable_script_security\n}}\nvrrp_instance VI_1 {{\n state BACKUP\n \
             interface eth0\n virtual_router_id 51\n priority 150\n advert_int 1\n virtual_ipaddress {{\n {VIP}/24 dev lo\n }}\n \
             notify_master \"/run/test/lvs-notify master VI_1\"\n notify_backup \"/run/test/lvs-notify backup VI_1\"\n}}\n"
        ),
    );
    std::fs::copy(LVS_NOTIFY, director.path("/run/test/lvs-notify")).unwrap();
    director.sh("chmod 755 /run/test/lvs-notify; chmod 644 /run/test/keepalived.conf /etc/lvs-notify/*");
    director.sh("keepalived --dont-fork --vrrp --log-console -f /run/test/keepalived.conf -p /run/test/k.pid -r /run/test/v.pid >/run/test/log 2>&1 & echo $! >/run/test/pid");
    let begun = || director.read("/run/test/log").matches("Entering MASTER STATE").count();
    wait_for("MASTER", PATIENCE, || begun() > 0 && places(&director, VIP).contains(&"lo 32".to_owned()));
    std::thread::sleep(Duration::from_secs(12));
    let log = director.read("/run/test/log");
    assert!(begun() <= 2, "MASTER is entered {} times: {log}", begun());
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 24", "lo 32"], "{log}");
    director.sh("kill $(cat /run/test/pid)");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn other_peoples_addresses_survive_every_command() {
    let (director, _neighbour) = wired("");
    for (address, interface) in [
        ("198.51.100.7/32", "lo"),
        ("192.0.2.101/24", "lo"),
        ("192.0.2.102/32", "eth0"),
        ("2001:db8::101/128", "lo"),
        ("2001:db8::102/128", "eth0"),
    ] {
        director.address(address, interface);
    }
    let before = addresses(&director);
    let mut commands = 0;
    for command in [
        "backup",
        "master",
        "apply",
        "master",
        "fault",
        "master",
        "stop",
        "notify INSTANCE VI_1 MASTER 100",
        "plan backup",
        "status",
        "backup",
        "apply",
    ] {
        director.lvs(command);
        let rest: Vec<String> = addresses(&director)
            .into_iter()
            .filter(|line| !line.contains(&format!(" {VIP}/")) && !line.contains(&format!(" {VIP6}/")))
            .collect();
        assert_eq!(rest, before, "after {command}");
        commands += 1;
    }
    println!("{commands} commands, {} foreign addresses", before.len());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_vip_that_keepalived_put_on_the_interface_stays_its_own() {
    let (director, _neighbour) = wired("");
    director.address(&format!("{VIP}/24"), "eth0");
    director.address(&format!("{VIP6}/64"), "eth0");
    director.lvs_ok("master");
    assert_eq!(places(&director, VIP), ["eth0 24", "lo 32"]);
    assert_eq!(places(&director, VIP6), ["eth0 64", "lo 128"]);
    director.lvs_ok("backup");
    assert_eq!(places(&director, VIP), ["eth0 24"]);
    assert_eq!(places(&director, VIP6), ["eth0 64"]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn arp_parameters_are_set_in_every_role_and_kept() {
    for interface in ["eth0", "eth0.100"] {
        let (director, _neighbour) = wire(interface);
        director.desire("VI_1", &file(interface, ""));
        let all = ["all", "lo", interface];
        let wanted: Vec<String> = all.iter().map(|name| format!("{name} 1 2")).collect();
        for role in ["backup", "master", "fault", "stop"] {
            for name in all {
                set(&director, name, "arp_ignore", 0);
                set(&director, name, "arp_announce", 1);
            }
            director.lvs_ok(role);
            assert_eq!(parameters(&director, &all), wanted, "{role}");
        }
        assert_eq!(parameters(&director, &["default"]), ["default 0 0"], "not ours");

        // sysctl(8) judges the file.
        for name in all {
            set(&director, name, "arp_ignore", 0);
            set(&director, name, "arp_announce", 0);
        }
        let path = "/etc/sysctl.d/90-lvs-notify-VI_1.conf";
        director.ok(&format!("sysctl -p {path}"));
        assert_eq!(parameters(&director, &all), wanted);
        assert_eq!(director.read(path).lines().filter(|line| !line.starts_with('#')).count(), 6);

        // Equal: not rewritten. Different: replaced.
        let identity = || {
            let metadata = std::fs::metadata(director.path(path)).unwrap();
            (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
        };
        let before = identity();
        director.lvs_ok("master");
        director.lvs_ok("backup");
        assert_eq!(identity(), before);
        let content = director.read(path);
        director.write(path, "net.ipv4.conf.all.arp_ignore = 0\n");
        assert_eq!(director.lvs("status").status, 3);
        director.lvs_ok("apply");
        assert_eq!(director.read(path), content);
        assert_ne!(identity(), before);
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn arp_off_and_persist_false_leave_things_alone() {
    let (director, _neighbour) = wired("arp: off");
    set(&director, "all", "arp_ignore", 2);
    set(&director, "lo", "arp_announce", 1);
    let before = parameters(&director, &["all", "lo", "eth0"]);
    for role in ["master", "backup", "stop"] {
        director.lvs_ok(role);
        assert_eq!(parameters(&director, &["all", "lo", "eth0"]), before, "{role}");
    }
    assert_eq!(director.sh("ls -A /etc/sysctl.d"), "");
    director.desire("VI_1", &file("eth0", "arp: {arp_ignore: 2, arp_announce: 1, persist: false}"));
    director.lvs_ok("master");
    assert_eq!(parameters(&director, &["all", "lo", "eth0"]), ["all 2 1", "lo 2 1", "eth0 2 1"]);
    assert_eq!(director.sh("ls -A /etc/sysctl.d"), "");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn restore_puts_odd_old_values_back() {
    let (director, _neighbour) = wired("arp: {restore: true}");
    let odd = [("all", 0, 1), ("lo", 8, 0), ("eth0", 2, 1)];
    for (name, ignore, announce) in odd {
        set(&director, name, "arp_ignore", ignore);
        set(&director, name, "arp_announce", announce);
    }
    for leave in ["backup", "fault", "stop"] {
        director.lvs_ok("master");
        assert_eq!(parameters(&director, &["all", "lo", "eth0"]), ["all 1 2", "lo 1 2", "eth0 1 2"]);
        director.lvs_ok("master");
        director.lvs_ok(leave);
        assert_eq!(
            parameters(&director, &["all", "lo", "eth0"]),
            ["all 0 1", "lo 8 0", "eth0 2 1"],
            "{leave}"
        );
        assert_eq!(director.sh("ls -A /etc/sysctl.d"), "", "a reboot would set what was restored");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_last_of_two_instances_restores() {
    let (director, _neighbour) = wired("arp: {restore: true, persist: false}");
    let other = file("eth0", "arp: {restore: true, persist: false}");
    director.desire("VI_2", &other.replace(VIP, "192.0.2.200").replace(VIP6, "2001:db8::200"));
    set(&director, "eth0", "arp_announce", 1);
    let before = parameters(&director, &["all", "lo", "eth0"]);
    // Whoever comes first and leaves first: the values stay while one needs them, and then come back.
    for (first, second) in [("VI_1", "VI_2"), ("VI_2", "VI_1")] {
        for (leaves, stays) in [(first, second), (second, first)] {
            director.lvs_ok(&format!("master {first}"));
            director.lvs_ok(&format!("master {second}"));
            director.lvs_ok(&format!("backup {leaves}"));
            let wanted = ["all 1 2", "lo 1 2", "eth0 1 2"];
            let what = format!("{first} came, {second} came, {leaves} left");
            assert_eq!(parameters(&director, &["all", "lo", "eth0"]), wanted, "{what}");
            director.lvs_ok(&format!("backup {stays}"));
            assert_eq!(parameters(&director, &["all", "lo", "eth0"]), before, "{what}, {stays} left");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_mark_of_the_newest_notification_stays() {
    let (director, _neighbour) = wired("");
    director.lvs_ok("backup");
    director.lvs_ok("master");
    let marks = || director.ok("ls /run/lvs-notify/VI_1.notifications");
    let mark = marks();
    assert!(mark.trim_end().ends_with("-master") && mark.lines().count() == 1, "{mark}");
    // One that repairs, one that has nothing to do, and one that completes a run of which only the mark is left.
    for damage in ["ip address del 192.0.2.100/32 dev lo", "true", "rm /run/lvs-notify/VI_1.json"] {
        director.ok(damage);
        director.lvs_ok("apply");
        assert_eq!(marks(), mark, "{damage}");
    }
    // One of another boot, or of a time to come, is nobody's.
    let words: Vec<&str> = mark.split('-').collect();
    let (boot, start, pid) = (words[0], words[1], words[2].parse::<u32>().unwrap());
    for other in [format!("00000000-{start}-{}-stop", pid + 1), format!("{boot}-99999999999-1-stop")] {
        director.ok(&format!("touch /run/lvs-notify/VI_1.notifications/{other}"));
        director.ok("rm /run/lvs-notify/VI_1.json");
        director.lvs_ok("apply");
        assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"], "{other}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn persistence_that_fails_is_told_and_holds_nothing_up() {
    let (director, _neighbour) = wired("");
    director.ok("mount -o remount,ro /etc/sysctl.d");
    let ran = director.lvs("master");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("/etc/sysctl.d/90-lvs-notify-VI_1.conf"), "{}", ran.all());
    assert!(ran.all().contains("Read-only file system"), "{}", ran.all());
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
    assert_eq!(parameters(&director, &["all"]), ["all 1 2"]);
    director.ok("mount -o remount,rw /etc/sysctl.d");
    director.lvs_ok("apply");
    assert!(director.read("/etc/sysctl.d/90-lvs-notify-VI_1.conf").contains("arp_ignore = 1"));
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_vip_that_another_host_had_when_it_came_is_put_up_anew() {
    let (director, neighbour) = wired("");
    for command in ["master", "apply"] {
        director.lvs_ok("backup");
        neighbour.ok(&format!("ip address add {VIP6}/64 dev eth0 nodad"));
        if command == "apply" {
            // keepalived's own, with a subnet's prefix.
            director.lvs_ok("master");
            director.ok(&format!("ip address del {VIP6}/128 dev eth0"));
        }
        director.ok(&format!("ip address add {VIP6}/64 dev eth0"));
        let failed = || director.ok("ip -6 address show dev eth0").contains("dadfailed");
        wait_for("the other one is found", PATIENCE, failed);
        neighbour.ok(&format!("ip address del {VIP6}/64 dev eth0"));
        assert_eq!(nd_answer(&neighbour), None, "{command}");
        if command == "apply" {
            let status = director.lvs("status");
            assert_eq!(status.status, 3, "{}", status.all());
            assert!(status.stdout.contains("`lvs-notify apply VI_1` repairs it"), "{}", status.all());
        }
        director.lvs_ok(command);
        assert_eq!(nd_answer(&neighbour), Some(mac(&director, "eth0")), "{command}");
        assert!(!failed());
        assert_eq!(director.lvs("status").status, 0, "{command}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_master_answers_arp_and_nd_and_nobody_else_does() {
    for extra in ["", "backup: {vips: keep}"] {
        let (director, neighbour) = wired(extra);
        let own = mac(&director, "eth0");
        for round in 0..2 {
            director.lvs_ok("backup");
            let kept: &[&str] = if extra.is_empty() { &[] } else { &["lo 32"] };
            assert_eq!(places(&director, VIP), kept, "{extra} {round}");
            assert_eq!(arp_answers(&neighbour), [""; 0], "{extra} {round}");
            assert_eq!(nd_answer(&neighbour), None, "{extra} {round}");
            director.lvs_ok("master");
            let answers = arp_answers(&neighbour);
            assert!(answers.len() >= 2 && answers.iter().all(|answer| *answer == own), "{answers:?} {own}");
            assert_eq!(nd_answer(&neighbour), Some(own.clone()));
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_takeover_is_announced_at_once_and_as_often_as_declared() {
    const TIMES: [f64; 4] = [0.0, 1.5, 3.0, 6.0];
    let (director, neighbour) = wired("announce: {count: 3, interval: 1500ms, again: 6s}");
    director.lvs_ok("backup");
    let dump = || neighbour.read("/run/test/dump");
    let _tcpdump = recorder(
        &neighbour,
        "tcpdump -Z root -l -n -e -tt -v -i eth0 arp or icmp6",
        "/run/test/dump",
        || dump().contains("listening on"),
    );
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let told = director.lvs_ok("master");
    assert!(told.contains("VIP announced after"), "{told}");
    let took = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() - begun;
    assert!(took < TIMES[1], "the run itself takes {took} s");
    std::thread::sleep(Duration::from_millis(6500));
    let text = dump();
    let source = format!(" {} > ", mac(&director, "eth0"));
    // tcpdump continues a packet on indented lines.
    let packets: Vec<String> =
        text.replace("\n\t", " ").replace("\n    ", " ").lines().map(str::to_owned).collect();
    let sent = |what: String| -> Vec<f64> {
        let mine = packets.iter().filter(|line| line.contains(&source) && line.contains(&what));
        mine.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let arp = sent(format!("Request who-has {VIP} (Broadcast) tell {VIP}"));
    let arp = if arp.is_empty() { sent(format!("Request who-has {VIP} tell {VIP}")) } else { arp };
    let advertisements = sent(format!("tgt is {VIP6}"));
    assert_eq!((arp.len(), advertisements.len()), (TIMES.len(), TIMES.len()), "{text}");
    for line in packets.iter().filter(|line| line.contains(&format!("tgt is {VIP6}"))) {
        assert!(line.contains("neighbor advertisement") && line.contains("override"), "{line}");
        assert!(
            line.contains("hlim 255") && line.contains("> ff02::1:") && !line.contains("solicited"),
            "{line}"
        );
        assert!(line.contains("33:33:00:00:00:01") && !line.contains("bad icmp6 cksum"), "{line}");
    }
    for times in [&arp, &advertisements] {
        assert!(times[0] - begun < TIMES[1], "the first one came after {} s", times[0] - begun);
        for (time, wanted) in times.iter().zip(TIMES) {
            assert!((time - times[0] - wanted).abs() < 1.0, "{time} instead of {wanted}");
        }
    }
    println!("first announcement after {:.0} ms", (arp[0] - begun) * 1000.0);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_neighbours_stale_entry_is_refreshed() {
    let (director, neighbour) = wired("");
    director.lvs_ok("backup");
    for vip in [VIP, VIP6] {
        neighbour.ok(&format!("ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"));
    }
    // Linux holds a fresh entry against change for a second (locktime), gratuitous ARP excepted.
    director.lvs_ok("master");
    let own = mac(&director, "eth0");
    for vip in [VIP, VIP6] {
        wait_for(&format!("{own} as the neighbour's entry for {vip}"), PATIENCE, || {
            neighbour.ok(&format!("ip neigh show {vip} dev eth0")).contains(&format!("lladdr {own} "))
        });
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_second_master_changes_nothing() {
    let (director, _neighbour) = wired("");
    let traced = || {
        director.ok(&format!(
            "strace -f -o /run/test/trace -e write=all -e trace=sendmsg,openat,open,rename,renameat,renameat2 {} master",
            crate::support::LVS_NOTIFY
        ));
        director.read("/run/test/trace")
    };
    // linux/rtnetlink.h; RTM_NEWLINK is not among them, since generic netlink's controller has its number.
    let requests = |trace: &str, kinds: &[u16]| {
        netlink_messages(trace).iter().filter(|(kind, _)| kinds.contains(kind)).count()
    };
    const NEWADDR: u16 = 20;
    const CHANGES: [u16; 5] = [17, 19, NEWADDR, 21, 24];
    const GETADDR: u16 = 22;
    let files = |trace: &str, directory: &str| {
        let writing =
            |line: &&str| line.contains("O_WRONLY") || line.contains("O_RDWR") || line.contains("rename");
        trace.lines().filter(writing).filter(|line| line.contains(directory)).count()
    };
    // The first run shows that strace would see it.
    let first = traced();
    assert_eq!(requests(&first, &[NEWADDR]), 4, "{first}");
    assert_eq!(files(&first, "/proc/sys/"), 6, "{first}");
    assert!(files(&first, "/etc/sysctl.d/") > 0, "{first}");
    let second = traced();
    assert!(requests(&second, &[GETADDR]) > 0, "{second}");
    assert_eq!(requests(&second, &CHANGES), 0, "{second}");
    assert_eq!(files(&second, "/proc/sys/") + files(&second, "/etc/sysctl.d/"), 0, "{second}");

    // A new link tells when its carrier has been noticed and its own link-local address has been checked
    // for duplicates, up to two seconds after it came up.
    wait_for("the link to come to rest", PATIENCE, || {
        director.ok("ip -br link show dev eth0").contains(" UP ")
            && !director.ok("ip -6 address show dev eth0").contains("tentative")
    });
    let seen = || director.read("/run/test/monitor");
    let mark = |address: &str| {
        director.run(&format!("ip address replace {address}/32 dev lo"));
    };
    let _monitor = recorder(&director, "ip monitor all label", "/run/test/monitor", || {
        mark("198.51.100.1");
        director.run("ip address del 198.51.100.1/32 dev lo");
        seen().contains("198.51.100.1")
    });
    mark("198.51.100.2");
    wait_for("the first mark", PATIENCE, || seen().contains("198.51.100.2"));
    let told = director.lvs_ok("master");
    assert!(told.contains("no change"), "{told}");
    mark("198.51.100.3");
    wait_for("the second mark", PATIENCE, || seen().contains("198.51.100.3"));
    let text = seen();
    let between = text.rsplit_once("198.51.100.2").unwrap().1.split("198.51.100.3").next().unwrap();
    let events: Vec<&str> = between
        .lines()
        // Neighbour entries age by themselves; the last line is the beginning of the second mark.
        .filter(|line| line.starts_with('[') && !line.starts_with("[NEIGH]"))
        .filter(|line| line.trim_end() != "[ADDR]1: lo    inet")
        .collect();
    assert_eq!(events, [""; 0], "{text}");
    assert!(!between.contains(VIP) && !between.contains(VIP6), "{text}");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_generic_notify_script_s_words_work() {
    let (director, _neighbour) = wired("");
    director.lvs_ok("notify INSTANCE VI_1 MASTER 100");
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
    director.lvs_ok("notify INSTANCE VI_1 BACKUP 100");
    assert_eq!(places(&director, VIP), [""; 0]);
    director.lvs_ok("notify INSTANCE VI_1 MASTER_RX_LOWER_PRI 100");
    assert_eq!(places(&director, VIP), [""; 0]);
    let ran = director.lvs("notify INSTANCE VI_2 MASTER 100");
    assert_eq!(ran.status, 2, "{}", ran.all());
    assert!(ran.all().contains("VI_1"), "{}", ran.all());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn stop_needs_no_file() {
    let (director, _neighbour) = wired("arp: {restore: true}");
    set(&director, "all", "arp_announce", 1);
    director.address("198.51.100.7/32", "lo");
    director.lvs_ok("master");
    director.sh("rm /etc/lvs-notify/VI_1.yaml /var/lib/lvs-notify/*");
    let ran = director.lvs("stop VI_1");
    assert_eq!(ran.status, 4, "{}", ran.all());
    assert_eq!((places(&director, VIP), places(&director, VIP6)), (vec![], vec![]), "{}", ran.all());
    assert_eq!(places(&director, "198.51.100.7"), ["lo 32"]);
    assert_eq!(parameters(&director, &["all", "lo", "eth0"]), ["all 0 1", "lo 0 0", "eth0 0 0"]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_broken_file_does_not_stop_a_takeover() {
    let (director, neighbour) = wired("");
    director.lvs_ok("backup");
    director.desire("VI_1", "version: 1\nvips: [192.0.2.100\n");
    let ran = director.lvs("master");
    assert_eq!(ran.status, 4, "{}", ran.all());
    assert!(ran.all().contains("last good copy") && ran.all().contains("VI_1.yaml:"), "{}", ran.all());
    assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"]);
    assert!(!arp_answers(&neighbour).is_empty());
    assert_eq!(director.lvs("status").status, 4);
    director.desire("VI_1", &file("eth0", ""));
    director.lvs_ok("apply");
    director.lvs_ok("status");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn the_compiled_copy_is_believed_for_the_present_file_only() {
    const COPY: &str = "/var/lib/lvs-notify/VI_1.compiled";
    let (director, _neighbour) = wired("");
    let other = file("eth0", "").replace(VIP, "192.0.2.101");
    let copy = || director.sh(&format!("stat -c '%a %U' {COPY}; md5sum < {COPY}"));
    director.lvs_ok("backup");
    let first = copy();
    assert!(first.starts_with("600 root\n"), "{first}");
    director.lvs_ok("master");
    assert_eq!(
        (copy(), places(&director, VIP)),
        (first.clone(), vec!["eth0 32".to_owned(), "lo 32".to_owned()])
    );

    director.desire("VI_1", &other);
    director.lvs_ok("apply");
    assert_eq!(places(&director, VIP), Vec::<String>::new());
    assert_eq!(places(&director, "192.0.2.101"), ["eth0 32", "lo 32"]);
    let second = copy();
    assert_ne!(second, first);

    // Damaged, cut, empty, somebody else's, or another file's: the file itself is read, and the copy made anew.
    for harm in [
        format!("printf X | dd of={COPY} bs=1 seek=20 conv=notrunc 2>/dev/null"),
        format!("truncate -s 30 {COPY}"),
        format!("truncate -s 0 {COPY}"),
        format!("chown nobody {COPY}"),
        format!("ln {COPY} {COPY}.link"),
    ] {
        director.desire("VI_1", &file("eth0", ""));
        director.lvs_ok("apply");
        assert_eq!(copy(), first, "{harm}");
        director.sh(&harm);
        director.lvs_ok("apply");
        director.lvs_ok("status");
        assert_eq!(places(&director, VIP), ["eth0 32", "lo 32"], "{harm}");
        assert_eq!(copy(), first, "{harm}");
        director.desire("VI_1", &other);
        director.lvs_ok("apply");
        assert_eq!(places(&director, VIP), Vec::<String>::new(), "{harm}");
        assert_eq!(copy(), second, "{harm}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn without_a_usable_file_or_a_copy_nothing_is_touched() {
    let (director, _neighbour) = wired("");
    director.address(&format!("{VIP}/24"), "eth0");
    let before = (addresses(&director), parameters(&director, &["all", "lo", "eth0"]));
    let unusable: [(&str, &str, &str); 4] = [
        ("version: 1\nvips: [", "600", "VI_1.yaml:"),
        ("", "600", "the file is empty"),
        (&file("eth0", ""), "666", "is writable by others"),
        (&file("eth0", ""), "620", "is writable by others"),
    ];
    for (content, mode, reason) in unusable {
        director.desire("VI_1", content);
        director.ok(&format!("chmod {mode} /etc/lvs-notify/VI_1.yaml"));
        for role in ["master", "backup", "stop"] {
            let ran = director.lvs(role);
            assert_eq!(ran.status, 4, "{mode} {role}: {}", ran.all());
            assert!(ran.all().contains(reason), "{mode} {role}: {}", ran.all());
            let now = (addresses(&director), parameters(&director, &["all", "lo", "eth0"]));
            assert_eq!(now, before, "{mode} {role}");
        }
        assert_eq!(director.lvs("plan master").status, 4);
        assert_eq!(director.sh("ls -A /etc/sysctl.d /var/lib/lvs-notify").split_whitespace().count(), 2);
    }
    director.ok("chmod 600 /etc/lvs-notify/VI_1.yaml");
    director.lvs_ok("master");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_empty_run_directory_converges_to_the_same() {
    let (director, _neighbour) = wired("");
    let state = || (addresses(&director), parameters(&director, &["all", "lo", "eth0"]));
    for role in ["master", "backup", "master", "stop"] {
        director.lvs_ok(role);
        let before = state();
        director.sh("rm -rf /run/lvs-notify/*");
        let told = director.lvs_ok(role);
        assert!(told.contains("no change"), "{role}: {told}");
        assert_eq!(state(), before, "{role}");
        // And a change of role.
        director.sh("rm -rf /run/lvs-notify/*");
    }
    assert_eq!((places(&director, VIP), places(&director, VIP6)), (vec![], vec![]));
}
