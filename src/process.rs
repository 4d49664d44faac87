//! The process itself: what the caller hands over is put right, what is not needed is given up, and messages get out.
//!
//! Owns umask, working directory, signals, capabilities, and the backend of the `log` facade. Called by `lib` and `fifo`,
//! before anything is read or changed.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability, CapsHashSet};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};

use crate::instance::Instance;
use crate::text::clean;

/// Puts right what every command would stumble over, and opens the log.
pub fn begin() {
    // keepalived hands over a umask of 0177, under which directories cannot be entered.
    umask(Mode::from_bits_truncate(0o022));
    // `fifo` hands over its blocked signals, and the name of the file it starts this program from, /proc/self/exe.
    let _ = SigSet::empty().thread_set_mask();
    let _ = prctl::set_name(c"lvs-notify");
    let _ = openlog(Some(c"lvs-notify"), LogFlags::LOG_PID, Facility::LOG_DAEMON);
    let _ = log::set_logger(&Messages);
    log::set_max_level(if has_terminal() { LevelFilter::Warn } else { LevelFilter::Info });
}

/// Whether somebody reads what is printed as it comes. Scripts of keepalived have /dev/null for output.
pub fn has_terminal() -> bool {
    std::io::stderr().is_terminal() || std::io::stdout().is_terminal()
}

/// For commands that look at the kernel or change it: leaves the caller's directory, which could be on a file system
/// that hangs or goes away, and keeps only CAP_NET_ADMIN, which changes addresses, parameters and IPVS, and CAP_NET_RAW,
/// which opens the packet socket that announces and asks. Files need none: they are root's own, or the caller's. Most of
/// what is given up would make a hostile file or record dangerous. The operation that lacks a capability says so.
pub fn drop_privileges_and_cwd() {
    let _ = std::env::set_current_dir("/");
    let Ok(held) = caps::read(None, CapSet::Permitted) else { return };
    let kept = &held & &CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    // Effective first: it may never hold more than permitted.
    for (set, wanted) in
        [(CapSet::Effective, &kept), (CapSet::Permitted, &kept), (CapSet::Inheritable, &CapsHashSet::new())]
    {
        if let Err(error) = caps::set(None, set, wanted) {
            log::debug!("keeping more capabilities than needed: {error}");
        }
    }
}

/// keepalived's end sends SIGTERM to its scripts. What it asked for is finished all the same: a newer
/// notification, not a signal, says that it is out of date.
pub fn block_signals() {
    let _ = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block();
}

/// The end of a login sends these.
pub fn outlive_the_login() {
    let _ = SigSet::from_iter([Signal::SIGINT, Signal::SIGHUP]).thread_block();
}

/// Starts this program again, as a process of its own that goes by another name, and waits for nothing.
pub fn start_again(name: &str, words: &[&str], instance: &Instance) {
    let mut run = Command::new("/proc/self/exe");
    // keepalived kills its scripts with their process group.
    run.arg0(name).process_group(0);
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run.arg("--config").arg(&instance.path).args(words).args(["--", &instance.name]);
    if let Err(error) = run.spawn() {
        log::warn!("{name} cannot be started: {error}");
    }
}

/// The same, out of reach of the end of the login that this is typed in: as a service of systemd, where one would be in the
/// same namespaces.
pub fn start_service(name: &str, words: &[&str], instance: &Instance) {
    let own = |kind: &str| {
        [1, std::process::id()].map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
    };
    let same = |kind| matches!(own(kind), [Some(first), Some(own)] if first == own);
    let runs = Path::new("/run/systemd/system").exists() && same("net") && same("mnt");
    // A manager that hangs holds nothing up.
    let mut run = Command::new("timeout");
    run.args(["-s", "KILL", "5", "systemd-run", "--quiet", "--collect", "--"]).args(std::env::current_exe());
    run.arg("--config").arg(&instance.path).args(words).args(["--", &instance.name]);
    if !(runs && run.status().is_ok_and(|status| status.success())) {
        start_again(name, words, instance);
    }
}

/// Whether this process was started so, by this name.
pub fn goes_by(name: &str) -> bool {
    std::env::args_os().next().is_some_and(|own| own == name)
}

static PREFIX: OnceLock<String> = OnceLock::new();

/// From now on every line of the log begins with these words: lines of overlapping runs are mixed there.
pub fn log_for(whom: &str) {
    let _ = PREFIX.set(format!("{}: ", clean(whom)));
}

/// Lines on their way to syslog. syslog(3) waits for a daemon that does not read: a thread waits in its place, and nothing
/// else does.
static SYSLOG: OnceLock<Option<SyncSender<(Severity, String)>>> = OnceLock::new();
/// How many of them have not got out.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// What is logged beyond these is lost, when the daemon reads none of them.
const MOST_WAITING: usize = 4096;
/// How long the end of the process is put off while no line gets out.
const LOG_PATIENCE: Duration = Duration::from_millis(500);

fn open_syslog() -> Option<SyncSender<(Severity, String)>> {
    let (lines, taken): (_, Receiver<(Severity, String)>) = sync_channel(MOST_WAITING);
    let hand_over = move || {
        for (severity, line) in taken {
            let _ = syslog(Priority::new(severity, Facility::LOG_DAEMON), &line);
            WAITING.fetch_sub(1, SeqCst);
        }
    };
    thread::Builder::new().spawn(hand_over).ok().map(|_| lines)
}

/// Waits until the lines of the log are out, as long as the daemon takes some.
pub fn end() {
    let (mut waiting, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < LOG_PATIENCE {
        match WAITING.load(SeqCst) {
            0 => return,
            now if now < waiting => (waiting, since) = (now, Instant::now()),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// To the terminal, when there is one, or to syslog.
struct Messages;

impl Log for Messages {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let text = clean(&record.args().to_string());
        let prefix = PREFIX.get().map_or("", String::as_str);
        if has_terminal() {
            // A terminal that is gone ends nothing.
            let _ = writeln!(std::io::stderr(), "lvs-notify: {prefix}{text}");
            return;
        }
        let severity = match record.level() {
            Level::Error => Severity::LOG_ERR,
            Level::Warn => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug | Level::Trace => Severity::LOG_DEBUG,
        };
        // One syslog message a line: a message with line breaks is hard to find again.
        for line in text.lines() {
            if let Some(lines) = SYSLOG.get_or_init(open_syslog) {
                WAITING.fetch_add(1, SeqCst);
                if lines.try_send((severity, format!("{prefix}{line}"))).is_err() {
                    WAITING.fetch_sub(1, SeqCst);
                }
            }
        }
    }
    fn flush(&self) {}
}
