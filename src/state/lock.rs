//! The single writer, and what becomes of a holder that hangs.
//!
//! Owns /run/lvs-notify/lock: one lock for all instances, because they share one IPVS table, whose
//! dumps skip entries while somebody changes it. Called by `reconcile`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files::{RUN, open_own, own_directory};
use super::stamp::{Stamp, start_of};

/// How long a run waits that has no shorter time limit.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a killed holder may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// The lock, held until it is dropped.
pub struct Lock(Option<Flock<File>>);

/// How waiting for the lock ended.
pub enum Waited {
    Held(Lock),
    GivenUp,
}

/// What was found of a holder that has the lock for too long.
enum Overcome {
    /// Another instance's: this run goes on without the lock
    Beside,
    Killed(Stamp),
    /// It has let go meanwhile, or cannot be named yet
    Gone,
}

/// Who waits, and how.
pub struct Waiter<'a> {
    pub stamp: &'a Stamp,
    pub instance: &'a str,
    pub patience: Duration,
    /// Whether it carries a notification, which overrules older runs of its instance
    pub overrules: bool,
}

/// Holds the lock for a change of an instance's own files, which overrules nobody.
///
/// # Errors
/// When a run of this instance does not let go of it.
pub fn hold(instance: &str) -> anyhow::Result<Lock> {
    let waiter = Waiter { stamp: &Stamp::own()?, instance, patience: PATIENCE, overrules: false };
    match waiter.wait(|| false)? {
        Waited::Held(lock) => Ok(lock),
        Waited::GivenUp => Ok(Lock(None)),
    }
}

impl Waiter<'_> {
    /// Waits for the lock. A holder that still has it at the deadline hangs or is stopped. When it
    /// was called before this process for the same instance it is killed, which is safe at any
    /// instant, since every run converges from whatever state it finds. The run of another instance
    /// is left alone, and this one goes on without the lock: what a dump may miss meanwhile is
    /// found by reading back.
    ///
    /// # Errors
    /// When a run of this instance holds it that this one may not overrule, or that survives.
    pub fn wait(&self, mut give_up: impl FnMut() -> bool) -> anyhow::Result<Waited> {
        let path = Path::new(RUN).join("lock");
        let opened = own_directory(Path::new(RUN))
            .and_then(|()| open_own(&path, OpenOptions::new().read(true).write(true).create(true)));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => {
                log::warn!("going on without the lock {}: {error:#}", path.display());
                return Ok(Waited::Held(Lock(None)));
            }
        };
        let mut deadline = Instant::now() + self.patience;
        let (mut killed, mut gone) = (None, 0);
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    // For whoever waits in vain. A holder that cannot be named is not killed.
                    let Stamp { boot, start, pid } = self.stamp;
                    let _ = lock.set_len(0);
                    let _ = write!(lock, "{boot} {start} {pid} {}", self.instance);
                    return Ok(Waited::Held(Lock(Some(lock))));
                }
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, errno)) => bail!("locking {}: {errno}", path.display()),
            };
            if give_up() {
                return Ok(Waited::GivenUp);
            }
            if Instant::now() >= deadline {
                match self.overcome(&path, killed.as_ref(), gone)? {
                    Overcome::Beside => return Ok(Waited::Held(Lock(None))),
                    Overcome::Killed(holder) => killed = Some(holder),
                    Overcome::Gone => gone += 1,
                }
                deadline = Instant::now() + LAST_BREATH;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the holder, or finds that there is no need. Of several older runs that wait as well, the next one may have
    /// the lock by now: only the one that was `killed` before has survived. Between having the lock and writing into it
    /// there is a moment, so a holder that cannot be named, or is no more, is given some.
    fn overcome(&self, path: &Path, killed: Option<&Stamp>, gone: u32) -> anyhow::Result<Overcome> {
        const MOMENTS: u32 = 2;
        let path_shown = path.display();
        let waited = self.patience.as_secs_f32();
        let found = read_holder(path);
        let alive = found.as_ref().is_some_and(|(holder, _)| start_of(holder.pid) == Some(holder.start));
        if !alive && gone < MOMENTS {
            return Ok(Overcome::Gone);
        }
        let (holder, instance) = found.with_context(|| {
            format!("another lvs-notify holds {path_shown} for more than {waited:.1} s; find it with `fuser {path_shown}`")
        })?;
        let pid = holder.pid;
        if instance != self.instance {
            log::warn!(
                "lvs-notify process {pid} of {instance} holds {path_shown} for more than {waited:.1} s; going on beside it"
            );
            return Ok(Overcome::Beside);
        }
        if killed == Some(&holder) || !self.overrules || !self.stamp.is_after(&holder) || !alive {
            bail!(
                "lvs-notify process {pid} holds the lock {path_shown} for more than {waited:.1} s; look at it with `cat /proc/{pid}/stack`, end it with `kill -9 {pid}`, and run this again"
            );
        }
        log::warn!(
            "killing lvs-notify process {pid}, called before this one, which holds the lock for more than {waited:.1} s"
        );
        match kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(Overcome::Killed(holder)),
            Err(errno) => bail!("killing process {pid}: {errno}"),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            let _ = lock.unlock();
        }
    }
}

fn read_holder(path: &Path) -> Option<(Stamp, String)> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.splitn(4, ' ');
    let boot = words.next()?.to_owned();
    let stamp = Stamp { boot, start: words.next()?.parse().ok()?, pid: words.next()?.parse().ok()? };
    Some((stamp, words.next()?.to_owned()))
}
