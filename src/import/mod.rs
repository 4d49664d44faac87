//! `import`: a desired-state file from what exists.
//!
//! Owns the intermediate [`Table`], which every source fills and one writer puts into YAML, and the flow from
//! source to text. Leaves each source's language to its own file, the YAML to `yaml`, and what a file may say
//! to `desired`: what that refuses comes out as a comment. Called by `lib`.

mod ipvsadm;
mod keepalived;
mod options;
mod running;
pub mod sandbox;
mod script;
mod sift;
mod yaml;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::config::WantedService;
use crate::config::source::MAX_BYTES;
use crate::kernel::Linux;
use crate::model::{DaemonState, ServiceKey, SyncDaemon, Timeouts};
use crate::text::shown;

pub use crate::names::Hosts;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// The running kernel; nothing is lost
    Kernel,
    /// What `ipvsadm -S` or `ipvsadm-save` wrote, with or without -n
    IpvsadmSave,
    /// The virtual_server blocks of a keepalived.conf
    KeepalivedConf,
    /// What `--run` has taken the place of
    #[value(hide = true)]
    Script,
}

/// What a source says, in the terms of the model.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Where it comes from, for the first line of the file
    pub origin: String,
    /// Services with their real servers
    pub services: BTreeMap<ServiceKey, WantedService>,
    /// Timeouts; 0 where the source says nothing
    pub timeouts: Timeouts,
    pub daemons: BTreeMap<DaemonState, SyncDaemon>,
    pub parameters: BTreeMap<String, String>,
    /// Where the VIPs stand, of those that stand somewhere
    pub places: BTreeMap<IpAddr, Place>,
    /// Why the ARP parameters are left alone, when they are
    pub arp_off: Option<String>,
    /// The services stand while another director is MASTER
    pub standby: bool,
    /// What the reader of the file should know, before the first key
    pub notes: Vec<String>,
    /// What belongs to a service and has no key, told next to it
    pub remarks: BTreeMap<ServiceKey, Vec<String>>,
}

/// Where a VIP stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// On lo, with this label
    pub label: Option<String>,
    /// On an interface other than lo
    pub interface: Option<String>,
    /// What is unusual about it
    pub remark: Option<String>,
}

/// Reads the source and gives the file's text, which `check` accepts.
///
/// # Errors
/// When the source cannot be read or, of `ipvsadm-save`, when a line is not understood.
pub fn run(origin: Origin, file: Option<&Path>) -> anyhow::Result<String> {
    let table = match origin {
        Origin::Kernel => running::read(&mut Linux::open()?, &Linux::interfaces()?)?,
        _ => {
            let (name, text) = input(file)?;
            parse(origin, &name, &text, &Hosts::system())?
        }
    };
    write(&table)
}

/// Lets a script run in private namespaces; gives the file's text, and why it may lack something.
///
/// # Errors
/// When the script cannot be run.
pub fn run_script(words: &[OsString], limit: Duration) -> anyhow::Result<(String, Option<String>)> {
    let (table, problem) = script::read(words, limit)?;
    Ok((write(&table)?, problem))
}

/// Reads a text source.
///
/// # Errors
/// Every line that is not understood, with its number, where the source is to be understood whole.
pub fn parse(origin: Origin, name: &str, text: &str, hosts: &Hosts) -> anyhow::Result<Table> {
    match origin {
        Origin::Kernel | Origin::Script => bail!("this is not read as text"),
        Origin::IpvsadmSave => ipvsadm::read(name, text, hosts),
        Origin::KeepalivedConf => Ok(keepalived::read(name, text, hosts)),
    }
}

/// The YAML of a table.
///
/// # Errors
/// When the reader of the file does not read back what was written, which would be a mistake in this program.
pub fn write(table: &Table) -> anyhow::Result<String> {
    let sifted = sift::Sifted::of(table);
    let text = yaml::document(&sifted);
    match sift::read(&text) {
        Ok(config) if config.services == sifted.services => Ok(text),
        Ok(_) => bail!("the file written would not mean what was read; please report this input"),
        Err(why) => bail!("the file written would not be valid ({why}); please report this input"),
    }
}

/// The text of FILE or of standard input, with its name for messages.
fn input(file: Option<&Path>) -> anyhow::Result<(String, String)> {
    let (name, mut reader): (String, Box<dyn std::io::Read>) = match file {
        Some(path) if path != Path::new("-") => {
            let name = path.display().to_string();
            let opened = std::fs::File::open(path).with_context(|| format!("opening {name}"))?;
            (name, Box::new(opened))
        }
        _ => ("standard input".to_owned(), Box::new(std::io::stdin())),
    };
    let mut bytes = Vec::new();
    let most = MAX_BYTES + 1;
    reader.by_ref().take(most).read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
    if bytes.len() as u64 == most {
        bail!("{name} has more than {MAX_BYTES} bytes; import it in parts");
    }
    // Comments of old scripts are in any encoding; a name that matters is ASCII.
    Ok((shown(&name), String::from_utf8_lossy(&bytes).into_owned()))
}
