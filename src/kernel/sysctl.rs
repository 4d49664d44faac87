//! Kernel parameters: reading and writing one.
//!
//! Owns the way to a parameter and the comparison of what was written with what the kernel made of it. Which
//! value is wanted, and whether writing is needed at all, is the plan's. Called by `kernel` and, for the
//! forwarding flag of an interface, by `announce`.
//!
//! Values are set through the `sysctl` crate, which turns every dot into a slash: it cannot name eth0.100. A name
//! with a dot in one of its parts goes by its path, and so does all reading.

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
pub(super) fn read_parts(parts: &[&str]) -> io::Result<Option<String>> {
    if way(parts).is_none() {
        return Ok(None);
    }
    // By its path: the crate opens every file twice, and a takeover reads a dozen.
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
    let way = way(&parts).ok_or_else(|| Error::new(Operation::SetParameter, parameter, Errno::ENOENT))?;
    let found = match &way {
        Way::Name(name) => Ctl::new(name)
            .and_then(|ctl| ctl.set_value_string(value))
            .map_err(|error| fail(&honest(error, &path(&parts))))?,
        Way::Path(path) => fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .and_then(|()| fs::read_to_string(path))
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
    /// By its dotted name
    Name(String),
    /// By its path
    Path(PathBuf),
}

/// `None` for parts that cannot be part of a name, and must not become part of a path.
fn way(parts: &[&str]) -> Option<Way> {
    let odd = |part: &&str| matches!(*part, "" | "." | "..") || part.contains(['/', '\0']);
    if parts.iter().any(odd) {
        return None;
    }
    Some(match parts.iter().any(|part| part.contains('.')) {
        true => Way::Path(path(parts)),
        false => Way::Name(parts.join(".")),
    })
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
    fn a_plain_name_goes_through_the_crate_and_a_dotted_interface_by_its_path() {
        let lo = Parameter::ArpIgnore("lo".to_owned());
        assert_eq!(way(&lo.parts()), Some(Way::Name("net.ipv4.conf.lo.arp_ignore".to_owned())));
        let vlan = Parameter::ArpAnnounce("eth0.100".to_owned());
        let expected = PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/arp_announce");
        assert_eq!(way(&vlan.parts()), Some(Way::Path(expected)));
    }

    #[test]
    fn no_name_leaves_the_directory_of_parameters() {
        for name in ["..", ".", "", "a/b", "../../../etc/passwd", "a\0b"] {
            assert_eq!(way(&Parameter::ArpIgnore(name.to_owned()).parts()), None, "{name:?}");
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
