//! The plan for a role, and all that it was made from, without changing anything.
//!
//! Owns the reading of what `plan` and `status` show. Decides nothing: the goal is `basis`'s, the difference `plan`'s, the
//! verdict `status`'s. Called by `lib`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::basis::{Basis, Goal};
use crate::config::Config;
use crate::config::source::Source;
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::Kernel;
use crate::model::{Owned, Ownership, Parameter, Role, ServiceKey};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::state::record::{self, Record};

pub struct Preview {
    pub role: Role,
    pub plan: Plan,
    pub observed: Observed,
    pub desired: Desired,
    pub record: Option<Record>,
    pub basis: Basis,
    pub others: BTreeMap<ServiceKey, String>,
}

impl Preview {
    /// Looks at the kernel for a role, or for the recorded one: also at the real servers of foreign services.
    pub fn of(kernel: &mut dyn Kernel, instance: &Instance, role: Option<Role>) -> anyhow::Result<Self> {
        let record = record::read(&instance.name);
        let role = role.or(record.as_ref().map(|record| record.role)).unwrap_or(Role::Backup);
        let mut basis = Basis::read(instance);
        let (goal, observed) = loop {
            let mut goal = Goal::of(&instance.name, &basis, role, record.as_ref(), false)?;
            goal.scope.servers = Some(Ownership { exclusive: true, ..Ownership::default() });
            // With `arp: off` nothing is wanted of it, and it decides who answers all the same.
            let places = goal.scope.interfaces.iter().cloned().chain(["all".to_owned()]);
            goal.scope.parameters.extend(places.map(Parameter::ArpIgnore));
            let observed = kernel.observe(&goal.scope)?;
            if !basis.use_own_names(&observed) {
                break (goal, observed);
            }
        };
        if let Some(error) = &goal.problem {
            log::warn!("{error:#}");
        }
        let mut others = BTreeMap::new();
        for (name, record) in record::others(&instance.name) {
            others.extend(record.owned.services.into_iter().map(|key| (key, name.clone())));
        }
        let plan = goal.plan(&observed);
        Ok(Self { role, plan, observed, desired: goal.desired, record, basis, others })
    }
}

/// The plan for a role, or for the saved one, against what `status --json` has saved: without kernel and record.
pub fn offline(instance: &Instance, role: Option<Role>, saved: &Path) -> anyhow::Result<(Role, Plan)> {
    #[derive(Deserialize)]
    struct Saved {
        role: Role,
        observed: Observed,
    }
    let reading = || format!("reading the saved observation {}", saved.display());
    let text = std::fs::read_to_string(saved).with_context(reading)?;
    let saved: Saved = serde_json::from_str(&text).with_context(reading)?;
    let role = role.unwrap_or(saved.role);
    let desired = Desired::for_role(&Config::parse(&Source::read(&instance.path)?)?, role);
    Ok((role, Plan::between(&desired, &saved.observed, &Owned::default())))
}
