//! A rehearsal where nothing can be loaded: it says why, ends when it should, and leaves nothing behind.
//!
//! Owns what needs no service: the file that this kernel refuses, the ways in which a rehearsal ends, and what becomes of
//! its result. The judges are `ip` and /proc. Leaves rehearsals with services to `ipvs::rehearsal`.

use std::fs::read_link;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::held_up::lives;
use crate::support::{Background, Host, LVS_NOTIFY, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
const RESULT: &str = "/run/lvs-notify/VI_1.rehearsal";

/// A director whose VIPs are routed to it.
fn director(vips: usize, services: &str) -> Host {
    let host = Host::new("director");
    let vips: Vec<String> =
        (0..vips).map(|number| format!("198.18.{}.{}", number / 250, number % 250 + 1)).collect();
    let services = if services.is_empty() { "allow_empty: true\nvirtual_services: []\n" } else { services };
    host.desire("VI_1", &format!("version: 1\nvips: [{}]\n{services}", vips.join(", ")));
    host
}

/// What `status` says of a takeover.
fn takeover(host: &Host) -> (i32, String) {
    let ran = host.lvs("status VI_1");
    let line = ran.stdout.lines().find_map(|line| line.strip_prefix("Takeover: "));
    (ran.status, line.unwrap_or_else(|| panic!("{}", ran.all())).to_owned())
}

fn addresses(host: &Host) -> String {
    host.ok("ip -o address show scope global")
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_this_kernel_cannot_load_is_not_ready() {
    let service = "virtual_services:\n  - {address: \"198.18.0.1:80\", scheduler: nosuch, real_servers: [\"203.0.113.1:80\"]}\n";
    let host = director(1, service);
    let ran = host.lvs("rehearse VI_1");
    assert_eq!(ran.status, 3, "{}", ran.all());
    // Of a kernel with IPVS, it is the scheduler.
    let why =
        ["this kernel has no IPVS: its module ip_vs is neither", "this kernel has no scheduler `nosuch`"];
    let first = ran.stdout.lines().next().unwrap();
    assert!(first.starts_with("VI_1: NOT READY: looking for "), "{}", ran.all());
    assert!(why.iter().any(|why| first.contains(why)), "{}", ran.all());
    assert_eq!(ran.stdout.lines().count(), 3, "when, and what a namespace cannot show: {}", ran.all());
    // Everybody else tells it.
    host.lvs_ok("backup VI_1");
    let (status, text) = takeover(&host);
    assert_eq!(status, 3);
    assert_eq!(format!("VI_1: {text}"), first);
    let json: serde_json::Value = serde_json::from_str(&host.lvs("status --json").stdout).unwrap();
    assert_eq!(
        (json["rehearsal"]["problems"].as_array().unwrap().len(), &json["healthy"]),
        (1, &false.into())
    );
    let metrics = host.lvs("status --prometheus").stdout;
    assert!(metrics.contains("lvs_notify_takeover_ready{instance=\"VI_1\"} 0\n"), "{metrics}");
    let check = host.lvs("check --host");
    assert!(
        check.stdout.contains("E65 /etc/lvs-notify/VI_1.yaml: a rehearsed takeover failed: "),
        "{}",
        check.all()
    );
    // It is no good file. Another text is another matter.
    assert_eq!(host.sh("ls /var/lib/lvs-notify"), "");
    host.desire("VI_1", &host.read("/etc/lvs-notify/VI_1.yaml").replace("nosuch", "rr"));
    assert!(takeover(&host).1.starts_with("not rehearsed since "));
    assert!(!host.lvs("check --host").stdout.contains("E65"));
    // One that is broken is not rehearsed.
    host.desire("VI_1", "vips: [");
    assert_eq!(host.lvs("rehearse VI_1").status, 4);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_backup_rehearses_by_itself_after_every_edit() {
    let host = director(1, "");
    let text = host.read("/etc/lvs-notify/VI_1.yaml");
    for (vip, role) in [("198.18.0.1", "backup"), ("198.18.0.7", "apply"), ("198.18.0.8", "fault")] {
        host.desire("VI_1", &text.replace("198.18.0.1", vip));
        host.lvs_ok(&format!("{role} VI_1"));
        wait_for(&format!("the rehearsal after {role}"), PATIENCE, || {
            takeover(&host).1.starts_with("READY, ")
        });
        let (status, text) = takeover(&host);
        assert_eq!(status, 0);
        assert!(text.contains(" ms, rehearsed ") && text.ends_with(" s after the last edit"), "{text}");
        // What a kernel has accepted is a good file. Nothing of it came here.
        wait_for("the last good file", PATIENCE, || host.read("/var/lib/lvs-notify/VI_1.yaml").contains(vip));
        assert_eq!(addresses(&host), "");
        // Once is enough.
        let result = || host.path(RESULT).metadata().unwrap().modified().unwrap();
        let before = result();
        host.lvs_ok("apply VI_1");
        host.lvs_ok("backup VI_1");
        assert_eq!(result(), before);
    }
    // Who is MASTER has shown it, and whose keepalived stops has other things to do.
    host.sh(&format!("rm {RESULT}"));
    host.lvs_ok("master VI_1");
    let status = host.lvs("status VI_1").stdout;
    assert!(!status.contains("Takeover"), "{status}");
    host.lvs_ok("stop VI_1");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!host.path(RESULT).exists());
}

/// Starts a rehearsal that takes ten seconds and more; gives what traces it, and its process, which is in the namespace.
fn slow(host: &Host) -> (Background, i32) {
    let strace = host.start(&format!(
        "strace -o /run/test/trace -e trace=sendmsg -e inject=sendmsg:delay_exit=4000 {LVS_NOTIFY} rehearse VI_1"
    ));
    let children = format!("/proc/{0}/task/{0}/children", strace.pid());
    let pid = || std::fs::read_to_string(&children).ok()?.trim().parse::<i32>().ok();
    let network = |pid: i32| read_link(format!("/proc/{pid}/ns/net")).ok();
    let here = network(host.pid() as i32);
    wait_for("a rehearsal in its own network", PATIENCE, || {
        pid().and_then(network).is_some_and(|own| Some(own) != here)
    });
    let pid = pid().unwrap();
    (strace, pid)
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_notification_or_a_signal_ends_it_and_nothing_is_left() {
    let host = director(4000, "");
    host.lvs_ok("backup VI_1");
    wait_for("the first one", Duration::from_secs(60), || host.path(RESULT).exists());
    host.sh(&format!("rm {RESULT}"));
    for ends in ["fault", "stop", "SIGTERM", "SIGKILL"] {
        let (mut strace, pid) = slow(&host);
        let network = read_link(format!("/proc/{pid}/ns/net")).unwrap();
        match ends {
            "SIGTERM" => kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap(),
            "SIGKILL" => kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap(),
            role => drop(host.lvs_ok(&format!("{role} VI_1"))),
        }
        wait_for(&format!("its end by {ends}"), PATIENCE, || !lives(pid as u32));
        strace.wait();
        // The one that FAULT has started for itself comes to its end.
        if ends == "fault" {
            wait_for("its own rehearsal", Duration::from_secs(60), || host.path(RESULT).exists());
            host.sh(&format!("rm {RESULT}"));
        }
        assert!(!host.path(RESULT).exists(), "{ends}: a result of half a takeover");
        assert_eq!(addresses(&host), "", "{ends}");
        let networks = std::fs::read_dir("/proc").unwrap().flatten();
        let left =
            networks.filter(|entry| read_link(entry.path().join("ns/net")).is_ok_and(|own| own == network));
        assert_eq!(left.count(), 0, "{ends}: a process in the namespace");
    }
}
