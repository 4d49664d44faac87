//! Files and directories that nobody else can change.
//!
//! Owns opening without following links, refusing what others may write, and replacing in one step. Knows no file by
//! name. Called by everything in `state`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::libc;

use crate::config::source::refuse_foreign_writers;

/// Records, notifications and the lock; empty after every boot.
pub(crate) const RUN: &str = "/run/lvs-notify";
/// What outlives a boot: last good files, their compiled copies, servers drained by hand.
pub(crate) const STATE: &str = "/var/lib/lvs-notify";
/// A record or a list larger than this is not ours.
pub(crate) const MAX_RECORD: u64 = 16 << 20;

/// Opens a file that is nobody else's, never through a link.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let file =
        options.mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        bail!("{} is not a regular file of its own", path.display());
    }
    refuse_foreign_writers(&metadata, &path.display().to_string(), path)?;
    Ok(file)
}

/// The content of such a file, or its first bytes when it has more than `most`.
pub(crate) fn read_own(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_own(path, OpenOptions::new().read(true))?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether what failed was only that the file is not there.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Makes a directory, or accepts one that only its owner, root or the caller, may change.
pub(crate) fn own_directory(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making the directory {}", path.display()));
        }
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    if metadata.mode() & 0o1000 != 0 {
        bail!("{} is a directory in which everybody may write", path.display());
    }
    refuse_foreign_writers(&metadata, &path.display().to_string(), path)
}

/// Replaces a file in one step: a reader finds the old content or the new one, and so does the next
/// boot when it is `durable`. A takeover does not wait for a disk on behalf of a record in /run.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, durable: bool) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // What a killed process with the same PID left behind; O_EXCL never follows a link.
    let _ = std::fs::remove_file(&temporary);
    let write = || -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)?;
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
