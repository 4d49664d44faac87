//! The state of an instance as text and as JSON: one verdict with its reason, then what it is made of.
//!
//! Owns the words of `status`; the judgement is `crate::status`'s. Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Exit, figures, json};
use crate::model::{Family, Role, Service};
use crate::observed::{Counters, Observed};
use crate::state::stamp::seconds_now;
use crate::status::{Server, Status, Vip, VirtualService};

/// How `status` ends.
pub fn exit(status: &Status) -> Exit {
    match (&status.file_problem, status.healthy) {
        (Some(_), _) => Exit::Invalid,
        (None, true) => Exit::Done,
        (None, false) => Exit::Differences,
    }
}

/// The JSON form, with `observed`, which is what `plan --current` reads.
pub fn as_json(status: &Status, observed: &Observed) -> String {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("observed".to_owned(), serde_json::to_value(observed).unwrap_or_default());
    }
    json(&value)
}

/// The text; the first line is the verdict.
pub fn text(status: &Status) -> String {
    let mut text = verdict(status);
    if let Some(why) = &status.file_problem {
        let then = if status.last_good { "the last good copy" } else { "nothing: there is no good copy" };
        let _ =
            writeln!(text, "\nThe desired-state file is not usable; a takeover now would use {then}:\n{why}");
    }
    differences(&mut text, status);
    vips(&mut text, &status.vips);
    parameters(&mut text, status);
    services(&mut text, status);
    for daemon in &status.sync_daemons {
        let _ = writeln!(text, "\nSync daemon: {daemon}");
    }
    if let Some(last) = &status.last_run {
        let process = last.pid.map_or(String::new(), |pid| format!(" (process {pid})"));
        let _ =
            writeln!(text, "\nLast run: {}{process} at {}: {}", last.command, utc(last.at), figures(last));
        let phases: Vec<String> = last.phases.iter().map(|(name, ms)| format!("{name} {ms:.1} ms")).collect();
        if !phases.is_empty() {
            let _ = writeln!(text, "  {}", phases.join(", "));
        }
    }
    text
}

/// One line: who, since when, and what is the matter.
fn verdict(status: &Status) -> String {
    let Status { instance, role, .. } = status;
    let who = match status.since {
        None => format!("{instance}: no role recorded since boot, compared with {role}"),
        Some(since) => {
            let ago = age(seconds_now().saturating_sub(since));
            format!("{instance}: {role} since {} ({ago})", utc(since))
        }
    };
    let mut parts = vec![match status.count() {
        0 => "in sync".to_owned(),
        1 => "OUT OF SYNC, 1 difference".to_owned(),
        count => format!("OUT OF SYNC, {count} differences"),
    }];
    if !status.complete && status.count() > 0 {
        parts.push("the last run did not end".to_owned());
    }
    if status.file_problem.is_some() {
        parts.push("the desired-state file is INVALID".to_owned());
    }
    let troubled: Vec<&Vip> = status.vips.iter().filter(|vip| vip.problem.is_some()).collect();
    match troubled.as_slice() {
        [] => {}
        [vip] => parts.push(format!("{}: PROBLEM", vip.address)),
        [vip, rest @ ..] => parts.push(format!("{} and {} more: PROBLEM", vip.address, rest.len())),
    }
    format!("{who}, {}\n", parts.join(", "))
}

/// A time span to the precision that matters.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// At most this many are listed; the services' table marks each at its place.
const MAX_DIFFERENCES: usize = 20;

fn differences(text: &mut String, status: &Status) {
    if status.count() == 0 {
        return;
    }
    let _ = writeln!(text, "\nDifferences (`lvs-notify apply {}` repairs them):", status.instance);
    for difference in status.differences.iter().take(MAX_DIFFERENCES) {
        let _ = writeln!(text, "  {} {}", difference.sign, difference.text);
    }
    if status.differences.len() > MAX_DIFFERENCES {
        let more = status.differences.len() - MAX_DIFFERENCES;
        let _ = writeln!(text, "  … and {more} more (`lvs-notify plan {}`)", status.instance);
    }
    if !status.persisted {
        let _ =
            writeln!(text, "  ~ {} is not current", crate::state::sysctl_d::path(&status.instance).display());
    }
}

fn vips(text: &mut String, vips: &[Vip]) {
    if vips.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nVIPs:");
    let width = vips.iter().map(|vip| vip.address.to_string().len()).max().unwrap_or(0);
    for vip in vips {
        let places =
            if vip.places.is_empty() { "absent".to_owned() } else { format!("on {}", vip.places.join(", ")) };
        let mac = match (&vip.mac, vip.answers) {
            (Some(mac), true) => format!(" with {mac}"),
            _ => String::new(),
        };
        let _ = writeln!(text, "  {:<width$}  {places}; {}{mac}", vip.address.to_string(), vip.reason);
        if let Some(problem) = &vip.problem {
            let _ = writeln!(text, "  {:<width$}  PROBLEM: {problem}", "");
        }
        if let Some(claims) = &vip.claims {
            let told = match claims.as_slice() {
                [] => "nobody".to_owned(),
                some => some
                    .iter()
                    .map(|mac| {
                        if Some(mac) == vip.mac.as_ref() { format!("{mac} (this host)") } else { mac.clone() }
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let _ = writeln!(text, "  {:<width$}  asked on the wire, answered by: {told}", "");
        }
    }
}

fn parameters(text: &mut String, status: &Status) {
    if status.parameters.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nParameters:");
    // The same value on every interface is one line.
    let mut groups: BTreeMap<(&str, &str, bool), BTreeSet<&str>> = BTreeMap::new();
    for (name, parameter) in &status.parameters {
        let value = parameter.value.as_deref().unwrap_or("absent");
        let agrees = value.split_whitespace().eq(parameter.wanted.split_whitespace());
        let separator = if name.contains('/') { '/' } else { '.' };
        let (path, leaf) = name.rsplit_once(separator).unwrap_or(("", name));
        let place = path.trim_start_matches("net.ipv4.conf.").trim_start_matches("net/ipv4/conf/");
        groups.entry((leaf, value, agrees)).or_default().insert(place);
    }
    for ((leaf, value, agrees), places) in groups {
        let places = places.into_iter().collect::<Vec<_>>().join(", ");
        let mark = if agrees { ' ' } else { '~' };
        let _ = writeln!(text, "{mark} {leaf} = {value} ({places})");
    }
}

fn services(text: &mut String, status: &Status) {
    if !status.ipvs {
        let _ = writeln!(text, "\nIPVS: the kernel has none loaded");
    }
    if !status.services.is_empty() {
        table(text, "Services", &status.services.iter().collect::<Vec<_>>());
    } else if status.ipvs && status.role != Role::Master {
        let _ = writeln!(text, "\nServices: none while {}", status.role);
    }
    let mut foreign: BTreeMap<Option<&str>, Vec<&VirtualService>> = BTreeMap::new();
    for service in &status.foreign_services {
        foreign.entry(service.instance.as_deref()).or_default().push(service);
    }
    let nobodys = foreign.remove(&None);
    for (instance, services) in foreign {
        table(text, &format!("Services of {}", instance.unwrap_or_default()), &services);
    }
    if let Some(services) = nobodys {
        table(text, "Foreign services (never touched)", &services);
    }
}

fn table(text: &mut String, title: &str, services: &[&VirtualService]) {
    let servers = services.iter().flat_map(|service| &service.servers);
    let (names, forwards): (Vec<usize>, Vec<usize>) =
        servers.map(|server| (server.key.to_string().len(), server.settings.forwarding().len())).unzip();
    let longest = |list: Vec<usize>| list.into_iter().max().unwrap_or(0);
    let width = longest(names).max(title.len().saturating_sub(4)).max(22);
    let forward = longest(forwards).max("forward".len());
    let _ = writeln!(
        text,
        "\n{title:<0$}  {1:<forward$}  weight  active  inactive  conn/s  B/s in  B/s out",
        width + 4,
        "forward",
    );
    for service in services {
        let mark = sign(service.difference.as_deref());
        let reason = reason(service.difference.as_deref());
        let _ = writeln!(
            text,
            "{mark} {}  {}{reason}",
            service.key,
            settings(&service.settings, service.key.family())
        );
        for server in &service.servers {
            row(text, (width, forward), server);
        }
    }
}

fn row(text: &mut String, (width, forward): (usize, usize), server: &Server) {
    let Counters { active, inactive, rates, .. } = server.counters;
    let settings = &server.settings;
    let mut notes = reason(server.difference.as_deref());
    notes += &match (server.drained, server.drained_until) {
        (true, Some(until)) => format!("  (drained by hand until {})", utc(until)),
        (true, None) => "  (drained by hand)".to_owned(),
        _ if settings.weight == 0 && server.difference.is_none() => "  (drained)".to_owned(),
        _ => String::new(),
    };
    if settings.upper_threshold != 0 && active.saturating_add(inactive) >= settings.upper_threshold {
        notes += "  (at its upper threshold)";
    }
    let _ = writeln!(
        text,
        "{}   {:<width$}  {:<forward$}  {:>6}  {active:>6}  {inactive:>8}  {:>6}  {:>6}  {:>7}{notes}",
        sign(server.difference.as_deref()),
        server.key.to_string(),
        settings.forwarding(),
        settings.weight,
        rates.connections,
        short(rates.bytes_in),
        short(rates.bytes_out),
    );
}

fn sign(difference: Option<&str>) -> char {
    difference.and_then(|text| text.chars().next()).unwrap_or(' ')
}

fn reason(difference: Option<&str>) -> String {
    let words = difference.and_then(|text| text.split_once(' ')).map(|(_, words)| words);
    words.map_or(String::new(), |words| format!("  <- {words}"))
}

/// A number of at most four digits with its magnitude.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}k", number / 1000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

fn settings(service: &Service, family: Family) -> String {
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
