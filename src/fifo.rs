//! keepalived's notify FIFO: one short-lived run of this program for each event, in the order of the events.
//!
//! Owns the reading: whole lines out of a pipe, which of them concern an instance of ours, and starting their runs.
//! Leaves what an event means, and which of several runs counts, to the role commands: they find it out by the order
//! in which they were started, as they do under keepalived's own scripts. Called by `lib`; keepalived starts it with the
//! FIFO's path as last argument, sends it SIGTERM at reload and at stop, and starts it anew after a reload.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::instance;
use crate::model::Role;
use crate::process;
use crate::report::Exit;

/// A line longer than this is none of keepalived's.
const LONGEST: usize = 4096;
/// As much as a pipe holds.
const WAITING: usize = 64 << 10;
/// keepalived ends its FIFO scripts with SIGTERM, then writes the STOP events, and kills after a second.
const STOP_GRACE: Duration = Duration::from_millis(800);

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// Name of the instance or group
    name: String,
    role: Role,
}

/// Reads a line: `INSTANCE "VI_1" MASTER 100`, or GROUP for a sync group. `None` for what changes no role
/// (`MASTER_PRIORITY`, events of virtual servers) and for what is no event at all.
fn parse(line: &str) -> Option<Event> {
    // keepalived after 2.4.3 ends lines of virtual servers with a NUL.
    let line = line.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let rest = line.strip_prefix("INSTANCE ").or_else(|| line.strip_prefix("GROUP "))?;
    let (name, rest) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    let role = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Event { name: name.to_owned(), role })
}

/// Follows the FIFO until every writer has closed it, or for a while after SIGTERM.
///
/// # Errors
/// When the FIFO cannot be opened or read, or signals cannot be waited for.
pub fn follow(path: &Path, config: Option<&Path>) -> anyhow::Result<Exit> {
    process::block_signals();
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // Without waiting for a writer: keepalived opens it after it has started this process.
    let mut fifo = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .with_context(|| format!("opening keepalived's notify FIFO {}", path.display()))?;
    let config = config.map(std::path::absolute).transpose()?;
    // Its capabilities are those of the runs, which give up what they do not need.
    let _ = std::env::set_current_dir("/");
    log::info!("following {}", path.display());
    let mut line = Vec::new();
    let mut buffer = vec![0; WAITING];
    let mut end: Option<Instant> = None;
    while end.is_none_or(|end| Instant::now() < end) {
        let timeout = if end.is_some() { PollTimeout::from(50u8) } else { PollTimeout::NONE };
        let mut polled =
            [PollFd::new(fifo.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for an event"),
        }
        let readable = polled.first().and_then(PollFd::any).unwrap_or_default();
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                end = end.or_else(|| Some(Instant::now() + STOP_GRACE));
            }
        }
        // Runs that have ended.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|run| run != WaitStatus::StillAlive) {}
        // Before the first writer there is nothing to read, which looks as it does after the last one.
        if !readable {
            continue;
        }
        match fifo.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                events(&mut line, bytes).iter().for_each(|event| start(event, config.as_deref()));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error).context("reading keepalived's notify FIFO"),
        }
    }
    Ok(Exit::Done)
}

/// The events whose lines end in these bytes, in order; of several of an instance only the last. `line` keeps the
/// beginning of what has no end yet.
fn events(line: &mut Vec<u8>, bytes: &[u8]) -> Vec<Event> {
    let mut list: Vec<Event> = Vec::new();
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        // The rest of a line that is too long is passed over with it.
        line.extend(piece.iter().take(LONGEST.saturating_sub(line.len())));
        if !piece.ends_with(b"\n") {
            continue;
        }
        let whole = std::mem::take(line);
        let text = String::from_utf8_lossy(&whole);
        let Some(event) = parse(&text) else {
            log::debug!("not for us: {text}");
            continue;
        };
        if let Some(at) = list.iter().position(|old| old.name == event.name) {
            let old = list.remove(at);
            log::info!("{}: {} superseded by {}", old.name, old.role, event.role);
        }
        list.push(event);
    }
    list
}

/// Starts the run of an event, and waits for nothing: what it does, and what went wrong, is in its own log lines.
fn start(event: &Event, config: Option<&Path>) {
    let Event { name, role } = event;
    if let Err(unknown) = instance::find(config, Some(name)) {
        log::info!("{name}: {role}: not ours: {unknown}");
        return;
    }
    let mut run = Command::new("/proc/self/exe");
    // keepalived kills its FIFO scripts with their process group. A run is in one of its own, like a notify script.
    run.arg0("lvs-notify").process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(config) = config {
        run.arg("--config").arg(config);
    }
    match run.args([&role.command(), "--", name]).spawn() {
        Ok(run) => log::info!("{name}: {role}: run by process {}", run.id()),
        Err(error) => log::error!("{name}: {role}: lost, no process can be started: {error}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn event(name: &str, role: Role) -> Event {
        Event { name: name.to_owned(), role }
    }

    #[test]
    fn lines_are_read_as_keepalived_writes_them() {
        assert_eq!(parse("INSTANCE \"VI_1\" MASTER 100"), Some(event("VI_1", Role::Master)));
        assert_eq!(parse("GROUP \"G 1\" FAULT 0\0"), Some(event("G 1", Role::Fault)));
        assert_eq!(parse("INSTANCE \"VI_1\" DELETED 100"), Some(event("VI_1", Role::Stop)));
        for line in [
            "",
            "\0",
            "INSTANCE",
            "INSTANCE VI_1 MASTER 100",
            "INSTANCE \"VI_1\"",
            "INSTANCE \"VI_1\" MASTER_PRIORITY 50",
            "INSTANCE \"\" MASTER 100",
            "VS [192.0.2.1]:tcp:80 UP",
            "RS [192.0.2.2]:tcp:80 [192.0.2.1]:tcp:80 DOWN\0",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    /// What is carried out of these bytes, read in pieces of a size.
    fn carried_out(bytes: &[u8], size: usize) -> Vec<Event> {
        let mut line = Vec::new();
        bytes.chunks(size).flat_map(|piece| events(&mut line, piece)).collect()
    }

    #[test]
    fn the_last_waiting_event_of_an_instance_counts() {
        let text = "INSTANCE \"A\" BACKUP 1\nINSTANCE \"B\" FAULT 1\nINSTANCE \"A\" MASTER 1\nINSTANCE \"B\" BACKUP 1\nnoise\n";
        assert_eq!(
            carried_out(text.as_bytes(), WAITING),
            [event("A", Role::Master), event("B", Role::Backup)]
        );
        assert_eq!(carried_out(text.as_bytes(), 1).len(), 4, "nothing newer waits");
    }

    #[test]
    fn noise_hides_no_event() {
        let mut bytes = vec![b'x'; 3 * LONGEST];
        bytes.extend(b"\n\xff\xfe\n\0\nINSTANCE \"A\" MASTER 1\n\0INSTANCE \"B\" STOP 1\n");
        for size in [1, 7, LONGEST, WAITING] {
            assert_eq!(carried_out(&bytes, size), [event("A", Role::Master), event("B", Role::Stop)]);
        }
        assert_eq!(
            carried_out(b"INSTANCE \"A\" MASTER 1", WAITING),
            [],
            "a line without its end is not whole"
        );
    }
}
