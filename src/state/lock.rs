//! The single writer, for as long as it reads and changes the kernel.
//!
//! Owns /run/lvs-notify/lock: one lock for all instances, because they share one IPVS table. It keeps runs apart that would
//! otherwise do each other's work twice; nothing relies on it, since every run reads back what it has made. So a role
//! command never fails for it. Called by `reconcile`, and by `lib` for the list of drains.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files::{RUN, create_own, read_own};
use super::stamp::Stamp;

/// How long a killed holder may take to be gone.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// A holder's name is shorter.
const MAX_HOLDER: u64 = 1024;

/// The lock, held until it is dropped; without a file, the run goes on without it.
#[derive(Debug)]
pub struct Lock {
    _file: Option<Flock<File>>,
}

/// A process that holds the lock, as it has written into it and the kernel confirms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub stamp: Stamp,
    pub instance: String,
    /// It carries a notification.
    pub notified: bool,
}

/// Who asks for the lock, and how.
#[derive(Debug)]
pub struct Claim<'a> {
    pub stamp: &'a Stamp,
    pub instance: &'a str,
    pub patience: Duration,
    /// It carries a notification, which is carried out whatever becomes of the lock.
    pub notified: bool,
}

/// What becomes of a claim when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The holder is of the same instance, and was called before or goes by an older notification: what it would still do
    /// is out of date. It is killed, which is safe at any instant, since every run converges from whatever state it finds.
    Kill,
    GoOnWithout,
    GiveUp,
}

impl Claim<'_> {
    pub fn overdue(&self, holder: Option<&Holder>) -> Overdue {
        let older = |holder: &Holder| !holder.notified || self.stamp.is_after(&holder.stamp);
        match self.notified {
            true if holder.is_some_and(|holder| holder.instance == self.instance && older(holder)) => {
                Overdue::Kill
            }
            true => Overdue::GoOnWithout,
            false => Overdue::GiveUp,
        }
    }

    /// Waits for the lock; `None` when a newer notification has come meanwhile.
    ///
    /// # Errors
    /// When it is not had in time, or cannot be had at all, and no notification is carried out.
    pub fn wait(&self, superseded: impl Fn() -> bool) -> anyhow::Result<Option<Lock>> {
        let path = &Path::new(RUN).join("lock");
        let mut deadline = Instant::now() + self.patience;
        let mut killed = false;
        let why = match create_own(path) {
            Err(error) => format!("{error:#}"),
            Ok(mut file) => loop {
                file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                    Ok(mut lock) => {
                        // For whoever waits in vain. A holder that cannot be named is not killed.
                        let _ = lock.set_len(0);
                        let kind = if self.notified { "notified" } else { "asked" };
                        let _ = lock.write_all(format!("{} {} {kind}", self.stamp, self.instance).as_bytes());
                        return Ok(Some(Lock { _file: Some(lock) }));
                    }
                    Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                    Err((_, errno)) => break errno.to_string(),
                };
                if superseded() {
                    return Ok(None);
                }
                if Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                let pids = holders(&file);
                let holder = named(path).filter(|holder| pids.contains(&holder.stamp.pid));
                let why = describe(holder.as_ref(), &pids, self.patience);
                match holder.filter(|holder| !killed && self.overdue(Some(holder)) == Overdue::Kill) {
                    Some(holder) => {
                        log::warn!("killing the older run: {why}");
                        kill(&holder.stamp);
                        (killed, deadline) = (true, Instant::now() + KILL_GRACE);
                    }
                    None => break why,
                }
            },
        };
        if self.overdue(None) == Overdue::GiveUp {
            bail!("no lock {}: {why}", path.display());
        }
        log::warn!("going on without the lock {}: {why}", path.display());
        Ok(Some(Lock { _file: None }))
    }
}

/// Who has written itself into the lock, and lives.
fn named(path: &Path) -> Option<Holder> {
    let text = String::from_utf8(read_own(path, MAX_HOLDER).ok()?).ok()?;
    let [stamp, instance, kind] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let stamp: Stamp = stamp.parse().ok()?;
    let holder = Holder { instance: instance.to_owned(), notified: kind == "notified", stamp };
    holder.stamp.lives().then_some(holder)
}

/// The processes that hold a lock on a file, by the kernel's list; 0 stands for those of another PID namespace
/// (`fs/locks.c`, `lock_get_status`).
fn holders(file: &File) -> Vec<u32> {
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let (device, inode) = (metadata.dev(), metadata.ino());
    let place = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let list = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // `1: FLOCK ADVISORY WRITE 1234 00:19:567 0 EOF`; one that waits has `->` in second place.
    let holder = |words: Vec<&str>| match words[..] {
        [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
        _ => None,
    };
    lines.filter_map(holder).collect()
}

fn describe(holder: Option<&Holder>, pids: &[u32], patience: Duration) -> String {
    let who = match (holder, pids) {
        (Some(Holder { stamp, instance, .. }), _) => {
            format!("lvs-notify process {} of {instance}", stamp.pid)
        }
        (None, [] | [0, ..]) => "somebody whom this system does not name".to_owned(),
        (None, [pid, ..]) => format!("process {pid}, which is no run of lvs-notify,"),
    };
    format!("{who} holds it for more than {:.1} s", patience.as_secs_f32())
}

/// Kills the very process that has this stamp, never one that has got its number since.
fn kill(stamp: &Stamp) {
    let pid = i32::try_from(stamp.pid).ok().and_then(Pid::from_raw);
    let opened = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(process) = opened.filter(|_| stamp.lives()) {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}
