//! Ethernet frames of ARP and neighbour discovery, as bytes.
//!
//! Owns what announces an address, what asks for one, and what claims one. Sends and receives nothing:
//! that is `neighbours`', which calls this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERTYPE_ARP: &[u8] = &[0x08, 0x06];
const ETHERTYPE_IPV6: &[u8] = &[0x86, 0xdd];

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// An ARP request to everybody: who has `target`?
///
/// With one address as sender and target it is an announcement: the form that every implementation takes (RFC 5227 §3),
/// while many drop unasked-for replies as an attack. The target's hardware address is ignored; RFC 5227 wants zeroes.
pub(super) fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    const EVERY_STATION: &[u8] = &[0xff; 6];
    // Ethernet, IPv4, the lengths of their addresses; request
    const HEADER: &[u8] = &[0, 1, 8, 0, 6, 4, 0, 1];
    let (sender, target) = (sender.octets(), target.octets());
    [EVERY_STATION, &mac, ETHERTYPE_ARP, HEADER, &mac, &sender, &[0; 6], &target].concat()
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §4.4, §7.2.6), with the override flag, so
/// that neighbours replace the link-layer address that they have.
pub(super) fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr, router: bool) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
    // Override, and router
    let flags = if router { 0x20 | 0x80 } else { 0x20 };
    let body = [&[flags, 0, 0, 0][..], &address.octets(), &TARGET_LINK_LAYER, &mac].concat();
    neighbour_message(mac, address, ALL_NODES, ADVERTISEMENT, &body)
}

/// A neighbour solicitation to the target's solicited-node group (RFC 4861 §4.3, §7.2.2): who has `target`?
pub(super) fn neighbour_solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    const SOURCE_LINK_LAYER: [u8; 2] = [1, 1];
    let [.., x, y, z] = target.octets();
    let last = u16::from_be_bytes([y, z]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), last);
    let body = [&[0; 4][..], &target.octets(), &SOURCE_LINK_LAYER, &mac].concat();
    neighbour_message(mac, source, group, SOLICITATION, &body)
}

fn neighbour_message(mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    // Receivers drop what could have passed a router (RFC 4861 §7.1.2).
    const HOP_LIMIT: u8 = 255;
    const LENGTH: u8 = 32;
    // RFC 2464 §7
    let [.., a, b, c, d] = to.octets();
    let addresses = [from.octets(), to.octets()].concat();
    let pseudo_header = [&addresses[..], &[0, 0, 0, LENGTH], &[0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo_header[..], &[kind, 0], body].concat()).to_be_bytes();
    let header = [[0x60, 0, 0, 0], [0, LENGTH, ICMPV6, HOP_LIMIT]];
    let packet = [header.as_flattened(), &addresses, &[kind, 0], &sum, body].concat();
    [&[0x33, 0x33, a, b, c, d], &mac, ETHERTYPE_IPV6, &packet].concat()
}

/// Who says in this frame that an address is its own, and which: an ARP packet's sender, or the target of a
/// neighbour advertisement. `None` for every other frame.
pub(super) fn claim(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    match (frame.get(12..14)?, frame.get(14..)?) {
        (ETHERTYPE_ARP, [0, 1, 8, 0, 6, 4, 0, 1 | 2, pairs @ ..]) if pairs.len() >= 20 => {
            let (mac, rest) = pairs.split_first_chunk()?;
            let (address, _) = rest.split_first_chunk::<4>()?;
            Some(((*address).into(), *mac))
        }
        (ETHERTYPE_IPV6, [_, _, _, _, _, _, ICMPV6, 255, ..]) => {
            let message = frame.get(54..).filter(|message| message.starts_with(&[ADVERTISEMENT, 0]))?;
            let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
            // Without the option the sender's own address counts (RFC 4861 §4.4).
            let option = message.get(24..32).filter(|option| option.starts_with(&[2, 1]));
            let mac = option.map_or(frame.get(6..12), |option| option.get(2..))?;
            Some((target.into(), mac.try_into().ok()?))
        }
        _ => None,
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let places = [256, 1].into_iter().cycle();
    let sum: u32 = bytes.iter().zip(places).map(|(byte, place)| u32::from(*byte) * place).sum();
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    // Twice, since the first carry can make another.
    !u16::try_from(fold(fold(sum))).unwrap_or(u16::MAX)
}

#[cfg(test)]
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
        assert_eq!(arp_request(MAC, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 1)), expected);
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
    fn a_solicitation_is_rfc_4861_s() {
        let source: Ipv6Addr = "fe80::1".parse().unwrap();
        let frame = neighbour_solicitation(MAC, source, "2001:db8::12:3456".parse().unwrap());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(frame[38..54], group.octets());
        assert_eq!(frame[54..56], [135, 0]);
        // A receiver's sum over everything, the sum itself included, is zero.
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo[..], &frame[54..]].concat()), 0);
        assert_eq!(claim(&frame), None, "asking is not claiming");
    }

    #[test]
    fn a_claim_is_told_by_what_announces_it() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(claim(&arp_request(MAC, address, address)), Some((address.into(), MAC)));
        let six: Ipv6Addr = "2001:db8::100".parse().unwrap();
        let frame = neighbour_advertisement(MAC, six, false);
        assert_eq!(claim(&frame), Some((six.into(), MAC)));
        for length in 0..frame.len() {
            // Cut short, it claims nothing or the same, and never panics.
            assert!(matches!(claim(&frame[..length]), None | Some((_, MAC))));
        }
        assert_eq!(claim(&[0; 60]), None);
    }
}
