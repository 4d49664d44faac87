//! What `check` wants to know of this host, and what keepalived says of its own configuration.
//!
//! Owns the reading: modules, users, programs, SELinux, systemd's unit of keepalived, directories; interfaces and
//! parameters through `kernel`. Changes nothing, loads no module, judges nothing. What cannot be read is absent. Called
//! by `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::kernel;
use crate::names;

/// Where keepalived may be installed.
const KEEPALIVED: [&str; 3] = ["/usr/sbin/keepalived", "/usr/local/sbin/keepalived", "/usr/bin/keepalived"];
/// keepalived takes a moment to read its configuration. One that takes longer is ended, and has said nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// More is not read of what it says.
const MAX_SAID: u64 = 1 << 20;

/// What is asked by name.
#[derive(Clone, Debug, Default)]
pub struct HostQuery {
    pub users: BTreeSet<String>,
    pub programs: BTreeSet<String>,
    pub interfaces: BTreeSet<String>,
}

/// A program, as keepalived looks at it before it runs it as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    Safe,
    Missing,
    NotExecutable,
    Unsafe(String),
}

/// This host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Interfaces, and whether they are up with a carrier
    pub interfaces: BTreeMap<String, bool>,
    pub addresses: Vec<kernel::Bound>,
    /// Parameters by the path of their name
    pub parameters: BTreeMap<String, String>,
    /// Kernel modules that are loaded, built in or can be loaded; `None` when that cannot be told
    pub modules: Option<BTreeSet<String>>,
    /// Users that were asked for and exist, with their ids
    pub users: BTreeMap<String, u32>,
    pub programs: BTreeMap<String, Program>,
    pub selinux_enforcing: bool,
    /// Whether systemd's unit of keepalived has KillMode=process; `None` without systemd or unit
    pub unit_kill_mode_process: Option<bool>,
    /// Directories that are missing or not root's, with the reason
    pub directories: Vec<String>,
}

/// Directories that lvs-notify writes to; its own below them it makes itself.
const WRITTEN: [&str; 3] = ["/run", "/var/lib", "/etc/sysctl.d"];

impl Host {
    pub fn read(asked: &HostQuery) -> Self {
        let mut host = Self {
            modules: modules(),
            selinux_enforcing: text("/sys/fs/selinux/enforce").trim() == "1",
            unit_kill_mode_process: unit(),
            ..Self::default()
        };
        (host.interfaces, host.addresses) = kernel::interfaces();
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

    fn read_parameters(&mut self, asked: &HostQuery) {
        let mut note = |parts: &[&str]| {
            if let Ok(Some(value)) = kernel::read_parameter(parts) {
                self.parameters.insert(parts.join("/"), value);
            }
        };
        note(&["net", "ipv4", "ip_forward"]);
        note(&["net", "ipv6", "conf", "all", "forwarding"]);
        for name in ["backup_only", "conn_reuse_mode", "expire_nodest_conn", "expire_quiescent_template"] {
            note(&["net", "ipv4", "vs", name]);
        }
        let fixed = ["all", "lo"].into_iter();
        for interface in fixed.chain(asked.interfaces.iter().map(String::as_str)) {
            note(&["net", "ipv4", "conf", interface, "arp_ignore"]);
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
            return Program::Unsafe(format!("{} is writable by others (mode {mode:04o})", part.display()));
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

/// What `keepalived -t` prints about a configuration. Such a run writes no file, changes nothing and needs no rights (2.1.5
/// to 2.3.4). Its exit status says less than its words: 2.1 ends with 0 whatever is wrong, and 2.2.7 ends itself by a
/// signal when a script has another user than root.
pub fn keepalived_says(conf: &Path) -> Option<String> {
    let program = KEEPALIVED.iter().find(|path| Path::new(path).exists())?;
    // A file in memory: a pipe would have to be emptied all the time.
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut said = File::from(nix::sys::memfd::memfd_create("keepalived", flags).ok()?);
    let mut command = Command::new(program);
    command.args(["--config-test", "-f"]).arg(conf).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(said.try_clone().ok()?).spawn().ok()?;
    let started = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut bytes = Vec::new();
    said.rewind().ok()?;
    said.take(MAX_SAID).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_read() {
        let asked = HostQuery {
            users: ["root", "nosuchuser"].map(str::to_owned).into(),
            programs: ["/bin/sh", "/nosuch", "/etc/passwd"].map(str::to_owned).into(),
            ..HostQuery::default()
        };
        let host = Host::read(&asked);
        assert_eq!(host.users, [("root".to_owned(), 0)].into());
        assert_eq!(host.programs.get("/nosuch"), Some(&Program::Missing));
        assert_eq!(host.programs.get("/etc/passwd"), Some(&Program::NotExecutable));
        assert!(host.interfaces.contains_key("lo") && host.has_address("127.0.0.1".parse().unwrap()));
        assert!(host.parameters.contains_key("net/ipv4/conf/all/arp_ignore"), "{:?}", host.parameters);
    }
}
