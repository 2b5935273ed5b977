//! The metrics of the addresses that follow a service.

use std::fmt;

use pgsteer_core::time::Moment;

use super::page::Page;
use crate::stats::{Holding, Vip, Vips};

/// Writes the metrics. There are none without an address in the configuration.
pub fn encode(vips: &Vips, now: Moment, page: &mut Page<'_>) -> fmt::Result {
    let all = vips.all();
    if all.is_empty() {
        return Ok(());
    }
    let labels = |vip: &Vip| [("vip", vip.name.to_string()), ("address", vip.address.clone())];
    page.gauge(
        "pgsteer_vip_held",
        "1 while this machine has the address and the service routes to the local member.",
        all.iter().map(|vip| (labels(vip), u64::from(vip.holding == Holding::Held))),
    )?;
    page.gauge(
        "pgsteer_vip_unconfirmed",
        "1 while this machine has the address and nothing confirms that it should.",
        all.iter().map(|vip| (labels(vip), u64::from(vip.holding == Holding::Unconfirmed))),
    )?;
    page.gauge(
        "pgsteer_vip_duplicate",
        "1 while another machine answers for an address that this machine has.",
        all.iter().map(|vip| {
            let is_duplicate = vip.duplicate.is_some() && vip.holding != Holding::Released;
            (labels(vip), u64::from(is_duplicate))
        }),
    )?;
    page.gauge(
        "pgsteer_vip_failing",
        "1 while the address cannot be added, removed or announced.",
        all.iter().map(|vip| (labels(vip), u64::from(vip.trouble.is_some()))),
    )?;
    page.gauge(
        "pgsteer_vip_state_seconds",
        "The time since the state of the address last changed.",
        all.iter().map(|vip| (labels(vip), now.since(vip.since).as_secs_f64())),
    )?;
    page.gauge(
        "pgsteer_vip_announcement_age_seconds",
        "The time since the last gratuitous ARP or unsolicited neighbour advertisement.",
        all.iter()
            .filter_map(|vip| Some((labels(vip), now.since(vip.announced_at?).as_secs_f64()))),
    )?;
    page.counter(
        "pgsteer_vip_added",
        "How often the address was added to the interface.",
        all.iter().map(|vip| (labels(vip), vip.added_total)),
    )?;
    page.counter(
        "pgsteer_vip_removed",
        "How often the address was removed from the interface.",
        all.iter().map(|vip| (labels(vip), vip.removed_total)),
    )
}
