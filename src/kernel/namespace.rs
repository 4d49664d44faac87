//! The network namespace: one of this process's own, which looks like the one that it leaves; and who is in this one.
//!
//! Owns what it has: links of the same names, as stand-ins, with the same addresses. Leaves what is done there to its
//! callers: `import`, which lets a script loose in it, and `rehearsal`. It ends with the last process in it.

use nix::sched::{CloneFlags, unshare};

use super::error::{Operation, Result, When as _};
use super::link::Addresses;
use crate::model::Family;
use crate::observed::ObservedAddress;

/// Moves this process, which must have one thread, into a network namespace that nothing leaves and nothing enters, with
/// those of these links that exist. lo is up in it and has no addresses but the kernel's.
pub fn enter(names: &std::collections::BTreeSet<String>) -> Result<()> {
    let (links, addresses) = Addresses::default().observe(names)?;
    unshare(CloneFlags::CLONE_NEWNET).when(Operation::MakeNetwork, "")?;
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
    !found.key.is_on_lo() && !found.is_of_the_link() && (is_network(found) || !all.iter().any(is_network))
}

/// Whether somebody in this network namespace speaks VRRP (IP protocol 112, RFC 9568), as keepalived does while it lives:
/// the kernel's own list of raw sockets. Whose process it is would take a privilege to see.
pub fn speaks_vrrp() -> bool {
    let lists = ["/proc/net/raw", "/proc/net/raw6"].map(std::fs::read_to_string);
    let lists = lists.map(|list| list.unwrap_or_default()).concat();
    lists.lines().filter_map(|line| line.split_whitespace().nth(1)).any(|local| local.ends_with(":0070"))
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
            nature: crate::observed::Nature::default(),
        })
        .into();
        let own = all.iter().filter(|found| is_own(found, &all)).map(|found| found.key.address.to_string());
        assert_eq!(own.collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1", "198.51.100.1"]);
    }
}
