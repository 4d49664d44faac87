//! What is remembered between runs: the record, the last good file, and who was called last.
//!
//! Owns /run/lvs-notify (but for the lock, which is `lock`'s) and, in /var/lib/lvs-notify, last good files with the
//! compiled copies of `compiled` beside them.
//! All of it is a help: with both directories empty, the same command converges to the same
//! state. Called by `reconcile` and by `status`.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::files::{MAX_RECORD, RUN, STATE, is_missing, open_own, own_directory, read_own, replace};
use super::stamp::{Stamp, now_in_ticks};
use crate::config::Config;
use crate::config::cache;
use crate::config::source::{MAX_BYTES, Source};
use crate::model::{Owned, Role};

/// A compiled copy that is larger than this is not ours.
const MAX_COMPILED: u64 = 2 * MAX_BYTES;

/// What the last run of an instance left behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// The role that was asked for last
    pub role: Role,
    /// When the role was first asked for, in seconds since 1970
    pub since: u64,
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
    pub command: String,
    /// The process that ran it
    pub pid: Option<u32>,
    pub changes: usize,
    pub failed: usize,
    /// Milliseconds from the start of the process to the end of the last change
    pub milliseconds: f64,
    /// Milliseconds to the first announcement
    pub announced: Option<f64>,
    pub phases: Vec<(String, f64)>,
}

impl LastRun {
    /// Notes how long a phase took.
    pub fn phase(&mut self, phase: impl ToString, took: Duration) {
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
    pub fn compiled(&self, text: &str) -> Option<Config> {
        // One that is cut there is not believed.
        cache::unpack(text, &read_own(&self.compiled_path(), MAX_COMPILED).ok()?)
    }

    /// Keeps what a file means, for the next run.
    ///
    /// # Errors
    /// When /var/lib cannot be written; the next run reads the file itself.
    pub fn keep_compiled(&self, source: &Source, config: &Config) -> anyhow::Result<()> {
        match cache::pack(&source.text, config) {
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
