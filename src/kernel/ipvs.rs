//! The IPVS table, its sync daemons and its timeouts, by generic netlink.
//!
//! Owns how a service and a real server look on the wire, the batches, and what an answer means for a change.
//! Which services there should be is decided by `plan`; numbers are in `ipvs_abi`. Called by `kernel`.
//! The kernel parses liberally: unknown attributes are ignored and most values are taken unchecked, so that
//! what is sent here must be right; and it is read back afterwards.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::GenlId;
use neli::consts::socket::NlFamily;
use nix::errno::Errno;
use nix::libc;
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
    DaemonState, Endpoint, Family, Forward, Protocol, RealServer, ServerKey, Servers, Service, ServiceKey,
    SyncDaemon, Timeouts, Tunnel, service_flag,
};
use crate::observed::{Counters, ObservedIpvs, ObservedService, Rates, ServerScope};
use crate::plan::Change;

/// The scheduler of a service without one, since Linux 4.2 (`ip_vs_ctl.c`, `ip_vs_add_service`).
const NO_SCHEDULER: &str = "none";
/// Longest name of a scheduler (`IP_VS_SCHEDNAME_MAXLEN` without its NUL).
const NAME_MAX: usize = 15;

/// What a service needs beside IPVS itself: its name, and how those of its modules begin (`ip_vs_sched.c`, `ip_vs_pe.c`).
type Kind = (&'static str, &'static str);
const SCHEDULER: Kind = ("scheduler", "ip_vs_");
const ENGINE: Kind = ("persistence engine", "ip_vs_pe_");

type Decoded<T> = std::result::Result<T, Malformed>;
type Answer<T> = std::result::Result<T, Failure>;

/// The error for a kernel without IPVS.
pub(super) fn no_ipvs_error() -> Error {
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
        let found = Self::find().or_else(|failure| {
            if !failure.is(Errno::ENOENT) {
                return Err(failure);
            }
            load_module();
            Self::find()
        });
        match found {
            Ok(ipvs) => Ok(Some(ipvs)),
            Err(failure) if failure.is(Errno::ENOENT) => Ok(None),
            Err(failure) => Err(Error::netlink(Operation::FindIpvs, "", &failure)),
        }
    }

    fn find() -> Answer<Self> {
        let mut socket = Socket::open(NlFamily::Generic)?;
        let mut attributes = Writer::default();
        attributes.put_text(CtrlAttr::FamilyName.into(), FAMILY);
        let message = Message::generic(GenlId::Ctrl.into(), CtrlCmd::Getfamily.into(), attributes);
        let family = family_id(&socket.request(&message)?.ok_or(Malformed)?)?;
        Ok(Self { socket, family })
    }

    /// Reads every service, the real servers of those in `scope`, the timeouts and the sync daemons.
    pub(super) fn observe(&mut self, scope: &ServerScope) -> Result<ObservedIpvs> {
        let nothing = Writer::default;
        let services =
            self.dump(command::GET_SERVICE, Operation::ReadServices, "", nothing(), decode_service)?;
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
            let list = match table.as_mut().and_then(|table| table.servers(&key)) {
                _ if !asked(&key) => Vec::new(),
                Some(list) => list,
                // Of a service that is gone meanwhile this is an empty list, not an error.
                None => self.servers(&key)?,
            };
            let pairs = list.into_iter().map(|(server, found, counted)| ((server, found), (server, counted)));
            let (servers, counters) = pairs.unzip();
            observed.services.insert(key, ObservedService { settings, servers, counters });
        }
        let daemons = self.dump(command::GET_DAEMON, Operation::ReadDaemons, "", nothing(), decode_daemon)?;
        observed.daemons = daemons.into_iter().collect();
        observed.timeouts = self
            .request(command::GET_CONFIG, nothing())
            .and_then(|reply| Ok(decode_timeouts(&reply.ok_or(Malformed)?)?))
            .map_err(|failure| Error::netlink(Operation::ReadTimeouts, "", &failure))?;
        Ok(observed)
    }

    pub(super) fn servers(&mut self, key: &ServiceKey) -> Result<Vec<(ServerKey, RealServer, Counters)>> {
        let decode = |payload: &[u8]| decode_server(payload, key.family());
        self.dump(command::GET_DEST, Operation::ReadServers, key, service_key(key), decode)
    }

    fn dump<T>(
        &mut self,
        command: u8,
        operation: Operation,
        object: impl fmt::Display,
        attributes: Writer,
        decode: impl FnMut(&[u8]) -> Decoded<Option<T>>,
    ) -> Result<Vec<T>> {
        let list = self.socket.dump(&Message::generic(self.family, command, attributes), decode);
        list.map_err(|failure| Error::netlink(operation, object, &failure))
    }

    fn request(&mut self, command: u8, attributes: Writer) -> Answer<Option<Vec<u8>>> {
        self.socket.request(&Message::generic(self.family, command, attributes))
    }

    /// Looks for what the services need, and loads the modules for it.
    pub(super) fn prepare(&mut self, needs: &Needs) -> Vec<Error> {
        let mut errors = Vec::new();
        let schedulers = needs.schedulers.iter().map(|name| (SCHEDULER, name));
        for (kind, name) in schedulers.chain(needs.engines.iter().map(|name| (ENGINE, name))) {
            let answer = match (1..=NAME_MAX).contains(&name.len()) {
                true => self.request(command::NEW_SERVICE, probe(kind, name)),
                // Not even asked: the kernel's EINVAL for a long name would look like the EINVAL of what exists.
                false => Err(Failure::Refused { errno: Errno::ENOENT, text: None }),
            };
            match answer {
                Err(Failure::Refused {
                    errno: Errno::EINVAL | Errno::EEXIST | Errno::EAFNOSUPPORT, ..
                }) => {}
                // A kernel that takes this prefix has what was asked for; undone at once.
                Ok(_) => {
                    let undone = self.request(command::DEL_SERVICE, service_key(&PROBE)).err();
                    errors.extend(undone.map(|why| Error::netlink(Operation::DeleteService, PROBE, &why)));
                }
                Err(failure) if failure.is(Errno::EPERM) => {
                    return vec![Error::netlink(Operation::Probe, "schedulers", &failure)];
                }
                Err(failure) => {
                    let mut error = Error::netlink(Operation::Probe, format!("{} {name}", kind.0), &failure);
                    if failure.is(Errno::ENOENT) {
                        (error.detail, error.remedy) = (no_module(kind, name), Some(load(kind, name)));
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
        // The messages of each change that failed, and each message sent with the place of its change.
        let (mut failed, mut sent) = (Vec::new(), Vec::new());
        for (place, change) in changes.iter().enumerate() {
            let requests = requests(change);
            let refused = reject_mark_zero(&requests);
            if refused.is_none() {
                requests.iter().for_each(|request| request.encode(batch, self.family));
                sent.extend(requests.into_iter().map(|request| (place, request)));
            }
            failed.push(Vec::from_iter(refused));
            if batch.is_full() {
                break;
            }
        }
        for (index, failure) in self.socket.batch(batch) {
            let Some((place, request)) = sent.get(index) else { continue };
            if let Some(failed) = failed.get_mut(*place).filter(|_| !request.is_done(&failure)) {
                failed.push((*request, failure));
            }
        }
        failed.iter().map(|failed| self.change_result(failed)).collect()
    }

    /// What a change came to. A service that we made and that cannot have its scheduler is taken away again:
    /// it would refuse every connection.
    fn change_result(&mut self, failed: &[(Request<'_>, Failure)]) -> Result<()> {
        let Some((request, failure, mut error)) = change_error(failed) else {
            return Ok(());
        };
        if let (Body::Service(key, _), true, Failure::Refused { .. }) =
            (request.body, request.schedules(), failure)
        {
            error.detail += match self.request(command::DEL_SERVICE, service_key(key)) {
                Err(failure) if !failure.is(Errno::ESRCH) => {
                    "; the service stands without a scheduler and refuses connections"
                }
                _ => "; the service was taken away again",
            };
        }
        Err(error)
    }
}

/// One message of a change.
#[derive(Clone, Copy, Debug)]
struct Request<'a> {
    command: u8,
    operation: Operation,
    /// It completes the new service of the message before it.
    joined: bool,
    body: Body<'a>,
}

/// What a message is about; without settings it is the object's key alone.
#[derive(Clone, Copy, Debug)]
enum Body<'a> {
    /// With the scheduler to send
    Service(&'a ServiceKey, Option<(&'a Service, &'a str)>),
    Server(&'a ServiceKey, &'a ServerKey, Option<&'a RealServer>),
    Timeouts(Timeouts),
    Daemon(DaemonState, &'a SyncDaemon),
}

/// The messages that carry out a change, in their order.
fn requests(change: &Change) -> Vec<Request<'_>> {
    use Operation as Op;
    let (command, operation, body) = match change {
        Change::Service { key, old: None, new: Some(new), servers, .. } => {
            return new_service(key, new, servers);
        }
        Change::Service { key, new: Some(new), .. } => {
            (command::SET_SERVICE, Op::SetService, Body::Service(key, Some((new, &new.scheduler))))
        }
        Change::Service { key, .. } => (command::DEL_SERVICE, Op::DeleteService, Body::Service(key, None)),
        Change::Server { service, key, old, new, .. } => {
            let (command, operation) = match (old, new) {
                (None, _) => (command::NEW_DEST, Op::AddServer),
                (Some(_), Some(_)) => (command::SET_DEST, Op::SetServer),
                (Some(_), None) => (command::DEL_DEST, Op::DeleteServer),
            };
            (command, operation, Body::Server(service, key, new.as_ref()))
        }
        Change::Timeouts { new, .. } => (command::SET_CONFIG, Op::SetTimeouts, Body::Timeouts(*new)),
        Change::Daemon { state, new: Some(daemon), .. } => {
            (command::NEW_DAEMON, Op::StartDaemon, Body::Daemon(*state, daemon))
        }
        Change::Daemon { state, old: Some(daemon), .. } => {
            (command::DEL_DAEMON, Op::StopDaemon, Body::Daemon(*state, daemon))
        }
        Change::Daemon { .. } | Change::Parameter { .. } | Change::Address { .. } => return Vec::new(),
    };
    vec![Request { command, operation, joined: false, body }]
}

/// First without a scheduler, which then builds its tables once and from the complete list: for mh a
/// factor of forty, and no client meets half a service. SET_SERVICE from `none` waits for no RCU grace
/// period (ip_vs_ctl.c, ip_vs_edit_service). It replaces everything, so everything is in it.
///
/// The kernel puts each real server at the head of its list (ip_vs_ctl.c, ip_vs_add_dest), and sh and mh go by
/// the list's order: descending here is ascending there, on every director.
fn new_service<'a>(key: &'a ServiceKey, new: &'a Service, servers: &'a Servers) -> Vec<Request<'a>> {
    let service = |command, joined, scheduler| {
        let body = Body::Service(key, Some((new, scheduler)));
        Request { command, operation: Operation::AddService, joined, body }
    };
    let fill = servers.iter().rev().map(|(server, settings)| {
        let body = Body::Server(key, server, Some(settings));
        Request { command: command::NEW_DEST, operation: Operation::AddServer, joined: true, body }
    });
    let schedule = service(command::SET_SERVICE, true, &new.scheduler);
    std::iter::once(service(command::NEW_SERVICE, false, NO_SCHEDULER))
        .chain(fill)
        .chain([schedule])
        .collect()
}

impl Request<'_> {
    fn encode(&self, batch: &mut Batch, family: u16) {
        batch.generic(family, self.command, self.joined, |to| match self.body {
            Body::Service(key, settings) => put_service(to, key, settings),
            Body::Server(service, key, settings) => {
                put_service(to, service, None);
                put_server(to, key, settings);
            }
            Body::Timeouts(timeouts) => put_timeouts(to, timeouts),
            Body::Daemon(state, daemon) => put_daemon(to, state, daemon),
        });
    }

    /// What it is about, for its error.
    fn object(&self) -> String {
        match self.body {
            Body::Service(key, _) => key.to_string(),
            Body::Server(service, key, _) => format!("{key} of {service}"),
            Body::Timeouts(_) => String::new(),
            Body::Daemon(state, daemon) => format!("{state} on {}", daemon.interface),
        }
    }

    /// Whether it gives a new service its scheduler.
    fn schedules(&self) -> bool {
        self.joined && matches!(self.body, Body::Service(..))
    }

    /// Whether the kernel's refusal says that what was wanted is so already.
    fn is_done(&self, failure: &Failure) -> bool {
        match self.operation {
            Operation::DeleteServer => failure.is(Errno::ENOENT) || failure.is(Errno::ESRCH),
            Operation::DeleteService | Operation::StopDaemon => failure.is(Errno::ESRCH),
            _ => false,
        }
    }
}

/// What the kernel would take for something else is not sent: mark 0 makes a service of TCP 0.0.0.0:0.
fn reject_mark_zero<'a>(requests: &[Request<'a>]) -> Option<(Request<'a>, Failure)> {
    let request = requests.first()?;
    let (Body::Service(key, _) | Body::Server(key, ..)) = request.body else { return None };
    let failure =
        Failure::Refused { errno: Errno::EINVAL, text: Some("there is no firewall mark 0".to_owned()) };
    matches!(key, ServiceKey::Fwmark { mark: 0, .. }).then_some((*request, failure))
}

/// The message of a change whose failure is the change's, from all that failed, and the error.
fn change_error<'a>(failed: &'a [(Request<'a>, Failure)]) -> Option<(&'a Request<'a>, &'a Failure, Error)> {
    // Of a service that somebody else made only that is told.
    let created = failed.first()?.0.command != command::NEW_SERVICE;
    // Why nothing works matters more than which server failed first.
    let unscheduled = failed.iter().find(|(request, _)| created && request.schedules());
    let (request, failure) = unscheduled.or(failed.first())?;
    let mut error = Error::netlink(request.operation, request.object(), failure);
    if let (Body::Service(_, Some((service, _))), true) = (request.body, failure.is(Errno::ENOENT)) {
        (error.detail, error.remedy) = missing_module_error(service);
    }
    if matches!(request.body, Body::Server(..)) && failed.len() > 1 {
        error.detail += &format!(" (and {} more of its real servers failed)", failed.len() - 1);
    }
    Some((request, failure, error))
}

/// Meaning and remedy of ENOENT for a service with these settings.
fn missing_module_error(Service { scheduler, engine, .. }: &Service) -> (String, Option<String>) {
    let (mut detail, mut remedy) = (no_module(SCHEDULER, scheduler), load(SCHEDULER, scheduler));
    if !engine.is_empty() {
        detail += &format!(", or no persistence engine `{engine}`");
        remedy += &format!(", and {}", load(ENGINE, engine));
    }
    (detail, Some(remedy))
}

fn no_module((kind, _): Kind, name: &str) -> String {
    format!("this kernel has no {kind} `{name}`")
}

fn load((_, module): Kind, name: &str) -> String {
    format!("`modprobe {module}{name}`, or install the kernel's modules package")
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

/// The attributes of a NEW_SERVICE that never makes a service, but finds out whether a scheduler or an engine exists.
///
/// `ip_vs_add_service` (`ip_vs_ctl.c`) looks for the scheduler first, loading the module ip_vs_NAME where it
/// can, then for the engine, and says ENOENT when one is missing; only then does it look at the IPv6 prefix
/// length, of which 0 is EINVAL, and only then does it make anything. Without IPv6 in IPVS the address family is
/// refused before all that (`ip_vs_genl_parse_service`, EAFNOSUPPORT): then nothing is known and the best is
/// assumed, since the batch would tell.
fn probe(kind: Kind, name: &str) -> Writer {
    let (scheduler, engine) = if kind == SCHEDULER { (name, "") } else { (NO_SCHEDULER, name) };
    let settings = Service {
        scheduler: scheduler.to_owned(),
        flags: service_flag::PERSISTENT,
        timeout: 1,
        netmask: 0,
        engine: engine.to_owned(),
    };
    let mut attributes = Writer::default();
    put_service(&mut attributes, &PROBE, Some((&settings, scheduler)));
    attributes
}

/// The attributes of a request that names a service.
fn service_key(key: &ServiceKey) -> Writer {
    let mut attributes = Writer::default();
    put_service(&mut attributes, key, None);
    attributes
}

fn family_number(family: Family) -> [u8; 2] {
    match family {
        Family::Ipv4 => (libc::AF_INET as u16).to_ne_bytes(),
        Family::Ipv6 => (libc::AF_INET6 as u16).to_ne_bytes(),
    }
}

/// `union nf_inet_addr`: IPv4 in the first four of 16 bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A service: its key alone, or all of it with this scheduler. The kernel wants all of it for a change, too.
fn put_service(to: &mut Writer, key: &ServiceKey, settings: Option<(&Service, &str)>) {
    to.nest(top::SERVICE, |to| {
        to.put(service::FAMILY, &family_number(key.family()));
        match key {
            ServiceKey::Endpoint { address, port, protocol } => to
                .put(service::PROTOCOL, &protocol.0.to_ne_bytes())
                .put(service::ADDRESS, &address_bytes(*address))
                .put(service::PORT, &port.to_be_bytes()),
            ServiceKey::Fwmark { mark, .. } => to.put(service::FWMARK, &mark.to_ne_bytes()),
        };
        let Some((settings, scheduler)) = settings else {
            return;
        };
        let netmask = match (key.family(), settings.is_persistent()) {
            (family, false) => Service::full_netmask(family).to_ne_bytes(),
            (Family::Ipv4, true) => settings.netmask.to_be_bytes(),
            (Family::Ipv6, true) => settings.netmask.to_ne_bytes(),
        };
        // Every flag is meant: new = (old & ~mask) | (flags & mask).
        let [f0, f1, f2, f3] = (settings.flags & !service_flag::HASHED).to_ne_bytes();
        to.put_text(service::SCHEDULER, scheduler)
            .put(service::FLAGS, &[f0, f1, f2, f3, 0xff, 0xff, 0xff, 0xff])
            .put(service::TIMEOUT, &settings.timeout.to_ne_bytes())
            .put(service::NETMASK, &netmask);
        // Left out of SET_SERVICE, the engine is taken away (ip_vs_edit_service); empty, it is not found.
        if !settings.engine.is_empty() {
            to.put_text(service::ENGINE, &settings.engine);
        }
    });
}

/// A real server: its key alone, or all of it.
fn put_server(to: &mut Writer, key: &ServerKey, settings: Option<&RealServer>) {
    to.nest(top::DEST, |to| {
        to.put(dest::FAMILY, &family_number(Family::of(key.address)))
            .put(dest::ADDRESS, &address_bytes(key.address))
            .put(dest::PORT, &key.port.to_be_bytes());
        let Some(settings) = settings else {
            return;
        };
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

/// A daemon. To stop one the kernel looks at the state alone.
fn put_daemon(to: &mut Writer, state: DaemonState, settings: &SyncDaemon) {
    let state: u32 = match state {
        DaemonState::Master => 1,
        DaemonState::Backup => 2,
    };
    to.nest(top::DAEMON, |to| {
        to.put(daemon::STATE, &state.to_ne_bytes())
            .put_text(daemon::INTERFACE, &settings.interface)
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

/// The attributes of one object by their kinds, none of which is above 15.
struct Fields<'a>([Option<&'a [u8]>; 16]);

impl<'a> Fields<'a> {
    fn of(attributes: Attributes<'a>) -> Decoded<Self> {
        let mut fields = [None; 16];
        for attribute in attributes {
            let (kind, value) = attribute?;
            if let Some(field) = fields.get_mut(usize::from(kind)) {
                *field = Some(value);
            }
        }
        Ok(Self(fields))
    }

    /// Those of a reply, or inside an attribute of it.
    fn inside(payload: &'a [u8], kind: u16) -> Decoded<Self> {
        Self::of(generic_attributes(payload)?.nested(kind)?.ok_or(Malformed)?)
    }

    /// What `read` makes of a value, when that is there.
    fn get<T>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<Option<T>> {
        self.0.get(usize::from(kind)).copied().flatten().map(read).transpose()
    }

    /// The same of one that may be left out.
    fn or_default<T: Default>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<T> {
        Ok(self.get(kind, read)?.unwrap_or_default())
    }

    /// The same of one without which the reply makes no sense.
    fn need<T>(&self, kind: u16, read: impl FnOnce(&'a [u8]) -> Decoded<T>) -> Decoded<T> {
        self.get(kind, read)?.ok_or(Malformed)
    }
}

fn family_id(payload: &[u8]) -> Decoded<u16> {
    Fields::of(generic_attributes(payload)?)?.need(CtrlAttr::FamilyId.into(), u16_of)
}

fn family_of(value: &[u8]) -> Decoded<Option<Family>> {
    Ok(match i32::from(u16_of(value)?) {
        libc::AF_INET => Some(Family::Ipv4),
        libc::AF_INET6 => Some(Family::Ipv6),
        _ => None,
    })
}

/// Reads an address of this family.
fn address_of<'a>(family: Family) -> impl Fn(&'a [u8]) -> Decoded<IpAddr> {
    move |value| match family {
        Family::Ipv4 => {
            value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()).ok_or(Malformed)
        }
        Family::Ipv6 => {
            <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()).map_err(|_| Malformed)
        }
    }
}

/// Reads a service; passes over one of a family that is not known here.
fn decode_service(payload: &[u8]) -> Decoded<Option<(ServiceKey, Service)>> {
    let found = Fields::inside(payload, top::SERVICE)?;
    let Some(family) = found.need(service::FAMILY, family_of)? else {
        return Ok(None);
    };
    let key = match found.get(service::FWMARK, u32_of)? {
        Some(mark) => ServiceKey::Fwmark { mark, family },
        None => ServiceKey::Endpoint {
            address: found.need(service::ADDRESS, address_of(family))?,
            port: found.need(service::PORT, be16_of)?,
            protocol: Protocol(found.need(service::PROTOCOL, u16_of)?),
        },
    };
    let scheduler = found.get(service::SCHEDULER, text_of)?.filter(|name| !name.is_empty());
    let flags = found.need(service::FLAGS, |value| u32_of(value.get(..4).unwrap_or_default()))?;
    let netmask = found.need(service::NETMASK, u32_of)?;
    let mut settings = Service {
        scheduler: scheduler.unwrap_or_else(|| NO_SCHEDULER.to_owned()),
        flags: flags & !service_flag::HASHED,
        timeout: found.need(service::TIMEOUT, u32_of)?,
        netmask: if family == Family::Ipv4 { u32::from_be(netmask) } else { netmask },
        engine: found.or_default(service::ENGINE, text_of)?,
    };
    if !settings.is_persistent() {
        settings.timeout = 0;
        settings.netmask = Service::full_netmask(family);
    }
    Ok(Some((key, settings)))
}

/// Reads a real server of a service of this family; passes over one of a family that is not known here.
fn decode_server(payload: &[u8], of: Family) -> Decoded<Option<(ServerKey, RealServer, Counters)>> {
    let found = Fields::inside(payload, top::DEST)?;
    let Some(family) = found.get(dest::FAMILY, family_of)?.unwrap_or(Some(of)) else {
        return Ok(None);
    };
    let key = Endpoint {
        address: found.need(dest::ADDRESS, address_of(family))?,
        port: found.need(dest::PORT, be16_of)?,
    };
    let forward = Forward(found.need(dest::FORWARD, u32_of)? & FORWARD_MASK);
    let tunnel = Tunnel {
        kind: found.or_default(dest::TUNNEL_KIND, u8_of)?,
        port: found.or_default(dest::TUNNEL_PORT, be16_of)?,
        checksum: found.or_default(dest::TUNNEL_FLAGS, u16_of)?,
    };
    let settings = RealServer {
        forward,
        weight: found.need(dest::WEIGHT, u32_of)?,
        upper_threshold: found.or_default(dest::UPPER_THRESHOLD, u32_of)?,
        lower_threshold: found.or_default(dest::LOWER_THRESHOLD, u32_of)?,
        tunnel: if forward == Forward::TUN { tunnel } else { Tunnel::default() },
    };
    let counters = Counters {
        active: found.or_default(dest::ACTIVE, u32_of)?,
        inactive: found.or_default(dest::INACTIVE, u32_of)?,
        persistent: found.or_default(dest::PERSISTENT, u32_of)?,
        rates: found.or_default(dest::STATISTICS, decode_rates)?,
    };
    Ok(Some((key, settings, counters)))
}

fn decode_rates(value: &[u8]) -> Decoded<Rates> {
    let found = Fields::of(Attributes::new(value))?;
    Ok(Rates {
        connections: found.or_default(statistics::CONNECTIONS, u64_of)?,
        bytes_in: found.or_default(statistics::BYTES_IN, u64_of)?,
        bytes_out: found.or_default(statistics::BYTES_OUT, u64_of)?,
    })
}

/// Reads a sync daemon.
fn decode_daemon(payload: &[u8]) -> Decoded<Option<(DaemonState, SyncDaemon)>> {
    let found = Fields::inside(payload, top::DAEMON)?;
    let state = match found.need(daemon::STATE, u32_of)? {
        1 => DaemonState::Master,
        2 => DaemonState::Backup,
        _ => return Ok(None),
    };
    let v4 = found.get(daemon::GROUP, address_of(Family::Ipv4))?;
    let settings = SyncDaemon {
        interface: found.or_default(daemon::INTERFACE, text_of)?,
        id: u8::try_from(found.or_default(daemon::ID, u32_of)? & 0xff).map_err(|_| Malformed)?,
        max_len: found.get(daemon::MAX_LEN, u16_of)?,
        group: v4.or(found.get(daemon::GROUP6, address_of(Family::Ipv6))?),
        port: found.get(daemon::PORT, u16_of)?,
        ttl: found.get(daemon::TTL, u8_of)?,
    };
    Ok(Some((state, settings)))
}

/// Reads the timeouts; the kernel leaves out those of protocols that it was built without.
fn decode_timeouts(payload: &[u8]) -> Decoded<Timeouts> {
    let found = Fields::of(generic_attributes(payload)?)?;
    Ok(Timeouts {
        tcp: found.or_default(top::TIMEOUT_TCP, u32_of)?,
        tcp_fin: found.or_default(top::TIMEOUT_TCP_FIN, u32_of)?,
        udp: found.or_default(top::TIMEOUT_UDP, u32_of)?,
    })
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
        Message::generic(30, 1, attributes).body().to_vec()
    }

    proptest! {
        #[test]
        fn a_service_is_read_as_it_was_written((key, settings) in any_service()) {
            let payload = reply(|to| put_service(to, &key, Some((&settings, &settings.scheduler))));
            prop_assert_eq!(decode_service(&payload), Ok(Some((key, settings))));
        }

        #[test]
        fn a_server_is_read_as_it_was_written((key, settings) in any_server()) {
            let payload = reply(|to| put_server(to, &key, Some(&settings)));
            prop_assert_eq!(
                decode_server(&payload, Family::of(key.address)),
                Ok(Some((key, settings, Counters::default())))
            );
        }

        #[test]
        fn a_daemon_is_read_as_it_was_written((state, settings) in any_daemon()) {
            let payload = reply(|to| put_daemon(to, state, &settings));
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
                reply(|to| put_service(to, &key, Some((&settings, &settings.scheduler)))),
                reply(|to| put_server(to, &server, Some(&server_settings))),
                reply(|to| put_daemon(to, state, &daemon)),
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
        let servers = [(server(11), nat()), (server(12), nat()), (server(13), nat())].into();
        Change::Service { key: vip(), old: None, new: Some(settings("rr")), servers, connections: 0 }
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
        let payload = reply(|to| put_service(to, &vip(), Some((&service, "wrr"))));
        let mut expected = expected.to_vec();
        expected[4] = u8::try_from(expected.len() - 4).unwrap();
        assert_eq!(payload, expected);
        // What the kernel adds: its own flag, and the bytes of statistics that nobody asked for.
        let hashed = payload.iter().zip(0..).map(|(byte, at)| if at == 64 { byte | 2 } else { *byte });
        let hashed: Vec<u8> = hashed.collect();
        assert_ne!(hashed, payload);
        assert_eq!(decode_service(&hashed), Ok(Some((vip(), service))));
    }

    fn server(last: u8) -> ServerKey {
        Endpoint { address: Ipv4Addr::new(192, 0, 2, last).into(), port: 80 }
    }

    #[test]
    fn a_new_service_gets_its_servers_last_first_and_its_scheduler_at_the_end() {
        let change = new_service();
        let mut batch = Batch::default();
        requests(&change).iter().for_each(|request| request.encode(&mut batch, 30));
        assert_eq!(batch.len(), 5);
        let commands: Vec<u8> = requests(&change).iter().map(|request| request.command).collect();
        let new_dest = command::NEW_DEST;
        assert_eq!(commands, [command::NEW_SERVICE, new_dest, new_dest, new_dest, command::SET_SERVICE]);
        let scheduler = |index: usize| decode_service(batch.body(index)).unwrap().unwrap().1.scheduler;
        assert_eq!((scheduler(0).as_str(), scheduler(4).as_str()), ("none", "rr"));
        for (index, last) in [(1, 13), (2, 12), (3, 11)] {
            let (key, settings, _) = decode_server(batch.body(index), Family::Ipv4).unwrap().unwrap();
            assert_eq!((key, settings), (server(last), nat()));
        }
    }

    #[test]
    fn what_comes_changes_and_goes_has_a_command_of_its_own() {
        let (key, service) = (vip(), vip());
        let daemon =
            SyncDaemon { interface: "eth1".into(), id: 1, max_len: None, group: None, port: None, ttl: None };
        let (state, timeouts) = (DaemonState::Master, Timeouts::default());
        let set = |old, new| Change::Service { key, old, new, servers: Servers::new(), connections: 0 };
        let server = |old, new| Change::Server { service, key: server(11), old, new, connections: 0 };
        for (change, command) in [
            (set(Some(settings("rr")), Some(settings("sh"))), command::SET_SERVICE),
            (set(Some(settings("rr")), None), command::DEL_SERVICE),
            (server(None, Some(nat())), command::NEW_DEST),
            (server(Some(nat()), Some(nat())), command::SET_DEST),
            (server(Some(nat()), None), command::DEL_DEST),
            (Change::Timeouts { old: timeouts, new: timeouts }, command::SET_CONFIG),
            (Change::Daemon { state, old: None, new: Some(daemon.clone()) }, command::NEW_DAEMON),
            (Change::Daemon { state, old: Some(daemon), new: None }, command::DEL_DAEMON),
        ] {
            let commands: Vec<u8> = requests(&change).iter().map(|request| request.command).collect();
            assert_eq!(commands, [command], "{change:?}");
        }
    }

    fn refused(errno: Errno) -> Option<Failure> {
        Some(Failure::Refused { errno, text: None })
    }

    /// The error of a new service, from the failures of its five messages, and whether the service must go.
    fn failed(answers: [Option<Failure>; 5]) -> (Error, bool) {
        let change = new_service();
        let failed: Vec<_> = requests(&change)
            .into_iter()
            .zip(answers)
            .filter_map(|(request, answer)| Some((request, answer?)))
            .collect();
        let (request, failure, error) = change_error(&failed).unwrap();
        (error, request.schedules() && matches!(failure, Failure::Refused { .. }))
    }

    #[test]
    fn a_failed_server_is_named_and_the_rest_stands() {
        let (error, goes) = failed([None, refused(Errno::EINVAL), None, refused(Errno::ERANGE), None]);
        assert!(!goes);
        assert_eq!(
            (error.operation.as_str(), error.object.as_str()),
            ("adding real server", "192.0.2.13:80 of tcp 192.0.2.1:80")
        );
        assert!(error.detail.ends_with("(and 1 more of its real servers failed)"), "{error}");
    }

    #[test]
    fn a_missing_scheduler_is_the_error_and_the_service_is_to_go() {
        let (error, goes) = failed([None, refused(Errno::EINVAL), None, None, refused(Errno::ENOENT)]);
        assert!(goes);
        assert_eq!(
            error.to_string(),
            "adding service tcp 192.0.2.1:80: this kernel has no scheduler `rr` (ENOENT); \
             `modprobe ip_vs_rr`, or install the kernel's modules package"
        );
    }

    #[test]
    fn a_service_that_somebody_else_made_is_filled_and_told() {
        let exists = refused(Errno::EEXIST);
        let (error, goes) = failed([exists.clone(), exists, None, None, refused(Errno::EINVAL)]);
        assert!(!goes);
        let text = "adding service tcp 192.0.2.1:80: already exists, made by someone else meanwhile (EEXIST); run again";
        assert_eq!(error.to_string(), text);
        let (error, goes) = failed([(); 5].map(|()| refused(Errno::EPERM)));
        assert!(!goes && error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        assert!(!error.detail.contains("more"), "{error}");
    }

    #[test]
    fn an_unknown_end_does_not_take_the_service_away() {
        let lost = Failure::Broken { errno: Some(Errno::ENOBUFS), text: "lost".to_owned() };
        let (error, goes) = failed([None, None, None, None, Some(lost)]);
        assert!(!goes, "{error}");
    }

    #[test]
    fn what_is_gone_is_done() {
        let is_done = |operation, errno| {
            let (command, body) = (command::DEL_DEST, Body::Timeouts(Timeouts::default()));
            Request { command, operation, joined: false, body }.is_done(&refused(errno).unwrap())
        };
        assert!(is_done(Operation::DeleteServer, Errno::ENOENT));
        assert!(is_done(Operation::DeleteServer, Errno::ESRCH));
        assert!(is_done(Operation::DeleteService, Errno::ESRCH));
        assert!(is_done(Operation::StopDaemon, Errno::ESRCH));
        assert!(!is_done(Operation::SetServer, Errno::ENOENT));
        assert!(!is_done(Operation::DeleteService, Errno::EPERM));
    }

    #[test]
    fn mark_0_is_never_sent() {
        let key = ServiceKey::Fwmark { mark: 0, family: Family::Ipv4 };
        let (old, servers) = (Some(settings("rr")), Servers::new());
        let change = Change::Service { key, old, new: None, servers, connections: 0 };
        let failed = [reject_mark_zero(&requests(&change)).unwrap()];
        let (.., error) = change_error(&failed).unwrap();
        assert_eq!(error.to_string(), "removing service fwmark 0: there is no firewall mark 0 (EINVAL)");
        assert!(reject_mark_zero(&requests(&new_service())).is_none());
    }

    #[test]
    fn the_probe_s_prefix_length_is_one_that_the_kernel_refuses() {
        let payload = Message::generic(30, 1, probe(SCHEDULER, "wlc")).body().to_vec();
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
