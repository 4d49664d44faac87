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
use crate::kernel::{self, Kernel};
use crate::model::{Owned, Ownership, Parameter, Role, ServiceKey};
use crate::observed::Observed;
use crate::plan::{Change, Plan};
use crate::state::record::{self, Record};
use crate::state::sysctl_d;
use crate::state::trial::Trial;

pub struct Preview {
    /// The role that the kernel is compared with
    pub role: Role,
    pub plan: Plan,
    pub observed: Observed,
    pub desired: Desired,
    /// What is on record with the newest notification; none when there was none since boot
    pub record: Option<Record>,
    /// Somebody speaks VRRP here
    pub keepalived: bool,
    /// The parameters' file in /etc/sysctl.d is current
    pub persisted: bool,
    /// What sets them otherwise at the next boot
    pub overruled: Option<String>,
    /// When the edit of the file is taken back, in seconds since 1970, unless it is confirmed before
    pub confirm_until: Option<u64>,
    /// What the last run could not do
    pub trouble: Option<String>,
    /// Why drained real servers are not known
    pub problem: Option<String>,
    pub basis: Basis,
    pub others: BTreeMap<ServiceKey, String>,
}

impl Preview {
    /// Looks at the kernel for a role, or for the recorded one: also at the real servers of foreign services.
    pub fn of(kernel: &mut dyn Kernel, instance: &Instance, role: Option<Role>) -> anyhow::Result<Self> {
        let record = Record::newest(&instance.name, &instance.path);
        let known = record.as_ref().map(|record| record.role);
        let mut basis = Basis::read(instance);
        // Without any file, a MASTER is only looked at.
        let blind = role.is_none() && basis.config.is_none() && known == Some(Role::Master);
        let role = role.or(known).unwrap_or(Role::Backup);
        let (mut goal, observed) = loop {
            let wanted = if blind { Role::Backup } else { role };
            let mut goal = Goal::of(&instance.name, &basis, wanted, record.as_ref(), false)?;
            goal.scope.servers = Some(Ownership { exclusive: true, ..Ownership::default() });
            goal.scope.asked = goal.desired.client_side().cloned().collect();
            goal.scope.parameters.insert(Parameter::Ipvs("expire_quiescent_template".to_owned()));
            let mut observed = kernel.observe(&goal.scope)?;
            // It may answer wherever it stands.
            let vips = &goal.desired.ownership.vips;
            let stands = observed.addresses.iter().map(|found| &found.key);
            goal.scope
                .asked
                .extend(stands.filter(|key| vips.contains(&key.address) && !key.is_on_lo()).cloned());
            if goal.scope.asked.len() > observed.heard.len() {
                observed = kernel.observe(&goal.scope)?;
            }
            if !basis.use_own_names(&observed) {
                break (goal, observed);
            }
        };
        let problem = goal.problem.take().map(|error| format!("{error:#}"));
        let mut others = BTreeMap::new();
        for (name, record) in record::others(&instance.name) {
            others.extend(record.owned.services.into_iter().map(|key| (key, name.clone())));
        }
        let plan = if blind { Plan::default() } else { goal.plan(&observed) };
        let keepalived = kernel::speaks_vrrp();
        let persisted = record.is_none() || sysctl_d::is_current(&instance.name, &goal.desired);
        let overruled = sysctl_d::overruled(&instance.name, &goal.desired);
        let trouble = record.as_ref().and_then(|record| record.trouble(&instance.name));
        let confirm_until = Trial::of(&instance.name).filter(Trial::runs).map(|trial| trial.end);
        let desired = goal.desired;
        Ok(Self {
            role,
            plan,
            observed,
            desired,
            record,
            keepalived,
            persisted,
            overruled,
            confirm_until,
            trouble,
            problem,
            basis,
            others,
        })
    }

    /// What differs, but for what a later run may do as well, unless the last one could not.
    pub fn due(&self) -> impl Iterator<Item = &Change> {
        let failed = self.record.as_ref().is_some_and(|record| record.failure.is_some());
        self.plan.changes().filter(move |change| failed || !change.can_wait(&self.desired))
    }
}

/// The plan for a role, or for the saved one, against what `status --json` has saved: without kernel and record.
pub fn offline(instance: &Instance, role: Option<Role>, saved: &Path) -> anyhow::Result<(Role, Plan)> {
    #[derive(Deserialize)]
    struct Saved {
        role: Option<Role>,
        observed: Observed,
    }
    let reading = || format!("reading the saved observation {}", saved.display());
    let text = std::fs::read_to_string(saved).with_context(reading)?;
    let saved: Saved = serde_json::from_str(&text).with_context(reading)?;
    let role = role.or(saved.role).unwrap_or(Role::Backup);
    let desired = Desired::for_role(&Config::parse(&Source::read(&instance.path)?)?, role);
    Ok((role, Plan::between(&desired, &saved.observed, &Owned::default())))
}
