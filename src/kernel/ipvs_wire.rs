//! How services, real servers, timeouts and sync daemons look in netlink messages.
//!
//! Owns writing and reading them, and what is left out where; numbers are in `ipvs_abi`, bytes and lengths in
//! `netlink`. Called by `ipvs`. The kernel parses liberally: unknown attributes are ignored and most values are
//! taken unchecked, so that what is written here must be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::genl::CtrlAttr;
use nix::libc;

use super::ipvs_abi::{FORWARD_MASK, daemon, dest, service, statistics, top};
use super::netlink::{
    Attributes, Malformed, Writer, be16_of, generic_attributes, text_of, u8_of, u16_of, u32_of, u64_of,
};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::observed::{Counters, Rates};

/// The scheduler of a service without one, since Linux 4.2 (`ip_vs_ctl.c`, `ip_vs_add_service`).
pub(super) const NO_SCHEDULER: &str = "none";

pub(super) type Decoded<T> = std::result::Result<T, Malformed>;

/// The attributes of a request that names a service.
pub(super) fn service_key(key: &ServiceKey) -> Writer {
    let mut attributes = Writer::default();
    put_service(&mut attributes, key, None);
    attributes
}

fn family_number(family: Family) -> [u8; 2] {
    match family {
        Family::Ipv4 => (libc::AF_INET as u16).to_ne_bytes(),
        Family::Ipv6 => (libc::AF_INET6 as u16).to_ne_bytes(),
    }
}

/// `union nf_inet_addr`: IPv4 in the first four of 16 bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A service: its key alone, or all of it with this scheduler. The kernel wants all of it for a change, too.
pub(super) fn put_service(to: &mut Writer, key: &ServiceKey, settings: Option<(&Service, &str)>) {
    to.nest(top::SERVICE, |to| {
        to.put(service::FAMILY, &family_number(key.family()));
        match key {
            ServiceKey::Endpoint { address, port, protocol } => to
                .put(service::PROTOCOL, &protocol.0.to_ne_bytes())
                .put(service::ADDRESS, &address_bytes(*address))
                .put(service::PORT, &port.to_be_bytes()),
            ServiceKey::Fwmark { mark, .. } => to.put(service::FWMARK, &mark.to_ne_bytes()),
        };
        let Some((settings, scheduler)) = settings else {
            return;
        };
        let netmask = match (key.family(), settings.is_persistent()) {
            (family, false) => Service::full_netmask(family).to_ne_bytes(),
            (Family::Ipv4, true) => settings.netmask.to_be_bytes(),
            (Family::Ipv6, true) => settings.netmask.to_ne_bytes(),
        };
        // Every flag is meant: new = (old & ~mask) | (flags & mask).
        let [f0, f1, f2, f3] = (settings.flags & !service_flag::HASHED).to_ne_bytes();
        to.put_text(service::SCHEDULER, scheduler)
            .put(service::FLAGS, &[f0, f1, f2, f3, 0xff, 0xff, 0xff, 0xff])
            .put(service::TIMEOUT, &settings.timeout.to_ne_bytes())
            .put(service::NETMASK, &netmask);
        // Left out of SET_SERVICE, the engine is taken away (ip_vs_edit_service); empty, it is not found.
        if !settings.engine.is_empty() {
            to.put_text(service::ENGINE, &settings.engine);
        }
    });
}

/// A real server: its key alone, or all of it.
pub(super) fn put_server(to: &mut Writer, key: &ServerKey, settings: Option<&RealServer>) {
    to.nest(top::DEST, |to| {
        to.put(dest::FAMILY, &family_number(Family::of(key.address)))
            .put(dest::ADDRESS, &address_bytes(key.address))
            .put(dest::PORT, &key.port.to_be_bytes());
        let Some(settings) = settings else {
            return;
        };
        to.put(dest::FORWARD, &settings.forward.0.to_ne_bytes())
            .put(dest::WEIGHT, &settings.weight.to_ne_bytes())
            .put(dest::UPPER_THRESHOLD, &settings.upper_threshold.to_ne_bytes())
            .put(dest::LOWER_THRESHOLD, &settings.lower_threshold.to_ne_bytes());
        if settings.forward == Forward::TUN {
            to.put(dest::TUNNEL_KIND, &[settings.tunnel.kind])
                .put(dest::TUNNEL_PORT, &settings.tunnel.port.to_be_bytes())
                .put(dest::TUNNEL_FLAGS, &settings.tunnel.checksum.to_ne_bytes());
        }
    });
}

pub(super) fn put_timeouts(to: &mut Writer, timeouts: Timeouts) {
    to.put(top::TIMEOUT_TCP, &timeouts.tcp.to_ne_bytes())
        .put(top::TIMEOUT_TCP_FIN, &timeouts.tcp_fin.to_ne_bytes())
        .put(top::TIMEOUT_UDP, &timeouts.udp.to_ne_bytes());
}

/// A daemon. To stop one the kernel looks at the state alone.
pub(super) fn put_daemon(to: &mut Writer, state: DaemonState, settings: &SyncDaemon) {
    let state: u32 = match state {
        DaemonState::Master => 1,
        DaemonState::Backup => 2,
    };
    to.nest(top::DAEMON, |to| {
        to.put(daemon::STATE, &state.to_ne_bytes())
            .put_text(daemon::INTERFACE, &settings.interface)
            .put(daemon::ID, &u32::from(settings.id).to_ne_bytes());
        for (kind, value) in [(daemon::MAX_LEN, settings.max_len), (daemon::PORT, settings.port)] {
            value.map(|value| to.put(kind, &value.to_ne_bytes()));
        }
        match settings.group {
            Some(IpAddr::V4(group)) => _ = to.put(daemon::GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => _ = to.put(daemon::GROUP6, &group.octets()),
            None => {}
        }
        if let Some(value) = settings.ttl {
            to.put(daemon::TTL, &[value]);
        }
    });
}

/// The attributes of one object by their kinds, none of which is above 15.
struct Fields<'a>([Option<&'a [u8]>; 16]);

impl<'a> Fields<'a> {
    fn of(attributes: Attributes<'a>) -> Decoded<Self> {
        let mut fields = [None; 16];
        for attribute in attributes {
            let (kind, value) = attribute?;
            if let Some(field) = fields.get_mut(usize::from(kind)) {
                *field = Some(value);
            }
        }
        Ok(Self(fields))
    }

    /// Those of a reply, or inside an attribute of it.
    fn inside(payload: &'a [u8], kind: u16) -> Decoded<Self> {
        Self::of(generic_attributes(payload)?.nested(kind)?.ok_or(Malformed)?)
    }

    /// What `read` makes of a value, when that is there.
    fn get<T>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<Option<T>> {
        self.0.get(usize::from(kind)).copied().flatten().map(read).transpose()
    }

    /// The same of one that may be left out.
    fn or_default<T: Default>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<T> {
        Ok(self.get(kind, read)?.unwrap_or_default())
    }

    /// The same of one without which the reply makes no sense.
    fn need<T>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<T> {
        self.get(kind, read)?.ok_or(Malformed)
    }
}

pub(super) fn family_id(payload: &[u8]) -> Decoded<u16> {
    Fields::of(generic_attributes(payload)?)?.need(CtrlAttr::FamilyId.into(), u16_of)
}

fn family_of(value: &[u8]) -> Decoded<Option<Family>> {
    Ok(match i32::from(u16_of(value)?) {
        libc::AF_INET => Some(Family::Ipv4),
        libc::AF_INET6 => Some(Family::Ipv6),
        _ => None,
    })
}

/// Reads an address of this family.
fn address_of<'a>(family: Family) -> impl Fn(&'a [u8]) -> Decoded<IpAddr> {
    move |value| match family {
        Family::Ipv4 => {
            value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()).ok_or(Malformed)
        }
        Family::Ipv6 => {
            <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()).map_err(|_| Malformed)
        }
    }
}

/// Reads a service; passes over one of a family that is not known here.
pub(super) fn decode_service(payload: &[u8]) -> Decoded<Option<(ServiceKey, Service)>> {
    let found = Fields::inside(payload, top::SERVICE)?;
    let Some(family) = found.need(service::FAMILY, family_of)? else {
        return Ok(None);
    };
    let key = match found.get(service::FWMARK, u32_of)? {
        Some(mark) => ServiceKey::Fwmark { mark, family },
        None => ServiceKey::Endpoint {
            address: found.need(service::ADDRESS, address_of(family))?,
            port: found.need(service::PORT, be16_of)?,
            protocol: Protocol(found.need(service::PROTOCOL, u16_of)?),
        },
    };
    let scheduler = found.get(service::SCHEDULER, text_of)?.filter(|name| !name.is_empty());
    let flags = found.need(service::FLAGS, |value| u32_of(value.get(..4).unwrap_or_default()))?;
    let netmask = found.need(service::NETMASK, u32_of)?;
    let mut settings = Service {
        scheduler: scheduler.unwrap_or_else(|| NO_SCHEDULER.to_owned()),
        flags: flags & !service_flag::HASHED,
        timeout: found.need(service::TIMEOUT, u32_of)?,
        netmask: if family == Family::Ipv4 { u32::from_be(netmask) } else { netmask },
        engine: found.or_default(service::ENGINE, text_of)?,
    };
    if !settings.is_persistent() {
        settings.timeout = 0;
        settings.netmask = Service::full_netmask(family);
    }
    Ok(Some((key, settings)))
}

/// Reads a real server of a service of this family; passes over one of a family that is not known here.
pub(super) fn decode_server(
    payload: &[u8],
    of: Family,
) -> Decoded<Option<(ServerKey, RealServer, Counters)>> {
    let found = Fields::inside(payload, top::DEST)?;
    let Some(family) = found.get(dest::FAMILY, family_of)?.unwrap_or(Some(of)) else {
        return Ok(None);
    };
    let key = Endpoint {
        address: found.need(dest::ADDRESS, address_of(family))?,
        port: found.need(dest::PORT, be16_of)?,
    };
    let forward = Forward(found.need(dest::FORWARD, u32_of)? & FORWARD_MASK);
    let tunnel = Tunnel {
        kind: found.or_default(dest::TUNNEL_KIND, u8_of)?,
        port: found.or_default(dest::TUNNEL_PORT, be16_of)?,
        checksum: found.or_default(dest::TUNNEL_FLAGS, u16_of)?,
    };
    let settings = RealServer {
        forward,
        weight: found.need(dest::WEIGHT, u32_of)?,
        upper_threshold: found.or_default(dest::UPPER_THRESHOLD, u32_of)?,
        lower_threshold: found.or_default(dest::LOWER_THRESHOLD, u32_of)?,
        tunnel: if forward == Forward::TUN { tunnel } else { Tunnel::default() },
    };
    let counters = Counters {
        active: found.or_default(dest::ACTIVE, u32_of)?,
        inactive: found.or_default(dest::INACTIVE, u32_of)?,
        persistent: found.or_default(dest::PERSISTENT, u32_of)?,
        rates: found.or_default(dest::STATISTICS, decode_rates)?,
    };
    Ok(Some((key, settings, counters)))
}

fn decode_rates(value: &[u8]) -> Decoded<Rates> {
    let found = Fields::of(Attributes::new(value))?;
    Ok(Rates {
        connections: found.or_default(statistics::CONNECTIONS, u64_of)?,
        bytes_in: found.or_default(statistics::BYTES_IN, u64_of)?,
        bytes_out: found.or_default(statistics::BYTES_OUT, u64_of)?,
    })
}

/// Reads a sync daemon.
pub(super) fn decode_daemon(payload: &[u8]) -> Decoded<Option<(DaemonState, SyncDaemon)>> {
    let found = Fields::inside(payload, top::DAEMON)?;
    let state = match found.need(daemon::STATE, u32_of)? {
        1 => DaemonState::Master,
        2 => DaemonState::Backup,
        _ => return Ok(None),
    };
    let v4 = found.get(daemon::GROUP, address_of(Family::Ipv4))?;
    let settings = SyncDaemon {
        interface: found.or_default(daemon::INTERFACE, text_of)?,
        id: u8::try_from(found.or_default(daemon::ID, u32_of)? & 0xff).map_err(|_| Malformed)?,
        max_len: found.get(daemon::MAX_LEN, u16_of)?,
        group: v4.or(found.get(daemon::GROUP6, address_of(Family::Ipv6))?),
        port: found.get(daemon::PORT, u16_of)?,
        ttl: found.get(daemon::TTL, u8_of)?,
    };
    Ok(Some((state, settings)))
}

/// Reads the timeouts; the kernel leaves out those of protocols that it was built without.
pub(super) fn decode_timeouts(payload: &[u8]) -> Decoded<Timeouts> {
    let found = Fields::of(generic_attributes(payload)?)?;
    Ok(Timeouts {
        tcp: found.or_default(top::TIMEOUT_TCP, u32_of)?,
        tcp_fin: found.or_default(top::TIMEOUT_TCP_FIN, u32_of)?,
        udp: found.or_default(top::TIMEOUT_UDP, u32_of)?,
    })
}

/// Reads any bytes as every kind of reply: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn decode_all(payload: &[u8]) {
    let _ = decode_service(payload);
    let _ = decode_server(payload, Family::Ipv4);
    let _ = decode_server(payload, Family::Ipv6);
    let _ = decode_daemon(payload);
    let _ = decode_timeouts(payload);
    let _ = family_id(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::super::netlink::Message;
    use super::*;

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn any_key() -> impl Strategy<Value = ServiceKey> {
        prop_oneof![
            (any_address(), any::<u16>(), prop::sample::select(vec![6u16, 17, 132, 47])).prop_map(
                |(address, port, protocol)| ServiceKey::Endpoint {
                    address,
                    port,
                    protocol: Protocol(protocol)
                }
            ),
            (1u32.., prop::sample::select(vec![Family::Ipv4, Family::Ipv6]))
                .prop_map(|(mark, family)| ServiceKey::Fwmark { mark, family }),
        ]
    }

    fn any_service() -> impl Strategy<Value = (ServiceKey, Service)> {
        (any_key(), "[a-z]{1,15}", any::<u32>(), any::<u32>(), any::<u32>(), "(sip)?").prop_map(
            |(key, scheduler, flags, timeout, netmask, engine)| {
                let mut settings =
                    Service { scheduler, flags: flags & !service_flag::HASHED, timeout, netmask, engine };
                if !settings.is_persistent() {
                    settings.timeout = 0;
                    settings.netmask = Service::full_netmask(key.family());
                }
                (key, settings)
            },
        )
    }

    fn any_server() -> impl Strategy<Value = (ServerKey, RealServer)> {
        let key = (any_address(), any::<u16>()).prop_map(|(address, port)| Endpoint { address, port });
        let tunnel = (0u8..3, any::<u16>(), 0u16..3).prop_map(|(kind, port, checksum)| Tunnel {
            kind,
            port,
            checksum,
        });
        (key, 0u32..8, any::<u32>(), any::<u32>(), any::<u32>(), tunnel).prop_map(
            |(key, forward, weight, upper_threshold, lower_threshold, tunnel)| {
                let forward = Forward(forward);
                let tunnel = if forward == Forward::TUN { tunnel } else { Tunnel::default() };
                (key, RealServer { forward, weight, upper_threshold, lower_threshold, tunnel })
            },
        )
    }

    fn any_daemon() -> impl Strategy<Value = (DaemonState, SyncDaemon)> {
        let state = prop::sample::select(vec![DaemonState::Master, DaemonState::Backup]);
        (
            state,
            "[a-z0-9.]{1,15}",
            any::<u8>(),
            any::<Option<u16>>(),
            prop::option::of(any_address()),
            any::<Option<u16>>(),
            any::<Option<u8>>(),
        )
            .prop_map(|(state, interface, id, max_len, group, port, ttl)| {
                (state, SyncDaemon { interface, id, max_len, group, port, ttl })
            })
    }

    /// A reply as the kernel would send it for what was written.
    fn reply(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut attributes = Writer::default();
        fill(&mut attributes);
        Message::generic(30, 1, attributes).body
    }

    proptest! {
        #[test]
        fn a_service_is_read_as_it_was_written((key, settings) in any_service()) {
            let payload = reply(|to| put_service(to, &key, Some((&settings, &settings.scheduler))));
            prop_assert_eq!(decode_service(&payload), Ok(Some((key, settings))));
        }

        #[test]
        fn a_server_is_read_as_it_was_written((key, settings) in any_server()) {
            let payload = reply(|to| put_server(to, &key, Some(&settings)));
            prop_assert_eq!(
                decode_server(&payload, Family::of(key.address)),
                Ok(Some((key, settings, Counters::default())))
            );
        }

        #[test]
        fn a_daemon_is_read_as_it_was_written((state, settings) in any_daemon()) {
            let payload = reply(|to| put_daemon(to, state, &settings));
            prop_assert_eq!(decode_daemon(&payload), Ok(Some((state, settings))));
        }

        #[test]
        fn timeouts_are_read_as_they_were_written(tcp: u32, tcp_fin: u32, udp: u32) {
            let timeouts = Timeouts { tcp, tcp_fin, udp };
            prop_assert_eq!(decode_timeouts(&reply(|to| put_timeouts(to, timeouts))), Ok(timeouts));
        }

        #[test]
        fn no_reply_makes_it_panic(
            (key, settings) in any_service(),
            (server, server_settings) in any_server(),
            (state, daemon) in any_daemon(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let replies = [
                reply(|to| put_service(to, &key, Some((&settings, &settings.scheduler)))),
                reply(|to| put_server(to, &server, Some(&server_settings))),
                reply(|to| put_daemon(to, state, &daemon)),
            ];
            for mut reply in replies {
                for length in 0..reply.len() {
                    decode_all(&reply[..length]);
                }
                for (at, value) in &changes {
                    let at = at.index(reply.len());
                    reply[at] = *value;
                    decode_all(&reply);
                }
            }
        }
    }

    fn vip() -> ServiceKey {
        ServiceKey::Endpoint {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: 80,
            protocol: Protocol::TCP,
        }
    }

    /// A service as Linux 6.12 on x86-64 gives it, byte by byte.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_service_has_the_kernel_s_layout() {
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0,                                             // command, version
            96, 0, 1, 0,                                            // IPVS_CMD_ATTR_SERVICE
            6, 0, 1, 0, 2, 0, 0, 0,                                 // AF_INET
            6, 0, 2, 0, 6, 0, 0, 0,                                 // TCP
            20, 0, 3, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 4, 0, 0, 80, 0, 0,                                // port, network order
            8, 0, 6, 0, b'w', b'r', b'r', 0,
            12, 0, 7, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,        // persistent; every flag is meant
            8, 0, 8, 0, 44, 1, 0, 0,                                // 300 seconds
            8, 0, 9, 0, 255, 255, 255, 0,                           // mask, network order
            8, 0, 11, 0, b's', b'i', b'p', 0,
        ];
        let service = Service {
            scheduler: "wrr".to_owned(),
            flags: service_flag::PERSISTENT,
            timeout: 300,
            netmask: 0xffff_ff00,
            engine: "sip".to_owned(),
        };
        let payload = reply(|to| put_service(to, &vip(), Some((&service, "wrr"))));
        let mut expected = expected.to_vec();
        expected[4] = u8::try_from(expected.len() - 4).unwrap();
        assert_eq!(payload, expected);
        // What the kernel adds: its own flag, and the bytes of statistics that nobody asked for.
        let hashed = payload.iter().zip(0..).map(|(byte, at)| if at == 64 { byte | 2 } else { *byte });
        let hashed: Vec<u8> = hashed.collect();
        assert_ne!(hashed, payload);
        assert_eq!(decode_service(&hashed), Ok(Some((vip(), service))));
    }
}
