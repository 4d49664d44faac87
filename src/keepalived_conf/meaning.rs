//! What keepalived's words mean: scripts, VRRP instances and groups, VIPs, virtual servers, forwarding methods.
//!
//! Owns the one reading of them (`vrrp_parser.c`, `check_parser.c`, `notify_script_init()`). Judges nothing, and leaves to
//! `import` what a virtual server's settings are in IPVS. Called by `check` and `import`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;

use super::{Statement, Tree, split};
use crate::model::{Family, Forward, Protocol, ServiceKey, Tunnel};

/// A range that holds more addresses is not read.
const MOST_ADDRESSES: u128 = 4096;

pub struct Conf<'a> {
    pub tree: &'a Tree,
    /// VRRP instances and sync groups, in order
    pub blocks: Vec<Block<'a>>,
    pub servers: Vec<VirtualServer<'a>>,
    pub script_user: Option<&'a str>,
    pub security: bool,
}

/// A vrrp_instance or a vrrp_sync_group.
pub struct Block<'a> {
    pub at: &'a Statement,
    tree: &'a Tree,
    pub name: &'a str,
    /// Instances of a sync group; `None` for an instance
    pub members: Option<Vec<&'a str>>,
    pub interface: &'a str,
    pub scripts: Vec<Notify<'a>>,
    pub vips: Vec<Vip<'a>>,
}

/// A notify keyword, and what it runs: `execve` without a shell.
pub struct Notify<'a> {
    pub at: &'a Statement,
    /// What the keyword is to ask of lvs-notify
    pub expected: &'static [&'static str],
    pub argv: Vec<String>,
    /// What follows the script: the user to run it as
    pub user: Option<String>,
    /// What it asks of lvs-notify, when that is the program
    pub call: Option<Call>,
}

pub struct Call {
    pub command: String,
    pub instance: Option<String>,
    pub config: Option<String>,
}

/// An address of virtual_ipaddress or virtual_ipaddress_excluded.
pub struct Vip<'a> {
    pub at: &'a Statement,
    pub address: IpAddr,
    pub prefix: u8,
    /// `dev`, or the instance's interface
    pub device: &'a str,
}

pub struct VirtualServer<'a> {
    pub at: &'a Statement,
    /// What it balances: its own line, or each one of its group
    pub services: Vec<Result<Vec<ServiceKey>, String>>,
}

/// Notify keywords that keepalived has for the script of a state, with what each asks of lvs-notify.
const NOTIFY: [(&str, &[&str]); 7] = [
    ("notify", &["notify"]),
    ("notify_master", &["master"]),
    ("notify_backup", &["backup"]),
    ("notify_fault", &["fault"]),
    ("notify_stop", &["stop"]),
    ("notify_deleted", &["stop"]),
    ("notify_master_rx_lower_pri", &["master", "apply"]),
];

impl<'a> Conf<'a> {
    pub fn of(tree: &'a Tree) -> Self {
        let vrrp = |at: &&Statement| matches!(at.keyword(), "vrrp_instance" | "vrrp_sync_group");
        Self {
            tree,
            blocks: tree.statements.iter().filter(vrrp).map(|at| Block::of(at, tree)).collect(),
            servers: tree.all("virtual_server").map(|at| VirtualServer::of(at, tree)).collect(),
            script_user: tree.globals("script_user").last().map(|line| line.value(1)),
            security: tree.globals("enable_script_security").next().is_some(),
        }
    }

    pub fn scripts(&self) -> impl Iterator<Item = &Notify<'a>> {
        self.blocks.iter().flat_map(|block| &block.scripts)
    }

    pub fn instances(&self) -> impl Iterator<Item = &Block<'a>> {
        self.blocks.iter().filter(|block| block.members.is_none())
    }

    pub fn groups_of(&self, instance: &str) -> impl Iterator<Item = &Block<'a>> {
        self.blocks.iter().filter(move |group| group.members.iter().flatten().any(|name| *name == instance))
    }
}

impl<'a> Block<'a> {
    fn of(at: &'a Statement, tree: &'a Tree) -> Self {
        let group = at.keyword() == "vrrp_sync_group";
        let members = at.all("group").flat_map(|list| &list.children).flat_map(|line| &line.words);
        let interface = at.last("interface").map_or("", |line| line.value(1));
        let lists = ["virtual_ipaddress", "virtual_ipaddress_excluded"];
        let vips = lists.iter().flat_map(|list| at.all(list)).flat_map(|list| &list.children);
        Self {
            at,
            tree,
            name: at.value(1),
            members: group.then(|| members.map(String::as_str).collect()),
            interface,
            scripts: at.children.iter().filter_map(Notify::of).collect(),
            vips: vips.filter_map(|line| Vip::of(line, interface)).collect(),
        }
    }

    /// The line of a setting: its own, or else that of global_defs.
    pub fn setting(&self, own: &'a str, global: &'a str) -> Option<&'a Statement> {
        self.at.last(own).or_else(|| self.tree.globals(global).last())
    }

    /// Whether a switch is on, as it is when it stands alone.
    pub fn is_on(&self, own: &'a str, global: &'a str) -> bool {
        self.setting(own, global).is_some_and(|line| !matches!(line.value(1), "off" | "false" | "no"))
    }

    pub fn has(&self, keyword: &str) -> bool {
        self.scripts.iter().any(|notify| notify.at.keyword() == keyword)
    }

    /// Names of the desired-state files that its scripts drive. A call without a name is for `only`.
    pub fn drives<'b>(&'b self, only: Option<&'b str>) -> BTreeSet<&'b str> {
        let name = |call: &'b Call| match (&call.config, &call.instance) {
            (Some(path), _) => Path::new(path).file_stem().and_then(|stem| stem.to_str()),
            (None, Some(name)) => Some(name.as_str()),
            (None, None) if call.command == "notify" => Some(self.name),
            (None, None) => only,
        };
        self.scripts.iter().filter_map(|notify| notify.call.as_ref()).filter_map(name).collect()
    }
}

impl<'a> Notify<'a> {
    fn of(at: &'a Statement) -> Option<Self> {
        let (_, expected) = NOTIFY.iter().find(|(keyword, _)| *keyword == at.keyword())?;
        let (argv, user) = script(at).unwrap_or_default();
        Some(Self { at, expected, call: Call::of(&argv), argv, user })
    }
}

/// Program with arguments, and user. keepalived splits the line once more, now with both kinds of quotes and escapes, takes
/// the second word for the script, which it splits in the same way, and the third for a user, however it was meant.
/// `None` when a quote is open.
pub(super) fn script(at: &Statement) -> Option<(Vec<String>, Option<String>)> {
    let mut words = split(&at.raw, true)?.into_iter().skip(1);
    let argv = split(&words.next().unwrap_or_default(), true)?;
    Some((argv, words.next()))
}

impl Call {
    /// What lvs-notify is asked, whatever order its options have.
    fn of(argv: &[String]) -> Option<Self> {
        let mut words = argv.iter();
        if Path::new(words.next()?).file_name()? != "lvs-notify" {
            return None;
        }
        let (mut config, mut plain) = (None, Vec::new());
        while let Some(word) = words.next() {
            match word.strip_prefix("--config=") {
                Some(path) => config = Some(path.to_owned()),
                None if word == "-c" || word == "--config" => config = words.next().cloned(),
                None if word.starts_with('-') => {}
                None => plain.push(word.clone()),
            }
        }
        let mut plain = plain.into_iter();
        Some(Self { command: plain.next().unwrap_or_default(), instance: plain.next(), config })
    }
}

impl<'a> Vip<'a> {
    /// A line of virtual_ipaddress; what is no address is left to keepalived.
    fn of(at: &'a Statement, interface: &'a str) -> Option<Self> {
        let (address, prefix) = at.keyword().split_once('/').unwrap_or((at.keyword(), ""));
        let address: IpAddr = address.parse().ok()?;
        let device = at.values().skip_while(|word| *word != "dev").nth(1).unwrap_or(interface);
        let prefix = prefix.parse().unwrap_or(Family::of(address).host_prefix());
        Some(Self { at, address, prefix, device })
    }
}

impl<'a> VirtualServer<'a> {
    fn of(at: &'a Statement, tree: &'a Tree) -> Self {
        let (mut protocol, mut list) = (Protocol::TCP, Vec::new());
        if let Some(line) = at.last("protocol") {
            let known = Protocol::WORDS.iter().find(|(word, _)| line.value(1).eq_ignore_ascii_case(word));
            list.extend(known.is_none().then(|| Err(line.not_understood())));
            protocol = known.map_or(protocol, |(_, known)| *known);
        }
        let read = |words: &[String]| services(words, protocol, family_of(at));
        let of = |line: &Statement| read(&line.words).map_err(|why| format!("{}: {why}", line.place()));
        match tree.all("virtual_server_group").find(|group| group.value(1) == at.value(2)) {
            _ if at.value(1) != "group" => list.push(read(at.words.get(1..).unwrap_or_default())),
            Some(group) => list.extend(group.children.iter().map(of)),
            None => list.push(Err(format!("there is no virtual_server_group {}", at.value(2)))),
        }
        Self { at, services: list }
    }
}

/// The services that `ADDRESSES [PORT]` or `fwmark MARK [inet6]` stands for.
fn services(words: &[String], protocol: Protocol, usual: Family) -> Result<Vec<ServiceKey>, String> {
    let word = |index| words.get(index).map_or("", String::as_str);
    let (first, second, third) = (word(0), word(1), word(2));
    if first == "fwmark" {
        let mark = second.parse().map_err(|_| format!("`{second}` is not a firewall mark"))?;
        let family = match third {
            "" => usual,
            "inet6" => Family::Ipv6,
            _ => Family::Ipv4,
        };
        return Ok(vec![ServiceKey::Fwmark { mark, family }]);
    }
    let range = range(first).ok_or_else(|| format!("`{first}` is not an address or a range of addresses"))?;
    let port = if second.is_empty() { Ok(0) } else { second.parse() };
    let port = port.map_err(|_| format!("`{second}` is not a port"))?;
    if range.end() - range.start() >= MOST_ADDRESSES {
        return Err(format!("the range `{first}` has more than {MOST_ADDRESSES} addresses"));
    }
    let key = |bits| ServiceKey::Endpoint { address: Ipv6Addr::from(bits).to_canonical(), port, protocol };
    Ok(range.map(key).collect())
}

/// The family of a mark that names none: that of the block's granularity, or of its real servers.
fn family_of(block: &Statement) -> Family {
    let ipv6 = match (block.last("ip_family"), block.last("persistence_granularity")) {
        (Some(line), _) if line.value(1) == "inet6" => true,
        (_, Some(line)) => !line.value(1).contains('.'),
        _ => block.last("real_server").is_some_and(|server| server.value(1).contains(':')),
    };
    if ipv6 { Family::Ipv6 } else { Family::Ipv4 }
}

/// How real servers are reached: `NAT`, `DR`, `TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]`.
pub fn method(line: &Statement) -> Option<(Forward, Tunnel)> {
    let mut words = line.values();
    let word = words.next()?;
    let (_, forward) = Forward::DECLARED.iter().find(|(known, _)| known.to_ascii_uppercase() == word)?;
    let mut tunnel = Tunnel::default();
    while let Some(word) = words.next() {
        let place = |names: [&str; 3], word: &str| names.iter().position(|known| *known == word);
        match word {
            "type" => tunnel.kind = u8::try_from(place(Tunnel::KINDS, words.next()?)?).ok()?,
            "port" => tunnel.port = words.next()?.parse().ok()?,
            _ => tunnel.checksum = u16::try_from(place(Tunnel::CHECKSUMS, word)?).ok()?,
        }
    }
    Some((*forward, tunnel))
}

/// One address or several, as numbers: `A`, `A-N`, `A-B` or `A/PREFIX`.
fn range(text: &str) -> Option<RangeInclusive<u128>> {
    let (start, end) = text.split_at(text.find(['-', '/']).unwrap_or(text.len()));
    let address: IpAddr = start.parse().ok()?;
    let first = number(address);
    let last = if let Some(prefix) = end.strip_prefix('/') {
        let host = u32::from(Family::of(address).host_prefix()).checked_sub(prefix.parse().ok()?)?;
        first | 1_u128.checked_shl(host).map_or(u128::MAX, |size| size - 1)
    } else if let Some(last) = end.strip_prefix('-') {
        match (last.parse::<IpAddr>(), address.is_ipv4()) {
            (Ok(last), ipv4) => (last.is_ipv4() == ipv4).then(|| number(last))?,
            // The last part alone: decimal for IPv4, hexadecimal for IPv6.
            (_, true) => first & !0xff | u128::from(last.parse::<u8>().ok()?),
            (_, false) => first & !0xffff | u128::from(u16::from_str_radix(last, 16).ok()?),
        }
    } else {
        first
    };
    (first <= last).then_some(first..=last)
}

/// An address as a number that no address of the other family has: that of `::ffff:A` for IPv4.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}
