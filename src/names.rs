//! Names of users and hosts, by getent(1).
//!
//! libc finds them through libraries that it loads as /etc/nsswitch.conf says, and only a program that is linked with
//! the very libc of its machine can do that. This one is linked with its own, so that one package suits every
//! distribution, and asks the program that comes with libc instead. Nothing that a takeover does needs a name.
//!
//! Called by `kernel::host` for `check`, and by `import`.

use std::net::IpAddr;
use std::process::{Command, Stdio};

/// The number of a user; none when there is no such user.
pub fn user(name: &str) -> Option<u32> {
    // Where getent cannot tell, the file is what there is.
    let users =
        getent("passwd", name).unwrap_or_else(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        // A number, too, finds a user.
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The addresses of a host; none when it is not known.
pub fn addresses(host: &str) -> Vec<IpAddr> {
    // One line for each address and kind of socket, the address first, perhaps with its interface.
    let lines = getent("ahosts", host).unwrap_or_default();
    let mut found: Vec<IpAddr> = Vec::new();
    for line in lines.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        let Ok(address) = word.parse() else { continue };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// What getent says of a key; none when it is missing, or another one that does not know this.
fn getent(database: &str, key: &str) -> Option<String> {
    let mut command = Command::new("getent");
    command.args([database, "--", key]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    // 2: there is no such key.
    matches!(output.status.code(), Some(0 | 2)).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
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
    fn a_host_has_each_of_its_addresses_once() {
        let found = addresses("localhost");
        assert!(found.iter().any(IpAddr::is_loopback), "{found:?}");
        let mut once = found.clone();
        once.dedup();
        assert_eq!(found, once);
        assert_eq!(addresses("198.51.100.7"), [IpAddr::from([198, 51, 100, 7])]);
    }
}
