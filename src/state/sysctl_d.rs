//! The ARP parameters' file in /etc/sysctl.d, which keeps them over a reboot.
//!
//! Owns that file's name, content and replacement. Called by `reconcile` at the very end: a disk
//! that is slow or read-only must never hold up a takeover.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::files::replace;
use crate::desired::{Desired, Persist};

/// sysctl.d(5)
const DIRECTORY: &str = "/etc/sysctl.d";

/// Where the parameters of an instance are kept.
pub fn path(instance: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("90-lvs-notify-{instance}.conf"))
}

/// Whether the file is as the desired state wants it.
pub fn is_current(instance: &str, desired: &Desired) -> bool {
    let path = path(instance);
    match desired.persist {
        Persist::Leave => true,
        Persist::Keep => std::fs::read_to_string(path).is_ok_and(|found| found == content(instance, desired)),
        Persist::Remove => path.symlink_metadata().is_err(),
    }
}

/// Brings the file in line; gives its path with the sign of a change, when it had to change.
pub fn apply(instance: &str, desired: &Desired) -> anyhow::Result<Option<String>> {
    if is_current(instance, desired) {
        return Ok(None);
    }
    let path = path(instance);
    let name = path.display();
    if desired.persist == Persist::Remove {
        std::fs::remove_file(&path).with_context(|| format!("removing {name}"))?;
        return Ok(Some(format!("- {name}")));
    }
    let sign = if path.exists() { '~' } else { '+' };
    // Minimal systems come without the directory; sysctl(8) reads it all the same.
    let made = std::fs::create_dir_all(DIRECTORY).map_err(anyhow::Error::from);
    made.and_then(|()| replace(&path, content(instance, desired).as_bytes(), 0o644, true)).with_context(
        || format!("keeping the ARP parameters in {name} (they are set, but a reboot would lose them)"),
    )?;
    Ok(Some(format!("{sign} {name}")))
}

/// Where systems keep such files; of those with the same name the first counts (sysctl.d(5)).
const DIRECTORIES: [&str; 5] =
    [DIRECTORY, "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

/// What is read after the file at boot and sets a parameter to another value: file and line.
pub fn overruled(instance: &str, desired: &Desired) -> Option<String> {
    let own = Some(path(instance).file_name()?.to_owned()).filter(|_| desired.persist == Persist::Keep)?;
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for file in glob::glob(&format!("{directory}/*.conf")).into_iter().flatten().flatten() {
            files.entry(file.file_name().map(ToOwned::to_owned)).or_insert(file);
        }
    }
    let mut later = files.split_off(&Some(own.clone()));
    later.remove(&Some(own));
    // Dots and slashes both separate parts, and each stands for the other within one. A pattern yields to a name (sysctl(8)).
    let parts = |name: &str| name.trim().trim_start_matches('-').replace('.', "/");
    let texts = later.into_values().filter_map(|file| Some((std::fs::read_to_string(&file).ok()?, file)));
    let texts: Vec<(String, PathBuf)> = texts.collect();
    let lines = texts.iter().flat_map(|(text, file)| text.lines().map(move |line| (line, file)));
    let lines: Vec<_> = lines.filter_map(|(line, file)| Some((line.split_once('=')?, file))).collect();
    desired.parameters.iter().find_map(|(parameter, wanted)| {
        let own = parts(&parameter.parts().join("/"));
        let ((name, value), file) = lines.iter().rev().find(|((name, _), _)| parts(name) == own)?;
        (value.trim() != *wanted).then(|| format!("{}: {} = {}", file.display(), name.trim(), value.trim()))
    })
}

/// Takes away the file of a name that an instance no longer has.
pub fn forget(instance: &str) {
    let _ = std::fs::remove_file(path(instance));
}

fn content(instance: &str, desired: &Desired) -> String {
    let lines = desired.parameters.iter().map(|(parameter, value)| format!("{parameter} = {value}\n"));
    let origin = "replaced when the desired-state file changes";
    format!("# Written by lvs-notify for {instance}; {origin}.\n{}", lines.collect::<String>())
}
