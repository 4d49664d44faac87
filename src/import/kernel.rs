//! What the running kernel has.
//!
//! Owns which parts of an observation go into a file: services as they are, and of everything else what is not the kernel's
//! default. Decides nothing about what a file may say. Called by `import` and, for what a script has made, by `script`.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::write::Table;
use crate::config::WantedService;
use crate::kernel::{Kernel as _, Linux};
use crate::model::{Ownership, Parameter, Timeouts};
use crate::observed::{Observed, Scope};

/// `ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`
const TIMEOUTS: Timeouts = Timeouts { tcp: 15 * 60, tcp_fin: 2 * 60, udp: 5 * 60 };

/// Reads the kernel of this host, which must have IPVS.
pub fn read() -> anyhow::Result<Table> {
    let observed = Linux::default().observe(&scope()?)?;
    observed.ipvs.as_ref().context(
        "this kernel has no IPVS, so there is nothing to import; on the director itself, `modprobe ip_vs`, or use --from with a file",
    )?;
    Ok(table(&observed))
}

/// What to look at: everything, and every link, on which a VIP may stand.
pub fn scope() -> anyhow::Result<Scope> {
    let interfaces = crate::kernel::names()?;
    let arp = interfaces.iter().map(String::as_str).chain(["all"]);
    let arp =
        arp.flat_map(|name| [Parameter::ArpIgnore(name.to_owned()), Parameter::ArpAnnounce(name.to_owned())]);
    let ipvs = Parameter::of_ipvs().map(|(name, _)| Parameter::Ipvs(name.to_owned()));
    let servers = Some(Ownership { exclusive: true, ..Ownership::default() });
    Ok(Scope { parameters: ipvs.chain(arp).collect(), interfaces, servers, ..Scope::default() })
}

/// What goes into a file. A parameter that was not observed is not told.
pub fn table(observed: &Observed) -> Table {
    let ipvs = observed.table();
    let services = ipvs.services.iter().map(|(key, found)| {
        (*key, WantedService { settings: found.settings.clone(), servers: found.servers.clone().into() })
    });
    let parameters = Parameter::of_ipvs().filter_map(|(name, usual)| {
        let found = observed.parameters.get(&Parameter::Ipvs(name.to_owned()))?;
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        (found != usual?).then(|| (name.to_owned(), found))
    });
    let mut table = Table {
        origin: "the running kernel".to_owned(),
        services: services.collect(),
        timeouts: if ipvs.timeouts == TIMEOUTS { Timeouts::default() } else { ipvs.timeouts },
        daemons: ipvs.daemons.clone(),
        parameters: parameters.collect(),
        addresses: observed.addresses.clone(),
        ..Table::default()
    };
    let vips = table.vips();
    let (places, others): (Vec<_>, Vec<_>) =
        observed.addresses.iter().partition(|found| vips.contains(&found.key.address));
    let links: BTreeSet<&str> =
        places.iter().map(|found| found.key.interface.as_str()).chain(["all", "lo"]).collect();
    let unusual = |(parameter, value): &(&Parameter, &String)| match parameter {
        Parameter::ArpIgnore(link) => links.contains(link.as_str()) && *value != "1",
        Parameter::ArpAnnounce(link) => links.contains(link.as_str()) && *value != "2",
        Parameter::Ipvs(_) => false,
    };
    let found = observed.parameters.iter().filter(unusual);
    table.arp = found.map(|(parameter, value)| format!("{parameter} {value}")).collect();
    let others = others.iter().filter(|found| found.is_host() && !found.is_of_the_link());
    let others: Vec<String> = others.map(|found| found.key.to_string()).collect();
    if !others.is_empty() {
        let what = "Addresses that no service names; those that fwmark services stand for belong into `vips`";
        table.notes.push(format!("{what}: {}.", others.join(", ")));
    }
    table
}
