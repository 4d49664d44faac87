//! Kernel parameters: reading and writing one.
//!
//! Owns the way to a parameter and the comparison of what was written with what the kernel made of it. Which value is
//! wanted is the plan's. Called by `kernel` and `neighbours`. The `sysctl` crate sets what it can name. Reading is done by
//! path: the crate would open each file twice for it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ::sysctl::{Ctl, Sysctl as _};
use nix::errno::Errno;

use super::error::{Error, Operation, Result, When as _};
use crate::model::Parameter;

/// Reads a parameter; `None` when there is none of this name.
pub(super) fn read(parameter: &Parameter) -> Result<Option<String>> {
    let found = read_parts(&parameter.parts()).map_err(number).when(Operation::Read, parameter)?;
    // Several numbers come with tabs between them; people and files have blanks.
    Ok(found.map(|value| value.replace('\t', " ")))
}

/// Reads the parameter with this name, given in parts; `None` when there is none.
pub(super) fn read_parts(parts: &[&str]) -> io::Result<Option<String>> {
    match path(parts).and_then(fs::read_to_string) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        value => Ok(Some(value?.trim().to_owned())),
    }
}

/// Sets a parameter and makes sure that the kernel has it: of `2 3` it would take the 2 and call it done.
pub(super) fn write(parameter: &Parameter, value: &str) -> Result<()> {
    let object = format!("{parameter} to {value}");
    let parts = parameter.parts();
    let by_path = |path: &Path| {
        fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())?;
        fs::read_to_string(path)
    };
    // The crate turns every dot into a slash, so that it cannot name eth0.100; and calls whatever cannot be opened
    // "not found", where the file tells why.
    let by_name = || Ctl::new(&parts.join("."))?.set_value_string(value);
    let found = path(&parts).and_then(|path| by_name().or_else(|_| by_path(&path)));
    let found = found.map_err(number).when(Operation::SetParameter, &object)?;
    // The kernel separates several numbers with a tab, people with a space.
    if found.split_whitespace().eq(value.split_whitespace()) {
        return Ok(());
    }
    let detail = format!("the kernel took it as `{}`", found.trim());
    Err(Error { errno: None, detail, ..Error::of(Operation::SetParameter, object, Errno::EINVAL) })
}

/// The file of a parameter. There is none for parts that would lead elsewhere.
fn path(parts: &[&str]) -> io::Result<PathBuf> {
    let odd = |part: &&str| matches!(*part, "" | "." | "..") || part.contains(['/', '\0']);
    let path = ["/proc/sys"].iter().chain(parts).collect();
    if parts.iter().any(odd) { Err(Errno::ENOENT.into()) } else { Ok(path) }
}

/// Only a value that is no text has none.
fn number(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EILSEQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_directory_of_parameters() {
        for name in ["..", ".", "", "a/b", "../../../etc/passwd", "a\0b"] {
            for parameter in [Parameter::ArpIgnore(name.to_owned()), Parameter::Ipvs(name.to_owned())] {
                assert_eq!(write(&parameter, "1").unwrap_err().errno, Some(Errno::ENOENT), "{name:?}");
            }
            assert_eq!(read(&Parameter::ArpIgnore(name.to_owned())), Ok(None), "{name:?}");
        }
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
