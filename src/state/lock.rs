//! The single writer, and what becomes of a holder that hangs.
//!
//! Owns /run/lvs-notify/lock: one lock for all instances, because they share one IPVS table, whose
//! dumps skip entries while somebody changes it. Called by `reconcile`, and by `lib` for the list of drains.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files::{RUN, create_own, read_own};
use super::stamp::{Stamp, start_of};

/// How long a run waits that has no shorter time limit.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a killed holder may take to be gone, and one that has just got the lock to write its name into it.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// A holder's name is shorter.
const MAX_HOLDER: u64 = 1024;

/// The lock, held until it is dropped; without a file, the run goes on without it.
pub struct Lock {
    _file: Option<Flock<File>>,
}

/// How waiting for the lock ended.
pub enum LockOutcome {
    Held(Lock),
    Superseded,
}

/// Who waits, and how.
pub struct LockRequest<'a> {
    pub stamp: &'a Stamp,
    pub instance: &'a str,
    pub patience: Duration,
    /// Whether it carries a notification, which overrules older runs of its instance
    pub may_kill_older: bool,
}

/// Holds the lock for a change of an instance's own files, which overrules nobody.
///
/// # Errors
/// When a run of this instance does not let go of it.
pub fn hold(instance: &str) -> anyhow::Result<LockOutcome> {
    let stamp = &Stamp::own()?;
    LockRequest { stamp, instance, patience: PATIENCE, may_kill_older: false }.wait(|| false)
}

impl LockRequest<'_> {
    /// Waits for the lock. A holder that still has it at the deadline hangs or is stopped. When it
    /// was called before this process for the same instance it is killed, which is safe at any
    /// instant, since every run converges from whatever state it finds. The run of another instance
    /// is left alone, and this one goes on without the lock: what a dump may miss meanwhile is
    /// found by reading back.
    ///
    /// # Errors
    /// When a run of this instance holds it that this one may not overrule, or that survives.
    pub fn wait(&self, superseded: impl Fn() -> bool) -> anyhow::Result<LockOutcome> {
        let path = Path::new(RUN).join("lock");
        let mut file = match create_own(&path) {
            Ok(file) => file,
            Err(error) => {
                log::warn!("going on without the lock {}: {error:#}", path.display());
                return Ok(LockOutcome::Held(Lock { _file: None }));
            }
        };
        let mut deadline = Instant::now() + self.patience;
        let mut tried = Vec::new();
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    // For whoever waits in vain. A holder that cannot be named is not killed.
                    let _ = lock.set_len(0);
                    let _ = lock.write_all(format!("{} {}", self.stamp, self.instance).as_bytes());
                    return Ok(LockOutcome::Held(Lock { _file: Some(lock) }));
                }
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, errno)) => bail!("locking {}: {errno}", path.display()),
            };
            if superseded() {
                return Ok(LockOutcome::Superseded);
            }
            if Instant::now() >= deadline {
                if self.overcome(&path, &mut tried)? {
                    return Ok(LockOutcome::Held(Lock { _file: None }));
                }
                deadline = Instant::now() + KILL_GRACE;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the holder, or finds that there is no need; true when it is another instance's, beside which this run goes
    /// on. Of several older runs that wait as well, the next one may have the lock by now: only one that was `tried`
    /// before has survived. Between having the lock and writing into it there is a moment, so nobody, where a living
    /// holder should be named, is given some.
    fn overcome(&self, path: &Path, tried: &mut Vec<Option<Stamp>>) -> anyhow::Result<bool> {
        const MOMENTS: usize = 2;
        let shown = path.display();
        let waited = format!("for more than {:.1} s", self.patience.as_secs_f32());
        let found = read_holder(path);
        let alive = found.as_ref().is_some_and(|(holder, _)| start_of(holder.pid) == Some(holder.start));
        if !alive && tried.iter().filter(|holder| holder.is_none()).count() < MOMENTS {
            tried.push(None);
            return Ok(false);
        }
        let (holder, instance) = found.with_context(|| {
            format!("another lvs-notify holds {shown} {waited}; find it with `fuser {shown}`")
        })?;
        let (pid, older) = (holder.pid, self.stamp.is_after(&holder));
        if instance != self.instance {
            log::warn!("lvs-notify process {pid} of {instance} holds {shown} {waited}; going on beside it");
            return Ok(true);
        }
        let holder = Some(holder);
        if !alive || !older || !self.may_kill_older || tried.contains(&holder) {
            bail!(
                "lvs-notify process {pid} holds the lock {shown} {waited}; look at it with `cat /proc/{pid}/stack`, end it with `kill -9 {pid}`, and run this again"
            );
        }
        log::warn!("killing lvs-notify process {pid}, called before this one, which holds the lock {waited}");
        match kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => tried.push(holder),
            Err(errno) => bail!("killing process {pid}: {errno}"),
        }
        Ok(false)
    }
}

fn read_holder(path: &Path) -> Option<(Stamp, String)> {
    let text = String::from_utf8(read_own(path, MAX_HOLDER).ok()?).ok()?;
    let (stamp, instance) = text.split_once(' ')?;
    Some((stamp.parse().ok()?, instance.to_owned()))
}
