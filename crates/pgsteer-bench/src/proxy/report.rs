//! The section of docs/BENCHMARKS.md: the bar, every pair, the other shapes, memory.

use std::fmt::Write;

use super::Measured;
use super::memory::Memory;
use super::pairs::{Pairs, Spread};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::Table;

const HOW: &str = "\
A cluster of one member on loopback, the shortest network path, so that the proxy is as large a part of it
as possible. pgsteer (write service, a worker per core) and HAProxy (`mode tcp`, `nbthread` = cores) stand in
front of the same primary. The same run goes through one and then through the other; every other pair runs in
the opposite order. CPU is user and system time of all threads of the proxy, from the scheduler's accounting,
divided by the transactions that pgbench counts. The ratio is computed for each pair, because other load on
the machine affects both of its runs. *Direct* is without a proxy.";

const BAR: f64 = 0.9;

pub fn section(measured: &Measured) -> String {
    let mut text = String::from("## What a transaction costs in the proxy\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "`make bench-proxy`, {}.\n\n{}\n", today(), measured.versions);
    let _ = writeln!(text, "### The bar\n\n{}", bar(&measured.main));
    let _ = writeln!(text, "{}", every_pair(measured));
    if !measured.others.is_empty() {
        let _ = writeln!(text, "### All shapes\n\n{}", shapes(measured));
        let _ = writeln!(text, "### Bulk transfer\n\n{}", bulk(measured));
    }
    if let Some(memory) = &measured.memory {
        let _ = writeln!(text, "### Memory\n\n{}", memory_text(memory));
    }
    let _ = writeln!(text, "### How it was measured\n\n{HOW}");
    text
}

fn bar(main: &Pairs) -> String {
    let mut bars = Bars::new();
    let ratio = main.spread(|pair| pair.cpu_ratio());
    let words = ratio.map(|ratio| {
        let all = format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.least, ratio.most);
        (all, ratio.median <= BAR)
    });
    let figure = format!("{}: CPU per transaction, divided by HAProxy's", main.shape);
    bars.add(&figure, "0.9", words);
    bars.text()
}

fn every_pair(measured: &Measured) -> String {
    let mut table = Table::new(&[
        "pair",
        "pgsteer, µs",
        "HAProxy, µs",
        "ratio",
        "pgsteer, tps",
        "HAProxy, tps",
    ]);
    for (number, pair) in measured.main.pairs.iter().enumerate() {
        table.row(vec![
            (number + 1).to_string(),
            format!("{:.2}", pair.pgsteer.cpu_us),
            format!("{:.2}", pair.haproxy.cpu_us),
            format!("{:.3}", pair.cpu_ratio()),
            format!("{:.0}", pair.pgsteer.tps),
            format!("{:.0}", pair.haproxy.tps),
        ]);
    }
    format!("Each run {} s.\n\n{}", measured.run.as_secs(), table.text())
}

fn shapes(measured: &Measured) -> String {
    let mut table = Table::new(&[
        "shape",
        "pgsteer, µs",
        "HAProxy, µs",
        "ratio of CPU",
        "ratio of tps",
        "ratio of latency",
        "pgsteer, tps",
        "direct, tps",
    ]);
    for pairs in std::iter::once(&measured.main).chain(&measured.others) {
        let middle = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
        table.row(vec![
            pairs.shape.to_owned(),
            format!("{:.1}", middle(pairs.spread(|pair| pair.pgsteer.cpu_us))),
            format!("{:.1}", middle(pairs.spread(|pair| pair.haproxy.cpu_us))),
            ratio(pairs.spread(|pair| pair.cpu_ratio())),
            ratio(pairs.spread(|pair| pair.tps_ratio())),
            ratio(pairs.spread(|pair| pair.latency_ratio())),
            format!("{:.0}", middle(pairs.spread(|pair| pair.pgsteer.tps))),
            format!("{:.0}", pairs.direct_tps),
        ]);
    }
    format!(
        "Medians. A ratio is pgsteer's figure divided by HAProxy's, with its minimum and maximum.\n\n{}",
        table.text()
    )
}

fn bulk(measured: &Measured) -> String {
    let mut table = Table::new(&[
        "200 MB",
        "pgsteer, MB/s",
        "HAProxy, MB/s",
        "direct, MB/s",
        "pgsteer, µs CPU per MB",
        "HAProxy, µs CPU per MB",
    ]);
    for bulk in &measured.bulk {
        table.row(vec![
            bulk.name.to_owned(),
            format!("{:.0}", bulk.pgsteer.mb_per_s),
            format!("{:.0}", bulk.haproxy.mb_per_s),
            format!("{:.0}", bulk.direct_mb_per_s),
            format!("{:.0}", bulk.pgsteer.cpu_us_per_mb),
            format!("{:.0}", bulk.haproxy.cpu_us_per_mb),
        ]);
    }
    table.text()
}

fn memory_text(memory: &Memory) -> String {
    let mut table = Table::new(&["", "clients", "before", "with them", "per client"]);
    for (name, grown) in [
        ("pgsteer, idle sessions", memory.pgsteer),
        ("HAProxy, idle sessions", memory.haproxy),
        ("pgsteer, clients on hold", memory.held),
    ] {
        table.row(vec![
            name.to_owned(),
            grown.clients.to_string(),
            format!("{:.1} MB", grown.before_bytes as f64 / 1048576.0),
            format!("{:.1} MB", grown.after_bytes as f64 / 1048576.0),
            format!("{:.1} kB", grown.per_client_bytes() / 1024.0),
        ]);
    }
    let cores = memory.held_rest.cores * 100.0;
    format!("{}\nWith the clients on hold pgsteer used {cores:.2} % of a core.\n", table.text())
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |ratio| {
        format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
    })
}
