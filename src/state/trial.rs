//! An edit that is taken back unless somebody confirms it in time.
//!
//! Owns `INSTANCE.trial` in /var/lib/lvs-notify: the text on trial, and its end. The file itself is its owner's and stays as
//! it is: a text whose time is over cannot be used, so the last good copy stands in for it, also after a reboot. Called by
//! `lib` (the commands), `basis`, and `last_good`, which keeps nothing that is on trial.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::files::{STATE, path_of, read_json, write_json};
use super::stamp::seconds_now;

/// By this name a process knows that it takes an edit back.
pub const NAME: &str = "lvs-notify-trial";

fn path(instance: &str) -> PathBuf {
    path_of(STATE, instance, "trial")
}

/// The end of its trial in seconds since 1970, when this text is on trial, or was and nobody has confirmed it.
pub fn end_of(instance: &str, text: &str) -> Option<u64> {
    let (tried, end): (String, u64) = read_json(&path(instance)).ok()??;
    (tried == text).then_some(end)
}

pub fn begin(instance: &str, text: &str, period: Duration) -> anyhow::Result<()> {
    let end = seconds_now().saturating_add(period.as_secs().max(1));
    write_json(&path(instance), &(text, end), true)
}

/// From now on it is a file as any other.
pub fn confirm(instance: &str, text: &str) -> anyhow::Result<()> {
    let end = end_of(instance, text).context("there is nothing to confirm")?;
    let again = format!("`lvs-notify apply --confirm 60s {instance}` tries it once more");
    ensure!(seconds_now() < end, "it is too late: the edit has been taken back; {again}");
    std::fs::remove_file(path(instance)).context("ending the trial")
}
