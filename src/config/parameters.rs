//! The kernel's parameters of IPVS, below net.ipv4.vs.
//!
//! Owns the table of their names and defaults alone. Read by `rules`, which knows the names, and by `import`, which leaves
//! defaults out.

/// Names with the values that the kernel gives them (`ip_vs_ctl.c`: `vs_vars`, `ip_vs_control_net_init_sysctl`); none
/// where that depends on the machine or on how the kernel was built. Each network namespace has its own, but for
/// `debug_level`.
pub const IPVS_PARAMETERS: [(&str, Option<&str>); 33] = [
    ("am_droprate", Some("10")),
    ("amemthresh", Some("1024")),
    ("backup_only", Some("0")),
    ("cache_bypass", Some("0")),
    ("conn_lfactor", None),
    ("conn_max", None),
    ("conn_reuse_mode", Some("1")),
    ("conntrack", Some("0")),
    ("debug_level", None),
    ("drop_entry", Some("0")),
    ("drop_packet", Some("0")),
    ("est_cpulist", None),
    ("est_nice", None),
    ("expire_nodest_conn", Some("0")),
    ("expire_quiescent_template", Some("0")),
    ("ignore_tunneled", Some("0")),
    ("nat_icmp_send", Some("0")),
    ("pmtu_disc", Some("1")),
    ("run_estimation", Some("1")),
    ("schedule_icmp", Some("0")),
    ("secure_tcp", Some("0")),
    ("sloppy_sctp", Some("0")),
    ("sloppy_tcp", Some("0")),
    ("snat_reroute", Some("1")),
    ("svc_lfactor", None),
    ("sync_persist_mode", Some("0")),
    ("sync_ports", Some("1")),
    ("sync_qlen_max", None),
    ("sync_refresh_period", Some("0")),
    ("sync_retries", Some("0")),
    ("sync_sock_size", Some("0")),
    ("sync_threshold", Some("3 50")),
    ("sync_version", Some("1")),
];
