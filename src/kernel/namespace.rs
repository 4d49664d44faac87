//! A network namespace of this process's own, which looks like the one that it leaves.
//!
//! Owns what it has: links of the same names, as dummies, with the same addresses. Leaves what is done there to its
//! caller, `import`, which lets a script loose in it. It ends with the last process in it.

use nix::sched::{CloneFlags, unshare};

use super::error::{Error, Operation, Result};
use super::link::{Addresses, names};
use crate::model::Family;
use crate::observed::ObservedAddress;

/// Moves this process, which must have one thread, into a network namespace that nothing leaves and nothing enters.
/// lo is up in it and has no addresses but the kernel's.
pub fn enter() -> Result<()> {
    let (links, addresses) = Addresses::default().observe(&names()?)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::new(Operation::MakeNetwork, "", errno))?;
    let mut inside = Addresses::default();
    for name in links.keys() {
        inside.stand_in(name)?;
    }
    for found in addresses.iter().filter(|found| is_own(found, &addresses)) {
        inside.add(&found.key, found.prefix, None)?;
    }
    Ok(())
}

/// Whether an address is the host's own, and no VIP. One that stands here only because this host is MASTER would look
/// as if it had been made in the namespace: what is on lo, and a host address beside a network of its link.
fn is_own(found: &ObservedAddress, all: &[ObservedAddress]) -> bool {
    let family = Family::of(found.key.address);
    let is_network = |other: &ObservedAddress| {
        !other.is_host()
            && other.key.interface == found.key.interface
            && Family::of(other.key.address) == family
            && !other.is_of_the_link()
    };
    found.key.interface != "lo"
        && !found.is_of_the_link()
        && (is_network(found) || !all.iter().any(is_network))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::AddressKey;

    #[test]
    fn vips_are_told_from_a_host_s_own_addresses() {
        let all: Vec<ObservedAddress> = [
            ("lo", "192.0.2.100", 32),
            ("eth0", "192.0.2.1", 24),
            ("eth0", "192.0.2.101", 32),
            ("eth0", "2001:db8::1", 128),
            ("eth0", "fe80::1", 64),
            ("eth1", "198.51.100.1", 32),
        ]
        .map(|(interface, address, prefix)| ObservedAddress {
            key: AddressKey { interface: interface.to_owned(), address: address.parse().unwrap() },
            prefix,
            label: None,
        })
        .into();
        let own = all.iter().filter(|found| is_own(found, &all)).map(|found| found.key.address.to_string());
        assert_eq!(own.collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1", "198.51.100.1"]);
    }
}
