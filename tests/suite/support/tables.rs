//! Tables that the suite builds: every setting once, and random ones.
//!
//! Owns pairs of what a file says and what `ipvsadm -Sn` shows then. Builds nothing itself. Used by `services` and
//! `import`.
use std::collections::BTreeMap;

/// The service of most cases.
pub const A: &str = "203.0.113.10:80";
/// Their real server.
pub const R: &str = "10.0.0.11:80";

/// One a line: a service as the file has it, and the lines of `ipvsadm -Sn` that it must become. Many
/// neighbours have one key in common, so that each is also an edit of the one before.
const CASES: &str = r#"
{address: $A, real_servers: []} => -A -t $A -s wlc
{address: $A, protocol: tcp, scheduler: rr, real_servers: [$R]} => -A -t $A -s rr; -a -t $A -r $R -m -w 1
{address: $A, protocol: udp, scheduler: rr, real_servers: [$R]} => -A -u $A -s rr; -a -u $A -r $R -m -w 1
{address: $A, protocol: sctp, scheduler: rr, real_servers: [$R]} => -A --sctp-service $A -s rr; -a --sctp-service $A -r $R -m -w 1
{address: "[2001:db8::10]:80", scheduler: rr, real_servers: ["[2001:db8:1::11]:8080"]} => -A -t [2001:db8::10]:80 -s rr; -a -t [2001:db8::10]:80 -r [2001:db8:1::11]:8080 -m -w 1
{fwmark: 7, scheduler: rr, forward: dr, real_servers: [10.0.0.11]} => -A -f 7 -s rr; -a -f 7 -r 10.0.0.11:0 -g -w 1
{fwmark: 7, family: ipv4, scheduler: rr, real_servers: [10.0.0.11, 10.0.0.12:8080]} => -A -f 7 -s rr; -a -f 7 -r 10.0.0.11:0 -m -w 1; -a -f 7 -r 10.0.0.12:8080 -m -w 1
{fwmark: 7, family: ipv6, scheduler: rr, forward: dr, real_servers: ["2001:db8:1::11"]} => -A -f 7 -6 -s rr; -a -f 7 -6 -r [2001:db8:1::11]:0 -g -w 1
{fwmark: 2147483647, real_servers: []} => -A -f 2147483647 -s wlc
{address: $A, scheduler: rr, real_servers: [$R]} => -A -t $A -s rr; -a -t $A -r $R -m -w 1
{address: $A, scheduler: wrr, real_servers: [$R]} => -A -t $A -s wrr; -a -t $A -r $R -m -w 1
{address: $A, scheduler: lc, real_servers: [$R]} => -A -t $A -s lc; -a -t $A -r $R -m -w 1
{address: $A, scheduler: wlc, real_servers: [$R]} => -A -t $A -s wlc; -a -t $A -r $R -m -w 1
{address: $A, scheduler: lblc, real_servers: [$R]} => -A -t $A -s lblc; -a -t $A -r $R -m -w 1
{address: $A, scheduler: lblcr, real_servers: [$R]} => -A -t $A -s lblcr; -a -t $A -r $R -m -w 1
{address: $A, scheduler: dh, real_servers: [$R]} => -A -t $A -s dh; -a -t $A -r $R -m -w 1
{address: $A, scheduler: sh, real_servers: [$R]} => -A -t $A -s sh; -a -t $A -r $R -m -w 1
{address: $A, scheduler: sed, real_servers: [$R]} => -A -t $A -s sed; -a -t $A -r $R -m -w 1
{address: $A, scheduler: nq, real_servers: [$R]} => -A -t $A -s nq; -a -t $A -r $R -m -w 1
{address: $A, scheduler: fo, real_servers: [$R]} => -A -t $A -s fo; -a -t $A -r $R -m -w 1
{address: $A, scheduler: ovf, real_servers: [$R]} => -A -t $A -s ovf; -a -t $A -r $R -m -w 1
{address: $A, scheduler: mh, real_servers: [$R]} => -A -t $A -s mh; -a -t $A -r $R -m -w 1
{address: $A, scheduler: sh, scheduler_flags: [sh-port], real_servers: []} => -A -t $A -s sh -b sh-port
{address: $A, scheduler: sh, scheduler_flags: [sh-fallback], real_servers: []} => -A -t $A -s sh -b sh-fallback
{address: $A, scheduler: sh, scheduler_flags: [sh-port, sh-fallback], real_servers: []} => -A -t $A -s sh -b sh-fallback,sh-port
{address: $A, scheduler: mh, scheduler_flags: [mh-port], real_servers: []} => -A -t $A -s mh -b mh-port
{address: $A, scheduler: mh, scheduler_flags: [mh-fallback], real_servers: []} => -A -t $A -s mh -b mh-fallback
{address: $A, scheduler: mh, scheduler_flags: [mh-fallback, mh-port], real_servers: []} => -A -t $A -s mh -b mh-fallback,mh-port
{address: $A, scheduler: rr, scheduler_flags: [flag-1], real_servers: []} => -A -t $A -s rr -b flag-1
{address: $A, scheduler: rr, scheduler_flags: [flag-2], real_servers: []} => -A -t $A -s rr -b flag-2
{address: $A, scheduler: rr, scheduler_flags: [flag-3], real_servers: []} => -A -t $A -s rr -b flag-3
{address: $A, scheduler: rr, scheduler_flags: [], real_servers: []} => -A -t $A -s rr
{address: $A, scheduler: rr, persistence: 5m, real_servers: []} => -A -t $A -s rr -p 300
{address: $A, scheduler: rr, persistence: 90, real_servers: []} => -A -t $A -s rr -p 90
{address: $A, scheduler: rr, persistence: 1h, real_servers: []} => -A -t $A -s rr -p 3600
{address: $A, scheduler: rr, persistence: 31d, real_servers: []} => -A -t $A -s rr -p 2678400
{address: $A, scheduler: rr, persistence: {}, real_servers: []} => -A -t $A -s rr -p 360
{address: $A, scheduler: rr, persistence: {timeout: 10m}, real_servers: []} => -A -t $A -s rr -p 600
{address: $A, scheduler: rr, persistence: {timeout: 60, netmask: 255.255.255.0}, real_servers: []} => -A -t $A -s rr -p 60 -M 255.255.255.0
{address: $A, scheduler: rr, persistence: {netmask: 255.255.255.255}, real_servers: []} => -A -t $A -s rr -p 360
{address: "[2001:db8::10]:80", scheduler: rr, persistence: {timeout: 1m, prefix: 64}, real_servers: []} => -A -t [2001:db8::10]:80 -s rr -p 60 -M 64
{address: 203.0.113.10:5060, protocol: udp, scheduler: rr, persistence: {timeout: 1m, engine: sip}, real_servers: []} => -A -u 203.0.113.10:5060 -s rr -p 60 --pe sip
{address: 203.0.113.10:0, scheduler: rr, persistence: 1m, forward: dr, real_servers: [10.0.0.11]} => -A -t 203.0.113.10:0 -s rr -p 60; -a -t 203.0.113.10:0 -r 10.0.0.11:0 -g -w 1
{address: $A, protocol: udp, scheduler: rr, one_packet: true, real_servers: []} => -A -u $A -s rr -o
{address: $A, protocol: udp, scheduler: rr, one_packet: false, real_servers: []} => -A -u $A -s rr
{fwmark: 8, scheduler: rr, one_packet: true, real_servers: []} => -A -f 8 -s rr -o
{address: $A, scheduler: rr, real_servers: [{address: $R}]} => -A -t $A -s rr; -a -t $A -r $R -m -w 1
{address: $A, scheduler: rr, real_servers: [{address: $R, weight: 2}]} => -A -t $A -s rr; -a -t $A -r $R -m -w 2
{address: $A, scheduler: rr, real_servers: [{address: $R, weight: 0}]} => -A -t $A -s rr; -a -t $A -r $R -m -w 0
{address: $A, scheduler: rr, real_servers: [{address: $R, weight: 2147483647}]} => -A -t $A -s rr; -a -t $A -r $R -m -w 2147483647
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: nat}]} => -A -t $A -s rr; -a -t $A -r $R -m -w 1
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: dr}]} => -A -t $A -s rr; -a -t $A -r $R -g -w 1
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type ipip
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: ipip, checksum: nocsum}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type ipip
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: gue, port: 6080}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: gue, port: 6081, checksum: csum}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type gue --tun-port 6081 --tun-csum
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: gue, port: 6081, checksum: remcsum}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type gue --tun-port 6081 --tun-remcsum
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: gre}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type gre --tun-nocsum
{address: $A, scheduler: rr, real_servers: [{address: $R, forward: tun, tunnel: {type: gre, checksum: csum}}]} => -A -t $A -s rr; -a -t $A -r $R -i -w 1 --tun-type gre --tun-csum
{address: $A, scheduler: rr, forward: tun, real_servers: [{address: "[2001:db8:1::11]:80"}]} => -A -t $A -s rr; -a -t $A -r [2001:db8:1::11]:80 -i -w 1 --tun-type ipip
{address: $A, scheduler: rr, real_servers: [$R80, {address: $R81, weight: 3}]} => -A -t $A -s rr; -a -t $A -r $R80 -m -w 1; -a -t $A -r $R81 -m -w 3
"#;

/// The cases.
pub fn cases() -> Vec<(String, Vec<String>)> {
    let text = CASES.replace("$A", A).replace("$R", R);
    let case = |line: &str| {
        let (service, lines) = line.split_once(" => ").expect("a case");
        (service.to_owned(), lines.split("; ").map(str::to_owned).collect())
    };
    text.lines().filter(|line| !line.is_empty()).map(case).collect()
}

/// A small deterministic generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    pub fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Services that a random file chooses from: keys of the file, ipvsadm's option, its name in a list,
/// and the port that DR and TUN must keep.
pub const POOL: [(&str, &str, &str, u16); 8] = [
    ("address: 203.0.113.10:80", "-t 203.0.113.10:80", "TCP 203.0.113.10:80", 80),
    ("address: 203.0.113.10:443", "-t 203.0.113.10:443", "TCP 203.0.113.10:443", 443),
    ("address: 203.0.113.10:80, protocol: udp", "-u 203.0.113.10:80", "UDP 203.0.113.10:80", 80),
    (
        "address: 203.0.113.10:80, protocol: sctp",
        "--sctp-service 203.0.113.10:80",
        "SCTP 203.0.113.10:80",
        80,
    ),
    ("address: \"[2001:db8::10]:80\"", "-t [2001:db8::10]:80", "TCP [2001:db8::10]:80", 80),
    ("address: \"[2001:db8::10]:53\", protocol: udp", "-u [2001:db8::10]:53", "UDP [2001:db8::10]:53", 53),
    ("fwmark: 7", "-f 7", "FWM 7", 0),
    ("fwmark: 7, family: ipv6", "-f 7 -6", "FWM 7 IPv6", 0),
];

/// What a random file must become: lines of `ipvsadm -Sn` and of [`thresholds`].
#[derive(Default)]
pub struct Expected {
    pub services: Vec<String>,
    pub table: Vec<String>,
    pub thresholds: Vec<String>,
}

/// Adds a random service.
pub fn random_service(random: &mut Random, index: usize, expected: &mut Expected) {
    let (keys, option, name, service_port) = POOL[index];
    let six = option.contains('[') || option.ends_with("-6");
    let datagrams = option.starts_with("-u") || option.starts_with("-f");
    let (scheduler, flags, flags_shown) = [
        ("rr", "", ""),
        ("wrr", "", ""),
        ("wlc", "flag-3", " -b flag-3"),
        ("sh", "sh-port", " -b sh-port"),
        ("mh", "mh-fallback, mh-port", " -b mh-fallback,mh-port"),
        ("mh", "", ""),
    ][random.below(6)];
    let (persistence, persistence_shown) = match (random.below(4), six) {
        (0, _) => (", persistence: 5m", " -p 300"),
        (1, false) => (", persistence: {timeout: 60, netmask: 255.255.255.0}", " -p 60 -M 255.255.255.0"),
        (1, true) => (", persistence: {timeout: 60, prefix: 64}", " -p 60 -M 64"),
        _ => ("", ""),
    };
    let (packet, packet_shown) =
        if datagrams && random.below(3) == 0 { (", one_packet: true", " -o") } else { ("", "") };
    expected.table.push(format!("-A {option} -s {scheduler}{persistence_shown}{packet_shown}{flags_shown}"));

    let mut servers: BTreeMap<(usize, u16), String> = BTreeMap::new();
    for _ in 0..random.below(7) {
        let number = 11 + random.below(6);
        let forward = random.of(&["nat", "nat", "dr", "tun"]);
        let port = if forward == "nat" && random.below(2) == 0 { 8080 } else { service_port };
        let (tunnel, tunnel_shown) = match forward {
            "tun" => [
                ("", " --tun-type ipip"),
                (
                    ", tunnel: {type: gue, port: 6080, checksum: csum}",
                    " --tun-type gue --tun-port 6080 --tun-csum",
                ),
                (", tunnel: {type: gre}", " --tun-type gre --tun-nocsum"),
            ][random.below(3)],
            _ => ("", ""),
        };
        let weight = random.below(5);
        let (upper, lower) = [(0, 0), (0, 0), (100, 0), (100, 50)][random.below(4)];
        let address = if six { format!("[2001:db8:1::{number}]") } else { format!("10.0.0.{number}") };
        let written =
            if port == 0 { address.trim_matches(['[', ']']).to_owned() } else { format!("{address}:{port}") };
        let line = format!(
            "{{address: \"{written}\", forward: {forward}, weight: {weight}, upper_threshold: {upper}, lower_threshold: {lower}{tunnel}}}"
        );
        if servers.insert((number, port), line).is_some() {
            // The same server again would be refused; the first one's lines stand.
            servers.remove(&(number, port));
            expected.table.retain(|known| !known.starts_with(&format!("-a {option} -r {address}:{port} ")));
            expected.thresholds.retain(|known| !known.starts_with(&format!("{name} {address}:{port} ")));
            continue;
        }
        let method = match forward {
            "nat" => "-m",
            "dr" => "-g",
            _ => "-i",
        };
        expected.table.push(format!("-a {option} -r {address}:{port} {method} -w {weight}{tunnel_shown}"));
        expected.thresholds.push(format!("{name} {address}:{port} {upper} {lower}"));
    }
    let list: Vec<String> = servers.into_values().collect();
    expected.services.push(format!(
        "{{{keys}, scheduler: {scheduler}, scheduler_flags: [{flags}]{persistence}{packet}, real_servers: [{}]}}",
        list.join(", ")
    ));
}
