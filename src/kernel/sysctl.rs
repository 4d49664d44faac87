//! Kernel parameters: reading and writing one.
//!
//! Owns the way to a parameter and the comparison of what was written with what the kernel made of it. Which
//! value is wanted, and whether writing is needed at all, is the plan's. Called by `kernel` and, for the
//! forwarding flag of an interface, by `announce`.
//!
//! The parameters of IPVS are set through the `sysctl` crate. Those of ARP go by their paths, and so does all
//! reading: the crate turns every dot into a slash, so that it cannot name eth0.100, and it opens a file four times
//! to set it, while clients wait for the VIP.

use std::fs;
use std::io;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use ::sysctl::{Ctl, Sysctl as _, SysctlError};
use nix::errno::Errno;

use super::error::{Error, Operation, Result};
use crate::model::Parameter;

/// Reads a parameter; `None` when there is none of this name.
pub(super) fn read(parameter: &Parameter) -> Result<Option<String>> {
    match read_parts(&parameter.parts()) {
        // Several numbers come with tabs between them; people and files have blanks.
        Ok(value) => Ok(value.map(|value| value.replace('\t', " "))),
        Err(error) => Err(failed(Operation::ReadParameter, parameter, &error)),
    }
}

/// Reads the parameter with this name, given in parts.
///
/// # Errors
/// When it exists and cannot be read.
pub fn read_parts(parts: &[&str]) -> io::Result<Option<String>> {
    if !are_names(parts) {
        return Ok(None);
    }
    let value = read_file(&path(parts));
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_file(path: &PathBuf) -> io::Result<String> {
    // No parameter is longer than a page, and one read gets all of it (kernel/sysctl.c).
    let mut bytes = [0; 4096];
    let length = fs::File::open(path)?.read(&mut bytes)?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    Ok(text.trim().to_owned())
}

/// Sets a parameter and makes sure that the kernel has it: of `2 3` it would take the 2 and call it done.
pub(super) fn write(parameter: &Parameter, value: &str) -> Result<()> {
    let parts = parameter.parts();
    let fail = |error: &io::Error| failed(Operation::SetParameter, format!("{parameter} to {value}"), error);
    let way = way(parameter).ok_or_else(|| Error::new(Operation::SetParameter, parameter, Errno::ENOENT))?;
    let found = match &way {
        Way::Name(name) => Ctl::new(name)
            .and_then(|ctl| ctl.set_value_string(value))
            .map_err(|error| fail(&honest(error, &path(&parts))))?,
        Way::Path(path) => fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .and_then(|()| read_file(path))
            .map_err(|error| fail(&error))?,
    };
    if same(&found, value) {
        return Ok(());
    }
    let detail = format!("the kernel took it as `{}`", found.trim());
    Err(Error::own(Operation::SetParameter, format!("{parameter} to {value}"), &detail, None))
}

/// Whether two values are one: the kernel separates several numbers with a tab, people with a space.
fn same(left: &str, right: &str) -> bool {
    left.split_whitespace().eq(right.split_whitespace())
}

/// How a parameter is reached.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By its dotted name, through the crate
    Name(String),
    Path(PathBuf),
}

/// `None` for a parameter that there cannot be.
fn way(parameter: &Parameter) -> Option<Way> {
    let parts = parameter.parts();
    are_names(&parts).then(|| match parameter {
        Parameter::Ipvs(name) if !name.contains('.') => Way::Name(parts.join(".")),
        _ => Way::Path(path(&parts)),
    })
}

/// Whether these can be parts of a name: others must not become part of a path.
fn are_names(parts: &[&str]) -> bool {
    let odd = |part: &&str| matches!(*part, "" | "." | "..") || part.contains(['/', '\0']);
    !parts.iter().any(odd)
}

fn path(parts: &[&str]) -> PathBuf {
    ["/proc/sys"].iter().chain(parts).collect()
}

/// The crate's error as the system's. It calls every parameter that cannot be opened "not found", so that is
/// asked again.
fn honest(error: SysctlError, path: &PathBuf) -> io::Error {
    match error {
        SysctlError::IoError(error) => error,
        SysctlError::NotFound(_) => match fs::File::open(path) {
            Err(error) => error,
            Ok(_) => io::Error::from_raw_os_error(Errno::EACCES as i32),
        },
        other => io::Error::other(other.to_string()),
    }
}

fn failed(operation: Operation, object: impl std::fmt::Display, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => Error::new(operation, object, Errno::from_raw(code)),
        None => Error::own(operation, object, &error.to_string(), None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_ipvs_go_through_the_crate_and_those_of_arp_by_their_paths() {
        let timeout = Parameter::Ipvs("expire_nodest_conn".to_owned());
        assert_eq!(way(&timeout), Some(Way::Name("net.ipv4.vs.expire_nodest_conn".to_owned())));
        for interface in ["lo", "eth0.100"] {
            let expected = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/arp_announce"));
            assert_eq!(way(&Parameter::ArpAnnounce(interface.to_owned())), Some(Way::Path(expected)));
        }
    }

    #[test]
    fn no_name_leaves_the_directory_of_parameters() {
        for name in ["..", ".", "", "a/b", "../../../etc/passwd", "a\0b"] {
            assert_eq!(way(&Parameter::ArpIgnore(name.to_owned())), None, "{name:?}");
            assert_eq!(way(&Parameter::Ipvs(name.to_owned())), None, "{name:?}");
            assert_eq!(read(&Parameter::ArpIgnore(name.to_owned())), Ok(None), "{name:?}");
        }
    }

    #[test]
    fn values_compare_by_their_words() {
        assert!(same("3\t50\n", "3 50"));
        assert!(!same("3\t50", "3 5"));
        assert!(!same("2", "2 3"));
    }

    #[test]
    fn what_does_not_exist_is_absent() {
        assert_eq!(read(&Parameter::ArpIgnore("no.such0".to_owned())), Ok(None));
        assert_eq!(read(&Parameter::ArpIgnore("nosuch0".to_owned())), Ok(None));
    }

    #[test]
    fn what_exists_is_read_trimmed() {
        let value = read(&Parameter::ArpIgnore("lo".to_owned())).unwrap().unwrap();
        assert!(value.parse::<u8>().is_ok(), "{value:?}");
    }

    #[test]
    fn an_absent_parameter_cannot_be_set() {
        let error = write(&Parameter::ArpIgnore("nosuch0".to_owned()), "1").unwrap_err();
        assert_eq!(error.errno, Some(Errno::ENOENT));
        assert!(error.to_string().starts_with("setting net.ipv4.conf.nosuch0.arp_ignore to 1: "), "{error}");
    }
}
