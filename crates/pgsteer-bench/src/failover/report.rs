//! The section of docs/BENCHMARKS.md: the method, the bars, and a table per kind of event.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Measured;
use super::doors::Door;
use super::events::{Event, Kind};
use super::step::WANTED;
use super::tally::{Figures, OldSessions, alive_after_gate, figures, opening};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median, span};

const HOW: &str = "\
One cluster of three members. Four paths lead to its primary at the same time: pgsteer (`[check]` login,
`[etcd]` watch, hold 30 s), HAProxy with the checks of Patroni's template, HAProxy with checks as quick as
an operator would dare, and libpq's own host list with `target_session_attrs=read-write` (psycopg2). On each
path a client opens a new connection every {every} ms, logs in by SCRAM, and runs one INSERT. A try starts on
time, whatever the outcome of earlier ones; it has 10 s to log in and 12 s in all. Five more sessions per
path are kept open, with an INSERT every 50 ms.

Direct connections probe each member every millisecond, and so show which member takes writes since when.

- *Wait*: from the new primary's first writable moment to the first INSERT that it acknowledged to a client
  of the path.
- *Slowest*: the longest wait after that moment of any client that was served.
- *No connection*: clients that could not log in.
- *Cut*: clients that were logged in and lost their session before the answer to their INSERT.
- *Old sessions*: how long a kept session to the old primary continued after that moment, until the client
  saw its end.

Everything that ends between the event and the next one counts, the repair of the cluster included. No
client repeats a statement.

The SCRAM secret has one round of hashing instead of 4,096, and `max_connections` is 1,500. Otherwise one
small machine would measure the clients' hashing, or PostgreSQL's limit.";

const SLOWER: &str = "

The planned step was a connection every 20 ms on each path, and libpq opens up to three sessions for each of its
own. PostgreSQL cannot start as many on this machine, so the step is longer.";

pub fn section(measured: &Measured) -> String {
    let mut text = String::from("## What a client sees of a failover\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "`make bench-failover`, {}.\n\n{}\n", today(), measured.versions);
    let _ = writeln!(text, "### The bars\n\n{}", bars(measured));
    let _ = writeln!(text, "### Switchovers\n\n{}", switchovers(measured));
    let others = others(measured);
    if !others.is_empty() {
        let _ = writeln!(text, "### Crash, freeze, partition\n\n{others}");
    }
    let _ = writeln!(text, "### Why clients were not served\n\n{}", reasons(measured));
    let _ = writeln!(text, "### At rest\n\n{}", rest(measured));
    let _ = writeln!(text, "### How it was measured\n\n{}\n", how(measured));
    let _ = writeln!(text, "{}", undisturbed(measured));
    text
}

/// The report explains a step that is longer than the planned one.
fn how(measured: &Measured) -> String {
    let mut text = HOW.replace("{every}", &measured.every.as_millis().to_string());
    if measured.every > WANTED {
        text.push_str(SLOWER);
    }
    text
}

fn bars(measured: &Measured) -> String {
    let mut bars = Bars::new();
    let all = of_door(measured, Door::Pgsteer, |_| true);
    let switchovers = of_door(measured, Door::Pgsteer, |kind| kind == Kind::Switchover);
    let waits = waits(&switchovers);
    let known = (waits.len() == switchovers.len() && !waits.is_empty()).then_some(&waits);
    let middle = known.and_then(|waits| median(waits)).map(|us| (ms(us), us <= 15_000.0));
    bars.add("switchover: wait, median", "15 ms", middle);
    let worst = known.and_then(|waits| worst(waits)).map(|us| (ms(us), us <= 50_000.0));
    bars.add("switchover: wait, worst", "50 ms", worst);
    let failed: usize = switchovers.iter().map(|figures| total(&figures.unconnected)).sum();
    bars.add("switchover: failed connections", "0", Some((failed.to_string(), failed == 0)));
    let read_only: usize = all.iter().map(|figures| figures.read_only).sum();
    let words = Some((read_only.to_string(), read_only == 0));
    bars.add("writes answered by a read-only member, any event", "0", words);
    for kind in [Kind::Crash, Kind::Freeze, Kind::Partition] {
        let figures = of_door(measured, Door::Pgsteer, |each| each == kind);
        let wait = figures.iter().filter_map(|figures| figures.wait_us).max();
        let wait = wait.map(|us| (span(us), us <= 50_000));
        bars.add(&format!("{kind}: wait"), "50 ms", wait);
    }
    bars.add("sessions to the old member 10 ms after the new gate opened", "0", alive(measured));
    let rest = measured.at_rest.iter().find(|(door, _)| *door == Door::Pgsteer);
    let cpu = rest.map(|(_, rest)| (percent(rest.cores), rest.cores <= 0.01));
    bars.add("at rest: of one core", "1 %", cpu);
    let memory = rest.map(|(_, rest)| (mib(rest.resident_bytes), rest.resident_bytes <= 20 << 20));
    bars.add("at rest: memory", "20 MB", memory);
    bars.text()
}

/// Unknown unless pgsteer's log contains the opening for every event.
fn alive(measured: &Measured) -> Option<(String, bool)> {
    let (_, log) = measured.logs.iter().find(|(door, _)| *door == Door::Pgsteer)?;
    let each = measured.events.iter();
    let alive = each.map(|event| alive_after_gate(log, event, &measured.openings));
    let alive: usize = alive.sum::<Option<usize>>()?;
    Some((alive.to_string(), alive == 0))
}

fn switchovers(measured: &Measured) -> String {
    let mut table = Table::new(&[
        "path",
        "wait, median",
        "wait, worst",
        "slowest",
        "tries",
        "no connection",
        "read-only",
        "cut",
        "old sessions",
    ]);
    for door in Door::ALL {
        let figures = of_door(measured, door, |kind| kind == Kind::Switchover);
        let waits = waits(&figures);
        let mut row = vec![door.name().to_owned()];
        row.push(median(&waits).map_or("none".to_owned(), ms));
        row.push(worst(&waits).map_or("none".to_owned(), ms));
        row.extend(counts(&figures));
        table.row(row);
    }
    let events: Vec<&Event> =
        measured.events.iter().filter(|event| event.kind == Kind::Switchover).collect();
    let gates: Vec<String> = events.iter().map(|event| gate(measured, event)).collect();
    format!(
        "{} switchovers; the counts are their sums. pgsteer opened its gate after {}.\n\n{}",
        events.len(),
        gates.join(", "),
        table.text()
    )
}

fn others(measured: &Measured) -> String {
    let mut text = String::new();
    for event in measured.events.iter().filter(|event| event.kind != Kind::Switchover) {
        let mut table = Table::new(&[
            &event.kind.to_string(),
            "wait",
            "slowest",
            "tries",
            "no connection",
            "read-only",
            "cut",
            "old sessions",
        ]);
        for (door, log) in &measured.logs {
            let figures = figures(log, event);
            let mut row = vec![door.name().to_owned()];
            row.push(figures.wait_us.map_or("none".to_owned(), span));
            row.extend(counts(&[figures]));
            table.row(row);
        }
        let took = span(event.writable_us.saturating_sub(event.began_us));
        let gate = gate(measured, event);
        let head = format!(
            "The next primary took writes {took} after the event; pgsteer's gate opened {gate} later."
        );
        let _ = writeln!(text, "{head}\n\n{}", table.text());
    }
    text
}

/// The time between the member's first write and the opening of pgsteer's gate. The observer may be
/// up to a millisecond later than pgsteer.
fn gate(measured: &Measured, event: &Event) -> String {
    let opened = opening(event, &measured.openings);
    opened
        .map_or("nothing".to_owned(), |opened| span(opened.at_us.saturating_sub(event.writable_us)))
}

/// The cells from "slowest" on.
fn counts(figures: &[Figures]) -> Vec<String> {
    let sum = |count: fn(&Figures) -> usize| figures.iter().map(count).sum::<usize>().to_string();
    let slowest = figures.iter().filter_map(|figures| figures.slowest_us).max();
    let old = figures.iter().map(|figures| figures.old_sessions).max().unwrap_or_default();
    vec![
        slowest.map_or("none".to_owned(), span),
        sum(|figures| figures.tries),
        sum(|figures| total(&figures.unconnected)),
        sum(|figures| figures.read_only),
        sum(|figures| total(&figures.cut)),
        match old {
            OldSessions::None | OldSessions::Gone { after_us: 0 } => "gone before".to_owned(),
            OldSessions::Gone { after_us } => span(after_us),
            OldSessions::Stayed { at_least_us } => format!("over {}", span(at_least_us)),
        },
    ]
}

fn reasons(measured: &Measured) -> String {
    let mut text = String::new();
    for (door, log) in &measured.logs {
        let mut all: BTreeMap<Kind, BTreeMap<String, usize>> = BTreeMap::new();
        for event in &measured.events {
            let figures = figures(log, event);
            let of_kind = all.entry(event.kind).or_default();
            add(of_kind, "no connection: ", &figures.unconnected);
            add(of_kind, "cut: ", &figures.cut);
            add(of_kind, "INSERT failed: ", &figures.failed);
            let lost = [("acknowledged by the old primary".to_owned(), figures.two_primaries)];
            add(of_kind, "too late, ", &BTreeMap::from(lost));
        }
        let _ = writeln!(text, "- {}", door.name());
        for (kind, reasons) in all {
            let words: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            let words = if words.is_empty() { "all served".to_owned() } else { words.join(", ") };
            let _ = writeln!(text, "  - {kind}: {words}");
        }
    }
    text
}

fn rest(measured: &Measured) -> String {
    let mut table = Table::new(&["path", "of one core", "memory"]);
    for (door, rest) in &measured.at_rest {
        let cells = [door.name().to_owned(), percent(rest.cores), mib(rest.resident_bytes)];
        table.row(cells.to_vec());
    }
    let seconds = measured.rest.as_secs();
    format!("Three members, no clients, over {seconds} s.\n\n{}", table.text())
}

fn undisturbed(measured: &Measured) -> String {
    let failed = measured.failed_undisturbed.iter();
    let each: Vec<String> =
        failed.map(|(door, count)| format!("{} {count}", door.name())).collect();
    format!("Tries that failed before the first event: {}.", each.join(", "))
}

fn of_door(measured: &Measured, door: Door, wanted: impl Fn(Kind) -> bool) -> Vec<Figures> {
    let log = measured.logs.iter().find(|(each, _)| *each == door).map(|(_, log)| log);
    let events = measured.events.iter().filter(|event: &&Event| wanted(event.kind));
    events.filter_map(|event| Some(figures(log?, event))).collect()
}

fn add(to: &mut BTreeMap<String, usize>, prefix: &str, counts: &BTreeMap<String, usize>) {
    for (reason, count) in counts.iter().filter(|(_, count)| **count > 0) {
        *to.entry(format!("{prefix}{reason}")).or_default() += count;
    }
}

fn waits(figures: &[Figures]) -> Vec<f64> {
    figures.iter().filter_map(|figures| Some(figures.wait_us? as f64)).collect()
}

fn worst(waits: &[f64]) -> Option<f64> {
    waits.iter().copied().max_by(f64::total_cmp)
}

fn total(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

fn ms(us: f64) -> String {
    span(us.round() as u64)
}

fn percent(cores: f64) -> String {
    format!("{:.2} %", cores * 100.0)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1048576.0)
}
