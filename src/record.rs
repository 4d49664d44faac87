//! What is remembered between runs: the record, the last good file, and who was called last.
//!
//! Owns /run/lvs-notify (but for the lock, which is `lock`'s) and /var/lib/lvs-notify (last good files, the
//! compiled copies of `compiled` beside them, and servers drained by hand).
//! All of it is a help: with both directories empty, the same command converges to the same
//! state. Called by `reconcile` and by `status`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::libc;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::compiled;
use crate::config::{MAX_BYTES, Source, refuse_foreign_writers};
use crate::desired::Declared;
use crate::drain::Drain;
use crate::model::Role;
use crate::plan::{Owned, Phase};

/// Records, notifications and the lock; empty after every boot.
pub(crate) const RUN: &str = "/run/lvs-notify";
/// Last good files.
const STATE: &str = "/var/lib/lvs-notify";
/// A record larger than this is not ours.
const MAX_RECORD: u64 = 16 << 20;
/// Nor is a compiled copy that is larger than this.
const MAX_COMPILED: u64 = 2 * MAX_BYTES;

/// When a process was forked: keepalived's order of events, since it forks its scripts in order
/// but does not run them in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// First digits of the boot's random id: ticks of another boot cannot be compared.
    pub boot: String,
    /// Start of the process in clock ticks since boot (`/proc/PID/stat`, field 22)
    pub start: u64,
    /// Process id
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

    /// An event that this process was told of just now. Events of one process are a tick apart at least,
    /// so that they have an order.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn now() -> anyhow::Result<Self> {
        std::thread::sleep(Duration::from_millis(1000 / TICKS));
        Ok(Self { start: now_in_ticks(), ..Self::own()? })
    }

    /// Whether this process was forked after `other`. Of two in the same tick the higher PID is
    /// the later one, unless the numbers have just started again from the bottom.
    pub fn is_after(&self, other: &Self) -> bool {
        if self.boot != other.boot {
            return true;
        }
        if self.start != other.start {
            return self.start > other.start;
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

/// What the last run of an instance left behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Format of the record
    pub version: u32,
    /// The role that was asked for last
    pub role: Role,
    /// When the role was first asked for, in seconds since 1970
    pub since: u64,
    /// Who asked
    pub stamp: Stamp,
    /// The role change was carried out to its end
    pub complete: bool,
    /// Objects made for the instance
    #[serde(default)]
    pub owned: Owned,
    /// Why the last good file had to be used instead of the present one
    #[serde(default)]
    pub fallback: Option<String>,
    /// The last run that made a change or was asked for a role
    #[serde(default)]
    pub last: Option<LastRun>,
}

/// A run in figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// Its end, in seconds since 1970
    pub at: u64,
    /// The command word
    pub command: String,
    /// The process that ran it
    pub pid: Option<u32>,
    /// Changes made
    pub changes: usize,
    /// Changes that failed
    pub failed: usize,
    /// Milliseconds from the start of the process to the end of the last change
    pub milliseconds: f64,
    /// Milliseconds to the first announcement
    pub announced: Option<f64>,
    /// Milliseconds per phase
    pub phases: Vec<(String, f64)>,
}

impl LastRun {
    /// Notes how long a phase took.
    pub fn phase(&mut self, phase: Phase, took: Duration) {
        self.phases.push((phase.to_string(), took.as_secs_f64() * 1000.0));
    }
}

/// The files of one instance.
#[derive(Clone, Debug)]
pub struct Store {
    instance: String,
}

impl Store {
    /// The store of an instance, whose name is safe as a file name.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned() }
    }

    /// Reads the record; a missing, damaged or foreign one is told as `None`.
    pub fn record(&self) -> Option<Record> {
        let path = self.record_path();
        let read = || -> anyhow::Result<Record> {
            let record: Record = serde_json::from_slice(&read_own(&path, MAX_RECORD)?)?;
            if record.version != 1 {
                bail!("it has version {}", record.version);
            }
            Ok(record)
        };
        match read() {
            Ok(record) => Some(record),
            Err(error) => {
                if !is_missing(&error) {
                    log::warn!("the record {} is not used: {error:#}", path.display());
                }
                None
            }
        }
    }

    /// The other instances of this host that have a record, with it.
    pub fn others(&self) -> Vec<(String, Record)> {
        let own = self.record_path();
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(RUN).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json") && *path != own);
        paths.sort();
        let name = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let record = |name: String| Self::new(&name).record().map(|record| (name, record));
        paths.iter().filter_map(name).filter_map(record).collect()
    }

    /// Name of the instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When /run cannot be written; the kernel's state is right all the same.
    pub fn save(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.record_path();
        let text = serde_json::to_vec(record)?;
        own_directory(Path::new(RUN))
            .and_then(|()| replace(&path, &text, 0o644, false))
            .with_context(|| format!("writing the record {}", path.display()))
    }

    fn record_path(&self) -> PathBuf {
        Path::new(RUN).join(format!("{}.json", self.instance))
    }

    fn notifications(&self) -> PathBuf {
        Path::new(RUN).join(format!("{}.notifications", self.instance))
    }

    /// The last file that was applied without error.
    ///
    /// # Errors
    /// When there is none, or when others could have written it.
    pub fn last_good(&self) -> anyhow::Result<Source> {
        Source::read(&self.last_good_path())
    }

    /// Where the last good file is kept.
    pub fn last_good_path(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}.yaml", self.instance))
    }

    /// Keeps a file that was applied without error, unless it is kept already.
    ///
    /// # Errors
    /// When /var/lib cannot be written.
    pub fn keep_good(&self, source: &Source) -> anyhow::Result<()> {
        if self.last_good().is_ok_and(|kept| kept.text == source.text) {
            return Ok(());
        }
        self.keep(&self.last_good_path(), source.text.as_bytes(), true)
    }

    /// What a text means, when the compiled copy is of this very text.
    pub fn compiled(&self, text: &str) -> Option<Declared> {
        // One that is cut there is not believed.
        compiled::unpack(text, &read_own(&self.compiled_path(), MAX_COMPILED).ok()?)
    }

    /// Keeps what a file means, for the next run.
    ///
    /// # Errors
    /// When /var/lib cannot be written; the next run reads the file itself.
    pub fn keep_compiled(&self, source: &Source, declared: &Declared) -> anyhow::Result<()> {
        match compiled::pack(&source.text, declared) {
            // Not worth waiting for a disk: what a power failure leaves of it is not believed.
            Some(packed) if packed.len() as u64 <= MAX_COMPILED => {
                self.keep(&self.compiled_path(), &packed, false)
            }
            _ => Ok(()),
        }
    }

    fn compiled_path(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}.compiled", self.instance))
    }

    fn keep(&self, path: &Path, content: &[u8], durable: bool) -> anyhow::Result<()> {
        own_directory(Path::new(STATE))
            .and_then(|()| replace(path, content, 0o600, durable))
            .with_context(|| format!("keeping the file as {}", path.display()))
    }

    /// Real servers that are drained by hand; none without the file.
    ///
    /// # Errors
    /// When the list cannot be read, or others could have written it.
    pub fn drains(&self) -> anyhow::Result<Vec<Drain>> {
        let path = self.drains_path();
        let reading = || format!("reading the drained real servers from {}", path.display());
        let text = match read_own(&path, MAX_RECORD) {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            other => other.with_context(reading)?,
        };
        serde_json::from_slice(&text).with_context(reading)
    }

    /// Keeps the list over failover and reboot.
    ///
    /// # Errors
    /// When /var/lib cannot be written.
    pub fn keep_drains(&self, list: &[Drain]) -> anyhow::Result<()> {
        let path = self.drains_path();
        let text = serde_json::to_vec(list)?;
        own_directory(Path::new(STATE))
            .and_then(|()| replace(&path, &text, 0o644, true))
            .with_context(|| format!("keeping the drained real servers in {}", path.display()))
    }

    fn drains_path(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}.drains.json", self.instance))
    }

    /// Tells the other processes of this instance that this one was called, and for which role.
    /// Creating a file needs no lock, so a process that hangs cannot stop another one here.
    ///
    /// # Errors
    /// When /run cannot be written; the order of overlapping calls is then left to the lock.
    pub fn announce_role(&self, stamp: &Stamp, role: Role) -> anyhow::Result<()> {
        let directory = self.notifications();
        own_directory(Path::new(RUN))?;
        own_directory(&directory)?;
        let name = format!("{}-{}-{}-{}", stamp.boot, stamp.start, stamp.pid, role.command());
        open_own(&directory.join(name), OpenOptions::new().write(true).create(true).truncate(true))?;
        Ok(())
    }

    /// The latest notification that any process of this instance got, in this boot.
    pub fn latest(&self, boot: &str) -> Option<(Stamp, Role)> {
        let mut latest: Option<(Stamp, Role)> = None;
        let now = now_in_ticks();
        for entry in std::fs::read_dir(self.notifications()).ok()?.flatten() {
            let Some((stamp, role)) = entry.file_name().to_str().and_then(parse_notification) else {
                continue;
            };
            let credible = stamp.boot == boot && stamp.start <= now;
            if credible && latest.as_ref().is_none_or(|(known, _)| stamp.is_after(known)) {
                latest = Some((stamp, role));
            }
        }
        latest
    }

    /// Forgets notifications older than `stamp`.
    pub fn forget_before(&self, stamp: &Stamp) {
        let directory = self.notifications();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let older = match entry.file_name().to_str().and_then(parse_notification) {
                Some((other, _)) => stamp.is_after(&other) && other != *stamp,
                None => false,
            };
            if older {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn parse_notification(name: &str) -> Option<(Stamp, Role)> {
    let mut parts = name.split('-');
    let boot = parts.next()?.to_owned();
    let start = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    Some((Stamp { boot, start, pid }, parts.next()?.parse().ok()?))
}

/// Opens a file that is nobody else's, never through a link.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let file =
        options.mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        bail!("{} is not a regular file of its own", path.display());
    }
    refuse_foreign_writers(&metadata, &path.display().to_string())?;
    Ok(file)
}

/// The content of such a file, or its first bytes when it has more than `most`.
fn read_own(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_own(path, OpenOptions::new().read(true))?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Makes a directory, or accepts one that only its owner, root or the caller, may change.
pub(crate) fn own_directory(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making the directory {}", path.display()));
        }
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    if metadata.mode() & 0o1000 != 0 {
        bail!("{} is a directory in which everybody may write", path.display());
    }
    refuse_foreign_writers(&metadata, &path.display().to_string())
}

/// Replaces a file in one step: a reader finds the old content or the new one, and so does the next
/// boot when it is `durable`. A takeover does not wait for a disk on behalf of a record in /run.
///
/// # Errors
/// When the directory cannot be written.
pub fn replace(path: &Path, content: &[u8], mode: u32, durable: bool) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // What a killed process with the same PID left behind; O_EXCL never follows a link.
    let _ = std::fs::remove_file(&temporary);
    let write = || -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)?;
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
