//! Files and directories that nobody else can change.
//!
//! Owns opening without following links, refusing what others may write, and replacing in one step. Knows no file by
//! name. Called by everything in `state`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nix::libc;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::source::refuse_foreign_writers;

/// Records, notifications and the lock; empty after every boot.
pub(super) const RUN: &str = "/run/lvs-notify";
/// What outlives a boot: last good files, their compiled copies, servers drained by hand.
pub const STATE: &str = "/var/lib/lvs-notify";
/// A record or a list larger than this is not ours.
const MAX_JSON: u64 = 16 << 20;

/// Where a file of an instance is, whose name is safe as a file name.
pub(super) fn path_of(directory: &str, instance: &str, ending: &str) -> PathBuf {
    Path::new(directory).join(format!("{instance}.{ending}"))
}

/// Opens a file that is nobody else's, never through a link.
fn open_own(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let file = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let shown = path.display().to_string();
    ensure!(metadata.is_file() && metadata.nlink() < 2, "{shown} is not a regular file of its own");
    refuse_foreign_writers(&metadata, &shown, path)?;
    Ok(file)
}

/// Opens such a file for reading and writing. It is made when it is not there, and its directory too; nobody else can even
/// read it, and so not lock it, whoever has made it.
pub(super) fn create_own(path: &Path) -> anyhow::Result<File> {
    own_directory(path.parent().unwrap_or(path))?;
    let file = open_own(path, OpenOptions::new().read(true).write(true).create(true))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The content of such a file, or its first bytes when it has more than `most`.
pub(super) fn read_own(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let file = open_own(path, OpenOptions::new().read(true))?;
    let mut content = Vec::with_capacity(file.metadata()?.len().min(most) as usize + 1);
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Replaces such a file, or makes it, and its directory when that is not there.
pub(super) fn write_own(path: &Path, content: &[u8], mode: u32, durable: bool) -> anyhow::Result<()> {
    own_directory(path.parent().unwrap_or(path))
        .and_then(|()| replace(path, content, mode, durable))
        .with_context(|| format!("writing {}", path.display()))
}

/// What such a file holds as JSON; none when it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    match read_own(path, MAX_JSON) {
        Err(error) if error.downcast_ref().is_some_and(missing) => Ok(None),
        text => Ok(Some(serde_json::from_slice(&text?)?)),
    }
}

/// Replaces such a file, or makes it, with a value as JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize, durable: bool) -> anyhow::Result<()> {
    write_own(path, &serde_json::to_vec(value)?, 0o644, durable)
}

/// Makes a directory, or accepts one that only its owner, root or the caller, may change.
pub(super) fn own_directory(path: &Path) -> anyhow::Result<()> {
    let make = |_| DirBuilder::new().recursive(true).mode(0o755).create(path);
    let found = std::fs::symlink_metadata(path);
    let found = found.or_else(|missing| make(missing).and_then(|()| std::fs::symlink_metadata(path)));
    let metadata = found.with_context(|| format!("making the directory {}", path.display()))?;
    let shown = path.display().to_string();
    ensure!(metadata.is_dir(), "{shown} is not a directory");
    ensure!(metadata.mode() & 0o1000 == 0, "{shown} is a directory in which everybody may write");
    refuse_foreign_writers(&metadata, &shown, path)
}

/// Replaces a file in one step: a reader finds the old content or the new one, and so does the next
/// boot when it is `durable`. A takeover does not wait for a disk on behalf of a record in /run.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32, durable: bool) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // What a killed process with the same PID left behind; O_EXCL never follows a link.
    let _ = std::fs::remove_file(&temporary);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| _ = std::fs::remove_file(&temporary))?;
    Ok(())
}
