//! The history: what happened in the last day, in memory, at most 8 MB.
//!
//! The recorder reads each Snapshot and, once a second, the counters. The pages read the history.
//! Nothing here decides anything.

mod changes;
mod events;
mod handed;
mod rates;
mod segments;
mod series;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

#[cfg(test)]
pub use self::changes::Counters;
pub use self::changes::{Change, Changes};
pub use self::events::Events;
pub use self::rates::{Rate, Rates};
pub use self::segments::{Line, Segment, Segments, State};
pub use self::series::{AllSeries, Measure, Subject};
use crate::clock::Clock;
use crate::stats::Stats;

/// How often the counters are read.
const TICK: Duration = Duration::from_secs(1);

/// The history, shared by the recorder and the pages.
#[derive(Debug, Default)]
pub struct History(Mutex<Past>);

/// All that is kept.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Past {
    /// Numbers over time.
    pub series: AllSeries,
    /// Roles and gates over time.
    pub segments: Segments,
    /// Switchovers, failovers and outages.
    pub changes: Changes,
    /// The events of the last day.
    pub events: Events,
    /// The rates of the last second.
    #[serde(skip)]
    pub rates: Rates,
}

impl History {
    /// The history. The lock must not be held over an await.
    pub fn read(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a Snapshot.
    pub fn note_snapshot(&self, snapshot: &Snapshot, stats: &Stats, now: Moment) {
        let mut past = self.read();
        past.segments.observe(snapshot, now);
        past.events.observe(snapshot);
        past.changes.observe(snapshot, now, |name| rates::counters_of(&stats.service(name)));
    }

    /// Records the counters of one more second.
    pub fn note_second(&self, snapshot: &Snapshot, stats: &Stats, now: Moment) {
        let mut past = self.read();
        past.changes.observe(snapshot, now, |name| rates::counters_of(&stats.service(name)));
        past.rates.observe(snapshot, stats, now);
        let points = past.rates.points(snapshot, stats);
        past.series.push(points);
    }
}

/// Records until the Snapshots end.
pub async fn record(
    history: Arc<History>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    stats: Arc<Stats>,
    clock: Clock,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        history.note_snapshot(&snapshot, &stats, clock.now());
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            _ = ticks.tick() => history.note_second(&snapshot, &stats, clock.now()),
        }
    }
}
