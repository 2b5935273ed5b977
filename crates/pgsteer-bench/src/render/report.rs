//! The section of docs/RENDER.md.

use std::time::Duration;

use super::prober::EVERY;
use super::{Event, Failover, Measured, Pair};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median, span};

/// `inter` of the rendered file, which has the default `--detect`.
const INTERVAL: Duration = Duration::from_millis(814);
/// The factor by which it must be faster than the other check.
const RATIO: f64 = 5.0;

pub fn section(measured: &Measured) -> String {
    let Measured { versions, standbys_known, failovers } = measured;
    let mut bars = Bars::new();
    let worst = standbys_known.iter().map(|pair| pair.rendered).max();
    bars.add(
        "time from HAProxy's start until every standby is known, worst",
        &format!("one check interval, {}", shown(INTERVAL)),
        worst.map(|it| (shown(it), it <= INTERVAL)),
    );
    for event in [Event::Switchover, Event::Crash] {
        let ratio = ratio(failovers, event).map(|it| (format!("{it:.1} times"), it >= RATIO));
        let figure = format!("median wait compared with the other check: {}", event.name());
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
One cluster of three members, and two HAProxys in front of it at the same time. One has the unchanged file of
`pgsteer render haproxy --profile sql` (`--detect 3s`). The other has the check of haproxy-postgresql: a
stand-in, written from the description of what that check sends and expects, with its timings
(`inter 5s fastinter 2s downinter 5s rise 2 fall 3`, 2 s for a check) and its rule that connections are
rejected unless exactly one server is UP. Its second Terminate is left out: it comes when the server has
already closed, and can only make the result worse.

- *Standbys known*: from the start of HAProxy's process to the moment when exactly one server is UP.
- *Wait*: a client tries to log in every TRY_EVERY. Its wait starts when the new primary takes writes, as a
  direct session shows, and ends with its first login there.
- *Failed* and *read-only*: the client's tries up to then.

In the promotion by hand no Patroni runs, and the standby is promoted as soon as the primary is dead. A check
of the dead primary has to fail first, because HAProxy admits no writer while two servers may be primary.";

fn starts(starts: &[Pair<Duration>]) -> String {
    let mut table = Table::new(&["start", "profile sql: standbys known", "other check"]);
    for (number, pair) in (1..).zip(starts) {
        table.row(vec![format!("{number}"), shown(pair.rendered), shown(pair.other)]);
    }
    table.text()
}

fn waits(failovers: &[Failover]) -> String {
    let mut table = Table::new(&[
        "event",
        "profile sql: wait",
        "failed",
        "read-only",
        "other check: wait",
        "failed",
        "read-only",
    ]);
    for Failover { event, observed } in failovers {
        let mut row = vec![event.name().to_owned()];
        for observed in [observed.rendered, observed.other] {
            row.extend([
                shown(observed.wait),
                observed.failed.to_string(),
                observed.read_only.to_string(),
            ]);
        }
        table.row(row);
    }
    table.text()
}

/// The other check's median wait, divided by that of profile sql.
fn ratio(failovers: &[Failover], event: Event) -> Option<f64> {
    let of_event = || failovers.iter().filter(|failover| failover.event == event);
    let ours: Vec<f64> = of_event().map(|it| it.observed.rendered.wait.as_secs_f64()).collect();
    let theirs: Vec<f64> = of_event().map(|it| it.observed.other.wait.as_secs_f64()).collect();
    Some(median(&theirs)? / median(&ours)?)
}

fn shown(time: Duration) -> String {
    span(time.as_micros().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::prober::Observation;
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians_of_one_kind_of_event() {
        let observed =
            |ms| Observation { wait: Duration::from_millis(ms), failed: 0, read_only: 0 };
        let of = |event, rendered, other| Failover {
            event,
            observed: Pair { rendered: observed(rendered), other: observed(other) },
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
