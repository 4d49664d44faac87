//! What an operator wants to know of an instance: one verdict, and what it is made of.
//!
//! Owns the judgement: is the kernel in sync, does each VIP answer where it must and nowhere else, and the words for
//! what is wrong. Pure: a preview and, when it was asked for, a probe's answers go in, a [`Status`] comes out, which is
//! also the JSON form. Leaves its text to `report`. Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{AddressKey, Claims, Mac, Parameter, RealServer, Role, ServerKey, Service, ServiceKey};
use crate::observed::{Counters, Fate, Interface, Observed, ObservedAddress};
use crate::plan::{Change, is_home};
use crate::preview::Preview;
use crate::state::record::{LastRun, Rehearsal};

/// The state of an instance. Its JSON form is `status --json`, version 2
/// (packaging/schema/status.schema.json): fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status<'a> {
    pub version: u32,
    /// Name of the VRRP instance
    pub instance: String,
    /// The newest notification's; none when there was none since boot: then the kernel is compared with BACKUP
    pub role: Option<Role>,
    /// Since when it has the role, in seconds since 1970
    pub since: Option<u64>,
    /// The kernel is as the file wants it, and so is the file in /etc/sysctl.d
    pub in_sync: bool,
    /// In sync, the file is valid, every VIP answers where it must and nowhere else, no rehearsed takeover failed, and there is no other problem
    pub healthy: bool,
    /// The last role change was carried out to its end
    pub complete: bool,
    /// How it failed, when something differs still
    pub failure: Option<String>,
    /// What clients or the other director suffer from, beside what is wrong with a VIP
    pub problems: Vec<Problem>,
    /// What is wrong with the desired-state file
    pub file_problem: Option<String>,
    /// When the edit of the file is taken back, in seconds since 1970, unless it is confirmed before
    pub confirm_until: Option<u64>,
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
    /// The last rehearsal of a takeover; none while MASTER, or when file, program or kernel have changed since
    pub rehearsal: Option<Rehearsal>,
    /// What `plan --current` reads
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub observed: &'a Observed,
}

/// What is wrong although nothing, or not only that, differs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    pub what: String,
    /// What to do about it
    pub remedy: String,
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
    /// It left the file, and goes with its connections, at the latest at this time, in seconds since 1970
    pub leaving_until: Option<u64>,
}

impl<'a> Status<'a> {
    /// Judges what was found.
    pub fn of(instance: &str, preview: &'a Preview, claims: Option<&Claims>) -> Self {
        let Preview { role, observed, desired, record, basis, persisted, .. } = preview;
        let difference = |change: &Change| Difference { sign: change.sign(), text: change.to_string() };
        let vips = desired.ownership.vips.iter().map(|address| vip(instance, *address, preview, claims));
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
        // Without any file nobody knows what a MASTER should be.
        let is_known = *role != Role::Master || basis.config.is_some();
        let differences: Vec<Difference> = preview.due().map(difference).collect();
        let in_sync = differences.is_empty() && *persisted && is_known;
        let problems = problems(instance, preview);
        let vips_are_right = vips.iter().all(|vip| vip.problem.is_none());
        let failure = record.as_ref().and_then(|record| record.failure.clone());
        Self {
            version: 2,
            instance: instance.to_owned(),
            role: record.as_ref().map(|record| record.role),
            since: record.as_ref().map(|record| record.since),
            in_sync,
            healthy: in_sync && file_problem.is_none() && vips_are_right && problems.is_empty(),
            // What was made up for since is no failure any more.
            failure: failure.filter(|_| !in_sync || !vips_are_right),
            problems,
            complete: record.as_ref().is_none_or(|record| record.complete),
            confirm_until: preview.confirm_until,
            last_good: file_problem.is_some() && basis.config.is_some(),
            file_problem,
            persisted: *persisted,
            differences,
            vips,
            parameters: desired.parameters.iter().chain(&desired.ipvs_parameters).map(parameter).collect(),
            services,
            foreign_services,
            sync_daemons: daemons.collect(),
            ipvs: observed.ipvs.is_some(),
            last_run: record.as_ref().and_then(|record| record.last.clone()),
            rehearsal: None,
            observed,
        }
    }

    /// Whether some client may be served: a VIP answers or is reached by routing, and a service stands, if there is any.
    pub fn serves(&self) -> bool {
        let heard = |vip: &Vip| {
            let mut heard = self.observed.heard.iter().filter(|(asked, _)| asked.address == vip.address);
            heard.any(|(_, (_, fate))| fate.answers())
        };
        let answers = |vip: &Vip| heard(vip) || vip.interface.is_none() && !vip.places.is_empty();
        let serves =
            |service: &VirtualService| !service.difference.as_ref().is_some_and(|what| what.starts_with('+'));
        self.vips.iter().any(answers) && (self.services.is_empty() || self.services.iter().any(serves))
    }

    /// Who is not MASTER has to show that it could be.
    pub fn rehearsed(mut self, last: Option<Rehearsal>) -> Self {
        self.rehearsal = last.filter(|_| self.role != Some(Role::Master));
        self.healthy &= self.rehearsal.as_ref().is_none_or(|last| last.problems.is_empty());
        self
    }

    /// How many things differ.
    pub fn count(&self) -> usize {
        self.differences.len() + usize::from(!self.persisted)
    }
}

/// What a difference does not say, or not plainly enough.
fn problems(instance: &str, preview: &Preview) -> Vec<Problem> {
    let Preview { role, observed, desired, record, keepalived, .. } = preview;
    let mut found = Vec::new();
    let mut add = |what: String, remedy: String| found.push(Problem { what, remedy });
    let again = format!("`lvs-notify apply {instance}`");
    let table = observed.table();
    if let Some(why) = &preview.trouble {
        add(format!("the last run left this undone: {why}"), format!("mend that, then {again}"));
    }
    if let Some(why) = &preview.problem {
        add("a real server that is drained may not be".to_owned(), why.clone());
    }
    if !keepalived && record.is_some() {
        let what = match role {
            Role::Master => Some("so another director takes over, too"),
            Role::Backup => Some("so this director takes over nothing"),
            Role::Fault | Role::Stop => None,
        };
        let remedy = format!("start keepalived; until then `lvs-notify stop {instance}` says what it is");
        what.into_iter().for_each(|what| add(format!("nobody speaks VRRP here, {what}"), remedy.clone()));
    }
    for key in desired.client_side().filter(|_| *role == Role::Backup) {
        let link = observed.interfaces.get(&key.interface);
        if !link.is_some_and(Interface::works) {
            let what =
                format!("{} could not be taken over: {} is down or missing", key.address, key.interface);
            add(what, format!("see `ip link show {}`", key.interface));
        }
    }
    if desired.active {
        if let Some(why) = record.as_ref().and_then(|record| record.unannounced.as_ref()) {
            add(format!("neighbours were not told of the VIPs: {why}"), format!("{again} announces again"));
        }
        for key in desired.services.keys() {
            match table.services.get(key) {
                None => add(
                    format!("{key} refuses its clients: there is no such service"),
                    format!("{again} makes it"),
                ),
                Some(found) if found.servers.values().all(|server| server.weight == 0) => {
                    let remedy = match desired.drained.is_empty() {
                        true => "give one a weight".to_owned(),
                        false => format!("`lvs-notify undrain --all {instance}`"),
                    };
                    add(format!("{key} refuses its clients: it has no real server above weight 0"), remedy);
                }
                Some(_) => {}
            }
        }
        let expires = Parameter::Ipvs("expire_quiescent_template".to_owned());
        let expires = observed.parameters.get(&expires).is_some_and(|value| value == "1");
        for (service, server) in desired.drained.keys() {
            let caveat =
                desired.services.get(service).and_then(|wanted| wanted.settings.drain_caveat(expires));
            caveat.into_iter().for_each(|why| add(format!("{server} of {service} is drained"), why));
        }
    }
    if let Some(line) = &preview.overruled {
        let what =
            format!("the next boot sets a parameter otherwise, so the VIP may answer too soon: {line}");
        add(what, "take the line out".to_owned());
    }
    if let Some((state, daemon)) = &desired.daemon {
        let link = observed.interfaces.get(&daemon.interface);
        if !link.is_some_and(Interface::works) {
            let what = format!("the sync daemon ({state}) has no working interface: {}", daemon.interface);
            add(what, format!("see `ip link show {}`", daemon.interface));
        }
    }
    found
}

fn vip(instance: &str, address: IpAddr, preview: &Preview, claims: Option<&Claims>) -> Vip {
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
    let (answers, reason, remedy) = answer(instance, key, protocol, preview);
    // Who should not answer must not do so by another link either.
    let answering =
        |(asked, (_, fate)): &(&AddressKey, &(String, Fate))| asked.address == address && fate.answers();
    let by_another = observed.heard.iter().find(answering).filter(|_| !desired.active && !answers);
    let (name, why, remedy) = match by_another {
        Some((asked, _)) => {
            let (_, why, remedy) = answer(instance, asked, protocol, preview);
            (&asked.interface, why, remedy)
        }
        None => (&key.interface, reason.clone(), remedy),
    };
    let by = observed.heard.get(key).map(|(by, _)| by);
    let mac = by.and_then(|by| observed.interfaces.get(by)?.mac);
    // This host does not hear itself.
    let own = mac.filter(|_| answers);
    let heard = claims
        .and_then(|claims| claims.get(key))
        .map(|heard| heard.as_ref().map(|macs| macs.iter().copied().chain(own).collect::<BTreeSet<Mac>>()));
    // The first that holds.
    vip.problem = match (desired.active, answers || by_another.is_some(), &heard) {
        (true, false, _) => Some(format!("no client can reach it: {why}; {remedy}")),
        (false, true, _) if preview.record.is_none() => Some(format!(
            "it answers on {name}, and there was no notification since boot: `lvs-notify master {instance}` or \
             `lvs-notify backup {instance}`, whichever keepalived says, makes the role known"
        )),
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
    vip.reason = if answers { reason } else { format!("{protocol} not answered: {reason}") };
    Vip { interface: Some(key.interface.clone()), answers, mac: mac.map(text), ..vip }
}

/// Whether a VIP answers on its client-side interface, why, and what to do in a role that wants it otherwise.
fn answer(instance: &str, key: &AddressKey, protocol: &str, preview: &Preview) -> (bool, String, String) {
    let Preview { desired, observed, record, plan, .. } = preview;
    let AddressKey { interface: name, address } = key;
    let Some((by, fate)) = observed.heard.get(key) else {
        return (false, format!("there is no interface {name}"), "see `ip link`".to_owned());
    };
    let at = if by == name { by.clone() } else { format!("{by} (which gets what comes in by {name})") };
    let up = observed.interfaces.get(by).is_some_and(|link| link.up);
    let standing: Vec<_> = observed.addresses.iter().filter(|found| found.key.address == *address).collect();
    let places: BTreeSet<&str> = standing.iter().map(|found| &*found.key.interface).collect();
    let places = Vec::from_iter(places).join(" and ");
    let (only, stands) = match &*places {
        "" => ("the VIP is not here".to_owned(), "a route makes it local".to_owned()),
        places => (format!("the VIP stands on {places} only"), format!("it stands on {places}")),
    };
    let why = match fate {
        Fate::Stands => format!("answers {protocol} on {at}"),
        Fate::Local(ignore) => format!("answers ARP on {at}, because {stands} and arp_ignore is {ignore}"),
        Fate::Proxied => format!("answers {protocol} on {at} for another host"),
        Fate::Absent if address.is_ipv4() && !places.is_empty() => format!("{only}, where no route leads"),
        Fate::Absent => only,
        Fate::Ignored(ignore) => format!("{only}, and arp_ignore on {at} is {ignore}"),
        Fate::Deaf if up => format!("{at} has no carrier"),
        Fate::Deaf => format!("{at} is down"),
        Fate::Noarp => format!("{protocol} is switched off on {at}"),
        Fate::Filtered(filter, to) => format!("by {filter} on {at}: the way back to {to} is another"),
        Fate::Tentative => {
            format!("duplicate address detection on {at} runs, or failed: another host had it")
        }
    };
    let owned = record.as_ref().map(|record| record.owned.clone()).unwrap_or_default();
    let there = || standing.iter().copied().filter(|found| found.key.interface == *by);
    let home = |found: &ObservedAddress| is_home(found, &desired.ownership.vips, observed, &owned);
    // What has not a host's prefix, or stands on another link, is not ours to remove.
    let foreign = there().find(|found| !found.is_host() || by != name).map(|found| {
        let del = format!("ip address del {address}/{} dev {by}", found.prefix);
        format!("lvs-notify has not put it there and leaves it: `{del}`")
    });
    let apply = format!("`lvs-notify apply {instance}` repairs it");
    let remedy = match fate {
        Fate::Stands if by == name && there().any(home) => {
            "it is this host's own: see `lvs-notify check --host`".to_owned()
        }
        Fate::Stands => foreign.unwrap_or(apply),
        Fate::Deaf if up => "look at cable and switch port".to_owned(),
        Fate::Deaf => format!("`ip link set {by} up`"),
        Fate::Noarp => format!("`ip link set {by} arp on`"),
        Fate::Tentative if plan.is_empty() => "it ends within seconds".to_owned(),
        Fate::Filtered(filter, to) => format!("see `ip route get {to}` and `sysctl -ar {filter}`"),
        Fate::Proxied => "see `ip neigh show proxy` and `sysctl -ar 'proxy_(arp|ndp)'`".to_owned(),
        _ if !plan.is_empty() => apply,
        Fate::Local(_) => "set net.ipv4.conf.all.arp_ignore=1, or take `arp: off` out of the file".into(),
        // Nothing that comes in by a port is its own.
        _ if by != name => format!("{name} is a port: write `interface: {by}` into the file"),
        Fate::Ignored(_) => {
            format!("see `sysctl net.ipv4.conf.{{all,{by}}}.arp_ignore`: the larger one counts")
        }
        _ => format!("see `ip route get {address} iif {by}`"),
    };
    (fate.answers(), why, remedy)
}

/// Our services and others': all that are wanted or found.
fn services(preview: &Preview) -> (Vec<VirtualService>, Vec<VirtualService>) {
    let Preview { desired, observed, record, others, .. } = preview;
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
    let marks: BTreeMap<_, String> = preview.due().filter_map(mark).collect();
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
                leaving_until: owned.leaving.get(&(key, *server)).map(|since| desired.leaves_at(*since)),
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
