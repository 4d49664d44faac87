//! Rules over keepalived.conf itself.
//!
//! Owns what breaks a rule of scripts, vrrp_strict, VRRP blocks and virtual servers. What the file says together
//! with desired-state files is in `files`. A rule about scripts holds for every script where keepalived's
//! treatment is wrong for all of them, and otherwise for those that call lvs-notify; a script that calls
//! it from within cannot be looked into, and is given the benefit of the doubt.

use crate::keepalived_conf::Statement;
use crate::kernel::host::{Host, Program};
use crate::model::Role;

use super::conf::{Block, Conf, NOTIFY, Notify};
use super::{Findings, Input, Rule};

pub(super) fn check(conf: &Conf<'_>, input: Input<'_>, found: &mut Findings) {
    for trouble in &conf.tree.troubles {
        let file = Some(trouble.file.display().to_string());
        let line = Some(trouble.line);
        found.0.push(super::Finding { rule: Rule::E38, file, line, what: trouble.message.clone() });
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
    if conf.scripts().any(|notify| notify.call.is_some()) {
        for keyword in ["net_namespace", "net_namespace_ipvs"] {
            for place in conf.tree.all(keyword).chain(conf.tree.globals(keyword)) {
                found.at(Rule::W24, place, format!("{keyword} {}", place.value(1)));
            }
        }
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
            let hint = crate::config::did_you_mean(keyword, &NOTIFY);
            found.at(Rule::E29, line, format!("`{keyword}`{hint}"));
        }
    }
}

/// One script: quoting, user, security, path, arguments.
fn script(block: &Block<'_>, notify: &Notify<'_>, conf: &Conf<'_>, input: Input<'_>, found: &mut Findings) {
    let (place, argv) = (notify.at, notify.script.argv.as_slice());
    let program = argv.first().map_or("", String::as_str);
    if let Some(user) = &notify.script.user {
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
    if !program.is_empty() && !program.starts_with('/') {
        found.at(Rule::W18, place, format!("`{program}`"));
    }
    match input.host.and_then(|host| host.programs.get(program)) {
        Some(Program::Missing) => found.at(Rule::E04, place, format!("{program} does not exist")),
        Some(Program::NotExecutable) => found.at(Rule::E04, place, format!("{program} is not executable")),
        // Without enable_script_security it is run all the same, and W19 tells.
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
    let named = notify.script.user.as_deref().or(conf.script_user).or(default);
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
        "notify_deleted" => &["stop"],
        "notify_master_rx_lower_pri" => &["master", "apply"],
        other => match other.strip_prefix("notify_") {
            Some("master") => &["master"],
            Some("backup") => &["backup"],
            Some("fault") => &["fault"],
            _ => &["stop"],
        },
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
    matches!(word, "&" | "&&" | "||" | "|" | ">" | ">>" | "<" | "2>" | "2>&1" | "&>")
        || word.ends_with(';')
        || word.starts_with(['>', '<', ';', '|', '&'])
        || word.starts_with("2>")
        || word.contains('`')
        || word.split('$').skip(1).any(named)
}

/// Which changes of state reach lvs-notify. A generic notify gets them all; a keyword with another
/// program may call lvs-notify from within.
fn roles(block: &Block<'_>, conf: &Conf<'_>, found: &mut Findings) {
    let grouped = conf
        .blocks
        .iter()
        .find(|group| group.members.as_ref().is_some_and(|members| members.contains(&block.name)));
    let told = |keyword: &str| block.has(keyword) || block.has("notify");
    let missing = |keyword: &str| {
        !told(keyword) && !grouped.is_some_and(|group| group.has(keyword) || group.has("notify"))
    };
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
    if block.members.is_none() && !block.has(keyword) && !grouped.is_some_and(|group| group.has(keyword)) {
        found.at(Rule::I27, block.at, format!("{} has no {keyword}", block.name));
    } else if block.members.is_none() && !block.answers_higher {
        found.at(Rule::I27, block.at, format!("{} has no higher_prio_send_advert", block.name));
    }
    let Some(members) = &block.members else { return };
    let instances: Vec<&Block<'_>> =
        conf.instances().filter(|instance| members.contains(&instance.name)).collect();
    // A generic notify of a group is not waited for either.
    if told("notify_stop") && !instances.iter().any(|one| one.has("notify_stop") || one.has("notify")) {
        found.at(Rule::W14, block.at, block.name);
    }
    for instance in instances.iter().filter(|instance| instance.calls().next().is_some()) {
        found.at(Rule::W15, block.at, format!("{} and {}", block.name, instance.name));
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
    if let Some(place) = at.last("unicast_peer").filter(|_| block.strict) {
        found.at(Rule::W07, place, name);
    }
    let empty = block.addresses.iter().all(|address| address.excluded);
    if empty && (block.version >= 3 || block.strict) && at.last("no_virtual_ipaddress").is_none() {
        found.at(Rule::E11, at, name);
    }
    if let Some(place) = at.last("nopreempt") {
        if at.last("state").is_some_and(|state| state.value(1) == "MASTER") {
            found.at(Rule::W28, place, format!("{name} has state MASTER"));
        }
    }
    if let Some(place) = at.last("interface").filter(|place| place.value(1) == "lo") {
        found.at(Rule::E30, place, name);
    }
    for address in &block.addresses {
        let host = crate::model::Family::of(address.address).host_prefix();
        if address.device == "lo" && address.prefix != host {
            found.at(Rule::E35, address.at, format!("{}/{}", address.address, address.prefix));
        }
    }
}

/// virtual_server blocks, for what is wrong whoever owns the service.
fn virtual_servers(conf: &Conf<'_>, host: Option<&Host>, found: &mut Findings) {
    for server in conf.tree.all("virtual_server") {
        for method in methods(server) {
            if !["NAT", "DR", "TUN"].contains(&method.value(1)) {
                found.at(Rule::E31, method, format!("`{} {}`", method.keyword(), method.value(1)));
            }
        }
        let method_of = |block: &Statement| {
            let found = ["lvs_method", "lb_kind"].iter().find_map(|keyword| block.last(keyword));
            found.map(|line| line.value(1).to_owned())
        };
        let port = conf.servers.iter().find(|one| std::ptr::eq(one.at, server)).map_or("", |one| one.port);
        let mark = server.value(1) == "fwmark";
        for real in server.all("real_server") {
            let method = method_of(real).or_else(|| method_of(server)).unwrap_or_default();
            if !matches!(method.as_str(), "DR" | "TUN") {
                continue;
            }
            if !mark && server.value(1) != "group" && real.value(2) != port {
                let what = format!("{} of {}", real.values().collect::<Vec<_>>().join(":"), server.value(1));
                found.at(Rule::W42, real, what);
            }
            let (Some(host), Ok(address)) = (host, real.value(1).parse()) else { continue };
            let only_as_backup =
                conf.sync_follows_vrrp() && host.parameter(&["net", "ipv4", "vs", "backup_only"]) != "0";
            if host.has_address(address) && !only_as_backup {
                found.at(Rule::E22, real, format!("{} is this host, by {method}", real.value(1)));
            }
        }
    }
}

fn methods(server: &Statement) -> impl Iterator<Item = &Statement> {
    let real = server.all("real_server").flat_map(|real| &real.children);
    server.children.iter().chain(real).filter(|line| matches!(line.keyword(), "lb_kind" | "lvs_method"))
}
