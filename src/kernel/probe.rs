//! Asks the network who else answers for an address: ARP requests and neighbour solicitations.
//!
//! Owns the asking and the listening; the bytes are in `frames`, and what an answer means is judged by
//! `status`. Called by `kernel` on behalf of `status --probe` only: a role change asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::announce::{links, send};
use super::error::{Error, Operation};
use super::frames::{arp_request, claim, neighbour_solicitation};
use crate::model::{AddressKey, Claims, Mac};

/// How long answers are waited for; asked twice in that time.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Room for what a busy link brings besides the answers.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;

/// Asks for every address on its interface; answers of this host are not among them.
pub(super) fn probe(addresses: &BTreeSet<AddressKey>) -> Claims {
    let mut by_interface: BTreeMap<&str, Vec<&AddressKey>> = BTreeMap::new();
    for key in addresses {
        by_interface.entry(&key.interface).or_default().push(key);
    }
    let mut claims = Claims::new();
    for (interface, keys) in by_interface {
        let asked = Link::open(interface).and_then(|link| link.ask(&keys));
        for key in keys {
            let told = match &asked {
                Ok(found) => {
                    Ok(found.get(&key.address).map(|macs| macs.iter().copied().collect()).unwrap_or_default())
                }
                Err(errno) => Err(Error::new(Operation::Probing, key, *errno).to_string()),
            };
            claims.insert(key.clone(), told);
        }
    }
    claims
}

struct Link {
    socket: OwnedFd,
    link: LinkAddr,
    mac: Mac,
    /// Own addresses, with which to ask.
    ipv4: Option<Ipv4Addr>,
    link_local: Option<Ipv6Addr>,
}

impl Link {
    fn open(interface: &str) -> nix::Result<Self> {
        let (_, link) = links()?.into_iter().find(|(name, _)| name == interface).ok_or(Errno::ENODEV)?;
        let mac =
            link.addr().filter(|_| link.hatype() == libc::ARPHRD_ETHER).ok_or(Errno::EPROTONOSUPPORT)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        bind(socket.as_raw_fd(), &link)?;
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_QUEUE);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        let mut this = Self { socket, link, mac, ipv4: None, link_local: None };
        for entry in getifaddrs()?.filter(|entry| entry.interface_name == interface) {
            let Some(address) = entry.address else { continue };
            if let Some(address) = address.as_sockaddr_in() {
                this.ipv4.get_or_insert(address.ip());
            }
            let address = address.as_sockaddr_in6().map(|address| address.ip());
            if let Some(address) = address.filter(Ipv6Addr::is_unicast_link_local) {
                this.link_local.get_or_insert(address);
            }
        }
        Ok(this)
    }

    fn ask(&self, keys: &[&AddressKey]) -> nix::Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
        let mut found: BTreeMap<IpAddr, BTreeSet<Mac>> = BTreeMap::new();
        let begun = Instant::now();
        for round in 1..=2 {
            for key in keys {
                self.question(key)?;
            }
            self.listen(begun + PATIENCE * round / 2, |address, mac| {
                if keys.iter().any(|key| key.address == address) {
                    found.entry(address).or_default().insert(mac);
                }
            })?;
        }
        Ok(found)
    }

    fn question(&self, key: &AddressKey) -> nix::Result<()> {
        match key.address {
            // With an own address: from 0.0.0.0 it would be a duplicate's probe (RFC 5227 §2.1.1), on which a
            // host that is just taking the address over would give up. The VIP as sender would announce it.
            IpAddr::V4(target) => {
                let sender = self.ipv4.filter(|own| *own != target).ok_or(Errno::EADDRNOTAVAIL)?;
                send(&self.socket, &self.link, &arp_request(self.mac, sender, target))
            }
            // For the same reason not from the unspecified address (RFC 4862 §5.4.3).
            IpAddr::V6(target) => {
                let source = self.link_local.ok_or(Errno::EADDRNOTAVAIL)?;
                send(&self.socket, &self.link, &neighbour_solicitation(self.mac, source, target))
            }
        }
    }

    fn listen(&self, until: Instant, mut each: impl FnMut(IpAddr, Mac)) -> nix::Result<()> {
        let mut frame = [0; 2048];
        while Instant::now() < until {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => {
                    let told = claim(frame.get(..length).unwrap_or_default());
                    if let Some((address, mac)) = told.filter(|(_, mac)| *mac != self.mac) {
                        each(address, mac);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
