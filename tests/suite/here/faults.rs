//! A kernel that fails: every change of a role change × every error, and every read.
//!
//! Owns the double that fails on demand; leaves what the real kernel's errors look like to
//! `kernel`'s own tests and to `services`. Needs root, for /run/lvs-notify.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use lvs_notify::config::Config;
use lvs_notify::instance::Instance;
use lvs_notify::kernel::{Error, Kernel, Result};
use lvs_notify::model::{AddressKey, Family, Owned, Parameter, Protocol, Role, Service, ServiceKey};
use lvs_notify::observed::{Observed, ObservedIpvs, Scope};
use lvs_notify::plan::{Change, Needs, Plan};
use lvs_notify::reconcile::{Outcome, Request, run};
use nix::errno::Errno;

const FILE: &str = "\
version: 1
interface: eth0
vips: [192.0.2.100, 2001:db8::100]
arp: {persist: false}
announce: {count: 1}
virtual_services:
  - {address: 192.0.2.100:80, scheduler: rr, real_servers: [203.0.113.1:80, 203.0.113.2:80]}
  - {address: 192.0.2.100:443, scheduler: rr, real_servers: [203.0.113.1:443]}
  - {address: \"[2001:db8::100]:80\", scheduler: rr, real_servers: [\"[2001:db8::1]:80\"]}
";

/// Every error that the kernel is known to give for what this program asks of it.
const ERRORS: [Errno; 14] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::EEXIST,
    Errno::ENOENT,
    Errno::ESRCH,
    Errno::EINVAL,
    Errno::ERANGE,
    Errno::EBUSY,
    Errno::ENOMEM,
    Errno::ENOBUFS,
    Errno::ENODEV,
    Errno::EAFNOSUPPORT,
    Errno::EROFS,
    Errno::ETIMEDOUT,
];

/// The model, which refuses the change or the reading that it is told to refuse.
struct Failing {
    state: Observed,
    changes: usize,
    reads: usize,
    fail_change: Option<(usize, Errno)>,
    fail_read: Option<usize>,
    /// A parameter that it does not have
    lacks: Option<Parameter>,
    announced: Vec<AddressKey>,
}

fn refusal(what: &str, errno: Errno) -> Error {
    Error {
        operation: format!("trying {what}"),
        errno: Some(errno),
        detail: "told to fail".into(),
        remedy: None,
    }
}

impl Kernel for Failing {
    fn observe(&mut self, _: &Scope) -> Result<Observed> {
        self.reads += 1;
        if self.fail_read == Some(self.reads - 1) {
            return Err(refusal("a reading", Errno::ETIMEDOUT));
        }
        Ok(self.state.clone())
    }

    fn prepare(&mut self, _: &Needs) -> Vec<Error> {
        Vec::new()
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for change in changes {
            let number = self.changes;
            self.changes += 1;
            if matches!(change, Change::Parameter { parameter, .. } if Some(parameter) == self.lacks.as_ref())
            {
                results.push(Err(refusal(&change.to_string(), Errno::ENOENT)));
                continue;
            }
            match self.fail_change {
                Some((wanted, errno)) if wanted == number => {
                    if errno == Errno::ENOBUFS {
                        // Done, but the answer is lost.
                        crate::support::model::carry_out(&mut self.state, change);
                    }
                    results.push(Err(refusal(&change.to_string(), errno)));
                }
                _ => {
                    crate::support::model::carry_out(&mut self.state, change);
                    results.push(Ok(()));
                }
            }
        }
        results
    }

    fn announce(&mut self, addresses: &[AddressKey]) -> Vec<Result<()>> {
        self.announced.extend_from_slice(addresses);
        addresses.iter().map(|_| Ok(())).collect()
    }
}

fn foreign() -> (ServiceKey, lvs_notify::observed::ObservedService) {
    let address: IpAddr = "198.51.100.7".parse().unwrap();
    let settings = Service {
        scheduler: "wlc".into(),
        flags: 0,
        timeout: 0,
        netmask: Service::full_netmask(Family::Ipv4),
        engine: String::new(),
    };
    let wanted = lvs_notify::config::WantedService { settings, servers: Default::default() };
    (
        ServiceKey::Endpoint { address, port: 25, protocol: Protocol::TCP },
        crate::support::model::found(wanted),
    )
}

fn kernel() -> Failing {
    let ipvs = ObservedIpvs { services: [foreign()].into(), ..ObservedIpvs::default() };
    let names = ["all", "lo", "eth0"].map(str::to_owned);
    let both =
        names.into_iter().flat_map(|name| [Parameter::ArpIgnore(name.clone()), Parameter::ArpAnnounce(name)]);
    let parameters = both.map(|parameter| (parameter, "0".to_owned())).collect();
    let state = Observed { ipvs: Some(ipvs), parameters, ..Observed::default() };
    Failing {
        state,
        changes: 0,
        reads: 0,
        fail_change: None,
        fail_read: None,
        lacks: None,
        announced: Vec::new(),
    }
}

struct Bench {
    instance: Instance,
}

impl Bench {
    /// A bench of its own for each test: they run beside each other.
    fn new(test: &str) -> Self {
        let name = format!("faults-{test}-{}", std::process::id());
        let path = PathBuf::from(format!("/run/{name}.yaml"));
        std::fs::write(&path, FILE).expect("this test needs root");
        Self { instance: Instance { name, path } }
    }

    fn forget(&self) {
        let name = &self.instance.name;
        let _ = std::fs::remove_file(format!("/run/lvs-notify/{name}.json"));
        let _ = std::fs::remove_dir_all(format!("/run/lvs-notify/{name}.notifications"));
    }

    fn run(&self, kernel: &mut Failing, role: Role) -> anyhow::Result<Outcome> {
        let request = Request {
            instance: self.instance.clone(),
            role: Some(role),
            command: "test".to_owned(),
            started: Instant::now(),
            announcer: |_| (),
        };
        run(kernel, &request)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.forget();
        let _ = std::fs::remove_file(&self.instance.path);
        let _ = std::fs::remove_file(format!("/var/lib/lvs-notify/{}.yaml", self.instance.name));
    }
}

fn desired(role: Role) -> lvs_notify::desired::Desired {
    let source = lvs_notify::config::source::Source { name: "test".into(), text: FILE.into() };
    lvs_notify::desired::Desired::for_role(&Config::parse(&source).unwrap(), role)
}

/// What must hold after any run, failed or not.
fn assert_safe(kernel: &Failing, what: &str) {
    let (key, service) = foreign();
    let services = &kernel.state.ipvs.as_ref().unwrap().services;
    assert_eq!(services.get(&key), Some(&service), "{what}: a foreign service was touched");
    for wanted in desired(Role::Master).services.keys() {
        let ServiceKey::Endpoint { address, .. } = wanted else { continue };
        let up = kernel
            .state
            .addresses
            .iter()
            .any(|found| found.key.interface == "eth0" && found.key.address == *address);
        assert!(!up || services.contains_key(wanted), "{what}: {address} is up without its service {wanted}");
    }
}

fn assert_converged(kernel: &Failing, role: Role, what: &str) {
    let plan = Plan::between(&desired(role), &kernel.state, &Owned::default());
    assert!(
        plan.is_empty(),
        "{what}: the next run left {:?}",
        plan.changes().map(ToString::to_string).collect::<Vec<_>>()
    );
}

#[test]
#[ignore = "needs root: run tests/run"]
fn every_change_times_every_error() {
    let bench = Bench::new("changes");
    let mut tried = 0;
    for role in [Role::Master, Role::Backup] {
        let mut start = kernel();
        if role == Role::Backup {
            bench.run(&mut start, Role::Master).unwrap();
        }
        bench.forget();
        let mut clean = kernel();
        clean.state = start.state.clone();
        bench.run(&mut clean, role).unwrap();
        assert_converged(&clean, role, "a run without errors");
        for number in 0..clean.changes {
            for errno in ERRORS {
                let what = format!("{role}, change {number}, {errno}");
                bench.forget();
                let mut failing = kernel();
                failing.state = start.state.clone();
                failing.fail_change = Some((number, errno));
                let outcome =
                    bench.run(&mut failing, role).unwrap_or_else(|error| panic!("{what}: {error:#}"));
                assert!(!outcome.is_clean(), "{what}: the failure was not reported");
                if role == Role::Master {
                    assert_safe(&failing, &what);
                }
                failing.fail_change = None;
                let again = bench.run(&mut failing, role).unwrap_or_else(|error| panic!("{what}: {error:#}"));
                assert!(again.is_clean(), "{what}: the next run failed as well");
                assert_converged(&failing, role, &what);
                tried += 1;
            }
        }
    }
    println!("{tried} failing changes: each reported, none unsafe, each repaired by the next run");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn every_reading_that_fails() {
    let bench = Bench::new("reads");
    for role in [Role::Master, Role::Backup] {
        for number in 0..3 {
            let what = format!("{role}, reading {number}");
            bench.forget();
            let mut failing = kernel();
            if role == Role::Backup {
                bench.run(&mut failing, Role::Master).unwrap();
                failing.reads = 0;
            }
            failing.fail_read = Some(number);
            let reported = bench.run(&mut failing, role).map_or(true, |outcome| !outcome.is_clean());
            assert!(reported || failing.reads <= number, "{what}: the failure was not reported");
            if role == Role::Master {
                assert_safe(&failing, &what);
            } else {
                assert!(failing.state.addresses.is_empty(), "{what}: the VIPs stayed up");
            }
            failing.fail_read = None;
            assert!(bench.run(&mut failing, role).unwrap().is_clean(), "{what}");
            assert_converged(&failing, role, &what);
        }
    }
}

#[test]
#[ignore = "needs root: run tests/run"]
fn a_parameter_that_the_kernel_lacks_fails_no_run() {
    let bench = Bench::new("lacks");
    std::fs::write(&bench.instance.path, format!("{FILE}ipvs: {{sysctl: {{sloppy_tcp: 1}}}}\n")).unwrap();
    bench.forget();
    let mut kernel = kernel();
    kernel.lacks = Some(Parameter::Ipvs("sloppy_tcp".into()));
    let outcome = bench.run(&mut kernel, Role::Master).unwrap();
    assert!(
        outcome.is_clean() && outcome.done.iter().all(|(change, _)| !change.to_string().contains("sloppy"))
    );
    assert_eq!(kernel.announced.len(), 2, "the VIPs are served all the same");
}
