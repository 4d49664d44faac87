//! Every rule of `check` in one table: identifier, title, effect, fix; and what a finding is.
//!
//! Owns the words that are the same wherever a rule is broken; the identifier's letter is the severity. What breaks a rule
//! is decided in `keepalived` and `files`. The effects were seen with keepalived 2.2.7, or are in its source. Called by
//! `check`.

use std::path::Path;

use serde::Serialize;

use super::facts::File;
use crate::keepalived_conf::Statement;

/// How bad a finding is: it does not work, or will not at the next failover; or it works until something else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// A rule, by what is the same wherever it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rule {
    /// Numbers are never given twice
    #[serde(rename = "rule")]
    pub id: &'static str,
    pub title: &'static str,
    pub effect: &'static str,
    #[serde(skip)]
    fix: &'static str,
}

/// A broken rule. In order: the worst first, then by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    pub severity: Severity,
    pub file: String,
    pub line: Option<usize>,
    #[serde(flatten)]
    pub rule: Rule,
    /// The objects it is about
    pub what: String,
    pub remedy: String,
}

#[derive(Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// About a line of keepalived.conf.
    pub fn at(&mut self, rule: Rule, line: &Statement, what: impl Into<String>) {
        self.add(rule, &line.file, Some(line.line), what);
    }

    /// About a desired-state file.
    pub fn of(&mut self, rule: Rule, file: &File, what: impl Into<String>) {
        self.add(rule, Path::new(&file.path), None, what);
    }

    pub fn add(&mut self, rule: Rule, file: &Path, line: Option<usize>, what: impl Into<String>) {
        let (file, what) = (file.display().to_string(), what.into());
        let severity = match rule.id.as_bytes() {
            [b'E', ..] => Severity::Error,
            [b'W', ..] => Severity::Warning,
            _ => Severity::Info,
        };
        let remedy = rule.fix.replace("{name}", what.split(' ').next().unwrap_or_default());
        self.0.push(Finding { severity, file, line, rule, what, remedy });
    }
}

/// A row is identifier, title, effect and fix, in which `{name}` is the name that the finding begins with.
macro_rules! rules {
    ($($id:ident $title:literal $effect:literal $fix:literal)*) => {
        impl Rule {
            pub const ALL: &[Self] = &[$(Self::$id),*];
            $(pub const $id: Self = Self { id: stringify!($id), title: $title, effect: $effect, fix: $fix };)*
        }
    };
}

rules! {
    E01 "a script's argument is outside its quotes"
        "keepalived takes it for the user to run the script as: it ignores the script, or runs it as that user and without arguments (Debian has a user `backup`)"
        "quote program and arguments together: notify_master \"/usr/bin/lvs-notify master VI_1\""
    E02 "lvs-notify is not run as root"
        "as another user the kernel refuses every change (EPERM): no VIP, no services; without any user, keepalived ignores the script"
        "set `script_user root` in global_defs, and name no other user after the script"
    E04 "keepalived cannot or may not run this script"
        "keepalived disables it and goes on; `keepalived -t` may not say so"
        "install the program there, executable, and let only root write to it and to every directory above it"
    E05 "vrrp_strict, strict_mode or no_accept blocks the VIP"
        "keepalived's nftables rules drop every packet to and from the VIPs, on lo too: clients time out"
        "remove vrrp_strict, strict_mode and no_accept"
    E08 "keepalived owns a VIP on lo that is to stay there while BACKUP"
        "keepalived removes it at every start and when it leaves MASTER: until lvs-notify has put it back, requests handed to this node as a real server are lost"
        "leave the VIP out of virtual_ipaddress: with `backup: {vips: keep}` it is lvs-notify's alone"
    E09 "the VIP is on lo only, but its clients find it by ARP or ND"
        "nobody answers for it: with arp_ignore 1 the kernel answers only for addresses of the asked interface (ND always), and gratuitous ARP does not help for long"
        "name the client-side `interface` in the desired-state file; only a VIP that is routed to this host does without"
    E17 "shell syntax in a script line"
        "there is no shell: the program gets it as an argument, word for word"
        "write a script file with it, call `/bin/sh -c '...'`, or define the variable in keepalived.conf: $NAME=value"
    W19 "no enable_script_security"
        "keepalived runs scripts as root that others could change; it logs `SECURITY VIOLATION`, and `keepalived -t` ends with 6"
        "set `enable_script_security` and `script_user root` in global_defs"
    E20 "keepalived has a virtual_server that lvs-notify manages as well"
        "two owners of one service: lvs-notify removes what its file does not have, keepalived does not put it back, and deletes the service when it stops"
        "remove the virtual_server, or remove its VIP (or mark) from the desired-state file"
    E21 "keepalived flushes the IPVS table"
        "every service goes when keepalived starts or stops, lvs-notify's too, and every connection with it"
        "remove lvs_flush; write `lvs_flush_on_stop VS` for keepalived's own services"
    W25 "the script's arguments do not fit the place where it is called"
        "lvs-notify reconciles to another role, or another instance, than keepalived has"
        "each notify keyword calls its own role with its own instance's name; the generic one calls `lvs-notify notify`"
    I27 "after a split the director that stays MASTER is not told"
        "no state changes there, so no other script is called: the VIP is not announced again, and neighbours may keep the link address of the director that left"
        "on both directors: `vrrp_higher_prio_send_advert true` in global_defs, and notify_master_rx_lower_pri \"/usr/bin/lvs-notify master {name}\""
    W34 "two instances drive one desired-state file"
        "one in MASTER and one in BACKUP: the last notification decides whether VIP and services are there"
        "one file for each instance, named after it"
    E35 "a VIP on lo with the prefix of a whole network"
        "the kernel takes the whole network for its own and reaches no neighbour in it; lvs-notify removes the address, and keepalived then gives up MASTER"
        "write ADDRESS/32 (IPv6: /128)"
    W36 "keepalived binds the VIP to an interface where it answers at once"
        "it is bound and announced before notify_master is called: until the services are there, clients are refused"
        "write `ADDRESS/32 dev lo label lo:0`: lvs-notify puts it on the interface itself, after the services"
    E37 "a change of state does not reach lvs-notify"
        "keepalived has a script for each state: without notify_master nothing is taken over; without notify_backup, notify_fault (a lost link, a failed track script) or notify_stop (not a group's, which is not waited for) VIP and services stay here while the other director has them too"
        "add the line, as in notify_fault \"/usr/bin/lvs-notify fault {name}\", or a generic notify \"/usr/bin/lvs-notify notify\""
    E38 "keepalived.conf is damaged"
        "keepalived goes on without it: blocks end elsewhere, files are missing"
        "fix the line"
    W40 "nothing notices a failure of the client-side interface"
        "VRRP runs on another interface: when this one loses its link, the director stays MASTER and no client reaches the VIP"
        "add `track_interface { {name} }` to the vrrp_instance"
    E41 "keepalived and lvs-notify both run the sync daemon"
        "the kernel has one for each state: each of the two stops or refuses the other's"
        "remove lvs_sync_daemon from keepalived.conf, or `sync_daemon` from the desired-state file"
    E44 "two desired-state files claim the same object"
        "each of the two instances removes or changes what the other one made"
        "leave it to one of them"
    E45 "no script in keepalived.conf calls lvs-notify for this file"
        "the file is never carried out"
        "add notify_master, notify_backup, notify_fault and notify_stop to its vrrp_instance, or fix the instance's name"
    E46 "a script calls lvs-notify for an instance without a desired-state file"
        "every call fails: no VIP, no services"
        "write the file, or fix the instance's name"
    E47 "backup_only with several instances"
        "it turns the whole director off while any backup sync daemon runs: an instance that is MASTER here would serve nobody while another is BACKUP"
        "leave backup_only out, and with it `backup: {services: keep}`"
    W48 "fwmark services stay on the BACKUP: packets can loop"
        "a mark that is routed to the local host delivers packets on the BACKUP too, VIP or not, and both directors schedule them"
        "leave `services: keep` out, or set `ipvs.sysctl.backup_only: 1` with `ipvs.sync_daemon`"
    E49 "an interface of the file cannot be used"
        "as MASTER this host could not answer for its VIPs"
        "fix the name, set the link up (see `ip link`) or look at the cable; of a port, write the bridge or bond in its place"
    E50 "NAT without forwarding"
        "requests reach the real servers, and their answers end here"
        "sysctl -w net.ipv4.ip_forward=1 (IPv6: net.ipv6.conf.all.forwarding=1), and write it to /etc/sysctl.d"
    E52 "IPv6 is disabled where a VIP needs it"
        "the kernel refuses the address"
        "sysctl -w net.ipv6.conf.INTERFACE.disable_ipv6=0"
    E55 "this host is a real server, but does not keep the VIP"
        "while BACKUP it has no VIP, and drops every request that the MASTER hands to it"
        "set `backup: {vips: keep}`"
    E61 "keepalived rejects a line"
        "it goes on without the line; a `{` that it ignores leaves its `}` to end the block around it, and what follows belongs to no block"
        "fix the line; `keepalived -t` shows all that it says"
    W62 "keepalived warns of a line"
        "keepalived goes on, with the consequence that it names"
        "fix the line; `keepalived -t` shows all that it says"
    W63 "lvs-notify does not read all of keepalived.conf"
        "what these lines make is not checked, and `import` does not write it"
        "write the lines out"
    E64 "a VIP is this host's own address: the only one of its interface, or its default route's source"
        "lvs-notify does not take it away, lest the host lose its network: BACKUP and MASTER both answer for it"
        "choose an address that no host has of its own"
    E65 "a rehearsed takeover failed"
        "this kernel refuses what the file wants: as MASTER this host could not serve all of it"
        "do what the message says, then `lvs-notify rehearse INSTANCE`"
}
