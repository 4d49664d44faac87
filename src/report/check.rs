//! The text and the JSON of `check`: findings, the worst first, each with its place, its effect and its fix.
//!
//! Owns the words around findings; the rules' own words are in `check`. Decides nothing. Called by `lib`.

use std::fmt::Write as _;

use crate::check::{Checked, Finding, Severity};
use crate::text::{counted, shown};

use super::Exit;

pub fn exit(checked: &Checked) -> Exit {
    match (checked.invalid.is_empty(), checked.findings.is_empty()) {
        (false, _) => Exit::Invalid,
        (true, false) => Exit::Differences,
        (true, true) => Exit::Done,
    }
}

pub fn text(checked: &Checked) -> String {
    let mut text = String::new();
    for invalid in &checked.invalid {
        let _ = writeln!(text, "{invalid}\n");
    }
    for Finding { file, line, rule, what, remedy, .. } in &checked.findings {
        let line = line.map_or(String::new(), |line| format!(":{line}"));
        let what = if what.is_empty() { String::new() } else { format!(": {}", shown(what)) };
        let _ = writeln!(text, "{} {}{line}: {}{what}", rule.id, shown(file), rule.title);
        let _ = writeln!(text, "    effect: {}", rule.effect);
        let _ = writeln!(text, "    fix:    {}", shown(remedy));
    }
    if !checked.findings.is_empty() {
        text.push('\n');
    }
    for file in &checked.files {
        let (vips, services) = (file.config.vips.len(), file.config.services.len());
        let _ = writeln!(text, "{}: valid; VIPs: {vips}, services: {services}", shown(&file.path));
    }
    let mut looked: Vec<String> = checked.keepalived_conf.iter().map(|path| shown(path)).collect();
    looked.extend(checked.host.then(|| "this host".to_owned()));
    let conf = "keepalived.conf (--keepalived-conf FILE)";
    let parts = [(checked.host, "this host (--host)"), (!checked.keepalived_conf.is_empty(), conf)];
    let left = parts.into_iter().filter(|(looked, _)| !looked).map(|(_, part)| part.to_owned()).collect();
    for (head, list) in [("Also checked", looked), ("Not checked", left)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{head}: {}", list.join(", "));
        }
    }
    if exit(checked) == Exit::Done {
        return text + "Nothing found\n";
    }
    let count = |wanted| checked.findings.iter().filter(|found| found.severity == wanted).count();
    let counts = [
        (checked.invalid.len(), "invalid file"),
        (count(Severity::Error), "error"),
        (count(Severity::Warning), "warning"),
        (count(Severity::Info), "hint"),
    ];
    let counts = counts.into_iter().filter(|(count, word)| *count > 0 || *word != "invalid file");
    let counts: Vec<String> = counts.map(|(count, word)| counted(count, word)).collect();
    text + &format!("Found: {}\n", counts.join(", "))
}

pub fn as_json(checked: &Checked) -> String {
    super::json(checked)
}
