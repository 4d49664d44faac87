//! A plan as text and as JSON: what would change, and the commands that would do the same.
//!
//! Owns the words of `plan` and `--dry-run`. Decides nothing. Called by `lib`.

use serde_json::{Value, json};

use crate::model::Role;
use crate::plan::{Change, Phase, Plan, Step};

/// A plan as text: one line a change, and below it the equivalent commands.
pub fn text(instance: &str, role: Role, plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("{instance} {role}: no differences\n");
    }
    let mut text = String::new();
    for change in plan.changes() {
        text += &match change.connections() {
            0 => format!("{} {change}\n", change.sign()),
            count => format!("{} {change}  (drops {count} connections)\n", change.sign()),
        };
        text.extend(change.commands().iter().map(|command| format!("      {command}\n")));
    }
    let count = plan.changes().count();
    text + &format!("{instance} {role}: {count} difference{}\n", if count == 1 { "" } else { "s" })
}

/// A plan as JSON.
pub fn as_json(instance: &str, role: Role, plan: &Plan) -> String {
    let row = |phase: Phase, change: &Change| {
        json!({
            "phase": phase,
            "sign": change.sign(),
            "text": format!("{} {change}", change.sign()),
            "commands": change.commands(),
            "connections": change.connections(),
            "change": change,
        })
    };
    let rows = |step: &Step| step.changes.iter().map(|change| row(step.phase, change)).collect::<Vec<_>>();
    let changes: Vec<Value> = plan.steps.iter().flat_map(rows).collect();
    super::json(&json!({ "version": 1, "instance": instance, "role": role, "changes": changes }))
}
