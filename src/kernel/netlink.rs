//! One netlink socket: requests, dumps and batches, and the bytes of messages and attributes.
//!
//! Owns sequence numbers, time limits, lost and interrupted answers, and every length check: what leaves this file is
//! inside its bounds. Knows no address and no service; `link` and `ipvs` write and read the payloads. Headers are
//! written by neli, and constants are its. Its decoder is not used: it panics on a message shorter than its header and
//! on a truncated error (`Nlmsghdr::from_bytes`), and drops the last byte of a string without NUL. Nor is its socket,
//! which does not lend its descriptor as a type that nix sets options by.

use std::fmt::Display;
use std::io::{Cursor, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use neli::ToBytes;
use neli::consts::nl::{NlmF, Nlmsg, NlmsgerrAttr};
use neli::consts::rtnl::Rtm;
use neli::nl::{NlPayload, NlmsghdrBuilder};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout, SendTimeout};
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
/// A batch that has this much is full. From 16 KiB on the cost per message is flat, and `cb_lock` and the family's
/// mutexes are held for a whole datagram.
const FULL: usize = 64 * 1024;
/// No datagram gets longer, unless one message alone does. Well below the default send buffer of 208 KiB.
const DATAGRAM_MAX: usize = 128 * 1024;
/// Space for answers. Each error answer occupies 896 bytes of it, and a full batch holds some 900 messages.
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

impl Failure {
    /// Whether the kernel refused with this error.
    pub(super) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }

    fn system(doing: &str, errno: Errno) -> Self {
        Self::Broken { errno: Some(errno), text: format!("{doing}: {}", errno.desc()) }
    }
}

/// A reply that does not hold what its kind must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Broken { errno: None, text: "the kernel's reply is malformed".to_owned() }
    }
}

/// A request without its header, which gets its sequence number when it is sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: NlmF,
    /// For generic netlink in the form that a reply has, too
    pub(super) body: Vec<u8>,
}

/// `genlmsghdr.version` of the controller and of IPVS.
const GENERIC_VERSION: u8 = 1;

impl Message {
    /// A request of rtnetlink: one of neli's structures, as its builder gives it, and attributes.
    pub(super) fn route(
        kind: Rtm,
        flags: NlmF,
        structure: Result<impl ToBytes, impl Display>,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<Self, Failure> {
        let mut body = Writer(encode(structure)?);
        fill(&mut body);
        Ok(Self { kind: kind.into(), flags, body: body.0 })
    }

    /// A request to a generic netlink family.
    pub(super) fn generic(family: u16, command: u8, attributes: Writer) -> Self {
        let body = [&[command, GENERIC_VERSION, 0, 0], attributes.0.as_slice()].concat();
        Self { kind: family, flags: NlmF::empty(), body }
    }

    fn length(&self) -> usize {
        aligned(HEADER + self.body.len())
    }

    fn bytes(&self, flags: NlmF, sequence: u32) -> Result<Vec<u8>, Failure> {
        let header =
            NlmsghdrBuilder::default().nl_type(self.kind).nl_flags(self.flags | flags).nl_seq(sequence);
        encode(header.nl_payload(NlPayload::Payload(self.body.as_slice())).build())
    }
}

/// The bytes of what one of neli's builders has made.
fn encode(built: Result<impl ToBytes, impl Display>) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: &dyn Display| Failure::Broken { errno: None, text: format!("encoding a request: {error}") };
    let mut bytes = Cursor::new(Vec::new());
    built.map_err(|error| failed(&error))?.to_bytes(&mut bytes).map_err(|error| failed(&error))?;
    Ok(bytes.into_inner())
}

/// The attributes of a generic netlink reply.
pub(super) fn generic_attributes(payload: &[u8]) -> Result<Attributes<'_>, Malformed> {
    // Behind `struct genlmsghdr`.
    payload.get(4..).map(Attributes::new).ok_or(Malformed)
}

/// Requests to generic netlink families that go together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    length: usize,
}

impl Batch {
    /// Appends a request.
    pub(super) fn generic(&mut self, family: u16, command: u8, fill: impl FnOnce(&mut Writer)) {
        let mut attributes = Writer::default();
        fill(&mut attributes);
        let message = Message::generic(family, command, attributes);
        self.length += message.length();
        self.messages.push(message);
    }

    /// How many messages it has.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it is time to send it.
    pub(super) fn is_full(&self) -> bool {
        self.length >= FULL
    }
}

/// Which messages go together in a datagram.
fn datagrams(messages: &[Message]) -> impl Iterator<Item = &[Message]> {
    let mut length = 0;
    messages.chunk_by(move |message, next| {
        length += message.length();
        let fits = length + next.length() <= DATAGRAM_MAX;
        length = if fits { length } else { 0 };
        fits
    })
}

/// A netlink socket that talks to the kernel and to nobody else.
pub(super) struct Socket {
    protocol: SockProtocol,
    /// `None` after an exchange that ended in its middle: late answers, or a dump that still runs, would spoil the next.
    socket: Option<OwnedFd>,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of this netlink family.
    pub(super) fn open(protocol: SockProtocol) -> Result<Self, Failure> {
        Ok(Self { protocol, socket: Some(open(protocol)?), sequence: 1 })
    }

    /// Sends one request and waits for its end. Returns the payload of the reply, when there is one.
    pub(super) fn request(&mut self, message: &Message) -> Result<Option<Vec<u8>>, Failure> {
        let (replies, _) = self.ask(message, NlmF::ACK, |payload| Ok(Some(payload.to_vec())))?;
        Ok(replies.into_iter().next())
    }

    /// Sends a dump request and returns what `decode` makes of its replies; it may pass over some.
    ///
    /// Begun again when the kernel says that something changed meanwhile, since then entries can be missing
    /// or double (`NLM_F_DUMP_INTR`). A list that never comes to rest is taken as it was read last: adding what
    /// is there and removing what is gone are successes, everything is read back afterwards, and a takeover
    /// cannot wait for somebody else to come to an end.
    pub(super) fn dump<T>(
        &mut self,
        message: &Message,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, Failure> {
        let (mut found, mut interrupted) = self.ask(message, NlmF::DUMP, &mut decode)?;
        for _ in 1..DUMP_ATTEMPTS {
            if interrupted {
                (found, interrupted) = self.ask(message, NlmF::DUMP, &mut decode)?;
            }
        }
        Ok(found)
    }

    /// Sends one message and decodes its replies. Tells, too, whether the dump was interrupted.
    fn ask<T>(
        &mut self,
        message: &Message,
        flags: NlmF,
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<(Vec<T>, bool), Failure> {
        let (mut found, mut interrupted, mut end) = (Vec::new(), false, [None]);
        self.exchange(&[message], flags, &mut end, |reply, is_end| {
            interrupted |= reply.flags.contains(NlmF::DUMP_INTR);
            if !is_end {
                found.extend(decode(reply.payload)?);
            }
            Ok(())
        })?;
        end.into_iter().flatten().collect::<Result<(), Failure>>()?;
        Ok((found, interrupted))
    }

    /// Sends many requests, in order, in as few datagrams as is good. Returns those without a good end, by their
    /// place in the batch, in order. The batch is empty afterwards.
    ///
    /// The kernel carries out a datagram message by message before `send` returns, a refused message does
    /// not stop the next, and only errors are answered, besides what asks for an ACK (`af_netlink.c`,
    /// `netlink_rcv_skb`). That is an empty message behind the last: once its ACK is here, silence about a
    /// message is its success. Not the last message itself, because an operation that ends with EINTR is never
    /// answered at all: so it is when a sync daemon is stopped before its thread first ran (`kthread_stop`).
    pub(super) fn batch(&mut self, batch: &mut Batch) -> Vec<(usize, Failure)> {
        let last = Message { kind: Nlmsg::Noop.into(), flags: NlmF::ACK, body: Vec::new() };
        let mut ends = Vec::new();
        for datagram in datagrams(&std::mem::take(batch).messages) {
            let messages: Vec<&Message> = datagram.iter().chain([&last]).collect();
            let mut answers = vec![None; messages.len()];
            let whole = self.exchange(&messages, NlmF::empty(), &mut answers, |_, _| Ok(()));
            answers.pop();
            ends.extend(answers.into_iter().map(|answer| answer.unwrap_or_else(|| whole.clone())));
        }
        ends.into_iter().enumerate().filter_map(|(index, end)| Some((index, end.err()?))).collect()
    }

    /// Sends messages in one datagram and waits for the answer to the last. `answers` takes those that come; a message
    /// without one is done, or shares in what went wrong. Every reply goes to `each`, which hears whether it is an end.
    fn exchange(
        &mut self,
        messages: &[&Message],
        flags: NlmF,
        answers: &mut [Option<Result<(), Failure>>],
        mut each: impl FnMut(&Reply<'_>, bool) -> Result<(), Malformed>,
    ) -> Result<(), Failure> {
        let socket = self.socket.take().map_or_else(|| open(self.protocol), Ok)?;
        let first = self.sequence;
        let mut datagram = Vec::new();
        for message in messages {
            datagram.extend(message.bytes(NlmF::REQUEST | flags, self.sequence)?);
            self.sequence = self.sequence.wrapping_add(1);
        }
        let parts = [IoSlice::new(&datagram)];
        uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), None))
            .map_err(|errno| Failure::system("sending the request", errno))?;
        let mut buffer = vec![0; RECEIVE];
        let mut lost = Ok(());
        while answers.last().is_some_and(Option::is_none) {
            // After a loss only what is queued already is of use: the last answer itself may be what was lost.
            let wait = if lost.is_ok() { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
            // With MSG_TRUNC the length is the datagram's own, so that a cut one is noticed.
            let received =
                uninterrupted(|| recv(socket.as_raw_fd(), &mut buffer, wait | MsgFlags::MSG_TRUNC));
            let datagram = match received.and_then(|length| buffer.get(..length).ok_or(Errno::EMSGSIZE)) {
                Ok(datagram) => datagram,
                Err(Errno::ENOBUFS) if lost.is_ok() => {
                    let text =
                        "answers of the kernel were lost, since there were too many at once".to_owned();
                    lost = Err(Failure::Broken { errno: Some(Errno::ENOBUFS), text });
                    continue;
                }
                Err(Errno::EAGAIN) => {
                    let text = format!("the kernel did not answer within {PATIENCE} seconds");
                    return lost.and(Err(Failure::Broken { errno: Some(Errno::ETIMEDOUT), text }));
                }
                Err(errno) => {
                    return lost.and(Err(Failure::system("receiving the kernel's answer", errno)));
                }
            };
            for reply in Replies(datagram) {
                let reply = reply?;
                // Sequence numbers wrap; their distance does not depend on it.
                let index = usize::try_from(reply.sequence.wrapping_sub(first)).map_err(|_| Malformed)?;
                let Some(answer) = answers.get_mut(index) else { continue };
                let end = reply.end()?;
                each(&reply, end.is_some())?;
                *answer = end.or(answer.take());
            }
        }
        self.socket = lost.is_ok().then_some(socket);
        lost
    }
}

/// A system call, again and again as long as only a signal ends it.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

sockopt_impl!(ExtendedAck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool);
sockopt_impl!(CappedAck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool);

fn open(protocol: SockProtocol) -> Result<OwnedFd, Failure> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(|errno| Failure::system("opening a netlink socket", errno))?;
    // A connected netlink socket takes messages from its peer only (`af_netlink.c`, `netlink_getsockbyportid`):
    // no other process can slip in an answer.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))
        .map_err(|errno| Failure::system("connecting to the kernel", errno))?;
    let patience = TimeVal::new(PATIENCE, 0);
    setsockopt(&socket, ReceiveTimeout, &patience)
        .and_then(|()| setsockopt(&socket, SendTimeout, &patience))
        .map_err(|errno| Failure::system("setting a time limit on the netlink socket", errno))?;
    // Beyond net.core.rmem_max, which CAP_NET_ADMIN allows; who lacks it can read, and reading needs less.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_QUEUE).is_err() {
        let _ = setsockopt(&socket, RcvBuf, &RECEIVE_QUEUE);
    }
    // Texts for errors, since Linux 4.12. Without them the error number has to do. And no copy of the request (4.2).
    let _ = setsockopt(&socket, ExtendedAck, &true);
    let _ = setsockopt(&socket, CappedAck, &true);
    Ok(socket)
}

/// Reads a socket option whose value is also a question: `value` holds it, and then the answer. nix has no type for
/// those of IPVS, which are as long as its table.
pub(super) fn get_option(socket: RawFd, level: i32, name: i32, value: &mut [u8]) -> nix::Result<()> {
    let asked = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let mut length = asked;
    // SAFETY: address and length are those of one exclusively borrowed slice, beyond which the kernel neither
    // reads nor writes, and any bytes that it writes are bytes. `length` lives on this stack for the call. A
    // descriptor that is none, or another one, is an error of the call and touches no memory.
    #[allow(unsafe_code)]
    let result = unsafe { libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &mut length) };
    Errno::result(result)?;
    if length == asked { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// One message of a received datagram.
struct Reply<'a> {
    kind: u16,
    flags: NlmF,
    sequence: u32,
    payload: &'a [u8],
}

impl Reply<'_> {
    /// The end that this reply is, if it is one: an ACK, an error, or the end of a dump.
    fn end(&self) -> Result<Option<Result<(), Failure>>, Malformed> {
        let texts = match Nlmsg::from(self.kind) {
            // The request's header is between number and texts.
            Nlmsg::Error => 4 + HEADER,
            // A dump that failed ends with its error; without a look at it, it would pass for an empty one.
            Nlmsg::Done => 4,
            Nlmsg::Noop | Nlmsg::Overrun => return Err(Malformed),
            _ => return Ok(None),
        };
        let code = i32::from_ne_bytes(*self.payload.first_chunk().ok_or(Malformed)?);
        if code >= 0 {
            return Ok(Some(Ok(())));
        }
        let texts = self.payload.get(texts..).filter(|_| self.flags.contains(NlmF::ACK_TLVS));
        let mut texts = Attributes::new(texts.unwrap_or_default()).flatten();
        let text = texts.find(|(kind, _)| *kind == u16::from(NlmsgerrAttr::Msg));
        let text = text.and_then(|(_, value)| text_of(value).ok()).filter(|text| !text.is_empty());
        Ok(Some(Err(Failure::Refused { errno: Errno::from_raw(code.saturating_neg()), text })))
    }
}

/// The messages of a datagram. Ends after the first that does not fit into it.
struct Replies<'a>(&'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        (!bytes.is_empty()).then(|| {
            let field = |from, to| bytes.get(from..to).ok_or(Malformed);
            let length = usize::try_from(u32_of(field(0, 4)?)?).map_err(|_| Malformed)?;
            let payload = field(HEADER, length)?;
            self.0 = bytes.get(aligned(length)..).unwrap_or_default();
            let (kind, flags) = (u16_of(field(4, 6)?)?, NlmF::from_bits_retain(u16_of(field(6, 8)?)?));
            Ok(Reply { kind, flags, sequence: u32_of(field(8, 12)?)?, payload })
        })
    }
}

/// Attributes (`struct nlattr` and `struct rtattr`, which are alike): kind without its flag bits, and value.
/// Ends after the first that does not fit.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes in these bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The attributes inside the attribute of this kind, if it is there.
    pub(super) fn nested(mut self, wanted: u16) -> Result<Option<Self>, Malformed> {
        let found = self.find(|attribute| attribute.map_or(true, |(kind, _)| kind == wanted));
        Ok(found.transpose()?.map(|(_, value)| Self(value)))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // NLA_F_NESTED and NLA_F_NET_BYTEORDER
        const KIND: u16 = 0x3fff;
        let bytes = std::mem::take(&mut self.0);
        (!bytes.is_empty()).then(|| {
            let ([l0, l1, k0, k1], _) = bytes.split_first_chunk().ok_or(Malformed)?;
            let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
            let value = bytes.get(4..length).ok_or(Malformed)?;
            self.0 = bytes.get(aligned(length)..).unwrap_or_default();
            Ok((u16::from_ne_bytes([*k0, *k1]) & KIND, value))
        })
    }
}

/// Writes attributes one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// Appends an attribute. A value beyond what an attribute can hold makes a request that the kernel refuses.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest(kind, |to| to.0.extend_from_slice(value))
    }

    /// Appends a text with the NUL that the kernel wants.
    pub(super) fn put_text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends an attribute made of attributes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        let [k0, k1] = kind.to_ne_bytes();
        self.0.extend([0, 0, k0, k1]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        for (to, from) in self.0.iter_mut().skip(start).zip(length.to_ne_bytes()) {
            *to = from;
        }
        self.0.resize(aligned(self.0.len()), 0);
        self
    }
}

/// Lengths are multiples of four in netlink (`NLMSG_ALIGN`, `NLA_ALIGN`).
fn aligned(length: usize) -> usize {
    length.checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

/// Numbers of exactly the value's size.
macro_rules! numbers {
    ($($name:ident is $number:ident $order:ident),*) => {$(
        pub(super) fn $name(value: &[u8]) -> Result<$number, Malformed> {
            value.try_into().map($number::$order).map_err(|_| Malformed)
        }
    )*};
}

numbers!(u8_of is u8 from_ne_bytes, u16_of is u16 from_ne_bytes, be16_of is u16 from_be_bytes);
numbers!(u32_of is u32 from_ne_bytes, u64_of is u64 from_ne_bytes);

/// A text, up to its NUL or its end.
pub(super) fn text_of(value: &[u8]) -> Result<String, Malformed> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| Malformed)
}

/// Reads any bytes as replies and attributes: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn read_all(bytes: &[u8]) {
    for reply in Replies(bytes) {
        let Ok(reply) = reply else { break };
        let _ = reply.end();
        for attribute in Attributes::new(reply.payload) {
            let Ok((_, value)) = attribute else { break };
            let _ = (u8_of(value), u16_of(value), be16_of(value), u32_of(value), text_of(value));
            let _ = Attributes::new(value).nested(1);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use neli::consts::genl::{CtrlAttr, CtrlCmd};
    use neli::consts::nl::GenlId;
    use proptest::prelude::*;

    use super::*;

    fn message(length: usize) -> Message {
        Message { kind: 30, flags: NlmF::empty(), body: vec![0; length - HEADER] }
    }

    fn reply(kind: u16, flags: NlmF, sequence: u32, payload: &[u8]) -> Vec<u8> {
        Message { kind, flags: NlmF::empty(), body: payload.to_vec() }.bytes(flags, sequence).unwrap()
    }

    fn refusal(kind: Nlmsg, code: i32, text: &str) -> Vec<u8> {
        let mut texts = Writer::default();
        texts.put_text(NlmsgerrAttr::Msg.into(), text);
        let mut payload = code.to_ne_bytes().to_vec();
        if kind == Nlmsg::Error {
            payload.extend(reply(16, NlmF::empty(), 7, &[]));
        }
        payload.extend(&texts.0);
        reply(kind.into(), NlmF::ACK_TLVS | NlmF::CAPPED, 7, &payload)
    }

    fn only(bytes: &[u8]) -> Result<(), Failure> {
        let mut replies = Replies(bytes);
        let reply = replies.next().unwrap().unwrap();
        assert!(replies.next().is_none());
        reply.end().unwrap().unwrap()
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
            let found: Vec<bool> = Replies(&bytes).map(|reply| reply.is_ok()).collect();
            assert_eq!(found, [false], "length {length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut writer = Writer::default();
            writer.put(1, &[1, 2, 3, 4]);
            writer.0[..2].copy_from_slice(&length.to_ne_bytes());
            let found: Vec<bool> = Attributes::new(&writer.0).map(|attribute| attribute.is_ok()).collect();
            assert_eq!(found, [false], "length {length}");
        }
    }

    #[test]
    fn attributes_are_padded_nested_and_read_back() {
        let mut writer = Writer::default();
        writer.put(1, &[9]).nest(2, |to| {
            to.put_text(3, "wrr");
        });
        assert_eq!(writer.0.len(), 8 + 4 + 8);
        let mut nested = Attributes::new(&writer.0).nested(2).unwrap().unwrap();
        let (kind, value) = nested.next().unwrap().unwrap();
        assert_eq!((kind, text_of(value).unwrap().as_str()), (3, "wrr"));
        assert!(nested.next().is_none());
        // Without its NUL a text keeps its last letter.
        assert_eq!(text_of(b"wrr"), Ok("wrr".to_owned()));
        assert_eq!(text_of(b""), Ok(String::new()));
    }

    #[test]
    fn a_header_is_the_kernel_s() {
        let bytes = reply(0x1234, NlmF::REQUEST | NlmF::ACK, 0x0708_090a, &[9; 6]);
        let mut expected = 24u32.to_ne_bytes().to_vec();
        expected.extend([0x1234u16.to_ne_bytes(), 5u16.to_ne_bytes()].concat());
        expected.extend([0x0708_090au32.to_ne_bytes(), [0; 4]].concat());
        expected.extend([9, 9, 9, 9, 9, 9, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_batch_goes_into_one_datagram_when_it_fits() {
        let lengths = |count: usize| -> Vec<usize> {
            datagrams(&vec![message(1024); count]).map(<[Message]>::len).collect()
        };
        assert_eq!(lengths(128), [128]);
        assert_eq!(lengths(129), [128, 1]);
        assert_eq!(lengths(300), [128, 128, 44]);
        assert_eq!(lengths(0), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn every_message_is_in_exactly_one_datagram_of_bounded_size(
            lengths in proptest::collection::vec(16usize..4000, 0..300)
        ) {
            let messages: Vec<Message> = lengths.iter().map(|length| message(*length)).collect();
            for datagram in datagrams(&messages) {
                prop_assert!(datagram.iter().map(Message::length).sum::<usize>() <= DATAGRAM_MAX);
            }
            prop_assert_eq!(datagrams(&messages).map(<[Message]>::len).sum::<usize>(), messages.len());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn no_mutation_makes_it_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = refusal(Nlmsg::Error, -17, "exists");
            bytes.extend(reply(30, NlmF::MULTI, 8, &Writer::default().put_text(1, "eth0").put(2, &[0; 4]).0));
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

    fn family(name: &str) -> Message {
        let mut attributes = Writer::default();
        attributes.put_text(CtrlAttr::FamilyName.into(), name);
        Message::generic(GenlId::Ctrl.into(), CtrlCmd::Getfamily.into(), attributes)
    }

    /// A command that the controller does not have: refused at once, unlike an unknown family, for which the
    /// kernel first looks for a module.
    const UNKNOWN: u8 = 200;

    #[test]
    fn the_real_kernel_answers_requests_dumps_and_batches() {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric).unwrap();
        assert!(socket.request(&family("nlctrl")).unwrap().is_some());
        assert!(socket.request(&family("no such")).unwrap_err().is(Errno::ENOENT));
        let all = Message::generic(GenlId::Ctrl.into(), CtrlCmd::Getfamily.into(), Writer::default());
        assert!(!socket.dump(&all, |payload| Ok(Some(payload.len()))).unwrap().is_empty());

        // Every third is refused, in several datagrams; each refusal comes back to its own message.
        let mut batch = Batch::default();
        for index in 0..6000 {
            let command = if index % 3 == 2 { UNKNOWN } else { CtrlCmd::Getfamily.into() };
            batch.generic(GenlId::Ctrl.into(), command, |to| {
                to.put_text(CtrlAttr::FamilyName.into(), "nlctrl");
            });
        }
        let failures = socket.batch(&mut batch);
        assert!(failures.iter().map(|(index, _)| *index).eq((2..6000).step_by(3)), "{failures:?}");
        assert!(failures.iter().all(|(_, failure)| failure.is(Errno::EOPNOTSUPP)), "{failures:?}");
        // And the socket is as good as before.
        assert!(socket.request(&family("nlctrl")).unwrap().is_some());
    }

    #[test]
    fn lost_answers_are_told_and_the_socket_recovers() {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric).unwrap();
        setsockopt(socket.socket.as_ref().unwrap(), RcvBuf, &2048).unwrap();
        let mut batch = Batch::default();
        for _ in 0..500 {
            batch.generic(GenlId::Ctrl.into(), UNKNOWN, |_| ());
        }
        let failures = socket.batch(&mut batch);
        assert!(failures.iter().map(|(index, _)| *index).eq(0..500));
        assert!(failures[0].1.is(Errno::EOPNOTSUPP), "{:?}", failures[0]);
        let last = &failures[499].1;
        assert!(matches!(last, Failure::Broken { errno: Some(Errno::ENOBUFS), .. }), "{last:?}");
        assert!(socket.request(&family("nlctrl")).unwrap().is_some());
    }
}
