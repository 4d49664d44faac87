//! Numbers of the IPVS netlink interface, mirrored from the kernel's `include/uapi/linux/ip_vs.h`.
//!
//! Owns constants only. Byte order is the host's except where noted. Used by `ipvs`, which knows what the
//! numbers mean together; flags and forwarding methods are in `model`, since files name them.

/// Name of the generic netlink family, `IPVS_GENL_NAME`.
pub(super) const FAMILY: &str = "IPVS";

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
    /// u8, since Linux 5.2
    pub(crate) const TUNNEL_KIND: u16 = 13;
    /// u16, network order, since Linux 5.2
    pub(crate) const TUNNEL_PORT: u16 = 14;
    /// u16, since Linux 5.3
    pub(crate) const TUNNEL_FLAGS: u16 = 15;
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
