//! lvs-notify: what keepalived's notify scripts should do, as one short-lived program.
//!
//! ```text
//! cli ─→ config ─→ desired ─→ kernel::observe ─→ plan ─→ kernel::apply ─→ kernel::observe ─→ report
//!        (YAML)    (per role)  (what is there)    (diff)  (what differs)   (nothing differs)
//! ```
//!
//! Owns the flow from a command line to an exit status. The library is no stable interface: it exists for the binary and
//! its tests.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod announcer;
pub mod basis;
pub mod check;
pub mod cli;
pub mod config;
pub mod desired;
pub mod fifo;
pub mod import;
pub mod instance;
pub mod ipvsadm;
pub mod keepalived_conf;
pub mod kernel;
pub mod model;
mod names;
pub mod observed;
pub mod plan;
pub mod preview;
pub mod process;
pub mod reconcile;
pub mod rehearsal;
pub mod report;
mod serial;
pub mod state;
pub mod status;
pub mod text;

use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use basis::Basis;
use cli::{ApplyArgs, Cli, Command, RoleArgs, StatusArgs};
use config::Config;
use config::source::{Invalid, Source};
use instance::Instance;
use kernel::Linux;
use model::Role;
use preview::Preview;
use reconcile::Request;
use report::{Exit, json, print_raw, print_text};
use state::lock::Claim;
use state::record::{self, Record};
use state::stamp::{Stamp, seconds_now};
use state::trial::{self, Trial};
use state::{drain, last_good};
use status::Status;

pub fn main() -> ExitCode {
    let started = Instant::now();
    process::begin();
    let exit = match Cli::read() {
        Ok(cli) => run(cli, started).unwrap_or_else(|error| failed(&error)),
        Err(error) => {
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            log::error!("{}", error.to_string().lines().next().unwrap_or_default());
            Exit::Usage
        }
    };
    process::end();
    ExitCode::from(exit as u8)
}

/// Tells why a command failed; gives the exit status.
fn failed(error: &anyhow::Error) -> Exit {
    let text = format!("{error:#}");
    log::error!("{text}");
    if !process::has_terminal() {
        // The log went to syslog; a script that runs this wants to know as well.
        let _ = writeln!(std::io::stderr(), "lvs-notify: {text}");
    }
    match error {
        _ if error.is::<Invalid>() => Exit::Invalid,
        _ if error.is::<instance::Unknown>() => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn run(cli: Cli, started: Instant) -> Result<Exit> {
    let config = cli.config.or_else(|| std::env::var_os("LVS_NOTIFY_CONFIG").map(PathBuf::from));
    let config = config.as_deref();
    let find = |name: Option<&str>| instance::find(config, name);
    let take = |role: Option<Role>, RoleArgs { instance, dry_run }: RoleArgs| {
        let instance = find(instance.as_deref())?;
        match dry_run {
            true => plan(instance, role, false, None),
            false => carry_out(instance, role, &role.map_or("apply".to_owned(), Role::command), started),
        }
    };
    match cli.command {
        Command::Master(args) => take(Some(Role::Master), args),
        Command::Backup(args) => take(Some(Role::Backup), args),
        Command::Fault(args) => take(Some(Role::Fault), args),
        Command::Stop(args) => take(Some(Role::Stop), args),
        Command::Apply(ApplyArgs { role: RoleArgs { instance, .. }, .. })
            if process::goes_by(announcer::NAME) =>
        {
            process::drop_privileges_and_cwd();
            announcer::repeat(&mut Linux::default(), &find(instance.as_deref())?).map(|()| Exit::Done)
        }
        Command::Apply(ApplyArgs { all: true, .. }) => apply_all(config),
        Command::Apply(ApplyArgs { confirm: Some(period), role: RoleArgs { instance, .. }, .. }) => {
            try_out(find(instance.as_deref())?, period, started)
        }
        Command::Apply(ApplyArgs { take_back: true, role: RoleArgs { instance, .. }, .. }) => {
            take_back(&find(instance.as_deref())?)
        }
        Command::Apply(ApplyArgs { role, .. }) => take(None, role),
        Command::Confirm { instance } => confirm(find(instance.as_deref())?, started),
        Command::Notify { kind, name, state, .. } => match state.parse() {
            Ok(role) => carry_out(find(Some(&name))?, Some(role), "notify", started),
            Err(()) => {
                log::info!("{kind} {name}: nothing to do for {state}");
                Ok(Exit::Done)
            }
        },
        Command::Fifo { path } => fifo::follow(&path, config),
        Command::Plan { words, json, current } => {
            let (role, name) = instance::role_and_name(&words)?;
            plan(find(name)?, role, json, current.as_deref())
        }
        Command::Rehearse { instance } => rehearsal::run(find(instance.as_deref())?),
        Command::Status(args) => {
            let is_named = args.instance.is_some() || config.is_some();
            match if is_named { Vec::new() } else { instance::known() } {
                several if several.len() > 1 => status(&several, &args),
                _ => status(&[find(args.instance.as_deref())?], &args),
            }
        }
        Command::Drain { server, instance, services, period } => {
            let instance = find(instance.as_deref())?;
            let Basis { file, config, .. } = Basis::read(&instance);
            let config = config.ok_or_else(|| Invalid(file.err().unwrap_or_default()))?;
            edit_drains(instance, started, |name| drain::begin(name, &config, server, &services, period))
        }
        Command::Undrain { server, instance, all } => {
            let instance = find(all.flatten().or(instance).as_deref())?;
            edit_drains(instance, started, |name| drain::lift(name, server))
        }
        Command::Check { files, keepalived_conf, host, json } => {
            let checked = check::run(&files, config, keepalived_conf.as_deref(), host)?;
            match json {
                true => print_raw(&report::check::as_json(&checked)),
                false => print_text(&report::check::text(&checked)),
            };
            Ok(report::check::exit(&checked))
        }
        Command::Import { run, .. } if process::goes_by(import::sandbox::INSIDE) => {
            import::sandbox::run(&run).map(|()| Exit::Done)
        }
        Command::Import { run, limit, .. } if !run.is_empty() => {
            let (table, problem) = import::script::read(&run, limit)?;
            print_raw(&import::write(&table)?);
            problem.map_or(Ok(Exit::Done), |why| Err(anyhow::Error::msg(why)))
        }
        Command::Import { from, file, .. } => {
            print_raw(&import::run(from, file.as_deref())?);
            Ok(Exit::Done)
        }
    }
}

fn carry_out(instance: Instance, role: Option<Role>, command: &str, started: Instant) -> Result<Exit> {
    process::block_signals();
    log_for(&instance, role);
    process::drop_privileges_and_cwd();
    let announcer = |instance: &Instance| process::start_again(announcer::NAME, &["apply"], instance);
    let request = Request { instance, role, command: command.to_owned(), started, announcer };
    let ran = reconcile::run(&mut Linux::default(), &request);
    let outcome = ran.context("FAILED")?;
    print_text(&report::outcome(&outcome));
    if outcome.rehearse {
        process::start_again(rehearsal::NAME, &["rehearse"], &request.instance);
    }
    Ok(report::exit_of(&outcome))
}

/// Runs once for each instance, which has its own lines in the log; gives the worst exit status.
fn apply_all(config: Option<&Path>) -> Result<Exit> {
    ensure!(
        config.is_none(),
        "--all means every file of /etc/lvs-notify, and not --config nor LVS_NOTIFY_CONFIG"
    );
    let mut worst = Exit::Done;
    for Instance { name, .. } in instance::known() {
        print_text(&format!("{name}:\n"));
        let ran = std::process::Command::new("/proc/self/exe").args(["apply", "--", &name]).status();
        let exit = match ran.with_context(|| format!("running apply for {name}"))?.code() {
            Some(0) => Exit::Done,
            Some(4) => Exit::Invalid,
            _ => Exit::Failed,
        };
        worst = worst.max(exit);
    }
    Ok(worst)
}

/// Applies an edit that is taken back unless it is confirmed in time.
fn try_out(instance: Instance, period: Duration, started: Instant) -> Result<Exit> {
    process::block_signals();
    let (source, name) = (Source::read(&instance.path)?, instance.name.clone());
    Config::parse(&source)?;
    let good = Source::read(&last_good::path(&name)).ok().filter(|_| last_good::is_usable(&name));
    let good =
        good.context("there is no last good copy to go back to: as MASTER, `lvs-notify apply` makes one")?;
    ensure!(
        good.text != source.text,
        "nothing is put on trial: this file is the last good one already; what applies every edit by itself \
         (lvs-notify-apply@{name}.timer, .path) must be off before"
    );
    let before = Trial::of(&name).filter(Trial::runs);
    let trial = Trial::begin(&name, &instance.path, &source.text, period)?;
    // First, lest it be forgotten when what follows cuts off the login.
    let guard =
        |instance: &Instance| process::start_service(trial::NAME, &["apply", "--take-back"], instance);
    guard(&instance);
    let applied = carry_out(instance.clone(), None, "apply", started);
    match (&applied, before) {
        (Ok(Exit::Done | Exit::Failed), _) => {
            let seconds = period.as_secs().max(1);
            print_text(&format!(
                "the edit is taken back in {seconds} s, unless: lvs-notify confirm {name}\n"
            ));
        }
        // It was not tried: this kernel refuses it, nobody knows the role, or somebody holds the lock.
        (_, Some(before)) if trial.runs() => {
            before.save(&name)?;
            guard(&instance);
        }
        (_, None) if trial.runs() => trial::forget(&name)?,
        _ => {}
    }
    applied
}

/// Keeps an edit that is on trial.
fn confirm(mut instance: Instance, started: Instant) -> Result<Exit> {
    instance.path = trial::confirm(&instance.name)?.file;
    print_text("confirmed: the edit stays\n");
    let Basis { file, config, compiled, .. } = Basis::read(&instance);
    let role = Record::newest(&instance.name, &instance.path).map(|record| record.role);
    let ready = record::rehearsal(&instance.name, &file).is_some_and(|last| last.problems.is_empty());
    if let (Ok(source), Some(config), true) = (&file, &config, ready && role != Some(Role::Master)) {
        // A BACKUP has rehearsed it already.
        last_good::keep(&instance.name, source, config, compiled)?;
    }
    carry_out(instance, None, "apply", started)
}

/// Waits for the end of the trial, and has the last good copy applied until that has succeeded.
fn take_back(instance: &Instance) -> Result<Exit> {
    process::outlive_the_login();
    let Instance { name, path } = instance;
    let trial = Trial::of(name).context("there is no trial")?;
    let (begun, period) = (Instant::now(), Duration::from_secs(trial.end.saturating_sub(seconds_now())));
    while begun.elapsed() < period {
        std::thread::sleep(Duration::from_millis(500).min(period));
        if trial::is_gone(name) || Trial::of(name).is_some_and(|now| now != trial) {
            return Ok(Exit::Done);
        }
    }
    trial.expire(name);
    // For an hour: somebody may hold the lock, or no notification has come yet.
    for _ in 0..720 {
        if !Trial::of(name).is_some_and(|trial| trial.is_due()) {
            break;
        }
        if !last_good::is_usable(name) {
            trial::forget(name)?;
            anyhow::bail!("the edit stays: there is no last good copy any more");
        }
        // A process of its own comes after every notification.
        let mut apply = std::process::Command::new("/proc/self/exe");
        apply
            .arg("--config")
            .arg(path)
            .args(["apply", "--", name])
            .status()
            .context("taking the edit back")?;
        if Trial::of(name).is_some_and(|trial| trial.is_due()) {
            std::thread::sleep(Duration::from_secs(5));
        }
    }
    Ok(Exit::Done)
}

/// Every line of the log has the instance and its role: a new one, or that of the newest notification.
fn log_for(instance: &Instance, role: Option<Role>) {
    let newest = || Record::newest(&instance.name, &instance.path).map(|record| record.role);
    let role = role.or_else(newest).map_or(String::new(), |role| format!(" {role}"));
    process::log_for(&(instance.name.clone() + &role));
}

/// Changes the list of drained real servers, then the kernel, when keepalived has called since boot.
fn edit_drains(
    instance: Instance,
    started: Instant,
    edit: impl FnOnce(&str) -> Result<String>,
) -> Result<Exit> {
    log_for(&instance, None);
    // Two who change the list at once would lose one's change.
    let claim = Claim {
        stamp: &Stamp::own()?,
        instance: &instance.name,
        patience: Duration::from_secs(5),
        notified: false,
    };
    let lock = claim.wait(|| false)?;
    let text = edit(&instance.name)?;
    drop(lock);
    log::info!("{}", text.trim_end());
    print_text(&text);
    if Record::newest(&instance.name, &instance.path).is_none() {
        print_text("no role recorded yet; takes effect at the next notification\n");
        return Ok(Exit::Done);
    }
    carry_out(instance, None, "apply", started)
}

/// Tells what would change: here, or where `saved` was written.
fn plan(instance: Instance, role: Option<Role>, json: bool, saved: Option<&Path>) -> Result<Exit> {
    let mut invalid = None;
    let (role, plan) = match saved {
        Some(saved) => preview::offline(&instance, role, saved)?,
        None => {
            process::drop_privileges_and_cwd();
            let Preview { role, plan, basis, .. } = Preview::of(&mut Linux::default(), &instance, role)?;
            invalid = basis.file.err();
            (role, plan)
        }
    };
    match json {
        true => print_raw(&report::plan::as_json(&instance.name, role, &plan)),
        false => print_text(&report::plan::text(&instance.name, role, &plan)),
    };
    match invalid {
        // By the last good copy, or by the record.
        Some(why) => Err(Invalid(why).into()),
        None => Ok(if plan.is_empty() { Exit::Done } else { Exit::Differences }),
    }
}

/// Tells the state of an instance; of several a line each, and the worst exit status.
fn status(instances: &[Instance], args: &StatusArgs) -> Result<Exit> {
    process::drop_privileges_and_cwd();
    let mut kernel = Linux::default();
    loop {
        let previews: Result<Vec<Preview>> =
            instances.iter().map(|instance| Preview::of(&mut kernel, instance, None)).collect();
        let previews = previews?;
        let list = instances.iter().zip(&previews).map(|(instance, preview)| {
            let places = || preview.desired.client_side().cloned().collect();
            let claims = args.probe.then(|| kernel::probe(&places()));
            let last = record::rehearsal(&instance.name, &preview.basis.file);
            Status::of(&instance.name, preview, claims.as_ref()).rehearsed(last)
        });
        let list: Vec<Status> = list.collect();
        if args.watch.is_some() && stdout().is_terminal() {
            // Home, and clear to the end.
            print_raw("\x1b[H\x1b[2J");
        }
        let read = match (args.json, args.prometheus, list.as_slice()) {
            (_, true, list) => print_raw(&report::prometheus::text(list)),
            (true, _, [status]) => print_raw(&json(status)),
            (true, ..) => print_raw(&json(&list)),
            (.., [status]) => print_text(&report::status::text(status)),
            _ => print_text(
                &list.iter().map(|status| report::status::verdict(status) + "\n").collect::<String>(),
            ),
        };
        match args.watch.filter(|_| read) {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.max(1))),
            None => return Ok(list.iter().map(report::status::exit).max().unwrap_or(Exit::Done)),
        }
    }
}
