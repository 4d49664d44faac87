//! Rules over keepalived.conf itself.
//!
//! Owns what breaks a rule of scripts, vrrp_strict, VRRP blocks and virtual servers, and which of keepalived's own
//! messages are findings. What the file says together with desired-state files is in `files`. A rule about scripts holds
//! for every script where keepalived's treatment is wrong for all of them, and otherwise for those that call lvs-notify; a
//! script that calls it from within is given the benefit of the doubt. Called by `check`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::keepalived_conf::meaning::{Block, Conf, NOTIFY, Notify};
use crate::model::{Family, Forward, Role};

use super::facts::{Host, Program};
use super::rules::{Findings, Input, Rule};

pub(super) fn check(conf: &Conf<'_>, input: Input<'_>, found: &mut Findings) {
    for trouble in &conf.tree.troubles {
        let rule = if trouble.unread { Rule::W63 } else { Rule::E38 };
        found.line(rule, &trouble.file, trouble.line, trouble.message.as_str());
    }
    globals(conf, found);
    for block in &conf.blocks {
        keywords(block, found);
        for notify in &block.scripts {
            script(block, notify, conf, input, found);
        }
        if block.calls().next().is_some() {
            roles(block, conf, found);
        }
        if block.members.is_none() {
            vrrp(block, found);
        }
    }
    virtual_servers(conf, input.host, found);
}

fn globals(conf: &Conf<'_>, found: &mut Findings) {
    let scripts = conf.scripts().next();
    if let Some(first) = scripts.filter(|_| !conf.security) {
        let place = conf.tree.all("global_defs").next().unwrap_or(first.at);
        found.at(Rule::W19, place, "");
    }
    for place in conf.tree.globals("lvs_flush") {
        found.at(Rule::E21, place, "lvs_flush");
    }
    for place in conf.tree.globals("lvs_flush_on_stop").filter(|place| place.value(1) != "VS") {
        found.at(Rule::E21, place, "lvs_flush_on_stop");
    }
}

/// Keywords of a block: unknown ones that were meant for notify, and repeated ones.
fn keywords(block: &Block<'_>, found: &mut Findings) {
    let mut seen: Vec<&str> = Vec::new();
    for line in &block.at.children {
        let keyword = line.keyword();
        if NOTIFY.contains(&keyword) {
            if seen.contains(&keyword) {
                found.at(Rule::E16, line, format!("{keyword} of {}", block.name));
            }
            seen.push(keyword);
        } else if keyword != "notify_priority_changes"
            && (keyword.starts_with("notif")
                || NOTIFY.iter().any(|known| strsim::damerau_levenshtein(keyword, known) <= 2))
        {
            let hint = crate::text::did_you_mean(keyword, &NOTIFY);
            found.at(Rule::E29, line, format!("`{keyword}`{hint}"));
        }
    }
}

/// One script: quoting, user, security, path, arguments.
fn script(block: &Block<'_>, notify: &Notify<'_>, conf: &Conf<'_>, input: Input<'_>, found: &mut Findings) {
    let (place, argv) = (notify.at, notify.argv.as_slice());
    let program = argv.first().map_or("", String::as_str);
    if let Some(user) = &notify.user {
        // A user after the script is legal. It is a lost argument when nobody has that name, or when it
        // is one of our words: Debian has users `backup` and `news`, and lvs-notify never takes a user.
        let unknown = input.host.is_some_and(|host| !host.users.contains_key(user));
        if unknown || (notify.call.is_some() && argv.len() == 1) {
            found.at(Rule::E01, place, format!("`{user}` after {program}"));
            return;
        }
    }
    let shell = argv.iter().skip(1).find(|word| is_shell_syntax(word)).filter(|_| !is_shell(argv));
    if let Some(word) = shell {
        found.at(Rule::E17, place, format!("`{word}` in the script of {}", place.keyword()));
    }
    if notify.call.is_some() {
        user(notify, conf, input.host, found);
        if shell.is_none() {
            arguments(block, notify, found);
        }
    }
    match input.host.and_then(|host| host.programs.get(program)) {
        Some(Program::Missing) => found.at(Rule::E04, place, format!("{program} does not exist")),
        Some(Program::NotExecutable) => found.at(Rule::E04, place, format!("{program} is not executable")),
        // Without enable_script_security it is run all the same, and W19 says so.
        Some(Program::Unsafe(why)) if conf.security => found.at(Rule::E04, place, why.clone()),
        _ => {}
    }
    if input.host.is_some_and(|host| host.selinux_enforcing)
        && notify.call.is_some()
        && program.starts_with('/')
        && !program.starts_with("/usr/libexec/keepalived/")
    {
        found.at(Rule::I32, place, program);
    }
}

/// As whom keepalived runs it: the user named after it, script_user, keepalived_script if there is one, or
/// else root; but with enable_script_security nobody.
fn user(notify: &Notify<'_>, conf: &Conf<'_>, host: Option<&Host>, found: &mut Findings) {
    let default = host.and_then(|host| host.users.get("keepalived_script")).map(|_| "keepalived_script");
    let named = notify.user.as_deref().or(conf.script_user).or(default);
    match named {
        None if conf.security && host.is_some() => found.at(Rule::E03, notify.at, ""),
        Some(user) => {
            let uid = host.and_then(|host| host.users.get(user)).copied();
            if uid.unwrap_or(u32::from(user != "root")) != 0 {
                found.at(Rule::E02, notify.at, format!("as {user}"));
            }
        }
        None => {}
    }
}

/// What lvs-notify is asked, against the keyword that asks.
fn arguments(block: &Block<'_>, notify: &Notify<'_>, found: &mut Findings) {
    let Some(call) = &notify.call else { return };
    let (keyword, command) = (notify.at.keyword(), call.command.as_str());
    let expected: &[&str] = match keyword {
        "notify" => &["notify"],
        "notify_master" => &["master"],
        "notify_backup" => &["backup"],
        "notify_fault" => &["fault"],
        "notify_master_rx_lower_pri" => &["master", "apply"],
        _ => &["stop"],
    };
    if keyword == "notify" && command.parse::<Role>().is_ok() {
        found.at(Rule::W26, notify.at, format!("`lvs-notify {command}`"));
    } else if !expected.contains(&command) {
        let what = format!("{keyword} calls `lvs-notify {command}`, not `{}`", expected.join("` or `"));
        found.at(Rule::W25, notify.at, what);
    } else if keyword != "notify" && block.members.is_none() && call.config.is_none() {
        if let Some(name) = call.instance.as_ref().filter(|name| **name != block.name) {
            found.at(Rule::W25, notify.at, format!("{keyword} of {} names {name}", block.name));
        }
    }
}

fn is_shell(argv: &[String]) -> bool {
    let name = argv.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    matches!(name, "sh" | "bash" | "dash" | "busybox" | "env")
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
    let grouped = |keyword: &str| conf.groups_of(block.name).any(|group| group.has(keyword));
    let missing =
        |keyword: &str| ![keyword, "notify"].iter().any(|keyword| block.has(keyword) || grouped(keyword));
    for (rule, keyword) in [
        (Rule::E37, "notify_master"),
        (Rule::E37, "notify_backup"),
        (Rule::E12, "notify_fault"),
        (Rule::W13, "notify_stop"),
    ] {
        if missing(keyword) {
            found.at(rule, block.at, format!("{} has no {keyword}", block.name));
        }
    }
    // Not one of the states: a generic notify is not called for it. It takes both: the other director leaves
    // without a word, mostly, unless it is to answer (seen with two directors under 2.2.7).
    let keyword = "notify_master_rx_lower_pri";
    if block.members.is_none() && !block.has(keyword) && !grouped(keyword) {
        found.at(Rule::I27, block.at, format!("{} has no {keyword}", block.name));
    } else if block.members.is_none() && !block.higher_prio_send_advert {
        found.at(Rule::I27, block.at, format!("{} has no higher_prio_send_advert", block.name));
    }
    let Some(members) = &block.members else { return };
    let mut instances = conf.instances().filter(|instance| members.contains(&instance.name));
    let told = |block: &Block<'_>| block.has("notify_stop") || block.has("notify");
    // A generic notify of a group is not waited for either.
    if told(block) && !instances.any(told) {
        found.at(Rule::W14, block.at, block.name);
    }
}

/// An instance's own settings.
fn vrrp(block: &Block<'_>, found: &mut Findings) {
    let at = block.at;
    let owner = block.priority == 255;
    let name = block.name;
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
    if let Some(place) = at.last("interface").filter(|place| place.value(1) == "lo") {
        found.at(Rule::E30, place, name);
    }
    for vip in &block.vips {
        if vip.device == "lo" && vip.prefix != Family::of(vip.address).host_prefix() {
            found.at(Rule::E35, vip.at, format!("{}/{}", vip.address, vip.prefix));
        }
    }
}

/// virtual_server blocks that hand packets to this host, whoever owns the service.
fn virtual_servers(conf: &Conf<'_>, host: Option<&Host>, found: &mut Findings) {
    let Some(host) = host else { return };
    // IPVS is off while BACKUP.
    if conf.sync_follows_vrrp() && host.parameter(&["net", "ipv4", "vs", "backup_only"]) != "0" {
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

/// What `keepalived -t` says of lines that no rule is about: `(FILE: Line N) MESSAGE`. It says the same several times,
/// and leaves the file out where there is only one. After a `{` that it ignores, everything up to the end of the file can
/// be unknown to it: such lines are told with the first one.
pub(super) fn said(text: &str, conf: &Conf<'_>, host: bool, found: &mut Findings) {
    let files = &conf.tree.files;
    let mut lines: BTreeMap<(&Path, usize), Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((place, message)) = line.strip_prefix('(').and_then(|rest| rest.split_once(") ")) else {
            continue;
        };
        let Some((name, number)) = place.rsplit_once("Line ") else { continue };
        let Ok(number) = number.parse() else { continue };
        let name = name.trim_end_matches(": ");
        let file = match files.as_slice() {
            [only] if name.is_empty() => Some(only),
            // The name that an include has for it, which may be relative.
            files => files.iter().find(|file| !name.is_empty() && file.ends_with(name)),
        };
        let Some(file) = file else { continue };
        // Of another host than this one.
        if !host && ["exist", "default user", "user/group"].iter().any(|word| message.contains(word)) {
            continue;
        }
        let messages = lines.entry((file, number)).or_default();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    let unknown =
        |message: &&str| message.starts_with("Unknown keyword") || message.starts_with("Unexpected");
    // The finding of each file's first ignored `{`, and the lines that follow from it.
    let mut lost: BTreeMap<&Path, (usize, Vec<String>)> = BTreeMap::new();
    for ((file, line), messages) in &lines {
        if let Some((_, rest)) = lost.get_mut(file).filter(|_| messages.iter().all(unknown)) {
            rest.push(line.to_string());
            continue;
        }
        let name = file.display().to_string();
        let ours = found.list.iter().any(|one| one.line == Some(*line) && one.file.as_ref() == Some(&name));
        if messages.iter().any(|message| message.starts_with("Unexpected '{'")) {
            let at = if ours { usize::MAX } else { found.list.len() };
            lost.entry(file).or_insert((at, Vec::new()));
        }
        if !ours {
            let warns = messages.iter().all(|message| message.to_ascii_lowercase().starts_with("warning"));
            found.line(if warns { Rule::W62 } else { Rule::E61 }, file, *line, messages.join("; "));
        }
    }
    for (at, rest) in lost.into_values().filter(|(_, rest)| !rest.is_empty()) {
        if let Some(first) = found.list.get_mut(at) {
            first.what += &format!("; lines lost with it: {}", rest.join(", "));
        }
    }
}
