//! What a run goes by, and what it wants by that.
//!
//! Owns the choice between the instance's file, the last good copy of it, and only the record; and the goal in a role:
//! the same for `reconcile`, which works towards it, and for `preview`, which only looks. Leaves reading a file to
//! `config`, its meaning to `desired`, what is kept to `state`.

use crate::config::Config;
use crate::config::source::{Invalid, Source};
use crate::desired::Desired;
use crate::instance::Instance;
use crate::model::{Owned, Role};
use crate::observed::{Observed, Scope};
use crate::plan::Plan;
use crate::state::record::{self, Record};
use crate::state::stamp::seconds_now;
use crate::state::{drain, last_good};

#[derive(Clone, Debug)]
pub struct Basis {
    /// The instance's file, or what is wrong with it
    pub file: Result<Source, String>,
    /// What it means, or, when it cannot be used, its last good copy. Without either, only what the record says can be
    /// taken away.
    pub config: Option<Config>,
    /// The meaning came from the compiled copy
    pub compiled: bool,
}

impl Basis {
    /// Reads the instance's file, or what can stand in for it.
    pub fn read(instance: &Instance) -> Self {
        let read = |path| -> anyhow::Result<(Source, Config, bool)> {
            let source = Source::read(path)?;
            let kept = last_good::compiled(&instance.name, &source.text);
            let compiled = kept.is_some();
            let config = kept.map_or_else(|| Config::parse(&source), Ok)?;
            Ok((source, config, compiled))
        };
        match read(&instance.path) {
            Ok((source, config, compiled)) => Self { file: Ok(source), config: Some(config), compiled },
            Err(error) => {
                let config = read(&last_good::path(&instance.name)).ok().map(|(_, config, _)| config);
                Self { file: Err(format!("{error:#}")), config, compiled: false }
            }
        }
    }

    pub fn problem(&self) -> Option<&str> {
        self.file.as_ref().err().map(String::as_str)
    }

    /// The state wanted in a role; none for a MASTER that has no file to go by: then nothing may be touched.
    pub fn desired(&self, role: Role, owned: &Owned) -> Result<Desired, Invalid> {
        match (&self.config, &self.file) {
            (Some(config), _) => Ok(Desired::for_role(config, role)),
            (None, Err(why)) if role == Role::Master => {
                Err(Invalid(format!("{why}\nnothing was changed: there is no last good copy either")))
            }
            (None, _) => Ok(desired_from_record(owned)),
        }
    }
}

/// Leaving MASTER needs no file: what the record names goes.
fn desired_from_record(owned: &Owned) -> Desired {
    Desired { off: owned.addresses.clone(), restore: !owned.originals.is_empty(), ..Desired::default() }
}

/// What is wanted of an instance, and what of the kernel that concerns.
#[derive(Debug)]
pub struct Goal {
    pub desired: Desired,
    /// What earlier runs made, and the values found before that come back
    pub owned: Owned,
    pub scope: Scope,
    /// Why real servers drained by hand are not
    pub problem: Option<anyhow::Error>,
}

impl Goal {
    /// What is wanted in a role, after what a record says.
    pub fn of(name: &str, basis: &Basis, role: Role, record: Option<&Record>) -> Result<Self, Invalid> {
        let mut owned = record.map(|record| record.owned.clone()).unwrap_or_default();
        let mut desired = basis.desired(role, &owned)?;
        let drained = drain::read(name).map(|list| drain::apply(&list, &mut desired, seconds_now()));
        if desired.restore {
            // What another instance wants set stays set; the last one to leave restores it.
            let others = record::others(name);
            owned
                .originals
                .retain(|name, _| !others.values().any(|other| other.owned.parameters.contains(name)));
        }
        let scope = Scope::of(&desired, &owned);
        Ok(Self { desired, owned, scope, problem: drained.err() })
    }

    pub fn plan(&self, observed: &Observed) -> Plan {
        Plan::between(&self.desired, observed, &self.owned)
    }
}
