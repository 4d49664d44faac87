//! Overlapping, late, hanging and killed runs: the newest notification wins, and every state that
//! a killed run leaves behind is completed by the next one.
//!
//! Owns storms of processes, kills, and all troubles at once with services; leaves single runs to `netns` and `services`,
//! one trouble at a time to `held_up`, and keepalived to `system`. The judges are `ipvsadm`, `ip` and a client's connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::here::held_up::{Disk, FLOCK, STATE, fill, holder, lives, log_of};
use crate::support::figures::{Figures, rounds};
use crate::support::{Background, Host, LVS_NOTIFY, behind_nat, wait_for, wait_for_rehearsals};
use lvs_notify::kernel::{Kernel as _, Linux};
use lvs_notify::model::{Protocol, Service, ServiceKey};
use lvs_notify::plan::Change;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

const VIP: &str = "192.0.2.100";
/// For what is done at last, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);
const FOREIGN: &str = "-A -t 198.51.100.7:25 -s wlc\n-a -t 198.51.100.7:25 -r 203.0.113.250:25 -m -w 7\n";

/// A file with `services` services of `servers` real servers each, and the table that
/// `ipvsadm -Sn` must show for it.
fn file(services: usize, servers: usize) -> (String, String) {
    let mut yaml =
        format!("version: 1\ninterface: eth0\nannounce: {{count: 1}}\nvips: [{VIP}]\nvirtual_services:\n");
    let mut table = String::new();
    for service in 0..services {
        let port = 1000 + service;
        writeln!(yaml, "  - address: {VIP}:{port}\n    scheduler: rr\n    real_servers:").unwrap();
        writeln!(table, "-A -t {VIP}:{port} -s rr").unwrap();
        for server in 1..=servers {
            writeln!(yaml, "      - 203.0.113.{server}:80").unwrap();
            writeln!(table, "-a -t {VIP}:{port} -r 203.0.113.{server}:80 -m -w 1").unwrap();
        }
    }
    (yaml, table)
}

/// A director with a client-side neighbour and somebody else's service.
fn director(yaml: &str) -> (Host, Host) {
    let (lb, neighbour) = (Host::new("lb"), Host::new("neighbour"));
    lb.link("eth0", &neighbour, "eth0");
    lb.address("192.0.2.1/24", "eth0");
    neighbour.address("192.0.2.9/24", "eth0");
    lb.desire("VI_1", yaml);
    lb.sh(&format!("ipvsadm -R <<'END'\n{FOREIGN}END"));
    (lb, neighbour)
}

fn table(host: &Host) -> String {
    host.ok("ipvsadm -Sn")
}

fn serves(host: &Host) -> bool {
    host.ok("ip -o address show dev eth0").contains(VIP)
}

/// What the host must look like in a role, judged by others and by `status`.
fn assert_role(host: &Host, role: &str, full: &str, what: &str) {
    let master = role == "master";
    let expected = if master { format!("{full}{FOREIGN}") } else { FOREIGN.to_owned() };
    assert_eq!(table(host), expected, "{what}: the table after {role}");
    assert_eq!(serves(host), master, "{what}: the VIP after {role}");
    let status = host.lvs("status");
    let verdict = status.stdout.lines().next().unwrap_or_default();
    assert!(
        verdict.contains(&role.to_uppercase()) && verdict.ends_with(", in sync"),
        "{what}: {}",
        status.all()
    );
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_storm_ends_in_the_role_called_last() {
    let (yaml, full) = file(4, 3);
    let (lb, _neighbour) = director(&yaml);
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    let mut total = 0;
    let killed = |what: &str| {
        let log = std::fs::read_to_string("/var/log/messages").unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains("killing lvs-notify process"));
        lines.filter(|line| line.contains(what)).count()
    };
    for round in 0..5 {
        let before = [killed(""), killed("more than 0.4 s")];
        let begun = Instant::now();
        let mut processes: Vec<Background> = Vec::new();
        let mut last = "";
        for _ in 0..100 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            last = ["master", "backup", "fault", "stop"][usize::try_from((seed >> 40) % 4).unwrap()];
            processes.push(lb.start(&format!("{LVS_NOTIFY} {last} VI_1")));
        }
        total += processes.len();
        let statuses: Vec<i32> = processes.iter_mut().map(Background::wait).collect();
        // `stop` has one second in all from keepalived, so it waits 0.4 s for the lock: of a hundred at once on a busy
        // machine, an older one may hold it for so long, and is ended. Whoever waits 5 s has no need to end anybody.
        let ended = statuses.iter().filter(|status| **status == -1).count();
        assert!(statuses.iter().all(|status| [0, -1].contains(status)), "a process failed: {statuses:?}");
        let now = [killed(""), killed("more than 0.4 s")];
        assert_eq!(now[0] - before[0], now[1] - before[1], "somebody else than a stop has ended a run");
        assert!(now[1] - before[1] >= ended, "{ended} ended, and nobody says why");
        println!(
            "round {round}: 100 processes in {:.1} s, {ended} ended by newer ones, the last was {last}",
            begun.elapsed().as_secs_f32()
        );
        assert_role(&lb, last, &full, &format!("round {round}"));
    }
    println!("storm: {total} overlapping processes, every final state that of the last one started");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_late_old_notification_changes_nothing() {
    let (yaml, full) = file(2, 2);
    let (lb, _neighbour) = director(&yaml);
    // The older process is stopped before it has done anything, and wakes after the newer one.
    let mut old = stopped_before_exec(&lb, "backup");
    lb.lvs_ok("master VI_1");
    old.signal(Signal::SIGCONT);
    assert_eq!(old.wait(), 0);
    assert_role(&lb, "master", &full, "a late backup");
    let log = std::fs::read_to_string("/var/log/messages").unwrap_or_default();
    assert!(log.contains("superseded by MASTER of process"), "the log does not say so");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn announcing_ends_when_a_newer_notification_arrives() {
    let (yaml, _) = file(1, 1);
    let (lb, neighbour) = director(&yaml.replace("count: 1", "count: 100, interval: 200ms"));
    let mut master = lb.start(&format!("{LVS_NOTIFY} master VI_1"));
    wait_for("the VIP answers", Duration::from_secs(20), || {
        neighbour.run(&format!("arping -c 1 -w 1 -I eth0 {VIP}")).status == 0
    });
    // It holds no lock while it announces: this does not wait.
    lb.lvs_ok("backup VI_1");
    let begun = Instant::now();
    assert_eq!(master.wait(), 0);
    let ended = begun.elapsed();
    println!("the announcing run ended {:.1} s after the newer one", ended.as_secs_f32());
    assert!(ended < Duration::from_secs(5), "it went on announcing for {ended:?} of 20 s");
    let log = neighbour.run(&format!("timeout 2 tcpdump -c 1 -n -i eth0 arp and host {VIP}"));
    assert!(log.all().contains("0 packets captured"), "somebody still announces: {}", log.all());
}

/// A process that stops itself, to become lvs-notify when it goes on: its start is what counts.
fn stopped_before_exec(host: &Host, role: &str) -> Background {
    host.write("/run/test/late", &format!("#!/bin/sh\nkill -STOP $$\nexec {LVS_NOTIFY} {role} VI_1\n"));
    let process = host.start("sh /run/test/late");
    let stat = format!("/proc/{}/stat", process.pid());
    wait_for("the late process to stop", Duration::from_secs(10), || {
        std::fs::read_to_string(&stat).unwrap_or_default().contains(") T ")
    });
    process
}

/// A run that is stopped at a netlink request while it holds the lock; gives its process id.
fn stopped_holder(lb: &Host, arguments: &str) -> String {
    let strace = lb.start(&format!(
        "strace -o /run/test/trace -e trace=sendmsg -e inject=sendmsg:signal=STOP:when=3 {LVS_NOTIFY} {arguments}"
    ));
    let mut held: Option<(String, Instant)> = None;
    wait_for("a holder that hangs", Duration::from_secs(30), || {
        let holder = lb.read("/run/lvs-notify/lock");
        match &held {
            Some((known, since)) if *known == holder => {
                !holder.is_empty() && since.elapsed() > Duration::from_secs(2)
            }
            _ => {
                held = Some((holder, Instant::now()));
                false
            }
        }
    });
    // The process stays stopped when strace is gone.
    drop(strace);
    held.unwrap().0.split(['-', ' ']).nth(2).unwrap().to_owned()
}

fn is_stopped(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") T ")
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_holder_that_hangs_is_overcome() {
    let (yaml, full) = file(2, 2);
    let (lb, _neighbour) = director(&yaml);
    let pid = stopped_holder(&lb, "backup VI_1");
    // `apply` carries no notification: it must not end the run of one.
    let begun = Instant::now();
    let ran = lb.lvs("apply VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.stderr.contains(&format!("lvs-notify process {pid} of VI_1 holds it")), "{}", ran.all());
    assert!(is_stopped(&pid), "apply has ended the run of a notification");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 0, "{}", ran.all());
    println!(
        "apply gave up and master overcame a holder that hangs, {:.1} s in all",
        begun.elapsed().as_secs_f32()
    );
    assert!(begun.elapsed() > Duration::from_secs(5), "nobody was in the way");
    let log = std::fs::read_to_string("/var/log/messages").unwrap_or_default();
    assert!(
        log.contains(&format!("killing the older run: lvs-notify process {pid} of VI_1")),
        "the log does not name the holder"
    );
    assert_role(&lb, "master", &full, "a holder that hangs");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn another_instance_goes_on_beside_a_holder_that_hangs() {
    let (yaml, full) = file(2, 2);
    let (lb, _neighbour) = director(&yaml);
    lb.desire("VI_2", &yaml.replace(VIP, "192.0.2.200"));
    let others = full.replace(VIP, "192.0.2.200");
    lb.lvs_ok("master VI_2");
    let pid = stopped_holder(&lb, "stop VI_2");
    let ran = lb.lvs("master VI_1");
    assert_eq!(ran.status, 0, "{}", ran.all());
    assert!(is_stopped(&pid), "the run of another instance was ended");
    assert_eq!(table(&lb), format!("{full}{others}{FOREIGN}"));
    assert!(serves(&lb));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), Signal::SIGCONT).unwrap();
    wait_for("the other instance's stop", Duration::from_secs(20), || {
        table(&lb) == format!("{full}{FOREIGN}")
    });
    assert!(serves(&lb), "one instance's stop took the other's VIP");
}

/// Adds and removes services without end, in a network namespace of its own, until it is dropped; `pause` stops it while
/// ipvsadm, whose list is disturbed as well, is the judge.
struct Churn {
    goes_on: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    turn: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    fn begin() -> Self {
        let (goes_on, rounds, turn) =
            (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
        let (on, count, lock) = (goes_on.clone(), rounds.clone(), turn.clone());
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut kernel = Linux::default();
            let scheduler = "rr".to_owned();
            let settings = |family| Service {
                scheduler: scheduler.clone(),
                flags: 0,
                timeout: 0,
                netmask: Service::full_netmask(family),
                engine: String::new(),
            };
            let keys: Vec<ServiceKey> = (1..=100)
                .flat_map(|port| {
                    ["198.51.100.9", "2001:db8::9"].map(|address| ServiceKey::Endpoint {
                        address: address.parse().unwrap(),
                        port,
                        protocol: Protocol::TCP,
                    })
                })
                .collect();
            let change = |key: &ServiceKey, comes: bool| {
                let settings = Some(settings(key.family()));
                let (old, new) = if comes { (None, settings) } else { (settings, None) };
                Change::Service { key: *key, old, new, servers: Arc::default(), connections: 0 }
            };
            while on.load(Relaxed) {
                let _turn = lock.lock().unwrap();
                for comes in [true, false] {
                    // A few at a time, so that dumps come between.
                    for some in keys.chunks(10) {
                        let changes: Vec<Change> = some.iter().map(|key| change(key, comes)).collect();
                        assert!(kernel.apply(&changes).iter().all(Result::is_ok));
                    }
                }
                count.fetch_add(1, Relaxed);
            }
        });
        Self { goes_on, rounds, turn, thread: Some(thread) }
    }

    fn pause(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap()
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.goes_on.store(false, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A file with as many services of IPv4 and of IPv6, and what `ipvsadm -Sn` must show for it.
fn of_both_families(services: usize) -> (String, BTreeSet<String>) {
    let (yaml, table) = file(services, 1);
    let table6 = table.replace(VIP, "[2001:db8::100]").replace("203.0.113.1:80", "[2001:db8:1::1]:80");
    let of_ipv6 =
        yaml.split_once("virtual_services:\n").unwrap().1.replace(&format!("{VIP}:"), "\"[2001:db8::100]:");
    let of_ipv6: String = of_ipv6
        .lines()
        .map(|line| line.to_owned() + if line.contains("2001") { "\"\n" } else { "\n" })
        .collect();
    let of_ipv6 = of_ipv6.replace("203.0.113.1:80", "\"[2001:db8:1::1]:80\"");
    let yaml = yaml.replace(&format!("vips: [{VIP}]"), &format!("vips: [{VIP}, \"2001:db8::100\"]"));
    (yaml + &of_ipv6, sorted(&format!("{table}{table6}")))
}

fn sorted(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// Where the VIPs of both families stand.
fn stand(host: &Host) -> [bool; 2] {
    let addresses = host.ok("ip -o address show dev eth0");
    [VIP, "2001:db8::100"].map(|vip| addresses.contains(&format!(" {vip}/")))
}

/// Up to Linux 7.0 the table is one for all network namespaces, and whoever lists it misses entries while others change
/// theirs, which an unprivileged user can do in a namespace of his own.
#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn neighbours_that_never_rest_disturb_no_takeover() {
    let (yaml, ours) = of_both_families(200);
    let (lb, _neighbour) = director(&yaml);
    let (resting, serving) = (sorted(FOREIGN), &ours | &sorted(FOREIGN));
    let churn = Churn::begin();
    let mut figures = Figures::of("a neighbour never rests, with 400 services of IPv4 and IPv6");
    for round in 0..rounds(25) {
        let before = churn.rounds.load(Relaxed);
        for (role, expected) in [("master", &serving), ("backup", &resting)] {
            figures.one(role, || {
                let begun = Instant::now();
                let ran = lb.run(&format!("{LVS_NOTIFY} {role}"));
                let took = begun.elapsed();
                assert_eq!(ran.status, 0, "{role} {round}: {}", ran.all());
                wait_for_rehearsals();
                let status = lb.lvs("status");
                assert!(status.stdout.lines().next().unwrap().ends_with(", in sync"), "{}", status.all());
                let _pause = churn.pause();
                assert_eq!(sorted(&table(&lb)), *expected, "{role} {round}");
                assert_eq!(stand(&lb), [role == "master"; 2], "{role} {round}");
                took
            });
        }
        assert!(churn.rounds.load(Relaxed) > before, "{round}: the neighbour rested");
    }
    println!("beside {} turns of 400 changes", churn.rounds.load(Relaxed));
}

/// Somebody else has the lock, the disk hangs, nobody reads the log, an older run is stopped, and a neighbour changes
/// services without end.
#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn all_together_disturb_no_takeover() {
    let (yaml, ours) = of_both_families(200);
    let (lb, _neighbour) = director(&yaml);
    let (resting, serving) = (sorted(FOREIGN), &ours | &sorted(FOREIGN));
    lb.lvs_ok("backup VI_1");
    let disk = Disk::below(&lb, STATE);
    let _log = log_of(&lb);
    fill(&lb);
    let churn = Churn::begin();
    let holder = holder(&lb, &format!("{FLOCK} -x"));
    let mut stopped = stopped_before_exec(&lb, "backup");
    let mut figures = Figures::of("all together, with 400 services of IPv4 and IPv6");
    for round in 0..rounds(5) {
        let before = churn.rounds.load(Relaxed);
        // There is something to write, in each round.
        lb.desire("VI_1", &format!("{yaml}# {round}\n"));
        disk.hang();
        let mut runs = Vec::new();
        for (role, expected) in [("master", &serving), ("backup", &resting)] {
            figures.one(role, || {
                let begun = Instant::now();
                runs.push(lb.start(&format!("{LVS_NOTIFY} {role} VI_1")));
                wait_for(role, PATIENCE, || stand(&lb) == [role == "master"; 2]);
                let took = begun.elapsed();
                let is_right = || {
                    let _pause = churn.pause();
                    sorted(&table(&lb)) == *expected
                };
                // Whom a VIP is put up for finds all services; whoever leaves takes the VIP first.
                assert!(role != "master" || is_right(), "{round}: a VIP without all of its services");
                wait_for(&format!("the services after {role}"), PATIENCE, is_right);
                assert_eq!(stand(&lb), [role == "master"; 2], "{role} {round}");
                took
            });
        }
        assert!(lives(holder.pid()) && lives(stopped.pid()), "{round}: who holds nothing up was killed");
        assert!(churn.rounds.load(Relaxed) > before, "{round}: the neighbour rested");
        disk.come_back();
        // A disk that hangs is told by the exit status.
        assert!(
            runs.iter_mut().all(|run| [0, 1].contains(&run.wait())),
            "{round}: a run did not come to its end"
        );
    }
    println!("beside {} turns of 400 changes", churn.rounds.load(Relaxed));
    // The one that was stopped is late by now.
    lb.lvs_ok("master VI_1");
    stopped.signal(Signal::SIGCONT);
    drop(holder);
    assert_eq!(stopped.wait(), 0);
    let _pause = churn.pause();
    assert_eq!((sorted(&table(&lb)), stand(&lb)), (serving, [true; 2]), "a late one changed something");
}

/// Runs a command under strace; with `kill`, SIGKILL arrives at the given call of a system call.
fn traced(host: &Host, role: &str, kill: Option<(&str, usize)>) -> i32 {
    let inject = match kill {
        Some((call, when)) => format!("-e trace={call} -e inject={call}:signal=KILL:when={when}"),
        None => String::new(),
    };
    host.run(&format!("strace -o /run/test/trace {inject} {LVS_NOTIFY} {role} VI_1")).status
}

/// The system calls of a run in their order, each with its place among those of its name. What the
/// loader and the command line do before the run looks at its own process is left out: nothing has
/// been read or written by then.
fn system_calls(host: &Host, role: &str) -> Vec<(String, usize)> {
    assert_eq!(traced(host, role, None), 0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    let mut begun = false;
    for line in host.read("/run/test/trace").lines() {
        begun |= line.contains("boot_id");
        let Some((name, _)) = line.split_once('(').filter(|(name, _)| !name.contains(' ')) else { continue };
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        if begun && name != "exit_group" {
            calls.push((name.to_owned(), *count));
        }
    }
    calls
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_kill_at_every_system_call_converges() {
    let (yaml, full) = file(20, 10);
    let (lb, _neighbour) = director(&yaml);
    lb.lvs_ok("backup VI_1");
    let calls = system_calls(&lb, "master");
    lb.lvs_ok("backup VI_1");
    let mut kills = 0;
    let begun = Instant::now();
    for (number, (call, when)) in calls.iter().enumerate() {
        // There and back: a killed takeover, then a killed return, each completed by the next run.
        for role in ["master", "backup"] {
            kills += usize::from(traced(&lb, role, Some((call, *when))) != 0);
            let completed = lb.lvs(&format!("{role} VI_1"));
            assert_eq!(completed.status, 0, "{call} {when}, {role}: {}", completed.all());
            let expected = if role == "master" { format!("{full}{FOREIGN}") } else { FOREIGN.to_owned() };
            assert_eq!(table(&lb), expected, "after a kill at {call} {when} of {role}");
            assert_eq!(serves(&lb), role == "master", "after a kill at {call} {when} of {role}");
        }
        if number % 50 == 0 {
            println!("{number} of {} system calls, {:.0} s", calls.len(), begun.elapsed().as_secs_f32());
        }
    }
    println!("a takeover makes {} system calls; {kills} runs killed, all completed by the next", calls.len());
    assert!(kills >= calls.len(), "strace killed too rarely: {kills} for {}", calls.len());
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn an_open_connection_lives_through_storm_and_kills() {
    let (lb, client, server) = behind_nat("203.0.113.9");
    let yaml = |extra: &str| {
        format!(
            "version: 1\ninterface: eth0\nannounce: {{count: 1}}\nvips: [{VIP}]\nvirtual_services:\n  - address: {VIP}:80\n    scheduler: rr\n    real_servers: [\"203.0.113.9:80\"]\n{extra}"
        )
    };
    lb.desire("VI_1", &yaml(""));
    lb.lvs_ok("master VI_1");
    let listener = server.inside(|| TcpListener::bind("0.0.0.0:80").unwrap()).join().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length == 1) && stream.write_all(&byte).is_ok() {}
    });
    let mut stream = client
        .inside(|| TcpStream::connect((VIP, 80)).expect("a connection through the VIP"))
        .join()
        .unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut sent = 0;
    let mut alive = |what: &str| {
        let mut byte = [0];
        stream
            .write_all(b"x")
            .and_then(|()| stream.read_exact(&mut byte))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        sent += 1;
    };
    for round in 0..30 {
        let extra =
            format!("  - address: {VIP}:{}\n    real_servers: [\"203.0.113.9:81\"]\n", 100 + round % 3);
        lb.desire("VI_1", &yaml(if round % 4 == 0 { "" } else { &extra }));
        let runs: Vec<Background> = (0..4).map(|_| lb.start(&format!("{LVS_NOTIFY} master VI_1"))).collect();
        alive("during overlapping runs");
        // Dropping kills with SIGKILL, wherever each of them is.
        std::thread::sleep(Duration::from_millis(20 * round % 200));
        drop(runs);
        alive("after kills");
    }
    lb.lvs_ok("master VI_1");
    alive("at the end");
    println!(
        "120 overlapping runs killed at random; {sent} bytes there and back on one connection, none lost"
    );
    drop(stream);
    echo.join().unwrap();
}
