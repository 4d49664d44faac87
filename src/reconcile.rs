//! One run from request to verified state: lock, supersede, observe, plan, apply, verify, record.
//!
//! Owns the order of these and what happens when one of them fails. Decides nothing about values
//! (`desired`) or differences (`plan`), touches the kernel only through [`Kernel`] and formats no
//! output (`report`). Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::basis::Basis;
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::{self, Kernel, Needs};
use crate::model::{AddressKey, Forward, Owned, Parameter, RealServer, Role, Service, ServiceKey};
use crate::observed::{Observed, Scope, ServerScope};
use crate::plan::{Change, Phase, Plan, Step};
use crate::state::lock::{self, Waited, Waiter};
use crate::state::record::{LastRun, Record, Store};
use crate::state::stamp::{Stamp, now_in_ticks, seconds_now};
use crate::state::{drain, sysctl_d};

/// A newer notification can stop a long load between two groups of this many changes.
const GROUP: usize = 256;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Request {
    pub instance: Instance,
    /// The role to take, or `None` for the one recorded last
    pub role: Option<Role>,
    /// The command word, for the record
    pub command: String,
    pub started: Instant,
    /// When the notification came; none: when this process was started
    pub stamp: Option<Stamp>,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    pub role: Option<Role>,
    /// Every change tried, with what went wrong
    pub done: Vec<(Change, Option<kernel::Error>)>,
    /// Announcements that failed, the sysctl.d file, the record: reported, never in the way
    pub troubles: Vec<String>,
    /// VIPs that were not put up, because their services could not be made
    pub withheld: BTreeSet<IpAddr>,
    /// What still differs after everything
    pub remaining: Vec<Change>,
    /// A newer notification took over
    pub superseded: Option<String>,
    /// Why the last good file, or none, was used
    pub fallback: Option<String>,
    pub run: LastRun,
    /// The announcements that are still to come
    pub repeat: Option<Repeat>,
}

/// Announcements after the first.
#[derive(Debug)]
pub struct Repeat {
    addresses: Vec<AddressKey>,
    times: u32,
    interval: Duration,
    stamp: Stamp,
}

impl Outcome {
    /// Everything that was to be done is done.
    pub fn is_clean(&self) -> bool {
        self.done.iter().all(|(_, error)| error.is_none())
            && self.troubles.is_empty()
            && self.withheld.is_empty()
            && self.remaining.is_empty()
    }
}

/// The plan for a role, and what it was made from.
pub struct Preview {
    pub role: Role,
    pub plan: Plan,
    pub observed: Observed,
    pub desired: Desired,
    pub record: Option<Record>,
    /// Where the desired state came from
    pub basis: Basis,
    /// Services that other instances of this host have made
    pub others: BTreeMap<ServiceKey, String>,
}

/// Looks, and changes nothing. `everything` also reads the real servers of foreign services, and whose
/// they are when another instance has made them.
///
/// # Errors
/// When the file is invalid and nothing can stand in, or when the kernel cannot be read.
pub fn preview(
    kernel: &mut dyn Kernel,
    instance: &Instance,
    role: Option<Role>,
    everything: bool,
) -> anyhow::Result<Preview> {
    let store = Store::new(&instance.name);
    let record = store.record();
    let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
    let role = match (role, &record) {
        (Some(role), _) => role,
        (None, Some(record)) => record.role,
        (None, None) => Role::Backup,
    };
    let basis = Basis::read(instance, &store);
    let mut desired = basis.desired(role, &owned)?;
    match drain::read(store.instance()) {
        Ok(list) => drain::lay_over(&list, &mut desired, seconds_now()),
        Err(error) => log::warn!("{error:#}"),
    }
    let mut scope = Scope::of(&desired, &owned);
    if everything {
        scope.servers = ServerScope::All;
        // With `arp: off` nothing is wanted of it, and it decides who answers all the same.
        let places = scope.interfaces.iter().cloned().chain(["all".to_owned()]);
        scope.parameters.extend(places.map(Parameter::ArpIgnore));
    }
    let observed = kernel.observe(&scope)?;
    let plan = Plan::between(&desired, &observed, &owned);
    let others = if everything { store.others() } else { Vec::new() };
    let others = others
        .into_iter()
        .flat_map(|(name, record)| record.owned.services.into_iter().map(move |key| (key, name.clone())))
        .collect();
    Ok(Preview { role, plan, observed, desired, record, basis, others })
}

/// Carries out a role change, or repairs the recorded role's state.
///
/// # Errors
/// When nothing could be done at all: no usable file while becoming MASTER, the lock is held by a
/// process that hangs, the kernel cannot be read or lacks what the file needs.
pub fn run(kernel: &mut dyn Kernel, request: &Request) -> anyhow::Result<Outcome> {
    let store = Store::new(&request.instance.name);
    let stamp = request.stamp.clone().map_or_else(Stamp::own, Ok)?;
    let mut outcome = Outcome { role: request.role, ..Outcome::default() };
    if let Some(role) = request.role {
        if let Err(error) = store.announce_role(&stamp, role) {
            outcome.troubles.push(format!("{error:#}"));
        }
    }
    let basis = Basis::read(&request.instance, &store);
    outcome.fallback = basis.complaint().map(str::to_owned);

    let patience = match request.role {
        // keepalived gives its stop scripts one second in all.
        Some(Role::Stop) => Duration::from_millis(400),
        _ => lock::PATIENCE,
    };
    let newer = |store: &Store| newer_than(&stamp, store);
    let waiter =
        Waiter { stamp: &stamp, instance: store.instance(), patience, overrules: request.role.is_some() };
    let lock = match waiter.wait(|| newer(&store).is_some())? {
        Waited::Held(lock) => lock,
        Waited::GivenUp => {
            outcome.superseded = newer(&store);
            return Ok(outcome);
        }
    };
    let record = store.record();
    // The latest call's mark may be gone from the directory, but never from the record.
    if let Some(record) = record.as_ref().filter(|_| request.role.is_some()) {
        let other = &record.stamp;
        if other.boot == stamp.boot && other.is_after(&stamp) && other.start <= now_in_ticks() {
            outcome.superseded = Some(format!("{} of process {}", record.role, other.pid));
            return Ok(outcome);
        }
    }
    if let Some(by) = newer(&store) {
        outcome.superseded = Some(by);
        return Ok(outcome);
    }
    let pending = store.latest(&stamp.boot).map(|(_, role)| role);
    let role = match (request.role, pending, &record) {
        (Some(role), ..) | (None, Some(role), _) => role,
        (None, None, Some(record)) => record.role,
        (None, None, None) => bail!(
            "no role is recorded for {}: keepalived has not called lvs-notify since boot; see `lvs-notify plan backup {}`",
            request.instance.name,
            request.instance.name
        ),
    };
    outcome.role = Some(role);
    let leaves_master = record.as_ref().is_some_and(|record| record.role == Role::Master);
    let mut run = Run {
        kernel,
        request,
        store: &store,
        stamp: stamp.clone(),
        record,
        leaves_master,
        outcome,
        newer: &newer,
    };
    let mut desired = basis.desired(role, &run.owned())?;
    match drain::read(store.instance()) {
        Ok(list) => drain::lay_over(&list, &mut desired, seconds_now()),
        Err(error) => run.outcome.troubles.push(format!("{error:#}")),
    }
    run.reconcile(role, &desired, &basis)?;
    run.finish(role, &desired, &basis);
    let mut outcome = run.outcome;
    drop(lock);
    if outcome.superseded.is_none() && outcome.run.announced.is_some() {
        let stands = |key: &&AddressKey| !outcome.withheld.contains(&key.address);
        outcome.repeat = Some(Repeat {
            addresses: desired.announce.iter().filter(stands).cloned().collect(),
            times: desired.announce_count.saturating_sub(1),
            interval: desired.announce_interval,
            stamp,
        });
    }
    Ok(outcome)
}

/// The notification that came after this one, if any did.
fn newer_than(stamp: &Stamp, store: &Store) -> Option<String> {
    let (latest, role) = store.latest(&stamp.boot)?;
    (latest != *stamp && latest.is_after(stamp)).then(|| format!("{role} of process {}", latest.pid))
}

struct Run<'a> {
    kernel: &'a mut dyn Kernel,
    request: &'a Request,
    store: &'a Store,
    stamp: Stamp,
    record: Option<Record>,
    /// The role before this run was MASTER.
    leaves_master: bool,
    outcome: Outcome,
    newer: &'a dyn Fn(&Store) -> Option<String>,
}

impl Run<'_> {
    fn owned(&self) -> Owned {
        self.record.as_ref().map(|record| record.owned.clone()).unwrap_or_default()
    }

    fn reconcile(&mut self, role: Role, desired: &Desired, basis: &Basis) -> anyhow::Result<()> {
        let mut owned = self.owned();
        let others = if desired.restore || basis.restores() { self.store.others() } else { Vec::new() };
        if desired.restore {
            // What another instance wants set stays set; the last one to leave restores it.
            owned.originals.retain(|parameter, _| {
                !others.iter().any(|(_, record)| record.owned.parameters.contains(parameter))
            });
        }
        let scope = Scope::of(desired, &owned);
        let observed = self.observe(&scope, desired)?;
        let plan = Plan::between(desired, &observed, &owned);
        self.prepare(&plan, desired)?;
        // Recorded before the first change: a killed run leaves nothing that nobody owns.
        let owned = owned_after(&owned, desired, &observed, basis, &others);
        let known = self.record.as_ref().is_some_and(|record| record.role == role && record.owned == owned);
        if !known || !plan.is_empty() {
            self.save(role, owned.clone(), false);
        }
        if !self.steps(plan.steps, desired, &scope, &owned) {
            return Ok(());
        }
        self.outcome.run.milliseconds = self.request.started.elapsed().as_secs_f64() * 1000.0;
        if !self.outcome.done.is_empty() {
            if let Err(error) = self.verify(desired, &scope, &owned) {
                self.outcome.troubles.push(format!("{error:#}"));
            }
        }
        match sysctl_d::apply(&self.request.instance.name, desired) {
            Ok(true) => self.outcome.run.changes += 1,
            Ok(false) => {}
            Err(error) => self.outcome.troubles.push(format!("{error:#}")),
        }
        Ok(())
    }

    /// Observes; a director that leaves takes its VIPs down even when IPVS cannot be read.
    fn observe(&mut self, scope: &Scope, desired: &Desired) -> anyhow::Result<Observed> {
        match self.kernel.observe(scope) {
            Ok(observed) => Ok(observed),
            Err(error) if !desired.active => {
                self.outcome.troubles.push(error.to_string());
                let without = Scope { servers: ServerScope::Nothing, ..scope.clone() };
                Ok(self.kernel.observe(&without)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the kernel for everything that the plan needs before anything is touched.
    fn prepare(&mut self, plan: &Plan, desired: &Desired) -> anyhow::Result<()> {
        let mut needs = Needs::default();
        let mut need = |service: &Service| {
            needs.schedulers.insert(service.scheduler.clone());
            if !service.engine.is_empty() {
                needs.engines.insert(service.engine.clone());
            }
        };
        let mut ipvs = false;
        for change in plan.changes() {
            ipvs |=
                change.is_ipvs() || matches!(change, Change::Parameter { parameter: Parameter::Ipvs(_), .. });
            if let Change::Service { new: Some(new), .. } = change {
                need(new);
            }
        }
        if !ipvs {
            return Ok(());
        }
        for server in desired.services.values().flat_map(|service| service.servers.values()) {
            needs.gue |= server.forward == Forward::TUN && server.tunnel.kind == 1;
            needs.gre |= server.forward == Forward::TUN && server.tunnel.kind == 2;
        }
        let problems = self.kernel.prepare(&needs);
        if problems.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        if desired.active {
            bail!("{}\nnothing was changed", list.join("\n"));
        }
        self.outcome.troubles.extend(list);
        Ok(())
    }

    /// Carries out steps in order. False when a newer notification took over.
    fn steps(&mut self, steps: Vec<Step>, desired: &Desired, scope: &Scope, owned: &Owned) -> bool {
        // A notification means that somebody else may have answered for the VIP until now, even
        // when it stands here already; `apply` announces only what it put up.
        let announces = self.request.role == Some(Role::Master)
            || (desired.active && steps.iter().any(|step| step.phase == Phase::Interface));
        let serving = |step: &Step| !matches!(step.phase, Phase::Daemon | Phase::Restore);
        let mut quiesces = self.leaves_master && desired.drain > Duration::ZERO;
        let mut to_announce = announces.then(|| steps.iter().rposition(serving).map_or(0, |last| last + 1));
        for (index, step) in steps.into_iter().enumerate() {
            if to_announce == Some(index) {
                to_announce = None;
                self.announce(&desired.announce);
            }
            if quiesces && step.phase != Phase::Interface {
                quiesces = false;
                if !self.quiesce(desired, scope) {
                    return false;
                }
            }
            let begun = Instant::now();
            let changes = self.allowed(step.changes);
            if !self.apply(changes) {
                return false;
            }
            if step.phase == Phase::Services && desired.active {
                self.withhold(desired, scope, owned);
                if self.outcome.superseded.is_some() {
                    return false;
                }
            }
            self.outcome.run.phase(step.phase, begun.elapsed());
        }
        if to_announce.is_some() {
            self.announce(&desired.announce);
        }
        true
    }

    /// Between the VIP's leaving the interface and the rest: no new connections, and those whose packets
    /// still come here live on until they end or the time is over. False when a newer notification
    /// took over.
    fn quiesce(&mut self, desired: &Desired, scope: &Scope) -> bool {
        let ServerScope::Owned(ours) = &scope.servers else { return true };
        let deadline = Instant::now() + desired.drain;
        let mut drained = false;
        loop {
            if let Some(by) = (self.newer)(self.store) {
                self.outcome.superseded = Some(by);
                return false;
            }
            let Ok(Observed { ipvs: Some(table), .. }) = self.kernel.observe(scope) else { return true };
            let services = || table.services.iter().filter(|(key, _)| ours.owns(key));
            if !drained {
                drained = true;
                let changes: Vec<Change> = services()
                    .flat_map(|(service, found)| {
                        found.servers.iter().map(move |(key, old)| (service, key, old))
                    })
                    .filter(|(.., old)| old.weight != 0)
                    .map(|(service, key, old)| Change::Server {
                        service: *service,
                        key: *key,
                        old: Some(*old),
                        new: Some(RealServer { weight: 0, ..*old }),
                        connections: 0,
                    })
                    .collect();
                if !self.apply(changes) {
                    return false;
                }
            }
            let active: u64 = services()
                .flat_map(|(_, found)| found.counters.values())
                .map(|counted| u64::from(counted.active))
                .sum();
            if active == 0 || Instant::now() >= deadline {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Carries out changes in order. False when a newer notification took over.
    fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut results = Vec::with_capacity(changes.len());
        for group in changes.chunks(GROUP) {
            self.outcome.superseded = (self.newer)(self.store);
            if self.outcome.superseded.is_some() {
                break;
            }
            results.extend(self.kernel.apply(group));
        }
        let failed = results.iter().filter(|result| result.is_err()).count();
        self.outcome.run.failed += failed;
        self.outcome.run.changes += results.len() - failed;
        self.outcome.done.extend(changes.into_iter().zip(results.into_iter().map(Result::err)));
        self.outcome.superseded.is_none()
    }

    /// Without the changes that would put up a VIP whose services could not be made.
    fn allowed(&self, changes: Vec<Change>) -> Vec<Change> {
        let withheld = &self.outcome.withheld;
        changes
            .into_iter()
            .filter(|change| match change {
                Change::Address { key, new: Some(_), .. } => !withheld.contains(&key.address),
                _ => true,
            })
            .collect()
    }

    /// After a failure among the services: tries once more against what the kernel has now
    /// (somebody else may have changed the table), then keeps back the VIPs that would answer
    /// with a refusal.
    fn withhold(&mut self, desired: &Desired, scope: &Scope, owned: &Owned) {
        if self.outcome.done.iter().all(|(_, error)| error.is_none()) {
            return;
        }
        let table = match self.kernel.observe(scope) {
            Ok(observed) => {
                let again = Plan::between(desired, &observed, owned);
                let services = again.steps.into_iter().find(|step| step.phase == Phase::Services);
                if services.is_some_and(|step| !self.apply(step.changes)) {
                    return;
                }
                self.kernel.observe(scope).unwrap_or(observed)
            }
            Err(error) => {
                self.outcome.troubles.push(error.to_string());
                Observed::default()
            }
        };
        let none = BTreeMap::new();
        let services = table.ipvs.as_ref().map_or(&none, |ipvs| &ipvs.services);
        for key in desired.services.keys() {
            let serves = services.get(key).is_some_and(|service| service.settings.scheduler != "none");
            match key {
                _ if serves => {}
                ServiceKey::Endpoint { address, .. } => {
                    self.outcome.withheld.insert(*address);
                }
                ServiceKey::Fwmark { .. } => self.outcome.withheld.extend(desired.loopback.keys()),
            }
        }
    }

    fn announce(&mut self, addresses: &BTreeSet<AddressKey>) {
        let list: Vec<AddressKey> =
            addresses.iter().filter(|key| !self.outcome.withheld.contains(&key.address)).cloned().collect();
        for error in self.kernel.announce(&list).into_iter().filter_map(Result::err) {
            self.outcome.troubles.push(error.to_string());
        }
        if !list.is_empty() {
            self.outcome.run.announced = Some(self.request.started.elapsed().as_secs_f64() * 1000.0);
        }
    }

    /// Reads back, repairs once, and notes what still differs.
    fn verify(&mut self, desired: &Desired, scope: &Scope, owned: &Owned) -> anyhow::Result<()> {
        let read_back = |run: &mut Self| -> anyhow::Result<Plan> {
            let observed = run.observe(scope, desired).context("reading back what was changed")?;
            Ok(Plan::between(desired, &observed, owned))
        };
        let plan = read_back(self)?;
        if plan.is_empty() || self.outcome.run.failed > 0 {
            self.outcome.remaining = plan.changes().cloned().collect();
            return Ok(());
        }
        for step in plan.steps {
            if !self.apply(step.changes) {
                return Ok(());
            }
        }
        self.outcome.remaining = read_back(self)?.changes().cloned().collect();
        Ok(())
    }

    fn save(&mut self, role: Role, owned: Owned, complete: bool) {
        let now = seconds_now();
        let since = match &self.record {
            Some(record) if record.role == role => record.since,
            _ => now,
        };
        let stamp = match (&self.record, self.request.role) {
            (Some(record), None) => record.stamp.clone(),
            _ => self.stamp.clone(),
        };
        let last = if complete && (self.outcome.run.changes > 0 || self.request.role.is_some()) {
            Some(self.outcome.run.clone())
        } else {
            self.record.as_ref().and_then(|record| record.last.clone())
        };
        let record = Record {
            version: 1,
            role,
            since,
            stamp,
            complete,
            owned,
            fallback: self.outcome.fallback.clone(),
            last,
        };
        if let Err(error) = self.store.save(&record) {
            self.outcome.troubles.push(format!("{error:#}"));
        }
        self.record = Some(record);
    }

    /// Writes down how it went.
    fn finish(&mut self, role: Role, desired: &Desired, basis: &Basis) {
        self.outcome.run.at = seconds_now();
        self.outcome.run.command.clone_from(&self.request.command);
        self.outcome.run.pid = Some(self.stamp.pid);
        let complete = self.outcome.superseded.is_none();
        let mut owned = self.owned();
        if complete && self.outcome.is_clean() {
            // What was taken away is nobody's concern any more.
            owned.addresses.retain(|key| match key.interface.as_str() {
                "lo" => desired.loopback.contains_key(&key.address),
                _ => desired.interface.contains(key),
            });
            owned.services.retain(|key| desired.services.contains_key(key));
            owned.parameters.retain(|parameter| desired.parameters.contains_key(parameter));
            owned.daemon = desired.daemon.is_some();
            if desired.restore {
                owned.originals.clear();
            }
            if let Basis::File { source, config, compiled } = basis {
                if let Err(error) = self.store.keep_good(source) {
                    self.outcome.troubles.push(format!("{error:#}"));
                } else if !compiled {
                    // Without it, nothing is lost but time.
                    self.store.keep_compiled(source, config).unwrap_or_else(|error| log::warn!("{error:#}"));
                }
            }
        }
        let changed = self.outcome.run.changes > 0 || self.request.role.is_some();
        if complete && (changed || self.record.as_ref().is_some_and(|record| !record.complete)) {
            self.save(role, owned, true);
            self.store.forget_before(&self.stamp);
        }
    }
}

/// What the instance owns from now on: all it had, and all that it is about to make.
fn owned_after(
    owned: &Owned,
    desired: &Desired,
    observed: &Observed,
    basis: &Basis,
    others: &[(String, Record)],
) -> Owned {
    let mut after = owned.clone();
    after.parameters.extend(desired.parameters.keys().cloned());
    after.services.append(&mut desired.services.keys().copied().collect());
    after.addresses.extend(
        desired.loopback.keys().map(|address| AddressKey { interface: "lo".into(), address: *address }),
    );
    after.addresses.extend(desired.interface.iter().cloned());
    after.daemon |= desired.daemon.is_some();
    if basis.restores() {
        for parameter in desired.parameters.keys() {
            // Found is what another instance has set, when it came first.
            let before = others.iter().find_map(|(_, record)| record.owned.originals.get(parameter));
            if let Some(value) = before.or_else(|| observed.parameters.get(parameter)) {
                after.originals.entry(parameter.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    after
}

/// Repeats the announcement without the lock: neighbours may have lost the first one, and nobody
/// else needs to wait for that. Ends as soon as a newer notification arrives.
pub fn repeat_announcement(kernel: &mut dyn Kernel, instance: &Instance, outcome: &Outcome) {
    let Some(repeat) = &outcome.repeat else { return };
    let store = Store::new(&instance.name);
    for _ in 0..repeat.times {
        std::thread::sleep(repeat.interval);
        // A failure is told once, by the first announcement or by the state of the link.
        if newer_than(&repeat.stamp, &store).is_some()
            || kernel.announce(&repeat.addresses).iter().any(Result::is_err)
        {
            return;
        }
    }
}
