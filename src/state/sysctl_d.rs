//! The ARP parameters' file in /etc/sysctl.d, which keeps them over a reboot.
//!
//! Owns that file's name, content and replacement. Called by `reconcile` at the very end: a disk
//! that is slow or read-only must never hold up a takeover.

use std::io::ErrorKind;
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

/// Brings the file in line; tells whether it had to change.
///
/// # Errors
/// When it cannot be read or replaced.
pub fn apply(instance: &str, desired: &Desired) -> anyhow::Result<bool> {
    let path = path(instance);
    match desired.persist {
        Persist::Leave => Ok(false),
        Persist::Keep => {
            let content = content(instance, desired);
            if std::fs::read(&path).is_ok_and(|found| found == content.as_bytes()) {
                return Ok(false);
            }
            // Minimal systems come without the directory; sysctl(8) reads it all the same.
            let made = match std::fs::create_dir(DIRECTORY) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
                _ => Ok(()),
            };
            made.and_then(|()| replace(&path, content.as_bytes(), 0o644, true)).map(|()| true).with_context(
                || {
                    format!(
                        "keeping the ARP parameters in {} (they are set, but a reboot would lose them)",
                        path.display()
                    )
                },
            )
        }
        Persist::Remove => match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
        },
    }
}

/// Whether the file is as the desired state wants it.
pub fn is_current(instance: &str, desired: &Desired) -> bool {
    match desired.persist {
        Persist::Leave => true,
        Persist::Keep => {
            std::fs::read(path(instance)).is_ok_and(|found| found == content(instance, desired).as_bytes())
        }
        Persist::Remove => !path(instance).exists(),
    }
}

fn content(instance: &str, desired: &Desired) -> String {
    let mut text =
        format!("# Written by lvs-notify for {instance}; replaced when the desired-state file changes.\n");
    for (parameter, value) in &desired.parameters {
        text += &format!("{parameter} = {value}\n");
    }
    text
}
