//! Rules over this host: what must be true of it for the desired-state files to work.
//!
//! Owns the judgement only; `facts` has read everything. Rules about scripts that need the host (users, paths, SELinux)
//! are in `keepalived`, with the other rules about scripts. Called by `check`.

use std::collections::BTreeSet;

use crate::model::{Family, Forward};

use super::facts::Host;
use super::facts::{File, Input};
use super::rules::{Findings, Rule};

pub fn check(input: Input<'_>, found: &mut Findings) {
    let Some(host) = input.host else { return };
    let scripts = input.conf.is_none_or(|conf| conf.scripts().next().is_some());
    if host.unit_kill_mode_process == Some(false) && scripts {
        found.add(Rule::I33, None, None, "keepalived.service");
    }
    for why in host.directories.iter().filter(|_| !input.files.is_empty()) {
        found.add(Rule::W58, None, None, why.as_str());
    }
    for file in input.files {
        interfaces(host, file, found);
        real_servers(host, file, found);
        modules(host, file, found);
        addresses(host, file, found);
        draining(host, file, found);
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

/// Real servers that are this host itself; and whether answers of the others, where they are masqueraded, are forwarded.
fn real_servers(host: &Host, file: &File, found: &mut Findings) {
    for (key, service) in &file.config.services {
        for (server, settings) in service.servers.iter() {
            let address = server.address;
            let forwarding = match Family::of(address) {
                Family::Ipv4 => "net/ipv4/ip_forward",
                Family::Ipv6 => "net/ipv6/conf/all/forwarding",
            };
            match (settings.forward == Forward::NAT, host.has_address(address)) {
                (true, false) if host.parameter(forwarding) == "0" => {
                    found.of(Rule::E50, file, format!("{} = 0", forwarding.replace('/', ".")));
                }
                (false, true) if !file.config.keep_vips => {
                    found.of(Rule::E55, file, format!("{address} of {key}"));
                }
                _ => {}
            }
        }
    }
}

fn modules(host: &Host, file: &File, found: &mut Findings) {
    let Some(known) = &host.modules else { return };
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for service in file.config.services.values() {
        needed.extend(["ip_vs".to_owned(), format!("ip_vs_{}", service.settings.scheduler)]);
        if !service.settings.engine.is_empty() {
            needed.insert(format!("ip_vs_pe_{}", service.settings.engine));
        }
    }
    let missing: Vec<&str> = needed.difference(known).map(String::as_str).collect();
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
            let disabled = |interface: &&str| {
                absent || host.parameter(&format!("net/ipv6/conf/{interface}/disable_ipv6")) != "0"
            };
            if let Some(place) = ["all", "lo"].into_iter().chain(vip.interface.as_deref()).find(disabled) {
                found.of(Rule::E52, file, format!("{} and net.ipv6.conf.{place}", vip.address));
            }
        } else if config.keep_vips && config.arp.is_none() {
            let place = vip.interface.as_deref().unwrap_or("all");
            if host.arp_ignore(place) == 0 {
                found.of(Rule::E53, file, format!("{}; arp_ignore of all and {place} is 0", vip.address));
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
        let what = format!("{key} is persistent and has weight 0; expire_quiescent_template is 0");
        found.of(Rule::W57, file, what);
    }
}
