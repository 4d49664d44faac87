//! What a run tells: text for people, JSON for programs, log lines, exit status.
//!
//! Owns every word of output but errors' own text: here the exit statuses and what a role command says. Decides nothing.
//! Called by `lib`.

pub mod check;
pub mod plan;
pub mod prometheus;
pub mod status;

use std::io::{IsTerminal as _, Write as _, stdout};

use log::Level;
use serde::Serialize;

use crate::model::Role;
use crate::reconcile::Outcome;
use crate::state::record::LastRun;
use crate::text::{clean, clean_json, counted};

/// As help and manual have them.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  done, or in sync
  1  failed: the messages say what, and what to do
  2  the command line is wrong
  3  there are differences (plan, status) or findings (check), or a takeover would fail (rehearse, status)
  4  the desired-state file is invalid, missing or unsafe; a role command then has used the last good copy";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Differences = 3,
    Invalid = 4,
}

pub fn exit_of(outcome: &Outcome) -> Exit {
    match (outcome.superseded.is_some(), outcome.is_clean(), outcome.fallback.is_some()) {
        (true, ..) => Exit::Done,
        (_, false, _) => Exit::Failed,
        (_, true, true) => Exit::Invalid,
        (_, true, false) => Exit::Done,
    }
}

/// The log names so many changes of a run. With ten thousand a run would spend more time on its log than on its table,
/// and journald drops what exceeds its rate limit. Standard output has them all.
const LOGGED: usize = 1000;

/// What a run did, for standard output, and into the log: one line a change, and one that sums up.
pub fn outcome(outcome: &Outcome) -> String {
    let error = |text: String| (Level::Error, text);
    let used = match outcome.role {
        Some(Role::Master) => "the last good copy is used",
        _ => "the last good copy or the record is used",
    };
    let fallback = outcome.fallback.iter();
    let mut lines: Vec<(Level, String)> =
        fallback.map(|why| error(format!("the desired-state file is not usable, {used}:\n{why}"))).collect();
    lines.extend(outcome.done.iter().enumerate().map(|(place, (change, failure))| match failure {
        Some(failure) => error(format!("failed: {failure}")),
        None if place < LOGGED => (Level::Info, format!("{} {change}", change.sign())),
        None => (Level::Debug, format!("{} {change}", change.sign())),
    }));
    lines.extend(outcome.persisted.iter().map(|file| (Level::Info, file.clone())));
    let refuses = "its services could not be made, so it would refuse every client";
    lines.extend(outcome.withheld.iter().map(|vip| error(format!("{vip} was not put up: {refuses}"))));
    let unannounced =
        outcome.unannounced.iter().map(|why| format!("neighbours were not told of the VIPs: {why}"));
    let refused = outcome.refused.iter().map(ToString::to_string);
    let troubles = refused.chain(outcome.troubles.iter().cloned()).chain(unannounced);
    lines.extend(troubles.map(|trouble| (Level::Warn, trouble)));
    let remaining = outcome.remaining.iter();
    lines.extend(remaining.map(|change| error(format!("still differs: {} {change}", change.sign()))));
    let role = outcome.role.map_or(String::new(), |role| format!("{role}: "));
    let sum = match (&outcome.superseded, outcome.run.changes) {
        (Some(by), 0) => format!("superseded by {by}, nothing changed"),
        (Some(by), changes) => format!("superseded by {by} after {changes} changes"),
        (None, _) => figures(&outcome.run),
    };
    let (level, sum) = match outcome.superseded.is_some() || outcome.is_clean() {
        true => (Level::Info, sum),
        false => (Level::Error, format!("FAILED: {sum}")),
    };
    // A line of the log has the role before it already.
    lines.iter().for_each(|(level, line)| log::log!(*level, "{line}"));
    log::log!(level, "{sum}{}", phases(&outcome.run, ": "));
    lines.into_iter().map(|(_, line)| line + "\n").collect::<String>() + &format!("{role}{sum}\n")
}

fn figures(run: &LastRun) -> String {
    let changes = match (run.changes, run.failed) {
        (0, 0) => "in sync, no change".to_owned(),
        (changes, 0) => counted(changes, "change"),
        (changes, failed) => format!("{changes} changes, {failed} failed"),
    };
    let announced = run.announced.map(|after| format!(", VIP announced after {after:.1} ms"));
    format!("{changes} in {:.1} ms{}", run.milliseconds, announced.unwrap_or_default())
}

/// What its time was spent on, after these words; they add up to it.
fn phases(run: &LastRun, before: &str) -> String {
    let phases: Vec<String> =
        run.phases.iter().map(|lap| format!("{} {:.1} ms", lap.phase, lap.milliseconds)).collect();
    if phases.is_empty() { String::new() } else { format!("{before}{}", phases.join(", ")) }
}

/// Writes a text for people to standard output: nothing in it can command their terminal.
pub fn print_text(text: &str) -> bool {
    let text = clean(text);
    let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print_raw(&if colours { paint(&text) } else { text })
}

/// Writes to standard output as it is and tells whether somebody reads it; a closed pipe is nobody's error.
pub fn print_raw(text: &str) -> bool {
    stdout().write_all(text.as_bytes()).is_ok()
}

/// The JSON form of a command's answer.
pub fn json(value: &impl Serialize) -> String {
    // Through a value, which has its keys in order.
    clean_json(&format!("{:#}\n", serde_json::json!(value)))
}

/// Colours for a terminal: lines with a mark, and what needs attention. They only repeat what the text says.
fn paint(text: &str) -> String {
    let painted = |line: &str| {
        let colour = match line.trim_start().split_once(' ').map(|(mark, _)| mark) {
            Some("+") => "32",
            Some("~") => "33",
            Some("-") => "1;31",
            _ if ["OUT OF SYNC", "PROBLEM", "UNUSABLE", "FAILED", "NOT READY"]
                .iter()
                .any(|word| line.contains(word)) =>
            {
                "1;31"
            }
            _ => return line.to_owned(),
        };
        format!("\x1b[{colour}m{line}\x1b[0m")
    };
    text.split('\n').map(painted).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::paint;

    #[test]
    fn colours_add_nothing() {
        let text = "a: OUT OF SYNC\n  ~ weight\n+ new\nplain\n";
        let painted = paint(text);
        assert!(painted.contains("\x1b[33m  ~ weight\x1b[0m\n") && painted.ends_with("\nplain\n"));
    }
}
