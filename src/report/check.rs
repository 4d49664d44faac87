//! The text and the JSON of `check`: findings, the worst first, each with its place, its effect and its fix.
//!
//! Owns the words around findings; the rules' own words are in `check`. Decides nothing. Called by `lib`.

use std::fmt::Write as _;

use crate::check::{Checked, Finding, Severity};
use crate::text::shown;

use super::Exit;

/// How `check` ends.
pub fn exit(checked: &Checked) -> Exit {
    match (checked.invalid.is_empty(), checked.findings.is_empty()) {
        (false, _) => Exit::Invalid,
        (true, false) => Exit::Differences,
        (true, true) => Exit::Done,
    }
}

/// For people.
pub fn text(checked: &Checked) -> String {
    let mut text = String::new();
    for invalid in &checked.invalid {
        let _ = writeln!(text, "{invalid}\n");
    }
    for finding in &checked.findings {
        let _ = writeln!(text, "{} {}", finding.rule.id, headline(finding));
        let _ = writeln!(text, "    effect: {}", finding.rule.effect);
        let _ = writeln!(text, "    fix:    {}", shown(&finding.remedy));
    }
    if !checked.findings.is_empty() {
        text.push('\n');
    }
    for file in &checked.files {
        let (vips, services) = (file.config.vips.len(), file.config.services.len());
        let _ = writeln!(text, "{}: valid; VIPs: {vips}, services: {services}", shown(&file.path));
    }
    let mut looked: Vec<String> = checked.conf.iter().map(|path| shown(path)).collect();
    let mut left = Vec::new();
    match checked.host {
        true => looked.push("this host".to_owned()),
        false => left.push("this host (--host)"),
    }
    if checked.conf.is_empty() {
        left.push("keepalived.conf (--keepalived-conf FILE)");
    }
    if !looked.is_empty() {
        let _ = writeln!(text, "Also checked: {}", looked.join(", "));
    }
    if !left.is_empty() {
        let _ = writeln!(text, "Not checked: {}", left.join(", "));
    }
    if exit(checked) == Exit::Done {
        return text + "Nothing found\n";
    }
    let count = |wanted| checked.findings.iter().filter(|found| found.severity == wanted).count();
    let mut counts = vec![
        (checked.invalid.len(), "invalid file"),
        (count(Severity::Error), "error"),
        (count(Severity::Warning), "warning"),
        (count(Severity::Info), "hint"),
    ];
    counts.retain(|(count, word)| *count > 0 || *word != "invalid file");
    let numbered = |(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    text + &format!("Found: {}\n", counts.into_iter().map(numbered).collect::<Vec<_>>().join(", "))
}

/// For programs.
pub fn as_json(checked: &Checked) -> String {
    super::json(&serde_json::json!({
        "version": 1,
        "files": checked.files,
        "invalid": checked.invalid,
        "keepalived_conf": checked.conf,
        "host": checked.host,
        "findings": checked.findings,
    }))
}

/// Where it is, and which objects it is about.
fn headline(finding: &Finding) -> String {
    let place = match (&finding.file, finding.line) {
        (Some(file), Some(line)) => format!("{}:{line}", shown(file)),
        (Some(file), None) => shown(file),
        (None, _) => "this host".to_owned(),
    };
    let what = if finding.what.is_empty() { String::new() } else { format!(": {}", shown(&finding.what)) };
    format!("{place}: {}{what}", finding.rule.title)
}
