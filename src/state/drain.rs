//! Real servers drained by hand: no new connections, existing ones live on, until it is lifted.
//!
//! Owns what `drain` and `undrain` mean: which servers of which services, and until when; and the list in
//! /var/lib/lvs-notify, which survives `apply`, a failover and a reboot, and changes the desired state of every role.
//! Called by `lib` (the commands) and `basis`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::files::{STATE, path_of, read_json, write_json};
use super::stamp::seconds_now;
use crate::config::Config;
use crate::desired::Desired;
use crate::model::{Endpoint, ServerKey, ServiceKey};
use crate::text::did_you_mean;

/// A real server as one types it: without a port, every port is meant.
pub type ServerWord = (IpAddr, Option<u16>);

fn typed((address, port): ServerWord) -> String {
    port.map_or(address.to_string(), |port| Endpoint { address, port }.to_string())
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub address: IpAddr,
    /// Its port; none: every port
    pub port: Option<u16>,
    /// The services in which it is drained; none: every service, also those to come
    pub services: Option<Vec<ServiceKey>>,
    /// Lifted by itself at this time, in seconds since 1970
    pub until: Option<u64>,
}

impl Drain {
    fn covers(&self, service: &ServiceKey, server: &ServerKey) -> bool {
        self.address == server.address
            && self.port.is_none_or(|port| port == server.port)
            && self.services.as_ref().is_none_or(|services| services.contains(service))
    }

    fn holds(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Real servers that are drained by hand; none without the file.
pub fn read(instance: &str) -> anyhow::Result<Vec<Drain>> {
    let list = read_json(&path(instance)).context("reading which real servers are drained")?;
    Ok(list.unwrap_or_default())
}

fn path(instance: &str) -> PathBuf {
    path_of(STATE, instance, "drains.json")
}

/// Gives drained servers weight 0 in a desired state.
pub fn apply(list: &[Drain], desired: &mut Desired, now: u64) {
    for (service, wanted) in &mut desired.services {
        for server in wanted.servers.clone().keys() {
            if let Some(drain) = list.iter().find(|drain| drain.holds(now) && drain.covers(service, server)) {
                let settings = Arc::make_mut(&mut wanted.servers).get_mut(server);
                settings.into_iter().for_each(|settings| settings.weight = 0);
                desired.drained.insert((*service, *server), drain.until);
            }
        }
    }
}

/// Adds to the list; gives what to tell. Without services, every service is meant.
pub fn begin(
    instance: &str,
    config: &Config,
    (address, port): ServerWord,
    services: &[String],
    period: Option<Duration>,
) -> anyhow::Result<String> {
    let keys: Result<Vec<_>, _> = services.iter().map(|word| services_called(word, config)).collect();
    let now = seconds_now();
    let drain = Drain {
        address,
        port,
        services: Some(keys?.concat()).filter(|list| !list.is_empty()),
        until: period.map(|period| now.saturating_add(period.as_secs().max(1))),
    };
    let services = config.services.iter();
    let (meant, other): (Vec<_>, Vec<_>) = services
        .flat_map(|(service, wanted)| wanted.servers.keys().map(move |server| (service, server)))
        .partition(|(service, server)| drain.covers(service, server));
    if meant.is_empty() {
        let known: Vec<_> = other.iter().map(|(_, server)| server.address.to_string()).collect();
        let (word, known) = (typed((address, port)), known.iter().map(String::as_str).collect::<Vec<_>>());
        bail!("no declared real server is `{word}`{}", did_you_mean(&word, &known));
    }
    let mut list = read(instance)?;
    list.retain(|known| known.holds(now) && Drain { until: drain.until, ..known.clone() } != drain);
    list.push(drain);
    write_json(&path(instance), &list, true)?;
    let expires = config.ipvs_parameters.get("expire_quiescent_template").is_some_and(|value| value == "1");
    let told: Vec<_> = meant.iter().map(|(service, server)| format!("{server} of {service}")).collect();
    let mut told = format!("draining {}\n", told.join(", "));
    for service in meant.iter().map(|(service, _)| service).collect::<BTreeSet<_>>() {
        let caveat = config.services.get(service).and_then(|wanted| wanted.settings.drain_caveat(expires));
        told.extend(caveat.map(|caveat| format!("but {service}: {caveat}\n")));
    }
    Ok(told + "on this director only: drain it on the other director too, or a failover lifts it\n")
}

/// Takes from the list every entry about this server, or all; gives what to tell.
pub fn lift(instance: &str, server: Option<ServerWord>) -> anyhow::Result<String> {
    let (lifted, left): (Vec<Drain>, _) = read(instance)?.into_iter().partition(|known| {
        server.is_none_or(|(address, port)| {
            known.address == address && port.is_none_or(|port| known.port == Some(port))
        })
    });
    if lifted.is_empty() {
        let names: Vec<String> = left.iter().map(|known| typed((known.address, known.port))).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let word = server.map_or("--all".to_owned(), typed);
        bail!("nothing is drained that `{word}` could mean; drained are: {names}");
    }
    write_json(&path(instance), &left, true)?;
    Ok(format!("undrained {} of {} entries\n", lifted.len(), lifted.len() + left.len()))
}

/// Services of the file by `VIP:PORT` (every protocol), `tcp/VIP:PORT` or `fwmark/MARK` (both families).
fn services_called(text: &str, config: &Config) -> anyhow::Result<Vec<ServiceKey>> {
    let (kind, object) = text.split_once('/').unwrap_or(("", text));
    let endpoint = object.parse().ok();
    let matches = |key: &&ServiceKey| match **key {
        ServiceKey::Endpoint { address, port, protocol } => {
            endpoint == Some(SocketAddr::new(address, port)) && ["", &protocol.to_string()].contains(&kind)
        }
        ServiceKey::Fwmark { mark, .. } => object == mark.to_string() && ["", "fwmark"].contains(&kind),
    };
    let keys: Vec<ServiceKey> = config.services.keys().filter(matches).copied().collect();
    if keys.is_empty() {
        let known: Vec<String> = config.services.keys().map(ToString::to_string).collect();
        let forms = "VIP:PORT, tcp/VIP:PORT or fwmark/MARK";
        bail!("no declared service is `{text}` (write {forms}); there are: {}", known.join(", "));
    }
    Ok(keys)
}
