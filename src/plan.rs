//! The difference between what is wanted and what the kernel has, as an ordered list of changes.
//!
//! Owns the changes' shape and text, which objects may be touched, and the order of a role change. Pure: no input or
//! output, the same two states give the same plan. Called by `reconcile`; the changes are carried out by `kernel`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::desired::Desired;
use crate::model::{
    AddressKey, DaemonState, Family, NO_SCHEDULER, Owned, Parameter, RealServer, ServerKey, Servers, Service,
    ServiceKey, SyncDaemon, Timeouts,
};
use crate::observed::{Counters, Observed, ObservedAddress};
use crate::serial::objects;

/// One change of the kernel's state: an object as it is found and as it is wanted. What has no `old` comes, what has no
/// `new` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Service {
        key: ServiceKey,
        old: Option<Service>,
        new: Option<Service>,
        /// The real servers that a new service is filled with
        #[serde(serialize_with = "objects")]
        #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, RealServer>"))]
        servers: Arc<Servers>,
        /// Open connections to the real servers of a service that goes
        connections: u64,
    },
    Server {
        service: ServiceKey,
        key: ServerKey,
        old: Option<RealServer>,
        new: Option<RealServer>,
        /// Open connections to a real server that goes, or has left the file
        connections: u64,
    },
    Timeouts {
        old: Timeouts,
        new: Timeouts,
    },
    /// Sync daemons cannot be changed while they run: they are stopped and started.
    Daemon {
        state: DaemonState,
        old: Option<SyncDaemon>,
        new: Option<SyncDaemon>,
    },
    Parameter {
        parameter: Parameter,
        /// Value found; `None` when it does not exist yet (IPVS not loaded)
        old: Option<String>,
        new: String,
    },
    /// An address with exactly this prefix length.
    Address {
        key: AddressKey,
        old: Option<u8>,
        new: Option<u8>,
        /// Label of an address that comes
        label: Option<String>,
    },
}

/// A stage of a role change. Later stages rely on earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// IPVS parameters, services, real servers and timeouts
    Services,
    #[serde(rename = "sync daemon")]
    Daemon,
    #[serde(rename = "ARP parameters")]
    Parameters,
    #[serde(rename = "VIP on lo")]
    Loopback,
    #[serde(rename = "VIP on interface")]
    Interface,
    /// Values found before come back
    Restore,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
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
        use Phase::{Daemon, Interface, Loopback, Parameters, Restore, Services};
        // With backup_only set, a director whose backup daemon runs forwards nothing; otherwise
        // switching the daemon would only lengthen the outage.
        let backup_only = desired.ipvs_parameters.get(&Parameter::Ipvs("backup_only".into()));
        let daemon_first = backup_only.is_some_and(|value| value != "0");
        let order = match (desired.active, daemon_first) {
            (true, true) => [Services, Daemon, Parameters, Loopback, Interface, Restore],
            (true, false) => [Services, Parameters, Loopback, Interface, Daemon, Restore],
            (false, _) => [Interface, Parameters, Loopback, Services, Daemon, Restore],
        };
        let changes = |phase| match phase {
            Services => {
                let mut changes = parameter_changes(&desired.ipvs_parameters, observed);
                if desired.daemon.is_none() {
                    // Real servers of the other family cannot be added while a daemon runs (EINVAL).
                    changes.extend(daemon_changes(desired, observed, owned));
                }
                changes.extend(service_changes(desired, observed, owned));
                let old = observed.table().timeouts;
                let new = desired.timeouts.over(old);
                if old != new {
                    changes.push(Change::Timeouts { old, new });
                }
                changes
            }
            Daemon if desired.daemon.is_some() => daemon_changes(desired, observed, owned),
            Parameters => parameter_changes(&desired.parameters, observed),
            Loopback => address_changes(true, desired, observed, owned),
            Interface => address_changes(false, desired, observed, owned),
            Restore if desired.restore => parameter_changes(&owned.originals, observed),
            Daemon | Restore => Vec::new(),
        };
        let steps = order.map(|phase| Step { phase, changes: changes(phase) });
        Self { steps: steps.into_iter().filter(|step| !step.changes.is_empty()).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The same plan, but what other instances have made stays.
    pub fn without(mut self, others: &[Owned]) -> Self {
        let theirs = |change: &Change| match change {
            Change::Address { key, new: None, .. } => {
                others.iter().any(|owned| owned.addresses.contains(key))
            }
            Change::Service { key, new: None, .. } => others.iter().any(|owned| owned.services.contains(key)),
            _ => false,
        };
        self.steps.iter_mut().for_each(|step| step.changes.retain(|change| !theirs(change)));
        self.steps.retain(|step| !step.changes.is_empty());
        self
    }

    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }

    /// What carrying it out asks of IPVS; nothing when IPVS stays as it is.
    pub fn needs(&self) -> Option<Needs<'_>> {
        let parameter =
            |change: &Change| matches!(change, Change::Parameter { parameter: Parameter::Ipvs(_), .. });
        if !self.changes().any(|change| change.is_ipvs() || parameter(change)) {
            return None;
        }
        let mut needs = Needs::default();
        for change in self.changes() {
            if let Change::Service { new: Some(new), .. } = change {
                needs.insert((&new.scheduler, ""));
                needs.extend(Some((NO_SCHEDULER, &*new.engine)).filter(|(_, engine)| !engine.is_empty()));
            }
        }
        Some(needs)
    }
}

/// What services ask of the kernel: schedulers, each without an engine, and persistence engines, each with `none`.
pub type Needs<'a> = BTreeSet<(&'a str, &'a str)>;

fn parameter_changes(wanted: &BTreeMap<Parameter, String>, observed: &Observed) -> Vec<Change> {
    let change = |(parameter, new): (&Parameter, &String)| Change::Parameter {
        parameter: parameter.clone(),
        old: observed.parameters.get(parameter).cloned(),
        new: new.clone(),
    };
    wanted.iter().filter(|(parameter, new)| observed.differs(parameter, new)).map(change).collect()
}

fn daemon_changes(desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    let (mut wanted, mut changes) = (desired.daemon.clone(), Vec::new());
    if wanted.is_none() && !owned.daemon {
        return changes;
    }
    for (state, old) in &observed.table().daemons {
        // One whose link was made anew sends nothing: its thread keeps the old link's index (ip_vs_sync.c).
        let index = observed.interfaces.get(&old.interface).map(|link| link.index);
        let sends = owned.links.get(&old.interface).is_none_or(|known| Some(*known) == index);
        let runs = sends && wanted.take_if(|(wanted, new)| wanted == state && new.matches(old)).is_some();
        if !runs {
            changes.push(Change::Daemon { state: *state, old: Some(old.clone()), new: None });
        }
    }
    changes.extend(wanted.map(|(state, new)| Change::Daemon { state, old: None, new: Some(new) }));
    changes
}

/// What is to be done about services: new ones first, removals last.
fn service_changes(desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    let table = observed.table();
    let ownership = desired.ownership.with_record(owned);
    let mut changes = Vec::new();
    for (service, wanted) in &desired.services {
        let (service, found) = (*service, table.services.get(service));
        if let Some(found) = found {
            // Descending: the kernel puts each at the head of its list, and sh and mh map clients by the
            // list's order, which should be the same on both directors.
            for (key, new) in wanted.servers.iter().rev() {
                let (key, old, new) = (*key, found.servers.get(key).copied(), Some(*new));
                if old != new {
                    changes.push(Change::Server { service, key, old, new, connections: 0 });
                }
            }
            for (key, old) in found.servers.iter().filter(|(key, _)| !wanted.servers.contains_key(key)) {
                let connections = found.counters.get(key).map_or(0, Counters::connections);
                // Where it would refuse clients, it goes.
                let stays = desired.may_stay(service, *key)
                    && connections > 0
                    && !wanted.settings.refuses_for_drained();
                let (old, new) = (Some(*old), stays.then_some(RealServer { weight: 0, ..*old }));
                if old != new {
                    changes.push(Change::Server { service, key: *key, old, new, connections });
                }
            }
        }
        let (old, new) = (found.map(|found| &found.settings), Some(&wanted.settings));
        if old != new {
            let servers = if old.is_none() { wanted.servers.clone() } else { Arc::default() };
            let (old, new) = (old.cloned(), new.cloned());
            changes.push(Change::Service { key: service, old, new, servers, connections: 0 });
        }
    }
    // Last first. The kernel keeps removed real servers for two minutes and more, the newest first, and looks
    // through them for every one that is added (ip_vs_ctl.c, ip_vs_trash_get_dest): a takeover soon after adds
    // in the order in which it then finds each at the head. The other way round it takes the square of the time.
    for (key, found) in table.services.iter().rev() {
        if !desired.services.contains_key(key) && ownership.owns(key) {
            changes.push(Change::Service {
                key: *key,
                old: Some(found.settings.clone()),
                new: None,
                servers: Arc::default(),
                connections: found.counters.values().map(Counters::connections).sum(),
            });
        }
    }
    changes.sort_by_key(|change| match change {
        Change::Service { old: None, .. } => 0,
        Change::Service { new: None, .. } | Change::Server { new: None, .. } => 2,
        _ => 1,
    });
    changes
}

fn address_changes(on_lo: bool, desired: &Desired, observed: &Observed, owned: &Owned) -> Vec<Change> {
    let found = || observed.addresses.iter().filter(|found| found.key.is_on_lo() == on_lo);
    let (vips, mut changes) = (&desired.ownership.vips, Vec::new());
    for (key, label) in desired.addresses.iter().filter(|(key, _)| key.is_on_lo() == on_lo) {
        // On the interface keepalived may own the address, with any prefix. One that another host had when it came answers
        // nobody for ever: it comes anew, without asking.
        let there = || found().filter(|found| found.key == *key && (found.is_host() || !on_lo));
        if there().all(|found| found.nature.failed) {
            for old in there().map(|found| Some(found.prefix)) {
                changes.push(Change::Address { key: key.clone(), old, new: None, label: None });
            }
            let new = Some(Family::of(key.address).host_prefix());
            changes.push(Change::Address { key: key.clone(), old: None, new, label: label.clone() });
        }
    }
    let goes = |found: &ObservedAddress| match (desired.addresses.contains_key(&found.key), found.is_host()) {
        (true, host) => on_lo && !host && !owned.taken.contains(&(found.key.clone(), found.prefix)),
        (false, host) => {
            let (ours, off) = (owned.addresses.contains(&found.key), desired.off.contains(&found.key));
            (host && (ours || off) || on_lo && off) && !is_home(found, vips, observed, owned)
        }
    };
    let (leaving, staying): (Vec<_>, Vec<_>) = found().partition(|found| goes(found));
    for found in leaving {
        let old = Some(found.prefix);
        changes.push(Change::Address { key: found.key.clone(), old, new: None, label: None });
        // The kernel takes away with an address what is in its subnet (devinet.c, __inet_del_ifa), unless it promotes it.
        for lost in staying.iter().filter(|lost| !found.is_host() && lost.is_beside(found)) {
            let (key, label) = (lost.key.clone(), lost.label.clone());
            changes.push(Change::Address { key, old: None, new: Some(lost.prefix), label });
        }
    }
    changes
}

/// Whether the host itself lives on an address: a default route has it as source, or its link has no other of the family
/// but VIPs. In any role; but never what a record says that this program has made, whoever uses it since: the host has
/// lived without it, and a BACKUP that kept it would answer for it.
pub fn is_home(at: &ObservedAddress, vips: &BTreeSet<IpAddr>, observed: &Observed, owned: &Owned) -> bool {
    let place = |key: &AddressKey| (key.interface.clone(), key.address.is_ipv4());
    let vip = |key: &AddressKey| vips.contains(&key.address) || owned.addresses.contains(key);
    let own = |found: &ObservedAddress| !(found.is_of_the_link() || found.is_host() && vip(&found.key));
    let mut others = observed.addresses.iter().filter(|found| *found != at && own(found));
    !owned.has_made(&at.key)
        && (observed.sources.contains(&at.key.address)
            || !at.key.is_on_lo() && !others.any(|found| place(&found.key) == place(&at.key)))
}

impl Change {
    /// Of an address, which it is.
    pub fn address(&self) -> Option<IpAddr> {
        if let Self::Address { key, .. } = self { Some(key.address) } else { None }
    }

    pub fn taken_away(&self) -> Option<IpAddr> {
        self.address().filter(|_| self.sign() == '-')
    }

    /// A real server that left the file is gone by now but for its place in the table: any later run takes it away.
    pub fn can_wait(&self, desired: &Desired) -> bool {
        matches!(self, Self::Server { service, key, old: Some(RealServer { weight: 0, .. }), new: None, .. }
            if desired.may_stay(*service, *key))
    }

    /// `+` for what comes, `~` for what changes, `-` for what goes.
    pub fn sign(&self) -> char {
        match self {
            Self::Service { old: None, .. } | Self::Server { old: None, .. } => '+',
            Self::Daemon { old: None, .. } | Self::Address { old: None, .. } => '+',
            Self::Service { new: None, .. } | Self::Server { new: None, .. } => '-',
            Self::Daemon { new: None, .. } | Self::Address { new: None, .. } => '-',
            _ => '~',
        }
    }

    /// How many objects the kernel is given or loses.
    pub fn size(&self) -> usize {
        if let Self::Service { servers, .. } = self { 1 + servers.len() } else { 1 }
    }

    pub fn is_ipvs(&self) -> bool {
        !matches!(self, Self::Parameter { .. } | Self::Address { .. })
    }

    pub fn connections(&self) -> u64 {
        match self {
            Self::Service { connections, .. } | Self::Server { connections, .. } => *connections,
            _ => 0,
        }
    }

    /// The same change as commands of iproute2, procps or ipvsadm, one a line.
    pub fn commands(&self) -> Vec<String> {
        // ipvsadm's letters: capital for a service, small for a real server.
        let (capital, small) = match self.sign() {
            '+' => ('A', 'a'),
            '~' => ('E', 'e'),
            _ => ('D', 'd'),
        };
        let mut commands = vec![match self {
            Self::Service { key, new, .. } => {
                let options = new.as_ref().map(|new| format!(" {}", new.ipvsadm(key.family())));
                format!("ipvsadm -{capital} {}{}", key.ipvsadm(), options.unwrap_or_default())
            }
            Self::Server { service, key, new, .. } => server_command(small, service, key, new.as_ref()),
            Self::Timeouts { new, .. } => format!("ipvsadm --set {} {} {}", new.tcp, new.tcp_fin, new.udp),
            Self::Daemon { state, new: Some(new), .. } => {
                format!("ipvsadm --start-daemon {state} {}", new.ipvsadm())
            }
            Self::Daemon { state, .. } => format!("ipvsadm --stop-daemon {state}"),
            Self::Parameter { parameter, new, .. } => format!("sysctl -w '{parameter}={new}'"),
            Self::Address { key: AddressKey { interface, address }, new: Some(prefix), label, .. } => {
                let label = label.as_ref().map_or(String::new(), |label| format!(" label {label}"));
                let v6 = if address.is_ipv6() { " nodad preferred_lft 0" } else { "" };
                format!("ip address add {address}/{prefix} dev {interface}{label}{v6}")
            }
            Self::Address { key: AddressKey { interface, address }, old, .. } => {
                format!("ip address del {address}/{} dev {interface}", old.unwrap_or_default())
            }
        }];
        if let Self::Service { key, servers, .. } = self {
            let add = |(server, new): (_, _)| server_command('a', key, server, Some(new));
            commands.extend(servers.iter().rev().map(add));
        }
        commands
    }
}

fn server_command(letter: char, service: &ServiceKey, key: &ServerKey, new: Option<&RealServer>) -> String {
    // ipvsadm refuses `[v6]:0` but takes a bare address for it.
    let name = if key.port == 0 { key.address.to_string() } else { key.to_string() };
    let options = new.map(|new| format!(" {}", new.ipvsadm())).unwrap_or_default();
    format!("ipvsadm -{letter} {} -r {name}{options}", service.ipvsadm())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = match self {
            Self::Service { key, old: None, new: Some(new), servers, .. } => {
                let (count, plural) = (servers.len(), if servers.len() == 1 { "" } else { "s" });
                return write!(f, "service {key} {}, {count} real server{plural}", new.scheduler);
            }
            Self::Service { key, old, new, .. } => {
                write!(f, "service {key}")?;
                let family = key.family();
                old.as_ref().zip(new.as_ref()).map(|(old, new)| (old.fields(family), new.fields(family)))
            }
            Self::Server { service, key, old, new, .. } => {
                write!(f, "real server {key} of {service}")?;
                if let (None, Some(new)) = (old, new) {
                    return write!(f, ": {}, weight {}", new.forwarding(), new.weight);
                }
                old.zip(*new).map(|(old, new)| (old.fields(), new.fields()))
            }
            Self::Timeouts { old, new } => {
                write!(f, "IPVS timeouts")?;
                Some((old.fields(), new.fields()))
            }
            Self::Daemon { state, old, new } => {
                let daemon = new.as_ref().or(old.as_ref());
                let place = daemon.map(|daemon| format!(" on {} id {}", daemon.interface, daemon.id));
                return write!(f, "sync daemon {state}{}", place.unwrap_or_default());
            }
            Self::Parameter { parameter, old, new } => {
                return write!(f, "{parameter}: {} -> {new}", old.as_deref().unwrap_or("-"));
            }
            Self::Address { key: AddressKey { interface, address }, old, new, .. } => {
                let prefix = new.or(*old).unwrap_or_default();
                return write!(f, "{address}/{prefix} on {interface}");
            }
        };
        let (old, new) = fields.unwrap_or_default();
        let shown = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let differing = old.into_iter().zip(new).filter(|(old, new)| old != new);
        for (place, ((name, old), (_, new))) in differing.enumerate() {
            let mark = if place == 0 { ':' } else { ',' };
            write!(f, "{mark} {name} {} -> {}", shown(old), shown(new))?;
        }
        Ok(())
    }
}
