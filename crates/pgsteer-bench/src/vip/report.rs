//! The section of docs/VIP.md.

use std::time::Duration;

use super::Waits;
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median};

/// The bars: the median wait, and the ratio to vip-manager's.
const MEDIAN_BAR_MS: f64 = 50.0;
const RATIO_BAR: f64 = 20.0;

const HOW: &str = "\
One cluster of three members in network namespaces. On each member `pgsteer agent` with `[vip]`, and vip-manager
with its default interval of 1000 ms, each with an address of its own, so every switchover counts for both. A
plain TCP forwarder on each member leads from its addresses to its PostgreSQL. Ten clients for each address write
all the time, each with a new connection and a limit of 100 ms. The time begins when a direct connection shows
that the new primary takes writes, and ends with the first write of a client of that address at that member. 0 ms
means that the address was there first: vip-manager follows the leader lock alone, which Patroni takes before it
promotes.";

/// The section's text.
pub fn section(waits: &Waits, versions: &str, peer: &str) -> String {
    let (ours, theirs) = (millis(&waits.pgsteer), millis(&waits.vip_manager));
    let (our_median, their_median) =
        (median(&ours).unwrap_or_default(), median(&theirs).unwrap_or_default());
    let ratio = their_median / our_median.max(0.1);
    let mut bars = Bars::new();
    let figure = "first write on the address after the new primary is writable: median";
    let words = (format!("{our_median:.0} ms"), our_median <= MEDIAN_BAR_MS);
    bars.add(figure, &format!("{MEDIAN_BAR_MS:.0} ms"), Some(words));
    let words = (format!("{ratio:.0} times"), ratio >= RATIO_BAR);
    bars.add("the same, faster than vip-manager", &format!("{RATIO_BAR:.0} times"), Some(words));
    let mut table = Table::new(&["program", "switchovers", "median", "fastest", "slowest"]);
    for (name, waits) in [("pgsteer", &ours), ("vip-manager", &theirs)] {
        let fastest = waits.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = waits.iter().copied().fold(0.0, f64::max);
        let middle = median(waits).unwrap_or_default();
        let cells = [middle, fastest, slowest].map(|ms| format!("{ms:.0} ms"));
        let mut row = vec![name.to_owned(), waits.len().to_string()];
        row.extend(cells);
        table.row(row);
    }
    format!(
        "## Measured beside vip-manager\n\n`make bench-vip`, {}.\n\n{versions}\n- {peer}\n\n{}\n\n{}\n\n{HOW}\n",
        today(),
        bars.text().trim_end(),
        table.text().trim_end()
    )
}

fn millis(waits: &[Duration]) -> Vec<f64> {
    waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect()
}
