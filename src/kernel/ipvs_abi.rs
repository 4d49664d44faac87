//! Numbers of the IPVS netlink interface, mirrored from the kernel's `include/uapi/linux/ip_vs.h`.
//!
//! Owns constants and layouts only. Byte order is the host's except where noted. Used by `ipvs` and `ipvs_sockopt`, which know what the
//! numbers mean together; flags and forwarding methods are in `model`, since files name them.

/// Name of the generic netlink family, `IPVS_GENL_NAME`.
pub(super) const FAMILY: &str = "IPVS";

/// The forwarding method among a real server's flags, `IP_VS_CONN_F_FWD_MASK`.
pub(super) const FORWARD_MASK: u32 = 0x7;

/// Commands, `IPVS_CMD_*`.
pub(super) mod command {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
}

/// Attributes of a message, `IPVS_CMD_ATTR_*`. Timeouts are u32 seconds.
pub(super) mod top {
    pub(crate) const SERVICE: u16 = 1;
    pub(crate) const DEST: u16 = 2;
    pub(crate) const DAEMON: u16 = 3;
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;
}

/// Attributes of a service, `IPVS_SVC_ATTR_*`.
pub(super) mod service {
    /// u16
    pub(crate) const FAMILY: u16 = 1;
    /// u16
    pub(crate) const PROTOCOL: u16 = 2;
    /// 16 bytes, IPv4 in the first four
    pub(crate) const ADDRESS: u16 = 3;
    /// u16, network order
    pub(crate) const PORT: u16 = 4;
    /// u32; its mere presence makes a fwmark service
    pub(crate) const FWMARK: u16 = 5;
    /// Text of at most 15 characters and NUL
    pub(crate) const SCHEDULER: u16 = 6;
    /// Two u32: flags, and the mask of those that are meant
    pub(crate) const FLAGS: u16 = 7;
    /// u32, seconds
    pub(crate) const TIMEOUT: u16 = 8;
    /// u32: IPv4 a mask in network order, IPv6 a prefix length in host order
    pub(crate) const NETMASK: u16 = 9;
    /// Text
    pub(crate) const ENGINE: u16 = 11;
}

/// Attributes of a real server, `IPVS_DEST_ATTR_*`; u32 unless noted.
pub(super) mod dest {
    /// 16 bytes, IPv4 in the first four
    pub(crate) const ADDRESS: u16 = 1;
    /// u16, network order
    pub(crate) const PORT: u16 = 2;
    pub(crate) const FORWARD: u16 = 3;
    pub(crate) const WEIGHT: u16 = 4;
    pub(crate) const UPPER_THRESHOLD: u16 = 5;
    pub(crate) const LOWER_THRESHOLD: u16 = 6;
    pub(crate) const ACTIVE: u16 = 7;
    pub(crate) const INACTIVE: u16 = 8;
    pub(crate) const PERSISTENT: u16 = 9;
    /// u16, since Linux 3.18; without it the service's
    pub(crate) const FAMILY: u16 = 11;
    /// Nested [`super::statistics`], since Linux 4.1
    pub(crate) const STATISTICS: u16 = 12;
    /// u8, since Linux 5.2
    pub(crate) const TUNNEL_KIND: u16 = 13;
    /// u16, network order, since Linux 5.2
    pub(crate) const TUNNEL_PORT: u16 = 14;
    /// u16, since Linux 5.3
    pub(crate) const TUNNEL_FLAGS: u16 = 15;
}

/// Attributes of statistics, `IPVS_STATS_ATTR_*`: u64, what passes in a second.
pub(super) mod statistics {
    pub(crate) const CONNECTIONS: u16 = 6;
    pub(crate) const BYTES_IN: u16 = 9;
    pub(crate) const BYTES_OUT: u16 = 10;
}

/// Attributes of a sync daemon, `IPVS_DAEMON_ATTR_*`.
pub(super) mod daemon {
    /// u32: 1 master, 2 backup
    pub(crate) const STATE: u16 = 1;
    /// Text
    pub(crate) const INTERFACE: u16 = 2;
    /// u32, of which the wire has eight bits
    pub(crate) const ID: u16 = 3;
    /// u16
    pub(crate) const MAX_LEN: u16 = 4;
    /// 4 bytes
    pub(crate) const GROUP: u16 = 5;
    /// 16 bytes
    pub(crate) const GROUP6: u16 = 6;
    /// u16, host order
    pub(crate) const PORT: u16 = 7;
    /// u8
    pub(crate) const TTL: u16 = 8;
}

/// The older interface, by socket options of any IPv4 socket: structures instead of attributes, and everything
/// of a kind in one answer. It knows IPv4 only, and neither tunnels nor persistence engines.
pub(super) mod sockopt {
    /// `IP_VS_SO_GET_INFO`, answers with [`Info`]
    pub(crate) const GET_INFO: i32 = 1153;
    /// `IP_VS_SO_GET_SERVICES`, [`Services`] and so many [`Service`]s
    pub(crate) const GET_SERVICES: i32 = 1154;
    /// `IP_VS_SO_GET_DESTS`, [`Servers`] and so many [`Server`]s
    pub(crate) const GET_DESTS: i32 = 1156;

    /// `struct ip_vs_getinfo`
    #[repr(C)]
    pub(crate) struct Info {
        pub(crate) version: u32,
        pub(crate) size: u32,
        pub(crate) services: u32,
    }

    /// `struct ip_vs_get_services`
    #[repr(C)]
    pub(crate) struct Services {
        pub(crate) count: u32,
        pub(crate) entries: [Service; 0],
    }

    /// `struct ip_vs_service_entry`; address, port and netmask in network order
    #[repr(C)]
    pub(crate) struct Service {
        pub(crate) protocol: u16,
        pub(crate) address: u32,
        pub(crate) port: u16,
        pub(crate) fwmark: u32,
        pub(crate) scheduler: [u8; 16],
        pub(crate) flags: u32,
        pub(crate) timeout: u32,
        pub(crate) netmask: u32,
        pub(crate) servers: u32,
        pub(crate) statistics: Statistics,
    }

    /// `struct ip_vs_get_dests`
    #[repr(C)]
    pub(crate) struct Servers {
        pub(crate) protocol: u16,
        pub(crate) address: u32,
        pub(crate) port: u16,
        pub(crate) fwmark: u32,
        pub(crate) count: u32,
        pub(crate) entries: [Server; 0],
    }

    /// `struct ip_vs_dest_entry`
    #[repr(C)]
    pub(crate) struct Server {
        pub(crate) address: u32,
        pub(crate) port: u16,
        pub(crate) flags: u32,
        pub(crate) weight: i32,
        pub(crate) upper_threshold: u32,
        pub(crate) lower_threshold: u32,
        pub(crate) active: u32,
        pub(crate) inactive: u32,
        pub(crate) persistent: u32,
        pub(crate) statistics: Statistics,
    }

    /// `struct ip_vs_stats_user`
    #[repr(C)]
    pub(crate) struct Statistics {
        pub(crate) packets: [u32; 3],
        pub(crate) bytes: [u64; 2],
        /// Connections, packets in and out, bytes in and out, each in a second
        pub(crate) rates: [u32; 5],
    }
}
