//! Reading IPv4 real servers by IPVS's socket options, two system calls for each service.
//!
//! By generic netlink every service costs a dump, with 32 KiB of the kernel's memory for each answer: twenty times as
//! much. The older interface knows IPv4 only, and no tunnels, so it is trusted only when the kernel's count of real
//! servers and the list agree, and none of them is a tunnel. Otherwise, and on a kernel that refuses, the answer is
//! `None`, and `ipvs`, which calls this and owns all the rest, asks by netlink.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::ipvs_wire::FORWARD_MASK;
use crate::model::{Endpoint, Family, Forward, RealServer, ServerKey, ServiceKey, Tunnel};
use crate::observed::{Counters, Rates};

/// `IP_VS_SO_GET_INFO`: version, size of the connection table, number of IPv4 services.
const GET_INFO: i32 = 1153;
/// `IP_VS_SO_GET_SERVICE`: [`Service`] is question and answer.
const GET_SERVICE: i32 = 1155;
/// `IP_VS_SO_GET_DESTS`: [`Servers`] is the question; so many [`Server`]s behind it are the answer.
const GET_DESTS: i32 = 1156;

/// The kernel's layouts (`linux/ip_vs.h`), of which places and sizes are needed.
macro_rules! structures {
    ($($(#[$comment:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {
        $($(#[$comment])* #[repr(C)] struct $name { $($field: $kind),+ })+
    };
}

structures! {
    /// `struct ip_vs_service_entry`; address, port and netmask in network order
    Service {
        protocol: u16, address: u32, port: u16, fwmark: u32, scheduler: [u8; 16], flags: u32,
        timeout: u32, netmask: u32, servers: u32, statistics: Statistics,
    }

    /// `struct ip_vs_get_dests`, which begins as a service does
    Servers { protocol: u16, address: u32, port: u16, fwmark: u32, count: u32, entries: [Server; 0] }

    /// `struct ip_vs_dest_entry`
    Server {
        address: u32, port: u16, flags: u32, weight: i32, upper_threshold: u32, lower_threshold: u32,
        active: u32, inactive: u32, persistent: u32, statistics: Statistics,
    }

    /// `struct ip_vs_stats_user`; rates are connections, packets in and out, bytes in and out, each in a second
    Statistics { packets: [u32; 3], bytes: [u64; 2], rates: [u32; 5] }
}

/// Access to the older interface in the network namespace in which this was opened.
pub(super) struct Table(OwnedFd);

impl Table {
    /// Opens a socket; which one does not matter: the netfilter hook of IPVS has its own range of options.
    pub(super) fn open() -> Option<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok().map(Self)
    }

    /// How many IPv4 services this network namespace has.
    pub(super) fn count(&self) -> Option<usize> {
        let mut info = [0; 12];
        self.ask(GET_INFO, &mut info)?;
        u32_at(&info, 8)?.try_into().ok()
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
        // As both questions begin. Each number has four bytes.
        let [p0, p1, q0, q1] = [protocol.to_ne_bytes(), port.to_be_bytes()].as_flattened().try_into().ok()?;
        let key = [[p0, p1, 0, 0], address.octets(), [q0, q1, 0, 0], mark.to_ne_bytes()];
        let mut service = key.as_flattened().to_vec();
        service.resize(size_of::<Service>(), 0);
        self.ask(GET_SERVICE, &mut service)?;
        let count = u32_at(&service, offset_of!(Service, servers))?;
        // Room for one more: that it stays empty shows that the list ends where the count says.
        let asked = count.checked_add(1)?;
        let mut list = [key.as_flattened(), &asked.to_ne_bytes()].concat();
        let (first, count) = (offset_of!(Servers, entries), usize::try_from(count).ok()?);
        list.resize(count.checked_add(1)?.checked_mul(size_of::<Server>())?.checked_add(first)?, 0);
        self.ask(GET_DESTS, &mut list)?;
        let mut entries = list.get(first..)?.chunks_exact(size_of::<Server>());
        let servers = entries.by_ref().take(count).map(server).collect::<Option<_>>()?;
        // No real server has the address 0.0.0.0: `ip_vs_new_dest` refuses it.
        entries.all(|entry| entry.iter().all(|byte| *byte == 0)).then_some(servers)
    }

    /// Reads a socket option whose value is also the question; nix has no type for those of IPVS.
    fn ask(&self, name: i32, value: &mut [u8]) -> Option<()> {
        let asked = libc::socklen_t::try_from(value.len()).ok()?;
        let mut length = asked;
        let to = value.as_mut_ptr().cast();
        // SAFETY: address and length are those of one exclusively borrowed slice, beyond which the kernel neither
        // reads nor writes, and any bytes that it writes are bytes. `length` lives on this stack for the call.
        #[allow(unsafe_code)]
        let result = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::IPPROTO_IP, name, to, &mut length) };
        (result == 0 && length == asked).then_some(())
    }
}

/// Reads a real server; `None` for an entry that the kernel left empty, and for a tunnel, whose type is not shown.
fn server(entry: &[u8]) -> Option<(ServerKey, RealServer, Counters)> {
    let field = |offset: usize| u32_at(entry, offset);
    let address = Ipv4Addr::from(bytes_at::<4>(entry, offset_of!(Server, address))?);
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
    let rate = |number: usize| field(offset_of!(Server, statistics.rates) + 4 * number).map(u64::from);
    let counters = Counters {
        active: field(offset_of!(Server, active))?,
        inactive: field(offset_of!(Server, inactive))?,
        persistent: field(offset_of!(Server, persistent))?,
        rates: Rates { connections: rate(0)?, bytes_in: rate(3)?, bytes_out: rate(4)? },
    };
    let port = u16::from_be_bytes(bytes_at(entry, offset_of!(Server, port))?);
    Some((Endpoint { address: address.into(), port }, settings, counters))
}

fn bytes_at<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(to: &mut [u8], offset: usize, value: &[u8]) {
        to.iter_mut().skip(offset).zip(value).for_each(|(to, from)| *to = *from);
    }

    /// Sizes and places as a C compiler has them on x86-64 for `linux/ip_vs.h`.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn layouts_are_the_kernel_s() {
        assert_eq!((size_of::<Service>(), offset_of!(Service, servers)), (104, 44));
        assert_eq!((offset_of!(Service, address), offset_of!(Service, port)), (4, 8));
        assert_eq!((offset_of!(Service, fwmark), offset_of!(Service, scheduler)), (12, 16));
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
