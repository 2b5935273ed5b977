//! The section of docs/RENDER.md.

use std::time::Duration;

use super::prober::EVERY;
use super::{Event, Failover, Measured, Pair};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median, span};

/// `inter` of the rendered file, which has the usual `--detect`.
const INTERVAL: Duration = Duration::from_millis(814);
/// How much faster than the other check it has to be.
const RATIO: f64 = 5.0;

pub fn section(measured: &Measured) -> String {
    let Measured { versions, standbys_known, failovers } = measured;
    let mut bars = Bars::new();
    let worst = standbys_known.iter().map(|pair| pair.rendered).max();
    bars.add(
        "a standby is known as one after HAProxy's start, slowest",
        &format!("one check interval, {}", shown(INTERVAL)),
        worst.map(|it| (shown(it), it <= INTERVAL)),
    );
    for event in [Event::Switchover, Event::Crash] {
        let ratio = ratio(failovers, event).map(|it| (format!("{it:.1} times"), it >= RATIO));
        let figure = format!("failover beside the other check, medians: {}", event.name());
        bars.add(&figure, &format!("{RATIO} times faster"), ratio);
    }
    format!(
        "Measured on {}, with:\n\n{versions}\n\n{}\n{}\n{}\n{NOTES}",
        today(),
        bars.text(),
        starts(standbys_known),
        waits(failovers),
    )
    .replace("TRY_EVERY", &shown(EVERY))
}

const NOTES: &str = "\
One cluster of three members and two HAProxys before it at the same time: one with the file of `pgsteer
render haproxy --profile sql` as it comes (`--detect 3s`), and one with the check of haproxy-postgresql: a
stand-in, written for this from the description of what that check says and expects, with its timings
(`inter 5s fastinter 2s downinter 5s rise 2 fall 3`, 2 s for a check) and its rule that connections are
rejected unless exactly one server is UP. Left out is its second Terminate, which comes when the server has
closed already and can only make it worse.

*Standbys known* is the time from the start of HAProxy's process to the moment when exactly one server is UP.
The wait is that of a client which tries to log in every TRY_EVERY, from the moment when the new primary took
writes, known from a direct session, to the end of its first login there. *Failed* and *read-only* are its
tries up to then. In the event by hand no Patroni runs, and the standby is promoted as soon as the
primary is dead; a check of the dead one has to fail first, because two that may be primaries are one too
many.";

fn starts(starts: &[Pair<Duration>]) -> String {
    let mut table = Table::new(&["start", "profile sql: standbys known", "other check"]);
    for (number, pair) in (1..).zip(starts) {
        table.row(vec![format!("{number}"), shown(pair.rendered), shown(pair.other)]);
    }
    table.text()
}

fn waits(failovers: &[Failover]) -> String {
    let mut table = Table::new(&[
        "the primary is lost by",
        "profile sql: wait",
        "failed",
        "read-only",
        "other check: wait",
        "failed",
        "read-only",
    ]);
    for Failover { event, told } in failovers {
        let mut row = vec![event.name().to_owned()];
        for told in [told.rendered, told.other] {
            row.extend([shown(told.wait), told.failed.to_string(), told.read_only.to_string()]);
        }
        table.row(row);
    }
    table.text()
}

/// How many times as long the median wait at the other door is.
fn ratio(failovers: &[Failover], event: Event) -> Option<f64> {
    let of_event = || failovers.iter().filter(|failover| failover.event == event);
    let ours: Vec<f64> = of_event().map(|it| it.told.rendered.wait.as_secs_f64()).collect();
    let theirs: Vec<f64> = of_event().map(|it| it.told.other.wait.as_secs_f64()).collect();
    Some(median(&theirs)? / median(&ours)?)
}

fn shown(time: Duration) -> String {
    span(time.as_micros().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::prober::Told;
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians_of_one_kind_of_event() {
        let told = |ms| Told { wait: Duration::from_millis(ms), failed: 0, read_only: 0 };
        let of = |event, rendered, other| Failover {
            event,
            told: Pair { rendered: told(rendered), other: told(other) },
        };
        let all = [
            of(Event::Switchover, 100, 900),
            of(Event::Switchover, 200, 1000),
            of(Event::Switchover, 900, 1100),
            of(Event::Crash, 1, 1),
        ];
        assert_eq!(ratio(&all, Event::Switchover), Some(5.0));
        assert_eq!(ratio(&all[..3], Event::Crash), None);
    }
}
