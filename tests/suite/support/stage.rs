//! An example on its stage: the folder's own network and files, the real keepalived on both directors.
//!
//! Owns setting it up as its README tells people to, and looking at it from outside. The network's vocabulary is
//! examples/failover/network.sh. Leaves what must be true to `examples`, its only user.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::network::{PATIENCE, Server, Tally, request};
use super::{Background, Host, LVS_NOTIFY, wait_for};

/// Builds the hosts, tells their processes, and keeps them until its input ends.
const BUILD: &str = r#"
    source "$0/../failover/network.sh"
    source "$0/network.sh"
    for name in "${!host_process[@]}"; do echo "$name ${host_process[$name]}"; done
    echo
    read -r || kill "${host_process[@]}"
"#;

pub struct Stage {
    folder: PathBuf,
    keepalived: BTreeMap<String, Background>,
    _servers: Vec<Server>,
    hosts: BTreeMap<String, Host>,
    builder: Child,
}

impl Stage {
    /// Builds the example's network and installs its files.
    pub fn new(example: &str, servers: &[(&str, u16)]) -> Self {
        println!("\n=== {example}");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
        // In a network of its own, so that the switches end with it.
        let mut builder = Command::new("unshare")
            .args(["--net", "bash", "-euc", BUILD])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(builder.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut hosts = BTreeMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, pid) = line.split_once(' ').expect("a host");
            hosts.insert(name.to_owned(), Host::of(name, pid.parse().unwrap()));
        }
        assert!(hosts.contains_key("lb2"), "{example}: its network could not be built");
        let servers = servers.iter().map(|(name, port)| Server::on(&hosts[*name], *port)).collect();
        let stage = Self { folder, keepalived: BTreeMap::new(), _servers: servers, hosts, builder };
        for director in ["lb1", "lb2"] {
            stage.install(director);
        }
        stage
    }

    /// The files of the folder, where its README says; the program where keepalived.conf says.
    fn install(&self, director: &str) {
        let host = self.host(director);
        let conf = fs::read_to_string(self.folder.join(format!("keepalived-{director}.conf"))).unwrap();
        host.write("/etc/keepalived/keepalived.conf", &conf);
        for instance in self.instances() {
            let yaml = fs::read_to_string(self.folder.join(format!("{instance}.yaml"))).unwrap();
            host.desire(&instance, &yaml);
        }
        // keepalived runs only what nobody but root can change: a copy, in a directory of the host's own.
        fs::copy(LVS_NOTIFY, host.path("/run/lvs-notify.program")).unwrap();
        host.sh("chmod 755 /run/lvs-notify.program && chmod 644 /etc/keepalived/*.conf /etc/lvs-notify/*
            [ -e /usr/bin/lvs-notify ] || touch /usr/bin/lvs-notify
            mount --bind /run/lvs-notify.program /usr/bin/lvs-notify");
    }

    fn instances(&self) -> BTreeSet<String> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let yaml = files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
        yaml.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    }

    pub fn host(&self, name: &str) -> &Host {
        &self.hosts[name]
    }

    pub fn start(&mut self, director: &str) {
        let daemon = self.host(director).start("keepalived --dont-fork --log-detail");
        self.keepalived.insert(director.to_owned(), daemon);
    }

    /// As `systemctl stop keepalived` does.
    pub fn stop(&mut self, director: &str) {
        let mut daemon = self.keepalived.remove(director).expect("a running keepalived");
        daemon.signal(Signal::SIGTERM);
        daemon.wait();
    }

    /// Waits until the instance has this role there, and the kernel is as the file wants it.
    pub fn settled(&self, director: &str, instance: &str, role: &str) {
        let begin = format!("{instance}: {role} since ");
        let mut seen = String::new();
        let end = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < end {
            let status = self.host(director).run(&format!("lvs-notify status {instance}"));
            if status.status == 0 && status.stdout.starts_with(&begin) {
                return;
            }
            seen = status.all();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = self.host(director).read("/var/log/messages");
        panic!("{director} is not {role} of {instance}, in sync, but:\n{seen}\n{log}");
    }

    /// The directors that the client hears answer ARP or ND for the VIP, all of them.
    pub fn answers(&self, vip: SocketAddr) -> Vec<&'static str> {
        let ask = match vip {
            SocketAddr::V4(_) => format!("arping -b -c 2 -I eth0 {}", vip.ip()),
            SocketAddr::V6(_) => format!("ndisc6 -m {} eth0", vip.ip()),
        };
        let mut reply = String::new();
        wait_for("somebody answers for the VIP", PATIENCE, || {
            let ran = self.host("client").run(&ask);
            reply = ran.all().to_lowercase();
            ran.status == 0
        });
        let is_from =
            |name: &&str| reply.contains(self.host(name).ok("cat /sys/class/net/eth0/address").trim());
        let others = self.hosts.keys().filter(|name| !["client", "lb1", "lb2"].contains(&name.as_str()));
        for other in others {
            assert!(!is_from(&other.as_str()), "{other} answers for the VIP: {reply}");
        }
        ["lb1", "lb2"].into_iter().filter(is_from).collect()
    }

    /// Requests of the client, one after the other.
    pub fn ask(&self, vip: SocketAddr, count: usize) -> Tally {
        let work = move || {
            let mut tally = Tally::default();
            (0..count).for_each(|_| tally.count(request(vip)));
            tally
        };
        self.host("client").inside(work).join().unwrap()
    }

    /// What the README shows is what is seen. A block that begins with `HOST# COMMAND` is the command's output in
    /// these lines and this order; `...` stands for what is left out, and times are not compared.
    pub fn shows_what_the_readme_shows(&self) {
        let readme = fs::read_to_string(self.folder.join("README.md")).unwrap();
        let mut shown = 0;
        for block in readme.split("```\n").filter(|block| block.starts_with("lb")) {
            let (prompt, expected) = block.split_once('\n').unwrap();
            let (host, command) = prompt.split_once("# ").expect("HOST# COMMAND");
            let output = self.host(host).ok(command);
            println!("{prompt}\n{output}");
            let mut lines = output.lines().map(timeless);
            for line in expected.lines().filter(|line| line.trim() != "...") {
                let found = lines.any(|seen| seen == timeless(line));
                assert!(found, "README.md shows `{line}`; seen on {host}, `{command}`:\n{output}");
            }
            shown += 1;
        }
        assert!(shown >= 2, "README.md does not show what MASTER and BACKUP say");
    }
}

/// Without what is different each time.
fn timeless(line: &str) -> &str {
    line.split(" since ").next().unwrap_or_default().trim_end()
}

impl Drop for Stage {
    /// Ends keepalived as systemd does, while its network is still there; then the network.
    fn drop(&mut self) {
        self.keepalived.values().for_each(|daemon| daemon.signal(Signal::SIGTERM));
        for daemon in self.keepalived.values_mut() {
            daemon.wait();
        }
        drop(self.builder.stdin.take());
        let _ = self.builder.wait();
    }
}
