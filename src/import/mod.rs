//! `import`: a desired-state file from what exists.
//!
//! Owns the flow: every source fills a [`Table`], one writer puts it into a file. Leaves each source to its own file, the
//! text and what it may say to `write`. Called by `lib`.

mod keepalived;
mod kernel;
pub mod sandbox;
pub mod script;
mod write;

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use crate::config::source::MAX_BYTES;
use crate::ipvsadm;
use crate::names::{Ask, entries};
use crate::text::shown;

pub use write::{Table, write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// The running kernel; nothing is lost
    Kernel,
    /// What `ipvsadm -S` or `ipvsadm-save` wrote, with or without -n
    IpvsadmSave,
    /// The virtual_server blocks of a keepalived.conf
    KeepalivedConf,
}

/// Reads the source and gives the file's text, which `check` accepts.
pub fn run(origin: Origin, file: Option<&Path>) -> anyhow::Result<String> {
    let (name, text) = if origin == Origin::Kernel { Default::default() } else { input(file)? };
    write(&parse(origin, &name, &text, entries)?)
}

/// Reads a source: the text, or the kernel. One that is to be understood whole fails with every line that is not.
pub fn parse(origin: Origin, name: &str, text: &str, ask: Ask) -> anyhow::Result<Table> {
    match origin {
        Origin::Kernel => kernel::read(),
        Origin::IpvsadmSave => {
            let services = ipvsadm::read(name, text, ask)?;
            let lost = "ipvsadm does not save thresholds (-x, -y), timeouts (--set) and sync daemons; `--from kernel` reads them.";
            let (origin, notes) = (format!("ipvsadm-save text, {name}"), vec![lost.to_owned()]);
            Ok(Table { origin, services, notes, ..Table::default() })
        }
        Origin::KeepalivedConf => Ok(keepalived::read(name, text)),
    }
}

/// The text of FILE or of standard input, with its name for messages.
fn input(file: Option<&Path>) -> anyhow::Result<(String, String)> {
    let file = file.filter(|path| *path != Path::new("-"));
    let name = file.map_or("standard input".into(), |path| path.to_string_lossy());
    let reader: Box<dyn Read> = match file {
        Some(path) => Box::new(File::open(path).with_context(|| format!("opening {name}"))?),
        None => Box::new(stdin()),
    };
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
    ensure!(bytes.len() as u64 <= MAX_BYTES, "{name} has more than {MAX_BYTES} bytes; import it in parts");
    // Comments of old scripts are in any encoding; a name that matters is ASCII.
    Ok((shown(&name), String::from_utf8_lossy(&bytes).into_owned()))
}
