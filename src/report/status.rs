//! The state of an instance: one verdict with its reason, then what it is made of.
//!
//! Owns the words of `status`. Decides nothing. Called by `lib`.

use std::fmt::Write as _;

use super::{Exit, figures, json};
use crate::desired::Desired;
use crate::model::{AddressKey, Parameter, Service};
use crate::plan::{Change, Counters, Observed, ObservedIpvs, Ownership};
use crate::reconcile::{Preview, seconds_now};

/// Whether what is there is what should be.
pub fn exit(preview: &Preview, persisted: bool) -> Exit {
    match (preview.basis.complaint(), preview.plan.is_empty() && persisted) {
        (Some(_), _) => Exit::Invalid,
        (None, true) => Exit::Done,
        (None, false) => Exit::Differences,
    }
}

/// The state of an instance as JSON; `observed` is what `plan --current` reads.
pub fn as_json(instance: &str, preview: &Preview, persisted: bool) -> String {
    let differences: Vec<String> =
        preview.plan.changes().map(|change| format!("{} {change}", change.sign())).collect();
    json(&serde_json::json!({
        "version": 1,
        "instance": instance,
        "role": preview.role,
        "recorded": preview.record.is_some(),
        "since": preview.record.as_ref().map(|record| record.since),
        "in_sync": exit(preview, persisted) == Exit::Done,
        "differences": differences,
        "persisted": persisted,
        "file_problem": preview.basis.complaint(),
        "last_run": preview.record.as_ref().and_then(|record| record.last.as_ref()),
        "observed": preview.observed,
    }))
}

/// The state of an instance as text; the first line is the verdict.
pub fn text(instance: &str, preview: &Preview, persisted: bool) -> String {
    let mut text = verdict(instance, preview, persisted);
    if let Some(why) = preview.basis.complaint() {
        let _ = writeln!(
            text,
            "The desired-state file is not usable; a takeover now would use the last good copy:\n{why}"
        );
    }
    let differences: Vec<&Change> = preview.plan.changes().collect();
    if !differences.is_empty() {
        let _ = writeln!(text, "\nDifferences (`lvs-notify apply {instance}` repairs them):");
        for change in differences {
            let _ = writeln!(text, "  {} {change}", change.sign());
        }
    }
    if !persisted {
        let _ = writeln!(text, "  ~ {} is not current", crate::persist::path(instance).display());
    }
    vips(&mut text, &preview.desired, &preview.observed);
    parameters(&mut text, &preview.observed);
    if let Some(ipvs) = &preview.observed.ipvs {
        services(&mut text, &preview.desired.ownership, ipvs);
    } else {
        let _ = writeln!(text, "\nIPVS: the kernel has none loaded");
    }
    if let Some(last) = preview.record.as_ref().and_then(|record| record.last.as_ref()) {
        let phases: Vec<String> = last.phases.iter().map(|(name, ms)| format!("{name} {ms:.1} ms")).collect();
        let _ = writeln!(text, "\nLast run: {} at {}: {}", last.command, utc(last.at), figures(last));
        if !phases.is_empty() {
            let _ = writeln!(text, "  {}", phases.join(", "));
        }
    }
    text
}

fn verdict(instance: &str, preview: &Preview, persisted: bool) -> String {
    let role = match &preview.record {
        None => format!("{instance}: no role recorded since boot, compared with {}", preview.role),
        Some(record) => {
            let ago = seconds_now().saturating_sub(record.since);
            format!("{instance}: {} since {} ({ago} s)", record.role, utc(record.since))
        }
    };
    let differences = preview.plan.changes().count() + usize::from(!persisted);
    let incomplete = preview.record.as_ref().is_some_and(|record| !record.complete);
    let sync = match (differences, incomplete) {
        (0, _) => "in sync".to_owned(),
        (1, false) => "OUT OF SYNC, 1 difference".to_owned(),
        (count, false) => format!("OUT OF SYNC, {count} differences"),
        (count, true) => format!("OUT OF SYNC, {count} differences, the last run did not end"),
    };
    format!("{role}, {sync}\n")
}

fn vips(text: &mut String, desired: &Desired, observed: &Observed) {
    let _ = writeln!(text, "\nVIPs:");
    for vip in &desired.ownership.vips {
        let places: Vec<String> = observed
            .addresses
            .iter()
            .filter(|found| found.key.address == *vip)
            .map(|found| format!("{}/{}", found.key.interface, found.prefix))
            .collect();
        let places =
            if places.is_empty() { "absent".to_owned() } else { format!("on {}", places.join(" and ")) };
        let _ = writeln!(text, "  {vip}  {places}; {}", answers(*vip, desired, observed));
    }
}

/// Where a VIP answers ARP or neighbour solicitations, or why it does not: the rules of
/// `arp_ignore()` in `net/ipv4/arp.c`, where the larger of the values for `all` and for the
/// interface that received the request holds.
fn answers(vip: std::net::IpAddr, desired: &Desired, observed: &Observed) -> String {
    let protocol = if vip.is_ipv4() { "ARP" } else { "ND" };
    let client_side: Vec<&AddressKey> =
        desired.interface.iter().chain(&desired.off_interface).filter(|key| key.address == vip).collect();
    let Some(key) = client_side.first() else {
        return format!("no interface declared: reached by routing, {protocol} is not answered by design");
    };
    let name = &key.interface;
    let Some(link) = observed.interfaces.get(name) else {
        return format!("{protocol} not answered: there is no interface {name}");
    };
    if !link.up || !link.carrier {
        return format!("{protocol} not answered: {name} is down");
    }
    let mac = link.mac.map_or(String::new(), |mac| {
        format!(" ({})", mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
    });
    if observed.addresses.iter().any(|found| found.key == **key) {
        return format!("answers {protocol} on {name}{mac}");
    }
    let on_lo = observed.addresses.iter().any(|found| found.key.address == vip);
    let ignore = |interface: &str| -> u32 {
        let value = observed.parameters.get(&Parameter::ArpIgnore(interface.to_owned()));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let effective = ignore("all").max(ignore(name));
    match (on_lo, vip.is_ipv4() && effective == 0) {
        (false, _) => format!("{protocol} not answered: the VIP is not here"),
        (true, true) => format!("answers ARP on {name}{mac}, because arp_ignore is 0"),
        (true, false) => format!("{protocol} not answered: the VIP stands on lo only"),
    }
}

fn parameters(text: &mut String, observed: &Observed) {
    if observed.parameters.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nParameters:");
    for (parameter, value) in &observed.parameters {
        let _ = writeln!(text, "  {parameter} = {value}");
    }
}

fn services(text: &mut String, ownership: &Ownership, ipvs: &ObservedIpvs) {
    let (ours, foreign): (Vec<_>, Vec<_>) = ipvs.services.iter().partition(|(key, _)| ownership.owns(key));
    for (title, list) in [("Services:", ours), ("Foreign services (never touched):", foreign)] {
        if list.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{title}");
        for (key, service) in list {
            let _ = writeln!(text, "  {key}  {}", settings(&service.settings, key.family()));
            for (server, wanted) in &service.servers {
                let Counters { active, inactive, .. } =
                    service.counters.get(server).copied().unwrap_or_default();
                let drained = if wanted.weight == 0 { "  (drained)" } else { "" };
                let _ = writeln!(
                    text,
                    "    -> {:<24} {:<4} weight {:<4} active {active:<6} inactive {inactive}{drained}",
                    server.to_string(),
                    wanted.forward.to_string(),
                    wanted.weight
                );
            }
        }
    }
    for (state, daemon) in &ipvs.daemons {
        let _ = writeln!(text, "\nSync daemon: {state} on {} id {}", daemon.interface, daemon.id);
    }
}

fn settings(service: &Service, family: crate::model::Family) -> String {
    let words = service.ipvsadm(family);
    words.strip_prefix("-s ").unwrap_or(&words).to_owned()
}

/// Seconds since 1970 as a date in UTC (the proleptic Gregorian calendar, counted in eras of 400
/// years that begin on 1 March, so that leap days come last).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates() {
        // `date -u -d @SECONDS`
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_433_696), "2026-11-23 11:34:56 UTC");
    }
}
