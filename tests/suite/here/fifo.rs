//! keepalived's notify FIFO without IPVS: one run of the program for each event.
//!
//! Owns that no event waits for another one's run, their order, and what becomes of runs when the reader ends. The
//! files declare no services; the judges are `ip`, and /proc for the processes. Leaves services, storms and reloads to
//! `ipvs::fifo`, and what a line means to unit tests.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::{Background, Host, LVS_NOTIFY, wait_for};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};

const PATIENCE: Duration = Duration::from_secs(20);

/// A director with two instances, each with one VIP.
fn director() -> (Host, Host) {
    let (director, neighbour) = (Host::new("director"), Host::new("neighbour"));
    director.link("eth0", &neighbour, "eth0");
    director.address("192.0.2.1/24", "eth0");
    for number in [1, 2] {
        let file = format!(
            "version: 1\ninterface: eth0\nvips: [192.0.2.10{number}]\nallow_empty: true\nvirtual_services: []\n\
             arp: {{persist: false}}\nannounce: {{count: 100, interval: 1s}}\n"
        );
        director.desire(&format!("VI_{number}"), &file);
    }
    (director, neighbour)
}

/// Starts the reader, and opens the FIFO for writing.
fn followed(director: &Host) -> (Background, File) {
    director.sh("mkfifo /run/test/fifo");
    let reader = director.start(&format!("{LVS_NOTIFY} fifo /run/test/fifo"));
    // Both directions, as keepalived opens it: it never waits for a reader.
    let fifo = OpenOptions::new().read(true).write(true).open(director.path("/run/test/fifo")).unwrap();
    (reader, fifo)
}

/// The instances whose VIP stands on lo.
fn serving(director: &Host) -> String {
    let addresses = director.ok("ip -o -4 address show dev lo to 192.0.2.100/28");
    ["1", "2"].into_iter().filter(|number| addresses.contains(&format!("192.0.2.10{number}/32"))).collect()
}

/// The role of an instance, and the process that took it.
fn role(director: &Host, instance: &str) -> (String, u64) {
    let status = director.lvs(&format!("status --json {instance}"));
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect(&status.stderr);
    let pid = &status["last_run"]["pid"];
    (status["role"].as_str().unwrap_or_default().to_owned(), pid.as_u64().unwrap_or_default())
}

/// Every process of this machine, those that have ended and were not waited for included: its id, its parent's, and its
/// command line.
fn processes() -> Vec<(i32, i32, String)> {
    let of = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, parent, line.trim_end_matches('\0').replace('\0', " ")))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(of).collect()
}

/// The runs that a reader has started, and not yet waited for.
fn runs(reader: &Background) -> Vec<(i32, String)> {
    let parent = i32::try_from(reader.pid()).unwrap();
    processes().into_iter().filter(|run| run.1 == parent).map(|(pid, _, line)| (pid, line)).collect()
}

fn waits(reader: &Background, line: &str) -> bool {
    runs(reader).iter().any(|(_, found)| found == &format!("lvs-notify {line}"))
}

#[test]
#[ignore = "needs root: run tests/run"]
fn no_event_waits_for_the_run_of_another() {
    let (director, _neighbour) = director();
    director.lvs_ok("backup VI_1");
    let (mut reader, mut fifo) = followed(&director);
    let mut say = |line: &str| fifo.write_all(format!("{line}\n").as_bytes()).unwrap();

    // Somebody has the lock, and a run that waits for it is stopped: it holds up neither the other instance nor the next
    // event of its own.
    let lock = File::open(director.path("/run/lvs-notify/lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    say("INSTANCE \"VI_1\" BACKUP 100");
    wait_for("VI_1's first run", PATIENCE, || waits(&reader, "backup -- VI_1"));
    let hung = Pid::from_raw(runs(&reader)[0].0);
    kill(hung, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    say("INSTANCE \"VI_2\" MASTER 100");
    say("INSTANCE \"VI_9\" MASTER 100");
    say("INSTANCE \"VI_1\" MASTER 100");
    wait_for("both are MASTER without the lock", PATIENCE, || serving(&director) == "12");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let left = [(hung.as_raw(), "lvs-notify backup -- VI_1".to_owned())];
    wait_for("only the one that hangs is left, and no zombie", PATIENCE, || runs(&reader) == left);
    // It is as keepalived's scripts: named after the program, in a process group that nobody else is in, and its signals
    // are blocked as a role command does: HUP, INT and TERM.
    assert_eq!(getpgid(Some(hung)), Ok(hung));
    let status = std::fs::read_to_string(format!("/proc/{hung}/status")).unwrap();
    assert!(status.starts_with("Name:\tlvs-notify\n"), "{status}");
    assert!(status.contains("\nSigBlk:\t0000000000004003\n"), "{status}");
    drop(lock);
    say("INSTANCE \"VI_2\" BACKUP 100");
    wait_for("VI_2 is BACKUP", PATIENCE, || serving(&director) == "1");
    kill(hung, Signal::SIGCONT).unwrap();
    wait_for("it is reaped as well", PATIENCE, || runs(&reader).is_empty());
    assert_eq!((serving(&director).as_str(), role(&director, "VI_1").0.as_str()), ("1", "MASTER"));
    say("INSTANCE \"VI_1\" FAULT 100");
    wait_for("VI_1 is FAULT", PATIENCE, || serving(&director).is_empty());

    say("INSTANCE \"VI_1\" MASTER 100\nINSTANCE \"VI_2\" BACKUP 100\nINSTANCE \"VI_2\" MASTER 100");
    wait_for("MASTER again", PATIENCE, || serving(&director) == "12");
    // As at keepalived's end: SIGTERM, then the STOP events, to which the runs outlive the reader.
    reader.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    say("INSTANCE \"VI_1\" STOP 100\nINSTANCE \"VI_2\" STOP 100");
    assert_eq!(reader.wait(), 0);
    wait_for("STOP", PATIENCE, || serving(&director).is_empty());
    for instance in ["VI_1", "VI_2"] {
        wait_for("the record", PATIENCE, || role(&director, instance).0 == "STOP");
    }
}

/// The real keepalived signals its FIFO script's whole process group before it writes what happened last.
#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn the_real_keepalived_is_followed_through_reload_and_stop() {
    let (director, _neighbour) = director();
    std::fs::copy(LVS_NOTIFY, director.path("/run/test/lvs-notify")).unwrap();
    let instance = |number: u32| {
        format!(
            "vrrp_instance VI_{number} {{\n state BACKUP\n interface eth0\n virtual_router_id 5{number}\n priority 150\n \
             advert_int 1\n virtual_ipaddress {{\n 192.0.2.10{number}/32 dev lo\n }}\n}}\n"
        )
    };
    let text = format!(
        "global_defs {{\n script_user root\n enable_script_security\n vrrp_notify_fifo /run/test/keepalived.fifo\n \
         vrrp_notify_fifo_script \"/run/test/lvs-notify fifo\"\n}}\n{}{}",
        instance(1),
        instance(2)
    );
    let conf = |text: &str| director.write("/run/test/keepalived.conf", text);
    conf(&text);
    director.sh("chmod 755 /run/test/lvs-notify; chmod 644 /run/test/keepalived.conf /etc/lvs-notify/*");
    let mut keepalived = director.start(
        "keepalived --dont-fork --vrrp -f /run/test/keepalived.conf -p /run/test/keepalived.pid -r /run/test/vrrp.pid",
    );
    let both = |wanted: &str| ["VI_1", "VI_2"].iter().all(|instance| role(&director, instance).0 == wanted);
    wait_for("MASTER", PATIENCE, || both("MASTER"));
    let readers = || -> Vec<i32> {
        let list = processes().into_iter();
        list.filter(|one| one.2 == "/run/test/lvs-notify fifo /run/test/keepalived.fifo")
            .map(|one| one.0)
            .collect()
    };
    let before = readers();
    conf(&text.replace("priority 150", "priority 140"));
    keepalived.signal(Signal::SIGHUP);
    wait_for("the next reader, alone", PATIENCE, || readers() != before && readers().len() == 1);
    assert!(both("MASTER") && serving(&director) == "12", "a reload is no change of role");
    keepalived.signal(Signal::SIGTERM);
    keepalived.wait();
    wait_for("STOP", PATIENCE, || both("STOP"));
    assert_eq!(serving(&director), "");
    wait_for("the reader's end", PATIENCE, || readers().is_empty());
}
