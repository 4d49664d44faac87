//! Writes what follows from the program's definitions: shell completions, lvs-notify(8), and the JSON Schemas (`schema`).
//!
//! Owns the form of the generated files; their words are those of `cli`, so that `--help`, manual and
//! completions cannot disagree; the manual's list of symptoms is the README's, its other sections stand in
//! `man/lvs-notify.8.in`. Run by hand after a change (`cargo run --features schema --example generate`);
//! `tests/suite/anywhere/packaging.rs` compares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use lvs_notify::cli::Cli;
use lvs_notify::report::EXIT_STATUS;

#[cfg(feature = "schema")]
mod schema;

/// Every generated file below packaging/, with its content.
pub fn files() -> Vec<(&'static str, String)> {
    let files = vec![
        ("completions/lvs-notify.bash", completion(Shell::Bash)),
        ("completions/_lvs-notify", completion(Shell::Zsh)),
        ("completions/lvs-notify.fish", completion(Shell::Fish)),
        ("man/lvs-notify.8", manual()),
    ];
    #[cfg(feature = "schema")]
    let files = [files, schema::files()].concat();
    files
}

const ORIGIN: &str = "from the program's own definitions by packaging/generate.rs; do not edit.";

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lvs-notify", &mut text);
    let text = String::from_utf8(text).unwrap();
    let note = format!("# Completes lvs-notify's commands and options in {shell}. Made {ORIGIN}\n");
    // The first line of zsh's says what is completed and must stay the first.
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#compdef") => format!("{first}\n{note}{rest}"),
        _ => note + &text,
    }
}

fn manual() -> String {
    // Unbuilt, the parts have neither the help command nor copies of the options for all commands.
    let whole = Cli::command();
    let mut commands = String::new();
    for command in whole.get_subcommands().filter(|command| !command.is_hide_set()) {
        describe(&mut commands, command, "lvs-notify");
    }
    let options =
        section(&Man::new(whole.clone().disable_help_subcommand(true)), Man::render_options_section);
    include_str!("man/lvs-notify.8.in")
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@ORIGIN@", ORIGIN)
        .replace("@OPTIONS@\n", &options)
        .replace("@COMMANDS@\n", &commands)
        .replace("@EXIT_STATUS@\n", &exit_status())
        .replace("@SYMPTOMS@\n", &symptoms())
}

/// A command with its arguments, or the commands below it.
fn describe(text: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    if command.has_subcommands() {
        return command.get_subcommands().for_each(|command| describe(text, command, &name));
    }
    let title = name.trim_start_matches("lvs-notify ").to_owned();
    let man = Man::new(command.clone().bin_name(&name).disable_help_flag(true));
    *text += &format!(".SS {}\n{}", escape(&title), section(&man, Man::render_synopsis_section));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        *text += &format!(".PP\n{}.\n", escape(about.to_string().trim_end_matches('.')));
    }
    *text += &section(&man, Man::render_options_section);
    if let Some(example) = command.get_after_help() {
        *text += &format!(".PP\n{}\n", escape(&example.to_string()));
    }
}

type Render = fn(&Man, &mut dyn std::io::Write) -> Result<(), std::io::Error>;

/// The body of a section, without its heading and what stands at the top of every page.
fn section(man: &Man, render: Render) -> String {
    let mut text = Vec::new();
    render(man, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let body = text.lines().filter(|line| ![".ie ", ".el ", ".SH "].iter().any(|top| line.starts_with(top)));
    let body: String =
        body.map(|line| format!("{}\n", line.trim_end())).filter(|line| line != "\n").collect();
    body.replace(".br\n.br\n", ".br\n")
}

/// The one table of exit statuses as a list of tagged paragraphs.
fn exit_status() -> String {
    let lines = EXIT_STATUS.lines().filter_map(|line| line.trim().split_once("  "));
    lines.map(|(status, meaning)| format!(".TP\n.B {status}\n{}.\n", escape(meaning))).collect()
}

/// The README's table of symptoms, causes and remedies as a list of tagged paragraphs.
fn symptoms() -> String {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Troubleshooting\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let (_, rows) = section.split_once("\n|---|---|---|\n").unwrap();
    let mut text = String::new();
    for row in rows.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")) {
        let cells: Vec<String> = row.split(" | ").map(marked).collect();
        let [symptom, cause, remedy] = cells.as_slice() else { panic!("three cells: {row}") };
        text += &format!(".TP\n.I {symptom}\nCause: {cause}.\n.br\nTo do: {remedy}.\n");
    }
    text
}

/// What stands between backquotes in bold.
fn marked(text: &str) -> String {
    let part = |(at, part)| if at % 2 == 1 { format!("\\fB{}\\fR", escape(part)) } else { escape(part) };
    text.split('`').enumerate().map(part).collect()
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('"', "\\(dq")
}

#[allow(dead_code)]
fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    for (name, text) in files() {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
