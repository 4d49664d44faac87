//! Rules across desired-state files, and between them and keepalived.conf.
//!
//! Owns what one file alone cannot be wrong in (that is `config`'s, and refused there). What needs only the host is in
//! `host`. Called by `check`.

use std::net::IpAddr;

use crate::config::Vip;
use crate::keepalived_conf::meaning::{self, Block, Conf, Service};
use crate::model::{Family, ServiceKey};

use super::facts::{File, Input};
use super::rules::{Findings, Rule};

pub fn check(input: Input<'_>, found: &mut Findings) {
    for (index, file) in input.files.iter().enumerate() {
        for other in input.files.iter().take(index) {
            claims(file, other, found);
        }
        backup(file, input.files.len(), found);
        for vip in &file.config.vips {
            check_reachable(file, vip, input, found);
        }
    }
    let Some(conf) = input.conf else { return };
    let only = match input.files {
        [only] => Some(only.instance.as_str()),
        _ => None,
    };
    for file in input.files {
        managers(file, conf, found);
        let drives = |block: &&Block<'_>| block.drives(only).contains(file.instance.as_str());
        let drivers: Vec<&Block<'_>> = conf.blocks.iter().filter(drives).collect();
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
            check_vip_placement(file, block, input.files, found);
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

fn has_vip(file: &File, address: IpAddr) -> bool {
    file.config.vips.iter().any(|vip| vip.address == address)
}

fn marks(file: &File) -> impl Iterator<Item = u32> {
    file.config.services.keys().filter_map(|key| match key {
        ServiceKey::Fwmark { mark, .. } => Some(*mark),
        ServiceKey::Endpoint { .. } => None,
    })
}

/// What two files both want: a VIP with its services, a mark, the sync daemon, the whole table, or
/// different values of one parameter.
fn claims(file: &File, other: &File, found: &mut Findings) {
    let (one, two) = (&file.config, &other.config);
    let vips = one.vips.iter().filter(|vip| has_vip(other, vip.address));
    // A service on a VIP is reported with the VIP.
    let marks = one.services.keys().filter(|key| matches!(key, ServiceKey::Fwmark { .. }));
    let parameters = one
        .ipvs_parameters
        .iter()
        .filter(|(name, value)| two.ipvs_parameters.get(*name).is_some_and(|other| other != *value));
    let (timeouts, others) = (one.timeouts, two.timeouts);
    let pairs = [(timeouts.tcp, others.tcp), (timeouts.tcp_fin, others.tcp_fin), (timeouts.udp, others.udp)];
    let timeouts = pairs.iter().any(|(one, two)| *one != 0 && *two != 0 && one != two);
    let arp = one.arp.zip(two.arp);
    let whole = [
        (one.daemon.is_some() && two.daemon.is_some(), "the sync daemon"),
        (one.exclusive || two.exclusive, "the IPVS table, which is `exclusive` to one of them"),
        (
            arp.is_some_and(|(one, two)| (one.ignore, one.announce) != (two.ignore, two.announce)),
            "net.ipv4.conf.all.arp_ignore and arp_announce, with other values",
        ),
        (timeouts, "the timeouts, with other values"),
    ];
    let claims = vips
        .map(|vip| format!("VIP {}", vip.address))
        .chain(marks.filter(|key| two.services.contains_key(key)).map(|key| format!("service {key}")))
        .chain(parameters.map(|(name, _)| format!("net.ipv4.vs.{name}, with another value")))
        .chain(whole.into_iter().filter(|(both, _)| *both).map(|(_, what)| what.to_owned()));
    for what in claims {
        found.of(Rule::E44, file, format!("{what}, also in {}", other.path));
    }
}

fn backup(file: &File, files: usize, found: &mut Findings) {
    let parameter = file.config.ipvs_parameters.get("backup_only");
    let off_on_backup = parameter.is_some_and(|value| value != "0") && file.config.daemon.is_some();
    if off_on_backup && files > 1 {
        found.of(Rule::E47, file, format!("{} with {} others", file.instance, files - 1));
    }
    if file.config.keep_services && marks(file).next().is_some() && !off_on_backup {
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
    if vip.interface.is_some() {
        if file.config.announce.0 == 0 {
            found.of(Rule::W10, file, vip.address.to_string());
        }
        return;
    }
    let Some(host) = input.host else { return };
    let on_link = host.addresses.iter().find(|(interface, own, prefix)| {
        interface != "lo" && *own != vip.address && in_network(vip.address, *own, *prefix)
    });
    let Some((interface, own, prefix)) = on_link else { return };
    let hidden = vip.address.is_ipv6()
        || file.config.arp.map_or_else(|| host.arp_ignore(interface), |arp| arp.ignore) >= 1;
    if hidden {
        let what = format!("{} is in the network of {interface}, {own}/{prefix}", vip.address);
        found.of(Rule::E09, file, what);
    }
}

/// Whether an address lies in the network of another; a host prefix has nobody else in it.
fn in_network(address: IpAddr, of: IpAddr, prefix: u8) -> bool {
    let host = Family::of(of).host_prefix().saturating_sub(prefix);
    let differ = meaning::number(address) ^ meaning::number(of);
    prefix > 0 && differ >> host == 0
}

/// What keepalived manages as well: services and the sync daemon.
fn managers(file: &File, conf: &Conf<'_>, found: &mut Findings) {
    for server in &conf.servers {
        let managed = |service: &Service<'_>| match service {
            Service::Addresses(range, _) => file.config.vips.iter().any(|vip| range.contains(vip.address)),
            Service::Mark(wanted, _) => marks(file).any(|mark| mark == *wanted),
        };
        if file.config.exclusive || server.services.iter().flatten().any(managed) {
            let what = server.at.values().collect::<Vec<_>>().join(" ");
            let why = if file.config.exclusive { ", whose table is exclusive" } else { "" };
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
fn check_vip_placement(file: &File, block: &Block<'_>, files: &[File], found: &mut Findings) {
    for vip in &block.vips {
        let (address, on_lo) = (vip.address, vip.device == "lo");
        // A VIP without services has nothing that could refuse.
        let mut served = file.config.services.keys().map(|key| match key {
            ServiceKey::Endpoint { address: own, .. } => *own == address,
            ServiceKey::Fwmark { .. } => true,
        });
        if !has_vip(file, address) {
            if on_lo && !files.iter().any(|file| has_vip(file, address)) {
                found.at(Rule::W39, vip.at, address.to_string());
            }
        } else if on_lo && file.config.keep_vips {
            found.at(Rule::E08, vip.at, format!("{address}, kept by {}", file.path));
        } else if !on_lo && served.any(|served| served) {
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
