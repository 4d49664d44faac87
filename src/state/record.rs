//! What the last run of an instance left behind: the record.
//!
//! Owns its shape and its file, `INSTANCE.json` below /run/lvs-notify. Called by `reconcile`, which writes it, and by
//! whatever wants to know the role, or what was made for an instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::{RUN, path_of, read_json, write_json};
use crate::model::{Owned, Role};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
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

/// Reads the record of an instance; a missing, damaged or foreign one is told as `None`.
pub fn read(instance: &str) -> Option<Record> {
    let path = path_of(RUN, instance, "json");
    read_json(&path).unwrap_or_else(|error| {
        log::warn!("the record {} is not used: {error:#}", path.display());
        None
    })
}

/// The other instances of this host that have a record, with it.
pub fn others(instance: &str) -> BTreeMap<String, Record> {
    let files = glob::glob(&format!("{RUN}/*.json")).into_iter().flatten().flatten();
    let names = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    names.filter(|name| name != instance).filter_map(|name| Some((name.clone(), read(&name)?))).collect()
}

/// Writes the record of an instance. When that fails, the kernel's state is right all the same.
pub fn save(instance: &str, record: &Record) -> anyhow::Result<()> {
    write_json(&path_of(RUN, instance, "json"), record, false)
}
