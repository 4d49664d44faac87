//! Two directors under the real keepalived, a client and two real servers: one VIP through its failovers.
//!
//! Owns what a neighbour and a client see of a switch, for every forwarding method. What they see is
//! judged by `ip`, `ipvsadm`, `arping`, `ndisc6` and the client's own connections. Leaves the single
//! kernel objects to `netns` and `services`, the order of changes to `laws`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::network::{Load, PATIENCE, Server, Tally, connect, exchange, request};
use crate::support::{Background, Host, LVS_NOTIFY, wait_for};
use nix::sys::signal::Signal;

/// keepalived trusts what only root can change; /run/test is a file system of the host's own.
const PROGRAM: &str = "/run/test/lvs-notify";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Method {
    Nat,
    Nat6,
    Dr,
    Tun,
    /// DR, and the directors are the real servers
    Local,
}

impl Method {
    fn vip(self) -> &'static str {
        if self == Self::Nat6 { "2001:db8:10::100" } else { "192.168.10.100" }
    }

    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.vip().parse().unwrap(), 80)
    }

    /// Word of the file, and the real servers' addresses.
    fn forward(self) -> (&'static str, [&'static str; 2]) {
        match self {
            Self::Nat => ("nat", ["192.168.20.11", "192.168.20.12"]),
            Self::Nat6 => ("nat", ["[2001:db8:20::11]", "[2001:db8:20::12]"]),
            Self::Dr => ("dr", ["192.168.10.11", "192.168.10.12"]),
            Self::Tun => ("tun", ["192.168.20.11", "192.168.20.12"]),
            Self::Local => ("dr", ["192.168.10.1", "192.168.10.2"]),
        }
    }

    /// Interfaces that have the VIP, and lines of `ipvsadm -Sn`.
    fn expected(self, master: bool) -> (&'static str, usize) {
        match (master, self) {
            (true, _) => ("eth0 lo", 3),
            (false, Self::Local) => ("lo", 0),
            (false, _) => ("", 0),
        }
    }

    fn desired(self) -> String {
        let (forward, servers) = self.forward();
        let backup = if self == Self::Local { "backup: {vips: keep}\n" } else { "" };
        format!(
            "version: 1\ninterface: eth0\nvips: [\"{}\"]\n{backup}virtual_services:\n  - address: \"{}\"\n    \
             scheduler: rr\n    forward: {forward}\n    real_servers: [\"{}:80\", \"{}:80\"]\n",
            self.vip(),
            self.socket(),
            servers[0],
            servers[1]
        )
    }

    fn keepalived(self, name: &str, preempt: bool) -> String {
        let priority = if name == "lb1" { 150 } else { 100 };
        let nopreempt = if preempt { "" } else { "nopreempt" };
        // A VIP that stays on the BACKUP's lo cannot be keepalived's, which removes it.
        let vip = match self {
            Self::Nat6 | Self::Local => "",
            _ => "192.168.10.100/32 dev lo label lo:0",
        };
        let excluded = match self {
            Self::Nat6 => "virtual_ipaddress_excluded {\n 2001:db8:20::fe/64 dev eth1\n }",
            _ => "",
        };
        let mut text = format!(
            "global_defs {{\n router_id {name}\n script_user root\n enable_script_security\n vrrp_higher_prio_send_advert true\n}}\n\
             vrrp_instance VI_1 {{\n state BACKUP\n {nopreempt}\n interface eth0\n virtual_router_id 51\n \
             priority {priority}\n advert_int 1\n track_interface {{\n eth1\n }}\n virtual_ipaddress {{\n {vip}\n \
             192.168.20.254/24 dev eth1\n }}\n {excluded}\n"
        );
        for role in ["master", "backup", "fault", "stop"] {
            writeln!(text, " notify_{role} \"{PROGRAM} {role} VI_1\"").unwrap();
        }
        writeln!(text, " notify_master_rx_lower_pri \"{PROGRAM} master VI_1\"").unwrap();
        text + "}\n"
    }
}

struct Lab {
    method: Method,
    daemons: [Option<Background>; 2],
    _servers: Vec<Server>,
    machines: Vec<Host>,
    directors: [Host; 2],
    client: Host,
    switch: Host,
    sent: Cell<usize>,
}

impl Lab {
    /// Builds the network and starts keepalived on both directors; lb1 is MASTER afterwards.
    fn new(method: Method, preempt: bool) -> Self {
        println!("\n=== {method:?}, {}", if preempt { "preempt" } else { "nopreempt" });
        let switch = Host::new("switch");
        switch.sh(
            "for bridge in clients servers; do ip link add $bridge type bridge; ip link set $bridge up; done",
        );
        let plug = |host: &Host, interface: &str, last: &str| {
            let port = format!("{}-{interface}", host.name());
            let (bridge, net) = if interface == "eth0" { ("clients", "10") } else { ("servers", "20") };
            host.link(interface, &switch, &port);
            switch.ok(&format!("ip link set {port} master {bridge}"));
            host.address(&format!("192.168.{net}.{last}/24"), interface);
            host.address(&format!("2001:db8:{net}::{last}/64"), interface);
        };
        let client = Host::new("client");
        plug(&client, "eth0", "50");
        let directors = ["lb1", "lb2"].map(Host::new);
        for (host, last) in directors.iter().zip(["1", "2"]) {
            plug(host, "eth0", last);
            plug(host, "eth1", last);
            if matches!(method, Method::Nat | Method::Nat6) {
                host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            }
            host.desire("VI_1", &method.desired());
            host.write("/run/test/keepalived.conf", &method.keepalived(host.name(), preempt));
            fs::copy(LVS_NOTIFY, host.path(PROGRAM)).unwrap();
            host.sh(&format!("chmod 755 {PROGRAM}; chmod 644 /run/test/*.conf /etc/lvs-notify/*"));
        }
        let mut machines = Vec::new();
        if method != Method::Local {
            for (name, last) in [("rs1", "11"), ("rs2", "12")] {
                let host = Host::new(name);
                if matches!(method, Method::Dr | Method::Tun) {
                    plug(&host, "eth0", last);
                }
                if method != Method::Dr {
                    plug(&host, "eth1", last);
                }
                host.sh(match method {
                    Method::Nat => "ip route add default via 192.168.20.254",
                    Method::Nat6 => "ip route add default via 2001:db8:20::fe",
                    // An answer leaves by another way than the request came.
                    Method::Tun => {
                        "modprobe ipip; ip link set tunl0 up && sysctl -qw net.ipv4.conf.all.rp_filter=0 \
                         net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0"
                    }
                    _ => "true",
                });
                if matches!(method, Method::Dr | Method::Tun) {
                    host.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
                    host.address("192.168.10.100/32", "lo");
                }
                machines.push(host);
            }
        }
        let serving = if method == Method::Local { directors.iter() } else { machines.iter() };
        let servers = serving.map(Server::new).collect();
        let daemons = [None, None];
        let sent = Cell::new(0);
        let mut lab = Self { method, daemons, _servers: servers, machines, directors, client, switch, sent };
        lab.start(0);
        // Before the other starts: without preemption the first to be MASTER stays it.
        let (interfaces, lines) = method.expected(true);
        wait_for("lb1 to be MASTER", PATIENCE, || lab.kernel(0) == (interfaces.to_owned(), lines));
        lab.start(1);
        lab.judge(0);
        lab
    }

    fn start(&mut self, index: usize) {
        let daemon = self.directors[index].start(
            "keepalived --dont-fork --vrrp --log-detail -f /run/test/keepalived.conf -p /run/test/keepalived.pid \
             -r /run/test/vrrp.pid",
        );
        self.daemons[index] = Some(daemon);
    }

    /// As `systemctl stop keepalived` does.
    fn stop(&mut self, index: usize) {
        let mut daemon = self.daemons[index].take().expect("a running keepalived");
        daemon.signal(Signal::SIGTERM);
        daemon.wait();
    }

    /// The cable of the client side, pulled or plugged at the switch.
    fn cable(&self, index: usize, state: &str) {
        self.switch.ok(&format!("ip link set {}-eth0 {state}", self.directors[index].name()));
    }

    /// Interfaces with the VIP, and lines of the IPVS table.
    fn kernel(&self, index: usize) -> (String, usize) {
        let host = &self.directors[index];
        let addresses = host.ok(&format!("ip -o address show to {}", self.method.vip()));
        let interfaces: BTreeSet<&str> =
            addresses.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let interfaces: Vec<&str> = interfaces.into_iter().collect();
        (interfaces.join(" "), host.ok("ipvsadm -Sn").lines().count())
    }

    fn mac(&self, index: usize) -> String {
        self.directors[index].ok("cat /sys/class/net/eth0/address").trim().to_owned()
    }

    /// Waits until both kernels are as they have to be with this MASTER.
    fn settled(&self, master: usize) {
        let mut found = String::new();
        let deadline = Instant::now() + PATIENCE;
        while !(0..2).all(|index| {
            let (interfaces, lines) = self.kernel(index);
            found = format!("{}: VIP on \"{interfaces}\", {lines} lines", self.directors[index].name());
            (interfaces.as_str(), lines) == self.method.expected(index == master)
        }) {
            assert!(Instant::now() < deadline, "MASTER {master}: {found}\n{}", self.story());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What both directors say, for a failure's message.
    fn story(&self) -> String {
        let says =
            |host: &Host| format!("{}: {}{}", host.name(), host.lvs("status").all(), host.ok("ip address"));
        self.directors.iter().map(says).collect::<Vec<_>>().join("\n")
    }

    /// Everything that must be true while this director is MASTER.
    fn judge(&self, master: usize) {
        self.settled(master);
        let (vip, mac) = (self.method.vip(), self.mac(master));
        let question = match self.method {
            Method::Nat6 => format!("ndisc6 -m {vip} eth0"),
            _ => format!("arping -b -c 3 -I eth0 {vip}"),
        };
        let mut reply = String::new();
        wait_for("somebody answers for the VIP", PATIENCE, || {
            reply = self.client.run(&question).all().to_lowercase();
            !macs(&reply).is_empty()
        });
        assert_eq!(macs(&reply), BTreeSet::from([mac.clone()]), "{question}\n{reply}");
        let ping = self.client.run(&format!("ping -c 1 -W 2 {vip}"));
        assert_eq!(ping.status, 0, "{}", ping.all());
        let mut tally = Tally::default();
        for _ in 0..10 {
            let vip = self.method.socket();
            tally.count(self.client.inside(move || request(vip)).join().unwrap());
        }
        self.sent.set(self.sent.get() + tally.sent());
        wait_for("lvs-notify sees it so too", PATIENCE, || {
            self.directors.iter().all(|host| host.lvs("status").status == 0)
        });
        println!("MASTER {}, {mac} alone answers; {}", self.directors[master].name(), tally.figures());
        assert_eq!(tally.ok(), 10, "{}\n{}", tally.figures(), self.story());
        assert_eq!(tally.ends.len(), 2, "round robin: both real servers answer: {}", tally.figures());
    }

    /// Makes `to` MASTER while a client asks all the time.
    fn switch(&mut self, to: usize, what: &str, act: impl FnOnce(&mut Self)) {
        let load = Load::new(&self.client, self.method.socket());
        load.served(20);
        act(self);
        self.settled(to);
        load.served(20);
        let tally = load.end();
        self.sent.set(self.sent.get() + tally.sent());
        let neighbour = self.client.ok(&format!("ip neigh show to {}", self.method.vip()));
        let master = &self.directors[to];
        wait_for("the run is recorded", PATIENCE, || master.lvs("status").stdout.contains("VIP announced"));
        let status = master.lvs("status").stdout;
        let last = status.lines().find(|line| line.starts_with("Last run")).unwrap_or_default();
        println!("{what}: {}\n  {}: {last}", tally.figures(), master.name());
        assert!(neighbour.contains(&self.mac(to)), "the client's neighbour table: {neighbour}");
        assert_eq!(tally.of("refused"), 0, "{what}: a client met a VIP without services");
        // Without connection sync an open connection ends with its director, and this client has one at
        // a time. Where the BACKUP serves the VIP too, one ends with the services, and one with the ARP entry.
        let cut = if self.method == Method::Local { 2 } else { 1 };
        assert!(tally.of("reset") <= cut, "{what}: {}", tally.figures());
        self.judge(to);
    }

    /// keepalived is stopped on one director, then on the other.
    fn stopped_in_turn(&mut self) {
        self.switch(1, "lb1 stops", |lab| lab.stop(0));
        self.start(0);
        self.settled(1);
        self.switch(0, "lb2 stops", |lab| lab.stop(1));
        self.start(1);
        self.settled(0);
    }

    /// keepalived is stopped on the preferred director, which preempts when it is back.
    fn stopped_and_back(&mut self) {
        self.switch(1, "lb1 stops", |lab| lab.stop(0));
        self.switch(0, "lb1 comes back", |lab| lab.start(0));
    }

    /// Packets that the directors' client-side interfaces sent and received.
    fn packets(&self) -> usize {
        let counters =
            "cat /sys/class/net/eth0/statistics/rx_packets /sys/class/net/eth0/statistics/tx_packets";
        let count =
            |host: &Host| host.ok(counters).lines().map(|line| line.parse::<usize>().unwrap()).sum::<usize>();
        self.directors.iter().map(count).sum()
    }
}

impl Drop for Lab {
    /// Ends keepalived as systemd does, while its network is still there.
    fn drop(&mut self) {
        self.daemons.iter().flatten().for_each(|daemon| daemon.signal(Signal::SIGTERM));
        for daemon in self.daemons.iter_mut().flatten() {
            daemon.wait();
        }
    }
}

fn macs(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter == ':' || letter.is_ascii_hexdigit()));
    words.filter(|word| word.len() == 17 && word.matches(':').count() == 5).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn nat_switches_in_both_directions() {
    Lab::new(Method::Nat, false).stopped_in_turn();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn dr_switches_in_both_directions() {
    Lab::new(Method::Dr, true).stopped_and_back();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn tun_switches_in_both_directions() {
    let mut lab = Lab::new(Method::Tun, true);
    lab.stopped_and_back();
    for host in &lab.machines {
        let received = host.ok("cat /sys/class/net/tunl0/statistics/rx_packets");
        println!("{}: {} packets out of the tunnel", host.name(), received.trim());
        assert_ne!(received.trim(), "0", "the requests came without a tunnel");
    }
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn directors_that_are_the_real_servers_send_no_packet_in_circles() {
    let mut lab = Lab::new(Method::Local, true);
    let (before, sent) = (lab.packets(), lab.sent.get());
    let load = Load::new(&lab.client, lab.method.socket());
    load.served(100);
    let tally = load.end();
    let each = (lab.packets() - before) / tally.sent();
    println!("{}; {each} packets at the directors for each", tally.figures());
    assert_eq!(tally.ok(), tally.sent());
    // 9 packets make a request; half of them pass a second director. A circle makes 64 out of one.
    assert!(each <= 30, "{each} packets for each request");
    lab.stopped_and_back();
    let (packets, requests) = (lab.packets() - before, lab.sent.get() - sent + tally.sent());
    println!("with both switches: {packets} packets for {requests} requests");
    assert!(packets / requests <= 40, "{packets} packets for {requests} requests");
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_lost_link_gives_the_vip_to_the_other_director() {
    let mut lab = Lab::new(Method::Nat, true);
    lab.switch(1, "lb1 loses its link", |lab| lab.cable(0, "down"));
    assert!(lab.directors[0].lvs("status").stdout.contains("FAULT"), "{}", lab.story());
    lab.switch(0, "lb1 has it again", |lab| lab.cable(0, "up"));
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn a_flapping_link_leaves_no_trace() {
    let lab = Lab::new(Method::Nat, true);
    let runs = || fs::read_to_string("/var/log/messages").unwrap_or_default().matches("VI_1: ").count();
    let before = runs();
    let load = Load::new(&lab.client, lab.method.socket());
    load.served(20);
    for flap in 0..15_u64 {
        lab.cable(0, "down");
        thread::sleep(Duration::from_millis(200 + 311 * flap % 1200));
        lab.cable(0, "up");
        thread::sleep(Duration::from_millis(100 + 173 * flap % 900));
    }
    // keepalived calls FAULT, BACKUP and MASTER all the time now, and does not wait for one to end.
    lab.judge(0);
    load.served(20);
    let tally = load.end();
    println!(
        "15 flaps, {} lines of lvs-notify in the log, and the kernels are as they should be; a client: {}",
        runs() - before,
        tally.figures()
    );
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn an_ipv6_vip_switches_in_both_directions() {
    Lab::new(Method::Nat6, false).stopped_in_turn();
}

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn an_open_connection_outlives_a_repeated_notification() {
    let lab = Lab::new(Method::Nat, false);
    let vip = lab.method.socket();
    let mut stream = lab.client.inside(move || connect(vip)).join().unwrap().unwrap();
    let server = exchange(&mut stream).unwrap();
    let before = lab.directors[0].ok("ip -d address") + &lab.directors[0].ok("ipvsadm -Sn");
    for command in ["master VI_1", "apply VI_1", "master VI_1"] {
        let said = lab.directors[0].lvs_ok(command);
        println!("lvs-notify {command}: {}", said.trim());
        assert_eq!(exchange(&mut stream).unwrap(), server, "the open connection after `{command}`");
    }
    let after = lab.directors[0].ok("ip -d address") + &lab.directors[0].ok("ipvsadm -Sn");
    assert_eq!(before, after);
    println!("one connection, four exchanges, all with {server}");
}
