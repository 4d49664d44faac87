//! Neighbours on a link: telling them of an address, and asking them who has one, on packet sockets.
//!
//! Owns sending and listening; the bytes are in `frames`. When to announce is decided elsewhere, and what an answer means
//! by `status`. Called by `kernel`; a role change asks nobody. A packet socket does not depend on the kernel's rules for
//! sending ARP, which `arp_announce` and `arp_ignore` bend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

use super::error::{Error, Operation, Result, When as _};
use super::frames::{arp_request, claim, neighbour_advertisement, neighbour_solicitation};
use super::sysctl;
use crate::model::{AddressKey, Claims, Mac};

/// The link of this name among what getifaddrs(3) tells, and its hardware address, when it is an Ethernet link. `LinkAddr`
/// has no constructor: that is the way to one without `unsafe`.
fn ethernet(stations: &[InterfaceAddress], name: &str) -> nix::Result<(LinkAddr, Mac)> {
    let mut named = stations.iter().filter(|entry| entry.interface_name == name);
    let link = named.find_map(|entry| entry.address?.as_link_addr().copied()).ok_or(Errno::ENODEV)?;
    let mac = link.addr().filter(|_| link.hatype() == libc::ARPHRD_ETHER);
    Ok((link, mac.ok_or(Errno::EPROTONOSUPPORT)?))
}

/// Sends one announcement for each address on its interface, which can be missing, down, or not of a kind that has
/// neighbours: one result per address.
pub(super) fn announce(addresses: &[AddressKey]) -> Vec<Result<()>> {
    if addresses.is_empty() {
        return Vec::new();
    }
    // Without a protocol the socket receives nothing, which is all it is to receive.
    let opened = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| Ok((socket, getifaddrs()?.collect::<Vec<_>>())));
    let announce = |key: &AddressKey| {
        let (socket, stations) = opened.as_ref().map_err(|errno| *errno)?;
        let (link, mac) = ethernet(stations, &key.interface)?;
        let frame = match key.address {
            IpAddr::V4(address) => arp_request(mac, address, address),
            IpAddr::V6(address) => neighbour_advertisement(mac, address, forwards(&key.interface)),
        };
        sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty()).map(|_| ())
    };
    let results = addresses.iter().map(|key| announce(key).when(Operation::Announce, key)).collect();
    // Closing a packet socket waits for an RCU grace period, some ten milliseconds (af_packet.c, packet_release).
    let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(opened));
    results
}

/// Whether the interface is a router's. Without the R flag neighbours would drop their routes over it (RFC 4861 §7.2.5).
fn forwards(interface: &str) -> bool {
    let value = sysctl::read_parts(&["net", "ipv6", "conf", interface, "forwarding"]);
    matches!(value, Ok(Some(value)) if value != "0")
}

/// How long answers are waited for; asked twice in that time.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Room for what a busy link brings besides the answers.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;

/// Asks who else answers for these addresses, each on its interface, about a second for each interface. Answers of this
/// host are not among them.
pub fn probe(addresses: &BTreeSet<AddressKey>) -> Claims {
    let addresses: Vec<_> = addresses.iter().collect();
    let mut claims = Claims::new();
    for keys in addresses.chunk_by(|left, right| left.interface == right.interface) {
        let asked = ask(keys);
        for &key in keys {
            let told = asked.as_ref().map_err(|errno| Error::of(Operation::Probing, key, *errno).to_string());
            let of_key =
                |found: &BTreeMap<_, _>| found.get(&key.address).into_iter().flatten().copied().collect();
            claims.insert(key.clone(), told.map(of_key));
        }
    }
    claims
}

/// Asks for addresses on one interface.
///
/// With an own address: from 0.0.0.0 it would be a duplicate's probe (RFC 5227 §2.1.1), on which a host that is just
/// taking the address over would give up, and from :: as well (RFC 4862 §5.4.3). The VIP as sender would announce it.
fn ask(keys: &[&AddressKey]) -> nix::Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
    let interface = keys.first().map(|key| key.interface.as_str()).unwrap_or_default();
    // An address with a label comes under that name.
    let stations: Vec<_> = getifaddrs()?.filter(|entry| entry.interface_name == interface).collect();
    let (link, mac) = ethernet(&stations, interface)?;
    let v4 = stations.iter().find_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    let mut v6 = stations.iter().filter_map(|entry| Some(entry.address?.as_sockaddr_in6()?.ip()));
    let v6 = v6.find(Ipv6Addr::is_unicast_link_local);
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &link)?;
    let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_QUEUE);
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, 20_000))?;
    let mut found = BTreeMap::<IpAddr, BTreeSet<Mac>>::new();
    let mut frame = [0; 2048];
    let begun = Instant::now();
    for round in 1..=2 {
        for key in keys {
            let question = match (key.address, v4, v6) {
                (IpAddr::V4(target), Some(own), _) if own != target => arp_request(mac, own, target),
                (IpAddr::V6(target), _, Some(own)) => neighbour_solicitation(mac, own, target),
                _ => return Err(Errno::EADDRNOTAVAIL),
            };
            sendto(socket.as_raw_fd(), &question, &link, MsgFlags::empty())?;
        }
        while begun.elapsed() < PATIENCE * round / 2 {
            let length = match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                received => received?,
            };
            let Some((address, other)) = claim(frame.get(..length).unwrap_or_default()) else { continue };
            if other != mac && keys.iter().any(|key| key.address == address) {
                found.entry(address).or_default().insert(other);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_has_no_neighbours_cannot_be_told() {
        let lo = AddressKey { interface: "lo".to_owned(), address: Ipv4Addr::LOCALHOST.into() };
        let missing = AddressKey { interface: "nosuch0".to_owned(), address: Ipv4Addr::LOCALHOST.into() };
        let results = announce(&[lo, missing]);
        let texts: Vec<String> = results.into_iter().map(|result| result.unwrap_err().to_string()).collect();
        // Without CAP_NET_RAW it ends earlier.
        if texts[0].contains("EPERM") {
            return;
        }
        assert!(texts[0].contains("not an Ethernet link"), "{texts:?}");
        assert!(texts[1].contains("no such interface (ENODEV)"), "{texts:?}");
    }
}
