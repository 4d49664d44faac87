//! lvs-notify: what keepalived's notify scripts should do, as one short-lived program.
//!
//! ```text
//! cli ─→ config ─→ desired ─→ kernel::observe ─→ plan ─→ kernel::apply ─→ kernel::observe ─→ report
//!        (YAML)    (per role)  (what is there)    (diff)  (what differs)   (nothing differs)
//! ```
//!
//! Owns the flow from a command line to an exit status. The library is no stable interface: it
//! exists for the binary and its tests.

pub mod cli;
pub mod config;
pub mod desired;
pub mod instance;
pub mod kernel;
pub mod lock;
pub mod log;
pub mod model;
pub mod persist;
mod plain_yaml;
pub mod plan;
pub mod reconcile;
pub mod record;
pub mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

use cli::{Cli, Command};
use config::{Invalid, Source};
use kernel::Linux;
use model::Role;
use plan::{Observed, Plan};
use reconcile::{Instance, Request};
use report::Exit;

/// The whole process.
pub fn main() -> ExitCode {
    let started = Instant::now();
    // keepalived hands over a umask of 0177, under which directories cannot be entered.
    umask(Mode::from_bits_truncate(0o022));
    log::start();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() {
                ::log::error!("{}", error.to_string().lines().next().unwrap_or_default());
                return ExitCode::from(Exit::Usage as u8);
            }
            return ExitCode::SUCCESS;
        }
    };
    let exit = run(&cli, started).unwrap_or_else(|error| {
        let text = format!("{error:#}");
        ::log::error!("{text}");
        if !std::io::IsTerminal::is_terminal(&std::io::stderr())
            && !std::io::IsTerminal::is_terminal(&std::io::stdout())
        {
            // The log went to syslog; a script that runs this wants to know as well.
            let _ = writeln!(std::io::stderr(), "lvs-notify: {text}");
        }
        if error.downcast_ref::<Invalid>().is_some() {
            Exit::Invalid
        } else if error.downcast_ref::<instance::Unknown>().is_some() {
            Exit::Usage
        } else {
            Exit::Failed
        }
    });
    ExitCode::from(exit as u8)
}

fn run(cli: &Cli, started: Instant) -> anyhow::Result<Exit> {
    let config = cli.config.clone().or_else(|| std::env::var_os("LVS_NOTIFY_CONFIG").map(PathBuf::from));
    let config = config.as_deref();
    if let Some((role, args)) = cli.command.reconciles() {
        let command = role.map_or("apply", Role::command);
        let instance = instance::find(config, args.instance.as_deref())?;
        if args.dry_run {
            return plan(instance, role, false, None);
        }
        return carry_out(instance, role, command, started);
    }
    match &cli.command {
        Command::Notify { kind, name, state, .. } => {
            let Ok(role) = state.parse::<Role>() else {
                ::log::info!("{kind} {name}: nothing to do for {state}");
                return Ok(Exit::Done);
            };
            carry_out(instance::find(config, Some(name))?, Some(role), "notify", started)
        }
        Command::Plan { words, json, current } => {
            let (role, name) = instance::role_and_name(words)?;
            plan(instance::find(config, name)?, role, *json, current.as_deref())
        }
        Command::Status { instance, json } => status(instance::find(config, instance.as_deref())?, *json),
        Command::Check { files } => check(files, config),
        _ => Ok(Exit::Usage),
    }
}

fn carry_out(
    instance: Instance,
    role: Option<Role>,
    command: &str,
    started: Instant,
) -> anyhow::Result<Exit> {
    // keepalived's end sends SIGTERM to its scripts. What it asked for is finished all the same: a
    // newer notification, not a signal, says that it is out of date.
    let mut quiet = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        quiet.add(signal);
    }
    let _ = quiet.thread_block();
    let request = Request { instance, role, command: command.to_owned(), started };
    let outcome = reconcile::run(&mut Linux::open()?, &request)?;
    print(&report::outcome(&request.instance.name, &outcome));
    Ok(report::exit_of(&outcome))
}

fn plan(instance: Instance, role: Option<Role>, json: bool, current: Option<&Path>) -> anyhow::Result<Exit> {
    let (role, plan) = match current {
        Some(file) => plan_offline(&instance, role, file)?,
        None => {
            let preview = reconcile::preview(&mut Linux::open()?, &instance, role, false)?;
            if let Some(why) = preview.basis.complaint() {
                return Err(Invalid(why.to_owned()).into());
            }
            (preview.role, preview.plan)
        }
    };
    print(&match json {
        true => report::plan::as_json(&instance.name, role, &plan),
        false => report::plan::text(&instance.name, role, &plan),
    });
    Ok(if plan.is_empty() { Exit::Done } else { Exit::Differences })
}

/// Plans against a saved observation: no kernel, no privileges, no record.
fn plan_offline(instance: &Instance, role: Option<Role>, file: &Path) -> anyhow::Result<(Role, Plan)> {
    #[derive(serde::Deserialize)]
    struct Saved {
        role: Role,
        observed: Observed,
    }
    let reading = || format!("reading the saved observation {}", file.display());
    let text = std::fs::read_to_string(file).with_context(reading)?;
    let saved: Saved = serde_json::from_str(&text).with_context(reading)?;
    let role = role.unwrap_or(saved.role);
    let desired = reconcile::declared(&Source::read(&instance.path)?)?.for_role(role);
    Ok((role, Plan::between(&desired, &saved.observed, &plan::Owned::default())))
}

fn status(instance: Instance, json: bool) -> anyhow::Result<Exit> {
    let preview = reconcile::preview(&mut Linux::open()?, &instance, None, true)?;
    let persisted = preview.record.is_none() || persist::is_current(&instance.name, &preview.desired);
    print(&match json {
        true => report::status::as_json(&instance.name, &preview, persisted),
        false => report::status::text(&instance.name, &preview, persisted),
    });
    Ok(report::status::exit(&preview, persisted))
}

fn check(files: &[PathBuf], config: Option<&Path>) -> anyhow::Result<Exit> {
    let files: Vec<PathBuf> = match (files, config) {
        ([], Some(file)) => vec![file.to_owned()],
        ([], None) => instance::all().into_iter().map(|instance| instance.path).collect(),
        (files, _) => files.to_vec(),
    };
    if files.is_empty() {
        anyhow::bail!("there is no file in {}", instance::DIRECTORY);
    }
    let mut exit = Exit::Done;
    for file in files {
        match Source::read(&file).and_then(|source| Ok(reconcile::declared(&source)?)) {
            Ok(declared) => {
                print(&format!(
                    "{}: valid; VIPs: {}, services: {}\n",
                    file.display(),
                    declared.vips.len(),
                    declared.services.len()
                ));
            }
            Err(error) => {
                print(&format!("{error:#}\n"));
                exit = Exit::Invalid;
            }
        }
    }
    Ok(exit)
}

/// Writes to standard output; a closed pipe is nobody's error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
