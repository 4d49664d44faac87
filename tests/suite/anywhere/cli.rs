//! The command line as it is typed: words, exit statuses, plans without a kernel.
//!
//! Owns what needs neither root nor IPVS; leaves what commands do to a kernel to `netns` and `services`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const FILE: &str = "\
version: 1
interface: eth0
vips: [192.0.2.100]
virtual_services:
  - address: 192.0.2.100:80
    scheduler: rr
    real_servers: [203.0.113.1:80, {address: 203.0.113.2:80, weight: 3}]
";

/// What `status --json` saves on a MASTER that has one real server with another weight, one too
/// many, and somebody else's service.
const SAVED: &str = r#"{"version": 1, "role": "MASTER", "observed": {
  "addresses": [
    {"key": {"interface": "lo", "address": "192.0.2.100"}, "prefix": 24, "label": "lo:0"},
    {"key": {"interface": "eth0", "address": "192.0.2.100"}, "prefix": 24, "label": null}],
  "interfaces": {},
  "parameters": [[{"arp_ignore": "all"}, "0"], [{"arp_ignore": "lo"}, "1"], [{"arp_ignore": "eth0"}, "1"],
    [{"arp_announce": "all"}, "2"], [{"arp_announce": "lo"}, "2"], [{"arp_announce": "eth0"}, "2"]],
  "ipvs": {"services": [
    [{"endpoint": {"address": "192.0.2.100", "port": 80, "protocol": 6}}, {
      "settings": {"scheduler": "rr", "flags": 0, "timeout": 0, "netmask": 4294967295, "engine": ""},
      "servers": [
        [{"address": "203.0.113.1", "port": 80}, {"forward": 0, "weight": 1, "upper_threshold": 0, "lower_threshold": 0, "tunnel": {"kind": 0, "port": 0, "checksum": 0}}],
        [{"address": "203.0.113.2", "port": 80}, {"forward": 0, "weight": 1, "upper_threshold": 0, "lower_threshold": 0, "tunnel": {"kind": 0, "port": 0, "checksum": 0}}],
        [{"address": "203.0.113.3", "port": 80}, {"forward": 0, "weight": 1, "upper_threshold": 0, "lower_threshold": 0, "tunnel": {"kind": 0, "port": 0, "checksum": 0}}]],
      "counters": [[{"address": "203.0.113.3", "port": 80}, {"active": 200, "inactive": 14, "persistent": 0}]]}],
    [{"endpoint": {"address": "198.51.100.7", "port": 25, "protocol": 6}}, {
      "settings": {"scheduler": "wlc", "flags": 0, "timeout": 0, "netmask": 4294967295, "engine": ""},
      "servers": [], "counters": []}]],
    "timeouts": {"tcp": 900, "tcp_fin": 120, "udp": 300}, "daemons": {}}}}"#;

fn scratch(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

fn run(words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lvs-notify"))
        .args(words)
        .env_remove("LVS_NOTIFY_CONFIG")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_plan_needs_no_kernel() {
    let file = scratch("VI_1.yaml", FILE);
    let saved = scratch("saved.json", SAVED);
    let (file, saved) = (file.to_str().unwrap(), saved.to_str().unwrap());
    let (status, text) = run(&["plan", "master", "VI_1", "--config", file, "--current", saved]);
    let expected = "\
~ real server 203.0.113.2:80 of tcp 192.0.2.100:80: weight 1 -> 3
      ipvsadm -e -t 192.0.2.100:80 -r 203.0.113.2:80 -m -w 3
- real server 203.0.113.3:80 of tcp 192.0.2.100:80  (costs 214 connections)
      ipvsadm -d -t 192.0.2.100:80 -r 203.0.113.3:80
~ net.ipv4.conf.all.arp_ignore: 0 -> 1
      sysctl -w 'net.ipv4.conf.all.arp_ignore=1'
+ 192.0.2.100/32 on lo
      ip address add 192.0.2.100/32 dev lo label lo:0
- 192.0.2.100/24 on lo
      ip address del 192.0.2.100/24 dev lo
VI_1 MASTER: 5 differences
";
    assert_eq!((status, text.as_str()), (3, expected));
    let (status, json) = run(&["plan", "--json", "-c", file, "--current", saved]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, json["changes"].as_array().unwrap().len()), (3, 5));
    assert_eq!(json["changes"][1]["connections"], 214);
    let (status, text) = run(&["-c", file, "plan", "backup", "--current", saved]);
    assert_eq!(status, 3);
    let first = text.lines().position(|line| line.starts_with("- 192.0.2.100/24 on lo")).unwrap();
    let later = text.lines().position(|line| line.starts_with("- service tcp 192.0.2.100:80")).unwrap();
    assert!(first < later && !text.contains("198.51.100.7"), "{text}");
}

#[test]
fn exit_statuses_are_those_of_the_table() {
    let good = scratch("good.yaml", FILE);
    let bad = scratch("bad.yaml", &FILE.replace("rr", "none"));
    assert_eq!(run(&["check", good.to_str().unwrap()]).0, 0);
    let (status, text) = run(&["check", bad.to_str().unwrap(), good.to_str().unwrap()]);
    assert_eq!(status, 4);
    assert!(text.contains(":6:16: `none` would refuse every connection") && text.contains("valid"), "{text}");
    assert_eq!(run(&["check", "/nonexistent/VI_9.yaml"]).0, 4);
    assert_eq!(run(&["--version"]).0, 0);
    for words in [&["mastr"][..], &["master", "a/b"], &["master", "--wrong"], &["plan", "slave", "VI_1"], &[]]
    {
        let (status, text) = run(words);
        assert_eq!(status, 2, "{words:?}: {text}");
    }
    assert!(run(&["mastr"]).1.contains("'master'"), "no nearest word");
    let (_, help) = run(&["--help"]);
    for line in lvs_notify::report::EXIT_STATUS.lines() {
        assert!(help.contains(line), "--help lacks {line:?}");
    }
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = scratch("open.yaml", FILE);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (status, text) = run(&["check", file.to_str().unwrap()]);
    assert_eq!(status, 4, "{text}");
    assert!(text.contains("may be written by others (mode 0666); chmod go-w it"), "{text}");
}
