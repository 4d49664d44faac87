//! `import`: every source becomes a file that is valid and means what the source says.
//!
//! Owns golden inputs of each source, and the law that writer and reader agree. Leaves imported tables beside real ones
//! to `ipvs::import`, and what a valid file does to the kernel to `services`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::support::LVS_NOTIFY;
use lvs_notify::config::Source;
use lvs_notify::desired::{Declared, Wanted};
use lvs_notify::import::{self, Hosts, Origin, Place, Table};
use lvs_notify::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, Service, ServiceKey, SyncDaemon, Timeouts,
    Tunnel, service_flag,
};
use lvs_notify::reconcile::declared;
use lvs_notify::sorted_map::SortedMap;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// Names as a machine could know them; `/etc/services` and DNS of this one do not matter.
fn hosts() -> Hosts {
    Hosts::new(|database, key| {
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
    })
}

fn yaml(origin: Origin, text: &str) -> String {
    let table = import::parse(origin, "source", text, &hosts()).unwrap();
    import::write(&table).unwrap()
}

/// What a file's text means, as the commands read it.
fn meaning(yaml: &str) -> Declared {
    declared(&Source { name: "written".into(), text: yaml.into() })
        .unwrap_or_else(|why| panic!("{why}\n{yaml}"))
}

/// The services of a file in the form of `ipvsadm -Sn`, thresholds included.
fn rules(yaml: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, wanted) in &meaning(yaml).services {
        lines.push(format!("-A {} {}", key.ipvsadm(), wanted.settings.ipvsadm(key.family())));
        for (server, settings) in &wanted.servers {
            lines.push(format!("-a {} -r {server} {}", key.ipvsadm(), settings.ipvsadm()));
        }
    }
    lines
}

/// Lines that are written, without the comments.
fn keys(yaml: &str) -> String {
    yaml.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// A comment's words, whatever way it was broken.
pub(crate) fn comments(yaml: &str) -> String {
    let lines = yaml.lines().filter_map(|line| line.split_once('#').map(|(_, text)| text));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

const SAVED: &str = "\
# a comment, which ipvsadm-restore takes out
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 203.0.113.1:8080 -m -w 1
-a -t 192.0.2.1:80 -r 203.0.113.2:80 -g -w 3
-a -t 192.0.2.1:80 -r 203.0.113.3:8080 -m -w 0
-A -t 192.0.2.1:443 -s sh -p 300 -M 255.255.255.0 -b sh-fallback,sh-port
-A -u 192.0.2.1:53 -s rr -o
-a -u 192.0.2.1:53 -r 203.0.113.1:53 -g -w 1
-A -u 192.0.2.1:5060 -s rr -p 60 --pe sip
-A --sctp-service 192.0.2.1:9 -s mh -b mh-port
-A -t [2001:db8::1]:80 -s wrr -p 90 -M 64
-a -t [2001:db8::1]:80 -r [2001:db8:1::1]:80 -i -w 1 --tun-type ipip
-a -t [2001:db8::1]:80 -r [2001:db8:1::2]:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t [2001:db8::1]:80 -r [2001:db8:1::3]:80 -i -w 1 --tun-type gre --tun-csum
-A -f 7 -s wlc
-a -f 7 -r 203.0.113.1:0 -g -w 1
-a -f 7 -r 203.0.113.2:80 -g -w 1
-A -f -1 -6 -s lc
-a -f -1 -6 -r [2001:db8:1::1]:0 -m -w 1

ipvsadm -A -t 192.0.2.9:0 -s wlc -p 360
";

#[test]
fn a_save_file_is_read_whole() {
    let written = yaml(Origin::IpvsadmSave, SAVED);
    let expected = "\
version: 1
vips:
  - 192.0.2.1
  - 192.0.2.9
  - 2001:db8::1
virtual_services:
  - address: 192.0.2.1:9
    protocol: sctp
    scheduler: mh
    scheduler_flags: [mh-port]
    real_servers: []
  - address: 192.0.2.1:53
    protocol: udp
    scheduler: rr
    one_packet: true
    forward: dr
    real_servers:
      - 203.0.113.1:53
  - address: 192.0.2.1:80
    scheduler: rr
    real_servers:
      - 203.0.113.1:8080
      - {address: 203.0.113.2:80, weight: 3, forward: dr}
      - {address: 203.0.113.3:8080, weight: 0}
  - address: 192.0.2.1:443
    scheduler: sh
    scheduler_flags: [sh-fallback, sh-port]
    persistence: {timeout: 5m, netmask: 255.255.255.0}
    real_servers: []
  - address: 192.0.2.1:5060
    protocol: udp
    scheduler: rr
    persistence: {timeout: 1m, engine: sip}
    real_servers: []
";
    assert!(keys(&written).starts_with(expected), "{written}");
    // The lines again, but for what is ipvsadm's default and for a mark's sign.
    let mut wanted: Vec<String> = SAVED
        .lines()
        .filter(|line| line.contains('-') && !line.starts_with('#'))
        .map(|line| line.trim_start_matches("ipvsadm ").replace("-f -1 ", "-f 4294967295 "))
        .collect();
    let mut found = rules(&written);
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert!(comments(&written).contains("does not save thresholds"), "{written}");
    assert!(!written.contains("Not written"), "{written}");
}

#[test]
fn options_long_short_joined_and_left_out() {
    let text = "\
ipvsadm --add-service --tcp-service=192.0.2.1:80 --scheduler wrr --persistent
-At 192.0.2.1:81 -srr
-A -t 192.0.2.1:82
-A -t 192.0.2.1:83 -p
-at 192.0.2.1:82 -r 203.0.113.1
-a -t 192.0.2.1:82 -r 203.0.113.2:99
-a -t 192.0.2.1:82 -r 203.0.113.3:99 --masquerading --weight 5 -x 100 --l-threshold=50
--edit-server -t 192.0.2.1:82 -r 203.0.113.1 -m -w 9
-a -t 192.0.2.1:82 -r 203.0.113.4 -m
-d -t 192.0.2.1:82 -r 203.0.113.4
-E -t 192.0.2.1:81 -s lc -p 10
-A -t 192.0.2.1:84
-D -t 192.0.2.1:84
--set 900 0 30
--start-daemon=backup --mcast-interface eth1 --syncid 5 --sync-maxlen 1400 --mcast-group 224.0.0.90 --mcast-port 9000 --mcast-ttl 3
-Ln
";
    // An edited real server of this key is the one with port 82; -g and -i take the service's port.
    let text = text.replace("-r 203.0.113.1 -m -w 9", "-r 203.0.113.1 -g -w 9");
    let written = yaml(Origin::IpvsadmSave, &text);
    assert_eq!(
        rules(&written),
        [
            "-A -t 192.0.2.1:80 -s wrr -p 360",
            "-A -t 192.0.2.1:81 -s lc -p 10",
            "-A -t 192.0.2.1:82 -s wlc",
            "-a -t 192.0.2.1:82 -r 203.0.113.1:82 -g -w 9",
            "-a -t 192.0.2.1:82 -r 203.0.113.2:82 -g -w 1",
            "-a -t 192.0.2.1:82 -r 203.0.113.3:99 -m -w 5 -x 100 -y 50",
            "-A -t 192.0.2.1:83 -s wlc -p 360",
        ]
    );
    let declared = meaning(&written);
    assert_eq!(declared.timeouts, Timeouts { tcp: 900, tcp_fin: 0, udp: 30 });
    assert_eq!(
        declared.daemon.unwrap().ipvsadm(),
        "--mcast-interface eth1 --syncid 5 --sync-maxlen 1400 --mcast-group 224.0.0.90 --mcast-port 9000 --mcast-ttl 3"
    );
    assert!(written.contains("timeouts: {tcp: 15m, udp: 30s}"), "{written}");
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
fn a_line_that_is_not_understood_is_an_error_with_its_place() {
    for (line, words) in [
        ("-A -t nowhere.example.net:80 -s rr", "the host `nowhere.example.net` has no IPv4 address here"),
        ("-A -t 192.0.2.1:gopher -s rr", "`gopher` is neither a port nor a tcp service in /etc/services"),
        ("-A -t 192.0.2.1:80 -s rr -O", "ipvsadm has no option `-O`"),
        ("-A -t 192.0.2.1:80 --schedular rr", "did you mean `scheduler`?"),
        ("-A --xxx-service 192.0.2.1:80 -s rr", "ipvsadm has no option `--xxx-service`"),
        ("-a -t 192.0.2.1:80 -r 203.0.113.1:80 (null) -w 1", "`(null)` is unexpected"),
        ("-a -t 192.0.2.1:80 -r 203.0.113.1:80 -m -w 1", "there is no service tcp 192.0.2.1:80 yet"),
        ("-A -s rr", "there is no service: -t, -u, --sctp-service or -f"),
        ("-A -t 192.0.2.1:80 -s", "--scheduler lacks its value"),
        ("-A -f 0 -s rr", "`0` is not a firewall mark"),
        ("-A -f 4294967296 -s rr", "is not a firewall mark"),
        ("-A -t 192.0.2.1:80 -M 255.0.255.0", "--netmask needs --persistent"),
        ("-A -t 192.0.2.1:80 -s rr -b sh-port", "the scheduler rr has no flag `sh-port`"),
        ("-A -t 192.0.2.1:80 -D", "--add-service and --delete-service cannot be had together"),
        ("-A -t [2001:db8::1 -s rr", "lacks its `]`"),
        ("--set 1 2", "--set takes three numbers"),
        ("-A -t 192.0.2.1:80\u{1b}[31m -s rr", "\\u{1b}"),
        ("hello", "there is no command such as -A or -a"),
    ] {
        let text = format!("# first\n{line}\n");
        let error =
            import::parse(Origin::IpvsadmSave, "rules", &text, &hosts()).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("rules:2: ") && error.contains(words), "{line}: {error}");
        assert!(error.contains("nothing was written") && !error.contains('\u{1b}'), "{error}");
    }
    let twice = "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80\n-Q\n";
    let error =
        import::parse(Origin::IpvsadmSave, "rules", twice, &hosts()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("rules:2: the service tcp 192.0.2.1:80 exists already"), "{error}");
    assert!(error.contains("rules:3: ipvsadm has no option `-Q`"), "{error}");
}

const SCRIPT: &str = r#"#!/bin/bash
# notify script of VI_1
IPVSADM=/sbin/ipvsadm
VIP="192.0.2.1"; export PORT=80
RIPS="203.0.113.1 203.0.113.2"
WEIGHT=`cat /etc/weight`

start_lvs() {
    if [ -n "$1" ]; then logger "starting $1"; fi
    ip addr add $VIP/32 dev lo label lo:0
    echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore
    $IPVSADM -C
    $IPVSADM -A -t ${VIP}:$PORT -s wrr \
        -p 300
    for rip in $RIPS 203.0.113.3; do
        $IPVSADM -a -t $VIP:$PORT -r $rip:$PORT -g -w 2 2>/dev/null || exit 1
    done
    ipvsadm -a -t "$VIP:$PORT" -r 203.0.113.9 -w $WEIGHT
    ipvsadm -R <<EOF
-A -u $VIP:53 -s rr
-a -u $VIP:53 -r 203.0.113.1:53 -m
EOF
    ipvsadm --restore <<-'END'
	-A -f 7 -s rr
	END
    ipvsadm -R < /etc/ipvsadm.rules
}
case "$1" in
    master|MASTER) start_lvs "$1"; ipvsadm --start-daemon master --mcast-interface eth1 --syncid 3 ;;
    backup)
        ipvsadm -C; ipvsadm --start-daemon backup --mcast-interface eth1 --syncid 3
        ;;
    (fault) /sbin/ipvsadm -A -t $VIP:$PORT -s rr ;;
    *) echo "usage: $0 {master|backup}"
esac
arping -c 3 -U -I eth0 $VIP &
"#;

#[test]
fn a_notify_script_is_read_without_a_shell() {
    let written = yaml(Origin::Script, SCRIPT);
    assert_eq!(
        rules(&written),
        [
            "-A -u 192.0.2.1:53 -s rr",
            "-a -u 192.0.2.1:53 -r 203.0.113.1:53 -m -w 1",
            "-A -t 192.0.2.1:80 -s wrr -p 300",
            "-a -t 192.0.2.1:80 -r 203.0.113.1:80 -g -w 2",
            "-a -t 192.0.2.1:80 -r 203.0.113.2:80 -g -w 2",
            "-a -t 192.0.2.1:80 -r 203.0.113.3:80 -g -w 2",
            "-A -f 7 -s rr",
        ],
        "{written}"
    );
    assert_eq!(meaning(&written).daemon.unwrap().ipvsadm(), "--mcast-interface eth1 --syncid 3");
    let told = comments(&written);
    for words in [
        "source:18: `$WEIGHT` has no plain value: ipvsadm -a -t \"$VIP:$PORT\" -r 203.0.113.9 -w $WEIGHT",
        "source:26: the rules come from elsewhere; import that with `--from ipvsadm-save`",
        "source:33: the service tcp 192.0.2.1:80 exists already: /sbin/ipvsadm -A -t $VIP:$PORT -s rr",
        "removes what is declared: lines 12, 31.",
        "source:11: echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
        "source:10: ip addr add $VIP/32 dev lo label lo:0",
        "source:36: arping -c 3 -U -I eth0 $VIP",
    ] {
        assert!(told.contains(words), "{words}\n{written}");
    }
    for words in ["logger", "start_lvs()", "usage:", "esac"] {
        assert!(!told.contains(words), "{words}\n{written}");
    }
}

#[test]
fn loops_functions_and_tests_of_a_shell() {
    let script = r#"
VIPS=(192.0.2.1 192.0.2.2)
function up { ipvsadm -A -t 192.0.2.1:1
  for v in ${VIPS[@]}; do ipvsadm -A -t $v:80 -s rr; done
  msg="several
lines; ipvsadm -A -f 9"
  [[ $1 == a || $2 == b ]] && ipvsadm -A -t 192.0.2.1:2
  for i in 1 2; do for j in 3 4; do ipvsadm -A -f $i$j; done; done
  if ! ipvsadm -L -n | grep -q 192.0.2.1; then sudo ipvsadm -A -t 192.0.2.1:3; fi
  x=$((1+2)); ipvsadm -A -t "192.0.2.1:$x"
  while read rip; do ipvsadm -a -t 192.0.2.1:1 -r $rip; done <rips
  echo 1 >/proc/sys/net/ipv4/ip_forward
}"#;
    let written = yaml(Origin::Script, script);
    let marks = ["13", "14", "23", "24"].map(|mark| format!("-A -f {mark} -s wlc"));
    let ports = ["1", "2", "3"].map(|port| format!("-A -t 192.0.2.1:{port} -s wlc"));
    assert_eq!(rules(&written), [&ports[..], &marks[..]].concat());
    let told: Vec<&str> = written.lines().filter(|line| line.starts_with("#   ")).collect();
    let expected = [
        "source:4: `${VIPS[@]}` has no plain value: for v in ${VIPS[@]}",
        "source:4: `$v` has no plain value: do ipvsadm -A -t $v:80 -s rr",
        "source:10: `$x` has no plain value: ipvsadm -A -t \"192.0.2.1:$x\"",
        "source:11: `$rip` has no plain value: do ipvsadm -a -t 192.0.2.1:1 -r $rip",
        "source:12: echo 1 >/proc/sys/net/ipv4/ip_forward",
    ];
    assert_eq!(told, expected.map(|line| format!("#   {line}")));
}

const KEEPALIVED: &str = "\
global_defs {
    lvs_timeouts tcp 1200 udp 60
    lvs_sync_daemon eth1 VI_1
}
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        192.0.2.1/32 dev lo label lo:0
        2001:db8::1
    }
}
virtual_server 192.0.2.1 80 {
    delay_loop 6
    lvs_sched sh
    sh-port
    lvs_method NAT
    persistence_timeout 300
    persistence_granularity 255.255.255.0
    sorry_server 203.0.113.99 80
    real_server 203.0.113.1 8080 {
        weight 3
        uthreshold 100
        lthreshold 50
        TCP_CHECK {
            connect_timeout 3
        }
    }
    real_server 203.0.113.2 80 {
        lvs_method TUN type gue port 6080 csum
    }
}
virtual_server 2001:db8::1 53 {
    lb_algo rr
    lb_kind DR
    protocol UDP
    ops
    real_server 2001:db8:1::1 53 { weight 0
    }
}
virtual_server_group WEB {
    192.0.2.8-9 443
    192.0.2.16/31 443
    fwmark 5
}
virtual_server group WEB {
    lvs_sched wlc
    lvs_method DR
    real_server 203.0.113.1 443 {
    }
}
virtual_server fwmark 6 {
    lb_kind nat
}
virtual_server group NONE {
}
virtual_server fwmark 9 {
    lvs_sched rr
    mh-port
    persistence_granularity 64
    real_server 2001:db8:1::9 {
    }
}
";

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
    assert!(written.contains("  - {address: 192.0.2.1, interface: eth0}\n"), "{written}");
    assert!(written.contains("  - 192.0.2.8\n"), "{written}");
    let told = comments(&written);
    for words in [
        "No counterpart here: source:14 delay_loop 6; source:20 sorry_server 203.0.113.99 80; source:25 TCP_CHECK of 203.0.113.1",
        "source:52: not written, source:53: `lb_kind nat` is not understood",
        "source:55: not written, there is no virtual_server_group NONE",
        "Health checks have no counterpart",
        "No counterpart here: source:59 mh-port",
    ] {
        assert!(told.contains(words), "{words}\n{written}");
    }
}

#[test]
fn what_a_file_refuses_becomes_a_comment() {
    let text = "\
-A -t 0.0.0.0:80 -s rr
-a -t 0.0.0.0:80 -r 203.0.113.1:80 -m -w 7
-A -t 192.0.2.1:0 -s rr
-A -t 192.0.2.1:80 -s none
-A -t 192.0.2.1:81 -s rr --pe sip
-A -t 192.0.2.1:82 -s rr
-a -t 192.0.2.1:82 -r 203.0.113.1:0 -m
-a -t 192.0.2.1:82 -r 203.0.113.2:82 -m -y 5
-a -t 192.0.2.1:82 -r 203.0.113.3:82 -i --tun-type gue
-a -t 192.0.2.1:82 -r 203.0.113.4:82 -m
-A -u 192.0.2.1:83 -s rr --pe sip
--start-daemon master --mcast-interface eth1 --sync-maxlen 500
";
    let written = yaml(Origin::IpvsadmSave, text);
    assert_eq!(rules(&written), ["-A -t 192.0.2.1:82 -s rr", "-a -t 192.0.2.1:82 -r 203.0.113.4:82 -m -w 1"]);
    assert_eq!(meaning(&written).daemon.unwrap().max_len, None);
    let told = comments(&written);
    for words in [
        "* tcp 0.0.0.0:80: 0.0.0.0 cannot be a VIP",
        "ipvsadm -a -t 0.0.0.0:80 -r 203.0.113.1:80 -m -w 7",
        "* tcp 192.0.2.1:0: port 0 stands for every port",
        "* tcp 192.0.2.1:80: `none` would refuse every connection",
        "* udp 192.0.2.1:83:",
        "* real server 203.0.113.1:0 of tcp 192.0.2.1:82:",
        "* real server 203.0.113.2:82 of tcp 192.0.2.1:82: the lower threshold must not be above",
        "* real server 203.0.113.3:82 of tcp 192.0.2.1:82: gue needs a `port`",
        "* sync daemon (--mcast-interface eth1 --syncid 0 --sync-maxlen 500): 500 is out of range",
    ] {
        assert!(told.contains(words), "{words}\n{written}");
    }
}

#[test]
fn an_empty_source_says_that_empty_is_meant() {
    for origin in [Origin::IpvsadmSave, Origin::KeepalivedConf, Origin::Script] {
        let written = yaml(origin, "");
        assert!(meaning(&written).services.is_empty());
        assert!(written.contains("allow_empty: true\nvirtual_services: []\n"), "{written}");
    }
}

/// Runs the program with something on its standard input.
fn run(words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(LVS_NOTIFY)
        .args(words)
        .env_remove("LVS_NOTIFY_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn scratch(name: &str, content: &str) -> String {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // In the guest there is no build directory.
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("import-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_command_reads_files_and_standard_input() {
    let (status, written, _) = run(&["import", "--from", "ipvsadm-save"], SAVED);
    assert_eq!(status, 0);
    let file = scratch("written.yaml", &written);
    let (_, told, _) = run(&["check", &file], "");
    assert!(told.contains(&format!("{file}: valid; VIPs: 3, services: 9\n")), "{told}");
    let saved = scratch("saved", SAVED);
    let (status, again, _) = run(&["import", "--from", "ipvsadm-save", &saved], "");
    assert_eq!((status, rules(&again)), (0, rules(&written)));
    assert_eq!(run(&["import", "--from", "script", "-"], SCRIPT).0, 0);
    let conf = scratch("keepalived.conf", KEEPALIVED);
    let (status, written, _) = run(&["import", "--from", "keepalived-conf", &conf], "");
    assert_eq!(status, 0);
    assert!(comments(&written).contains(&format!("{conf}:14 delay_loop 6")), "{written}");

    let (status, written, told) = run(&["import", "--from", "ipvsadm-save", "-"], "-A -t 192.0.2.1:x\n");
    assert_eq!((status, written.as_str()), (1, ""));
    assert!(told.contains("standard input:1: `x` is neither a port"), "{told}");
    assert_eq!(run(&["import", &saved], "").0, 2);
    assert_eq!(run(&["import", "--from", "iptables"], "").0, 2);
    assert_eq!(run(&["import", "--from", "script", "/nonexistent"], "").0, 1);
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

fn servers(key: ServiceKey) -> impl Strategy<Value = SortedMap<Endpoint, RealServer>> {
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
        prop::option::of(1024..=u16::MAX),
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
            .prop_map(|(key, settings, servers)| (key, Wanted { settings, servers }))
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
            places: places
                .into_iter()
                .map(|(vip, (label, interface))| {
                    let label = label.filter(|_| vip.is_ipv4()).map(str::to_owned);
                    (
                        vip,
                        Place {
                            label,
                            interface: interface.map(str::to_owned),
                            remark: odd.then(|| "x: [{".to_owned()),
                        },
                    )
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
            arp_off: odd.then(|| "all 0/0".to_owned()),
            ..Table::default()
        },
    )
}

/// What the reader of a file must refuse beside a daemon: servers of the other family.
fn without_mixed(mut table: Table) -> Table {
    if !table.daemons.is_empty() {
        for (key, wanted) in &mut table.services {
            let same = |(server, _): &(&Endpoint, &RealServer)| Family::of(server.address) == key.family();
            wanted.servers =
                wanted.servers.iter().filter(same).map(|(server, settings)| (*server, *settings)).collect();
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
        prop_assert_eq!(declared.arp.is_none(), table.arp_off.is_some());
        for vip in &declared.vips {
            let place = table.places.get(&vip.address).cloned().unwrap_or_default();
            prop_assert_eq!(vip.interface.as_ref(), place.interface.as_ref());
            if place.label.is_some() {
                prop_assert_eq!(vip.label.as_ref(), place.label.as_ref());
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
            if let Some((_, server)) = entry.servers.iter_mut().next() {
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
            for (server, settings) in &wanted.servers {
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
        for origin in [Origin::IpvsadmSave, Origin::KeepalivedConf, Origin::Script] {
            if let Ok(table) = import::parse(origin, "source", &text, &hosts()) {
                let written = import::write(&table).unwrap();
                meaning(&written);
                prop_assert!(written.chars().all(|letter| letter == '\n' || !letter.is_control()), "{:?}", written);
            }
        }
    }
}
