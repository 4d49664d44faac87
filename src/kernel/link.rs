//! Links and addresses.
//!
//! Owns reading interfaces with their addresses, and adding and removing one address, by rtnetlink; and what packet
//! sockets need to know of an interface. Which address belongs where, and with which prefix, is decided by `plan`.
//! Called by `kernel`, `announce`, `probe` and `namespace`. Structures are neli's; replies are read with `netlink`'s
//! bounds-checked attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, Iff, Ifla, IflaInfo, Nda, Nud, RtAddrFamily, RtScope, Rtm, Rtn};
use neli::rtnl::{IfaddrmsgBuilder, IfinfomsgBuilder, NdmsgBuilder};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::{if_nameindex, if_nametoindex};
use nix::sys::socket::{LinkAddr, SockProtocol};

use super::error::{Error, Operation, Result};
use super::netlink::{Attributes, Failure, Malformed, Message, Socket, Writer, text_of, u32_of};
use crate::model::{AddressKey, Mac};
use crate::observed::{Interface, ObservedAddress};

/// Longest name of an interface (`IFNAMSIZ` without its NUL).
const NAME_MAX: usize = 15;

/// Interface, address and prefix length.
pub type Bound = (String, IpAddr, u8);

/// Names of the links of this network namespace.
///
/// # Errors
///
/// When they cannot be read.
pub(super) fn names() -> Result<BTreeSet<String>> {
    let list = if_nameindex().map_err(|errno| Error::new(Operation::ReadLink, "all interfaces", errno))?;
    Ok(list.iter().filter_map(|link| link.name().to_str().ok().map(str::to_owned)).collect())
}

/// Interfaces, and whether they are up with a carrier; and their addresses. What cannot be read is absent.
pub fn interfaces() -> (BTreeMap<String, bool>, Vec<Bound>) {
    let read = || Addresses::open().ok()?.observe(&names().ok()?).ok();
    let (links, addresses) = read().unwrap_or_default();
    let links = links.into_iter().map(|(name, link)| (name, link.up && link.carrier)).collect();
    let bound = |found: ObservedAddress| (found.key.interface, found.key.address, found.prefix);
    (links, addresses.into_iter().map(bound).collect())
}

/// An interface as packet sockets see it.
pub(super) struct Station {
    pub(super) link: LinkAddr,
    /// In the kernel's order, by which the first of a family is the host's own
    pub(super) addresses: Vec<IpAddr>,
}

impl Station {
    /// The hardware address, on an Ethernet link.
    pub(super) fn mac(&self) -> Option<Mac> {
        self.link.addr().filter(|_| self.link.hatype() == libc::ARPHRD_ETHER)
    }
}

/// Every interface by name. `LinkAddr` has no constructor: getifaddrs(3) is the way to one without `unsafe`.
pub(super) fn stations() -> nix::Result<BTreeMap<String, Station>> {
    let mut stations = BTreeMap::<String, Station>::new();
    for entry in getifaddrs()? {
        let Some(address) = entry.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        if let Some(link) = address.as_link_addr() {
            stations.insert(entry.interface_name, Station { link: *link, addresses: Vec::new() });
        } else if let Some(station) = stations.get_mut(&entry.interface_name) {
            // Links come first. An address with a label comes under that name.
            station.addresses.extend(ip);
        }
    }
    Ok(stations)
}

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

impl Addresses {
    /// Opens the socket.
    pub(super) fn open() -> std::result::Result<Self, Failure> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self)
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
        // Of both families: an unspecified one means each that there is, so a kernel without IPv6 is no special case.
        let all = IfaddrmsgBuilder::default()
            .ifa_family(RtAddrFamily::Unspecified)
            .ifa_prefixlen(0)
            .ifa_scope(RtScope::Universe)
            .ifa_index(0)
            .build();
        let found = Message::route(Rtm::Getaddr, NlmF::empty(), all, |_| ())
            .and_then(|message| self.0.dump(&message, decode_address))
            .map_err(|failure| Error::netlink(Operation::ReadAddresses, "", &failure))?;
        let mut addresses = Vec::new();
        for (name, link) in &links {
            for (_, found) in found.iter().filter(|(index, _)| *index == link.index) {
                let mut found = found.clone();
                found.key.interface.clone_from(name);
                // The kernel makes the interface's name the label of an address that was given none.
                found.label = found.label.filter(|label| *label != link.name);
                addresses.push(found);
            }
        }
        addresses.sort();
        // An address can be told twice when the list changed under the dump.
        addresses.dedup();
        Ok((links.into_iter().map(|(name, link)| (name.clone(), link.state)).collect(), addresses))
    }

    fn link(&mut self, name: &str) -> std::result::Result<Option<Link>, Failure> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        let asked = IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified).build();
        let message = Message::route(Rtm::Getlink, NlmF::empty(), asked, |to| {
            to.put_text(Ifla::Ifname.into(), name);
        })?;
        match self.0.request(&message) {
            Ok(Some(reply)) => Ok(Some(decode_link(&reply)?)),
            Ok(None) => Err(Malformed.into()),
            Err(failure) if failure.is(Errno::ENODEV) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Adds an address. Done when it is there already.
    pub(super) fn add(&mut self, key: &AddressKey, prefix: u8, label: Option<&str>) -> Result<()> {
        let message = request(Rtm::Newaddr, NlmF::CREATE | NlmF::EXCL, key, prefix, label);
        let sent = message.and_then(|message| self.0.request(&message));
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

    /// Removes an address with exactly this prefix length. Done when it, or its interface, is gone already.
    pub(super) fn remove(&mut self, key: &AddressKey, prefix: u8) -> Result<()> {
        // A director that forwards for its real servers hands clients who have not heard of the switch yet on to the
        // new MASTER. By a neighbour entry from that one's last time as MASTER it would do so at once, and keepalived
        // over there binds its VIP on lo before there are services: clients would be refused. Without the entry it
        // asks first, and is answered when the services stand. Before the address goes, since until then nobody looks
        // for a neighbour of this address. Best effort: mostly there is none.
        if key.interface != "lo" {
            let _ = forget(key).and_then(|message| self.0.request(&message));
        }
        let message = request(Rtm::Deladdr, NlmF::empty(), key, prefix, None);
        let sent = message.and_then(|message| self.0.request(&message));
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

    /// Sets a link up, and makes it before, as a dummy, when there is none of this name. The dummy answers ARP and can
    /// be announced on, which dummies are not by themselves.
    pub(super) fn stand_in(&mut self, name: &str) -> Result<()> {
        let link = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_flags(Iff::UP)
            .ifi_change(Iff::UP | Iff::NOARP)
            .build();
        let message = Message::route(Rtm::Newlink, NlmF::CREATE, link, |to| {
            to.put_text(Ifla::Ifname.into(), name).nest(Ifla::Linkinfo.into(), |to| {
                to.put_text(IflaInfo::Kind.into(), "dummy");
            });
        });
        let made = message.and_then(|message| self.0.request(&message));
        made.map(|_| ()).map_err(|failure| Error::netlink(Operation::AddLink, name, &failure))
    }
}

fn index(key: &AddressKey) -> std::result::Result<u32, Failure> {
    if_nametoindex(key.interface.as_str()).map_err(|errno| Failure::Refused { errno, text: None })
}

fn family_of(address: IpAddr) -> RtAddrFamily {
    if address.is_ipv4() { RtAddrFamily::Inet } else { RtAddrFamily::Inet6 }
}

fn put_address(to: &mut Writer, kind: impl Into<u16>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => to.put(kind.into(), &address.octets()),
        IpAddr::V6(address) => to.put(kind.into(), &address.octets()),
    };
}

/// RTM_NEWADDR or RTM_DELADDR for one address of global scope.
fn request(
    kind: Rtm,
    flags: NlmF,
    key: &AddressKey,
    prefix: u8,
    label: Option<&str>,
) -> std::result::Result<Message, Failure> {
    let address = key.address;
    let is_new_v6 = address.is_ipv6() && kind != Rtm::Deladdr;
    let structure = IfaddrmsgBuilder::default()
        .ifa_family(family_of(address))
        .ifa_prefixlen(prefix)
        // Duplicate address detection would hold the VIP back for a second and kill it while the old master still
        // answers.
        .ifa_flags(if is_new_v6 { IfaF::NODAD } else { IfaF::empty() })
        .ifa_scope(RtScope::Universe)
        .ifa_index(index(key)?)
        .build();
    Message::route(kind, flags, structure, |to| {
        put_address(to, Ifa::Local, address);
        put_address(to, Ifa::Address, address);
        if is_new_v6 {
            // `struct ifa_cacheinfo`: preferred for 0 seconds, valid for ever, two time stamps that are the kernel's. A
            // deprecated address answers, and is never chosen as a source of new connections while there is another
            // (RFC 6724 §5, rule 3).
            to.put(Ifa::Cacheinfo.into(), &[[0; 4], [0xff; 4], [0; 4], [0; 4]].concat());
        }
        if let Some(label) = label.filter(|_| address.is_ipv4()) {
            to.put_text(Ifa::Label.into(), label);
        }
    })
}

/// RTM_DELNEIGH for the neighbour with this address: ENOENT when there is no entry (`neighbour.c`, `neigh_delete`).
fn forget(key: &AddressKey) -> std::result::Result<Message, Failure> {
    let structure = NdmsgBuilder::default()
        .ndm_family(family_of(key.address))
        .ndm_index(libc::c_int::try_from(index(key)?).unwrap_or_default())
        .ndm_state(Nud::empty())
        .ndm_type(Rtn::Unspec)
        .build();
    Message::route(Rtm::Delneigh, NlmF::empty(), structure, |to| put_address(to, Nda::Dst, key.address))
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

/// Reads `struct ifaddrmsg` and its attributes: the link's index and the address, without the link's name. Passes over
/// other families.
fn decode_address(reply: &[u8]) -> std::result::Result<Option<(u32, ObservedAddress)>, Malformed> {
    let ([family, prefix, _, _, index @ ..], attributes) = reply.split_first_chunk::<8>().ok_or(Malformed)?;
    if ![libc::AF_INET, libc::AF_INET6].contains(&i32::from(*family)) {
        return Ok(None);
    }
    let (mut local, mut address, mut label) = (None, None, None);
    for attribute in Attributes::new(attributes) {
        let (kind, value) = attribute?;
        match Ifa::from(kind) {
            Ifa::Local => local = Some(ip(value)?),
            Ifa::Address => address = Some(ip(value)?),
            Ifa::Label => label = Some(text_of(value)?),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; IPv6 has IFA_LOCAL only there.
    let key = AddressKey { interface: String::new(), address: local.or(address).ok_or(Malformed)? };
    Ok(Some((u32::from_ne_bytes(*index), ObservedAddress { key, prefix: *prefix, label })))
}

fn ip(value: &[u8]) -> std::result::Result<IpAddr, Malformed> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).map_err(|_| Malformed)
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
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

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
        reply.extend(&attributes.0);
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
        reply.extend(&attributes.0);
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
        let key = AddressKey { interface: String::new(), address };
        let found = ObservedAddress { key, prefix: 32, label: Some("lo:0".to_owned()) };
        assert_eq!(decode_address(&address_reply()), Ok(Some((1, found))));
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
        let key = AddressKey { interface: "lo".to_owned(), address: "2001:db8::100".parse().unwrap() };
        let message = request(Rtm::Newaddr, NlmF::CREATE, &key, 128, None).unwrap();
        let octets = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00];
        let mut expected = vec![10, 128, 0x02, 0]; // AF_INET6, prefix, IFA_F_NODAD, global
        expected.extend(1u32.to_ne_bytes());
        let mut attributes = Writer::default();
        let lifetimes = [&[0; 4][..], &[0xff; 4], &[0; 8]].concat(); // preferred, valid, stamps
        attributes.put(2, &octets).put(1, &octets).put(6, &lifetimes);
        expected.extend(&attributes.0);
        assert_eq!(message.body, expected);
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
