//! What is packaged besides the program: generated files are up to date, the manual's example works.
//!
//! Owns the agreement of packaging/ with the code; leaves building and installing packages to
//! `tests/packages`, the schemas to `tests/schema`. Needs no privileges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

#[path = "../packaging/generate.rs"]
mod generate;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

#[test]
fn generated_files_are_up_to_date() {
    let stale: Vec<&str> = generate::files()
        .into_iter()
        .filter(|(name, text)| std::fs::read_to_string(packaging().join(name)).ok().as_deref() != Some(text))
        .map(|(name, _)| name)
        .collect();
    assert!(stale.is_empty(), "{stale:?} are stale; run: cargo run --example generate");
}
