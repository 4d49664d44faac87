//! Reading IPv4 real servers by IPVS's socket options, two system calls for each service.
//!
//! By generic netlink every service costs a dump, with 32 KiB of the kernel's memory for each answer: twenty times as
//! much. The older interface knows IPv4 only, and no tunnels, so it is trusted only when the kernel's count of real
//! servers and the list agree, and none of them is a tunnel. Otherwise, and on a kernel that refuses, the answer is
//! `None`, and `ipvs`, which calls this and owns all the rest, asks by netlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::ipvs_wire::FORWARD_MASK;
use crate::model::{Endpoint, Family, Forward, RealServer, ServerKey, ServiceKey, Tunnel};
use crate::observed::{Counters, Rates};

/// `IP_VS_SO_GET_INFO`: version, size of the connection table, number of IPv4 services.
const GET_INFO: i32 = 1153;
/// `IP_VS_SO_GET_SERVICE`: [`SERVICE`] words are question and answer.
const GET_SERVICE: i32 = 1155;
/// `IP_VS_SO_GET_DESTS`: [`SERVERS`] words are the question; so many times [`SERVER`] words behind it are the answer.
const GET_DESTS: i32 = 1156;

/// Words of four bytes in the kernel's structures (`linux/ip_vs.h`); where it has other sizes, it refuses these. Addresses
/// and ports are in network order, a number of 16 bits is in a word's first half.
///
/// `struct ip_vs_service_entry`: protocol, address, port, mark; scheduler (4 words), flags, timeout, netmask, number of
/// real servers; statistics.
const SERVICE: usize = 26;
/// `struct ip_vs_get_dests`: begins as a service does, then the number of real servers, and a word that is not used.
const SERVERS: usize = 6;
/// `struct ip_vs_dest_entry`, which [`server`] takes apart: its statistics are connections, packets in and out, bytes in
/// and out (2 words each), and the same in a second (a word each), between words that are not used.
const SERVER: usize = 24;

/// Access to the older interface in the network namespace in which this was opened.
pub(super) struct Table(OwnedFd);

impl Table {
    /// Opens a socket; which one does not matter: the netfilter hook of IPVS has its own range of options.
    pub(super) fn open() -> Option<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok().map(Self)
    }

    /// How many IPv4 services this network namespace has.
    pub(super) fn count(&self) -> Option<usize> {
        let mut info = [0; 3];
        self.ask(GET_INFO, &mut info)?;
        let [_version, _size, services] = info;
        services.try_into().ok()
    }

    /// The real servers of a service; `None` when this interface cannot tell all about all of them.
    pub(super) fn servers(&self, key: &ServiceKey) -> Option<Vec<(ServerKey, RealServer, Counters)>> {
        let (protocol, address, port, mark) = match *key {
            ServiceKey::Endpoint { address: IpAddr::V4(address), port, protocol } => {
                (protocol.0, address, port, 0)
            }
            ServiceKey::Fwmark { mark, family: Family::Ipv4 } => (0, Ipv4Addr::UNSPECIFIED, 0, mark),
            _ => return None,
        };
        // As both questions begin
        let half = |[a, b]: [u8; 2]| u32::from_ne_bytes([a, b, 0, 0]);
        let address = u32::from_ne_bytes(address.octets());
        let key = [half(protocol.to_ne_bytes()), address, half(port.to_be_bytes()), mark];
        let mut service = key.to_vec();
        service.resize(SERVICE, 0);
        self.ask(GET_SERVICE, &mut service)?;
        let [_, _, _, _, _, _, _, _, _flags, _timeout, _netmask, count, ..] = *service else { return None };
        // Room for one more: that it stays empty shows that the list ends where the count says.
        let (asked, count) = (count.checked_add(1)?, usize::try_from(count).ok()?);
        let mut list = [&key[..], &[asked, 0]].concat();
        list.resize(count.checked_add(1)?.checked_mul(SERVER)?.checked_add(SERVERS)?, 0);
        self.ask(GET_DESTS, &mut list)?;
        let mut entries = list.get(SERVERS..)?.chunks_exact(SERVER);
        let servers = entries.by_ref().take(count).map(server).collect::<Option<_>>()?;
        // No real server has the address 0.0.0.0: `ip_vs_new_dest` refuses it.
        entries.all(|entry| entry.iter().all(|word| *word == 0)).then_some(servers)
    }

    /// Reads a socket option whose value is also the question; nix has no type for those of IPVS.
    fn ask(&self, name: i32, value: &mut [u32]) -> Option<()> {
        let asked = libc::socklen_t::try_from(size_of_val(value)).ok()?;
        let mut length = asked;
        let to = value.as_mut_ptr().cast();
        // SAFETY: address and length are those of one exclusively borrowed slice, beyond which the kernel neither
        // reads nor writes, and any bytes that it writes are numbers. `length` lives on this stack for the call.
        #[allow(unsafe_code)]
        let result = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::IPPROTO_IP, name, to, &mut length) };
        (result == 0 && length == asked).then_some(())
    }
}

/// Reads a real server; `None` for an entry that the kernel left empty, and for a tunnel, whose type is not shown.
fn server(entry: &[u32]) -> Option<(ServerKey, RealServer, Counters)> {
    let [address, port, flags, weight, upper, lower, active, inactive, persistent] = *entry.first_chunk()?;
    let [connections, _, _, bytes_in, bytes_out, _] = entry.last_chunk()?.map(u64::from);
    let (address, [p0, p1, ..]) = (Ipv4Addr::from(address.to_ne_bytes()), port.to_ne_bytes());
    let forward = Forward(flags & FORWARD_MASK);
    if address.is_unspecified() || forward == Forward::TUN {
        return None;
    }
    let key = Endpoint { address: address.into(), port: u16::from_be_bytes([p0, p1]) };
    let tunnel = Tunnel::default();
    let settings = RealServer { forward, weight, upper_threshold: upper, lower_threshold: lower, tunnel };
    let rates = Rates { connections, bytes_in, bytes_out };
    Some((key, settings, Counters { active, inactive, persistent, rates }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_and_a_tunnel_or_an_empty_place_is_not() {
        let mut entry = vec![0; SERVER];
        assert_eq!(server(&entry), None);
        let port = [80u16.to_be_bytes(), [0; 2]];
        entry[..2].copy_from_slice(
            &[[192, 0, 2, 11], port.as_flattened().try_into().unwrap()].map(u32::from_ne_bytes),
        );
        entry[2..9].copy_from_slice(&[0x103, 7, 20, 10, 4, 5, 6]);
        // As a C compiler has them on x86-64: cps, inbps, outbps
        [entry[18], entry[21], entry[22]] = [100, 2000, 30000];
        let (key, settings, counters) = server(&entry).unwrap();
        assert_eq!(key.to_string(), "192.0.2.11:80");
        assert_eq!((settings.forward, settings.weight), (Forward::DR, 7));
        assert_eq!((settings.upper_threshold, settings.lower_threshold), (20, 10));
        assert_eq!((counters.active, counters.inactive, counters.persistent), (4, 5, 6));
        let rates = counters.rates;
        assert_eq!((rates.connections, rates.bytes_in, rates.bytes_out), (100, 2000, 30000));
        entry[2] = 0x102;
        assert_eq!(server(&entry), None);
        for length in 0..SERVER {
            let _ = server(&entry[..length]);
        }
    }
}
