//! The real keepalived with the mistakes that `check` finds: what it really does with them.
//!
//! Owns the proof that a rule's consequence is true, and that `check` finds the very file in which it was seen. The
//! rules' other cases are in `lint`. The judges are keepalived's own messages, `ip`, `nft`, `ipvsadm`, and a
//! program in lvs-notify's place that writes down how it was called.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{Background, Host, LVS_NOTIFY, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const CONF: &str = r#"
global_defs {
    script_user root
    enable_script_security
    vrrp_higher_prio_send_advert true
}
vrrp_instance VI_1 {
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 1
    virtual_ipaddress {
        192.0.2.100/32 dev lo label lo:0
    }
    notify_master "/run/test/lvs-notify master VI_1"
    notify_backup "/run/test/lvs-notify backup VI_1"
    notify_fault "/run/test/lvs-notify fault VI_1"
    notify_stop "/run/test/lvs-notify stop VI_1"
    notify_master_rx_lower_pri "/run/test/lvs-notify master VI_1"
}
"#;

const FILE: &str = "\
version: 1
interface: eth0
vips: [192.0.2.100]
virtual_services:
  - {address: 192.0.2.100:80, scheduler: rr, real_servers: [192.0.2.11:80]}
";

/// A director and the switch that its only interface ends in.
pub(crate) struct Lab {
    pub(crate) director: Host,
    switch: Host,
    daemon: Option<Background>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let (director, switch) = (Host::new("director"), Host::new("switch"));
        director.link("eth0", &switch, "port");
        director.address("192.0.2.1/24", "eth0");
        director.desire("VI_1", FILE);
        // Whoever it is run as, it can write that down.
        director.write("/run/test/log", "");
        director.write("/run/test/lvs-notify", "#!/bin/sh\necho \"$(id -u) $*\" >>/run/test/log\n");
        let mode = |path: &str, mode| {
            std::fs::set_permissions(director.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("/run/test/log", 0o666);
        mode("/run/test/lvs-notify", 0o755);
        Self { director, switch, daemon: None }
    }

    /// keepalived.conf with pieces replaced; `check` must find exactly these rules in it. Gives its findings.
    pub(crate) fn conf(&self, edits: &[(&str, &str)], rules: &[&str]) -> Vec<Value> {
        let mut text = CONF.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        self.director.write("/run/test/keepalived.conf", &text);
        let path = self.director.path("/run/test/keepalived.conf");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let line = format!(
            "{LVS_NOTIFY} check --json --host --keepalived-conf /run/test/keepalived.conf /etc/lvs-notify/VI_1.yaml"
        );
        let told = self.director.run(&line);
        let json: Value = serde_json::from_str(&told.stdout).expect(&told.stderr);
        let findings = json["findings"].as_array().unwrap();
        let mut found: Vec<&str> = findings.iter().map(|one| one["rule"].as_str().unwrap()).collect();
        // What the machine of the tests lacks is not keepalived's concern.
        found.retain(|rule| *rule != "E50");
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, rules, "{}\n{text}", told.stdout);
        findings.clone()
    }

    /// `keepalived -t`: its exit status and what it says.
    fn verdict(&self) -> (i32, String) {
        let ran = self.director.run("keepalived --config-test=/run/test/says -f /run/test/keepalived.conf");
        let says = self.director.read("/run/test/says");
        self.director.ok("rm -f /run/test/says");
        (ran.status, says)
    }

    pub(crate) fn start(&mut self, what: &str) {
        // keepalived 2.3 does not start while another one's file of any kind is there, BFD's too.
        let line = format!(
            "keepalived --dont-fork {what} -f /run/test/keepalived.conf -p /run/test/keepalived.pid \
             -r /run/test/vrrp.pid -c /run/test/checkers.pid -b /run/test/bfd.pid"
        );
        self.daemon = Some(self.director.start(&line));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            daemon.wait();
        }
    }

    /// How the program in lvs-notify's place was called: user and arguments.
    fn calls(&self) -> Vec<String> {
        self.director.read("/run/test/log").lines().map(str::to_owned).collect()
    }

    fn called(&self, line: &str) {
        wait_for(line, PATIENCE, || self.calls().iter().any(|call| call == line));
    }

    fn has_vip(&self) -> bool {
        !self.director.ok("ip -o address show to 192.0.2.100").is_empty()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

const MASTER: &str = "notify_master \"/run/test/lvs-notify master VI_1\"";
const BACKUP: &str = "notify_backup \"/run/test/lvs-notify backup VI_1\"";
const FAULT: &str = "    notify_fault \"/run/test/lvs-notify fault VI_1\"\n";
const STOP: &str = "    notify_stop \"/run/test/lvs-notify stop VI_1\"\n";

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn what_keepalived_says_of_a_file_is_not_enough() {
    let lab = Lab::new();
    let missing = MASTER.replace("/run/test/lvs-notify", "/run/test/nothing/lvs-notify");
    let bare = MASTER.replace('"', "");
    let twice = format!("{MASTER}\n    {MASTER}");
    // keepalived 2.1 ends with 0 whatever it finds, and does not look for the scripts' user.
    lab.conf(&[("notify_fault", "notify_falt")], &["E37", "E61"]);
    let judges = lab.verdict().0 != 0;
    for (edits, rules, status, says) in [
        (&[][..], &[][..], 0, ""),
        (&[(MASTER, missing.as_str())], &["E04"], 0, ""),
        (&[(MASTER, bare.as_str())], &["E01"], 0, ""),
        (&[("notify_fault", "notify_falt")], &["E37", "E61"], 5, "Unknown keyword 'notify_falt'"),
        (&[(MASTER, twice.as_str())], &["E61"], 5, "already specified"),
        (&[("    enable_script_security\n", "")], &["W19"], 6, "SECURITY VIOLATION"),
        (&[("    script_user root\n", "")], &["E02"], 5, "Unable to set default user keepalived_script"),
        (&[("interface eth0", "interface lo")], &["E61", "W40"], 5, "cannot use a loopback interface"),
    ] {
        lab.conf(edits, rules);
        let (found, told) = lab.verdict();
        println!("{rules:?}: keepalived -t ends with {found}\n{told}");
        let status = if judges { status } else { 0 };
        let says = if !judges && rules == ["E02"] { "" } else { says };
        assert!(told.contains(says) && found == status, "{rules:?}, expected {status}: {told}");
    }
}

/// What no rule is about, keepalived is asked for: after a `{` that it ignores, the scripts below it are unknown to it.
#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn a_brace_that_keepalived_ignores_is_told_without_what_is_lost() {
    let lab = Lab::new();
    let server = "virtual_server 192.0.2.101 80 {\n  lvs_sched rr\n  lvs_method NAT\n  real_server 192.0.2.11 80 {\n    \
                  SMTP_CHEKC {\n    }\n  }\n  real_server 192.0.2.12 80 {\n    weight 2\n  }\n}\nvrrp_instance";
    for (from, to, line, first) in [
        ("virtual_ipaddress {", "virtual_ipadress {", 13, "Unknown keyword 'virtual_ipadress'"),
        ("priority 150", "priority ${PRIO}", 11, "invalid number '$'"),
        ("vrrp_instance", server, 11, "Unknown keyword 'SMTP_CHEKC'"),
    ] {
        let found = lab.conf(&[(from, to)], &["E61"]);
        println!("{found:#?}");
        let what = found.iter().find(|one| one["rule"] == "E61").unwrap();
        assert_eq!((&what["line"], &what["file"]), (&line.into(), &"/run/test/keepalived.conf".into()));
        let told = what["what"].as_str().unwrap();
        assert!(told.starts_with(first) && told.contains("Unexpected '{' - ignoring"), "{told}");
    }
    // What a variable with another name next to it becomes; and on a line with a rule, the rule is told.
    let found = lab.conf(&[("192.0.2.100/32", "$VIP/32")], &["E61"]);
    assert!(found.iter().any(|one| one["what"].as_str().unwrap().contains("invalid IP")), "{found:#?}");
    assert_eq!(lab.director.ok("ls /run/test"), "keepalived.conf\nlog\nlvs-notify\n");
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn an_unquoted_argument_is_lost_and_there_is_no_shell() {
    let mut lab = Lab::new();
    let bare = BACKUP.replace('"', "");
    let shell = MASTER.replace("VI_1\"", "VI_1 > /run/test/shell\"");
    lab.conf(&[(BACKUP, &bare), (MASTER, &shell)], &["E01", "E17"]);
    lab.start("--vrrp");
    lab.called("0 master VI_1 > /run/test/shell");
    assert!(!lab.calls().iter().any(|call| call.contains("backup")), "{:?}", lab.calls());
    assert_eq!(lab.director.run("test -e /run/test/shell").status, 1);
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn definitions_and_conditions_are_seen_through() {
    let mut lab = Lab::new();
    let text = "$WHO=master\n@^nosuchid notify_master \"/run/test/lvs-notify ${WHO} VI_1\"\n\
                @nosuchid notify_master \"/run/test/lvs-notify backup VI_1\"";
    lab.conf(&[(MASTER, text)], &[]);
    lab.start("--vrrp");
    lab.called("0 master VI_1");
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn vrrp_strict_drops_what_is_sent_to_the_vip() {
    for more in ["", "    accept\n"] {
        let mut lab = Lab::new();
        let strict = "global_defs {\n    vrrp_strict\n";
        lab.conf(
            &[("global_defs {\n", strict), ("    state BACKUP\n", &format!("    state BACKUP\n{more}"))],
            &["E05"],
        );
        lab.start("--vrrp");
        lab.called("0 master VI_1");
        let rules = lab.director.ok("nft list ruleset");
        println!("{more}\n{rules}");
        assert!(rules.contains("192.0.2.100") && rules.contains("drop"), "{rules}");
    }
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn a_lost_link_calls_only_fault_and_an_end_only_stop() {
    let mut lab = Lab::new();
    lab.conf(&[(FAULT, ""), (STOP, "")], &["E37"]);
    lab.start("--vrrp");
    lab.called("0 master VI_1");
    let before = lab.calls().len();
    lab.switch.ok("ip link set port down");
    wait_for("keepalived takes its VIP down", PATIENCE, || !lab.has_vip());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lab.calls().len(), before, "nobody is told of the lost link: {:?}", lab.calls());
    lab.switch.ok("ip link set port up");
    wait_for("keepalived is MASTER again", PATIENCE, || lab.has_vip());
    let before = lab.calls().len();
    lab.stop();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!lab.has_vip());
    let after = lab.calls();
    assert!(after.iter().skip(before).all(|call| call.ends_with("master VI_1")), "{after:?}");

    lab.conf(&[], &[]);
    lab.start("--vrrp");
    lab.called("0 master VI_1");
    lab.switch.ok("ip link set port down");
    lab.called("0 fault VI_1");
    lab.stop();
    lab.called("0 stop VI_1");
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn an_address_of_its_own_is_removed_at_the_start() {
    let mut lab = Lab::new();
    lab.director.desire("VI_1", &FILE.replace("vips", "backup: {vips: keep}\nvips"));
    lab.director.address("192.0.2.100/32", "lo");
    // BACKUP for long enough to look.
    lab.conf(&[("advert_int 1", "advert_int 20")], &["E08"]);
    lab.start("--vrrp");
    wait_for("the VIP is gone", PATIENCE, || !lab.has_vip());
    lab.called("0 backup VI_1");
    assert!(!lab.has_vip());
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn an_address_of_its_own_that_is_removed_costs_it_master() {
    let mut lab = Lab::new();
    lab.conf(&[("100/32 dev lo", "100/24 dev lo")], &["E35"]);
    lab.start("--vrrp");
    lab.called("0 master VI_1");
    lab.director.ok("ip address del 192.0.2.100/24 dev lo");
    let masters = |lab: &Lab| lab.calls().iter().filter(|call| call.contains("master")).count();
    wait_for("keepalived gives up MASTER and takes it again", PATIENCE, || masters(&lab) >= 2);
    println!("{:?}", lab.calls());
}

#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn an_address_on_lo_is_announced_by_nobody() {
    for (device, rules) in [("lo label lo:0", &[][..]), ("eth0", &["W36"])] {
        let mut lab = Lab::new();
        lab.conf(&[("dev lo label lo:0", &format!("dev {device}"))], rules);
        let _tcpdump = lab.switch.start("tcpdump -nU -i port -w /run/test/arp arp");
        wait_for("tcpdump listens", PATIENCE, || lab.switch.path("/run/test/arp").exists());
        lab.start("--vrrp");
        lab.called("0 master VI_1");
        std::thread::sleep(Duration::from_secs(2));
        let told = lab.switch.ok("tcpdump -nr /run/test/arp");
        println!("on {device}: {told}");
        assert_eq!(told.contains("192.0.2.100"), device == "eth0", "{told}");
    }
}

/// Two directors that cannot hear each other are both MASTER; then they can again.
#[test]
#[ignore = "needs root and keepalived: run tests/run"]
fn the_master_that_stays_after_a_split_is_told_by_two_keywords_only() {
    let script = ("    notify_master_rx_lower_pri \"/run/test/lvs-notify master VI_1\"\n", "");
    let answer = ("    vrrp_higher_prio_send_advert true\n", "");
    for edits in [vec![], vec![script], vec![answer]] {
        let told = edits.is_empty();
        let (mut one, mut two) = (Lab::new(), Lab::new());
        one.switch.ok("ip link add bridge type bridge");
        one.switch.ok("ip link set bridge up");
        two.director.ok("ip link del eth0");
        two.director.link("eth0", &one.switch, "port2");
        two.director.address("192.0.2.2/24", "eth0");
        one.switch.ok("ip link set port master bridge");
        let rules: &[&str] = if told { &[] } else { &["I27"] };
        one.conf(&edits, rules);
        two.conf(&[&edits[..], &[("priority 150", "priority 100")]].concat(), rules);
        one.start("--vrrp");
        two.start("--vrrp");
        one.called("0 master VI_1");
        two.called("0 master VI_1");
        let before = one.calls().len();
        let lost = two.calls().len();
        one.switch.ok("ip link set port2 master bridge");
        wait_for("the second one is BACKUP", PATIENCE, || two.calls().len() > lost);
        std::thread::sleep(Duration::from_secs(2));
        println!("{told}: {:?} {:?}", one.calls(), two.calls());
        // Without an answer it depends on who speaks first: mostly the one that stays.
        if told || edits.contains(&script) {
            assert_eq!(one.calls().len() > before, told, "{:?}", one.calls());
        }
    }
}
