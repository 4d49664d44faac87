//! Where messages go: syslog when no terminal is attached, as under keepalived, whose scripts
//! have /dev/null for output; otherwise warnings and errors go to the terminal.
//!
//! Owns the backend of the `log` facade. Called once, by `main`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};

use crate::text::clean;

struct Terminal;
struct Syslog;

/// Chooses the backend.
pub fn start() {
    let attached = std::io::stderr().is_terminal() || std::io::stdout().is_terminal();
    let backend: &'static dyn Log = if attached {
        &Terminal
    } else {
        let _ = openlog(Some(c"lvs-notify"), LogFlags::LOG_PID, Facility::LOG_DAEMON);
        &Syslog
    };
    if log::set_logger(backend).is_ok() {
        log::set_max_level(if attached { LevelFilter::Warn } else { LevelFilter::Info });
    }
}

impl Log for Terminal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        eprintln!("lvs-notify: {}", clean(&record.args().to_string()));
    }
    fn flush(&self) {}
}

impl Log for Syslog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let severity = match record.level() {
            Level::Error => Severity::LOG_ERR,
            Level::Warn => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug | Level::Trace => Severity::LOG_DEBUG,
        };
        // With room for most of them, since a large table has a thousand.
        let mut text = String::with_capacity(160);
        let _ = write!(text, "{}", record.args());
        // One syslog message a line: a message with line breaks is hard to find again.
        for line in clean(&text).lines() {
            let _ = syslog(Priority::new(severity, Facility::LOG_DAEMON), line);
        }
    }
    fn flush(&self) {}
}
