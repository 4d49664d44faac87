//! The only door to Linux: links, addresses, parameters, IPVS and announcements.
//!
//! Owns the [`Kernel`] trait, behind which tests put a kernel of their own, and [`Linux`], which is the real one. Decides
//! nothing: what to read comes as a [`Scope`], what to change as [`Change`]s in their order. Called by `reconcile`,
//! `status`, `check` and `import`.

mod answering;
mod error;
mod frames;
mod ipvs;
mod ipvs_sockopt;
mod ipvs_wire;
mod link;
#[cfg(test)]
mod live;
pub mod namespace;
mod neighbours;
mod netlink;
mod sysctl;

use std::collections::BTreeSet;

use nix::errno::Errno;

use crate::model::AddressKey;
use crate::observed::{Observed, Scope};
use crate::plan::{Change, Needs};

use ipvs::Ipvs;
use link::Addresses;

pub use error::{Error, Result};
pub use link::{interfaces, name_of, names};
pub use namespace::speaks_vrrp;
pub use neighbours::probe;

/// A kernel, as far as this program needs one.
pub trait Kernel {
    /// Reads what `scope` names. What does not exist is absent: interfaces, parameters, and the whole of IPVS when the
    /// kernel has none. Looking for IPVS loads its module where that is installed. Fails with the first thing that could
    /// not be read, most of all for want of CAP_NET_ADMIN.
    fn observe(&mut self, scope: &Scope) -> Result<Observed>;

    /// Checks that the kernel has IPVS and in it what the services need, and loads the modules for it. Changes no table.
    /// Returns every problem.
    fn prepare(&mut self, needs: &Needs) -> Vec<Error>;

    /// Carries out changes in the given order; one result per change. A failed change does not stop the ones after it.
    /// Deleting what is gone and adding an address that is there are successes.
    fn apply(&mut self, changes: &[Change]) -> Vec<Result<()>>;

    /// Announces each address once on its interface; one result per address.
    fn announce(&mut self, addresses: &[AddressKey]) -> Vec<Result<()>>;
}

/// The kernel that runs this process, in the network namespace of the calling thread.
#[derive(Default)]
pub struct Linux {
    addresses: Addresses,
    ipvs: Option<Ipvs>,
}

impl Linux {
    /// IPVS, which must be there. Its absence is not remembered: the module may be loaded meanwhile.
    fn ipvs(&mut self) -> Result<&mut Ipvs> {
        match &mut self.ipvs {
            Some(ipvs) => Ok(ipvs),
            none => Ok(none.insert(Ipvs::open()?)),
        }
    }
}

/// Reads any bytes as every kind of reply: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub fn read_anything(bytes: &[u8]) {
    netlink::read_all(bytes);
    let _ = (link::decode_link(bytes), link::decode_address(bytes), link::decode_source(bytes));
    let _ = (ipvs_wire::decode_service(bytes), ipvs_wire::decode_server(bytes));
    let _ = (ipvs_wire::decode_daemon(bytes), ipvs_wire::decode_timeouts(bytes), frames::claim(bytes));
}

impl Kernel for Linux {
    fn observe(&mut self, scope: &Scope) -> Result<Observed> {
        let mut observed = Observed::default();
        if !scope.interfaces.is_empty() {
            let all = if scope.asked.is_empty() { BTreeSet::new() } else { names()? };
            (observed.interfaces, observed.addresses) =
                self.addresses.observe(&(&all | &scope.interfaces))?;
        }
        let mut heard = |key: &AddressKey| answering::heard(&mut self.addresses.0, &observed, key);
        observed.heard = scope.asked.iter().filter_map(|key| Some((key.clone(), heard(key)?))).collect();
        if observed.addresses.iter().any(|found| scope.doubtful.contains(&found.key)) {
            observed.sources = self.addresses.sources();
        }
        // Before the parameters: those of IPVS exist only once its module is loaded.
        if let Some(whose) = &scope.servers {
            observed.ipvs = match self.ipvs() {
                Err(error) if error.errno == Some(Errno::ENOENT) => None,
                ipvs => Some(ipvs?.observe(whose, &scope.expected)?),
            };
        }
        for parameter in &scope.parameters {
            if let Some(value) = sysctl::read(parameter)? {
                observed.parameters.insert(parameter.clone(), value);
            }
        }
        Ok(observed)
    }

    fn prepare(&mut self, needs: &Needs) -> Vec<Error> {
        self.ipvs().map_or_else(|error| vec![error], |ipvs| ipvs.prepare(needs))
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let runs = changes.chunk_by(|left, right| left.is_ipvs() && right.is_ipvs());
        let apply = |run: &[Change]| match run {
            [Change::Parameter { parameter, new, .. }] => vec![sysctl::write(parameter, new)],
            [Change::Address { key, new: Some(prefix), label, .. }] => {
                vec![self.addresses.add(key, *prefix, label.as_deref())]
            }
            [Change::Address { key, old: Some(prefix), .. }] => vec![self.addresses.remove(key, *prefix)],
            _ => self.ipvs().map_or_else(|error| vec![Err(error); run.len()], |ipvs| ipvs.apply(run)),
        };
        runs.flat_map(apply).collect()
    }

    fn announce(&mut self, addresses: &[AddressKey]) -> Vec<Result<()>> {
        neighbours::announce(addresses)
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::model::Parameter;

    /// Runs a test in a network namespace of its own, which lasts as long as the thread. Without the right to
    /// make one the test fails.
    pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(errno) => panic!("no network namespace: {errno}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn changes_are_done_in_order_and_one_failure_stops_none() {
        in_namespace(|| {
            let mut kernel = Linux::default();
            let lo = || "lo".to_owned();
            let vip = AddressKey { interface: lo(), address: "192.0.2.1".parse().unwrap() };
            let parameter = Parameter::ArpIgnore(lo());
            let set = |new: &str| Change::Parameter {
                parameter: parameter.clone(),
                old: None,
                new: new.to_owned(),
            };
            let add = |key| Change::Address { key, old: None, new: Some(32), label: None };
            let nowhere = AddressKey { interface: "nosuch0".to_owned(), ..vip.clone() };
            let changes = [set("1"), add(nowhere), set("2 3"), set("abc"), add(vip.clone())];
            let results = kernel.apply(&changes);
            let told: Vec<String> = results
                .iter()
                .map(|result| result.as_ref().map_or_else(Error::to_string, |()| "ok".to_owned()))
                .collect();
            assert_eq!(told[0], "ok");
            assert!(told[1].contains("ENODEV"), "{told:?}");
            assert_eq!(told[2], "setting net.ipv4.conf.lo.arp_ignore to 2 3: the kernel took it as `2`");
            assert!(told[3].contains("does not take this value (EINVAL)"), "{told:?}");
            assert_eq!(told[4], "ok");

            let scope = Scope {
                interfaces: [lo()].into(),
                parameters: [parameter.clone(), Parameter::ArpIgnore("nosuch0".to_owned())].into(),
                servers: None,
                ..Scope::default()
            };
            let observed = kernel.observe(&scope).unwrap();
            assert_eq!(observed.parameters, [(parameter.clone(), "2".to_owned())].into());
            assert_eq!(observed.addresses.iter().map(|found| &found.key).collect::<Vec<_>>(), [&vip]);
            assert_eq!(observed.ipvs, None);
        });
    }
}
