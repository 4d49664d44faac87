//! `import` beside `ipvsadm`: on a kernel with IPVS, `plan` finds nothing to do after it.
//!
//! Owns tables that exist and what is imported of them, and scripts beside what they make by themselves; leaves each
//! source's language to `anywhere::import`, and what a valid file does to the kernel to `services`.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::anywhere::import::comments;
use crate::support::tables::{Expected, POOL, Random, cases, random_service};
use crate::support::{Host, LVS_NOTIFY, wait_for};

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
        "  - {address: 203.0.113.10, label: lo:7, interface: d0}\n  - 2001:db8::10\n",
        "\narp: off\n",
        "  timeouts: {tcp: 1000s, tcp_fin: 60s, udp: 30s}\n",
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
        "and two run here",
        "ipvsadm --start-daemon master --mcast-interface d0 --syncid 7",
        "-m -w 5 127.0.0.1 cannot be a VIP",
        "ipvsadm -a -t 127.0.0.1:80 -r 10.0.0.11:80 -m -w 5",
    ] {
        assert!(told.contains(words), "{words}\n{file}");
    }
}

/// Scripts with their arguments that can only be known by running them.
const SCRIPTS: [(&str, &str); 9] = [
    (
        "",
        r"#!/bin/sh
IPVSADM=$(which ipvsadm)
VIP=192.0.2.1
$IPVSADM -A -t $VIP:80 -s rr
$IPVSADM -a -t $VIP:80 -r 198.51.100.1:80 -m",
    ),
    (
        "",
        r#"#!/bin/sh
sudo -n ipvsadm -A -t 192.0.2.1:80 -s rr
timeout 5 ipvsadm -A -t 192.0.2.2:80 -s rr
ip netns exec lb ipvsadm -A -t 192.0.2.3:80 -s rr
env LC_ALL=C ipvsadm -A -t 192.0.2.4:80 -s rr
sh -c "ipvsadm -A -t 192.0.2.5:80 -s rr"
out=$(ipvsadm -A -t 192.0.2.6:80 -s rr)"#,
    ),
    ("blue", BRANCHES),
    ("green", BRANCHES),
    (
        "",
        r"#!/bin/sh
case $(hostname) in
 guest) VIP=192.0.2.1; W=10;;
 *) VIP=192.0.2.2; W=20;;
esac
ipvsadm -A -t $VIP:80 -s rr
ipvsadm -a -t $VIP:80 -r 198.51.100.1:80 -m -w $W",
    ),
    (
        "",
        r"#!/bin/bash
VIP=192.0.2.1
ipvsadm -A -t $VIP:80 -s rr
for ((i=51;i<=53;i++)); do ipvsadm -a -t $VIP:80 -r 198.51.100.$i:80 -m; done
i=81
while [ $i -lt 83 ]; do ipvsadm -a -t $VIP:80 -r 198.51.100.$i:80 -m; i=$((i+1)); done",
    ),
    (
        "",
        r"#!/bin/sh
ipvsadm -A -t 192.0.2.1:80 -s rr
ipvsadm -a -t 192.0.2.1:80 -r 198.51.100.1:80 -m
ipvsadm -C
ipvsadm -A -t 192.0.2.1:80 -s rr
ipvsadm -a -t 192.0.2.1:80 -r 198.51.100.2:80 -m",
    ),
    (
        "",
        r"#!/bin/sh
ipvsadm-restore <<'END'
# web
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 1
END",
    ),
    // Without a #! line, as a shell would run it.
    ("-c --limit", "ipvsadm -A -f $# -s wrr"),
];
const BRANCHES: &str = r#"#!/bin/sh
if [ "$1" = blue ]; then
  VIP=192.0.2.1
else
  VIP=192.0.2.2
fi
ipvsadm -A -t $VIP:80 -s rr
ipvsadm -a -t $VIP:80 -r 198.51.100.1:80 -m"#;

/// What nobody but its own programs may change about a host.
fn state(host: &Host) -> String {
    host.sh("ipvsadm -Sn; ipvsadm -Ln --timeout; ipvsadm -Ln --daemon; ip -o link; ip -o address; ip route
        sysctl net.ipv4.vs net.ipv4.ip_forward net.ipv4.conf kernel.hostname kernel.panic vm.swappiness; ls / /etc /root /run /tmp")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_script_comes_out_as_what_it_makes() {
    let (host, itself, other) = (director(), bare_director(), bare_director());
    // A MASTER with services of its own.
    host.ok("ipvsadm -A -t 203.0.113.10:80 -s rr");
    let before = state(&host);
    for (arguments, script) in SCRIPTS {
        for place in [&host, &itself] {
            place.write("/run/test/notify", script);
            place.ok("chmod +x /run/test/notify");
        }
        let imported = host.lvs(&format!("import --run /run/test/notify {arguments}"));
        assert_eq!(imported.status, 0, "{script}\n{}", imported.all());
        itself.ok("ipvsadm -C");
        itself.sh(&format!("/run/test/notify {arguments}"));
        other.ok("ipvsadm -C");
        other.write("/run/test/script.yaml", &imported.stdout);
        other.lvs_ok("master -c /run/test/script.yaml");
        let (made, found) = (other.ok("ipvsadm -Sn"), itself.ok("ipvsadm -Sn"));
        assert!(!found.is_empty(), "{script}");
        assert_eq!(sorted(&made), sorted(&found), "{script}\n{}", imported.all());
    }
    assert_eq!(state(&host), before);
}

/// What `--from ipvsadm-save` refuses, and tells to give to ipvsadm.
#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn ipvsadm_itself_reads_what_was_written_by_hand() {
    let host = director();
    host.write(
        "/etc/lvs-notify/rules",
        "--add-service -t 203.0.113.10:80\n-at 203.0.113.10:80 -r 10.0.0.11 -w5 -x 10\n-E -t 203.0.113.10:80 -s rr\n",
    );
    let refused = host.lvs("import --from ipvsadm-save /etc/lvs-notify/rules");
    assert!(
        refused.status == 1 && refused.stderr.contains("import --run sh -c 'ipvsadm -R <"),
        "{}",
        refused.all()
    );
    let file = host.sh(&format!("{LVS_NOTIFY} import --run sh -c 'ipvsadm -R </etc/lvs-notify/rules'"));
    for words in ["address: 203.0.113.10:80\n    scheduler: rr\n", "weight: 5, upper_threshold: 10"] {
        assert!(file.contains(words), "{words}\n{file}");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn addresses_parameters_timeouts_and_daemons_of_a_script() {
    let host = director();
    // As while MASTER: what keepalived and the last run have put there is not the script's.
    host.address("203.0.113.10/32", "d0");
    host.ok("sysctl -qw net.ipv4.vs.conntrack=1");
    host.write("/etc/lvs-notify/rules", "-A -t [2001:db8::10]:80 -s wrr\n");
    host.write("/etc/lvs-notify/common.sh", "VIPS=(203.0.113.10 203.0.113.11)\n");
    host.write(
        "/etc/lvs-notify/notify.sh",
        r#"#!/bin/bash -e
. "$(dirname "$0")/common.sh"
ipvsadm=$(command -v ipvsadm)
modprobe ip_vs; modprobe ip_vs_wlc
own=$(ip -4 -o address show dev d0 | sed 's/.*inet \([0-9.]*\).*/\1/')
[ "$own" = 10.1.1.1 ]
for vip in "${VIPS[@]}"; do
    ip address add "$vip/32" dev lo label lo:3
    $ipvsadm -A -t "$vip:80"
    while read -r server; do $ipvsadm -a -t "$vip:80" -r "$server" -m; done < <(printf '10.1.1.%d\n' {11..12})
done
ip address add 203.0.113.11/24 dev d0
ip address add 203.0.113.99/32 dev d0
ipvsadm -R </etc/lvs-notify/rules
echo 1 >/proc/sys/net/ipv4/vs/expire_nodest_conn
echo 2 >/proc/sys/net/ipv4/conf/all/arp_ignore
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.lo.arp_announce=2
ipvsadm --set 1000 0 30
ipvsadm --start-daemon master --mcast-interface d0 --syncid 7
echo pid >/run/notify.pid; echo log >/tmp/notify.log
logger "became MASTER" || true
arping -q -c 1 -U -I d0 203.0.113.11
! kill $(cat /run/keepalived.pid) 2>/dev/null
"#,
    );
    let before = state(&host);
    let refused = host.lvs("import --run /etc/lvs-notify/notify.sh");
    assert!(refused.status == 1 && refused.stdout.is_empty(), "{}", refused.all());
    assert!(refused.stderr.contains("chmod +x it"), "{}", refused.all());
    host.sh("chmod +x /etc/lvs-notify/notify.sh");
    let imported = host.lvs("import --run /etc/lvs-notify/notify.sh");
    assert_eq!(imported.status, 0, "{}", imported.all());
    assert_eq!(state(&host), before);
    let file = &imported.stdout;
    for words in [
        "  - {address: 203.0.113.10, label: lo:3}\n",
        "  - {address: 203.0.113.11, label: lo:3, interface: d0}\n",
        "  - 2001:db8::10\n",
        "\narp: off\n",
        "  timeouts: {tcp: 1000s, tcp_fin: 120s, udp: 30s}\n",
        "  sysctl: {expire_nodest_conn: 1}\n",
        "  sync_daemon: {interface: d0, id: 7",
        "      - 10.1.1.12:80\n",
    ] {
        assert!(file.contains(words), "{words}\n{file}");
    }
    let told = comments(file);
    for words in [
        "Addresses that no service names; those that fwmark services stand for belong into `vips`: 203.0.113.99 on d0.",
        "routes, firewall rules",
        "As they are here: net.ipv4.conf.all.arp_ignore 2; without this line",
    ] {
        assert!(told.contains(words), "{words}\n{file}");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_script_reaches_nothing_of_the_host() {
    let host = director();
    host.ok("ipvsadm -A -t 203.0.113.10:80 -s rr");
    let _ = std::fs::remove_file("/var/lib/test.socket");
    let _daemon = UnixListener::bind("/var/lib/test.socket").unwrap();
    let mut victim = host.start("sleep 2001");
    host.write(
        "/run/test/wild",
        r#"#!/bin/bash
ipvsadm -C
ipvsadm -A -t 192.0.2.1:80
ip address flush dev d0; ip link set d0 down; ip address flush dev lo
for file in /root/mark /etc/mark /mark /var/lib/mark; do echo x >$file && echo "WRITTEN $file"; done
for file in /run/mark /tmp/mark /dev/mark; do echo x >$file || echo "REFUSED $file"; done
for name in kernel/panic vm/swappiness; do echo 7 >/proc/sys/$name && echo "SET $name"; done
echo 7 >/proc/sys/net/ipv4/conf/all/arp_ignore || echo "REFUSED arp_ignore"
mount -o remount,rw / && echo "MOUNTED"
hostname other && echo "NAMED"
echo x >/sys/class/net/d0/ifalias && echo "SET ifalias"
[ -S /var/lib/test.socket ] && echo "SOCKET"
[ -e /dev/log ] && echo "LOG"
logger "from the wild script"
read -r line && echo "INPUT"
setsid sleep 2002 >/dev/null 2>&1 &
kill -9 "$1" && echo "KILLED"
pkill -9 sleep; kill -9 1; kill -9 -1
setsid sleep 2003 &
echo "the end" >&2
exit 3
"#,
    );
    host.ok("chmod +x /run/test/wild");
    let before = state(&host);
    let ran = host.lvs(&format!("import --run /run/test/wild {}", victim.pid()));
    assert_eq!(state(&host), before, "{}", ran.all());
    assert_eq!(ran.status, 1, "{}", ran.all());
    for words in ["the end\n", "/run/test/wild ended with exit status: 3"] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
    let forbidden = ["WRITTEN", "REFUSED", "SET", "MOUNTED", "NAMED", "SOCKET", "LOG", "INPUT", "KILLED"];
    assert!(!forbidden.iter().any(|word| ran.stderr.contains(word)), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("\n# PERHAPS INCOMPLETE: /run/test/wild ended with exit status: 3.\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("- address: 192.0.2.1:80\n"), "{}", ran.stdout);
    assert!(
        !std::fs::read_to_string("/var/log/messages").unwrap_or_default().contains("from the wild script")
    );
    assert!(lives("sleep 2001") && !lives("sleep 2002") && !lives("sleep 2003"));
    victim.signal(Signal::SIGKILL);
    victim.wait();
    std::fs::remove_file("/var/lib/test.socket").unwrap();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_script_ends_with_its_time_or_with_who_asked() {
    let host = bare_director();
    host.write("/run/test/slow", "trap '' INT TERM HUP\nipvsadm -A -t 192.0.2.1:80 -s rr\nsleep 2004\n");
    host.ok("chmod +x /run/test/slow");
    let ran = host.lvs("import --limit 8s --run /run/test/slow");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(
        ran.stderr.contains("/run/test/slow was stopped after 8 s; `--limit DURATION`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("INCOMPLETE") && ran.stdout.contains("- address: 192.0.2.1:80\n"),
        "{}",
        ran.stdout
    );
    assert!(!lives("sleep 2004"));

    let mut asked = host.start(&format!("{LVS_NOTIFY} import --run /run/test/slow"));
    wait_for("the script", Duration::from_secs(60), || lives("sleep 2004"));
    asked.signal(Signal::SIGTERM);
    asked.wait();
    wait_for("the script's end", Duration::from_secs(5), || !lives("sleep 2004"));

    // What cannot be run is told, as a shell tells it.
    host.write("/run/test/slow", "#!/no/interpreter\n");
    let ran = host.lvs("import --run /run/test/slow");
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("/run/test/slow ended with exit status: 12"), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("# PERHAPS INCOMPLETE") && ran.stdout.contains("virtual_services: []"),
        "{}",
        ran.stdout
    );
}

/// Whether a command runs on this machine, in whatever namespace.
fn lives(command: &str) -> bool {
    let list = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = list.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(command))
}
