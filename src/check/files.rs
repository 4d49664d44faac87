//! Rules across desired-state files, and between them and keepalived.conf.
//!
//! Owns what one file alone cannot be wrong in (that is `desired`'s, and refused there). What needs only the host is in
//! `host`. Called by `check`.

use std::net::IpAddr;

use crate::config::Vip;
use crate::keepalived_conf::meaning::{Block, Conf, Service};
use crate::model::ServiceKey;

use super::facts::Host;
use super::rules::{File, Findings, Input, Rule};

pub(super) fn check(conf: Option<&Conf<'_>>, input: Input<'_>, found: &mut Findings) {
    for (index, file) in input.files.iter().enumerate() {
        for other in input.files.iter().take(index) {
            claims(file, other, found);
        }
        backup(file, input.files.len(), found);
        for vip in &file.config.vips {
            check_reachable(file, vip, conf, input.host, found);
        }
    }
    let Some(conf) = conf else { return };
    let only = match input.files {
        [only] => Some(only.instance.as_str()),
        _ => None,
    };
    for file in input.files {
        for server in &conf.servers {
            let managed = |service: &Service<'_>| match service {
                Service::Addresses(range, _) => {
                    file.config.vips.iter().any(|vip| range.contains(vip.address))
                }
                Service::Mark(mark, _) => has_mark(file, *mark),
            };
            if file.config.exclusive || server.services.iter().flatten().any(managed) {
                let what = server.at.values().collect::<Vec<_>>().join(" ");
                let why = if file.config.exclusive { ", whose table is exclusive" } else { "" };
                found.at(Rule::E20, server.at, format!("virtual_server {what}; {}{why}", file.path));
            }
        }
        if file.config.daemon.is_some() {
            for place in conf.tree.globals("lvs_sync_daemon") {
                found.at(Rule::E41, place, file.path.as_str());
            }
        }
        let drivers: Vec<&Block<'_>> =
            conf.blocks.iter().filter(|block| block.drives(only).contains(&file.instance.as_str())).collect();
        // A script of its own may call lvs-notify from within.
        let other = conf.blocks.iter().any(|block| block.name == file.instance && !block.scripts.is_empty());
        if drivers.is_empty() && !other {
            found.of(Rule::E45, file, file.instance.as_str());
        }
        let instances: Vec<&&Block<'_>> = drivers.iter().filter(|block| block.members.is_none()).collect();
        if let [first, .., last] = instances.as_slice() {
            found.at(Rule::W34, last.at, format!("{} and {} drive {}", first.name, last.name, file.path));
        }
        for block in drivers {
            check_vip_placement(file, block, conf, input.files, found);
        }
    }
    if input.complete {
        for block in &conf.blocks {
            for name in block.drives(only) {
                if !input.files.iter().any(|file| file.instance == name) {
                    found.at(Rule::E46, block.at, format!("{name}, called by {}", block.name));
                }
            }
        }
    }
}

fn has_vip(file: &File, address: IpAddr) -> bool {
    file.config.vips.iter().any(|vip| vip.address == address)
}

fn has_mark(file: &File, wanted: u32) -> bool {
    file.config.services.keys().any(|key| matches!(key, ServiceKey::Fwmark { mark, .. } if *mark == wanted))
}

/// What two files both want: a VIP with its services, a mark, the sync daemon, the whole table, or
/// different values of one parameter.
fn claims(file: &File, other: &File, found: &mut Findings) {
    let (one, two) = (&file.config, &other.config);
    let mut claim = |what: String| found.of(Rule::E44, file, format!("{what}, also in {}", other.path));
    for vip in one.vips.iter().filter(|vip| has_vip(other, vip.address)) {
        claim(format!("VIP {}", vip.address));
    }
    for key in one.services.keys().filter(|key| two.services.contains_key(key)) {
        // A service on a VIP is reported with the VIP.
        if matches!(key, ServiceKey::Fwmark { .. }) {
            claim(format!("service {key}"));
        }
    }
    if one.daemon.is_some() && two.daemon.is_some() {
        claim("the sync daemon".to_owned());
    }
    if one.exclusive || two.exclusive {
        claim("the IPVS table, which is `exclusive` to one of them".to_owned());
    }
    if let (Some(one), Some(two)) = (one.arp, two.arp) {
        if (one.ignore, one.announce) != (two.ignore, two.announce) {
            claim("net.ipv4.conf.all.arp_ignore and arp_announce, with other values".to_owned());
        }
    }
    for (name, value) in &one.ipvs_parameters {
        if two.ipvs_parameters.get(name).is_some_and(|other| other != value) {
            claim(format!("net.ipv4.vs.{name}, with another value"));
        }
    }
    let differ = |one: u32, two: u32| one != 0 && two != 0 && one != two;
    let (one, two) = (one.timeouts, two.timeouts);
    if differ(one.tcp, two.tcp) || differ(one.tcp_fin, two.tcp_fin) || differ(one.udp, two.udp) {
        claim("the timeouts, with other values".to_owned());
    }
}

fn is_off_on_backup(file: &File) -> bool {
    let parameter = file.config.ipvs_parameters.get("backup_only");
    parameter.is_some_and(|value| value != "0") && file.config.daemon.is_some()
}

fn backup(file: &File, files: usize, found: &mut Findings) {
    if is_off_on_backup(file) && files > 1 {
        found.of(Rule::E47, file, format!("{} with {} others", file.instance, files - 1));
    }
    let marks = file.config.services.keys().any(|key| matches!(key, ServiceKey::Fwmark { .. }));
    if file.config.keep_services && marks && !is_off_on_backup(file) {
        found.of(Rule::W48, file, file.instance.as_str());
    }
}

/// Whether clients find a VIP. One without `interface` is fine where it is routed to this host; that it
/// is not shows in an address of this host whose network has the VIP in it. keepalived may put it on
/// an interface, where it answers and is announced.
fn check_reachable(
    file: &File,
    vip: &Vip,
    conf: Option<&Conf<'_>>,
    host: Option<&Host>,
    found: &mut Findings,
) {
    let elsewhere = conf.is_some_and(|conf| {
        let mut all = conf.blocks.iter().flat_map(|block| &block.vips);
        all.any(|other| other.address == vip.address && other.device != "lo")
    });
    if elsewhere {
        return;
    }
    if vip.interface.is_some() {
        if file.config.announce.0 == 0 {
            found.of(Rule::W10, file, vip.address.to_string());
        }
        return;
    }
    let on_link = host.into_iter().flat_map(|host| &host.addresses).find(|(interface, own, prefix)| {
        interface != "lo" && *own != vip.address && in_network(vip.address, *own, *prefix)
    });
    let Some((interface, own, prefix)) = on_link else { return };
    let hidden = match file.config.arp {
        _ if vip.address.is_ipv6() => true,
        Some(arp) => arp.ignore >= 1,
        None => host.is_some_and(|host| host.effective("arp_ignore", interface) >= 1),
    };
    if hidden {
        found.of(
            Rule::E09,
            file,
            format!("{} is in the network of {interface}, {own}/{prefix}", vip.address),
        );
    }
}

/// Whether an address lies in the network of another; a host prefix has nobody else in it.
fn in_network(address: IpAddr, of: IpAddr, prefix: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let same_family = address.is_ipv4() == of.is_ipv4();
    same_family && prefix > 0 && (bits(address) ^ bits(of)).leading_zeros() >= u32::from(prefix)
}

/// The VIPs of a file against the VRRP block that drives it.
///
/// A VIP that keepalived does not have at all is right: lvs-notify binds it. On `lo` it is right while it comes
/// and goes with MASTER (the ARP parameters hide it until the services are there), and wrong when the
/// file keeps it on the BACKUP (E08). On an interface it answers too early (W36).
fn check_vip_placement(
    file: &File,
    block: &Block<'_>,
    conf: &Conf<'_>,
    files: &[File],
    found: &mut Findings,
) {
    for address in &block.vips {
        let text = address.address.to_string();
        if !has_vip(file, address.address) {
            if address.device == "lo" && !files.iter().any(|file| has_vip(file, address.address)) {
                found.at(Rule::W39, address.at, text);
            }
            continue;
        }
        if address.device == "lo" {
            if file.config.keep_vips {
                found.at(Rule::E08, address.at, format!("{text}, kept by {}", file.path));
            }
            continue;
        }
        // A VIP without services has nothing that could refuse.
        let served = |key: &ServiceKey| match key {
            ServiceKey::Endpoint { address: vip, .. } => *vip == address.address,
            ServiceKey::Fwmark { .. } => true,
        };
        if file.config.services.keys().any(served) {
            found.at(Rule::W36, address.at, format!("{text} on {}", address.device));
        }
    }
    if block.members.is_some() {
        return;
    }
    let tracked: Vec<&str> = conf
        .groups_of(block.name)
        .chain([block])
        .flat_map(|block| block.at.all("track_interface").flat_map(|list| &list.children))
        .map(|line| line.keyword())
        .collect();
    let untracked = block.at.last("dont_track_primary").is_some();
    for interface in file.config.interfaces() {
        if !tracked.contains(&interface.as_str()) && (interface != block.interface || untracked) {
            found.at(Rule::W40, block.at, format!("{interface} of {}", file.path));
        }
    }
}
