//! What the last run of an instance left behind: the record.
//!
//! Owns its shape and its file, `INSTANCE.json` below /run/lvs-notify. Called by `reconcile`, which writes it, and by
//! whatever wants to know the role, or what was made for an instance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{RUN, STATE, path_of, read_json, write_json};
use super::stamp::place;
use crate::model::{Owned, Parameter, Role};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The boot and the network namespace that it is of; filled in when it is saved
    #[serde(default = "here")]
    pub place: String,
    /// The desired-state file
    #[serde(default)]
    pub file: PathBuf,
    /// The role that was asked for last
    pub role: Role,
    /// When the role was first asked for, in seconds since 1970
    pub since: u64,
    /// The role change was carried out to its end
    pub complete: bool,
    /// Objects made for the instance
    #[serde(default)]
    pub owned: Owned,
    /// The last run that made a change or was asked for a role
    #[serde(default)]
    pub last: Option<LastRun>,
}

/// Where this process is; a record that an older version has written names no place.
pub fn here() -> String {
    place().to_owned()
}

impl Record {
    /// A record of an older version does not say which file it is of.
    fn is_renamed(&self) -> bool {
        self.file != Path::new("") && !self.file.exists()
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
    /// Milliseconds to the first announcement
    pub announced: Option<f64>,
    pub phases: Vec<(String, f64)>,
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
