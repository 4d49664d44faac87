//! What `check` finds: rules over keepalived.conf, desired-state files and this host.
//!
//! Owns findings and their order. `rules` is the table, `conf` what lint reads from keepalived.conf,
//! `keepalived`, `files` and `host` decide what breaks a rule. Changes nothing and reads nothing: what
//! there is comes in as [`Input`] (the host from `kernel::host`). Called by `lib`.

mod conf;
mod files;
mod host;
mod keepalived;
mod rules;

use std::collections::BTreeSet;

use crate::desired::Declared;
use crate::keepalived_conf::{Statement, Tree};
use crate::kernel::host::{Asked, Host};

pub use files::{Proof, loops};
pub use rules::{Rule, Severity, Words};

use conf::Conf;

/// A valid desired-state file.
#[derive(Debug)]
pub struct File {
    /// Its path, as it was named
    pub path: String,
    /// The instance it belongs to
    pub instance: String,
    /// What it says
    pub declared: Declared,
}

/// Everything that is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// Valid desired-state files
    pub files: &'a [File],
    /// These are all there are on this host, so that a missing one is missed
    pub complete: bool,
    /// keepalived.conf
    pub conf: Option<&'a Tree>,
    /// This host; without it, its rules are left out
    pub host: Option<&'a Host>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which
    pub rule: Rule,
    /// In which file
    pub file: Option<String>,
    /// In which line of it
    pub line: Option<usize>,
    /// The objects it is about
    pub what: String,
}

impl Finding {
    /// What to do, with the name that the finding begins with in the place left for it.
    pub fn remedy(&self) -> String {
        let name = self.what.split(' ').next().unwrap_or_default();
        let remedy = self.rule.words().remedy;
        match self.rule {
            Rule::E12 | Rule::W13 | Rule::I27 => remedy.replace("INSTANCE", name),
            Rule::W40 | Rule::W60 => remedy.replace("INTERFACE", name),
            _ => remedy.to_owned(),
        }
    }
}

/// What has to be asked of the host: users and programs that keepalived.conf names, and its own ones.
pub fn asked(conf: Option<&Tree>) -> Asked {
    let conf = conf.map(Conf::of);
    let mut asked = Asked { users: BTreeSet::from(["keepalived_script".to_owned()]), ..Asked::default() };
    for notify in conf.iter().flat_map(Conf::scripts) {
        asked.users.extend(notify.script.user.clone());
        asked.programs.extend(notify.script.argv.first().filter(|path| path.starts_with('/')).cloned());
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
    let Findings(mut list) = found;
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

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// About a line of keepalived.conf.
    fn at(&mut self, rule: Rule, place: &Statement, what: impl Into<String>) {
        let file = Some(place.file.display().to_string());
        self.0.push(Finding { rule, file, line: Some(place.line), what: what.into() });
    }

    /// About a desired-state file.
    fn of(&mut self, rule: Rule, file: &File, what: impl Into<String>) {
        self.0.push(Finding { rule, file: Some(file.path.clone()), line: None, what: what.into() });
    }

    /// About the host.
    fn here(&mut self, rule: Rule, what: impl Into<String>) {
        self.0.push(Finding { rule, file: None, line: None, what: what.into() });
    }
}
