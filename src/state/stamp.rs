//! Who was called when: the order in which keepalived, or `fifo`, forked the runs.
//!
//! Owns the stamp of a process, the clocks that it is compared with, and the marks: in `INSTANCE.notifications` below
//! /run/lvs-notify, one file for each role that was asked for, whose name says when, and by which process. Creating one
//! needs no lock, so a process that hangs cannot stop another one here. Called by `reconcile` and `lock`.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

use super::files::{RUN, create_own, own_directory, path_of};
use crate::model::Role;

/// When a process was forked: the order of events, since their scripts are forked in order but do not run in order.
/// Of one parent it is exact: its next child starts in the same tick or later, and with the next free PID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub place: String,
    /// Start of the process in clock ticks since boot (`/proc/PID/stat`, field 22)
    pub start: u64,
    pub pid: u32,
}

impl Stamp {
    /// This process.
    pub fn own() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start = start_of(pid).context("reading /proc/self/stat")?;
        Ok(Self { place: place().to_owned(), start, pid })
    }

    /// Whether this process was forked after `other`, of the same boot. Of two in the same tick the higher PID is
    /// the later one, unless the numbers have just started again from the bottom.
    pub fn is_after(&self, other: &Self) -> bool {
        if self.start != other.start {
            return self.start > other.start;
        }
        let wrapped = self.pid.abs_diff(other.pid) > MOST_IN_A_TICK;
        (self.pid > other.pid) != wrapped
    }

    /// Whether the process is still there.
    pub fn lives(&self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    /// When it was forked, in seconds since 1970.
    pub fn at(&self) -> u64 {
        seconds_now().saturating_sub(now_in_ticks().saturating_sub(self.start) / TICKS)
    }

    /// Tells the other processes of an instance that this one was called, and for which role, with a mark. When
    /// that fails, the order of overlapping calls is left to the lock.
    pub fn announce(&self, instance: &str, role: Role) -> anyhow::Result<()> {
        own_directory(RUN.as_ref())?;
        let mark = format!("{self}-{}", role.command());
        create_own(&path_of(RUN, instance, "notifications").join(mark))?;
        self.forget_older(instance);
        Ok(())
    }

    /// Whether a mark with this stamp can be believed. A damaged one could name a time to come, which must not supersede
    /// everything until then.
    pub fn believes(&self, other: &Self, now: u64) -> bool {
        other.place == self.place && other.start <= now
    }

    /// Every mark of an instance that can be believed, with what its name says.
    fn marks(&self, instance: &str) -> impl Iterator<Item = (PathBuf, Self, Role)> {
        let entries =
            std::fs::read_dir(path_of(RUN, instance, "notifications")).into_iter().flatten().flatten();
        let marks = entries.filter_map(|entry| {
            let name = entry.file_name();
            let (stamp, role) = name.to_str()?.rsplit_once('-')?;
            Some((entry.path(), stamp.parse::<Self>().ok()?, role.parse().ok()?))
        });
        let now = now_in_ticks();
        marks.filter(move |(_, stamp, _)| self.believes(stamp, now))
    }

    /// The latest notification that any process of an instance got, in this boot.
    pub fn latest(&self, instance: &str) -> Option<(Self, Role)> {
        newest(self.marks(instance).map(|(_, stamp, role)| (stamp, role)))
    }

    /// The notification that came after this one, if any did.
    pub fn superseded(&self, instance: &str) -> Option<String> {
        let (latest, role) = self.latest(instance)?;
        latest.is_after(self).then(|| format!("{role} of process {}", latest.pid))
    }

    /// Forgets all notifications but the latest.
    fn forget_older(&self, instance: &str) {
        let Some((latest, _)) = self.latest(instance) else { return };
        for (path, _, _) in self.marks(instance).filter(|(_, stamp, _)| latest.is_after(stamp)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The notification that came last.
pub fn newest(notifications: impl Iterator<Item = (Stamp, Role)>) -> Option<(Stamp, Role)> {
    notifications.reduce(|one, other| if other.0.is_after(&one.0) { other } else { one })
}

/// Where and when what is kept in /run is true: the boot, by the first digits of its random id; the network namespace; and
/// the start of process 1, because a container that is restarted gets the number of its old namespace.
pub(super) fn place() -> &'static str {
    static PLACE: OnceLock<String> = OnceLock::new();
    PLACE.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let network = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
        format!("{:.8}.{network}.{}", boot, start_of(1).unwrap_or_default())
    })
}

/// Half of the process ids that Linux has at least: no machine forks so many in a hundredth of a second.
const MOST_IN_A_TICK: u32 = 16_384;

/// The present in clock ticks since boot.
fn now_in_ticks() -> u64 {
    // The clock of field 22 of /proc/PID/stat, without opening a file.
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    uptime.map_or(u64::MAX, |uptime| (uptime.as_millis() / u128::from(1000 / TICKS)) as u64 + 1)
}

/// Clock ticks of a second: USER_HZ is 100 in the kernel's interface on every architecture that runs this.
const TICKS: u64 = 100;

/// Start time of a process in clock ticks since boot.
pub(super) fn start_of(pid: u32) -> Option<u64> {
    // Some 300 bytes; without room for them they would be read in five pieces.
    let mut stat = String::with_capacity(1024);
    File::open(format!("/proc/{pid}/stat")).ok()?.take(1023).read_to_string(&mut stat).ok()?;
    // The name, in parentheses, may hold anything; field 22 is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `PLACE-START-PID`, in names of files and in the lock.
impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.place, self.start, self.pid)
    }
}

impl std::str::FromStr for Stamp {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, pid) = text.rsplit_once('-').unwrap_or_default();
        let (place, start) = rest.rsplit_once('-').unwrap_or_default();
        Ok(Self { place: place.to_owned(), start: start.parse()?, pid: pid.parse()? })
    }
}
