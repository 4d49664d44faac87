//! A plan as text and as JSON: what would change, and the commands that would do the same.
//!
//! Owns the words of `plan` and `--dry-run`. Decides nothing. Called by `lib`.

use serde::Serialize;

use crate::model::Role;
use crate::plan::{Change, Phase, Plan, Step};
use crate::text::counted;

/// A plan as text: one line a change, and below it the equivalent commands.
pub fn text(instance: &str, role: Role, plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("{instance} {role}: no differences\n");
    }
    let mut text = String::new();
    for change in plan.changes() {
        let connections = counted(change.connections() as usize, "connection");
        let note = match (change.connections(), change.sign()) {
            (0, _) => String::new(),
            (_, '-') => format!("  (drops {connections})"),
            _ => format!("  (goes after its {connections})"),
        };
        text += &format!("{} {change}{note}\n", change.sign());
        text.extend(change.commands().iter().map(|command| format!("      {command}\n")));
    }
    text + &format!("{instance} {role}: {}\n", counted(plan.changes().count(), "difference"))
}

/// `plan --json`, version 2 (packaging/schema/plan.schema.json): fields are added, never renamed or removed.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanJson<'a> {
    version: u32,
    instance: &'a str,
    role: Role,
    /// In the order in which they are carried out
    changes: Vec<ChangeJson<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ChangeJson<'a> {
    phase: Phase,
    sign: char,
    text: String,
    /// What would do the same
    commands: Vec<String>,
    /// Open connections to what goes
    connections: u64,
    change: &'a Change,
}

pub fn as_json(instance: &str, role: Role, plan: &Plan) -> String {
    let mut changes = Vec::new();
    for Step { phase, changes: step } in &plan.steps {
        changes.extend(step.iter().map(|change| ChangeJson {
            phase: *phase,
            sign: change.sign(),
            text: format!("{} {change}", change.sign()),
            commands: change.commands(),
            connections: change.connections(),
            change,
        }));
    }
    super::json(&PlanJson { version: 2, instance, role, changes })
}
