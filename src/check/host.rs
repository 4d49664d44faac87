//! Rules over this host: what must be true of it for the desired-state files to work.
//!
//! Owns the judgement only; `facts` has read everything. Rules about scripts that need the host (users, paths, SELinux)
//! are in `keepalived`, with the other rules about scripts. Called by `check`.

use std::collections::BTreeSet;

use crate::keepalived_conf::meaning::Conf;
use crate::model::{Family, Forward};

use super::facts::Host;
use super::rules::{File, Findings, Input, Rule};

pub(super) fn check(host: &Host, conf: Option<&Conf<'_>>, input: Input<'_>, found: &mut Findings) {
    if host.unit_kill_mode_process == Some(false) && conf.is_none_or(|conf| conf.scripts().next().is_some()) {
        found.here(Rule::I33, "keepalived.service");
    }
    for file in input.files {
        interfaces(host, file, found);
        forwarding(host, file, found);
        modules(host, file, found);
        addresses(host, file, found);
        real_servers(host, file, found);
        draining(host, file, found);
    }
    for why in host.directories.iter().filter(|_| !input.files.is_empty()) {
        found.here(Rule::W58, why.as_str());
    }
}

fn interfaces(host: &Host, file: &File, found: &mut Findings) {
    let mut names = file.config.interfaces();
    names.extend(file.config.daemon.iter().map(|daemon| daemon.interface.clone()));
    for name in names {
        match host.interfaces.get(&name) {
            None => found.of(Rule::E49, file, name),
            Some(false) => found.of(Rule::W60, file, name),
            Some(true) => {}
        }
    }
}

/// Answers of masqueraded real servers pass this host and are forwarded; those of its own sockets are not.
fn forwarding(host: &Host, file: &File, found: &mut Findings) {
    for (family, parts) in [
        (Family::Ipv4, &["net", "ipv4", "ip_forward"][..]),
        (Family::Ipv6, &["net", "ipv6", "conf", "all", "forwarding"]),
    ] {
        let mut servers = file.config.services.values().flat_map(|service| &service.servers);
        let needs = servers.any(|(key, server)| {
            server.forward == Forward::NAT
                && Family::of(key.address) == family
                && !host.has_address(key.address)
        });
        if needs && host.parameter(parts) == "0" {
            found.of(Rule::E50, file, format!("{} = 0", parts.join(".")));
        }
    }
}

fn modules(host: &Host, file: &File, found: &mut Findings) {
    let Some(known) = &host.modules else { return };
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for service in file.config.services.values() {
        needed.insert("ip_vs".to_owned());
        needed.insert(format!("ip_vs_{}", service.settings.scheduler));
        if !service.settings.engine.is_empty() {
            needed.insert(format!("ip_vs_pe_{}", service.settings.engine));
        }
    }
    let missing: Vec<String> = needed.into_iter().filter(|name| !known.contains(name)).collect();
    if !missing.is_empty() {
        found.of(Rule::E51, file, missing.join(", "));
    }
}

fn addresses(host: &Host, file: &File, found: &mut Findings) {
    let config = &file.config;
    for vip in &config.vips {
        let wide = host.addresses.iter().find(|(interface, address, prefix)| {
            interface == "lo" && *address == vip.address && *prefix != Family::of(vip.address).host_prefix()
        });
        if let Some((_, address, prefix)) = wide {
            found.of(Rule::W59, file, format!("{address}/{prefix}"));
        }
        if vip.address.is_ipv6() {
            let absent = !host.parameters.contains_key("net/ipv6/conf/all/forwarding");
            let disabled =
                |interface: &str| host.parameter(&["net", "ipv6", "conf", interface, "disable_ipv6"]) != "0";
            let places = ["all", "lo"].into_iter().chain(vip.interface.as_deref());
            if let Some(place) = places.into_iter().find(|place| absent || disabled(place)) {
                found.of(Rule::E52, file, format!("{} and net.ipv6.conf.{place}", vip.address));
            }
        } else if config.keep_vips && config.arp.is_none() {
            let place = vip.interface.as_deref().unwrap_or("all");
            if host.effective("arp_ignore", place) == 0 {
                found.of(Rule::E53, file, format!("{}; arp_ignore of all and {place} is 0", vip.address));
            }
        }
    }
}

/// Real servers that are this host itself.
fn real_servers(host: &Host, file: &File, found: &mut Findings) {
    for (key, service) in &file.config.services {
        for (server, settings) in &service.servers {
            if settings.forward != Forward::NAT && host.has_address(server.address) && !file.config.keep_vips
            {
                found.of(Rule::E55, file, format!("{} of {key}", server.address));
            }
        }
    }
}

/// A file's own value counts; else the kernel's, where 0 is the default of all but conn_reuse_mode.
fn draining(host: &Host, file: &File, found: &mut Findings) {
    let value = |name: &str| {
        let own = file.config.ipvs_parameters.get(name);
        own.or_else(|| host.parameters.get(&format!("net/ipv4/vs/{name}"))).map(String::as_str)
    };
    let off = |name| value(name).unwrap_or("0") == "0";
    if value("conn_reuse_mode") == Some("0") && off("expire_nodest_conn") {
        found.of(Rule::W57, file, "conn_reuse_mode and expire_nodest_conn are 0");
    }
    let drained = file.config.services.iter().find(|(_, service)| {
        service.settings.is_persistent() && service.servers.values().any(|server| server.weight == 0)
    });
    if let Some((key, _)) = drained.filter(|_| off("expire_quiescent_template")) {
        found.of(
            Rule::W57,
            file,
            format!("{key} is persistent and has weight 0; expire_quiescent_template is 0"),
        );
    }
}
