//! A plan as text and as JSON: what would change, and the commands that would do the same.
//!
//! Owns the words of `plan` and `--dry-run`. Decides nothing. Called by `lib`.

use serde_json::{Value, json};

use crate::model::Role;
use crate::plan::{Change, Phase, Plan};
use crate::text::counted;

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
    text + &format!("{instance} {role}: {}\n", counted(plan.changes().count(), "difference"))
}

pub fn as_json(instance: &str, role: Role, plan: &Plan) -> String {
    let changes = plan.steps.iter().flat_map(|step| step.changes.iter().map(|change| (step.phase, change)));
    let row = |(phase, change): (Phase, &Change)| {
        json!({
            "phase": phase,
            "sign": change.sign(),
            "text": format!("{} {change}", change.sign()),
            "commands": change.commands(),
            "connections": change.connections(),
            "change": change,
        })
    };
    let changes: Vec<Value> = changes.map(row).collect();
    super::json(&json!({ "version": 1, "instance": instance, "role": role, "changes": changes }))
}
