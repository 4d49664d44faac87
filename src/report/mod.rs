//! What a run tells: text for people, JSON for programs, log lines, exit status.
//!
//! Owns every word of output but errors' own text: here the exit statuses and what a role command
//! says; `plan`, `status` and `check` have their own files. Decides nothing. Called by `lib`.

pub mod check;
pub mod plan;
pub mod prometheus;
pub mod status;

use std::fmt::{Arguments, Write as _};
use std::io::{IsTerminal as _, Write as _, stdout};

use crate::model::Role;
use crate::reconcile::Outcome;
use crate::state::record::LastRun;

/// The exit statuses, as help and manual give them.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  done, or in sync
  1  failed: the messages say what, and what to do
  2  the command line is wrong
  3  there are differences (plan, status), or findings (check)
  4  the desired-state file is invalid, missing or unsafe; a role command then has used the last good copy";

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line is wrong
    Usage = 2,
    /// There are differences or findings
    Differences = 3,
    /// The desired-state file is invalid
    Invalid = 4,
}

/// How a role command or `apply` ended.
pub fn exit_of(outcome: &Outcome) -> Exit {
    match (outcome.superseded.is_some(), outcome.is_clean(), outcome.fallback.is_some()) {
        (true, ..) => Exit::Done,
        (_, false, _) => Exit::Failed,
        (_, true, true) => Exit::Invalid,
        (_, true, false) => Exit::Done,
    }
}

/// So many changes of one run does the log name. A syslog daemon takes its lines one by one: with ten thousand a
/// run would spend more time on its log than on its table, and journald drops what exceeds its rate limit.
/// Standard output has them all.
const LOGGED: usize = 1000;

/// Tells a run on standard output and in the log: one line a change, and one that sums up.
pub fn outcome(instance: &str, outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut line = String::new();
    let mut tell = |level: log::Level, what: Arguments<'_>| {
        line.clear();
        let _ = line.write_fmt(what);
        log::log!(level, "{instance}: {line}");
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(why) = &outcome.fallback {
        let used = match outcome.role {
            Some(Role::Master) => "the last good copy is used",
            _ => "the last good copy or the record is used",
        };
        tell(log::Level::Error, format_args!("the desired-state file is not usable, {used}:\n{why}"));
    }
    let mut made: usize = 0;
    for (change, error) in &outcome.done {
        match error {
            None => {
                made += 1;
                let level = if made > LOGGED { log::Level::Debug } else { log::Level::Info };
                tell(level, format_args!("{} {change}", change.sign()));
            }
            Some(error) => tell(log::Level::Error, format_args!("failed: {error}")),
        }
    }
    if made > LOGGED {
        log::info!("{instance}: and {} more changes", made - LOGGED);
    }
    for vip in &outcome.withheld {
        tell(
            log::Level::Error,
            format_args!(
                "{vip} was not put up: its services could not be made, so it would refuse every client"
            ),
        );
    }
    for trouble in &outcome.troubles {
        tell(log::Level::Warn, format_args!("{trouble}"));
    }
    for change in &outcome.remaining {
        tell(log::Level::Error, format_args!("still differs: {} {change}", change.sign()));
    }
    let role = outcome.role.map_or(String::new(), |role| format!("{role}: "));
    let run = &outcome.run;
    match &outcome.superseded {
        Some(by) if run.changes == 0 => {
            tell(log::Level::Info, format_args!("{role}superseded by {by}, nothing changed"));
        }
        Some(by) => {
            tell(log::Level::Info, format_args!("{role}superseded by {by} after {} changes", run.changes))
        }
        None => tell(log::Level::Info, format_args!("{role}{}", figures(run))),
    }
    text
}

fn figures(run: &LastRun) -> String {
    let mut text = match (run.changes, run.failed) {
        (0, 0) => "in sync, no change".to_owned(),
        (1, 0) => "1 change".to_owned(),
        (changes, 0) => format!("{changes} changes"),
        (changes, failed) => format!("{changes} changes, {failed} failed"),
    };
    let _ = write!(text, " in {:.1} ms", run.milliseconds);
    if let Some(announced) = run.announced {
        let _ = write!(text, ", VIP announced after {announced:.1} ms");
    }
    text
}

/// Writes a text for people to standard output: nothing in it can command their terminal, and what needs attention has a
/// colour there.
pub fn print_text(text: &str) -> bool {
    let clean = clean(text);
    let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print_raw(&if colours { paint(&clean) } else { clean })
}

/// Writes to standard output as it is and tells whether somebody reads it; a closed pipe is nobody's error.
pub fn print_raw(text: &str) -> bool {
    stdout().write_all(text.as_bytes()).is_ok()
}

/// Makes room on a terminal for the text that takes the place of the one before.
pub fn clear_terminal() {
    if stdout().is_terminal() {
        // Home, and clear to the end.
        print_raw("\x1b[H\x1b[2J");
    }
}

/// JSON with its own escapes for what could command a terminal; it stands in strings only.
fn json(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    escape(&text, |c, out| {
        let _ = write!(out, "\\u{:04x}", u32::from(c));
    })
}

/// What could command a terminal or reorder what it shows.
fn hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of files and of the kernel on its way to people: control characters and those that reorder
/// text are shown as escapes, so that no name can rewrite what a terminal shows.
pub fn clean(text: &str) -> String {
    escape(text, |c, out| out.extend(c.escape_default()))
}

/// The same on its way into one line.
fn one_line(text: &str) -> String {
    clean(text).replace('\n', "\\n")
}

/// Replaces what is hidden, but for ends of lines.
fn escape(text: &str, put: impl Fn(char, &mut String)) -> String {
    let hidden = |c: char| hidden(c) && c != '\n';
    // Nearly every text is printable ASCII. All bytes are looked at, since many can be at once.
    let odd = |byte: u8| !matches!(byte, b' '..=b'~' | b'\n');
    if !text.bytes().fold(false, |found, byte| found | odd(byte)) || !text.contains(hidden) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if hidden(c) {
            put(c, &mut out)
        } else {
            out.push(c)
        }
        out
    })
}

/// Colours for a terminal: lines with a mark, and what needs attention. They only repeat what the
/// text says.
fn paint(text: &str) -> String {
    const RED: &str = "\x1b[1;31m";
    const GREEN: &str = "\x1b[32m";
    const YELLOW: &str = "\x1b[33m";
    let colour = |line: &str| match line.trim_start().split_once(' ').map(|(mark, _)| mark) {
        Some("+") => Some(GREEN),
        Some("~") => Some(YELLOW),
        Some("-") => Some(RED),
        _ if ["OUT OF SYNC", "PROBLEM", "INVALID"].iter().any(|word| line.contains(word)) => Some(RED),
        _ => None,
    };
    let mut painted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match colour(line) {
            Some(colour) => {
                let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
                let _ = write!(painted, "{colour}{body}\x1b[0m{end}");
            }
            None => painted.push_str(line),
        }
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::{clean, json, one_line, paint};

    #[test]
    fn no_name_reaches_the_terminal_as_it_is() {
        assert_eq!(clean("VI_1: \u{1b}[2Jx\r\u{202e}y\n"), "VI_1: \\u{1b}[2Jx\\r\\u{202e}y\n");
        assert_eq!(clean("plain, 日本\n"), "plain, 日本\n");
    }

    #[test]
    fn json_stays_json_whatever_stands_in_it() {
        let value = serde_json::json!({ "name": "a\u{202e}b\u{7f}\n\u{1b}" });
        let text = json(&value);
        assert!(text.contains(r"a\u202eb\u007f\n\u001b"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(value));
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }

    #[test]
    fn colours_add_nothing() {
        let text = "a: OUT OF SYNC\n  ~ weight\n+ new\nplain\n";
        let painted = paint(text);
        assert!(painted.contains("\x1b[33m  ~ weight\x1b[0m\n") && painted.ends_with("\nplain\n"));
    }
}
