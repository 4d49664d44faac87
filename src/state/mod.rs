//! What is kept between runs, one file for each thing that is kept.
//!
//! Owns /run/lvs-notify, /var/lib/lvs-notify and the file in /etc/sysctl.d. All of it is a help, not the truth: with
//! every one of them empty, the same command converges to the same state.

pub mod drain;
mod files;
pub mod lock;
pub mod record;
pub mod stamp;
pub mod sysctl_d;
