//! What a failed operation means: one table of operation and error number.
//!
//! Owns the words for failures. IPVS sends no extended-ACK text, so that "Invalid argument" has to be told from the
//! operation (`ip_vs_ctl.c`, tried on Linux 6.1 and 6.12). Used by every file of `kernel`, whose callers see [`Error`] only.

use std::fmt;

use nix::errno::Errno;

use super::netlink::Failure;

/// A failed kernel operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{operation}: {detail}{}{}",
    .errno.map_or(String::new(), |errno| format!(" ({errno:?})")),
    .remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"))
)]
pub struct Error {
    /// As in `adding real server 192.0.2.11:80 of tcp 192.0.2.1:80`.
    pub operation: String,
    /// `None` when it was not the kernel that refused.
    pub errno: Option<Errno>,
    /// The kernel's own text, or what the number means for this operation.
    pub detail: String,
    pub remedy: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

/// Declares [`Operation`]: each with its words.
macro_rules! operations {
    ($($name:ident: $words:literal,)*) => {
        /// What can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Operation { $($name,)* }

        impl Operation {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

operations! {
    MakeNetwork: "making a private network namespace",
    AddLink: "making the stand-in for interface",
    Read: "reading",
    AddAddress: "adding address",
    RemoveAddress: "removing address",
    FindIpvs: "looking for IPVS",
    Probe: "looking for schedulers and persistence engines",
    AddService: "adding service",
    SetService: "changing service",
    DeleteService: "removing service",
    AddServer: "adding real server",
    SetServer: "changing real server",
    DeleteServer: "removing real server",
    SetTimeouts: "setting the IPVS timeouts",
    StartDaemon: "starting sync daemon",
    StopDaemon: "stopping sync daemon",
    SetParameter: "setting",
    Announce: "announcing",
    Probing: "asking the network for",
}

impl Operation {
    /// Meaning and remedy of an error number; no entry: the C library's words have to do.
    fn explain(self, errno: Errno) -> Option<(&'static str, &'static str)> {
        use Errno::*;
        use Operation::*;
        const RERUN: &str = "run again";
        Some(match (self, errno) {
            (MakeNetwork, EPERM) | (Read, EACCES) | (SetParameter, EPERM | EACCES) => {
                ("not permitted", "run as root, outside of containers")
            }
            (Announce | Probing, EPERM) => ("not permitted", "run as root or with CAP_NET_RAW"),
            // Generic netlink asks for the capability in the initial user namespace (GENL_ADMIN_PERM).
            (_, EPERM) => ("not permitted", "run as root or with CAP_NET_ADMIN"),

            (AddAddress | Announce | Probing | StartDaemon, ENODEV | ENXIO) => {
                ("there is no such interface", "see `ip link`")
            }
            // addrconf.c, inet6_addr_add
            (AddAddress, EACCES) => {
                ("IPv6 is disabled on the interface", "`sysctl -w net/ipv6/conf/INTERFACE/disable_ipv6=0`")
            }
            (AddAddress | AddService | SetService | AddServer | SetServer, EAFNOSUPPORT | EOPNOTSUPP) => {
                ("this kernel, or its IPVS, has no IPv6", "leave IPv6 VIPs and services out of the file")
            }
            (Announce | Probing, EPROTONOSUPPORT) => {
                ("it is not an Ethernet link", "set `interface` to the one that clients reach")
            }
            (Announce | Probing, ENETDOWN) => ("the interface is down", "`ip link set INTERFACE up`"),
            (Probing | StartDaemon, EADDRNOTAVAIL | EAFNOSUPPORT) => {
                ("the interface has no address of the family that is needed", "see `ip address`")
            }

            (SetParameter, ENOENT) => {
                ("there is no such parameter", "check the name; net.ipv4.vs needs the module ip_vs")
            }
            (SetParameter, EROFS) => ("/proc/sys is read-only", "set it on the host: containers may not"),
            (SetParameter, EINVAL | ERANGE) => ("the kernel does not take this value", ""),

            (FindIpvs, ENOENT) => (
                "this kernel has no IPVS: its module ip_vs is neither built in nor installed",
                "install the kernel's modules package, then `modprobe ip_vs`",
            ),
            (AddService | SetService, EINVAL) => (
                "the kernel refuses these settings: name of the scheduler, or more real servers than mh has places",
                "",
            ),
            (SetService | AddServer | SetServer, ESRCH) => {
                ("the service is gone, removed by someone else meanwhile", RERUN)
            }
            (SetServer, ENOENT) => ("it is gone, removed by someone else meanwhile", RERUN),
            // The kernel asks its routing table of this moment (ip_vs_ctl.c, ip_vs_new_dest), so this can
            // depend on an interface that is down.
            (AddServer | SetServer, EINVAL) => (
                "its address is no host's (broadcast, multicast), or of another family without `forward: tun` or \
                 beside a sync daemon, or gue has no port, or a threshold is too large",
                "see `ip route get ADDRESS`",
            ),
            (StartDaemon, EEXIST) => ("one runs already, started by someone else meanwhile", RERUN),
            (StartDaemon, EINVAL) => (
                "the kernel refuses these settings, or a real server's family differs from its service's",
                "connections to such servers cannot be synchronised",
            ),
            _ => return None,
        })
    }
}

impl Error {
    /// What a failure means for what was tried.
    pub(super) fn of(operation: Operation, object: impl fmt::Display, failure: impl Into<Failure>) -> Self {
        let (errno, detail, remedy) = match failure.into() {
            Failure::Refused { errno, text } => {
                let (meaning, remedy) = operation.explain(errno).unwrap_or((errno.desc(), ""));
                (Some(errno), text.unwrap_or_else(|| meaning.to_owned()), remedy)
            }
            // The number is of the way, not of the thing: the table would tell a wrong story.
            Failure::Broken { errno, text } => (errno, text, "what became of it is unknown: run again"),
        };
        let operation = format!("{} {object}", operation.words()).trim_end().to_owned();
        let interface = operation.rsplit_once(" on ").map_or("INTERFACE", |(_, interface)| interface);
        let remedy = Some(remedy.replace("INTERFACE", interface)).filter(|remedy| !remedy.is_empty());
        Self { operation, errno, detail, remedy }
    }
}

/// What may fail, told for what it was tried.
pub(super) trait When<T> {
    fn when(self, operation: Operation, object: impl fmt::Display) -> Result<T>;
}

impl<T, F: Into<Failure>> When<T> for std::result::Result<T, F> {
    fn when(self, operation: Operation, object: impl fmt::Display) -> Result<T> {
        self.map_err(|failure| Error::of(operation, object, failure))
    }
}

#[cfg(test)]
mod tests {
    use super::Operation as Op;
    use super::*;

    /// Each operation with every number that has a meaning there, as people read it.
    #[test]
    fn every_entry_is_told_as_in_the_golden_file() {
        let mut told = String::new();
        for operation in Op::ALL {
            for errno in (1..134).map(Errno::from_raw).filter(|errno| operation.explain(*errno).is_some()) {
                told += &format!("{}\n", Error::of(*operation, "OBJECT", errno));
            }
        }
        golden::same("kernel/errors", &told);
    }

    #[test]
    fn an_error_names_operation_object_meaning_number_and_remedy() {
        let error = Error::of(Operation::SetServer, "192.0.2.11:80 of tcp 192.0.2.1:80", Errno::ENOENT);
        assert_eq!(
            error.to_string(),
            "changing real server 192.0.2.11:80 of tcp 192.0.2.1:80: it is gone, removed by someone else \
             meanwhile (ENOENT); run again"
        );
    }

    #[test]
    fn an_error_without_entry_has_the_c_library_s_words() {
        let error = Error::of(Operation::StopDaemon, "master", Errno::EIO);
        assert_eq!(error.to_string(), format!("stopping sync daemon master: {} (EIO)", Errno::EIO.desc()));
    }

    #[test]
    fn the_kernel_s_own_text_comes_first() {
        let failure =
            Failure::Refused { errno: Errno::EINVAL, text: Some("ipv6: Invalid address".to_owned()) };
        let error = Error::of(Operation::AddAddress, "ff02::1 on lo", failure);
        assert_eq!(error.detail, "ipv6: Invalid address");
    }

    #[test]
    fn a_broken_exchange_does_not_pretend_to_know() {
        let failure = Failure::Broken { errno: Some(Errno::ENOBUFS), text: "answers were lost".to_owned() };
        let error = Error::of(Operation::AddService, "tcp 192.0.2.1:80", failure);
        assert!(error.to_string().contains("what became of it is unknown"), "{error}");
    }

    #[test]
    fn a_remedy_names_the_interface() {
        let error = Error::of(Operation::Announce, "192.0.2.1 on eth0", Errno::ENETDOWN);
        assert_eq!(error.remedy.as_deref(), Some("`ip link set eth0 up`"));
    }
}

#[cfg(test)]
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#[path = "../../tests/suite/support/golden.rs"]
mod golden;
