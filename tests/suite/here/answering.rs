//! Whether a VIP answers: `status` and the wire, over random arrangements of links, addresses, routes and parameters.
//!
//! Owns the generator, and the comparison of `vips[].answers` and the MAC with what a neighbour hears who asks by arping
//! and ping. Here with the links of any kernel; `ipvs::answering` calls it with those that few hosts have. A
//! disagreement is printed as the commands that lead to it. `LVS_NOTIFY_ROUNDS=N` tries N arrangements.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::Host;
use crate::support::figures::rounds;
use crate::support::tables::Random;

const VIP: &str = "192.0.2.100";
const VIP6: &str = "2001:db8::100";
/// Hosts that wait for an answer at the same time
const SIDE_BY_SIDE: usize = 8;

/// What a director is made of.
struct Arrangement {
    /// After the director has `eth0`, which leads to the neighbour
    commands: Vec<String>,
    /// As the file says
    interface: String,
    /// The neighbour has the VIP while the director gets it
    taken: bool,
}

impl Arrangement {
    fn random(random: &mut Random, kinds: &[&str]) -> Self {
        let mut commands: Vec<String> = Vec::new();
        let mut run = |command: String| commands.push(command);
        let set = |family: &str, link: &str, parameter: &str, value: &str| {
            format!("sysctl -qw net/{family}/conf/{link}/{parameter}={value}")
        };
        // Delays would only lengthen the test.
        run("sysctl -qw net/ipv4/neigh/eth0/proxy_delay=0 net/ipv6/neigh/eth0/proxy_delay=0".into());
        run("ip link add eth1 type veth peer name eth1x".into());
        run("ip link set eth1 up; ip link set eth1x up".into());
        // The link of the host's own addresses, and the one that the file names.
        let kind = random.of(kinds);
        let (owns, named) = match kind {
            "altname" => {
                run("ip link property add dev eth0 altname clients-of-all".into());
                ("eth0", "clients-of-all")
            }
            "bridge" | "bond" => {
                let made = if kind == "bond" { "bond miimon 100" } else { kind };
                run(format!("ip link add up0 type {made}"));
                run("ip link set eth0 down; ip link set eth0 master up0; ip link set eth0 up; ip link set up0 up".into());
                if random.below(6) == 0 {
                    run("ip link set up0 down".into());
                } else {
                    run(
                        "for _ in {1..50}; do grep -q 1 /sys/class/net/up0/carrier && break; sleep 0.1; done"
                            .into(),
                    );
                }
                (random.of(&["up0", "up0", "eth0"]), random.of(&["up0", "eth0"]))
            }
            "macvlan" | "ipvlan" => {
                let mode = if kind == "ipvlan" { "l2" } else { random.of(&["bridge", "private", "vepa"]) };
                run(format!("ip link add link eth0 name up0 type {kind} mode {mode}"));
                if random.below(6) != 0 {
                    run("ip link set up0 up".into());
                }
                ("eth0", random.of(&["eth0", "up0"]))
            }
            "vrf" => {
                run("ip link add up0 type vrf table 10; ip link set up0 up; ip link set eth0 master up0"
                    .into());
                ("eth0", "eth0")
            }
            "dummy" => {
                run("ip link add up0 type dummy; ip link set up0 up".into());
                ("eth0", "eth0")
            }
            _ => ("eth0", "eth0"),
        };
        let made = ["bridge", "bond", "macvlan", "ipvlan", "vrf", "dummy"].contains(&kind);
        match random.below(10) {
            0 => run(format!("ip address add 198.51.100.1/24 dev {owns}")),
            1 => {}
            _ => run(format!("ip address add 192.0.2.1/24 dev {owns}")),
        }
        run(format!("ip address add 2001:db8::1/64 dev {owns} nodad"));
        // Parameters come before what they decide about.
        let links = if made { vec!["all", "eth0", "up0"] } else { vec!["all", "eth0"] };
        for link in &links {
            if random.below(2) == 0 {
                run(set("ipv4", link, "arp_ignore", random.of(&["0", "1", "1", "2", "3", "4", "8"])));
            }
            for parameter in ["arp_filter", "rp_filter", "proxy_arp", "proxy_arp_pvlan", "accept_local"] {
                if random.below(7) == 0 {
                    run(set("ipv4", link, parameter, "1"));
                }
            }
            if random.below(5) == 0 {
                run(set("ipv6", link, "proxy_ndp", "1"));
            }
        }
        if random.below(3) == 0 {
            run("sysctl -qw net/ipv4/ip_forward=1 net/ipv6/conf/all/forwarding=1".into());
        }
        let tentative = random.below(12) == 0;
        let taken = !tentative && random.below(20) == 0;
        if tentative {
            run(set("ipv6", "eth0", "dad_transmits", "100"));
        }
        // The VIP, in no to three places.
        let mut places = vec!["lo", "lo", "eth0", "eth0", "eth1"];
        places.extend(made.then_some("up0"));
        for _ in 0..random.below(4) {
            let place = random.of(&places);
            let prefix = random.of(&["/32", "/32", "/32", "/24", " peer 192.0.2.77/32"]);
            let scope = random.of(&["global", "global", "host", "link"]);
            run(format!("ip address add {VIP}{prefix} dev {place} scope {scope} || true"));
        }
        for _ in 0..random.below(3) {
            let place = random.of(&places);
            let detection = if (tentative || taken) && place == "eth0" { "" } else { "nodad" };
            run(format!("ip address add {VIP6}/128 dev {place} {detection} || true"));
        }
        let routes = [
            format!("ip route add local {VIP}/32 dev lo"),
            "ip route add local 192.0.2.96/28 dev lo".into(),
            format!("ip route add {VIP}/32 dev eth1"),
            format!("ip route add {VIP}/32 dev eth0"),
            format!("ip -6 route add {VIP6}/128 dev eth1"),
            format!("ip -6 route add local {VIP6}/128 dev lo"),
            "ip route add 192.0.2.0/25 dev eth1".into(),
            "ip route add 192.0.2.0/24 dev eth0".into(),
            "ip rule add iif eth0 priority 0 blackhole".into(),
            "ip rule add from 192.0.2.0/24 table 20; ip route add 192.0.2.0/24 dev eth0 table 20".into(),
            format!("ip neigh add proxy {VIP} dev eth0"),
            format!("ip -6 neigh add proxy {VIP6} dev eth0"),
            format!("ip neigh add proxy {VIP} dev eth1"),
            "ip route add default dev eth1".into(),
            "ip address add 192.0.2.101/32 dev lo; ip address add 192.0.2.102/32 dev eth1".into(),
        ];
        for _ in 0..random.below(3) {
            run(format!("{} || true", routes[random.below(routes.len())]));
        }
        match random.below(14) {
            0 => run("ip link set eth0 down".into()),
            1 => run(format!(
                "ip link set {} arp off",
                if made { random.of(&["eth0", "up0"]) } else { "eth0" }
            )),
            _ => {}
        }
        Self { commands, interface: named.to_owned(), taken }
    }

    /// How many VIPs answer, and what `status` and a neighbour do not agree about. What is just coming up may be told late:
    /// a disagreement counts when it stays.
    fn judged(&self) -> (usize, Vec<String>) {
        let (director, neighbour) = (Host::new("director"), Host::new("neighbour"));
        director.link("eth0", &neighbour, "eth0");
        neighbour.sh(&format!(
            "ip address add 192.0.2.2/24 dev eth0; ip address add 198.51.100.2/24 dev eth0
            ip address add 2001:db8::2/64 dev eth0 nodad
            [ {} = false ] || ip address add {VIP6}/64 dev eth0 nodad",
            self.taken
        ));
        director.sh(&self.commands.join("\n"));
        if self.taken {
            std::thread::sleep(std::time::Duration::from_secs(3));
            neighbour.sh(&format!("ip address del {VIP6}/64 dev eth0"));
        }
        director.desire(
            "VI_1",
            &format!(
                "version: 1\ninterface: {}\nvips: [{VIP}, \"{VIP6}\"]\nallow_empty: true\nvirtual_services: []\narp: off\n",
                self.interface
            ),
        );
        for _ in 0..3 {
            let (answer, problems) = self.compared(&director, &neighbour);
            if problems.is_empty() {
                return (answer, problems);
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        let (answer, mut problems) = self.compared(&director, &neighbour);
        problems.extend(self.commands.iter().map(|command| format!("    {command}")));
        (answer, problems)
    }

    fn compared(&self, director: &Host, neighbour: &Host) -> (usize, Vec<String>) {
        let ran = director.lvs("status VI_1 --json");
        let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.all()));
        // A neighbour in the network of the link that hears it.
        let own = director.ok("ip -4 -o address show");
        let near = |network: &str| {
            let mut own = own.lines().filter(|line| !line.contains(": lo ") && !line.contains(": eth1 "));
            own.any(|line| line.contains(network) && line.contains("/24"))
        };
        // Where two links answer, arping hears one of them, and each may have its own network.
        let two = self.commands.iter().any(|command| command.contains("up0 type macvlan"));
        let senders: &[&str] = match (near("192.0.2."), near("198.51.100.")) {
            (false, true) => &["198.51.100.2"],
            (true, true) if two => &["192.0.2.2", "198.51.100.2"],
            _ => &["192.0.2.2"],
        };
        let (mut answer, mut problems) = (0, Vec::new());
        for vip in status["vips"].as_array().unwrap() {
            let macs: BTreeSet<String> = if vip["address"] == VIP {
                let ask = |sender: &&str| {
                    neighbour.run(&format!("arping -c 1 -w 1 -s {sender} -I eth0 {VIP}")).stdout
                };
                let lines: String = senders.iter().map(ask).collect();
                let replies = lines.lines().filter(|line| line.contains(" reply from"));
                replies.map(|line| line.split(['[', ']']).nth(1).unwrap().to_lowercase()).collect()
            } else {
                // By the neighbour's kernel: ndisc6 does not hear what is answered for another host.
                neighbour.run(&format!("ping -6 -c 1 -W 1 -I eth0 {VIP6}"));
                let known = neighbour.ok(&format!("ip -6 neigh show to {VIP6} dev eth0"));
                neighbour.run("ip -6 neigh flush dev eth0");
                known.split_once("lladdr ").map(|(_, mac)| mac[..17].to_owned()).into_iter().collect()
            };
            let says = vip["answers"].as_bool().unwrap();
            let mac = vip["mac"].as_str().unwrap_or_default();
            answer += usize::from(says);
            if says == macs.is_empty() || says && !two && !macs.contains(mac) {
                problems.push(format!(
                    "{} on {}: status says {says} {mac} ({}); asked from {}, on the wire {macs:?}",
                    vip["address"],
                    self.interface,
                    vip["reason"],
                    senders.join(", ")
                ));
            }
        }
        (answer, problems)
    }
}

/// Tries as many arrangements as are asked for, or else so many.
pub(crate) fn agree(usual: usize, kinds: &[&str]) {
    let (tried, next) = (rounds(usual), AtomicUsize::new(0));
    let some = || {
        let mut all = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= tried {
                return all;
            }
            let (answer, problems) = Arrangement::random(&mut Random(number as u64), kinds).judged();
            all.push((
                answer,
                format!("arrangement {number}:\n{}\n", problems.join("\n")),
                problems.is_empty(),
            ));
        }
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIDE_BY_SIDE.min(tried)).map(|_| scope.spawn(some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let answer: usize = all.iter().map(|(answer, ..)| answer).sum();
    let wrong: Vec<&str> =
        all.iter().filter(|(.., agreed)| !agreed).map(|(_, told, _)| told.as_str()).collect();
    let agreed = tried - wrong.len();
    println!("arrangements: {tried} tried, {agreed} agreed; of {} VIPs {answer} answer", 2 * tried);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answer > 0 && answer < 2 * tried, "nothing was compared");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn status_and_the_wire_agree() {
    agree(240, &["plain", "plain", "plain", "altname", "bridge", "bridge", "macvlan"]);
}
