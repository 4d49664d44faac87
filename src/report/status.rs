//! The state of an instance as text: one verdict with its reason, then what it is made of.
//!
//! Owns the words of `status`; the judgement is `crate::status`'s. Called by `lib`.

use std::collections::BTreeMap;

use super::{Exit, figures, phases};
use crate::model::Role;
use crate::observed::Counters;
use crate::state::record::Rehearsal;
use crate::state::stamp::seconds_now;
use crate::state::sysctl_d;
use crate::status::{Problem, Server, Status, VirtualService};
use crate::text::counted;

pub fn exit(status: &Status) -> Exit {
    match (&status.file_problem, status.healthy) {
        (Some(_), _) => Exit::Invalid,
        (None, true) => Exit::Done,
        (None, false) => Exit::Differences,
    }
}

/// The text; the first line is the verdict.
pub fn text(status: &Status) -> String {
    let mut text = verdict(status) + "\n";
    if status.role != Some(Role::Master) {
        text += &format!("\nTakeover: {}\n", readiness(status.rehearsal.as_ref()));
    }
    if let Some(end) = status.confirm_until {
        let (left, name) = (end.saturating_sub(seconds_now()), &status.instance);
        text +=
            &format!("\nThe edit of the file is taken back in {left} s, unless: lvs-notify confirm {name}\n");
    }
    if let Some(why) = &status.file_problem {
        let then = if status.last_good { "the last good copy" } else { "nothing: there is no good copy" };
        text += &format!("\nThe desired-state file is not usable; a takeover now would use {then}:\n{why}\n");
    }
    let problems =
        status.problems.iter().map(|Problem { what, remedy }| format!("  PROBLEM: {what}; {remedy}\n"));
    text += &headed("Problems", problems.collect());
    text += &(differences(status) + &vips(status) + &parameters(status) + &services(status));
    text.extend(status.sync_daemons.iter().map(|daemon| format!("\nSync daemon: {daemon}\n")));
    if let Some(last) = &status.last_run {
        let process = last.pid.map_or(String::new(), |pid| format!(" (process {pid})"));
        let sum = figures(last) + &phases(last, "\n  ");
        text += &format!("\nLast run: {}{process} at {}: {sum}\n", last.command, utc(last.at));
    }
    text
}

/// One line: who, since when, and what is the matter.
pub fn verdict(status: &Status) -> String {
    let Status { instance, role, .. } = status;
    let mut text = match (role, status.since) {
        (Some(role), Some(since)) => {
            let ago = scaled(seconds_now().saturating_sub(since), 2, TIMES);
            format!("{instance}: {role} since {} ({ago})", utc(since))
        }
        _ => format!("{instance}: no role since boot, compared with {}", Role::Backup),
    };
    if let Some(why) = status.failure.as_ref().and_then(|why| why.lines().next()) {
        let what = match (&status.last_run, role) {
            (Some(last), _) if last.command == "apply" => "APPLY",
            (_, Some(Role::Master)) => "TAKEOVER",
            _ => "WITHDRAWAL",
        };
        text += &format!(", {what} FAILED: {why}");
        if *role == Some(Role::Master) && !status.vips.is_empty() && !status.serves() {
            text += "; nobody is served";
        }
    }
    text += &match status.count() {
        0 if status.in_sync => ", in sync".to_owned(),
        0 => String::new(),
        count => format!(", OUT OF SYNC, {}", counted(count, "difference")),
    };
    if !status.complete && status.failure.is_none() && status.count() > 0 {
        text += ", being carried out";
    }
    // What failed has its reason there already.
    if let (None, [Problem { what, .. }, more @ ..]) = (&status.failure, status.problems.as_slice()) {
        text += &format!(", PROBLEM: {what}");
        text += &if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    }
    if let Some(why) = status.rehearsal.as_ref().and_then(|last| last.problems.first()) {
        text += &format!(", NOT READY: {why}");
    }
    if status.confirm_until.is_some() {
        text += ", the edit is NOT CONFIRMED";
    }
    if let Some(why) = status.file_problem.as_ref().and_then(|why| why.lines().next()) {
        text += ", the desired-state file is UNUSABLE";
        let told = status.failure.as_ref().is_some_and(|failure| failure.starts_with(why));
        text += &if told { String::new() } else { format!(": {why}") };
    }
    let mut problems = status.vips.iter().filter(|vip| vip.problem.is_some()).map(|vip| vip.address);
    text + &match (problems.next(), problems.count()) {
        (None, _) => String::new(),
        (Some(vip), 0) => format!(", {vip}: PROBLEM"),
        (Some(vip), more) => format!(", {vip} and {more} more: PROBLEM"),
    }
}

/// Whether a takeover would succeed, by its last rehearsal.
pub fn readiness(last: Option<&Rehearsal>) -> String {
    let Some(Rehearsal { at, edited, milliseconds, problems }) = last else {
        return "not rehearsed since the file, lvs-notify or the kernel has changed; `lvs-notify rehearse` does it, or says why not".to_owned();
    };
    let after = scaled(at.saturating_sub(*edited), 2, TIMES);
    let when = format!("rehearsed {after} after the last edit");
    match problems.is_empty() {
        true => format!("READY, {milliseconds:.0} ms, {when}"),
        false => {
            format!("NOT READY: {}\n  ({when}; `lvs-notify rehearse` tries again)", problems.join("\n  "))
        }
    }
}

const TIMES: [(u64, &str); 4] = [(1, " s"), (60, " min"), (3600, " h"), (86_400, " days")];

const THOUSANDS: [(u64, &str); 4] = [(1, ""), (1000, "k"), (1_000_000, "M"), (1_000_000_000, "G")];

/// A number in the largest unit that it has `least` times: to the precision that matters.
fn scaled(number: u64, least: u64, units: [(u64, &str); 4]) -> String {
    let fits = |(size, _): &(u64, &str)| *size == 1 || number >= least * size;
    let (size, unit) = units.into_iter().rfind(fits).unwrap_or((1, ""));
    format!("{}{unit}", number / size)
}

/// At most this many are listed; the services' table marks each at its place.
const MAX_DIFFERENCES: usize = 20;

fn differences(status: &Status) -> String {
    let Status { instance, differences, .. } = status;
    let listed = differences.iter().take(MAX_DIFFERENCES);
    let mut lines: String = listed.map(|found| format!("  {} {}\n", found.sign, found.text)).collect();
    if let more @ 1.. = differences.len().saturating_sub(MAX_DIFFERENCES) {
        lines += &format!("  … and {more} more (`lvs-notify plan {instance}`)\n");
    }
    if !status.persisted {
        lines += &format!("  ~ {} is not current\n", sysctl_d::path(instance).display());
    }
    // Without a role, `apply` knows not what to make, nor does anybody whether this host is MASTER.
    let heading = match status.role {
        Some(_) if status.failure.is_some() => {
            format!("Differences (`lvs-notify apply {instance}` tries again)")
        }
        Some(_) => format!("Differences (`lvs-notify apply {instance}` repairs them)"),
        None => format!("Differences from a BACKUP, which `lvs-notify backup {instance}` makes of it"),
    };
    headed(&heading, lines)
}

fn vips(status: &Status) -> String {
    let width = status.vips.iter().map(|vip| vip.address.to_string().len()).max().unwrap_or(0);
    let lines = status.vips.iter().map(|vip| {
        let place = match vip.places.as_slice() {
            [] => "absent".to_owned(),
            places => format!("on {}", places.join(", ")),
        };
        let mac =
            vip.mac.as_ref().filter(|_| vip.answers).map_or(String::new(), |mac| format!("; MAC {mac}"));
        let first = format!("  {:<width$}  {place}; {}{mac}\n", vip.address.to_string(), vip.reason);
        let problem = vip.problem.iter().map(|problem| format!("PROBLEM: {problem}"));
        let own = |mac| if Some(mac) == vip.mac.as_ref() { " (this host)" } else { "" };
        let heard = vip.claims.iter().map(|macs| match macs.is_empty() {
            true => "nobody".to_owned(),
            false => macs.iter().map(|mac| format!("{mac}{}", own(mac))).collect::<Vec<_>>().join(", "),
        });
        let heard = heard.map(|macs| format!("asked on the wire, answered by: {macs}"));
        first + &problem.chain(heard).map(|line| format!("  {:<width$}  {line}\n", "")).collect::<String>()
    });
    headed("VIPs", lines.collect())
}

fn parameters(status: &Status) -> String {
    // The same value on every interface is one line.
    let mut lines: BTreeMap<(&str, String, char), Vec<&str>> = BTreeMap::new();
    for (name, parameter) in &status.parameters {
        let separator = if name.contains('/') { '/' } else { '.' };
        let (path, leaf) = name.rsplit_once(separator).unwrap_or(("", name));
        let place = path.trim_start_matches("net.ipv4.conf.").trim_start_matches("net/ipv4/conf/");
        let value =
            parameter.value.as_ref().map_or("does not exist".to_owned(), |value| format!("= {value}"));
        let mark = if parameter.differs { '~' } else { ' ' };
        lines.entry((leaf, value, mark)).or_default().push(place);
    }
    let line = |((leaf, value, mark), places): (_, Vec<&str>)| {
        format!("{mark} {leaf} {value} ({})\n", places.join(", "))
    };
    headed("Parameters", lines.into_iter().map(line).collect())
}

fn headed(heading: &str, lines: String) -> String {
    if lines.is_empty() { lines } else { format!("\n{heading}:\n{lines}") }
}

fn services(status: &Status) -> String {
    let mut text = String::new();
    if !status.ipvs {
        text += "\nIPVS: the kernel has none loaded\n";
    } else if status.services.is_empty() && status.role != Some(Role::Master) {
        text += &format!("\nServices: none while {}\n", status.role.unwrap_or(Role::Backup));
    }
    let own = status.services.iter().map(|service| ((0, "Services".to_owned()), service));
    let foreign = status.foreign_services.iter().map(|service| match &service.instance {
        Some(name) => ((1, format!("Services of {name}")), service),
        None => ((2, "Foreign services (never touched)".to_owned()), service),
    });
    let mut tables: BTreeMap<(u8, String), Vec<&VirtualService>> = BTreeMap::new();
    own.chain(foreign).for_each(|(title, service)| tables.entry(title).or_default().push(service));
    text.extend(tables.into_iter().map(|((_, title), services)| table(&title, &services)));
    text
}

fn table(title: &str, services: &[&VirtualService]) -> String {
    let servers = || services.iter().flat_map(|service| &service.servers);
    let names = servers().map(|server| server.key.to_string().len());
    let width = names.chain([title.len().saturating_sub(4), 22]).max().unwrap_or(0);
    let forward = servers().map(|server| server.settings.forwarding().len()).chain([7]).max().unwrap_or(0);
    let mut text = format!(
        "\n{title:<0$}  {1:<forward$}  weight  active  inactive  conn/s  B/s in  B/s out\n",
        width + 4,
        "forward",
    );
    for VirtualService { key, settings, difference, servers, .. } in services {
        let (sign, reason) = mark(difference.as_deref());
        let words = settings.ipvsadm(key.family());
        text += &format!("{sign} {key}  {}{reason}\n", words.strip_prefix("-s ").unwrap_or(&words));
        text.extend(servers.iter().map(|server| row(width, forward, server)));
    }
    text
}

fn row(width: usize, forward: usize, server: &Server) -> String {
    let Server { key, settings, difference, counters, .. } = server;
    let Counters { active, inactive, rates, .. } = counters;
    let (sign, mut notes) = mark(difference.as_deref());
    notes += &match (server.leaving_until, server.drained, server.drained_until) {
        (Some(until), ..) => {
            format!("  (left the file; goes with its connections, at the latest {})", utc(until))
        }
        (_, true, Some(until)) => format!("  (drained by hand until {})", utc(until)),
        (_, true, None) => "  (drained by hand)".to_owned(),
        _ if settings.weight == 0 && difference.is_none() => "  (drained)".to_owned(),
        _ => String::new(),
    };
    if settings.upper_threshold != 0 && active.saturating_add(*inactive) >= settings.upper_threshold {
        notes += "  (at its upper threshold)";
    }
    format!(
        "{sign}   {:<width$}  {:<forward$}  {:>6}  {active:>6}  {inactive:>8}  {:>6}  {:>6}  {:>7}{notes}\n",
        key.to_string(),
        settings.forwarding(),
        settings.weight,
        rates.connections,
        scaled(rates.bytes_in, 10, THOUSANDS),
        scaled(rates.bytes_out, 10, THOUSANDS),
    )
}

/// The sign before a row, and the words behind it.
fn mark(difference: Option<&str>) -> (&str, String) {
    let parts = difference.and_then(|text| text.split_once(' '));
    parts.map_or((" ", String::new()), |(sign, words)| (sign, format!("  <- {words}")))
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
    use super::{THOUSANDS, TIMES, scaled, utc};

    #[test]
    fn numbers_keep_what_matters() {
        assert_eq!(
            [0, 119, 120, 7199].map(|span| scaled(span, 2, TIMES)),
            ["0 s", "119 s", "2 min", "119 min"]
        );
        assert_eq!([7200, 172_800].map(|span| scaled(span, 2, TIMES)), ["2 h", "2 days"]);
        assert_eq!([9999, 10_000].map(|rate| scaled(rate, 10, THOUSANDS)), ["9999", "10k"]);
        assert_eq!([9_999_999, 10_000_000].map(|rate| scaled(rate, 10, THOUSANDS)), ["9999k", "10M"]);
    }

    #[test]
    fn dates() {
        // `date -u -d @SECONDS`
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_433_696), "2026-11-23 11:34:56 UTC");
    }
}
