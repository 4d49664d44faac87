//! What `check` looks at: files, and what it wants to know of this host and of what keepalived says.
//!
//! Owns the reading of the host: users, programs, parameters; interfaces through `kernel`. Changes nothing, judges nothing.
//! What cannot be read is absent. Called by `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::config::Config;
use crate::config::source::refuse_foreign_writers;
use crate::keepalived_conf::meaning::Conf;
use crate::kernel;
use crate::names;
use crate::observed::Observed;
use crate::state::record::{self, Record};

/// Where keepalived may be installed, and timeout(1).
const PATH: &str = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin";

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct File {
    #[serde(rename = "file")]
    pub path: String,
    pub instance: String,
    #[serde(skip)]
    pub config: Config,
    /// What went wrong when a takeover was rehearsed with it
    #[serde(skip)]
    pub unready: Option<Vec<String>>,
}

#[derive(Clone, Copy, Default)]
pub struct Input<'a> {
    pub files: &'a [File],
    /// These are all there are on this host, so that a missing one is missed
    pub complete: bool,
    pub conf: Option<&'a Conf<'a>>,
    /// What `keepalived -t` prints about it, where keepalived is installed
    pub said: Option<&'a str>,
    /// This host; without it, its rules are left out
    pub host: Option<&'a Host>,
}

#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Interfaces, addresses, and sources of default routes
    pub observed: Observed,
    /// What was made here, by instance
    pub records: BTreeMap<String, Record>,
    /// Parameters by their path below /proc/sys
    pub parameters: BTreeMap<String, String>,
    /// Users that keepalived.conf names and that exist, with their ids
    pub users: BTreeMap<String, u32>,
    /// Why keepalived does not run a program that keepalived.conf names
    pub programs: BTreeMap<String, String>,
}

impl Host {
    pub fn read(conf: Option<&Conf<'_>>) -> Self {
        let mut users = BTreeSet::from(["keepalived_script"]);
        users.extend(conf.and_then(|conf| conf.script_user));
        let mut programs = BTreeSet::new();
        for notify in conf.into_iter().flat_map(Conf::scripts) {
            users.extend(notify.user.as_deref());
            programs.extend(notify.argv.first().filter(|path| path.starts_with('/')));
        }
        let secure = conf.is_some_and(|conf| conf.security);
        let fault = |path: &String| Some((path.clone(), fault(path, secure)?));
        Self {
            observed: kernel::interfaces(),
            records: record::others(""),
            parameters: parameters(),
            users: users.into_iter().filter_map(|name| Some((name.to_owned(), names::user(name)?))).collect(),
            programs: programs.into_iter().filter_map(fault).collect(),
        }
    }

    /// A parameter by its path; nothing when it is absent.
    pub fn parameter(&self, path: &str) -> &str {
        self.parameters.get(path).map_or("", String::as_str)
    }

    pub fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.observed.addresses.iter().any(|own| own.key.address == address)
    }
}

fn parameters() -> BTreeMap<String, String> {
    let paths = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/*/disable_ipv6"].iter();
    let found = paths.flat_map(|path| glob::glob(&format!("/proc/sys/net/{path}"))).flatten().flatten();
    let name = |path: &Path| Some(path.strip_prefix("/proc/sys").ok()?.to_str()?.to_owned());
    let value = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    found.filter_map(|path| Some((name(&path)?, value(&path)))).collect()
}

/// keepalived's own check of a script (`check_script_secure()`). Without enable_script_security it is run whoever could
/// change it.
fn fault(path: &str, secure: bool) -> Option<String> {
    let found = Path::new(path).canonicalize().and_then(|real| Ok((real.metadata()?, real)));
    let Ok((found, real)) = found else { return Some(format!("{path} does not exist")) };
    if found.is_file() && found.mode() & 0o111 == 0 {
        return Some(format!("{path} is not executable"));
    }
    real.ancestors().filter(|_| secure).find_map(|part| {
        let what = part.display().to_string();
        refuse_foreign_writers(&part.metadata().ok()?, &what, part).err().map(|why| why.to_string())
    })
}

/// What `keepalived -t` prints about a configuration. Such a run writes no file, changes nothing and needs no rights (2.1.5
/// to 2.3.4). Its exit status says less than its words: 2.1 ends with 0 whatever is wrong, and 2.2.7 ends itself by a
/// signal when a script has another user than root. One that takes longer than five seconds is ended.
pub fn keepalived_says(conf: &Path) -> Option<String> {
    let mut asked = Command::new("timeout");
    asked.args(["5", "keepalived", "--config-test", "-f"]).arg(conf).env("PATH", PATH).stdin(Stdio::null());
    Some(String::from_utf8_lossy(&asked.output().ok()?.stderr).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn this_host_is_read() {
        let text = b"vrrp_instance V {\n notify_master /nosuch root\n notify_backup /etc/passwd nosuchuser\n notify /bin/sh\n}";
        let mut find = |path: &Path| vec![(path.to_owned(), Ok(text.to_vec()))];
        let tree = crate::keepalived_conf::parse(Path::new("/k"), "lb1", &mut find);
        let host = Host::read(Some(&Conf::of(&tree)));
        assert_eq!(host.users.get("root"), Some(&0));
        assert!(!host.users.contains_key("nosuchuser"));
        let unusable = |path: &str, why: &str| (path.to_owned(), format!("{path} {why}"));
        let expected = [unusable("/etc/passwd", "is not executable"), unusable("/nosuch", "does not exist")];
        assert_eq!(host.programs, expected.into());
        let open = std::env::temp_dir().join(format!("lvs-notify-open-{}", std::process::id()));
        std::fs::write(&open, "").unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let told = [true, false].map(|secure| fault(open.to_str().unwrap(), secure).is_some());
        assert_eq!(told, [true, false]);
        std::fs::remove_file(open).unwrap();
        assert!(
            host.observed.interfaces.contains_key("lo") && host.has_address("127.0.0.1".parse().unwrap())
        );
        assert!(host.parameters.contains_key("net/ipv4/ip_forward"), "{:?}", host.parameters);
    }
}
