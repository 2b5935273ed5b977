//! The section of docs/BENCHMARKS.md.

use std::fmt::Write;
use std::time::Duration;

use super::load::Answer;
use super::{Measured, Plan, Upgraded};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median, span};

/// Answers that were requested this long before the signal may wait for it too.
const BEFORE: Duration = Duration::from_millis(20);
/// A new client that waits longer than this was delayed.
const DELAYED: Duration = Duration::from_millis(100);

pub fn section(plan: &Plan, pgsteer: &Measured, haproxy: &Measured) -> String {
    let mut text = format!(
        "## An upgrade under load\n\n`make bench-upgrade`, {}.\n\n{} sessions, {} of them send a query \
         every 200 ms; 50 new clients a second; a fake server that answers at once. {} upgrades of \
         pgsteer in a row, then {} reloads of HAProxy (`-W`, SIGUSR2) under the same load.\n\n\
         ### The bars\n\n",
        today(),
        pgsteer.sessions,
        plan.busy,
        pgsteer.upgrades.len(),
        haproxy.upgrades.len()
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", bars(pgsteer));
    let _ = writeln!(text, "### Both\n\n{}", both(pgsteer, haproxy));
    text
}

fn bars(measured: &Measured) -> String {
    let mut bars = Bars::new();
    let count = |count: usize| Some((count.to_string(), count == 0));
    let delayed =
        during(measured, &measured.seen.new).filter(|answer| answer.took > DELAYED).count();
    bars.add("sessions lost", "0", count(measured.seen.lost));
    bars.add("new clients failed", "0", count(measured.seen.failed));
    bars.add("new clients delayed by more than 100 ms", "0", count(delayed));
    let pauses = pauses(measured);
    let in_time =
        |time: Option<Duration>, bar: Duration| time.map(|time| (span(us(time)), time <= bar));
    let middle = middle(&pauses);
    bars.add("pause of a busy session, median", "5 ms", in_time(middle, Duration::from_millis(5)));
    let worst = pauses.iter().max().copied();
    bars.add("pause of a busy session, worst", "50 ms", in_time(worst, Duration::from_millis(50)));
    let gone = measured.upgrades.iter().map(|upgrade| upgrade.old_gone).max().flatten();
    bars.add(
        "signal to the end of the old process, worst",
        "1 s",
        in_time(gone, Duration::from_secs(1)),
    );
    bars.text()
}

fn both(pgsteer: &Measured, haproxy: &Measured) -> String {
    let mut table = Table::new(&["figure", "pgsteer, upgrade", "HAProxy, reload"]);
    let mut row = |figure: &str, of: &dyn Fn(&Measured) -> String| {
        table.row(vec![figure.to_owned(), of(pgsteer), of(haproxy)]);
    };
    row("sessions lost", &|it| it.seen.lost.to_string());
    row("new clients failed", &|it| it.seen.failed.to_string());
    row("answer to a query, median, always", &|it| {
        let all: Vec<Duration> = it.seen.busy.iter().flatten().map(|answer| answer.took).collect();
        shown(middle(&all))
    });
    row("longest answer of a session in an upgrade, median", &|it| shown(middle(&pauses(it))));
    row("the same, worst", &|it| shown(pauses(it).into_iter().max()));
    row("login of a new client in an upgrade, worst", &|it| {
        shown(during(it, &it.seen.new).map(|answer| answer.took).max())
    });
    row("signal to the end of the old process, worst", &|it| {
        let gone: Option<Vec<Duration>> =
            it.upgrades.iter().map(|upgrade| upgrade.old_gone).collect();
        gone.map_or("it stays with its sessions".to_owned(), |gone| shown(gone.into_iter().max()))
    });
    row("memory of the first and the last new process", &|it| {
        first_and_last(it, |upgrade| format!("{:.1} MB", upgrade.resident_bytes as f64 / 1e6))
    });
    row("open files of the first and the last new process", &|it| {
        first_and_last(it, |upgrade| upgrade.files.to_string())
    });
    table.text()
}

fn first_and_last(measured: &Measured, of: impl Fn(&Upgraded) -> String) -> String {
    match measured.upgrades.as_slice() {
        [] => "none".to_owned(),
        [only] => of(only),
        [first, .., last] => format!("{}, {}", of(first), of(last)),
    }
}

/// For each upgrade and busy session, the longest answer that was requested in it.
fn pauses(measured: &Measured) -> Vec<Duration> {
    let mut pauses = Vec::new();
    for upgrade in &measured.upgrades {
        for session in &measured.seen.busy {
            let longest = session.iter().filter(|answer| is_in(upgrade, answer));
            pauses.extend(longest.map(|answer| answer.took).max());
        }
    }
    pauses
}

fn during<'a>(
    measured: &'a Measured,
    answers: &'a [Answer],
) -> impl Iterator<Item = &'a Answer> + use<'a> {
    let is_in = |answer: &&Answer| measured.upgrades.iter().any(|upgrade| is_in(upgrade, answer));
    answers.iter().filter(is_in)
}

fn is_in(upgrade: &Upgraded, answer: &Answer) -> bool {
    let time = upgrade.old_gone.unwrap_or(Duration::from_secs(1));
    answer.asked + BEFORE >= upgrade.began && answer.asked <= upgrade.began + time
}

fn middle(times: &[Duration]) -> Option<Duration> {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    median(&seconds).map(Duration::from_secs_f64)
}

fn shown(time: Option<Duration>) -> String {
    time.map_or("none".to_owned(), |time| span(us(time)))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
