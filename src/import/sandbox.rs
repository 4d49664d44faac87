//! What a script finds around it that `import --run` lets loose.
//!
//! Owns the inner process: its mounts, its capabilities, and the script's own process. The file system is read-only, and
//! /tmp, /run and /dev are empty ones of its own; no socket of a daemon is left. Leaves the network to
//! `kernel::namespace`. Called by `lib`, as the first process of a process namespace, which `script` has started.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use caps::CapSet;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::SIGKILL;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// This program's own name for itself as the inner process: no option, so that nobody types it by mistake.
pub const INSIDE: &str = "lvs-notify-inside";

/// What is replaced by an empty or a private one.
const PRIVATE: [(&str, &str); 5] =
    [("tmpfs", "/tmp"), ("tmpfs", "/run"), ("tmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")];

/// Minor numbers of memory devices (`drivers/char/mem.c`), all that a script needs.
const DEVICES: [(&str, u64); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

/// Makes one mount read-only, for this namespace alone.
const READ_ONLY: MsFlags = MsFlags::MS_REMOUNT.union(MsFlags::MS_BIND).union(MsFlags::MS_RDONLY);

/// What the script keeps of root's rights: those over its own network, files and users, and modules, which ipvsadm
/// loads. CAP_SYS_ADMIN would undo the mounts, CAP_SYS_TIME set the machine's clock, and so on.
const KEPT: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_ADMIN \
    CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_MODULE";

/// Runs the script, and tells on standard output how it ended, nothing when it cannot be run; its own output goes to
/// standard error.
pub fn run(words: &[OsString]) -> anyhow::Result<()> {
    if std::process::id() != 1 {
        bail!("{INSIDE} is `import --run` in its own namespaces, and cannot be started by hand");
    }
    // Who asked for it can be interrupted; nothing of it may live on.
    set_pdeathsig(SIGKILL).context("binding the script to this program")?;
    let script = Path::new(words.first().context("no script is named")?);
    let content = std::fs::read(script).with_context(|| format!("reading {}", script.display()))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .context("making private mount, IPC and host name namespaces")?;
    // keepalived's scripts start there, and nothing of the old mounts is left open.
    std::env::set_current_dir("/").context("entering /")?;
    make_private()?;
    // /var/lock leads there.
    std::fs::create_dir("/run/lock").context("making /run/lock")?;
    if !script.exists() {
        // It was in what is private now.
        std::fs::create_dir_all(script.parent().unwrap_or(script))
            .and_then(|()| std::fs::write(script, &content))
            .and_then(|()| std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("copying {}", script.display()))?;
    }
    caps::clear(None, CapSet::Inheritable).context("giving up capabilities")?;
    for capability in caps::read(None, CapSet::Bounding).context("reading capabilities")? {
        if !KEPT.split(' ').any(|kept| kept == capability.to_string()) {
            caps::drop(None, CapSet::Bounding, capability).context("giving up capabilities")?;
        }
    }
    let output = std::io::stderr().as_fd().try_clone_to_owned().context("passing standard error on")?;
    // What has no `#!` line is no program for the kernel, but a script for a shell.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"exec "$0" "$@""#]).args(words).stdin(Stdio::null()).stdout(output);
    print!("{}", shell.status().context("running /bin/sh")?);
    Ok(())
}

/// Makes every mount read-only, and what would reach the machine or its daemons private. Of /proc, /proc/sys/net stays
/// writable, which is the namespace's own.
fn make_private() -> anyhow::Result<()> {
    let sockets = std::fs::read_to_string("/proc/1/net/unix").unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    mount("", "/", "", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    for line in mounts.lines() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        let place = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
            .iter()
            .fold(place.to_owned(), |place, (code, letter)| place.replace(code, letter));
        if PRIVATE.iter().any(|(_, private)| Path::new(&place).starts_with(private)) {
            continue;
        }
        match mount("", &place, "", READ_ONLY) {
            // Then it lies beneath another mount, where nobody reaches it.
            Err(error)
                if matches!(error.downcast_ref(), Some(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR)) => {}
            done => done?,
        }
    }
    for (kind, place) in PRIVATE {
        let flags = if kind == "sysfs" { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(kind, place, kind, flags | MsFlags::MS_NOSUID)?;
    }
    mount("/proc/sys/net", "/proc/sys/net", "", MsFlags::MS_BIND)?;
    mount("", "/proc", "", READ_ONLY)?;
    let dev = Path::new("/dev");
    let mode = Mode::from_bits_truncate(0o666);
    for (name, minor) in DEVICES {
        mknod(&dev.join(name), SFlag::S_IFCHR, mode, makedev(1, minor))
            .with_context(|| format!("making /dev/{name}"))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, dev.join(name)).with_context(|| format!("making /dev/{name}"))?;
    }
    // Sockets of daemons that are elsewhere than in /run: a read-only mount does not keep them from being connected to, and
    // only those without a path are the network namespace's.
    for (_, path) in sockets.lines().filter_map(|line| line.split_once('/')) {
        let path = format!("/{path}");
        if std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            mount("/dev/null", &path, "", MsFlags::MS_BIND)?;
        }
    }
    Ok(())
}

fn mount(what: &str, place: &str, kind: &str, flags: MsFlags) -> anyhow::Result<()> {
    nix::mount::mount(Some(what), place, Some(kind), flags, None::<&str>)
        .with_context(|| format!("mounting on {place} in the private mount namespace"))
}
