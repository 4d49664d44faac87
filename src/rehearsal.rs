//! A takeover for real, `reconcile`'s own, in a network namespace that goes with this process: whether it would succeed.
//!
//! It has no lock and no record, and yields to everybody; SIGTERM ends it, and so does a newer notification. Called by
//! `lib`: by hand, or as a process of its own after the work of a run that left this host BACKUP.

use std::time::Instant;

use anyhow::{Result, ensure};
use log::Level;

use crate::basis::{Basis, Goal};
use crate::config::source::Invalid;
use crate::instance::Instance;
use crate::kernel::{Linux, namespace};
use crate::model::Role;
use crate::process;
use crate::reconcile::{self, Request};
use crate::report::{Exit, print_text, status::readiness};
use crate::state::last_good;
use crate::state::record::{self, Rehearsal};
use crate::state::stamp::{Stamp, seconds_now};
use crate::state::trial::Trial;

/// By this name a process knows that nobody has asked for it.
pub const NAME: &str = "lvs-notify-rehearsal";

/// Rehearses, and tells what that showed.
pub fn run(instance: Instance) -> Result<Exit> {
    let (name, by_itself) = (instance.name.clone(), process::goes_by(NAME));
    process::log_for(&name);
    let last = match rehearse(instance, by_itself) {
        // Not due, or not possible, as in most containers: nothing is known, and nothing is wrong.
        Err(_) if by_itself => return Ok(Exit::Done),
        last => last?,
    };
    let (ready, text) = (last.problems.is_empty(), readiness(Some(&last)));
    log::log!(if ready { Level::Info } else { Level::Warn }, "takeover: {text}");
    let unseen = "the real interfaces, this host's ip_forward and firewall, its memory";
    print_text(&format!("{name}: {text}\nNot shown by a private namespace: {unseen}\n"));
    Ok(if ready { Exit::Done } else { Exit::Differences })
}

fn rehearse(instance: Instance, by_itself: bool) -> Result<Rehearsal> {
    let (name, stamp) = (instance.name.clone(), Stamp::own()?);
    let newest = stamp.latest(&name);
    let _ = rustix::process::nice(19);
    let basis = Basis::read(&instance);
    let is_master = newest.as_ref().is_some_and(|(_, role)| *role == Role::Master);
    ensure!(!by_itself || !is_master && record::is_due(&name, &basis.file), "it is not due");
    namespace::enter(&Goal::of(&name, &basis, Role::Master, None, false)?.scope.interfaces)?;
    process::drop_privileges_and_cwd();
    let (role, started, command, announcer) = (None, Instant::now(), String::new(), |_: &Instance| ());
    let request = Request { instance, role, command, started, announcer };
    // Any notification that comes now is of later.
    let goes_by = newest.map_or(Stamp { start: 0, ..stamp }, |(newest, _)| newest);
    let (outcome, basis) = reconcile::rehearse(&mut Linux::default(), &request, goes_by)?;
    ensure!(outcome.superseded.is_none(), "superseded by {}", outcome.superseded.unwrap_or_default());
    let failed = outcome.done.iter().filter_map(|(_, error)| Some(error.as_ref()?.to_string()));
    let differs = outcome.remaining.iter().map(|change| format!("still differs: {change}"));
    let refused = outcome.refused.iter().map(ToString::to_string);
    let unannounced = outcome.unannounced.iter().cloned();
    let problems: Vec<String> = refused.chain(failed).chain(differs).chain(unannounced).collect();
    let edited = basis.version.map_or(0, |(_, [seconds, _])| seconds.unsigned_abs());
    let last = Rehearsal { at: seconds_now(), edited, milliseconds: outcome.run.milliseconds, problems };
    let source = basis.file.map_err(Invalid)?;
    record::keep_rehearsal(&name, &source, &last)?;
    // What a MASTER has rehearsed by hand is not what it goes back to, nor what others rehearse during a trial.
    let is_open = Trial::of(&name).is_some_and(|trial| trial.is_open());
    let good = basis.config.filter(|_| last.problems.is_empty() && !is_master && !is_open);
    good.map_or(Ok(()), |config| last_good::keep(&name, &source, &config, basis.compiled))?;
    Ok(last)
}
