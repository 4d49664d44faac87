//! Who was called when: the order in which keepalived, or `fifo`, forked the runs.
//!
//! Owns the stamp of a process and the clocks that it is compared with. Called by `record` and `lock`, which keep
//! stamps, and by `reconcile`.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// When a process was forked: the order of events, since their scripts are forked in order but do not run in order.
/// Of one parent it is exact: its next child starts in the same tick or later, and with the next free PID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// First digits of the boot's random id: ticks of another boot cannot be compared.
    pub boot: String,
    /// Start of the process in clock ticks since boot (`/proc/PID/stat`, field 22)
    pub start: u64,
    pub pid: u32,
}

impl Stamp {
    /// This process.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn own() -> anyhow::Result<Self> {
        let boot =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
        let pid = std::process::id();
        let start = start_of(pid).context("reading /proc/self/stat")?;
        Ok(Self { boot: boot.chars().take(8).collect(), start, pid })
    }

    /// Whether this process was forked after `other`. Of two in the same tick the higher PID is
    /// the later one, unless the numbers have just started again from the bottom.
    pub fn is_after(&self, other: &Self) -> bool {
        if self.boot != other.boot || self.start != other.start {
            return self.boot != other.boot || self.start > other.start;
        }
        let wrapped = self.pid.abs_diff(other.pid) > pid_max() / 2;
        (self.pid > other.pid) != wrapped
    }
}

fn pid_max() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(4_194_304)
}

/// The present in clock ticks since boot. A damaged file could name a time to come, which must not
/// supersede everything until then.
pub(crate) fn now_in_ticks() -> u64 {
    // The clock of field 22 of /proc/PID/stat, without opening a file.
    let Ok(uptime) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return u64::MAX;
    };
    (Duration::from(uptime).as_millis() / u128::from(1000 / TICKS)) as u64 + 1
}

/// Clock ticks of a second: USER_HZ is 100 in the kernel's interface on every architecture that runs this.
const TICKS: u64 = 100;

/// Start time of a process in clock ticks since boot.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 22 is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `BOOT-START-PID`, in names of files and in the lock.
impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.boot, self.start, self.pid)
    }
}

impl std::str::FromStr for Stamp {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, pid) = text.rsplit_once('-').unwrap_or_default();
        let (boot, start) = rest.rsplit_once('-').unwrap_or_default();
        Ok(Self { boot: boot.to_owned(), start: start.parse()?, pid: pid.parse()? })
    }
}
