//! What is kept between runs, one file for each thing that is kept.
//!
//! All of it is a help, not the truth: with every one of these files gone, the same command converges to the same
//! state. So whoever has the right to may delete any of them; what that costs:
//!
//! | path | what it keeps | until | owner | without it |
//! |---|---|---|---|---|
//! | `/run/lvs-notify/INSTANCE.json` | role, what was made, values found before | a boot, a network namespace | [`record`] | `apply` and `status` know no role, nothing of an older file is taken away, `restore` restores nothing |
//! | `/run/lvs-notify/INSTANCE.notifications/` | a mark for each role that was asked for | the next one, a boot | [`stamp`] | an older run that wakes late undoes a newer one |
//! | `/run/lvs-notify/INSTANCE.rehearsal` | whether a takeover would succeed | the file, the program or the kernel changes | [`record`] | `status` does not know it until the next run |
//! | `/run/lvs-notify/INSTANCE.trouble` | what the last run could not do | the next run | [`record`] | `status` does not tell it |
//! | `/run/lvs-notify/lock` | who reads and changes the kernel now | a boot | [`lock`] | two runs may overlap; reading back repairs it |
//! | `/var/lib/lvs-notify/INSTANCE.yaml` | the last file that a kernel has accepted | the next one | [`last_good`] | a broken file prevents a takeover |
//! | `/var/lib/lvs-notify/INSTANCE.compiled` | what that file means | the next one | [`last_good`] | a takeover takes longer |
//! | `/var/lib/lvs-notify/INSTANCE.trial` | which edit is to be confirmed, until when, and whether it was taken back | `confirm`, another file is carried out | [`trial`] | it counts as confirmed |
//! | `/var/lib/lvs-notify/INSTANCE.drains.json` | real servers drained by hand | `undrain`, or their time | [`drain`] | they get connections again |
//! | `/var/lib/lvs-notify/originals.json` | values found before the first instance changed them | the last one restores them | [`record`] | after a power failure `restore` restores nothing |
//! | `/etc/sysctl.d/90-lvs-notify-INSTANCE.conf` | the ARP parameters, for the next boot | `persist: false`, `restore` | [`sysctl_d`] | after a boot they are set by the first run only |

pub mod drain;
mod files;
pub mod last_good;
pub mod lock;
pub mod record;
pub mod stamp;
pub mod sysctl_d;
pub mod trial;

pub use files::STATE;
