//! The state of an instance for the textfile collector of Prometheus' node_exporter.
//!
//! Owns metric names and labels (packaging has the timer that writes the file). Labels are bounded:
//! instance, VIP and phase, never a real server, of which there may be thousands. The judgement is
//! `crate::status`'s. Called by `lib`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Role, ServiceKey};
use crate::observed::Counters;
use crate::status::Status;

/// The exposition format, version 0.0.4.
pub fn text(status: &Status) -> String {
    let mut out = Metrics { text: String::new(), instance: escape(&status.instance) };
    let flag = |value: bool| f64::from(u8::from(value));
    out.head("lvs_notify_role", "1 for the recorded VRRP role, 0 for the others");
    for role in [Role::Master, Role::Backup, Role::Fault, Role::Stop] {
        let label = format!("role=\"{}\"", role.command());
        out.value("lvs_notify_role", &label, flag(status.recorded && status.role == role));
    }
    out.one(
        "lvs_notify_in_sync",
        "1 when the kernel is as the desired-state file wants it",
        flag(status.in_sync),
    );
    out.one(
        "lvs_notify_healthy",
        "1 when in sync, the file is valid, and every VIP answers where it must and nowhere else",
        flag(status.healthy),
    );
    out.one("lvs_notify_differences", "Changes that are due", count(status.count()));
    out.one(
        "lvs_notify_file_valid",
        "0 when the desired-state file cannot be used",
        flag(status.file_problem.is_none()),
    );
    if let Some(since) = status.since {
        out.one(
            "lvs_notify_role_since_seconds",
            "When the role was taken, in seconds since 1970",
            since as f64,
        );
    }
    out.head("lvs_notify_vip_answers", "1 when the VIP answers ARP or neighbour solicitations here");
    for vip in &status.vips {
        out.value("lvs_notify_vip_answers", &format!("vip=\"{}\"", vip.address), flag(vip.answers));
    }
    out.head("lvs_notify_vip_problem", "1 when something is wrong with where the VIP answers");
    for vip in &status.vips {
        out.value("lvs_notify_vip_problem", &format!("vip=\"{}\"", vip.address), flag(vip.problem.is_some()));
    }
    tables(&mut out, status);
    if let Some(last) = &status.last_run {
        out.one("lvs_notify_last_run_timestamp_seconds", "End of the last run that counted", last.at as f64);
        out.one("lvs_notify_last_run_changes", "Changes that it made", count(last.changes));
        out.one("lvs_notify_last_run_failures", "Changes that failed", count(last.failed));
        out.one("lvs_notify_last_run_seconds", "Its time to the last change", last.milliseconds / 1000.0);
        if let Some(announced) = last.announced {
            out.one(
                "lvs_notify_last_run_announced_seconds",
                "Its time to the announced VIP",
                announced / 1000.0,
            );
        }
        out.head("lvs_notify_last_run_phase_seconds", "Its time per phase");
        for (phase, milliseconds) in &last.phases {
            let label = format!("phase=\"{}\"", escape(phase));
            out.value("lvs_notify_last_run_phase_seconds", &label, milliseconds / 1000.0);
        }
    }
    out.text
}

/// Services, servers and connections, per VIP; all fwmark services are one.
fn tables(out: &mut Metrics, status: &Status) {
    #[derive(Default)]
    struct Sum {
        services: usize,
        servers: usize,
        drained: usize,
        counters: Vec<Counters>,
    }
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for service in &status.services {
        let vip = match service.key {
            ServiceKey::Endpoint { address, .. } => address.to_string(),
            ServiceKey::Fwmark { .. } => "fwmark".to_owned(),
        };
        let sum = sums.entry(vip).or_default();
        sum.services += 1;
        sum.servers += service.servers.len();
        sum.drained += service.servers.iter().filter(|server| server.settings.weight == 0).count();
        sum.counters.push(service.counters);
    }
    let totals: Vec<(String, Sum, Counters)> = sums
        .into_iter()
        .map(|(vip, sum)| {
            let counters = sum.counters.iter().copied().sum();
            (format!("vip=\"{vip}\""), sum, counters)
        })
        .collect();
    type Value = fn(&Sum, &Counters) -> f64;
    let metrics: [(&str, &str, Value); 7] = [
        ("lvs_notify_services", "Virtual services", |sum, _| count(sum.services)),
        ("lvs_notify_real_servers", "Real servers", |sum, _| count(sum.servers)),
        ("lvs_notify_real_servers_drained", "Real servers of weight 0", |sum, _| count(sum.drained)),
        ("lvs_notify_connections_active", "Established connections", |_, all| f64::from(all.active)),
        ("lvs_notify_connections_inactive", "Other connections", |_, all| f64::from(all.inactive)),
        ("lvs_notify_bytes_in_per_second", "Bytes from clients, as the kernel estimates", |_, all| {
            all.rates.bytes_in as f64
        }),
        ("lvs_notify_bytes_out_per_second", "Bytes to clients, as the kernel estimates", |_, all| {
            all.rates.bytes_out as f64
        }),
    ];
    for (name, help, value) in metrics {
        out.head(name, help);
        for (label, sum, counters) in &totals {
            out.value(name, label, value(sum, counters));
        }
    }
    out.one("lvs_notify_foreign_services", "Services of others", count(status.foreign_services.len()));
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Metrics {
    text: String,
    instance: String,
}

impl Metrics {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn value(&mut self, name: &str, label: &str, value: f64) {
        let comma = if label.is_empty() { "" } else { "," };
        let _ = writeln!(self.text, "{name}{{instance=\"{}\"{comma}{label}}} {value}", self.instance);
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help);
        self.value(name, "", value);
    }
}
