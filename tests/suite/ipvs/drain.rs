//! Real servers drained by hand, and connections that live on while MASTER is left.
//!
//! Owns `drain`, `undrain` and `backup: {drain}` on a real kernel; the judges are `ipvsadm` and a
//! client's connections.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::network::{Server, connect, exchange};
use crate::support::{Host, LVS_NOTIFY, wait_for};

const VIP: &str = "192.0.2.100";
const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    lb: Host,
    client: Host,
    _hosts: Vec<Host>,
    _servers: Vec<Server>,
}

/// A director, a client that reaches the VIP by a route, and two real servers behind NAT.
fn lab(extra: &str) -> Lab {
    let (lb, client) = (Host::new("lb"), Host::new("client"));
    lb.link("eth0", &client, "eth0");
    lb.address("192.0.2.1/24", "eth0");
    client.address("192.0.2.9/24", "eth0");
    client.ok(&format!("ip route add {VIP}/32 via 192.0.2.1"));
    lb.ok("sysctl -qw net.ipv4.ip_forward=1");
    lb.ok("ip link add wire type bridge");
    lb.ok("ip link set wire up");
    lb.address("203.0.113.1/24", "wire");
    let mut hosts = Vec::new();
    for (name, number) in [("rs1", 11), ("rs2", 12)] {
        let host = Host::new(name);
        lb.link(name, &host, "eth0");
        lb.ok(&format!("ip link set {name} master wire"));
        host.address(&format!("203.0.113.{number}/24"), "eth0");
        host.ok("ip route add default via 203.0.113.1");
        hosts.push(host);
    }
    let servers = hosts.iter().map(Server::new).collect();
    lb.desire(
        "VI_1",
        &format!(
            "version: 1\nvips: [{VIP}]\n{extra}\nvirtual_services:\n  - address: {VIP}:80\n    scheduler: rr\n    real_servers: [203.0.113.11:80, 203.0.113.12:80]\n  - address: {VIP}:81\n    scheduler: rr\n    real_servers: [203.0.113.11:80]\n"
        ),
    );
    lb.lvs_ok("master VI_1");
    Lab { lb, client, _hosts: hosts, _servers: servers }
}

impl Lab {
    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let vip = SocketAddr::new(VIP.parse().unwrap(), port);
        self.client.inside(move || connect(vip)).join().unwrap()
    }

    /// Weights of the real servers, in the order of `ipvsadm -Sn`.
    fn weights(&self) -> Vec<String> {
        let table = self.lb.ok("ipvsadm -Sn");
        table.lines().filter_map(|line| Some(line.split_once(" -w ")?.1.to_owned())).collect()
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_drain_lasts_until_it_is_lifted() {
    let lab = lab("");
    let lb = &lab.lb;
    let mut open: Vec<TcpStream> = (0..2).map(|_| lab.connect(80).unwrap()).collect();
    let names: Vec<String> = open.iter_mut().map(|stream| exchange(stream).unwrap()).collect();
    assert_ne!(names[0], names[1], "round robin");

    let told = lb.lvs_ok("drain 203.0.113.11");
    assert!(told.contains("203.0.113.11:80 of tcp 192.0.2.100:80"), "{told}");
    assert_eq!(lab.weights(), ["0", "1", "0"]);
    let status = lb.lvs("status");
    let verdict = status.stdout.lines().next().unwrap();
    let refused =
        ", in sync, PROBLEM: tcp 192.0.2.100:81 refuses its clients: it has no real server above weight 0";
    assert!(verdict.ends_with(refused), "drained is what is wanted, and what it leads to: {}", status.all());
    assert_eq!(status.stdout.matches("(drained by hand)").count(), 2, "{}", status.stdout);
    for stream in &mut open {
        exchange(stream).expect("an open connection lives on");
    }
    for _ in 0..6 {
        assert_eq!(exchange(&mut lab.connect(80).unwrap()).unwrap(), "rs2");
    }
    for command in ["apply", "master", "backup", "master", "stop", "fault", "master"] {
        lb.lvs_ok(command);
    }
    assert_eq!(lab.weights(), ["0", "1", "0"], "failover");
    lb.sh("ipvsadm -C; rm -rf /run/lvs-notify/*");
    lb.lvs_ok("master VI_1");
    assert_eq!(lab.weights(), ["0", "1", "0"], "reboot");
    lb.ok("ipvsadm -e -t 192.0.2.100:80 -r 203.0.113.11:80 -m -w 1");
    assert_eq!(lb.lvs("plan").status, 3, "somebody lifted it behind our back");
    lb.lvs_ok("apply");
    let ran = lb.lvs("undrain 203.0.113.11:80");
    assert_eq!(ran.status, 1, "{}", ran.all());
    assert!(ran.all().contains("drained are: 203.0.113.11"), "{}", ran.all());
    assert_eq!(lab.weights(), ["0", "1", "0"], "a port that was not drained by itself");
    lb.lvs_ok("undrain 203.0.113.11");
    assert_eq!(lab.weights(), ["1", "1", "1"]);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_drain_can_be_narrow_and_short() {
    let lab = lab("");
    let lb = &lab.lb;
    lb.lvs_ok("drain 203.0.113.11:80 --service tcp/192.0.2.100:81");
    assert_eq!(lab.weights(), ["1", "1", "0"]);
    lb.lvs_ok("undrain 203.0.113.11");
    assert_eq!(lab.weights(), ["1", "1", "1"]);
    lb.lvs_ok("drain 203.0.113.12 --for 2s");
    assert_eq!(lab.weights(), ["1", "0", "1"]);
    assert!(lb.lvs("status").stdout.contains("(drained by hand until "));
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(lb.lvs("status").status, 3, "the time is over, and nobody has lifted it yet");
    lb.lvs_ok("apply");
    assert_eq!(lab.weights(), ["1", "1", "1"]);
    lb.lvs_ok("drain 203.0.113.11");
    lb.lvs_ok("drain 203.0.113.12");
    assert_eq!(lab.weights(), ["0", "0", "0"]);
    lb.lvs_ok("undrain --all");
    assert_eq!(lab.weights(), ["1", "1", "1"]);
    for (arguments, status, words) in [
        ("drain 203.0.113.13", 1, "no declared real server is `203.0.113.13`"),
        ("drain 203.0.113.1x", 2, "not a real server"),
        ("drain 203.0.113.11 --service 192.0.2.100:82", 1, "no declared service is `192.0.2.100:82`"),
        ("drain 203.0.113.11 --for soon", 2, "not a duration"),
        ("undrain 203.0.113.11", 1, "nothing is drained that `203.0.113.11` could mean"),
    ] {
        let ran = lb.lvs(arguments);
        assert_eq!(ran.status, status, "{arguments}: {}", ran.all());
        assert!(ran.all().contains(words), "{arguments}: {}", ran.all());
    }
    assert_eq!(lab.weights(), ["1", "1", "1"]);
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn drains_at_once_lose_none() {
    let lab = lab("");
    for round in 0..5 {
        let mut both = ["203.0.113.11", "203.0.113.12"]
            .map(|server| lab.lb.start(&format!("{LVS_NOTIFY} drain {server}")));
        assert_eq!(both.each_mut().map(|process| process.wait()), [0, 0], "round {round}");
        lab.lb.lvs_ok("apply");
        assert_eq!(lab.weights(), ["0", "0", "0"], "round {round}");
        lab.lb.lvs_ok("undrain --all");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn leaving_lets_connections_end() {
    let lab = lab("backup: {drain: 20s}");
    let mut open = lab.connect(80).unwrap();
    exchange(&mut open).unwrap();
    let begun = Instant::now();
    let mut backup = lab.lb.start(&format!("{LVS_NOTIFY} backup VI_1"));
    wait_for("no new connections", PATIENCE, || lab.weights() == ["0", "0", "0"]);
    exchange(&mut open).expect("an open connection lives on");
    let told = lab.lb.lvs_ok("apply VI_1");
    assert!(told.contains("superseded by process ") && told.contains("which lets connections end"), "{told}");
    assert_eq!(
        lab.connect(80).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused,
        "no new connection"
    );
    exchange(&mut open).expect("an open connection lives on");
    drop(open);
    assert_eq!(backup.wait(), 0);
    let took = begun.elapsed();
    println!("left {:.1} s after the notification, when the last connection had ended", took.as_secs_f32());
    assert!(took < Duration::from_secs(20), "it did not notice the end of the last connection");
    assert_eq!(lab.lb.ok("ipvsadm -Sn"), "");
    assert_eq!(lab.lb.ok(&format!("ip -o address show to {VIP}")), "");

    // A newer notification ends the wait, and all is as before.
    lab.lb.lvs_ok("master VI_1");
    let mut open = lab.connect(80).unwrap();
    exchange(&mut open).unwrap();
    let mut backup = lab.lb.start(&format!("{LVS_NOTIFY} backup VI_1"));
    wait_for("no new connections", PATIENCE, || lab.weights() == ["0", "0", "0"]);
    let begun = Instant::now();
    lab.lb.lvs_ok("master VI_1");
    println!("MASTER again {:.1} s after it was called", begun.elapsed().as_secs_f32());
    assert_eq!(backup.wait(), 0);
    assert_eq!(lab.weights(), ["1", "1", "1"]);
    exchange(&mut open).expect("the same connection, through it all");
}

/// The desired-state file of `lab` without the real server of port 80 that `name` stands for, and with these settings of IPVS.
fn without(lab: &Lab, name: &str, ipvs: &str) {
    let number = if name == "rs1" { 11 } else { 12 };
    let file = lab.lb.read("/etc/lvs-notify/VI_1.yaml");
    let (before, after) = file.split_once("real_servers: [").unwrap();
    let (list, after) = after.split_once(']').unwrap();
    let left: Vec<&str> = list.split(", ").filter(|one| *one != format!("203.0.113.{number}:80")).collect();
    lab.lb.desire("VI_1", &format!("{before}real_servers: [{}]{after}ipvs: {ipvs}\n", left.join(", ")));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn who_leaves_the_file_goes_with_its_connections() {
    let lab = lab("");
    let lb = &lab.lb;
    let whole = lb.read("/etc/lvs-notify/VI_1.yaml");
    let mut open = lab.connect(80).unwrap();
    let leaving = exchange(&mut open).unwrap();
    let other = if leaving == "rs1" { "rs2" } else { "rs1" };

    without(&lab, &leaving, "{graceful_removal: 10m, timeouts: {tcp_fin: 1s}}");
    let plan = lb.lvs("plan").stdout;
    assert!(plan.contains(": weight 1 -> 0  (goes after its 1 connection)\n"), "{plan}");
    lb.lvs_ok("apply");
    for again in 0..3 {
        assert_eq!(exchange(&mut open).expect("an open connection lives on"), leaving);
        assert_eq!(exchange(&mut lab.connect(80).unwrap()).unwrap(), other, "no new connections");
        let status = lb.lvs("status");
        assert_eq!(status.status, 0, "{}", status.all());
        assert!(
            status.stdout.contains("(left the file; goes with its connections, at the latest "),
            "{}",
            status.all()
        );
        assert!(lb.lvs_ok("apply").contains("in sync, no change"), "run {again}");
        assert_eq!(lb.lvs("plan").status, 0, "nothing is due");
    }
    lb.lvs_ok("master");
    lb.sh("rm /run/lvs-notify/VI_1.json");
    lb.lvs_ok("apply");
    assert_eq!(exchange(&mut open).expect("it lives on without the record"), leaving);
    // Reset, it is gone after ten seconds, and not after the two minutes of TIME_WAIT.
    rustix::net::sockopt::set_socket_linger(&open, Some(Duration::ZERO)).unwrap();
    drop(open);
    let ended = || !lb.lvs("plan").stdout.is_empty() && lb.lvs("plan").status == 3;
    wait_for("its connections have ended", PATIENCE, ended);
    assert_eq!(lb.lvs("status").status, 0, "a later run's business is nothing that differs");
    lb.lvs_ok("apply");
    assert_eq!(lab.weights(), ["1", "1"], "it is gone");

    // Its time can be over before; and who comes back is there as before.
    lb.desire("VI_1", &whole);
    lb.lvs_ok("apply");
    let mut open = lab.connect(80).unwrap();
    let leaving = exchange(&mut open).unwrap();
    without(&lab, &leaving, "{graceful_removal: 2s}");
    lb.lvs_ok("apply");
    lb.desire("VI_1", &whole);
    lb.lvs_ok("apply");
    assert_eq!(lab.weights(), ["1", "1", "1"], "it came back");
    without(&lab, &leaving, "{graceful_removal: 2s}");
    lb.lvs_ok("apply");
    exchange(&mut open).expect("it has two seconds");
    std::thread::sleep(Duration::from_millis(2100));
    let status = lb.lvs("status");
    assert_eq!(status.status, 3, "nobody has removed it in time: {}", status.all());
    assert!(lb.lvs("plan").stdout.contains("(drops 1 connection)"));
    lb.lvs_ok("apply");
    assert_eq!(lab.weights(), ["1", "1"], "it is gone");

    // Without the key, and where the scheduler would refuse clients, it goes at once.
    for (scheduler, ipvs) in [("rr", "{}"), ("sh", "{graceful_removal: 10m}")] {
        lb.desire("VI_1", &whole.replace("scheduler: rr", &format!("scheduler: {scheduler}")));
        lb.lvs_ok("apply");
        let leaving = exchange(&mut lab.connect(80).unwrap()).unwrap();
        without(&lab, &leaving, ipvs);
        let plan = lb.lvs("plan").stdout;
        assert!(plan.contains("(drops "), "{scheduler}: {plan}");
        lb.lvs_ok("apply");
        assert_eq!(lab.weights(), ["1", "1"], "{scheduler}");
    }
}
