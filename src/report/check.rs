//! The text and the JSON of `check`: findings, the worst first, each with its place, its effect and its fix.
//!
//! Owns the words around findings; the rules' own words are in `check`. Decides nothing. Called by `lib`.

use std::fmt::Write as _;

use crate::check::{Checked, Finding, Severity};
use crate::text::shown as escaped;

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
        let words = finding.rule.words();
        let _ = writeln!(text, "{} {}{}", finding.rule.id(), place(finding), headline(finding));
        let _ = writeln!(text, "    effect: {}\n    fix:    {}", words.effect, escaped(&finding.fix()));
    }
    if !checked.findings.is_empty() {
        text.push('\n');
    }
    for file in &checked.files {
        let (vips, services) = (file.config.vips.len(), file.config.services.len());
        let _ = writeln!(text, "{}: valid; VIPs: {vips}, services: {services}", escaped(&file.path));
    }
    let mut looked: Vec<String> = checked.conf.iter().map(|path| escaped(path)).collect();
    let mut left = Vec::new();
    if checked.host {
        looked.push("this host".to_owned());
    } else {
        left.push("this host (--host)");
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
    let count = |wanted| checked.findings.iter().filter(|found| found.rule.severity() == wanted).count();
    let mut counts = vec![
        numbered(count(Severity::Error), "error"),
        numbered(count(Severity::Warning), "warning"),
        numbered(count(Severity::Info), "hint"),
    ];
    if !checked.invalid.is_empty() {
        counts.insert(0, numbered(checked.invalid.len(), "invalid file"));
    }
    match (checked.findings.is_empty(), checked.invalid.is_empty()) {
        (true, true) => text.push_str("Nothing found\n"),
        _ => {
            let _ = writeln!(text, "Found: {}", counts.join(", "));
        }
    }
    text
}

/// For programs.
pub fn as_json(checked: &Checked) -> String {
    let findings: Vec<serde_json::Value> = checked
        .findings
        .iter()
        .map(|finding| {
            let words = finding.rule.words();
            serde_json::json!({
                "rule": finding.rule.id(),
                "severity": finding.rule.severity(),
                "title": words.title,
                "file": finding.file,
                "line": finding.line,
                "what": finding.what,
                "effect": words.effect,
                "remedy": finding.fix(),
            })
        })
        .collect();
    let files: Vec<serde_json::Value> = checked
        .files
        .iter()
        .map(|file| serde_json::json!({ "file": file.path, "instance": file.instance }))
        .collect();
    super::json(&serde_json::json!({
        "version": 1,
        "files": files,
        "invalid": checked.invalid,
        "keepalived_conf": checked.conf,
        "host": checked.host,
        "findings": findings,
    }))
}

fn place(finding: &Finding) -> String {
    match (&finding.file, finding.line) {
        (Some(file), Some(line)) => format!("{}:{line}: ", escaped(file)),
        (Some(file), None) => format!("{}: ", escaped(file)),
        (None, _) => "this host: ".to_owned(),
    }
}

fn headline(finding: &Finding) -> String {
    let title = finding.rule.words().title;
    match finding.what.is_empty() {
        true => title.to_owned(),
        false => format!("{title}: {}", escaped(&finding.what)),
    }
}

fn numbered(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
