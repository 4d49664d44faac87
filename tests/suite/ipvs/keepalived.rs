//! The real keepalived beside other people's services: what its virtual_servers do with them.
//!
//! Owns the proof of the rules of `check` about two managers of one table; the rules that need no IPVS are proved in
//! `here::keepalived`, whose director this is.

use crate::here::keepalived::{Lab, PATIENCE};
use crate::support::wait_for;

#[test]
#[ignore = "needs root, keepalived and a kernel with IPVS: run tests/run"]
fn keepalived_deletes_services_that_both_manage_and_flushes_all() {
    let server = |address: &str| {
        format!(
            "virtual_server {address} 80 {{\n  lvs_sched wrr\n  lvs_method NAT\n  protocol TCP\n  real_server 192.0.2.11 80 {{\n  }}\n}}\n"
        )
    };
    // The second one is keepalived's alone, and shows that it has done its work.
    let servers = server("192.0.2.100") + &server("192.0.2.101");
    for (flush, rules) in [("", &["E20"][..]), ("    lvs_flush\n", &["E20", "E21"])] {
        let mut lab = Lab::new();
        for line in [
            "-A -t 192.0.2.100:80 -s rr",
            "-a -t 192.0.2.100:80 -r 192.0.2.11:80 -m",
            "-A -t 198.51.100.7:25 -s rr",
        ] {
            lab.director.ok(&format!("ipvsadm {line}"));
        }
        let globals = format!("global_defs {{\n{flush}");
        lab.conf(
            &[("global_defs {\n", &globals), ("vrrp_instance", &format!("{servers}vrrp_instance"))],
            rules,
        );
        lab.start("--check");
        let table = |lab: &Lab| lab.director.ok("ipvsadm -Sn");
        wait_for("keepalived has done its work", PATIENCE, || {
            table(&lab).contains("-a -t 192.0.2.101:80 -r 192.0.2.11:80")
        });
        let during = table(&lab);
        assert_eq!(during.contains("198.51.100.7:25"), flush.is_empty(), "{during}");
        lab.stop();
        let after = table(&lab);
        println!("while keepalived runs:\n{during}after its end:\n{after}");
        assert!(!after.contains("192.0.2.100:80"), "{after}");
    }
}
