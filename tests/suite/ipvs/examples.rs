//! Every example of examples/, with its own files, the real keepalived, and a client's real requests.
//!
//! Owns what an example promises: who answers, what is shown, that a failover and the way back refuse nobody, and
//! each example's own point. Leaves setting it up to `support/stage.rs`, and single facts to `system` and `services`.
//! Run by tests/run in a guest.

use std::net::{SocketAddr, TcpStream};

use crate::support::network::{Load, PATIENCE, connect, exchange, request};
use crate::support::stage::Stage;
use crate::support::wait_for;

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
        let mut stage = Stage::new(example, servers);
        // One after the other: with nopreempt the first one stays MASTER, and the machine may be slow.
        stage.start("lb1");
        stage.settled("lb1", "VI_1", "MASTER");
        stage.start("lb2");
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

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn dr_local() {
    let mut play = Play::new("dr-local", VIP, &[("lb1", 80), ("lb2", 80)]);
    let keepalived = play.stage.host("lb1").read("/etc/keepalived/keepalived.conf");
    assert!(!keepalived.contains("192.0.2.100"), "keepalived would take the VIP from the BACKUP");
    // 9 packets make a request, and half of them pass both directors. A circle makes 64 out of one.
    let packets = |play: &Play| -> usize {
        let counters =
            "cat /sys/class/net/eth0/statistics/rx_packets /sys/class/net/eth0/statistics/tx_packets";
        let of = |name| play.stage.host(name).ok(counters);
        (of("lb1") + &of("lb2")).lines().map(|line| line.parse::<usize>().unwrap()).sum()
    };
    let before = packets(&play);
    let tally = play.stage.ask(play.vip, 50);
    let each = (packets(&play) - before) / tally.sent();
    println!("{}; {each} packets at the directors for each", tally.figures());
    assert!(tally.ok() == 50 && each <= 30, "{each} packets for each request");
    // Where the BACKUP serves the VIP too, one ends with the services, and one with the ARP entry.
    play.cut = 2;
    play.there_and_back();
    let addresses = play.stage.host("lb2").ok("ip -o address show to 192.0.2.100");
    assert!(
        addresses.contains(": lo ") && !addresses.contains(": eth0 "),
        "the VIP of a BACKUP: {addresses}"
    );
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn tun() {
    let mut play = Play::new("tun", VIP, &SERVERS);
    let see = |name, packets| {
        let line = format!("timeout 120 tcpdump -p -i eth0 -c 3 {packets}");
        (name, packets, play.stage.host(name).start(&line))
    };
    let seen = [see("rs1", "ip proto 4 and host 198.51.100.11"), see("rs2", "udp dst port 6080")];
    play.there_and_back();
    for (name, packets, mut tcpdump) in seen {
        assert_eq!(tcpdump.wait(), 0, "{name} did not get {packets}");
        let received = play.stage.host(name).ok("cat /sys/class/net/tunl0/statistics/rx_packets");
        println!("{name}: {packets}; {} packets out of tunl0", received.trim());
        assert_ne!(received.trim(), "0", "the requests of {name} came without a tunnel");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn ipv6() {
    Play::new("ipv6", "[2001:db8::100]:80", &SERVERS).there_and_back();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn active_active() {
    let mut stage = Stage::new("active-active", &SERVERS);
    let vips = [VIP, "192.0.2.101:80"].map(|vip| vip.parse::<SocketAddr>().unwrap());
    let judge = |stage: &Stage, masters: [&'static str; 2]| {
        for (instance, vip, master) in [("VI_1", vips[0], masters[0]), ("VI_2", vips[1], masters[1])] {
            stage.settled(master, instance, "MASTER");
            let other = if master == "lb1" { "lb2" } else { "lb1" };
            let status = stage.host(other).run(&format!("lvs-notify status {instance}"));
            assert_eq!(status.status, 0, "{instance} on {other}: {}", status.all());
            let on = |name| stage.host(name).ok("ipvsadm -Sn").matches(&format!("-A -t {vip} ")).count();
            assert_eq!((on(master), on(other)), (1, 0), "the service of {instance}");
            assert_eq!(stage.answers(vip), [master]);
            let tally = stage.ask(vip, 10);
            println!("{instance}, MASTER {master}: {}", tally.figures());
            assert_eq!((tally.ok(), tally.ends.len()), (10, 2));
        }
    };
    ["lb1", "lb2"].iter().for_each(|name| stage.start(name));
    stage.settled("lb1", "VI_1", "MASTER");
    stage.settled("lb2", "VI_2", "MASTER");
    stage.settled("lb1", "VI_2", "BACKUP");
    stage.settled("lb2", "VI_1", "BACKUP");
    stage.shows_what_the_readme_shows();
    judge(&stage, ["lb1", "lb2"]);

    let loads = vips.map(|vip| Load::new(stage.host("client"), vip));
    loads.iter().for_each(|load| load.served(5));
    stage.stop("lb1");
    stage.settled("lb2", "VI_1", "MASTER");
    loads[0].served(10);
    stage.start("lb1");
    stage.settled("lb1", "VI_1", "MASTER");
    stage.settled("lb2", "VI_1", "BACKUP");
    stage.settled("lb1", "VI_2", "BACKUP");
    loads[0].served(10);
    let [moved, stayed] = loads.map(Load::end);
    println!("lb1 stops and comes back, VI_1: {}\n  VI_2: {}", moved.figures(), stayed.figures());
    assert_eq!((moved.of("refused"), moved.of("reset") <= 2), (0, true));
    // A busy machine loses a packet now and then, and a request has no time for its repetition.
    assert_eq!((stayed.of("refused"), stayed.of("reset"), stayed.of("unreachable")), (0, 0, 0));
    assert_eq!(stayed.of("timed out"), 0, "the other VIP's clients notice nothing");
    judge(&stage, ["lb1", "lb2"]);
}

/// An open connection through a failover: the answers before and after, on the same socket.
fn lives_on(play: &mut Play, stream: &mut TcpStream, from: &str, to: &str) {
    let server = exchange(stream).unwrap();
    play.stage.stop(from);
    play.stage.settled(to, "VI_1", "MASTER");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let after = exchange(stream).expect("the connection lives on");
    println!("one connection: {server} by {from}, {after} by {to}");
    assert_eq!(server, after);
    assert_eq!(exchange(stream).unwrap(), server);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn connection_sync() {
    let mut play = Play::new("connection-sync", VIP, &SERVERS);
    play.tables = ["lb1", "lb2"].map(|name| play.table(name));
    assert_eq!(play.tables[0], play.tables[1], "the BACKUP has the services too");
    let daemons = |play: &Play| ["lb1", "lb2"].map(|name| play.stage.host(name).ok("ipvsadm -Ln --daemon"));
    let [master, backup] = daemons(&play);
    assert!(
        master.contains("master sync daemon") && backup.contains("backup sync daemon"),
        "{master}{backup}"
    );
    play.judge("lb1");

    let vip = play.vip;
    let mut streams: Vec<_> = (0..4)
        .map(|_| play.stage.host("client").inside(move || connect(vip)).join().unwrap().unwrap())
        .collect();
    let servers: Vec<_> = streams.iter_mut().map(|stream| exchange(stream).unwrap()).collect();
    wait_for("the BACKUP knows the connections", PATIENCE, || {
        let known = play.stage.host("lb2").ok("ipvsadm -Lnc");
        streams.iter().all(|stream| known.contains(&format!("{} ", stream.local_addr().unwrap())))
    });
    println!("lb2, while BACKUP:\n{}", play.stage.host("lb2").ok("ipvsadm -Lnc"));
    lives_on(&mut play, &mut streams[0], "lb1", "lb2");
    for (stream, server) in streams.iter_mut().zip(&servers) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(exchange(stream).unwrap(), *server);
    }
    let [was, is] = daemons(&play);
    assert!(was.contains("backup sync daemon") && is.contains("master sync daemon"), "{was}{is}");
    play.judge("lb2");

    // And back: what lb2 has told lb1 meanwhile.
    play.stage.start("lb1");
    play.stage.settled("lb1", "VI_1", "BACKUP");
    let mut stream = play.stage.host("client").inside(move || connect(vip)).join().unwrap().unwrap();
    let own = format!("{} ", stream.local_addr().unwrap());
    wait_for("lb1 knows a new connection", PATIENCE, || {
        play.stage.host("lb1").ok("ipvsadm -Lnc").contains(&own)
    });
    lives_on(&mut play, &mut stream, "lb2", "lb1");
    play.judge("lb1");
}

/// What each of several clients, who are one host with several addresses, is answered.
fn as_clients(play: &Play, ports: &[u16]) -> Vec<Vec<String>> {
    let client = play.stage.host("client");
    let one = |last: u8| {
        client.run(&format!("ip address add 192.0.2.{last}/24 dev eth0"));
        client.ok(&format!("ip route replace 192.0.2.100 dev eth0 src 192.0.2.{last}"));
        let ask = |port: &u16| {
            let vip = SocketAddr::new(play.vip.ip(), *port);
            client.inside(move || request(vip)).join().unwrap().unwrap()
        };
        ports.iter().map(ask).collect()
    };
    let answers = (60..68).map(one).collect();
    client.ok("ip route del 192.0.2.100 dev eth0");
    answers
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn fwmark() {
    let mut play = Play::new("fwmark", VIP, &[("rs1", 80), ("rs1", 443), ("rs2", 80), ("rs2", 443)]);
    play.spread = 1;
    let together = |play: &Play| {
        let answers = as_clients(play, &[80, 443, 80]);
        println!("ports 80, 443, 80 of eight clients: {answers:?}");
        assert!(answers.iter().all(|ports| ports.iter().all(|name| *name == ports[0])));
        assert!(answers.iter().any(|ports| ports[0] != answers[0][0]), "all clients at one real server");
    };
    together(&play);
    play.there_and_back();
    together(&play);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn routed() {
    let mut play = Play::new("routed", "203.0.113.100:80", &SERVERS);
    play.announced = false;
    play.there_and_back();
    let asked = play.stage.host("router").run("arping -c 2 -w 3 -I eth1 203.0.113.100");
    for name in ["lb1", "lb2"] {
        // The real servers do answer, had anybody a reason to ask.
        let own = play.stage.host(name).ok("cat /sys/class/net/eth0/address").trim().to_uppercase();
        assert!(!asked.all().contains(&own), "{name} answers for a routed VIP: {}", asked.all());
        let addresses = play.stage.host(name).ok("ip -o address show dev eth0 to 203.0.113.100");
        assert_eq!(addresses, "", "{name} has a routed VIP on an interface");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn hashing() {
    let mut play = Play::new("hashing", VIP, &SERVERS);
    play.spread = 1;
    let vip = play.vip;
    let before = as_clients(&play, &[80]);
    println!("eight clients through lb1: {before:?}");
    assert!(before.iter().any(|name| *name != before[0]), "all clients at one real server");
    let mut stream = play.stage.host("client").inside(move || connect(vip)).join().unwrap().unwrap();
    play.tables = ["lb1", "lb2"].map(|name| play.table(name));
    lives_on(&mut play, &mut stream, "lb1", "lb2");
    assert_eq!(as_clients(&play, &[80]), before, "through lb2");
    play.stage.start("lb1");
    play.stage.settled("lb1", "VI_1", "BACKUP");
    lives_on(&mut play, &mut stream, "lb2", "lb1");
    assert_eq!(as_clients(&play, &[80]), before, "through lb1 again");
    play.judge("lb1");
    play.stage.start("lb2");
    play.stage.settled("lb2", "VI_1", "BACKUP");
    play.there_and_back();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn shared() {
    let mut play = Play::new("shared", VIP, &SERVERS);
    play.ours = "-t 192.0.2.100:80 ";
    let foreign = |play: &Play| {
        ["lb1", "lb2"].map(|name| {
            let host = play.stage.host(name);
            let table = host.ok("ipvsadm -Sn");
            let by_hand: Vec<_> =
                table.lines().filter(|line| line.contains("203.0.113.7")).map(str::to_owned).collect();
            assert_eq!(by_hand.len(), 2, "{name}: {table}");
            let keepalived = table.lines().filter(|line| line.contains("192.0.2.101:80")).count();
            (by_hand, host.ok("ip -o address show to 203.0.113.7"), keepalived)
        })
    };
    let before = foreign(&play);
    assert_eq!(before.each_ref().map(|(_, _, keepalived)| *keepalived), [3, 3], "keepalived's own service");
    let (vip, theirs) = (play.vip, "192.0.2.101:80".parse().unwrap());
    play.there_and_back();
    assert_eq!(foreign(&play), before);
    for vip in [vip, theirs] {
        let tally = play.stage.ask(vip, 10);
        println!("{vip}: {}", tally.figures());
        assert_eq!((tally.ok(), tally.ends.len()), (10, 2));
        assert_eq!(play.stage.answers(vip), ["lb1"]);
    }
}
