//! What of a table a desired-state file can say, and why not the rest.
//!
//! Owns no rule: each piece is written and given to the file's own reader, and stays when that reads back the
//! same. So the writer cannot disagree with `check`. Called by `import`; the pieces are written by `yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Place, Table, shown, yaml};
use crate::config::source::Source;
use crate::config::{Config, WantedService};
use crate::model::service_flag::{ONE_PACKET, PERSISTENT, SCHED1, SCHED2, SCHED3};
use crate::model::{RealServer, ServerKey, Servers, Service, ServiceKey, SyncDaemon, Timeouts};

/// A table without what a file cannot say, and that as text.
#[derive(Clone, Debug, Default)]
pub struct Sifted {
    pub origin: String,
    /// VIPs of the services, and where they stand
    pub vips: BTreeMap<IpAddr, Place>,
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// Timeouts; 0 is not said
    pub timeouts: Timeouts,
    pub daemon: Option<SyncDaemon>,
    pub parameters: BTreeMap<String, String>,
    /// ARP parameters are left alone, and why
    pub arp_off: Option<String>,
    /// The services stay while not MASTER
    pub standby: bool,
    /// Told before the first key
    pub notes: Vec<String>,
    /// Told next to their service
    pub remarks: BTreeMap<ServiceKey, Vec<String>>,
    /// Told at the end: what is not written, and why
    pub refused: Vec<String>,
}

/// Reads a file's text as `check` does.
///
/// # Errors
/// Every reason against it.
pub fn read(text: &str) -> Result<Config, String> {
    let source = Source { name: "import".to_owned(), text: text.to_owned() };
    let document = source.document().map_err(|error| error.to_string())?;
    Config::try_from(&document).map_err(|problems| {
        let reasons: BTreeSet<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        reasons.into_iter().collect::<Vec<_>>().join("; ")
    })
}

impl Sifted {
    /// Sifts a table.
    pub fn of(table: &Table) -> Self {
        let mut sifted = Self {
            origin: table.origin.clone(),
            arp_off: table.arp_off.clone(),
            standby: table.standby,
            notes: table.notes.clone(),
            remarks: table.remarks.clone(),
            ..Self::default()
        };
        sifted.settings(table);
        // Nearly always everything can be said: one reading instead of one for each service.
        let mut whole = Self { services: table.services.clone(), ..sifted.clone() };
        whole.find_vips(table);
        if read(&yaml::document(&whole)).is_ok_and(|config| config.services == table.services) {
            return whole;
        }
        for (key, wanted) in &table.services {
            sifted.service(key, wanted);
        }
        sifted.find_vips(table);
        sifted
    }

    /// What is not a service.
    fn settings(&mut self, table: &Table) {
        let Timeouts { tcp, tcp_fin, udp } = table.timeouts;
        let none = Timeouts::default();
        for (name, value, only) in [
            ("tcp", tcp, Timeouts { tcp, ..none }),
            ("tcp_fin", tcp_fin, Timeouts { tcp_fin, ..none }),
            ("udp", udp, Timeouts { udp, ..none }),
        ] {
            match (Self { timeouts: only, ..Self::default() }).check() {
                Ok(()) => {
                    let known = &mut self.timeouts;
                    known.tcp += only.tcp;
                    known.tcp_fin += only.tcp_fin;
                    known.udp += only.udp;
                }
                Err(why) => self.refused.push(format!("the timeout {name} of {value} s: {why}")),
            }
        }
        for (name, value) in &table.parameters {
            let parameters: BTreeMap<_, _> = [(name.clone(), value.clone())].into();
            match (Self { parameters: parameters.clone(), ..Self::default() }).check() {
                Ok(()) => self.parameters.extend(parameters),
                Err(why) => {
                    self.refused.push(format!("net.ipv4.vs.{} = {}: {why}", shown(name), shown(value)));
                }
            }
        }
        let mut daemons = table.daemons.iter();
        match (daemons.next(), daemons.next()) {
            (Some((_, daemon)), None) => self.daemon(daemon),
            (None, _) => {}
            _ => {
                for (state, daemon) in &table.daemons {
                    self.refused.push(format!(
                        "sync daemon {state} ({}): `sync_daemon` is one daemon that follows the role, and two run here; they stay as they are",
                        shown(&daemon.ipvsadm())
                    ));
                }
            }
        }
    }

    /// The daemon, without a `max_len` that the file refuses.
    fn daemon(&mut self, daemon: &SyncDaemon) {
        let mut sizes = vec![daemon.max_len, None];
        sizes.dedup();
        for max_len in sizes {
            let trial = SyncDaemon { max_len, ..daemon.clone() };
            match (Self { daemon: Some(trial.clone()), ..Self::default() }).check() {
                Ok(()) => return self.daemon = Some(trial),
                Err(why) => self.refused.push(format!("sync daemon ({}): {why}", shown(&trial.ipvsadm()))),
            }
        }
    }

    fn service(&mut self, key: &ServiceKey, wanted: &WantedService) {
        let bare = WantedService { settings: wanted.settings.clone(), servers: Servers::new() };
        if let Err(why) = self.trial(key, &bare) {
            let mut text =
                format!("{}: {why}\nipvsadm -A {} {}", key, key.ipvsadm(), settings(&wanted.settings, key));
            for (server, settings) in &wanted.servers {
                let _ = write!(text, "\nipvsadm -a {} -r {server} {}", key.ipvsadm(), settings.ipvsadm());
            }
            return self.refused.push(text);
        }
        let mut kept = bare;
        if self.trial(key, wanted).is_ok() {
            kept.servers.clone_from(&wanted.servers);
        } else {
            for (server, settings) in &wanted.servers {
                match self.trial_server(key, &kept.settings, server, settings) {
                    Ok(()) => {
                        kept.servers.insert(*server, *settings);
                    }
                    Err(why) => self.refused.push(format!(
                        "real server {server} of {key}: {why}\nipvsadm -a {} -r {server} {}",
                        key.ipvsadm(),
                        settings.ipvsadm()
                    )),
                }
            }
        }
        self.services.insert(*key, kept);
    }

    fn trial_server(
        &self,
        key: &ServiceKey,
        settings: &Service,
        server: &ServerKey,
        wanted: &RealServer,
    ) -> Result<(), String> {
        let servers = [(*server, *wanted)].into();
        self.trial(key, &WantedService { settings: settings.clone(), servers })
    }

    /// Whether a service can be said, beside a daemon.
    fn trial(&self, key: &ServiceKey, wanted: &WantedService) -> Result<(), String> {
        let services: BTreeMap<_, _> = [(*key, wanted.clone())].into();
        let mut trial = Self { daemon: self.daemon.clone(), services, ..Self::default() };
        trial.find_vips(&Table::default());
        trial.check()
    }

    /// Whether the reader reads back what would be written.
    fn check(&self) -> Result<(), String> {
        let config = read(&yaml::document(self))?;
        let same = config.services == self.services
            && config.timeouts == self.timeouts
            && config.daemon == self.daemon
            && config.ipvs_parameters == self.parameters;
        if same { Ok(()) } else { Err("a desired-state file has no words for these settings".to_owned()) }
    }

    fn find_vips(&mut self, table: &Table) {
        for key in self.services.keys() {
            let ServiceKey::Endpoint { address, .. } = key else { continue };
            if self.vips.contains_key(address) {
                continue;
            }
            let mut place = table.places.get(address).cloned().unwrap_or_default();
            let vips: BTreeMap<_, _> = [(*address, place.clone())].into();
            if place != Place::default() {
                if let Err(why) = read(&yaml::document(&Self { vips, ..Self::default() })) {
                    self.refused.push(format!("where {address} stands: {why}"));
                    place = Place::default();
                }
            }
            self.vips.insert(*address, place);
        }
    }
}

/// A service's settings in ipvsadm's words, with the flags for which ipvsadm has no word.
fn settings(service: &Service, key: &ServiceKey) -> String {
    let named = PERSISTENT | ONE_PACKET | SCHED1 | SCHED2 | SCHED3;
    let words = shown(&service.ipvsadm(key.family()));
    match service.flags & !named {
        0 => words,
        unnamed => format!("{words} (and flags {unnamed:#x})"),
    }
}
