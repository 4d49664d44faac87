//! Rules over keepalived.conf itself.
//!
//! Owns what breaks a rule of scripts, vrrp_strict and VRRP blocks, and which of keepalived's own
//! messages are findings. What the file says together with desired-state files is in `files`. A rule about scripts holds
//! for every script where keepalived's treatment is wrong for all of them, and otherwise for those that call lvs-notify; a
//! script that calls it from within is given the benefit of the doubt. Called by `check`.

use std::path::{Path, PathBuf};

use super::facts::Input;
use super::rules::{Findings, Rule};
use crate::keepalived_conf::meaning::{Block, Call, Conf, Notify};
use crate::model::Family;

pub fn check(input: Input<'_>, found: &mut Findings) {
    let Some(conf) = input.conf else { return };
    for trouble in &conf.tree.troubles {
        let rule = if trouble.unread { Rule::W63 } else { Rule::E38 };
        found.add(rule, &trouble.file, Some(trouble.line), trouble.message.as_str());
    }
    if let Some(first) = conf.scripts().next().filter(|_| !conf.security) {
        found.at(Rule::W19, conf.tree.all("global_defs").next().unwrap_or(first.at), "");
    }
    let on_stop = conf.tree.globals("lvs_flush_on_stop").filter(|line| line.value(1) != "VS");
    for line in conf.tree.globals("lvs_flush").chain(on_stop) {
        found.at(Rule::E21, line, line.keyword());
    }
    for block in &conf.blocks {
        for notify in &block.scripts {
            script(notify, block, input, found);
        }
        if block.scripts.iter().any(|notify| notify.call.is_some()) {
            roles(block, conf, found);
        }
        if block.members.is_none() {
            vrrp(block, found);
        }
    }
}

/// One script: quoting, path, arguments, user, security.
fn script(notify: &Notify<'_>, block: &Block<'_>, input: Input<'_>, found: &mut Findings) {
    let Input { conf: Some(conf), host, .. } = input else { return };
    let program = notify.argv.first().map_or("", String::as_str);
    if let Some(user) = &notify.user {
        // A user after the script is legal. It is a lost argument when nobody has that name, or when it
        // is one of our words: Debian has users `backup` and `news`, and lvs-notify never takes a user.
        let unknown = host.is_some_and(|host| !host.users.contains_key(user));
        if unknown || (notify.call.is_some() && notify.argv.len() == 1) {
            return found.at(Rule::E01, notify.at, format!("`{user}` after {program}"));
        }
    }
    if let Some(why) = host.and_then(|host| host.programs.get(program)) {
        found.at(Rule::E04, notify.at, why.as_str());
    }
    let Some(call) = &notify.call else { return };
    arguments(call, block, notify, found);
    // As whom keepalived runs it; without any of these as root, but with enable_script_security as nobody.
    let uid = |user: &str| host.and_then(|host| host.users.get(user)).copied();
    let default = uid("keepalived_script").map(|_| "keepalived_script");
    match notify.user.as_deref().or(conf.script_user).or(default) {
        Some(user) if uid(user).unwrap_or(u32::from(user != "root")) != 0 => {
            found.at(Rule::E02, notify.at, format!("as {user}"));
        }
        None if conf.security && host.is_some() => {
            found.at(Rule::E02, notify.at, "as nobody: no script_user, and no user keepalived_script");
        }
        _ => {}
    }
}

/// What lvs-notify is asked, against the keyword that asks.
fn arguments(call: &Call, block: &Block<'_>, notify: &Notify<'_>, found: &mut Findings) {
    let (keyword, command) = (notify.at.keyword(), call.command.as_str());
    let by_name = keyword != "notify" && block.members.is_none() && call.config.is_none();
    let other = call.instance.as_ref().filter(|name| by_name && **name != block.name);
    let shell = notify.argv.iter().find(|word| word.contains(['$', '`', ';', '|', '&', '<', '>']));
    if let Some(word) = shell {
        found.at(Rule::E17, notify.at, format!("`{word}` in the script of {keyword}"));
    } else if !notify.expected.contains(&command) {
        let expected = notify.expected.join("` or `");
        found.at(Rule::W25, notify.at, format!("{keyword} calls `lvs-notify {command}`, not `{expected}`"));
    } else if let Some(name) = other {
        found.at(Rule::W25, notify.at, format!("{keyword} of {} names {name}", block.name));
    }
}

/// Which changes of state reach lvs-notify. A generic notify gets them all; a keyword with another
/// program may call lvs-notify from within.
fn roles(block: &Block<'_>, conf: &Conf<'_>, found: &mut Findings) {
    let name = block.name;
    let has = |keyword| block.has(keyword) || conf.groups_of(name).any(|group| group.has(keyword));
    for keyword in ["notify_master", "notify_backup", "notify_fault", "notify_stop"] {
        if !has(keyword) && !has("notify") {
            found.at(Rule::E37, block.at, format!("{name} has no {keyword}"));
        }
    }
    let Some(members) = &block.members else {
        // Not one of the states: a generic notify is not called for it. It takes both: the other director leaves
        // without a word, mostly, unless it is to answer (seen with two directors under 2.2.7).
        let keyword = match has("notify_master_rx_lower_pri") {
            false => "notify_master_rx_lower_pri",
            true if block.is_on("higher_prio_send_advert", "vrrp_higher_prio_send_advert") => return,
            true => "higher_prio_send_advert",
        };
        return found.at(Rule::I27, block.at, format!("{name} has no {keyword}"));
    };
    let mut instances = conf.instances().filter(|instance| members.contains(&instance.name));
    let told = |block: &Block<'_>| block.has("notify_stop") || block.has("notify");
    // keepalived does not wait for a group's script when it stops, a generic one neither, and ends it half-way.
    if told(block) && !instances.any(told) {
        found.at(Rule::E37, block.at, format!("{name}, a group, has notify_stop for its instances"));
    }
}

fn vrrp(block: &Block<'_>, found: &mut Findings) {
    let at = block.at;
    let drops = if block.is_on("strict_mode", "vrrp_strict") {
        // It makes an IPv6 instance one of version 3; version 2 has no accept then.
        let three = block.setting("version", "vrrp_version").is_some_and(|line| line.value(1) == "3");
        let six = block.vips.first().is_some_and(|vip| vip.address.is_ipv6());
        at.last("accept").is_none() || !(three || six)
    } else {
        at.last("no_accept").is_some()
    };
    let priority = at.last("priority").map_or("100", |line| line.value(1));
    if drops && priority != "255" {
        found.at(Rule::E05, at, format!("{} has priority {priority}", block.name));
    }
    for vip in &block.vips {
        if vip.device == "lo" && vip.prefix != Family::of(vip.address).host_prefix() {
            found.at(Rule::E35, vip.at, format!("{}/{}", vip.address, vip.prefix));
        }
    }
}

/// What `keepalived -t` says of lines that no rule is about. It says the same several times. After a `{` that it ignores,
/// everything up to the end of the file can be unknown to it: that follows from the first one.
pub fn said(input: Input<'_>, found: &mut Findings) {
    let (Some(conf), Some(text)) = (input.conf, input.said) else { return };
    // Of another host than this one.
    let foreign = ["exist", "default user", "user/group"];
    let here = |message: &str| input.host.is_some() || !foreign.iter().any(|word| message.contains(word));
    let told = text.lines().filter_map(|line| message_of(line, &conf.tree.files));
    let mut told: Vec<_> = told.filter(|(_, message)| here(message)).collect();
    // Stable: the first message of a line decides how bad it is.
    told.sort_by_key(|(place, _)| *place);
    let mut damaged = None;
    for ((file, line), message) in told {
        let follows = ["Unknown keyword", "Unexpected"].iter().any(|start| message.starts_with(start));
        if damaged == Some(file) && follows {
            continue;
        }
        if message.starts_with("Unexpected '{'") {
            damaged = Some(file);
        }
        let warns = message.to_ascii_lowercase().starts_with("warning");
        let name = file.display().to_string();
        match found.0.iter_mut().find(|told| told.file == name && told.line == Some(line)) {
            None => found.add(if warns { Rule::W62 } else { Rule::E61 }, file, Some(line), message),
            Some(told) if ![Rule::E61, Rule::W62].contains(&told.rule) || told.what.contains(message) => {}
            Some(told) => told.what += &format!("; {message}"),
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
