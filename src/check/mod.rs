//! The command `check`: mistakes in desired-state files, keepalived.conf and this host, each with its consequence.
//!
//! Owns which files and whether the host are looked at, and the order of findings. `rules` is the table; `keepalived` and
//! `files` decide what breaks a rule, and read nothing: what there is comes in as [`Input`] from `facts`. Leaves the
//! words around findings to `report::check`. Changes nothing. Called by `lib`.

pub mod facts;
mod files;
mod keepalived;
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::config::Config;
use crate::config::source::Source;
use crate::instance;
use crate::keepalived_conf::files::{find, id};
use crate::keepalived_conf::{self, meaning::Conf};
use crate::state::record;

use facts::Host;
use rules::Findings;

pub use facts::{File, Input};
pub use rules::{Finding, Rule, Severity};

const KEEPALIVED_CONF: &str = "/etc/keepalived/keepalived.conf";

/// Everything that was checked, and what came of it.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Checked {
    /// Of its JSON
    pub version: u8,
    pub files: Vec<File>,
    /// What is wrong with the others, with their places
    pub invalid: Vec<String>,
    /// Its files that were read
    pub keepalived_conf: Vec<String>,
    pub host: bool,
    pub findings: Vec<Finding>,
}

/// Checks what was named, or everything that is this host's, which must be something.
pub fn run(named: &[PathBuf], config: Option<&Path>, conf: Option<&Path>, host: bool) -> Result<Checked> {
    let complete = named.is_empty() && config.is_none();
    let paths: Vec<PathBuf> = match (named, config) {
        ([], Some(file)) => vec![file.to_owned()],
        ([], None) => instance::all().into_iter().map(|instance| instance.path).collect(),
        (named, _) => named.to_vec(),
    };
    let host = host || named.iter().all(|path| path.parent() == Some(Path::new(instance::DIRECTORY)));
    let start = conf.or(Some(Path::new(KEEPALIVED_CONF)).filter(|path| host && path.exists()));
    if paths.is_empty() && start.is_none() {
        bail!("nothing to check: there is no file in {}, and no {KEEPALIVED_CONF}", instance::DIRECTORY);
    }
    if let Some(path) = start {
        // The first file must be there; what an include does not find is a finding.
        std::fs::File::open(path)
            .with_context(|| format!("reading {} as keepalived.conf", path.display()))?;
    }
    let mut checked = Checked { version: 1, host, ..Checked::default() };
    for path in &paths {
        match Source::read(path).and_then(|source| Ok((Config::parse(&source)?, source))) {
            Ok((config, source)) => {
                let instance = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let unready = record::rehearsal(&instance, &Ok(source)).map(|last| last.problems);
                checked.files.push(File { path: path.display().to_string(), instance, config, unready });
            }
            Err(error) => checked.invalid.push(format!("{error:#}")),
        }
    }
    let tree = start.map(|path| keepalived_conf::parse(path, &id(), &mut find));
    let conf = tree.as_ref().map(Conf::of);
    checked.findings = findings(Input {
        files: &checked.files,
        complete: complete && checked.invalid.is_empty(),
        conf: conf.as_ref(),
        said: start.and_then(facts::keepalived_says).as_deref(),
        host: host.then(|| Host::read(conf.as_ref())).as_ref(),
    });
    let read = tree.iter().flat_map(|tree| &tree.files);
    checked.keepalived_conf = read.map(|path| path.display().to_string()).collect();
    Ok(checked)
}

pub fn findings(input: Input<'_>) -> Vec<Finding> {
    let mut found = Findings::default();
    keepalived::check(input, &mut found);
    files::check(input, &mut found);
    // Last: what is told of a line already has its consequence there.
    keepalived::said(input, &mut found);
    found.0.sort();
    // One program in four scripts is one finding, at the first of them.
    let mut told = BTreeSet::new();
    found.0.retain(|finding| told.insert((finding.rule, finding.file.clone(), finding.what.clone())));
    found.0
}
