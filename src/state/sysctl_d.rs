//! The ARP parameters' file in /etc/sysctl.d, which keeps them over a reboot.
//!
//! Owns that file's name, content and replacement. Called by `reconcile` at the very end: a disk
//! that is slow or read-only must never hold up a takeover.

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

/// Takes away the file of a name that an instance no longer has.
pub fn forget(instance: &str) {
    let _ = std::fs::remove_file(path(instance));
}

fn content(instance: &str, desired: &Desired) -> String {
    let lines = desired.parameters.iter().map(|(parameter, value)| format!("{parameter} = {value}\n"));
    let origin = "replaced when the desired-state file changes";
    format!("# Written by lvs-notify for {instance}; {origin}.\n{}", lines.collect::<String>())
}
