//! What a run goes by: the instance's file, the last good copy of it, or only the record.
//!
//! Owns that choice and what is wanted in each case. Leaves reading a file to `config`, its meaning to `desired`, the
//! copies to `state::record`. Called by `reconcile`, `preview` and `lib`.

use crate::config::Config;
use crate::config::source::{Invalid, Source};
use crate::desired::Desired;
use crate::instance::Instance;
use crate::model::{Owned, Role};
use crate::state::record::Store;

/// Where the desired state came from.
#[derive(Clone, Debug)]
pub enum Basis {
    File {
        source: Source,
        config: Config,
        /// Known from the compiled copy
        compiled: bool,
    },
    /// The file cannot be used
    StandIn {
        /// The last good copy; without one, only what the record says can be taken away
        last_good: Option<Config>,
        /// What is wrong with the file
        why: String,
    },
}

impl Basis {
    /// Reads the instance's file, or what can stand in for it.
    pub fn read(instance: &Instance, store: &Store) -> Self {
        let read = || -> anyhow::Result<Self> {
            let source = Source::read(&instance.path)?;
            Ok(match store.compiled(&source.text) {
                Some(config) => Self::File { source, config, compiled: true },
                None => Self::File { config: Config::parse(&source)?, source, compiled: false },
            })
        };
        read().unwrap_or_else(|error| Self::StandIn {
            last_good: store.last_good().ok().and_then(|source| Config::parse(&source).ok()),
            why: format!("{error:#}"),
        })
    }

    /// What is wrong with the instance's file.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::File { .. } => None,
            Self::StandIn { why, .. } => Some(why),
        }
    }

    /// The meaning of the file that is used.
    pub fn config(&self) -> Option<&Config> {
        match self {
            Self::File { config, .. } => Some(config),
            Self::StandIn { last_good, .. } => last_good.as_ref(),
        }
    }

    /// The file wants the values found before put back on leaving MASTER.
    pub fn restores(&self) -> bool {
        self.config().and_then(|config| config.arp).is_some_and(|arp| arp.restore)
    }

    /// The state wanted in a role.
    ///
    /// # Errors
    /// [`Invalid`], when a MASTER has no file to go by: then nothing may be touched.
    pub fn desired(&self, role: Role, owned: &Owned) -> Result<Desired, Invalid> {
        match (self.config(), self.problem()) {
            (Some(config), _) => Ok(Desired::for_role(config, role)),
            (None, Some(why)) if role == Role::Master => {
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
