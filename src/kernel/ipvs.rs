//! The IPVS table, its sync daemons and its timeouts, by generic netlink.
//!
//! Owns what is asked and sent, in which order and batches, and what an answer means for a change. Which services
//! there should be is decided by `plan`; how they look in a message is in `ipvs_wire`. Called by `kernel`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlmF};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::error::{Error, Operation, Result, When as _};
use super::ipvs_sockopt::Table;
use super::ipvs_wire::{command, decode_daemon, decode_server, decode_service, decode_timeouts};
use super::netlink::{self, Answer, Datagram, Failure, Socket, generic};
use crate::model::{
    Family, NO_SCHEDULER, Ownership, Protocol, RealServer, ServerKey, Service, ServiceKey, service_flag,
};
use crate::observed::{Counters, ObservedIpvs, ObservedService};
use crate::plan::{Change, Needs};

/// Runs modprobe as the kernel itself would (`kmod.c`, `call_modprobe`), and as ipvsadm does; a disk that hangs holds
/// nobody up. The path is empty where that is forbidden. Whether it helped is seen by asking again.
fn load_module() {
    let program = std::fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let mut command = Command::new(program.trim_end());
    command.args(["-q", "--", "ip_vs"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let environment = [("HOME", "/"), ("TERM", "linux"), ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")];
    let Ok(mut child) = command.env_clear().envs(environment).spawn() else { return };
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        // Less than keepalived gives a stop script.
        if begun.elapsed() >= Duration::from_millis(600) {
            return log::warn!("modprobe ip_vs, process {}, does not end; going on without", child.id());
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
    /// Finds the family, which loads the module ip_vs where it is installed (`genetlink.c`, MODULE_ALIAS_GENL_FAMILY);
    /// before 5.16 it is loaded by its name, once. Fails with ENOENT when the kernel has none.
    pub(super) fn open() -> Result<Self> {
        static LOADED: Once = Once::new();
        let mut found = Self::find();
        if found.as_ref().is_err_and(|failure| failure.is(&[Errno::ENOENT])) {
            LOADED.call_once(load_module);
            found = Self::find();
        }
        found.when(Operation::FindIpvs, "")
    }

    fn find() -> Answer<Self> {
        let mut socket = Socket::new(SockProtocol::NetlinkGeneric);
        let mut asked = Datagram::of(GenlId::Ctrl, NlmF::ACK, &generic(CtrlCmd::Getfamily));
        let reply = socket.request(asked.put_text(CtrlAttr::FamilyName, "IPVS"))?;
        let family = netlink::contents::<1>(&reply)?.1.need(CtrlAttr::FamilyId)?;
        Ok(Self { socket, family })
    }

    /// Reads every service, the real servers of those in `whose`, the timeouts and the sync daemons.
    pub(super) fn observe(&mut self, whose: &Ownership, expected: &[ServiceKey]) -> Result<ObservedIpvs> {
        let (mut observed, table) = (ObservedIpvs::default(), Table::open());
        let services = self.services(expected, table.as_ref());
        for (key, settings) in services.when(Operation::Read, "the virtual services")? {
            let listed = || table.as_ref().and_then(|table| table.servers(&key));
            // Of a service that is gone meanwhile netlink has an empty list, not an error.
            let list = match whose.owns(&key) {
                true => listed().map_or_else(|| self.servers(&key), Ok)?,
                false => Vec::new(),
            };
            let pairs = list.into_iter().map(|(server, found, counted)| ((server, found), (server, counted)));
            let (servers, counters) = pairs.unzip();
            observed.services.insert(key, ObservedService { settings, servers, counters });
        }
        let daemons = self.socket.ask(&mut self.message(NlmF::DUMP, command::GET_DAEMON), decode_daemon);
        observed.daemons.extend(daemons.when(Operation::Read, "the sync daemons")?);
        let timeouts = self.socket.request(&mut self.message(NlmF::ACK, command::GET_CONFIG));
        let timeouts = timeouts.and_then(|reply| decode_timeouts(&reply));
        observed.timeouts = timeouts.when(Operation::Read, "the IPVS timeouts")?;
        Ok(observed)
    }

    /// Every service. Up to Linux 7.0 all network namespaces share one table, and a dump goes on at the position where its
    /// last datagram ended (ip_vs_ctl.c, ip_vs_genl_dump_services): while others add and remove theirs, it repeats entries
    /// and misses some. What is expected and was missed is asked for by its key.
    fn services(
        &mut self,
        expected: &[ServiceKey],
        table: Option<&Table>,
    ) -> Answer<BTreeMap<ServiceKey, Service>> {
        let list = self.socket.ask(&mut self.message(NlmF::DUMP, command::GET_SERVICE), decode_service)?;
        let mut services: BTreeMap<_, _> = list.into_iter().collect();
        let v4 = services.keys().filter(|key| key.family() == Family::Ipv4).count();
        let whole = table.and_then(Table::count) == Some(v4);
        for key in expected.iter().filter(|key| !whole || key.family() == Family::Ipv6) {
            if services.contains_key(key) {
                continue;
            }
            match self.socket.request(self.message(NlmF::ACK, command::GET_SERVICE).put_service(key, None)) {
                Err(failure) if failure.is(&[Errno::ESRCH]) => {}
                reply => services.extend(decode_service(&reply?)?),
            }
        }
        Ok(services)
    }

    pub(super) fn servers(&mut self, key: &ServiceKey) -> Result<Vec<(ServerKey, RealServer, Counters)>> {
        let mut asked = self.message(NlmF::DUMP, command::GET_DEST);
        let list = self.socket.ask(asked.put_service(key, None), decode_server);
        list.when(Operation::Read, format_args!("the real servers of {key}"))
    }

    /// A request that has an answer by these flags: ACK or DUMP.
    fn message(&self, flags: NlmF, command: u8) -> Datagram {
        Datagram::of(self.family, flags, &generic(command))
    }

    /// Looks for what the services need, and loads the modules for it.
    pub(super) fn prepare(&mut self, needs: &Needs) -> Vec<Error> {
        let mut errors = Vec::new();
        for (scheduler, engine) in needs {
            let mut probe = self.message(NlmF::ACK, command::NEW_SERVICE);
            match self.socket.request(probe.put_probe(scheduler, engine)) {
                // A kernel that takes this prefix has what was asked for; undone at once.
                Ok(_) => _ = self.delete(&PROBE),
                Err(failure) if failure.is(&[Errno::EINVAL, Errno::EEXIST, Errno::EAFNOSUPPORT]) => {}
                Err(failure) => {
                    let error = Error::of(Operation::Probe, "", failure);
                    errors.push(name_modules(error, scheduler, engine));
                }
            }
        }
        errors
    }

    fn delete(&mut self, key: &ServiceKey) -> Answer<Vec<u8>> {
        self.socket.request(self.message(NlmF::ACK, command::DEL_SERVICE).put_service(key, None))
    }

    /// Carries out changes of IPVS, in order. Any other change is passed over as done.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let mut failed = vec![Vec::new(); changes.len()];
        let of = |(place, change)| requests(change).into_iter().map(move |request| (place, request));
        let sent = changes.iter().enumerate().flat_map(of);
        let encode = |(_, request): &(usize, Request<'_>), to: &mut Datagram| request.encode(to, self.family);
        self.socket.batch(sent, encode, |(place, request), failure| {
            if let Some(failed) = failed.get_mut(place).filter(|_| !request.is_done(&failure)) {
                failed.push((request, failure));
            }
        });
        let result = |failed: &Vec<_>| {
            let Some((mut error, useless)) = change_error(failed) else { return Ok(()) };
            // It would refuse every connection.
            if useless.is_some_and(|key| self.delete(key).is_ok()) {
                error.detail += "; the service was taken away again";
            }
            Err(error)
        };
        failed.iter().map(result).collect()
    }
}

/// One message of a change.
#[derive(Clone, Copy, Debug)]
struct Request<'a> {
    command: u8,
    operation: Operation,
    change: &'a Change,
    /// The real server of a new service that it is about
    server: Option<(&'a ServerKey, &'a RealServer)>,
}

/// The messages that carry out a change, in their order.
fn requests(change: &Change) -> Vec<Request<'_>> {
    use Operation as Op;
    let request = |command, operation| Request { command, operation, change, server: None };
    vec![match change {
        // First without a scheduler, which then builds its tables once: for mh a factor of forty, and no client meets half
        // a service. SET_SERVICE from `none` waits for no RCU grace period (ip_vs_ctl.c, ip_vs_edit_service). It replaces
        // everything, so everything is in it.
        Change::Service { old: None, new: Some(_), servers, .. } => {
            // The kernel puts each at the head of its list (ip_vs_ctl.c, ip_vs_add_dest), and sh and mh go by
            // the list's order: descending here is ascending there, on every director.
            let add = |server| Request { server: Some(server), ..request(command::NEW_DEST, Op::AddServer) };
            let list = [request(command::NEW_SERVICE, Op::AddService)].into_iter();
            let list = list.chain(servers.iter().rev().map(add));
            return list.chain([request(command::SET_SERVICE, Op::AddService)]).collect();
        }
        Change::Service { new: Some(_), .. } => request(command::SET_SERVICE, Op::SetService),
        Change::Service { .. } => request(command::DEL_SERVICE, Op::DeleteService),
        Change::Server { old: None, .. } => request(command::NEW_DEST, Op::AddServer),
        Change::Server { new: Some(_), .. } => request(command::SET_DEST, Op::SetServer),
        Change::Server { .. } => request(command::DEL_DEST, Op::DeleteServer),
        Change::Timeouts { .. } => request(command::SET_CONFIG, Op::SetTimeouts),
        Change::Daemon { new: Some(_), .. } => request(command::NEW_DAEMON, Op::StartDaemon),
        Change::Daemon { .. } => request(command::DEL_DAEMON, Op::StopDaemon),
        Change::Parameter { .. } | Change::Address { .. } => return Vec::new(),
    }]
}

impl Request<'_> {
    fn encode(&self, to: &mut Datagram, family: u16) {
        to.push(family, NlmF::empty(), &generic(self.command));
        match (self.change, self.server) {
            (Change::Service { key, .. }, Some((server, new))) => to.put_server(key, server, Some(new)),
            (Change::Service { key, new, .. }, None) => {
                let empty = (self.command == command::NEW_SERVICE).then_some(NO_SCHEDULER);
                to.put_service(key, new.as_ref().map(|new| (new, empty.unwrap_or(&new.scheduler))));
            }
            (Change::Server { service, key, new, .. }, _) => to.put_server(service, key, new.as_ref()),
            (Change::Timeouts { new, .. }, _) => to.put_timeouts(*new),
            (Change::Daemon { state, new, .. }, _) => to.put_daemon(*state, new.as_ref()),
            (Change::Parameter { .. } | Change::Address { .. }, _) => {}
        }
    }

    /// What it is about, for its error.
    fn object(&self) -> String {
        match (self.change, self.server) {
            (Change::Service { key, .. }, Some((server, _))) => format!("{server} of {key}"),
            (Change::Service { key, .. }, None) => key.to_string(),
            (Change::Server { service, key, .. }, _) => format!("{key} of {service}"),
            (Change::Daemon { state, old, new }, _) => {
                let interface = new.as_ref().or(old.as_ref()).map(|daemon| &*daemon.interface);
                format!("{state} on {}", interface.unwrap_or_default())
            }
            _ => String::new(),
        }
    }

    /// Whether the kernel's refusal says that what was wanted is so already. What is there although no dump has shown it
    /// has its settings compared when it is read back.
    fn is_done(&self, failure: &Failure) -> bool {
        use Operation::{AddServer, DeleteServer, DeleteService, StopDaemon};
        match self.operation {
            DeleteServer | DeleteService | StopDaemon => failure.is(&[Errno::ENOENT, Errno::ESRCH]),
            AddServer => failure.is(&[Errno::EEXIST]),
            _ => false,
        }
    }
}

/// The error of a change, from its messages that failed, if that is one: a service may be there already; and the service
/// that is of no use, since the kernel refused it its scheduler after we had made it.
fn change_error<'a>(failed: &[(Request<'a>, Failure)]) -> Option<(Error, Option<&'a ServiceKey>)> {
    // One that was there already is somebody else's to take away again.
    let is_new = |(request, _): &(Request<'_>, _)| request.command == command::NEW_SERVICE;
    let existed = failed.first().is_some_and(|first| is_new(first) && first.1.is(&[Errno::EEXIST]));
    let failed = failed.get(usize::from(existed)..).unwrap_or_default();
    let first = failed.first()?;
    // Why nothing works matters more than which server failed first.
    let created = !existed && !is_new(first);
    let unscheduled = failed.iter().find(|(request, _)| {
        created && (request.command, request.operation) == (command::SET_SERVICE, Operation::AddService)
    });
    let (request, failure) = unscheduled.unwrap_or(first);
    let error = Error::of(request.operation, request.object(), failure.clone());
    let (Change::Service { key, new: Some(new), .. }, None) = (request.change, request.server) else {
        return Some((error, None));
    };
    let useless = unscheduled.is_some() && matches!(failure, Failure::Refused { .. });
    Some((name_modules(error, &new.scheduler, &new.engine), useless.then_some(key)))
}

/// The same error, which with ENOENT says that the scheduler is missing, or the engine, which is empty for none.
fn name_modules(mut error: Error, scheduler: &str, engine: &str) -> Error {
    if error.errno == Some(Errno::ENOENT) {
        // Names of modules: ip_vs_sched.c, ip_vs_pe.c
        let (what, modules) = match (scheduler, engine) {
            (_, "") => (format!("scheduler `{scheduler}`"), format!("ip_vs_{scheduler}")),
            (NO_SCHEDULER, _) => (format!("persistence engine `{engine}`"), format!("ip_vs_pe_{engine}")),
            _ => {
                (format!("`{scheduler}` or no `{engine}`"), format!("-a ip_vs_{scheduler} ip_vs_pe_{engine}"))
            }
        };
        error.detail = format!("this kernel has no {what}");
        error.remedy = Some(format!("`modprobe {modules}`, or install the kernel's modules package"));
    }
    error
}

/// An address of the discard prefix (RFC 6666), on which nobody has a service.
const PROBE: ServiceKey = ServiceKey::Endpoint {
    address: IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0)),
    port: 9,
    protocol: Protocol::TCP,
};

impl Datagram {
    /// The attributes of a NEW_SERVICE that never makes a service, but finds out whether a scheduler or an engine exists.
    ///
    /// `ip_vs_add_service` (`ip_vs_ctl.c`) looks for the scheduler first, loading its module, then for the engine, and says
    /// ENOENT when one is missing; only then does it look at the IPv6 prefix length, of which 0 is EINVAL. Without IPv6 in
    /// IPVS the address family is refused before all that (`ip_vs_genl_parse_service`, EAFNOSUPPORT): then the best is
    /// assumed, since the batch would tell.
    fn put_probe(&mut self, scheduler: &str, engine: &str) -> &mut Self {
        let (scheduler, engine) = (scheduler.to_owned(), engine.to_owned());
        let settings = Service { scheduler, flags: service_flag::PERSISTENT, timeout: 1, netmask: 0, engine };
        self.put_service(&PROBE, Some((&settings, &settings.scheduler)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{DaemonState, Endpoint, Family, Forward, Servers, SyncDaemon, Timeouts, Tunnel};

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
        let servers = Servers::from([(server(11), nat()), (server(12), nat()), (server(13), nat())]).into();
        Change::Service { key: vip(), old: None, new: Some(settings("rr")), servers, connections: 0 }
    }

    fn server(last: u8) -> ServerKey {
        Endpoint { address: Ipv4Addr::new(192, 0, 2, last).into(), port: 80 }
    }

    #[test]
    fn a_new_service_gets_its_servers_last_first_and_its_scheduler_at_the_end() {
        let change = new_service();
        let mut datagram = Datagram::default();
        requests(&change).iter().for_each(|request| request.encode(&mut datagram, 30));
        datagram.finish();
        let payloads: Vec<&[u8]> = datagram.payloads().collect();
        assert_eq!(payloads.len(), 5);
        let commands: Vec<u8> = requests(&change).iter().map(|request| request.command).collect();
        let new_dest = command::NEW_DEST;
        assert_eq!(commands, [command::NEW_SERVICE, new_dest, new_dest, new_dest, command::SET_SERVICE]);
        let scheduler = |index: usize| decode_service(payloads[index]).unwrap().unwrap().1.scheduler;
        assert_eq!((scheduler(0).as_str(), scheduler(4).as_str()), ("none", "rr"));
        for (index, last) in [(1, 13), (2, 12), (3, 11)] {
            let (key, settings, _) = decode_server(payloads[index]).unwrap().unwrap();
            assert_eq!((key, settings), (server(last), nat()));
        }
    }

    #[test]
    fn what_comes_changes_and_goes_has_a_command_of_its_own() {
        let (key, service) = (vip(), vip());
        let daemon =
            SyncDaemon { interface: "eth1".into(), id: 1, max_len: None, group: None, port: None, ttl: None };
        let (state, timeouts) = (DaemonState::Master, Timeouts::default());
        let set = |old, new| Change::Service { key, old, new, servers: Default::default(), connections: 0 };
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
        let (error, useless) = change_error(&failed).unwrap();
        (error, useless.is_some())
    }

    #[test]
    fn a_failed_server_is_named_and_the_rest_stands() {
        let (error, goes) = failed([None, refused(Errno::EINVAL), None, refused(Errno::ERANGE), None]);
        assert!(!goes);
        assert_eq!(error.operation, "adding real server 192.0.2.13:80 of tcp 192.0.2.1:80");
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
    fn a_service_that_somebody_else_made_is_not_taken_away() {
        let exists = refused(Errno::EEXIST);
        let (error, goes) = failed([exists, None, None, None, refused(Errno::ENOENT)]);
        assert!(!goes && error.to_string().contains("no scheduler `rr`"), "{error}");
        let (error, goes) = failed([(); 5].map(|()| refused(Errno::EPERM)));
        assert!(!goes && error.to_string().contains("CAP_NET_ADMIN"), "{error}");
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
            let (command, change) = (command::DEL_DEST, &new_service());
            Request { command, operation, change, server: None }.is_done(&refused(errno).unwrap())
        };
        assert!(is_done(Operation::DeleteServer, Errno::ENOENT));
        assert!(is_done(Operation::DeleteServer, Errno::ESRCH));
        assert!(is_done(Operation::DeleteService, Errno::ESRCH));
        assert!(is_done(Operation::StopDaemon, Errno::ESRCH));
        assert!(
            !is_done(Operation::SetServer, Errno::ENOENT) && !is_done(Operation::AddServer, Errno::ESRCH)
        );
        assert!(!is_done(Operation::DeleteService, Errno::EPERM));
    }

    #[test]
    fn the_probe_s_prefix_length_is_one_that_the_kernel_refuses() {
        let mut payload = Datagram::payload(&generic(1));
        payload.put_probe("wlc", "");
        let (key, settings) = decode_service(&payload.bytes).unwrap().unwrap();
        assert_eq!((key.family(), settings.netmask), (Family::Ipv6, 0));
    }
}
