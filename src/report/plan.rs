//! A plan as text and as JSON: what would change, and the commands that would do the same.
//!
//! Owns the words of `plan` and `--dry-run`. Decides nothing. Called by `lib`.

use std::fmt::Write as _;

use serde::Serialize;

use super::json;
use crate::model::Role;
use crate::plan::{Change, Plan};

/// A plan as text: one line a change, and below it the equivalent commands.
pub fn text(instance: &str, role: Role, plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("{instance} {role}: no differences\n");
    }
    let mut text = String::new();
    for step in &plan.steps {
        for change in &step.changes {
            let _ = write!(text, "{} {change}", change.sign());
            if change.connections() > 0 {
                let _ = write!(text, "  (costs {} connections)", change.connections());
            }
            let _ = writeln!(text);
            for command in change.commands() {
                let _ = writeln!(text, "      {command}");
            }
        }
    }
    let count = plan.changes().count();
    let _ = writeln!(text, "{instance} {role}: {count} difference{}", if count == 1 { "" } else { "s" });
    text
}

#[derive(Serialize)]
struct JsonChange<'a> {
    phase: String,
    text: String,
    commands: Vec<String>,
    connections: u64,
    change: &'a Change,
}

/// A plan as JSON.
pub fn as_json(instance: &str, role: Role, plan: &Plan) -> String {
    let changes: Vec<JsonChange<'_>> = plan
        .steps
        .iter()
        .flat_map(|step| step.changes.iter().map(move |change| (step.phase, change)))
        .map(|(phase, change)| JsonChange {
            phase: phase.to_string(),
            text: format!("{} {change}", change.sign()),
            commands: change.commands(),
            connections: change.connections(),
            change,
        })
        .collect();
    json(&serde_json::json!({ "version": 1, "instance": instance, "role": role, "changes": changes }))
}
