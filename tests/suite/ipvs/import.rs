//! `import` beside `ipvsadm`: on a kernel with IPVS, `plan` finds nothing to do after it.
//!
//! Owns tables that exist and what is imported of them; leaves each source's language to `anywhere::import`, and what
//! a valid file does to the kernel to `services`.

use std::collections::BTreeSet;

use crate::anywhere::import::comments;
use crate::support::tables::{Expected, POOL, Random, cases, random_service};
use crate::support::{Host, LVS_NOTIFY};

const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];

/// A director as it is while MASTER: VIPs on lo, ARP parameters set.
fn director() -> Host {
    let host = bare_director();
    for name in ["all", "lo"] {
        host.ok(&format!("sysctl -qw net.ipv4.conf.{name}.arp_ignore=1 net.ipv4.conf.{name}.arp_announce=2"));
    }
    host
}

fn bare_director() -> Host {
    let host = Host::new("director");
    host.ok("modprobe ip_vs");
    host.ok("ip link add d0 type dummy");
    host.ok("ip link set d0 up");
    host.address("10.1.1.1/24", "d0");
    for vip in VIPS {
        host.address(&format!("{vip}/{}", if vip.contains(':') { 128 } else { 32 }), "lo");
    }
    host
}

/// Puts lines in the form of `ipvsadm -S` into an empty table.
fn load(host: &Host, lines: &[String]) {
    host.ok("ipvsadm -C");
    host.sh(&format!("ipvsadm -R <<'END'\n{}\nEND", lines.join("\n")));
}

/// `import`, then `check` and `plan`, for the first so many sources: `ipvsadm -S` loses thresholds, so a table with
/// them has only the kernel.
fn settled(host: &Host, what: &str, sources: usize) {
    let all = [
        ("kernel", "$LVS import"),
        ("numbers", "ipvsadm -Sn | $LVS import --from ipvsadm-save"),
        ("names", "ipvsadm -S | $LVS import --from ipvsadm-save -"),
    ];
    let sources = &all[..sources];
    // One shell for all: in an emulator each process takes its time.
    let mut script = format!("LVS={LVS_NOTIFY}; cd /run/test; set -e -o pipefail\n");
    for (name, source) in sources {
        script += &format!("{source} >{name}.yaml; $LVS plan master -c {name}.yaml\n");
    }
    // 3: what `check` may find about this host is not the file's fault.
    script += "$LVS check kernel.yaml || [ $? = 3 ]\n";
    let ran = host.command("bash").args(["-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let empty = told.matches(" MASTER: no differences\n").count();
    let files: Vec<String> =
        sources.iter().map(|(name, _)| host.read(&format!("/run/test/{name}.yaml"))).collect();
    assert!(ran.status.success() && empty == sources.len(), "{what}: {told}\n{}", files.join("\n"));
    assert!(!files.concat().contains("Not written"), "{what}: {}", files.join("\n"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn nothing_differs_after_import_of_any_single_setting() {
    let host = director();
    let mut tables: Vec<Vec<String>> = cases().into_iter().map(|(_, lines)| lines).collect();
    // What ipvsadm takes beyond what files of this suite say.
    let more = "
        -A -f 7 -s rr; -a -f 7 -r 10.0.0.11:80 -g -w 1; -a -f 7 -r 10.0.0.12:81 -i -w 0
        -A -f 7 -s rr; -A -f 7 -6 -s mh -b flag-1; -a -f 7 -6 -r [2001:db8:1::11]:0 -m -w 65535
        -A -t 203.0.113.10:80; -a -t 203.0.113.10:80 -r 10.0.0.11
        -A -t 203.0.113.10:0 -p; -a -t 203.0.113.10:0 -r 10.0.0.11 -m; -a -t 203.0.113.10:0 -r 10.0.0.11:8080 -m
        -A -t [2001:db8::10]:80 -s rr -p 2678400 -M 1; -a -t [2001:db8::10]:80 -r 10.0.0.11:80 -i
        -A -t 203.0.113.10:80 -p 1 -M 128.0.0.0; -a -t 203.0.113.10:80 -r 127.0.0.1:80 -m
        -A -u 203.0.113.10:5060 -s rr -p 60 --pe sip -o
        -A --sctp-service 203.0.113.10:80 -s rr; -A -t 203.0.113.10:80 -s rr; -A -u 203.0.113.10:80 -s rr";
    tables
        .extend(more.trim().lines().map(|line| line.split(';').map(|part| part.trim().to_owned()).collect()));
    for table in &tables {
        load(&host, table);
        settled(&host, &table.join("; "), 3);
    }
    // Marks that `ipvsadm -S` prints as negative numbers.
    host.ok("ipvsadm -C");
    host.ok("ipvsadm -A -f 4294967295 -s rr");
    host.ok("ipvsadm -A -f 2147483648 -6 -s rr");
    assert!(host.ok("ipvsadm -Sn").contains("-f -1 "));
    settled(&host, "negative marks", 3);
    host.ok("ipvsadm -C");
    settled(&host, "an empty table", 3);
    println!("{} tables, each from the kernel, by numbers and by names", tables.len() + 2);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn nothing_differs_after_import_of_random_tables() {
    let mut services = 0;
    for seed in [11, 12] {
        let host = director();
        let mut random = Random(seed);
        for table in 0..10 {
            let mut expected = Expected::default();
            let chosen: BTreeSet<usize> = (0..random.below(8)).map(|_| random.below(POOL.len())).collect();
            for index in &chosen {
                random_service(&mut random, *index, &mut expected);
            }
            services += chosen.len();
            let what = format!("seed {seed}, table {table}");
            load(&host, &expected.table);
            settled(&host, &what, 2);
            let limited: Vec<String> =
                expected.table.iter().map(|line| with_thresholds(line, &expected)).collect();
            load(&host, &limited);
            settled(&host, &what, 1);
        }
    }
    println!("20 tables with {services} services, with and without thresholds");
}

/// A line of a table with the thresholds that its server should have.
fn with_thresholds(line: &str, expected: &Expected) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let Some(place) = words.iter().position(|word| *word == "-r") else { return line.to_owned() };
    let option = words[1..place].join(" ");
    let (_, _, name, _) = POOL.iter().find(|(_, known, ..)| *known == option).unwrap();
    let begin = format!("{name} {} ", words[place + 1]);
    let found = expected.thresholds.iter().find_map(|line| line.strip_prefix(&begin)).unwrap();
    let (upper, lower) = found.split_once(' ').unwrap();
    format!("{line} -x {upper} -y {lower}")
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn names_of_hosts_and_ports_lead_back() {
    let host = director();
    host.write(
        "/run/test/hosts",
        "203.0.113.10 vip.example.net\n10.0.0.11 rs1.example.net\n10.0.0.12 rs2.example.net\n",
    );
    host.ok("mount --bind /run/test/hosts /etc/hosts");
    let lines = [
        "-A -t 203.0.113.10:80 -s rr",
        "-a -t 203.0.113.10:80 -r 10.0.0.11:443 -m",
        "-a -t 203.0.113.10:80 -r 10.0.0.12:80 -g",
        "-A -u 203.0.113.10:53 -s rr",
    ];
    load(&host, &lines.map(str::to_owned));
    let saved = host.ok("ipvsadm -S");
    assert!(saved.contains("-t vip.example.net:http -r rs1.example.net:https"), "{saved}");
    settled(&host, "names", 3);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn from_the_kernel_nothing_is_lost() {
    let shown = |host: &Host| {
        ["-Sn", "-Ln --thresholds", "-Ln --timeout", "-Ln --daemon", "-Ln --tun-info"]
            .map(|options| host.ok(&format!("ipvsadm {options}")))
    };
    // As it was before lvs-notify came: ARP parameters of the kernel, a VIP on the interface, another label.
    let host = bare_director();
    host.ok("ip address del 203.0.113.10/32 dev lo");
    host.ok("ip address add 203.0.113.10/32 dev lo label lo:7");
    host.address("203.0.113.10/24", "d0");
    let lines = [
        "-A -t 203.0.113.10:80 -s sh -p 90 -M 255.255.0.0 -b sh-port",
        "-a -t 203.0.113.10:80 -r 10.0.0.12:80 -i -w 3 -x 10 -y 5 --tun-type gue --tun-port 6080 --tun-csum",
        "-a -t 203.0.113.10:80 -r 10.0.0.11:8080 -m -w 0",
        "-A -t [2001:db8::10]:80 -s wrr",
        "-A -f 2147483650 -6 -s rr -o",
    ];
    load(&host, &lines.map(str::to_owned));
    host.ok("ipvsadm --set 1000 60 30");
    host.ok("ipvsadm --start-daemon master --mcast-interface d0 --syncid 7 --sync-maxlen 1300 --mcast-group 224.0.0.90 --mcast-port 9000 --mcast-ttl 3");
    host.ok("sysctl -qw net.ipv4.vs.conntrack=1");
    host.sh("sysctl -qw net.ipv4.vs.sync_threshold='5 100'");
    settled_from_kernel(&host);
    let file = host.read("/run/test/kernel.yaml");
    for words in [
        "  - {address: 203.0.113.10, label: \"lo:7\", interface: d0}\n  - 2001:db8::10\n",
        "arp: off   # as they are here: arp_ignore/arp_announce all 0/0, d0 0/0, lo 0/0",
        "  timeouts: {tcp: 1000s, tcp_fin: 1m, udp: 30s}\n",
        "conntrack: 1",
        "  sync_daemon: {interface: d0, id: 7, max_len: 1300, group: 224.0.0.90, port: 9000, ttl: 3}\n",
        "upper_threshold: 10, lower_threshold: 5, tunnel: {type: gue, port: 6080, checksum: csum}",
    ] {
        assert!(file.contains(words), "{words}\n{file}");
    }
    // On another machine it makes the same.
    let other = bare_director();
    other.write("/etc/lvs-notify/VI_1.yaml", &file);
    other.lvs_ok("master");
    assert_eq!(shown(&other), shown(&host));
}

fn settled_from_kernel(host: &Host) {
    host.sh(&format!("{LVS_NOTIFY} import >/run/test/kernel.yaml"));
    let plan = host.lvs("plan master -c /run/test/kernel.yaml");
    assert_eq!(plan.status, 0, "{}\n{}", plan.all(), host.read("/run/test/kernel.yaml"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_standby_and_what_cannot_be_said() {
    let host = bare_director();
    for vip in VIPS {
        host.ok(&format!("ip address del {vip}/{} dev lo", if vip.contains(':') { 128 } else { 32 }));
    }
    host.ok("ipvsadm -A -t 203.0.113.10:80 -s rr");
    host.ok("ipvsadm --start-daemon backup --mcast-interface d0 --syncid 7");
    host.sh(&format!("{LVS_NOTIFY} import >/run/test/standby.yaml"));
    let plan = host.lvs("plan backup -c /run/test/standby.yaml");
    assert_eq!(plan.status, 0, "{}", plan.all());

    // Both daemons run, and a service that no file takes: they are told and stay as they are.
    host.ok("ipvsadm --start-daemon master --mcast-interface d0 --syncid 7");
    host.ok("ipvsadm -A -t 127.0.0.1:80 -s rr");
    host.ok("ipvsadm -a -t 127.0.0.1:80 -r 10.0.0.11:80 -m -w 5");
    host.ok("ip address add 203.0.113.10/32 dev lo");
    settled_from_kernel(&host);
    let file = host.read("/run/test/kernel.yaml");
    let told = comments(&file);
    for words in [
        "* sync daemon master (--mcast-interface d0 --syncid 7",
        "* tcp 127.0.0.1:80: 127.0.0.1 cannot be a VIP",
        "ipvsadm -a -t 127.0.0.1:80 -r 10.0.0.11:80 -m -w 5",
    ] {
        assert!(told.contains(words), "{words}\n{file}");
    }
}
