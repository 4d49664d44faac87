//! The desired-state file's text: what of a table it can say, and in comments the rest and why.
//!
//! Owns layout, short forms, quotes and comments; a serialiser writes no comments. Owns no rule: a file is written of each
//! thing alone and read as `check` reads it; what is refused there is told, and in the end the whole file is read. So the
//! writer cannot disagree with the reader. Called by `import`.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use anyhow::bail;

use super::table::{Table, vip_of};
use crate::config::document::{Arp, ShortOr};
use crate::config::source::Source;
use crate::config::{Config, WantedService};
use crate::model::service_flag::ONE_PACKET;
use crate::model::{
    Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers, Service, ServiceKey, Timeouts,
    Tunnel,
};
use crate::text::{clean_json, shown};

/// Comments are broken at about this many characters.
const WIDTH: usize = 110;

const NOT_WRITTEN: &str = "Not written, because a desired-state file refuses it. Where the service's VIP or mark is declared above, `plan` shows the removal of what is missing there.";

/// What is not written, ipvsadm's commands for it, and why.
type Refused = Vec<(String, Vec<String>, BTreeSet<String>)>;

/// A key with its value, when it is to be written.
type Key<'a> = Option<(&'a str, String)>;

/// The file's text.
///
/// # Errors
/// When the reader of the file does not read back what was written, which would be a mistake in this program.
pub fn write(table: &Table) -> anyhow::Result<String> {
    let (mut kept, mut refused, none) = (table.clone(), Refused::new(), Table::default);
    // Nothing is, mostly.
    if judge(table)?.is_empty() {
        return Ok(document(table, &refused));
    }
    // Whether a thing is refused, which is then told.
    let mut refuses = |what: String, commands: Vec<String>, alone: Table| -> anyhow::Result<bool> {
        let why = judge(&alone)?;
        let is_refused = !why.is_empty();
        refused.extend(is_refused.then_some((what, commands, why)));
        Ok(is_refused)
    };
    let Timeouts { tcp, tcp_fin, udp } = table.timeouts;
    let what = format!("the timeouts (ipvsadm --set {tcp} {tcp_fin} {udp})");
    if refuses(what, Vec::new(), Table { timeouts: table.timeouts, ..none() })? {
        kept.timeouts = Timeouts::default();
    }
    for (name, value) in &table.parameters {
        let parameters = [(name.clone(), value.clone())].into();
        if refuses(format!("net.ipv4.vs.{name} = {value}"), Vec::new(), Table { parameters, ..none() })? {
            kept.parameters.remove(name);
        }
    }
    for (state, daemon) in &table.daemons {
        let what = format!("sync daemon {state} ({})", daemon.ipvsadm());
        if refuses(what, Vec::new(), Table { daemons: table.daemons.clone(), ..none() })? {
            kept.daemons.remove(state);
        }
    }
    for (key, wanted) in &table.services {
        // Whether servers may be of the other family depends on the daemon.
        let daemons = kept.daemons.clone();
        let with = |servers| {
            let service = WantedService { settings: wanted.settings.clone(), servers };
            Table { daemons: daemons.clone(), services: [(*key, service)].into(), ..none() }
        };
        if judge(&with(wanted.servers.clone()))?.is_empty() {
            continue;
        }
        if refuses(key.to_string(), commands(key, wanted), with(Servers::new()))? {
            kept.services.remove(key);
            continue;
        }
        for (server, settings) in &wanted.servers {
            let (what, command) =
                (format!("real server {server} of {key}"), add_server(key, server, settings));
            if refuses(what, vec![command], with([(*server, *settings)].into()))? {
                kept.services.get_mut(key).map(|service| service.servers.remove(server));
            }
        }
    }
    for (vip, place) in &table.places {
        let service = kept.services.iter().find(|(key, _)| vip_of(key) == Some(*vip));
        let services = service.into_iter().map(|(key, wanted)| (*key, wanted.clone())).collect();
        let places = [(*vip, place.clone())].into();
        if refuses(format!("where {vip} stands"), Vec::new(), Table { places, services, ..none() })? {
            kept.places.remove(vip);
        }
    }
    let why = judge(&kept)?;
    if !why.is_empty() {
        bail!("the file written would not be valid; please report this input: {why:?}");
    }
    Ok(document(&kept, &refused))
}

/// Why the reader of the file refuses a table, or would read something else than was written.
fn judge(table: &Table) -> anyhow::Result<BTreeSet<String>> {
    if table.daemons.len() > 1 {
        let why =
            "`sync_daemon` is one daemon that follows the role, and two run here; they stay as they are";
        return Ok([why.to_owned()].into());
    }
    let source = Source { name: "import".to_owned(), text: document(table, &Refused::new()) };
    Ok(match Config::of(source.document()?) {
        Ok(config)
            if config.services == table.services
                && config.timeouts == table.timeouts
                && config.ipvs_parameters == table.parameters
                && config.daemon.iter().eq(table.daemons.values()) =>
        {
            BTreeSet::new()
        }
        Ok(_) => {
            let flags = table.services.values().map(|wanted| format!("{:#x}", wanted.settings.flags));
            let why = "a desired-state file has no words for these settings; flags:";
            [format!("{why} {}", flags.collect::<Vec<_>>().join(", "))].into()
        }
        // Without what that means for the file as a whole.
        Err(mut problems) => {
            problems.retain(|problem| problem.location.len() > 1);
            problems.into_iter().map(|problem| problem.message).collect()
        }
    })
}

/// A service and its real servers in ipvsadm's words.
fn commands(key: &ServiceKey, WantedService { settings, servers }: &WantedService) -> Vec<String> {
    let service = format!("ipvsadm -A {} {}", key.ipvsadm(), settings.ipvsadm(key.family()));
    let servers = servers.iter().map(|(server, settings)| add_server(key, server, settings));
    [service].into_iter().chain(servers).collect()
}

fn add_server(key: &ServiceKey, server: &ServerKey, settings: &RealServer) -> String {
    format!("ipvsadm -a {} -r {server} {}", key.ipvsadm(), settings.ipvsadm())
}

/// The whole file.
fn document(table: &Table, refused: &Refused) -> String {
    let mut text = String::new();
    let origin = format!("Written by `lvs-notify import` from {}.", table.origin);
    let next =
        "`lvs-notify check FILE` validates it; `lvs-notify plan master -c FILE` shows what would change.";
    let more = (!refused.is_empty()).then_some("Some things are not written: see the end of this file.");
    let notes = table.notes.iter().map(String::as_str).chain(more);
    [origin.as_str(), next].into_iter().chain(notes).for_each(|words| comment(&mut text, "# ", words));
    text.push_str("version: 1\n");
    vips(&mut text, table);
    if let Some(found) = &table.arp_off {
        let why = "As they are here: arp_ignore/arp_announce";
        let without = "without this line they become 1/2, which hides the VIPs on lo while not MASTER.";
        comment(&mut text, "# ", &format!("{why} {found}; {without}"));
        text.push_str("arp: off\n");
    }
    if table.standby {
        text.push_str("backup: {services: keep}   # here the services stand beside a backup sync daemon\n");
    }
    ipvs(&mut text, table);
    text.push_str(match table.services.is_empty() {
        true => "allow_empty: true\nvirtual_services: []\n",
        false => "virtual_services:\n",
    });
    for (key, wanted) in &table.services {
        table.remarks.get(key).into_iter().for_each(|remark| comment(&mut text, "  # ", remark));
        service(&mut text, key, wanted);
    }
    if !refused.is_empty() {
        text.push('\n');
        comment(&mut text, "# ", NOT_WRITTEN);
    }
    for (what, commands, reasons) in refused {
        let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
        comment(&mut text, "#  * ", &format!("{what}: {}", reasons.join("; ")));
        commands.iter().for_each(|command| comment(&mut text, "#      ", command));
    }
    text
}

fn vips(text: &mut String, table: &Table) {
    let vips = table.vips();
    if !vips.iter().any(|vip| table.places.get(vip).is_some_and(|place| place.interface.is_some())) {
        text.push_str(
            "# interface: eth0   # where clients reach the VIPs; without it nothing is announced\n",
        );
    }
    text.push_str(if vips.is_empty() { "vips: []\n" } else { "vips:\n" });
    for vip in vips {
        let place = table.places.get(&vip).cloned().unwrap_or_default();
        let label = place.label.filter(|label| label != "lo:0");
        let keys = [
            Some(("address", scalar(&vip.to_string()))),
            label.map(|label| ("label", scalar(&label))),
            place.interface.map(|name| ("interface", scalar(&name))),
        ];
        let remark = place.remark.map_or(String::new(), |remark| format!("   # {}", shown(&remark)));
        let _ = writeln!(text, "  - {}{remark}", mapping(keys));
    }
}

fn ipvs(text: &mut String, table: &Table) {
    let Timeouts { tcp, tcp_fin, udp } = table.timeouts;
    let timeouts = [("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)]
        .map(|(name, seconds)| (seconds != 0).then(|| (name, format!("{seconds}s"))));
    let parameters = table.parameters.iter().map(|(name, value)| Some((name.as_str(), scalar(value))));
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
        ("sysctl", mapping(parameters)),
        ("sync_daemon", daemon.unwrap_or_default()),
    ];
    for (index, (name, value)) in lines.iter().filter(|(_, value)| value.len() > 2).enumerate() {
        let head = if index == 0 { "ipvs:\n" } else { "" };
        let _ = writeln!(text, "{head}  {name}: {value}");
    }
}

fn service(text: &mut String, key: &ServiceKey, WantedService { settings, servers }: &WantedService) {
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
    // Those that are reached as the first one need not say it.
    let forward = servers.values().next().map_or(Forward::NAT, |server| server.forward);
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
    let mask = if family == Family::Ipv4 { "netmask" } else { "prefix" };
    let keys = [
        Some(("timeout", format!("{}s", settings.timeout))),
        (settings.netmask != Service::full_netmask(family)).then(|| (mask, settings.netmask_text(family))),
        (!settings.engine.is_empty()).then(|| ("engine", scalar(&settings.engine))),
    ];
    let given = settings.is_persistent() || !settings.engine.is_empty();
    given.then(|| ("persistence", mapping(keys)))
}

fn real_server(key: &ServerKey, server: &RealServer, usual: Forward) -> String {
    // Without a port the client's is kept.
    let name = if key.port == 0 { key.address.to_string() } else { key.to_string() };
    let tunnel = mapping([
        Some(("type", server.tunnel.kind_name().to_owned())),
        unless("port", &server.tunnel.port, &0),
        unless("checksum", &server.tunnel.checksum_name(), &"nocsum"),
    ]);
    mapping([
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

/// Keys and values on one line; in the short form where an address or a timeout is all there is.
fn mapping<'a>(keys: impl IntoIterator<Item = Key<'a>>) -> String {
    let keys: Vec<(&str, String)> = keys.into_iter().flatten().collect();
    if let [("address" | "timeout", value)] = keys.as_slice() {
        return value.clone();
    }
    let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A scalar, in quotes where the reader of the file would take it for something else.
fn scalar(text: &str) -> String {
    // `arp` may be any word, as far as the file's shape goes.
    let file = format!("{{version: 1, vips: [], virtual_services: [], arp: {text}}}");
    let read = Source { name: String::new(), text: file }.document().ok().and_then(|document| document.arp);
    match read {
        Some(ShortOr(Arp { word: Some(read), .. })) if read == text && text.is_ascii() => read,
        _ => clean_json(&serde_json::Value::from(text).to_string()),
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
