//! Hosts for tests: each a network and mount namespace of its own, wired with veth pairs.
//!
//! Owns namespaces, commands inside them, and waiting with a deadline. The judges (`ip`,
//! `ipvsadm`, `arping`) are run by the tests themselves. Used by every test that needs a kernel.
#![allow(missing_docs)]

pub mod figures;
pub mod golden;
pub mod model;
pub mod network;
pub mod session;
pub mod stage;
pub mod tables;
pub mod told;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// The program under test, inside and outside the guest.
pub const LVS_NOTIFY: &str = env!("CARGO_BIN_EXE_lvs-notify");

/// A machine of its own: network, mounts, and empty /run/lvs-notify, /var/lib/lvs-notify,
/// /etc/lvs-notify and /etc/sysctl.d. It ends with the value.
pub struct Host {
    name: String,
    pid: u32,
    /// what ends with the value; nothing when somebody else keeps the namespaces
    holder: Option<Child>,
    /// What shows that keepalived lives
    vrrp: Option<OwnedFd>,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Of IP protocol 112, as keepalived has them.
fn vrrp_socket() -> OwnedFd {
    use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
    let protocol = 112.try_into().map(Protocol::from_raw).expect("a number");
    socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
        .expect("a raw socket")
}

impl Host {
    pub fn new(name: &str) -> Self {
        // keepalived wants /etc/keepalived as it is, but for its own configuration.
        let prepare =
            "for directory in /run/lvs-notify /var/lib/lvs-notify /etc/lvs-notify /etc/sysctl.d /run/test; do
                mkdir -p $directory && mount -t tmpfs -o mode=755 none $directory || exit 1
            done
            mount -t sysfs sysfs /sys 2>/dev/null
            ip link set lo up && echo ready && exec sleep 100000";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", prepare])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("stdout");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .expect("the namespace's answer");
        assert_eq!(line, "ready\n", "host {name} could not be made; these tests need root");
        let mut host = Self { name: name.to_owned(), pid: holder.id(), holder: Some(holder), vrrp: None };
        host.vrrp = Some(host.inside(vrrp_socket).join().expect("the thread"));
        host
    }

    /// From now on nobody speaks VRRP here but a keepalived that a test has started.
    pub fn without_keepalived(&mut self) {
        self.vrrp = None;
    }

    /// The machine whose namespaces this process keeps.
    pub fn of(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid, holder: None, vrrp: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id that stands for the host's namespaces.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A command inside the host, to be configured further.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "--net", "--mount", "--"]).arg(resolved(program));
        command.stdin(Stdio::null());
        command
    }

    /// Does something in a thread that is in the host's network and mounts. A program started there stays there, and
    /// has not cost the start of another one (nsenter) before.
    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", self.pid)).expect("the namespace");
        let (network, mounts) = (open("net"), open("mnt"));
        let thread = || {
            // Only a thread with a root and a working directory of its own may have other mounts.
            unshare(CloneFlags::CLONE_FS).expect("a directory of its own");
            setns(network, CloneFlags::CLONE_NEWNET).expect("entering the network");
            setns(mounts, CloneFlags::CLONE_NEWNS).expect("entering the mounts");
            work()
        };
        std::thread::scope(|scope| scope.spawn(thread).join()).expect("the thread")
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(resolved(program));
        command.args(arguments).stdin(Stdio::null());
        let output = self.within(|| command.output());
        Ran::of(output.unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    /// Runs a command line without a shell: words are split at blanks.
    pub fn run(&self, line: &str) -> Ran {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (program, arguments) = words.split_first().expect("a command");
        self.output(program, arguments)
    }

    /// Runs a command line that must succeed; gives its standard output.
    pub fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.status, 0, "{}: `{line}` failed: {}", self.name, ran.all());
        ran.stdout
    }

    /// Runs a shell script that must succeed; gives its standard output.
    pub fn sh(&self, script: &str) -> String {
        // bash: busybox's sh would run its own ip, whatever PATH says.
        let ran = self.output("bash", &["-c", script]);
        assert_eq!(ran.status, 0, "{}: `{script}` failed: {}", self.name, ran.all());
        ran.stdout
    }

    /// Runs lvs-notify, and the rehearsal that may follow: while it fills the IPVS table, which all namespaces share, a judge
    /// could see a service twice.
    pub fn lvs(&self, arguments: &str) -> Ran {
        let ran = self.run(&format!("{LVS_NOTIFY} {arguments}"));
        if ["backup", "fault", "apply"].iter().any(|command| arguments.starts_with(command)) {
            wait_for_rehearsals();
        }
        ran
    }

    /// The same, which must end with 0.
    pub fn lvs_ok(&self, arguments: &str) -> String {
        let ran = self.lvs(arguments);
        assert_eq!(ran.status, 0, "{}: `lvs-notify {arguments}` failed: {}", self.name, ran.all());
        ran.stdout
    }

    /// Starts a command that goes on in the background; it is killed with the returned value.
    pub fn start(&self, line: &str) -> Background {
        self.start_with(line, [Stdio::null(), Stdio::null(), Stdio::null()])
    }

    /// The same with this standard input, output and error output.
    pub fn start_with(&self, line: &str, [input, output, errors]: [Stdio; 3]) -> Background {
        let mut words = line.split_whitespace();
        let mut command = Command::new(resolved(words.next().expect("a command")));
        command.args(words).stdin(input).stdout(output).stderr(errors);
        Background(self.within(|| command.spawn()).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// Runs `work` in a thread that is in the host's network; sockets made there stay there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the namespace");
        std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            work()
        })
    }

    /// A path of this host's file system as seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Writes the desired-state file of an instance.
    pub fn desire(&self, instance: &str, yaml: &str) {
        self.write(&format!("/etc/lvs-notify/{instance}.yaml"), yaml);
    }

    /// Connects two hosts with a veth pair, both ends up.
    pub fn link(&self, own: &str, other: &Self, others: &str) {
        let line = format!("ip link add {own} type veth peer name {others} netns {}", other.pid());
        self.ok(&line);
        self.ok(&format!("ip link set {own} up"));
        other.ok(&format!("ip link set {others} up"));
    }

    /// Puts an address with a prefix on an interface.
    pub fn address(&self, address: &str, interface: &str) {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.ok(&format!("ip address add {address} dev {interface}{nodad}"));
    }
}

/// Waits for the end of rehearsals that nobody has asked for, here or on another host, but not for ever.
pub fn wait_for_rehearsals() {
    let deadline = Instant::now() + Duration::from_secs(5);
    while rehearses() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rehearses() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |process: std::fs::DirEntry| std::fs::read(process.path().join("cmdline")).unwrap_or_default();
    processes.map(line).any(|line| line.starts_with(b"lvs-notify-rehearsal\0"))
}

/// A director with a client-side and a server-side interface, a client, and a real server behind NAT.
pub fn behind_nat(server_address: &str) -> (Host, Host, Host) {
    let (lb, client, server) = (Host::new("lb"), Host::new("client"), Host::new("server"));
    lb.link("eth0", &client, "eth0");
    lb.link("eth1", &server, "eth0");
    lb.address("192.0.2.1/24", "eth0");
    lb.address("203.0.113.1/24", "eth1");
    client.address("192.0.2.9/24", "eth0");
    server.address(&format!("{server_address}/24"), "eth0");
    server.ok("ip route add default via 203.0.113.1");
    lb.ok("sysctl -qw net.ipv4.ip_forward=1");
    (lb, client, server)
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A background process of a host.
pub struct Background(Child);

impl Background {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, signal);
    }

    /// Waits for its end; gives the exit status, or -1 for a signal.
    pub fn wait(&mut self) -> i32 {
        self.0.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program's full path: busybox's nsenter would run its own ip and ping for the bare name.
fn resolved(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| program.into())
}

/// Waits until `condition` holds; fails with its description after `patience`.
pub fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every netlink message that a program sent: its kind (`nlmsg_type`) and what follows its header. From the
/// output of `strace -e trace=sendmsg -e write=all`: how much of a message the call's own line explains differs from
/// version to version, and the dump below it does not.
pub fn netlink_messages(trace: &str) -> Vec<(u16, Vec<u8>)> {
    let unhex = |line: &str| -> Vec<u8> {
        // ` | 00010  03 01 00 00 09 00 02 00  49 50 56 53 00 00 00 00  ........IPVS.... |`
        let row = line.split_once("  ").map_or("", |(_, row)| &row[..16 * 3 + 1]);
        row.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
    };
    let mut list = Vec::new();
    let lines: Vec<_> = trace.lines().collect();
    // One call has one dump, perhaps of several buffers.
    for dump in lines.split(|line| !line.starts_with(' ')) {
        let rows = dump.iter().filter(|line| line.starts_with(" | "));
        let bytes: Vec<u8> = rows.flat_map(|line| unhex(line)).collect();
        let mut rest = bytes.as_slice();
        while let Some((header, _)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            list.push((u16::from_ne_bytes([header[4], header[5]]), rest[16..length].to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    list
}
