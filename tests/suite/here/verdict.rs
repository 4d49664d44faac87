//! What an operator is told when things went wrong: the role that was asked for last, how it failed, and who suffers.
//!
//! Owns every way in which a takeover or a withdrawal can fail without services: `status`, its exit status, the metrics and
//! the log never say that all is well. Leaves who answers for a VIP to `netns`, and everything with services to `ipvs`.

use super::held_up::{Stopped, director, log_of, logged};
use super::netns::{PATIENCE, VIP, places};
use crate::support::told::assert_told;
use crate::support::{Host, wait_for};

fn assert_well(director: &Host, role: &str) {
    let status = director.lvs("status VI_1");
    let verdict = status.stdout.lines().next().unwrap_or_default();
    assert!(verdict.starts_with(&format!("VI_1: {role} since ")), "{}", status.all());
    assert!(verdict.ends_with(", in sync") && status.status == 0, "{}", status.all());
    // What the last run took is accounted for.
    let json: serde_json::Value = serde_json::from_str(&director.lvs("status VI_1 --json").stdout).unwrap();
    let phases = json["last_run"]["phases"].as_array().unwrap().iter();
    let sum: f64 = phases.map(|phase| phase["milliseconds"].as_f64().unwrap()).sum();
    let all = json["last_run"]["milliseconds"].as_f64().unwrap();
    assert!(sum > 0.95 * all && sum < 1.05 * all, "{sum} of {all} ms: {}", json["last_run"]);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_run_that_was_killed_leaves_no_verdict_of_before() {
    let (director, _neighbour) = director("");
    for (role, words) in
        [("master", "TAKEOVER FAILED: its run, process "), ("backup", "WITHDRAWAL FAILED: its run, ")]
    {
        // Before it has the lock; before it has written down what it will do; in the middle of its changes.
        for call in ["flock", "write", "sendmsg"] {
            director.lvs(&format!("{} VI_1", if role == "master" { "backup" } else { "master" }));
            let run = Stopped::at(call, &director, &format!("{role} VI_1"));
            let shown = director.lvs("status VI_1").stdout;
            let asked =
                shown.lines().next().unwrap().starts_with(&format!("VI_1: {} since", role.to_uppercase()));
            drop(run);
            // A notification counts from its mark on; it is older than that when it was stopped before.
            if asked {
                wait_for("the end of the run", PATIENCE, || {
                    director.lvs("status VI_1").stdout.lines().next().unwrap().contains("FAILED")
                });
                let way = format!("`{role}` is killed before its {call}");
                assert_told(&director, &way, &role.to_uppercase(), words, "");
            }
            director.lvs_ok("apply VI_1");
            if asked {
                assert_well(&director, &role.to_uppercase());
            }
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_takeover_without_a_file_is_told() {
    let (director, _neighbour) = director("");
    director.sh("rm -f /var/lib/lvs-notify/*; echo 'version: 1\n  vips: [' >/etc/lvs-notify/VI_1.yaml");
    let log = log_of(&director);
    assert_eq!(director.lvs("master VI_1").status, 4);
    let told = logged(&log);
    assert!(told.contains("VI_1 MASTER: FAILED: "), "{told}");
    assert_told(&director, "no usable file, and no copy", "MASTER", "TAKEOVER FAILED: ", &told);
    // Leaving needs no file.
    director.lvs("backup VI_1");
    let status = director.lvs("status VI_1");
    assert!(status.stdout.starts_with("VI_1: BACKUP since ") && status.status == 4, "{}", status.all());
    assert!(!status.stdout.contains("FAILED"), "{}", status.all());
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_master_without_keepalived_is_a_problem() {
    let (mut director, _neighbour) = director("");
    director.lvs_ok("master VI_1");
    assert_well(&director, "MASTER");
    director.without_keepalived();
    let (gone, alone) = ("keepalived is gone", "PROBLEM: nobody speaks VRRP here");
    assert_told(&director, gone, "MASTER", alone, "");
    // A BACKUP that cannot take over is one, too; a keepalived that is stopped on purpose says so.
    director.lvs_ok("backup VI_1");
    assert_told(&director, gone, "BACKUP", &format!("{alone}, so this director takes over nothing"), "");
    director.lvs_ok("stop VI_1");
    assert_well(&director, "STOP");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn an_announcement_that_was_not_sent_is_a_problem_until_one_is() {
    let (director, _neighbour) = director("");
    let log = log_of(&director);
    let mute = "setpriv --inh-caps -net_raw --bounding-set -net_raw";
    let ran = director.run(&format!("{mute} {} master VI_1", crate::support::LVS_NOTIFY));
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(!ran.stdout.contains("VIP announced after"), "{}", ran.all());
    let status = director.lvs("status VI_1");
    let words = "PROBLEM: neighbours were not told of the VIPs";
    assert_told(&director, "the announcement cannot be sent", "MASTER", words, &logged(&log));
    assert!(!status.stdout.contains("VIP announced after"), "{}", status.all());
    let metrics = director.lvs("status VI_1 --prometheus").stdout;
    assert!(!metrics.contains("last_run_announced_seconds"), "{metrics}");
    director.lvs_ok("apply VI_1");
    assert_well(&director, "MASTER");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn what_cannot_be_kept_is_a_problem_until_it_is() {
    let (director, _neighbour) = director("arp: {persist: true}");
    let log = log_of(&director);
    for place in ["/var/lib/lvs-notify", "/etc/sysctl.d"] {
        director.sh(&format!("rm -f {place}/*; mount -o remount,ro {place}"));
        assert_eq!(director.lvs("master VI_1").status, 1);
        let words = "PROBLEM: the last run left this undone: ";
        assert_told(&director, &format!("{place} is read-only"), "MASTER", words, &logged(&log));
        director.sh(&format!("mount -o remount,rw {place}"));
        director.lvs_ok("apply VI_1");
        assert_well(&director, "MASTER");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn without_a_role_nothing_is_claimed_and_the_advice_works() {
    let (director, _neighbour) = super::netns::wire("eth0");
    director.desire("VI_1", &super::held_up::with_vips(super::netns::VIP, ""));
    let status = director.lvs("status VI_1");
    assert!(status.stdout.starts_with("VI_1: no role since boot"), "{}", status.all());
    let json: serde_json::Value = serde_json::from_str(&director.lvs("status VI_1 --json").stdout).unwrap();
    assert!(json["role"].is_null(), "{json}");
    // Every command that it names can be carried out.
    let commands: Vec<String> =
        status.stdout.split('`').filter(|word| word.starts_with("lvs-notify ")).map(str::to_owned).collect();
    assert!(!commands.is_empty(), "{}", status.all());
    for command in commands {
        director.lvs_ok(command.trim_start_matches("lvs-notify "));
    }
    assert_well(&director, "BACKUP");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_file_that_the_next_boot_reads_last_is_a_problem() {
    let (director, _neighbour) = director("arp: {persist: true}");
    let (all, eth0) = ("net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.eth0.arp_announce");
    for (file, text, wins) in [
        ("/etc/sysctl.d/99-local.conf", format!("# a remark\n{all} = 0\n"), true),
        ("/etc/sysctl.d/99-local.conf", format!("{all}=1\n"), false),
        ("/etc/sysctl.d/10-local.conf", format!("{all} = 0\n"), false),
        ("/etc/sysctl.d/99-local.conf", "-net/ipv4/conf/eth0/arp_announce=0\n".to_owned(), true),
        ("/etc/sysctl.d/99-local.conf", format!("{all} = 0\n{all} = 1\n"), false),
        ("/etc/sysctl.d/99-local.conf", format!("{eth0} = 2\n{all} = 1\n{eth0} = 0\n"), true),
        ("/etc/sysctl.d/99-local.conf", "net.ipv4.conf.eth1.arp_ignore = 0\n".to_owned(), false),
    ] {
        director.write(file, &text);
        let status = director.lvs("status VI_1");
        let what = format!("{file}: {text}: {}", status.all());
        assert_eq!(
            status.stdout.contains("PROBLEM: the next boot sets a parameter otherwise"),
            wins,
            "{what}"
        );
        assert_eq!(status.status, if wins { 3 } else { 0 }, "{what}");
        // sysctl(8) itself says who wins.
        director.sh("for f in $(ls /etc/sysctl.d/*.conf); do sysctl -q -p $f; done 2>/dev/null; true");
        let differs = director.lvs("plan VI_1").status == 3;
        assert_eq!(differs, wins, "{what}");
        director.ok(&format!("rm {file}"));
        director.lvs_ok("apply VI_1");
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn of_several_instances_each_has_a_line_and_the_worst_counts() {
    let (director, _neighbour) = director("");
    director.lvs_ok("master VI_1");
    let verdicts = director.lvs("status");
    let lines: Vec<&str> = verdicts.stdout.lines().collect();
    assert_eq!(verdicts.status, 0, "{}", verdicts.all());
    let [one, two] = lines[..] else { panic!("{}", verdicts.all()) };
    assert!(
        one.starts_with("VI_1: MASTER since ") && two.starts_with("VI_2: BACKUP since "),
        "{}",
        verdicts.all()
    );
    director.ok(&format!("ip address add {}/32 dev lo", super::held_up::OTHER));
    let verdicts = director.lvs("status");
    assert_eq!(verdicts.status, 3, "{}", verdicts.all());
    assert!(verdicts.stdout.lines().nth(1).unwrap().contains("OUT OF SYNC"), "{}", verdicts.all());
    let json: serde_json::Value = serde_json::from_str(&director.lvs("status --json").stdout).unwrap();
    assert_eq!(
        (json[0]["healthy"].as_bool(), json[1]["healthy"].as_bool()),
        (Some(true), Some(false)),
        "{json}"
    );
    let metrics = director.lvs("status --prometheus").stdout;
    for (instance, healthy) in [("VI_1", 1), ("VI_2", 0)] {
        assert!(
            metrics.contains(&format!("lvs_notify_healthy{{instance=\"{instance}\"}} {healthy}\n")),
            "{metrics}"
        );
    }
    // Every metric is told once, with the samples of all below it.
    let helps: Vec<&str> = metrics.lines().filter(|line| line.starts_with("# HELP ")).collect();
    let names: std::collections::BTreeSet<&&str> = helps.iter().collect();
    assert_eq!(helps.len(), names.len(), "{metrics}");
    let told = director.lvs("apply --all");
    assert!(
        told.status == 0 && told.stdout.contains("VI_1:\n") && told.stdout.contains("VI_2:\n"),
        "{}",
        told.all()
    );
    assert_eq!(director.lvs("status").status, 0);
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_link_that_goes_and_a_new_place_that_is_none_leave_no_vip_behind_and_take_none() {
    let (director, neighbour) = director("");
    // An edit that leads nowhere takes nothing away.
    director.lvs_ok("master VI_1");
    let file = director.read("/etc/lvs-notify/VI_1.yaml");
    director.desire("VI_1", &file.replace("interface: eth0", "interface: eth9"));
    assert_eq!(director.lvs("apply VI_1").status, 1);
    assert!(places(&director, VIP).contains(&"eth0 32".to_owned()));
    assert_told(&director, "an edit to an interface that there is not", "MASTER", "APPLY FAILED: ", "");
    director.desire("VI_1", &file);
    director.lvs_ok("apply VI_1");
    // Renamed, repaired as advised, and left.
    director.ok("ip link set eth0 down");
    director.ok("ip link set eth0 name lan0");
    director.ok("ip link set lan0 up");
    director.lvs("apply VI_1");
    director.lvs("backup VI_1");
    assert!(places(&director, VIP).is_empty(), "{:?}", places(&director, VIP));
    let words = "could not be taken over: eth0 is down or missing";
    assert_told(&director, "a BACKUP's interface is gone", "BACKUP", words, "");
    // On any other link, too, a BACKUP must not answer.
    director.ok("ip link set lan0 down");
    director.ok("ip link set lan0 name eth0");
    director.ok("ip link set eth0 up");
    director.lvs_ok("backup VI_1");
    assert_well(&director, "BACKUP");
    director.link("eth1", &neighbour, "eth1");
    director.ok(&format!("ip address add {VIP}/32 dev eth1"));
    assert_told(&director, "a BACKUP has the VIP on another link", "BACKUP", &format!("{VIP}: PROBLEM"), "");
    assert!(director.lvs("status VI_1").stdout.contains("answers for it on eth1"));
}
