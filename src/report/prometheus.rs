//! The state of an instance for the textfile collector of Prometheus' node_exporter.
//!
//! Owns metric names and labels (packaging has the timer that writes the file). Labels are bounded: instance, VIP and
//! phase, never a real server, of which there may be thousands. The judgement is `crate::status`'s. Called by `lib`.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::model::ServiceKey;
use crate::state::record::LastRun;
use crate::status::{Status, Vip, VirtualService};

/// The exposition format, version 0.0.4; every metric is a gauge, and stands once for all instances.
pub fn text(list: &[Status]) -> String {
    let mut order = Vec::new();
    let mut metrics: BTreeMap<&str, String> = BTreeMap::new();
    for status in list {
        let instance = label("instance", &status.instance);
        // Each value has its label beside the instance; a metric without values is left out.
        samples(status, |name, help, samples| {
            for (label, value) in samples {
                let text = metrics.entry(name).or_insert_with(|| {
                    order.push(name);
                    format!("# HELP lvs_notify_{name} {help}\n# TYPE lvs_notify_{name} gauge\n")
                });
                let comma = if label.is_empty() { "" } else { "," };
                *text += &format!("lvs_notify_{name}{{{instance}{comma}{label}}} {value}\n");
            }
        });
    }
    order.iter().filter_map(|name| metrics.remove(name)).collect()
}

/// Adds the samples of an instance to each metric: its name, its help, and labels with values.
fn samples(status: &Status, mut add: impl FnMut(&'static str, &str, Vec<(String, f64)>)) {
    let one = |value: f64| vec![(String::new(), value)];
    let held = |role| (label("role", role), status.role.is_some_and(|held| held.command() == role).into());
    let roles = ["master", "backup", "fault", "stop"].map(held);
    let vips = |value: fn(&Vip) -> bool| -> Vec<_> {
        status.vips.iter().map(|vip| (label("vip", vip.address), value(vip).into())).collect()
    };
    // Of each VIP; all fwmark services are one.
    let sums = |value: fn(&VirtualService) -> f64| -> Vec<_> {
        let mut sums = BTreeMap::new();
        for service in &status.services {
            let vip = match service.key {
                ServiceKey::Endpoint { address, .. } => label("vip", address),
                ServiceKey::Fwmark { .. } => label("vip", "fwmark"),
            };
            *sums.entry(vip).or_insert(0.0) += value(service);
        }
        sums.into_iter().collect()
    };
    let last = |value: fn(&LastRun) -> Option<f64>| {
        status.last_run.as_ref().and_then(value).map(one).unwrap_or_default()
    };
    let health = "1 when in sync, the file is valid, every VIP answers where it must and nowhere else, no other problem";
    let since = status.since.map(|at| one(at as f64)).unwrap_or_default();
    let drained = |service: &VirtualService| {
        service.servers.iter().filter(|server| server.settings.weight == 0).count() as f64
    };
    let ready =
        status.rehearsal.iter().map(|last| (String::new(), last.problems.is_empty().into())).collect();
    let phases = status.last_run.iter().flat_map(|run| &run.phases);
    let phases = phases.map(|lap| (label("phase", &lap.phase), lap.milliseconds / 1000.0)).collect();

    let version = label("version", env!("CARGO_PKG_VERSION"));
    add("build_info", "The version that tells this", vec![(version, 1.0)]);
    add("role", "1 for the newest notification's VRRP role, 0 for the others", roles.into());
    add("role_failed", "1 when it could not be taken on", one(status.failure.is_some().into()));
    add("problems", "What clients or the other director suffer from", one(status.problems.len() as f64));
    add("in_sync", "1 when the kernel is as the desired-state file wants it", one(status.in_sync.into()));
    add("healthy", health, one(status.healthy.into()));
    add("differences", "Changes that are due", one(status.count() as f64));
    let valid = status.file_problem.is_none();
    add("file_valid", "0 when the desired-state file cannot be used", one(valid.into()));
    let until = status.confirm_until.map(|end| one(end as f64)).unwrap_or_default();
    add("confirm_until_timestamp_seconds", "When an edit is taken back that nobody confirms", until);
    add("takeover_ready", "0 when a rehearsed takeover failed; none while MASTER or not rehearsed", ready);
    add("role_since_timestamp_seconds", "When the role was taken, in seconds since 1970", since);
    add("vip_answers", "1 when the VIP answers ARP or neighbour solicitations here", vips(|vip| vip.answers));
    let problems = vips(|vip| vip.problem.is_some());
    add("vip_problem", "1 when something is wrong with where the VIP answers", problems);
    add("services", "Virtual services", sums(|_| 1.0));
    add("real_servers", "Real servers", sums(|service| service.servers.len() as f64));
    add("real_servers_drained", "Real servers of weight 0", sums(drained));
    add("connections_active", "Established connections", sums(|service| service.counters.active.into()));
    add("connections_inactive", "Other connections", sums(|service| service.counters.inactive.into()));
    let bytes_in = sums(|service| service.counters.rates.bytes_in as f64);
    add("bytes_in_per_second", "Bytes from clients, as the kernel estimates", bytes_in);
    let bytes_out = sums(|service| service.counters.rates.bytes_out as f64);
    add("bytes_out_per_second", "Bytes to clients, as the kernel estimates", bytes_out);
    add("foreign_services", "Services of others", one(status.foreign_services.len() as f64));
    add("last_run_timestamp_seconds", "End of the last run that counted", last(|run| Some(run.at as f64)));
    add("last_run_changes", "Changes that it made", last(|run| Some(run.changes as f64)));
    add("last_run_failures", "Changes that failed", last(|run| Some(run.failed as f64)));
    add("last_run_seconds", "Its time to the last change", last(|run| Some(run.milliseconds / 1000.0)));
    let announced = last(|run| run.announced.map(|took| took / 1000.0));
    add("last_run_announced_seconds", "Its time to the announced VIP", announced);
    add("last_run_phase_seconds", "Its time per phase", phases);
}

fn label(name: &str, value: impl Display) -> String {
    let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}
