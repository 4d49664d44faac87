//! The command `check`: mistakes in desired-state files, keepalived.conf and this host, each with its consequence.
//!
//! Owns which files and whether the host are looked at, and the order of findings. `rules` is the table; `keepalived`,
//! `files` and `host` decide what breaks a rule, and read nothing: what there is comes in as [`Input`], of this host from
//! `facts`. Leaves the words around findings to `report::check`. Changes nothing. Called by `lib`.

pub mod facts;
mod files;
mod host;
mod keepalived;
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config::Config;
use crate::config::source::Source;
use crate::instance;
use crate::keepalived_conf::meaning::Conf;
use crate::keepalived_conf::{self, Tree};

use facts::{Host, HostQuery};
use rules::Findings;
pub use rules::{File, Finding, Input, Rule, Severity};

/// Where keepalived looks.
const KEEPALIVED_CONF: &str = "/etc/keepalived/keepalived.conf";

/// Everything that was checked, and what came of it.
#[derive(Debug, Default)]
pub struct Checked {
    pub files: Vec<File>,
    /// What is wrong with the others, with their places
    pub invalid: Vec<String>,
    /// Files of keepalived.conf that were read
    pub conf: Vec<String>,
    pub host: bool,
    pub findings: Vec<Finding>,
}

/// Checks what was named, or everything that is this host's.
///
/// # Errors
/// When there is nothing to check, or the named keepalived.conf cannot be read.
pub fn run(
    named: &[PathBuf],
    config: Option<&Path>,
    keepalived_conf: Option<&Path>,
    host: bool,
) -> anyhow::Result<Checked> {
    let complete = named.is_empty() && config.is_none();
    let paths: Vec<PathBuf> = match (named, config) {
        ([], Some(file)) => vec![file.to_owned()],
        ([], None) => instance::all().into_iter().map(|instance| instance.path).collect(),
        (named, _) => named.to_vec(),
    };
    let host = host || named.iter().all(|path| path.parent() == Some(Path::new(instance::DIRECTORY)));
    let default = Some(Path::new(KEEPALIVED_CONF)).filter(|path| host && path.exists());
    let conf = keepalived_conf.or(default);
    if paths.is_empty() && conf.is_none() {
        bail!("nothing to check: there is no file in {}, and no {KEEPALIVED_CONF}", instance::DIRECTORY);
    }
    if let Some(path) = conf {
        // The first file must be there; what an include does not find is a finding.
        std::fs::File::open(path)
            .with_context(|| format!("reading {} as keepalived.conf", path.display()))?;
    }
    let tree = conf.map(keepalived_conf::files::parse);
    let said = conf.and_then(facts::keepalived_says);
    let mut checked = Checked { host, ..Checked::default() };
    for path in &paths {
        match Source::read(path).and_then(|source| Ok(Config::parse(&source)?)) {
            Ok(config) => checked.files.push(File {
                path: path.display().to_string(),
                instance: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                config,
            }),
            Err(error) => checked.invalid.push(format!("{error:#}")),
        }
    }
    let host = host.then(|| Host::read(&asked(tree.as_ref(), &checked.files)));
    checked.findings = findings(Input {
        files: &checked.files,
        complete: complete && checked.invalid.is_empty(),
        conf: tree.as_ref(),
        said: said.as_deref(),
        host: host.as_ref(),
    });
    checked.conf = tree.iter().flat_map(|tree| &tree.files).map(|path| path.display().to_string()).collect();
    Ok(checked)
}

/// What has to be asked of the host: users and programs that keepalived.conf names, and the files' interfaces.
fn asked(conf: Option<&Tree>, files: &[File]) -> HostQuery {
    let conf = conf.map(Conf::of);
    let mut asked = HostQuery {
        users: BTreeSet::from(["keepalived_script".to_owned()]),
        interfaces: files.iter().flat_map(|file| file.config.interfaces()).collect(),
        ..HostQuery::default()
    };
    for notify in conf.iter().flat_map(Conf::scripts) {
        asked.users.extend(notify.user.clone());
        asked.programs.extend(notify.argv.first().filter(|path| path.starts_with('/')).cloned());
    }
    asked.users.extend(conf.iter().filter_map(|conf| conf.script_user).map(str::to_owned));
    asked
}

/// Every finding: the worst first, then in the order of the files.
pub fn findings(input: Input<'_>) -> Vec<Finding> {
    let mut found = Findings::default();
    let conf = input.conf.map(Conf::of);
    if let Some(conf) = &conf {
        keepalived::check(conf, input, &mut found);
    }
    files::check(conf.as_ref(), input, &mut found);
    if let Some(host) = input.host {
        host::check(host, conf.as_ref(), input, &mut found);
    }
    // Last: what is told of a line already has its consequence there.
    if let (Some(conf), Some(said)) = (&conf, input.said) {
        keepalived::said(said, conf, input.host.is_some(), &mut found);
    }
    let mut list = found.list;
    list.sort_by(|one, other| {
        let key = |finding: &Finding| {
            (finding.rule.severity(), finding.file.clone(), finding.line, finding.rule, finding.what.clone())
        };
        key(one).cmp(&key(other))
    });
    // One program in four scripts is one finding, at the first of them.
    let mut told = BTreeSet::new();
    list.retain(|finding| told.insert((finding.rule, finding.file.clone(), finding.what.clone())));
    list
}
