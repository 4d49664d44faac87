//! Numbers of the IPVS netlink interface, mirrored from the kernel's `include/uapi/linux/ip_vs.h`.
//!
//! Owns constants and layouts only. Byte order is the host's except where noted. Used by `ipvs`, `ipvs_wire` and
//! `ipvs_sockopt`, which know what the numbers mean together; flags and forwarding methods are in `model`, since files
//! name them.

/// Name of the generic netlink family, `IPVS_GENL_NAME`.
pub(super) const FAMILY: &str = "IPVS";
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

    /// Attributes of a service, `IPVS_SVC_ATTR_*`.
    u16 service {
        FAMILY = 1,     // u16
        PROTOCOL = 2,   // u16
        ADDRESS = 3,    // 16 bytes, IPv4 in the first four
        PORT = 4,       // u16, network order
        FWMARK = 5,     // u32; its mere presence makes a fwmark service
        SCHEDULER = 6,  // text of at most 15 characters and NUL
        FLAGS = 7,      // two u32: flags, and the mask of those that are meant
        TIMEOUT = 8,    // u32, seconds
        NETMASK = 9,    // u32: IPv4 a mask in network order, IPv6 a prefix length in host order
        ENGINE = 11,    // text
    }

    /// Attributes of a real server, `IPVS_DEST_ATTR_*`; u32 unless noted.
    u16 dest {
        ADDRESS = 1,    // 16 bytes, IPv4 in the first four
        PORT = 2,       // u16, network order
        FORWARD = 3, WEIGHT = 4, UPPER_THRESHOLD = 5, LOWER_THRESHOLD = 6,
        ACTIVE = 7, INACTIVE = 8, PERSISTENT = 9,
        FAMILY = 11,        // u16, since Linux 3.18; without it the service's
        STATISTICS = 12,    // nested `statistics`, since Linux 4.1
        TUNNEL_KIND = 13,   // u8, since Linux 5.2
        TUNNEL_PORT = 14,   // u16, network order, since Linux 5.2
        TUNNEL_FLAGS = 15,  // u16, since Linux 5.3
    }

    /// Attributes of statistics, `IPVS_STATS_ATTR_*`: u64, what passes in a second.
    u16 statistics { CONNECTIONS = 6, BYTES_IN = 9, BYTES_OUT = 10 }

    /// Attributes of a sync daemon, `IPVS_DAEMON_ATTR_*`.
    u16 daemon {
        STATE = 1,      // u32: 1 master, 2 backup
        INTERFACE = 2,  // text
        ID = 3,         // u32, of which the wire has eight bits
        MAX_LEN = 4,    // u16
        GROUP = 5,      // 4 bytes
        GROUP6 = 6,     // 16 bytes
        PORT = 7,       // u16, host order
        TTL = 8,        // u8
    }
}

/// The older interface, by socket options of any IPv4 socket: structures instead of attributes, and everything
/// of a kind in one answer. It knows IPv4 only, and neither tunnels nor persistence engines.
pub(super) mod sockopt {
    pub(crate) const GET_INFO: i32 = 1153; // answers with [`Info`]
    pub(crate) const GET_SERVICES: i32 = 1154; // [`Services`] and so many [`Service`]s
    pub(crate) const GET_DESTS: i32 = 1156; // [`Servers`] and so many [`Server`]s

    macro_rules! structures {
        ($($(#[$comment:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {
            $($(#[$comment])* #[repr(C)] pub(crate) struct $name { $(pub(crate) $field: $kind),+ })+
        };
    }

    structures! {
        /// `struct ip_vs_getinfo`
        Info { version: u32, size: u32, services: u32 }

        /// `struct ip_vs_get_services`
        Services { count: u32, entries: [Service; 0] }

        /// `struct ip_vs_service_entry`; address, port and netmask in network order
        Service {
            protocol: u16, address: u32, port: u16, fwmark: u32, scheduler: [u8; 16], flags: u32,
            timeout: u32, netmask: u32, servers: u32, statistics: Statistics,
        }

        /// `struct ip_vs_get_dests`
        Servers { protocol: u16, address: u32, port: u16, fwmark: u32, count: u32, entries: [Server; 0] }

        /// `struct ip_vs_dest_entry`
        Server {
            address: u32, port: u16, flags: u32, weight: i32, upper_threshold: u32, lower_threshold: u32,
            active: u32, inactive: u32, persistent: u32, statistics: Statistics,
        }

        /// `struct ip_vs_stats_user`; rates are connections, packets in and out, bytes in and out, each in a second
        Statistics { packets: [u32; 3], bytes: [u64; 2], rates: [u32; 5] }
    }
}
