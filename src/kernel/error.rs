//! What a failed operation means: one table of operation and error number.
//!
//! Owns the words for failures. IPVS sends no extended-ACK text, so that "Invalid argument" has to be told
//! from the operation (which error means what: `ip_vs_ctl.c`, tried on Linux 6.1 and 6.12). Used by every file
//! of `kernel`; the callers of `kernel` see [`Error`] only.

use std::fmt;

use nix::errno::Errno;

use super::netlink::Failure;

/// A failed kernel operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What was being done, as in `adding real server`.
    pub operation: String,
    /// To which object, as in `192.0.2.11:80 of tcp 192.0.2.1:80`; empty when there is but one.
    pub object: String,
    /// The kernel's error number; `None` when it was not the kernel that refused.
    pub errno: Option<Errno>,
    /// What that means here: the kernel's own text, or the error's meaning for this operation.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Result of a kernel operation.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        write!(f, ": {}", self.detail)?;
        if let Some(errno) = self.errno {
            write!(f, " ({errno:?})")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    MakeNetwork,
    AddLink,
    ReadLink,
    ReadAddresses,
    AddAddress,
    RemoveAddress,
    FindIpvs,
    Probe,
    ReadServices,
    ReadServers,
    ReadDaemons,
    ReadTimeouts,
    AddService,
    SetService,
    DeleteService,
    AddServer,
    SetServer,
    DeleteServer,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    ReadParameter,
    SetParameter,
    Announce,
    Probing,
}

impl Operation {
    fn words(self) -> &'static str {
        match self {
            Self::MakeNetwork => "making a private network namespace",
            Self::AddLink => "making the stand-in for interface",
            Self::ReadLink => "reading interface",
            Self::ReadAddresses => "reading the addresses",
            Self::AddAddress => "adding address",
            Self::RemoveAddress => "removing address",
            Self::FindIpvs => "looking for IPVS",
            Self::Probe => "looking for the kernel's",
            Self::ReadServices => "reading the virtual services",
            Self::ReadServers => "reading the real servers of",
            Self::ReadDaemons => "reading the sync daemons",
            Self::ReadTimeouts => "reading the IPVS timeouts",
            Self::AddService => "adding service",
            Self::SetService => "changing service",
            Self::DeleteService => "removing service",
            Self::AddServer => "adding real server",
            Self::SetServer => "changing real server",
            Self::DeleteServer => "removing real server",
            Self::SetTimeouts => "setting the IPVS timeouts",
            Self::StartDaemon => "starting sync daemon",
            Self::StopDaemon => "stopping sync daemon",
            Self::ReadParameter => "reading",
            Self::SetParameter => "setting",
            Self::Announce => "announcing",
            Self::Probing => "asking the network for",
        }
    }

    /// Whether it changes nothing.
    fn reads(self) -> bool {
        use Operation::{
            FindIpvs, Probe, ReadAddresses, ReadDaemons, ReadLink, ReadParameter, ReadServers, ReadServices,
            ReadTimeouts,
        };
        let reading = [
            FindIpvs,
            Probe,
            ReadAddresses,
            ReadDaemons,
            ReadLink,
            ReadParameter,
            ReadServers,
            ReadServices,
            ReadTimeouts,
        ];
        reading.contains(&self)
    }

    /// Meaning and remedy of an error number; no entry: the C library's words have to do.
    fn explain(self, errno: Errno) -> Option<(&'static str, &'static str)> {
        use Errno::{
            EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EBUSY, EEXIST, EINVAL, EISDIR, EMSGSIZE, ENETDOWN, ENODEV,
            ENOENT, ENOMEM, ENOPROTOOPT, ENXIO, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESRCH,
        };
        use Operation as Op;
        const RERUN: &str = "run again";
        const ROOT: &str = "run as root or with CAP_NET_ADMIN";
        const LINKS: &str = "see `ip link`";
        const V6: &str = "enable IPv6 in this kernel, or leave IPv6 services out";
        Some(match (self, errno) {
            (Op::MakeNetwork, EPERM) => ("not permitted", "run as root, outside of containers"),
            (Op::AddLink, EOPNOTSUPP) => {
                ("this kernel has no dummy interfaces", "install the kernel's modules package")
            }
            (Op::ReadParameter, EPERM | EACCES) => ("not permitted", "run as root"),
            (Op::SetParameter, EPERM | EACCES) => ("not permitted", "run as root, outside of containers"),
            (Op::Announce | Op::Probing, EPERM) => ("not permitted", "run as root or with CAP_NET_RAW"),
            (Op::Probing, EADDRNOTAVAIL) => {
                ("the interface has no address of its own to ask with", "see `ip address`")
            }
            (Op::AddAddress, EACCES) => ("IPv6 is disabled on the interface", "see sysctl disable_ipv6"),
            // Generic netlink asks for the capability in the initial user namespace (GENL_ADMIN_PERM).
            (_, EPERM) => ("not permitted", ROOT),

            (
                Op::AddAddress | Op::RemoveAddress | Op::Announce | Op::Probing | Op::ReadLink,
                ENODEV | ENXIO,
            ) => ("there is no such interface", LINKS),
            (Op::AddAddress, EAFNOSUPPORT | EOPNOTSUPP) => {
                ("this kernel has no IPv6", "remove IPv6 VIPs from the file")
            }
            (Op::AddAddress, EADDRNOTAVAIL) => ("not an address that an interface can have", ""),
            (Op::AddAddress, EINVAL | ERANGE) => {
                ("address or label is not valid here", "labels have at most 15 characters")
            }
            (Op::Announce | Op::Probing, ENETDOWN) => ("the interface is down", "`ip link set INTERFACE up`"),
            (Op::Announce, EMSGSIZE) => ("the interface's MTU is too small for it", "see `ip link`"),

            (Op::ReadParameter | Op::SetParameter, ENOENT) => {
                ("there is no such parameter", "check the name; net.ipv4.vs needs the module ip_vs")
            }
            (Op::SetParameter, EROFS) => ("/proc/sys is read-only", "set it on the host: containers may not"),
            (Op::SetParameter, EINVAL | ERANGE) => ("the kernel does not take this value", ""),
            (Op::ReadParameter | Op::SetParameter, EISDIR) => ("that is a directory, not a parameter", ""),

            (Op::FindIpvs, ENOENT) => (
                "this kernel has no IPVS: its module ip_vs is neither built in nor installed",
                "install the kernel's modules package, then `modprobe ip_vs`",
            ),
            (Op::Probe, ENOENT) => ("not found", "install the kernel's modules package"),

            (_, ENOMEM) => ("the kernel has no memory for it", ""),
            (Op::AddService, EEXIST) => ("already exists, made by someone else meanwhile", RERUN),
            (Op::AddService | Op::SetService, ENOENT) => (
                "its scheduler or persistence engine is not in this kernel",
                "install the kernel's modules package",
            ),
            (Op::AddService | Op::SetService, EINVAL) => (
                "the kernel refuses these settings: name of the scheduler, or more real servers than mh has places",
                "",
            ),
            (Op::AddService, ENOPROTOOPT) => ("the module ip_vs is being unloaded", RERUN),
            (
                Op::SetService | Op::DeleteService | Op::AddServer | Op::SetServer | Op::DeleteServer,
                ESRCH,
            ) => ("the service is gone, removed by someone else meanwhile", RERUN),
            (Op::AddService | Op::SetService | Op::AddServer | Op::SetServer, EAFNOSUPPORT) => {
                ("IPVS has no IPv6 in this kernel", V6)
            }
            (Op::AddServer, EEXIST) => ("already exists, made by someone else meanwhile", RERUN),
            (Op::SetServer, ENOENT) => ("it is gone, removed by someone else meanwhile", RERUN),
            (Op::AddServer | Op::SetServer, ERANGE) => {
                ("weight is beyond 2147483647, or lower_threshold above upper_threshold", "")
            }
            // The kernel asks its routing table of this moment (ip_vs_ctl.c, ip_vs_new_dest), so this can
            // depend on an interface that is down.
            (Op::AddServer | Op::SetServer, EINVAL) => (
                "its address is no host's (broadcast, multicast), or of another family without `forward: tun` or \
                 beside a sync daemon, or gue has no port, or a threshold is too large",
                "see `ip route get ADDRESS`",
            ),
            (Op::SetTimeouts, EINVAL) => ("a timeout is too long for this kernel", ""),
            (Op::StartDaemon, ENODEV) => ("there is no such interface", LINKS),
            (Op::StartDaemon, EEXIST) => ("one runs already, started by someone else meanwhile", RERUN),
            (Op::StartDaemon, EINVAL) => (
                "the kernel refuses these settings, or a real server's family differs from its service's",
                "connections to such servers cannot be synchronised",
            ),
            (Op::StartDaemon, EADDRNOTAVAIL | EAFNOSUPPORT) => {
                ("the interface has no address of the multicast group's family", "see `ip address`")
            }
            (_, EBUSY) => ("the kernel is busy with another reader", RERUN),
            (Op::ReadServices | Op::ReadDaemons | Op::ReadTimeouts | Op::ReadServers, EOPNOTSUPP) => {
                ("this kernel's IPVS cannot do that", "Linux 4.2 or later is needed")
            }
            _ => return None,
        })
    }
}

impl Error {
    /// An error of the kernel's.
    pub(super) fn new(operation: Operation, object: impl fmt::Display, errno: Errno) -> Self {
        Self::with(operation, object, Some(errno), None)
    }

    /// An error that is not the kernel's: there is no number, only what went wrong and what helps.
    pub(super) fn own(
        operation: Operation,
        object: impl fmt::Display,
        detail: &str,
        remedy: Option<&str>,
    ) -> Self {
        let mut error = Self::with(operation, object, None, Some(detail.to_owned()));
        error.remedy = remedy.map(str::to_owned);
        error
    }

    /// A failed netlink exchange.
    pub(super) fn netlink(operation: Operation, object: impl fmt::Display, failure: &Failure) -> Self {
        match failure {
            Failure::Refused { errno, text } => Self::with(operation, object, Some(*errno), text.clone()),
            // The number is of the way, not of the thing: the table would tell a wrong story.
            Failure::Broken { errno, text } => {
                let mut error = Self::with(operation, object, None, Some(text.clone()));
                error.errno = *errno;
                let remedy =
                    if operation.reads() { "run again" } else { "whether it was done is unknown: run again" };
                error.remedy = Some(remedy.to_owned());
                error
            }
        }
    }

    fn with(
        operation: Operation,
        object: impl fmt::Display,
        errno: Option<Errno>,
        text: Option<String>,
    ) -> Self {
        let explained = errno.and_then(|errno| operation.explain(errno));
        let words = || explained.map_or(errno.map_or("failed", |errno| errno.desc()), |(meaning, _)| meaning);
        Self {
            operation: operation.words().to_owned(),
            object: object.to_string(),
            errno,
            detail: text.unwrap_or_else(|| words().to_owned()),
            remedy: explained.filter(|(_, remedy)| !remedy.is_empty()).map(|(_, remedy)| remedy.to_owned()),
        }
    }
}

#[cfg(test)]
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#[path = "../../tests/suite/support/golden.rs"]
mod golden;

#[cfg(test)]
mod tests {
    use super::Operation as Op;
    use super::*;

    const ALL: [Op; 25] = [
        Op::MakeNetwork,
        Op::AddLink,
        Op::ReadLink,
        Op::ReadAddresses,
        Op::AddAddress,
        Op::RemoveAddress,
        Op::FindIpvs,
        Op::Probe,
        Op::ReadServices,
        Op::ReadServers,
        Op::ReadDaemons,
        Op::ReadTimeouts,
        Op::AddService,
        Op::SetService,
        Op::DeleteService,
        Op::AddServer,
        Op::SetServer,
        Op::DeleteServer,
        Op::SetTimeouts,
        Op::StartDaemon,
        Op::StopDaemon,
        Op::ReadParameter,
        Op::SetParameter,
        Op::Announce,
        Op::Probing,
    ];

    /// Each operation with every number that has a meaning there, as people read it.
    #[test]
    fn every_entry_is_told_as_in_the_golden_file() {
        let mut told = String::new();
        for operation in ALL {
            for errno in (1..134).map(Errno::from_raw).filter(|errno| operation.explain(*errno).is_some()) {
                told += &format!("{}\n", Error::new(operation, "OBJECT", errno));
            }
        }
        golden::same("kernel/errors", &told);
    }

    #[test]
    fn an_error_names_operation_object_meaning_number_and_remedy() {
        let error = Error::new(Operation::AddServer, "192.0.2.11:80 of tcp 192.0.2.1:80", Errno::EEXIST);
        assert_eq!(
            error.to_string(),
            "adding real server 192.0.2.11:80 of tcp 192.0.2.1:80: already exists, made by someone else \
             meanwhile (EEXIST); run again"
        );
    }

    #[test]
    fn an_error_without_entry_has_the_c_library_s_words() {
        let error = Error::new(Operation::StopDaemon, "master", Errno::EIO);
        assert_eq!(error.to_string(), format!("stopping sync daemon master: {} (EIO)", Errno::EIO.desc()));
    }

    #[test]
    fn the_kernel_s_own_text_comes_first() {
        let failure =
            Failure::Refused { errno: Errno::EINVAL, text: Some("ipv6: Invalid address".to_owned()) };
        let error = Error::netlink(Operation::AddAddress, "ff02::1 on lo", &failure);
        assert_eq!(error.detail, "ipv6: Invalid address");
    }

    #[test]
    fn a_broken_exchange_does_not_pretend_to_know() {
        let failure = Failure::Broken { errno: Some(Errno::ENOBUFS), text: "answers were lost".to_owned() };
        let error = Error::netlink(Operation::AddService, "tcp 192.0.2.1:80", &failure);
        assert!(error.to_string().contains("whether it was done is unknown"), "{error}");
    }
}
