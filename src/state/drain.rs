//! Real servers drained by hand: no new connections, existing ones live on, until it is lifted.
//!
//! Owns what `drain` and `undrain` mean: which servers of which services, and until when; and the list in
//! /var/lib/lvs-notify, which survives `apply`, a failover and a reboot, and changes the desired state of every role.
//! Called by `lib` (the commands), `reconcile` and `preview`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::files::{STATE, read_json, write_json};
use super::stamp::seconds_now;
use crate::config::Config;
use crate::config::notation::{parse_duration, parse_endpoint};
use crate::desired::Desired;
use crate::model::{Endpoint, ServerKey, ServiceKey};
use crate::text::did_you_mean;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub address: IpAddr,
    /// Its port; none: every port
    pub port: Option<u16>,
    /// The services in which it is drained; none: every service, also those to come
    pub services: Option<Vec<ServiceKey>>,
    /// Begun, in seconds since 1970
    pub since: u64,
    /// Lifted by itself at this time, in seconds since 1970
    pub until: Option<u64>,
}

impl std::fmt::Display for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => Endpoint { address: self.address, port }.fmt(f),
            None => self.address.fmt(f),
        }
    }
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
fn read(instance: &str) -> anyhow::Result<Vec<Drain>> {
    let path = file(instance);
    let list = read_json(&path)
        .with_context(|| format!("reading the drained real servers from {}", path.display()))?;
    Ok(list.unwrap_or_default())
}

/// Keeps the list over failover and reboot.
fn keep(instance: &str, list: &[Drain]) -> anyhow::Result<()> {
    let path = file(instance);
    write_json(&path, &list, true)
        .with_context(|| format!("keeping the drained real servers in {}", path.display()))
}

fn file(instance: &str) -> PathBuf {
    Path::new(STATE).join(format!("{instance}.drains.json"))
}

/// Gives drained servers weight 0 in a desired state.
pub fn apply_drains(list: &[Drain], desired: &mut Desired, now: u64) {
    for (service, wanted) in &mut desired.services {
        for (server, settings) in &mut wanted.servers {
            if let Some(drain) = list.iter().find(|drain| drain.holds(now) && drain.covers(service, server)) {
                settings.weight = 0;
                desired.drained.insert((*service, *server), drain.until);
            }
        }
    }
}

/// Does that with the list of an instance.
///
/// # Errors
/// When the list cannot be read, or others could have written it.
pub fn apply_kept(instance: &str, desired: &mut Desired) -> anyhow::Result<()> {
    apply_drains(&read(instance)?, desired, seconds_now());
    Ok(())
}

/// What was typed after `drain`.
#[derive(Debug)]
pub struct DrainRequest<'a> {
    pub server: &'a str,
    /// `VIP:PORT`, `PROTOCOL/VIP:PORT` or `fwmark/MARK`; empty: every service
    pub services: &'a [String],
    pub period: Option<&'a str>,
}

/// Adds to the list; gives what to tell.
///
/// # Errors
/// When no declared real server is meant, a word cannot be read, or the list cannot be kept.
pub fn begin(instance: &str, config: &Config, request: &DrainRequest<'_>) -> anyhow::Result<String> {
    let (address, port) = parse_server(request.server)?;
    let mut services = Vec::new();
    for word in request.services {
        services.extend(parse_service(word, config)?);
    }
    let now = seconds_now();
    let mut drain = Drain {
        address,
        port,
        services: Some(services).filter(|list| !list.is_empty()),
        since: now,
        until: None,
    };
    if let Some(text) = request.period {
        let period = parse_duration(text)
            .filter(|period| period.as_secs() > 0)
            .with_context(|| format!("`{text}` is not a duration, as in 10m or 300"))?;
        drain.until = Some(now.saturating_add(period.as_secs()));
    }
    let mut meant = Vec::new();
    // As one types them: with the address alone where there is no port.
    let mut known = BTreeSet::new();
    for (service, wanted) in &config.services {
        for server in wanted.servers.keys() {
            if drain.covers(service, server) {
                meant.push(format!("{server} of {service}"));
            }
            known.insert(if server.port == 0 { server.address.to_string() } else { server.to_string() });
        }
    }
    if meant.is_empty() {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        bail!("no declared real server is `{}`{}", request.server, did_you_mean(request.server, &known));
    }
    let mut list = read(instance)?;
    let about = |drain: &Drain| (drain.address, drain.port, drain.services.clone());
    list.retain(|known| known.holds(now) && about(known) != about(&drain));
    list.push(drain);
    keep(instance, &list)?;
    Ok(format!("draining {}\n", meant.join(", ")))
}

/// Takes from the list every entry about this server, or all; gives what to tell.
///
/// # Errors
/// When nothing is drained that could be meant, or the list cannot be kept.
pub fn lift(instance: &str, text: Option<&str>) -> anyhow::Result<String> {
    let mut list = read(instance)?;
    let before = list.len();
    match text {
        None => list.clear(),
        Some(text) => {
            let (address, port) = parse_server(text)?;
            list.retain(|known| known.address != address || (port.is_some() && known.port != port));
        }
    }
    if list.len() == before {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("nothing is drained that `{}` could mean; drained are: {names}", text.unwrap_or("--all"));
    }
    keep(instance, &list)?;
    Ok(format!("undrained {} of {before} entries\n", before - list.len()))
}

fn parse_server(text: &str) -> anyhow::Result<(IpAddr, Option<u16>)> {
    parse_endpoint(text).with_context(|| {
        format!("`{text}` is not a real server, as in 192.0.2.11, 192.0.2.11:80 or \"[2001:db8::11]:80\"")
    })
}

/// Services of the file by `VIP:PORT` (every protocol), `tcp/VIP:PORT` or `fwmark/MARK` (both families).
fn parse_service(text: &str, config: &Config) -> anyhow::Result<Vec<ServiceKey>> {
    let (kind, rest) = text.split_once('/').map_or((None, text), |(kind, rest)| (Some(kind), rest));
    if let Some(other) = kind.filter(|kind| !["tcp", "udp", "sctp", "fwmark"].contains(kind)) {
        bail!("`{other}` is not one of tcp, udp, sctp, fwmark");
    }
    let endpoint = parse_endpoint(rest);
    let matches = |key: &&ServiceKey| match **key {
        ServiceKey::Endpoint { address, port, protocol } => {
            kind.is_none_or(|kind| kind == protocol.to_string()) && endpoint == Some((address, Some(port)))
        }
        ServiceKey::Fwmark { mark, .. } => kind == Some("fwmark") && rest.parse() == Ok(mark),
    };
    let keys: Vec<ServiceKey> = config.services.keys().filter(matches).copied().collect();
    if keys.is_empty() {
        let known: Vec<String> = config.services.keys().map(ToString::to_string).collect();
        bail!(
            "no declared service is `{text}` (write VIP:PORT, tcp/VIP:PORT or fwmark/MARK); there are: {}",
            known.join(", ")
        );
    }
    Ok(keys)
}
