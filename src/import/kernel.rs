//! What the running kernel has.
//!
//! Owns which parts of an observation go into a file: services as they are, and of everything else what is not
//! the kernel's default. Reads through [`Kernel`] and decides nothing about what a file may say. Called by
//! `import` and, for what a script has made, by `script`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context as _;

use super::table::{Place, Table};
use crate::config::WantedService;
use crate::config::parameters::IPVS_PARAMETERS;
use crate::kernel::Kernel;
use crate::model::{DaemonState, Family, Parameter, ServiceKey, Timeouts};
use crate::observed::{Observed, ObservedIpvs, Scope, ServerScope};

/// `ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`
const TIMEOUTS: Timeouts = Timeouts { tcp: 15 * 60, tcp_fin: 2 * 60, udp: 5 * 60 };

/// Reads the kernel; `interfaces` are the links on which a VIP may stand.
///
/// # Errors
/// When the kernel has no IPVS, or cannot be read.
pub fn read(kernel: &mut dyn Kernel, interfaces: &BTreeSet<String>) -> anyhow::Result<Table> {
    let observed = kernel.observe(&scope(interfaces))?;
    let ipvs = observed.ipvs.as_ref().context(
        "this kernel has no IPVS, so there is nothing to import; on the director itself, `modprobe ip_vs`, or use --from with a file",
    )?;
    Ok(table(&observed, ipvs))
}

/// What to look at.
pub fn scope(interfaces: &BTreeSet<String>) -> Scope {
    let ipvs = IPVS_PARAMETERS.iter().map(|(name, _)| Parameter::Ipvs((*name).to_owned()));
    let names = interfaces.iter().map(String::as_str).chain(["all"]);
    let arp = names
        .flat_map(|name| [Parameter::ArpIgnore(name.to_owned()), Parameter::ArpAnnounce(name.to_owned())]);
    Scope { interfaces: interfaces.clone(), parameters: ipvs.chain(arp).collect(), servers: ServerScope::All }
}

/// What goes into a file. A parameter that was not observed is not told.
pub fn table(observed: &Observed, ipvs: &ObservedIpvs) -> Table {
    let services = ipvs.services.iter().map(|(key, found)| {
        (*key, WantedService { settings: found.settings.clone(), servers: found.servers.clone() })
    });
    let parameters = IPVS_PARAMETERS.iter().filter_map(|(name, usual)| {
        let usual = (*usual)?;
        let found = observed.parameters.get(&Parameter::Ipvs((*name).to_owned()))?;
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        (found != usual).then(|| ((*name).to_owned(), found))
    });
    let told = |found: u32, usual: u32| if found == usual { 0 } else { found };
    let mut table = Table {
        origin: "the running kernel".to_owned(),
        services: services.collect(),
        timeouts: Timeouts {
            tcp: told(ipvs.timeouts.tcp, TIMEOUTS.tcp),
            tcp_fin: told(ipvs.timeouts.tcp_fin, TIMEOUTS.tcp_fin),
            udp: told(ipvs.timeouts.udp, TIMEOUTS.udp),
        },
        daemons: ipvs.daemons.clone(),
        parameters: parameters.collect(),
        ..Table::default()
    };
    let vips = table.vips();
    table.places = vips.iter().map(|vip| (*vip, place(*vip, observed))).collect();
    table.arp_off = arp(&table, observed);
    table.standby = table.daemons.keys().eq([&DaemonState::Backup]) && !table.services.is_empty();
    if table.services.keys().any(|key| matches!(key, ServiceKey::Fwmark { .. })) {
        let stand = observed.addresses.iter().filter(|found| {
            let (address, host) = (found.key.address, Family::of(found.key.address).host_prefix());
            found.key.interface == "lo"
                && found.prefix == host
                && !address.is_loopback()
                && !vips.contains(&address)
        });
        let stand: BTreeSet<String> = stand.map(|found| found.key.address.to_string()).collect();
        let mut note =
            "fwmark services name no address: add to `vips` those that the marks stand for.".to_owned();
        if !stand.is_empty() {
            note += &format!(" On lo here: {}.", stand.into_iter().collect::<Vec<_>>().join(", "));
        }
        table.notes.push(note);
    }
    table
}

/// Where a VIP stands.
fn place(vip: IpAddr, observed: &Observed) -> Place {
    let mut place = Place { remark: Some("not on lo here".to_owned()), ..Place::default() };
    for found in observed.addresses.iter().filter(|found| found.key.address == vip) {
        if found.key.interface != "lo" {
            place.interface.get_or_insert_with(|| found.key.interface.clone());
            continue;
        }
        place.label.clone_from(&found.label);
        place.remark = (found.prefix != Family::of(vip).host_prefix())
            .then(|| format!("on lo here with the prefix /{}, which makes a subnet local", found.prefix));
    }
    place
}

/// Why the ARP parameters are left alone: they are not what a file without `arp` would set.
fn arp(table: &Table, observed: &Observed) -> Option<String> {
    let mut names: BTreeSet<&str> = ["all", "lo"].into();
    names.extend(table.places.values().filter_map(|place| place.interface.as_deref()));
    let value = |parameter: Parameter| observed.parameters.get(&parameter).map_or("-", String::as_str);
    let values = names.into_iter().map(|name| {
        (name, value(Parameter::ArpIgnore(name.to_owned())), value(Parameter::ArpAnnounce(name.to_owned())))
    });
    let found: Vec<_> = values.filter(|(_, ignore, announce)| (*ignore, *announce) != ("-", "-")).collect();
    let usual =
        found.iter().all(|(_, ignore, announce)| matches!((*ignore, *announce), ("1" | "-", "2" | "-")));
    let list = found.iter().map(|(name, ignore, announce)| format!("{name} {ignore}/{announce}"));
    (!usual).then(|| list.collect::<Vec<_>>().join(", "))
}
