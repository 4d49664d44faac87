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
pub mod report;
pub mod state;
pub mod status;
pub mod text;

use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use basis::Basis;
use cli::{Cli, Command, RoleArgs, StatusArgs};
use config::source::Invalid;
use instance::Instance;
use kernel::Linux;
use model::Role;
use preview::Preview;
use reconcile::Request;
use report::{Exit, json, print_raw, print_text};
use state::lock::Claim;
use state::stamp::Stamp;
use state::{drain, record, sysctl_d};
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
        Command::Apply(RoleArgs { instance, .. }) if announcer::is_one() => {
            process::drop_privileges_and_cwd();
            announcer::repeat(&mut Linux::default(), &find(instance.as_deref())?).map(|()| Exit::Done)
        }
        Command::Apply(args) => take(None, args),
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
        Command::Status(args) => status(find(args.instance.as_deref())?, &args),
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
        Command::Import { run, .. } if import::sandbox::is_inside() => {
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
    process::log_for(&instance.name);
    process::drop_privileges_and_cwd();
    let request =
        Request { instance, role, command: command.to_owned(), started, announcer: announcer::start };
    let outcome = reconcile::run(&mut Linux::default(), &request)?;
    print_text(&report::outcome(&outcome));
    Ok(report::exit_of(&outcome))
}

/// Changes the list of drained real servers, then the kernel, when keepalived has called since boot.
fn edit_drains(
    instance: Instance,
    started: Instant,
    edit: impl FnOnce(&str) -> Result<String>,
) -> Result<Exit> {
    process::log_for(&instance.name);
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
    if record::read(&instance.name).is_none() {
        print_text("no role recorded yet; takes effect at the next notification\n");
        return Ok(Exit::Done);
    }
    carry_out(instance, None, "apply", started)
}

/// Tells what would change: here, or where `saved` was written.
fn plan(instance: Instance, role: Option<Role>, json: bool, saved: Option<&Path>) -> Result<Exit> {
    let (role, plan) = match saved {
        Some(saved) => preview::offline(&instance, role, saved)?,
        None => {
            process::drop_privileges_and_cwd();
            let Preview { role, plan, basis, .. } = Preview::of(&mut Linux::default(), &instance, role)?;
            basis.file.map_err(Invalid)?;
            (role, plan)
        }
    };
    match json {
        true => print_raw(&report::plan::as_json(&instance.name, role, &plan)),
        false => print_text(&report::plan::text(&instance.name, role, &plan)),
    };
    Ok(if plan.is_empty() { Exit::Done } else { Exit::Differences })
}

fn status(instance: Instance, args: &StatusArgs) -> Result<Exit> {
    process::drop_privileges_and_cwd();
    let mut kernel = Linux::default();
    loop {
        let preview = Preview::of(&mut kernel, &instance, None)?;
        let persisted = preview.record.is_none() || sysctl_d::is_current(&instance.name, &preview.desired);
        let claims = args.probe.then(|| kernel::probe(&preview.desired.client_side().cloned().collect()));
        let status = Status::of(&instance.name, &preview, persisted, claims.as_ref());
        if args.watch.is_some() && stdout().is_terminal() {
            // Home, and clear to the end.
            print_raw("\x1b[H\x1b[2J");
        }
        let read = match (args.json, args.prometheus) {
            (true, _) => print_raw(&json(&status)),
            (_, true) => print_raw(&report::prometheus::text(&status)),
            _ => print_text(&report::status::text(&status)),
        };
        match args.watch.filter(|_| read) {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.max(1))),
            None => return Ok(report::status::exit(&status)),
        }
    }
}
