//! Names instead of numbers: hosts by the resolver, ports by /etc/services.
//!
//! Owns the reading of `HOST`, `HOST:PORT` and `[V6]:PORT` as ipvsadm reads them (`parse_service` in
//! `ipvsadm.c`). Leaves the meaning of the endpoint to its caller. Called by `options` and `keepalived`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::shown;
use crate::model::Protocol;
use crate::names;

/// Where ports have names.
const SERVICES: &str = "/etc/services";

/// The names that this machine knows.
pub struct Hosts {
    ports: BTreeMap<(String, String), u16>,
    resolve: fn(&str) -> Vec<IpAddr>,
    /// A save file names the same hosts over and over, and each question may take seconds.
    known: RefCell<BTreeMap<String, Vec<IpAddr>>>,
}

impl Hosts {
    /// Those of this machine.
    pub fn system() -> Self {
        let services = std::fs::read_to_string(SERVICES).unwrap_or_default();
        Self::new(&services, names::addresses)
    }

    /// Those of a text in the form of services(5), and of a resolver.
    pub fn new(services: &str, resolve: fn(&str) -> Vec<IpAddr>) -> Self {
        let mut ports = BTreeMap::new();
        for line in services.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(place)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = place.split_once('/') else { continue };
            let Ok(port) = port.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                // The first entry counts, as with getservbyname(3).
                ports.entry((name.to_owned(), protocol.to_owned())).or_insert(port);
            }
        }
        Self { ports, resolve, known: RefCell::default() }
    }

    /// Reads an address or a host's name. `six` asks for an IPv6 address of the name, which otherwise is IPv4,
    /// as with ipvsadm.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn address(&self, text: &str, six: bool) -> Result<IpAddr, String> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let named = !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            // ipvsadm: a number alone is no host.
            && !text.chars().all(|c| c.is_ascii_digit());
        let mut known = self.known.borrow_mut();
        let found = known
            .entry(text.to_owned())
            .or_insert_with(|| if named { (self.resolve)(text) } else { Vec::new() });
        found.iter().copied().find(|address| address.is_ipv6() == six).ok_or_else(|| {
            let kind = if six { "IPv6" } else { "IPv4" };
            match named {
                true => format!("the host `{text}` has no {kind} address here; write the address, or save with `ipvsadm -Sn`"),
                false => format!("`{}` is not an address", shown(text)),
            }
        })
    }

    /// Reads a port's number or name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn port(&self, text: &str, protocol: Protocol) -> Result<u16, String> {
        if let Ok(port) = text.parse() {
            return Ok(port);
        }
        self.ports.get(&(text.to_owned(), protocol.to_string())).copied().ok_or_else(|| {
            format!(
                "`{}` is neither a port nor a {protocol} service in {SERVICES}; write the number, or save with `ipvsadm -Sn`",
                shown(text)
            )
        })
    }

    /// Reads an endpoint; the port may be missing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn endpoint(&self, text: &str, protocol: Protocol) -> Result<(IpAddr, Option<u16>), String> {
        if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) =
                inner.split_once(']').ok_or_else(|| format!("`{}` lacks its `]`", shown(text)))?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(self.port(port, protocol)?),
                None if rest.is_empty() => None,
                None => return Err(format!("`{}` has no `:PORT` after its `]`", shown(text))),
            };
            return Ok((self.address(host, true)?, port));
        }
        if let Ok(address) = text.parse() {
            return Ok((address, None));
        }
        match text.rsplit_once(':') {
            Some((host, port)) => Ok((self.address(host, false)?, Some(self.port(port, protocol)?))),
            None => Ok((self.address(text, false)?, None)),
        }
    }
}
