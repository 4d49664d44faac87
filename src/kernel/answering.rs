//! Whether a neighbour that asks for an address is answered, as `arp_process()` (`net/ipv4/arp.c`) and `ndisc_recv_ns()`
//! (`net/ipv6/ndisc.c`) decide it.
//!
//! Owns which link gets the question, the kernel's route for it, and the parameters in the kernel's order. Leaves the
//! words to `status`. Called by `kernel`.

use std::net::{IpAddr, Ipv4Addr};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Nda, Rta, Rtm, Rtn};
use nix::errno::Errno;
use nix::libc::{RT_SCOPE_HOST, RT_SCOPE_LINK};

use super::link::family_number;
use super::netlink::{Answer, Datagram, Socket, contents};
use super::sysctl;
use crate::model::{AddressKey, Family};
use crate::observed::{Fate, Interface, Observed, ObservedAddress};

/// The link that gets a question for this address by its interface, and what it makes of it. `observed` has all links.
pub(super) fn heard(socket: &mut Socket, observed: &Observed, key: &AddressKey) -> Option<(String, Fate)> {
    let links = &observed.interfaces;
    let mut first = links.get(&key.interface)?;
    // A port's packets are its master's (`rx_handler`), but for a VRF's; a macvlan hears what its lower link hears.
    let master = |port: &Interface| links.values().find(|link| link.index == port.master && !link.vrf);
    while let Some(master) = master(first).filter(|_| first.works()) {
        first = master;
    }
    let beside = |link: &&Interface| link.wire == first.wire && *link != first && master(link).is_none();
    let all = [first].into_iter().chain(links.values().filter(beside));
    // Whoever answers, or else the interface.
    let all = all.map(|link| (link.name.clone(), fate(socket, observed, link, key.address)));
    all.min_by_key(|(_, fate)| !fate.answers())
}

fn fate(socket: &mut Socket, observed: &Observed, link: &Interface, address: IpAddr) -> Fate {
    let Interface { index, name, .. } = link;
    let on =
        |name: &str| observed.addresses.iter().filter(|own| own.key.interface == name).collect::<Vec<_>>();
    let stands = on(name).into_iter().find(|own| own.key.address == address);
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let value = |of: &str, parameter| -> u32 {
        let found = sysctl::read_parts(&["net", family, "conf", of, parameter]).ok().flatten();
        found.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let set = |parameter| value("all", parameter).max(value(name, parameter));
    let vip = match (address, stands) {
        _ if !link.works() => return Fate::Deaf,
        _ if link.noarp => return Fate::Noarp,
        (IpAddr::V4(vip), _) => vip,
        // An address of its VRF is looked for as well, but nobody listens to the multicast group of such a question.
        (_, Some(own)) => return if own.nature.tentative { Fate::Tentative } else { Fate::Stands },
        _ if value(name, "forwarding").min(set("proxy_ndp")) == 0 => return Fate::Absent,
        _ => return if proxied(socket, *index, address) { Fate::Proxied } else { Fate::Absent },
    };
    // A neighbour in the VIP's network, or else in another of the link; none that is this host itself.
    let networks: Vec<_> = on(name).into_iter().filter(|own| own.prefix < 32).collect();
    let near = networks.iter().any(|own| is_in(vip, own));
    let base = networks.iter().find_map(|own| own.nature.network.filter(|_| !near)).unwrap_or(vip);
    let vrf = observed.interfaces.values().find(|other| other.vrf && other.index == link.master);
    let vrf = vrf.map_or(0, |vrf| vrf.index);
    let senders = (0..8).map(|bit| Ipv4Addr::from_bits(base.to_bits() ^ (1 << bit)));
    let senders = senders.filter(|sender| observed.addresses.iter().all(|own| own.key.address != *sender));
    let mut asked = senders.map(|sender| {
        let found = route(socket, vip, sender, Rta::Iif, *index);
        // This host itself by a route, or nobody: not a neighbour that rp_filter refuses.
        let is_none = matches!(&found, Err(failure) if failure.is(&[Errno::EINVAL]))
            && matches!(
                route(socket, sender, Ipv4Addr::UNSPECIFIED, Rta::Oif, vrf),
                Ok((Rtn::Local | Rtn::Broadcast, _))
            );
        (sender, found, is_none)
    });
    let Some((sender, found, _)) = asked.find(|(.., is_none)| !is_none) else { return Fate::Absent };
    // `confirm_addr_indev()` in `net/ipv4/devinet.c`
    let confirms = |on: &[&ObservedAddress], sender: Ipv4Addr, scope: u8| {
        on.iter().any(|own| own.key.address == address && own.nature.scope <= scope)
            && on.iter().any(|own| is_in(vip, own) && is_in(sender, own))
    };
    let leaves =
        |socket: &mut Socket| route(socket, sender, vip, Rta::Oif, vrf).is_ok_and(|(_, by)| by == *index);
    let ignore = set("arp_ignore");
    // Up to Linux 5.10 `all` counts nothing (`include/linux/inetdevice.h`).
    let pvlan = "proxy_arp_pvlan";
    let pvlan = if release() < (5, 11) { value(name, pvlan) } else { set(pvlan) };
    let hidden = match ignore {
        1 => !confirms(&on(name), vip, RT_SCOPE_HOST),
        2 => !confirms(&on(name), sender, RT_SCOPE_HOST),
        3 => !observed.interfaces.keys().any(|any| confirms(&on(any), vip, RT_SCOPE_LINK)),
        other => other == 8,
    };
    match found {
        Ok((Rtn::Local, _)) if hidden => Fate::Ignored(ignore),
        Ok((Rtn::Local, _)) if set("arp_filter") > 0 && !leaves(socket) => {
            Fate::Filtered("arp_filter".to_owned(), sender)
        }
        Ok((Rtn::Local, _)) if stands.is_some() => Fate::Stands,
        Ok((Rtn::Local, _)) => Fate::Local(ignore),
        Ok((Rtn::Unicast, by)) if by == *index && pvlan > 0 => Fate::Proxied,
        Ok((Rtn::Unicast, by)) if by != *index && set("proxy_arp") > 0 => Fate::Proxied,
        Ok((Rtn::Unicast, by)) if by != *index && proxied(socket, *index, address) => Fate::Proxied,
        // Since Linux 6.14 every refusal is EINVAL.
        Err(failure) if failure.is(&[Errno::EXDEV, Errno::EINVAL]) && set("rp_filter") > 0 => {
            Fate::Filtered("rp_filter".to_owned(), sender)
        }
        _ => Fate::Absent,
    }
}

/// The kernel's version, as far as it has numbers.
fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0))
}

/// `inet_ifa_match()`
fn is_in(address: Ipv4Addr, own: &ObservedAddress) -> bool {
    let differ = own.nature.network.map(|network| network.to_bits() ^ address.to_bits());
    differ.is_some_and(|differ| u64::from(differ) >> 32_u8.saturating_sub(own.prefix) == 0)
}

/// The kind and the link of the route between two addresses, for a packet that comes in, or goes out, by a link.
fn route(socket: &mut Socket, to: Ipv4Addr, from: Ipv4Addr, by: Rta, link: u32) -> Answer<(Rtn, u32)> {
    let asked = [[family_number(Family::Ipv4), 32, 32, 0], [0; 4], [0; 4]];
    let mut asked = Datagram::of(Rtm::Getroute, NlmF::ACK, &asked);
    asked.put(Rta::Dst, to.octets()).put(Rta::Src, from.octets());
    let found = socket.request(asked.put(by, link.to_ne_bytes()))?;
    let ([_, [.., kind], _], found) = contents(&found)?;
    Ok((kind.into(), found.or_default(Rta::Oif)?))
}

/// Whether the link answers for this address of somebody else's (`ip neigh add proxy`).
fn proxied(socket: &mut Socket, link: u32, address: IpAddr) -> bool {
    // With the flag NTF_PROXY
    let asked = [[family_number(Family::of(address)), 0, 0, 0], link.to_ne_bytes(), [0, 0, 8, 0]];
    socket.request(Datagram::of(Rtm::Getneigh, NlmF::ACK, &asked).put_ip(Nda::Dst, address)).is_ok()
}
