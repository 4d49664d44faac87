//! What is remembered between runs: the record, the last good file, and who was called last.
//!
//! Owns /run/lvs-notify (but for the lock, which is `lock`'s) and, in /var/lib/lvs-notify, last good files with the
//! compiled copies of `config::cache` beside them. Called by `reconcile`, `preview` and `basis`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::files::{RUN, STATE, create_own, own_directory, read_json, read_own, write_json, write_own};
use super::stamp::{Stamp, now_in_ticks};
use crate::config::Config;
use crate::config::cache;
use crate::config::source::{MAX_BYTES, Source};
use crate::model::{Owned, Role};

/// A compiled copy that is larger than this is not ours.
const MAX_COMPILED: u64 = 2 * MAX_BYTES;

/// What the last run of an instance left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

    /// Name of the instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    fn path(&self, directory: &str, ending: &str) -> PathBuf {
        Path::new(directory).join(format!("{}.{ending}", self.instance))
    }

    /// Reads the record; a missing, damaged or foreign one is told as `None`.
    pub fn record(&self) -> Option<Record> {
        let path = self.path(RUN, "json");
        let why = match read_json::<Record>(&path) {
            Ok(Some(record)) if record.version == 1 => return Some(record),
            Ok(Some(record)) => format!("it has version {}", record.version),
            Ok(None) => return None,
            Err(error) => format!("{error:#}"),
        };
        log::warn!("the record {} is not used: {why}", path.display());
        None
    }

    /// The other instances of this host that have a record, with it.
    pub fn others(&self) -> Vec<(String, Record)> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(RUN).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(name) = name.filter(|name| *name != self.instance) {
                others.extend(Self::new(name).record().map(|record| (name.to_owned(), record)));
            }
        }
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        others
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When /run cannot be written; the kernel's state is right all the same.
    pub fn save(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.path(RUN, "json");
        write_json(&path, record, false).with_context(|| format!("writing the record {}", path.display()))
    }

    /// Where the last good file is kept.
    pub fn last_good_path(&self) -> PathBuf {
        self.path(STATE, "yaml")
    }

    /// The last file that was applied without error.
    ///
    /// # Errors
    /// When there is none, or when others could have written it.
    pub fn last_good(&self) -> anyhow::Result<Source> {
        Source::read(&self.last_good_path())
    }

    /// What a text means, when the compiled copy is of this very text.
    pub fn compiled(&self, text: &str) -> Option<Config> {
        // One that is cut there is not believed.
        cache::unpack(text, &read_own(&self.path(STATE, "compiled"), MAX_COMPILED).ok()?)
    }

    /// Keeps a file that was applied without error, unless it is kept already, and what it means unless that is known
    /// from the compiled copy.
    ///
    /// # Errors
    /// When /var/lib cannot be written.
    pub fn keep_good(&self, source: &Source, config: &Config, compiled: bool) -> anyhow::Result<()> {
        let keep = |path: &Path, content: &[u8], durable| {
            write_own(path, content, 0o600, durable)
                .with_context(|| format!("keeping the file as {}", path.display()))
        };
        if !self.last_good().is_ok_and(|kept| kept.text == source.text) {
            keep(&self.last_good_path(), source.text.as_bytes(), true)?;
        }
        let packed = if compiled { None } else { cache::pack(&source.text, config) };
        if let Some(packed) = packed.filter(|packed| packed.len() as u64 <= MAX_COMPILED) {
            // Without it nothing is lost but time. It is not worth waiting for a disk either: what a power failure
            // leaves of it is not believed.
            keep(&self.path(STATE, "compiled"), &packed, false)
                .unwrap_or_else(|error| log::warn!("{error:#}"));
        }
        Ok(())
    }

    /// Tells the other processes of this instance that this one was called, and for which role, with a mark: a file
    /// of that name. Creating one needs no lock, so a process that hangs cannot stop another one here.
    ///
    /// # Errors
    /// When /run cannot be written; the order of overlapping calls is then left to the lock.
    pub fn announce_role(&self, stamp: &Stamp, role: Role) -> anyhow::Result<()> {
        own_directory(Path::new(RUN))?;
        let mark = format!("{stamp}-{}", role.command());
        create_own(&self.path(RUN, "notifications").join(mark)).map(drop)
    }

    /// Every mark, with what its name says.
    fn marks(&self) -> impl Iterator<Item = (PathBuf, Stamp, Role)> {
        let entries = std::fs::read_dir(self.path(RUN, "notifications")).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let (stamp, role) = name.to_str()?.rsplit_once('-')?;
            Some((entry.path(), stamp.parse().ok()?, role.parse().ok()?))
        })
    }

    /// The latest notification that any process of this instance got, in this boot.
    pub fn latest(&self, boot: &str) -> Option<(Stamp, Role)> {
        let now = now_in_ticks();
        let credible = self.marks().filter(|(_, stamp, _)| stamp.boot == boot && stamp.start <= now);
        let later =
            |one: (Stamp, Role), other: (Stamp, Role)| if other.0.is_after(&one.0) { other } else { one };
        credible.map(|(_, stamp, role)| (stamp, role)).reduce(later)
    }

    /// The notification that came after `stamp`, if any did.
    pub fn newer_than(&self, stamp: &Stamp) -> Option<String> {
        let (latest, role) = self.latest(&stamp.boot)?;
        (latest != *stamp && latest.is_after(stamp)).then(|| format!("{role} of process {}", latest.pid))
    }

    /// Forgets notifications older than `stamp`.
    pub fn forget_before(&self, stamp: &Stamp) {
        for (path, other, _) in self.marks() {
            if other != *stamp && stamp.is_after(&other) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
