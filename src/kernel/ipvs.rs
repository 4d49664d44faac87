//! The IPVS table, its sync daemons and its timeouts, by generic netlink.
//!
//! Owns how a service and a real server look on the wire, the batches, and what an answer means for a change.
//! Which services there should be is decided by `plan`; numbers are in `ipvs_abi`. Called by `kernel`.
//! The kernel parses liberally: unknown attributes are ignored and most values are taken unchecked, so that
//! what is sent here must be right; and it is read back afterwards.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::GenlId;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;
use nix::sys::utsname::uname;

use super::Needs;
use super::error::{Error, Operation, Result};
use super::ipvs_abi::{FAMILY, FORWARD_MASK, command, daemon, dest, service, statistics, top};
use super::ipvs_sockopt::Table;
use super::netlink::{
    Attributes, Batch, Failure, Malformed, Message, Socket, Writer, be16_of, generic_attributes, text_of,
    u8_of, u16_of, u32_of, u64_of,
};
use crate::model::{
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon,
    Timeouts, Tunnel, service_flag,
};
use crate::observed::{Counters, ObservedIpvs, ObservedService, Rates, ServerScope};
use crate::plan::Change;

/// The scheduler of a service without one, since Linux 4.2 (`ip_vs_ctl.c`, `ip_vs_add_service`).
const NO_SCHEDULER: &str = "none";
/// Longest name of a scheduler (`IP_VS_SCHEDNAME_MAXLEN` without its NUL).
const NAME_MAX: usize = 15;

type Decoded<T> = std::result::Result<T, Malformed>;

/// The error for a kernel without IPVS.
pub(super) fn missing() -> Error {
    Error::new(Operation::FindIpvs, "", Errno::ENOENT)
}

/// How long modprobe is waited for: less than keepalived gives a stop script.
const LOADING: Duration = Duration::from_millis(600);

/// Runs modprobe as the kernel itself would (`kmod.c`, `call_modprobe`), and as ipvsadm does; once, and a disk that hangs
/// holds nobody up. The path is empty where that is forbidden. Whether it helped is seen by asking again.
fn load_module() {
    static TRIED: AtomicBool = AtomicBool::new(false);
    if TRIED.swap(true, Ordering::Relaxed) {
        return;
    }
    let program = std::fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let mut command = Command::new(program.trim_end());
    command
        .args(["-q", "--", "ip_vs"])
        .env_clear()
        .envs([("HOME", "/"), ("TERM", "linux"), ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let deadline = Instant::now() + LOADING;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            log::warn!("modprobe ip_vs (process {}) does not come to its end; going on without", child.id());
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Access to IPVS in the network namespace in which this was opened.
pub(super) struct Ipvs {
    socket: Socket,
    family: u16,
}

impl Ipvs {
    /// Finds the family, which loads the module ip_vs where it is installed (`genetlink.c`,
    /// `genl_get_cmd` with MODULE_ALIAS_GENL_FAMILY); before 5.16 it had none, and is loaded by its name.
    /// `None` when the kernel has none.
    pub(super) fn open() -> Result<Option<Self>> {
        let resolve = || {
            let mut socket = Socket::open(SockProtocol::NetlinkGeneric)?;
            let mut attributes = Writer::default();
            attributes.put_text(CtrlAttr::FamilyName.into(), FAMILY);
            let message = Message::generic(GenlId::Ctrl.into(), CtrlCmd::Getfamily.into(), attributes);
            let reply = socket.request(&message)?.ok_or(Malformed)?;
            let family = family_id(&reply)?;
            Ok(Self { socket, family })
        };
        let missing =
            |failure: &Failure| matches!(failure, Failure::Refused { .. }) && failure.is(Errno::ENOENT);
        let found = match resolve() {
            Err(failure) if missing(&failure) => {
                load_module();
                resolve()
            }
            found => found,
        };
        match found {
            Ok(ipvs) => Ok(Some(ipvs)),
            Err(failure) if missing(&failure) => Ok(None),
            Err(failure) => Err(Error::netlink(Operation::FindIpvs, "", &failure)),
        }
    }

    /// Reads every service, the real servers of those in `scope`, the timeouts and the sync daemons.
    pub(super) fn observe(&mut self, scope: &ServerScope) -> Result<ObservedIpvs> {
        let services = self
            .dump(command::GET_SERVICE, Writer::default(), decode_service)
            .map_err(|failure| Error::netlink(Operation::ReadServices, "", &failure))?;
        let mut observed = ObservedIpvs::default();
        let asked = |key: &ServiceKey| match scope {
            ServerScope::All => true,
            ServerScope::Owned(ownership) => ownership.owns(key),
            ServerScope::Nothing => false,
        };
        let shown = |(key, _): &(ServiceKey, Service)| key.family() == Family::Ipv4 && asked(key);
        let mut table = if services.iter().any(shown) { Table::read() } else { None };
        // The dump's cursor is a position, so that a change between two of its datagrams can show an entry
        // twice: the map keeps one.
        for (key, settings) in services {
            let mut list = Vec::new();
            if asked(&key) {
                list = match table.as_mut().and_then(|table| table.servers(&key)) {
                    Some(list) => list,
                    // Of a service that is gone meanwhile this is an empty list, not an error.
                    None => self.servers(&key)?,
                };
            }
            let pairs = list.into_iter().map(|(server, found, counted)| ((server, found), (server, counted)));
            let (servers, counters) = pairs.unzip();
            observed.services.insert(key, ObservedService { settings, servers, counters });
        }
        observed.daemons = self
            .dump(command::GET_DAEMON, Writer::default(), decode_daemon)
            .map_err(|failure| Error::netlink(Operation::ReadDaemons, "", &failure))?
            .into_iter()
            .collect();
        observed.timeouts =
            self.timeouts().map_err(|failure| Error::netlink(Operation::ReadTimeouts, "", &failure))?;
        Ok(observed)
    }

    pub(super) fn servers(&mut self, key: &ServiceKey) -> Result<Vec<(ServerKey, RealServer, Counters)>> {
        let mut attributes = Writer::default();
        put_service_key(&mut attributes, key);
        self.dump(command::GET_DEST, attributes, |payload| decode_server(payload, key.family()))
            .map_err(|failure| Error::netlink(Operation::ReadServers, key, &failure))
    }

    fn timeouts(&mut self) -> std::result::Result<Timeouts, Failure> {
        let message = Message::generic(self.family, command::GET_CONFIG, Writer::default());
        let reply = self.socket.request(&message)?.ok_or(Malformed)?;
        Ok(decode_timeouts(&reply)?)
    }

    fn dump<T>(
        &mut self,
        command: u8,
        attributes: Writer,
        decode: impl FnMut(&[u8]) -> Decoded<Option<T>>,
    ) -> std::result::Result<Vec<T>, Failure> {
        self.socket.dump(&Message::generic(self.family, command, attributes), decode)
    }

    /// Looks for what the services need, and loads the modules for it.
    pub(super) fn prepare(&mut self, needs: &Needs) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut probes = Vec::new();
        for name in &needs.schedulers {
            probes.push(("scheduler", name.as_str(), name.as_str(), ""));
        }
        for name in &needs.engines {
            probes.push(("persistence engine", name.as_str(), NO_SCHEDULER, name.as_str()));
        }
        // Not even asked: the kernel's EINVAL for a long name would look like the EINVAL of what exists.
        probes.retain(|(kind, name, ..)| {
            let fits = !name.is_empty() && name.len() <= NAME_MAX;
            if !fits {
                errors.push(Error::new(Operation::Probe, format!("{kind} `{name}`"), Errno::ENOENT));
            }
            fits
        });
        let mut batch = Batch::default();
        for (_, _, scheduler, engine) in &probes {
            batch.generic(self.family, command::NEW_SERVICE, |to| probe(to, scheduler, engine));
        }
        let mut failures: BTreeMap<usize, Failure> = self.socket.batch(&mut batch).into_iter().collect();
        for (index, (kind, name, ..)) in probes.iter().enumerate() {
            match failures.remove(&index).map_or(Ok(()), Err) {
                Err(Failure::Refused {
                    errno: Errno::EINVAL | Errno::EEXIST | Errno::EAFNOSUPPORT, ..
                }) => {}
                // A kernel that takes this prefix has what was asked for; undone at once.
                Ok(()) => {
                    let mut attributes = Writer::default();
                    put_service_key(&mut attributes, &PROBE);
                    let message = Message::generic(self.family, command::DEL_SERVICE, attributes);
                    if let Err(failure) = self.socket.request(&message) {
                        errors.push(Error::netlink(Operation::DeleteService, PROBE, &failure));
                    }
                }
                Err(failure) => {
                    let mut error = Error::netlink(Operation::Probe, format!("{kind} {name}"), &failure);
                    if failure.is(Errno::EPERM) {
                        error.object = "schedulers".to_owned();
                        return vec![error];
                    }
                    if failure.is(Errno::ENOENT) {
                        error.detail = format!("this kernel has no {kind} `{name}`");
                        error.remedy = Some(modules(kind, name));
                    }
                    errors.push(error);
                }
            }
        }
        // Older kernels ignore the attribute and would make an ipip tunnel of it, without a word.
        let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        for (needed, kind, least) in [(needs.gue, "gue", (5, 2)), (needs.gre, "gre", (5, 3))] {
            if needed && version(&release).is_some_and(|found| found < least) {
                let (major, minor) = least;
                let detail = format!("needs Linux {major}.{minor}, and this is {release}");
                let remedy = Some("use tunnels of type ipip, or a newer kernel");
                errors.push(Error::own(Operation::Probe, format!("tunnels of type {kind}"), &detail, remedy));
            }
        }
        errors
    }

    /// Carries out changes of IPVS, in order, in batches. Any other change is passed over as done.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(changes.len());
        // What fills a datagram is sent before the next one is written, in the same memory.
        let mut batch = Batch::default();
        while let Some(rest) = changes.get(results.len()..).filter(|rest| !rest.is_empty()) {
            results.extend(self.apply_first(rest, &mut batch));
        }
        results
    }

    /// Carries out as many of the first changes as fill a datagram.
    fn apply_first(&mut self, changes: &[Change], batch: &mut Batch) -> Vec<Result<()>> {
        let mut fates = Vec::new();
        // The messages of each change.
        let mut spans = Vec::new();
        for change in changes {
            let start = batch.len();
            let error = nonsense(change);
            if error.is_none() {
                encode(batch, self.family, change);
            }
            fates.push(Fate { error, ..Fate::default() });
            spans.push(start..batch.len());
            if batch.is_full() {
                break;
            }
        }
        let mut failures = self.socket.batch(batch).into_iter().peekable();
        for ((change, span), fate) in changes.iter().zip(spans).zip(&mut fates) {
            for (step, index) in steps(change).zip(span) {
                let failure = failures.next_if(|(failed, _)| *failed == index);
                fate.note(change, step, failure.map_or(Ok(()), |(_, failure)| Err(failure)));
            }
        }
        changes.iter().zip(fates).map(|(change, fate)| self.conclude(change, fate)).collect()
    }

    /// The result of a change. A service that we made and that cannot have its scheduler is taken away again:
    /// it would refuse every connection.
    fn conclude(&mut self, change: &Change, fate: Fate) -> Result<()> {
        let Some(mut error) = fate.error else {
            return Ok(());
        };
        if fate.other_servers > 0 {
            error.detail =
                format!("{} (and {} more of its real servers failed)", error.detail, fate.other_servers);
        }
        if let (Change::AddService { key, .. }, true, true) = (change, fate.created, fate.unscheduled) {
            let mut attributes = Writer::default();
            put_service_key(&mut attributes, key);
            let message = Message::generic(self.family, command::DEL_SERVICE, attributes);
            let outcome = match self.socket.request(&message) {
                Ok(_) => "the service was taken away again",
                Err(failure) if failure.is(Errno::ESRCH) => "the service was taken away again",
                Err(_) => "the service stands without a scheduler and refuses connections",
            };
            error.detail = format!("{}; {outcome}", error.detail);
        }
        Err(error)
    }
}

/// What became of a change so far.
#[derive(Clone, Debug, Default)]
struct Fate {
    error: Option<Error>,
    /// The service is ours: the kernel took NEW_SERVICE.
    created: bool,
    /// The kernel refused the service its scheduler.
    unscheduled: bool,
    /// Real servers that failed beside the one in `error`.
    other_servers: usize,
}

/// What a message does for its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Whole(Operation),
    /// A new service, empty and without scheduler
    Create,
    /// One of its real servers
    Fill(ServerKey),
    Schedule,
}

impl Fate {
    fn note(&mut self, change: &Change, step: Step, result: std::result::Result<(), Failure>) {
        let failure = match result {
            Ok(()) => {
                self.created |= step == Step::Create;
                return;
            }
            Err(failure) => failure,
        };
        let operation = match step {
            Step::Whole(operation) => operation,
            Step::Create | Step::Schedule => Operation::AddService,
            Step::Fill(_) => Operation::AddServer,
        };
        if is_done(operation, &failure) {
            return;
        }
        let object = match (change, step) {
            (Change::AddService { key, .. }, Step::Fill(server)) => format!("{server} of {key}"),
            _ => object(change),
        };
        let mut error = Error::netlink(operation, object, &failure);
        if let (Change::AddService { new, .. } | Change::SetService { new, .. }, true, false) =
            (change, failure.is(Errno::ENOENT), matches!(step, Step::Fill(_)))
        {
            (error.detail, error.remedy) = absent(new);
        }
        let refused = matches!(failure, Failure::Refused { .. });
        match step {
            // Why nothing works matters more than which server failed first.
            Step::Schedule if self.created => {
                self.unscheduled = refused;
                self.other_servers = 0;
                self.error = Some(error);
            }
            Step::Fill(_) if self.error.is_some() => self.other_servers += usize::from(self.created),
            _ => {
                self.error.get_or_insert(error);
            }
        }
    }
}

/// Whether the kernel's refusal says that what was wanted is so already.
fn is_done(operation: Operation, failure: &Failure) -> bool {
    match operation {
        Operation::DeleteServer => failure.is(Errno::ENOENT) || failure.is(Errno::ESRCH),
        Operation::DeleteService | Operation::StopDaemon => failure.is(Errno::ESRCH),
        _ => false,
    }
}

/// What a change is about, for its error.
fn object(change: &Change) -> String {
    match change {
        Change::AddService { key, .. }
        | Change::SetService { key, .. }
        | Change::DeleteService { key, .. } => key.to_string(),
        Change::AddServer { service, key, .. }
        | Change::SetServer { service, key, .. }
        | Change::DeleteServer { service, key, .. } => format!("{key} of {service}"),
        Change::StartDaemon { state, daemon } | Change::StopDaemon { state, daemon } => {
            format!("{state} on {}", daemon.interface)
        }
        _ => String::new(),
    }
}

/// What the kernel would take for something else. Mark 0 makes a service of TCP 0.0.0.0:0.
fn nonsense(change: &Change) -> Option<Error> {
    let (key, operation) = match change {
        Change::AddService { key, .. } => (key, Operation::AddService),
        Change::SetService { key, .. } => (key, Operation::SetService),
        Change::DeleteService { key, .. } => (key, Operation::DeleteService),
        Change::AddServer { service, .. } => (service, Operation::AddServer),
        Change::SetServer { service, .. } => (service, Operation::SetServer),
        Change::DeleteServer { service, .. } => (service, Operation::DeleteServer),
        _ => return None,
    };
    matches!(key, ServiceKey::Fwmark { mark: 0, .. })
        .then(|| Error::own(operation, object(change), "there is no firewall mark 0", None))
}

/// Meaning and remedy of ENOENT for a service with these settings.
fn absent(service: &Service) -> (String, Option<String>) {
    let scheduler = format!("this kernel has no scheduler `{}`", service.scheduler);
    let remedy = modules("scheduler", &service.scheduler);
    if service.engine.is_empty() {
        return (scheduler, Some(remedy));
    }
    let detail = format!("{scheduler}, or no persistence engine `{}`", service.engine);
    (detail, Some(format!("{remedy}, and {}", modules("persistence engine", &service.engine))))
}

/// The module of a scheduler (`ip_vs_sched.c`, `ip_vs_scheduler_get`) or an engine (`ip_vs_pe.c`).
fn modules(kind: &str, name: &str) -> String {
    let module = if kind == "scheduler" { format!("ip_vs_{name}") } else { format!("ip_vs_pe_{name}") };
    format!("`modprobe {module}`, or install the kernel's modules package")
}

/// Major and minor number of a kernel release such as `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// An address of the discard prefix (RFC 6666), on which nobody has a service.
const PROBE: ServiceKey = ServiceKey::Endpoint {
    address: IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0)),
    port: 9,
    protocol: Protocol::TCP,
};

/// The attributes of a NEW_SERVICE that never makes a service, but finds out whether scheduler and engine exist.
///
/// `ip_vs_add_service` (`ip_vs_ctl.c`) looks for the scheduler first, loading the module ip_vs_NAME where it
/// can, then for the engine, and says ENOENT when one is missing; only then does it look at the IPv6 prefix
/// length, of which 0 is EINVAL, and only then does it make anything. Without IPv6 in IPVS the address family is
/// refused before all that (`ip_vs_genl_parse_service`, EAFNOSUPPORT): then nothing is known and the best is
/// assumed, since the batch would tell.
fn probe(to: &mut Writer, scheduler: &str, engine: &str) {
    let settings = Service {
        scheduler: scheduler.to_owned(),
        flags: service_flag::PERSISTENT,
        timeout: 1,
        netmask: 0,
        engine: engine.to_owned(),
    };
    put_service(to, &PROBE, &settings, scheduler);
}

/// What the messages of a change do, in their order.
fn steps(change: &Change) -> Box<dyn Iterator<Item = Step> + '_> {
    let operation = match change {
        Change::AddService { servers, .. } => {
            let fill = servers.keys().rev().map(|server| Step::Fill(*server));
            return Box::new(std::iter::once(Step::Create).chain(fill).chain([Step::Schedule]));
        }
        Change::SetService { .. } => Operation::SetService,
        Change::DeleteService { .. } => Operation::DeleteService,
        Change::AddServer { .. } => Operation::AddServer,
        Change::SetServer { .. } => Operation::SetServer,
        Change::DeleteServer { .. } => Operation::DeleteServer,
        Change::SetTimeouts { .. } => Operation::SetTimeouts,
        Change::StartDaemon { .. } => Operation::StartDaemon,
        Change::StopDaemon { .. } => Operation::StopDaemon,
        Change::SetParameter { .. } | Change::AddAddress { .. } | Change::RemoveAddress { .. } => {
            return Box::new(std::iter::empty());
        }
    };
    Box::new(std::iter::once(Step::Whole(operation)))
}

/// Writes the messages that carry out a change, one for each of its [`steps`].
fn encode(batch: &mut Batch, family: u16, change: &Change) {
    let mut whole = |command: u8, fill: &dyn Fn(&mut Writer)| batch.generic(family, command, fill);
    match change {
        // First without a scheduler, which then builds its tables once and from the complete list: for mh a
        // factor of forty, and no client meets half a service. SET_SERVICE from `none` waits for no RCU grace
        // period (ip_vs_ctl.c, ip_vs_edit_service). It replaces everything, so everything is in it.
        Change::AddService { key, new, servers } => {
            whole(command::NEW_SERVICE, &|to| put_service(to, key, new, NO_SCHEDULER));
            // The kernel puts each at the head of its list (ip_vs_ctl.c, ip_vs_add_dest), and sh and mh go by
            // the list's order: descending here is ascending there, on every director.
            for (server, settings) in servers.iter().rev() {
                batch.generic(family, command::NEW_DEST, |to| {
                    put_service_key(to, key);
                    put_server(to, server, settings);
                });
            }
            batch.generic(family, command::SET_SERVICE, |to| {
                put_service(to, key, new, &new.scheduler);
            });
        }
        Change::SetService { key, new, .. } => {
            whole(command::SET_SERVICE, &|to| put_service(to, key, new, &new.scheduler));
        }
        Change::DeleteService { key, .. } => {
            whole(command::DEL_SERVICE, &|to| put_service_key(to, key));
        }
        Change::AddServer { service, key, new } => whole(command::NEW_DEST, &|to| {
            put_service_key(to, service);
            put_server(to, key, new);
        }),
        Change::SetServer { service, key, new, .. } => whole(command::SET_DEST, &|to| {
            put_service_key(to, service);
            put_server(to, key, new);
        }),
        Change::DeleteServer { service, key, .. } => whole(command::DEL_DEST, &|to| {
            put_service_key(to, service);
            to.nest(top::DEST, |to| put_server_key(to, key));
        }),
        Change::SetTimeouts { new, .. } => whole(command::SET_CONFIG, &|to| put_timeouts(to, *new)),
        Change::StartDaemon { state, daemon } => {
            whole(command::NEW_DAEMON, &|to| put_daemon(to, *state, Some(daemon)));
        }
        Change::StopDaemon { state, .. } => {
            whole(command::DEL_DAEMON, &|to| put_daemon(to, *state, None));
        }
        Change::SetParameter { .. } | Change::AddAddress { .. } | Change::RemoveAddress { .. } => {}
    }
}

fn family_number(family: Family) -> [u8; 2] {
    let number = match family {
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
    };
    u16::try_from(number).unwrap_or_default().to_ne_bytes()
}

/// `union nf_inet_addr`: IPv4 in the first four of 16 bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn put_service_key(to: &mut Writer, key: &ServiceKey) {
    to.nest(top::SERVICE, |to| put_service_identity(to, key));
}

fn put_service_identity(to: &mut Writer, key: &ServiceKey) {
    to.put(service::FAMILY, &family_number(key.family()));
    match key {
        ServiceKey::Endpoint { address, port, protocol } => {
            to.put(service::PROTOCOL, &protocol.0.to_ne_bytes())
                .put(service::ADDRESS, &address_bytes(*address))
                .put(service::PORT, &port.to_be_bytes());
        }
        ServiceKey::Fwmark { mark, .. } => {
            to.put(service::FWMARK, &mark.to_ne_bytes());
        }
    }
}

/// The whole service, with this scheduler. The kernel wants all of it, for a change too.
fn put_service(to: &mut Writer, key: &ServiceKey, settings: &Service, scheduler: &str) {
    let family = key.family();
    let netmask = match settings.is_persistent() {
        true => settings.netmask,
        false => Service::full_netmask(family),
    };
    let netmask = match family {
        Family::Ipv4 => netmask.to_be_bytes(),
        Family::Ipv6 => netmask.to_ne_bytes(),
    };
    // Every flag is meant: new = (old & ~mask) | (flags & mask).
    let [f0, f1, f2, f3] = (settings.flags & !service_flag::HASHED).to_ne_bytes();
    let [m0, m1, m2, m3] = u32::MAX.to_ne_bytes();
    to.nest(top::SERVICE, |to| {
        put_service_identity(to, key);
        to.put_text(service::SCHEDULER, scheduler)
            .put(service::FLAGS, &[f0, f1, f2, f3, m0, m1, m2, m3])
            .put(service::TIMEOUT, &settings.timeout.to_ne_bytes())
            .put(service::NETMASK, &netmask);
        // Left out of SET_SERVICE, the engine is taken away (ip_vs_edit_service); empty, it is not found.
        if !settings.engine.is_empty() {
            to.put_text(service::ENGINE, &settings.engine);
        }
    });
}

fn put_server_key(to: &mut Writer, key: &ServerKey) {
    to.put(dest::FAMILY, &family_number(Family::of(key.address)))
        .put(dest::ADDRESS, &address_bytes(key.address))
        .put(dest::PORT, &key.port.to_be_bytes());
}

fn put_server(to: &mut Writer, key: &ServerKey, settings: &RealServer) {
    to.nest(top::DEST, |to| {
        put_server_key(to, key);
        to.put(dest::FORWARD, &settings.forward.0.to_ne_bytes())
            .put(dest::WEIGHT, &settings.weight.to_ne_bytes())
            .put(dest::UPPER_THRESHOLD, &settings.upper_threshold.to_ne_bytes())
            .put(dest::LOWER_THRESHOLD, &settings.lower_threshold.to_ne_bytes());
        if settings.forward == Forward::TUN {
            to.put(dest::TUNNEL_KIND, &[settings.tunnel.kind])
                .put(dest::TUNNEL_PORT, &settings.tunnel.port.to_be_bytes())
                .put(dest::TUNNEL_FLAGS, &settings.tunnel.checksum.to_ne_bytes());
        }
    });
}

fn put_timeouts(to: &mut Writer, timeouts: Timeouts) {
    to.put(top::TIMEOUT_TCP, &timeouts.tcp.to_ne_bytes())
        .put(top::TIMEOUT_TCP_FIN, &timeouts.tcp_fin.to_ne_bytes())
        .put(top::TIMEOUT_UDP, &timeouts.udp.to_ne_bytes());
}

/// A daemon to start, or, without settings, one to stop.
fn put_daemon(to: &mut Writer, state: DaemonState, settings: Option<&SyncDaemon>) {
    let state: u32 = match state {
        DaemonState::Master => 1,
        DaemonState::Backup => 2,
    };
    to.nest(top::DAEMON, |to| {
        to.put(daemon::STATE, &state.to_ne_bytes());
        let Some(settings) = settings else {
            return;
        };
        to.put_text(daemon::INTERFACE, &settings.interface)
            .put(daemon::ID, &u32::from(settings.id).to_ne_bytes());
        if let Some(value) = settings.max_len {
            to.put(daemon::MAX_LEN, &value.to_ne_bytes());
        }
        match settings.group {
            Some(IpAddr::V4(group)) => _ = to.put(daemon::GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => _ = to.put(daemon::GROUP6, &group.octets()),
            None => {}
        }
        if let Some(value) = settings.port {
            to.put(daemon::PORT, &value.to_ne_bytes());
        }
        if let Some(value) = settings.ttl {
            to.put(daemon::TTL, &[value]);
        }
    });
}

fn family_id(payload: &[u8]) -> Decoded<u16> {
    for attribute in generic_attributes(payload)? {
        let (kind, value) = attribute?;
        if kind == u16::from(CtrlAttr::FamilyId) {
            return u16_of(value);
        }
    }
    Err(Malformed)
}

fn family_of(value: &[u8]) -> Decoded<Option<Family>> {
    Ok(match i32::from(u16_of(value)?) {
        libc::AF_INET => Some(Family::Ipv4),
        libc::AF_INET6 => Some(Family::Ipv6),
        _ => None,
    })
}

fn address_of(value: &[u8], family: Family) -> Decoded<IpAddr> {
    match family {
        Family::Ipv4 => {
            let (octets, _) = value.split_first_chunk::<4>().ok_or(Malformed)?;
            Ok(Ipv4Addr::from(*octets).into())
        }
        Family::Ipv6 => {
            <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()).map_err(|_| Malformed)
        }
    }
}

/// Reads a service; passes over one of a family that is not known here.
fn decode_service(payload: &[u8]) -> Decoded<Option<(ServiceKey, Service)>> {
    let attributes = generic_attributes(payload)?.nested(top::SERVICE)?.ok_or(Malformed)?;
    let (mut family, mut protocol, mut address, mut port, mut fwmark) = (None, None, None, None, None);
    let (mut scheduler, mut flags, mut timeout, mut netmask) = (None, None, None, None);
    let mut engine = String::new();
    for attribute in attributes {
        let (kind, value) = attribute?;
        match kind {
            service::FAMILY => family = Some(family_of(value)?),
            service::PROTOCOL => protocol = Some(u16_of(value)?),
            service::ADDRESS => address = Some(value),
            service::PORT => port = Some(be16_of(value)?),
            service::FWMARK => fwmark = Some(u32_of(value)?),
            service::SCHEDULER => scheduler = Some(text_of(value)?),
            service::FLAGS => flags = Some(u32_of(value.get(..4).unwrap_or_default())?),
            service::TIMEOUT => timeout = Some(u32_of(value)?),
            service::NETMASK => netmask = Some(value),
            service::ENGINE => engine = text_of(value)?,
            _ => {}
        }
    }
    let Some(family) = family.ok_or(Malformed)? else {
        return Ok(None);
    };
    let key = match fwmark {
        Some(mark) => ServiceKey::Fwmark { mark, family },
        None => ServiceKey::Endpoint {
            address: address_of(address.ok_or(Malformed)?, family)?,
            port: port.ok_or(Malformed)?,
            protocol: Protocol(protocol.ok_or(Malformed)?),
        },
    };
    let netmask = u32_of(netmask.ok_or(Malformed)?)?;
    let mut settings = Service {
        scheduler: scheduler.filter(|name| !name.is_empty()).unwrap_or_else(|| NO_SCHEDULER.to_owned()),
        flags: flags.ok_or(Malformed)? & !service_flag::HASHED,
        timeout: timeout.ok_or(Malformed)?,
        netmask: if family == Family::Ipv4 { u32::from_be(netmask) } else { netmask },
        engine,
    };
    if !settings.is_persistent() {
        settings.timeout = 0;
        settings.netmask = Service::full_netmask(family);
    }
    Ok(Some((key, settings)))
}

/// Reads a real server of a service of this family; passes over one of a family that is not known here.
fn decode_server(payload: &[u8], of: Family) -> Decoded<Option<(ServerKey, RealServer, Counters)>> {
    let attributes = generic_attributes(payload)?.nested(top::DEST)?.ok_or(Malformed)?;
    let (mut family, mut address, mut port) = (Some(of), None, None);
    let (mut forward, mut weight) = (None, None);
    let (mut upper_threshold, mut lower_threshold) = (0, 0);
    let mut tunnel = Tunnel::default();
    let mut counters = Counters::default();
    for attribute in attributes {
        let (kind, value) = attribute?;
        match kind {
            dest::FAMILY => family = family_of(value)?,
            dest::ADDRESS => address = Some(value),
            dest::PORT => port = Some(be16_of(value)?),
            dest::FORWARD => forward = Some(Forward(u32_of(value)? & FORWARD_MASK)),
            dest::WEIGHT => weight = Some(u32_of(value)?),
            dest::UPPER_THRESHOLD => upper_threshold = u32_of(value)?,
            dest::LOWER_THRESHOLD => lower_threshold = u32_of(value)?,
            dest::ACTIVE => counters.active = u32_of(value)?,
            dest::INACTIVE => counters.inactive = u32_of(value)?,
            dest::PERSISTENT => counters.persistent = u32_of(value)?,
            dest::STATISTICS => counters.rates = decode_rates(value)?,
            dest::TUNNEL_KIND => tunnel.kind = u8_of(value)?,
            dest::TUNNEL_PORT => tunnel.port = be16_of(value)?,
            dest::TUNNEL_FLAGS => tunnel.checksum = u16_of(value)?,
            _ => {}
        }
    }
    let Some(family) = family else {
        return Ok(None);
    };
    let key =
        Endpoint { address: address_of(address.ok_or(Malformed)?, family)?, port: port.ok_or(Malformed)? };
    let forward = forward.ok_or(Malformed)?;
    let settings = RealServer {
        forward,
        weight: weight.ok_or(Malformed)?,
        upper_threshold,
        lower_threshold,
        tunnel: if forward == Forward::TUN { tunnel } else { Tunnel::default() },
    };
    Ok(Some((key, settings, counters)))
}

fn decode_rates(value: &[u8]) -> Decoded<Rates> {
    let mut rates = Rates::default();
    for attribute in Attributes::new(value) {
        let (kind, value) = attribute?;
        match kind {
            statistics::CONNECTIONS => rates.connections = u64_of(value)?,
            statistics::BYTES_IN => rates.bytes_in = u64_of(value)?,
            statistics::BYTES_OUT => rates.bytes_out = u64_of(value)?,
            _ => {}
        }
    }
    Ok(rates)
}

/// Reads a sync daemon.
fn decode_daemon(payload: &[u8]) -> Decoded<Option<(DaemonState, SyncDaemon)>> {
    let attributes = generic_attributes(payload)?.nested(top::DAEMON)?.ok_or(Malformed)?;
    let mut state = None;
    let mut found =
        SyncDaemon { interface: String::new(), id: 0, max_len: None, group: None, port: None, ttl: None };
    for attribute in attributes {
        let (kind, value) = attribute?;
        match kind {
            daemon::STATE => state = Some(u32_of(value)?),
            daemon::INTERFACE => found.interface = text_of(value)?,
            daemon::ID => found.id = u8::try_from(u32_of(value)? & 0xff).map_err(|_| Malformed)?,
            daemon::MAX_LEN => found.max_len = Some(u16_of(value)?),
            daemon::GROUP => found.group = Some(address_of(value, Family::Ipv4)?),
            daemon::GROUP6 => found.group = Some(address_of(value, Family::Ipv6)?),
            daemon::PORT => found.port = Some(u16_of(value)?),
            daemon::TTL => found.ttl = Some(u8_of(value)?),
            _ => {}
        }
    }
    Ok(match state.ok_or(Malformed)? {
        1 => Some((DaemonState::Master, found)),
        2 => Some((DaemonState::Backup, found)),
        _ => None,
    })
}

/// Reads the timeouts; the kernel leaves out those of protocols that it was built without.
fn decode_timeouts(payload: &[u8]) -> Decoded<Timeouts> {
    let mut timeouts = Timeouts::default();
    for attribute in generic_attributes(payload)? {
        let (kind, value) = attribute?;
        match kind {
            top::TIMEOUT_TCP => timeouts.tcp = u32_of(value)?,
            top::TIMEOUT_TCP_FIN => timeouts.tcp_fin = u32_of(value)?,
            top::TIMEOUT_UDP => timeouts.udp = u32_of(value)?,
            _ => {}
        }
    }
    Ok(timeouts)
}

/// Reads any bytes as every kind of reply: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn decode_all(payload: &[u8]) {
    let _ = decode_service(payload);
    let _ = decode_server(payload, Family::Ipv4);
    let _ = decode_server(payload, Family::Ipv6);
    let _ = decode_daemon(payload);
    let _ = decode_timeouts(payload);
    let _ = family_id(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn any_key() -> impl Strategy<Value = ServiceKey> {
        prop_oneof![
            (any_address(), any::<u16>(), prop::sample::select(vec![6u16, 17, 132, 47])).prop_map(
                |(address, port, protocol)| ServiceKey::Endpoint {
                    address,
                    port,
                    protocol: Protocol(protocol)
                }
            ),
            (1u32.., prop::sample::select(vec![Family::Ipv4, Family::Ipv6]))
                .prop_map(|(mark, family)| ServiceKey::Fwmark { mark, family }),
        ]
    }

    fn any_service() -> impl Strategy<Value = (ServiceKey, Service)> {
        (any_key(), "[a-z]{1,15}", any::<u32>(), any::<u32>(), any::<u32>(), "(sip)?").prop_map(
            |(key, scheduler, flags, timeout, netmask, engine)| {
                let mut settings =
                    Service { scheduler, flags: flags & !service_flag::HASHED, timeout, netmask, engine };
                if !settings.is_persistent() {
                    settings.timeout = 0;
                    settings.netmask = Service::full_netmask(key.family());
                }
                (key, settings)
            },
        )
    }

    fn any_server() -> impl Strategy<Value = (ServerKey, RealServer)> {
        let key = (any_address(), any::<u16>()).prop_map(|(address, port)| Endpoint { address, port });
        let tunnel = (0u8..3, any::<u16>(), 0u16..3).prop_map(|(kind, port, checksum)| Tunnel {
            kind,
            port,
            checksum,
        });
        (key, 0u32..8, any::<u32>(), any::<u32>(), any::<u32>(), tunnel).prop_map(
            |(key, forward, weight, upper_threshold, lower_threshold, tunnel)| {
                let forward = Forward(forward);
                let tunnel = if forward == Forward::TUN { tunnel } else { Tunnel::default() };
                (key, RealServer { forward, weight, upper_threshold, lower_threshold, tunnel })
            },
        )
    }

    fn any_daemon() -> impl Strategy<Value = (DaemonState, SyncDaemon)> {
        let state = prop::sample::select(vec![DaemonState::Master, DaemonState::Backup]);
        (
            state,
            "[a-z0-9.]{1,15}",
            any::<u8>(),
            any::<Option<u16>>(),
            prop::option::of(any_address()),
            any::<Option<u16>>(),
            any::<Option<u8>>(),
        )
            .prop_map(|(state, interface, id, max_len, group, port, ttl)| {
                (state, SyncDaemon { interface, id, max_len, group, port, ttl })
            })
    }

    /// A reply as the kernel would send it for what was written.
    fn reply(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut attributes = Writer::default();
        fill(&mut attributes);
        Message::generic(30, 1, attributes).body
    }

    proptest! {
        #[test]
        fn a_service_is_read_as_it_was_written((key, settings) in any_service()) {
            let payload = reply(|to| put_service(to, &key, &settings, &settings.scheduler));
            prop_assert_eq!(decode_service(&payload), Ok(Some((key, settings))));
        }

        #[test]
        fn a_server_is_read_as_it_was_written((key, settings) in any_server()) {
            let payload = reply(|to| put_server(to, &key, &settings));
            prop_assert_eq!(
                decode_server(&payload, Family::of(key.address)),
                Ok(Some((key, settings, Counters::default())))
            );
        }

        #[test]
        fn a_daemon_is_read_as_it_was_written((state, settings) in any_daemon()) {
            let payload = reply(|to| put_daemon(to, state, Some(&settings)));
            prop_assert_eq!(decode_daemon(&payload), Ok(Some((state, settings))));
        }

        #[test]
        fn timeouts_are_read_as_they_were_written(tcp: u32, tcp_fin: u32, udp: u32) {
            let timeouts = Timeouts { tcp, tcp_fin, udp };
            prop_assert_eq!(decode_timeouts(&reply(|to| put_timeouts(to, timeouts))), Ok(timeouts));
        }

        #[test]
        fn no_reply_makes_it_panic(
            (key, settings) in any_service(),
            (server, server_settings) in any_server(),
            (state, daemon) in any_daemon(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let replies = [
                reply(|to| put_service(to, &key, &settings, &settings.scheduler)),
                reply(|to| put_server(to, &server, &server_settings)),
                reply(|to| put_daemon(to, state, Some(&daemon))),
            ];
            for mut reply in replies {
                for length in 0..reply.len() {
                    decode_all(&reply[..length]);
                }
                for (at, value) in &changes {
                    let at = at.index(reply.len());
                    reply[at] = *value;
                    decode_all(&reply);
                }
            }
        }
    }

    fn vip() -> ServiceKey {
        ServiceKey::Endpoint {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: 80,
            protocol: Protocol::TCP,
        }
    }

    fn settings(scheduler: &str) -> Service {
        Service {
            scheduler: scheduler.to_owned(),
            flags: 0,
            timeout: 0,
            netmask: u32::MAX,
            engine: String::new(),
        }
    }

    fn nat() -> RealServer {
        RealServer {
            forward: Forward::NAT,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
        }
    }

    fn new_service() -> Change {
        let server = |last| Endpoint { address: Ipv4Addr::new(192, 0, 2, last).into(), port: 80 };
        let servers = [(server(11), nat()), (server(12), nat()), (server(13), nat())].into();
        Change::AddService { key: vip(), new: settings("rr"), servers }
    }

    /// A service as Linux 6.12 on x86-64 gives it, byte by byte.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_service_has_the_kernel_s_layout() {
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0,                                             // command, version
            96, 0, 1, 0,                                            // IPVS_CMD_ATTR_SERVICE
            6, 0, 1, 0, 2, 0, 0, 0,                                 // AF_INET
            6, 0, 2, 0, 6, 0, 0, 0,                                 // TCP
            20, 0, 3, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 4, 0, 0, 80, 0, 0,                                // port, network order
            8, 0, 6, 0, b'w', b'r', b'r', 0,
            12, 0, 7, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,        // persistent; every flag is meant
            8, 0, 8, 0, 44, 1, 0, 0,                                // 300 seconds
            8, 0, 9, 0, 255, 255, 255, 0,                           // mask, network order
            8, 0, 11, 0, b's', b'i', b'p', 0,
        ];
        let service = Service {
            scheduler: "wrr".to_owned(),
            flags: service_flag::PERSISTENT,
            timeout: 300,
            netmask: 0xffff_ff00,
            engine: "sip".to_owned(),
        };
        let payload = reply(|to| put_service(to, &vip(), &service, "wrr"));
        let mut expected = expected.to_vec();
        expected[4] = u8::try_from(expected.len() - 4).unwrap();
        assert_eq!(payload, expected);
        // What the kernel adds: its own flag, and the bytes of statistics that nobody asked for.
        let hashed = payload.iter().zip(0..).map(|(byte, at)| if at == 64 { byte | 2 } else { *byte });
        let hashed: Vec<u8> = hashed.collect();
        assert_ne!(hashed, payload);
        assert_eq!(decode_service(&hashed), Ok(Some((vip(), service))));
    }

    #[test]
    fn a_new_service_gets_its_servers_last_first_and_its_scheduler_at_the_end() {
        let change = new_service();
        let mut batch = Batch::default();
        encode(&mut batch, 30, &change);
        let told: Vec<String> = steps(&change)
            .map(|step| match step {
                Step::Fill(server) => server.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["Create", "192.0.2.13:80", "192.0.2.12:80", "192.0.2.11:80", "Schedule"]);
        assert_eq!(batch.len(), told.len());
        let scheduler =
            |index: usize| decode_service(&batch.messages[index].body).unwrap().unwrap().1.scheduler;
        assert_eq!((scheduler(0).as_str(), scheduler(4).as_str()), ("none", "rr"));
        for (index, step) in steps(&change).enumerate() {
            if let Step::Fill(server) = step {
                let (key, settings, _) =
                    decode_server(&batch.messages[index].body, Family::Ipv4).unwrap().unwrap();
                assert_eq!((key, settings), (server, nat()));
            }
        }
    }

    #[test]
    fn every_change_has_a_message_for_each_of_its_steps() {
        let (key, server) = (vip(), Endpoint { address: Ipv4Addr::new(192, 0, 2, 11).into(), port: 80 });
        let daemon =
            SyncDaemon { interface: "eth1".into(), id: 1, max_len: None, group: None, port: None, ttl: None };
        let (old, new) = (settings("rr"), settings("sh"));
        for change in [
            new_service(),
            Change::SetService { key, old: old.clone(), new },
            Change::DeleteService { key, old, connections: 0 },
            Change::AddServer { service: key, key: server, new: nat() },
            Change::SetServer { service: key, key: server, old: nat(), new: nat() },
            Change::DeleteServer { service: key, key: server, old: nat(), connections: 0 },
            Change::SetTimeouts { old: Timeouts::default(), new: Timeouts::default() },
            Change::StartDaemon { state: DaemonState::Master, daemon: daemon.clone() },
            Change::StopDaemon { state: DaemonState::Master, daemon },
        ] {
            let mut batch = Batch::default();
            encode(&mut batch, 30, &change);
            assert_eq!(batch.len(), steps(&change).count(), "{change:?}");
        }
    }

    fn refused(errno: Errno) -> std::result::Result<(), Failure> {
        Err(Failure::Refused { errno, text: None })
    }

    /// The fate of a new service, from the answers to its five messages.
    fn fate(answers: [std::result::Result<(), Failure>; 5]) -> Fate {
        let change = new_service();
        let mut fate = Fate::default();
        for (step, answer) in steps(&change).zip(answers) {
            fate.note(&change, step, answer);
        }
        fate
    }

    #[test]
    fn a_failed_server_is_named_and_the_rest_stands() {
        let fate = fate([Ok(()), refused(Errno::EINVAL), Ok(()), refused(Errno::ERANGE), Ok(())]);
        assert!(!fate.unscheduled);
        assert_eq!(fate.other_servers, 1);
        let error = fate.error.unwrap();
        assert_eq!(
            (error.operation.as_str(), error.object.as_str()),
            ("adding real server", "192.0.2.13:80 of tcp 192.0.2.1:80")
        );
    }

    #[test]
    fn a_missing_scheduler_is_the_error_and_the_service_is_to_go() {
        let fate = fate([Ok(()), refused(Errno::EINVAL), Ok(()), Ok(()), refused(Errno::ENOENT)]);
        assert!(fate.created && fate.unscheduled);
        assert_eq!(
            fate.error.unwrap().to_string(),
            "adding service tcp 192.0.2.1:80: this kernel has no scheduler `rr` (ENOENT); \
             `modprobe ip_vs_rr`, or install the kernel's modules package"
        );
    }

    #[test]
    fn a_service_that_somebody_else_made_is_filled_and_told() {
        let exists =
            fate([refused(Errno::EEXIST), refused(Errno::EEXIST), Ok(()), Ok(()), refused(Errno::EINVAL)]);
        assert!(!exists.created && !exists.unscheduled);
        let text = "adding service tcp 192.0.2.1:80: already exists, made by someone else meanwhile (EEXIST); run again";
        assert_eq!(exists.error.unwrap().to_string(), text);
        let denied = fate([(); 5].map(|()| refused(Errno::EPERM)));
        assert!(denied.error.unwrap().to_string().contains("CAP_NET_ADMIN"));
        assert_eq!(denied.other_servers, 0);
    }

    #[test]
    fn an_unknown_end_does_not_take_the_service_away() {
        let lost = || Err(Failure::Broken { errno: Some(Errno::ENOBUFS), text: "lost".to_owned() });
        let fate = fate([Ok(()), Ok(()), Ok(()), Ok(()), lost()]);
        assert!(fate.created && !fate.unscheduled);
        assert!(fate.error.is_some());
    }

    #[test]
    fn what_is_gone_is_done() {
        let failure = |errno| Failure::Refused { errno, text: None };
        assert!(is_done(Operation::DeleteServer, &failure(Errno::ENOENT)));
        assert!(is_done(Operation::DeleteServer, &failure(Errno::ESRCH)));
        assert!(is_done(Operation::DeleteService, &failure(Errno::ESRCH)));
        assert!(is_done(Operation::StopDaemon, &failure(Errno::ESRCH)));
        assert!(!is_done(Operation::SetServer, &failure(Errno::ENOENT)));
        assert!(!is_done(Operation::DeleteService, &failure(Errno::EPERM)));
    }

    #[test]
    fn mark_0_is_never_sent() {
        let key = ServiceKey::Fwmark { mark: 0, family: Family::Ipv4 };
        let change = Change::DeleteService { key, old: settings("rr"), connections: 0 };
        assert_eq!(
            nonsense(&change).unwrap().to_string(),
            "removing service fwmark 0: there is no firewall mark 0"
        );
        assert_eq!(nonsense(&new_service()), None);
    }

    #[test]
    fn the_probe_s_prefix_length_is_one_that_the_kernel_refuses() {
        let payload = reply(|to| probe(to, "wlc", ""));
        let (key, settings) = decode_service(&payload).unwrap().unwrap();
        assert_eq!((key.family(), settings.netmask), (Family::Ipv6, 0));
    }

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert!(version("5.10.0").unwrap() > (5, 2));
        assert_eq!(version("unknown"), None);
    }
}
