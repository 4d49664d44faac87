//! Rehearsals with services: what they show, and that nobody is disturbed by them.
//!
//! Owns takeovers in a private network namespace of a kernel with IPVS, whose table is shared by all namespaces. The judges
//! are `ipvsadm`, `ip` and a client's requests. Leaves what needs no service to `here::rehearsal`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::network::{Load, Server, connect, exchange};
use crate::support::{Host, behind_nat, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const VIP: &str = "192.0.2.100";
const RESULT: &str = "/run/lvs-notify/VI_1.rehearsal";

/// A file with services of real servers, the first of which is there, at ports from 80 on.
fn file(services: usize, servers: usize, scheduler: &str) -> String {
    let mut yaml =
        format!("version: 1\ninterface: eth0\nvips: [{VIP}, \"2001:db8::100\"]\nvirtual_services:\n");
    for service in 0..services {
        write!(yaml, "  - {{address: \"{VIP}:{}\", scheduler: {scheduler}, real_servers: [", 80 + service)
            .unwrap();
        (11..11 + servers).for_each(|server| write!(yaml, "\"203.0.113.{server}:80\", ").unwrap());
        yaml += "]}\n";
    }
    yaml
}

/// What of this host, and of the kernel, a takeover changes.
fn state(host: &Host) -> String {
    host.sh("ipvsadm -Ln | sed 's/ *[0-9]* *[0-9]* *$//'; ip -o address show scope global | sed 's/ *valid_lft.*//'
        ip link show | grep -o '^[0-9]*: [a-z0-9@]*'; sysctl -a 2>/dev/null | grep -E 'arp_(ignore|announce)|net.ipv4.vs'")
}

fn takeover(host: &Host) -> String {
    let text = host.lvs("status VI_1").stdout;
    text.lines().find_map(|line| line.strip_prefix("Takeover: ")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_takeover_is_rehearsed_and_nothing_of_it_is_here() {
    let (lb, _client, _server) = behind_nat("203.0.113.11");
    let daemon =
        "ipvs: {timeouts: {tcp: 20m}, sysctl: {conn_reuse_mode: 0}, sync_daemon: {interface: eth1, id: 7}}\n";
    let text = file(40, 5, "wlc").replace("vips:", &format!("{daemon}vips:"));
    lb.desire("VI_1", &text);
    let before = state(&lb);
    let ran = lb.lvs("rehearse VI_1");
    assert_eq!(ran.status, 0, "{}", ran.all());
    assert!(ran.stdout.starts_with("VI_1: READY, ") && ran.stdout.contains("Not shown by"), "{}", ran.all());
    assert_eq!(state(&lb), before);
    assert_eq!(lb.read("/var/lib/lvs-notify/VI_1.yaml"), text, "what a kernel has accepted is a good file");

    // As a BACKUP, and after an edit; beside the real one.
    lb.lvs_ok("master VI_1");
    let real: serde_json::Value = serde_json::from_str(&lb.lvs("status VI_1 --json").stdout).unwrap();
    let real = real["last_run"]["milliseconds"].as_f64().unwrap();
    println!("rehearsed: {}; the takeover itself: {real:.0} ms", ran.stdout.lines().next().unwrap());
    lb.lvs_ok("backup VI_1");
    assert!(takeover(&lb).starts_with("READY, "));
    lb.desire("VI_1", &text.replace("wlc", "rr"));
    assert!(takeover(&lb).starts_with("not rehearsed since "));
    lb.lvs_ok("apply VI_1");
    wait_for("the rehearsal after apply", PATIENCE, || takeover(&lb).starts_with("READY, "));

    // What this kernel lacks, and what helps.
    lb.desire("VI_1", &text.replace("wlc", "nosuch"));
    lb.lvs_ok("backup VI_1");
    wait_for("the rehearsal after backup", PATIENCE, || takeover(&lb).starts_with("NOT READY: "));
    let why = "this kernel has no scheduler `nosuch` (ENOENT); `modprobe ip_vs_nosuch`";
    assert!(takeover(&lb).contains(why), "{}", takeover(&lb));
    assert_eq!(lb.lvs("status VI_1").status, 3);
    let ran = lb.lvs("rehearse VI_1");
    assert_eq!(ran.status, 3, "{}", ran.all());
    assert!(ran.stdout.contains(why), "{}", ran.all());
    assert_eq!(lb.read("/var/lib/lvs-notify/VI_1.yaml"), text.replace("wlc", "rr"));
    // What the kernel refuses only when it is asked for: its words, too.
    lb.desire("VI_1", &text.replace("203.0.113.12", "203.0.113.255"));
    let ran = lb.lvs("rehearse VI_1");
    assert_eq!(ran.status, 3, "{}", ran.all());
    let refused = "adding real server 203.0.113.255:80 of tcp 192.0.2.100:80: its address is no host's";
    assert!(ran.stdout.contains(refused), "{}", ran.all());
    lb.ok("ip link set eth0 down");
    lb.ok("ip link set eth0 name uplink");
    let ran = lb.lvs("rehearse VI_1");
    assert!(ran.stdout.contains("there is no such interface"), "{}", ran.all());
    lb.ok("ip link set uplink name eth0");
    lb.ok("ip link set eth0 up");

    // A broken file at failover: the last one that was rehearsed.
    lb.desire("VI_1", "vips: [");
    assert_eq!(lb.lvs("master VI_1").status, 4);
    assert!(lb.ok("ipvsadm -Sn").contains("-A -t 192.0.2.100:80 -s rr\n"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn five_rehearsals_of_a_large_table_disturb_no_client() {
    let (lb, client, server) = behind_nat("203.0.113.11");
    let _server = Server::new(&server);
    let vip: SocketAddr = format!("{VIP}:80").parse().unwrap();
    lb.desire("VI_1", &file(1, 1, "rr"));
    lb.lvs_ok("master VI_1");
    let mut open = client.inside(move || connect(vip).unwrap()).join().unwrap();
    assert_eq!(exchange(&mut open).unwrap(), "server");
    let before = state(&lb);

    let load = Load::new(&client, vip);
    // Another instance, whose BACKUP this host is.
    lb.desire(
        "VI_2",
        &file(400, 10, "wrr").replace(VIP, "198.51.100.100").replace("2001:db8::100", "2001:db8::200"),
    );
    lb.lvs_ok("backup VI_2");
    for round in 1..=5 {
        let ran = lb.lvs("rehearse VI_2");
        assert_eq!(ran.status, 0, "{round}: {}", ran.all());
        println!("{}", ran.stdout.lines().next().unwrap());
        assert_eq!(exchange(&mut open).unwrap(), "server", "{round}");
        assert_eq!(lb.lvs("status VI_1").status, 0, "{round}");
    }
    let tally = load.end();
    println!("{}", tally.figures());
    assert_eq!((tally.of("server"), tally.sent() > 20), (tally.sent(), true), "{}", tally.figures());
    // What the kernel still takes down of the last one may be told twice until then.
    wait_for("the same table as before", PATIENCE, || state(&lb) == before);
    assert!(lb.path(RESULT).with_file_name("VI_2.rehearsal").exists());
}
