//! The last file of an instance that was applied without error, and the compiled copy of what it means.
//!
//! Checking a file takes longer than the kernel needs for all its services, while clients wait; reading the copy takes a
//! thirtieth of that. Without one, or with one that is not believed, the file is checked as ever. Called by `basis`, which
//! falls back to the file, and by whoever
//! keeps both in /var/lib/lvs-notify: `reconcile`, `rehearsal`.

use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustc_hash::FxHasher;

use super::files::{STATE, path_of, read_own, write_own};
use super::trial::{self, Trial};
use crate::config::Config;
use crate::config::source::{MAX_BYTES, Source};

/// A compiled copy that is larger than this is not ours.
const MAX_COMPILED: u64 = 2 * MAX_BYTES;

/// Bytes before the copy's meaning.
const SEAL: usize = 8;

/// Where it is kept.
pub fn path(instance: &str) -> PathBuf {
    path_of(STATE, instance, "yaml")
}

/// Whether it can be gone by.
pub fn is_usable(instance: &str) -> bool {
    Source::read(&path(instance)).is_ok_and(|kept| Config::parse(&kept).is_ok())
}

/// What a text means, when the compiled copy is of this very text.
pub fn compiled(instance: &str, text: &str) -> Option<Config> {
    // One that is cut there is not believed.
    unpack(text, &read_own(&path_of(STATE, instance, "compiled"), MAX_COMPILED).ok()?)
}

/// Keeps a file that was applied without error, and what it means, unless they are kept already, or it is on trial:
/// `compiled` says that the meaning came from there.
pub fn keep(instance: &str, source: &Source, config: &Config, compiled: bool) -> anyhow::Result<()> {
    match Trial::of(instance) {
        Some(trial) if trial.is_of(&source.text) => return Ok(()),
        Some(_) => trial::forget(instance)?,
        None => {}
    }
    let path = path(instance);
    if !Source::read(&path).is_ok_and(|kept| kept.text == source.text) {
        write_own(&path, source.text.as_bytes(), 0o600, true)?;
    }
    let packed = if compiled { None } else { pack(&source.text, config) };
    if let Some(packed) = packed.filter(|packed| packed.len() as u64 <= MAX_COMPILED) {
        // Without it nothing is lost but time. It is not worth waiting for a disk either: what a power failure
        // leaves of it is not believed.
        write_own(&path_of(STATE, instance, "compiled"), &packed, 0o600, false)
            .unwrap_or_else(|error| log::warn!("{error:#}"));
    }
    Ok(())
}

/// The copy for a text; none when this program cannot tell who it is.
fn pack(text: &str, config: &Config) -> Option<Vec<u8>> {
    let mut packed = postcard::to_extend(config, vec![0; SEAL]).ok()?;
    let (seal, meaning) = packed.split_first_chunk_mut::<SEAL>()?;
    *seal = sealed(&program()?, text, meaning);
    Some(packed)
}

/// What a text means, when the copy is to be believed.
fn unpack(text: &str, packed: &[u8]) -> Option<Config> {
    let (seal, meaning) = packed.split_first_chunk::<SEAL>()?;
    let believed = *seal == sealed(&program()?, text, meaning);
    believed.then(|| postcard::from_bytes(meaning).ok())?
}

/// Chance alone opens one seal in 2^64, and `files` opens nothing that others may write.
pub(super) fn sealed(program: &Program, text: &str, meaning: &[u8]) -> [u8; SEAL] {
    let mut hasher = FxHasher::default();
    (program, text, meaning).hash(&mut hasher);
    hasher.finish().to_le_bytes()
}

/// Which program this is: its version, and its file's place, size and times. An update replaces the file, and with it
/// perhaps the rules that the copy was checked by; packages give it the time of its commit, but nobody gives it its ctime.
pub(super) type Program = (&'static str, [u64; 3], [i64; 4]);

pub(super) fn program() -> Option<Program> {
    let file = std::fs::metadata("/proc/self/exe").ok()?;
    let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
    Some((env!("CARGO_PKG_VERSION"), [file.dev(), file.ino(), file.size()], times))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::source::Source;

    /// Nearly every kind of value that a file can declare.
    const FILE: &str = "version: 1
interface: eth0
vips: [192.0.2.1, {address: 192.0.2.2, label: lo:1, interface: eth1}, 2001:db8::1]
arp: {arp_ignore: 2, arp_announce: 1, persist: false, restore: true}
announce: {count: 2, interval: 50ms}
backup: {vips: remove, drain: 10s}
ipvs:
  exclusive: true
  timeouts: {tcp: 15m, udp: 30}
  sysctl: {backup_only: 1, sync_threshold: '3 50'}
  sync_daemon: {interface: eth2, id: 7, max_len: 1400, group: 224.0.0.82, port: 8849, ttl: 2}
virtual_services:
  - {address: 192.0.2.1:53, protocol: udp, scheduler: mh, scheduler_flags: [mh-port], one_packet: true, forward: dr, real_servers: [198.51.100.1:53]}
  - {address: 192.0.2.2:80, persistence: {timeout: 5m, netmask: 255.255.255.0}, real_servers: [{address: 198.51.100.1:8080, weight: 4000000, upper_threshold: 200, lower_threshold: 100}, 198.51.100.2:80]}
  - {address: '[2001:db8::1]:443', real_servers: ['[2001:db8::2]:443']}
  - {fwmark: 4294967295, forward: tun, real_servers: [{address: 198.51.100.1, tunnel: {type: gue, port: 6080, checksum: csum}}]}
";

    fn meaning(text: &str) -> Config {
        Config::parse(&Source { name: String::new(), text: text.to_owned() }).unwrap()
    }

    #[test]
    fn it_means_what_the_text_means() {
        let meant = meaning(FILE);
        assert_eq!(unpack(FILE, &pack(FILE, &meant).unwrap()), Some(meant));
    }

    proptest! {
        #[test]
        fn it_is_believed_for_its_own_text_only(at in any::<prop::sample::Index>(), letter in any::<char>()) {
            let packed = pack(FILE, &meaning(FILE)).unwrap();
            let mut letters: Vec<char> = FILE.chars().collect();
            let at = at.index(letters.len());
            prop_assume!(letters[at] != letter);
            letters[at] = letter;
            prop_assert_eq!(unpack(&String::from_iter(letters), &packed), None);
        }

        #[test]
        fn a_damaged_one_is_not_believed(at in any::<prop::sample::Index>(), change in 1u8.., end in any::<bool>()) {
            let mut packed = pack(FILE, &meaning(FILE)).unwrap();
            let at = at.index(packed.len());
            if end { packed.truncate(at) } else { packed[at] ^= change }
            prop_assert_eq!(unpack(FILE, &packed), None);
        }
    }

    #[test]
    fn another_program_does_not_believe_it() {
        let packed = pack(FILE, &meaning(FILE)).unwrap();
        let (seal, meaning) = packed.split_first_chunk().unwrap();
        let (version, place, times) = program().unwrap();
        assert_eq!(*seal, sealed(&(version, place, times), FILE, meaning));
        assert_ne!(*seal, sealed(&("0", place, times), FILE, meaning));
        for part in 0..place.len() {
            let mut other = place;
            other[part] += 1;
            assert_ne!(*seal, sealed(&(version, other, times), FILE, meaning));
        }
        for part in 0..times.len() {
            let mut other = times;
            other[part] += 1;
            assert_ne!(*seal, sealed(&(version, place, other), FILE, meaning));
        }
    }
}
