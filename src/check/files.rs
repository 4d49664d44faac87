//! Rules over desired-state files: with each other, with keepalived.conf and on this host.
//!
//! Owns what one file alone cannot be wrong in (that is `config`'s, and refused there). Called by `check`.

use std::collections::BTreeMap;

use super::facts::{File, Host, Input};
use super::rules::{Findings, Rule};
use crate::config::Vip;
use crate::keepalived_conf::meaning::{self, Block, Conf};
use crate::model::{Family, Forward, ServiceKey};
use crate::observed::{Interface, ObservedAddress};
use crate::plan::is_home;

pub fn check(input: Input<'_>, found: &mut Findings) {
    for (index, file) in input.files.iter().enumerate() {
        for other in input.files.iter().take(index) {
            shared(file, other, found);
        }
        backup(file, input.files.len(), found);
        for vip in file.config.vips.iter().filter(|vip| vip.interface.is_none()) {
            check_reachable(file, vip, input, found);
        }
        if let Some(host) = input.host {
            interfaces(host, file, found);
            real_servers(host, file, found);
            addresses(host, file, found);
            file.unready.iter().flatten().for_each(|why| found.of(Rule::E65, file, why.as_str()));
        }
    }
    let Some(conf) = input.conf else { return };
    let only = input.files.first().filter(|_| input.files.len() == 1).map(|only| only.instance.as_str());
    for file in input.files {
        managers(file, conf, found);
        let drives = |block: &&Block<'_>| block.drives(only).contains(file.instance.as_str());
        // A script of its own may call lvs-notify from within.
        let own = |block: &Block<'_>| block.name == file.instance && !block.scripts.is_empty();
        if !conf.blocks.iter().any(|block| own(block) || drives(&block)) {
            found.of(Rule::E45, file, file.instance.as_str());
        }
        let instances: Vec<&Block<'_>> = conf.instances().filter(drives).collect();
        if let [first, .., last] = instances.as_slice() {
            found.at(Rule::W34, last.at, format!("{} and {} drive {}", first.name, last.name, file.path));
        }
        for block in conf.blocks.iter().filter(drives) {
            check_vip_placement(file, block, found);
            check_tracking(file, block, conf, found);
        }
    }
    for block in conf.blocks.iter().filter(|_| input.complete) {
        for name in block.drives(only) {
            if !input.files.iter().any(|file| file.instance == name) {
                found.at(Rule::E46, block.at, format!("{name}, called by {}", block.name));
            }
        }
    }
}

/// What two files both want.
fn shared(file: &File, other: &File, found: &mut Findings) {
    let others = claims(other);
    let differ = |(what, value): &(String, String)| others.get(what).is_some_and(|other| other != value);
    for (what, _) in claims(file).into_iter().filter(differ) {
        found.of(Rule::E44, file, format!("{what}, also in {}", other.path));
    }
}

/// What a host has once, with the value that the file wants, or the file's name where no two files can have the same. A
/// service on a VIP comes with the VIP.
fn claims(file: &File) -> BTreeMap<String, String> {
    let (config, owned) = (&file.config, file.config.ownership());
    let whole = |what: String| (what, file.path.clone());
    let vips = owned.vips.iter().map(|address| whole(format!("VIP {address}")));
    let marks = owned.fwmarks.iter().map(|mark| whole(format!("service fwmark {mark}")));
    let daemon = config.daemon.iter().map(|_| whole("the sync daemon".to_owned()));
    let owner = if config.exclusive { file.path.clone() } else { String::new() };
    let table = [("the IPVS table, which is `exclusive` to one of them".to_owned(), owner)];
    let parameters = config.ipvs_parameters.iter();
    let parameters =
        parameters.map(|(name, value)| (format!("net.ipv4.vs.{name}, with another value"), value.clone()));
    let arp = "net.ipv4.conf.all.arp_ignore and arp_announce, with other values";
    let arp = config.arp.map(|values| (arp.to_owned(), format!("{} {}", values.ignore, values.announce)));
    let times = config.timeouts.fields().into_iter().filter(|(_, time)| time != "0s");
    let times = times.map(|(name, time)| (format!("the timeouts, with another {name}"), time));
    vips.chain(marks).chain(daemon).chain(table).chain(parameters).chain(arp).chain(times).collect()
}

fn backup(file: &File, files: usize, found: &mut Findings) {
    let parameter = file.config.ipvs_parameters.get("backup_only");
    let off_on_backup = parameter.is_some_and(|value| value != "0") && file.config.daemon.is_some();
    if off_on_backup && files > 1 {
        found.of(Rule::E47, file, format!("{} with {} others", file.instance, files - 1));
    }
    if file.config.keep_services && !file.config.ownership().fwmarks.is_empty() && !off_on_backup {
        found.of(Rule::W48, file, file.instance.as_str());
    }
}

/// Whether clients find a VIP. One without `interface` is fine where it is routed to this host; that it
/// is not shows in an address of this host whose network has the VIP in it. keepalived may put it on
/// an interface, where it answers and is announced.
fn check_reachable(file: &File, vip: &Vip, input: Input<'_>, found: &mut Findings) {
    let mut bound = input.conf.into_iter().flat_map(|conf| &conf.blocks).flat_map(|block| &block.vips);
    if bound.any(|bound| bound.address == vip.address && bound.device != "lo") {
        return;
    }
    let Some(host) = input.host else { return };
    let on_link = host.observed.addresses.iter().find(|ObservedAddress { key, prefix, .. }| {
        let differ = meaning::number(vip.address) ^ meaning::number(key.address);
        // A host prefix has nobody else in it.
        let host_bits = Family::of(key.address).host_prefix().saturating_sub(*prefix);
        !key.is_on_lo() && *prefix > 0 && differ > 0 && differ >> host_bits == 0
    });
    let Some(ObservedAddress { key: own, prefix, .. }) = on_link else { return };
    let interface = &own.interface;
    if vip.address.is_ipv6() || file.config.arp.is_some_and(|arp| arp.ignore >= 1) {
        let what = format!("{} is in the network of {interface}, {}/{prefix}", vip.address, own.address);
        found.of(Rule::E09, file, what);
    }
}

/// Links that cannot do what the file wants of them.
fn interfaces(host: &Host, file: &File, found: &mut Findings) {
    let links = &host.observed.interfaces;
    let daemon = file.config.daemon.iter().map(|daemon| daemon.interface.clone());
    for name in file.config.interfaces().into_iter().chain(daemon) {
        let link = links.get(&name);
        let upper = |link: &Interface| links.values().find(|upper| upper.index == link.master && !upper.vrf);
        match (link, link.and_then(upper)) {
            (None, _) => found.of(Rule::E49, file, format!("{name} does not exist")),
            (Some(link), _) if !link.works() => found.of(Rule::E49, file, format!("{name} is down")),
            (_, Some(upper)) => found.of(Rule::E49, file, format!("{name} is a port of {}", upper.name)),
            _ => {}
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
            let (nat, here) = (settings.forward == Forward::NAT, host.has_address(address));
            if nat && !here && host.parameter(forwarding) == "0" {
                found.of(Rule::E50, file, format!("{} = 0", forwarding.replace('/', ".")));
            } else if here && !nat && !file.config.keep_vips {
                found.of(Rule::E55, file, format!("{address} of {key}"));
            }
        }
    }
}

fn addresses(host: &Host, file: &File, found: &mut Findings) {
    let config = &file.config;
    let (vips, record) = (config.ownership().vips, host.records.get(&file.instance));
    let owned = record.map(|record| record.owned.clone()).unwrap_or_default();
    let own = host.observed.addresses.iter().filter(|own| vips.contains(&own.key.address));
    for home in own.filter(|own| is_home(own, &vips, &host.observed, &owned)) {
        found.of(Rule::E64, file, home.key.to_string());
    }
    // Where there is no IPv6, there is no such parameter.
    let disabled = |place: &&str| host.parameter(&format!("net/ipv6/conf/{place}/disable_ipv6")) != "0";
    for vip in config.vips.iter().filter(|vip| vip.address.is_ipv6()) {
        let own = vip.interface.as_deref().filter(|name| host.observed.interfaces.contains_key(*name));
        if let Some(place) = ["all", "lo"].into_iter().chain(own).find(disabled) {
            found.of(Rule::E52, file, format!("{} and net.ipv6.conf.{place}", vip.address));
        }
    }
}

/// What keepalived manages as well: services and the sync daemon.
fn managers(file: &File, conf: &Conf<'_>, found: &mut Findings) {
    let owned = file.config.ownership();
    for server in &conf.servers {
        let mut services = server.services.iter().flatten().flatten();
        if owned.exclusive || services.any(|key| owned.owns(key)) {
            let what = server.at.values().collect::<Vec<_>>().join(" ");
            let why = if owned.exclusive { ", whose table is exclusive" } else { "" };
            found.at(Rule::E20, server.at, format!("virtual_server {what}; {}{why}", file.path));
        }
    }
    for place in conf.tree.globals("lvs_sync_daemon").filter(|_| file.config.daemon.is_some()) {
        found.at(Rule::E41, place, file.path.as_str());
    }
}

/// The VIPs of a file against the VRRP block that drives it.
///
/// A VIP that keepalived does not have at all is right: lvs-notify binds it. On `lo` it is right while it comes
/// and goes with MASTER (the ARP parameters hide it until the services are there), and wrong when the
/// file keeps it on the BACKUP (E08). On an interface it answers too early (W36).
fn check_vip_placement(file: &File, block: &Block<'_>, found: &mut Findings) {
    let owned = file.config.ownership().vips;
    for vip in block.vips.iter().filter(|vip| owned.contains(&vip.address)) {
        let (address, on_lo) = (vip.address, vip.device == "lo");
        // A VIP without services has nothing that could refuse.
        let serves = |key: &ServiceKey| match key {
            ServiceKey::Endpoint { address: own, .. } => *own == address,
            ServiceKey::Fwmark { .. } => true,
        };
        if on_lo && file.config.keep_vips {
            found.at(Rule::E08, vip.at, format!("{address}, kept by {}", file.path));
        } else if !on_lo && file.config.services.keys().any(serves) {
            found.at(Rule::W36, vip.at, format!("{address} on {}", vip.device));
        }
    }
}

/// Interfaces that clients come by, and whose failure a VRRP instance does not notice.
fn check_tracking(file: &File, block: &Block<'_>, conf: &Conf<'_>, found: &mut Findings) {
    let untracked = block.at.last("dont_track_primary").is_some();
    let lists = conf.groups_of(block.name).chain([block]).flat_map(|block| block.at.all("track_interface"));
    let tracked: Vec<&str> = lists.flat_map(|list| &list.children).map(|line| line.keyword()).collect();
    for interface in file.config.interfaces().iter().filter(|_| block.members.is_none()) {
        if !tracked.contains(&interface.as_str()) && (interface != block.interface || untracked) {
            found.at(Rule::W40, block.at, format!("{interface} of {}", file.path));
        }
    }
}
