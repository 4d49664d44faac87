//! Which VRRP instance is meant, and which file is its own.
//!
//! Owns the naming of /etc/lvs-notify: one file per instance, named after it. Called by `lib` with what was typed.

use std::path::{Path, PathBuf};

use crate::model::{AddressKey, Role};
use crate::state::{STATE, last_good, record};
use crate::text::did_you_mean;

pub const DIRECTORY: &str = "/etc/lvs-notify";

#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    pub path: PathBuf,
}

/// What was typed names no instance, or more than one. Says which ones there are.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

impl Instance {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), path: Path::new(DIRECTORY).join(format!("{name}.yaml")) }
    }
}

/// Finds the instance by its name, by its file, or because it is the only one.
pub fn find(config: Option<&Path>, name: Option<&str>) -> Result<Instance, Unknown> {
    let impossible = |name: &&str| {
        name.is_empty() || name.starts_with('.') || name.chars().any(|c| c == '/' || c.is_control())
    };
    let stem = config.map(|path| path.file_stem().unwrap_or_default().to_string_lossy());
    let called = name.or(stem.as_deref());
    if let Some(name) = called.filter(impossible) {
        return Err(Unknown(format!("`{}` cannot be an instance's name", name.escape_default())));
    }
    if let (Some(path), Some(name)) = (config, called) {
        // The working directory is left before the file is read.
        let path = std::path::absolute(path).unwrap_or(path.to_owned());
        return Ok(Instance { name: name.to_owned(), path });
    }
    // A file that is missing today had its run before: the last good copy or the record serves.
    let serves = |Instance { name, path }: &Instance| {
        path.exists() || last_good::path(name).exists() || record::read(name).is_some()
    };
    if let Some(instance) = name.map(Instance::named).filter(serves) {
        return Ok(instance);
    }
    let mut known = all();
    if name.is_none() && known.len() == 1 {
        return Ok(known.remove(0));
    }
    let names: Vec<&str> = known.iter().map(|instance| instance.name.as_str()).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let hint = name.map_or(String::new(), |name| did_you_mean(name, &names));
    Err(Unknown(match name {
        Some(name) => format!("there is no {DIRECTORY}/{name}.yaml; known: {list}{hint}"),
        None if names.is_empty() => format!(
            "there is no desired-state file {DIRECTORY}/INSTANCE.yaml; name the instance, or a file with --config"
        ),
        None => format!("which instance? {DIRECTORY} has {list}"),
    }))
}

/// Every instance that has a file, in the order of their names; when none has, every one that had a file.
pub fn all() -> Vec<Instance> {
    let named = |directory: &str| -> Vec<Instance> {
        let files = glob::glob(&format!("{directory}/[!.]*.yaml")).into_iter().flatten().flatten();
        files.filter_map(|path| Some(Instance::named(path.file_stem()?.to_str()?))).collect()
    };
    Some(named(DIRECTORY)).filter(|list| !list.is_empty()).unwrap_or_else(|| named(STATE))
}

/// Those, and what has lost its file while its VIPs stand, and no other instance has them.
pub fn known() -> Vec<Instance> {
    let others = record::others("");
    let taken = |key: &AddressKey| others.values().any(|other| other.owned.addresses.contains(key));
    let lost = record::old_names("").filter_map(|name| {
        let record = record::read(&name)?;
        let stands = record.owned.addresses.iter().any(|key| !taken(key));
        stands.then_some(Instance { path: record.file, name })
    });
    all().into_iter().chain(lost).collect()
}

/// Splits the words of `plan`: a role, an instance, or both.
pub fn role_and_name(words: &[String]) -> Result<(Option<Role>, Option<&str>), Unknown> {
    let Some((first, rest)) = words.split_first() else { return Ok((None, None)) };
    match (first.parse(), rest.first()) {
        (Ok(role), name) => Ok((Some(role), name.map(String::as_str))),
        (Err(()), None) => Ok((None, Some(first))),
        (Err(()), Some(_)) => Err(Unknown(format!("`{first}` is not one of master, backup, fault, stop"))),
    }
}
