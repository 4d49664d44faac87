//! keepalived's notify FIFO: one short-lived run of this program for each event, in the order of the events.
//!
//! Owns the reading: whole lines out of a pipe, which of them concern an instance of ours, and starting their runs.
//! Leaves what an event means, and which of several runs counts, to the role commands. Called by `lib`; keepalived starts
//! it with the FIFO's path as last argument, sends it SIGTERM at reload and at stop, and starts it anew after a reload.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::instance;
use crate::model::Role;
use crate::process;
use crate::report::Exit;

/// keepalived ends its FIFO scripts with SIGTERM, then writes the STOP events, and kills after a second.
const STOP_GRACE: Duration = Duration::from_millis(800);

/// What a line says: the name of an instance or group, and its role.
type Event = (String, Role);

/// Reads a line: `INSTANCE "VI_1" MASTER 100`, or GROUP for a sync group. `None` for what changes no role
/// (`MASTER_PRIORITY`, events of virtual servers) and for what is no event at all.
fn parse(line: &str) -> Option<Event> {
    // keepalived after 2.4.3 ends lines of virtual servers with a NUL.
    let line = line.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let rest = line.strip_prefix("INSTANCE ").or_else(|| line.strip_prefix("GROUP "))?;
    let (name, rest) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    let role = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| (name.to_owned(), role))
}

/// Follows the FIFO until every writer has closed it, or for a while after SIGTERM.
pub fn follow(path: &Path, config: Option<&Path>) -> anyhow::Result<Exit> {
    process::block_signals();
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    thread::Builder::new().spawn(move || {
        let _ = ends.wait();
        thread::sleep(STOP_GRACE);
        std::process::exit(Exit::Done as i32);
    })?;
    let config = config.map(std::path::absolute).transpose()?;
    log::info!("following {}", path.display());
    // Waits for a writer: keepalived opens it after it has started this process.
    let fifo =
        File::open(path).with_context(|| format!("opening keepalived's notify FIFO {}", path.display()))?;
    // Its capabilities are those of the runs, which give up what they do not need.
    let _ = std::env::set_current_dir("/");
    let mut fifo = BufReader::new(fifo);
    while let Some(events) = waiting(&mut fifo).context("reading keepalived's notify FIFO")? {
        events.iter().for_each(|event| start(event, config.as_deref()));
    }
    Ok(Exit::Done)
}

/// Waits for a line; gives the events of all lines that have come with it, in order, and of several of an instance only
/// the last. `None` when every writer has closed the FIFO.
fn waiting(fifo: &mut BufReader<impl Read>) -> io::Result<Option<Vec<Event>>> {
    let mut list: Vec<Event> = Vec::new();
    let mut line = Vec::new();
    while line.is_empty() || fifo.buffer().contains(&b'\n') {
        line.clear();
        fifo.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let Some(event) = parse(&text) else {
            log::debug!("not for us: {text}");
            continue;
        };
        list.retain(|(name, _)| *name != event.0);
        list.push(event);
    }
    Ok(Some(list))
}

/// Starts the run of an event, and waits for nothing: what it does, and what went wrong, is in its own log lines.
fn start((name, role): &Event, config: Option<&Path>) {
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
        Ok(mut run) => {
            log::info!("{name}: {role}: run by process {}", run.id());
            // It leaves no zombie, and nobody is held up.
            let _ = thread::Builder::new().spawn(move || run.wait());
        }
        Err(error) => log::error!("{name}: {role}: lost, no process can be started: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, role: Role) -> Event {
        (name.to_owned(), role)
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
        let mut fifo = BufReader::with_capacity(size, bytes);
        std::iter::from_fn(|| waiting(&mut fifo).unwrap()).flatten().collect()
    }

    #[test]
    fn the_last_waiting_event_of_an_instance_counts() {
        let text = "INSTANCE \"A\" BACKUP 1\nINSTANCE \"B\" FAULT 1\nINSTANCE \"A\" MASTER 1\nINSTANCE \"B\" BACKUP 1\nnoise\n";
        assert_eq!(carried_out(text.as_bytes(), 4096), [event("A", Role::Master), event("B", Role::Backup)]);
        assert_eq!(carried_out(text.as_bytes(), 1).len(), 4, "nothing newer waits");
    }

    #[test]
    fn noise_hides_no_event() {
        let mut bytes = vec![b'x'; 3 * 4096];
        bytes.extend(b"\n\xff\xfe\n\0\nINSTANCE \"A\" MASTER 1\n\0INSTANCE \"B\" STOP 1\n");
        for size in [1, 7, 4096, 65536] {
            assert_eq!(carried_out(&bytes, size), [event("A", Role::Master), event("B", Role::Stop)]);
        }
        assert_eq!(carried_out(b"INSTANCE \"A\" MASTER 1", 4096), [], "a line without its end is not whole");
    }
}
