//! Which VRRP instance is meant, and which file is its own.
//!
//! Owns the naming of /etc/lvs-notify: one file per instance, named after it. Called by `lib`
//! with what was typed.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::Role;
use crate::state::record::Store;
use crate::text::did_you_mean;

/// Where the desired-state files are.
pub const DIRECTORY: &str = "/etc/lvs-notify";

/// Which desired-state file, and whose.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Name of the VRRP instance
    pub name: String,
    pub path: PathBuf,
}

/// What was typed names no instance, or more than one.
#[derive(Debug)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

impl Instance {
    /// The instance of this name, with its own file.
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), path: Path::new(DIRECTORY).join(format!("{name}.yaml")) }
    }
}

/// Finds the instance by its name, by its file, or because it is the only one.
///
/// # Errors
/// [`Unknown`], with the names that there are.
pub fn find(config: Option<&Path>, name: Option<&str>) -> Result<Instance, Unknown> {
    let impossible = |name: &&str| {
        name.is_empty() || name.starts_with('.') || name.chars().any(|c| c == '/' || c.is_control())
    };
    if let Some(name) = name.filter(impossible) {
        return Err(Unknown(format!("`{}` cannot be an instance's name", name.escape_default())));
    }
    if let Some(path) = config {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        return Ok(Instance { name: name.unwrap_or(&stem).to_owned(), path: path.to_owned() });
    }
    // A file that is missing today had its run before: the last good copy or the record serves.
    let serves = |instance: &Instance| {
        let store = Store::new(&instance.name);
        instance.path.exists() || store.last_good_path().exists() || store.record().is_some()
    };
    if let Some(instance) = name.map(Instance::named).filter(serves) {
        return Ok(instance);
    }
    let mut known = all();
    let names: Vec<&str> = known.iter().map(|instance| instance.name.as_str()).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(Unknown(match (name, names.len()) {
        (Some(name), _) => {
            let hint = did_you_mean(name, &names);
            format!("there is no {DIRECTORY}/{name}.yaml; known: {list}{hint}")
        }
        (None, 0) => format!(
            "there is no desired-state file {DIRECTORY}/INSTANCE.yaml; name the instance, or a file with --config"
        ),
        (None, 1) => return Ok(known.remove(0)),
        (None, _) => format!("which instance? {DIRECTORY} has {list}"),
    }))
}

/// Every instance that has a file, in the order of their names; when none has, every one that had a file.
pub fn all() -> Vec<Instance> {
    let names = |directory: &Path| -> BTreeSet<String> {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
        let names = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        names.filter(|name| !name.starts_with('.')).collect()
    };
    let mut list = names(Path::new(DIRECTORY));
    if list.is_empty() {
        list = Store::new("x").last_good_path().parent().map(names).unwrap_or_default();
    }
    list.iter().map(|name| Instance::named(name)).collect()
}

/// Splits the words of `plan`: a role, an instance, or both.
///
/// # Errors
/// [`Unknown`], when the first of two words is no role.
pub fn role_and_name(words: &[String]) -> Result<(Option<Role>, Option<&str>), Unknown> {
    let Some((first, rest)) = words.split_first() else { return Ok((None, None)) };
    match (first.parse(), rest.first()) {
        (Ok(role), name) => Ok((Some(role), name.map(String::as_str))),
        (Err(()), None) => Ok((None, Some(first))),
        (Err(()), Some(_)) => Err(Unknown(format!("`{first}` is not one of master, backup, fault, stop"))),
    }
}
