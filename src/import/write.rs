//! The desired-state file's text: what of a table it can say, and in comments the rest and why.
//!
//! Owns layout, short forms, quotes and comments; a serialiser writes no comments. Owns no rule: the file is written whole
//! and read as `check` reads it, and what is refused there leaves the table, until nothing is. So the writer cannot
//! disagree with the reader. Called by `import`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, bail};

use super::table::{Place, Table, vip_of};
use crate::config::source::Source;
use crate::config::{Config, WantedService};
use crate::model::service_flag::{ONE_PACKET, PERSISTENT, SCHED1, SCHED2, SCHED3};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, Timeouts,
    Tunnel,
};
use crate::text::shown;

/// Comments are broken at about this many characters.
const WIDTH: usize = 110;

const NOT_WRITTEN: &str = "Not written, because a desired-state file refuses it. Where the service's VIP or mark is declared above, `plan` shows the removal of what is missing there.";

/// What a file can do without, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Timeout(String),
    Parameter(String),
    MaxLen(DaemonState),
    Daemon(DaemonState),
    /// A service, or one of its real servers
    Service(ServiceKey, Option<ServerKey>),
    Place(IpAddr),
}

/// Pieces that are refused, and why.
type Refused = BTreeMap<Piece, BTreeSet<String>>;

/// A key with its value, when it is to be written.
type Key<'a> = Option<(&'a str, String)>;

/// The file's text.
///
/// # Errors
/// When the reader of the file does not read back what was written, which would be a mistake in this program.
pub fn write(table: &Table) -> anyhow::Result<String> {
    let (mut writable, mut not_written) = (table.clone(), BTreeMap::new());
    let why = "`sync_daemon` is one daemon that follows the role, and two run here; they stay as they are";
    let two = table.daemons.keys().filter(|_| table.daemons.len() > 1);
    let mut refused: Refused = two.map(|state| (Piece::Daemon(*state), [why.to_owned()].into())).collect();
    loop {
        for (piece, reasons) in refused {
            if let Some((what, commands)) = piece.take(&mut writable) {
                let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
                not_written.insert(piece, (format!("{what}: {reasons}"), commands));
            }
        }
        let mut text = document(&writable, !not_written.is_empty());
        refused = judge(&writable, &text)
            .context("the file written would not be valid; please report this input")?;
        if refused.is_empty() {
            if !not_written.is_empty() {
                text.push('\n');
                comment(&mut text, "# ", NOT_WRITTEN);
            }
            for (what, commands) in not_written.values() {
                comment(&mut text, "#  * ", what);
                commands.iter().for_each(|command| comment(&mut text, "#      ", command));
            }
            return Ok(text);
        }
    }
}

/// What the reader of the file refuses, or reads as something else than was written.
fn judge(writable: &Table, text: &str) -> anyhow::Result<Refused> {
    let document = Source { name: "import".to_owned(), text: text.to_owned() }.document()?;
    let mut refused = Refused::new();
    let mut refuse = |piece, why: &str| refused.entry(piece).or_default().insert(why.to_owned());
    match Config::try_from(&document) {
        Ok(config) => {
            let why = "a desired-state file has no words for these settings";
            for (key, wanted) in &writable.services {
                if config.services.get(key) != Some(wanted) {
                    refuse(Piece::Service(*key, None), why);
                }
            }
            let same = config.timeouts == writable.timeouts && config.ipvs_parameters == writable.parameters;
            if !same || !config.daemon.iter().eq(writable.daemons.values()) {
                bail!("its settings are not those that were read");
            }
        }
        Err(problems) => {
            for problem in &problems {
                for piece in Piece::at(&problem.location, writable) {
                    refuse(piece, &problem.message);
                }
            }
            // What only a daemon keeps out stays.
            if refused.keys().any(|piece| matches!(piece, Piece::Daemon(_))) {
                refused.retain(|piece, _| !matches!(piece, Piece::Service(..)));
            }
            if let (true, Some(problem)) = (refused.is_empty(), problems.first()) {
                bail!("{}", problem.message);
            }
        }
    }
    Ok(refused)
}

impl Piece {
    /// What to leave out because of a problem at this place of the file.
    fn at(location: &[String], writable: &Table) -> Vec<Self> {
        let path: Vec<&str> = location.iter().map(String::as_str).collect();
        let nth = |index: &str| index.parse().unwrap_or(usize::MAX);
        let vip = |index| writable.vips().into_iter().nth(nth(index));
        let daemon = writable.daemons.keys().next().copied();
        let found = match path.as_slice() {
            ["interface"] => return writable.vips().into_iter().map(Self::Place).collect(),
            ["vips", index, "label" | "interface"] => vip(index).map(Self::Place),
            ["vips", index, ..] => {
                let vip = vip(index);
                let keys = writable.services.keys().filter(|key| vip.is_some() && vip_of(key) == vip);
                return keys.map(|key| Self::Service(*key, None)).collect();
            }
            ["ipvs", "timeouts", name] => Some(Self::Timeout((*name).to_owned())),
            ["ipvs", "sysctl", name] => Some(Self::Parameter((*name).to_owned())),
            ["ipvs", "sync_daemon", "max_len"] => daemon.map(Self::MaxLen),
            ["ipvs", "sync_daemon", ..] => daemon.map(Self::Daemon),
            ["virtual_services", index, rest @ ..] => {
                let service = writable.services.iter().nth(nth(index));
                service.map(|(key, wanted)| match rest {
                    ["real_servers", index, ..] => {
                        Self::Service(*key, wanted.servers.keys().nth(nth(index)).copied())
                    }
                    _ => Self::Service(*key, None),
                })
            }
            _ => None,
        };
        found.into_iter().collect()
    }

    /// Takes it out of a table. Gives what it was, with ipvsadm's commands for it; nothing when it is gone already.
    fn take(&self, table: &mut Table) -> Option<(String, Vec<String>)> {
        let mut lines = Vec::new();
        let what = match self {
            Self::Timeout(name) => {
                let Timeouts { tcp, tcp_fin, udp } = &mut table.timeouts;
                *match name.as_str() {
                    "tcp" => tcp,
                    "tcp_fin" => tcp_fin,
                    _ => udp,
                } = 0;
                format!("the timeout {name}")
            }
            Self::Parameter(name) => format!("net.ipv4.vs.{name} = {}", table.parameters.remove(name)?),
            Self::MaxLen(state) => {
                let daemon = table.daemons.get_mut(state)?;
                let words = daemon.ipvsadm();
                daemon.max_len = None;
                format!("sync daemon {state} ({words})")
            }
            Self::Daemon(state) => {
                format!("sync daemon {state} ({})", table.daemons.remove(state)?.ipvsadm())
            }
            Self::Service(key, None) => {
                lines = commands(key, &table.services.remove(key)?);
                key.to_string()
            }
            Self::Service(key, Some(server)) => {
                let settings = table.services.get_mut(key)?.servers.remove(server)?;
                lines.push(add_server(key, server, &settings));
                format!("real server {server} of {key}")
            }
            Self::Place(address) => {
                table.places.remove(address)?;
                format!("where {address} stands")
            }
        };
        Some((what, lines))
    }
}

/// A service and its real servers in ipvsadm's words, with the flags for which ipvsadm has no word.
fn commands(key: &ServiceKey, WantedService { settings, servers }: &WantedService) -> Vec<String> {
    let mut service = format!("ipvsadm -A {} {}", key.ipvsadm(), settings.ipvsadm(key.family()));
    let unnamed = settings.flags & !(PERSISTENT | ONE_PACKET | SCHED1 | SCHED2 | SCHED3);
    if unnamed != 0 {
        let _ = write!(service, " (and flags {unnamed:#x})");
    }
    let servers = servers.iter().map(|(server, settings)| add_server(key, server, settings));
    [service].into_iter().chain(servers).collect()
}

fn add_server(key: &ServiceKey, server: &ServerKey, settings: &RealServer) -> String {
    format!("ipvsadm -a {} -r {server} {}", key.ipvsadm(), settings.ipvsadm())
}

/// The whole file but for what is told at its end.
fn document(table: &Table, more: bool) -> String {
    let mut text = String::new();
    comment(&mut text, "# ", &format!("Written by `lvs-notify import` from {}.", table.origin));
    comment(
        &mut text,
        "# ",
        "`lvs-notify check FILE` validates it; `lvs-notify plan master -c FILE` shows what would change.",
    );
    table.notes.iter().for_each(|note| comment(&mut text, "# ", note));
    if more {
        comment(&mut text, "# ", "Some things are not written: see the end of this file.");
    }
    text.push_str("version: 1\n");
    vips(&mut text, table);
    if let Some(found) = &table.arp_off {
        let _ = writeln!(
            text,
            "arp: off   # as they are here: arp_ignore/arp_announce {}; without this",
            shown(found)
        );
        text.push_str("           # line they become 1/2, which hides the VIPs on lo while not MASTER\n");
    }
    if table.standby {
        text.push_str("backup: {services: keep}   # here the services stand beside a backup sync daemon\n");
    }
    ipvs(&mut text, table);
    if table.services.is_empty() {
        text.push_str("allow_empty: true\nvirtual_services: []\n");
    } else {
        text.push_str("virtual_services:\n");
    }
    for (key, wanted) in &table.services {
        table.remarks.get(key).into_iter().for_each(|remark| comment(&mut text, "  # ", remark));
        service(&mut text, key, wanted);
    }
    text
}

fn vips(text: &mut String, table: &Table) {
    let (nowhere, vips) = (Place::default(), table.vips());
    let place = |vip: &IpAddr| table.places.get(vip).unwrap_or(&nowhere);
    let interfaces: BTreeSet<Option<&str>> = vips.iter().map(|vip| place(vip).interface.as_deref()).collect();
    let common = interfaces.first().copied().flatten().filter(|_| interfaces.len() == 1);
    if let Some(name) = common {
        let _ = writeln!(text, "interface: {}", scalar(name));
    } else if interfaces.iter().all(Option::is_none) {
        text.push_str(
            "# interface: eth0   # where clients reach the VIPs; without it nothing is announced\n",
        );
    }
    text.push_str(if vips.is_empty() { "vips: []\n" } else { "vips:\n" });
    for vip in &vips {
        let Place { label, interface, remark } = place(vip);
        let label = label.as_deref().filter(|label| *label != "lo:0");
        let interface = interface.as_deref().filter(|name| Some(*name) != common);
        let keys = [
            Some(("address", scalar(&vip.to_string()))),
            label.map(|label| ("label", scalar(label))),
            interface.map(|name| ("interface", scalar(name))),
        ];
        let remark = remark.as_ref().map_or(String::new(), |remark| format!("   # {}", shown(remark)));
        let _ = writeln!(text, "  - {}{remark}", short(keys));
    }
}

fn ipvs(text: &mut String, table: &Table) {
    let Timeouts { tcp, tcp_fin, udp } = table.timeouts;
    let timeouts = [("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)]
        .map(|(name, seconds)| (seconds != 0).then(|| (name, duration(seconds))));
    let sysctl = table.parameters.iter().map(|(name, value)| {
        let is_number = value.parse::<u32>().is_ok_and(|number| number.to_string() == *value);
        Some((name.as_str(), if is_number { value.clone() } else { scalar(value) }))
    });
    let daemon = table.daemons.values().next().map(|daemon| {
        mapping([
            Some(("interface", scalar(&daemon.interface))),
            Some(("id", daemon.id.to_string())),
            daemon.max_len.map(|value| ("max_len", value.to_string())),
            daemon.group.map(|value| ("group", scalar(&value.to_string()))),
            daemon.port.map(|value| ("port", value.to_string())),
            daemon.ttl.map(|value| ("ttl", value.to_string())),
        ])
    });
    let lines = [
        ("timeouts", mapping(timeouts)),
        ("sysctl", mapping(sysctl)),
        ("sync_daemon", daemon.unwrap_or_default()),
    ];
    let lines: Vec<_> = lines.into_iter().filter(|(_, value)| value.len() > 2).collect();
    if !lines.is_empty() {
        text.push_str("ipvs:\n");
    }
    for (name, value) in lines {
        let _ = writeln!(text, "  {name}: {value}");
    }
}

fn service(text: &mut String, key: &ServiceKey, wanted: &WantedService) {
    let WantedService { settings, servers } = wanted;
    let [first, second] = match key {
        ServiceKey::Endpoint { address, port, protocol } => [
            Some(("address", scalar(&Endpoint { address: *address, port: *port }.to_string()))),
            unless("protocol", protocol, &Protocol::TCP),
        ],
        ServiceKey::Fwmark { mark, family } => [
            Some(("fwmark", mark.to_string())),
            (*family == Family::Ipv6).then(|| ("family", "ipv6".to_owned())),
        ],
    };
    let flags = settings.scheduler_flags();
    let forward = usual_forward(wanted);
    let keys = [
        first,
        second,
        (settings.scheduler != "wlc").then(|| ("scheduler", scalar(&settings.scheduler))),
        (!flags.is_empty()).then(|| ("scheduler_flags", format!("[{}]", flags.join(", ")))),
        persistence(settings, key.family()),
        unless("one_packet", &(settings.flags & ONE_PACKET != 0), &false),
        unless("forward", &forward, &Forward::NAT),
        Some(("real_servers", if servers.is_empty() { "[]" } else { "" }.to_owned())),
    ];
    for (index, (name, value)) in keys.into_iter().flatten().enumerate() {
        let line = format!("  {} {name}: {value}", if index == 0 { '-' } else { ' ' });
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (server, settings) in servers {
        let _ = writeln!(text, "      - {}", real_server(server, settings, forward));
    }
}

fn persistence(settings: &Service, family: Family) -> Key<'static> {
    if !settings.is_persistent() && settings.engine.is_empty() {
        return None;
    }
    let mask = if family == Family::Ipv4 { "netmask" } else { "prefix" };
    let (netmask, full) = (settings.netmask, Service::full_netmask(family));
    let keys = [
        Some(("timeout", duration(settings.timeout))),
        (netmask != full).then(|| (mask, settings.netmask_text(family))),
        (!settings.engine.is_empty()).then(|| ("engine", scalar(&settings.engine))),
    ];
    Some(("persistence", short(keys)))
}

/// The method that most of the servers have, and of equals the first: theirs need not say it.
fn usual_forward(wanted: &WantedService) -> Forward {
    let count = |forward| wanted.servers.values().filter(|server| server.forward == forward).count();
    // Of equals, `max_by_key` takes the last.
    let methods = [Forward::TUN, Forward::DR, Forward::NAT];
    methods.into_iter().max_by_key(|method| count(*method)).unwrap_or(Forward::NAT)
}

fn real_server(key: &ServerKey, server: &RealServer, usual: Forward) -> String {
    // Without a port the client's is kept.
    let name = if key.port == 0 { key.address.to_string() } else { key.to_string() };
    let tunnel = mapping([
        Some(("type", server.tunnel.kind_name().to_owned())),
        unless("port", &server.tunnel.port, &0),
        (server.tunnel.checksum != 0).then(|| ("checksum", server.tunnel.checksum_name().to_owned())),
    ]);
    short([
        Some(("address", scalar(&name))),
        unless("weight", &server.weight, &1),
        unless("forward", &server.forward, &usual),
        unless("upper_threshold", &server.upper_threshold, &0),
        unless("lower_threshold", &server.lower_threshold, &0),
        Some(("tunnel", tunnel)).filter(|_| server.tunnel != Tunnel::default()),
    ])
}

/// A key whose value is not the usual one.
fn unless<T: Display + PartialEq>(name: &'static str, value: &T, usual: &T) -> Key<'static> {
    (value != usual).then(|| (name, value.to_string()))
}

/// Keys and values on one line.
fn mapping<'a>(keys: impl IntoIterator<Item = Key<'a>>) -> String {
    let keys: Vec<String> =
        keys.into_iter().flatten().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", keys.join(", "))
}

/// The short form, which is the value of the first key, where that is the only one.
fn short<const N: usize>(keys: [Key<'_>; N]) -> String {
    match keys.iter().flatten().collect::<Vec<_>>().as_slice() {
        [(_, value)] => value.clone(),
        _ => mapping(keys),
    }
}

/// A comment of one or more lines.
fn comment(text: &mut String, margin: &str, words: &str) {
    let mut line = margin.to_owned();
    for word in shown(words).split_whitespace() {
        if line.len() > margin.len() && line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            // What goes on is no new item of a list.
            line = margin.replace('*', " ");
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Seconds in the largest unit that says them exactly.
fn duration(seconds: u32) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60)];
    let unit = units.into_iter().find(|(_, size)| seconds != 0 && seconds % size == 0);
    let (unit, size) = unit.unwrap_or(("s", 1));
    format!("{}{unit}", seconds / size)
}

/// A scalar, in quotes where YAML would take it for something else.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let quoted = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        ' '..='~' => letter.to_string(),
        other => format!("\\U{:08x}", u32::from(other)),
    });
    format!("\"{}\"", quoted.collect::<String>())
}

/// Whether YAML, in any of its versions and inside of `{}`, reads this as the same text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"];
    let is_ipv4 = text.parse::<Ipv4Addr>().is_ok() || text.parse::<SocketAddrV4>().is_ok();
    let is_ipv6 = text.parse::<IpAddr>().is_ok()
        && text.chars().any(|letter| letter.is_ascii_alphabetic())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !text.ends_with(':');
    let is_name = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    is_ipv4 || is_ipv6 || is_name
}
