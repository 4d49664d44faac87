//! Links and addresses.
//!
//! Owns reading interfaces with their addresses, and adding and removing one address, by rtnetlink; and what packet
//! sockets need to know of an interface. Which address belongs where, and with which prefix, is decided by `plan`.
//! Called by `kernel`, `answering` and `namespace`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, Iff, Ifla, IflaInfo, Nda, RtAddrFamily, RtScope, Rtm};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};
use nix::sys::socket::SockProtocol;

use super::error::{Operation, Result, When as _};
use super::netlink::{Answer, Attributes, Datagram, Socket, contents, malformed};
use crate::model::{AddressKey, Family};
use crate::observed::{Interface, Nature, Observed, ObservedAddress};

/// The name that the link with this index has now.
pub fn name_of(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

/// Names of the links of this network namespace.
pub fn names() -> Result<BTreeSet<String>> {
    let links = if_nameindex().when(Operation::Read, "the interfaces")?;
    Ok(links.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
}

/// All interfaces, their addresses, and the default routes' sources. What cannot be read is absent.
pub fn interfaces() -> Observed {
    let mut kernel = Addresses::default();
    let (interfaces, addresses) = names().and_then(|names| kernel.observe(&names)).unwrap_or_default();
    Observed { addresses, sources: kernel.sources(), interfaces, ..Observed::default() }
}

/// Access to links and addresses.
pub(super) struct Addresses(pub(super) Socket);

impl Default for Addresses {
    fn default() -> Self {
        Self(Socket::new(SockProtocol::NetlinkRoute))
    }
}

impl Addresses {
    /// The interfaces of these names that exist, and their addresses.
    pub(super) fn observe(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<(BTreeMap<String, Interface>, Vec<ObservedAddress>)> {
        // Of both families: an unspecified one means each that there is, so a kernel without IPv6 is no special case.
        let found = self.0.ask(&mut Datagram::of(Rtm::Getaddr, NlmF::DUMP, &[[0; 4]; 2]), decode_address);
        let found = found.when(Operation::Read, "the addresses")?;
        // An address can be told twice when the list changed under the dump.
        let (mut links, mut addresses) = (BTreeMap::new(), BTreeSet::new());
        for name in names {
            let link = self.link(name).when(Operation::Read, format_args!("interface {name}"))?;
            let Some(link) = link else { continue };
            for (_, mut found) in found.iter().filter(|(of, _)| *of == link.index).cloned() {
                found.key.interface.clone_from(name);
                // The kernel makes the interface's name the label of an address that was given none.
                found.label = found.label.filter(|label| *label != link.name);
                addresses.insert(found);
            }
            links.insert(name.clone(), link);
        }
        Ok((links, addresses.into_iter().collect()))
    }

    /// What default routes of the main table have as source. None when that cannot be read: it holds up no withdrawal.
    pub(super) fn sources(&mut self) -> BTreeSet<IpAddr> {
        let found = self.0.ask(&mut Datagram::of(Rtm::Getroute, NlmF::DUMP, &[[0; 4]; 3]), decode_source);
        found.unwrap_or_default().into_iter().collect()
    }

    fn link(&mut self, name: &str) -> Answer<Option<Interface>> {
        match self.0.request(Datagram::of(Rtm::Getlink, NlmF::ACK, &[[0; 4]; 4]).put_text(Ifla::Ifname, name))
        {
            Err(failure) if failure.is(&[Errno::ENODEV]) => Ok(None),
            reply => decode_link(&reply?).map(Some),
        }
    }

    /// Adds an address. Done when it is there already.
    pub(super) fn add(&mut self, key: &AddressKey, prefix: u8, label: Option<&str>) -> Result<()> {
        self.change(Operation::AddAddress, key, prefix, label)
    }

    /// Removes an address with exactly this prefix length. Done when it, or its interface, is gone already.
    pub(super) fn remove(&mut self, key: &AddressKey, prefix: u8) -> Result<()> {
        // A director that forwards for its real servers hands late clients on to the new MASTER. By an old neighbour entry
        // it would do so at once, and keepalived over there binds its VIP on lo before there are services: clients would
        // be refused. Without the entry it asks first, and is answered when the services stand. Before the address goes,
        // since until then nobody looks for a neighbour of this address. Best effort: mostly there is none.
        if !key.is_on_lo() {
            let _ = self.forget(key);
        }
        self.change(Operation::RemoveAddress, key, prefix, None)
    }

    /// Adds or removes one address of global scope.
    fn change(&mut self, does: Operation, key: &AddressKey, prefix: u8, label: Option<&str>) -> Result<()> {
        let (kind, flags, done) = match does {
            Operation::AddAddress => (Rtm::Newaddr, NlmF::CREATE | NlmF::EXCL, &[Errno::EEXIST][..]),
            // ENXIO: the interface has no IPv6 at all (addrconf.c, inet6_addr_del).
            _ => (Rtm::Deladdr, NlmF::empty(), &[Errno::EADDRNOTAVAIL, Errno::ENODEV, Errno::ENXIO][..]),
        };
        // Duplicate address detection would hold the VIP back for a second and kill it while the old master still
        // answers.
        let detection = if key.address.is_ipv6() { IfaF::NODAD } else { IfaF::empty() };
        let mut send = || {
            // `struct ifaddrmsg`
            let [family, scope] = [family_number(Family::of(key.address)), RtScope::Universe.into()];
            let message = [[family, prefix, detection.bits(), scope], index(key)?];
            self.0.request(Datagram::of(kind, flags | NlmF::ACK, &message).put_address(key.address, label))
        };
        match send() {
            Err(failure) if failure.is(done) => Ok(()),
            sent => sent.map(|_| ()).when(does, key),
        }
    }

    /// Removes the neighbour with this address: ENOENT when there is no entry (`neighbour.c`, `neigh_delete`).
    fn forget(&mut self, key: &AddressKey) -> Answer<Vec<u8>> {
        // `struct ndmsg`: family, index, and state, flags and type, which are not looked at
        let message = [[family_number(Family::of(key.address)), 0, 0, 0], index(key)?, [0; 4]];
        self.0.request(Datagram::of(Rtm::Delneigh, NlmF::ACK, &message).put_ip(Nda::Dst, key.address))
    }

    /// Sets a link up, and makes it before, with ARP, when there is none of this name: as a dummy or, where the kernel has
    /// none, as an end of a pair of which nobody uses the other.
    pub(super) fn stand_in(&mut self, name: &str) -> Result<()> {
        // `struct ifinfomsg`: family and type, index, flags, and which of them are meant
        let [up, meant] = [Iff::UP, Iff::UP | Iff::NOARP].map(|flags| flags.bits().to_ne_bytes());
        let link = [[0; 4], [0; 4], up, meant];
        let mut make = |kind| {
            let mut message = Datagram::of(Rtm::Newlink, NlmF::CREATE | NlmF::ACK, &link);
            message.put_text(Ifla::Ifname, name);
            self.0.request(message.nest(Ifla::Linkinfo, |to| _ = to.put_text(IflaInfo::Kind, kind)))
        };
        make("dummy").or_else(|_| make("veth")).map(|_| ()).when(Operation::AddLink, name)
    }
}

fn index(key: &AddressKey) -> Answer<[u8; 4]> {
    Ok(if_nametoindex(key.interface.as_str())?.to_ne_bytes())
}

/// Linux's number of a family.
pub(super) fn family_number(family: Family) -> u8 {
    if family == Family::Ipv4 { RtAddrFamily::Inet.into() } else { RtAddrFamily::Inet6.into() }
}

/// The family of this number, when it is known here.
pub(super) fn family_of(number: impl Into<u16>) -> Option<Family> {
    let number = number.into();
    [Family::Ipv4, Family::Ipv6].into_iter().find(|family| u16::from(family_number(*family)) == number)
}

impl Datagram {
    fn put_address(&mut self, address: IpAddr, label: Option<&str>) -> &mut Self {
        self.put_ip(Ifa::Local, address).put_ip(Ifa::Address, address);
        if address.is_ipv6() {
            // `struct ifa_cacheinfo`: preferred for 0 seconds, valid for ever, two time stamps that are the kernel's. A
            // deprecated address answers, and is never chosen as a source of new connections while there is another
            // (RFC 6724 §5, rule 3).
            self.put(Ifa::Cacheinfo, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        if let Some(label) = label.filter(|_| address.is_ipv4()) {
            self.put_text(Ifa::Label, label);
        }
        self
    }
}

/// Reads `struct ifinfomsg` and its attributes.
pub(super) fn decode_link(reply: &[u8]) -> Answer<Interface> {
    let ([_, index, flags, _], found) = contents(reply)?;
    let [index, flags] = [index, flags].map(u32::from_ne_bytes);
    let flags = Iff::from_bits_retain(flags);
    let mac = found.get::<&[u8]>(Ifla::Address)?.and_then(|mac| mac.try_into().ok());
    let kind: String = Attributes::read(found.or_default(Ifla::Linkinfo)?)?.or_default(IflaInfo::Kind)?;
    // The index of a lower link in another namespace says nothing here.
    let shares = matches!(&*kind, "macvlan" | "ipvlan") && found.get::<&[u8]>(Ifla::LinkNetnsid)?.is_none();
    let wire = found.get(Ifla::Link)?.filter(|_| shares).unwrap_or(index);
    let (name, master, vrf) =
        (found.or_default(Ifla::Ifname)?, found.or_default(Ifla::Master)?, kind == "vrf");
    let [up, carrier, noarp] = [Iff::UP, Iff::LOWERUP, Iff::NOARP].map(|flag| flags.contains(flag));
    Ok(Interface { index, name, up, carrier, noarp, mac, master, wire, vrf })
}

/// Reads `struct ifaddrmsg` and its attributes: the link's index and the address, without the link's name.
pub(super) fn decode_address(reply: &[u8]) -> Answer<Option<(u32, ObservedAddress)>> {
    let ([[family, prefix, flags, scope], index], found) = contents(reply)?;
    if family_of(family).is_none() {
        return Ok(None);
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; IPv6 has IFA_LOCAL only there.
    let address = found.get(Ifa::Local)?.or(found.get(Ifa::Address)?).ok_or_else(malformed)?;
    let key = AddressKey { interface: String::new(), address };
    let (label, network) = (found.get(Ifa::Label)?, found.get::<[u8; 4]>(Ifa::Address).ok().flatten());
    let dad = IfaF::from_bits_retain(flags).intersection(IfaF::TENTATIVE | IfaF::OPTIMISTIC);
    let network = network.map(Ipv4Addr::from);
    let failed = IfaF::from_bits_retain(flags).contains(IfaF::DADFAILED);
    let nature = Nature { network, scope, tentative: dad == IfaF::TENTATIVE, failed };
    Ok(Some((u32::from_ne_bytes(index), ObservedAddress { key, prefix, label, nature })))
}

/// Reads `struct rtmsg` and its attributes: the preferred source of a default route.
pub(super) fn decode_source(reply: &[u8]) -> Answer<Option<IpAddr>> {
    let (header, attributes) = reply.split_first_chunk::<12>().ok_or_else(malformed)?;
    let [family, 0, _, _, libc::RT_TABLE_MAIN, ..] = *header else { return Ok(None) };
    if family_of(family).is_some() { Attributes::read(attributes)?.get(libc::RTA_PREFSRC) } else { Ok(None) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::super::{read_anything, tests::in_namespace};
    use super::*;

    fn link_reply() -> Vec<u8> {
        let mut reply = vec![0, 0, 1, 0];
        reply.extend(7u32.to_ne_bytes());
        reply.extend((Iff::UP | Iff::LOWERUP).bits().to_ne_bytes());
        reply.extend([0; 4]);
        let mut attributes = Datagram::default();
        attributes.put_text(Ifla::Ifname, "eth0.100").put(Ifla::Address, [2, 0, 0x5e, 0, 0, 1]);
        reply.extend(&attributes.bytes);
        reply
    }

    fn address_reply() -> Vec<u8> {
        let mut reply = vec![2, 32, 0x80, 0];
        reply.extend(1u32.to_ne_bytes());
        let mut attributes = Datagram::default();
        attributes
            .put(Ifa::Address, [192, 0, 2, 9])
            .put(Ifa::Local, [192, 0, 2, 1])
            .put_text(Ifa::Label, "lo:0");
        reply.extend(&attributes.bytes);
        reply
    }

    #[test]
    fn a_link_is_read() {
        let (name, mac) = ("eth0.100".to_owned(), Some([2, 0, 0x5e, 0, 0, 1]));
        assert_eq!(
            decode_link(&link_reply()),
            Ok(Interface { index: 7, name, up: true, carrier: true, mac, wire: 7, ..Interface::default() })
        );
    }

    #[test]
    fn the_near_end_of_an_address_is_read() {
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        let key = AddressKey { interface: String::new(), address };
        let nature = Nature { network: Some(Ipv4Addr::new(192, 0, 2, 9)), ..Nature::default() };
        let found = ObservedAddress { key, prefix: 32, label: Some("lo:0".to_owned()), nature };
        assert_eq!(decode_address(&address_reply()), Ok(Some((1, found))));
        let mut other = address_reply();
        other[0] = 28;
        assert_eq!(decode_address(&other), Ok(None));
    }

    /// Of a default route in the main table, as many dumps begin.
    fn route_reply() -> Vec<u8> {
        let mut reply = vec![libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, 3, 0, 1, 0, 0, 0, 0];
        let mut attributes = Datagram::default();
        attributes.put(libc::RTA_TABLE, 254u32.to_ne_bytes()).put(libc::RTA_PREFSRC, [192, 0, 2, 1]);
        attributes.put(libc::RTA_GATEWAY, [192, 0, 2, 2]);
        reply.extend(&attributes.bytes);
        reply
    }

    #[test]
    fn only_default_routes_of_the_main_table_have_a_source() {
        assert_eq!(decode_source(&route_reply()), Ok(Some(Ipv4Addr::new(192, 0, 2, 1).into())));
        // Another family, a part of all addresses, another table
        for (at, value) in [(0, 28), (1, 1), (4, libc::RT_TABLE_LOCAL)] {
            let mut other = route_reply();
            other[at] = value;
            assert_eq!(decode_source(&other), Ok(None), "{at}");
        }
        assert_eq!(decode_source(&route_reply()[..12]), Ok(None));
        assert_eq!(decode_source(&route_reply()[..11]), Err(malformed()));
    }

    #[test]
    fn an_address_without_an_address_is_refused() {
        assert_eq!(decode_address(&address_reply()[..8]), Err(malformed()));
    }

    #[test]
    fn an_ipv6_address_is_asked_for_as_by_iproute2() {
        let address = "2001:db8::100".parse().unwrap();
        let octets = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00];
        let lifetimes = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]; // preferred, valid, stamps
        let (mut asked, mut expected) = (Datagram::default(), Datagram::default());
        asked.put_address(address, None);
        expected.put(2u16, octets).put(1u16, octets).put(6u16, lifetimes);
        assert_eq!(asked.bytes, expected.bytes);
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            for mut reply in [link_reply(), address_reply(), route_reply()] {
                let end = cut.index(reply.len());
                read_anything(&reply[..end]);
                let at = at.index(reply.len());
                reply[at] = value;
                read_anything(&reply);
            }
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn addresses_come_and_go_in_a_real_kernel() {
        in_namespace(|| {
            let mut addresses = Addresses::default();
            let names = BTreeSet::from(["lo".to_owned(), "nosuch0".to_owned()]);
            let key = |text: &str| AddressKey { interface: "lo".to_owned(), address: text.parse().unwrap() };
            let (v4, v6) = (key("192.0.2.1"), key("2001:db8::1"));

            let (interfaces, found) = addresses.observe(&names).unwrap();
            assert_eq!(interfaces.keys().collect::<Vec<_>>(), ["lo"]);
            assert_eq!(found, []);

            for _ in 0..2 {
                addresses.add(&v4, 32, Some("lo:0")).unwrap();
                addresses.add(&v6, 128, None).unwrap();
            }
            let (_, found) = addresses.observe(&names).unwrap();
            let observed = |key: &AddressKey, prefix, label: Option<&str>| ObservedAddress {
                key: key.clone(),
                prefix,
                label: label.map(str::to_owned),
                nature: Nature {
                    network: match key.address {
                        IpAddr::V4(address) => Some(address),
                        IpAddr::V6(_) => None,
                    },
                    ..Nature::default()
                },
            };
            assert_eq!(found, [observed(&v4, 32, Some("lo:0")), observed(&v6, 128, None)]);

            // Another prefix is another address, and not removed.
            addresses.remove(&v4, 24).unwrap();
            for _ in 0..2 {
                addresses.remove(&v4, 32).unwrap();
                addresses.remove(&v6, 128).unwrap();
            }
            assert_eq!(addresses.observe(&names).unwrap().1, []);

            let missing = AddressKey { interface: "nosuch0".to_owned(), ..v4.clone() };
            assert_eq!(addresses.remove(&missing, 32), Ok(()));
            let error = addresses.add(&missing, 32, None).unwrap_err();
            let text =
                "adding address 192.0.2.1 on nosuch0: there is no such interface (ENODEV); see `ip link`";
            assert_eq!(error.to_string(), text);

            std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").unwrap();
            let error = addresses.add(&v6, 128, None).unwrap_err();
            assert_eq!(error.errno, Some(Errno::EACCES));
            assert!(error.to_string().contains("IPv6 is disabled on "), "{error}");
        });
    }
}
