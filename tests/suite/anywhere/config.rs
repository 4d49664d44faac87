//! The desired-state file: what is accepted, what is refused, and where errors point.
//!
//! Owns every rule of the file as a case, whose error is in tests/golden/errors; leaves what the kernel makes of a valid
//! file to `services` and `netns`. Needs no privileges.

use std::time::{Duration, Instant};

use lvs_notify::config::Config;
use lvs_notify::config::source::Source;
use lvs_notify::desired::Desired;
use lvs_notify::model::{Role, service_flag};
use lvs_notify::text::parse_duration;

use crate::support::golden;

/// A valid file that has every key; cases replace pieces of it.
const WHOLE: &str = include_str!("../../golden/errors/whole.yaml");

fn source(text: &str) -> Source {
    Source { name: "VI_1.yaml".into(), text: text.into() }
}

fn read(text: &str) -> Result<Config, String> {
    Config::parse(&source(text)).map_err(|error| error.to_string())
}

#[test]
fn the_whole_file_is_read() {
    let declared = read(WHOLE).unwrap();
    let master = Desired::for_role(&declared, Role::Master);
    assert_eq!(master.services.len(), 4);
    let (_, first) = master.services.iter().find(|(key, _)| key.ipvsadm() == "-t 192.0.2.100:80").unwrap();
    assert_eq!(first.settings.timeout, 300);
    assert_eq!(first.settings.flags, service_flag::PERSISTENT | service_flag::SCHED1 | service_flag::SCHED2);
    assert_eq!(first.servers.len(), 3);
    assert_eq!(master.client_side().count(), 2);
    assert!(Desired::for_role(&declared, Role::Backup).services.is_empty());
}

#[test]
fn defaults_are_those_of_the_manual() {
    let text = "version: 1\nvips: [192.0.2.1]\nvirtual_services: [{address: 192.0.2.1:80, real_servers: [192.0.2.11:80]}]\n";
    let config = read(text).unwrap();
    let desired = Desired::for_role(&config, Role::Master);
    let service = desired.services.values().next().unwrap();
    assert_eq!(service.settings.ipvsadm(lvs_notify::model::Family::Ipv4), "-s wlc");
    assert_eq!(service.servers.values().next().unwrap().ipvsadm(), "-m -w 1");
    assert_eq!(config.announce, [0, 200, 400, 600, 800, 5000].map(Duration::from_millis));
    assert_eq!(desired.addresses.values().next().unwrap().as_deref(), Some("lo:0"));
    assert_eq!(desired.client_side().count(), 0);
}

/// Replaced piece and replacement, one mistake each.
const REFUSED: &[(&str, &str)] = &[
    ("version: 1", "version: 2"),
    ("version: 1", ""),
    ("interface: eth0", "interfce: eth0"),
    ("interface: eth0", "interface: lo"),
    ("interface: eth0", "interface: a-name-too-long-0"),
    ("interface: eth0", "interface: eth0\ninterface: eth1"),
    ("checksum: remcsum}}\n", "checksum: remcsum}}\n    address: 192.0.2.100:81\n"),
    ("weight: 2", "weight: 2\n        \"weight\": 3"),
    ("192.0.2.100\n", "192.0.2.100/24\n"),
    ("192.0.2.100\n", "192.0.2\n"),
    ("192.0.2.100\n", "224.0.0.1\n"),
    ("192.0.2.100\n", "127.0.0.1\n"),
    ("192.0.2.100\n", "fe80::1\n"),
    ("- 192.0.2.100\n", "- 192.0.2.100\n  - 192.0.2.100\n"),
    ("- 192.0.2.100\n", "- {address: 192.0.2.100, label: eth0:1}\n"),
    ("interface: eth1}\n", "label: \"lo:0\"}\n"),
    ("arp_ignore: 1", "arp_ignore: 5"),
    ("arp_announce: 2", "arp_announce: 3"),
    ("arp: {arp_ignore: 1, arp_announce: 2, persist: true, restore: false}", "arp: on"),
    ("count: 5", "count: 500"),
    ("200ms", "200"),
    ("200ms", "soon"),
    ("vips: remove", "vips: leave"),
    ("vips: remove", "vips: [remove]"),
    ("backup: {vips: remove, services: remove}", "backup: remove"),
    ("vips: remove, services: remove", "vips: keep, services: keep"),
    ("tcp: 15m", "tcp: 32d"),
    ("tcp: 15m", "tcp: 0"),
    ("conntrack: 0", "contrack: 0"),
    ("conntrack: 0", "conntrack: yes"),
    ("conntrack: 0", "expire_nodest_conn: 1"),
    ("id: 51", "id: 300"),
    ("224.0.0.81", "192.0.2.9"),
    ("port: 8848", "port: 88480"),
    ("192.0.2.100:80\n", "192.0.2.101:80\n"),
    ("192.0.2.100:80\n", "192.0.2.100\n"),
    ("192.0.2.100:80\n", "192.0.2.100:http\n"),
    ("192.0.2.100:53\n", "192.0.2.100:0\n"),
    ("protocol: tcp", "protocol: icmp"),
    ("scheduler: sh", "scheduler: none"),
    ("scheduler: sh", "scheduler: mh"),
    ("sh-fallback]", "sh-fallbak]"),
    ("sh-fallback]", "flag-2]"),
    ("255.255.255.0", "255.0.255.0"),
    ("255.255.255.0", "0.0.0.0"),
    ("netmask: 255.255.255.0", "prefix: 24"),
    ("prefix: 64, engine", "netmask: 255.0.0.0, engine"),
    ("prefix: 64", "prefix: 129"),
    ("engine: sip", "engine: sips"),
    ("protocol: udp\n    persistence", "protocol: tcp\n    persistence"),
    ("protocol: udp\n    one_packet", "protocol: tcp\n    one_packet"),
    ("forward: nat", "forward: masq"),
    ("forward: nat", "forward: Direct"),
    ("forward: nat", "forward: nta"),
    ("203.0.113.11:8080", "203.0.113.11"),
    ("203.0.113.11:8080", "255.255.255.255:80"),
    ("203.0.113.11:8080", "203.0.113.12:80"),
    ("203.0.113.12:80\n", "203.0.113.12:81\n"),
    ("weight: 2", "weight: 4294967295"),
    ("weight: 2", "weight: -1"),
    ("lower_threshold: 800", "lower_threshold: 1001"),
    ("port: 6080, ", ""),
    ("type: gue", "type: gre"),
    ("forward: tun, ", ""),
    ("checksum: remcsum", "checksum: none"),
    ("fwmark: 7", "fwmark: 0"),
    ("fwmark: 7", "fwmark: 7\n    protocol: tcp"),
    ("fwmark: 7", "fwmark: 7\n    address: 192.0.2.100:99"),
    ("family: ipv6", "family: v6"),
    ("services: remove", "drain: 61s"),
    ("services: remove", "services: keep, drain: 5s"),
    ("interface: eth0\n", "interface:\n"),
    (
        "192.0.2.100:53\n    protocol: udp\n    one_packet: true\n    real_servers: []",
        "192.0.2.100:0\n    persistence: 60\n    forward: dr\n    real_servers: [203.0.113.9:80]",
    ),
    ("[2001:db8::11]\n", "[203.0.113.9]\n"),
    ("virtual_services:\n", "virtual_services: []\nservices:\n"),
];

/// Several mistakes in one file.
const TOGETHER: &[&[(&str, &str)]] = &[
    &[("count: 5", "count: 500"), ("id: 51", "id: 300"), ("forward: nat", "forward: masq")],
    &[
        ("- 192.0.2.100\n", "- 192.0.2.100/24\n"),
        ("192.0.2.100:80\n", "192.0.2.101:80\n"),
        ("weight: 2", "weight: 4294967295"),
    ],
    &[
        ("type: gue, port: 6080, ", "type: gue, "),
        ("203.0.113.12:80\n", "203.0.113.11:81\n"),
        ("lower_threshold: 800", "lower_threshold: 1001"),
    ],
    // What is wrong with the structure is told alone.
    &[("count: 5", "count: 500"), ("forward: nat", "foward: nat"), ("weight: 2", "wieght: 2")],
];

/// Whole files: nothing is never everything deleted, and what is no YAML of ours.
const WHOLLY_WRONG: &[&str] = &[
    "",
    "\n\n",
    "# only a comment\n",
    "---\n",
    "{}\n",
    "[]\n",
    "VI_1\n",
    "version: 1\n",
    "version: 1\nvips: [192.0.2.1]\n",
    "version: 1\nvips: [192.0.2.1]\nvirtual_services:\n",
    "version: 1\nvips: [192.0.2.1]\nvirtual_services: []\n",
    "version: 1\nvips: [192.0.2.1]\nvirtual_services: ~\n",
    "version: 1\nvips: []\nvirtual_services: [{address: 192.0.2.1:80, real_servers: []}]\n",
    "version: 1\nvips: [192.0.2.1\nvirtual_services: []\n",
    "version: 1\nvips:\n\t- 192.0.2.1\nvirtual_services: []\n",
    "version: 1\nvips: ['192.0.2.1]\nvirtual_services: []\n",
    "version: 1\nvips: *nowhere\nvirtual_services: []\n",
    "version: 1\nvips: [192.0.2.1]\nvirtual_services: [{}]\n",
    "version: 1\nvips: [192.0.2.1]\nvirtual_services: [{address: 192.0.2.1:80}]\n",
    "version: 1\n---\nversion: 1\n",
];

/// Every error of the file as people read it: the lines that are edited, then what is said.
#[test]
fn every_mistake_is_told_as_in_the_golden_file() {
    let mut told =
        "# Lines of whole.yaml that are taken out (-) and put in (+), or a file of + alone, then what is said.\n\n".to_owned();
    let mut tell = |edits: &str, text: &str| {
        let error = read(text).expect_err(text);
        assert!(error.starts_with("VI_1.yaml:"), "{error}");
        told += &format!("{edits}{error}\n\n");
    };
    let single: Vec<&[(&str, &str)]> = REFUSED.iter().map(std::slice::from_ref).collect();
    for edits in single.iter().chain(TOGETHER) {
        let (mut text, mut shown) = (WHOLE.to_owned(), String::new());
        for (old, new) in *edits {
            assert!(text.contains(old), "the case {old:?} has nothing to replace");
            let edited = text.replacen(old, new, 1);
            shown += &golden::edit(&text, &edited);
            text = edited;
        }
        tell(&shown, &text);
    }
    WHOLLY_WRONG.iter().for_each(|text| tell(&golden::edit("", text), text));
    golden::same("errors/messages", &told);
}

#[test]
fn an_empty_file_is_meant_when_it_says_so() {
    let meant = "version: 1\nvips: [192.0.2.1]\nallow_empty: true\nvirtual_services: []\n";
    assert!(read(meant).unwrap().services.is_empty());
    assert!(read(&meant.replace("192.0.2.1", "")).unwrap().vips.is_empty());
}

#[test]
fn bombs_cost_little() {
    let mut laughs = String::from("version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
    }
    laughs += "vips: *a11\nvirtual_services: []\n";
    let deep =
        format!("version: 1\nvips: {}{}\nvirtual_services: []\n", "[".repeat(50_000), "]".repeat(50_000));
    for (name, text) in [("aliases", laughs), ("nesting", deep)] {
        let begun = Instant::now();
        let error = read(&text).expect_err("a bomb was accepted");
        println!("{name}: {:?}: {}", begun.elapsed(), error.chars().take(100).collect::<String>());
        // A guard against growth without bound, not a measurement.
        assert!(begun.elapsed() < Duration::from_secs(60), "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn brackets_in_comments_are_no_nesting() {
    read(&WHOLE.replace("vips:\n", &format!("vips:\n{}", "  # if [ x\n".repeat(500)))).unwrap();
    let servers = "      - 203.0.113.11:8080\n";
    let many: String = (1..200).map(|port| format!("      - 203.0.113.11:{port}   # [ and {{\n")).collect();
    read(&WHOLE.replace(servers, &many)).unwrap();
}

/// A thousand damaged files: an error that names the place, or a file that is still valid; never
/// a panic.
#[test]
fn a_thousand_broken_files() {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..1000 {
        let mut text: Vec<char> = WHOLE.chars().collect();
        match random(3) {
            0 => text.truncate(random(text.len())),
            1 => {
                let at = random(text.len());
                text[at] = ['\t', '{', '}', '[', ':', '&', '*', '!', '"', '\u{0}', '9'][random(11)];
            }
            _ => {
                let (from, length) = (random(text.len() - 40), random(40));
                text.drain(from..from + length);
            }
        }
        match read(&text.into_iter().collect::<String>()) {
            Ok(_) => accepted += 1,
            Err(error) => {
                refused += 1;
                let place = error.strip_prefix("VI_1.yaml:").expect("the file's name first");
                assert!(place.split(':').next().unwrap().parse::<usize>().is_ok(), "no line: {error}");
            }
        }
    }
    println!("1000 damaged files: {refused} refused with their place, {accepted} still valid");
    assert!(refused > 500, "the damage was too mild to show anything");
}

#[test]
fn durations() {
    let cases = [
        ("300", 300_000),
        ("300s", 300_000),
        ("5m", 300_000),
        ("200ms", 200),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
    ];
    for (text, milliseconds) in cases {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in ["", "m", "5 m", "-5", "1.5s", "5min", "99999999999999999999"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn the_examples_are_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for example in std::fs::read_dir(folder).unwrap().flatten() {
        for entry in std::fs::read_dir(example.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                count += 1;
            }
        }
    }
    assert!(count > 0, "there is no example");
}

/// Pieces of [`WHOLE`] with a scalar of another kind than is usual, and what it means.
#[test]
fn scalars_are_taken_by_their_text() {
    for (old, new, same) in [
        ("tcp: 15m", "tcp: \"15m\"", "tcp: 15m"),
        ("conntrack: 0", "\"conntrack\": '0'", "conntrack: 0"),
        ("protocol: tcp", "protocol: !word tcp", "protocol: tcp"),
        ("interval: 200ms}", "interval: }", "interval: ~}"),
        ("services: remove}", "services: }", "services: ~}"),
        ("persistence: 300", "persistence: 5m", "persistence: {timeout: 300}"),
    ] {
        assert!(WHOLE.contains(old), "the case {old:?} has nothing to replace");
        assert_eq!(read(&WHOLE.replacen(old, new, 1)), read(&WHOLE.replacen(old, same, 1)), "{new}");
        read(&WHOLE.replacen(old, new, 1)).unwrap();
    }
}

/// Cases of [`REFUSED`] that a schema cannot know: what is replaced, by what, and why.
const PARSER_ONLY: &[(&str, &str, &str)] = &[
    ("interface: eth0", "interface: eth0\ninterface: eth1", "a schema sees the last of two equal keys"),
    ("conntrack: 0", "expire_nodest_conn: 1", "a schema sees the last of two equal keys"),
    ("192.0.2.100:80\n", "192.0.2.101:80\n", "which VIPs are declared is another part of the file"),
    ("203.0.113.11:8080", "203.0.113.12:80", "two spellings of one server are no equal items"),
    (
        "checksum: remcsum}}\n",
        "checksum: remcsum}}\n    address: 192.0.2.100:81\n",
        "a schema sees the last of two equal keys",
    ),
    ("weight: 2", "weight: 2\n        \"weight\": 3", "a schema sees the last of two equal keys"),
    (
        "203.0.113.12:80\n",
        "203.0.113.12:81\n",
        "a schema cannot compare the service's port with the server's",
    ),
    ("lower_threshold: 800", "lower_threshold: 1001", "a schema cannot compare two numbers"),
    (
        "192.0.2.100:53\n    protocol: udp\n    one_packet: true\n    real_servers: []",
        "192.0.2.100:0\n    persistence: 60\n    forward: dr\n    real_servers: [203.0.113.9:80]",
        "a schema cannot compare the two ports",
    ),
    ("[2001:db8::11]\n", "[203.0.113.9]\n", "a schema cannot compare the two families"),
];

/// Pieces of [`WHOLE`] whose replacement is valid, at the edges of what is.
const ACCEPTED: &[(&str, &str)] = &[
    ("interface: eth0\n", ""),
    ("interface: eth0", "interface: eth0.100"),
    ("192.0.2.100\n", "192.0.2.100/32\n"),
    ("192.0.2.100\n", "{address: 192.0.2.100, label: lo}\n"),
    ("arp: {arp_ignore: 1, arp_announce: 2, persist: true, restore: false}", "arp: off"),
    ("arp: {arp_ignore: 1, arp_announce: 2, persist: true, restore: false}", "arp: {}"),
    ("arp_ignore: 1", "arp_ignore: 2"),
    ("200ms", "0"),
    ("200ms", "60000ms"),
    ("200ms", "1m"),
    ("tcp: 15m", "tcp: 31d"),
    ("tcp: 15m", "tcp: 2678400"),
    ("tcp: 15m", "tcp: 744h"),
    ("tcp: 15m", "tcp: 5000ms"),
    ("conntrack: 0", "sync_threshold: \"3 50\""),
    ("vips: remove", "vips: keep"),
    ("services: remove", "services: keep"),
    ("services: remove", "drain: 10s"),
    ("services: remove", "services: remove, drain: 1m"),
    (
        "backup: {vips: remove, services: remove}\nipvs:\n  exclusive: false\n  timeouts: {tcp: 15m, tcp_fin: 2m, udp: 5m}\n  sysctl: {",
        "backup: {vips: keep, services: keep}\nipvs:\n  sysctl: {backup_only: 1, ",
    ),
    ("group: 224.0.0.81", "group: \"ff02::5\""),
    ("255.255.255.0", "255.255.240.0"),
    ("weight: 2", "weight: 0"),
    ("type: gue, port: 6080, checksum: remcsum", "type: gre, checksum: csum"),
    ("{type: gue, port: 6080, checksum: remcsum}", "{}"),
    ("scheduler_flags: [sh-port, sh-fallback]", "scheduler_flags: [flag-1, flag-2, flag-3]"),
    ("fwmark: 7", "fwmark: 4294967295"),
    ("192.0.2.100:53\n    protocol: udp\n    one_packet: true", "192.0.2.100:0\n    persistence: 1h"),
];

/// A file of packaging/ or of the README, as the test's own directory is not the repository's.
fn repository(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The valid files that users see: those of the README, of the examples, and the manual's.
fn published() -> Vec<String> {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let mut texts: Vec<String> = Vec::new();
    for block in readme.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()) {
        let indent = block.chars().take_while(|letter| *letter == ' ').count();
        let lines = block.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()));
        texts.push(lines.collect());
    }
    let manual = std::fs::read_to_string(repository("packaging/man/lvs-notify.yaml.5")).unwrap();
    let example = manual.split(".SH EXAMPLE\n.EX\n").nth(1).unwrap().split(".EE\n").next().unwrap();
    texts.push(example.replace("\\-", "-"));
    for example in std::fs::read_dir(repository("examples")).unwrap().flatten() {
        for entry in std::fs::read_dir(example.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "yaml") {
                texts.push(std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    texts
}

#[test]
fn the_manuals_example_is_valid_and_has_every_key() {
    let manual = std::fs::read_to_string(repository("packaging/man/lvs-notify.yaml.5")).unwrap();
    let words: Vec<&str> = manual.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let schema = std::fs::read_to_string(repository("packaging/schema/lvs-notify.schema.json")).unwrap();
    let mut keys = Vec::new();
    collect_keys(&serde_json::from_str(&schema).unwrap(), &mut keys);
    assert!(keys.len() > 40, "the schema has lost its keys: {keys:?}");
    // Every key that the raw document has, found by asking for one that it does not have.
    for (place, old) in [
        ("the top level", "interface: eth0"),
        ("vips", "address: 2001:db8::100/128"),
        ("arp", "arp_ignore: 1"),
        ("announce", "count: 5"),
        ("backup", "vips: remove"),
        ("ipvs", "exclusive: false"),
        ("timeouts", "tcp: 15m"),
        ("sync_daemon", "interface: eth1, id"),
        ("virtual_services", "protocol: tcp"),
        ("persistence", "prefix: 64"),
        ("real_servers", "weight: 2"),
        ("tunnel", "type: gue"),
    ] {
        let error = read(&WHOLE.replacen(old, &format!("x{old}"), 1)).unwrap_err();
        let known = error.lines().next().unwrap().split(", expected ").nth(1);
        let known = known.unwrap_or_else(|| panic!("{place}: {error}"));
        for key in known.split('`').skip(1).step_by(2) {
            assert!(keys.iter().any(|found| found == key), "the schema lacks {key} of {place}");
            assert!(words.contains(&key), "lvs-notify.yaml(5) lacks {key} of {place}");
        }
    }
    let example = published().into_iter().find(|text| text.contains("behind a tunnel"));
    read(&example.expect("the manual has lost its example")).unwrap();
}

fn collect_keys(schema: &serde_json::Value, keys: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| collect_keys(value, keys));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
#[ignore = "needs python3-jsonschema and python3-yaml; tests/schema runs it"]
fn the_schema_accepts_and_refuses_what_the_parser_does() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let mut texts = published();
    texts.push(WHOLE.to_owned());
    for (old, new) in ACCEPTED {
        assert!(WHOLE.contains(old), "the case {old:?} has nothing to replace");
        texts.push(WHOLE.replacen(old, new, 1));
        read(texts.last().unwrap()).unwrap_or_else(|error| panic!("{old:?} -> {new:?}: {error}"));
    }
    let valid = texts.len();
    texts.extend(REFUSED.iter().map(|(old, new)| WHOLE.replacen(old, new, 1)));
    texts.extend(
        ["", "{}", "[]", "version: 1\n", "version: 1\nvips: [192.0.2.1]\nvirtual_services: []\n"]
            .map(str::to_owned),
    );
    texts.push("version: 1\nvips: []\nallow_empty: true\nvirtual_services: []\n".to_owned());

    let mut validator = Command::new(repository("tests/validate"))
        .arg(repository("packaging/schema/lvs-notify.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    validator.stdin.take().unwrap().write_all(&serde_json::to_vec(&texts).unwrap()).unwrap();
    let output = validator.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed");
    let answers: Vec<Option<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), texts.len());

    let (mut wrong, mut left) = (Vec::new(), PARSER_ONLY.len());
    for (index, (text, answer)) in texts.iter().zip(&answers).enumerate() {
        let parser = read(text).err();
        let excused = (valid..valid + REFUSED.len()).contains(&index) && {
            let (old, new) = REFUSED[index - valid];
            PARSER_ONLY.iter().any(|(o, n, _)| (*o, *n) == (old, new))
        };
        left -= usize::from(excused);
        if parser.is_some() != (answer.is_some() || excused) || (excused && answer.is_some()) {
            wrong.push(format!("parser: {parser:?}\nschema: {answer:?}\n{text}"));
        }
    }
    println!(
        "{valid} files as published or at an edge, {} broken ones, {} rules that only the parser knows",
        texts.len() - valid,
        PARSER_ONLY.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(left, 0, "PARSER_ONLY names cases that REFUSED does not have");
}
