//! Virtual services on a kernel with IPVS, judged by ipvsadm.
//!
//! Owns: every key of the desired-state file that ends in the IPVS table, its timeouts, parameters or
//! sync daemon; random sequences of files; what belongs to others; repair of changes made by hand;
//! connections that live on; the order of real servers. Leaves addresses, ARP and files that cannot
//! be used to `netns.rs`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::tables::{A, Expected, POOL, R, Random, cases, random_service};
use crate::support::{Host, LVS_NOTIFY, netlink_messages, wait_for};

const VIP: &str = "203.0.113.10";
const VIP6: &str = "2001:db8::10";

/// The top of every file; `extra` adds keys.
fn file(extra: &str, services: &[&str]) -> String {
    let list: String = services.iter().map(|service| format!("\n  - {service}")).collect();
    let list = if list.is_empty() { " []".to_owned() } else { list };
    format!("version: 1\nvips: [{VIP}, \"{VIP6}\"]\nallow_empty: true\n{extra}\nvirtual_services:{list}\n")
}

fn director() -> Host {
    let host = Host::new("director");
    host.ok("modprobe ip_vs");
    host.ok("ip link add d0 type dummy");
    host.ok("ip link set d0 up");
    host.address("10.1.1.1/24", "d0");
    host
}

/// The IPVS table as `ipvsadm --save`, one sorted line for each service and server.
fn table(host: &Host) -> Vec<String> {
    sorted(host.ok("ipvsadm -Sn").lines())
}

fn sorted<T: ToString>(lines: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut list: Vec<String> = lines.into_iter().map(|line| line.to_string().trim().to_owned()).collect();
    list.sort();
    list
}

/// Thresholds, which `--save` forgets: "SERVICE SERVER UPPER LOWER".
fn thresholds(host: &Host) -> Vec<String> {
    let mut service = String::new();
    let mut list = Vec::new();
    for line in host.ok("ipvsadm -Ln --thresholds").lines().skip(3) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["->", server, upper, lower, ..] => list.push(format!("{service} {server} {upper} {lower}")),
            ["FWM", mark, "IPv6", ..] => service = format!("FWM {mark} IPv6"),
            [protocol, name, ..] => service = format!("{protocol} {name}"),
            _ => panic!("{line}"),
        }
    }
    sorted(list)
}

fn apply(host: &Host, yaml: &str) {
    host.desire("VI_1", yaml);
    let ran = host.lvs("master");
    assert_eq!(ran.status, 0, "{}\n{yaml}", ran.all());
}

/// Neither `plan` nor a second `master` finds anything to do.
fn settled(host: &Host, what: &str) {
    let plan = host.lvs("plan");
    assert_eq!(plan.status, 0, "{what}: {}", plan.all());
    let again = host.lvs_ok("master");
    assert!(again.contains("in sync, no change"), "{what}: {again}");
}

/// Runs `lvs-notify COMMAND` under strace; gives the IPVS commands (numbers of `linux/ip_vs.h`) that
/// change something, in order, with the family of their service.
fn ipvs_commands(host: &Host, command: &str) -> Vec<(u8, u8)> {
    host.ok(&format!("strace -f -e trace=sendmsg -e write=all -o /run/test/trace {LVS_NOTIFY} {command}"));
    let messages = netlink_messages(&host.read("/run/test/trace"));
    // The controller's kind is 16; rtnetlink has no version 1 in the second byte.
    let generic = messages.iter().filter(|(kind, body)| *kind > 16 && body.get(1..4) == Some(&[1, 0, 0]));
    let commands: Vec<(u8, u8)> = generic
        .map(|(_, body)| {
            let command = body[0];
            // generic header (4), nest (4), attribute header (4), family
            (command, if command < 8 && command != 4 { body[12] } else { 0 })
        })
        .collect();
    assert!(!commands.is_empty(), "not even a dump");
    // Dumps and queries are 4, 8, 11, 13 and 15.
    commands.into_iter().filter(|(command, _)| ![4, 8, 11, 13, 15].contains(command)).collect()
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn every_key_of_the_file_reaches_the_kernel() {
    let host = director();
    let mut cases = cases();
    // Newer kernels only.
    if host.run("modprobe -q ip_vs_twos").status == 0 {
        cases.push((
            format!("{{address: {A}, scheduler: twos, real_servers: []}}"),
            vec![format!("-A -t {A} -s twos")],
        ));
    }
    for (service, lines) in &cases {
        apply(&host, &file("", &[service]));
        assert_eq!(table(&host), sorted(lines), "{service}");
        settled(&host, service);
    }
    // All that can stand together, from nothing.
    let mut keys = BTreeSet::new();
    let together: Vec<_> =
        cases.iter().rev().filter(|(_, lines)| keys.insert(lines[0].split(" -s ").next().unwrap())).collect();
    host.lvs_ok("backup");
    assert_eq!(table(&host), [""; 0]);
    apply(&host, &file("", &together.iter().map(|(service, _)| service.as_str()).collect::<Vec<_>>()));
    assert_eq!(table(&host), sorted(together.iter().flat_map(|(_, lines)| lines)));
    settled(&host, "all together");
    println!("{} services one by one, {} together", cases.len(), together.len());
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn thresholds_reach_the_kernel() {
    let host = director();
    for (keys, shown) in [
        ("upper_threshold: 1000, lower_threshold: 800", "1000 800"),
        ("upper_threshold: 1000", "1000 0"),
        ("upper_threshold: 7, lower_threshold: 7", "7 7"),
        ("weight: 1", "0 0"),
    ] {
        let server = format!("{{address: {A}, real_servers: [{{address: {R}, {keys}}}]}}");
        apply(&host, &file("", &[&server]));
        assert_eq!(thresholds(&host), [format!("TCP {A} {R} {shown}")]);
        settled(&host, keys);
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn timeouts_parameters_and_the_sync_daemon_reach_the_kernel() {
    let host = director();
    let timeouts = || host.ok("ipvsadm -Ln --timeout").trim().to_owned();
    for (keys, shown) in [
        ("{tcp: 20m, tcp_fin: 90s, udp: 1h}", "1200 90 3600"),
        ("{tcp: 15m}", "900 90 3600"),
        ("{tcp_fin: 2m, udp: 300}", "900 120 300"),
    ] {
        apply(&host, &file(&format!("ipvs: {{timeouts: {keys}}}"), &[]));
        assert_eq!(timeouts(), format!("Timeout (tcp tcpfin udp): {shown}"));
        settled(&host, keys);
    }
    let parameters = [
        ("conntrack", "1"),
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "1"),
        ("sloppy_tcp", "1"),
        ("sync_threshold", "5 100"),
        ("sync_refresh_period", "10"),
        ("backup_only", "0"),
        ("drop_entry", "1"),
        ("conn_reuse_mode", "2"),
        ("snat_reroute", "0"),
    ];
    let all: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    apply(&host, &file(&format!("ipvs: {{sysctl: {{{}}}}}", all.join(", ")), &[]));
    for (name, value) in parameters {
        let found = host.ok(&format!("sysctl -n net.ipv4.vs.{name}"));
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), value, "{name}");
    }
    settled(&host, "sysctl");

    // What ipvsadm does not show is the kernel's default.
    let daemons = || sorted(host.ok("ipvsadm -Ln --daemon").lines());
    for (keys, shown) in [
        ("{interface: d0, id: 51}", "(mcast=d0, syncid=51, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)"),
        (
            "{interface: d0, id: 52, max_len: 1200, group: 224.0.0.90, port: 9000, ttl: 3}",
            "(mcast=d0, syncid=52, maxlen=1200, group=224.0.0.90, port=9000, ttl=3)",
        ),
        (
            "{interface: d0, id: 52, max_len: 1200, group: \"ff02::90\", port: 9000, ttl: 3}",
            "(mcast=d0, syncid=52, maxlen=1200, group=ff02::90, port=9000, ttl=3)",
        ),
    ] {
        let service = format!("{{address: {A}, real_servers: [{R}]}}");
        apply(&host, &file(&format!("ipvs: {{sync_daemon: {keys}}}"), &[&service]));
        assert_eq!(daemons(), [format!("master sync daemon {shown}")]);
        settled(&host, keys);
        for role in ["backup", "fault", "stop"] {
            host.lvs_ok(role);
            assert_eq!(daemons(), [format!("backup sync daemon {shown}")], "{role}");
            assert_eq!(host.lvs("plan").status, 0, "{role}");
        }
    }
    apply(&host, &file("", &[]));
    assert_eq!(daemons(), [""; 0], "ours, so it goes when it is no longer declared");
    host.ok("ipvsadm --start-daemon backup --mcast-interface d0 --syncid 9");
    host.lvs_ok("backup");
    host.lvs_ok("master");
    assert_eq!(daemons().len(), 1, "somebody else's");
}

/// Services of somebody else, with servers.
const FOREIGN: [&str; 6] = [
    "-A -t 198.51.100.1:80 -s wrr -p 120",
    "-a -t 198.51.100.1:80 -r 10.0.0.11:80 -m -w 3",
    "-a -t 198.51.100.1:80 -r 10.0.0.12:80 -g -w 4",
    "-A -f 99 -s rr",
    "-a -f 99 -r 10.0.0.11:0 -m -w 5",
    "-A -t [2001:db8:ff::1]:80 -s sh -b sh-port",
];

fn make_foreign(host: &Host) {
    for line in FOREIGN {
        host.ok(&format!("ipvsadm {line}"));
    }
    assert_eq!(table(host), sorted(FOREIGN));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn any_sequence_of_files_ends_in_what_the_last_one_says() {
    const FILES: usize = 40;
    let mut services = 0;
    let seeds = [1, 2];
    for seed in seeds {
        println!("seed {seed}");
        let host = director();
        make_foreign(&host);
        let mut random = Random(seed);
        for step in 0..FILES {
            let mut expected = Expected::default();
            let chosen: BTreeSet<usize> = (0..random.below(7)).map(|_| random.below(POOL.len())).collect();
            for index in &chosen {
                random_service(&mut random, *index, &mut expected);
            }
            services += chosen.len();
            let yaml = file("", &expected.services.iter().map(String::as_str).collect::<Vec<_>>());
            apply(&host, &yaml);
            let wanted = sorted(expected.table.iter().map(String::as_str).chain(FOREIGN));
            assert_eq!(table(&host), wanted, "seed {seed}, file {step}:\n{yaml}");
            let known = thresholds(&host);
            let ours: Vec<_> = known
                .into_iter()
                .filter(|line| !line.contains("198.51.100.1:") && !line.starts_with("FWM 99 "))
                .collect();
            assert_eq!(ours, sorted(&expected.thresholds), "seed {seed}, file {step}:\n{yaml}");
            let plan = host.lvs("plan");
            assert_eq!(plan.status, 0, "seed {seed}, file {step}: {}", plan.all());
        }
        host.lvs_ok("backup");
        assert_eq!(table(&host), sorted(FOREIGN));
    }
    println!("{} sequences, {} files applied, {services} services", seeds.len(), seeds.len() * FILES);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn what_belongs_to_others_survives_every_command() {
    let host = director();
    make_foreign(&host);
    let service = format!("{{address: {A}, scheduler: rr, real_servers: [{R}]}}");
    let mark = "{fwmark: 7, scheduler: rr, real_servers: []}";
    host.desire("VI_1", &file("", &[&service, mark]));
    let mut with_ours: Vec<String> = FOREIGN.iter().map(|&line| line.to_owned()).collect();
    with_ours.extend([
        format!("-A -t {A} -s rr"),
        format!("-a -t {A} -r {R} -m -w 1"),
        "-A -f 7 -s rr".into(),
    ]);
    for (command, ours) in [
        ("master", true),
        ("backup", false),
        ("apply", false),
        ("master", true),
        ("fault", false),
        ("master", true),
        ("apply", true),
        ("stop", false),
    ] {
        host.lvs_ok(command);
        assert_eq!(table(&host), if ours { sorted(&with_ours) } else { sorted(FOREIGN) }, "{command}");
    }
    // A service on a declared VIP is ours, whoever made it; so is a declared mark in either family.
    host.ok("ipvsadm -A -u 203.0.113.10:999 -s rr");
    host.ok("ipvsadm -A -f 7 -6 -s rr");
    host.lvs_ok("master");
    assert_eq!(table(&host), sorted(&with_ours));
    // `exclusive` removes them, and on the way the table of a family is never empty.
    host.lvs_ok("backup");
    host.desire("VI_1", &file("ipvs: {exclusive: true}", &[&service]));
    let commands = ipvs_commands(&host, "master");
    let mut count = FOREIGN.iter().filter(|line| line.starts_with("-A") && !line.contains('[')).count();
    assert_eq!(count, 2);
    // Family 2 only: lvs-notify loads schedulers with a request of family 10 that must fail.
    for (command, _) in commands.iter().filter(|(_, family)| *family == 2) {
        count = if *command == 1 { count + 1 } else { count - usize::from(*command == 3) };
        assert!(count > 0, "{commands:?}");
    }
    assert_eq!(count, 1, "{commands:?}");
    assert!(!commands.iter().any(|(command, _)| *command == 17), "flushed: {commands:?}");
    assert_eq!(table(&host), sorted(&with_ours[6..8]));
    host.lvs_ok("backup");
    assert_eq!(table(&host), [""; 0]);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn changes_made_by_hand_are_repaired() {
    let host = director();
    let first = format!(
        "{{address: {A}, scheduler: rr, persistence: 5m, real_servers: [{R}, {{address: 10.0.0.12:80, weight: 3, upper_threshold: 9}}]}}"
    );
    let second = "{address: \"[2001:db8::10]:80\", scheduler: sh, real_servers: [\"[2001:db8:1::11]:80\"]}";
    apply(&host, &file("ipvs: {timeouts: {tcp: 10m}, sysctl: {conntrack: 1}}", &[&first, second]));
    let state = || {
        (
            table(&host),
            thresholds(&host),
            host.ok("ipvsadm -Ln --timeout"),
            host.ok("sysctl -n net.ipv4.vs.conntrack"),
        )
    };
    let before = state();
    for command in [
        "ipvsadm -E -t 203.0.113.10:80 -s wrr -p 300",
        "ipvsadm -E -t 203.0.113.10:80 -s rr",
        "ipvsadm -E -t 203.0.113.10:80 -s none -p 300",
        "ipvsadm -e -t 203.0.113.10:80 -r 10.0.0.12:80 -m -w 9 -x 9",
        "ipvsadm -e -t 203.0.113.10:80 -r 10.0.0.12:80 -m -w 3",
        "ipvsadm -e -t 203.0.113.10:80 -r 10.0.0.12:80 -g -w 3 -x 9",
        "ipvsadm -d -t 203.0.113.10:80 -r 10.0.0.11:80",
        "ipvsadm -a -t 203.0.113.10:80 -r 10.0.0.13:80 -m",
        "ipvsadm -D -t [2001:db8::10]:80",
        "ipvsadm -A -u 203.0.113.10:53 -s rr",
        "ipvsadm -C",
        "ipvsadm --set 60 60 60",
        "sysctl -w net.ipv4.vs.conntrack=0",
    ] {
        host.ok(command);
        assert_ne!(state(), before, "{command}");
        assert_eq!(host.lvs("plan").status, 3, "{command}");
        assert_eq!(host.lvs("status").status, 3, "{command}");
        host.lvs_ok("apply");
        // `--set` also changed what the file leaves to the kernel.
        host.ok("ipvsadm --set 0 120 300");
        assert_eq!(state(), before, "{command}");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn what_this_kernel_lacks_stops_nothing_else() {
    let host = director();
    make_foreign(&host);
    let before = table(&host);
    let good = format!("{{address: {A}, scheduler: rr, real_servers: [{R}]}}");
    let six = "{address: \"[2001:db8::10]:80\", scheduler: rr, real_servers: []}";
    let bad = "{address: 203.0.113.10:443, scheduler: nosuch, real_servers: []}";
    let expected =
        |services: &[&str]| sorted(before.iter().map(String::as_str).chain(services.iter().copied()));
    let (a, r, b) =
        (format!("-A -t {A} -s rr"), format!("-a -t {A} -r {R} -m -w 1"), "-A -t [2001:db8::10]:80 -s rr");
    let has = |vip: &str| host.ok("ip -o address show dev lo").contains(vip);

    // A BACKUP finds out, and does not keep the file as a good one.
    host.desire("VI_1", &file("", &[&good, six, bad]));
    host.lvs_ok("backup");
    let kept = host.path("/var/lib/lvs-notify/VI_1.yaml");
    assert!(!kept.exists(), "a file that no MASTER could carry out is a good one");
    // Nothing to fall back to: all is made that can be, and only the VIP that would refuse clients is kept back.
    let ran = host.lvs("master");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("scheduler `nosuch`"), "{}", ran.all());
    assert_eq!(table(&host), expected(&[&a, &r, b]));
    assert!(!has("203.0.113.10/32") && has("2001:db8::10/128"));
    // With a good copy, that is carried out.
    apply(&host, &file("", &[&good]));
    assert!(kept.exists());
    host.lvs_ok("backup");
    host.desire("VI_1", &file("", &[six, bad]));
    let ran = host.lvs("master");
    assert_eq!(ran.status, 4, "{}", ran.all());
    assert!(
        ran.all().contains("this kernel refuses") && ran.all().contains("scheduler `nosuch`"),
        "{}",
        ran.all()
    );
    assert_eq!(table(&host), expected(&[&a, &r]));
    assert!(has("203.0.113.10/32"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn real_servers_stand_in_ascending_order_after_a_cold_load() {
    let host = director();
    let servers: Vec<String> =
        [14, 9, 100, 11, 12].iter().map(|number| format!("10.0.0.{number}:80")).collect();
    let service =
        |list: &[String]| format!("{{address: {A}, scheduler: sh, real_servers: [{}]}}", list.join(", "));
    let order = || -> Vec<String> {
        let text = host.ok("ipvsadm -Ln --nosort");
        let servers = text.lines().filter_map(|line| line.trim().strip_prefix("-> 10.0.0."));
        servers.map(|line| line.split(':').next().unwrap().to_owned()).collect()
    };
    for turn in 0..servers.len() {
        let mut list = servers.clone();
        list.rotate_left(turn);
        apply(&host, &file("", &[&service(&list)]));
        assert_eq!(order(), ["9", "11", "12", "14", "100"], "the order in the file does not matter");
        host.lvs_ok("backup");
    }
}

/// A byte to the server and back.
fn alive(connection: &mut TcpStream, byte: u8) {
    connection.write_all(&[byte]).expect("sending");
    let mut answer = [0];
    connection.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, [byte]);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn open_connections_live_through_a_second_master_and_an_edit() {
    let (host, client, server) = (director(), Host::new("client"), Host::new("server"));
    host.link("eth0", &client, "eth0");
    host.link("eth1", &server, "eth0");
    host.address("203.0.113.1/24", "eth0");
    host.address("10.0.0.1/24", "eth1");
    client.address("203.0.113.2/24", "eth0");
    server.address("10.0.0.11/24", "eth0");
    server.ok("ip route add default via 10.0.0.1");
    host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let listener = server.inside(|| TcpListener::bind("10.0.0.11:8080").unwrap()).join().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
            });
        }
    });
    let first = format!("{{address: {A}, scheduler: rr, real_servers: [10.0.0.11:8080]}}");
    let extra = "interface: eth0\nannounce: {count: 1}";
    apply(&host, &file(extra, &[&first]));
    let connect = || {
        let patience = Duration::from_secs(10);
        let connection = client
            .inside(move || TcpStream::connect_timeout(&A.parse().unwrap(), patience))
            .join()
            .unwrap()
            .expect("connecting");
        connection.set_read_timeout(Some(patience)).unwrap();
        connection
    };
    let mut connection = connect();
    alive(&mut connection, 1);
    let counted = |column: usize| {
        let text = host.ok("ipvsadm -Ln --stats --exact");
        let line =
            text.lines().find(|line| line.contains("-> 10.0.0.11:8080")).expect("the server").to_owned();
        line.split_whitespace().nth(column).unwrap().parse::<u64>().unwrap()
    };
    // The kernel's estimator brings the counters up to date every two seconds.
    wait_for("the connection in the statistics", Duration::from_secs(20), || counted(2) == 1);
    let order = host.ok("ipvsadm -Ln --nosort");

    assert_eq!(ipvs_commands(&host, "master"), [], "a second master asks, and changes nothing");
    assert_eq!(host.ok("ipvsadm -Ln --nosort"), order);
    alive(&mut connection, 2);

    let second = "{address: 203.0.113.10:443, scheduler: mh, real_servers: [10.0.0.11:8080]}";
    let weighted = format!(
        "{{address: {A}, scheduler: wrr, real_servers: [{{address: 10.0.0.11:8080, weight: 5}}, 10.0.0.12:8080]}}"
    );
    let steps: [(&[&str], &str); 3] = [
        (&[&first, second], "a service more"),
        (&[&weighted, second], "other settings, a server more"),
        (&[&first], "back again"),
    ];
    for (number, (services, what)) in steps.into_iter().enumerate() {
        apply(&host, &file(extra, services));
        println!("{what}");
        alive(&mut connection, u8::try_from(10 + number).unwrap());
        assert!(counted(2) >= 1, "the statistics start again after: {what}");
        alive(&mut connect(), 99);
    }
    // Without its service a connection waits (the kernel drops its packets); it goes on afterwards.
    apply(&host, &file(extra, &[second]));
    apply(&host, &file(extra, &[&first]));
    alive(&mut connection, 3);
    // Drained: the old one lives, a new one is refused.
    let drained =
        format!("{{address: {A}, scheduler: rr, real_servers: [{{address: 10.0.0.11:8080, weight: 0}}]}}");
    apply(&host, &file(extra, &[&drained]));
    alive(&mut connection, 4);
    let begun = Instant::now();
    let new = client
        .inside(|| TcpStream::connect_timeout(&A.parse().unwrap(), Duration::from_secs(3)))
        .join()
        .unwrap();
    assert!(new.is_err(), "a new connection to a drained server after {:?}", begun.elapsed());
}
