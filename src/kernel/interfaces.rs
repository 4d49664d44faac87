//! This host's interfaces and addresses, as getifaddrs(3) lists them.
//!
//! Owns the list for `check::facts`, which needs no rights for it; what a plan is made of is read by `addr`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// Interface, address and prefix length.
pub type Bound = (String, IpAddr, u8);

/// Interfaces, and whether they are up with a carrier; and their addresses. What cannot be read is absent.
pub fn interfaces() -> (BTreeMap<String, bool>, Vec<Bound>) {
    let (mut interfaces, mut addresses) = (BTreeMap::new(), Vec::new());
    for entry in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let up = entry.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        interfaces.insert(entry.interface_name.clone(), up);
        if let (Some(address), Some(mask)) = (ip(entry.address), ip(entry.netmask)) {
            let ones = match mask {
                IpAddr::V4(mask) => u32::from(mask).count_ones(),
                IpAddr::V6(mask) => u128::from(mask).count_ones(),
            };
            addresses.push((entry.interface_name, address, u8::try_from(ones).unwrap_or(0)));
        }
    }
    addresses.sort();
    (interfaces, addresses)
}

fn ip(address: Option<SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
