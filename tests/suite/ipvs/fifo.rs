//! keepalived's notify FIFO, written by the real keepalived and by hand.
//!
//! Owns that each event becomes a run, whatever surrounds it: order, noise, storms, reload, stop. The judge is
//! `ipvsadm`. Leaves that no event waits for another one's run to `here::fifo`, and what a line means to unit tests.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use crate::support::{Background, Host, LVS_NOTIFY, wait_for};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

const VIP: &str = "192.0.2.100";
const PATIENCE: Duration = Duration::from_secs(30);
const TABLE: &str = "-A -t 192.0.2.100:80 -s rr\n-a -t 192.0.2.100:80 -r 203.0.113.11:80 -m -w 1\n";

fn director() -> (Host, Host) {
    let (lb, neighbour) = (Host::new("lb"), Host::new("neighbour"));
    lb.link("eth0", &neighbour, "eth0");
    lb.address("192.0.2.1/24", "eth0");
    lb.desire(
        "VI_1",
        &format!(
            "version: 1\ninterface: eth0\nvips: [{VIP}]\nvirtual_services:\n  - {{address: \"{VIP}:80\", scheduler: rr, real_servers: [203.0.113.11:80]}}\n"
        ),
    );
    (lb, neighbour)
}

fn table(lb: &Host) -> String {
    lb.ok("ipvsadm -Sn")
}

/// Starts the reader, and opens the FIFO for writing.
fn followed(lb: &Host) -> (Background, File) {
    lb.sh("rm -f /run/test/fifo; mkfifo /run/test/fifo");
    let reader = lb.start(&format!("{LVS_NOTIFY} fifo /run/test/fifo"));
    // Both directions, as keepalived opens it: it never waits for a reader.
    let fifo = OpenOptions::new().read(true).write(true).open(lb.path("/run/test/fifo")).unwrap();
    (reader, fifo)
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn events_are_carried_out_in_their_order() {
    let (lb, _neighbour) = director();
    let (mut reader, mut fifo) = followed(&lb);
    let mut say = |text: &[u8]| fifo.write_all(text).unwrap();
    say(b"INSTANCE \"VI_1\" BACKUP 100\n");
    say(b"INSTANCE \"VI_1\" MASTER 100\n");
    wait_for("MASTER", PATIENCE, || table(&lb) == TABLE);
    // Noise, other people's instances, half a line that is completed later.
    say(b"VS [192.0.2.100]:tcp:80 UP\n\0\nINSTANCE \"VI_9\" BACKUP 1\nINSTANCE \"VI_1\" MASTER_PRIORITY 90\n\xff\xfe\nINSTANCE \"VI_1\" FA");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(table(&lb), TABLE);
    say(b"ULT 100\n");
    wait_for("FAULT", PATIENCE, || table(&lb).is_empty());
    // Many at once: the last one counts, however many runs were started for those before.
    let mut storm = String::new();
    for _ in 0..100 {
        storm += "INSTANCE \"VI_1\" MASTER 100\nINSTANCE \"VI_1\" BACKUP 100\n";
    }
    say((storm + "INSTANCE \"VI_1\" MASTER 100\n").as_bytes());
    wait_for("MASTER after a storm", PATIENCE, || table(&lb) == TABLE && lb.lvs("status").status == 0);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(table(&lb), TABLE);
    // A hand-run command is ordered among the events.
    lb.lvs_ok("backup VI_1");
    assert_eq!(table(&lb), "");
    say(b"INSTANCE \"VI_1\" MASTER 100\n");
    wait_for("MASTER after a command", PATIENCE, || table(&lb) == TABLE);
    // As at keepalived's end: SIGTERM, then the STOP events.
    reader.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    say(b"INSTANCE \"VI_1\" STOP 100\n");
    assert_eq!(reader.wait(), 0);
    // The run outlives the reader.
    wait_for("STOP", PATIENCE, || table(&lb).is_empty() && lb.lvs("status").stdout.contains("STOP"));
    // What was written meanwhile is read by the next one.
    say(b"INSTANCE \"VI_1\" MASTER 100\n");
    let mut next = lb.start(&format!("{LVS_NOTIFY} fifo /run/test/fifo"));
    wait_for("MASTER by the next reader", PATIENCE, || table(&lb) == TABLE);
    drop(fifo);
    assert_eq!(next.wait(), 0, "it ends when every writer has gone");
}

/// keepalived never waits: what finds no room is lost. What comes once there is room again is carried out, and while
/// somebody reads there is room, however long the events take.
#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_full_pipe_is_emptied_and_fills_no_more() {
    let (lb, _neighbour) = director();
    let (mut reader, mut fifo) = followed(&lb);
    fcntl(&fifo, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    reader.signal(Signal::SIGSTOP);
    let mut written = 0;
    let full = loop {
        match fifo.write_all(b"INSTANCE \"VI_1\" BACKUP 100\n") {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert!(written > 1000, "{written} lines");
    reader.signal(Signal::SIGCONT);
    wait_for("room for a line", PATIENCE, || fifo.write_all(b"INSTANCE \"VI_1\" MASTER 100\n").is_ok());
    wait_for("MASTER after a full pipe", PATIENCE, || table(&lb) == TABLE);
    // An event under way holds nobody up: its run waits for the lock, the reader reads.
    for number in 0..20 {
        for _ in 0..1000 {
            let line = b"INSTANCE \"VI_1\" BACKUP 100\nINSTANCE \"VI_1\" MASTER 100\n";
            wait_for(&format!("room in round {number}"), PATIENCE, || fifo.write_all(line).is_ok());
        }
    }
    wait_for("MASTER after many", PATIENCE, || table(&lb) == TABLE && lb.lvs("status").status == 0);
    drop(fifo);
    assert_eq!(reader.wait(), 0);
}

/// Processes that keepalived has started to follow its FIFO.
fn readers() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let reads = |path: &std::path::PathBuf| {
        std::fs::read(path.join("cmdline"))
            .is_ok_and(|line| line.starts_with(b"/run/test/lvs-notify\0fifo\0"))
    };
    let mut list: Vec<String> = processes.filter(reads).map(|path| path.display().to_string()).collect();
    list.sort();
    list
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn the_real_keepalived_is_followed_through_reload_and_stop() {
    let (lb, _neighbour) = director();
    std::fs::copy(LVS_NOTIFY, lb.path("/run/test/lvs-notify")).unwrap();
    let configuration = |priority: u32| {
        format!(
            "global_defs {{\n script_user root\n enable_script_security\n vrrp_notify_fifo /run/test/keepalived.fifo\n \
             vrrp_notify_fifo_script \"/run/test/lvs-notify fifo\"\n}}\nvrrp_instance VI_1 {{\n state BACKUP\n interface eth0\n \
             virtual_router_id 51\n priority {priority}\n advert_int 1\n virtual_ipaddress {{\n {VIP}/32 dev lo label lo:0\n }}\n}}\n"
        )
    };
    lb.write("/run/test/keepalived.conf", &configuration(100));
    lb.sh("chmod 755 /run/test/lvs-notify; chmod 644 /run/test/keepalived.conf /etc/lvs-notify/*");
    let mut keepalived = lb.start(
        "keepalived --dont-fork --vrrp --log-detail -f /run/test/keepalived.conf -p /run/test/keepalived.pid -r /run/test/vrrp.pid",
    );
    wait_for("MASTER", PATIENCE, || table(&lb) == TABLE && lb.lvs("status").status == 0);
    let before = readers();
    // Reload: keepalived ends the reader and starts another.
    lb.write("/run/test/keepalived.conf", &configuration(101));
    keepalived.signal(Signal::SIGHUP);
    wait_for("another reader", PATIENCE, || {
        let now = readers();
        !now.is_empty() && now != before
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(table(&lb), TABLE, "a reload is no change of role");
    // A lost link, and back.
    lb.ok("ip link set eth0 down");
    wait_for("FAULT", PATIENCE, || table(&lb).is_empty() && lb.lvs("status").stdout.contains("FAULT"));
    lb.ok("ip link set eth0 up");
    lb.run("ip address add 192.0.2.1/24 dev eth0");
    wait_for("MASTER again", PATIENCE, || table(&lb) == TABLE);
    keepalived.signal(Signal::SIGTERM);
    keepalived.wait();
    wait_for("STOP", PATIENCE, || table(&lb).is_empty() && lb.lvs("status").stdout.contains("STOP"));
    wait_for("the reader's end", PATIENCE, || readers().is_empty());
}
