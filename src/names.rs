//! Names instead of numbers: users, hosts and services, by getent(1).
//!
//! libc finds them through libraries that it loads as /etc/nsswitch.conf says, which a program that is linked with a libc
//! of its own, so that one package suits every distribution, cannot do. Nothing that a takeover does needs a name. Called
//! by `check`, `import` and `ipvsadm`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use anyhow::Context as _;

use crate::model::Protocol;
use crate::text::shown;

/// The number of a user; none when there is no such user.
pub fn user(name: &str) -> Option<u32> {
    entries("passwd", name).lines().find_map(|line| {
        let mut fields = line.split(':');
        // A number, too, finds a user.
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// What getent says of a key; where it is missing, or does not know the database, the file in /etc.
pub fn entries(database: &str, key: &str) -> String {
    match Command::new("getent").args([database, "--", key]).output() {
        // 2: there is no such key.
        Ok(output) if matches!(output.status.code(), Some(0 | 2)) => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => std::fs::read_to_string(format!("/etc/{database}")).unwrap_or_default(),
    }
}

/// The hosts and services that a machine knows, each asked for once, since a question may take seconds.
pub struct Hosts {
    ask: fn(&str, &str) -> String,
    known: RefCell<BTreeMap<String, String>>,
}

impl Hosts {
    /// From answers such as getent's: of the databases `ahosts` and `services`, whose key is `NAME/PROTOCOL`.
    pub fn new(ask: fn(&str, &str) -> String) -> Self {
        Self { ask, known: RefCell::default() }
    }

    /// What there is to a name; nothing where it is none, such as a number, which ipvsadm takes for no host.
    fn ask(&self, database: &str, name: &str, end: &str) -> String {
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"._-+".contains(c);
        if name.contains(odd) || !name.contains(|c: char| c.is_ascii_alphabetic()) {
            return String::new();
        }
        let (key, mut known) = (format!("{name}{end}"), self.known.borrow_mut());
        known.entry(format!("{database} {key}")).or_insert_with(|| (self.ask)(database, &key)).clone()
    }

    /// Reads an address or a host's name, of which it takes the first address of the family, as ipvsadm does.
    pub fn address(&self, text: &str, ipv6: bool) -> anyhow::Result<IpAddr> {
        // One line for each address and kind of socket, the address first, perhaps with its interface.
        let lines = self.ask("ahosts", text, "");
        let first = |line: &str| line.split_whitespace().next()?.parse::<IpAddr>().ok();
        let found = lines.lines().filter_map(first).find(|address| address.is_ipv6() == ipv6);
        text.parse().ok().or(found).with_context(|| {
            let (kind, text) = (if ipv6 { "IPv6" } else { "IPv4" }, shown(text));
            format!("`{text}` is no address, nor a host with an {kind} address here; write the address, or save with `ipvsadm -Sn`")
        })
    }

    pub fn port(&self, text: &str, protocol: Protocol) -> anyhow::Result<u16> {
        // The first entry counts, as with getservbyname(3).
        let named = self.ask("services", text, &format!("/{protocol}")).lines().find_map(|line| {
            let mut words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
            let place = (words.len() > 1).then(|| words.remove(1))?;
            let port = place.strip_suffix(&format!("/{protocol}"))?.parse().ok()?;
            words.contains(&text).then_some(port)
        });
        text.parse().ok().or(named).with_context(|| {
            let text = shown(text);
            format!("`{text}` is neither a port nor a {protocol} service in /etc/services; write the number, or save with `ipvsadm -Sn`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_not_by_number() {
        assert_eq!(user("root"), Some(0));
        assert_eq!(user("0"), None);
        assert_eq!(user("no-such-user"), None);
        assert_eq!(user("--help"), None);
    }

    #[test]
    fn a_host_has_an_address_of_each_family() {
        let hosts = Hosts::new(entries);
        assert!(
            hosts.address("localhost", false).or(hosts.address("localhost", true)).unwrap().is_loopback()
        );
        assert_eq!(hosts.address("198.51.100.7", false).unwrap(), IpAddr::from([198, 51, 100, 7]));
        assert!(hosts.address("7", false).is_err() && hosts.address("--help", false).is_err());
    }

    #[test]
    fn a_service_has_a_port_for_each_protocol() {
        let hosts = Hosts::new(|_, _| "# c\nhttp 80/tcp www # Web\ndomain 53/udp\nhttp 81/tcp\n".to_owned());
        assert_eq!(hosts.port("www", Protocol::TCP).unwrap(), 80);
        assert_eq!(hosts.port("http", Protocol::TCP).unwrap(), 80);
        assert_eq!(hosts.port("8080", Protocol::TCP).unwrap(), 8080);
        assert!(hosts.port("domain", Protocol::TCP).unwrap_err().to_string().contains("tcp service"));
        assert!(hosts.port("70000", Protocol::TCP).is_err() && hosts.port("", Protocol::UDP).is_err());
    }
}
