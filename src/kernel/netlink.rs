//! One netlink socket: requests, dumps and batches, and the bytes of messages and attributes.
//!
//! Owns sequence numbers, time limits, lost and interrupted answers, and every length check: what leaves this file is
//! inside its bounds. Knows no address and no service; `link` and `ipvs_wire` write and read the payloads. Constants
//! are neli's. Its decoder is not used: it panics on a message shorter than its header and on a truncated error
//! (`Nlmsghdr::from_bytes`), and drops the last byte of a string without NUL. Nor is its socket, which does not lend its
//! descriptor as a type that nix sets options by.

use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use neli::consts::nl::{NlmF, Nlmsg, NlmsgerrAttr};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::{setsockopt_impl, sockopt_impl};

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// One constant size for every receive: the kernel sizes the datagrams of a dump by the largest buffer ever
/// used on the socket, up to 32 KiB (`af_netlink.c`, `netlink_dump`), and a smaller one later would cut them.
const RECEIVE: usize = 32 * 1024;
/// A datagram that has this much takes no further message. From 16 KiB on the cost per message is flat, and `cb_lock` and
/// the family's mutexes are held for a whole datagram. Well below the default send buffer of 208 KiB.
const FULL: usize = 64 * 1024;
/// Space for answers. Each error answer occupies 896 bytes of it, and a full datagram holds some 500 messages.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;
/// Seconds until an answer counts as lost. The kernel answers while it takes the request.
const PATIENCE: libc::time_t = 5;
/// How often a dump is begun again after a change in its middle.
const DUMP_ATTEMPTS: usize = 5;

/// Why an exchange with the kernel has no good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The kernel's own answer to this request.
    Refused { errno: Errno, text: Option<String> },
    /// There is no usable answer: what became of the request is unknown. The error is the system call's, if one failed.
    Broken { errno: Option<Errno>, text: String },
}

pub(super) type Answer<T> = Result<T, Failure>;

impl Failure {
    /// Whether the kernel refused with one of these errors.
    pub(super) fn is(&self, wanted: &[Errno]) -> bool {
        matches!(self, Self::Refused { errno, .. } if wanted.contains(errno))
    }

    fn system(doing: &str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Broken { errno: Some(errno), text: format!("{doing}: {}", errno.desc()) }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Refused { errno, text: None }
    }
}

/// A reply does not hold what its kind must hold.
pub(super) fn malformed() -> Failure {
    Failure::Broken { errno: None, text: "the kernel's reply is malformed".to_owned() }
}

/// `struct genlmsghdr`, with the version that the controller and IPVS have.
pub(super) fn generic(command: impl Into<u8>) -> [[u8; 4]; 1] {
    [[command.into(), 1, 0, 0]]
}

/// What a reply holds: a structure in words of four bytes, and attributes.
pub(super) fn contents<const N: usize>(payload: &[u8]) -> Answer<([[u8; 4]; N], Attributes<'_>)> {
    let mut words = [[0; 4]; N];
    let (structure, attributes) = payload.split_at_checked(4 * N).ok_or_else(malformed)?;
    words.as_flattened_mut().copy_from_slice(structure);
    Ok((words, Attributes::read(attributes)?))
}

/// Requests one behind the other, each with its attributes. The sequence number of each is its place: no answer outlives
/// its exchange.
#[derive(Default)]
pub(super) struct Datagram {
    pub(super) bytes: Vec<u8>,
    /// Where the last message begins
    last: usize,
    count: u32,
}

impl Datagram {
    /// One request, with flags that ask for an end: ACK or DUMP.
    pub(super) fn of(kind: impl Into<u16>, flags: NlmF, structure: &[[u8; 4]]) -> Self {
        let mut datagram = Self::default();
        datagram.push(kind, flags, structure);
        datagram
    }

    /// Begins a message: its header, and the words that follow it. Its attributes are put behind.
    pub(super) fn push(&mut self, kind: impl Into<u16>, flags: NlmF, structure: &[[u8; 4]]) {
        self.finish();
        self.last = self.bytes.len();
        let [k0, k1] = kind.into().to_ne_bytes();
        let [f0, f1] = (NlmF::REQUEST | flags).bits().to_ne_bytes();
        let header = [[0; 4], [k0, k1, f0, f1], self.count.to_ne_bytes(), [0; 4]];
        self.bytes.extend_from_slice(header.as_flattened());
        self.bytes.extend_from_slice(structure.as_flattened());
        self.count += 1;
    }

    /// Writes the last message's length into its header.
    pub(super) fn finish(&mut self) {
        let length = u32::try_from(self.bytes.len().saturating_sub(self.last)).unwrap_or(u32::MAX);
        self.set(self.last, &length.to_ne_bytes());
    }

    /// Appends an attribute. Its length is known when this is compiled, which makes it a few stores: a takeover of 200x10
    /// writes 23,000 of them.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, kind: impl Into<u16>, value: [u8; N]) -> &mut Self {
        const { assert!(N <= 16) }
        let length = u16::try_from(4 + N).unwrap_or(u16::MAX);
        let [[l0, l1], [k0, k1]] = [length.to_ne_bytes(), kind.into().to_ne_bytes()];
        let mut padded = [[l0, l1, k0, k1], [0; 4], [0; 4], [0; 4], [0; 4]];
        let place = padded.as_flattened_mut().get_mut(4..4 + N);
        place.into_iter().for_each(|to| to.copy_from_slice(&value));
        // One look at the capacity, not three.
        self.bytes.extend_from_slice(padded.as_flattened().get(..4 + aligned(N)).unwrap_or_default());
        self
    }

    /// Appends a text with the NUL that the kernel wants.
    pub(super) fn put_text(&mut self, kind: impl Into<u16>, value: &str) -> &mut Self {
        self.nest(kind, |to| {
            to.bytes.extend_from_slice(value.as_bytes());
            to.bytes.push(0);
        })
    }

    pub(super) fn put_ip(&mut self, kind: impl Into<u16>, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.put(kind, address.octets()),
            IpAddr::V6(address) => self.put(kind, address.octets()),
        }
    }

    /// Appends an attribute made of attributes. One beyond what it can hold makes a request that the kernel refuses.
    pub(super) fn nest(&mut self, kind: impl Into<u16>, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice([[0; 2], kind.into().to_ne_bytes()].as_flattened());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.set(start, &length.to_ne_bytes());
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self
    }

    fn set(&mut self, at: usize, value: &[u8]) {
        if let Some(to) = self.bytes.get_mut(at..).and_then(|to| to.get_mut(..value.len())) {
            to.copy_from_slice(value);
        }
    }
}

/// A netlink socket that talks to the kernel and to nobody else, opened when it is first needed.
pub(super) struct Socket {
    protocol: SockProtocol,
    /// `None`, too, after an exchange that ended in its middle: late answers would spoil the next.
    socket: Option<OwnedFd>,
    /// What was received last
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn new(protocol: SockProtocol) -> Self {
        Self { protocol, socket: None, buffer: vec![0; RECEIVE] }
    }

    /// Sends one request and waits for its end. Returns the payload of the reply, empty when there is none.
    pub(super) fn request(&mut self, request: &mut Datagram) -> Answer<Vec<u8>> {
        let replies = self.ask(request, |payload| Ok(Some(payload.to_vec())))?;
        Ok(replies.into_iter().next().unwrap_or_default())
    }

    /// Sends one request and returns what `decode` makes of its replies; it may pass over some.
    ///
    /// A dump is begun again when something changed meanwhile, since then entries can be missing or double
    /// (`NLM_F_DUMP_INTR`). A list that never comes to rest is taken as it was read last: adding what is there and
    /// removing what is gone are successes, and a takeover cannot wait for somebody else to come to an end.
    pub(super) fn ask<T>(
        &mut self,
        request: &mut Datagram,
        mut decode: impl FnMut(&[u8]) -> Answer<Option<T>>,
    ) -> Answer<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let (mut interrupted, mut end) = (false, [None]);
            self.exchange(request, &mut end, |reply| {
                interrupted |= reply.flags.contains(NlmF::DUMP_INTR);
                if reply.end.is_none() {
                    found.extend(decode(reply.payload)?);
                }
                Ok(())
            })?;
            end.into_iter().flatten().collect::<Answer<()>>()?;
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }

    /// Sends many requests, in order, in datagrams of a good size. Tells `failed` of each that has no good end.
    ///
    /// A refused message does not stop the next, and only errors are answered, besides what asks for an ACK
    /// (`af_netlink.c`, `netlink_rcv_skb`). That is an empty message behind the last: once its ACK is here, silence about
    /// a message is its success. Not the last message itself, because an operation that ends with EINTR is never
    /// answered at all: so it is when a sync daemon is stopped before its thread first ran (`kthread_stop`).
    pub(super) fn batch<R>(
        &mut self,
        mut requests: impl Iterator<Item = R>,
        mut encode: impl FnMut(&R, &mut Datagram),
        mut failed: impl FnMut(R, Failure),
    ) {
        // Used again for each datagram: fresh memory costs more than writing it.
        let bytes = Vec::with_capacity(FULL + 1024);
        let (mut datagram, mut sent) = (Datagram { bytes, ..Datagram::default() }, Vec::new());
        loop {
            while datagram.bytes.len() < FULL {
                let Some(request) = requests.next() else { break };
                encode(&request, &mut datagram);
                sent.push(request);
            }
            if sent.is_empty() {
                return;
            }
            datagram.push(Nlmsg::Noop, NlmF::ACK, &[]);
            let mut answers: Vec<_> = (0..datagram.count).map(|_| None).collect();
            let whole = self.exchange(&mut datagram, &mut answers, |_| Ok(()));
            for (request, answer) in sent.drain(..).zip(answers) {
                if let Err(failure) = answer.unwrap_or_else(|| whole.clone()) {
                    failed(request, failure);
                }
            }
            datagram.bytes.clear();
            datagram.count = 0;
        }
    }

    /// Sends a datagram and waits for the answer to its last message. `answers` takes those that come; a message without
    /// one is done, or shares in what went wrong. Every reply goes to `each`.
    fn exchange(
        &mut self,
        datagram: &mut Datagram,
        answers: &mut [Option<Answer<()>>],
        mut each: impl FnMut(&Reply<'_>) -> Answer<()>,
    ) -> Answer<()> {
        let socket = self.socket.take().map_or_else(|| open(self.protocol), Ok);
        let socket = socket.map_err(Failure::system("opening a netlink socket"))?;
        datagram.finish();
        // By a call that nothing else uses, so that tests find these messages in a trace.
        let parts = [IoSlice::new(&datagram.bytes)];
        sendmsg::<()>(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), None)
            .map_err(Failure::system("sending the request"))?;
        let mut lost = Ok(());
        while answers.last().is_some_and(Option::is_none) {
            // After a loss only what is queued already is of use: the last answer itself may be what was lost.
            let wait = if lost.is_ok() { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
            // With MSG_TRUNC the length is the datagram's own, so that a cut one is noticed.
            let received = recv(socket.as_raw_fd(), &mut self.buffer, wait | MsgFlags::MSG_TRUNC);
            match received.and_then(|length| self.buffer.get(..length).ok_or(Errno::EMSGSIZE)) {
                Ok(mut rest) => {
                    while !rest.is_empty() {
                        let reply = Reply::take(&mut rest)?;
                        let Some(answer) = answers.get_mut(reply.sequence) else { continue };
                        each(&reply)?;
                        *answer = reply.end.or(answer.take());
                    }
                }
                // The process was stopped and goes on.
                Err(Errno::EINTR) => {}
                // Too many answers for the queue (ENOBUFS), or none in time (EAGAIN).
                Err(errno) => {
                    lost?;
                    let errno = if errno == Errno::EAGAIN { Errno::ETIMEDOUT } else { errno };
                    lost = Err(Failure::system("receiving the kernel's answer")(errno));
                }
            }
        }
        self.socket = lost.is_ok().then_some(socket);
        lost
    }
}

sockopt_impl!(ExtendedAck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool);
sockopt_impl!(CappedAck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool);

fn open(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // A connected netlink socket takes messages from its peer only (`af_netlink.c`, `netlink_getsockbyportid`):
    // no other process can slip in an answer.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    // Beyond net.core.rmem_max, which CAP_NET_ADMIN allows; who lacks it can read, and reading needs less.
    let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_QUEUE);
    // Texts for errors. Without them the error number has to do. And no copy of the request.
    let _ = setsockopt(&socket, ExtendedAck, &true);
    let _ = setsockopt(&socket, CappedAck, &true);
    Ok(socket)
}

struct Reply<'a> {
    flags: NlmF,
    sequence: usize,
    payload: &'a [u8],
    /// That of its request, if it is one: an ACK, an error, or the end of a dump
    end: Option<Answer<()>>,
}

impl<'a> Reply<'a> {
    /// Takes the first message of a datagram. Nothing is left behind one that does not fit into it.
    fn take(rest: &mut &'a [u8]) -> Answer<Self> {
        let bytes = std::mem::take(rest);
        let [l0, l1, l2, l3, k0, k1, f0, f1, sequence @ .., _, _, _, _] =
            *bytes.first_chunk::<HEADER>().ok_or_else(malformed)?;
        let number = |bytes| usize::try_from(u32::from_ne_bytes(bytes)).map_err(|_| malformed());
        let (length, sequence) = (number([l0, l1, l2, l3])?, number(sequence)?);
        let flags = NlmF::from_bits_retain(u16::from_ne_bytes([f0, f1]));
        let payload = bytes.get(HEADER..length).ok_or_else(malformed)?;
        *rest = bytes.get(aligned(length)..).unwrap_or_default();
        let texts = match Nlmsg::from(u16::from_ne_bytes([k0, k1])) {
            // The request's header is between number and texts.
            Nlmsg::Error => 4 + HEADER,
            // A dump that failed ends with its error; without a look at it, it would pass for an empty one.
            Nlmsg::Done => 4,
            Nlmsg::Noop | Nlmsg::Overrun => return Err(malformed()),
            _ => return Ok(Self { flags, sequence, payload, end: None }),
        };
        let code = i32::from_ne_bytes(*payload.first_chunk().ok_or_else(malformed)?);
        let texts = payload.get(texts..).filter(|_| flags.contains(NlmF::ACK_TLVS));
        let texts = Attributes::read(texts.unwrap_or_default());
        let text = texts.and_then(|texts| texts.get(NlmsgerrAttr::Msg)).ok().flatten();
        let refused = Failure::Refused { errno: Errno::from_raw(code.saturating_neg()), text };
        Ok(Self { flags, sequence, payload, end: Some(if code < 0 { Err(refused) } else { Ok(()) }) })
    }
}

/// The attributes of one object (`struct nlattr`) by their kinds. None that is read has a kind above 37.
pub(super) struct Attributes<'a>([Option<&'a [u8]>; 38]);

impl<'a> Attributes<'a> {
    /// The attributes in these bytes, all of which must fit.
    pub(super) fn read(mut bytes: &'a [u8]) -> Answer<Self> {
        // Without NLA_F_NESTED and NLA_F_NET_BYTEORDER
        const KIND: u16 = 0x3fff;
        let mut found = [None; 38];
        while !bytes.is_empty() {
            let ([l0, l1, k0, k1], _) = bytes.split_first_chunk().ok_or_else(malformed)?;
            let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
            let value = bytes.get(4..length).ok_or_else(malformed)?;
            if let Some(place) = found.get_mut(usize::from(u16::from_ne_bytes([*k0, *k1]) & KIND)) {
                *place = Some(value);
            }
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
        }
        Ok(Self(found))
    }

    /// The value of the attribute of this kind, if it is there.
    pub(super) fn get<T: Value<'a>>(&self, kind: impl Into<u16>) -> Answer<Option<T>> {
        let value = self.0.get(usize::from(kind.into())).copied().flatten();
        value.map(|value| T::of(value).ok_or_else(malformed)).transpose()
    }

    pub(super) fn or_default<T: Value<'a> + Default>(&self, kind: impl Into<u16>) -> Answer<T> {
        Ok(self.get(kind)?.unwrap_or_default())
    }

    pub(super) fn need<T: Value<'a>>(&self, kind: impl Into<u16>) -> Answer<T> {
        self.get(kind)?.ok_or_else(malformed)
    }
}

/// What the value of an attribute can be read as; `None` when it is none.
pub(super) trait Value<'a>: Sized {
    fn of(value: &'a [u8]) -> Option<Self>;
}

macro_rules! values {
    ($($kind:ty: |$value:ident| $read:expr;)*) => {$(
        impl<'a> Value<'a> for $kind {
            fn of($value: &'a [u8]) -> Option<Self> {
                $read
            }
        }
    )*};
}

values! {
    u8: |value| value.try_into().ok().map(Self::from_ne_bytes);
    u16: |value| value.try_into().ok().map(Self::from_ne_bytes);
    u32: |value| value.try_into().ok().map(Self::from_ne_bytes);
    u64: |value| value.try_into().ok().map(Self::from_ne_bytes);
    [u8; 4]: |value| value.try_into().ok();
    [u8; 8]: |value| value.try_into().ok();
    [u8; 16]: |value| value.try_into().ok();
    IpAddr: |value| <[u8; 4]>::of(value).map(Self::from).or_else(|| <[u8; 16]>::of(value).map(Self::from));
    // A text, up to its NUL or its end
    String: |value| String::from_utf8(value.split(|byte| *byte == 0).next()?.to_vec()).ok();
    &'a [u8]: |value| Some(value);
    Attributes<'a>: |value| Attributes::read(value).ok();
}

/// Lengths are multiples of four in netlink (`NLMSG_ALIGN`, `NLA_ALIGN`).
fn aligned(length: usize) -> usize {
    length.checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

/// Reads any bytes as replies and attributes: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn read_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let _ = Reply::take(&mut bytes).and_then(|reply| Attributes::read(reply.payload).map(|_| ()));
    }
}

#[cfg(test)]
mod tests {
    use neli::consts::genl::{CtrlAttr, CtrlCmd};
    use neli::consts::nl::GenlId;
    use nix::sys::socket::sockopt::RcvBuf;
    use proptest::prelude::*;

    use super::*;

    impl Datagram {
        /// What a reply has behind its header, to be filled.
        pub(in crate::kernel) fn payload(structure: &[[u8; 4]]) -> Self {
            Self { bytes: structure.as_flattened().to_vec(), ..Self::default() }
        }

        /// What follows the header of each message.
        pub(in crate::kernel) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
            messages(&self.bytes).into_iter().filter_map(|message| Some(message.ok()?.payload))
        }
    }

    fn messages(mut bytes: &[u8]) -> Vec<Answer<Reply<'_>>> {
        let next = || (!bytes.is_empty()).then(|| Reply::take(&mut bytes));
        std::iter::from_fn(next).collect()
    }

    /// A message as the kernel would send it.
    fn reply(kind: u16, flags: NlmF, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Datagram { count: sequence, ..Datagram::default() };
        datagram.push(kind, flags, &[]);
        datagram.bytes.extend(payload);
        datagram.finish();
        datagram.bytes
    }

    fn refusal(kind: Nlmsg, code: i32, text: &str) -> Vec<u8> {
        let mut texts = Datagram::default();
        texts.put_text(NlmsgerrAttr::Msg, text);
        let mut payload = code.to_ne_bytes().to_vec();
        if kind == Nlmsg::Error {
            payload.extend(reply(16, NlmF::empty(), 7, &[]));
        }
        payload.extend(&texts.bytes);
        reply(kind.into(), NlmF::ACK_TLVS | NlmF::CAPPED, 7, &payload)
    }

    fn only(bytes: &[u8]) -> Result<(), Failure> {
        let mut replies = messages(bytes);
        assert_eq!(replies.len(), 1);
        replies.remove(0).unwrap().end.unwrap()
    }

    #[test]
    fn an_error_has_its_number_and_its_text() {
        let expected =
            Failure::Refused { errno: Errno::EEXIST, text: Some("Address already assigned".to_owned()) };
        assert_eq!(only(&refusal(Nlmsg::Error, -17, "Address already assigned")), Err(expected));
        assert_eq!(only(&refusal(Nlmsg::Error, 0, "a warning")), Ok(()));
    }

    #[test]
    fn a_failed_dump_is_not_an_empty_one() {
        let expected = Failure::Refused { errno: Errno::EINVAL, text: Some("no".to_owned()) };
        assert_eq!(only(&refusal(Nlmsg::Done, -22, "no")), Err(expected));
        assert_eq!(only(&reply(Nlmsg::Done.into(), NlmF::MULTI, 7, &[0; 4])), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_datagram_or_below_the_header_is_refused() {
        for length in [0u32, 1, 15, 21, u32::MAX] {
            let mut bytes = reply(16, NlmF::empty(), 1, &[1, 2, 3, 4]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let found: Vec<bool> = messages(&bytes).iter().map(Result::is_ok).collect();
            assert_eq!(found, [false], "length {length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut writer = Datagram::default();
            writer.put(1u16, [1, 2, 3, 4]);
            writer.bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert!(Attributes::read(&writer.bytes).is_err(), "length {length}");
        }
    }

    #[test]
    fn attributes_are_padded_nested_and_read_back() {
        let mut writer = Datagram::default();
        writer.put(1u16, [9]).nest(2u16, |to| {
            to.put_text(3u16, "wrr");
        });
        assert_eq!(writer.bytes.len(), 8 + 4 + 8);
        let found = Attributes::read(&writer.bytes).unwrap();
        assert_eq!(found.need::<u8>(1u16), Ok(9));
        assert_eq!(found.get::<u16>(1u16), Err(malformed()), "of another size");
        assert_eq!(found.get::<u8>(3u16), Ok(None));
        let nested = Attributes::read(found.need(2u16).unwrap()).unwrap();
        assert_eq!(nested.need::<String>(3u16).unwrap(), "wrr");
        // Without its NUL a text keeps its last letter.
        assert_eq!(String::of(b"wrr").unwrap(), "wrr");
        assert_eq!(String::of(b"").unwrap(), "");
    }

    #[test]
    fn a_header_is_the_kernel_s() {
        let bytes = reply(0x1234, NlmF::REQUEST | NlmF::ACK, 0x0708_090a, &[9; 8]);
        let mut expected = 24u32.to_ne_bytes().to_vec();
        expected.extend([0x1234u16.to_ne_bytes(), 5u16.to_ne_bytes()].concat());
        expected.extend([0x0708_090au32.to_ne_bytes(), [0; 4]].concat());
        expected.extend([9; 8]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_batch_goes_into_as_few_datagrams_as_is_good() {
        let mut socket = Socket::new(SockProtocol::NetlinkGeneric);
        let place = |_: &usize, to: &mut Datagram| {
            to.push(30u16, NlmF::empty(), &generic(1));
            to.put_text(1u16, &"x".repeat(999));
        };
        let sizes = std::cell::RefCell::new(Vec::new());
        let count = |number: &usize, to: &mut Datagram| {
            sizes.borrow_mut().push((to.count, to.bytes.len()));
            place(number, to);
        };
        socket.batch(0..200, count, |_, _| ());
        let sizes = sizes.into_inner();
        let firsts: Vec<usize> = (0..200).filter(|index| sizes[*index] == (0, 0)).collect();
        assert_eq!(firsts, [0, 64, 128, 192]);
        assert!(sizes.iter().all(|(_, size)| *size < FULL));
        assert_eq!(sizes[199].0, 7);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn no_mutation_makes_it_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = refusal(Nlmsg::Error, -17, "exists");
            bytes.extend(reply(30, NlmF::MULTI, 8, &Datagram::default().put_text(1u16, "eth0").put(2u16, [0; 4]).bytes));
            bytes.extend(refusal(Nlmsg::Done, -4, "interrupted"));
            read_all(&bytes[..cut.index(bytes.len())]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            read_all(&bytes);
        }
    }

    #[test]
    fn every_truncation_ends_without_panic() {
        let mut bytes = refusal(Nlmsg::Error, -17, "exists");
        bytes.extend(refusal(Nlmsg::Done, -4, "interrupted"));
        for length in 0..bytes.len() {
            read_all(&bytes[..length]);
        }
    }

    fn family(socket: &mut Socket, name: &str) -> Answer<Vec<u8>> {
        let mut asked = Datagram::of(GenlId::Ctrl, NlmF::ACK, &generic(CtrlCmd::Getfamily));
        socket.request(asked.put_text(CtrlAttr::FamilyName, name))
    }

    /// A command that the controller does not have: refused at once, unlike an unknown family, for which the
    /// kernel first looks for a module.
    const UNKNOWN: u8 = 200;

    #[test]
    fn the_real_kernel_answers_requests_dumps_and_batches() {
        let mut socket = Socket::new(SockProtocol::NetlinkGeneric);
        assert!(!family(&mut socket, "nlctrl").unwrap().is_empty());
        assert!(family(&mut socket, "no such").unwrap_err().is(&[Errno::ENOENT]));
        let length = |payload: &[u8]| Ok(Some(payload.len()));
        let mut question = Datagram::of(GenlId::Ctrl, NlmF::DUMP, &generic(CtrlCmd::Getfamily));
        let all = socket.ask(&mut question, length).unwrap();
        assert!(!all.is_empty());

        // Every third is refused, in several datagrams; each refusal comes back to its own message.
        let command = |index| if index % 3 == 2 { UNKNOWN } else { CtrlCmd::Getfamily.into() };
        let encode = |index: &usize, to: &mut Datagram| {
            to.push(GenlId::Ctrl, NlmF::empty(), &generic(command(*index)));
            to.put_text(CtrlAttr::FamilyName, "nlctrl");
        };
        let mut refused = Vec::new();
        socket.batch(0..6000, encode, |index, failure| refused.push((index, failure)));
        assert_eq!(refused.len(), 2000);
        let expected = |(place, (index, failure)): (usize, &(usize, Failure))| {
            *index == place * 3 + 2 && failure.is(&[Errno::EOPNOTSUPP])
        };
        assert!(refused.iter().enumerate().all(expected), "{refused:?}");
        // And the socket is as good as before.
        assert!(!family(&mut socket, "nlctrl").unwrap().is_empty());
    }

    #[test]
    fn lost_answers_are_told_and_the_socket_recovers() {
        let mut socket = Socket::new(SockProtocol::NetlinkGeneric);
        family(&mut socket, "nlctrl").unwrap();
        setsockopt(socket.socket.as_ref().unwrap(), RcvBuf, &2048).unwrap();
        let encode = |_: &usize, to: &mut Datagram| to.push(GenlId::Ctrl, NlmF::empty(), &generic(UNKNOWN));
        let mut failed = Vec::new();
        socket.batch(0..500, encode, |index, failure| failed.push((index, failure)));
        assert!(failed.iter().map(|(index, _)| *index).eq(0..500));
        assert!(failed[0].1.is(&[Errno::EOPNOTSUPP]), "{:?}", failed[0]);
        let last = &failed[499].1;
        assert!(matches!(last, Failure::Broken { errno: Some(Errno::ENOBUFS), .. }), "{last:?}");
        assert!(!family(&mut socket, "nlctrl").unwrap().is_empty());
    }
}
