//! What the running kernel has.
//!
//! Owns which parts of an observation go into a file: services as they are, and of everything else what is not
//! the kernel's default. Decides nothing about what a file may say. Called by
//! `import` and, for what a script has made, by `script`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context as _;

use super::table::{Place, Table};
use crate::config::WantedService;
use crate::config::parameters::IPVS_PARAMETERS;
use crate::kernel::{Kernel as _, Linux};
use crate::model::{DaemonState, Parameter, ServiceKey, Timeouts};
use crate::observed::{Observed, ObservedIpvs, Scope, ServerScope};

/// `ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`
const TIMEOUTS: Timeouts = Timeouts { tcp: 15 * 60, tcp_fin: 2 * 60, udp: 5 * 60 };

/// Reads the kernel of this host.
///
/// # Errors
/// When it has no IPVS, or cannot be read.
pub fn read() -> anyhow::Result<Table> {
    let observed = Linux::default().observe(&scope()?)?;
    let ipvs = observed.ipvs.as_ref().context(
        "this kernel has no IPVS, so there is nothing to import; on the director itself, `modprobe ip_vs`, or use --from with a file",
    )?;
    Ok(table(&observed, ipvs))
}

/// What to look at: everything.
///
/// # Errors
/// When the links, on which a VIP may stand, cannot be listed.
pub fn scope() -> anyhow::Result<Scope> {
    let interfaces = crate::kernel::names()?;
    let arp = interfaces.iter().map(String::as_str).chain(["all"]);
    let arp =
        arp.flat_map(|name| [Parameter::ArpIgnore(name.to_owned()), Parameter::ArpAnnounce(name.to_owned())]);
    let ipvs = IPVS_PARAMETERS.iter().map(|(name, _)| Parameter::Ipvs((*name).to_owned()));
    Ok(Scope { parameters: ipvs.chain(arp).collect(), interfaces, servers: ServerScope::All })
}

/// What goes into a file. A parameter that was not observed is not told.
pub fn table(observed: &Observed, ipvs: &ObservedIpvs) -> Table {
    let services = ipvs.services.iter().map(|(key, found)| {
        (*key, WantedService { settings: found.settings.clone(), servers: found.servers.clone().into() })
    });
    let parameters = IPVS_PARAMETERS.iter().filter_map(|(name, usual)| {
        let usual = (*usual)?;
        let found = observed.parameters.get(&Parameter::Ipvs((*name).to_owned()))?;
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        (found != usual).then(|| ((*name).to_owned(), found))
    });
    let mut table = Table {
        origin: "the running kernel".to_owned(),
        services: services.collect(),
        timeouts: if ipvs.timeouts == TIMEOUTS { Timeouts::default() } else { ipvs.timeouts },
        daemons: ipvs.daemons.clone(),
        parameters: parameters.collect(),
        ..Table::default()
    };
    let vips = table.vips();
    table.places = vips.iter().map(|vip| (*vip, place(*vip, observed))).collect();
    table.arp_off = arp(&table, observed);
    table.standby = table.daemons.keys().eq([&DaemonState::Backup]) && !table.services.is_empty();
    if table.services.keys().any(|key| matches!(key, ServiceKey::Fwmark { .. })) {
        let on_lo = observed.addresses.iter().filter(|found| found.key.interface == "lo" && found.is_host());
        let on_lo = on_lo.filter(|found| !found.is_of_the_link() && !vips.contains(&found.key.address));
        let on_lo: Vec<String> = on_lo.map(|found| found.key.address.to_string()).collect();
        table.notes.push(format!(
            "fwmark services name no address: add to `vips` those that the marks stand for. On lo here: {}.",
            if on_lo.is_empty() { "none".to_owned() } else { on_lo.join(", ") }
        ));
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
        place.remark = (!found.is_host())
            .then(|| format!("on lo here with the prefix /{}, which makes a subnet local", found.prefix));
    }
    place
}

/// Why the ARP parameters are left alone: they are not what a file without `arp` would set.
fn arp(table: &Table, observed: &Observed) -> Option<String> {
    let mut names: BTreeSet<&str> = ["all", "lo"].into();
    names.extend(table.places.values().filter_map(|place| place.interface.as_deref()));
    let value = |parameter| observed.parameters.get(&parameter).map_or("-", String::as_str);
    let values = names.into_iter().map(|name| {
        (name, value(Parameter::ArpIgnore(name.to_owned())), value(Parameter::ArpAnnounce(name.to_owned())))
    });
    let found: Vec<_> = values.filter(|(_, ignore, announce)| (*ignore, *announce) != ("-", "-")).collect();
    let usual = found.iter().all(|found| matches!(found, (_, "1" | "-", "2" | "-")));
    let list = found.iter().map(|(name, ignore, announce)| format!("{name} {ignore}/{announce}"));
    (!usual).then(|| list.collect::<Vec<_>>().join(", "))
}
