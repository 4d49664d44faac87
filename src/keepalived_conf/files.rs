//! The files of a keepalived.conf on this machine: patterns, and what keepalived passes over.
//!
//! Owns the reading for the parser, which asks with a path or a pattern, and the host's id for `@` conditions. A pattern
//! is that of glob(3) with braces. Changes nothing. Called by `check` and `import`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::ensure;
use glob::MatchOptions;

use super::Found;

const MAX_BYTES: u64 = 4 << 20;
const MAX_FILES: usize = 1000;

/// What `@` conditions compare with, without `keepalived -i`: the host's name up to its first dot.
pub fn id() -> String {
    let name = nix::sys::utsname::uname().map(|uname| uname.nodename().to_string_lossy().into_owned());
    name.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

/// The files that a path or pattern names, sorted, with their contents. What a directory's name matches is left out.
pub fn find(pattern: &Path) -> Vec<Found> {
    // In the words of the crate.
    let pattern = pattern.to_string_lossy().replace("[^", "[!");
    let mut patterns = Vec::new();
    braces(&pattern, &mut patterns);
    let options = MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let paths = patterns.iter().flat_map(|pattern| glob::glob_with(pattern, options)).flatten().flatten();
    let files = paths.filter(|path| !path.is_dir()).take(MAX_FILES);
    files.map(|path| (path.clone(), read(&path).map_err(|error| error.to_string()))).collect()
}

/// What keepalived would read: a regular file that cannot be executed.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    // Before it is opened: opening a FIFO for reading would wait for a writer.
    let found = std::fs::metadata(path)?;
    ensure!(found.is_file(), "it is not a regular file");
    ensure!(found.mode() & 0o111 == 0, "keepalived passes over executable files; chmod a-x it");
    ensure!(found.len() <= MAX_BYTES, "it has {} bytes, more than the limit of {MAX_BYTES}", found.len());
    Ok(std::fs::read(path)?)
}

/// Every pattern that the braces of one stand for, up to a limit.
fn braces(pattern: &str, out: &mut Vec<String>) {
    let innermost = pattern.split_once('}').and_then(|(head, tail)| Some((head.rsplit_once('{')?, tail)));
    match innermost.filter(|_| out.len() < MAX_FILES) {
        Some(((head, choices), tail)) => {
            choices.split(',').for_each(|choice| braces(&format!("{head}{choice}{tail}"), out));
        }
        None => out.push(pattern.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn braces_stand_for_several_patterns() {
        let all = |pattern: &str| {
            let mut out = Vec::new();
            braces(pattern, &mut out);
            out
        };
        let expected = ["foo/x", "barx", "foo/catx", "barx", "foo/dogx", "barx"];
        assert_eq!(all("{foo/{,cat,dog},bar}x"), expected);
        assert!(all(&"{a,b}".repeat(100)).len() < 2 * MAX_FILES);
        assert_eq!(
            find(Path::new("/et[^x]/*asswd")).first().map(|found| &*found.0),
            Some(Path::new("/etc/passwd"))
        );
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
