//! Announces a MASTER's VIPs again: neighbours may have lost the first announcement.
//!
//! A process of its own, so that nobody who waits for a run waits for this; it has no lock, and SIGTERM ends it. Before
//! each announcement it asks what there is to announce: the newest notification says MASTER, and the VIP is on its
//! interface. Started by `reconcile` when it has announced, through `lib`, which carries it out.

use std::time::Instant;

use crate::basis::Basis;
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::Kernel;
use crate::model::{AddressKey, Role};
use crate::observed::Scope;
use crate::state::stamp::Stamp;

/// By this name a process knows that it is one.
pub const NAME: &str = "lvs-notify-announcer";

/// Announces at the times that the file says, from the second on.
pub fn repeat(kernel: &mut dyn Kernel, instance: &Instance) -> anyhow::Result<()> {
    let (begun, stamp) = (Instant::now(), Stamp::own()?);
    let Some(config) = Basis::read(instance).config else { return Ok(()) };
    let desired = Desired::for_role(&config, Role::Master);
    let interfaces = desired.announce.iter().map(|key| key.interface.clone()).collect();
    let scope = Scope { interfaces, ..Scope::default() };
    for time in config.announce.iter().skip(1) {
        std::thread::sleep(time.saturating_sub(begun.elapsed()));
        if !may_announce(stamp.latest(&instance.name), &stamp) {
            break;
        }
        let there = kernel.observe(&scope)?.addresses;
        let is_there = |key: &&AddressKey| there.iter().any(|found| found.key == **key);
        // What fails is told by the first announcement, or by the state of the link.
        let _ = kernel.announce(&desired.announce.iter().filter(is_there).cloned().collect::<Vec<_>>());
    }
    Ok(())
}

/// Whether the VIPs are announced after the newest notification, by a process of this stamp. A notification that came after
/// it has started one of its own.
pub fn may_announce(newest: Option<(Stamp, Role)>, stamp: &Stamp) -> bool {
    newest.is_some_and(|(newest, role)| role == Role::Master && !newest.is_after(stamp))
}
