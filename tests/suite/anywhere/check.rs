//! `check`: every rule with a configuration that breaks it and one that does not.
//!
//! Owns the rules over keepalived.conf, desired-state files and the host, all made up here; what people read of each is
//! in tests/golden/rules, what the command prints in tests/golden/check. What the real keepalived does with the same
//! files is in `here::keepalived`. Needs no privileges.

use std::path::{Path, PathBuf};

use lvs_notify::check::facts::Host;
use lvs_notify::check::{self, File, Finding, Input, Rule};
use lvs_notify::config::Config;
use lvs_notify::config::source::Source;
use lvs_notify::keepalived_conf::{self, Tree, meaning::Conf};
use lvs_notify::model::AddressKey;
use lvs_notify::observed::{Interface, Observed, ObservedAddress};
use lvs_notify::report;

use crate::support::golden;

/// What the manual shows.
const CONF: &str = r#"
global_defs {
    script_user root
    enable_script_security
    vrrp_higher_prio_send_advert true
}
vrrp_instance VI_1 {
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority 150
    track_interface {
        eth1
    }
    virtual_ipaddress {
        192.0.2.100/32 dev lo label lo:0
        198.51.100.254/24 dev eth1
    }
    notify_master "/usr/bin/lvs-notify master VI_1"
    notify_backup "/usr/bin/lvs-notify backup VI_1"
    notify_fault "/usr/bin/lvs-notify fault VI_1"
    notify_stop "/usr/bin/lvs-notify stop VI_1"
    notify_master_rx_lower_pri "/usr/bin/lvs-notify master VI_1"
}
"#;

const VIP: &str = "        192.0.2.100/32 dev lo label lo:0\n";

const FILE: &str = "\
version: 1
interface: eth0
vips: [192.0.2.100]
virtual_services:
  - address: 192.0.2.100:80
    scheduler: rr
    real_servers: [203.0.113.11:80, 203.0.113.12:80]
";

fn own(interface: &str, address: &str, prefix: u8) -> ObservedAddress {
    let key = AddressKey { interface: interface.into(), address: address.parse().unwrap() };
    ObservedAddress { key, prefix, label: None, nature: Default::default() }
}

fn link(up: bool) -> Interface {
    Interface { index: 1, name: String::new(), up, carrier: up, ..Interface::default() }
}

/// A host on which all of this works.
fn host() -> Host {
    let parameters = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/lo/disable_ipv6", "0"),
        ("net/ipv6/conf/eth0/disable_ipv6", "0"),
    ];
    Host {
        observed: Observed {
            addresses: vec![
                own("lo", "127.0.0.1", 8),
                own("eth0", "192.0.2.1", 24),
                own("eth0", "2001:db8::1", 64),
                own("eth1", "198.51.100.1", 24),
            ],
            interfaces: ["lo", "eth0", "eth1"].map(|name| (name.to_owned(), link(true))).into(),
            ..Observed::default()
        },
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        users: [("root".to_owned(), 0), ("nobody".to_owned(), 65534), ("backup".to_owned(), 34)].into(),
        ..Host::default()
    }
}

/// A configuration, its files, and the host.
#[derive(Clone)]
struct World {
    conf: String,
    files: Vec<(&'static str, String)>,
    host: Host,
    complete: bool,
    said: String,
    /// What went wrong when a takeover with any of the files was rehearsed
    unready: Option<Vec<String>>,
}

fn world() -> World {
    World {
        conf: CONF.into(),
        files: vec![("VI_1", FILE.into())],
        host: host(),
        complete: true,
        said: String::new(),
        unready: None,
    }
}

impl World {
    /// With a piece of keepalived.conf replaced.
    fn conf(mut self, from: &str, to: &str) -> Self {
        assert!(self.conf.contains(from), "{from}");
        self.conf = self.conf.replace(from, to);
        self
    }

    /// With a line added to the instance.
    fn instance(self, line: &str) -> Self {
        self.conf("    state BACKUP\n", &format!("    state BACKUP\n    {line}\n"))
    }

    fn global(self, line: &str) -> Self {
        self.conf("global_defs {\n", &format!("global_defs {{\n    {line}\n"))
    }

    /// With more blocks at the end.
    fn block(mut self, text: &str) -> Self {
        self.conf += text;
        self
    }

    /// With a piece of the desired-state file replaced.
    fn file(mut self, from: &str, to: &str) -> Self {
        assert!(self.files[0].1.contains(from), "{from}");
        self.files[0].1 = self.files[0].1.replace(from, to);
        self
    }

    /// With a second file and its own instance.
    fn second(mut self, vip: &str, more: &str) -> Self {
        let text = FILE.replace("192.0.2.100", vip).replace("version: 1\n", &format!("version: 1\n{more}"));
        self.files.push(("VI_2", text));
        let block = CONF.split("vrrp_instance").nth(1).unwrap().replace("192.0.2.100", vip);
        self.block(&format!("vrrp_instance{}", block.replace("VI_1", "VI_2")))
    }

    fn host(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(&mut self.host);
        self
    }

    /// With what keepalived prints about it.
    fn said(mut self, text: &str) -> Self {
        self.said = text.to_owned();
        self
    }

    fn parameter(self, name: &str, value: &str) -> Self {
        self.host(|host| drop(host.parameters.insert(name.into(), value.into())))
    }

    fn services(self, text: &str) -> Self {
        let list = FILE.split_once("virtual_services:").unwrap().1.to_owned();
        self.file(&list, text)
    }

    fn found(&self) -> Vec<Finding> {
        let files: Vec<File> = self
            .files
            .iter()
            .map(|(name, text)| File {
                path: format!("/etc/lvs-notify/{name}.yaml"),
                instance: (*name).to_owned(),
                config: read(text),
                unready: self.unready.clone(),
            })
            .collect();
        let tree = parse(&self.conf);
        check::findings(Input {
            files: &files,
            complete: self.complete,
            conf: Some(&Conf::of(&tree)),
            said: Some(&self.said),
            host: Some(&self.host),
        })
    }

    /// What people read of a broken rule, after the lines that break it. What is odd about the host is not shown.
    fn told(&self, rule: Rule) -> String {
        let mut text = golden::edit(CONF, &self.conf);
        for (name, file) in &self.files {
            text += &golden::edit(if *name == "VI_1" { FILE } else { "" }, file);
        }
        let findings = self.found().into_iter().filter(|found| found.rule == rule).collect();
        let told = report::check::text(&check::Checked { findings, ..check::Checked::default() });
        text + told.split("\n\n").next().unwrap_or_default() + "\n\n"
    }

    fn breaks(&self, rule: Rule) -> bool {
        self.found().iter().any(|finding| finding.rule == rule)
    }
}

fn parse(text: &str) -> Tree {
    let content = text.as_bytes().to_vec();
    let mut find = |path: &Path| match path == Path::new("/etc/keepalived/keepalived.conf") {
        true => vec![(PathBuf::from(path), Ok(content.clone()))],
        false => Vec::new(),
    };
    keepalived_conf::parse(Path::new("/etc/keepalived/keepalived.conf"), "lb1", &mut find)
}

fn read(text: &str) -> Config {
    Config::parse(&Source { name: "VI_1.yaml".into(), text: text.into() })
        .unwrap_or_else(|error| panic!("{error}"))
}

const MASTER: &str = "notify_master \"/usr/bin/lvs-notify master VI_1\"";
const STOP: &str = "    notify_stop \"/usr/bin/lvs-notify stop VI_1\"\n";
const KEEP: &str = "backup: {vips: keep}\nvips";
const WARM: &str = "backup: {services: keep}\nvips";
const SYNC: &str = "ipvs: {sysctl: {backup_only: 1}, sync_daemon: {interface: eth1}}\n";
const GROUP: &str = "vrrp_sync_group G1 {\n  group {\n    VI_1\n  }\n";
const MARK: &str = "[{fwmark: 7, forward: dr, real_servers: [203.0.113.11]}]\n";
const LOCAL: &str =
    " [{address: 192.0.2.100:80, forward: dr, scheduler: rr, real_servers: [192.0.2.1:80, 192.0.2.2:80]}]\n";

fn server(head: &str, method: &str, real: &str) -> String {
    format!(
        "virtual_server {head} {{\n  lvs_sched rr\n  lvs_method {method}\n  real_server {real} {{\n  }}\n}}\n"
    )
}

/// For every rule, what breaks it, and the nearest thing that does not.
fn cases() -> Vec<(Rule, World, World)> {
    let bare = |word: &str| format!("notify_master /usr/bin/lvs-notify {word}");
    let six = || {
        world()
            .file("192.0.2.100]", "192.0.2.100, 2001:db8::100]")
            .conf(VIP, &format!("{VIP}2001:db8::100/128 dev lo\n"))
    };
    let local = || world().file("vips", KEEP).conf(VIP, "").services(LOCAL);
    vec![
        (Rule::E01, world().conf(MASTER, &bare("backup")), world().conf(MASTER, &format!("{MASTER} root"))),
        (
            Rule::E02,
            world().conf("script_user root", "script_user nobody"),
            world().conf(STOP, &STOP.replace("1\"", "1\" root")),
        ),
        (
            Rule::E04,
            world().host(|host| {
                let why = "/usr/bin/lvs-notify does not exist".to_owned();
                host.programs.insert("/usr/bin/lvs-notify".into(), why);
            }),
            world(),
        ),
        (
            Rule::E05,
            world().global("vrrp_strict"),
            world().global("vrrp_strict").conf("priority 150", "priority 255"),
        ),
        (Rule::E08, world().file("vips", KEEP), world().file("vips", KEEP).conf(VIP, "")),
        // Without an interface, but in no network of this host: it is routed.
        (
            Rule::E09,
            world().file("interface: eth0\n", ""),
            world().file("interface: eth0\n", "").host(|host| host.observed.addresses.clear()),
        ),
        (
            Rule::E17,
            world().conf("fault VI_1", "fault VI_1 && date"),
            world().instance("notify_deleted \"/bin/sh -c 'date; date > /dev/null'\""),
        ),
        (Rule::W19, world().conf("    enable_script_security\n", ""), world()),
        (
            Rule::E20,
            world().block(&server("192.0.2.100 443", "NAT", "203.0.113.11 443")),
            world().block(&server("192.0.2.101 443", "NAT", "203.0.113.11 443")),
        ),
        (Rule::E21, world().global("lvs_flush"), world().global("lvs_flush_on_stop VS")),
        (
            Rule::W25,
            world().conf("lvs-notify backup", "lvs-notify master"),
            world().conf("lvs-notify backup VI_1", "lvs-notify -c /etc/lvs-notify/VI_1.yaml backup"),
        ),
        (
            Rule::I27,
            world().conf("notify_master_rx_lower_pri", "notify_deleted"),
            world().conf("    vrrp_higher_prio_send_advert true\n", "").instance("higher_prio_send_advert"),
        ),
        (
            Rule::W34,
            world().second("192.0.2.101", "").conf("lvs-notify stop VI_2", "lvs-notify stop VI_1"),
            world().second("192.0.2.101", ""),
        ),
        (Rule::E35, world().conf("100/32", "100/24"), world().conf("100/32", "100")),
        (Rule::W36, world().conf("dev lo label lo:0", "dev eth0"), world()),
        (
            Rule::E37,
            world().conf("notify_fault", "notify_deleted"),
            world().conf(
                "    notify_fault \"/usr/bin/lvs-notify fault VI_1\"\n",
                "notify \"/usr/bin/lvs-notify notify\"\n",
            ),
        ),
        (Rule::E38, world().block("include /etc/keepalived/conf.d/none\n"), world()),
        (
            Rule::W40,
            world().conf("interface eth0", "interface eth1"),
            world().conf("interface eth0", "interface eth1").conf("        eth1\n", "        eth0\n"),
        ),
        (
            Rule::E41,
            world().file("vips", &format!("{SYNC}vips")).global("lvs_sync_daemon eth1 inst VI_1"),
            world().file("vips", &format!("{SYNC}vips")),
        ),
        (Rule::E44, world().second("192.0.2.100", ""), world().second("192.0.2.101", "")),
        (
            Rule::E45,
            world().conf("VI_1", "VI_9"),
            world().conf("/usr/bin/lvs-notify", "/usr/local/sbin/wrapper"),
        ),
        (
            Rule::E46,
            world().second("192.0.2.101", "").conf("VI_2", "VI_9"),
            World { complete: false, ..world().second("192.0.2.101", "").conf("VI_2", "VI_9") },
        ),
        (
            Rule::E47,
            world().file("vips", &format!("{SYNC}vips")).second("192.0.2.101", ""),
            world().file("vips", &format!("{SYNC}vips")),
        ),
        (
            Rule::W48,
            world().file("vips", WARM).services(&format!(" {MARK}")),
            world().file("vips", &format!("{SYNC}{WARM}")).services(&format!(" {MARK}")),
        ),
        (Rule::E49, world().host(|host| host.observed.interfaces.retain(|name, _| name != "eth0")), world()),
        (
            Rule::E50,
            world().parameter("net/ipv4/ip_forward", "0"),
            world()
                .parameter("net/ipv4/ip_forward", "0")
                .file("scheduler: rr", "scheduler: rr\n    forward: dr"),
        ),
        (Rule::E52, six().parameter("net/ipv6/conf/eth0/disable_ipv6", "1"), six()),
        (Rule::E55, world().services(LOCAL), local()),
        (
            Rule::E61,
            world().said("(/etc/keepalived/keepalived.conf: Line 9) Unknown keyword 'nopremt'"),
            world().said("(VI_1) No VIP specified; at least one is sensible"),
        ),
        (
            Rule::W62,
            world().said("(/etc/keepalived/keepalived.conf: Line 9) WARNING - number '1O' outside range"),
            world().said("WARNING - script `x` is not executable"),
        ),
        (Rule::W63, world().block("~SEQ(N, 1, 2) static_ipaddress {}\n"), world().block("$N=2\n")),
        // Beside a VIP that is there already; not beside the host's own.
        (
            Rule::E64,
            world().host(|host| {
                host.observed.addresses =
                    vec![own("eth0", "192.0.2.100", 32), own("eth0", "2001:db8::1", 64)];
            }),
            world().host(|host| host.observed.addresses.push(own("eth0", "192.0.2.100", 32))),
        ),
        (
            Rule::E65,
            World {
                unready: Some(vec![
                    "adding service tcp 192.0.2.100:80: no scheduler `rr` (ENOENT)".to_owned(),
                ]),
                ..world()
            },
            World { unready: Some(Vec::new()), ..world() },
        ),
    ]
}

#[test]
fn every_rule_has_a_configuration_that_breaks_it_and_one_that_does_not() {
    let cases = cases();
    let rules: Vec<Rule> = cases.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(rules, Rule::ALL, "one case for each rule, in order");
    for (rule, broken, fine) in &cases {
        assert!(broken.breaks(*rule), "{rule:?} is not found; found: {:#?}\n{}", broken.found(), broken.conf);
        assert!(!fine.breaks(*rule), "{rule:?} is found where it is not broken\n{}", fine.conf);
    }
}

#[test]
fn a_link_that_is_down_and_a_port_are_told_and_a_port_of_a_vrf_is_not() {
    let told = |eth0: Interface, upper: Interface| {
        let links = [("eth0".to_owned(), eth0), ("br0".to_owned(), upper)];
        let world = world().host(|host| host.observed.interfaces.extend(links));
        world.found().into_iter().filter(|found| found.rule == Rule::E49).map(|found| found.what).collect()
    };
    let upper = |vrf| Interface { index: 9, name: "br0".into(), vrf, ..link(true) };
    let port = || Interface { master: 9, ..link(true) };
    let whats: [Vec<String>; 3] =
        [told(link(false), upper(false)), told(port(), upper(false)), told(port(), upper(true))];
    assert_eq!(whats.map(|what| what.join("; ")), ["eth0 is down", "eth0 is a port of br0", ""]);
}

#[test]
fn findings_are_told_as_in_the_golden_file() {
    let head = "# Lines of keepalived.conf and of the file that are taken out (-) and put in (+), then what is said.\n\n";
    let told: String = cases().iter().map(|(rule, broken, _)| broken.told(*rule)).collect();
    golden::same("rules/findings", &format!("{head}{told}"));
}

#[test]
fn what_the_manual_shows_is_clean() {
    assert_eq!(world().found(), []);
    assert_eq!(world().second("192.0.2.101", "").found(), []);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut yaml = String::new();
    for example in std::fs::read_dir(root.join("examples")).unwrap().flatten() {
        let read = |path: PathBuf| (std::fs::read_to_string(&path).unwrap_or_default(), path);
        let entries = std::fs::read_dir(example.path()).into_iter().flatten().flatten();
        let (confs, files): (Vec<_>, Vec<_>) = entries
            .map(|entry| read(entry.path()))
            .filter(|(_, path)| path.extension().is_some_and(|end| end == "conf" || end == "yaml"))
            .partition(|(_, path)| path.extension().is_some_and(|end| end == "conf"));
        let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned().leak() as &str;
        let files: Vec<_> = files.into_iter().map(|(text, path)| (name(&path), text)).collect();
        for (conf, path) in confs {
            let world = World { conf, files: files.clone(), ..world() };
            assert_eq!(world.found(), [], "{}", path.display());
        }
        if example.file_name() == "failover" {
            yaml = files[0].1.clone();
        }
    }
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let conf = readme.split("```\n").find(|block| block.contains("global_defs {")).unwrap();
    let conf = conf.replace("       ...\n", "interface eth0\n");
    assert_eq!(World { conf, files: vec![("VI_1", yaml)], ..world() }.found(), [], "README.md");
}

/// Directors that are real servers keep the VIP, and keepalived must not have it; IPv6 VIPs need no place
/// in keepalived.conf either.
#[test]
fn what_lvs_notify_binds_alone_is_clean() {
    let local = world().file("vips", KEEP).conf(VIP, "").services(LOCAL);
    assert_eq!(local.found(), []);
    let six = world().file("192.0.2.100]", "\"2001:db8::100\"]").conf(VIP, "").services(
        " [{address: \"[2001:db8::100]:80\", scheduler: rr, real_servers: [\"[2001:db8:1::11]:80\"]}]\n",
    );
    assert_eq!(six.found(), []);
}

#[test]
fn vip_and_services_on_the_backup_are_refused() {
    let refused = FILE.replace("vips", "backup: {vips: keep, services: keep}\nvips");
    let error = Config::parse(&Source { name: "VI_1.yaml".into(), text: refused }).unwrap_err();
    assert!(error.to_string().contains("bounce packets for ever"), "{error}");
}

#[test]
fn what_keepalived_says_of_a_line_is_told_once_and_without_what_follows_from_it() {
    let said = |text: &str| world().said(text).found();
    let whats = |found: &[Finding]| -> Vec<(Rule, Option<usize>, String)> {
        found.iter().map(|one| (one.rule, one.line, one.what.clone())).collect()
    };
    let name = "/etc/keepalived/keepalived.conf";
    let lost = format!(
        "({name}: Line 17) Unknown keyword 'virtual_ipadress'\n({name}: Line 17) Unexpected '{{' - ignoring\n\
         ({name}: Line 19) Unknown keyword 'notify_master'\n(keepalived.conf: Line 20) Unknown keyword '}}'\n\
         (Line 17) Unknown keyword 'virtual_ipadress'\n({name}: Line 21) invalid number 'x'\n\
         (VI_1) No VIP specified\nThere are 1 missing '}}'s\n(/etc/other: Line 3) Unknown keyword 'x'\n(x\n"
    );
    let found = said(&lost);
    let first = "Unknown keyword 'virtual_ipadress'; Unexpected '{' - ignoring";
    assert_eq!(
        whats(&found),
        [(Rule::E61, Some(17), first.to_owned()), (Rule::E61, Some(21), "invalid number 'x'".to_owned())]
    );
    assert_eq!(found[0].file, name);
    let warning = "WARNING - interface eth0 for vrrp_instance VI_1 doesn't exist";
    let found = said(&format!("({name}: Line 10) {warning}\n({name}: Line 10) {warning}\n"));
    assert_eq!(whats(&found), [(Rule::W62, Some(10), warning.to_owned())]);
    // Where there is a rule, keepalived's words are no news, nor is what follows.
    let ours = world().conf(MASTER, "notify_master /usr/bin/lvs-notify backup");
    let line = ours.conf.lines().position(|line| line.contains("notify_master")).unwrap() + 1;
    let found = ours.said(&format!(
        "({name}: Line {line}) Unknown keyword 'notify_master'\n({name}: Line {line}) Unexpected '{{' - ignoring\n\
         ({name}: Line 23) Unknown keyword 'x'\n"
    ));
    assert_eq!(found.found().iter().map(|one| one.rule).collect::<Vec<_>>(), [Rule::E01]);
    // Of another host, its interfaces and users say nothing.
    let tree = parse(CONF);
    let text = format!("({name}: Line 10) {warning}\n({name}: Line 17) Unable to set default user\n");
    let conf = Conf::of(&tree);
    let input = Input { conf: Some(&conf), said: Some(&text), ..Input::default() };
    assert_eq!(check::findings(input), []);
}

#[test]
fn every_state_needs_its_script_and_every_script_a_user() {
    for state in ["master", "backup", "fault", "stop"] {
        let lost = world().conf(&format!("    notify_{state} "), "    notify_deleted ");
        let found = lost.found().into_iter().filter(|found| found.rule == Rule::E37);
        let whats: Vec<String> = found.map(|found| found.what).collect();
        assert_eq!(whats, [format!("VI_1 has no notify_{state}")]);
    }
    let group = |end: &str| world().conf(STOP, "").block(&format!("{GROUP}{end}}}\n")).found();
    let told = |end: &str| group(end).iter().any(|found| found.what.contains("G1, a group"));
    assert!(told(STOP) && !told(""));
    let nobody = world().conf("    script_user root\n", "");
    assert!(nobody.breaks(Rule::E02));
    assert!(!nobody.conf("    enable_script_security\n", "").breaks(Rule::E02));
}

#[test]
fn accept_helps_against_vrrp_strict_with_version_3_only() {
    let strict = world().global("vrrp_strict");
    let three = strict.clone().global("vrrp_version 3");
    assert!(three.breaks(Rule::E05) && !three.instance("accept").breaks(Rule::E05));
    assert!(strict.clone().instance("accept").breaks(Rule::E05));
    assert!(!strict.instance("strict_mode off").breaks(Rule::E05));
    assert!(world().instance("no_accept").breaks(Rule::E05));
}

#[test]
fn two_files_that_want_one_object_are_told() {
    for (more, words) in [
        ("ipvs: {sync_daemon: {interface: eth1}}\n", "the sync daemon"),
        ("ipvs: {exclusive: true}\n", "exclusive"),
        ("arp: {arp_ignore: 2}\n", "other values"),
        ("ipvs: {timeouts: {tcp: 5m}, sync_daemon: {interface: eth1}}\n", "the timeouts, with another tcp"),
    ] {
        let both = world()
            .file("vips", "ipvs: {timeouts: {tcp: 10m}, sync_daemon: {interface: eth1}}\nvips")
            .second("192.0.2.101", more);
        let found = both.found();
        let told = found.iter().any(|one| one.rule == Rule::E44 && one.what.contains(words));
        assert!(told, "{words}: {found:#?}");
    }
}

/// Variables, conditions and includes are seen through.
#[test]
fn the_text_is_read_as_keepalived_reads_it() {
    let hidden = world()
        .block("$STRICT=vrrp_strict\nglobal_defs {\n  @lb1 $STRICT\n  @lb2 lvs_flush\n # lvs_flush\n}\n")
        .conf(MASTER, "$WHO=master\n    notify_master \"/usr/bin/lvs-notify ${WHO} VI_1\"");
    let found = hidden.found();
    assert_eq!(found.iter().map(|one| one.rule).collect::<Vec<_>>(), [Rule::E05], "{found:#?}");
}

proptest::proptest! {
    /// Whatever is left of a configuration after lines are lost, doubled and moved: no panic, and the same
    /// findings every time.
    #[test]
    fn no_damage_to_a_configuration_makes_it_panic(
        cuts in proptest::collection::vec((0..200_usize, 0..200_usize, 0..3_u8), 0..12)
    ) {
        let whole = world()
            .block(&server("192.0.2.100 80", "DR", "192.0.2.1 80"))
            .block(&format!("{GROUP}{STOP}}}\n"))
            .second("192.0.2.101", "");
        let mut lines: Vec<String> = whole.conf.lines().map(str::to_owned).collect();
        for (one, two, act) in cuts {
            let (one, two) = (one % lines.len().max(1), two % lines.len().max(1));
            match act {
                _ if lines.len() < 3 => break,
                0 => drop(lines.remove(one)),
                1 => lines.swap(one, two),
                _ => lines.insert(one, lines[two].clone()),
            }
        }
        let damaged = World { conf: lines.join("\n"), ..whole };
        proptest::prop_assert_eq!(damaged.found(), damaged.found());
    }
}
