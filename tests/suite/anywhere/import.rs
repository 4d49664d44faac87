//! `import`: every source becomes a file that is valid and means what the source says.
//!
//! Owns what each source means, and the law that writer and reader agree; sources and what is written of them are in
//! tests/golden/import. Leaves imported tables beside real ones to `ipvs::import`, and what a valid file does to the
//! kernel to `services`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::{LVS_NOTIFY, golden};
use lvs_notify::config::Config;
use lvs_notify::config::WantedService;
use lvs_notify::config::source::Source;
use lvs_notify::import::{self, Origin, Table};
use lvs_notify::model::{
    AddressKey, DaemonState, Endpoint, Family, Forward, Protocol, RealServer, Servers, Service, ServiceKey,
    SyncDaemon, Timeouts, Tunnel, service_flag,
};
use lvs_notify::observed::ObservedAddress;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// Names as a machine could know them; `/etc/services` and DNS of this one do not matter.
fn ask(database: &str, key: &str) -> String {
    let answer = match (database, key) {
        ("services", _) => {
            "# comment\nhttp 80/tcp www # World Wide Web\ndomain 53/tcp\ndomain 53/udp\nsip 5060/udp\n"
        }
        ("ahosts", "vip.example.net") => {
            "2001:db8::7 STREAM vip.example.net\n2001:db8::7 DGRAM\n192.0.2.7 STREAM\n"
        }
        ("ahosts", "rs1.example.net") => "203.0.113.1 STREAM rs1.example.net\n",
        _ => "",
    };
    answer.to_owned()
}

fn yaml(origin: Origin, text: &str) -> String {
    let table = import::parse(origin, "source", text, ask).unwrap();
    import::write(&table).unwrap()
}

/// What a file's text means, as the commands read it.
fn meaning(yaml: &str) -> Config {
    Config::parse(&Source { name: "written".into(), text: yaml.into() })
        .unwrap_or_else(|why| panic!("{why}\n{yaml}"))
}

/// The services of a file in the form of `ipvsadm -Sn`, thresholds included.
fn rules(yaml: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, wanted) in &meaning(yaml).services {
        lines.push(format!("-A {} {}", key.ipvsadm(), wanted.settings.ipvsadm(key.family())));
        for (server, settings) in wanted.servers.iter() {
            lines.push(format!("-a {} -r {server} {}", key.ipvsadm(), settings.ipvsadm()));
        }
    }
    lines
}

/// A comment's words, whatever way it was broken.
pub(crate) fn comments(yaml: &str) -> String {
    let lines = yaml.lines().filter_map(|line| line.split_once('#').map(|(_, text)| text));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

const SAVED: &str = include_str!("../../golden/import/saved");
const BY_HAND: &str = include_str!("../../golden/import/by-hand");
const REFUSED: &str = include_str!("../../golden/import/refused");
const KEEPALIVED: &str = include_str!("../../golden/import/keepalived.conf");

#[test]
fn a_save_file_is_read_whole() {
    let written = yaml(Origin::IpvsadmSave, SAVED);
    // The lines again, but for a mark's sign, and for a tunnel's type, which ipvsadm 1.28 does not know.
    let mut wanted: Vec<String> = SAVED
        .lines()
        .filter(|line| line.contains('-') && !line.starts_with('#'))
        .map(|line| line.replace("-f -1 ", "-f 4294967295 "))
        .map(|line| if line.ends_with("-i -w 1") { line + " --tun-type ipip" } else { line })
        .collect();
    let mut found = rules(&written);
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert!(!written.contains("Not written"), "{written}");
}

#[test]
fn what_ipvsadm_alone_understands_is_refused_line_by_line() {
    let error =
        import::parse(Origin::IpvsadmSave, "rules", BY_HAND, ask).map(|_| ()).unwrap_err().to_string();
    for (index, line) in BY_HAND.lines().enumerate() {
        let told = error.contains(&format!("rules:{}: ", index + 1));
        // One line is as it is saved.
        assert_eq!(told, line != "-A -t 192.0.2.1:85 -s rr", "{line}\n{error}");
    }
    assert!(error.contains("`lvs-notify import --run sh -c 'ipvsadm -R </FILE'`"), "{error}");
    assert!(error.contains("--from kernel"), "{error}");
}

#[test]
fn names_are_looked_up() {
    let text = "\
-A -t vip.example.net:http -s rr
-a -t vip.example.net:http -r rs1.example.net:www -m -w 1
-A -u 192.0.2.7:domain -s rr
-A -u [2001:db8::7]:sip -s rr
";
    let expected = [
        "-A -u 192.0.2.7:53 -s rr",
        "-A -t 192.0.2.7:80 -s rr",
        "-a -t 192.0.2.7:80 -r 203.0.113.1:80 -m -w 1",
        "-A -u [2001:db8::7]:5060 -s rr",
    ];
    assert_eq!(rules(&yaml(Origin::IpvsadmSave, text)), expected);
}

#[test]
fn what_is_not_understood_is_told_as_in_the_golden_file() {
    let mut told = String::new();
    for lines in [
        "-A -t nowhere.example.net:80 -s rr",
        "-A -t [vip.example.net]:80 -s rr\n-A -t 192.0.2.1:gopher -s rr",
        "-A -t 192.0.2.1:80 -s rr -O",
        "-A -t 192.0.2.1:80 --schedular rr",
        "-A --xxx-service 192.0.2.1:80 -s rr",
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 203.0.113.1:80 (null) -w 1",
        "-a -t 192.0.2.1:80 -r 203.0.113.1:80 -m -w 1",
        "-A -t 192.0.2.1:80 -s",
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 203.0.113.1:80 -m",
        "-A -f x -s rr",
        "-A -f 4294967296 -s rr",
        "-A -t 192.0.2.1:80 -s rr -p x",
        "-A -t 192.0.2.1:80 -s rr -M 255.0.255.0",
        "-A -t 192.0.2.1:80 -s rr -p 300 -M 24",
        "-A -t 192.0.2.1:80 -s rr -b sh-port",
        "-A -t [2001:db8::1 -s rr",
        "-A -t 192.0.2.1 -s rr",
        "-A -t 192.0.2.1:80\u{1b}[31m -s rr",
        "hello",
        "-A -t 192.0.2.1:80 -s rr\n-A -t 192.0.2.1:80 -s rr\n-Q",
    ] {
        let text = format!("# first\n{lines}\n");
        let error =
            import::parse(Origin::IpvsadmSave, "rules", &text, ask).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("nothing was written") && !error.contains('\u{1b}'), "{error}");
        told += &format!("{}{error}\n\n", golden::edit("", &lines.replace('\u{1b}', "ESC")));
    }
    golden::same("import/not-understood", &told);
}

#[test]
fn virtual_servers_of_keepalived_are_read() {
    let written = yaml(Origin::KeepalivedConf, KEEPALIVED);
    let mut expected = vec![
        "-A -t 192.0.2.1:80 -s sh -p 300 -M 255.255.255.0 -b sh-port".to_owned(),
        "-a -t 192.0.2.1:80 -r 203.0.113.1:8080 -m -w 3 -x 100 -y 50".to_owned(),
        "-a -t 192.0.2.1:80 -r 203.0.113.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum".to_owned(),
    ];
    for vip in ["192.0.2.8", "192.0.2.9", "192.0.2.16", "192.0.2.17"] {
        expected.push(format!("-A -t {vip}:443 -s wlc"));
        expected.push(format!("-a -t {vip}:443 -r 203.0.113.1:443 -g -w 1"));
    }
    expected.extend(
        [
            "-A -u [2001:db8::1]:53 -s rr -o",
            "-a -u [2001:db8::1]:53 -r [2001:db8:1::1]:53 -g -w 0",
            "-A -f 5 -s wlc",
            "-a -f 5 -r 203.0.113.1:443 -g -w 1",
            "-A -f 9 -6 -s rr -p 360 -M 64",
            "-a -f 9 -6 -r [2001:db8:1::9]:0 -m -w 1",
        ]
        .map(str::to_owned),
    );
    assert_eq!(rules(&written), expected, "{written}");
    let declared = meaning(&written);
    assert_eq!(declared.timeouts, Timeouts { tcp: 1200, tcp_fin: 0, udp: 60 });
    assert_eq!(declared.daemon.as_ref().unwrap().ipvsadm(), "--mcast-interface eth1 --syncid 51");
}

#[test]
fn what_a_file_refuses_becomes_a_comment() {
    let written = yaml(Origin::IpvsadmSave, REFUSED);
    assert_eq!(rules(&written), ["-A -t 192.0.2.1:82 -s rr", "-a -t 192.0.2.1:82 -r 203.0.113.4:82 -m -w 1"]);
}

/// A VIP's place.
fn standing(address: &str, interface: &str, label: Option<&str>) -> ObservedAddress {
    let address: IpAddr = address.parse().unwrap();
    ObservedAddress {
        key: AddressKey { interface: interface.to_owned(), address },
        prefix: Family::of(address).host_prefix(),
        label: label.map(str::to_owned),
        nature: Default::default(),
    }
}

/// Of every kind of thing that a source can have and a file cannot.
#[test]
fn what_is_refused_is_told_and_the_rest_is_written() {
    let lines = "
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 203.0.113.1:80 -m -w 1
-a -t 192.0.2.1:80 -r [2001:db8::9]:80 -i -w 1 --tun-type ipip
-a -t 192.0.2.1:80 -r 203.0.113.2:80 -m -w 1
-A -t 192.0.2.2:80 -s rr
-A -t 192.0.2.3:80 -s rr
";
    let mut table = import::parse(Origin::IpvsadmSave, "source", lines, ask).unwrap();
    table.timeouts = Timeouts { tcp: 2_678_401, tcp_fin: 60, udp: 0 };
    table.parameters = [("conntrack".into(), "1".into())].into();
    let daemon = SyncDaemon {
        interface: "eth0/1".into(),
        id: 3,
        max_len: Some(500),
        group: None,
        port: None,
        ttl: None,
    };
    table.daemons.insert(DaemonState::Backup, daemon);
    table.addresses = [
        standing("192.0.2.1", "lo", Some("eth0:1")),
        standing("192.0.2.1", "eth0", None),
        standing("192.0.2.2", "default", None),
        standing("192.0.2.3", "lo", Some("lo:3")),
        standing("192.0.2.3", "eth0", None),
    ]
    .into();
    let first = table.services.values_mut().next().unwrap();
    Arc::make_mut(&mut first.servers).values_mut().nth(1).unwrap().lower_threshold = 5;
    let third = table.services.values_mut().nth(2).unwrap();
    third.settings.flags = 0x40;
    let written = import::write(&table).unwrap();
    let (_, told) = written.split_once("\n# Not written").unwrap();
    for line in [
        "ipvsadm --set 2678401 60 0 `2678401s` must be whole seconds, from 1s to 31d",
        "ipvsadm --start-daemon backup --mcast-interface eth0/1 --syncid 3 --sync-maxlen 500 not an interface name: 1 to 15 characters, no slash, colon or blank, nor = * ? [ 500 is out of range: 1024 to 65507",
        "ipvsadm -a -t 192.0.2.1:80 -r 203.0.113.2:80 -m -w 1 -x 0 -y 5 the lower threshold must not be above the upper one",
        "ipvsadm -A -t 192.0.2.3:80 -s rr a desired-state file has no words for these settings; flags: 0x40",
        "ip address add 192.0.2.1/32 dev lo label eth0:1 ip address add 192.0.2.1/32 dev eth0 a label is `lo` or begins with `lo:`",
        "ip address add 192.0.2.2/32 dev default `default` cannot face clients",
    ] {
        assert!(comments(told).contains(line), "{line}\n{written}");
    }
    // The real server of the other family only cannot be had beside a daemon.
    let rules = rules(&written);
    assert!(
        rules.iter().any(|line| line.contains("-r [2001:db8::9]:80 -i")) && rules.len() == 4,
        "{written}"
    );
    let declared = meaning(&written);
    assert_eq!(declared.timeouts, Timeouts::default());
    assert_eq!(declared.ipvs_parameters, [("conntrack".to_owned(), "1".to_owned())].into());
    assert!(declared.daemon.is_none() && declared.interfaces().is_empty(), "{written}");

    // Two daemons are no one's role.
    table.daemons.insert(DaemonState::Master, table.daemons[&DaemonState::Backup].clone());
    let told = comments(&import::write(&table).unwrap());
    for state in ["master", "backup"] {
        assert!(
            told.contains(&format!("--start-daemon {state} --mcast")) && told.contains("two run here"),
            "{told}"
        );
    }
}

#[test]
fn an_empty_source_says_that_empty_is_meant() {
    for origin in [Origin::IpvsadmSave, Origin::KeepalivedConf] {
        let written = yaml(origin, "");
        assert!(meaning(&written).services.is_empty());
        assert!(written.contains("allow_empty: true\nvirtual_services: []\n"), "{written}");
    }
}

/// Runs the program without an input.
fn run(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(LVS_NOTIFY)
        .args(words)
        .env_remove("LVS_NOTIFY_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_script_is_run_only_when_it_is_asked_for_in_full() {
    for (words, expected) in [
        (&["import", "notify.sh"][..], "which format? Use --from ipvsadm-save or keepalived-conf"),
        (&["import", "--from", "kernel", "notify.sh"], "for a script, --run"),
        (&["import", "--from", "kernel", "--run", "x"], "cannot be used with"),
        (&["import", "--limit", "soon", "--run", "x"], "not a duration, as in 10m or 300"),
    ] {
        let (status, written, told) = run(words);
        assert_eq!((status, written.as_str()), (2, ""), "{words:?}");
        assert!(told.contains(expected), "{words:?}: {told}");
    }
    let (status, written, told) = run(&["import", "--run", "no-such-script", "-c", "x"]);
    assert_eq!((status, written.as_str()), (1, ""));
    assert!(told.contains("there is no script no-such-script; give its path"), "{told}");
    // By hand, its inner half would run the script on this machine.
    let by_hand = Command::new(LVS_NOTIFY)
        .arg0("lvs-notify-inside")
        .args(["import", "--run", "notify.sh"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&by_hand.stderr);
    assert!(!by_hand.status.success() && told.contains("cannot be started by hand"), "{told}");
}

// Laws.

fn address(six: bool, last: u8) -> IpAddr {
    if six { format!("2001:db8::{last:x}") } else { format!("192.0.2.{last}") }.parse().unwrap()
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let protocols = vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let endpoint =
        (any::<bool>(), 1..5u8, 1..=u16::MAX, select(protocols)).prop_map(|(six, last, port, protocol)| {
            ServiceKey::Endpoint { address: address(six, last), port, protocol }
        });
    let mark = (1..=u32::MAX, select(vec![Family::Ipv4, Family::Ipv6]))
        .prop_map(|(mark, family)| ServiceKey::Fwmark { mark, family });
    prop_oneof![3 => endpoint, 1 => mark]
}

fn settings(key: ServiceKey) -> impl Strategy<Value = Service> {
    let schedulers = vec!["rr", "wlc", "wrr", "sh", "mh", "lblcr", "null", "on", "y", "1", "a_b-c"];
    let six = key.family() == Family::Ipv6;
    let datagrams = match key {
        ServiceKey::Endpoint { protocol, .. } => protocol == Protocol::UDP,
        ServiceKey::Fwmark { .. } => true,
    };
    let netmask =
        if six { (1..=128u32).boxed() } else { (1..=32u32).prop_map(|bits| u32::MAX << (32 - bits)).boxed() };
    (select(schedulers), 0..8u32, any::<bool>(), 1..=2_678_400u32, netmask, any::<(bool, bool)>()).prop_map(
        move |(scheduler, flags, persistent, timeout, netmask, (one_packet, sip))| {
            let mut settings = Service {
                scheduler: scheduler.to_owned(),
                flags: flags << 3,
                timeout: 0,
                netmask: Service::full_netmask(key.family()),
                engine: String::new(),
            };
            if persistent {
                settings.flags |= service_flag::PERSISTENT;
                settings.timeout = timeout;
                settings.netmask = netmask;
                if sip && datagrams {
                    settings.engine = "sip".to_owned();
                }
            }
            if one_packet && datagrams {
                settings.flags |= service_flag::ONE_PACKET;
            }
            settings
        },
    )
}

fn servers(key: ServiceKey) -> impl Strategy<Value = Servers> {
    let (six, service_port) = match key {
        ServiceKey::Endpoint { address, port, .. } => (address.is_ipv6(), Some(port)),
        ServiceKey::Fwmark { family, .. } => (family == Family::Ipv6, None),
    };
    let tunnels = vec![
        Tunnel::default(),
        Tunnel { kind: 1, port: 6080, checksum: 0 },
        Tunnel { kind: 1, port: 1, checksum: 2 },
        Tunnel { kind: 2, port: 0, checksum: 1 },
    ];
    let methods = select(vec![Forward::NAT, Forward::DR, Forward::TUN]);
    let weight = prop_oneof![Just(1u32), 0..=i32::MAX.unsigned_abs()];
    let server = (1..9u8, 1..=u16::MAX, any::<bool>(), methods, weight, 0..3u32, 0..3u32, select(tunnels))
        .prop_map(move |(last, port, other, forward, weight, lower, more, tunnel)| {
            let port = match (forward, service_port) {
                (Forward::NAT, Some(_)) => port,
                (_, Some(port)) => port,
                (_, None) => {
                    if port % 2 == 0 {
                        0
                    } else {
                        port
                    }
                }
            };
            let six = if forward == Forward::TUN && other { !six } else { six };
            let tunnel = if forward == Forward::TUN { tunnel } else { Tunnel::default() };
            let upper_threshold = lower + more;
            (
                Endpoint { address: address(six, last), port },
                RealServer { forward, weight, upper_threshold, lower_threshold: lower, tunnel },
            )
        });
    vec(server, 0..5).prop_map(|list| list.into_iter().collect())
}

fn daemon() -> impl Strategy<Value = SyncDaemon> {
    let groups = vec![None, Some("224.0.0.90".parse().unwrap()), Some("ff02::90".parse().unwrap())];
    let names = vec!["eth1", "eth0.100", "on", "7", "x#y", "a\"b", "-"];
    (
        select(names),
        any::<u8>(),
        prop::option::of(1024..=65487u16),
        select(groups),
        prop::option::of(1..=u16::MAX),
        prop::option::of(1..=u8::MAX),
    )
        .prop_map(|(interface, id, max_len, group, port, ttl)| SyncDaemon {
            interface: interface.to_owned(),
            id,
            max_len,
            group,
            port,
            ttl,
        })
}

fn table() -> impl Strategy<Value = Table> {
    let service = key().prop_flat_map(|key| {
        (Just(key), settings(key), servers(key))
            .prop_map(|(key, settings, servers)| (key, WantedService { settings, servers: servers.into() }))
    });
    let places = btree_map(
        (any::<bool>(), 1..5u8).prop_map(|(six, last)| address(six, last)),
        (
            select(vec![None, Some("lo:0"), Some("lo:1")]),
            select(vec![None, Some("eth0"), Some("eth1"), Some("on")]),
        ),
        0..4,
    );
    let timeouts = (0..=2_678_400u32, 0..100u32, 0..100_000u32);
    (vec(service, 0..6), places, timeouts, prop::option::of(daemon()), any::<bool>()).prop_map(
        |(services, places, (tcp, tcp_fin, udp), daemon, odd)| Table {
            origin: "a test".to_owned(),
            services: services.into_iter().collect(),
            addresses: places
                .into_iter()
                .flat_map(|(vip, (label, interface))| {
                    let label = label.filter(|_| vip.is_ipv4());
                    let on_lo = label.map(|label| standing(&vip.to_string(), "lo", Some(label)));
                    on_lo.into_iter().chain(interface.map(|name| standing(&vip.to_string(), name, None)))
                })
                .collect(),
            timeouts: Timeouts { tcp, tcp_fin, udp },
            daemons: daemon.into_iter().map(|daemon| (DaemonState::Master, daemon)).collect(),
            parameters: if odd {
                [("sync_threshold".to_owned(), "5 100".to_owned()), ("conntrack".to_owned(), "1".to_owned())]
                    .into()
            } else {
                BTreeMap::new()
            },
            arp: odd.then(|| "x: [{".to_owned()).into_iter().collect(),
            ..Table::default()
        },
    )
}

/// What the reader of a file must refuse beside a daemon: servers of the other family.
fn without_mixed(mut table: Table) -> Table {
    if !table.daemons.is_empty() {
        for (key, wanted) in &mut table.services {
            let same = |(server, _): &(&Endpoint, &RealServer)| Family::of(server.address) == key.family();
            let servers = wanted.servers.iter().filter(same).map(|(server, settings)| (*server, *settings));
            wanted.servers = Servers::from_iter(servers).into();
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Writer and reader agree: what is written is read back, all of it.
    #[test]
    fn a_table_is_read_back_as_it_was_written(table in table().prop_map(without_mixed)) {
        let written = import::write(&table).unwrap();
        prop_assert!(!written.contains("Not written"), "{}", written);
        prop_assert_eq!(&written, &import::write(&table).unwrap());
        let declared = meaning(&written);
        prop_assert_eq!(&declared.services, &table.services, "{}", written);
        prop_assert_eq!(declared.timeouts, table.timeouts);
        prop_assert_eq!(declared.daemon.as_ref(), table.daemons.values().next());
        prop_assert_eq!(&declared.ipvs_parameters, &table.parameters);
        prop_assert_eq!(declared.arp.is_none(), !table.arp.is_empty());
        for vip in &declared.vips {
            let found = |on_lo| {
                table.addresses.iter().find(|found| found.key.address == vip.address && found.key.is_on_lo() == on_lo)
            };
            prop_assert_eq!(vip.interface.as_ref(), found(false).map(|found| &found.key.interface));
            if let Some(found) = found(true) {
                prop_assert_eq!(&vip.label, &found.label);
            }
        }
    }

    /// A table of anything at all becomes a file that is valid, and says nothing that is not so.
    #[test]
    fn any_table_becomes_a_valid_file(mut table in table(), numbers in any::<[u32; 6]>(), text in "\\PC*") {
        let [flags, timeout, netmask, forward, weight, protocol] = numbers;
        for (index, (key, wanted)) in table.services.clone().into_iter().enumerate() {
            let entry = table.services.get_mut(&key).unwrap();
            match index % 5 {
                0 => entry.settings.flags = flags,
                1 => (entry.settings.timeout, entry.settings.netmask) = (timeout, netmask),
                2 => entry.settings.scheduler.clone_from(&text),
                3 => entry.settings.engine.clone_from(&text),
                _ => {
                    let odd = ServiceKey::Endpoint { address: address(false, 1), port: 1, protocol: Protocol(protocol as u16) };
                    table.services.insert(odd, wanted.clone());
                }
            }
            let entry = table.services.get_mut(&key).unwrap();
            if let Some((_, server)) = Arc::make_mut(&mut entry.servers).iter_mut().next() {
                (server.forward, server.weight, server.tunnel.kind) = (Forward(forward % 8), weight, protocol as u8);
            }
        }
        table.notes.push(text.clone());
        table.origin.push_str(&text);
        if let Some(daemon) = table.daemons.values_mut().next() {
            daemon.interface = text;
        }
        let declared = meaning(&import::write(&table).unwrap());
        for (key, wanted) in &declared.services {
            prop_assert_eq!(&wanted.settings, &table.services[key].settings);
            for (server, settings) in wanted.servers.iter() {
                prop_assert_eq!(Some(settings), table.services[key].servers.get(server));
            }
        }
    }

    /// Arbitrary text never ends in a panic, nor in a file that is not valid.
    #[test]
    fn arbitrary_text_is_survived(text in prop_oneof![
        any::<String>(),
        vec(select(vec![
            "ipvsadm", "-A", "-a", "-t", "-u", "-f", "192.0.2.1:80", "[2001:db8::1]:80", "-r", "203.0.113.1", "-m", "-R",
            "<<EOF", "\nEOF\n", "\n", "-1", "$X", "X=", "for x in a b; do", "done", "case x in", ")", "(", ";;", "esac",
            "\"", "'", "`", "$(", "${", "}", "{", "\\", "#", "&", "|", ";", "<", "virtual_server 192.0.2.1 80 {\n",
            "real_server 203.0.113.1 80 {\n", "}\n", "weight", "[[[[[[[[[[[[", "\u{2028}", "\u{1b}",
        ]), 0..60).prop_map(|words| words.join(" ")),
    ]) {
        for origin in [Origin::IpvsadmSave, Origin::KeepalivedConf] {
            if let Ok(table) = import::parse(origin, "source", &text, ask) {
                let written = import::write(&table).unwrap();
                meaning(&written);
                prop_assert!(written.chars().all(|letter| letter == '\n' || !letter.is_control()), "{:?}", written);
            }
        }
    }
}
