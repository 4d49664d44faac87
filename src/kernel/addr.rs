//! Links and addresses, by rtnetlink.
//!
//! Owns reading interfaces with their addresses, and adding and removing one address. Which address belongs
//! where, and with which prefix, is decided by `plan`. Called by `kernel`. Requests are neli's types; replies
//! are read with `netlink`'s bounds-checked attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, Iff, Ifla, IflaInfo, Nda, Nud, RtAddrFamily, RtScope, Rtm, Rtn};
use neli::consts::socket::NlFamily;
use neli::rtnl::{IfaddrmsgBuilder, IfinfomsgBuilder, NdmsgBuilder, Rtattr, RtattrBuilder};
use neli::types::{Buffer, RtBuffer};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;

use super::error::{Error, Operation, Result};
use super::netlink::{Attributes, Failure, Malformed, Message, Socket, text_of, u32_of};
use crate::model::AddressKey;
use crate::observed::{Interface, ObservedAddress};

/// Longest name of an interface (`IFNAMSIZ` without its NUL).
const NAME_MAX: usize = 15;

/// Access to links and addresses.
pub(super) struct Addresses(Socket);

/// A link as the kernel has it.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    /// Its own name; it may have been asked for by another.
    name: String,
    state: Interface,
}

/// An address as a reply has it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    index: u32,
    address: IpAddr,
    prefix: u8,
    label: Option<String>,
}

impl Addresses {
    /// Opens the socket.
    pub(super) fn open() -> std::result::Result<Self, Failure> {
        Socket::open(NlFamily::Route).map(Self)
    }

    /// The interfaces of these names that exist, and their addresses.
    pub(super) fn observe(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<(BTreeMap<String, Interface>, Vec<ObservedAddress>)> {
        let mut links = Vec::new();
        for name in names {
            let link =
                self.link(name).map_err(|failure| Error::netlink(Operation::ReadLink, name, &failure))?;
            links.extend(link.map(|link| (name, link)));
        }
        if links.is_empty() {
            return Ok((BTreeMap::new(), Vec::new()));
        }
        let found =
            self.addresses().map_err(|failure| Error::netlink(Operation::ReadAddresses, "", &failure))?;
        let mut addresses = Vec::new();
        for entry in &found {
            for (name, link) in links.iter().filter(|(_, link)| link.index == entry.index) {
                // The kernel makes the interface's name the label of an address that was given none.
                let label = entry.label.clone().filter(|label| *label != link.name);
                let key = AddressKey { interface: (*name).clone(), address: entry.address };
                addresses.push(ObservedAddress { key, prefix: entry.prefix, label });
            }
        }
        addresses.sort();
        // An address can be told twice when the list changed under the dump.
        addresses.dedup();
        Ok((links.into_iter().map(|(name, link)| (name.clone(), link.state)).collect(), addresses))
    }

    /// Adds an address. Done when it is there already.
    pub(super) fn add(&mut self, key: &AddressKey, prefix: u8, label: Option<&str>) -> Result<()> {
        let sent = index(key).and_then(|index| {
            let label = label.filter(|_| key.address.is_ipv4());
            let message =
                request(Rtm::Newaddr, NlmF::CREATE | NlmF::EXCL, index, key.address, prefix, label)?;
            self.0.request(&message)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(Errno::EEXIST) => Ok(()),
            Err(failure) => {
                let mut error = Error::netlink(Operation::AddAddress, key, &failure);
                if failure.is(Errno::EACCES) {
                    // addrconf.c, inet6_addr_add: the interface's disable_ipv6
                    error.detail = format!("IPv6 is disabled on {}", key.interface);
                    error.remedy = Some(format!("sysctl -w net/ipv6/conf/{}/disable_ipv6=0", key.interface));
                }
                Err(error)
            }
        }
    }

    /// Sets a link up, and makes it before, as a dummy, when there is none of this name. The dummy answers ARP and can
    /// be announced on, which dummies are not by themselves.
    pub(super) fn stand_in(&mut self, name: &str) -> Result<()> {
        let message = || {
            let kind = attribute(Ifla::Linkinfo, ())?
                .nest(&attribute(IflaInfo::Kind, "dummy")?)
                .map_err(encoding)?;
            let body = IfinfomsgBuilder::default()
                .ifi_family(RtAddrFamily::Unspecified)
                .ifi_flags(Iff::UP)
                .ifi_change(Iff::UP | Iff::NOARP)
                .rtattrs(RtBuffer::from_iter([attribute(Ifla::Ifname, name)?, kind]))
                .build()
                .map_err(encoding)?;
            Message::encode(Rtm::Newlink.into(), NlmF::CREATE, &body)
        };
        let made = message().and_then(|message| self.0.request(&message));
        made.map(|_| ()).map_err(|failure| Error::netlink(Operation::AddLink, name, &failure))
    }

    /// Removes an address with exactly this prefix length. Done when it, or its interface, is gone already.
    pub(super) fn remove(&mut self, key: &AddressKey, prefix: u8) -> Result<()> {
        let sent = index(key).and_then(|index| {
            // A director that forwards for its real servers hands clients who have not heard of the switch yet on
            // to the new MASTER. By a neighbour entry from that one's last time as MASTER it would do so at once,
            // and keepalived over there binds its VIP on lo before there are services: clients would be refused.
            // Without the entry it asks first, and is answered when the services stand. Before the address goes,
            // since until then nobody looks for a neighbour of this address. Best effort: mostly there is none.
            if key.interface != "lo" {
                let _ = forget(index, key.address).and_then(|message| self.0.request(&message));
            }
            let message = request(Rtm::Deladdr, NlmF::empty(), index, key.address, prefix, None)?;
            self.0.request(&message)
        });
        match sent {
            Ok(_) => Ok(()),
            // ENXIO: the interface has no IPv6 at all (addrconf.c, inet6_addr_del).
            Err(Failure::Refused { errno: Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENXIO, .. }) => {
                Ok(())
            }
            Err(failure) => {
                let object = format!("{}/{prefix} on {}", key.address, key.interface);
                Err(Error::netlink(Operation::RemoveAddress, object, &failure))
            }
        }
    }

    fn link(&mut self, name: &str) -> std::result::Result<Option<Link>, Failure> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        let asked = attribute(Ifla::Ifname, name)?;
        let body = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .rtattrs(RtBuffer::from_iter([asked]))
            .build()
            .map_err(encoding)?;
        match self.0.request(&Message::encode(Rtm::Getlink.into(), NlmF::empty(), &body)?) {
            Ok(Some(reply)) => Ok(Some(decode_link(&reply)?)),
            Ok(None) => Err(Malformed.into()),
            Err(failure) if failure.is(Errno::ENODEV) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Every address of both families. One dump for all: an unspecified family means each that there is, so a
    /// kernel without IPv6 needs no special case.
    fn addresses(&mut self) -> std::result::Result<Vec<Found>, Failure> {
        let body = IfaddrmsgBuilder::default()
            .ifa_family(RtAddrFamily::Unspecified)
            .ifa_prefixlen(0)
            .ifa_scope(RtScope::Universe)
            .ifa_index(0)
            .build()
            .map_err(encoding)?;
        self.0.dump(&Message::encode(Rtm::Getaddr.into(), NlmF::empty(), &body)?, decode_address)
    }
}

fn encoding(error: impl std::fmt::Display) -> Failure {
    Failure::Broken { errno: None, text: format!("encoding a request: {error}") }
}

fn attribute<T: neli::consts::rtnl::RtaType>(
    kind: T,
    payload: impl neli::ToBytes + neli::Size,
) -> std::result::Result<Rtattr<T, Buffer>, Failure> {
    RtattrBuilder::default().rta_type(kind).rta_payload(payload).build().map_err(encoding)
}

fn address_attribute<T: neli::consts::rtnl::RtaType>(
    kind: T,
    address: IpAddr,
) -> std::result::Result<Rtattr<T, Buffer>, Failure> {
    match address {
        IpAddr::V4(address) => attribute(kind, address.octets()),
        IpAddr::V6(address) => attribute(kind, address.octets()),
    }
}

fn family_of(address: IpAddr) -> RtAddrFamily {
    if address.is_ipv4() { RtAddrFamily::Inet } else { RtAddrFamily::Inet6 }
}

fn index(key: &AddressKey) -> std::result::Result<u32, Failure> {
    if_nametoindex(key.interface.as_str()).map_err(|errno| Failure::Refused { errno, text: None })
}

/// RTM_NEWADDR or RTM_DELADDR for one address of global scope.
fn request(
    kind: Rtm,
    flags: NlmF,
    index: u32,
    address: IpAddr,
    prefix: u8,
    label: Option<&str>,
) -> std::result::Result<Message, Failure> {
    let mut attributes = RtBuffer::new();
    attributes.push(address_attribute(Ifa::Local, address)?);
    attributes.push(address_attribute(Ifa::Address, address)?);
    let mut address_flags = IfaF::empty();
    if address.is_ipv6() && kind != Rtm::Deladdr {
        address_flags = IfaF::NODAD;
        attributes.push(attribute(Ifa::Cacheinfo, never_a_source())?);
    }
    if let Some(label) = label {
        attributes.push(attribute(Ifa::Label, label)?);
    }
    let body = IfaddrmsgBuilder::default()
        .ifa_family(family_of(address))
        .ifa_prefixlen(prefix)
        .ifa_flags(address_flags)
        .ifa_scope(RtScope::Universe)
        .ifa_index(index)
        .rtattrs(attributes)
        .build()
        .map_err(encoding)?;
    Message::encode(kind.into(), flags, &body)
}

/// RTM_DELNEIGH for the neighbour with this address: ENOENT when there is no entry (`neighbour.c`, `neigh_delete`).
fn forget(index: u32, address: IpAddr) -> std::result::Result<Message, Failure> {
    let body = NdmsgBuilder::default()
        .ndm_family(family_of(address))
        .ndm_index(libc::c_int::try_from(index).unwrap_or_default())
        .ndm_state(Nud::empty())
        .ndm_type(Rtn::Unspec)
        .rtattrs(RtBuffer::from_iter([address_attribute(Nda::Dst, address)?]))
        .build()
        .map_err(encoding)?;
    Message::encode(Rtm::Delneigh.into(), NlmF::empty(), &body)
}

/// `struct ifa_cacheinfo`: preferred for 0 seconds, valid for ever, two time stamps that are the kernel's. A
/// deprecated address answers, and is never chosen as a source of new connections while there is another
/// (RFC 6724 §5, rule 3). Duplicate address detection (IFA_F_NODAD leaves it out) would hold the VIP back for
/// a second and kill it while the old master still answers.
fn never_a_source() -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().skip(4).zip(u32::MAX.to_ne_bytes()) {
        *to = from;
    }
    bytes
}

/// Reads `struct ifinfomsg` and its attributes.
fn decode_link(reply: &[u8]) -> std::result::Result<Link, Malformed> {
    let (header, attributes) = reply.split_first_chunk::<16>().ok_or(Malformed)?;
    let field = |from: usize| u32_of(header.get(from..from + 4).unwrap_or_default());
    let flags = Iff::from_bits_retain(field(8)?);
    let mut link = Link {
        index: field(4)?,
        name: String::new(),
        state: Interface { up: flags.contains(Iff::UP), carrier: flags.contains(Iff::LOWERUP), mac: None },
    };
    for attribute in Attributes::new(attributes) {
        let (kind, value) = attribute?;
        match Ifla::from(kind) {
            Ifla::Ifname => link.name = text_of(value)?,
            Ifla::Address => link.state.mac = value.try_into().ok(),
            _ => {}
        }
    }
    Ok(link)
}

/// Reads `struct ifaddrmsg` and its attributes; passes over other families.
fn decode_address(reply: &[u8]) -> std::result::Result<Option<Found>, Malformed> {
    let ([family, prefix, _, _, index @ ..], attributes) = reply.split_first_chunk::<8>().ok_or(Malformed)?;
    let ipv6 = match i32::from(*family) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return Ok(None),
    };
    let mut local = None;
    let mut address = None;
    let mut label = None;
    for attribute in Attributes::new(attributes) {
        let (kind, value) = attribute?;
        match Ifa::from(kind) {
            Ifa::Local => local = Some(ip(value, ipv6)?),
            Ifa::Address => address = Some(ip(value, ipv6)?),
            Ifa::Label => label = Some(text_of(value)?),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; IPv6 has IFA_LOCAL only there.
    let address = local.or(address).ok_or(Malformed)?;
    Ok(Some(Found { index: u32::from_ne_bytes(*index), address, prefix: *prefix, label }))
}

fn ip(value: &[u8], ipv6: bool) -> std::result::Result<IpAddr, Malformed> {
    let address = match ipv6 {
        true => <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()),
        false => <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into()),
    };
    address.map_err(|_| Malformed)
}

/// Reads any bytes as every kind of reply: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn decode_all(reply: &[u8]) {
    let _ = decode_link(reply);
    let _ = decode_address(reply);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::super::netlink::Writer;
    use super::super::tests::in_namespace;
    use super::*;

    fn link_reply() -> Vec<u8> {
        let mut reply = vec![0, 0, 1, 0];
        reply.extend(7u32.to_ne_bytes());
        reply.extend((Iff::UP | Iff::LOWERUP).bits().to_ne_bytes());
        reply.extend([0; 4]);
        let mut attributes = Writer::default();
        attributes
            .put_text(Ifla::Ifname.into(), "eth0.100")
            .put(Ifla::Address.into(), &[2, 0, 0x5e, 0, 0, 1]);
        reply.extend(attributes.bytes());
        reply
    }

    fn address_reply() -> Vec<u8> {
        let mut reply = vec![2, 32, 0x80, 0];
        reply.extend(1u32.to_ne_bytes());
        let mut attributes = Writer::default();
        attributes
            .put(Ifa::Address.into(), &[192, 0, 2, 9])
            .put(Ifa::Local.into(), &[192, 0, 2, 1])
            .put_text(Ifa::Label.into(), "lo:0");
        reply.extend(attributes.bytes());
        reply
    }

    #[test]
    fn a_link_is_read() {
        let state = Interface { up: true, carrier: true, mac: Some([2, 0, 0x5e, 0, 0, 1]) };
        assert_eq!(decode_link(&link_reply()), Ok(Link { index: 7, name: "eth0.100".to_owned(), state }));
    }

    #[test]
    fn the_near_end_of_an_address_is_read() {
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        let found = Found { index: 1, address, prefix: 32, label: Some("lo:0".to_owned()) };
        assert_eq!(decode_address(&address_reply()), Ok(Some(found)));
        let mut other = address_reply();
        other[0] = 28;
        assert_eq!(decode_address(&other), Ok(None));
    }

    #[test]
    fn an_address_without_an_address_is_refused() {
        assert_eq!(decode_address(&address_reply()[..8]), Err(Malformed));
    }

    #[test]
    fn the_request_for_an_ipv6_address_is_as_iproute2_s() {
        let address = "2001:db8::100".parse().unwrap();
        let message = request(Rtm::Newaddr, NlmF::CREATE, 3, address, 128, None).unwrap();
        let octets = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00];
        let mut expected = vec![10, 128, 0x02, 0]; // AF_INET6, prefix, IFA_F_NODAD, global
        expected.extend(3u32.to_ne_bytes());
        let mut attributes = Writer::default();
        let lifetimes = [&[0; 4][..], &[0xff; 4], &[0; 8]].concat(); // preferred, valid, stamps
        attributes.put(2, &octets).put(1, &octets).put(6, &lifetimes);
        expected.extend(attributes.bytes());
        assert_eq!(message.body(), expected);
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            for mut reply in [link_reply(), address_reply()] {
                let end = cut.index(reply.len());
                decode_all(&reply[..end]);
                let at = at.index(reply.len());
                reply[at] = value;
                decode_all(&reply);
            }
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn addresses_come_and_go_in_a_real_kernel() {
        in_namespace(|| {
            let mut addresses = Addresses::open().unwrap();
            let names =
                BTreeSet::from(["lo".to_owned(), "nosuch0".to_owned(), "name-that-is-too-long".to_owned()]);
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
            assert!(error.to_string().contains("IPv6 is disabled on lo"), "{error}");
        });
    }
}
