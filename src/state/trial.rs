//! An edit that is taken back unless somebody confirms it in time.
//!
//! Owns `INSTANCE.trial` in /var/lib/lvs-notify: which text is on trial, until when, and whether it was taken back. The
//! desired-state file itself stays as its owner wrote it. When the time is over, or after a reboot, every run goes by the
//! last good copy, whatever the file says, until one has carried that out; from then on only that very text is refused.
//! Called by `lib` (the commands), `basis`, `reconcile` and `last_good`, which keeps nothing that is on trial.

use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};

use super::files::{STATE, path_of, read_json, write_json};
use super::stamp::{place, seconds_now};
use crate::config::source::Source;

/// By this name a process knows that it waits for the end of a trial.
pub const NAME: &str = "lvs-notify-trial";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The desired-state file
    pub file: PathBuf,
    /// Of its text
    fingerprint: u64,
    /// In seconds since 1970
    pub end: u64,
    /// The boot and the network namespace that it has begun in
    place: String,
    taken_back: bool,
}

impl Trial {
    pub fn of(instance: &str) -> Option<Self> {
        read_json(&path(instance)).ok()?
    }

    pub fn begin(instance: &str, file: &Path, text: &str, period: Duration) -> anyhow::Result<Self> {
        let end = seconds_now().saturating_add(period.as_secs().max(1));
        let (file, place) = (file.to_owned(), place().to_owned());
        let trial = Self { file, fingerprint: fingerprint(text), end, place, taken_back: false };
        trial.save(instance).map(|()| trial)
    }

    pub fn save(&self, instance: &str) -> anyhow::Result<()> {
        write_json(&path(instance), self, true)
    }

    /// Somebody can confirm it still.
    pub fn runs(&self) -> bool {
        self.is_open() && seconds_now() < self.end
    }

    /// The last good copy is to take its place in the kernel, whatever the file says by now.
    pub fn is_due(&self) -> bool {
        self.is_open() && !self.runs()
    }

    /// It is in the kernel. Another boot or network namespace has nothing to take back.
    pub fn is_open(&self) -> bool {
        !self.taken_back && self.place == place()
    }

    /// Whether a file with this text is not gone by.
    pub fn refuses(&self, text: &str) -> bool {
        self.is_due() || self.is_of(text) && !self.runs()
    }

    pub fn is_of(&self, text: &str) -> bool {
        self.fingerprint == fingerprint(text)
    }

    /// Its time is over, whatever the clock says by then.
    pub fn expire(self, instance: &str) {
        self.replace(instance, Self { end: 0, ..self.clone() });
    }

    /// The last good copy has taken its place, as far as it could.
    pub fn settle(self, instance: &str) {
        self.replace(instance, Self { taken_back: true, ..self.clone() });
    }

    /// Unless another one has begun. What is lost by a power failure only says the same later.
    fn replace(&self, instance: &str, new: Self) {
        if Self::of(instance).as_ref() == Some(self) {
            let _ = write_json(&path(instance), &new, false);
        }
    }
}

fn path(instance: &str) -> PathBuf {
    path_of(STATE, instance, "trial")
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Whether there is none, not even one that cannot be read for a moment.
pub fn is_gone(instance: &str) -> bool {
    !path(instance).exists()
}

/// From now on the text is one as any other.
pub fn confirm(instance: &str) -> anyhow::Result<Trial> {
    let trial =
        Trial::of(instance).filter(|trial| !trial.taken_back).context("there is nothing to confirm")?;
    ensure!(trial.runs(), "it is too late: the edit is taken back");
    let file = trial.file.display();
    ensure!(
        trial.is_of(&Source::read(&trial.file)?.text),
        "{file} has been edited since; what is on trial is the text before"
    );
    forget(instance).context("the edit will be taken back: ending its trial failed")?;
    Ok(trial)
}

/// Another text has been carried out, or this one never was.
pub fn forget(instance: &str) -> std::io::Result<()> {
    std::fs::remove_file(path(instance))
}
