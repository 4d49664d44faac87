//! Which VRRP instance is meant, and which file is its own.
//!
//! Owns the naming of /etc/lvs-notify: one file per instance, named after it. Called by `lib`
//! with what was typed.

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

/// Finds the instance by its name, by its file, or because it is the only one.
///
/// # Errors
/// [`Unknown`], with the names that there are.
pub fn find(config: Option<&Path>, name: Option<&str>) -> Result<Instance, Unknown> {
    let impossible = |name: &str| {
        name.is_empty() || name.starts_with('.') || name.chars().any(|c| c == '/' || c.is_control())
    };
    if let Some(name) = name.filter(|name| impossible(name)) {
        return Err(Unknown(format!("`{}` cannot be an instance's name", name.escape_default())));
    }
    if let Some(path) = config {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Instance { name: name.map_or(stem, str::to_owned), path: path.to_owned() });
    }
    let mut known = all();
    let Some(name) = name else {
        return match (known.pop(), known.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err(Unknown(format!("which instance? {DIRECTORY} has {}", names(&all())))),
            (None, _) => Err(Unknown(format!(
                "there is no desired-state file {DIRECTORY}/INSTANCE.yaml; name the instance, or a file with --config"
            ))),
        };
    };
    let path = Path::new(DIRECTORY).join(format!("{name}.yaml"));
    let instance = Instance { name: name.to_owned(), path };
    // A file that is missing today had its run before: the last good copy or the record serves.
    let store = Store::new(name);
    if instance.path.exists() || store.last_good_path().exists() || store.record().is_some() {
        return Ok(instance);
    }
    let listed: Vec<&str> = known.iter().map(|instance| instance.name.as_str()).collect();
    let hint = did_you_mean(name, &listed);
    Err(Unknown(format!("there is no {DIRECTORY}/{name}.yaml; known: {}{hint}", names(&known))))
}

/// Every instance that has a file, or had one, in the order of their names.
pub fn all() -> Vec<Instance> {
    let mut list: Vec<String> = Vec::new();
    for directory in
        [Path::new(DIRECTORY), Store::new("x").last_good_path().parent().unwrap_or(Path::new("/"))]
    {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).filter(|name| !name.starts_with('.'));
            if let (Some(name), Some("yaml")) = (name, path.extension().and_then(|ending| ending.to_str())) {
                list.push(name.to_owned());
            }
        }
        if !list.is_empty() {
            break;
        }
    }
    list.sort();
    list.into_iter()
        .map(|name| Instance { path: Path::new(DIRECTORY).join(format!("{name}.yaml")), name })
        .collect()
}

fn names(list: &[Instance]) -> String {
    if list.is_empty() {
        return "none".to_owned();
    }
    list.iter().map(|instance| instance.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Splits the words of `plan`: a role, an instance, or both.
///
/// # Errors
/// [`Unknown`], when the first of two words is no role.
pub fn role_and_name(words: &[String]) -> Result<(Option<Role>, Option<&str>), Unknown> {
    match words {
        [] => Ok((None, None)),
        [word] => match word.parse() {
            Ok(role) => Ok((Some(role), None)),
            Err(()) => Ok((None, Some(word))),
        },
        [role, name, ..] => match role.parse() {
            Ok(role) => Ok((Some(role), Some(name))),
            Err(()) => Err(Unknown(format!("`{role}` is not one of master, backup, fault, stop"))),
        },
    }
}
