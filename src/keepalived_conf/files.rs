//! The files of a keepalived.conf on this machine: patterns, and what keepalived passes over.
//!
//! Owns the reading for the parser, which asks with a path or a pattern, and the host's id for `@` conditions. A pattern
//! is that of glob(3) with braces. Changes nothing. Called by `check` and `import`.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use glob::MatchOptions;

use super::{Found, Tree};

/// Larger files are not read.
const MAX_BYTES: u64 = 4 << 20;
/// A pattern's braces stand for at most this many patterns, and match at most this many files.
const MAX_FILES: usize = 1000;

/// Reads the configuration that starts in `path`, as this host's keepalived does.
pub fn parse(path: &Path) -> Tree {
    super::parse(path, &id(), &mut find)
}

/// What `@` conditions compare with, without `keepalived -i`: the host's name up to its first dot.
pub fn id() -> String {
    let name = nix::sys::utsname::uname().map(|uname| uname.nodename().to_string_lossy().into_owned());
    name.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

/// The files that a path or pattern names, sorted, with their contents. What a directory's name matches is left out.
pub fn find(pattern: &Path) -> Vec<Found> {
    let patterns = braces(&pattern.to_string_lossy());
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let paths = patterns.iter().flat_map(|pattern| glob::glob_with(pattern, options)).flatten().flatten();
    paths.filter(|path| !path.is_dir()).take(MAX_FILES).map(|path| (path.clone(), read(&path))).collect()
}

/// What keepalived would read: a regular file that cannot be executed.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| error.to_string();
    // O_NONBLOCK: opening a FIFO for reading would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path)
        .map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.permissions().mode() & 0o111 != 0 {
        return Err("keepalived passes over executable files; chmod a-x it".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, more than the limit of {MAX_BYTES}", metadata.len()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}

/// Every pattern that the braces of one stand for, in the words of the crate: `[^a]` is `[!a]`, and `**`, which would
/// search every directory below, is `*`.
fn braces(pattern: &str) -> Vec<String> {
    let mut pattern = pattern.replace("[^", "[!");
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    let (mut done, mut waiting) = (Vec::new(), vec![pattern]);
    while let Some(pattern) = waiting.pop() {
        if done.len() + waiting.len() > MAX_FILES {
            break;
        }
        let innermost = pattern.split_once('}').and_then(|(head, tail)| Some((head.rsplit_once('{')?, tail)));
        match innermost {
            Some(((head, choices), tail)) => {
                waiting.extend(choices.split(',').rev().map(|choice| format!("{head}{choice}{tail}")));
            }
            None => done.push(pattern),
        }
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_several_patterns() {
        assert_eq!(
            braces("{foo/{,cat,dog},bar}x"),
            ["foo/x", "barx", "foo/catx", "barx", "foo/dogx", "barx"]
        );
        assert_eq!(braces("/etc/***/[^a]"), ["/etc/*/[!a]"]);
    }

    #[test]
    fn executable_files_are_passed_over() {
        let folder = std::env::temp_dir().join(format!("lvs-notify-glob-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("sub.conf")).unwrap();
        for name in ["a.conf", "b.conf", "c.conf.bak", ".d.conf"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        std::fs::set_permissions(folder.join("a.conf"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = find(&folder.join("*.conf"));
        let (one, other) = (found.first().unwrap(), found.last().unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(one.0.ends_with("a.conf") && one.1.as_ref().is_err_and(|why| why.contains("chmod a-x")));
        assert!(other.0.ends_with("b.conf") && other.1.as_deref() == Ok(b"b.conf"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
