//! Reading IPv4 real servers by IPVS's socket options, which takes one system call per service.
//!
//! By generic netlink every service costs a dump: a request, two answers, and 32 KiB of memory in the kernel for each,
//! together nearly three times what adding the service costs. The older interface copies the same lists in a twentieth
//! of that. It cannot show everything, so it is trusted only when the number of real servers that the kernel counts and
//! the list agree, and none of them is a tunnel. In every other case, and on a kernel that refuses, the answer is
//! `None` and `ipvs` asks again by netlink.
//!
//! Owns how questions and answers look; services themselves, whose persistence engine does not appear here, and
//! everything of IPv6 are `ipvs`'s. Called by `ipvs`.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::ipvs_abi::FORWARD_MASK;
use super::ipvs_abi::sockopt::{
    GET_DESTS, GET_INFO, GET_SERVICES, Info, Server, Servers, Service, Services, Statistics,
};
use super::netlink::get_option;
use crate::model::{Endpoint, Family, Forward, Protocol, RealServer, ServerKey, ServiceKey, Tunnel};
use crate::observed::{Counters, Rates};

/// The IPv4 services of the network namespace, each with the number of its real servers.
pub(super) struct Table {
    socket: OwnedFd,
    counts: BTreeMap<ServiceKey, usize>,
    buffer: Vec<u8>,
}

impl Table {
    /// Counts; `None` when the kernel does not answer as it should.
    pub(super) fn read() -> Option<Self> {
        // Which socket it is does not matter: the netfilter hook of IPVS has its own range of options.
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
        let mut info = vec![0; size_of::<Info>()];
        ask(&socket, GET_INFO, &mut info)?;
        let services = usize::try_from(u32_at(&info, offset_of!(Info, services))?).ok()?;

        let first = offset_of!(Services, entries);
        let mut buffer = vec![0; first.checked_add(services.checked_mul(size_of::<Service>())?)?];
        put(&mut buffer, offset_of!(Services, count), &u32::try_from(services).ok()?.to_ne_bytes());
        ask(&socket, GET_SERVICES, &mut buffer)?;
        let mut counts = BTreeMap::new();
        for entry in buffer.get(first..)?.chunks_exact(size_of::<Service>()) {
            let key = match u32_at(entry, offset_of!(Service, fwmark))? {
                0 => ServiceKey::Endpoint {
                    address: address_at(entry, offset_of!(Service, address))?,
                    port: port_at(entry, offset_of!(Service, port))?,
                    protocol: Protocol(u16::from_ne_bytes(bytes_at(entry, offset_of!(Service, protocol))?)),
                },
                mark => ServiceKey::Fwmark { mark, family: Family::Ipv4 },
            };
            counts.insert(key, usize::try_from(u32_at(entry, offset_of!(Service, servers))?).ok()?);
        }
        Some(Self { socket, counts, buffer })
    }

    /// The real servers of a service; `None` when this interface cannot tell all about all of them.
    pub(super) fn servers(&mut self, key: &ServiceKey) -> Option<Vec<(ServerKey, RealServer, Counters)>> {
        let count = *self.counts.get(key)?;
        // Room for one more: that it stays empty shows that the list ends where the count says.
        let asked = count.checked_add(1)?;
        let first = offset_of!(Servers, entries);
        self.buffer.clear();
        self.buffer.resize(first.checked_add(asked.checked_mul(size_of::<Server>())?)?, 0);
        match key {
            ServiceKey::Endpoint { address: IpAddr::V4(address), port, protocol } => {
                put(&mut self.buffer, offset_of!(Servers, protocol), &protocol.0.to_ne_bytes());
                put(&mut self.buffer, offset_of!(Servers, address), &address.octets());
                put(&mut self.buffer, offset_of!(Servers, port), &port.to_be_bytes());
            }
            ServiceKey::Fwmark { mark, family: Family::Ipv4 } => {
                put(&mut self.buffer, offset_of!(Servers, fwmark), &mark.to_ne_bytes());
            }
            _ => return None,
        }
        put(&mut self.buffer, offset_of!(Servers, count), &u32::try_from(asked).ok()?.to_ne_bytes());
        ask(&self.socket, GET_DESTS, &mut self.buffer)?;
        let mut entries = self.buffer.get(first..)?.chunks_exact(size_of::<Server>());
        let list = entries.by_ref().take(count).map(server).collect::<Option<_>>()?;
        // No real server has the address 0.0.0.0: `ip_vs_new_dest` refuses it.
        let ended = entries.all(|entry| entry.iter().all(|byte| *byte == 0));
        ended.then_some(list)
    }
}

/// Reads a real server; `None` for an entry that the kernel left empty (one of the other family is not shown),
/// and for a tunnel, whose type is not shown.
fn server(entry: &[u8]) -> Option<(ServerKey, RealServer, Counters)> {
    let field = |offset: usize| u32_at(entry, offset);
    let address = address_at(entry, offset_of!(Server, address))?;
    let forward = Forward(field(offset_of!(Server, flags))? & FORWARD_MASK);
    if address.is_unspecified() || forward == Forward::TUN {
        return None;
    }
    let settings = RealServer {
        forward,
        weight: field(offset_of!(Server, weight))?,
        upper_threshold: field(offset_of!(Server, upper_threshold))?,
        lower_threshold: field(offset_of!(Server, lower_threshold))?,
        tunnel: Tunnel::default(),
    };
    let rates = offset_of!(Server, statistics) + offset_of!(Statistics, rates);
    let rate = |number: usize| field(rates + 4 * number).map(u64::from);
    let counters = Counters {
        active: field(offset_of!(Server, active))?,
        inactive: field(offset_of!(Server, inactive))?,
        persistent: field(offset_of!(Server, persistent))?,
        rates: Rates { connections: rate(0)?, bytes_in: rate(3)?, bytes_out: rate(4)? },
    };
    let port = port_at(entry, offset_of!(Server, port))?;
    Some((Endpoint { address, port }, settings, counters))
}

fn ask(socket: &OwnedFd, name: i32, value: &mut [u8]) -> Option<()> {
    get_option(socket.as_raw_fd(), libc::IPPROTO_IP, name, value).ok()
}

fn put(to: &mut [u8], offset: usize, value: &[u8]) {
    to.iter_mut().skip(offset).zip(value).for_each(|(to, from)| *to = *from);
}

fn bytes_at<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_ne_bytes)
}

fn port_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_be_bytes)
}

fn address_at(bytes: &[u8], offset: usize) -> Option<IpAddr> {
    bytes_at::<4>(bytes, offset).map(|octets| Ipv4Addr::from(octets).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Sizes and places as a C compiler has them on x86-64 for `linux/ip_vs.h`.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn layouts_are_the_kernel_s() {
        assert_eq!((size_of::<Info>(), offset_of!(Info, services)), (12, 8));
        assert_eq!((size_of::<Service>(), offset_of!(Services, entries)), (104, 8));
        assert_eq!((offset_of!(Service, fwmark), offset_of!(Service, servers)), (12, 44));
        assert_eq!((size_of::<Server>(), offset_of!(Servers, entries)), (96, 24));
        assert_eq!((offset_of!(Servers, fwmark), offset_of!(Servers, count)), (12, 16));
        assert_eq!((offset_of!(Server, weight), offset_of!(Server, persistent)), (12, 32));
    }

    #[test]
    fn a_server_is_read_and_a_tunnel_or_an_empty_place_is_not() {
        let mut entry = vec![0; size_of::<Server>()];
        assert_eq!(server(&entry), None);
        put(&mut entry, offset_of!(Server, address), &[192, 0, 2, 11]);
        put(&mut entry, offset_of!(Server, port), &80u16.to_be_bytes());
        put(&mut entry, offset_of!(Server, flags), &0x103u32.to_ne_bytes());
        put(&mut entry, offset_of!(Server, weight), &7u32.to_ne_bytes());
        put(&mut entry, offset_of!(Server, inactive), &5u32.to_ne_bytes());
        let (key, settings, counters) = server(&entry).unwrap();
        assert_eq!(key.to_string(), "192.0.2.11:80");
        assert_eq!((settings.forward, settings.weight, counters.inactive), (Forward::DR, 7, 5));
        put(&mut entry, offset_of!(Server, flags), &0x102u32.to_ne_bytes());
        assert_eq!(server(&entry), None);
        assert_eq!(server(entry.get(..90).unwrap()).map(|_| ()), None);
        for length in 0..size_of::<Server>() {
            let _ = server(entry.get(..length).unwrap());
        }
    }
}
