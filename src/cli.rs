//! What can be typed, and its help.
//!
//! Owns the command line's words, and touches neither files nor the kernel. Read by `lib`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::import::Origin;
use crate::report::EXIT_STATUS;
use crate::state::drain::ServerWord;
use crate::text::{parse_duration, parse_endpoint};

const EXAMPLES: &str = "\
Examples, as keepalived.conf has them:
  notify_master \"/usr/bin/lvs-notify master VI_1\"
  notify_backup \"/usr/bin/lvs-notify backup VI_1\"
  notify_fault  \"/usr/bin/lvs-notify fault VI_1\"
  notify_stop   \"/usr/bin/lvs-notify stop VI_1\"";

const IMPORT_EXAMPLES: &str = "\
Examples:
  lvs-notify import > VI_1.yaml
  ipvsadm -Sn | lvs-notify import --from ipvsadm-save
  lvs-notify import --from keepalived-conf /etc/keepalived/keepalived.conf
  lvs-notify import --run /etc/keepalived/notify.sh INSTANCE VI_1 MASTER";

/// Brings VIPs, ARP parameters and IPVS tables in line with a VRRP role.
///
/// keepalived calls it on a change of state; it compares the kernel with the desired-state file
/// /etc/lvs-notify/INSTANCE.yaml and changes only what differs.
#[derive(Debug, Parser)]
#[command(name = "lvs-notify", version, after_help = format!("{EXIT_STATUS}\n{EXAMPLES}"), arg_required_else_help = true)]
pub struct Cli {
    /// Desired-state file, instead of the instance's in /etc/lvs-notify [env: LVS_NOTIFY_CONFIG]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// This director became MASTER: serve the VIPs
    #[command(after_help = "Example: lvs-notify master VI_1 --dry-run")]
    Master(RoleArgs),
    /// Another director is MASTER: stop serving the VIPs
    #[command(after_help = "Example: lvs-notify backup VI_1")]
    Backup(RoleArgs),
    /// An interface or a tracked script failed: stop serving the VIPs
    #[command(after_help = "Example: lvs-notify fault VI_1")]
    Fault(RoleArgs),
    /// keepalived stops: stop serving the VIPs
    #[command(after_help = "Example: lvs-notify stop VI_1")]
    Stop(RoleArgs),
    /// The four arguments that keepalived appends to a generic `notify` script
    #[command(after_help = "Example, in keepalived.conf: notify \"/usr/bin/lvs-notify notify\"")]
    Notify {
        /// GROUP or INSTANCE
        #[arg(value_name = "GROUP|INSTANCE", value_parser = ["GROUP", "INSTANCE"])]
        kind: String,
        /// Name of the group or instance
        name: String,
        /// MASTER, BACKUP, FAULT, STOP or DELETED; other events change nothing
        state: String,
        /// VRRP priority; not used
        #[arg(default_value = "0")]
        priority: String,
    },
    /// Reconcile again to the newest notification's role, after an edit of the file or from a timer
    #[command(after_help = "Example: lvs-notify apply VI_1")]
    Apply(ApplyArgs),
    /// Keep the edit that `apply --confirm` has put on trial
    #[command(after_help = "Example: lvs-notify apply --confirm 60s VI_1, then: lvs-notify confirm VI_1")]
    Confirm {
        /// VRRP instance
        instance: Option<String>,
    },
    /// Give a real server no new connections; existing ones live on, until `undrain`
    ///
    /// Survives apply and reboot, and holds on this director only: drain it on the other one, too. Without --service it holds in every service of the file.
    #[command(after_help = "Example: lvs-notify drain 192.0.2.11 --for 10m")]
    Drain {
        /// Real server: ADDRESS or ADDRESS:PORT
        #[arg(value_parser = server)]
        server: ServerWord,
        /// VRRP instance
        instance: Option<String>,
        /// Only in this service: VIP:PORT, tcp/VIP:PORT, udp/VIP:PORT, sctp/VIP:PORT or fwmark/MARK
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        /// Lift it by itself after this time, at the next run: a notification, or `apply` from a timer
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        period: Option<Duration>,
    },
    /// Lift what `drain` has begun
    #[command(after_help = "Example: lvs-notify undrain 192.0.2.11")]
    Undrain {
        /// Real server: ADDRESS or ADDRESS:PORT
        #[arg(value_parser = server, required_unless_present = "all", conflicts_with = "all")]
        server: Option<ServerWord>,
        /// VRRP instance
        instance: Option<String>,
        /// Every real server
        #[arg(long, value_name = "INSTANCE", num_args = 0..=1)]
        all: Option<Option<String>>,
    },
    /// Follow keepalived's notify FIFO: the same as the role commands, with events in their order
    #[command(
        after_help = "Example, in keepalived.conf:\n  vrrp_notify_fifo /run/keepalived.fifo\n  vrrp_notify_fifo_script \"/usr/bin/lvs-notify fifo\""
    )]
    Fifo {
        /// The FIFO, which keepalived appends to the command
        path: PathBuf,
    },
    /// Show what would change, with the equivalent commands; changes nothing
    #[command(after_help = "Example: lvs-notify plan master VI_1")]
    Plan {
        /// master, backup, fault or stop (default: the newest notification's), and the instance
        #[arg(value_name = "ROLE|INSTANCE", num_args = 0..=2)]
        words: Vec<String>,
        /// Print the plan as JSON
        #[arg(long)]
        json: bool,
        /// Plan against an observation saved with `status --json` instead of this kernel
        #[arg(long, value_name = "FILE")]
        current: Option<PathBuf>,
    },
    /// Carry out a takeover in a private network namespace: whether it would succeed, and how long it takes
    #[command(after_help = "Example: lvs-notify rehearse VI_1")]
    Rehearse {
        /// VRRP instance
        instance: Option<String>,
    },
    /// Tell the role, whether the kernel is in sync, and why not
    #[command(after_help = "Example: lvs-notify status VI_1 --json")]
    Status(StatusArgs),
    /// Find what is wrong with desired-state files, keepalived.conf and this host; changes nothing
    ///
    /// Without FILE: every file in /etc/lvs-notify, this host, and its keepalived.conf. With FILE: those files, as
    /// they could be another host's, and the host only with --host or when they are in /etc/lvs-notify.
    #[command(after_help = "Example: lvs-notify check --keepalived-conf /etc/keepalived/keepalived.conf")]
    Check {
        /// Desired-state files (default: all in /etc/lvs-notify)
        files: Vec<PathBuf>,
        /// keepalived's configuration, with its includes (default, for this host: /etc/keepalived/keepalived.conf)
        #[arg(long, value_name = "FILE")]
        keepalived_conf: Option<PathBuf>,
        /// Look at this host even if FILEs are named that are not its own
        #[arg(long)]
        host: bool,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a desired-state file from what exists, to standard output
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// What to read
        #[arg(long, value_enum, value_name = "SOURCE", default_value = "kernel")]
        from: Origin,
        /// The text to read; `-` or none: standard input
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Let a script run, with all that follows as its arguments, and read what it has made
        ///
        /// It runs in private namespaces of this kernel, where interfaces are stand-ins with the same names and
        /// addresses, files are read-only but for /tmp and /run, which are empty, and no process, daemon or host is
        /// reached: nothing of this host changes but the kernel modules that are loaded. Its output goes to standard
        /// error. What it has made when it fails is written, too, and the exit status is 1.
        #[arg(long, value_names = ["SCRIPT", "ARGUMENT"], num_args = 1.., allow_hyphen_values = true, conflicts_with_all = ["from", "file"])]
        run: Vec<OsString>,
        /// How long the script may run; stands before --run
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        limit: Duration,
    },
}

impl Cli {
    /// Reads the command line; an error is what is wrong with it, and also how help and version are told.
    pub fn read() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        if let Command::Import { from: Origin::Kernel, file: Some(file), .. } = &cli.command {
            let which = "which format? Use --from ipvsadm-save or keepalived-conf; for a script, --run";
            let wrong = format!("{}: {which}", file.display());
            return Err(Self::command().error(ErrorKind::InvalidValue, wrong));
        }
        Ok(cli)
    }
}

fn server(text: &str) -> Result<ServerWord, &'static str> {
    parse_endpoint(text).ok_or("not a real server, as in 192.0.2.11, 192.0.2.11:80 or \"[2001:db8::11]:80\"")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).filter(|period| !period.is_zero()).ok_or("not a duration, as in 10m or 300")
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// VRRP instance (default: a line for each)
    pub instance: Option<String>,
    /// Print everything as JSON
    #[arg(long, conflicts_with = "prometheus")]
    pub json: bool,
    /// Print metrics for node_exporter's textfile collector
    #[arg(long)]
    pub prometheus: bool,
    /// Print again every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    pub watch: Option<u64>,
    /// Ask the network who answers for the VIPs; two hosts that do are a split brain
    #[arg(long)]
    pub probe: bool,
}

#[derive(Args, Debug)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub role: RoleArgs,
    /// Take the edit back after this time, by itself, unless `lvs-notify confirm` comes before
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["all", "dry_run"])]
    pub confirm: Option<Duration>,
    /// Wait for the end of a trial, and take the edit back
    #[arg(long, hide = true)]
    pub take_back: bool,
    /// Every instance, one after the other
    #[arg(long, conflicts_with_all = ["instance", "dry_run"])]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct RoleArgs {
    /// VRRP instance; may be left out when /etc/lvs-notify has one file
    pub instance: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
