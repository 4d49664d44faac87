//! The process itself: what the caller hands over is put right, and what is not needed is given up.
//!
//! Owns umask, working directory, signals and capabilities. Called by `lib`, before anything is read
//! or changed.

use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

use crate::instance::Instance;

/// Puts right what every command would stumble over: keepalived hands over a umask of 0177, under
/// which directories cannot be entered.
pub fn begin() {
    umask(Mode::from_bits_truncate(0o022));
}

/// For commands that look at the kernel or change it: leaves the caller's directory, which could be
/// on a file system that hangs or goes away, and keeps of root's rights only those that are needed.
pub fn settle(instance: Instance) -> Instance {
    let path: PathBuf = std::path::absolute(&instance.path).unwrap_or(instance.path);
    let _ = std::env::set_current_dir("/");
    give_up_capabilities();
    Instance { path, ..instance }
}

/// CAP_NET_ADMIN changes addresses, parameters and IPVS; CAP_NET_RAW opens the packet socket that
/// announces and asks. Files need none: they are root's own, or the caller's. Of what is given up
/// here, most would make a hostile file or record dangerous (CAP_DAC_OVERRIDE, CAP_SYS_ADMIN). Who
/// has fewer keeps fewer; the operation that lacks one says so.
fn give_up_capabilities() {
    let Ok(held) = caps::read(None, CapSet::Permitted) else { return };
    let needed = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    let kept: CapsHashSet = held.intersection(&needed).copied().collect();
    let sets = [
        // Effective first: it may never hold more than permitted.
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
        (CapSet::Inheritable, &CapsHashSet::new()),
    ];
    for (set, wanted) in sets {
        if let Err(error) = caps::set(None, set, wanted) {
            log::debug!("keeping more capabilities than needed: {error}");
        }
    }
}

/// keepalived's end sends SIGTERM to its scripts. What it asked for is finished all the same: a newer
/// notification, not a signal, says that it is out of date.
pub fn finish_whatever_comes() {
    let mut quiet = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        quiet.add(signal);
    }
    let _ = quiet.thread_block();
}
