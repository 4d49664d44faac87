//! The plan for a role, and all that it was made from, without changing anything.
//!
//! Owns the reading of what `plan` and `status` show. Decides nothing: the file or its copy is chosen by `basis`, the
//! difference is `plan`'s, the verdict `status`'s. Called by `lib`.

use std::collections::BTreeMap;

use crate::basis::Basis;
use crate::desired::Desired;
use crate::instance::Instance;
use crate::kernel::Kernel;
use crate::model::{Parameter, Role, ServiceKey};
use crate::observed::{Observed, Scope, ServerScope};
use crate::plan::Plan;
use crate::state::drain;
use crate::state::record::{Record, Store};

/// The plan for a role, and what it was made from.
pub struct Preview {
    pub role: Role,
    pub plan: Plan,
    pub observed: Observed,
    pub desired: Desired,
    pub record: Option<Record>,
    /// Where the desired state came from
    pub basis: Basis,
    /// Services that other instances of this host have made
    pub others: BTreeMap<ServiceKey, String>,
}

impl Preview {
    /// Looks at the kernel for a role, or for the recorded one. `everything` also reads the real servers of foreign
    /// services, and whose they are when another instance has made them.
    ///
    /// # Errors
    /// When the file is invalid and nothing can stand in, or when the kernel cannot be read.
    pub fn of(
        kernel: &mut dyn Kernel,
        instance: &Instance,
        role: Option<Role>,
        everything: bool,
    ) -> anyhow::Result<Self> {
        let store = Store::new(&instance.name);
        let record = store.record();
        let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
        let role = role.or(record.as_ref().map(|record| record.role)).unwrap_or(Role::Backup);
        let basis = Basis::read(instance, &store);
        let mut desired = basis.desired(role, &owned)?;
        if let Err(error) = drain::apply_kept(&instance.name, &mut desired) {
            log::warn!("{error:#}");
        }
        let mut scope = Scope::of(&desired, &owned);
        let mut others = BTreeMap::new();
        if everything {
            scope.servers = ServerScope::All;
            // With `arp: off` nothing is wanted of it, and it decides who answers all the same.
            let places = scope.interfaces.iter().cloned().chain(["all".to_owned()]);
            scope.parameters.extend(places.map(Parameter::ArpIgnore));
            for (name, record) in store.others() {
                others.extend(record.owned.services.into_iter().map(|key| (key, name.clone())));
            }
        }
        let observed = kernel.observe(&scope)?;
        let plan = Plan::between(&desired, &observed, &owned);
        Ok(Self { role, plan, observed, desired, record, basis, others })
    }
}
