//! Rules over keepalived.conf itself.
//!
//! Owns what breaks a rule of scripts, vrrp_strict, VRRP blocks and virtual servers, and which of keepalived's own
//! messages are findings. What the file says together with desired-state files is in `files`. A rule about scripts holds
//! for every script where keepalived's treatment is wrong for all of them, and otherwise for those that call lvs-notify; a
//! script that calls it from within is given the benefit of the doubt. Called by `check`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::keepalived_conf::meaning::{Block, Call, Conf, NOTIFY, Notify};
use crate::model::{Family, Forward, Role};
use crate::text::did_you_mean;

use super::facts::Input;
use super::facts::{Fault, Host};
use super::rules::{Findings, Rule};

pub fn check(input: Input<'_>, found: &mut Findings) {
    let Some(conf) = input.conf else { return };
    for trouble in &conf.tree.troubles {
        let rule = if trouble.unread { Rule::W63 } else { Rule::E38 };
        found.add(rule, Some(&trouble.file), Some(trouble.line), trouble.message.as_str());
    }
    if let Some(first) = conf.scripts().next().filter(|_| !conf.security) {
        found.at(Rule::W19, conf.tree.all("global_defs").next().unwrap_or(first.at), "");
    }
    let on_stop = conf.tree.globals("lvs_flush_on_stop").filter(|line| line.value(1) != "VS");
    for line in conf.tree.globals("lvs_flush").chain(on_stop) {
        found.at(Rule::E21, line, line.keyword());
    }
    for block in &conf.blocks {
        unknown_keywords(block, found);
        for notify in &block.scripts {
            script(block, notify, conf, input.host, found);
        }
        if block.scripts.iter().any(|notify| notify.call.is_some()) {
            roles(block, conf, found);
        }
        if block.members.is_none() {
            vrrp(block, found);
        }
    }
    if let Some(host) = input.host {
        virtual_servers(conf, host, found);
    }
}

/// Unknown keywords of a block that were meant for notify.
fn unknown_keywords(block: &Block<'_>, found: &mut Findings) {
    let names = NOTIFY.map(|(keyword, _)| keyword);
    for line in &block.at.children {
        let keyword = line.keyword();
        let alike = |known: &&str| strsim::damerau_levenshtein(keyword, known) <= 2;
        let known = names.contains(&keyword) || keyword == "notify_priority_changes";
        if !known && (keyword.starts_with("notif") || names.iter().any(alike)) {
            found.at(Rule::E29, line, format!("`{keyword}`{}", did_you_mean(keyword, &names)));
        }
    }
}

/// One script: quoting, user, security, path, arguments.
fn script(
    block: &Block<'_>,
    notify: &Notify<'_>,
    conf: &Conf<'_>,
    host: Option<&Host>,
    found: &mut Findings,
) {
    let (place, argv) = (notify.at, notify.argv.as_slice());
    let program = argv.first().map_or("", String::as_str);
    if let Some(user) = &notify.user {
        // A user after the script is legal. It is a lost argument when nobody has that name, or when it
        // is one of our words: Debian has users `backup` and `news`, and lvs-notify never takes a user.
        let unknown = host.is_some_and(|host| !host.users.contains_key(user));
        if unknown || (notify.call.is_some() && argv.len() == 1) {
            return found.at(Rule::E01, place, format!("`{user}` after {program}"));
        }
    }
    let is_shell = matches!(program.rsplit('/').next(), Some("sh" | "bash" | "dash" | "busybox" | "env"));
    let shell = argv.iter().skip(1).find(|word| is_shell_syntax(word)).filter(|_| !is_shell);
    if let Some(word) = shell {
        found.at(Rule::E17, place, format!("`{word}` in the script of {}", place.keyword()));
    }
    match host.and_then(|host| host.programs.get(program)) {
        Some(Fault::Unusable(why)) => found.at(Rule::E04, place, why.as_str()),
        // Without enable_script_security it is run all the same, and W19 says so.
        Some(Fault::Unsafe(why)) if conf.security => found.at(Rule::E04, place, why.as_str()),
        _ => {}
    }
    let Some(call) = &notify.call else { return };
    user(notify, conf, host, found);
    if shell.is_none() {
        arguments(block, notify, call, found);
    }
    let confined = program.starts_with('/') && !program.starts_with("/usr/libexec/keepalived/");
    if confined && host.is_some_and(|host| host.selinux_enforcing) {
        found.at(Rule::I32, place, program);
    }
}

/// As whom keepalived runs it: the user named after it, script_user, keepalived_script if there is one, or
/// else root; but with enable_script_security nobody.
fn user(notify: &Notify<'_>, conf: &Conf<'_>, host: Option<&Host>, found: &mut Findings) {
    let uid = |user: &str| host.and_then(|host| host.users.get(user)).copied();
    let default = uid("keepalived_script").map(|_| "keepalived_script");
    match notify.user.as_deref().or(conf.script_user).or(default) {
        Some(user) if uid(user).unwrap_or(u32::from(user != "root")) != 0 => {
            found.at(Rule::E02, notify.at, format!("as {user}"));
        }
        None if conf.security && host.is_some() => found.at(Rule::E03, notify.at, ""),
        _ => {}
    }
}

/// What lvs-notify is asked, against the keyword that asks.
fn arguments(block: &Block<'_>, notify: &Notify<'_>, call: &Call, found: &mut Findings) {
    let (keyword, command) = (notify.at.keyword(), call.command.as_str());
    let by_name = keyword != "notify" && block.members.is_none() && call.config.is_none();
    let other = call.instance.as_ref().filter(|name| by_name && **name != block.name);
    if keyword == "notify" && command.parse::<Role>().is_ok() {
        found.at(Rule::W26, notify.at, format!("`lvs-notify {command}`"));
    } else if !notify.expected.contains(&command) {
        let expected = notify.expected.join("` or `");
        found.at(Rule::W25, notify.at, format!("{keyword} calls `lvs-notify {command}`, not `{expected}`"));
    } else if let Some(name) = other {
        found.at(Rule::W25, notify.at, format!("{keyword} of {} names {name}", block.name));
    }
}

fn is_shell_syntax(word: &str) -> bool {
    let named = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase() || c == '{' || c == '(');
    word.ends_with(';')
        || word.starts_with(['>', '<', ';', '|', '&'])
        || word.starts_with("2>")
        || word.contains('`')
        || word.split('$').skip(1).any(named)
}

/// Which changes of state reach lvs-notify. A generic notify gets them all; a keyword with another
/// program may call lvs-notify from within.
fn roles(block: &Block<'_>, conf: &Conf<'_>, found: &mut Findings) {
    let name = block.name;
    let has = |keyword| block.has(keyword) || conf.groups_of(name).any(|group| group.has(keyword));
    for (rule, keyword) in [
        (Rule::E37, "notify_master"),
        (Rule::E37, "notify_backup"),
        (Rule::E12, "notify_fault"),
        (Rule::W13, "notify_stop"),
    ] {
        if !has(keyword) && !has("notify") {
            found.at(rule, block.at, format!("{name} has no {keyword}"));
        }
    }
    let Some(members) = &block.members else {
        // Not one of the states: a generic notify is not called for it. It takes both: the other director leaves
        // without a word, mostly, unless it is to answer (seen with two directors under 2.2.7).
        let keyword = match has("notify_master_rx_lower_pri") {
            false => "notify_master_rx_lower_pri",
            true if !block.higher_prio_send_advert => "higher_prio_send_advert",
            true => return,
        };
        return found.at(Rule::I27, block.at, format!("{name} has no {keyword}"));
    };
    let mut instances = conf.instances().filter(|instance| members.contains(&instance.name));
    let told = |block: &Block<'_>| block.has("notify_stop") || block.has("notify");
    // A generic notify of a group is not waited for either.
    if told(block) && !instances.any(told) {
        found.at(Rule::W14, block.at, name);
    }
}

/// An instance's own settings.
fn vrrp(block: &Block<'_>, found: &mut Findings) {
    let (at, name) = (block.at, block.name);
    let owner = block.priority == 255;
    if block.strict && !owner {
        match at.last("accept") {
            Some(accept) if block.version < 3 => found.at(Rule::E06, accept, name),
            Some(_) => {}
            None => found.at(Rule::E05, at, format!("{name} has priority {}", block.priority)),
        }
    } else if let Some(place) = at.last("no_accept").filter(|_| !owner) {
        found.at(Rule::E05, place, format!("no_accept of {name}"));
    }
    let empty = block.vips.iter().all(|vip| vip.excluded);
    if empty && (block.version >= 3 || block.strict) && at.last("no_virtual_ipaddress").is_none() {
        found.at(Rule::E11, at, name);
    }
    for vip in &block.vips {
        if vip.device == "lo" && vip.prefix != Family::of(vip.address).host_prefix() {
            found.at(Rule::E35, vip.at, format!("{}/{}", vip.address, vip.prefix));
        }
    }
}

/// virtual_server blocks that hand packets to this host, whoever owns the service.
fn virtual_servers(conf: &Conf<'_>, host: &Host, found: &mut Findings) {
    // `lvs_sync_daemon INTERFACE inst INSTANCE`, without `inst` in older files: with backup_only IPVS is off while BACKUP.
    let follows_vrrp = conf.tree.globals("lvs_sync_daemon").any(|line| !line.value(2).is_empty());
    if follows_vrrp && host.parameter("net/ipv4/vs/backup_only") != "0" {
        return;
    }
    for server in &conf.servers {
        for real in server.at.all("real_server") {
            let method = match server.method(real) {
                Some(Forward::DR) => "DR",
                Some(Forward::TUN) => "TUN",
                _ => continue,
            };
            if real.value(1).parse().is_ok_and(|address| host.has_address(address)) {
                found.at(Rule::E22, real, format!("{} is this host, by {method}", real.value(1)));
            }
        }
    }
}

/// What `keepalived -t` says of lines that no rule is about. It says the same several times. After a `{` that it ignores,
/// everything up to the end of the file can be unknown to it: such lines are told with the first one.
pub fn said(input: Input<'_>, found: &mut Findings) {
    const LOST: &str = "; lines lost with it: ";
    let (Some(conf), Some(text)) = (input.conf, input.said) else { return };
    let foreign = ["exist", "default user", "user/group"];
    let mut lines: BTreeMap<(&Path, usize), Vec<&str>> = BTreeMap::new();
    for (place, message) in text.lines().filter_map(|line| message_of(line, &conf.tree.files)) {
        // Of another host than this one.
        if input.host.is_none() && foreign.iter().any(|word| message.contains(word)) {
            continue;
        }
        let messages = lines.entry(place).or_default();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    let unknown =
        |message: &&str| message.starts_with("Unknown keyword") || message.starts_with("Unexpected");
    // The finding of each file's first ignored `{`; none where a rule is about that line.
    let mut lost: BTreeMap<&Path, Option<usize>> = BTreeMap::new();
    for ((file, line), messages) in lines {
        if let Some(first) = lost.get(file).filter(|_| messages.iter().all(unknown)) {
            if let Some(first) = first.and_then(|first| found.0.get_mut(first)) {
                let joint = if first.what.contains(LOST) { ", " } else { LOST };
                first.what += &format!("{joint}{line}");
            }
            continue;
        }
        let name = file.display().to_string();
        let ours = found.0.iter().any(|one| one.line == Some(line) && one.file.as_ref() == Some(&name));
        if messages.iter().any(|message| message.starts_with("Unexpected '{'")) {
            lost.entry(file).or_insert((!ours).then_some(found.0.len()));
        }
        if !ours {
            let warns = messages.iter().all(|message| message.to_ascii_lowercase().starts_with("warning"));
            let rule = if warns { Rule::W62 } else { Rule::E61 };
            found.add(rule, Some(file), Some(line), messages.join("; "));
        }
    }
}

/// `(FILE: Line N) MESSAGE`, where FILE is the name that an include has for it, which may be relative; it is left out where
/// there is only one.
fn message_of<'l, 'f>(line: &'l str, files: &'f [PathBuf]) -> Option<((&'f Path, usize), &'l str)> {
    let (place, message) = line.strip_prefix('(')?.split_once(") ")?;
    let (name, number) = place.rsplit_once("Line ")?;
    let name = name.trim_end_matches(": ");
    let file = files.iter().find(|file| file.ends_with(name) && (!name.is_empty() || files.len() == 1))?;
    Some(((file, number.parse().ok()?), message))
}
