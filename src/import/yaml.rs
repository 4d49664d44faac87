//! The desired-state file's text, in the form of the manual.
//!
//! Owns layout, short forms, quotes and comments. Decides nothing about what is written; `sift` has checked
//! it. Written by hand, since a serialiser writes no comments. Called by `import` and `sift`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::shown;
use super::sift::Sifted;
use crate::config::WantedService;
use crate::model::{
    Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon, Timeouts,
    Tunnel, service_flag,
};

/// Comments are broken at about this many characters.
const WIDTH: usize = 110;

/// The whole file.
pub fn document(sifted: &Sifted) -> String {
    let mut text = String::new();
    header(&mut text, sifted);
    text.push_str("version: 1\n");
    let interfaces: BTreeSet<Option<&str>> =
        sifted.vips.values().map(|place| place.interface.as_deref()).collect();
    let common = match interfaces.iter().collect::<Vec<_>>().as_slice() {
        [Some(name)] => Some(*name),
        _ => None,
    };
    match common {
        Some(name) => {
            let _ = writeln!(text, "interface: {}", scalar(name));
        }
        None if interfaces.iter().all(Option::is_none) => {
            text.push_str(
                "# interface: eth0   # where clients reach the VIPs; without it nothing is announced\n",
            );
        }
        None => {}
    }
    vips(&mut text, sifted, common);
    if let Some(found) = &sifted.arp_off {
        let _ = writeln!(
            text,
            "arp: off   # as they are here: arp_ignore/arp_announce {}; without this",
            shown(found)
        );
        text.push_str("           # line they become 1/2, which hides the VIPs on lo while not MASTER\n");
    }
    if sifted.standby {
        text.push_str("backup: {services: keep}   # here the services stand beside a backup sync daemon\n");
    }
    ipvs(&mut text, sifted);
    if sifted.services.is_empty() {
        text.push_str("allow_empty: true\nvirtual_services: []\n");
    } else {
        text.push_str("virtual_services:\n");
    }
    for (key, wanted) in &sifted.services {
        for remark in sifted.remarks.get(key).into_iter().flatten() {
            comment(&mut text, "  # ", remark);
        }
        service(&mut text, key, wanted);
    }
    refused(&mut text, sifted);
    text
}

fn header(text: &mut String, sifted: &Sifted) {
    if sifted.origin.is_empty() {
        return;
    }
    comment(text, "# ", &format!("Written by `lvs-notify import` from {}.", sifted.origin));
    comment(
        text,
        "# ",
        "`lvs-notify check FILE` validates it; `lvs-notify plan master -c FILE` shows what would change.",
    );
    for note in &sifted.notes {
        comment(text, "# ", note);
    }
    if !sifted.refused.is_empty() {
        comment(text, "# ", "Some things are not written: see the end of this file.");
    }
}

fn vips(text: &mut String, sifted: &Sifted, common: Option<&str>) {
    if sifted.vips.is_empty() {
        text.push_str("vips: []\n");
        return;
    }
    text.push_str("vips:\n");
    for (address, place) in &sifted.vips {
        let mut keys = String::new();
        if let Some(label) = place.label.as_deref().filter(|label| *label != "lo:0") {
            let _ = write!(keys, ", label: {}", scalar(label));
        }
        if let Some(name) = place.interface.as_deref().filter(|name| Some(*name) != common) {
            let _ = write!(keys, ", interface: {}", scalar(name));
        }
        let address = scalar(&address.to_string());
        let _ = match keys.is_empty() {
            true => write!(text, "  - {address}"),
            false => write!(text, "  - {{address: {address}{keys}}}"),
        };
        if let Some(remark) = &place.remark {
            let _ = write!(text, "   # {}", shown(remark));
        }
        text.push('\n');
    }
}

fn ipvs(text: &mut String, sifted: &Sifted) {
    let Timeouts { tcp, tcp_fin, udp } = sifted.timeouts;
    let timeouts: Vec<String> = [("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)]
        .into_iter()
        .filter(|(_, seconds)| *seconds != 0)
        .map(|(name, seconds)| format!("{name}: {}", duration(seconds)))
        .collect();
    let parameters: Vec<String> = sifted
        .parameters
        .iter()
        .map(|(name, value)| format!("{}: {}", scalar(name), number(value)))
        .collect();
    let mut lines = Vec::new();
    if !timeouts.is_empty() {
        lines.push(format!("timeouts: {{{}}}", timeouts.join(", ")));
    }
    if !parameters.is_empty() {
        lines.push(format!("sysctl: {{{}}}", parameters.join(", ")));
    }
    if let Some(daemon) = &sifted.daemon {
        lines.push(format!("sync_daemon: {{{}}}", sync_daemon(daemon)));
    }
    if !lines.is_empty() {
        text.push_str("ipvs:\n");
    }
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

fn sync_daemon(daemon: &SyncDaemon) -> String {
    let mut keys = format!("interface: {}, id: {}", scalar(&daemon.interface), daemon.id);
    if let Some(value) = daemon.max_len {
        let _ = write!(keys, ", max_len: {value}");
    }
    if let Some(value) = daemon.group {
        let _ = write!(keys, ", group: {}", scalar(&value.to_string()));
    }
    if let Some(value) = daemon.port {
        let _ = write!(keys, ", port: {value}");
    }
    if let Some(value) = daemon.ttl {
        let _ = write!(keys, ", ttl: {value}");
    }
    keys
}

fn service(text: &mut String, key: &ServiceKey, wanted: &WantedService) {
    let mut lines = Vec::new();
    match key {
        ServiceKey::Endpoint { address, port, protocol } => {
            lines.push(format!(
                "address: {}",
                scalar(&Endpoint { address: *address, port: *port }.to_string())
            ));
            if *protocol != Protocol::TCP {
                lines.push(format!("protocol: {protocol}"));
            }
        }
        ServiceKey::Fwmark { mark, family } => {
            lines.push(format!("fwmark: {mark}"));
            if *family == Family::Ipv6 {
                lines.push("family: ipv6".to_owned());
            }
        }
    }
    let settings = &wanted.settings;
    if settings.scheduler != "wlc" {
        lines.push(format!("scheduler: {}", scalar(&settings.scheduler)));
    }
    let flags = settings.scheduler_flags();
    if !flags.is_empty() {
        lines.push(format!("scheduler_flags: [{}]", flags.join(", ")));
    }
    lines.extend(persistence(settings, key.family()));
    if settings.flags & service_flag::ONE_PACKET != 0 {
        lines.push("one_packet: true".to_owned());
    }
    let forward = usual_forward(wanted);
    if forward != Forward::NAT {
        lines.push(format!("forward: {forward}"));
    }
    lines.push(if wanted.servers.is_empty() { "real_servers: []" } else { "real_servers:" }.to_owned());
    for (index, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "  {} {line}", if index == 0 { '-' } else { ' ' });
    }
    for (server, settings) in &wanted.servers {
        let _ = writeln!(text, "      - {}", real_server(server, settings, forward));
    }
}

fn persistence(settings: &Service, family: Family) -> Option<String> {
    if !settings.is_persistent() && settings.engine.is_empty() {
        return None;
    }
    let timeout = duration(settings.timeout);
    let mut keys = String::new();
    if settings.netmask != Service::full_netmask(family) {
        let name = if family == Family::Ipv4 { "netmask" } else { "prefix" };
        let _ = write!(keys, ", {name}: {}", settings.netmask_text(family));
    }
    if !settings.engine.is_empty() {
        let _ = write!(keys, ", engine: {}", scalar(&settings.engine));
    }
    Some(match keys.is_empty() {
        true => format!("persistence: {timeout}"),
        false => format!("persistence: {{timeout: {timeout}{keys}}}"),
    })
}

/// The method that most of the servers have, and of equals the first: theirs need not say it.
fn usual_forward(wanted: &WantedService) -> Forward {
    let count = |forward| wanted.servers.values().filter(|server| server.forward == forward).count();
    let mut usual = (0, Forward::NAT);
    for forward in [Forward::NAT, Forward::DR, Forward::TUN] {
        usual = if count(forward) > usual.0 { (count(forward), forward) } else { usual };
    }
    usual.1
}

fn real_server(key: &ServerKey, server: &RealServer, usual: Forward) -> String {
    // Without a port the client's is kept.
    let name = if key.port == 0 { key.address.to_string() } else { key.to_string() };
    let name = scalar(&name);
    let mut keys = String::new();
    if server.weight != 1 {
        let _ = write!(keys, ", weight: {}", server.weight);
    }
    if server.forward != usual {
        let _ = write!(keys, ", forward: {}", server.forward);
    }
    if server.upper_threshold != 0 {
        let _ = write!(keys, ", upper_threshold: {}", server.upper_threshold);
    }
    if server.lower_threshold != 0 {
        let _ = write!(keys, ", lower_threshold: {}", server.lower_threshold);
    }
    if server.tunnel != Tunnel::default() {
        let _ = write!(keys, ", tunnel: {{{}}}", tunnel(&server.tunnel));
    }
    if keys.is_empty() { name } else { format!("{{address: {name}{keys}}}") }
}

fn tunnel(tunnel: &Tunnel) -> String {
    let mut keys = format!("type: {}", tunnel.kind_name());
    if tunnel.port != 0 {
        let _ = write!(keys, ", port: {}", tunnel.port);
    }
    if tunnel.checksum != 0 {
        let _ = write!(keys, ", checksum: {}", tunnel.checksum_name());
    }
    keys
}

fn refused(text: &mut String, sifted: &Sifted) {
    if sifted.refused.is_empty() {
        return;
    }
    text.push('\n');
    comment(
        text,
        "# ",
        "Not written, because a desired-state file refuses it. Where the service's VIP or mark is declared above, `plan` shows the removal of what is missing there.",
    );
    for item in &sifted.refused {
        for (index, line) in item.lines().enumerate() {
            comment(text, if index == 0 { "#  * " } else { "#      " }, line);
        }
    }
}

/// A comment of one or more lines.
fn comment(text: &mut String, margin: &str, words: &str) {
    let words = shown(words);
    let indent: usize = words.chars().take_while(|letter| *letter == ' ').count();
    let margin = format!("{margin}{}", " ".repeat(indent));
    let mut line = margin.clone();
    for word in words.split_whitespace() {
        if line.len() > margin.len() && line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line.clone_from(&margin);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Seconds in the largest unit that says them exactly.
fn duration(seconds: u32) -> String {
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if seconds != 0 && seconds % size == 0 {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

/// A scalar, in quotes where YAML would take it for something else.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        let _ = match letter {
            '"' | '\\' => write!(quoted, "\\{letter}"),
            ' '..='~' => write!(quoted, "{letter}"),
            other => write!(quoted, "\\U{:08x}", u32::from(other)),
        };
    }
    quoted.push('"');
    quoted
}

/// A value that may be a number, whose text counts either way.
fn number(text: &str) -> String {
    let digits = text.len() < 10 && text.parse::<u32>().is_ok_and(|value| value.to_string() == text);
    if digits { text.to_owned() } else { scalar(text) }
}

/// Whether YAML, in any of its versions and inside of `{}`, reads this as the same text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"];
    let four = text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<std::net::SocketAddrV4>().is_ok();
    let six = text.parse::<IpAddr>().is_ok()
        && text.chars().any(|letter| letter.is_ascii_alphabetic())
        && text.chars().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && !text.ends_with(':');
    let name = text.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    four || six || name
}
