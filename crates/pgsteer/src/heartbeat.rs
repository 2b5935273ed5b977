//! The heartbeat: proof that the engine runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsteer_core::time::Moment;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::Clock;

/// When the engine last ran, and what it had published by then.
#[derive(Debug, Default)]
pub struct Heartbeat {
    last_ms: AtomicU64,
    /// The generation of the newest Snapshot that was published before the last beat.
    generation: AtomicU64,
    beaten: Notify,
}

/// The heartbeat and the clock that it is read by.
#[derive(Clone, Debug)]
pub struct Pulse {
    heartbeat: Arc<Heartbeat>,
    clock: Clock,
}

impl Heartbeat {
    /// The maximum time between two beats.
    pub const INTERVAL: Duration = Duration::from_millis(250);

    /// After this long without a beat the process was stopped, and the newest Snapshot is old.
    /// Nothing is sent to a write member then until the next beat. The clock is the monotonic
    /// one: it stands still while the machine itself is suspended.
    pub const OLD_AFTER: Duration = Duration::from_secs(1);

    /// After this long without a beat the engine is stuck.
    pub const STUCK_AFTER: Duration = Duration::from_secs(5);

    /// Notes that the engine runs at `now`.
    pub fn beat(&self, now: Moment) {
        let millis = u64::try_from(now.since_start().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(millis, Ordering::Release);
        self.beaten.notify_waiters();
    }

    /// The time since the engine last ran.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_millis(self.last_ms.load(Ordering::Acquire)))
    }
}

impl Pulse {
    /// The pulse of `heartbeat`, whose moments are those of `clock`.
    pub fn new(heartbeat: Arc<Heartbeat>, clock: Clock) -> Pulse {
        Pulse { heartbeat, clock }
    }

    /// Notes that the engine runs at `now` and has published the Snapshot `generation`.
    pub fn beat(&self, now: Moment, generation: u64) {
        self.heartbeat.generation.store(generation, Ordering::Relaxed);
        self.heartbeat.beat(now);
    }

    /// Returns true if the last beat is recent, and a worker that has acted on the Snapshot of
    /// generation `acted` has acted on every Snapshot that was published before that beat.
    pub fn is_current(&self, acted: u64) -> bool {
        // In this order: the generation is at least that of the beat that was read.
        self.heartbeat.age(self.clock.now()) < Heartbeat::OLD_AFTER
            && self.heartbeat.generation.load(Ordering::Relaxed) <= acted
    }

    /// Completes at the next beat after this call, also if it is polled later.
    pub fn next_beat(&self) -> Notified<'_> {
        self.heartbeat.beaten.notified()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_pulse_is_current_after_a_recent_beat_whose_snapshot_was_acted_on() {
        let begun = Instant::now() - Duration::from_secs(60);
        let pulse = Pulse::new(Arc::default(), Clock::since(begun));
        let now = || pulse.clock.now();
        assert!(!pulse.is_current(7), "no beat for a minute");
        pulse.beat(now(), 7);
        assert!(pulse.is_current(7) && pulse.is_current(8));
        assert!(!pulse.is_current(6), "an older Snapshot");
        pulse.beat(Moment::after_start(now().since_start() - Heartbeat::OLD_AFTER), 7);
        assert!(!pulse.is_current(7));
    }
}
