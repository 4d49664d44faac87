//! One run from request to verified state: lock, supersede, observe, plan, apply, announce, verify, persist, record.
//!
//! Owns the order of these and what happens when one of them fails. Decides nothing about values (`desired`) or
//! differences (`plan`), touches the kernel only through [`Kernel`] and formats no output (`report`). Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::basis::{Basis, Goal};
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::{self, Kernel};
use crate::model::{AddressKey, Owned, RealServer, Role, ServiceKey};
use crate::observed::{Observed, ObservedService, Scope};
use crate::plan::{Change, Phase, Plan, Step};
use crate::state::lock::{self, Lock, LockOutcome, LockRequest};
use crate::state::record::{self, LastRun, Record};
use crate::state::stamp::{Stamp, seconds_now};
use crate::state::{last_good, sysctl_d};

/// A newer notification can stop a long load between two groups of this many changes.
const GROUP: usize = 256;

#[derive(Clone, Debug)]
pub struct Request {
    pub instance: Instance,
    /// The role to take, or `None` for the one recorded last
    pub role: Option<Role>,
    pub command: String,
    pub started: Instant,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub role: Option<Role>,
    /// Every change tried, with what went wrong
    pub done: Vec<(Change, Option<kernel::Error>)>,
    /// The file of parameters that was written or removed, with the sign of a change
    pub persisted: Option<String>,
    /// Announcements that failed, the sysctl.d file, the record: reported, never in the way
    pub troubles: Vec<String>,
    /// VIPs that were not put up, because their services could not be made
    pub withheld: BTreeSet<IpAddr>,
    /// What still differs after everything, but for the changes that failed
    pub remaining: Vec<Change>,
    pub superseded: Option<String>,
    /// Why the last good file, or none, was used
    pub fallback: Option<String>,
    pub run: LastRun,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.done.iter().all(|(_, error)| error.is_none())
            && self.troubles.is_empty()
            && self.withheld.is_empty()
            && self.remaining.is_empty()
    }

    fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.troubles.push(format!("{error:#}"))).ok()
    }

    fn failures(&self) -> BTreeSet<String> {
        let failed = self.done.iter().filter(|(_, error)| error.is_some());
        failed.map(|(change, _)| change.to_string()).collect()
    }
}

/// Carries out a role change, or repairs the recorded role's state, and lets `tell` say how it ended: before the last
/// announcements, because they take a second in which somebody may look for the log line.
///
/// Fails when nothing could be done at all: no usable file while becoming MASTER, the lock is held by a process that
/// hangs, the kernel cannot be read or lacks what the file needs.
pub fn run(
    kernel: &mut dyn Kernel,
    request: &Request,
    tell: impl FnOnce(&Outcome),
) -> anyhow::Result<Outcome> {
    let mut run = Run::begin(kernel, request)?;
    let Some(lock) = run.lock()? else {
        tell(&run.outcome);
        return Ok(run.outcome);
    };
    let (goal, mut record) = run.goal()?;
    let observed = run.observe(&goal)?;
    let plan = goal.plan(&observed);
    run.prepare(&plan, &goal)?;
    run.record_intent(&plan, &observed, &goal, &mut record);
    if run.carry_out(plan, &goal).and_then(|()| run.verify(&goal)).is_some() {
        run.persist(&goal);
        run.record_result(&goal, record);
    }
    drop(lock);
    tell(&run.outcome);
    run.announce_again(&goal);
    Ok(run.outcome)
}

struct Run<'a> {
    kernel: &'a mut dyn Kernel,
    request: &'a Request,
    stamp: Stamp,
    basis: Basis,
    /// The record as it stands in /run
    record: Option<Record>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    /// Tells older runs of the instance to stop, and reads what this one goes by.
    fn begin(kernel: &'a mut dyn Kernel, request: &'a Request) -> anyhow::Result<Self> {
        let stamp = Stamp::own()?;
        let mut outcome = Outcome { role: request.role, ..Outcome::default() };
        if let Some(role) = request.role {
            outcome.note(stamp.announce(&request.instance.name, role));
        }
        let basis = Basis::read(&request.instance);
        outcome.fallback = basis.problem().map(str::to_owned);
        Ok(Self { kernel, request, stamp, basis, record: None, outcome })
    }

    fn name(&self) -> &'a str {
        &self.request.instance.name
    }

    /// `None` when a newer notification has taken over. Then so does every step, and the run ends.
    fn go_on(&mut self) -> Option<()> {
        self.outcome.superseded = self.stamp.superseded(self.name());
        self.outcome.superseded.is_none().then_some(())
    }

    /// Waits for the lock, then reads the record.
    fn lock(&mut self) -> anyhow::Result<Option<Lock>> {
        let patience = match self.request.role {
            // keepalived gives its stop scripts one second in all.
            Some(Role::Stop) => Duration::from_millis(400),
            _ => lock::PATIENCE,
        };
        let (stamp, instance) = (&self.stamp, self.name());
        let may_kill_older = self.request.role.is_some();
        let request = LockRequest { stamp, instance, patience, may_kill_older };
        let outcome = request.wait(|| stamp.superseded(instance).is_some())?;
        self.record = record::read(instance);
        Ok(match (outcome, self.go_on()) {
            (LockOutcome::Held(lock), Some(())) => Some(lock),
            _ => None,
        })
    }

    /// What is wanted in the role that was asked for last, and the record to be: it owns all that the instance had, and
    /// all that the run is about to make.
    fn goal(&mut self) -> anyhow::Result<(Goal, Record)> {
        let (name, before) = (self.name(), self.record.as_ref());
        // A run that was killed has left its mark, and not always a record.
        let marked = || self.stamp.latest(name).map(|(_, role)| role);
        let recorded = || before.map(|record| record.role);
        let role = self.request.role.or_else(marked).or_else(recorded).with_context(|| {
            format!("no role is recorded for {name}: keepalived has not called lvs-notify since boot; see `lvs-notify plan backup {name}`")
        })?;
        let mut goal = Goal::of(name, &self.basis, role, before)?;
        if !before.is_some_and(|record| record.role == Role::Master) {
            // Who was not MASTER has no connections to wait for.
            goal.desired.drain = Duration::ZERO;
        }
        let same_role = before.filter(|record| record.role == role);
        let record = Record {
            role,
            since: same_role.map_or_else(seconds_now, |record| record.since),
            complete: false,
            owned: with_objects(&goal.desired, goal.owned.clone()),
            last: before.and_then(|record| record.last.clone()),
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

    /// Asks the kernel for everything that the plan needs before anything is touched.
    fn prepare(&mut self, plan: &Plan, goal: &Goal) -> anyhow::Result<()> {
        let Some(needs) = plan.needs() else { return Ok(()) };
        let problems: Vec<String> = self.kernel.prepare(&needs).iter().map(ToString::to_string).collect();
        if goal.desired.active && !problems.is_empty() {
            bail!("{}\nnothing was changed", problems.join("\n"));
        }
        self.outcome.troubles.extend(problems);
        Ok(())
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
        let before = self.record.as_ref().filter(|before| before.role == record.role);
        record.complete = plan.is_empty() && before.is_some_and(|before| before.complete);
        self.save(record);
    }

    /// Carries out the plan. Half-way, when all that clients meet is as it should be, a MASTER announces its VIPs, and who
    /// leaves waits for the connections that are still open.
    fn carry_out(&mut self, Plan { mut steps }: Plan, goal: &Goal) -> Option<()> {
        let active = goal.desired.active;
        // A notification means that somebody else may have answered for the VIP until now, even when it is here already;
        // `apply` announces only what it put up.
        let announces = self.request.role == Some(Role::Master)
            || (active && steps.iter().any(|step| step.phase == Phase::Interface));
        let first = |step: &Step| match step.phase {
            Phase::Interface => true,
            Phase::Daemon | Phase::Restore => false,
            _ => active,
        };
        let rest = steps.split_off(steps.iter().rposition(first).map_or(0, |last| last + 1));
        self.steps(steps, goal)?;
        if announces {
            self.announce(goal);
        }
        if !rest.is_empty() && !goal.desired.drain.is_zero() {
            self.quiesce(goal)?;
        }
        self.steps(rest, goal)?;
        self.outcome.run.milliseconds = self.milliseconds();
        Some(())
    }

    /// Between the VIP's leaving the interface and the rest: no new connections, and those whose packets still come here
    /// live on until they end or the time is over.
    fn quiesce(&mut self, goal: &Goal) -> Option<()> {
        let ours = goal.desired.ownership.with_record(&goal.owned);
        let deadline = Instant::now() + goal.desired.drain;
        loop {
            self.go_on()?;
            let Ok(Observed { ipvs: Some(mut table), .. }) = self.kernel.observe(&goal.scope) else {
                return Some(());
            };
            table.services.retain(|key, _| ours.owns(key));
            let mut changes = Vec::new();
            for (service, found) in &table.services {
                for (key, old) in found.servers.iter().filter(|(_, old)| old.weight != 0) {
                    let (old, new) = (Some(*old), Some(RealServer { weight: 0, ..*old }));
                    changes.push(Change::Server { service: *service, key: *key, old, new, connections: 0 });
                }
            }
            self.apply(changes)?;
            let mut counters = table.services.values().flat_map(|found| found.counters.values());
            if counters.all(|counted| counted.active == 0) || Instant::now() >= deadline {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn steps(&mut self, steps: Vec<Step>, goal: &Goal) -> Option<()> {
        for Step { phase, mut changes } in steps {
            let begun = Instant::now();
            let withheld = &self.outcome.withheld;
            changes.retain(
                |change| !matches!(change, Change::Address { key, new: Some(_), .. } if withheld.contains(&key.address)),
            );
            self.apply(changes)?;
            if phase == Phase::Services && goal.desired.active && self.outcome.run.failed > 0 {
                self.make_up_for_failures(goal)?;
            }
            let took = begun.elapsed().as_secs_f64() * 1000.0;
            self.outcome.run.phases.push((phase.to_string(), took));
        }
        Some(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Option<()> {
        let told = self.outcome.failures();
        let mut changes = changes.into_iter();
        while !changes.as_slice().is_empty() {
            self.go_on()?;
            let group: Vec<Change> = changes.by_ref().take(GROUP).collect();
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

    /// The VIPs to announce: those that stand.
    fn announced(&self, goal: &Goal) -> Vec<AddressKey> {
        let stands = |key: &&AddressKey| !self.outcome.withheld.contains(&key.address);
        goal.desired.announce.iter().filter(stands).cloned().collect()
    }

    fn announce(&mut self, goal: &Goal) {
        let addresses = self.announced(goal);
        if !addresses.is_empty() {
            let failed = self.kernel.announce(&addresses).into_iter().filter_map(Result::err);
            self.outcome.troubles.extend(failed.map(|error| error.to_string()));
            self.outcome.run.announced = Some(self.milliseconds());
        }
    }

    /// Repeats the announcement without the lock, because neighbours may have lost the first one. Ends as soon as a newer
    /// notification arrives.
    fn announce_again(&mut self, goal: &Goal) {
        let addresses = self.announced(goal);
        let times = self.outcome.run.announced.map_or(0, |_| goal.desired.announce_count.saturating_sub(1));
        for _ in 0..times {
            std::thread::sleep(goal.desired.announce_interval);
            // A failure is told once, by the first announcement or by the state of the link.
            if self.stamp.superseded(self.name()).is_some()
                || self.kernel.announce(&addresses).iter().any(Result::is_err)
            {
                return;
            }
        }
    }

    /// Reads back, repairs once, and notes what still differs.
    fn verify(&mut self, goal: &Goal) -> Option<()> {
        let mut repaired = false;
        while !self.outcome.done.is_empty() {
            let read = self.observe(goal).context("reading back what was changed");
            let Some(observed) = self.outcome.note(read) else { break };
            let plan = goal.plan(&observed);
            if repaired || plan.is_empty() || self.outcome.run.failed > 0 {
                let told = self.outcome.failures();
                let untold = plan.changes().filter(|change| !told.contains(&change.to_string()));
                self.outcome.remaining = untold.cloned().collect();
                break;
            }
            repaired = true;
            self.apply(plan.steps.into_iter().flat_map(|step| step.changes).collect())?;
        }
        Some(())
    }

    /// Writes what outlives a boot: the parameters' file, and the file that was carried out as the last good one.
    fn persist(&mut self, goal: &Goal) {
        self.outcome.persisted = self.outcome.note(sysctl_d::apply(self.name(), &goal.desired)).flatten();
        self.outcome.run.changes += usize::from(self.outcome.persisted.is_some());
        if let (Basis { file: Ok(source), config: Some(config), compiled }, true) =
            (&self.basis, self.outcome.is_clean())
        {
            self.outcome.note(last_good::keep(self.name(), source, config, *compiled));
        }
    }

    fn record_result(&mut self, Goal { desired, .. }: &Goal, mut record: Record) {
        let run = &mut self.outcome.run;
        (run.at, run.pid) = (seconds_now(), Some(self.stamp.pid));
        run.command.clone_from(&self.request.command);
        record.complete = true;
        if run.changes > 0 || self.request.role.is_some() {
            record.last = Some(run.clone());
        }
        if self.outcome.is_clean() {
            // What was taken away is nobody's concern any more.
            let originals = if desired.restore { BTreeMap::new() } else { record.owned.originals };
            record.owned = with_objects(desired, Owned { originals, ..Owned::default() });
        }
        self.save(&record);
        self.stamp.forget_older(self.name());
    }

    fn save(&mut self, record: &Record) {
        if self.record.as_ref() != Some(record) {
            self.outcome.note(record::save(self.name(), record));
            self.record = Some(record.clone());
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
