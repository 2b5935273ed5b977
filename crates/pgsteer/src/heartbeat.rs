//! The heartbeat: proof that the engine turns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsteer_core::time::Moment;

/// When the engine last turned.
#[derive(Debug, Default)]
pub struct Heartbeat {
    last_ms: AtomicU64,
}

impl Heartbeat {
    /// It beats at least this often.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// After this long without a beat the engine is stuck.
    pub const STUCK_AFTER: Duration = Duration::from_secs(5);

    /// The engine turns now.
    pub fn beat(&self, now: Moment) {
        let millis = u64::try_from(now.since_start().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(millis, Ordering::Relaxed);
    }

    /// How long ago the engine turned.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}
