//! Asks the network who else answers for an address: ARP requests and neighbour solicitations.
//!
//! Owns the asking and the listening; the bytes are in `frames`, and what an answer means is judged by
//! `status`. Called by `kernel` on behalf of `status --probe` only: a role change asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::announce::send;
use super::error::{Error, Operation};
use super::frames::{arp_request, claim, neighbour_solicitation};
use super::link::{Station, stations};
use crate::model::{AddressKey, Claims, Mac};

/// How long answers are waited for; asked twice in that time.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Room for what a busy link brings besides the answers.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;

/// Asks for every address on its interface; answers of this host are not among them.
pub(super) fn probe(addresses: &BTreeSet<AddressKey>) -> Claims {
    let addresses: Vec<&AddressKey> = addresses.iter().collect();
    let mut claims = Claims::new();
    for keys in addresses.chunk_by(|left, right| left.interface == right.interface) {
        let interface = keys.first().map(|key| key.interface.as_str()).unwrap_or_default();
        let asked = Probe::open(interface).and_then(|probe| probe.ask(keys));
        for key in keys {
            let told = match &asked {
                Ok(found) => Ok(found.get(&key.address).into_iter().flatten().copied().collect()),
                Err(errno) => Err(Error::new(Operation::Probing, key, *errno).to_string()),
            };
            claims.insert((*key).clone(), told);
        }
    }
    claims
}

struct Probe {
    socket: OwnedFd,
    station: Station,
    mac: Mac,
}

impl Probe {
    fn open(interface: &str) -> nix::Result<Self> {
        let station = stations()?.remove(interface).ok_or(Errno::ENODEV)?;
        let mac = station.mac().ok_or(Errno::EPROTONOSUPPORT)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        bind(socket.as_raw_fd(), &station.link)?;
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_QUEUE);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(Self { socket, station, mac })
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

    /// Asks with an own address: from 0.0.0.0 it would be a duplicate's probe (RFC 5227 §2.1.1), on which a host that
    /// is just taking the address over would give up, and from :: as well (RFC 4862 §5.4.3). The VIP as sender would
    /// announce it.
    fn question(&self, key: &AddressKey) -> nix::Result<()> {
        let mut own = self.station.addresses.iter();
        let frame = match key.address {
            IpAddr::V4(target) => own
                .find_map(|own| if let IpAddr::V4(own) = own { Some(*own) } else { None })
                .filter(|own| *own != target)
                .map(|own| arp_request(self.mac, own, target)),
            IpAddr::V6(target) => own
                .filter_map(|own| if let IpAddr::V6(own) = own { Some(*own) } else { None })
                .find(Ipv6Addr::is_unicast_link_local)
                .map(|own| neighbour_solicitation(self.mac, own, target)),
        };
        send(&self.socket, &self.station.link, &frame.ok_or(Errno::EADDRNOTAVAIL)?)
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
