//! What an operator wants to know of an instance: one verdict, and what it is made of.
//!
//! Owns the judgement: is the kernel in sync, does each VIP answer where it must and nowhere else,
//! which service or server differs and how, and the words for what is wrong. Pure: a preview and, when
//! it was asked for, a probe's answers go in, a [`Status`] comes out, which is also the JSON form.
//! Leaves its text to `report`. Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{AddressKey, Claims, Mac, Parameter, RealServer, Role, ServerKey, Service, ServiceKey};
use crate::observed::{Counters, Observed, ObservedAddress};
use crate::preview::Preview;
use crate::state::record::LastRun;

/// The state of an instance. Its JSON form is `status --json`, version 1
/// (packaging/schema/status.schema.json): fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    pub sign: char,
    /// To what, and from what to what
    pub text: String,
}

/// A virtual address.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ParameterValue {
    /// Found; none when it does not exist
    pub value: Option<String>,
    pub wanted: String,
    #[serde(skip)]
    pub differs: bool,
}

/// A virtual service with what differs about it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
        let Preview { role, plan, observed, desired, record, basis, .. } = preview;
        let ipvs = observed.ipvs.as_ref();
        let file_problem = basis.problem().map(str::to_owned);
        let (services, foreign_services) = services(preview);
        let mut status = Self {
            version: 1,
            instance: instance.to_owned(),
            role: *role,
            recorded: record.is_some(),
            since: record.as_ref().map(|record| record.since),
            in_sync: plan.is_empty() && persisted,
            healthy: false,
            complete: record.as_ref().is_none_or(|record| record.complete),
            last_good: file_problem.is_some() && basis.config.is_some(),
            file_problem,
            persisted,
            differences: plan
                .changes()
                .map(|change| Difference { sign: change.sign(), text: change.to_string() })
                .collect(),
            vips: desired.ownership.vips.iter().map(|address| vip(*address, preview, claims)).collect(),
            parameters: parameters(preview),
            services,
            foreign_services,
            sync_daemons: ipvs
                .into_iter()
                .flat_map(|ipvs| &ipvs.daemons)
                .map(|(state, daemon)| format!("{state} on {} id {}", daemon.interface, daemon.id))
                .collect(),
            ipvs: ipvs.is_some(),
            last_run: record.as_ref().and_then(|record| record.last.clone()),
        };
        status.healthy =
            status.in_sync && status.file_problem.is_none() && status.problems().next().is_none();
        status
    }

    /// How many things differ.
    pub fn count(&self) -> usize {
        self.differences.len() + usize::from(!self.persisted)
    }

    /// What is wrong although nothing need differ: with what, and what to do.
    pub fn problems(&self) -> impl Iterator<Item = (String, &str)> {
        self.vips.iter().filter_map(|vip| Some((vip.address.to_string(), vip.problem.as_deref()?)))
    }
}

fn vip(address: IpAddr, preview: &Preview, claims: Option<&Claims>) -> Vip {
    let Preview { desired, observed, .. } = preview;
    let key = desired.client_side().find(|key| key.address == address);
    let name = key.map(|key| &key.interface);
    let mac = name.and_then(|name| observed.interfaces.get(name)?.mac);
    let protocol = if address.is_ipv4() { "ARP" } else { "ND" };
    let (answers, why, remedy) = key.map(|key| answer(key, protocol, preview)).unwrap_or_default();
    let reason = match (key, answers) {
        (None, _) => format!("reached by routing, {protocol} is not answered by design"),
        (Some(_), false) => format!("{protocol} not answered: {why}"),
        (Some(_), true) => why.clone(),
    };
    let heard: Option<Result<BTreeSet<Mac>, _>> = claims.zip(key).and_then(|(claims, key)| {
        // This host does not hear itself.
        let own = mac.filter(|_| answers);
        Some(claims.get(key)?.as_ref().map(|macs| macs.iter().copied().chain(own).collect()))
    });
    // The first that holds.
    let problem = match (name, desired.active, answers, &heard) {
        (None, ..) => None,
        (_, true, false, _) => Some(format!("no client can reach it: {why}; {remedy}")),
        (Some(name), false, true, _) => Some(format!(
            "this director is not MASTER and answers for it on {name}, so clients may be sent here: {why}; {remedy}"
        )),
        (.., Some(Err(error))) => Some(format!("asking the network failed: {error}")),
        (.., Some(Ok(macs))) if macs.len() > 1 => Some(format!(
            "SPLIT BRAIN: {} hosts answer for it; compare `lvs-notify status` on both directors. Either an address \
             was left behind, or VRRP advertisements are lost: `tcpdump -ni INTERFACE vrrp` shows the other \
             director's where a firewall here drops them, and does not where the network does",
            macs.len()
        )),
        (_, false, _, Some(Ok(macs))) if macs.is_empty() => {
            Some("nobody answers for it: there is no MASTER that clients can reach".to_owned())
        }
        _ => None,
    };
    let text = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    let places = observed.addresses.iter().filter(|found| found.key.address == address);
    Vip {
        address,
        interface: name.cloned(),
        places: places.map(|found| format!("{}/{}", found.key.interface, found.prefix)).collect(),
        answers,
        mac: mac.map(text),
        reason,
        problem,
        claims: heard.and_then(Result::ok).map(|macs| macs.into_iter().map(text).collect()),
    }
}

/// Whether a VIP answers on its client-side interface, why, and what to do in a role that wants it otherwise: the rules
/// of `arp_ignore()` in `net/ipv4/arp.c`, where the larger of the values for `all` and for the interface that received
/// the request holds.
fn answer(key: &AddressKey, protocol: &str, preview: &Preview) -> (bool, String, String) {
    let Observed { addresses, interfaces, parameters, .. } = &preview.observed;
    let name = &key.interface;
    let ignore = |interface: &str| -> Option<u32> {
        parameters.get(&Parameter::ArpIgnore(interface.to_owned()))?.parse().ok()
    };
    let ignore = ignore("all").max(ignore(name)).unwrap_or(0);
    // What has not a host's prefix is not ours to remove.
    let wide = |found: &&ObservedAddress| !found.is_host();
    let there = || addresses.iter().filter(|found| found.key == *key);
    let apply = "`lvs-notify apply` repairs it".to_owned();
    match interfaces.get(name) {
        None => (false, format!("there is no interface {name}"), "see `ip link`".to_owned()),
        Some(link) if !link.up => (false, format!("{name} is down"), format!("`ip link set {name} up`")),
        Some(link) if !link.carrier => {
            (false, format!("{name} has no carrier"), "look at cable and switch port".to_owned())
        }
        _ if there().next().is_some() => {
            let remedy = there().find(wide).map_or(apply, |found| {
                let del = format!("ip address del {}/{} dev {name}", key.address, found.prefix);
                format!("lvs-notify has not put it there and leaves it: `{del}`")
            });
            (true, format!("answers {protocol} on {name}"), remedy)
        }
        _ if !addresses.iter().any(|found| found.key.address == key.address) => {
            (false, "the VIP is not here".to_owned(), apply)
        }
        _ if key.address.is_ipv6() => (false, "the VIP stands on lo only".to_owned(), apply),
        _ if ignore == 0 => {
            let off = "set net.ipv4.conf.all.arp_ignore=1, or take `arp: off` out of the file".to_owned();
            let remedy = if preview.plan.is_empty() { off } else { apply };
            (true, format!("answers ARP on {name}, because it stands on lo and arp_ignore is 0"), remedy)
        }
        _ => (false, format!("the VIP stands on lo only, and arp_ignore on {name} is {ignore}"), apply),
    }
}

fn parameters(preview: &Preview) -> BTreeMap<String, ParameterValue> {
    let Preview { desired, observed, .. } = preview;
    let one = |(parameter, wanted): (&Parameter, &String)| {
        let value = observed.parameters.get(parameter).cloned();
        let differs = observed.differs(parameter, wanted);
        (parameter.to_string(), ParameterValue { value, wanted: wanted.clone(), differs })
    };
    desired.parameters.iter().chain(&desired.ipvs_parameters).map(one).collect()
}

/// Our services and others': all that are wanted or found.
fn services(preview: &Preview) -> (Vec<VirtualService>, Vec<VirtualService>) {
    let Preview { desired, observed, record, .. } = preview;
    let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
    let ownership = desired.ownership.with_record(&owned);
    let found = observed.ipvs.iter().flat_map(|ipvs| ipvs.services.keys());
    let keys: BTreeSet<&ServiceKey> = desired.services.keys().chain(found).collect();
    let ours = |key: &ServiceKey| ownership.owns(key) || desired.services.contains_key(key);
    let rows = keys.into_iter().filter_map(|key| service_row(*key, ours(key), preview));
    rows.partition(|service| ours(&service.key))
}

fn service_row(key: ServiceKey, ours: bool, preview: &Preview) -> Option<VirtualService> {
    let Preview { desired, observed, others, .. } = preview;
    let wanted = desired.services.get(&key);
    let found = observed.ipvs.as_ref().and_then(|ipvs| ipvs.services.get(&key));
    let keys = wanted.into_iter().flat_map(|wanted| wanted.servers.keys());
    let keys: BTreeSet<&ServerKey> =
        keys.chain(found.into_iter().flat_map(|found| found.servers.keys())).collect();
    let server_row = |server: &ServerKey| {
        let new = wanted.and_then(|wanted| wanted.servers.get(server));
        let old = found.and_then(|found| found.servers.get(server));
        let drained = desired.drained.get(&(key, *server));
        // Of a service that comes or goes as a whole no real server has a mark of its own.
        let compared = wanted.is_some() && found.is_some();
        Some(Server {
            key: *server,
            settings: *old.or(new)?,
            difference: compared.then(|| difference(old, new, RealServer::differences)).flatten(),
            counters: found.and_then(|found| found.counters.get(server)).copied().unwrap_or_default(),
            drained: drained.is_some(),
            drained_until: drained.copied().flatten(),
        })
    };
    let servers: Vec<Server> = keys.into_iter().filter_map(server_row).collect();
    let (old, new) = (found.map(|found| &found.settings), wanted.map(|wanted| &wanted.settings));
    let fields = |old: &Service, new: &Service| old.differences(new, key.family());
    Some(VirtualService {
        key,
        instance: others.get(&key).filter(|_| !ours).cloned(),
        settings: old.or(new)?.clone(),
        difference: ours.then(|| difference(old, new, fields)).flatten(),
        counters: servers.iter().map(|server| server.counters).sum(),
        servers,
    })
}

/// What differs, with its sign: the settings with their old and new values, or the whole.
fn difference<T: PartialEq>(
    found: Option<&T>,
    wanted: Option<&T>,
    fields: impl Fn(&T, &T) -> Vec<(&'static str, String, String)>,
) -> Option<String> {
    match (found, wanted) {
        (None, _) => Some("+ missing".to_owned()),
        (Some(_), None) => Some("- not wanted".to_owned()),
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => {
            let words = fields(old, new).into_iter().map(|(name, old, new)| format!("{name} {old} -> {new}"));
            Some(format!("~ {}", words.collect::<Vec<_>>().join(", ")))
        }
    }
}
