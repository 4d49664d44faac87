//! The protocol of runs, explored in every order: who may act, wait, kill, announce, write and forget.
//!
//! Owns a model of up to four runs of one instance with what they share: the marks of notifications, the record, the lock,
//! and a kernel that is one VIP. Every step of every run is tried in every order with those of the others; whoever is
//! never chosen again is a run that is stopped, and any run can be killed at any step. What is decided in a step is decided
//! by the program's own functions: `Stamp::is_after`, `Stamp::believes`, `newest`, `Claim::overdue`, `may_announce`. The
//! order of the steps is that of `reconcile::Run`, and the kill at every system call (`ipvs::races`) holds it against the
//! program.
//!
//! An explorer of its own, of thirty lines: it needs no more than a queue and a set, and a model checker's crate brings
//! along a web server. What the model takes as one step although it is two, because nothing but a few microseconds
//! lies between: the question whether a newer notification has come, and the announcement after it; and, where the lock
//! cannot be had at all, the same question and the change after it.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lvs_notify::announcer::may_announce;
use lvs_notify::model::Role;
use lvs_notify::state::lock::{Claim, Holder, Overdue};
use lvs_notify::state::stamp::{Stamp, newest};

/// Runs of a model, with the announcers that they start.
const RUNS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Notified(Role),
    Apply,
    Announcer,
}

/// What a run does next, in the order of `reconcile::Run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Unborn,
    Mark,
    Forget,
    Lock,
    Goal,
    Observe,
    Intent,
    Check,
    Change,
    Announce,
    AnnounceAgain,
    Verify,
    Result,
    Done,
    Superseded,
    GaveUp,
    Killed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    kind: Kind,
    at: At,
    /// Its place in the order of forks
    stamp: u8,
    goes_by: u8,
    role: Role,
    /// Whether it has seen the VIP
    seen: bool,
    repaired: bool,
    /// It has killed a holder of the lock
    killed: bool,
    /// It is killed, and cannot die
    doomed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockIs {
    Usable,
    /// Held for ever by a run of another instance
    Foreign,
    Refused,
}

/// The protocol, or what it would be without one of its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Present,
    /// A run that ends forgets the marks, and the record stands for them with the stamp of the last notification that was
    /// carried out by its own run: as it was once. What an `apply` completes is forgotten
    RecordStandsForMarks,
    /// An `apply` gives way to what was forked after it alone, not to what came after the notification that it goes by
    GoesByItsOwnStamp,
    /// Only what was called before is killed when it holds the lock for too long, and not an `apply`
    SparesAnApply,
    AnnouncesUnasked,
    BelievesAnotherBoot,
}

/// A mark or a record, and the boot that it is of.
type Kept = Option<(u8, Role)>;

#[derive(Clone, Copy, Debug)]
struct State {
    runs: [Option<Run>; RUNS],
    /// By the stamp of the run that made them
    marks: [Kept; RUNS + 2],
    record: Kept,
    /// The stamp in the record, where it stands for marks
    recorded: u8,
    lock: Option<u8>,
    /// Somebody has gone on without the lock
    without: bool,
    vip: bool,
    forks: u8,
    boot: u8,
}

struct Model {
    lock: LockIs,
    protocol: Protocol,
    reboots: bool,
}

fn stamp(boot: u8, number: u8) -> Stamp {
    // Two in each tick: the process number decides between them.
    Stamp { place: boot.to_string(), start: u64::from(number.div_ceil(2)), pid: 100 + u32::from(number) }
}

impl State {
    fn new(kinds: &[Kind]) -> Self {
        let mut runs = [None; RUNS];
        for (run, kind) in runs.iter_mut().zip(kinds) {
            let role = if let Kind::Notified(role) = kind { *role } else { Role::Backup };
            *run = Some(Run {
                kind: *kind,
                at: At::Unborn,
                stamp: 0,
                goes_by: 0,
                role,
                seen: false,
                repaired: false,
                killed: false,
                doomed: false,
            });
        }
        // What an earlier boot has left: a MASTER.
        let old = Some((0, Role::Master));
        let mut marks = [None; RUNS + 2];
        marks[0] = old;
        Self {
            runs,
            marks,
            record: old,
            recorded: 0,
            lock: None,
            without: false,
            vip: false,
            forks: 0,
            boot: 1,
        }
    }

    /// All of it in one number. A run's kind is that of its place.
    fn packed(&self) -> u128 {
        let mut all = 0;
        let mut add = |bits: u32, value: u8| all = all << bits | u128::from(value);
        for run in self.runs.iter().flatten() {
            add(5, run.at as u8);
            add(6, run.stamp << 3 | run.goes_by);
            let flags = [run.role == Role::Master, run.seen, run.repaired, run.killed, run.doomed];
            flags.into_iter().for_each(|flag| add(1, flag.into()));
        }
        for (boot, role) in
            self.marks.iter().chain([&self.record]).map(|kept| kept.unwrap_or((3, Role::Backup)))
        {
            add(3, boot << 1 | u8::from(role == Role::Master));
        }
        add(4, self.lock.unwrap_or(7) << 1 | u8::from(self.without));
        add(6, self.recorded << 3 | self.forks);
        add(3, self.boot << 1 | u8::from(self.vip));
        all
    }

    fn run(&self, number: usize) -> Run {
        self.runs[number].expect("a run")
    }

    /// The newest notification by its mark.
    fn latest(&self, own: &Stamp) -> Option<(Stamp, Role)> {
        let marks = self.marks.iter().zip(0..).filter_map(|(mark, number)| {
            let (boot, role) = (*mark)?;
            Some((stamp(boot, number), role))
        });
        let now = u64::from(self.forks.div_ceil(2));
        newest(marks.filter(|(mark, _)| own.believes(mark, now)))
    }

    fn superseded(&self, number: u8) -> bool {
        let own = stamp(self.boot, number);
        self.recorded > number || self.latest(&own).is_some_and(|(latest, _)| latest.is_after(&own))
    }

    /// The newest notification of this boot, whether its run has left a mark yet or not.
    fn newest(&self) -> Option<Run> {
        let runs = self.runs.iter().flatten();
        runs.filter(|run| run.stamp > 0 && matches!(run.kind, Kind::Notified(_)))
            .max_by_key(|run| run.stamp)
            .copied()
    }

    fn fork(&mut self, number: usize) {
        self.forks += 1;
        let run = self.runs[number].as_mut().expect("a run");
        (run.stamp, run.goes_by) = (self.forks, self.forks);
        run.at = match run.kind {
            Kind::Notified(_) => At::Mark,
            Kind::Apply => At::Lock,
            Kind::Announcer => At::Announce,
        };
    }

    fn end(&mut self, number: usize, how: At) {
        let run = self.runs[number].as_mut().expect("a run");
        let goes_by = if how == At::Done { run.goes_by } else { 0 };
        *run = Run { at: how, goes_by, seen: false, repaired: false, killed: false, doomed: false, ..*run };
        if self.lock == Some(number as u8) {
            self.lock = None;
        }
    }
}

/// What must never be seen, of a state or of a step.
type Wrong = Option<&'static str>;

impl Model {
    /// Every state that can follow, with what is wrong about the step.
    fn next(&self, state: &State) -> Vec<(State, Wrong)> {
        let mut list = Vec::new();
        for number in 0..RUNS {
            let Some(run) = state.runs[number] else { continue };
            if run.at == At::Unborn {
                // keepalived forks in its own order, an operator at any time.
                let earlier = |other: &Run| other.at == At::Unborn && matches!(other.kind, Kind::Notified(_));
                if run.kind == Kind::Apply || !state.runs[..number].iter().flatten().any(earlier) {
                    let mut next = *state;
                    next.fork(number);
                    list.push((next, None));
                }
            } else if run.at < At::Done {
                if !run.doomed {
                    self.step(state, number, &mut list);
                }
                let mut next = *state;
                next.end(number, At::Killed);
                list.push((next, None));
            }
        }
        if self.reboots && state.boot == 1 && state.forks > 0 {
            let mut next = State { boot: 2, lock: None, without: false, vip: false, ..*state };
            for number in (0..RUNS).filter(|number| state.runs[*number].is_some_and(|run| run.stamp > 0)) {
                next.end(number, At::Killed);
                next.runs[number].as_mut().expect("a run").stamp = 0;
            }
            list.push((next, None));
        }
        list
    }

    /// What a run can do next.
    fn step(&self, state: &State, number: usize, list: &mut Vec<(State, Wrong)>) {
        let before = list.len();
        let run = state.run(number);
        let (mut next, mut wrong) = (*state, None);
        let own = next.runs[number].as_mut().expect("a run");
        let goes_on = !state.superseded(run.goes_by);
        let wants = run.role == Role::Master;
        match run.at {
            At::Mark => {
                own.at = At::Forget;
                next.marks[run.stamp as usize] = Some((state.boot, run.role));
            }
            At::Forget => {
                own.at = At::Lock;
                let own = stamp(state.boot, run.stamp);
                let latest = state.latest(&own);
                for (mark, other) in next.marks.iter_mut().zip(0..) {
                    let older = |(latest, _): &(Stamp, Role)| latest.is_after(&stamp(state.boot, other));
                    // Those of another boot are not seen.
                    if mark.is_some_and(|(boot, _)| boot == state.boot) && latest.as_ref().is_some_and(older)
                    {
                        *mark = None;
                    }
                }
            }
            At::Lock if self.lock == LockIs::Usable && state.lock.is_none() => {
                own.at = At::Goal;
                next.lock = Some(number as u8);
            }
            At::Lock if state.superseded(run.stamp) => next.end(number, At::Superseded),
            At::Lock => return self.overdue(state, number, list),
            At::Goal if !goes_on => next.end(number, At::Superseded),
            At::Goal => {
                own.at = At::Observe;
                if run.kind == Kind::Apply {
                    let marked = state.latest(&stamp(state.boot, run.stamp));
                    let believed =
                        |boot| boot == state.boot || self.protocol == Protocol::BelievesAnotherBoot;
                    let recorded = state.record.filter(|(boot, _)| believed(*boot)).map(|(_, role)| role);
                    if self.protocol != Protocol::GoesByItsOwnStamp {
                        own.goes_by = marked.as_ref().map_or(0, |(stamp, _)| (stamp.pid - 100) as u8);
                    }
                    match marked.map(|(_, role)| role).or(recorded) {
                        Some(role) => own.role = role,
                        None => next.end(number, At::GaveUp),
                    }
                }
            }
            At::Observe => (own.at, own.seen) = (At::Intent, state.vip),
            At::Intent => {
                next.record = Some((state.boot, run.role));
                own.at = match () {
                    () if run.seen != wants => At::Check,
                    () if wants => At::Announce,
                    () => At::Result,
                };
            }
            At::Check if !goes_on => next.end(number, At::Superseded),
            At::Check => {
                own.at = At::Change;
                if state.lock != Some(number as u8) {
                    self.change(&mut next, number);
                }
            }
            At::Change => self.change(&mut next, number),
            At::Announce | At::AnnounceAgain if run.kind == Kind::Announcer => {
                let own_stamp = stamp(state.boot, run.stamp);
                let latest = state.latest(&own_stamp);
                let unasked = self.protocol == Protocol::AnnouncesUnasked;
                let may = state.vip && (unasked || may_announce(latest.clone(), &own_stamp));
                match may && run.at == At::Announce {
                    true => own.at = At::AnnounceAgain,
                    false => next.end(number, At::Done),
                }
                let is_master = latest.is_some_and(|(_, role)| role == Role::Master);
                wrong = (may && !is_master).then_some("an announcer announces for a BACKUP");
            }
            At::Announce if !goes_on => next.end(number, At::Superseded),
            At::Announce => {
                let latest = state.latest(&stamp(state.boot, run.stamp));
                let is_master = latest.is_none_or(|(_, role)| role == Role::Master);
                wrong =
                    (!is_master || !state.vip).then_some("a VIP is announced that a BACKUP does not have");
                own.at = if run.seen { At::Result } else { At::Verify };
                if let Some(free) = next.runs.iter().position(Option::is_none) {
                    let [announcer, ..] = State::new(&[Kind::Announcer]).runs;
                    next.runs[free] = announcer;
                    next.fork(free);
                }
            }
            At::Verify if state.vip != wants && !run.repaired => {
                (own.at, own.repaired, own.seen) = (At::Check, true, state.vip);
            }
            At::Verify => own.at = At::Result,
            At::Result => {
                next.record = Some((state.boot, run.role));
                if self.protocol == Protocol::RecordStandsForMarks {
                    next.marks = [None; RUNS + 2];
                    next.recorded = if run.kind == Kind::Apply { state.recorded } else { run.stamp };
                }
                next.end(number, At::Done);
            }
            At::AnnounceAgain | At::Unborn | At::Done | At::Superseded | At::GaveUp | At::Killed => return,
        }
        list.push((next, wrong));
        let rank = |run: Run| (run.at >= At::Done, run.repaired, run.at, run.killed);
        for (next, wrong) in &mut list[before..] {
            if rank(next.run(number)) <= rank(run) {
                *wrong = Some("a run goes in circles");
            }
        }
    }

    fn change(&self, next: &mut State, number: usize) {
        let run = next.runs[number].as_mut().expect("a run");
        next.vip = run.role == Role::Master;
        run.at = if next.vip && !run.repaired { At::Announce } else { At::Verify };
    }

    /// A claim's time is over.
    fn overdue(&self, state: &State, number: usize, list: &mut Vec<(State, Wrong)>) {
        let run = state.run(number);
        let claimant = stamp(state.boot, run.stamp);
        let notified = matches!(run.kind, Kind::Notified(_));
        let claim =
            Claim { stamp: &claimant, instance: "VI_1", patience: std::time::Duration::ZERO, notified };
        let holder = match (self.lock, state.lock) {
            (LockIs::Usable, Some(holder)) => {
                let holder = state.run(holder.into());
                let spared = self.protocol == Protocol::SparesAnApply;
                let notified = spared || matches!(holder.kind, Kind::Notified(_));
                Some(Holder { stamp: stamp(state.boot, holder.stamp), instance: "VI_1".to_owned(), notified })
            }
            (LockIs::Foreign, _) => {
                Some(Holder { stamp: stamp(state.boot, 0), instance: "VI_2".to_owned(), notified: true })
            }
            _ => None,
        };
        let mut next = *state;
        let own = next.runs[number].as_mut().expect("a run");
        match claim.overdue(holder.as_ref().filter(|_| !run.killed)) {
            Overdue::Kill => {
                own.killed = true;
                let victim = usize::from(state.lock.expect("only who holds the lock is killed"));
                let innocent = state.newest().is_some_and(|newest| newest.stamp == state.run(victim).stamp);
                let wrong = innocent.then_some("the newest notification's run is killed");
                // It dies; or it hangs, in a disk and not in a change: that would hold the kernel's own lock.
                let mut hangs = next;
                hangs.runs[victim].as_mut().expect("a run").doomed = true;
                if state.run(victim).at != At::Change {
                    list.push((hangs, wrong));
                }
                next.end(victim, At::Killed);
                list.push((next, wrong));
            }
            Overdue::GoOnWithout => {
                own.at = At::Goal;
                next.without = true;
                list.push((next, None));
            }
            Overdue::GiveUp => {
                next.end(number, At::GaveUp);
                list.push((next, None));
            }
        }
    }

    /// What is wrong about a state.
    fn judge(&self, state: &State) -> Wrong {
        let Some(newest) = state.newest() else {
            return state.vip.then_some("a VIP is put up that no notification of this boot has asked for");
        };
        let Kind::Notified(role) = newest.kind else { return None };
        let ended =
            |run: &&Run| run.at == At::Done && run.goes_by == newest.stamp && run.kind != Kind::Announcer;
        state.runs.iter().flatten().find(ended)?;
        match () {
            () if state.vip != (role == Role::Master) => {
                Some("the newest notification is carried out, and the kernel is not in its role")
            }
            () if !state.without && state.record != Some((state.boot, role)) => {
                Some("the newest notification is carried out, and the record is of another role")
            }
            () => None,
        }
    }

    /// Tries everything; gives the number of states, or the shortest way to what is wrong: anything, or `only` this.
    fn explore(&self, kinds: &[Kind], only: Wrong) -> Result<usize, String> {
        let first = State::new(kinds);
        let mut seen = HashSet::from([first.packed()]);
        let mut ways = vec![(first, 0)];
        let mut at = 0;
        while let Some((state, _)) = ways.get(at).copied() {
            for (next, wrong) in self.next(&state) {
                let wrong = wrong.or_else(|| self.judge(&next));
                if let Some(wrong) = wrong.filter(|wrong| only.is_none_or(|only| only == *wrong)) {
                    return Err(format!("{wrong}:\n{}", way(&ways, at, &next)));
                }
                if seen.insert(next.packed()) {
                    ways.push((next, at));
                }
            }
            at += 1;
        }
        Ok(ways.len())
    }
}

/// The steps that have led to a state.
fn way(ways: &[(State, usize)], at: usize, last: &State) -> String {
    let mut states = VecDeque::from([*last]);
    let mut at = at;
    while at > 0 {
        states.push_front(ways[at].0);
        at = ways[at].1;
    }
    states.push_front(ways[0].0);
    let mut text = String::new();
    for (before, after) in states.iter().zip(states.iter().skip(1)) {
        for (number, (old, new)) in before.runs.iter().zip(after.runs).enumerate() {
            if let Some(new) = new.filter(|new| *old != Some(*new)) {
                let _ = write!(text, "{number} {:?}: {:?}; ", new.kind, new.at);
            }
        }
        let _ =
            writeln!(text, "vip {}, marks {:?}", after.vip, after.marks.iter().flatten().collect::<Vec<_>>());
    }
    text
}

const M: Kind = Kind::Notified(Role::Master);
const B: Kind = Kind::Notified(Role::Backup);
const A: Kind = Kind::Apply;

/// Two notifications in every order, and an `apply` at any time; three notifications. Where a run is left, a MASTER starts
/// an announcer.
const FEW: [&[Kind]; 10] = [
    &[M, M, A],
    &[M, B, A],
    &[B, M, A],
    &[B, B, A],
    &[M, M, B],
    &[M, B, M],
    &[B, M, M],
    &[M, B, B],
    &[B, M, B],
    &[B, B, M],
];

/// Three notifications and an `apply`; two notifications of each role.
const MANY: [&[Kind]; 12] = [
    &[M, M, B, A],
    &[M, B, M, A],
    &[B, M, M, A],
    &[M, B, B, A],
    &[B, M, B, A],
    &[B, B, M, A],
    &[M, M, B, B],
    &[M, B, M, B],
    &[M, B, B, M],
    &[B, M, M, B],
    &[B, M, B, M],
    &[B, B, M, M],
];

/// In every state: when the newest notification has been carried out, by its own run or by an `apply`, the kernel is in its
/// role and stays in it, and, as long as the lock could be had, the record is of it. In every step: nobody announces for a
/// BACKUP; nobody kills the newest notification's run; and every run, while all others stand still, has a step to make that
/// brings it nearer to its end.
#[test]
fn every_order_of_four_runs_ends_in_the_newest_notification_s_role() {
    let few =
        [LockIs::Usable, LockIs::Foreign, LockIs::Refused].map(|lock| FEW.map(|kinds| (lock, true, kinds)));
    let many = [LockIs::Usable, LockIs::Refused].map(|lock| MANY.map(|kinds| (lock, false, kinds)));
    let jobs: Vec<_> = many.into_iter().flatten().chain(few.into_iter().flatten()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut explored = 0;
        while let Some((lock, reboots, kinds)) = jobs.get(next.fetch_add(1, Relaxed)).copied() {
            let model = Model { lock, protocol: Protocol::Present, reboots };
            explored +=
                model.explore(kinds, None).unwrap_or_else(|wrong| panic!("{lock:?} {kinds:?}: {wrong}"));
        }
        explored
    };
    let explored: usize = std::thread::scope(|scope| {
        let others = [scope.spawn(work), scope.spawn(work)];
        others.map(|other| other.join().unwrap()).iter().sum()
    });
    println!("explored: the protocol of runs in {} settings: {explored} states, all right", jobs.len());
    assert!(explored > 1_000_000, "{explored} states");
}

/// Each rule is needed: without it, the explorer finds the way to what the rule is there for.
#[test]
fn without_one_of_its_rules_the_protocol_fails() {
    let old = "the newest notification is carried out, and the kernel is not in its role";
    let stale = "a VIP is announced that a BACKUP does not have";
    let announces = "an announcer announces for a BACKUP";
    let unasked = "a VIP is put up that no notification of this boot has asked for";
    for (protocol, kinds, expected) in [
        (Protocol::RecordStandsForMarks, &[B, M, A][..], old),
        (Protocol::GoesByItsOwnStamp, &[M, B, A], stale),
        (Protocol::SparesAnApply, &[M, B, M, A], old),
        (Protocol::AnnouncesUnasked, &[M, B], announces),
        (Protocol::BelievesAnotherBoot, &[A], unasked),
    ] {
        let found = [LockIs::Usable, LockIs::Refused].iter().find_map(|lock| {
            let model = Model { lock: *lock, protocol, reboots: false };
            model.explore(kinds, Some(expected)).err()
        });
        let found = found.unwrap_or_else(|| panic!("{protocol:?} never leads to it: {expected}"));
        println!("explored: {protocol:?}: {} steps to this: {found}", found.lines().count() - 1);
    }
}
