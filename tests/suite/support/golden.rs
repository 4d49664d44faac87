//! Texts that people read, frozen in tests/golden.
//!
//! Owns the comparison with a golden file, its renewal, and how an edit of a text is shown. Leaves what is frozen to the
//! tests that call it; a unit test in src does as well.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// What is different between the golden file and the text; nothing when they are the same. With UPDATE_GOLDEN in the
/// environment the text becomes the golden file.
pub fn difference(name: &str, text: &str) -> String {
    let path = folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
        return String::new();
    }
    // Options that busybox's diff has as well.
    let mut diff = Command::new("diff")
        .args(["-u", "-N", "-L", &format!("tests/golden/{name}"), "-L", "now"])
        .args([path.as_path(), Path::new("-")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("diff");
    diff.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(diff.wait_with_output().unwrap().stdout).unwrap()
}

/// Fails with what is different.
pub fn same(name: &str, text: &str) {
    let difference = difference(name, text);
    assert!(difference.is_empty(), "{difference}(UPDATE_GOLDEN=1 takes the new text)");
}

/// The lines that an edit takes out (-) and puts in (+).
pub fn edit(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let most = before.len().min(after.len());
    let head = before.iter().zip(&after).take_while(|(old, new)| old == new).count();
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(old, new)| old == new).count();
    let tail = tail.min(most - head);
    let lines = |mark, list: &[&str]| -> String {
        list[head..list.len() - tail]
            .iter()
            .map(|line| format!("{mark} {line}").trim_end().to_owned() + "\n")
            .collect()
    };
    lines('-', &before) + &lines('+', &after)
}
