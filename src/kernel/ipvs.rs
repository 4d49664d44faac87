//! The IPVS table, its sync daemons and its timeouts, by generic netlink.
//!
//! Owns what is asked and sent, in which order and batches, and what an answer means for a change. Which services
//! there should be is decided by `plan`; how they look in a message is in `ipvs_wire`. Called by `kernel`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::GenlId;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use nix::sys::utsname::uname;

use super::error::{Error, Operation, Result};
use super::ipvs_abi::{FAMILY, command};
use super::ipvs_sockopt::Table;
use super::ipvs_wire::{
    Decoded, NO_SCHEDULER, decode_daemon, decode_server, decode_service, decode_timeouts, family_id,
    put_daemon, put_server, put_service, put_timeouts, service_key,
};
use super::netlink::{Batch, Failure, Malformed, Message, Socket, Writer};
use crate::model::{
    DaemonState, Family, Protocol, RealServer, ServerKey, Service, ServiceKey, SyncDaemon, Timeouts,
    service_flag,
};
use crate::observed::{Counters, ObservedIpvs, ObservedService, ServerScope};
use crate::plan::{Change, Needs};

/// Longest name of a scheduler (`IP_VS_SCHEDNAME_MAXLEN` without its NUL).
const NAME_MAX: usize = 15;

/// What a service needs beside IPVS itself: its name, and how those of its modules begin (`ip_vs_sched.c`, `ip_vs_pe.c`).
type Kind = (&'static str, &'static str);
const SCHEDULER: Kind = ("scheduler", "ip_vs_");
const ENGINE: Kind = ("persistence engine", "ip_vs_pe_");

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
        let mut found = Self::find();
        if found.as_ref().is_err_and(|failure| failure.is(Errno::ENOENT)) {
            load_module();
            found = Self::find();
        }
        match found {
            Ok(ipvs) => Ok(Some(ipvs)),
            Err(failure) if failure.is(Errno::ENOENT) => Ok(None),
            Err(failure) => Err(Error::netlink(Operation::FindIpvs, "", &failure)),
        }
    }

    fn find() -> Answer<Self> {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric)?;
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
                        missing_module_error(&mut error, &[(kind, name)]);
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
    use command::{DEL_DAEMON, DEL_DEST, DEL_SERVICE, NEW_DAEMON, NEW_DEST, NEW_SERVICE, SET_CONFIG};
    use command::{SET_DEST, SET_SERVICE};
    let joined = |command, operation, body| Request { command, operation, joined: true, body };
    let one = |command, operation, body| vec![Request { command, operation, joined: false, body }];
    match change {
        // First without a scheduler, which then builds its tables once and from the complete list: for mh a
        // factor of forty, and no client meets half a service. SET_SERVICE from `none` waits for no RCU grace
        // period (ip_vs_ctl.c, ip_vs_edit_service). It replaces everything, so everything is in it.
        Change::Service { key, old: None, new: Some(new), servers, .. } => {
            let mut list = one(NEW_SERVICE, Op::AddService, Body::Service(key, Some((new, NO_SCHEDULER))));
            // The kernel puts each at the head of its list (ip_vs_ctl.c, ip_vs_add_dest), and sh and mh go by
            // the list's order: descending here is ascending there, on every director.
            list.extend(servers.iter().rev().map(|(server, settings)| {
                joined(NEW_DEST, Op::AddServer, Body::Server(key, server, Some(settings)))
            }));
            let whole = Body::Service(key, Some((new, &new.scheduler)));
            list.push(joined(SET_SERVICE, Op::AddService, whole));
            list
        }
        Change::Service { key, new: Some(new), .. } => {
            one(SET_SERVICE, Op::SetService, Body::Service(key, Some((new, &new.scheduler))))
        }
        Change::Service { key, .. } => one(DEL_SERVICE, Op::DeleteService, Body::Service(key, None)),
        Change::Server { service, key, old, new, .. } => {
            let (command, operation) = match (old, new) {
                (None, _) => (NEW_DEST, Op::AddServer),
                (_, Some(_)) => (SET_DEST, Op::SetServer),
                (_, None) => (DEL_DEST, Op::DeleteServer),
            };
            one(command, operation, Body::Server(service, key, new.as_ref()))
        }
        Change::Timeouts { new, .. } => one(SET_CONFIG, Op::SetTimeouts, Body::Timeouts(*new)),
        Change::Daemon { state, new: Some(new), .. } => {
            one(NEW_DAEMON, Op::StartDaemon, Body::Daemon(*state, new))
        }
        Change::Daemon { state, old: Some(old), .. } => {
            one(DEL_DAEMON, Op::StopDaemon, Body::Daemon(*state, old))
        }
        Change::Daemon { .. } | Change::Parameter { .. } | Change::Address { .. } => Vec::new(),
    }
}

impl Request<'_> {
    fn encode(&self, batch: &mut Batch, family: u16) {
        batch.generic(family, self.command, |to| match self.body {
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
        missing_module_error(&mut error, &[(SCHEDULER, &service.scheduler), (ENGINE, &service.engine)]);
    }
    if matches!(request.body, Body::Server(..)) && failed.len() > 1 {
        error.detail += &format!(" (and {} more of its real servers failed)", failed.len() - 1);
    }
    Some((request, failure, error))
}

/// Meaning and remedy of ENOENT, which says that one of these is missing.
fn missing_module_error(error: &mut Error, names: &[(Kind, &str)]) {
    let names = names.iter().filter(|(_, name)| !name.is_empty());
    let (missing, remedies): (Vec<_>, Vec<_>) = names
        .map(|((kind, module), name)| {
            let remedy = format!("`modprobe {module}{name}`, or install the kernel's modules package");
            (format!("no {kind} `{name}`"), remedy)
        })
        .unzip();
    error.detail = format!("this kernel has {}", missing.join(", or "));
    error.remedy = Some(remedies.join(", and "));
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{Endpoint, Forward, Servers, Tunnel};

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
        let scheduler =
            |index: usize| decode_service(&batch.messages[index].body).unwrap().unwrap().1.scheduler;
        assert_eq!((scheduler(0).as_str(), scheduler(4).as_str()), ("none", "rr"));
        for (index, last) in [(1, 13), (2, 12), (3, 11)] {
            let (key, settings, _) =
                decode_server(&batch.messages[index].body, Family::Ipv4).unwrap().unwrap();
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
        let payload = Message::generic(30, 1, probe(SCHEDULER, "wlc")).body;
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
