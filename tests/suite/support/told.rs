//! What an operator is told of a director that does not serve as it should: a row of the table that `tests/run` shows.
//!
//! Owns what must agree, whatever went wrong: the first line of `status`, its exit status, the metrics and JSON. Leaves what
//! went wrong to the tests. Used by `verdict` and `status`.

use super::Host;

/// VI_1 has this role, these words are in its verdict, and nothing says that all is well. `log` is what the run's log says of
/// it, when that run came to its end.
pub fn assert_told(host: &Host, way: &str, role: &str, words: &str, log: &str) {
    let status = host.lvs("status VI_1");
    let verdict = status.stdout.lines().next().unwrap_or_default();
    assert!(verdict.starts_with(&format!("VI_1: {role} since ")), "{way}: {}", status.all());
    assert!(verdict.contains(words), "{way}: {words}: {}", status.all());
    assert!(!verdict.contains("in sync") || verdict.contains("PROBLEM"), "{way}: {}", status.all());
    assert!([3, 4].contains(&status.status), "{way}: {}", status.all());
    let metrics = host.lvs("status VI_1 --prometheus").stdout;
    assert!(metrics.contains("lvs_notify_healthy{instance=\"VI_1\"} 0\n"), "{way}: {metrics}");
    let held = format!("lvs_notify_role{{instance=\"VI_1\",role=\"{}\"}} 1\n", role.to_lowercase());
    assert!(metrics.contains(&held), "{way}: {metrics}");
    let json: serde_json::Value = serde_json::from_str(&host.lvs("status VI_1 --json").stdout).unwrap();
    assert_eq!(
        (json["role"].as_str(), json["healthy"].as_bool()),
        (Some(role), Some(false)),
        "{way}: {json}"
    );
    let failed = log.lines().rev().find(|line| line.contains("FAILED"));
    let log = failed.and_then(|line| Some(line.split_once("VI_1")?.1)).unwrap_or(": of no failed run");
    let (_, told) = verdict.split_once("), ").unwrap_or_default();
    println!("told: {way} | {role}, {told} | exit {}, healthy 0 | log{log}", status.status);
}
