//! Writes the JSON Schemas of the desired-state file and of `status --json`.
//!
//! Their keys, types and most descriptions are those of the program's own types. Owns what these do not say: words,
//! patterns, ranges, defaults and the rules between keys, as far as a schema can say them (`config::rules` decides;
//! `tests/suite/anywhere/config.rs` compares on every case), and what is undocumented there. Called by `generate`.

use lvs_notify::check::Checked;
use lvs_notify::config::document::Document;
use lvs_notify::config::rules::COUNT;
use lvs_notify::model::{
    DEFAULT_PERSISTENCE, Forward, MAX_SECONDS, Parameter, Protocol, SCHEDULER_FLAGS, Tunnel, service_flag,
};
use lvs_notify::report::plan::PlanJson;
use lvs_notify::status::Status;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Value, json};

use super::ORIGIN;

/// Both schemas by their names below packaging/.
pub fn files() -> Vec<(&'static str, String)> {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tidy));
    let file = settings.clone().for_deserialize().into_generator().into_root_schema_for::<Document>();
    let settings = settings.for_serialize().with_transform(RecursiveTransform(open));
    // One, or a list of several.
    let mut status = settings.clone().into_generator().into_root_schema_for::<Vec<Status>>().to_value();
    let root = status.as_object_mut().unwrap();
    let (list, one) = (root.remove("type").unwrap(), root.remove("items").unwrap());
    root.insert("anyOf".to_owned(), json!([one, {"type": list, "items": one}]));
    // Its inside is left out.
    status
        .pointer_mut("/$defs/Status/required")
        .and_then(Value::as_array_mut)
        .unwrap()
        .push("observed".into());
    let plan = settings.clone().into_generator().into_root_schema_for::<PlanJson>().to_value();
    let check = settings.into_generator().into_root_schema_for::<Checked>().to_value();
    vec![
        ("schema/lvs-notify.schema.json", text(file.to_value(), file_parts(), file_rules())),
        ("schema/status.schema.json", text(status, status_parts(), Vec::new())),
        ("schema/plan.schema.json", text(plan, plan_parts(), Vec::new())),
        ("schema/check.schema.json", text(check, check_parts(), Vec::new())),
    ]
}

/// What is only Rust's: sizes of numbers, serde's defaults, lines and full stops of comments.
fn tidy(schema: &mut Schema) {
    schema.remove("format");
    schema.remove("default");
    if let Some(Value::String(words)) = schema.get_mut("description") {
        *words = words.replace('\n', " ").trim_end_matches('.').to_owned();
    }
}

/// Readers must accept unknown fields.
fn open(schema: &mut Schema) {
    if schema.get("additionalProperties") == Some(&json!(false)) {
        schema.remove("additionalProperties");
    }
}

/// A part of a schema: `TYPE.FIELD` or `TYPE`, several with blanks between them; the whole has no name.
type Part = (&'static str, Value);

fn text(mut schema: Value, parts: Vec<Part>, rules: Vec<Part>) -> String {
    for (places, more) in parts {
        places.split(' ').for_each(|place| merge(part(&mut schema, place), more.clone()));
    }
    for (place, rule) in rules {
        let rules = part(&mut schema, place).as_object_mut().unwrap().entry("allOf").or_insert(json!([]));
        rules.as_array_mut().unwrap().push(rule);
    }
    let schema = Schema::try_from(schema).unwrap();
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

fn part<'a>(schema: &'a mut Value, place: &str) -> &'a mut Value {
    let (name, field) = place.split_once('.').unwrap_or((place, ""));
    let name = if name.is_empty() { String::new() } else { format!("/$defs/{name}") };
    let field = if field.is_empty() { String::new() } else { format!("/properties/{field}") };
    schema.pointer_mut(&(name + &field)).unwrap_or_else(|| panic!("there is no {place}"))
}

fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            new.into_iter().for_each(|(key, value)| merge(old.entry(key).or_insert(Value::Null), value));
        }
        (old, new) => *old = new,
    }
}

/// PLACES: what is added there.
macro_rules! parts {
    ($($places:literal: $more:tt,)*) => { vec![$(($places, json!($more))),*] };
}

fn file_parts() -> Vec<Part> {
    const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    // Unicast, and not of a link; how colons may stand is left to the parser.
    const IPV6: &str = "(?!::(?![0-9A-Fa-f])|[Ff]{2}[0-9A-Fa-f]{2}:|[Ff][Ee][89ABab][0-9A-Fa-f]:)(?:[0-9A-Fa-f.]*:){2}[0-9A-Fa-f.:]*";
    let ipv4 = format!(r"(?:{OCTET}\.){{3}}{OCTET}");
    let unicast = format!(r"(?!(?:22[4-9]|23[0-9])\.|0\.0\.0\.0(?![0-9])|255\.255\.255\.255){ipv4}");
    let port = format!(":0*(?:0|{})", up_to(65535));
    let vip = format!(r"^(?:(?!127\.){unicast}(?:/32)?|(?!::1(?:/|$)){IPV6}(?:/128)?)$");
    let server = format!(r"^(?:{unicast}(?:{port})?|{IPV6}|\[{IPV6}\](?:{port})?)$");
    let minute = format!("^0*(?:0(?:ms|[smhd])?|{}s?|{}ms|1m)$", up_to(60), up_to(60_000));
    let [seconds, minutes, hours, days] = [1, 60, 3600, 86_400].map(|unit| up_to(MAX_SECONDS / unit));
    let seconds = format!("^0*(?:{seconds}s?|{seconds}000ms|{minutes}m|{hours}h|{days}d)$");
    parts! {
        "": {
            "$id": "urn:lvs-notify:desired-state:1",
            "title": "lvs-notify desired-state file, version 1",
            "description": "`null` is a key without a value, which counts as left out",
            "$comment": (format!("Made {ORIGIN}")),
        },
        ".version": {"const": 1},
        ".interface Vip.interface SyncDaemon.interface": {
            "type": "string",
            "pattern": r"^(?!(?:lo|all|default|\.|\.\.)$)[^/:\s]{1,15}$",
        },
        ".vips": {"description": "Virtual addresses", "uniqueItems": true, "items": {"pattern": vip}},
        ".arp": {
            "description": "ARP parameters, net.ipv4.conf.{all,lo,INTERFACE}.*; `off` leaves the kernel's values alone",
            "anyOf": [{"const": "off"}, {"$ref": "#/$defs/Arp"}, {"type": "null"}],
        },
        ".allow_empty": {"default": false},
        ".virtual_services": {"description": "Virtual services", "uniqueItems": true},
        "Vip.address": {"pattern": vip},
        "Vip.label": {"description": "Label on lo; IPv4 only", "pattern": r"^lo(?::\S{0,12})?$", "default": "lo:0"},
        "Arp.arp_ignore": {"description": "1 hides the VIP on lo", "enum": [0, 1, 2, null], "default": 1},
        "Arp.arp_announce": {
            "description": "2 never uses the VIP as ARP source on another link",
            "enum": [0, 1, 2, null],
            "default": 2,
        },
        "Arp.persist": {"default": true},
        "Arp.restore Ipvs.exclusive VirtualService.one_packet": {"default": false},
        "Announce.count": {"description": "How often", "maximum": 100, "default": 5},
        "Announce.interval": {"description": "Time between two, at most 60s", "default": "200ms"},
        "Backup.drain": {"default": 0},
        "Announce.interval Backup.drain": {"pattern": minute, "minimum": 0, "maximum": 60},
        "Backup.vips Backup.services": {"enum": (words(["keep", "remove"]))},
        "Backup.vips": {"description": "Keep the VIP on lo", "default": "remove"},
        "Backup.services": {"description": "Keep the services: a warm standby", "default": "remove"},
        "Ipvs.timeouts": {"description": "Idle timeouts, as ipvsadm --set; what is not given is kept"},
        "Ipvs.sysctl": {
            "description": "net.ipv4.vs.*; what is not given is kept",
            "propertyNames": {"enum": Parameter::of_ipvs().map(|(name, _)| name).collect::<Vec<_>>()},
            "additionalProperties": {"type": ["integer", "string"], "pattern": r"^[\s0-9,-]*[0-9,-][\s0-9,-]*$"},
        },
        "Ipvs.sync_daemon": {"description": "Connection synchronisation: master while MASTER, else backup"},
        "SyncDaemon.interface": {"description": "Multicast interface"},
        "SyncDaemon.id": {"description": "Sync id", "maximum": 255, "default": 0},
        "SyncDaemon.max_len": {"description": "Largest message in bytes", "minimum": 1024, "maximum": 65535},
        "SyncDaemon.group": {
            "description": "Multicast group",
            "pattern": (format!(r"^(?:(?=22[4-9]\.|23[0-9]\.){ipv4}|[Ff]{{2}}[0-9A-Fa-f]{{2}}:[0-9A-Fa-f.:]*)$")),
        },
        "SyncDaemon.port": {"description": "UDP port", "minimum": 1, "maximum": 65535},
        "SyncDaemon.ttl": {"description": "Multicast TTL", "minimum": 1, "maximum": 255},
        "VirtualService.address": {
            "description": "A declared VIP and port; port 0 stands for every port",
            "pattern": (format!(r"^(?:{ipv4}|\[{IPV6}\]){port}$")),
        },
        "VirtualService.fwmark": {"description": "Firewall mark", "minimum": 1, "maximum": (u32::MAX)},
        "VirtualService.family": {"enum": (words(["ipv4", "ipv6"])), "default": "ipv4"},
        "VirtualService.protocol": {
            "description": "Protocol; not of a fwmark service",
            "enum": (words(Protocol::WORDS.first_chunk::<3>().unwrap().map(|(word, _)| word))),
            "default": "tcp",
        },
        "VirtualService.scheduler": {
            "description": "Any that the kernel has",
            "pattern": "^(?!none$)[A-Za-z0-9_-]{1,15}$",
            "default": "wlc",
        },
        "VirtualService.scheduler_flags": {
            "description": "Flags; the fallbacks are flag-1, the ports flag-2",
            "uniqueItems": true,
            "items": (flags(|_| true)),
            "default": [],
        },
        "VirtualService.persistence": {
            "description": "A client stays with its real server",
            "anyOf": [{"type": ["string", "integer", "null"]}, {"$ref": "#/$defs/Persistence"}],
        },
        "VirtualService.one_packet": {"description": "Every packet is scheduled anew; UDP and fwmark"},
        "VirtualService.forward RealServer.forward": {"enum": (words(Forward::DECLARED.map(|(word, _)| word)))},
        "VirtualService.forward": {"default": "nat"},
        "VirtualService.real_servers": {"description": "Real servers", "uniqueItems": true, "items": {"pattern": server}},
        "Persistence.engine": {"enum": (words(["sip"]))},
        "Persistence.timeout": {"default": (format!("{DEFAULT_PERSISTENCE}s"))},
        "Persistence.netmask": {
            "description": "IPv4 granularity",
            "pattern": r"^(?=[^.]+(?:\.[^.]+){3}$)(?:255\.)*(?:128|192|224|240|248|252|254|255)(?:\.0)*$",
            "default": "255.255.255.255",
        },
        "Persistence.prefix": {"description": "IPv6 granularity", "minimum": 1, "maximum": 128, "default": 128},
        "Timeouts.tcp Timeouts.tcp_fin Timeouts.udp Persistence.timeout VirtualService.persistence": {
            "pattern": seconds,
            "minimum": 1,
            "maximum": MAX_SECONDS,
        },
        "Announce.interval Backup.drain Timeouts.tcp Timeouts.tcp_fin Timeouts.udp Persistence.timeout": {
            "type": ["string", "integer", "null"],
        },
        "RealServer.address": {
            "description": "Unicast address and port; IPv6 as [ADDRESS]:PORT. Without a port the client's is kept (fwmark, port 0)",
            "pattern": server,
        },
        "RealServer.weight": {"description": "Share of new connections; 0 drains", "default": 1},
        "RealServer.forward": {"description": "Masquerading, direct routing or tunnelling"},
        "RealServer.upper_threshold": {"description": "No new connections at this many; 0 is no limit", "default": 0},
        "RealServer.lower_threshold": {
            "description": "New connections again below this many; not above the upper one",
            "default": 0,
        },
        "RealServer.weight RealServer.upper_threshold RealServer.lower_threshold": {"maximum": (COUNT.end())},
        "RealServer.tunnel": {"description": "How packets are wrapped, with forward: tun"},
        "Tunnel.type": {"description": "Encapsulation", "enum": (words(Tunnel::KINDS)), "default": "ipip"},
        "Tunnel.port": {"description": "UDP port of gue", "minimum": 1, "maximum": 65535},
        "Tunnel.checksum": {
            "description": "Checksum",
            "enum": (words(Tunnel::CHECKSUMS)),
            "default": "nocsum",
        },
    }
}

/// One of the words, or a key without a value.
fn words<const N: usize>(list: [&str; N]) -> Value {
    list.into_iter().map(Value::from).chain([Value::Null]).collect()
}

/// A pattern of the numbers from 1 to `max`.
fn up_to(max: u32) -> String {
    let digits = max.to_string();
    let mut choices = vec![digits.clone()];
    if digits.len() > 1 {
        choices.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    for (at, digit) in digits.bytes().enumerate() {
        // The same up to here, and less from here on.
        let (same, least, more) = (&digits[..at], if at == 0 { b'1' } else { b'0' }, digits.len() - at - 1);
        if digit > least {
            choices.push(format!("{same}[{}-{}][0-9]{{{more}}}", char::from(least), char::from(digit - 1)));
        }
    }
    format!("(?:{})", choices.join("|"))
}

/// PLACE: what is given => what must be then, and why.
macro_rules! rules {
    ($($place:literal: $given:expr => $then:expr, $why:literal;)*) => {
        vec![$(($place, json!({"$comment": $why, "if": $given, "then": $then}))),*]
    };
}

fn file_rules() -> Vec<Part> {
    let gue = || given("type", is("gue"));
    let every_port = || given("address", json!({"type": "string", "pattern": ":0+$"}));
    let port = || json!({"pattern": r"(?:^[^:]*|\]):0*[1-9][0-9]*$"});
    let bracket = given("address", json!({"type": "string", "pattern": r"^\["}));
    let ipv6 = || json!({"anyOf": [bracket, given("family", is("ipv6"))]});
    let mut rules = rules! {
        "": given("backup.drain", some()) =>
            all([wherever("backup.vips", not(is("keep"))), wherever("backup.services", not(is("keep")))]),
            "what is kept is not drained";
        "": not(given("allow_empty", is(true))) => wherever("virtual_services", json!({"minItems": 1})),
            "an empty list of services is never an accident";
        "": wherever("vips", json!({"maxItems": 0})) => wherever("virtual_services.*", given("fwmark", some())),
            "only fwmark services can do without a VIP";
        "": given("backup.vips", is("keep")) => not(given("arp.arp_ignore", is(0))),
            "a VIP kept on lo must be hidden";
        "": all([given("backup.vips", is("keep")), given("backup.services", is("keep"))]) =>
            all([given("ipvs.sysctl.backup_only", not(json!({"enum": [0, "0"]}))), given("ipvs.sync_daemon", some())]),
            "two directors with VIP and services hand packets to each other for ever";
        "Vip": given("address", json!({"pattern": ":"})) => wherever("label", none()),
            "labels are of IPv4";
        "VirtualService": not(given("address", some())) => given("fwmark", some()),
            "a service has an address or a mark";
        "VirtualService": given("address", some()) => all([wherever("fwmark", none()), wherever("family", none())]),
            "not both, and the address tells the family";
        "VirtualService": given("fwmark", some()) => wherever("protocol", none()),
            "marked packets are of every protocol";
        "VirtualService": every_port() => given("persistence", some()),
            "every port needs persistence";
        "VirtualService": all([given("address", some()), not(given("protocol", is("udp")))]) =>
            all([not(given("one_packet", is(true))), not(given("persistence.engine", some()))]),
            "datagrams only";
        "VirtualService": ipv6() => not(given("persistence.netmask", some())),
            "netmask is of IPv4";
        "VirtualService": not(ipv6()) => not(given("persistence.prefix", some())),
            "prefix is of IPv6";
        "VirtualService": not(given("forward", is("tun"))) =>
            wherever("real_servers.*", json!({"if": given("tunnel", some()), "then": given("forward", is("tun"))})),
            "tunnel belongs to forward: tun";
        "RealServer": given("tunnel", some()) => wherever("forward", json!({"enum": ["tun", null]})),
            "tunnel belongs to forward: tun";
        "VirtualService": all([given("address", some()), not(every_port())]) =>
            wherever("real_servers.*", all([port(), wherever("address", port())])),
            "servers of a service with a port have one";
        "Tunnel": gue() => given("port", some()), "gue needs a port";
        "Tunnel": not(gue()) => all([wherever("port", none()), wherever("checksum", not(is("remcsum")))]),
            "port and remcsum are of gue";
        "Tunnel": not(given("type", json!({"enum": ["gue", "gre"]}))) => wherever("checksum", not(is("csum"))),
            "csum is of gue and gre";
    };
    for owner in ["sh", "mh"] {
        let own = json!({"type": "array", "contains": flags(|(_, of, _)| *of == Some(owner))});
        rules.extend(rules! {
            "VirtualService": given("scheduler_flags", own) => given("scheduler", is(owner)),
                "flags of another scheduler";
        });
    }
    for bit in [service_flag::SCHED1, service_flag::SCHED2] {
        let once = json!({"contains": flags(|(.., of)| *of == bit), "minContains": 0, "maxContains": 1});
        rules.push(("VirtualService", wherever("scheduler_flags", once)));
    }
    rules
}

fn flags(of: impl Fn(&(&str, Option<&str>, u32)) -> bool) -> Value {
    json!({"enum": SCHEDULER_FLAGS.iter().filter(|flag| of(flag)).map(|(word, ..)| word).collect::<Vec<_>>()})
}

fn is(value: impl Into<Value>) -> Value {
    json!({"const": value.into()})
}

fn none() -> Value {
    json!({"type": "null"})
}

fn some() -> Value {
    not(none())
}

fn not(rule: Value) -> Value {
    json!({"not": rule})
}

fn all<const N: usize>(rules: [Value; N]) -> Value {
    json!({"allOf": rules.as_slice()})
}

/// The path leads somewhere, and what is there is so.
fn given(path: &str, rule: Value) -> Value {
    let step = |rule, key: &str| json!({"type": "object", "required": [key], "properties": {key: rule}});
    path.rsplit('.').fold(rule, step)
}

/// What is there is so, if the path leads somewhere; `*` is each of a list.
fn wherever(path: &str, rule: Value) -> Value {
    path.rsplit('.').fold(rule, |rule, key| match key {
        "*" => json!({"items": rule}),
        key => json!({"properties": {key: rule}}),
    })
}

fn status_parts() -> Vec<Part> {
    parts! {
        "": {
            "$id": "urn:lvs-notify:status:2",
            "title": "lvs-notify status --json, version 2",
            "description": "The state of a VRRP instance, or a list of several. Within version 2 fields are added, never renamed or removed: readers must accept unknown ones",
            "$comment": (format!("Made {ORIGIN}")),
        },
        "Status": {
            "properties": {
                "observed": {
                    "description": "The kernel as it was found, for `plan --current` of the same version; its inside is not part of this form",
                    "type": "object",
                },
            },
        },
        "Status.version": {"description": "Version of this form", "const": 2},
        "Status.vips": {"description": "Virtual addresses"},
        "Status.sync_daemons": {"description": "Running sync daemons, as STATE on INTERFACE id ID"},
        "Status.ipvs": {"description": "IPVS is loaded"},
        "Difference.sign": {"description": "Added, changed or removed", "enum": ["+", "~", "-"]},
        "ParameterValue.wanted": {"description": "What the file sets"},
        "LastRun.command": {"description": "The command word"},
        "LastRun.changes": {"description": "Changes made"},
        "LastRun.failed": {"description": "Changes that failed"},
        "ServiceKey": {"description": "Identity"},
        "Protocol": {"description": "IP protocol: tcp, udp or sctp; another one as proto-NUMBER"},
        "Service.flags": {"description": "persistent, one_packet, and flag-1, flag-2 and flag-3 of the scheduler"},
        "Forward": {"description": "Forwarding method: nat, dr, tun, local or bypass"},
        "RealServer.tunnel": {"description": "How packets are wrapped, with tun"},
        "Tunnel.port": {"description": "UDP port of gue"},
        "Counters.active": {"description": "Established"},
        "Counters.persistent": {"description": "Persistence templates"},
        "Rates.connections": {"description": "New connections"},
        "Rates.bytes_in": {"description": "Bytes from clients"},
        "Server.drained": {"description": "By hand, with `lvs-notify drain`"},
    }
}

fn plan_parts() -> Vec<Part> {
    parts! {
        "": {
            "$id": "urn:lvs-notify:plan:2",
            "title": "lvs-notify plan --json, version 2",
            "description": "What would change. Within version 2 fields are added, never renamed or removed: readers must accept unknown ones",
            "$comment": (format!("Made {ORIGIN}")),
        },
        ".version": {"description": "Version of this form", "const": 2},
        "ChangeJson.sign": {"description": "Added, changed or removed", "enum": ["+", "~", "-"]},
        "ChangeJson.change": {"description": "The object as it is found (old) and as it is wanted (new)"},
    }
}

fn check_parts() -> Vec<Part> {
    parts! {
        "": {
            "$id": "urn:lvs-notify:check:1",
            "title": "lvs-notify check --json, version 1",
            "description": "What was checked, and what came of it. Within version 1 fields are added, never renamed or removed: readers must accept unknown ones",
            "$comment": (format!("Made {ORIGIN}")),
        },
        ".version": {"description": "Version of this form", "const": 1},
        ".files": {"description": "Desired-state files that are valid"},
        ".host": {"description": "This host was looked at"},
        "Finding.rule": {"description": "E: it does not work; W: it works until something else happens; I: a hint", "pattern": "^[EWI][0-9]{2}$"},
    }
}
