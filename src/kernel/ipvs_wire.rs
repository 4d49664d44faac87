//! How services, real servers, timeouts and sync daemons look in netlink messages.
//!
//! Owns the numbers of the interface, mirrored from the kernel's `include/uapi/linux/ip_vs.h`, and writing and reading of
//! objects; bytes and lengths are in `netlink`, flags and forwarding methods in `model`. Called by `ipvs`. The kernel
//! takes most values unchecked, so that what is written here must be right.

use std::net::IpAddr;

use super::link::{family_number, family_of};
use super::netlink::{Answer, Attributes, Datagram, contents, malformed};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::observed::{Counters, Rates};

/// The forwarding method among a real server's flags, `IP_VS_CONN_F_FWD_MASK`.
pub(super) const FORWARD_MASK: u32 = 0x7;

/// Modules of numbers of one kind.
macro_rules! numbers {
    ($($(#[$comment:meta])* $kind:ident $module:ident { $($name:ident = $value:literal),+ $(,)? })+) => {
        $($(#[$comment])* pub(super) mod $module { $(pub(crate) const $name: $kind = $value;)+ })+
    };
}

numbers! {
    /// Commands, `IPVS_CMD_*`.
    u8 command {
        NEW_SERVICE = 1, SET_SERVICE = 2, DEL_SERVICE = 3, GET_SERVICE = 4,
        NEW_DEST = 5, SET_DEST = 6, DEL_DEST = 7, GET_DEST = 8,
        NEW_DAEMON = 9, DEL_DAEMON = 10, GET_DAEMON = 11,
        SET_CONFIG = 12, GET_CONFIG = 13,
    }

    /// Attributes of a message, `IPVS_CMD_ATTR_*`. Timeouts are u32 seconds.
    u16 top {
        SERVICE = 1, DEST = 2, DAEMON = 3,
        TIMEOUT_TCP = 4, TIMEOUT_TCP_FIN = 5, TIMEOUT_UDP = 6,
    }

    /// Attributes of a service, `IPVS_SVC_ATTR_*`. The mere presence of FWMARK makes a fwmark service. NETMASK is an IPv4
    /// mask in network order, or an IPv6 prefix length in host order.
    u16 service {
        FAMILY = 1, PROTOCOL = 2, ADDRESS = 3, PORT = 4, FWMARK = 5,
        SCHEDULER = 6, FLAGS = 7, TIMEOUT = 8, NETMASK = 9, ENGINE = 11,
    }

    /// Attributes of a real server, `IPVS_DEST_ATTR_*`.
    u16 dest {
        ADDRESS = 1, PORT = 2, FORWARD = 3, WEIGHT = 4, UPPER_THRESHOLD = 5, LOWER_THRESHOLD = 6,
        ACTIVE = 7, INACTIVE = 8, PERSISTENT = 9, FAMILY = 11, STATISTICS = 12,
        TUNNEL_KIND = 13, TUNNEL_PORT = 14, TUNNEL_FLAGS = 15,
    }

    /// Attributes of statistics, `IPVS_STATS_ATTR_*`: u64, what passes in a second.
    u16 statistics { CONNECTIONS = 6, BYTES_IN = 9, BYTES_OUT = 10 }

    /// Attributes of a sync daemon, `IPVS_DAEMON_ATTR_*`. PORT is in host order.
    u16 daemon { STATE = 1, INTERFACE = 2, ID = 3, MAX_LEN = 4, GROUP = 5, GROUP6 = 6, PORT = 7, TTL = 8 }
}

/// `union nf_inet_addr`: IPv4 in the first four of 16 bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl Datagram {
    /// A service: its key alone, or all of it with this scheduler. The kernel wants all of it for a change, too.
    pub(super) fn put_service(&mut self, key: &ServiceKey, all: Option<(&Service, &str)>) -> &mut Self {
        self.nest(top::SERVICE, |to| {
            to.put(service::FAMILY, u16::from(family_number(key.family())).to_ne_bytes());
            match key {
                ServiceKey::Endpoint { address, port, protocol } => to
                    .put(service::PROTOCOL, protocol.0.to_ne_bytes())
                    .put(service::ADDRESS, address_bytes(*address))
                    .put(service::PORT, port.to_be_bytes()),
                ServiceKey::Fwmark { mark, .. } => to.put(service::FWMARK, mark.to_ne_bytes()),
            };
            let Some((settings, scheduler)) = all else { return };
            let netmask =
                if key.family() == Family::Ipv4 { settings.netmask.to_be() } else { settings.netmask };
            // Every flag is meant: new = (old & ~mask) | (flags & mask).
            let [f0, f1, f2, f3] = (settings.flags & !service_flag::HASHED).to_ne_bytes();
            to.put_text(service::SCHEDULER, scheduler)
                .put(service::FLAGS, [f0, f1, f2, f3, 0xff, 0xff, 0xff, 0xff])
                .put(service::TIMEOUT, settings.timeout.to_ne_bytes())
                .put(service::NETMASK, netmask.to_ne_bytes());
            // Left out of SET_SERVICE, the engine is taken away (ip_vs_edit_service); empty, it is not found.
            if !settings.engine.is_empty() {
                to.put_text(service::ENGINE, &settings.engine);
            }
        })
    }

    /// A real server of a service: its key alone, or all of it.
    pub(super) fn put_server(&mut self, of: &ServiceKey, key: &ServerKey, settings: Option<&RealServer>) {
        self.put_service(of, None).nest(top::DEST, |to| {
            to.put(dest::FAMILY, u16::from(family_number(Family::of(key.address))).to_ne_bytes())
                .put(dest::ADDRESS, address_bytes(key.address))
                .put(dest::PORT, key.port.to_be_bytes());
            let Some(settings) = settings else { return };
            to.put(dest::FORWARD, settings.forward.0.to_ne_bytes())
                .put(dest::WEIGHT, settings.weight.to_ne_bytes())
                .put(dest::UPPER_THRESHOLD, settings.upper_threshold.to_ne_bytes())
                .put(dest::LOWER_THRESHOLD, settings.lower_threshold.to_ne_bytes());
            if settings.forward == Forward::TUN {
                to.put(dest::TUNNEL_KIND, [settings.tunnel.kind])
                    .put(dest::TUNNEL_PORT, settings.tunnel.port.to_be_bytes())
                    .put(dest::TUNNEL_FLAGS, settings.tunnel.checksum.to_ne_bytes());
            }
        });
    }

    pub(super) fn put_timeouts(&mut self, timeouts: Timeouts) {
        self.put(top::TIMEOUT_TCP, timeouts.tcp.to_ne_bytes())
            .put(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin.to_ne_bytes())
            .put(top::TIMEOUT_UDP, timeouts.udp.to_ne_bytes());
    }

    /// A daemon: all of it, or the state alone, with which the kernel stops it.
    pub(super) fn put_daemon(&mut self, state: DaemonState, settings: Option<&SyncDaemon>) {
        let state: u32 = if state == DaemonState::Master { 1 } else { 2 };
        self.nest(top::DAEMON, |to| {
            to.put(daemon::STATE, state.to_ne_bytes());
            let Some(settings) = settings else { return };
            to.put_text(daemon::INTERFACE, &settings.interface)
                .put(daemon::ID, u32::from(settings.id).to_ne_bytes());
            for (kind, value) in [(daemon::MAX_LEN, settings.max_len), (daemon::PORT, settings.port)] {
                value.map(|value| to.put(kind, value.to_ne_bytes()));
            }
            if let Some(group) = settings.group {
                to.put_ip(if group.is_ipv4() { daemon::GROUP } else { daemon::GROUP6 }, group);
            }
            settings.ttl.map(|value| to.put(daemon::TTL, [value]));
        });
    }
}

/// The address of this family in a `union nf_inet_addr`, and a port in network order.
fn endpoint(family: Family, address: [u8; 16], port: u16) -> Endpoint {
    let [a, b, c, d, ..] = address;
    let address = if family == Family::Ipv4 { [a, b, c, d].into() } else { address.into() };
    Endpoint { address, port: u16::from_be(port) }
}

/// Reads a service; passes over one of an unknown family.
pub(super) fn decode_service(payload: &[u8]) -> Answer<Option<(ServiceKey, Service)>> {
    let found: Attributes = contents::<1>(payload)?.1.need(top::SERVICE)?;
    let Some(family) = family_of(found.need::<u16>(service::FAMILY)?) else { return Ok(None) };
    let key = match found.get(service::FWMARK)? {
        Some(mark) => ServiceKey::Fwmark { mark, family },
        None => {
            let (address, port) = (found.need(service::ADDRESS)?, found.need(service::PORT)?);
            let Endpoint { address, port } = endpoint(family, address, port);
            ServiceKey::Endpoint { address, port, protocol: Protocol(found.need(service::PROTOCOL)?) }
        }
    };
    let [f0, f1, f2, f3, ..]: [u8; 8] = found.need(service::FLAGS)?;
    let netmask = found.need(service::NETMASK)?;
    let mut settings = Service {
        scheduler: found.need(service::SCHEDULER)?,
        flags: u32::from_ne_bytes([f0, f1, f2, f3]) & !service_flag::HASHED,
        timeout: found.need(service::TIMEOUT)?,
        netmask: if family == Family::Ipv4 { u32::from_be(netmask) } else { netmask },
        engine: found.or_default(service::ENGINE)?,
    };
    if !settings.is_persistent() {
        settings.timeout = 0;
        settings.netmask = Service::full_netmask(family);
    }
    Ok(Some((key, settings)))
}

/// Reads a real server; passes over one of an unknown family.
pub(super) fn decode_server(payload: &[u8]) -> Answer<Option<(ServerKey, RealServer, Counters)>> {
    let found: Attributes = contents::<1>(payload)?.1.need(top::DEST)?;
    let Some(family) = family_of(found.need::<u16>(dest::FAMILY)?) else { return Ok(None) };
    let key = endpoint(family, found.need(dest::ADDRESS)?, found.need(dest::PORT)?);
    let forward = Forward(found.need::<u32>(dest::FORWARD)? & FORWARD_MASK);
    let tunnel = Tunnel {
        kind: found.or_default(dest::TUNNEL_KIND)?,
        port: u16::from_be(found.or_default(dest::TUNNEL_PORT)?),
        checksum: found.or_default(dest::TUNNEL_FLAGS)?,
    };
    let settings = RealServer {
        forward,
        weight: found.need(dest::WEIGHT)?,
        upper_threshold: found.or_default(dest::UPPER_THRESHOLD)?,
        lower_threshold: found.or_default(dest::LOWER_THRESHOLD)?,
        tunnel: if forward == Forward::TUN { tunnel } else { Tunnel::default() },
    };
    let rates = Attributes::read(found.or_default(dest::STATISTICS)?)?;
    let counters = Counters {
        active: found.or_default(dest::ACTIVE)?,
        inactive: found.or_default(dest::INACTIVE)?,
        persistent: found.or_default(dest::PERSISTENT)?,
        rates: Rates {
            connections: rates.or_default(statistics::CONNECTIONS)?,
            bytes_in: rates.or_default(statistics::BYTES_IN)?,
            bytes_out: rates.or_default(statistics::BYTES_OUT)?,
        },
    };
    Ok(Some((key, settings, counters)))
}

pub(super) fn decode_daemon(payload: &[u8]) -> Answer<Option<(DaemonState, SyncDaemon)>> {
    let found: Attributes = contents::<1>(payload)?.1.need(top::DAEMON)?;
    let state = match found.need(daemon::STATE)? {
        1u32 => DaemonState::Master,
        2 => DaemonState::Backup,
        _ => return Ok(None),
    };
    let settings = SyncDaemon {
        interface: found.or_default(daemon::INTERFACE)?,
        id: u8::try_from(found.or_default::<u32>(daemon::ID)? & 0xff).map_err(|_| malformed())?,
        max_len: found.get(daemon::MAX_LEN)?,
        group: found.get(daemon::GROUP)?.or(found.get(daemon::GROUP6)?),
        port: found.get(daemon::PORT)?,
        ttl: found.get(daemon::TTL)?,
    };
    Ok(Some((state, settings)))
}

/// Reads the timeouts; the kernel leaves out those of protocols that it was built without.
pub(super) fn decode_timeouts(payload: &[u8]) -> Answer<Timeouts> {
    let ([_], found) = contents(payload)?;
    Ok(Timeouts {
        tcp: found.or_default(top::TIMEOUT_TCP)?,
        tcp_fin: found.or_default(top::TIMEOUT_TCP_FIN)?,
        udp: found.or_default(top::TIMEOUT_UDP)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{netlink::generic, read_anything};
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
    fn reply(fill: impl FnOnce(&mut Datagram)) -> Vec<u8> {
        let mut reply = Datagram::payload(&generic(1));
        fill(&mut reply);
        reply.bytes
    }

    proptest! {
        #[test]
        fn a_service_is_read_as_it_was_written((key, settings) in any_service()) {
            let payload = reply(|to| _ = to.put_service(&key, Some((&settings, &settings.scheduler))));
            prop_assert_eq!(decode_service(&payload), Ok(Some((key, settings))));
        }

        #[test]
        fn a_server_is_read_as_it_was_written((key, settings) in any_server()) {
            let payload = reply(|to| to.put_server(&vip(), &key, Some(&settings)));
            prop_assert_eq!(
                decode_server(&payload),
                Ok(Some((key, settings, Counters::default())))
            );
        }

        #[test]
        fn a_daemon_is_read_as_it_was_written((state, settings) in any_daemon()) {
            let payload = reply(|to| to.put_daemon(state, Some(&settings)));
            prop_assert_eq!(decode_daemon(&payload), Ok(Some((state, settings))));
        }

        #[test]
        fn timeouts_are_read_as_they_were_written(tcp: u32, tcp_fin: u32, udp: u32) {
            let timeouts = Timeouts { tcp, tcp_fin, udp };
            prop_assert_eq!(decode_timeouts(&reply(|to| to.put_timeouts(timeouts))), Ok(timeouts));
        }

        #[test]
        fn no_reply_makes_it_panic(
            (key, settings) in any_service(),
            (server, server_settings) in any_server(),
            (state, daemon) in any_daemon(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let replies = [
                reply(|to| _ = to.put_service(&key, Some((&settings, &settings.scheduler)))),
                reply(|to| to.put_server(&key, &server, Some(&server_settings))),
                reply(|to| to.put_daemon(state, Some(&daemon))),
            ];
            for mut reply in replies {
                for length in 0..reply.len() {
                    read_anything(&reply[..length]);
                }
                for (at, value) in &changes {
                    let at = at.index(reply.len());
                    reply[at] = *value;
                    read_anything(&reply);
                }
            }
        }
    }

    fn vip() -> ServiceKey {
        ServiceKey::Endpoint { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::TCP }
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
        let payload = reply(|to| _ = to.put_service(&vip(), Some((&service, "wrr"))));
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
