//! What hangs, is full, is gone or is somebody else's: a role command is carried out all the same, and the newest counts.
//!
//! Owns the lock, disks, the log and outputs that hold nobody up, the order of notifications, what another boot or network
//! namespace has left, and who is announced for how long. The judges are `ip`, `arping` and `tcpdump`. Leaves what
//! several instances and links do to each other to `instances`, and everything with services to `ipvs`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::{PATIENCE, VIP, arp_answers, file, mac, places, recorder, wire};
use crate::support::figures::{Figures, rounds};
use crate::support::{Background, Host, LVS_NOTIFY, wait_for};

/// What holds up a takeover, or a withdrawal, is given up after a second; machines that run tests are slow.
const HELD_UP: Duration = Duration::from_secs(4);
pub(crate) const LOCK: &str = "/run/lvs-notify/lock";
pub(super) const OTHER: &str = "192.0.2.200";
pub(crate) const STATE: &str = "/var/lib/lvs-notify";
const SYSCTL_D: &str = "/etc/sysctl.d";

/// A director with two instances, VI_1 with [`VIP`] and VI_2 with [`OTHER`], both BACKUP, and its neighbour.
pub(super) fn director(extra: &str) -> (Host, Host) {
    let (director, neighbour) = wire("eth0");
    for (instance, vip) in [("VI_1", VIP), ("VI_2", OTHER)] {
        director.desire(instance, &with_vips(vip, extra));
        director.lvs_ok(&format!("backup {instance}"));
    }
    (director, neighbour)
}

pub(super) fn with_vips(vips: &str, extra: &str) -> String {
    file("eth0", extra).replace(&format!("{VIP}, \"2001:db8::100\""), vips)
}

/// Where the VIP of an instance stands.
fn stands(director: &Host, instance: &str) -> Vec<String> {
    places(director, if instance == "VI_2" { OTHER } else { VIP })
}

/// Where it should stand in a role.
fn wanted(role: &str) -> &'static [&'static str] {
    if role == "master" { &["eth0 32", "lo 32"] } else { &[] }
}

/// Starts a role command, and waits until its VIP stands as it should; gives how long that took. Its process, which may
/// hang for long after that, is added to `runs`.
fn carried_out(director: &Host, role: &str, instance: &str, runs: &mut Vec<Background>) -> Duration {
    let begun = Instant::now();
    runs.push(director.start(&format!("{LVS_NOTIFY} {role} {instance}")));
    wait_for(&format!("{role} {instance}"), HELD_UP, || stands(director, instance) == wanted(role));
    begun.elapsed()
}

/// Every way to lead from one role to the other.
const ROLES: [&str; 6] = ["master", "backup", "master", "fault", "master", "stop"];

/// Whether a process is there and has not ended.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn lock_is_free(director: &Host) -> bool {
    director.run(&format!("flock -n -x {LOCK} true")).status == 0
}

/// A process that holds the lock until it is dropped.
pub(crate) fn holder(director: &Host, how: &str) -> Background {
    // Without a fork: the process that is killed at the end is the one that holds it.
    let holder = director.start(&format!("{how} {LOCK} sleep 1000"));
    wait_for("the lock to be held", PATIENCE, || !lock_is_free(director));
    holder
}

pub(crate) const FLOCK: &str = "flock --no-fork";
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

/// The marks of an instance's notifications.
fn marks(director: &Host, instance: &str) -> Vec<String> {
    let list = director.run(&format!("ls /run/lvs-notify/{instance}.notifications"));
    list.stdout.lines().map(str::to_owned).collect()
}

/// The role that `status` tells.
fn role(director: &Host, instance: &str) -> String {
    let status = director.lvs(&format!("status --json {instance}"));
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect(&status.stderr);
    status["role"].as_str().unwrap_or_default().to_owned()
}

/// A run that was stopped as it called something, and what traces it.
pub(crate) struct Stopped {
    _strace: Background,
    pub(crate) pid: u32,
}

impl Stopped {
    /// Starts a command and stops it by its first call of this name, which is still carried out.
    pub(crate) fn at(call: &str, director: &Host, command: &str) -> Self {
        director.write("/run/test/stopped", "");
        // Without its threads and children: each of them would be stopped at its own first call.
        let strace = director.start(&format!(
            "strace -o /run/test/stopped -e trace={call} -e inject={call}:signal=SIGSTOP:when=1 {LVS_NOTIFY} {command}"
        ));
        wait_for(&format!("{command} to be stopped at {call}"), PATIENCE, || {
            director.read("/run/test/stopped").contains("--- stopped by SIGSTOP ---")
        });
        let children = format!("/proc/{0}/task/{0}/children", strace.pid());
        let pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Self { _strace: strace, pid }
    }

    pub(crate) fn goes_on(&self) {
        signal(self.pid, Signal::SIGCONT);
        wait_for("the end of the one that was stopped", PATIENCE, || !lives(self.pid));
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.pid, Signal::SIGKILL);
    }
}

fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// A cgroup of version 1 that freezes: no signal ends what is in it before it is let go, as with a disk or a device that
/// does not answer.
struct Freezer<'a> {
    host: &'a Host,
    group: String,
}

impl<'a> Freezer<'a> {
    fn of(host: &'a Host) -> Self {
        // Groups belong to the whole machine.
        let group = format!("/run/test/freezer/lvs-notify-test-{}", host.pid());
        host.sh(&format!(
            "mkdir /run/test/freezer && mount -t cgroup -o freezer none /run/test/freezer && mkdir {group}"
        ));
        Self { host, group }
    }

    fn hold(&self, pid: u32) {
        self.host.write(&format!("{}/cgroup.procs", self.group), &pid.to_string());
        self.turn("FROZEN");
    }

    fn let_go(&self) {
        self.turn("THAWED");
    }

    fn turn(&self, state: &str) {
        let file = format!("{}/freezer.state", self.group);
        self.host.write(&file, state);
        wait_for(state, PATIENCE, || self.host.read(&file).trim() == state);
    }
}

impl Drop for Freezer<'_> {
    fn drop(&mut self) {
        self.let_go();
        // What was in it is gone first.
        wait_for("an empty group", PATIENCE, || std::fs::remove_dir(self.host.path(&self.group)).is_ok());
    }
}

/// A directory on a disk of its own. It can be made to hang, which ends with the value: what waits for it cannot be
/// killed before that.
pub(crate) struct Disk<'a> {
    host: &'a Host,
    directory: &'a str,
}

impl<'a> Disk<'a> {
    pub(crate) fn below(host: &'a Host, directory: &'a str) -> Self {
        let image = format!("/run/test/{}.img", directory.replace('/', "-"));
        host.sh(&format!(
            "truncate -s 16M {image} && mkfs.ext4 -q -F {image} && cp -a {directory} /run/test/kept &&
             mount -o loop {image} {directory} && chmod 755 {directory} &&
             cp -a /run/test/kept/. {directory} && rm -r /run/test/kept && sync -f {directory}"
        ));
        Self { host, directory }
    }

    pub(crate) fn hang(&self) {
        self.host.ok(&format!("fsfreeze -f {}", self.directory));
    }

    pub(crate) fn come_back(&self) {
        self.host.run(&format!("fsfreeze -u {}", self.directory));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.come_back();
    }
}

/// The host's /dev/log, of which the test reads what it wants to. Nothing else of /dev is there but what programs need.
pub(crate) fn log_of(host: &Host) -> UnixDatagram {
    host.sh("mount -t tmpfs -o mode=755 none /dev
         mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && mknod -m 666 /dev/full c 1 7
         ln -s /proc/self/fd /dev/fd");
    // The usual ten lines are fewer than a run tells.
    let _ = std::fs::write("/proc/sys/net/unix/max_dgram_qlen", "512");
    let log = UnixDatagram::bind(host.path("/dev/log")).unwrap();
    log.set_nonblocking(true).unwrap();
    log
}

/// What was logged since the last time.
pub(crate) fn logged(log: &UnixDatagram) -> String {
    let mut text = String::new();
    let mut line = [0; 8192];
    while let Ok(length) = log.recv(&mut line) {
        text += &String::from_utf8_lossy(&line[..length]);
        text.push('\n');
    }
    text
}

/// Fills the queue of a log that nobody reads.
pub(crate) fn fill(host: &Host) {
    let client = UnixDatagram::unbound().unwrap();
    client.connect(host.path("/dev/log")).unwrap();
    client.set_nonblocking(true).unwrap();
    while client.send(b"<30>somebody else: x").is_ok() {}
}

/// The announcements of IPv4 VIPs that a neighbour sees.
pub(super) struct Announcements<'a> {
    neighbour: &'a Host,
    _tcpdump: Background,
}

impl<'a> Announcements<'a> {
    pub(super) fn to(neighbour: &'a Host) -> Self {
        let listening = || neighbour.read("/run/test/dump").contains("listening on");
        let tcpdump = recorder(neighbour, "tcpdump -Z root -l -n -i eth0 arp", "/run/test/dump", listening);
        Self { neighbour, _tcpdump: tcpdump }
    }

    pub(super) fn of(&self, vip: &str) -> usize {
        let dump = self.neighbour.read("/run/test/dump");
        dump.lines()
            .filter(|line| {
                line.contains(&format!("who-has {vip} ")) && line.contains(&format!("tell {vip},"))
            })
            .count()
    }
}

/// Whether a neighbour has an answer for the VIP within a second.
fn answers(neighbour: &Host) -> bool {
    neighbour.run(&format!("arping -f -c 1 -w 1 -I eth0 {VIP}")).stdout.contains("Unicast reply from")
}

#[test]
#[ignore = "needs root: run tests/run"]
fn whoever_holds_the_lock_holds_up_nobody() {
    let (director, _neighbour) = director("");
    let log = log_of(&director);
    let nobody = director.run(&format!("{NOBODY} {FLOCK} -n -s {LOCK} true"));
    assert!(nobody.status != 0 && nobody.all().contains("Permission denied"), "{}", nobody.all());
    assert!(lock_is_free(&director));

    let mut figures = Figures::of("somebody else holds the lock");
    for (what, how) in [
        ("somebody else", format!("{FLOCK} -x")),
        ("somebody who shares it", format!("{FLOCK} -s")),
        ("any user, since an older version let everybody read it", format!("{NOBODY} {FLOCK} -x")),
    ] {
        director.ok(&format!("chmod 644 {LOCK}"));
        let holder = holder(&director, &how);
        for role in ROLES.repeat(rounds(18).div_ceil(18)) {
            for instance in ["VI_1", "VI_2"] {
                logged(&log);
                figures.one(role, || {
                    let mut runs = Vec::new();
                    let took = carried_out(&director, role, instance, &mut runs);
                    assert_eq!(runs[0].wait(), 0, "{role} {instance}: {what}");
                    let text = logged(&log);
                    let named = format!(
                        "{instance} {}: going on without the lock {LOCK}: process {},",
                        role.to_uppercase(),
                        holder.pid()
                    );
                    assert!(text.contains(&named), "{role} {instance}: {what}: {text}");
                    took
                });
            }
        }
        assert!(lives(holder.pid()), "{what} was killed");
    }
    let mode = std::fs::metadata(director.path(LOCK)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else can hold it from now on");
    drop(figures);

    // Without a notification there is time: it is told who is in the way, and nothing is done. Reading needs no lock.
    let holder = holder(&director, &format!("{FLOCK} -x"));
    let ran = director.lvs("apply VI_1");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains(&format!("process {}", holder.pid())), "{}", ran.all());
    let begun = Instant::now();
    assert_eq!(director.lvs("status VI_1").status, 0);
    assert!(begun.elapsed() < HELD_UP);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_lock_that_cannot_be_had_holds_up_nobody() {
    let (director, _neighbour) = director("");
    let mut figures = Figures::of("the lock cannot be had");
    for (what, harm, mend) in [
        ("is a directory", format!("rm {LOCK}; mkdir {LOCK}"), format!("rmdir {LOCK}")),
        ("is a link", format!("rm -f {LOCK}; ln -s /run/test/elsewhere {LOCK}"), format!("rm {LOCK}")),
        (
            "is on a file system that is read-only",
            "mount -o remount,ro /run/lvs-notify".into(),
            "mount -o remount,rw /run/lvs-notify".into(),
        ),
        (
            "is somebody else's",
            format!("rm -f {LOCK}; touch {LOCK}; chown nobody {LOCK}; chmod 666 {LOCK}"),
            format!("rm {LOCK}"),
        ),
    ] {
        director.sh(&harm);
        for role in ROLES.repeat(rounds(12).div_ceil(12)) {
            figures.one(role, || carried_out(&director, role, "VI_1", &mut Vec::new()));
        }
        println!("the lock {what}: carried out");
        assert!(!director.path("/run/test/elsewhere").exists());
        director.sh(&mend);
    }
    // File systems without locks, or whose server has none to give: flock(2).
    for errno in ["ENOLCK", "EOPNOTSUPP", "EIO", "ENOSYS"] {
        for role in ["master", "backup"] {
            figures.one(role, || {
                let begun = Instant::now();
                let mut run = director.start(&format!("strace -f -o /run/test/trace -e trace=flock -e inject=flock:error={errno} {LVS_NOTIFY} {role} VI_1"));
                wait_for(errno, HELD_UP, || stands(&director, "VI_1") == wanted(role));
                let took = begun.elapsed();
                assert_eq!(run.wait(), 0, "{errno} {role}");
                assert!(director.read("/run/test/trace").contains(errno));
                assert_eq!(stands(&director, "VI_1"), wanted(role), "{errno}");
                took
            });
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_older_run_that_is_stopped_holds_up_nobody() {
    let (director, _neighbour) = director("");
    let mut figures = Figures::of("an older run is stopped with the lock");
    // It has the lock; it has written its name into it; it reads the kernel; it changes it.
    for (call, is_named) in
        [("flock", false), ("write", true), ("sendmsg", true)].repeat(rounds(3).div_ceil(3))
    {
        for (older, newer) in [("backup", "master"), ("master", "backup")] {
            let what = format!("{older}, stopped at {call}, then {newer}");
            director.lvs(&format!("{older} VI_1"));
            let stopped = Stopped::at(call, &director, &format!("{older} VI_1"));
            assert!(!lock_is_free(&director), "{what}: it was stopped with the lock");
            figures.one(newer, || {
                let mut runs = Vec::new();
                let took = carried_out(&director, newer, "VI_1", &mut runs);
                assert_eq!(runs[0].wait(), 0, "{what}");
                // What is out of date and is known for sure is killed, and else changes nothing any more.
                assert_eq!(lives(stopped.pid), !is_named, "{what}");
                stopped.goes_on();
                assert_eq!(stands(&director, "VI_1"), wanted(newer), "{what}");
                assert_eq!(role(&director, "VI_1"), newer.to_uppercase(), "{what}");
                took
            });
        }
    }
    // Another instance's, which has its own work to do: it is never killed, and finishes.
    for call in ["flock", "write", "sendmsg"] {
        director.lvs_ok("backup VI_1");
        director.lvs_ok("backup VI_2");
        let stopped = Stopped::at(call, &director, "master VI_2");
        for role in ["master", "backup", "master"] {
            figures.one(role, || {
                let mut runs = Vec::new();
                let took = carried_out(&director, role, "VI_1", &mut runs);
                assert_eq!(runs[0].wait(), 0, "{call}: {role}");
                took
            });
        }
        assert!(lives(stopped.pid), "{call}");
        stopped.goes_on();
        assert_eq!(stands(&director, "VI_2"), wanted("master"), "{call}");
        assert_eq!(stands(&director, "VI_1"), wanted("master"), "{call}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_older_run_that_cannot_be_killed_holds_up_nobody() {
    let (director, _neighbour) = director("");
    let log = log_of(&director);
    let freezer = Freezer::of(&director);
    let mut figures = Figures::of("an older run that cannot be killed has the lock");
    for (older, newer) in [("backup", "master"), ("master", "backup")].repeat(rounds(4).div_ceil(4)) {
        director.lvs(&format!("{older} VI_1"));
        let stopped = Stopped::at("sendmsg", &director, &format!("{older} VI_1"));
        freezer.hold(stopped.pid);
        let killing = format!("killing the older run: lvs-notify process {} of VI_1", stopped.pid);
        for role in [newer, older, newer, older, newer] {
            logged(&log);
            figures.one(role, || {
                let mut runs = Vec::new();
                let took = carried_out(&director, role, "VI_1", &mut runs);
                assert_eq!(runs[0].wait(), 0, "{role} after {older}");
                let text = logged(&log);
                assert!(text.contains(&killing), "{role} after {older}: {text}");
                assert!(lives(stopped.pid) && !lock_is_free(&director), "it could be killed");
                took
            });
        }
        freezer.let_go();
        wait_for("the end of what was killed", PATIENCE, || !lives(stopped.pid));
        assert_eq!(stands(&director, "VI_1"), wanted(newer), "{newer} after {older}");
        assert_eq!(role(&director, "VI_1"), newer.to_uppercase());
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn nobody_innocent_is_killed() {
    let (director, _neighbour) = director("");
    let innocent = director.start("sleep 1000");
    let holder = holder(&director, &format!("{FLOCK} -x"));
    let mark = marks(&director, "VI_1").remove(0);
    let place = mark.split('-').next().unwrap();
    let start = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned()
    };
    let own = std::process::id();
    for name in [
        // One that lives, and does not hold the lock, with the very time of its start.
        format!("{place}-{}-{} VI_1 asked", start(innocent.pid()), innocent.pid()),
        format!("{place}-{}-{own} VI_1 notified", start(own)),
        // The one that holds it, and has got the number of a run that ended.
        format!("{place}-1-{} VI_1 notified", holder.pid()),
        // Numbers that mean more than one process.
        format!("{place}-1-0 VI_1 notified"),
        format!("{place}-1-4294967295 VI_1 asked"),
        "no name at all".to_owned(),
        String::new(),
    ] {
        director.write(LOCK, &name);
        for role in ["master", "backup"] {
            let mut runs = Vec::new();
            carried_out(&director, role, "VI_1", &mut runs);
            assert_eq!(runs[0].wait(), 0, "{name}");
        }
        assert!(lives(innocent.pid()) && lives(holder.pid()), "{name}");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_disk_that_hangs_holds_up_nobody() {
    let mut figures = Figures::of("a disk hangs");
    for directory in [STATE, SYSCTL_D] {
        let (director, _neighbour) = director("");
        let mut runs = Vec::new();
        let disk = Disk::below(&director, directory);
        for instance in ["VI_1", "VI_2"] {
            director.lvs_ok(&format!("backup {instance}"));
            // There is something to write: another file, other parameters.
            let vip = if instance == "VI_1" { VIP } else { OTHER };
            director.desire(instance, &with_vips(vip, "arp: {arp_ignore: 2}"));
        }
        disk.hang();
        for role in ROLES.repeat(rounds(12).div_ceil(12)) {
            for instance in ["VI_1", "VI_2"] {
                figures.one(role, || carried_out(&director, role, instance, &mut runs));
            }
        }
        wait_for("the lock to be free", HELD_UP, || lock_is_free(&director));

        // The reader of the FIFO goes on as well.
        director.sh("mkfifo /run/test/fifo");
        runs.push(director.start(&format!("{LVS_NOTIFY} fifo /run/test/fifo")));
        let mut fifo =
            OpenOptions::new().read(true).write(true).open(director.path("/run/test/fifo")).unwrap();
        for (instance, role) in
            [("VI_1", "master"), ("VI_2", "master"), ("VI_1", "backup"), ("VI_2", "fault")]
        {
            figures.one(role, || {
                let begun = Instant::now();
                writeln!(fifo, "INSTANCE \"{instance}\" {} 100", role.to_uppercase()).unwrap();
                wait_for(&format!("{role} of {instance}"), HELD_UP, || {
                    stands(&director, instance) == wanted(role)
                });
                begun.elapsed()
            });
        }
        drop(fifo);

        disk.come_back();
        runs.iter_mut().for_each(|run| _ = run.wait());
        for instance in ["VI_1", "VI_2"] {
            director.lvs_ok(&format!("master {instance}"));
            director.lvs_ok(&format!("status {instance}"));
            let kept = director.read(&format!("{STATE}/{instance}.yaml"));
            assert_eq!(
                kept,
                director.read(&format!("/etc/lvs-notify/{instance}.yaml")),
                "the last good copy"
            );
            assert!(
                director
                    .read(&format!("{SYSCTL_D}/90-lvs-notify-{instance}.conf"))
                    .contains("arp_ignore = 2")
            );
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn no_room_to_write_holds_up_nobody() {
    let (director, _neighbour) = director("");
    let umask = format!("umask 0177; exec {LVS_NOTIFY} \"$@\" <&- >&- 2>&-");
    director.write("/run/test/closed", &umask);
    let mut figures = Figures::of("there is no room to write");
    let full = "head -c 100000 /dev/zero > $d/full || true";
    for (what, harm, mend) in [
        (
            "no room in /run",
            format!("d=/run/lvs-notify; mount -t tmpfs -o size=8k,mode=755 none $d; {full}"),
            "umount /run/lvs-notify",
        ),
        (
            "no file more in /run",
            "mount -t tmpfs -o nr_inodes=1,mode=755 none /run/lvs-notify".into(),
            "umount /run/lvs-notify",
        ),
        (
            "no room on the disk",
            format!("d={STATE}; mount -t tmpfs -o size=8k,mode=755 none $d; {full}"),
            "umount /var/lib/lvs-notify",
        ),
        (
            "everything is read-only",
            format!(
                "for d in /run/lvs-notify {STATE} {SYSCTL_D} /etc/lvs-notify; do mount -o remount,ro $d; done"
            ),
            "for d in /run/lvs-notify /var/lib/lvs-notify /etc/sysctl.d /etc/lvs-notify; do mount -o remount,rw $d; done",
        ),
        ("other users' processes are hidden", "mount -t proc -o hidepid=2 proc /proc".into(), "umount /proc"),
    ] {
        director.sh(&harm);
        for role in ROLES.repeat(rounds(15).div_ceil(15)) {
            figures.one(role, || carried_out(&director, role, "VI_1", &mut Vec::new()));
        }
        director.sh(mend);
        println!("{what}: carried out");
    }
    // As keepalived starts it, and worse.
    for role in ROLES {
        let mut run = director.start(&format!("bash /run/test/closed {role} VI_1"));
        assert_eq!(run.wait(), 0, "{role}");
        assert_eq!(stands(&director, "VI_1"), wanted(role));
    }
    let modes =
        director.sh("stat -c '%a %n' /run/lvs-notify /run/lvs-notify/VI_1.notifications /etc/sysctl.d/*");
    assert!(modes.lines().all(|line| line.starts_with("755 ") || line.starts_with("644 ")), "{modes}");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_log_that_nobody_reads_holds_up_nobody() {
    const ANNOUNCE: &str = "announce: {count: 5, interval: 300ms, again: 0s}";
    let (director, neighbour) = director(ANNOUNCE);
    let log = log_of(&director);
    let announcements = Announcements::to(&neighbour);
    let mut figures = Figures::of("nobody reads the log");
    let roles = |figures: &mut Figures, what: &str| {
        let mut one = |role: &str| {
            figures.one(role, || {
                let mut runs = Vec::new();
                let took = carried_out(&director, role, "VI_1", &mut runs);
                let begun = Instant::now();
                assert_eq!(runs[0].wait(), 0, "{what}: {role}");
                assert!(begun.elapsed() < HELD_UP, "{what}: {role} ends after {:?}", begun.elapsed());
                took
            });
        };
        ROLES.repeat(rounds(12).div_ceil(12)).into_iter().for_each(&mut one);
        let before = announcements.of(VIP);
        one("master");
        wait_for(what, PATIENCE, || announcements.of(VIP) >= before + 5);
        // A damaged record is warned of before anything is changed, and so is a broken file.
        director.write("/run/lvs-notify/VI_1.json", "x");
        one("backup");
        director.write("/run/lvs-notify/VI_1.json", "x");
        director.desire("VI_1", "nonsense: [\n");
        carried_out(&director, "master", "VI_1", &mut Vec::new());
        carried_out(&director, "backup", "VI_1", &mut Vec::new());
        director.desire("VI_1", &with_vips(VIP, ANNOUNCE));
    };
    roles(&mut figures, "a daemon that reads nothing more");
    fill(&director);
    roles(&mut figures, "a queue that is full from the start");

    // The reader of the FIFO, too, begun before and after the queue is full.
    let mut fifos = Vec::new();
    for begun in ["before", "after"] {
        logged(&log);
        let path = format!("/run/test/{begun}");
        director.sh(&format!("mkfifo {path}"));
        if begun == "after" {
            fill(&director);
        }
        let reader = director.start(&format!("{LVS_NOTIFY} fifo {path}"));
        let mut fifo = OpenOptions::new().read(true).write(true).open(director.path(&path)).unwrap();
        let mut say = |role: &str| writeln!(fifo, "INSTANCE \"VI_1\" {} 100", role.to_uppercase()).unwrap();
        say("master");
        wait_for("the first event", PATIENCE, || stands(&director, "VI_1") == wanted("master"));
        fill(&director);
        for _ in 0..8 {
            for role in ["backup", "master"] {
                figures.one(role, || {
                    say(role);
                    let begun = Instant::now();
                    wait_for(role, HELD_UP, || stands(&director, "VI_1") == wanted(role));
                    begun.elapsed()
                });
            }
        }
        say("stop");
        wait_for("stop", HELD_UP, || stands(&director, "VI_1") == wanted("stop"));
        fifos.push((reader, fifo));
    }
    drop((fifos, log));
    roles(&mut figures, "a daemon that has died");
    director.sh("rm /dev/log");
    roles(&mut figures, "no log at all");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_output_that_is_gone_aborts_nothing() {
    let (director, _neighbour) = director("");
    let harm = || director.write("/run/lvs-notify/VI_1.json", "x");
    let broken = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for role in ROLES {
        for (what, output, errors) in [
            ("nobody reads the output", broken(), Stdio::null()),
            ("nobody reads the errors", Stdio::null(), broken()),
            ("nobody reads either", broken(), broken()),
            ("there is no room for either", full(), full()),
        ] {
            // A damaged record is warned of before anything is changed.
            harm();
            let line = format!("{LVS_NOTIFY} {role} VI_1");
            let mut run = director.start_with(&line, [Stdio::null(), output, errors]);
            assert_eq!(run.wait(), 0, "{role}: {what}");
            assert_eq!(stands(&director, "VI_1"), wanted(role), "{role}: {what}");
        }
        // A terminal, but nobody reads the errors.
        director.write(
            "/run/test/on-a-terminal",
            &format!("rm -f /run/test/p; mkfifo /run/test/p; exec 3<>/run/test/p 4>/run/test/p 3<&-\nexec {LVS_NOTIFY} \"$@\" 2>&4\n"),
        );
        harm();
        director.sh(&format!("script -qec 'bash /run/test/on-a-terminal {role} VI_1' /dev/null </dev/null"));
        assert_eq!(stands(&director, "VI_1"), wanted(role), "{role}");
    }
    // The terminal hangs up while the run waits for the lock: a session over SSH that dies.
    for role in ROLES {
        harm();
        let holder = holder(&director, &format!("{FLOCK} -x"));
        director
            .write("/run/test/terminal", &format!("exec script -qec '{LVS_NOTIFY} {role} VI_1' /dev/null\n"));
        let mut session = director.start("bash /run/test/terminal");
        wait_for("the run's mark", PATIENCE, || {
            marks(&director, "VI_1").last().is_some_and(|mark| mark.ends_with(&format!("-{role}")))
        });
        session.signal(Signal::SIGKILL);
        session.wait();
        drop(holder);
        wait_for(role, HELD_UP, || stands(&director, "VI_1") == wanted(role));
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_is_applied_last_is_what_was_written_last() {
    let (director, _neighbour) = director("");
    for first in ["apply", "master", "apply", "master", "apply"] {
        director.desire("VI_1", &with_vips(VIP, ""));
        director.lvs_ok("master VI_1");
        let lock = holder(&director, &format!("{FLOCK} -x"));
        // Say, the timer's; then somebody edits, and applies.
        let mut older = director.start(&format!("{LVS_NOTIFY} {first} VI_1"));
        sleep(Duration::from_millis(200));
        director.desire("VI_1", &with_vips("192.0.2.101", ""));
        let mut newer = director.start(&format!("{LVS_NOTIFY} apply VI_1"));
        sleep(Duration::from_millis(200));
        drop(lock);
        assert_eq!((older.wait(), newer.wait()), (0, 0), "{first}");
        assert_eq!(places(&director, VIP), [""; 0], "{first}: the older text was applied last");
        assert_eq!(places(&director, "192.0.2.101"), wanted("master"), "{first}");
        director.lvs_ok("status VI_1");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_notification_counts_although_its_run_was_killed() {
    for (older, newer) in [("backup", "master"), ("master", "backup"), ("master", "fault")] {
        for completes in [true, false] {
            let (director, _neighbour) = director("");
            let what = format!("{older}, then {newer}, completed by a timer: {completes}");
            director.lvs_ok(&format!("{older} VI_1"));
            let lock = File::open(director.path(LOCK)).unwrap();
            let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
            let start = |role: &str, signalled: Signal| {
                let run = director.start(&format!("{LVS_NOTIFY} {role} VI_1"));
                let mark = format!("-{}-{role}", run.pid());
                wait_for(&mark, PATIENCE, || marks(&director, "VI_1").iter().any(|one| one.ends_with(&mark)));
                run.signal(signalled);
                run
            };
            // The one sleeps before it has the lock, the other is killed before it has it (by the OOM killer, say).
            let mut late = start(older, Signal::SIGSTOP);
            let mut killed = start(newer, Signal::SIGKILL);
            killed.wait();
            drop(lock);
            if completes {
                director.lvs_ok("apply VI_1");
                assert_eq!(stands(&director, "VI_1"), wanted(newer), "{what}");
            }
            let before = stands(&director, "VI_1");
            late.signal(Signal::SIGCONT);
            assert_eq!(late.wait(), 0, "{what}");
            assert_eq!(stands(&director, "VI_1"), before, "{what}: the late one changed something");
            director.lvs_ok("apply VI_1");
            assert_eq!(stands(&director, "VI_1"), wanted(newer), "{what}");
            assert_eq!(role(&director, "VI_1"), newer.to_uppercase(), "{what}");
            let left = marks(&director, "VI_1");
            // Who was killed before it could forget the older one leaves that to the next.
            assert!(left.iter().any(|mark| mark.ends_with(&format!("-{newer}"))), "{what}: {left:?}");
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn marks_of_runs_that_fail_do_not_pile_up() {
    let (director, _neighbour) = director("");
    // No file, no copy: not one of them can do anything.
    director.sh("rm -rf /run/lvs-notify/* /var/lib/lvs-notify/*; echo 'x: [' > /etc/lvs-notify/VI_1.yaml");
    for number in 0..20 {
        let role = ["master", "backup", "master", "fault"][number % 4];
        assert_ne!(director.lvs(&format!("{role} VI_1")).status, 0);
        let left = marks(&director, "VI_1");
        assert!(left.len() == 1 && left[0].ends_with(&format!("-{role}")), "{left:?}");
    }
    // Nor do those of other boots.
    director.desire("VI_1", &with_vips(VIP, ""));
    director.sh("cd /run/lvs-notify/VI_1.notifications; for n in $(seq 20); do touch 0000000$((n % 10)).1.1-1-$n-master; done");
    director.lvs_ok("backup VI_1");
    director.lvs_ok("apply VI_1");
    assert_eq!(stands(&director, "VI_1"), wanted("backup"));
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_another_boot_or_namespace_has_left_is_not_believed() {
    // The boot, the network namespace, the start of process 1: a container that is restarted.
    for part in 0..3 {
        for left in ["record", "mark", "both"] {
            let (director, _neighbour) = director("");
            let what = format!("part {part}, {left}");
            director.lvs_ok("master VI_1");
            let mark = marks(&director, "VI_1").remove(0);
            let place = mark.split('-').next().unwrap();
            let mut parts: Vec<&str> = place.split('.').collect();
            assert_eq!(parts.len(), 3, "{place}");
            parts[part] = if parts[part] == "1" { "2" } else { "1" };
            let other = parts.join(".");
            let record = director.read("/run/lvs-notify/VI_1.json").replace(place, &other);
            assert!(record.contains(&other), "{record}");
            director.sh("rm -r /run/lvs-notify/*; mkdir /run/lvs-notify/VI_1.notifications");
            if left != "mark" {
                director.write("/run/lvs-notify/VI_1.json", &record);
            }
            if left != "record" {
                let mark = mark.replace(place, &other);
                director.write(&format!("/run/lvs-notify/VI_1.notifications/{mark}"), "");
            }
            // A reboot leaves no addresses.
            director.sh(&format!("ip address del {VIP}/32 dev eth0; ip address del {VIP}/32 dev lo"));
            let ran = director.lvs("apply VI_1");
            assert_eq!(ran.status, 1, "{what}: {}", ran.all());
            assert!(ran.all().contains("no role is recorded"), "{what}: {}", ran.all());
            assert_eq!(stands(&director, "VI_1"), [""; 0], "{what}: keepalived has not asked for it");
            assert_ne!(role(&director, "VI_1"), "MASTER", "{what}");
            for role in ROLES {
                director.lvs_ok(&format!("{role} VI_1"));
                assert_eq!(stands(&director, "VI_1"), wanted(role), "{what}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn two_network_namespaces_with_one_run_directory_keep_apart() {
    let (director, _neighbour) = director("");
    director.lvs_ok("master VI_1");
    // The other has the same files, and neither role nor VIP.
    let told = director.sh(&format!(
        "unshare -n bash -c '
            ip link set lo up; ip link add eth0 type veth peer name peer0; ip link set peer0 up; ip link set eth0 up
            {LVS_NOTIFY} apply VI_1; echo status $?; ip -4 -br address show to {VIP}
            for role in master backup; do {LVS_NOTIFY} $role VI_1 > /dev/null && ip -4 -br address show to {VIP} | wc -l; done' 2>&1"
    ));
    assert!(told.contains("no role is recorded") && told.contains("status 1"), "{told}");
    assert!(told.ends_with("status 1\n2\n0\n"), "{told}");
    // What was asked for here is still known here.
    director.lvs_ok("apply VI_1");
    assert_eq!(stands(&director, "VI_1"), wanted("master"));
    assert_eq!(role(&director, "VI_1"), "MASTER");
    director.lvs_ok("backup VI_1");
    assert_eq!(stands(&director, "VI_1"), wanted("backup"));
}

#[test]
#[ignore = "needs root: run tests/run"]
fn only_what_a_master_serves_is_announced() {
    const ANNOUNCE: &str = "announce: {count: 60, interval: 500ms}";
    /// Longer than an interval.
    const INTERVAL: Duration = Duration::from_millis(1500);
    let (director, neighbour) = director("");
    director.desire("VI_1", &with_vips(&format!("{VIP}, 192.0.2.101"), ANNOUNCE));
    let announcements = Announcements::to(&neighbour);
    let goes_on = |vip: &str, what: &str| {
        let before = announcements.of(vip);
        wait_for(what, PATIENCE, || announcements.of(vip) >= before + 3);
    };
    let is_silent = |vip: &str, what: &str| {
        sleep(INTERVAL);
        let before = announcements.of(vip);
        sleep(2 * INTERVAL);
        assert_eq!(announcements.of(vip), before, "{vip} is announced: {what}");
    };
    director.lvs_ok("master VI_1");
    goes_on(VIP, "both");
    goes_on("192.0.2.101", "both");
    // A VIP that left the file.
    director.desire("VI_1", &with_vips(VIP, ANNOUNCE));
    director.lvs_ok("apply VI_1");
    is_silent("192.0.2.101", "it left the file");
    goes_on(VIP, "the one that stays");
    // Each role that is not MASTER, also when something is repaired in it within the interval.
    for role in ["backup", "fault", "stop"] {
        director.lvs_ok(&format!("{role} VI_1"));
        director.sh("echo 0 > /proc/sys/net/ipv4/conf/lo/arp_ignore");
        director.lvs_ok("apply VI_1");
        is_silent(VIP, role);
        director.lvs_ok("master VI_1");
        goes_on(VIP, "MASTER again");
    }
    // A VIP that somebody has taken off the interface, and one that comes to the file.
    director.ok(&format!("ip address del {VIP}/32 dev eth0"));
    is_silent(VIP, "it is not there");
    director.desire("VI_1", &with_vips(&format!("{VIP}, 192.0.2.101"), ANNOUNCE));
    director.lvs_ok("apply VI_1");
    goes_on(VIP, "it is back");
    goes_on("192.0.2.101", "it came to the file");

    // A killed run's notification counts here as well.
    let killed = director.start(&format!(
        "strace -o /run/test/trace -e trace=flock -e inject=flock:signal=SIGKILL:when=1 {LVS_NOTIFY} backup VI_1"
    ));
    wait_for("the mark of the killed one", PATIENCE, || {
        marks(&director, "VI_1").last().is_some_and(|mark| mark.ends_with("-backup"))
    });
    drop(killed);
    is_silent(VIP, "a killed run was asked for BACKUP");
}

/// The processes that only announce, of this network namespace.
fn announcers(director: &Host) -> Vec<u32> {
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let here = network(&director.pid().to_string());
    let names = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let is_one = |pid: &String| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with("lvs-notify-announcer\0") && network(pid) == here
    };
    names.filter(is_one).filter_map(|pid| pid.parse().ok()).filter(|pid| lives(*pid)).collect()
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_process_that_only_announces_ends_when_it_should() {
    let (director, _neighbour) = director("");
    director.desire("VI_1", &with_vips(VIP, "announce: {count: 60, interval: 500ms}"));
    // SIGHUP and SIGINT may be ignored by whoever starts the tests (nohup, a shell in the background).
    director.lvs_ok("master VI_1");
    wait_for("the announcer", PATIENCE, || !announcers(&director).is_empty());
    announcers(&director).into_iter().for_each(|pid| signal(pid, Signal::SIGTERM));
    wait_for("its end by SIGTERM", HELD_UP, || announcers(&director).is_empty());
    assert_eq!(stands(&director, "VI_1"), wanted("master"));
    for role in ["backup", "fault", "stop"] {
        director.lvs_ok("master VI_1");
        director.lvs_ok(&format!("{role} VI_1"));
        wait_for(&format!("its end by {role}"), HELD_UP, || announcers(&director).is_empty());
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_dead_interface_stops_no_announcement_of_the_others() {
    const VIPS: &str = "[{address: 198.51.100.1, interface: dead}, {address: 192.0.2.100, interface: eth0}, {address: 203.0.113.1, interface: dead}]";
    for (what, make) in [
        ("there is none", "true"),
        ("it is down", "ip link add dead type veth peer name peer"),
        ("it has no carrier", "ip link add dead type veth peer name peer; ip link set dead up"),
        (
            "it knows no ARP",
            "ip link add dead type veth peer name peer; ip link set peer up; ip link set dead arp off up",
        ),
        (
            "it has no addresses",
            "ip link add dead type veth peer name peer; ip link set peer up; ip link set dead addrgenmode none up",
        ),
    ] {
        let (director, neighbour) = director("");
        director.sh(make);
        let text = with_vips(VIP, "announce: {count: 5, interval: 100ms, again: 2s}");
        director.desire("VI_1", &text.replace(&format!("[{VIP}]"), VIPS));
        let announcements = Announcements::to(&neighbour);
        director.lvs("master VI_1");
        wait_for(&format!("all announcements although {what}"), PATIENCE, || announcements.of(VIP) >= 6);
        director.lvs("apply VI_1");
        wait_for(&format!("one more by apply although {what}"), PATIENCE, || announcements.of(VIP) >= 7);
        // An apply that tries to put up what is missing announces as a takeover does.
        sleep(Duration::from_secs(3));
        assert!(announcements.of(VIP) == 7 || what == "there is none", "{what}: {}", announcements.of(VIP));
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_is_lost_in_the_first_second_is_announced_again() {
    let (director, neighbour) = director("");
    // Nothing about announcements in the file: the default.
    director.desire("VI_1", &with_vips(VIP, "").replace("announce: {count: 1}\n", ""));
    let own = mac(&director, "eth0");
    let stale =
        || neighbour.ok(&format!("ip neigh replace {VIP} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"));
    let knows = || neighbour.ok(&format!("ip neigh show {VIP} dev eth0")).contains(&format!("lladdr {own} "));
    neighbour.ok("ip link set eth0 arp off");
    director.lvs_ok("master VI_1");
    sleep(Duration::from_secs(2));
    neighbour.ok("ip link set eth0 arp on");
    stale();
    wait_for("keepalived's garp_master_delay", Duration::from_secs(10), knows);
    sleep(Duration::from_secs(6));
    stale();
    director.lvs_ok("apply VI_1");
    wait_for("the announcement of apply", HELD_UP, knows);
    assert!(!arp_answers(&neighbour).is_empty());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn all_together() {
    let (director, neighbour) = director("");
    let mut runs = Vec::new();
    let disk = Disk::below(&director, STATE);
    director.desire("VI_1", &with_vips(VIP, "arp: {arp_ignore: 2}"));
    let _log = log_of(&director);
    fill(&director);
    let holder = holder(&director, &format!("{FLOCK} -x"));
    disk.hang();
    let stopped = director.start(&format!("{LVS_NOTIFY} master VI_1"));
    wait_for("its mark", PATIENCE, || {
        marks(&director, "VI_1").iter().any(|mark| mark.contains(&format!("-{}-", stopped.pid())))
    });
    stopped.signal(Signal::SIGSTOP);
    assert!(!lock_is_free(&director) && lives(stopped.pid()));

    let mut figures = Figures::of("all together, without services");
    for round in 0..rounds(20) {
        for role in ["backup", "master"] {
            figures.one(role, || {
                let took = carried_out(&director, role, "VI_1", &mut runs);
                assert_eq!(answers(&neighbour), role == "master", "{role} {round}");
                took
            });
        }
    }
    assert!(lives(holder.pid()), "somebody else's process was killed");
    stopped.signal(Signal::SIGCONT);
    sleep(Duration::from_secs(1));
    assert_eq!(stands(&director, "VI_1"), wanted("master"), "a late one changed something");
    disk.come_back();
    runs.iter_mut().for_each(|run| _ = run.wait());
    assert_eq!(stands(&director, "VI_1"), wanted("master"));
    assert!(answers(&neighbour));
}
