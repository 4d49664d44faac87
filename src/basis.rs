//! What a run goes by, and what it wants by that.
//!
//! Owns the choice between the instance's file, the last good copy of it, and only the record; and the goal in a role:
//! the same for `reconcile`, which works towards it, and for `preview`, which only looks. Leaves reading a file to
//! `config`, its meaning to `desired`, what is kept to `state`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::bail;

use crate::config::Config;
use crate::config::source::{Invalid, Source};
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel;
use crate::model::{AddressKey, Owned, Role, ServerKey, ServiceKey};
use crate::observed::{Observed, Scope};
use crate::plan::{Change, Plan};
use crate::state::record::{self, Record};
use crate::state::stamp::seconds_now;
use crate::state::trial::Trial;
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
    pub version: Option<Version>,
    /// The file is valid, and this kernel refuses it
    pub refused: bool,
    /// The trial whose edit this takes back, because its time was over when the file was read
    pub taken_back: Option<Trial>,
}

/// What changes with a file's content: its device, number, size, and the time of its last change.
pub type Version = ([u64; 3], [i64; 2]);

fn version(path: &Path) -> Option<Version> {
    let file = std::fs::metadata(path).ok()?;
    Some(([file.dev(), file.ino(), file.size()], [file.ctime(), file.ctime_nsec()]))
}

/// Whether a file with this text is not gone by: nobody has confirmed it in time. Without a way back it is better than
/// nothing.
fn is_refused(instance: &str, text: &str) -> bool {
    Trial::of(instance).is_some_and(|trial| trial.refuses(text)) && last_good::is_usable(instance)
}

impl Basis {
    /// Reads the instance's file, or what can stand in for it.
    pub fn read(instance: &Instance) -> Self {
        let taken_back =
            Trial::of(&instance.name).filter(|trial| trial.is_due() && last_good::is_usable(&instance.name));
        let read = |path: &Path| -> anyhow::Result<(Source, Config, bool)> {
            let source = Source::read(path)?;
            if path == instance.path && is_refused(&instance.name, &source.text) {
                let (path, name) = (path.display(), &instance.name);
                let back =
                    format!("`lvs-notify apply {name}` goes by the last good copy until the file is edited");
                bail!("{path}: nobody has confirmed this edit in time; {back}");
            }
            let kept = last_good::compiled(&instance.name, &source.text);
            let compiled = kept.is_some();
            let config = kept.map_or_else(|| Config::parse(&source), Ok)?;
            Ok((source, config, compiled))
        };
        let version = version(&instance.path);
        let (file, config, compiled) = match read(&instance.path) {
            Ok((source, config, compiled)) => (Ok(source), Some(config), compiled),
            Err(error) => {
                let config = read(&last_good::path(&instance.name)).ok().map(|(_, config, _)| config);
                (Err(format!("{error:#}")), config, false)
            }
        };
        Self { file, config, compiled, version, refused: false, taken_back }
    }

    /// The last good copy, when the kernel refuses what the file says.
    pub fn fall_back(&mut self, instance: &Instance, why: &str) -> bool {
        let Ok(Source { text, .. }) = &self.file else { return false };
        let path = last_good::path(&instance.name);
        let kept = Source::read(&path).ok().filter(|kept| kept.text != *text);
        let Some(config) = kept.and_then(|kept| Config::parse(&kept).ok()) else { return false };
        (self.file, self.config) =
            (Err(format!("this kernel refuses {}: {why}", instance.path.display())), Some(config));
        self.refused = true;
        true
    }

    pub fn problem(&self) -> Option<&str> {
        self.file.as_ref().err().map(String::as_str)
    }

    /// Whether the file is still the one that was read.
    pub fn is_current(&self, instance: &Instance) -> bool {
        self.version == version(&instance.path)
            && !matches!(&self.file, Ok(source) if is_refused(&instance.name, &source.text))
    }

    /// Puts the links' own names in place of alternative ones, which addresses and parameters do not go by; tells whether
    /// there were any.
    pub fn use_own_names(&mut self, observed: &Observed) -> bool {
        let Some(config) = &mut self.config else { return false };
        let (mut renamed, daemon) = (false, config.daemon.iter_mut().map(|daemon| &mut daemon.interface));
        for name in config.vips.iter_mut().filter_map(|vip| vip.interface.as_mut()).chain(daemon) {
            let own = observed.interfaces.get(name).map_or(name.clone(), |link| link.name.clone());
            renamed |= own != *name;
            *name = own;
        }
        // The compiled copy is of the text, whatever the links are called today.
        self.compiled |= renamed;
        renamed
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
    name: String,
    pub desired: Desired,
    /// What earlier runs made, and the values found before that come back
    pub owned: Owned,
    pub scope: Scope,
    /// Why real servers drained by hand are not
    pub problem: Option<anyhow::Error>,
}

impl Goal {
    /// What is wanted in a role, after what a record says; or, when it `drains`, before that.
    pub fn of(
        name: &str,
        basis: &Basis,
        role: Role,
        record: Option<&Record>,
        drains: bool,
    ) -> Result<Self, Invalid> {
        let mut owned = record.map(|record| record.owned.clone()).unwrap_or_default();
        let drains = drains && role == Role::Backup;
        let mut desired = match basis.config.as_ref().filter(|config| drains && !config.drain.is_zero()) {
            Some(config) => Desired::draining(config),
            None => basis.desired(role, &owned)?,
        };
        let drained = drain::read(name).map(|list| drain::apply(&list, &mut desired, seconds_now()));
        if basis.config.as_ref().and_then(|config| config.arp).is_some_and(|arp| arp.restore) {
            owned.originals.append(&mut record::originals());
        }
        if desired.restore {
            // What another instance wants set stays set; the last one to leave restores it.
            let others = record::others(name);
            let wanted = |name: &_| others.values().any(|other| other.owned.parameters.contains(name));
            owned.originals.retain(|name, _| !wanted(name));
        }
        let now = seconds_now();
        let overdue = owned.leaving.iter().filter(|(_, since)| desired.leaves_at(**since) <= now);
        desired.overdue = overdue.map(|(key, _)| *key).collect();
        let mut scope = Scope::of(&desired, &owned);
        if !desired.active {
            scope.expected.extend(basis.config.iter().flat_map(|config| config.services.keys()));
        }
        Ok(Self { name: name.to_owned(), desired, owned, scope, problem: drained.err() })
    }

    /// Who leaves finds what it has put on a link that is called otherwise by now; tells whether there is any.
    pub fn follow(&mut self, observed: &Observed) -> bool {
        // Another link can have the name by now.
        let is_it = |name, index| observed.interfaces.get(name).is_some_and(|link| link.index == index);
        let links =
            self.owned.links.iter().filter(|(name, index)| !self.desired.active && !is_it(*name, **index));
        let renamed: BTreeMap<_, _> =
            links.filter_map(|(name, index)| Some((name.clone(), kernel::name_of(*index)?))).collect();
        let now = |key: &AddressKey| {
            let interface = renamed.get(&key.interface)?.clone();
            Some(AddressKey { interface, address: key.address })
        };
        let moved: Vec<AddressKey> = self.owned.addresses.iter().filter_map(now).collect();
        let follows = !moved.is_empty();
        self.owned.addresses.extend(moved);
        if follows {
            self.scope.interfaces = Scope::of(&self.desired, &self.owned).interfaces;
        }
        follows
    }

    /// Real servers that left the file and stay for a while, and since when.
    pub fn leaving(&self, plan: &Plan, observed: &Observed) -> BTreeMap<(ServiceKey, ServerKey), u64> {
        let (table, mut leaving) = (observed.table(), BTreeMap::new());
        for (service, wanted) in self.desired.services.iter().filter(|_| !self.desired.graceful.is_zero()) {
            let found = table.services.get(service).into_iter().flat_map(|found| found.servers.keys());
            let left = found.filter(|key| !wanted.servers.contains_key(key)).map(|key| (*service, *key));
            leaving.extend(left.map(|place| (place, self.owned.leaving.get(&place).copied())));
        }
        for change in plan.changes() {
            if let Change::Server { service, key, new: None, .. } = change {
                leaving.remove(&(*service, *key));
            }
        }
        leaving.into_iter().map(|(place, since)| (place, since.unwrap_or_else(seconds_now))).collect()
    }

    /// What differs from it, but for what another instance of this host has by now.
    pub fn plan(&self, observed: &Observed) -> Plan {
        let plan = Plan::between(&self.desired, observed, &self.owned);
        if !plan.changes().any(|change| change.sign() == '-') {
            return plan;
        }
        let others: Vec<Owned> = record::others(&self.name).into_values().map(|other| other.owned).collect();
        plan.without(&others)
    }
}
