//! Real servers drained by hand: no new connections, existing ones live on, until it is lifted.
//!
//! Owns what `drain` and `undrain` mean: which servers of which services, and until when; and the list in
//! /var/lib/lvs-notify, which survives `apply`, a failover and a reboot, and is laid over the desired state of every
//! role. Called by `lib` (the commands), `reconcile` and `status`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::files::{MAX_RECORD, STATE, is_missing, own_directory, read_own, replace};
use super::stamp::seconds_now;
use crate::config::Config;
use crate::config::notation::{parse_duration, parse_endpoint};
use crate::desired::Desired;
use crate::model::{Endpoint, Protocol, ServerKey, ServiceKey};
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

    fn is_about(&self, other: &Self) -> bool {
        (self.address, self.port, &self.services) == (other.address, other.port, &other.services)
    }
}

/// Real servers that are drained by hand; none without the file.
///
/// # Errors
/// When the list cannot be read, or others could have written it.
pub fn read(instance: &str) -> anyhow::Result<Vec<Drain>> {
    let path = file(instance);
    let reading = || format!("reading the drained real servers from {}", path.display());
    let text = match read_own(&path, MAX_RECORD) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.with_context(reading)?,
    };
    serde_json::from_slice(&text).with_context(reading)
}

/// Keeps the list over failover and reboot.
fn keep(instance: &str, list: &[Drain]) -> anyhow::Result<()> {
    let path = file(instance);
    let text = serde_json::to_vec(list)?;
    own_directory(Path::new(STATE))
        .and_then(|()| replace(&path, &text, 0o644, true))
        .with_context(|| format!("keeping the drained real servers in {}", path.display()))
}

fn file(instance: &str) -> PathBuf {
    Path::new(STATE).join(format!("{instance}.drains.json"))
}

/// Lays the list over a desired state: drained servers get weight 0.
pub fn lay_over(list: &[Drain], desired: &mut Desired, now: u64) {
    for (service, wanted) in &mut desired.services {
        for (server, settings) in &mut wanted.servers {
            if let Some(drain) = list.iter().find(|drain| drain.holds(now) && drain.covers(service, server)) {
                settings.weight = 0;
                desired.drained.insert((*service, *server), drain.until);
            }
        }
    }
}

/// What was typed after `drain`.
#[derive(Debug)]
pub struct Wish<'a> {
    pub server: &'a str,
    /// `VIP:PORT`, `PROTOCOL/VIP:PORT` or `fwmark/MARK`; empty: every service
    pub services: &'a [String],
    pub period: Option<&'a str>,
}

/// Adds to the list; gives what to tell.
///
/// # Errors
/// When no declared real server is meant, a word cannot be read, or the list cannot be kept.
pub fn begin(instance: &str, config: &Config, wish: &Wish<'_>) -> anyhow::Result<String> {
    let (address, port) = server(wish.server)?;
    let services = match wish.services {
        [] => None,
        words => {
            let mut keys = Vec::new();
            for word in words {
                keys.extend(parse_service(word, config)?);
            }
            Some(keys)
        }
    };
    let now = seconds_now();
    let until = match wish.period {
        None => None,
        Some(text) => {
            let period = parse_duration(text)
                .filter(|period| period.as_secs() > 0)
                .with_context(|| format!("`{text}` is not a duration, as in 10m or 300"))?;
            Some(now.saturating_add(period.as_secs()))
        }
    };
    let drain = Drain { address, port, services, since: now, until };
    let meant: Vec<String> = config
        .services
        .iter()
        .flat_map(|(key, wanted)| wanted.servers.keys().map(move |server| (key, server)))
        .filter(|(key, server)| drain.covers(key, server))
        .map(|(key, server)| format!("{server} of {key}"))
        .collect();
    if meant.is_empty() {
        let mut known: Vec<String> = config
            .services
            .values()
            .flat_map(|wanted| wanted.servers.keys())
            .map(ToString::to_string)
            .collect();
        known.sort();
        known.dedup();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        bail!("no declared real server is `{}`{}", wish.server, did_you_mean(wish.server, &known));
    }
    let mut list = read(instance)?;
    list.retain(|known| known.holds(now) && !known.is_about(&drain));
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
            let (address, port) = server(text)?;
            list.retain(|known| known.address != address || (port.is_some() && known.port != port));
        }
    }
    if list.len() == before {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("nothing is drained that `{}` could mean; drained are: {names}", text.unwrap_or("--all"));
    }
    keep(instance, &list)?;
    Ok(format!("lifted {} of {before} drains\n", before - list.len()))
}

fn server(text: &str) -> anyhow::Result<(IpAddr, Option<u16>)> {
    parse_endpoint(text).with_context(|| {
        format!("`{text}` is not a real server, as in 192.0.2.11, 192.0.2.11:80 or \"[2001:db8::11]:80\"")
    })
}

/// Config services by `VIP:PORT` (every protocol), `tcp/VIP:PORT` or `fwmark/MARK` (both families).
fn parse_service(text: &str, config: &Config) -> anyhow::Result<Vec<ServiceKey>> {
    let (kind, rest) = text.split_once('/').map_or((None, text), |(kind, rest)| (Some(kind), rest));
    let protocol = match kind {
        None | Some("fwmark") => None,
        Some("tcp") => Some(Protocol::TCP),
        Some("udp") => Some(Protocol::UDP),
        Some("sctp") => Some(Protocol::SCTP),
        Some(other) => bail!("`{other}` is not one of tcp, udp, sctp, fwmark"),
    };
    let wanted = parse_endpoint(rest);
    let matches = |key: &&ServiceKey| match **key {
        ServiceKey::Endpoint { address, port, protocol: found } => {
            kind != Some("fwmark")
                && wanted == Some((address, Some(port)))
                && protocol.is_none_or(|protocol| protocol == found)
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
