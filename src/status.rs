//! What an operator wants to know of an instance: one verdict, and what it is made of.
//!
//! Owns the judgement: is the kernel in sync, does each VIP answer where it must and nowhere else, and the words for
//! what is wrong. Pure: a preview and, when it was asked for, a probe's answers go in, a [`Status`] comes out, which is
//! also the JSON form. Leaves its text to `report`. Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{AddressKey, Claims, Mac, Parameter, RealServer, Role, ServerKey, Service, ServiceKey};
use crate::observed::{Counters, Observed, ObservedAddress};
use crate::plan::{Change, is_home};
use crate::preview::Preview;
use crate::state::record::LastRun;

/// The state of an instance. Its JSON form is `status --json`, version 1
/// (packaging/schema/status.schema.json): fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status<'a> {
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
    /// What `plan --current` reads
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub observed: &'a Observed,
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

impl<'a> Status<'a> {
    /// Judges what was found.
    pub fn of(instance: &str, preview: &'a Preview, persisted: bool, claims: Option<&Claims>) -> Self {
        let Preview { role, plan, observed, desired, record, basis, .. } = preview;
        let difference = |change: &Change| Difference { sign: change.sign(), text: change.to_string() };
        let vips = desired.ownership.vips.iter().map(|address| vip(*address, preview, claims));
        let vips: Vec<Vip> = vips.collect();
        let parameter = |(parameter, wanted): (&Parameter, &String)| {
            let value = observed.parameters.get(parameter).cloned();
            let differs = observed.differs(parameter, wanted);
            (parameter.to_string(), ParameterValue { value, wanted: wanted.clone(), differs })
        };
        let (services, foreign_services) = services(preview);
        let daemons = observed.ipvs.iter().flat_map(|ipvs| &ipvs.daemons);
        let daemons =
            daemons.map(|(state, daemon)| format!("{state} on {} id {}", daemon.interface, daemon.id));
        let file_problem = basis.problem().map(str::to_owned);
        let in_sync = plan.is_empty() && persisted;
        Self {
            version: 1,
            instance: instance.to_owned(),
            role: *role,
            recorded: record.is_some(),
            since: record.as_ref().map(|record| record.since),
            in_sync,
            healthy: in_sync && file_problem.is_none() && vips.iter().all(|vip| vip.problem.is_none()),
            complete: record.as_ref().is_none_or(|record| record.complete),
            last_good: file_problem.is_some() && basis.config.is_some(),
            file_problem,
            persisted,
            differences: plan.changes().map(difference).collect(),
            vips,
            parameters: desired.parameters.iter().chain(&desired.ipvs_parameters).map(parameter).collect(),
            services,
            foreign_services,
            sync_daemons: daemons.collect(),
            ipvs: observed.ipvs.is_some(),
            last_run: record.as_ref().and_then(|record| record.last.clone()),
            observed,
        }
    }

    /// How many things differ.
    pub fn count(&self) -> usize {
        self.differences.len() + usize::from(!self.persisted)
    }
}

fn vip(address: IpAddr, preview: &Preview, claims: Option<&Claims>) -> Vip {
    let Preview { desired, observed, .. } = preview;
    let protocol = if address.is_ipv4() { "ARP" } else { "ND" };
    let places = observed.addresses.iter().filter(|found| found.key.address == address);
    let mut vip = Vip {
        address,
        interface: None,
        places: places.map(|found| format!("{}/{}", found.key.interface, found.prefix)).collect(),
        answers: false,
        mac: None,
        reason: format!("reached by routing, {protocol} is not answered by design"),
        problem: None,
        claims: None,
    };
    let Some(key) = desired.client_side().find(|key| key.address == address) else { return vip };
    let name = &key.interface;
    let (answers, why, remedy) = answer(key, protocol, preview);
    let mac = observed.interfaces.get(name).and_then(|link| link.mac);
    // This host does not hear itself.
    let own = mac.filter(|_| answers);
    let heard = claims
        .and_then(|claims| claims.get(key))
        .map(|heard| heard.as_ref().map(|macs| macs.iter().copied().chain(own).collect::<BTreeSet<Mac>>()));
    // The first that holds.
    vip.problem = match (desired.active, answers, &heard) {
        (true, false, _) => Some(format!("no client can reach it: {why}; {remedy}")),
        (false, true, _) => Some(format!(
            "this director is not MASTER and answers for it on {name}, so clients may be sent here: {why}; {remedy}"
        )),
        (.., Some(Err(error))) => Some(format!("asking the network failed: {error}")),
        (.., Some(Ok(macs))) if macs.len() > 1 => Some(format!(
            "SPLIT BRAIN: {} hosts answer for it; compare `lvs-notify status` on both directors. Either an address \
             was left behind, or VRRP advertisements are lost: `tcpdump -ni INTERFACE vrrp` shows the other \
             director's where a firewall here drops them, and does not where the network does",
            macs.len()
        )),
        (false, _, Some(Ok(macs))) if macs.is_empty() => {
            Some("nobody answers for it: there is no MASTER that clients can reach".to_owned())
        }
        _ => None,
    };
    let text = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    vip.claims = heard.and_then(Result::ok).map(|macs| macs.into_iter().map(text).collect());
    vip.reason = if answers { why } else { format!("{protocol} not answered: {why}") };
    Vip { interface: Some(name.clone()), answers, mac: mac.map(text), ..vip }
}

/// Whether a VIP answers on its client-side interface, why, and what to do in a role that wants it otherwise: the rules
/// of `arp_ignore()` in `net/ipv4/arp.c`, where the larger of the values for `all` and for the interface that received
/// the request holds.
fn answer(key: &AddressKey, protocol: &str, preview: &Preview) -> (bool, String, String) {
    let Preview { desired, observed, record, .. } = preview;
    let Observed { addresses, interfaces, parameters, .. } = observed;
    let name = &key.interface;
    let ignore = |interface: &str| -> Option<u32> {
        parameters.get(&Parameter::ArpIgnore(interface.to_owned()))?.parse().ok()
    };
    let ignore = ignore("all").max(ignore(name)).unwrap_or(0);
    let there: Vec<&ObservedAddress> = addresses.iter().filter(|found| found.key == *key).collect();
    let apply = "`lvs-notify apply` repairs it".to_owned();
    match interfaces.get(name) {
        None => (false, format!("there is no interface {name}"), "see `ip link`".to_owned()),
        Some(link) if !link.up => (false, format!("{name} is down"), format!("`ip link set {name} up`")),
        Some(link) if !link.carrier => {
            (false, format!("{name} has no carrier"), "look at cable and switch port".to_owned())
        }
        _ if !there.is_empty() => {
            let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
            let home = |found: &&ObservedAddress| is_home(found, &desired.ownership.vips, observed, &owned);
            // What has not a host's prefix is not ours to remove.
            let remedy = match there.iter().find(|found| !found.is_host()) {
                _ if there.iter().any(home) => {
                    "it is this host's own: see `lvs-notify check --host`".to_owned()
                }
                Some(ObservedAddress { prefix, .. }) => {
                    let del = format!("ip address del {}/{prefix} dev {name}", key.address);
                    format!("lvs-notify has not put it there and leaves it: `{del}`")
                }
                None => apply,
            };
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

/// Our services and others': all that are wanted or found.
fn services(preview: &Preview) -> (Vec<VirtualService>, Vec<VirtualService>) {
    let Preview { plan, desired, observed, record, others, .. } = preview;
    // Of a service that comes or goes as a whole no real server has a mark of its own.
    let mark = |change: &Change| {
        let place = match change {
            Change::Service { key, .. } => (*key, None),
            Change::Server { service, key, .. } => (*service, Some(*key)),
            _ => return None,
        };
        let text = change.to_string();
        let what = match change.sign() {
            '+' => "missing",
            '-' => "not wanted",
            _ => text.split_once(": ").unwrap_or_default().1,
        };
        Some((place, format!("{} {what}", change.sign())))
    };
    let marks: BTreeMap<_, String> = plan.changes().filter_map(mark).collect();
    let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
    let ownership = desired.ownership.with_record(&owned);
    let table = &observed.table().services;
    let row = |key: ServiceKey| {
        let (wanted, found) = (desired.services.get(&key), table.get(&key));
        // As found, where it is found.
        let servers = wanted.into_iter().flat_map(|wanted| wanted.servers.iter());
        let servers = servers.chain(found.into_iter().flat_map(|found| found.servers.iter()));
        let servers: BTreeMap<&ServerKey, &RealServer> = servers.collect();
        let servers = servers.into_iter().map(|(server, settings)| {
            let drained = desired.drained.get(&(key, *server));
            Server {
                key: *server,
                settings: *settings,
                difference: marks.get(&(key, Some(*server))).cloned(),
                counters: found.and_then(|found| found.counters.get(server)).copied().unwrap_or_default(),
                drained: drained.is_some(),
                drained_until: drained.copied().flatten(),
            }
        });
        let servers: Vec<Server> = servers.collect();
        let settings = found.map(|found| &found.settings).or(wanted.map(|wanted| &wanted.settings))?;
        Some(VirtualService {
            key,
            instance: others.get(&key).filter(|_| !ownership.owns(&key)).cloned(),
            settings: settings.clone(),
            difference: marks.get(&(key, None)).cloned(),
            counters: servers.iter().map(|server| server.counters).sum(),
            servers,
        })
    };
    let keys: BTreeSet<ServiceKey> = desired.services.keys().chain(table.keys()).copied().collect();
    keys.into_iter().filter_map(row).partition(|service| ownership.owns(&service.key))
}
