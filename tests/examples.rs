//! Every example of examples/, with its own files, the real keepalived, and a client's real requests.
//!
//! Owns what an example promises: who answers, what is shown, that a failover and the way back refuse nobody, and
//! each example's own point. Leaves setting it up to `support/stage.rs`, and single facts to `system` and `ipvs`.
//! Run by tests/run in a guest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/network.rs"]
#[allow(dead_code)]
mod network;
#[path = "support/stage.rs"]
mod stage;
mod support;

use std::net::SocketAddr;

use network::Load;
use stage::Stage;

const VIP: &str = "192.0.2.100:80";
const SERVERS: [(&str, u16); 2] = [("rs1", 80), ("rs2", 80)];

/// One example with one instance and one VIP: what is always judged.
struct Play {
    stage: Stage,
    vip: SocketAddr,
    /// how many real servers answer one client
    spread: usize,
    /// whether directors answer ARP or ND for the VIP
    announced: bool,
    /// open connections that may end with a switch; the client has one at a time
    cut: usize,
    /// what the lines of our services in the table have in common
    ours: &'static str,
    /// our lines of the IPVS tables of a MASTER and of a BACKUP
    tables: [String; 2],
}

impl Play {
    /// lb1 is MASTER afterwards, and everything is as the README shows it.
    fn new(example: &str, vip: &str, servers: &[(&str, u16)]) -> Self {
        let stage = Stage::new(example, servers);
        stage.settled("lb1", "VI_1", "MASTER");
        stage.settled("lb2", "VI_1", "BACKUP");
        stage.shows_what_the_readme_shows();
        let vip = vip.parse().unwrap();
        let tables = Default::default();
        Self { stage, vip, spread: 2, announced: true, cut: 1, ours: "-", tables }
    }

    fn table(&self, director: &str) -> String {
        let table = self.stage.host(director).ok("ipvsadm -Sn");
        table.lines().filter(|line| line.contains(self.ours)).map(|line| format!("{line}\n")).collect()
    }

    /// Everything that must be true while this director is MASTER and the other one is not.
    fn judge(&self, master: &str) {
        let other = if master == "lb1" { "lb2" } else { "lb1" };
        self.stage.settled(master, "VI_1", "MASTER");
        assert_eq!(self.stage.host(other).run("lvs-notify status VI_1").status, 0, "{other}");
        assert_eq!([self.table(master), self.table(other)], self.tables, "MASTER {master}");
        if self.announced {
            assert_eq!(self.stage.answers(self.vip), [master]);
        }
        let tally = self.stage.ask(self.vip, 10);
        println!("MASTER {master}: {}", tally.figures());
        assert_eq!((tally.ok(), tally.ends.len()), (10, self.spread), "{}", tally.figures());
    }

    /// The client asks all the time while keepalived is stopped on the MASTER.
    fn takes_over(&mut self, from: &str, to: &str) {
        let load = Load::new(self.stage.host("client"), self.vip);
        load.served(10);
        self.stage.stop(from);
        self.stage.settled(to, "VI_1", "MASTER");
        load.served(10);
        let tally = load.end();
        println!("{from} stops: {}", tally.figures());
        assert_eq!(tally.of("refused"), 0, "a client met a VIP without services");
        assert!(tally.of("reset") <= self.cut, "{}", tally.figures());
        self.stage.settled(from, "VI_1", "STOP");
        self.judge(to);
    }

    /// lb1 is stopped; it comes back as BACKUP; lb2 is stopped.
    fn there_and_back(&mut self) {
        self.tables = ["lb1", "lb2"].map(|name| self.table(name));
        self.judge("lb1");
        self.takes_over("lb1", "lb2");
        self.stage.start("lb1");
        self.stage.settled("lb1", "VI_1", "BACKUP");
        self.takes_over("lb2", "lb1");
        self.stage.start("lb2");
        self.stage.settled("lb2", "VI_1", "BACKUP");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn dr() {
    Play::new("dr", VIP, &SERVERS).there_and_back();
}
