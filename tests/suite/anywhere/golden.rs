//! What people read, word for word: every folder of tests/golden with a `session` (commands and what they print) or
//! a `state.json` (what `status` and a role command say of a kernel in that state).
//!
//! Owns what a kernel without IPVS can show without privileges; leaves errors of the desired-state file to `config`,
//! the rules of `check` to `lint`, what `import` refuses to `import`, and what needs root to `here::golden`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use lvs_notify::basis::Basis;
use lvs_notify::config::Config;
use lvs_notify::config::source::Source;
use lvs_notify::kernel::Error;
use lvs_notify::model::{AddressKey, Mac, Role, ServiceKey};
use lvs_notify::observed::Observed;
use lvs_notify::plan::Plan;
use lvs_notify::preview::Preview;
use lvs_notify::reconcile::Outcome;
use lvs_notify::report::{self, Exit};
use lvs_notify::state::drain::{self, Drain};
use lvs_notify::state::record::{Record, Rehearsal};
use lvs_notify::status::Status;
use nix::errno::Errno;
use serde::Deserialize;

use crate::support::{golden, session};

/// Folders that have this file. What is in `here` needs root.
fn folders_with(file: &str) -> Vec<String> {
    let entries = fs::read_dir(golden::folder()).unwrap().flatten();
    let names = entries.filter(|entry| entry.path().join(file).exists()).map(|entry| entry.file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "here");
    names.sort();
    assert!(!names.is_empty(), "tests/golden has no {file}");
    names
}

#[test]
fn commands_print_what_they_printed() {
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    };
    let all: String = folders_with("session").iter().map(|name| session::replay(name, shell)).collect();
    assert!(all.is_empty(), "{all}(UPDATE_GOLDEN=1 takes the new text)");
}

type Claim = (AddressKey, Result<Vec<Mac>, String>);

/// What a kernel is said to have, which is what `plan --current` reads, and what else `status` looks at. Its times are
/// in the year 2100: until then nothing is older than 0 s.
#[derive(Deserialize)]
struct State {
    role: Role,
    observed: Observed,
    record: Option<Record>,
    rehearsal: Option<Rehearsal>,
    /// What is wrong with the file
    problem: Option<String>,
    /// There is a last good copy, which is the file
    #[serde(default)]
    last_good: bool,
    /// Services of other instances
    #[serde(default)]
    others: Vec<(ServiceKey, String)>,
    /// Who answers for the VIPs
    claims: Option<Vec<Claim>>,
    #[serde(default)]
    drains: Vec<Drain>,
    /// Nobody speaks VRRP
    #[serde(default)]
    alone: bool,
}

impl State {
    fn preview(&self, source: Source) -> Preview {
        let config = Config::parse(&source).unwrap();
        let basis = match self.problem.clone() {
            None => Basis {
                file: Ok(source),
                config: Some(config),
                compiled: false,
                version: None,
                refused: false,
                taken_back: None,
            },
            Some(why) => Basis {
                file: Err(why),
                config: self.last_good.then_some(config),
                compiled: false,
                version: None,
                refused: false,
                taken_back: None,
            },
        };
        let owned = self.record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
        let mut desired = basis.desired(self.role, &owned).unwrap();
        drain::apply(&self.drains, &mut desired, 0);
        Preview {
            role: self.role,
            plan: Plan::between(&desired, &self.observed, &owned),
            observed: self.observed.clone(),
            desired,
            record: self.record.clone(),
            keepalived: !self.alone,
            persisted: true,
            overruled: None,
            problem: None,
            confirm_until: None,
            trouble: None,
            basis,
            others: self.others.iter().cloned().collect(),
        }
    }
}

fn told(text: &mut String, command: &str, printed: &str, exit: Exit) {
    let status = if exit == Exit::Done { String::new() } else { format!("[{}]\n", exit as u8) };
    let _ =
        write!(text, "{}$ lvs-notify {command}\n{printed}{status}", if text.is_empty() { "" } else { "\n" });
}

#[test]
fn status_says_what_it_said() {
    let mut all = String::new();
    for name in folders_with("state.json") {
        let read = |file: &str| fs::read_to_string(golden::folder().join(&name).join(file)).unwrap();
        let state: State =
            serde_json::from_str(&read("state.json")).unwrap_or_else(|why| panic!("{name}: {why}"));
        let preview = state.preview(Source { name: "VI_1.yaml".into(), text: read("VI_1.yaml") });
        let claims = state.claims.map(|claims| claims.into_iter().collect());
        let status = Status::of("VI_1", &preview, claims.as_ref()).rehearsed(state.rehearsal);
        // Every change of the plan has its mark.
        let due = status.differences.iter().map(|due| &due.text);
        let due = due.filter(|text| text.starts_with("service ") || text.starts_with("real server ")).count();
        let servers = status.services.iter().flat_map(|service| &service.servers);
        let marks = servers.filter(|server| server.difference.is_some()).count();
        let services = status.services.iter().filter(|service| service.difference.is_some()).count();
        assert_eq!(marks + services, due, "{name}");
        let exit = report::status::exit(&status);
        let mut text = String::new();
        told(&mut text, "status VI_1", &report::status::text(&status), exit);
        told(
            &mut text,
            "status VI_1 --prometheus",
            &report::prometheus::text(std::slice::from_ref(&status)),
            exit,
        );
        told(&mut text, "status VI_1 --json", &report::json(&status), exit);
        all += &golden::difference(&format!("{name}/status"), &text);
    }
    assert!(all.is_empty(), "{all}(UPDATE_GOLDEN=1 takes the new text)");
}

/// A run of which everything succeeded, one of which much did not, and two that were superseded.
#[test]
fn runs_say_what_they_said() {
    let read = |file: &str| fs::read_to_string(golden::folder().join("drift").join(file)).unwrap();
    let state: State = serde_json::from_str(&read("state.json")).unwrap();
    let preview = state.preview(Source { name: "VI_1.yaml".into(), text: read("VI_1.yaml") });
    let run = preview.record.and_then(|record| record.last).unwrap();
    let changes: Vec<_> = preview.plan.changes().cloned().collect();
    let good = Outcome {
        role: Some(Role::Master),
        done: changes.iter().map(|change| (change.clone(), None)).collect(),
        run: run.clone(),
        ..Outcome::default()
    };
    let refused = Error {
        operation: "adding address 192.0.2.100 on lo".into(),
        errno: Some(Errno::EPERM),
        detail: "not permitted".into(),
        remedy: Some("run as root or with CAP_NET_ADMIN".into()),
    };
    let mut bad = Outcome {
        role: Some(Role::Master),
        done: changes.iter().map(|change| (change.clone(), None)).collect(),
        troubles: vec!["announcing 192.0.2.100 on eth0: the interface is down (ENETDOWN)".into()],
        withheld: ["192.0.2.100".parse().unwrap()].into(),
        remaining: changes[..1].to_vec(),
        fallback: Some("VI_1.yaml:6:16: `none` would refuse every connection".into()),
        run: run.clone(),
        ..Outcome::default()
    };
    (bad.done[0].1, bad.run.failed) = (Some(refused), 1);
    let superseded = |changes| {
        let run = lvs_notify::state::record::LastRun { changes, ..run.clone() };
        Outcome { superseded: Some("BACKUP of process 4321".into()), run, ..Outcome::default() }
    };
    let mut text = String::new();
    for (command, outcome) in
        [("master", &good), ("master", &bad), ("backup", &superseded(0)), ("backup", &superseded(3))]
    {
        told(&mut text, &format!("{command} VI_1"), &report::outcome(outcome), report::exit_of(outcome));
    }
    golden::same("drift/runs", &text);
}
