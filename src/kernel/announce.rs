//! Announcements: gratuitous ARP and unsolicited neighbour advertisements, on packet sockets.
//!
//! Owns the sending; the bytes are in `frames`. When and how often to announce is decided elsewhere. Called by `kernel`.
//! A packet socket does not ask whether the address is assigned, so that the announcement does not depend on
//! the kernel's own rules for sending ARP, which `arp_announce` and `arp_ignore` bend.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::error::{Error, Operation, Result};
use super::frames::{arp_request, neighbour_advertisement};
use super::link::{Station, stations};
use super::netlink::uninterrupted;
use super::sysctl;
use crate::model::AddressKey;

/// Sends one announcement for each address on its interface, which can be missing, down, or not of a kind that has
/// neighbours: one result per address.
pub(super) fn announce(addresses: &[AddressKey]) -> Vec<Result<()>> {
    if addresses.is_empty() {
        return Vec::new();
    }
    // Without a protocol the socket receives nothing, which is all it is to receive.
    let opened = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| Ok((socket, stations()?)));
    let (socket, stations) = match opened {
        Ok(opened) => opened,
        Err(errno) => {
            let error = |address| Err(Error::new(Operation::Announce, address, errno));
            return addresses.iter().map(error).collect();
        }
    };
    let results = addresses.iter().map(|address| one(&socket, &stations, address)).collect();
    // Closing a packet socket waits for an RCU grace period, some ten milliseconds (af_packet.c,
    // packet_release). The run has better things to do; at its end the wait is over.
    let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(socket));
    results
}

fn one(socket: &OwnedFd, stations: &BTreeMap<String, Station>, key: &AddressKey) -> Result<()> {
    let fail = |errno| Error::new(Operation::Announce, key, errno);
    let station = stations.get(&key.interface).ok_or_else(|| fail(Errno::ENODEV))?;
    let mac = station.mac().ok_or_else(|| {
        let detail = "the interface has no neighbours to tell: it is not an Ethernet link";
        Error::own(Operation::Announce, key, detail, Some("set `interface` to the one that clients reach"))
    })?;
    let frame = match key.address {
        IpAddr::V4(address) => arp_request(mac, address, address),
        IpAddr::V6(address) => neighbour_advertisement(mac, address, forwards(&key.interface)),
    };
    send(socket, &station.link, &frame).map_err(fail)
}

/// Sends one frame.
pub(super) fn send(socket: &OwnedFd, link: &LinkAddr, frame: &[u8]) -> nix::Result<()> {
    uninterrupted(|| sendto(socket.as_raw_fd(), frame, link, MsgFlags::empty())).map(|_| ())
}

/// Whether the interface is a router's. A wrong R flag would make neighbours drop their routes over this node
/// (RFC 4861 §7.2.5: an advertisement without it removes its sender from the lists of default routers).
fn forwards(interface: &str) -> bool {
    let value = sysctl::read_parts(&["net", "ipv6", "conf", interface, "forwarding"]);
    matches!(value, Ok(Some(value)) if value != "0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
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
