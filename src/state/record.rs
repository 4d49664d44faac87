//! What the last run of an instance left behind: the record; and what its last rehearsed takeover has shown.
//!
//! Owns their shapes and files, `INSTANCE.json` and `INSTANCE.rehearsal` below /run/lvs-notify. Called by `reconcile` and
//! `rehearsal`, which write them, and by whatever wants to know the role, what was made for an instance, or whether it could
//! take over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files::{RUN, STATE, path_of, read_json, write_json};
use super::last_good::{program, sealed};
use super::stamp::{Stamp, place, seconds_now};
use crate::config::source::Source;
use crate::model::{Owned, Parameter, Role};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The boot and the network namespace that it is of
    pub place: String,
    /// The desired-state file
    pub file: PathBuf,
    /// The role that was asked for last
    pub role: Role,
    /// When the role was first asked for, in seconds since 1970
    pub since: u64,
    /// The role change was carried out to its end
    pub complete: bool,
    /// The stamp of the run that carries it out
    pub by: String,
    /// How it failed
    pub failure: Option<String>,
    /// Why neighbours were not told of the VIPs
    pub unannounced: Option<String>,
    /// Objects made for the instance
    pub owned: Owned,
    /// The last run that made a change or was asked for a role
    pub last: Option<LastRun>,
}

impl Record {
    /// Of a role that has just been asked for, after what is on record.
    pub fn of(file: &Path, role: Role, since: u64, before: Option<&Self>) -> Self {
        let same = before.filter(|record| record.role == role);
        Self {
            place: place().to_owned(),
            file: file.to_owned(),
            role,
            since: same.map_or(since, |record| record.since),
            complete: false,
            by: String::new(),
            failure: same.and_then(|record| record.failure.clone()),
            unannounced: same.and_then(|record| record.unannounced.clone()),
            owned: before.map(|record| record.owned.clone()).unwrap_or_default(),
            last: before.and_then(|record| record.last.clone()),
        }
    }

    /// What is on record with the newest notification, which its run has not always written down.
    pub fn newest(instance: &str, file: &Path) -> Option<Self> {
        let (before, own) = (read(instance), Stamp::own().ok()?);
        let Some((stamp, role)) = own.latest(instance) else { return before };
        let mut record = Self::of(file, role, stamp.at(), before.as_ref());
        let same = before.filter(|before| before.role == role);
        record.complete = same.as_ref().is_some_and(|same| same.complete);
        // The last to work for it: the notification's own run, or an `apply`.
        let by = same.as_ref().and_then(|same| same.by.parse().ok()).unwrap_or(stamp);
        record.by = by.to_string();
        let how = if same.is_some() { "did not end" } else { "has left no record" };
        if !record.complete && !by.lives() {
            record.failure = Some(format!("its run, process {}, {how}", by.pid));
        }
        Some(record)
    }

    /// Who lets connections end on the way from MASTER, for as long as that may take.
    pub fn drained_by(&self, drain: Duration) -> Option<Stamp> {
        let by: Stamp = self.by.parse().ok()?;
        let in_time = self.role == Role::Backup && seconds_now() < self.since + drain.as_secs();
        (in_time && !self.complete && by.lives()).then_some(by)
    }

    /// What the run that carried it out could not do.
    pub fn trouble(&self, instance: &str) -> Option<String> {
        let (by, why): (String, String) = read_json(&path_of(RUN, instance, "trouble")).ok()??;
        (by == self.by).then_some(why)
    }
    fn is_renamed(&self) -> bool {
        !self.file.exists()
    }
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
    /// Milliseconds until all VIPs had been announced
    pub announced: Option<f64>,
    /// What they were spent on
    pub phases: Vec<Lap>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lap {
    pub phase: String,
    pub milliseconds: f64,
}

/// Reads the record of an instance; `None` when it is missing, damaged, somebody else's, or of another boot or network
/// namespace, where nothing of it is true.
pub fn read(instance: &str) -> Option<Record> {
    let path = path_of(RUN, instance, "json");
    let record: Option<Record> = read_json(&path).unwrap_or_else(|error| {
        log::warn!("the record {} is not used: {error:#}", path.display());
        None
    });
    record.filter(|record| record.place == place())
}

/// The other instances of this host that have a record, with it.
pub fn others(instance: &str) -> BTreeMap<String, Record> {
    all(instance).filter(|(_, record)| !record.is_renamed()).collect()
}

/// Names that other instances had when they last ran: their files are gone.
pub fn old_names(instance: &str) -> impl Iterator<Item = String> {
    all(instance).filter(|(_, record)| record.is_renamed()).map(|(name, _)| name)
}

fn all(instance: &str) -> impl Iterator<Item = (String, Record)> {
    let files = glob::glob(&format!("{RUN}/*.json")).into_iter().flatten().flatten();
    let names = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    names.filter(move |name| name != instance).filter_map(|name| Some((name.clone(), read(&name)?)))
}

/// The values that kernel parameters had before the first instance of this host changed them; over a power failure and an
/// instance's renaming.
pub fn originals() -> BTreeMap<Parameter, String> {
    let list: Option<Vec<_>> = read_json(&originals_file()).unwrap_or_else(|error| {
        log::warn!("values found before are not known: {error:#}");
        None
    });
    list.unwrap_or_default().into_iter().collect()
}

/// Keeps these values for good.
pub fn keep_originals(values: &BTreeMap<Parameter, String>) -> anyhow::Result<()> {
    if originals() == *values {
        return Ok(());
    }
    write_json(&originals_file(), &values.iter().collect::<Vec<_>>(), true)
}

fn originals_file() -> PathBuf {
    Path::new(STATE).join("originals.json")
}

/// Writes the record of an instance. When that fails, the kernel's state is right all the same.
pub fn save(instance: &str, record: &Record) -> anyhow::Result<()> {
    write_json(&path_of(RUN, instance, "json"), record, false)
}

/// Notes what a run could not do that would outlive it, which becomes known after it has written its record.
pub fn keep_trouble(instance: &str, by: &Stamp, why: &str) -> anyhow::Result<()> {
    write_json(&path_of(RUN, instance, "trouble"), &(by.to_string(), why), false)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rehearsal {
    /// Its end, in seconds since 1970
    pub at: u64,
    /// When the desired-state file was edited last, in seconds since 1970
    pub edited: u64,
    /// From the reading of the file to the end of the last change
    pub milliseconds: f64,
    /// Why a takeover would fail; none when it would succeed
    pub problems: Vec<String>,
}

/// What a rehearsal is of: the file's text, this program, this boot, this network namespace.
fn seal(source: &Source) -> Option<[u8; 8]> {
    Some(sealed(&program()?, &source.text, place().as_bytes()))
}

/// The last rehearsal of a takeover, unless something has changed since.
pub fn rehearsal(instance: &str, file: &Result<Source, String>) -> Option<Rehearsal> {
    let (of, last): (Option<[u8; 8]>, Rehearsal) = read_json(&path_of(RUN, instance, "rehearsal")).ok()??;
    (of? == seal(file.as_ref().ok()?)?).then_some(last)
}

/// Whether a takeover with this file should be rehearsed: again, when what it lacked may be there by now.
pub fn is_due(instance: &str, file: &Result<Source, String>) -> bool {
    file.is_ok() && rehearsal(instance, file).is_none_or(|last| !last.problems.is_empty())
}

pub fn keep_rehearsal(instance: &str, source: &Source, last: &Rehearsal) -> anyhow::Result<()> {
    write_json(&path_of(RUN, instance, "rehearsal"), &(seal(source), last), false)
}
