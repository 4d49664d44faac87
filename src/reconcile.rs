//! One run from request to verified state: lock, supersede, observe, plan, apply, announce, verify, persist, record.
//!
//! Owns the order of these and what happens when one of them fails. Decides nothing about values (`desired`) or
//! differences (`plan`), touches the kernel only through [`Kernel`] and formats no output (`report`). Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::basis::{Basis, Goal};
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::{self, Kernel};
use crate::model::{AddressKey, Owned, Role, ServiceKey};
use crate::observed::{Observed, ObservedAddress, ObservedService, Scope};
use crate::plan::{Change, Phase, Plan, Step, is_home};
use crate::state::lock::{Claim, Lock};
use crate::state::record::{self, Lap, LastRun, Record};
use crate::state::stamp::{Stamp, seconds_now};
use crate::state::{last_good, sysctl_d};

/// How long the log waits for a disk.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// A newer notification can stop a long load between two groups of so many services and real servers.
const GROUP: usize = 4096;

#[derive(Clone, Debug)]
pub struct Request {
    pub instance: Instance,
    /// The role to take, or `None` for the one recorded last
    pub role: Option<Role>,
    pub command: String,
    pub started: Instant,
    /// Goes on announcing after the first time
    pub announcer: fn(&Instance),
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub role: Option<Role>,
    /// Every change tried, with what went wrong
    pub done: Vec<(Change, Option<kernel::Error>)>,
    /// The file of parameters that was written or removed, with the sign of a change
    pub persisted: Option<String>,
    /// What the file needs and this kernel lacks
    pub refused: Vec<kernel::Error>,
    /// Why neighbours were not told of the VIPs
    pub unannounced: Option<String>,
    /// The sysctl.d file, the record: reported, never in the way
    pub troubles: Vec<String>,
    /// VIPs that were not put up, because their services could not be made
    pub withheld: BTreeSet<IpAddr>,
    /// What still differs after everything, but for the changes that failed
    pub remaining: Vec<Change>,
    pub superseded: Option<String>,
    /// Whether a takeover with this file would succeed is not known
    pub rehearse: bool,
    /// Why the last good file, or none, was used
    pub fallback: Option<String>,
    pub run: LastRun,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.troubles.is_empty() && self.unannounced.is_none() && self.failure().is_none()
    }

    /// How the role change failed, in a line.
    fn failure(&self) -> Option<String> {
        let failed = self.done.iter().filter_map(|(_, error)| Some(error.as_ref()?.to_string()));
        let withheld = self.withheld.iter().map(|vip| format!("{vip} was not put up"));
        let remaining =
            self.remaining.iter().map(|change| format!("still differs: {} {change}", change.sign()));
        self.refused
            .iter()
            .map(|error| error.detail.clone())
            .chain(failed)
            .chain(withheld)
            .chain(remaining)
            .next()
    }

    fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.troubles.push(format!("{error:#}"))).ok()
    }

    fn failures(&self) -> BTreeSet<String> {
        let failed = self.done.iter().filter(|(_, error)| error.is_some());
        failed.map(|(change, _)| change.to_string()).collect()
    }
}

/// Carries out a role change, or repairs the state of the newest notification's role.
///
/// Fails when nothing could be done at all: no usable file while becoming MASTER, the kernel cannot be read or lacks what
/// the file needs; without a notification, too, when the lock is not had.
pub fn run(kernel: &mut dyn Kernel, request: &Request) -> anyhow::Result<Outcome> {
    let mut run = Run::begin(kernel, request)?;
    match run.work() {
        Ok(Some(goal)) => {
            let waits = matches!(run.outcome.role, Some(Role::Backup | Role::Fault));
            let rehearse = waits && record::is_due(run.name(), &run.basis.file);
            Ok(Outcome { rehearse, ..run.persist(goal) })
        }
        Ok(None) => Ok(run.outcome),
        Err(error) => {
            run.record_failure(&error);
            Err(error)
        }
    }
}

/// A takeover without all that outlives it, which ends when a notification comes after the one that it goes by. When the
/// kernel lacks something, nothing is tried.
pub fn rehearse(kernel: &mut dyn Kernel, request: &Request, goes_by: Stamp) -> Result<(Outcome, Basis)> {
    let mut run = Run { goes_by, ..Run::begin(kernel, request)? };
    let mut goal = Goal::of(run.name(), &run.basis, Role::Master, None, false)?;
    let later = std::mem::take(&mut goal.scope.expected);
    let plan = goal.plan(&run.observe(&goal)?);
    goal.scope.expected = later;
    run.outcome.refused = run.lacks(&plan);
    if run.outcome.refused.is_empty() {
        let _ = run.carry_out(plan, &goal).and_then(|()| run.verify(&goal));
    }
    Ok((run.outcome, run.basis))
}

struct Run<'a> {
    kernel: &'a mut dyn Kernel,
    request: &'a Request,
    stamp: Stamp,
    /// The notification that is carried out: this run's own, or the newest that was found
    goes_by: Stamp,
    basis: Basis,
    /// The record as it stands in /run
    record: Option<Record>,
    outcome: Outcome,
    /// Connections have been waited for
    drained: bool,
}

impl<'a> Run<'a> {
    /// Tells older runs of the instance to stop.
    fn begin(kernel: &'a mut dyn Kernel, request: &'a Request) -> anyhow::Result<Self> {
        let stamp = Stamp::own()?;
        let mut outcome = Outcome { role: request.role, ..Outcome::default() };
        if let Some(role) = request.role {
            outcome.note(stamp.announce(&request.instance.name, role));
        }
        let (phase, milliseconds) = ("start".to_owned(), request.started.elapsed().as_secs_f64() * 1000.0);
        outcome.run.phases.push(Lap { phase, milliseconds });
        let basis = Basis::read(&request.instance);
        let goes_by = stamp.clone();
        let mut run = Self { kernel, request, stamp, goes_by, basis, record: None, outcome, drained: false };
        run.lap("file");
        Ok(run)
    }

    /// Everything that needs the lock: twice when connections are waited for in between. `None` when a newer notification
    /// has taken over.
    fn work(&mut self) -> anyhow::Result<Option<Goal>> {
        loop {
            let Some(lock) = self.lock()? else { return Ok(None) };
            self.lap("lock");
            let (mut goal, mut record) = self.goal()?;
            // Adding what a list has missed is no failure: nobody waits for a takeover to look for each service.
            let later =
                if goal.desired.active { std::mem::take(&mut goal.scope.expected) } else { Vec::new() };
            let mut observed = self.observe(&goal)?;
            goal.scope.expected.extend(later);
            if self.basis.use_own_names(&observed) {
                continue;
            }
            if goal.follow(&observed) {
                observed = self.observe(&goal)?;
            }
            let wanted = goal.desired.ipvs_parameters.keys().filter(|_| observed.ipvs.is_some());
            for lacking in wanted.filter(|name| !observed.parameters.contains_key(name)) {
                log::warn!("this kernel has no {lacking}");
            }
            for found @ ObservedAddress { key, prefix, .. } in &observed.addresses {
                if goal.owned.taken.contains(&(key.clone(), *prefix)) {
                    log::warn!(
                        "{key} has prefix /{prefix} again and keeps it: somebody puts it back; make it /32 in keepalived.conf"
                    );
                }
                if goal.desired.off.contains(key)
                    && is_home(found, &goal.desired.ownership.vips, &observed, &goal.owned)
                {
                    log::warn!("{key} stays: this host lives on it; see `lvs-notify check --host`");
                }
            }
            let plan = goal.plan(&observed);
            self.lap("reading the kernel");
            let lacks = self.lacks(&plan);
            let why = || lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            if goal.desired.active
                && !lacks.is_empty()
                && self.basis.fall_back(&self.request.instance, &why())
            {
                continue;
            }
            self.outcome.refused.extend(lacks);
            record.owned.leaving = goal.leaving(&plan, &observed);
            self.record_intent(&plan, &observed, &goal, &mut record);
            self.lap("preparing");
            if self.carry_out(plan, &goal).and_then(|()| self.verify(&goal)).is_none() {
                return Ok(None);
            }
            // A name that is gone leads to its link still, until nothing of ours is there.
            let Owned { links, addresses, .. } = &mut record.owned;
            links.retain(|name, _| addresses.iter().any(|key| key.interface == *name));
            links.extend(observed.interfaces.iter().map(|(name, link)| (name.clone(), link.index)));
            self.record_result(&goal, record);
            drop(lock);
            if goal.desired.drain.is_zero() {
                return Ok(Some(goal));
            }
            if self.wait_for_connections(&goal).is_none() {
                return Ok(None);
            }
            self.lap("drain");
            self.drained = true;
        }
    }

    fn name(&self) -> &'a str {
        &self.request.instance.name
    }

    /// `None` when a newer notification has taken over. Then so does every step, and the run ends.
    fn go_on(&mut self) -> Option<()> {
        self.outcome.superseded = self.goes_by.superseded(self.name());
        self.outcome.superseded.is_none().then_some(())
    }

    /// Waits for the lock, then reads the record. The file is read before, because its disk can hang, and again when
    /// somebody has edited it while this run waited: what is applied last is what was written last.
    fn lock(&mut self) -> anyhow::Result<Option<Lock>> {
        let patience = match self.request.role {
            // keepalived gives its stop scripts one second in all.
            Some(Role::Stop) => Duration::from_millis(400),
            Some(_) => Duration::from_secs(1),
            None => Duration::from_secs(5),
        };
        let (stamp, instance, notified) = (&self.stamp, self.name(), self.request.role.is_some());
        let claim = Claim { stamp, instance, patience, notified };
        let lock = claim.wait(|| stamp.superseded(instance).is_some())?;
        if lock.is_some() && !self.basis.is_current(&self.request.instance) {
            drop(lock);
            self.basis = Basis::read(&self.request.instance);
            return self.lock();
        }
        self.outcome.fallback = self.basis.problem().map(str::to_owned);
        self.record = record::read(instance);
        let drain = self.basis.config.as_ref().map_or(Duration::ZERO, |config| config.drain);
        let drains = self.record.as_ref().filter(|_| self.request.role.is_none());
        let by = drains.and_then(|record| record.drained_by(drain)).filter(|by| *by != self.stamp);
        if let Some(by) = by {
            self.outcome.superseded = Some(format!("process {}, which lets connections end", by.pid));
            return Ok(None);
        }
        Ok(lock.filter(|_| self.go_on().is_some()))
    }

    /// What is wanted in the role that was asked for last, and the record to be: it owns all that the instance had, and
    /// all that the run is about to make.
    fn goal(&mut self) -> anyhow::Result<(Goal, Record)> {
        let (name, before) = (self.name(), self.record.as_ref());
        let mut role = self.request.role;
        if role.is_none() {
            // A run that was killed has left its mark, and not always a record. Any mark that comes now is of later.
            let marked = self.stamp.latest(name);
            role = marked.as_ref().map(|(_, role)| *role).or(before.map(|record| record.role));
            self.goes_by = marked.map_or(Stamp { start: 0, ..self.stamp.clone() }, |(stamp, _)| stamp);
        }
        let role = role.with_context(|| {
            format!("no role is recorded for {name}: keepalived has not called lvs-notify since boot; see `lvs-notify plan backup {name}`")
        })?;
        // Who was not MASTER has no connections to wait for.
        let drains = !self.drained && before.is_some_and(|record| record.role == Role::Master);
        let mut goal = Goal::of(name, &self.basis, role, before, drains)?;
        let record = Record {
            owned: with_objects(&goal.desired, goal.owned.clone()),
            by: self.stamp.to_string(),
            ..Record::of(&self.request.instance.path, role, seconds_now(), before)
        };
        self.outcome.role = Some(role);
        self.outcome.note(goal.problem.take().map_or(Ok(()), Err));
        Ok((goal, record))
    }

    /// Observes; a director that leaves takes its VIPs down even when IPVS cannot be read.
    fn observe(&mut self, goal: &Goal) -> anyhow::Result<Observed> {
        match self.kernel.observe(&goal.scope) {
            Err(error) if !goal.desired.active => {
                self.outcome.troubles.push(error.to_string());
                let without = Scope { servers: None, ..goal.scope.clone() };
                Ok(self.kernel.observe(&without)?)
            }
            observed => Ok(observed?),
        }
    }

    /// Asks the kernel for everything that the plan needs before anything is touched; what it lacks, told.
    fn lacks(&mut self, plan: &Plan) -> Vec<kernel::Error> {
        plan.needs().map_or_else(Vec::new, |needs| self.kernel.prepare(&needs))
    }

    /// Records before the first change what the run will own: when it is killed, it leaves nothing that nobody owns.
    fn record_intent(&mut self, plan: &Plan, observed: &Observed, goal: &Goal, record: &mut Record) {
        if self.basis.config.as_ref().and_then(|config| config.arp).is_some_and(|arp| arp.restore) {
            let others = record::others(self.name());
            for name in goal.desired.parameters.keys() {
                // Found is what another instance has set, when it came first.
                let before = others.values().find_map(|other| other.owned.originals.get(name));
                if let Some(value) = before.or_else(|| observed.parameters.get(name)) {
                    record.owned.originals.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let wrong = plan.changes().filter_map(|change| match change {
            Change::Address { key, old, .. } if goal.desired.addresses.contains_key(key) => {
                Some((key.clone(), (*old)?))
            }
            _ => None,
        });
        record.owned.taken.extend(wrong);
        let (owned, there) = (&goal.owned, observed.addresses.iter().map(|found| &found.key));
        let found = there.filter(|key| record.owned.addresses.contains(key) && !owned.has_made(key));
        record.owned.found = found.cloned().collect();
        let before = self.record.as_ref().filter(|before| before.role == record.role);
        record.complete = plan.is_empty() && before.is_some_and(|before| before.complete);
        if goal.desired.active && !plan.is_empty() && !goal.desired.announce.is_empty() {
            record.unannounced = Some("the run did not come to it".to_owned());
        }
        self.save(record);
    }

    /// Carries out the plan. As soon as all that clients meet is as it should be, a MASTER announces its VIPs.
    fn carry_out(&mut self, Plan { mut steps }: Plan, goal: &Goal) -> Option<()> {
        let again = self.request.role.is_some() || steps.iter().any(|step| step.phase == Phase::Interface);
        let met = |step: &Step| !matches!(step.phase, Phase::Daemon | Phase::Restore);
        let rest = steps.split_off(steps.iter().rposition(met).map_or(0, |last| last + 1));
        self.steps(steps, goal)?;
        if goal.desired.active {
            self.go_on()?;
            self.announce(goal, again);
            self.lap("announcement");
        }
        self.steps(rest, goal)?;
        let run = &mut self.outcome.run;
        run.milliseconds = run.phases.iter().map(|lap| lap.milliseconds).sum();
        Some(())
    }

    /// Waits, without the lock, until the connections have ended that came while MASTER, or their time is over.
    fn wait_for_connections(&mut self, goal: &Goal) -> Option<()> {
        let deadline = Instant::now() + goal.desired.drain;
        loop {
            self.go_on()?;
            let table =
                self.kernel.observe(&goal.scope).ok().and_then(|observed| observed.ipvs).unwrap_or_default();
            let ours = table.services.iter().filter(|(key, _)| goal.desired.services.contains_key(key));
            let mut counters = ours.flat_map(|(_, found)| found.counters.values());
            if counters.all(|counted| counted.active == 0) || Instant::now() >= deadline {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn steps(&mut self, steps: Vec<Step>, goal: &Goal) -> Option<()> {
        for Step { phase, mut changes } in steps {
            let withheld = &self.outcome.withheld;
            changes.retain(
                |change| !matches!(change, Change::Address { key, new: Some(_), .. } if withheld.contains(&key.address)),
            );
            let mut next = Vec::new();
            for change in changes {
                if let Some(address) = change.taken_away().filter(|_| goal.desired.active) {
                    self.apply(std::mem::take(&mut next))?;
                    // A VIP that could not be put up where it should be stays where it is.
                    let mut failed = self.outcome.done.iter().filter(|(_, error)| error.is_some());
                    if failed.any(|(failed, _)| failed.address() == Some(address)) {
                        continue;
                    }
                }
                next.push(change);
            }
            self.apply(next)?;
            if phase == Phase::Services && goal.desired.active && self.outcome.run.failed > 0 {
                self.make_up_for_failures(goal)?;
            }
            self.lap(&phase.to_string());
        }
        Some(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Option<()> {
        let told = self.outcome.failures();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            self.go_on()?;
            let mut size = 0;
            let next = || changes.next_if(|_| size < GROUP).inspect(|next| size += next.size());
            let group: Vec<Change> = std::iter::from_fn(next).collect();
            let results = self.kernel.apply(&group);
            for (change, result) in group.into_iter().zip(results) {
                // What is tried once more and fails again is one failure.
                if result.is_ok() || !told.contains(&change.to_string()) {
                    self.outcome.run.changes += usize::from(result.is_ok());
                    self.outcome.run.failed += usize::from(result.is_err());
                    self.outcome.done.push((change, result.err()));
                }
            }
        }
        Some(())
    }

    /// After a failure among the services: tries once more against what the kernel has now (somebody else may have changed
    /// the table), then keeps back the VIPs that would answer with a refusal.
    fn make_up_for_failures(&mut self, goal: &Goal) -> Option<()> {
        let read = self.observe(goal);
        let mut found = self.outcome.note(read);
        if let Some(observed) = &found {
            for step in goal.plan(observed).steps.into_iter().filter(|step| step.phase == Phase::Services) {
                self.apply(step.changes)?;
            }
            found = self.kernel.observe(&goal.scope).ok().or(found);
        }
        let table = found.and_then(|observed| observed.ipvs).unwrap_or_default().services;
        let serves = |found: &ObservedService| found.settings.scheduler != "none";
        for key in goal.desired.services.keys().filter(|key| !table.get(key).is_some_and(serves)) {
            match key {
                ServiceKey::Endpoint { address, .. } => _ = self.outcome.withheld.insert(*address),
                ServiceKey::Fwmark { .. } => self.outcome.withheld.extend(&goal.desired.ownership.vips),
            }
        }
        Some(())
    }

    /// Announces the VIPs that stand: somebody else may have answered for them until now, even when they were here already,
    /// and `apply` makes up for what neighbours have lost. Again and again only after a change of hands.
    fn announce(&mut self, goal: &Goal, again: bool) {
        let stands = |key: &&AddressKey| !self.outcome.withheld.contains(&key.address);
        let addresses: Vec<AddressKey> = goal.desired.announce.iter().filter(stands).cloned().collect();
        let failed: Vec<String> = self
            .kernel
            .announce(&addresses)
            .into_iter()
            .filter_map(|sent| Some(sent.err()?.to_string()))
            .collect();
        let sent = !addresses.is_empty() && failed.is_empty();
        self.outcome.run.announced = sent.then(|| self.milliseconds());
        self.outcome.unannounced = Some(failed.join("; ")).filter(|why| !why.is_empty());
        let times = self.basis.config.as_ref().map_or(0, |config| config.announce.len());
        if again && times > 1 && !addresses.is_empty() {
            (self.request.announcer)(&self.request.instance);
        }
    }

    /// Reads back, repairs once, and notes what still differs.
    fn verify(&mut self, goal: &Goal) -> Option<()> {
        let mut repaired = false;
        while !self.outcome.done.is_empty() {
            let read = self.observe(goal).context("reading back what was changed");
            let Some(observed) = self.outcome.note(read) else { break };
            let mut due: Vec<Change> = goal.plan(&observed).changes().cloned().collect();
            due.retain(|change| !change.can_wait(&goal.desired));
            if repaired || due.is_empty() || self.outcome.run.failed > 0 {
                let told = self.outcome.failures();
                due.retain(|change| !told.contains(&change.to_string()));
                self.outcome.remaining = due;
                break;
            }
            repaired = true;
            self.apply(due)?;
        }
        Some(())
    }

    /// Writes what outlives a boot: the parameters' file, and the file that was carried out as the last good one. A disk
    /// that hangs is told, and holds up nobody: the lock is free.
    fn persist(self, Goal { desired, owned, .. }: Goal) -> Outcome {
        let is_good = self.outcome.is_clean() && desired.active;
        let Self { mut basis, mut outcome, request, record, stamp, .. } = self;
        let name = request.instance.name.clone();
        let (told, writing) = channel();
        let restored = desired.restore && outcome.is_clean();
        let write = move || {
            basis.taken_back.take().into_iter().for_each(|trial| trial.settle(&name));
            let persisted = sysctl_d::apply(&name, &desired);
            record::old_names(&name).for_each(|old| sysctl_d::forget(&old));
            let mut values = record::originals();
            values.extend(record.map(|record| record.owned.originals).unwrap_or_default());
            values.retain(|name, _| !(restored && owned.originals.contains_key(name)));
            let mut kept = record::keep_originals(&values);
            if let (Basis { file: Ok(source), config: Some(config), compiled, .. }, true) = (basis, is_good) {
                kept = kept.and(last_good::keep(&name, &source, &config, compiled));
            }
            told.send((persisted, kept))
        };
        let begun = std::thread::Builder::new().spawn(write).map_err(|error| error.to_string());
        let written = begun.and_then(|_| {
            let late = |_| {
                format!(
                    "a disk takes more than {} s: the last good file or /etc/sysctl.d may not be written",
                    DISK_PATIENCE.as_secs()
                )
            };
            writing.recv_timeout(DISK_PATIENCE).map_err(late)
        });
        match written {
            Ok((persisted, kept)) => {
                outcome.persisted = outcome.note(persisted).flatten();
                outcome.note(kept);
                outcome.run.changes += usize::from(outcome.persisted.is_some());
            }
            Err(why) => outcome.troubles.push(why),
        }
        if let Some(trouble) = outcome.troubles.first() {
            outcome.note(record::keep_trouble(&request.instance.name, &stamp, trouble));
        }
        outcome
    }

    fn record_result(&mut self, Goal { desired, .. }: &Goal, mut record: Record) {
        let refused = self.outcome.fallback.as_ref().filter(|_| self.basis.refused);
        let refused = refused.map(|why| format!("{why}; the last good copy is carried out instead"));
        record.failure = self.outcome.failure().or(refused);
        record.unannounced.clone_from(&self.outcome.unannounced);
        let run = &mut self.outcome.run;
        (run.at, run.pid) = (seconds_now(), Some(self.stamp.pid));
        run.command.clone_from(&self.request.command);
        record.complete = desired.drain.is_zero();
        if run.changes + run.failed > 0 || self.request.role.is_some() || record.failure.is_some() {
            record.last = Some(run.clone());
        }
        if self.outcome.is_clean() {
            // What was taken away is nobody's concern any more.
            let originals = if desired.restore { BTreeMap::new() } else { record.owned.originals };
            let Owned { found, links, taken, leaving, .. } = record.owned;
            record.owned =
                with_objects(desired, Owned { found, originals, links, taken, leaving, ..Owned::default() });
        }
        self.save(&record);
    }

    /// A role that could not be taken on is what was asked for all the same.
    fn record_failure(&mut self, error: &anyhow::Error) {
        let Some(role) = self.request.role.filter(|_| self.go_on().is_some()) else { return };
        let before = self.record.take();
        let mut record = Record::of(&self.request.instance.path, role, seconds_now(), before.as_ref());
        (record.complete, record.failure) = (true, Some(format!("{error:#}")));
        let (command, pid) = (self.request.command.clone(), Some(self.stamp.pid));
        let milliseconds = self.milliseconds();
        record.last =
            Some(LastRun { at: seconds_now(), command, pid, failed: 1, milliseconds, ..LastRun::default() });
        self.save(&record);
    }

    fn save(&mut self, record: &Record) {
        if self.record.as_ref() != Some(record) {
            self.outcome.note(record::save(self.name(), record));
            self.record = Some(record.clone());
        }
    }

    /// Ends a phase, which has taken all the time since the one before.
    fn lap(&mut self, phase: &str) {
        let now = self.milliseconds();
        let phases = &mut self.outcome.run.phases;
        let milliseconds = now - phases.iter().map(|lap| lap.milliseconds).sum::<f64>();
        match phases.iter_mut().find(|lap| lap.phase == phase) {
            Some(before) => before.milliseconds += milliseconds,
            None => phases.push(Lap { phase: phase.to_owned(), milliseconds }),
        }
    }

    fn milliseconds(&self) -> f64 {
        self.request.started.elapsed().as_secs_f64() * 1000.0
    }
}

fn with_objects(desired: &Desired, mut owned: Owned) -> Owned {
    owned.addresses.extend(desired.addresses.keys().cloned());
    owned.services.append(&mut desired.services.keys().copied().collect());
    owned.parameters.extend(desired.parameters.keys().cloned());
    owned.daemon |= desired.daemon.is_some();
    owned
}
