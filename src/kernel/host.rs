//! What `check` wants to know of this host, read in one place.
//!
//! Owns the reading: interfaces, addresses, parameters, modules, users, programs, SELinux, systemd's unit of
//! keepalived, listening sockets, directories. Changes nothing, loads no module, judges nothing: that is
//! `lint`'s. What cannot be read is absent. Called by `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::sysctl;
use crate::names;

/// What is asked by name.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Users
    pub users: BTreeSet<String>,
    /// Absolute paths of programs
    pub programs: BTreeSet<String>,
    /// Interfaces whose parameters matter
    pub interfaces: BTreeSet<String>,
}

/// A program, as keepalived looks at it before it runs it as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Only root can change it
    Safe,
    /// There is none
    Missing,
    /// It may not be executed
    NotExecutable,
    /// Others could change it, and how
    Unsafe(String),
}

/// This host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Interfaces, and whether they are up with a carrier
    pub interfaces: BTreeMap<String, bool>,
    /// Interface, address and prefix length
    pub addresses: Vec<(String, IpAddr, u8)>,
    /// Parameters by the path of their name
    pub parameters: BTreeMap<String, String>,
    /// Kernel modules that are loaded, built in or can be loaded; `None` when that cannot be told
    pub modules: Option<BTreeSet<String>>,
    /// Users that were asked for and exist, with their ids
    pub users: BTreeMap<String, u32>,
    /// Programs that were asked for
    pub programs: BTreeMap<String, Program>,
    /// SELinux is enforcing
    pub selinux_enforcing: bool,
    /// Whether systemd's unit of keepalived has KillMode=process; `None` without systemd or unit
    pub unit_spares_scripts: Option<bool>,
    /// Listening TCP sockets; `None` when they cannot be read
    pub listening: Option<BTreeSet<(IpAddr, u16)>>,
    /// Directories that are missing or not root's, with the reason
    pub directories: Vec<String>,
}

/// Directories that lvs-notify writes to; its own below them it makes itself.
const WRITTEN: [&str; 3] = ["/run", "/var/lib", "/etc/sysctl.d"];

impl Host {
    /// Reads everything.
    pub fn read(asked: &Asked) -> Self {
        let mut host = Self {
            modules: modules(),
            selinux_enforcing: text("/sys/fs/selinux/enforce").trim() == "1",
            unit_spares_scripts: unit(),
            listening: listening(),
            ..Self::default()
        };
        host.read_addresses();
        host.read_parameters(asked);
        for name in &asked.users {
            if let Some(number) = names::user(name) {
                host.users.insert(name.clone(), number);
            }
        }
        host.programs = asked.programs.iter().map(|path| (path.clone(), program(Path::new(path)))).collect();
        host.directories = WRITTEN
            .into_iter()
            .filter_map(|path| match std::fs::metadata(path) {
                Err(error) => Some(format!("{path}: {error}")),
                Ok(found) if !found.is_dir() => Some(format!("{path} is no directory")),
                Ok(found) if found.uid() != 0 => Some(format!("{path} belongs to user {}", found.uid())),
                Ok(_) => None,
            })
            .collect();
        host
    }

    /// A parameter by the parts of its name; absent ones are `0`, which is what they default to.
    pub fn parameter(&self, parts: &[&str]) -> &str {
        self.parameters.get(&parts.join("/")).map_or("0", String::as_str)
    }

    /// A parameter of an interface that counts by the larger of its own value and that of `all`.
    pub fn effective(&self, name: &str, interface: &str) -> u32 {
        let value = |of| self.parameter(&["net", "ipv4", "conf", of, name]).parse().unwrap_or(0);
        value("all").max(value(interface))
    }

    /// Whether an address is one of this host's own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(_, own, _)| *own == address)
    }

    fn read_addresses(&mut self) {
        use nix::net::if_::InterfaceFlags;
        let Ok(list) = nix::ifaddrs::getifaddrs() else { return };
        for entry in list {
            let up = entry.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
            self.interfaces.insert(entry.interface_name.clone(), up);
            let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
                let address = address?;
                address
                    .as_sockaddr_in()
                    .map(|v4| IpAddr::V4(v4.ip()))
                    .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            };
            if let (Some(address), Some(mask)) = (ip(entry.address), ip(entry.netmask)) {
                let ones = match mask {
                    IpAddr::V4(mask) => u32::from(mask).count_ones(),
                    IpAddr::V6(mask) => u128::from(mask).count_ones(),
                };
                let prefix = u8::try_from(ones).unwrap_or(0);
                self.addresses.push((entry.interface_name, address, prefix));
            }
        }
        self.addresses.sort();
    }

    fn read_parameters(&mut self, asked: &Asked) {
        let mut note = |parts: &[&str]| {
            if let Ok(Some(value)) = sysctl::read_parts(parts) {
                self.parameters.insert(parts.join("/"), value);
            }
        };
        note(&["net", "ipv4", "ip_forward"]);
        note(&["net", "ipv6", "conf", "all", "forwarding"]);
        for name in ["backup_only", "conn_reuse_mode", "expire_nodest_conn", "expire_quiescent_template"] {
            note(&["net", "ipv4", "vs", name]);
        }
        let fixed = ["all", "lo", "tunl0"].into_iter();
        for interface in fixed.chain(asked.interfaces.iter().map(String::as_str)) {
            note(&["net", "ipv4", "conf", interface, "arp_ignore"]);
            note(&["net", "ipv4", "conf", interface, "rp_filter"]);
            note(&["net", "ipv6", "conf", interface, "disable_ipv6"]);
        }
    }
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Modules of the running kernel, wherever they are.
fn modules() -> Option<BTreeSet<String>> {
    let release = text("/proc/sys/kernel/osrelease");
    let folder = Path::new("/lib/modules").join(release.trim());
    let name = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    };
    let mut names: BTreeSet<String> = BTreeSet::new();
    for line in text(folder.join("modules.dep")).lines() {
        names.extend(line.split(':').next().map(name));
    }
    names.extend(text(folder.join("modules.builtin")).lines().map(name));
    // Without these lists nobody can say what is not there.
    if names.is_empty() {
        return None;
    }
    names.extend(text("/proc/modules").lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())));
    Some(names)
}

/// keepalived's own check of a script (`check_script_secure()`): every part of its path.
fn program(path: &Path) -> Program {
    let Ok(path) = path.canonicalize() else { return Program::Missing };
    for part in path.ancestors() {
        let Ok(found) = std::fs::metadata(part) else { return Program::Missing };
        if found.is_file() && found.mode() & 0o111 == 0 {
            return Program::NotExecutable;
        }
        if found.uid() != 0 {
            return Program::Unsafe(format!(
                "{} belongs to user {}, not to root",
                part.display(),
                found.uid()
            ));
        }
        let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        if found.mode() & 0o022 != 0 && !sticky {
            let mode = found.mode() & 0o7777;
            return Program::Unsafe(format!("{} may be written by others (mode {mode:04o})", part.display()));
        }
    }
    Program::Safe
}

/// KillMode of keepalived.service with its drop-ins, when systemd runs this host.
fn unit() -> Option<bool> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let folders =
        ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    let unit = folders.iter().map(|folder| Path::new(folder).join("keepalived.service"));
    let mut files: Vec<PathBuf> = unit.filter(|path| path.exists()).take(1).collect();
    files.first()?;
    let mut extra: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for folder in folders.iter().rev() {
        let folder = Path::new(folder).join("keepalived.service.d");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "conf") {
                extra.insert(entry.file_name(), entry.path());
            }
        }
    }
    files.extend(extra.into_values());
    let all: String = files.into_iter().map(|path| text(path) + "\n").collect();
    let mode = all.lines().filter_map(|line| line.trim().strip_prefix("KillMode=")).next_back();
    Some(matches!(mode.map(str::trim), Some("process" | "none")))
}

/// Listening TCP sockets of /proc/net/tcp and tcp6.
fn listening() -> Option<BTreeSet<(IpAddr, u16)>> {
    let v4 = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let all = v4 + &text("/proc/net/tcp6");
    let socket = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        // Local address, remote address, state: 0A is LISTEN.
        let state = words.nth(1)?;
        // The kernel prints each 32 bits of the address as a number of its own byte order.
        let part =
            |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
        let address = match address.len() {
            8 => IpAddr::V4(Ipv4Addr::from(part(0)?)),
            _ => {
                let bytes: Vec<u8> = [part(0)?, part(1)?, part(2)?, part(3)?].concat();
                IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
            }
        };
        (state == "0A").then_some((address, u16::from_str_radix(port, 16).ok()?))
    };
    Some(all.lines().filter_map(socket).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = Asked {
            users: ["root", "nosuchuser"].map(str::to_owned).into(),
            programs: ["/bin/sh", "/nosuch", "/etc/passwd"].map(str::to_owned).into(),
            ..Asked::default()
        };
        let host = Host::read(&asked);
        assert_eq!(host.users, [("root".to_owned(), 0)].into());
        assert_eq!(host.programs.get("/nosuch"), Some(&Program::Missing));
        assert_eq!(host.programs.get("/etc/passwd"), Some(&Program::NotExecutable));
        assert!(host.interfaces.contains_key("lo") && host.has_address("127.0.0.1".parse().unwrap()));
        assert!(
            host.listening
                .as_ref()
                .unwrap()
                .contains(&("127.0.0.1".parse().unwrap(), listener.local_addr().unwrap().port()))
        );
        assert!(host.parameters.contains_key("net/ipv4/conf/all/arp_ignore"), "{:?}", host.parameters);
    }
}
