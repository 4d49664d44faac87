//! The files of a keepalived.conf on this machine: patterns, and what keepalived passes over.
//!
//! Owns the reading for `keepalived_conf::parse`, which asks with a path or a pattern. The pattern is that of
//! glob(3) with braces: `*`, `?`, `[a-z]`, `{a,b}`. Changes nothing.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::Found;

/// Larger files are not read.
const MAX_BYTES: u64 = 4 << 20;
/// A pattern's braces stand for at most this many patterns, and match at most this many files.
const MAX_FILES: usize = 1000;

/// The files that a path or pattern names, sorted, with their contents.
pub fn find(pattern: &Path) -> Vec<Found> {
    let mut paths = Vec::new();
    for pattern in braces(&pattern.to_string_lossy()) {
        paths.extend(matches(Path::new(&pattern)));
    }
    paths.truncate(MAX_FILES);
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
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
        return Err("keepalived passes over files that may be executed; chmod a-x it".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, more than the limit of {MAX_BYTES}", metadata.len()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}

/// Every pattern that the braces of one stand for.
fn braces(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut waiting = vec![pattern.to_owned()];
    while let Some(pattern) = waiting.pop() {
        if done.len() + waiting.len() > MAX_FILES {
            break;
        }
        match innermost(&pattern) {
            Some((before, choices, after)) => {
                let made = choices.split(',').rev().map(|choice| format!("{before}{choice}{after}"));
                waiting.extend(made.collect::<Vec<_>>());
            }
            None => done.push(pattern),
        }
    }
    done
}

fn innermost(pattern: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = pattern.split_once('}')?;
    let (before, choices) = before.rsplit_once('{')?;
    Some((before, choices, after))
}

/// Files that a pattern without braces matches, component by component.
fn matches(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str().to_string_lossy();
        let wild = matches!(component, Component::Normal(_)) && name.contains(['*', '?', '[']);
        let step = |base: PathBuf| match wild {
            false => vec![base.join(component)],
            true => {
                let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let mut names: Vec<String> = entries
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .filter(|entry| like(&name, entry))
                    .collect();
                names.sort();
                names.into_iter().map(|entry| base.join(entry)).collect()
            }
        };
        found = found.into_iter().flat_map(step).take(MAX_FILES).collect();
    }
    // What a directory's name matches is passed over without a word.
    found.retain(|path| std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()));
    found
}

/// Whether a name is like a pattern. A leading dot must be written.
fn like(pattern: &str, name: &str) -> bool {
    let hidden = name.starts_with('.') && !pattern.starts_with('.');
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    !hidden && letters_like(&pattern, &name)
}

fn letters_like(pattern: &[char], name: &[char]) -> bool {
    // Where to go on when it fails: after the last star, one letter further.
    let (mut pattern, mut name) = (pattern, name);
    let mut again: Option<(&[char], &[char])> = None;
    loop {
        let one = match (pattern, name) {
            ([], []) => return true,
            (['*', rest @ ..], _) => {
                again = Some((rest, name));
                pattern = rest;
                continue;
            }
            (['?', rest @ ..], [_, after @ ..]) => Some((rest, after)),
            (['[', rest @ ..], [letter, after @ ..]) => set(rest, *letter).map(|rest| (rest, after)),
            ([wanted, rest @ ..], [letter, after @ ..]) if wanted == letter => Some((rest, after)),
            _ => None,
        };
        (pattern, name) = match (one, again) {
            (Some(next), _) => next,
            (None, Some((rest, [_, after @ ..]))) => {
                again = Some((rest, after));
                (rest, after)
            }
            (None, _) => return false,
        };
    }
}

/// The pattern after a `[…]` that has the letter in it.
fn set(pattern: &[char], letter: char) -> Option<&[char]> {
    let (negated, mut rest) = match pattern {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [']', after @ ..] if !first => return (found != negated).then_some(after),
            [low, '-', high, after @ ..] if *high != ']' => {
                found |= (*low..=*high).contains(&letter);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == letter;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_like_patterns() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*.conf", ".hidden.conf", false),
            (".*.conf", ".hidden.conf", true),
            ("v?-[0-9a]*", "vi-a", true),
            ("v?-[!0-9]*", "vi-3", false),
            ("[]x]", "]", true),
            ("[", "[", false),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(like(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(
            braces("{foo/{,cat,dog},bar}x"),
            ["foo/x", "barx", "foo/catx", "barx", "foo/dogx", "barx"]
        );
    }

    #[test]
    fn executable_files_are_passed_over() {
        let folder = std::env::temp_dir().join(format!("lvs-notify-glob-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("sub.conf")).unwrap();
        std::fs::write(folder.join("b.conf"), "b").unwrap();
        std::fs::write(folder.join("a.conf"), "a").unwrap();
        std::fs::set_permissions(folder.join("a.conf"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = find(&folder.join("*.conf"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|(path, read)| path.ends_with("b.conf") && read.as_deref() == Ok(b"b")));
        assert!(found.iter().any(|(_, read)| read.as_ref().is_err_and(|why| why.contains("chmod a-x"))));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
