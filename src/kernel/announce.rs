//! Announcements: gratuitous ARP and unsolicited neighbour advertisements, on packet sockets.
//!
//! Owns the bytes of the frames. When and how often to announce is decided elsewhere. Called by `kernel`.
//! A packet socket does not ask whether the address is assigned, so that the announcement does not depend on
//! the kernel's own rules for sending ARP, which `arp_announce` and `arp_ignore` bend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::error::{Error, Operation, Result};
use super::sysctl;
use crate::model::AddressKey;

/// Sends one announcement for each address on its interface.
///
/// # Errors
///
/// One result per address. The interface can be missing, down, or not of a kind that has neighbours.
pub(super) fn announce(addresses: &[AddressKey]) -> Vec<Result<()>> {
    if addresses.is_empty() {
        return Vec::new();
    }
    // Without a protocol the socket receives nothing, which is all it is to receive.
    let opened = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| Ok((socket, links()?)));
    match opened {
        Ok((socket, links)) => {
            let results = addresses.iter().map(|address| one(&socket, &links, address)).collect();
            // Closing a packet socket waits for an RCU grace period, some ten milliseconds (af_packet.c,
            // packet_release). The run has better things to do; at its end the wait is over.
            let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(socket));
            results
        }
        Err(errno) => {
            addresses.iter().map(|address| Err(Error::new(Operation::Announce, address, errno))).collect()
        }
    }
}

/// Every link by name. `LinkAddr` has no constructor: this is the way to one without `unsafe`.
fn links() -> nix::Result<Vec<(String, LinkAddr)>> {
    let all = getifaddrs()?;
    Ok(all.filter_map(|entry| Some((entry.interface_name, *entry.address?.as_link_addr()?))).collect())
}

fn one(socket: &OwnedFd, links: &[(String, LinkAddr)], key: &AddressKey) -> Result<()> {
    let fail = |errno| Error::new(Operation::Announce, key, errno);
    let link = links.iter().find(|(name, _)| *name == key.interface).map(|(_, link)| link);
    let link = link.ok_or_else(|| fail(Errno::ENODEV))?;
    let mac = link.addr().filter(|_| link.hatype() == libc::ARPHRD_ETHER).ok_or_else(|| {
        let detail = "the interface has no neighbours to tell: it is not an Ethernet link";
        Error::own(Operation::Announce, key, detail, Some("set `interface` to the one that clients reach"))
    })?;
    let sent = match key.address {
        IpAddr::V4(address) => send(socket, link, &gratuitous_arp(mac, address)),
        IpAddr::V6(address) => {
            let frame = neighbour_advertisement(mac, address, forwards(&key.interface));
            send(socket, link, &frame)
        }
    };
    sent.map_err(fail)
}

fn send(socket: &OwnedFd, link: &LinkAddr, frame: &[u8]) -> nix::Result<()> {
    loop {
        match sendto(socket.as_raw_fd(), frame, link, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Whether the interface is a router's. A wrong R flag would make neighbours drop their routes over this node
/// (RFC 4861 §7.2.5: an advertisement without it removes its sender from the lists of default routers).
fn forwards(interface: &str) -> bool {
    let value = sysctl::read_parts(&["net", "ipv6", "conf", interface, "forwarding"]);
    matches!(value, Ok(Some(value)) if value != "0")
}

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// An ARP announcement: a broadcast request whose sender and target are the address itself.
///
/// The request form alone, since RFC 5227 §3 finds it the one that every implementation takes: the sender's
/// pair is merged before the operation is looked at (RFC 826), while unasked-for replies are dropped by many
/// as an attack. Linux takes both alike (`arp.c`, `arp_is_garp`). The target's hardware address is ignored;
/// RFC 5227 wants zeroes.
fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    [
        &BROADCAST[..],
        &mac,
        &ETHERTYPE_ARP,
        &[0, 1], // hardware: Ethernet
        &[8, 0], // protocol: IPv4
        &[6, 4], // lengths of their addresses
        &[0, 1], // request
        &mac,
        &address.octets(),
        &[0; 6],
        &address.octets(),
    ]
    .concat()
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §4.4, §7.2.6), with the override flag, so
/// that neighbours replace the link-layer address that they have.
fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr, router: bool) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ICMPV6: u8 = 58;
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    /// Receivers drop what could have passed a router (RFC 4861 §7.1.2).
    const HOP_LIMIT: u8 = 255;
    const LENGTH: u8 = 32;

    let flags = if router { ROUTER | OVERRIDE } else { OVERRIDE };
    let body = [&[flags, 0, 0, 0][..], &address.octets(), &[2, 1], &mac].concat();
    let pseudo_header =
        [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, LENGTH], &[0, 0, 0, ICMPV6]].concat();
    let head = [136, 0];
    let sum = checksum(&[&pseudo_header[..], &head, &[0, 0], &body].concat());
    [
        &ALL_NODES_MAC[..],
        &mac,
        &ETHERTYPE_IPV6,
        &[0x60, 0, 0, 0],
        &[0, LENGTH, ICMPV6, HOP_LIMIT],
        &address.octets(),
        &ALL_NODES.octets(),
        &head,
        &sum.to_be_bytes(),
        &body,
    ]
    .concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word =
        |pair: &[u8]| pair.iter().zip([8, 0]).map(|(byte, shift)| u32::from(*byte) << shift).sum::<u32>();
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0x00, 0x5e, 0x10, 0x00, 0x01];

    #[test]
    fn the_arp_frame_is_rfc_826_s_with_rfc_5227_s_values() {
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff,             // to everybody
            0x02, 0x00, 0x5e, 0x10, 0x00, 0x01,             // from us
            0x08, 0x06,                                     // ARP
            0x00, 0x01, 0x08, 0x00, 6, 4,                   // IPv4 over Ethernet
            0x00, 0x01,                                     // request
            0x02, 0x00, 0x5e, 0x10, 0x00, 0x01, 192, 0, 2, 1,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ];
        assert_eq!(gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 1)), expected);
    }

    #[test]
    fn the_advertisement_is_rfc_4861_s() {
        let frame = neighbour_advertisement(MAC, "2001:db8::100".parse().unwrap(), false);
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0x00, 0x00, 0x00, 0x01,             // to all nodes
            0x02, 0x00, 0x5e, 0x10, 0x00, 0x01,
            0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,                  // version, payload, ICMPv6, hop limit
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0, 0xff, 0xff,                             // advertisement; the checksum is tested below
            0x20, 0, 0, 0,                                  // override
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
            2, 1, 0x02, 0x00, 0x5e, 0x10, 0x00, 0x01,       // target's link-layer address
        ];
        let without_sum = |frame: &[u8]| [&frame[..56], &frame[58..]].concat();
        assert_eq!(without_sum(&frame), without_sum(&expected));
        // By hand: the sum of the sixteen-bit words of pseudo-header and message.
        let words: u32 = [
            2 * (0x2001 + 0x0db8 + 0x0100), // source and target
            0x2001 - 0x2001,
            0xff02 + 0x0001, // destination
            32 + 58,         // length and next header
            0x8800 + 0x2000, // type and code, flags
            0x0201 + 0x0200 + 0x5e10 + 0x0001,
        ]
        .iter()
        .sum();
        let folded = (words & 0xffff) + (words >> 16);
        assert_eq!(u32::from(u16::from_be_bytes([frame[56], frame[57]])), 0xffff - folded);
    }

    #[test]
    fn a_router_says_so() {
        let frame = neighbour_advertisement(MAC, Ipv6Addr::LOCALHOST, true);
        assert_eq!(frame[58], 0xa0);
    }

    #[test]
    fn the_checksum_is_rfc_1071_s() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x01]), !0x0100);
    }

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
