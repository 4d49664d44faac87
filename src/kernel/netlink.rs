//! One netlink socket: requests, dumps and batches, and the bytes of messages and attributes.
//!
//! Owns the way to socket options, sequence numbers, time limits, lost and interrupted answers, and every length check: what leaves
//! this file is inside its bounds. Knows no address and no service; `addr` and `ipvs` write and read the
//! payloads. Socket and constants are neli's. Its decoder is not used: it panics on a message shorter than
//! its header and on a truncated error (`Nlmsghdr::from_bytes`), and drops the last byte of a string without
//! NUL.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

use neli::ToBytes;
use neli::consts::nl::{NlmF, Nlmsg, NlmsgerrAttr};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, connect, sendmsg};

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// One constant size for every receive: the kernel sizes the datagrams of a dump by the largest buffer ever
/// used on the socket, up to 32 KiB (`af_netlink.c`, `netlink_dump`), and a smaller one later would cut them.
const RECEIVE: usize = 32 * 1024;
/// A datagram that has this much takes no further group of messages. From 16 KiB on the cost per message is
/// flat, and `cb_lock` and the family's mutexes are held for a whole datagram.
const DATAGRAM: usize = 64 * 1024;
/// No datagram gets longer, unless one message alone does. Well below the default send buffer of 208 KiB.
const DATAGRAM_MAX: usize = 128 * 1024;
/// Space for answers. Each error answer occupies 896 bytes of it, and a datagram holds some 900 messages.
const RECEIVE_QUEUE: libc::c_int = 4 * 1024 * 1024;
/// Seconds until an answer counts as lost. The kernel answers while it takes the request.
const PATIENCE: libc::time_t = 5;
/// How often a dump is begun again after a change in its middle.
const DUMP_ATTEMPTS: usize = 5;

/// Why an exchange with the kernel has no good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The kernel's own answer to this request.
    Refused { errno: Errno, text: Option<String> },
    /// There is no usable answer: what became of the request is unknown.
    Broken {
        /// Error of the system call, if one failed
        errno: Option<Errno>,
        text: String,
    },
}

impl Failure {
    /// The error number, of the answer or of the system call.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Broken { errno, .. } => *errno,
        }
    }

    /// Whether the kernel refused with this error.
    pub(super) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }

    fn system(doing: &str, errno: Errno) -> Self {
        Self::Broken { errno: Some(errno), text: format!("{doing}: {}", errno.desc()) }
    }

    fn io(doing: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::system(doing, Errno::from_raw(code)),
            None => Self::Broken { errno: None, text: format!("{doing}: {error}") },
        }
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
    body: Vec<u8>,
}

impl Message {
    /// A request of this `nlmsg_type` whose payload is neli's.
    pub(super) fn encode(kind: u16, flags: NlmF, payload: &impl ToBytes) -> Result<Self, Failure> {
        let mut cursor = io::Cursor::new(Vec::new());
        payload
            .to_bytes(&mut cursor)
            .map_err(|error| Failure::Broken { errno: None, text: format!("encoding a request: {error}") })?;
        Ok(Self { kind, flags, body: cursor.into_inner() })
    }

    /// A request to a generic netlink family.
    pub(super) fn generic(family: u16, command: u8, attributes: Writer) -> Self {
        let mut body = attributes.0;
        body.splice(0..0, [command, GENERIC_VERSION, 0, 0]);
        Self { kind: family, flags: NlmF::empty(), body }
    }

    /// What comes after the header: for generic netlink the form that a reply has, too.
    #[cfg(test)]
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    fn write(&self, to: &mut Vec<u8>, extra: NlmF, sequence: u32) {
        let flags = NlmF::REQUEST | self.flags | extra;
        let length = HEADER + self.body.len();
        to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&flags.bits().to_ne_bytes());
        to.extend_from_slice(&sequence.to_ne_bytes());
        to.extend_from_slice(&0u32.to_ne_bytes());
        to.extend_from_slice(&self.body);
        pad(to);
    }
}

/// Requests that go together, written one behind the other as they will be sent.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Writer,
    messages: Vec<Placed>,
}

/// A message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    start: usize,
    length: usize,
    /// Belongs into one datagram with the message before it, as far as that fits.
    joined: bool,
}

impl Batch {
    /// Appends a request to a generic netlink family.
    pub(super) fn generic(&mut self, family: u16, command: u8, joined: bool, fill: impl FnOnce(&mut Writer)) {
        let start = self.bytes.0.len();
        let mut head = [0; HEADER + GENERIC_HEADER];
        set(&mut head, 4, &family.to_ne_bytes());
        set(&mut head, 6, &NlmF::REQUEST.bits().to_ne_bytes());
        set(&mut head, HEADER, &[command, GENERIC_VERSION]);
        self.bytes.0.extend_from_slice(&head);
        fill(&mut self.bytes);
        let length = self.bytes.0.len() - start;
        set(&mut self.bytes.0, start, &u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.messages.push(Placed { start, length, joined });
    }

    /// How many messages it has.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether a datagram is full: what comes now would not go along.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.0.len() >= DATAGRAM
    }

    fn number(&mut self, index: usize, sequence: u32) {
        if let Some(message) = self.messages.get(index) {
            set(&mut self.bytes.0, message.start + 8, &sequence.to_ne_bytes());
        }
    }

    /// The bytes of neighbouring messages.
    fn bytes_of(&self, range: &Range<usize>) -> &[u8] {
        let of = self.messages.get(range.clone()).unwrap_or_default();
        match (of.first(), of.last()) {
            (Some(first), Some(last)) => {
                self.bytes.0.get(first.start..last.start + last.length).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// What comes after a message's header.
    #[cfg(test)]
    pub(super) fn body(&self, index: usize) -> &[u8] {
        self.bytes_of(&(index..index + 1)).get(HEADER..).unwrap_or_default()
    }
}

/// Writes over bytes that are there.
#[inline(always)]
fn set(to: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = to.get_mut(at..).and_then(|to| to.get_mut(..value.len())) {
        to.copy_from_slice(value);
    }
}

/// `genlmsghdr.version` of the controller and of IPVS.
const GENERIC_VERSION: u8 = 1;
/// Size of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// The attributes of a generic netlink reply.
pub(super) fn generic_attributes(payload: &[u8]) -> Result<Attributes<'_>, Malformed> {
    payload.get(GENERIC_HEADER..).map(Attributes::new).ok_or(Malformed)
}

/// A netlink socket that talks to the kernel and to nobody else.
pub(super) struct Socket {
    socket: NlSocket,
    family: NlFamily,
    sequence: u32,
    buffer: Vec<u8>,
    /// An exchange ended in its middle: late answers, or a dump that still runs, would spoil the next one.
    spoilt: bool,
}

impl Socket {
    /// Opens a socket of this netlink family.
    pub(super) fn open(family: NlFamily) -> Result<Self, Failure> {
        Ok(Self { socket: open(family)?, family, sequence: 1, buffer: vec![0; RECEIVE], spoilt: false })
    }

    /// Sends one request and waits for its end. Returns the payload of the reply, when there is one.
    pub(super) fn request(&mut self, message: &Message) -> Result<Option<Vec<u8>>, Failure> {
        self.begin()?;
        let sequence = self.send_one(message, NlmF::ACK)?;
        let mut reply = None;
        let result = self.exchange(sequence, |payload| {
            reply.get_or_insert_with(|| payload.to_vec());
            Ok(())
        });
        self.note(result.map(|_| reply))
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
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            self.begin()?;
            let sequence = self.send_one(message, NlmF::DUMP)?;
            found.clear();
            let result = self.exchange(sequence, |payload| {
                found.extend(decode(payload)?);
                Ok(())
            });
            if !self.note(result)? {
                break;
            }
        }
        Ok(found)
    }

    /// Sends many requests, in order, in as few datagrams as is good. Returns those without a good end, by their
    /// place in the batch, in order.
    ///
    /// The kernel carries out a datagram message by message before `send` returns, a refused message does
    /// not stop the next, and only errors are answered, besides what asks for an ACK (`af_netlink.c`,
    /// `netlink_rcv_skb`). That is an empty message behind the last: once its ACK is here, silence about a
    /// message is its success. Not the last message itself, because an operation that ends with EINTR is never
    /// answered at all: so it is when a sync daemon is stopped before its thread first ran (`kthread_stop`).
    /// The batch is empty afterwards, and keeps its memory for the next one.
    pub(super) fn batch(&mut self, batch: &mut Batch) -> Vec<(usize, Failure)> {
        let mut failures = Vec::new();
        for range in datagrams(&batch.messages) {
            match self.datagram(batch, range.clone()) {
                Ok(some) => failures.extend(some),
                Err(failure) => failures.extend(range.map(|index| (index, failure.clone()))),
            }
        }
        batch.bytes.0.clear();
        batch.messages.clear();
        failures
    }

    fn datagram(&mut self, batch: &mut Batch, range: Range<usize>) -> Result<Vec<(usize, Failure)>, Failure> {
        self.begin()?;
        let first = self.sequence;
        for index in range.clone() {
            let sequence = self.next_sequence();
            batch.number(index, sequence);
        }
        let last = self.next_sequence();
        let end = Message { kind: Nlmsg::Noop.into(), flags: NlmF::ACK, body: Vec::new() };
        let mut trailer = Vec::with_capacity(HEADER);
        end.write(&mut trailer, NlmF::empty(), last);
        self.send(&[IoSlice::new(batch.bytes_of(&range)), IoSlice::new(&trailer)])?;
        let (mut answers, lost) = self.collect(first, last);
        if lost.is_some() {
            self.spoilt = true;
        }
        if answers.len() == 1 && lost.is_none() {
            // Only the ACK.
            return Ok(Vec::new());
        }
        // Sequence numbers wrap; their number does not depend on it.
        let sequences = std::iter::successors(Some(first), |at| Some(after(*at)));
        let failure = |sequence| match answers.remove(&sequence) {
            Some(answer) => answer,
            None => lost.clone(),
        };
        Ok(range.zip(sequences.map(failure)).filter_map(|(index, failure)| Some((index, failure?))).collect())
    }

    /// The answers to a datagram by sequence number, and why answers are missing, if some are.
    fn collect(&mut self, first: u32, last: u32) -> (HashMap<u32, Option<Failure>>, Option<Failure>) {
        let mut answers = HashMap::new();
        let mut lost = None;
        while !answers.contains_key(&last) {
            // After a loss only what is queued already is of use: the ACK itself may be what was lost.
            let flags = if lost.is_some() { Msg::DONTWAIT } else { Msg::empty() };
            let length = match self.receive(flags) {
                Ok(length) => length,
                Err(failure) if failure.errno() == Some(Errno::ENOBUFS) && lost.is_none() => {
                    lost = Some(failure);
                    continue;
                }
                Err(failure) => return (answers, Some(lost.unwrap_or(failure))),
            };
            for reply in Replies(self.buffer.get(..length).unwrap_or_default()) {
                match reply.and_then(|reply| Ok((reply.sequence, reply.outcome()?))) {
                    Ok((sequence, Outcome::End(result)))
                        if sequence.wrapping_sub(first) <= last.wrapping_sub(first) =>
                    {
                        answers.insert(sequence, result.err());
                    }
                    Ok(_) => {}
                    Err(malformed) => return (answers, Some(malformed.into())),
                }
            }
        }
        (answers, lost)
    }

    /// Receives until the end of the answer to `sequence`. Tells whether the dump was interrupted.
    fn exchange(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<bool, Failure> {
        let mut interrupted = false;
        loop {
            let length = self.receive(Msg::empty())?;
            for reply in Replies(self.buffer.get(..length).unwrap_or_default()) {
                let reply = reply?;
                if reply.sequence != sequence {
                    continue;
                }
                interrupted |= reply.flags.contains(NlmF::DUMP_INTR);
                match reply.outcome()? {
                    Outcome::Payload(payload) => each(payload)?,
                    Outcome::Nothing => {}
                    Outcome::End(result) => return result.map(|()| interrupted),
                }
            }
        }
    }

    fn receive(&mut self, flags: Msg) -> Result<usize, Failure> {
        loop {
            // With MSG_TRUNC the length is the datagram's own, so that a cut one is noticed.
            match self.socket.recv(&mut self.buffer, flags | Msg::TRUNC) {
                Ok((length, _)) if length > self.buffer.len() => {
                    let text =
                        format!("the kernel's reply of {length} bytes was cut to {}", self.buffer.len());
                    return Err(Failure::Broken { errno: Some(Errno::EMSGSIZE), text });
                }
                Ok((length, _)) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let text = format!("the kernel did not answer within {PATIENCE} seconds");
                    return Err(Failure::Broken { errno: Some(Errno::ETIMEDOUT), text });
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    let text =
                        "answers of the kernel were lost, since there were too many at once".to_owned();
                    return Err(Failure::Broken { errno: Some(Errno::ENOBUFS), text });
                }
                Err(error) => return Err(Failure::io("receiving the kernel's answer", &error)),
            }
        }
    }

    fn send_one(&mut self, message: &Message, extra: NlmF) -> Result<u32, Failure> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::with_capacity(HEADER + message.body.len());
        message.write(&mut bytes, extra, sequence);
        self.send(&[IoSlice::new(&bytes)])?;
        Ok(sequence)
    }

    /// Sends one datagram.
    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), Failure> {
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), parts, &[], MsgFlags::empty(), None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::system("sending the request", errno)),
            }
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        if self.spoilt {
            self.socket = open(self.family)?;
            self.spoilt = false;
        }
        Ok(())
    }

    fn note<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.spoilt = matches!(result, Err(Failure::Broken { .. }));
        result
    }

    fn next_sequence(&mut self) -> u32 {
        let next = after(self.sequence);
        std::mem::replace(&mut self.sequence, next)
    }
}

fn after(sequence: u32) -> u32 {
    sequence.wrapping_add(1)
}

fn open(family: NlFamily) -> Result<NlSocket, Failure> {
    let socket = NlSocket::connect(family, None, Groups::empty())
        .map_err(|error| Failure::io("opening a netlink socket", &error))?;
    let raw = socket.as_raw_fd();
    // A connected netlink socket takes messages from its peer only (`af_netlink.c`, `netlink_getsockbyportid`):
    // no other process can slip in an answer.
    connect(raw, &NetlinkAddr::new(0, 0))
        .map_err(|errno| Failure::system("connecting to the kernel", errno))?;
    // `struct timeval`
    let microseconds: libc::suseconds_t = 0;
    let patience = [PATIENCE.to_ne_bytes().as_slice(), &microseconds.to_ne_bytes()].concat();
    set_option(raw, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)
        .and_then(|()| set_option(raw, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &patience))
        .map_err(|errno| Failure::system("setting a time limit on the netlink socket", errno))?;
    // Beyond net.core.rmem_max, which CAP_NET_ADMIN allows; who lacks it can read, and reading needs less.
    let queue = RECEIVE_QUEUE.to_ne_bytes();
    if set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &queue).is_err() {
        let _ = set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUF, &queue);
    }
    // Texts for errors, since Linux 4.12. Without them the error number has to do.
    let _ = socket.enable_ext_ack(true);
    Ok(socket)
}

/// Which way the value of a socket option goes.
#[derive(Clone, Copy)]
enum Way {
    Set,
    Get,
}

/// Sets a socket option.
fn set_option(socket: RawFd, level: i32, name: i32, value: &[u8]) -> nix::Result<()> {
    option(Way::Set, socket, level, name, &mut value.to_vec()).map(|_| ())
}

/// Reads a socket option whose value is also a question: `value` holds it, and then the answer.
pub(super) fn get_option(socket: RawFd, level: i32, name: i32, value: &mut [u8]) -> nix::Result<()> {
    let length = value.len();
    match option(Way::Get, socket, level, name, value)? {
        answered if answered == length => Ok(()),
        _ => Err(Errno::EMSGSIZE),
    }
}

/// The options that nix has no types for: those of IPVS are as long as its table, and neli's socket does not lend
/// its descriptor as a type that nix takes.
fn option(way: Way, socket: RawFd, level: i32, name: i32, value: &mut [u8]) -> nix::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: address and length are those of one exclusively borrowed slice, beyond which the kernel neither
    // reads nor writes, and any bytes that it writes are bytes. `length` lives on this stack for the call. A
    // descriptor that is none, or another one, is an error of the call and touches no memory.
    #[allow(unsafe_code)]
    let result = unsafe {
        match way {
            Way::Set => libc::setsockopt(socket, level, name, value.as_ptr().cast(), length),
            Way::Get => libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &mut length),
        }
    };
    Errno::result(result)?;
    usize::try_from(length).map_err(|_| Errno::EINVAL)
}

/// Which messages go together in a datagram.
fn datagrams(messages: &[Placed]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let mut used = 0;
    for (index, message) in messages.iter().enumerate() {
        let length = message.length;
        let full = if message.joined {
            used + length > DATAGRAM_MAX
        } else {
            let followers = messages.iter().skip(index + 1).take_while(|message| message.joined);
            let group = length + followers.map(|message| message.length).sum::<usize>();
            used >= DATAGRAM || used + group > DATAGRAM_MAX
        };
        if full && index > start {
            ranges.push(start..index);
            start = index;
            used = 0;
        }
        used += length;
    }
    if start < messages.len() {
        ranges.push(start..messages.len());
    }
    ranges
}

/// One message of a received datagram.
struct Reply<'a> {
    kind: u16,
    flags: NlmF,
    sequence: u32,
    payload: &'a [u8],
}

/// What a reply means for the exchange.
enum Outcome<'a> {
    Payload(&'a [u8]),
    /// A message that says nothing
    Nothing,
    /// The end: an ACK, an error, or the end of a dump
    End(Result<(), Failure>),
}

impl<'a> Reply<'a> {
    fn outcome(&self) -> Result<Outcome<'a>, Malformed> {
        match Nlmsg::from(self.kind) {
            Nlmsg::Noop => Ok(Outcome::Nothing),
            Nlmsg::Error => {
                let (code, request) = self.payload.split_first_chunk().ok_or(Malformed)?;
                // The request follows, whole or only its header, and then the texts.
                let (length, _) = request.split_first_chunk().ok_or(Malformed)?;
                let request_length = match self.flags.contains(NlmF::CAPPED) {
                    true => HEADER,
                    false => usize::try_from(u32::from_ne_bytes(*length)).map_err(|_| Malformed)?,
                };
                let texts = request.get(aligned(request_length)..).unwrap_or_default();
                Ok(Outcome::End(self.result(*code, texts)))
            }
            // A dump that failed ends with its error; without a look at it, it would pass for an empty one.
            Nlmsg::Done => Ok(Outcome::End(match self.payload.split_first_chunk() {
                Some((code, texts)) => self.result(*code, texts),
                None => Ok(()),
            })),
            Nlmsg::Overrun => Err(Malformed),
            _ => Ok(Outcome::Payload(self.payload)),
        }
    }

    fn result(&self, code: [u8; 4], texts: &[u8]) -> Result<(), Failure> {
        let code = i32::from_ne_bytes(code);
        if code >= 0 {
            return Ok(());
        }
        let text = self.flags.contains(NlmF::ACK_TLVS).then(|| {
            Attributes::new(texts).flatten().find(|(kind, _)| *kind == u16::from(NlmsgerrAttr::Msg))
        });
        let text = text.flatten().and_then(|(_, value)| text_of(value).ok()).filter(|text| !text.is_empty());
        Err(Failure::Refused { errno: Errno::from_raw(code.saturating_neg()), text })
    }
}

/// The messages of a datagram. Ends after the first that does not fit into it.
struct Replies<'a>(&'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some((length, _)) = bytes.split_first_chunk() else {
            return Some(Err(Malformed));
        };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else {
            return Some(Err(Malformed));
        };
        self.0 = bytes.get(aligned(length)..).unwrap_or_default();
        let field = |range: Range<usize>| message.get(range).unwrap_or_default();
        Some((|| {
            Ok(Reply {
                kind: u16_of(field(4..6))?,
                flags: NlmF::from_bits_retain(u16_of(field(6..8))?),
                sequence: u32_of(field(8..12))?,
                payload: field(HEADER..length),
            })
        })())
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
    pub(super) fn nested(self, wanted: u16) -> Result<Option<Self>, Malformed> {
        for attribute in self {
            let (kind, value) = attribute?;
            if kind == wanted {
                return Ok(Some(Self::new(value)));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // NLA_F_NESTED and NLA_F_NET_BYTEORDER
        const KIND: u16 = 0x3fff;
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(([l0, l1, k0, k1], _)) = bytes.split_first_chunk() else {
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(value) = bytes.get(4..length) else {
            return Some(Err(Malformed));
        };
        self.0 = bytes.get(aligned(length)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([*k0, *k1]) & KIND, value)))
    }
}

/// Writes attributes one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Appends an attribute. A value beyond what an attribute can hold makes a request that the kernel refuses.
    // Inlined and in one piece, with the lengths known, it is a few stores; a takeover of 200x10 takes a tenth longer
    // without.
    #[inline(always)]
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let ([l0, l1], [k0, k1]) = (attribute_length(value.len()), kind.to_ne_bytes());
        // The longest value of a real server is an address.
        let mut piece = [0; ATTRIBUTE_HEADER + 16];
        set(&mut piece, 0, &[l0, l1, k0, k1]);
        set(&mut piece, ATTRIBUTE_HEADER, value);
        match piece.get(..ATTRIBUTE_HEADER + aligned(value.len())) {
            Some(piece) => self.0.extend_from_slice(piece),
            None => {
                self.0.extend_from_slice(&[l0, l1, k0, k1]);
                self.0.extend_from_slice(value);
                pad(&mut self.0);
            }
        }
        self
    }

    /// Appends a text with the NUL that the kernel wants.
    pub(super) fn put_text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest(kind, |to| {
            to.0.extend_from_slice(value.as_bytes());
            to.0.push(0);
        })
    }

    /// Appends an attribute made of attributes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.put(kind, &[]);
        let inside = self.0.len();
        fill(self);
        let length = attribute_length(self.0.len().saturating_sub(inside));
        set(&mut self.0, start, &length);
        pad(&mut self.0);
        self
    }

    /// The bytes written.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Size of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

fn attribute_length(value: usize) -> [u8; 2] {
    u16::try_from(value.saturating_add(ATTRIBUTE_HEADER)).unwrap_or(u16::MAX).to_ne_bytes()
}

/// Lengths are multiples of four in netlink (`NLMSG_ALIGN`, `NLA_ALIGN`).
fn aligned(length: usize) -> usize {
    length.checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

fn pad(bytes: &mut Vec<u8>) {
    if bytes.len() % 4 != 0 {
        bytes.resize(aligned(bytes.len()), 0);
    }
}

/// A value of exactly one byte.
pub(super) fn u8_of(value: &[u8]) -> Result<u8, Malformed> {
    value.try_into().map(u8::from_ne_bytes).map_err(|_| Malformed)
}

/// A value of exactly two bytes in host order.
pub(super) fn u16_of(value: &[u8]) -> Result<u16, Malformed> {
    value.try_into().map(u16::from_ne_bytes).map_err(|_| Malformed)
}

/// A value of exactly two bytes in network order.
pub(super) fn be16_of(value: &[u8]) -> Result<u16, Malformed> {
    value.try_into().map(u16::from_be_bytes).map_err(|_| Malformed)
}

/// A value of exactly four bytes in host order.
pub(super) fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    value.try_into().map(u32::from_ne_bytes).map_err(|_| Malformed)
}

/// A value of exactly eight bytes in host order.
pub(super) fn u64_of(value: &[u8]) -> Result<u64, Malformed> {
    value.try_into().map(u64::from_ne_bytes).map_err(|_| Malformed)
}

/// A text, up to its NUL or its end.
pub(super) fn text_of(value: &[u8]) -> Result<String, Malformed> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let text = value.get(..end).unwrap_or_default();
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| Malformed)
}

/// Reads any bytes as replies and attributes: whatever they are, reading them ends.
#[cfg(any(test, fuzzing))]
pub(super) fn read_all(bytes: &[u8]) {
    for reply in Replies(bytes) {
        let Ok(reply) = reply else { break };
        let _ = reply.outcome();
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

    fn message(length: usize, joined: bool) -> Placed {
        Placed { start: 0, length, joined }
    }

    fn reply(kind: u16, flags: NlmF, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let message = Message { kind, flags: NlmF::empty(), body: payload.to_vec() };
        message.write(&mut bytes, flags, sequence);
        bytes
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
        match reply.outcome().unwrap() {
            Outcome::End(result) => result,
            _ => panic!("not an end"),
        }
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
    fn a_group_goes_into_one_datagram_when_it_fits() {
        let group =
            |count: usize| -> Vec<Placed> { (0..count).map(|index| message(1024, index > 0)).collect() };
        // With 60 KiB a datagram still takes a group, with 64 none, and never more than fits.
        assert_eq!(datagrams(&[group(60), group(10), group(10)].concat()), [0..70, 70..80]);
        assert_eq!(datagrams(&[group(64), group(1)].concat()), [0..64, 64..65]);
        assert_eq!(datagrams(&[group(60), group(69)].concat()), [0..60, 60..129]);
        // A group of 100 KiB is one datagram, one of 200 KiB two.
        assert_eq!(datagrams(&group(100)), vec![0..100]);
        assert_eq!(datagrams(&group(200)), [0..128, 128..200]);
        assert_eq!(datagrams(&[]), Vec::<Range<usize>>::new());
    }

    proptest! {
        #[test]
        fn every_message_is_in_exactly_one_datagram_of_bounded_size(
            lengths in proptest::collection::vec((16usize..4000, any::<bool>()), 0..300)
        ) {
            let messages: Vec<Placed> = lengths.iter().map(|(length, joined)| message(*length, *joined)).collect();
            let ranges = datagrams(&messages);
            let mut next = 0;
            for range in ranges {
                prop_assert_eq!(range.start, next);
                prop_assert!(range.end > range.start);
                next = range.end;
                prop_assert!(messages[range].iter().map(|message| message.length).sum::<usize>() <= DATAGRAM_MAX);
            }
            prop_assert_eq!(next, messages.len());
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
        let mut socket = Socket::open(NlFamily::Generic).unwrap();
        assert!(socket.request(&family("nlctrl")).unwrap().is_some());
        assert!(socket.request(&family("no such")).unwrap_err().is(Errno::ENOENT));
        let all = Message::generic(GenlId::Ctrl.into(), CtrlCmd::Getfamily.into(), Writer::default());
        assert!(!socket.dump(&all, |payload| Ok(Some(payload.len()))).unwrap().is_empty());

        // Every third is refused, in several datagrams; each refusal comes back to its own message.
        let mut batch = Batch::default();
        for index in 0..6000 {
            let command = if index % 3 == 2 { UNKNOWN } else { CtrlCmd::Getfamily.into() };
            batch.generic(GenlId::Ctrl.into(), command, index % 7 == 1, |to| {
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
        let mut socket = Socket::open(NlFamily::Generic).unwrap();
        socket.socket.set_recv_buffer_size(2048).unwrap();
        let mut batch = Batch::default();
        for _ in 0..500 {
            batch.generic(GenlId::Ctrl.into(), UNKNOWN, false, |_| ());
        }
        let failures = socket.batch(&mut batch);
        assert!(failures.iter().map(|(index, _)| *index).eq(0..500));
        assert!(failures[0].1.is(Errno::EOPNOTSUPP), "{:?}", failures[0]);
        assert_eq!(failures[499].1.errno(), Some(Errno::ENOBUFS));
        assert!(socket.request(&family("nlctrl")).unwrap().is_some());
    }
}
