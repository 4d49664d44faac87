//! lvs-notify: what keepalived's notify scripts should do, as one short-lived program.
//!
//! ```text
//! cli ─→ config ─→ desired ─→ kernel::observe ─→ plan ─→ kernel::apply ─→ kernel::observe ─→ report
//!        (YAML)    (per role)  (what is there)    (diff)  (what differs)   (nothing differs)
//! ```
//!
//! Owns the flow from a command line to an exit status. The library is no stable interface: it
//! exists for the binary and its tests.

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
pub mod log;
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

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use basis::Basis;
use cli::{Cli, Command, StatusArgs};
use config::Config;
use config::source::{Invalid, Source};
use desired::Desired;
use instance::Instance;
use kernel::Linux;
use model::Role;
use observed::Observed;
use plan::Plan;
use preview::Preview;
use reconcile::Request;
use report::Exit;
use state::drain::{self, DrainRequest};
use state::record::Store;
use state::{lock, sysctl_d};
use status::Status;

/// The whole process.
pub fn main() -> ExitCode {
    let started = Instant::now();
    process::begin();
    log::start();
    let cli = match Cli::read() {
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
        if !std::io::stderr().is_terminal() && !std::io::stdout().is_terminal() {
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
        Command::Drain { server, instance, services, period } => {
            let request = DrainRequest { server, services, period: period.as_deref() };
            drained(instance::find(config, instance.as_deref())?, started, |store, basis| {
                let why = || basis.problem().unwrap_or_default().to_owned();
                drain::begin(store.instance(), basis.config().ok_or_else(|| Invalid(why()))?, &request)
            })
        }
        Command::Undrain { server, instance, .. } => {
            drained(instance::find(config, instance.as_deref())?, started, |store, _| {
                drain::lift(store.instance(), server.as_deref())
            })
        }
        Command::Fifo { path } => fifo::follow(path, config),
        Command::Status { instance, form } => status(instance::find(config, instance.as_deref())?, form),
        Command::Check { files, keepalived_conf, host, json } => {
            let checked = check::run(files, config, keepalived_conf.as_deref(), *host)?;
            match json {
                true => print(&report::check::as_json(&checked)),
                false => tell(&report::check::text(&checked)),
            };
            Ok(report::check::exit(&checked))
        }
        Command::Import { run, .. } if import::sandbox::is_inside() => {
            import::sandbox::run(run).map(|()| Exit::Done)
        }
        Command::Import { run, limit, .. } if !run.is_empty() => {
            let (text, problem) = import::run_script(run, *limit)?;
            print(&text);
            problem.map_or(Ok(Exit::Done), |why| Err(anyhow::Error::msg(why)))
        }
        Command::Import { from, file, .. } => {
            print(&import::run(*from, file.as_deref())?);
            Ok(Exit::Done)
        }
        _ => Ok(Exit::Usage),
    }
}

fn carry_out(
    instance: Instance,
    role: Option<Role>,
    command: &str,
    started: Instant,
) -> anyhow::Result<Exit> {
    process::finish_whatever_comes();
    let request = Request {
        instance: process::settle(instance),
        role,
        command: command.to_owned(),
        started,
        stamp: None,
    };
    let mut kernel = Linux::open()?;
    let outcome = reconcile::run(&mut kernel, &request)?;
    tell(&report::outcome(&request.instance.name, &outcome));
    // Told before, because it takes a second in which somebody may look for the log line.
    reconcile::repeat_announcement(&mut kernel, &request.instance, &outcome);
    Ok(report::exit_of(&outcome))
}

/// Changes the list of drained real servers, then the kernel, when keepalived has called since boot.
fn drained(
    instance: Instance,
    started: Instant,
    edit: impl FnOnce(&Store, &Basis) -> anyhow::Result<String>,
) -> anyhow::Result<Exit> {
    let store = Store::new(&instance.name);
    let told = {
        // Two who change the list at once would lose one's change.
        let _lock = lock::hold(&instance.name)?;
        edit(&store, &Basis::read(&instance, &store))?
    };
    ::log::info!("{}: {}", instance.name, told.trim_end());
    tell(&told);
    if store.record().is_none() {
        tell("no role is recorded yet; it holds from the next notification on\n");
        return Ok(Exit::Done);
    }
    carry_out(instance, None, "apply", started)
}

fn plan(instance: Instance, role: Option<Role>, json: bool, current: Option<&Path>) -> anyhow::Result<Exit> {
    let (role, plan) = match current {
        Some(file) => plan_offline(&instance, role, file)?,
        None => {
            let instance = process::settle(instance.clone());
            let preview = Preview::of(&mut Linux::open()?, &instance, role, false)?;
            if let Some(why) = preview.basis.problem() {
                return Err(Invalid(why.to_owned()).into());
            }
            (preview.role, preview.plan)
        }
    };
    match json {
        true => print(&report::plan::as_json(&instance.name, role, &plan)),
        false => tell(&report::plan::text(&instance.name, role, &plan)),
    };
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
    let desired = Desired::for_role(&Config::parse(&Source::read(&instance.path)?)?, role);
    Ok((role, Plan::between(&desired, &saved.observed, &model::Owned::default())))
}

fn status(instance: Instance, form: &StatusArgs) -> anyhow::Result<Exit> {
    let instance = process::settle(instance);
    let mut kernel = Linux::open()?;
    loop {
        let preview = Preview::of(&mut kernel, &instance, None, true)?;
        let persisted = preview.record.is_none() || sysctl_d::is_current(&instance.name, &preview.desired);
        let client_side = preview.desired.interface.iter().chain(&preview.desired.off_interface);
        let claims = form.probe.then(|| kernel.probe(&client_side.cloned().collect()));
        let status = Status::of(&instance.name, &preview, persisted, claims.as_ref());
        if form.watch.is_some() && std::io::stdout().is_terminal() {
            // Home, and clear to the end.
            let _ = std::io::stdout().write_all(b"\x1b[H\x1b[2J");
        }
        let read = match (form.json, form.prometheus) {
            (true, _) => print(&report::status::as_json(&status, &preview.observed)),
            (_, true) => print(&report::prometheus::text(&status)),
            _ => tell(&report::status::text(&status)),
        };
        match form.watch.filter(|_| read) {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.max(1))),
            None => return Ok(report::status::exit(&status)),
        }
    }
}

/// Writes a text for people: nothing in it can command their terminal, and what needs attention has a
/// colour there.
fn tell(text: &str) -> bool {
    let clean = report::clean(text);
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(&if colours { report::paint(&clean) } else { clean })
}

/// Writes to standard output as it is and tells whether somebody reads it; a closed pipe is nobody's error.
fn print(text: &str) -> bool {
    std::io::stdout().write_all(text.as_bytes()).is_ok()
}
