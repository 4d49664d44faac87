//! keepalived's notify FIFO: events in the order in which they happened, read by one process.
//!
//! Owns the reading: whole lines out of a pipe, which of them concern an instance of ours, and that the
//! last of several waiting events is the one that counts. What an event means is carried out by
//! `reconcile`, as for the role commands. Called by `lib`; keepalived starts it with the FIFO's path as
//! last argument, sends it SIGTERM at reload and at stop, and starts it anew after a reload.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::instance;
use crate::kernel::Linux;
use crate::model::Role;
use crate::process;
use crate::reconcile::{self, Request};
use crate::report::{self, Exit};
use crate::state::stamp::Stamp;

/// A line longer than this is none of keepalived's.
const LONGEST: usize = 4096;
/// keepalived ends its FIFO scripts with SIGTERM, then writes the STOP events, and kills after a second.
const FAREWELL: Duration = Duration::from_millis(800);

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the instance or group
    pub name: String,
    pub role: Role,
}

enum Message {
    Event(Event),
    /// Every writer has closed the FIFO.
    End,
    Terminate,
}

/// Reads a line: `INSTANCE "VI_1" MASTER 100`, or GROUP for a sync group. `None` for what changes no role
/// (`MASTER_PRIORITY`, events of virtual servers) and for what is no event at all.
pub fn parse(line: &str) -> Option<Event> {
    // keepalived after 2.4.3 ends lines of virtual servers with a NUL.
    let line = line.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let rest = line.strip_prefix("INSTANCE ").or_else(|| line.strip_prefix("GROUP "))?;
    let (name, rest) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    let role = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Event { name: name.to_owned(), role })
}

/// Follows the FIFO until keepalived closes it or ends this process.
///
/// # Errors
/// When the FIFO cannot be opened, or signals and threads are not to be had.
pub fn follow(path: &Path, config: Option<&Path>) -> anyhow::Result<Exit> {
    process::finish_whatever_comes();
    let fifo = OpenOptions::new()
        .read(true)
        .open(path)
        .with_context(|| format!("opening keepalived's notify FIFO {}", path.display()))?;
    let (sender, events) = mpsc::channel();
    let on_signal = sender.clone();
    std::thread::Builder::new().spawn(move || wait_for_signals(&on_signal)).context("starting a thread")?;
    std::thread::Builder::new().spawn(move || read_lines(fifo, &sender)).context("starting a thread")?;
    let config = config.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    log::info!("following {}", path.display());
    work(&events, |event| carry_out(event, config.as_deref()));
    Ok(Exit::Done)
}

fn wait_for_signals(sender: &Sender<Message>) {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    while signals.wait().is_ok() && sender.send(Message::Terminate).is_ok() {}
}

fn read_lines(mut fifo: impl std::io::Read, sender: &Sender<Message>) {
    let mut line: Vec<u8> = Vec::new();
    let mut buffer = [0; LONGEST];
    loop {
        let length = match fifo.by_ref().read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!("reading keepalived's notify FIFO: {error}");
                break;
            }
        };
        for byte in buffer.iter().take(length) {
            match byte {
                b'\n' => {
                    let text = String::from_utf8_lossy(&line);
                    match parse(&text) {
                        Some(event) => _ = sender.send(Message::Event(event)),
                        None => log::debug!("not for us: {text}"),
                    }
                    line.clear();
                }
                // The rest of a line that is too long is passed over with it.
                _ if line.len() < LONGEST => line.push(*byte),
                _ => {}
            }
        }
    }
    let _ = sender.send(Message::End);
}

/// Carries out events in order; of several that wait, only the last of each instance.
fn work(events: &Receiver<Message>, mut carry_out: impl FnMut(&Event)) {
    let mut deadline: Option<Instant> = None;
    loop {
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let first = match events.recv_timeout(left) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        let mut waiting: BTreeMap<String, (usize, Event)> = BTreeMap::new();
        let mut ended = false;
        for (number, message) in std::iter::once(first).chain(events.try_iter()).enumerate() {
            match message {
                Message::Event(event) => {
                    if let Some((_, old)) = waiting.insert(event.name.clone(), (number, event.clone())) {
                        log::info!("{}: {} superseded by {}", old.name, old.role, event.role);
                    }
                }
                Message::End => ended = true,
                Message::Terminate => deadline = deadline.or_else(|| Some(Instant::now() + FAREWELL)),
            }
        }
        let mut waiting: Vec<(usize, Event)> = waiting.into_values().collect();
        waiting.sort_by_key(|(number, _)| *number);
        for (_, event) in &waiting {
            carry_out(event);
        }
        if ended {
            return;
        }
    }
}

fn carry_out(event: &Event, config: Option<&Path>) {
    let Event { name, role } = event;
    let instance = match instance::find(config, Some(name)) {
        Ok(instance) => process::settle(instance),
        Err(unknown) => {
            log::info!("{name}: {role}: not ours: {unknown}");
            return;
        }
    };
    let told = Linux::open().map_err(anyhow::Error::from).and_then(|mut kernel| {
        let request = Request {
            instance,
            role: Some(*role),
            command: "fifo".to_owned(),
            started: Instant::now(),
            stamp: Some(Stamp::now()?),
        };
        let outcome = reconcile::run(&mut kernel, &request)?;
        report::outcome(name, &outcome);
        let instance = request.instance;
        // Beside the next event, which ends it.
        std::thread::Builder::new()
            .spawn(move || reconcile::repeat_announcement(&mut kernel, &instance, &outcome))?;
        Ok(())
    });
    if let Err(error) = told {
        log::error!("{name}: {role}: {error:#}");
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

    /// What is carried out of these bytes.
    fn carried_out(bytes: &[u8]) -> Vec<Event> {
        let (sender, events) = mpsc::channel();
        read_lines(bytes, &sender);
        let mut list = Vec::new();
        work(&events, |event| list.push(event.clone()));
        list
    }

    #[test]
    fn the_last_waiting_event_of_an_instance_counts() {
        let text = "INSTANCE \"A\" BACKUP 1\nINSTANCE \"B\" FAULT 1\nINSTANCE \"A\" MASTER 1\nINSTANCE \"B\" BACKUP 1\nnoise\n";
        assert_eq!(carried_out(text.as_bytes()), [event("A", Role::Master), event("B", Role::Backup)]);
    }

    #[test]
    fn noise_hides_no_event() {
        let mut bytes = vec![b'x'; 3 * LONGEST];
        bytes.extend(b"\n\xff\xfe\n\0\nINSTANCE \"A\" MASTER 1\n\0INSTANCE \"B\" STOP 1\n");
        assert_eq!(carried_out(&bytes), [event("A", Role::Master), event("B", Role::Stop)]);
        assert_eq!(carried_out(b"INSTANCE \"A\" MASTER 1"), [], "a line without its end is not whole");
    }
}
