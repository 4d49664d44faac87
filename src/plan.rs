//! The difference between what is wanted and what the kernel has, as an ordered list of changes.
//!
//! Owns the observed state's shape, the changes' shape and text, ownership (which objects may be
//! touched) and the order of a role change. Pure: no input or output, the same two states give
//! the same plan. Called by `reconcile`; the changes are carried out by `kernel`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::config::WantedService;
use crate::desired::Desired;
use crate::model::{
    AddressKey, DaemonState, Family, Owned, Parameter, RealServer, ServerKey, Servers, Service, ServiceKey,
    SyncDaemon, Timeouts, pairs,
};
use crate::observed::{Counters, Observed, ObservedAddress, ObservedService};

/// One change of the kernel's state, with what it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new service with its real servers: created without a scheduler, filled, then given one.
    AddService {
        key: ServiceKey,
        new: Service,
        /// Its real servers
        #[serde(with = "pairs")]
        servers: Servers,
    },
    /// Other settings for a service.
    SetService {
        key: ServiceKey,
        old: Service,
        new: Service,
    },
    /// A service of ours that is not wanted.
    DeleteService {
        key: ServiceKey,
        old: Service,
        /// Open connections to its real servers
        connections: u64,
    },
    /// A new real server of a service that exists.
    AddServer {
        service: ServiceKey,
        key: ServerKey,
        new: RealServer,
    },
    /// Other settings for a real server.
    SetServer {
        service: ServiceKey,
        key: ServerKey,
        old: RealServer,
        new: RealServer,
    },
    /// A real server that is not wanted.
    DeleteServer {
        service: ServiceKey,
        key: ServerKey,
        old: RealServer,
        connections: u64,
    },
    SetTimeouts {
        old: Timeouts,
        new: Timeouts,
    },
    /// A sync daemon to start.
    StartDaemon {
        state: DaemonState,
        daemon: SyncDaemon,
    },
    /// A sync daemon to stop; they cannot be changed while they run.
    StopDaemon {
        state: DaemonState,
        daemon: SyncDaemon,
    },
    SetParameter {
        parameter: Parameter,
        /// Value found; `None` when it does not exist yet (IPVS not loaded)
        old: Option<String>,
        new: String,
    },
    /// A VIP with a host prefix.
    AddAddress {
        key: AddressKey,
        label: Option<String>,
    },
    /// An address with exactly this prefix length.
    RemoveAddress {
        key: AddressKey,
        prefix: u8,
    },
}

/// A stage of a role change. Later stages rely on earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// IPVS parameters, services, real servers and timeouts
    Services,
    Daemon,
    Parameters,
    Loopback,
    /// VIPs on the client-side interface
    Interface,
    /// Values found before come back
    Restore,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Daemon => "sync daemon",
            Self::Parameters => "ARP parameters",
            Self::Loopback => "VIP on lo",
            Self::Interface => "VIP on interface",
            Self::Restore => "restore",
        })
    }
}

/// Changes of one phase, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub phase: Phase,
    pub changes: Vec<Change>,
}

/// The ordered difference between a wanted and an observed state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Phases with something to do
    pub steps: Vec<Step>,
}

impl Plan {
    /// What must change, in the order in which it is safe.
    ///
    /// Becoming MASTER: no client meets a VIP before its services exist. Leaving: the VIP goes
    /// first, so no client meets a VIP whose services are gone. Adds come before deletes, so that
    /// the number of services of a family never passes through zero: the kernel would unhook IPVS
    /// and answer open connections with a reset (`ip_vs_unregister_hooks`).
    pub fn between(desired: &Desired, observed: &Observed, owned: &Owned) -> Self {
        let mut daemon = daemon_changes(desired, observed, owned);
        let mut services = parameter_changes(&desired.ipvs_parameters, observed);
        if desired.daemon.is_none() {
            // Real servers of the other family cannot be added while a daemon runs (EINVAL).
            services.append(&mut daemon);
        }
        service_changes(desired, observed, owned, &mut services);
        services.extend(timeout_change(desired, observed));
        let parameters = parameter_changes(&desired.parameters, observed);
        let loopback = loopback_changes(desired, observed, owned);
        let interface = interface_changes(desired, observed, owned);
        let restore =
            if desired.restore { parameter_changes(&owned.originals, observed) } else { Vec::new() };
        // With backup_only set, a director whose backup daemon runs forwards nothing; otherwise
        // switching the daemon would only lengthen the outage.
        let daemon_first = desired
            .ipvs_parameters
            .get(&Parameter::Ipvs("backup_only".into()))
            .is_some_and(|value| value != "0");
        let order = match (desired.active, daemon_first) {
            (true, true) => [
                (Phase::Services, services),
                (Phase::Daemon, daemon),
                (Phase::Parameters, parameters),
                (Phase::Loopback, loopback),
                (Phase::Interface, interface),
                (Phase::Restore, restore),
            ],
            (true, false) => [
                (Phase::Services, services),
                (Phase::Parameters, parameters),
                (Phase::Loopback, loopback),
                (Phase::Interface, interface),
                (Phase::Daemon, daemon),
                (Phase::Restore, restore),
            ],
            (false, _) => [
                (Phase::Interface, interface),
                (Phase::Parameters, parameters),
                (Phase::Loopback, loopback),
                (Phase::Services, services),
                (Phase::Daemon, daemon),
                (Phase::Restore, restore),
            ],
        };
        let steps = order
            .into_iter()
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(phase, changes)| Step { phase, changes })
            .collect();
        Self { steps }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Every change, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }
}

fn same_value(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

fn parameter_changes(wanted: &BTreeMap<Parameter, String>, observed: &Observed) -> Vec<Change> {
    wanted
        .iter()
        .filter_map(|(parameter, new)| {
            let old = observed.parameters.get(parameter);
            let differs = match old {
                Some(old) => !same_value(old, new),
                // Of an interface that is gone there is nothing to set; those of IPVS come with it.
                None => matches!(parameter, Parameter::Ipvs(_)),
            };
            differs.then(|| Change::SetParameter {
                parameter: parameter.clone(),
                old: old.cloned(),
                new: new.clone(),
            })
        })
        .collect()
}

fn timeout_change(desired: &Desired, observed: &Observed) -> Option<Change> {
    let new = desired.timeouts;
    let old = observed.ipvs.as_ref().map(|ipvs| ipvs.timeouts).unwrap_or_default();
    let differs = |new: u32, old: u32| new != 0 && new != old;
    let any = differs(new.tcp, old.tcp) || differs(new.tcp_fin, old.tcp_fin) || differs(new.udp, old.udp);
    any.then_some(Change::SetTimeouts { old, new })
}

fn daemon_changes(desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    if desired.daemon.is_none() && !owned.daemon {
        return Vec::new();
    }
    let none = BTreeMap::new();
    let running = observed.ipvs.as_ref().map_or(&none, |ipvs| &ipvs.daemons);
    let fits = |state: DaemonState, found: &SyncDaemon| {
        desired.daemon.as_ref().is_some_and(|(wanted, daemon)| *wanted == state && daemon.matches(found))
    };
    let mut changes: Vec<Change> = running
        .iter()
        .filter(|(state, daemon)| !fits(**state, daemon))
        .map(|(state, daemon)| Change::StopDaemon { state: *state, daemon: daemon.clone() })
        .collect();
    if let Some((state, daemon)) = &desired.daemon {
        if !running.get(state).is_some_and(|found| daemon.matches(found)) {
            changes.push(Change::StartDaemon { state: *state, daemon: daemon.clone() });
        }
    }
    changes
}

/// Appends what is to be done about services: new ones first, removals last.
fn service_changes(desired: &Desired, observed: &Observed, owned: &Owned, added: &mut Vec<Change>) {
    let none = BTreeMap::new();
    let table = observed.ipvs.as_ref().map_or(&none, |ipvs| &ipvs.services);
    let ownership = desired.ownership.with_record(owned);
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    for (key, wanted) in &desired.services {
        match table.get(key) {
            None => added.push(Change::AddService {
                key: *key,
                new: wanted.settings.clone(),
                servers: wanted.servers.clone(),
            }),
            Some(found) => server_changes(*key, wanted, found, &mut changed, &mut removed),
        }
    }
    // Last first. The kernel keeps removed real servers for two minutes and more, the newest first, and looks
    // through them for every one that is added (ip_vs_ctl.c, ip_vs_trash_get_dest): a takeover soon after adds
    // in the order in which it then finds each at the head. The other way round it takes the square of the time.
    for (key, found) in table.iter().rev() {
        if !desired.services.contains_key(key) && ownership.owns(key) {
            removed.push(Change::DeleteService {
                key: *key,
                old: found.settings.clone(),
                connections: found.counters.values().map(Counters::connections).sum(),
            });
        }
    }
    added.append(&mut changed);
    added.append(&mut removed);
}

fn server_changes(
    service: ServiceKey,
    wanted: &WantedService,
    found: &ObservedService,
    changed: &mut Vec<Change>,
    removed: &mut Vec<Change>,
) {
    // Descending: the kernel puts each at the head of its list, and sh and mh map clients by the
    // list's order, which should be the same on both directors.
    for (key, new) in wanted.servers.iter().rev() {
        match found.servers.get(key) {
            None => changed.push(Change::AddServer { service, key: *key, new: *new }),
            Some(old) if old != new => {
                changed.push(Change::SetServer { service, key: *key, old: *old, new: *new });
            }
            Some(_) => {}
        }
    }
    for (key, old) in &found.servers {
        if !wanted.servers.contains_key(key) {
            let connections = found.counters.get(key).map_or(0, Counters::connections);
            removed.push(Change::DeleteServer { service, key: *key, old: *old, connections });
        }
    }
    if wanted.settings != found.settings {
        changed.push(Change::SetService {
            key: service,
            old: found.settings.clone(),
            new: wanted.settings.clone(),
        });
    }
}

fn loopback_changes(desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    let mut changes = Vec::new();
    for (address, label) in &desired.loopback {
        let key = AddressKey { interface: "lo".into(), address: *address };
        if !observed.has_host_prefix(&key) {
            changes.push(Change::AddAddress { key, label: label.clone() });
        }
    }
    let host_only = |found: &ObservedAddress| found.prefix == Family::of(found.key.address).host_prefix();
    for found in observed.addresses.iter().filter(|found| found.key.interface == "lo") {
        let address = &found.key.address;
        let wanted = desired.loopback.contains_key(address);
        let wrong_prefix = wanted && !host_only(found);
        let stale = !wanted && host_only(found) && owned.addresses.contains(&found.key);
        if wrong_prefix || stale || desired.off_loopback.contains(address) {
            changes.push(Change::RemoveAddress { key: found.key.clone(), prefix: found.prefix });
        }
    }
    changes
}

fn interface_changes(desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    let mut changes = Vec::new();
    for key in &desired.interface {
        // keepalived may own the address here, with any prefix.
        if !observed.addresses.iter().any(|found| found.key == *key) {
            changes.push(Change::AddAddress { key: key.clone(), label: None });
        }
    }
    for found in observed.addresses.iter().filter(|found| found.key.interface != "lo") {
        let host = found.prefix == Family::of(found.key.address).host_prefix();
        let stale = owned.addresses.contains(&found.key) && !desired.interface.contains(&found.key);
        if host && (stale || desired.off_interface.contains(&found.key)) {
            changes.push(Change::RemoveAddress { key: found.key.clone(), prefix: found.prefix });
        }
    }
    changes
}

impl Change {
    /// `+` for what comes, `~` for what changes, `-` for what goes.
    pub fn sign(&self) -> char {
        match self {
            Self::AddService { .. }
            | Self::AddServer { .. }
            | Self::StartDaemon { .. }
            | Self::AddAddress { .. } => '+',
            Self::SetService { .. }
            | Self::SetServer { .. }
            | Self::SetTimeouts { .. }
            | Self::SetParameter { .. } => '~',
            Self::DeleteService { .. }
            | Self::DeleteServer { .. }
            | Self::StopDaemon { .. }
            | Self::RemoveAddress { .. } => '-',
        }
    }

    /// Whether it goes to IPVS over netlink.
    pub fn is_ipvs(&self) -> bool {
        !matches!(self, Self::SetParameter { .. } | Self::AddAddress { .. } | Self::RemoveAddress { .. })
    }

    /// Open connections that this change may cost.
    pub fn connections(&self) -> u64 {
        match self {
            Self::DeleteService { connections, .. } | Self::DeleteServer { connections, .. } => *connections,
            _ => 0,
        }
    }

    /// The same change as commands of iproute2, procps or ipvsadm, one a line.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Self::AddService { key, new, servers } => {
                let mut lines = vec![format!("ipvsadm -A {} {}", key.ipvsadm(), new.ipvsadm(key.family()))];
                lines.extend(
                    servers
                        .iter()
                        .rev()
                        .map(|(server, settings)| server_command("-a", key, server, settings)),
                );
                lines
            }
            Self::SetService { key, new, .. } => {
                vec![format!("ipvsadm -E {} {}", key.ipvsadm(), new.ipvsadm(key.family()))]
            }
            Self::DeleteService { key, .. } => vec![format!("ipvsadm -D {}", key.ipvsadm())],
            Self::AddServer { service, key, new } => vec![server_command("-a", service, key, new)],
            Self::SetServer { service, key, new, .. } => vec![server_command("-e", service, key, new)],
            Self::DeleteServer { service, key, .. } => {
                vec![format!("ipvsadm -d {} -r {}", service.ipvsadm(), server_name(key))]
            }
            Self::SetTimeouts { new, .. } => {
                vec![format!("ipvsadm --set {} {} {}", new.tcp, new.tcp_fin, new.udp)]
            }
            Self::StartDaemon { state, daemon } => {
                vec![format!("ipvsadm --start-daemon {state} {}", daemon.ipvsadm())]
            }
            Self::StopDaemon { state, .. } => vec![format!("ipvsadm --stop-daemon {state}")],
            Self::SetParameter { parameter, new, .. } => vec![format!("sysctl -w '{parameter}={new}'")],
            Self::AddAddress { key, label } => vec![address_command(key, label.as_deref())],
            Self::RemoveAddress { key, prefix } => {
                vec![format!("ip address del {}/{prefix} dev {}", key.address, key.interface)]
            }
        }
    }
}

fn server_name(key: &ServerKey) -> String {
    // ipvsadm refuses `[v6]:0` but takes a bare address for it.
    if key.port == 0 { key.address.to_string() } else { key.to_string() }
}

fn server_command(option: &str, service: &ServiceKey, key: &ServerKey, settings: &RealServer) -> String {
    format!("ipvsadm {option} {} -r {} {}", service.ipvsadm(), server_name(key), settings.ipvsadm())
}

fn address_command(key: &AddressKey, label: Option<&str>) -> String {
    let host = Family::of(key.address).host_prefix();
    let mut line = format!("ip address add {}/{host} dev {}", key.address, key.interface);
    if let Some(label) = label {
        line += &format!(" label {label}");
    }
    if key.address.is_ipv6() {
        line += " nodad preferred_lft 0";
    }
    line
}

fn fields(list: &[(&'static str, String, String)]) -> String {
    list.iter().map(|(name, old, new)| format!("{name} {old} -> {new}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService { key, new, servers } => {
                write!(f, "service {key} {}, {} real servers", new.scheduler, servers.len())
            }
            Self::SetService { key, old, new } => {
                write!(f, "service {key}: {}", fields(&old.differences(new, key.family())))
            }
            Self::DeleteService { key, .. } => write!(f, "service {key}"),
            Self::AddServer { service, key, new } => {
                write!(f, "real server {key} of {service}: {}, weight {}", new.forwarding(), new.weight)
            }
            Self::SetServer { service, key, old, new } => {
                write!(f, "real server {key} of {service}: {}", fields(&old.differences(new)))
            }
            Self::DeleteServer { service, key, .. } => write!(f, "real server {key} of {service}"),
            Self::SetTimeouts { old, new } => {
                write!(f, "IPVS timeouts:")?;
                for (name, old, new) in [
                    ("tcp", old.tcp, new.tcp),
                    ("tcp_fin", old.tcp_fin, new.tcp_fin),
                    ("udp", old.udp, new.udp),
                ] {
                    if new != 0 && new != old {
                        write!(f, " {name} {old}s -> {new}s")?;
                    }
                }
                Ok(())
            }
            Self::StartDaemon { state, daemon } => {
                write!(f, "sync daemon {state} on {} id {}", daemon.interface, daemon.id)
            }
            Self::StopDaemon { state, daemon } => {
                write!(f, "sync daemon {state} on {} id {}", daemon.interface, daemon.id)
            }
            Self::SetParameter { parameter, old, new } => {
                write!(f, "{parameter}: {} -> {new}", old.as_deref().unwrap_or("-"))
            }
            Self::AddAddress { key, .. } => {
                write!(f, "{}/{} on {}", key.address, Family::of(key.address).host_prefix(), key.interface)
            }
            Self::RemoveAddress { key, prefix } => write!(f, "{}/{prefix} on {}", key.address, key.interface),
        }
    }
}
