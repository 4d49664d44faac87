//! The last file of an instance that was applied without error, and what it means.
//!
//! Owns both files in /var/lib/lvs-notify; the form of the second one, the compiled copy, is `config::cache`'s. Called by
//! `basis`, which falls back to them, and by `reconcile`, which keeps them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::files::{STATE, path_of, read_own, write_own};
use crate::config::Config;
use crate::config::cache;
use crate::config::source::{MAX_BYTES, Source};

/// A compiled copy that is larger than this is not ours.
const MAX_COMPILED: u64 = 2 * MAX_BYTES;

/// Where it is kept.
pub fn path(instance: &str) -> PathBuf {
    path_of(STATE, instance, "yaml")
}

/// What a text means, when the compiled copy is of this very text.
pub fn compiled(instance: &str, text: &str) -> Option<Config> {
    // One that is cut there is not believed.
    cache::unpack(text, &read_own(&path_of(STATE, instance, "compiled"), MAX_COMPILED).ok()?)
}

/// Keeps a file that was applied without error, and what it means, unless they are kept already: `compiled` says that the
/// meaning came from there.
pub fn keep(instance: &str, source: &Source, config: &Config, compiled: bool) -> anyhow::Result<()> {
    let write = |path: &Path, content: &[u8], durable| {
        write_own(path, content, 0o600, durable)
            .with_context(|| format!("keeping the file as {}", path.display()))
    };
    let path = path(instance);
    if !Source::read(&path).is_ok_and(|kept| kept.text == source.text) {
        write(&path, source.text.as_bytes(), true)?;
    }
    if !compiled {
        let packed = cache::pack(&source.text, config).filter(|packed| packed.len() as u64 <= MAX_COMPILED);
        // Without it nothing is lost but time. It is not worth waiting for a disk either: what a power failure
        // leaves of it is not believed.
        packed
            .map_or(Ok(()), |packed| write(&path_of(STATE, instance, "compiled"), &packed, false))
            .unwrap_or_else(|error| log::warn!("{error:#}"));
    }
    Ok(())
}
