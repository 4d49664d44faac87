//! What is packaged besides the program: generated files are up to date, the manual's example works.
//!
//! Owns the agreement of packaging/ with the code; leaves building and installing packages to
//! `tests/packages`, the schemas to `tests/schema`. Needs no privileges.

use std::path::{Path, PathBuf};

#[path = "../../../packaging/generate.rs"]
mod generate;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// The schemas among them with `--features schema`, as `tests/run` builds the tests.
#[test]
fn generated_files_are_up_to_date() {
    let stale: Vec<&str> = generate::files()
        .into_iter()
        .filter(|(name, text)| std::fs::read_to_string(packaging().join(name)).ok().as_deref() != Some(text))
        .map(|(name, _)| name)
        .collect();
    assert!(stale.is_empty(), "{stale:?} are stale; run: cargo run --features schema --example generate");
}

#[test]
fn manuals_and_schemas_are_of_this_version() {
    let read = |name: &str| std::fs::read_to_string(packaging().join(name)).unwrap();
    let version = format!("\"lvs\\-notify {}\"", env!("CARGO_PKG_VERSION"));
    for page in ["man/lvs-notify.8", "man/lvs-notify.yaml.5"] {
        assert!(read(page).contains(&version), "{page} does not name {version}");
    }
    let manual = read("man/lvs-notify.8");
    for command in <lvs_notify::cli::Cli as clap::CommandFactory>::command().get_subcommands() {
        let heading = format!("\n.SS {}", command.get_name());
        assert!(manual.contains(&heading), "lvs-notify(8) lacks {}", command.get_name());
    }
    // The version of each form is in the name by which it is known.
    for (schema, id, version) in [
        ("lvs-notify", "desired-state", 1),
        ("status", "status", 2),
        ("plan", "plan", 2),
        ("check", "check", 1),
    ] {
        let text = read(&format!("schema/{schema}.schema.json"));
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["$id"], format!("urn:lvs-notify:{id}:{version}"));
        let place = if schema == "status" { &parsed["$defs"]["Status"] } else { &parsed };
        assert_eq!(place["properties"]["version"]["const"], version);
    }
}
