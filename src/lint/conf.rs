//! What lint reads from keepalived.conf: global settings, VRRP blocks, their scripts and addresses,
//! virtual servers.
//!
//! Owns the meaning of keepalived's keywords; judges none of them. Used by the rules.

use std::net::IpAddr;
use std::path::Path;

use crate::keepalived_conf::{Script, Statement, Tree};
use crate::model::Family;

/// keepalived.conf.
pub(super) struct Conf<'a> {
    pub(super) tree: &'a Tree,
    /// VRRP instances and sync groups, in order
    pub(super) blocks: Vec<Block<'a>>,
    pub(super) servers: Vec<VirtualServer<'a>>,
    pub(super) script_user: Option<&'a str>,
    pub(super) security: bool,
}

/// A vrrp_instance or a vrrp_sync_group.
pub(super) struct Block<'a> {
    pub(super) at: &'a Statement,
    pub(super) name: &'a str,
    /// Instances of a sync group; `None` for an instance
    pub(super) members: Option<Vec<&'a str>>,
    pub(super) scripts: Vec<Notify<'a>>,
    pub(super) addresses: Vec<Address<'a>>,
    /// vrrp_strict or strict_mode
    pub(super) strict: bool,
    /// A MASTER that hears a higher priority says so before it becomes BACKUP
    pub(super) answers_higher: bool,
    pub(super) version: u32,
    pub(super) priority: u32,
}

/// A notify keyword.
pub(super) struct Notify<'a> {
    pub(super) at: &'a Statement,
    pub(super) script: Script,
    /// What it asks of lvs-notify, when that is the program
    pub(super) call: Option<Call>,
}

/// A call of lvs-notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) command: String,
    pub(super) instance: Option<String>,
    pub(super) config: Option<String>,
}

/// An address of virtual_ipaddress or virtual_ipaddress_excluded.
pub(super) struct Address<'a> {
    pub(super) at: &'a Statement,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    /// `dev`, or the instance's interface
    pub(super) device: &'a str,
    pub(super) excluded: bool,
}

/// A virtual_server, once for each of its addresses or marks.
pub(super) struct VirtualServer<'a> {
    pub(super) at: &'a Statement,
    pub(super) address: Option<IpAddr>,
    pub(super) port: &'a str,
    pub(super) mark: Option<u32>,
}

/// Notify keywords that keepalived has for the script of a state.
pub(super) const NOTIFY: [&str; 7] = [
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_deleted",
    "notify_master_rx_lower_pri",
];

impl<'a> Conf<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let global = |keyword| tree.globals(keyword).last();
        let strict = global("vrrp_strict").is_some_and(on);
        let version = global("vrrp_version").map_or(2, |found| found.value(1).parse().unwrap_or(2));
        let answers = global("vrrp_higher_prio_send_advert").is_some_and(on);
        let blocks = tree
            .statements
            .iter()
            .filter(|found| matches!(found.keyword(), "vrrp_instance" | "vrrp_sync_group"))
            .map(|found| Block::of(found, strict, version, answers))
            .collect();
        Self {
            tree,
            blocks,
            servers: tree.all("virtual_server").flat_map(|found| virtual_servers(tree, found)).collect(),
            script_user: global("script_user").map(|found| found.value(1)),
            security: global("enable_script_security").is_some(),
        }
    }

    pub(super) fn scripts(&self) -> impl Iterator<Item = &Notify<'a>> {
        self.blocks.iter().flat_map(|block| &block.scripts)
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Block<'a>> {
        self.blocks.iter().filter(|block| block.members.is_none())
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address<'a>> {
        self.blocks.iter().flat_map(|block| &block.addresses)
    }

    /// keepalived tells the daemon which state to have: `lvs_sync_daemon INTERFACE inst INSTANCE`, with the
    /// instance's name alone in older files.
    pub(super) fn sync_follows_vrrp(&self) -> bool {
        self.tree.globals("lvs_sync_daemon").any(|found| !found.value(2).is_empty())
    }
}

impl<'a> Block<'a> {
    fn of(at: &'a Statement, strict: bool, version: u32, answers: bool) -> Self {
        let group = at.keyword() == "vrrp_sync_group";
        let addresses = ["virtual_ipaddress", "virtual_ipaddress_excluded"];
        let interface = at.last("interface").map_or("", |found| found.value(1));
        let addresses: Vec<Address<'a>> = addresses
            .iter()
            .flat_map(|keyword| at.all(keyword).flat_map(|list| &list.children))
            .filter_map(|line| address(line, at, interface))
            .collect();
        let strict = at.last("strict_mode").map_or(strict, on);
        // With vrrp_strict, an IPv6 instance is made one of version 3.
        let six = addresses.first().is_some_and(|first| first.address.is_ipv6());
        let default = if strict && six { 3 } else { version };
        let number = |keyword, default| {
            at.last(keyword).and_then(|found: &Statement| found.value(1).parse().ok()).unwrap_or(default)
        };
        let members = at.all("group").flat_map(|list| &list.children).flat_map(|line| &line.words);
        Self {
            at,
            name: at.value(1),
            members: group.then(|| members.map(|word| word.text.as_str()).collect()),
            scripts: at.children.iter().filter_map(notify).collect(),
            addresses,
            strict: strict && !group,
            answers_higher: at.last("higher_prio_send_advert").map_or(answers, on),
            version: number("version", default),
            priority: number("priority", 100),
        }
    }

    /// Scripts that call lvs-notify, with what they ask of it.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&Notify<'a>, &Call)> {
        self.scripts.iter().filter_map(|notify| Some((notify, notify.call.as_ref()?)))
    }

    pub(super) fn has(&self, keyword: &str) -> bool {
        self.scripts.iter().any(|notify| notify.at.keyword() == keyword)
    }

    /// Names of the desired-state files that its scripts drive. A call without a name is for `only`.
    pub(super) fn drives<'b>(&'b self, only: Option<&'b str>) -> Vec<&'b str> {
        let name = |call: &'b Call| match (&call.config, &call.instance) {
            (Some(path), _) => Path::new(path).file_stem().and_then(|stem| stem.to_str()),
            (None, Some(name)) => Some(name.as_str()),
            (None, None) if call.command == "notify" => Some(self.name),
            (None, None) => only,
        };
        let mut names: Vec<&str> = self.calls().filter_map(|(_, call)| name(call)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A switch that is on when it stands alone.
fn on(at: &Statement) -> bool {
    !matches!(at.value(1), "off" | "false" | "no")
}

fn notify(at: &Statement) -> Option<Notify<'_>> {
    if !NOTIFY.contains(&at.keyword()) {
        return None;
    }
    // An open quote is told by the parser.
    let script = at.script().unwrap_or_default();
    let call = call(&script);
    Some(Notify { at, script, call })
}

/// Reads the command line of lvs-notify: what it is asked, whatever order its options have.
fn call(script: &Script) -> Option<Call> {
    let (program, words) = script.argv.split_first()?;
    if Path::new(program).file_name()? != "lvs-notify" {
        return None;
    }
    let mut call = Call { command: String::new(), instance: None, config: None };
    let mut words = words.iter();
    let mut plain = Vec::new();
    while let Some(word) = words.next() {
        match word.strip_prefix("--config=") {
            Some(path) => call.config = Some(path.to_owned()),
            None if word == "-c" || word == "--config" => call.config = words.next().cloned(),
            None if word.starts_with('-') => {}
            None => plain.push(word.clone()),
        }
    }
    let mut plain = plain.into_iter();
    call.command = plain.next().unwrap_or_default();
    call.instance = plain.next();
    Some(call)
}

/// A line of virtual_ipaddress; what is no address is no concern of ours.
fn address<'a>(at: &'a Statement, block: &'a Statement, interface: &'a str) -> Option<Address<'a>> {
    let (address, prefix) = at.keyword().split_once('/').unwrap_or((at.keyword(), ""));
    let address: IpAddr = address.parse().ok()?;
    let device = at.values().skip_while(|word| *word != "dev").nth(1).unwrap_or(interface);
    let listed = |list: &Statement| list.children.iter().any(|line| std::ptr::eq(line, at));
    let prefix = prefix.parse().unwrap_or(Family::of(address).host_prefix());
    Some(Address {
        at,
        address,
        prefix,
        device,
        excluded: block.all("virtual_ipaddress_excluded").any(listed),
    })
}

/// `virtual_server ADDRESS PORT`, `virtual_server fwmark N`, `virtual_server group NAME`.
fn virtual_servers<'a>(tree: &'a Tree, at: &'a Statement) -> Vec<VirtualServer<'a>> {
    let one = |words: &mut dyn Iterator<Item = &'a str>| {
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mark = (first == "fwmark").then(|| second.parse().ok()).flatten();
        // A range, as in 192.0.2.1-9, counts with its first address.
        let address = first.split('-').next().and_then(|text| text.parse().ok());
        VirtualServer { at, address, port: second, mark }
    };
    if at.value(1) != "group" {
        return vec![one(&mut at.values())];
    }
    tree.all("virtual_server_group")
        .filter(|group| group.value(1) == at.value(2))
        .flat_map(|group| &group.children)
        .map(|line| one(&mut line.words.iter().map(|word| word.text.as_str())))
        .collect()
}
