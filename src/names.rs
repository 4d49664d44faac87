//! Names instead of numbers: users, hosts and services, by getent(1).
//!
//! libc finds them through libraries that it loads as /etc/nsswitch.conf says, which a program that is linked with a libc
//! of its own, so that one package suits every distribution, cannot do. Nothing that a takeover does needs a name. Called
//! by `check`, `import` and `ipvsadm`.

use std::net::IpAddr;
use std::process::Command;

use anyhow::Context as _;

use crate::model::{Endpoint, Protocol};
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

/// A question to a database by its key, as to getent, and what it answers.
pub type Ask = fn(&str, &str) -> String;

/// Reads `HOST:PORT` or `[HOST]:PORT`, the latter for IPv6, in numbers or names. A host stands for its first address of
/// the family, as for ipvsadm; a service, as for getservbyname(3), for the port of its first entry.
pub fn endpoint(text: &str, protocol: Protocol, ask: Ask) -> anyhow::Result<Endpoint> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("`{}` has no `:PORT`", shown(text)))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let (host, ipv6, end) = (inner.unwrap_or(host), inner.is_some(), format!("/{protocol}"));
    // A number is no name, though getent finds a host by it.
    let odd = |c: char| !c.is_ascii_alphanumeric() && !"._-+".contains(c);
    let is_name = |word: &str| !word.contains(odd) && word.contains(|c: char| c.is_ascii_alphabetic());
    let entries = |database, word: &str, end| {
        if is_name(word) { ask(database, &format!("{word}{end}")) } else { String::new() }
    };
    // One line for each address and kind of socket, the address first, perhaps with its interface.
    let address = |line: &str| line.split_whitespace().next()?.parse::<IpAddr>().ok();
    // `http 80/tcp www # World Wide Web`
    let number = |line: &str| {
        let mut words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        let place = (words.len() > 1).then(|| words.remove(1))?;
        words.contains(&port).then(|| place.strip_suffix(&end)?.parse().ok())?
    };
    let hosts =
        || entries("ahosts", host, "").lines().filter_map(address).find(|found| found.is_ipv6() == ipv6);
    let services = || entries("services", port, &end).lines().find_map(number);
    let (address, port) = (host.parse().ok().or_else(hosts), port.parse().ok().or_else(services));
    let found = address.zip(port).map(|(address, port)| Endpoint { address, port });
    found.with_context(|| {
        let (text, family) = (shown(text), if ipv6 { "IPv6" } else { "IPv4" });
        format!("`{text}` is no {family} host with a {protocol} port that is known here; write it in numbers")
    })
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
        let read = |text| endpoint(text, Protocol::TCP, entries);
        let local = read("localhost:80").or(read("[localhost]:80")).unwrap();
        assert!(local.address.is_loopback() && local.port == 80);
        assert_eq!(read("198.51.100.7:80").unwrap().address, IpAddr::from([198, 51, 100, 7]));
        assert!(read("7:80").is_err() && read("--help:80").is_err() && read("198.51.100.7").is_err());
    }

    #[test]
    fn a_service_has_a_port_for_each_protocol() {
        let ask = |_: &str, _: &str| "# c\nhttp 80/tcp www # Web\ndomain 53/udp\nhttp 81/tcp\n".to_owned();
        let port = |name: &str, protocol| Ok(endpoint(&format!("192.0.2.1:{name}"), protocol, ask)?.port);
        let read = |name| -> anyhow::Result<u16> { port(name, Protocol::TCP) };
        assert_eq!((read("www").unwrap(), read("http").unwrap(), read("8080").unwrap()), (80, 80, 8080));
        assert!(read("domain").unwrap_err().to_string().contains("tcp port"));
        assert!(read("70000").is_err() && port("", Protocol::UDP).is_err());
    }
}
