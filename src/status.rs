//! What an operator wants to know of an instance: one verdict, and what it is made of.
//!
//! Owns the judgement: is the kernel in sync, does each VIP answer where it must and nowhere else,
//! which service or server differs and how. Pure: a preview and, when it was asked for, a probe's
//! answers go in, a [`Status`] comes out, which is also the JSON form. Formats nothing (`report`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{
    AddressKey, Claims, Family, Mac, Parameter, RealServer, Role, ServerKey, Service, ServiceKey,
};
use crate::observed::{Counters, Interface, Observed, ObservedService};
use crate::plan::Change;
use crate::preview::Preview;
use crate::state::record::LastRun;

/// The state of an instance. Its JSON form is `status --json`, version 1
/// (packaging/schema/status.schema.json): fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
pub struct Status {
    pub version: u32,
    /// Name of the VRRP instance
    pub instance: String,
    /// The recorded role; without a record BACKUP, with which the kernel is compared
    pub role: Role,
    /// keepalived has called since boot
    pub recorded: bool,
    /// Since when it has the role, in seconds since 1970
    pub since: Option<u64>,
    /// The kernel is as the file wants it, and so is the file in /etc/sysctl.d
    pub in_sync: bool,
    /// In sync, the file is valid, and every VIP answers where it must and nowhere else
    pub healthy: bool,
    /// The last role change was carried out to its end
    pub complete: bool,
    /// What is wrong with the desired-state file
    pub file_problem: Option<String>,
    /// A takeover now would use the last good copy of the file
    pub last_good: bool,
    /// The file in /etc/sysctl.d is current
    pub persisted: bool,
    /// What differs, in the order in which it would be repaired
    pub differences: Vec<Difference>,
    pub vips: Vec<Vip>,
    /// ARP and IPVS parameters that the file sets
    pub parameters: BTreeMap<String, ParameterValue>,
    /// Our virtual services: all that are wanted or found
    pub services: Vec<VirtualService>,
    /// Services of others, other instances of this host among them
    pub foreign_services: Vec<VirtualService>,
    pub sync_daemons: Vec<String>,
    pub ipvs: bool,
    /// The last run that made a change or was asked for a role
    pub last_run: Option<LastRun>,
}

/// A change that is due.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub sign: char,
    /// To what, and from what to what
    pub text: String,
}

/// A virtual address.
#[derive(Debug, Serialize)]
pub struct Vip {
    pub address: IpAddr,
    /// The client-side interface; none when it is reached by routing
    pub interface: Option<String>,
    /// Where it stands, as INTERFACE/PREFIX
    pub places: Vec<String>,
    /// It answers ARP or neighbour solicitations here
    pub answers: bool,
    /// Link-layer address of the interface
    pub mac: Option<String>,
    /// Why it answers or does not
    pub reason: String,
    /// What is wrong with that in this role, and what to do
    pub problem: Option<String>,
    /// With `--probe`: every link-layer address that answered for it, our own included
    pub claims: Option<Vec<String>>,
}

/// A parameter's value, and the one that it should have.
#[derive(Debug, Serialize)]
pub struct ParameterValue {
    /// Found; none when it does not exist
    pub value: Option<String>,
    pub wanted: String,
}

/// A virtual service with what differs about it.
#[derive(Debug, Serialize)]
pub struct VirtualService {
    pub key: ServiceKey,
    /// The other instance of this host that has made it, by its record
    pub instance: Option<String>,
    /// Settings: as found, or as wanted when it is missing
    pub settings: Service,
    /// What differs, with its sign; none when nothing does
    pub difference: Option<String>,
    /// Sum over its real servers
    pub counters: Counters,
    /// Real servers: all that are wanted or found
    pub servers: Vec<Server>,
}

/// A real server with what differs about it.
#[derive(Debug, Serialize)]
pub struct Server {
    pub key: ServerKey,
    /// Settings: as found, or as wanted when it is missing
    pub settings: RealServer,
    /// What differs, with its sign; none when nothing does
    pub difference: Option<String>,
    pub counters: Counters,
    pub drained: bool,
    /// When that ends by itself, in seconds since 1970
    pub drained_until: Option<u64>,
}

impl Status {
    /// Judges what was found.
    pub fn of(instance: &str, preview: &Preview, persisted: bool, claims: Option<&Claims>) -> Self {
        let record = preview.record.as_ref();
        let file_problem = preview.basis.problem().map(str::to_owned);
        let last_good = file_problem.is_some() && preview.basis.config().is_some();
        let vips: Vec<Vip> =
            preview.desired.ownership.vips.iter().map(|address| vip(*address, preview, claims)).collect();
        let in_sync = preview.plan.is_empty() && persisted;
        let healthy = in_sync && file_problem.is_none() && vips.iter().all(|vip| vip.problem.is_none());
        let (services, foreign_services) = services(preview);
        let ipvs = preview.observed.ipvs.as_ref();
        Self {
            version: 1,
            instance: instance.to_owned(),
            role: preview.role,
            recorded: record.is_some(),
            since: record.map(|record| record.since),
            in_sync,
            healthy,
            complete: record.is_none_or(|record| record.complete),
            file_problem,
            last_good,
            persisted,
            differences: preview
                .plan
                .changes()
                .map(|change| Difference { sign: change.sign(), text: change.to_string() })
                .collect(),
            vips,
            parameters: parameters(preview),
            services,
            foreign_services,
            sync_daemons: ipvs
                .into_iter()
                .flat_map(|ipvs| &ipvs.daemons)
                .map(|(state, daemon)| format!("{state} on {} id {}", daemon.interface, daemon.id))
                .collect(),
            ipvs: ipvs.is_some(),
            last_run: record.and_then(|record| record.last.clone()),
        }
    }

    /// How many things differ.
    pub fn count(&self) -> usize {
        self.differences.len() + usize::from(!self.persisted)
    }
}

/// Writes a link-layer address as iproute2 does.
pub fn mac_text(mac: Mac) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn vip(address: IpAddr, preview: &Preview, claims: Option<&Claims>) -> Vip {
    let (desired, observed) = (&preview.desired, &preview.observed);
    let client_side = desired.interface.iter().chain(&desired.off_interface);
    let key = client_side.into_iter().find(|key| key.address == address);
    let link = key.and_then(|key| observed.interfaces.get(&key.interface));
    let (answers, reason) = answers(address, key, link, observed);
    let mut problem = match (key, desired.active, answers) {
        (Some(key), true, false) => Some(unreachable(key, link)),
        (Some(key), false, true) => Some(format!(
            "this director is not MASTER and answers for it on {}, so clients may be sent here: {reason}; {}",
            key.interface,
            silence(key, preview)
        )),
        _ => None,
    };
    let asked = claims.zip(key).and_then(|(claims, key)| claims.get(key));
    let mut found: Option<Vec<Mac>> = None;
    match asked {
        Some(Ok(macs)) => {
            let mut macs = macs.clone();
            // This host does not hear itself.
            macs.extend(link.and_then(|link| link.mac).filter(|_| answers));
            macs.sort_unstable();
            macs.dedup();
            if problem.is_none() {
                problem = disputed(&macs, link.and_then(|link| link.mac), desired.active);
            }
            found = Some(macs);
        }
        Some(Err(error)) => problem = problem.or_else(|| Some(format!("asking the network failed: {error}"))),
        None => {}
    }
    Vip {
        address,
        interface: key.map(|key| key.interface.clone()),
        places: observed
            .addresses
            .iter()
            .filter(|found| found.key.address == address)
            .map(|found| format!("{}/{}", found.key.interface, found.prefix))
            .collect(),
        answers,
        mac: link.and_then(|link| link.mac).map(mac_text),
        reason,
        problem,
        claims: found.map(|macs| macs.into_iter().map(mac_text).collect()),
    }
}

/// What is wrong with these hosts answering for one VIP.
fn disputed(macs: &[Mac], own: Option<Mac>, active: bool) -> Option<String> {
    let others = macs.iter().filter(|mac| Some(**mac) != own).count();
    match (macs.len(), active) {
        (0, false) => Some("nobody answers for it: there is no MASTER that clients can reach".to_owned()),
        (2.., _) => Some(format!(
            "SPLIT BRAIN: {} hosts answer for it; compare `lvs-notify status` on both directors. Either an address \
             was left behind, or VRRP advertisements are lost: `tcpdump -ni INTERFACE vrrp` shows the other \
             director's where a firewall here drops them, and does not where the network does",
            macs.len()
        )),
        (_, true) if others > 0 => Some("another host answers for it, and this MASTER does not".to_owned()),
        _ => None,
    }
}

/// Where a VIP answers ARP or neighbour solicitations, or why it does not: the rules of
/// `arp_ignore()` in `net/ipv4/arp.c`, where the larger of the values for `all` and for the
/// interface that received the request holds.
fn answers(
    address: IpAddr,
    key: Option<&AddressKey>,
    link: Option<&Interface>,
    observed: &Observed,
) -> (bool, String) {
    let protocol = if address.is_ipv4() { "ARP" } else { "ND" };
    let Some(key) = key else {
        return (false, format!("reached by routing, {protocol} is not answered by design"));
    };
    let name = &key.interface;
    match link {
        None => return (false, format!("{protocol} not answered: there is no interface {name}")),
        Some(link) if !link.up || !link.carrier => {
            return (false, format!("{protocol} not answered: {name} is down"));
        }
        Some(_) => {}
    }
    if observed.addresses.iter().any(|found| found.key == *key) {
        return (true, format!("answers {protocol} on {name}"));
    }
    if !observed.addresses.iter().any(|found| found.key.address == address) {
        return (false, format!("{protocol} not answered: the VIP is not here"));
    }
    if address.is_ipv6() {
        return (false, "ND not answered: the VIP stands on lo only".to_owned());
    }
    let ignore = |interface: &str| -> u32 {
        let value = observed.parameters.get(&Parameter::ArpIgnore(interface.to_owned()));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    match ignore("all").max(ignore(name)) {
        0 => (true, format!("answers ARP on {name}, because it stands on lo and arp_ignore is 0")),
        effective => (
            false,
            format!("ARP not answered: the VIP stands on lo only, and arp_ignore on {name} is {effective}"),
        ),
    }
}

/// Why no client reaches a MASTER's VIP, and what to do.
fn unreachable(key: &AddressKey, link: Option<&Interface>) -> String {
    let name = &key.interface;
    match link {
        None => format!("no client can reach it: there is no interface {name}; see `ip link`"),
        Some(link) if !link.up => {
            format!("no client can reach it: {name} is down; `ip link set {name} up`")
        }
        Some(link) if !link.carrier => {
            format!("no client can reach it: {name} has no carrier; look at cable and switch port")
        }
        Some(_) => format!("no client can reach it: it does not stand on {name}; `lvs-notify apply`"),
    }
}

/// How to stop a director that is not MASTER from answering. What has not a host's prefix is not ours to remove.
fn silence(key: &AddressKey, preview: &Preview) -> String {
    let host = Family::of(key.address).host_prefix();
    let wide = preview.observed.addresses.iter().find(|found| found.key == *key && found.prefix != host);
    match wide {
        Some(found) => format!(
            "lvs-notify has not put it there and leaves it: `ip address del {}/{} dev {}`",
            key.address, found.prefix, key.interface
        ),
        None if preview.plan.is_empty() => {
            "set net.ipv4.conf.all.arp_ignore=1, or take `arp: off` out of the file".to_owned()
        }
        None => "`lvs-notify apply` repairs it".to_owned(),
    }
}

fn parameters(preview: &Preview) -> BTreeMap<String, ParameterValue> {
    let wanted = preview.desired.parameters.iter().chain(&preview.desired.ipvs_parameters);
    wanted
        .map(|(parameter, wanted)| {
            let value = preview.observed.parameters.get(parameter).cloned();
            (parameter.to_string(), ParameterValue { value, wanted: wanted.clone() })
        })
        .collect()
}

/// Ours and others' services, with the differences that the plan found.
fn services(preview: &Preview) -> (Vec<VirtualService>, Vec<VirtualService>) {
    let mut marks: BTreeMap<ServiceKey, &Change> = BTreeMap::new();
    let mut server_marks: BTreeMap<(ServiceKey, ServerKey), &Change> = BTreeMap::new();
    for change in preview.plan.changes() {
        match change {
            Change::Service { key, .. } => _ = marks.insert(*key, change),
            Change::Server { service, key, .. } => _ = server_marks.insert((*service, *key), change),
            _ => {}
        }
    }
    let none = BTreeMap::new();
    let found = preview.observed.ipvs.as_ref().map_or(&none, |ipvs| &ipvs.services);
    let mut ours = BTreeMap::new();
    let mut foreign = Vec::new();
    for (key, service) in found {
        let mut told = virtual_service(preview, *key, service, marks.get(key).copied(), &server_marks);
        if preview.desired.ownership.owns(key) || marks.contains_key(key) {
            ours.insert(*key, told);
        } else {
            told.instance = preview.others.get(key).cloned();
            foreign.push(told);
        }
    }
    for change in marks.values() {
        if let Change::Service { key, old: None, new: Some(new), servers, .. } = change {
            let missing = |(server, settings): (&ServerKey, &RealServer)| {
                told(preview, *key, *server, *settings, None, Counters::default())
            };
            ours.entry(*key).or_insert_with(|| VirtualService {
                key: *key,
                instance: None,
                settings: new.clone(),
                difference: Some("+ missing".to_owned()),
                counters: Counters::default(),
                servers: servers.iter().map(missing).collect(),
            });
        }
    }
    (ours.into_values().collect(), foreign)
}

fn told(
    preview: &Preview,
    service: ServiceKey,
    key: ServerKey,
    settings: RealServer,
    difference: Option<String>,
    counters: Counters,
) -> Server {
    let drained = preview.desired.drained.get(&(service, key));
    Server {
        key,
        settings,
        difference,
        counters,
        drained: drained.is_some(),
        drained_until: drained.copied().flatten(),
    }
}

fn virtual_service(
    preview: &Preview,
    key: ServiceKey,
    service: &ObservedService,
    mark: Option<&Change>,
    server_marks: &BTreeMap<(ServiceKey, ServerKey), &Change>,
) -> VirtualService {
    let server = |(server, settings): (&ServerKey, &RealServer)| {
        let mark = server_marks.get(&(key, *server)).copied().map(difference);
        let counters = service.counters.get(server).copied().unwrap_or_default();
        told(preview, key, *server, *settings, mark, counters)
    };
    let mut servers: Vec<Server> = service.servers.iter().map(server).collect();
    let from = (key, ServerKey { address: IpAddr::from([0, 0, 0, 0]), port: 0 });
    for ((_, server), change) in server_marks.range(from..).take_while(|((service, _), _)| *service == key) {
        if let Change::Server { old: None, new: Some(new), .. } = change {
            let mark = Some("+ missing".to_owned());
            servers.push(told(preview, key, *server, *new, mark, Counters::default()));
        }
    }
    servers.sort_by_key(|server| server.key);
    VirtualService {
        key,
        instance: None,
        settings: service.settings.clone(),
        difference: mark.map(difference),
        counters: servers.iter().map(|server| server.counters).sum(),
        servers,
    }
}

/// What a change says beside the object that it changes.
fn difference(change: &Change) -> String {
    let sign = change.sign();
    format!("{sign} {}", change.difference().unwrap_or_else(|| "not wanted".to_owned()))
}
