//! A histogram of times.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// The upper bounds of the buckets, in seconds: from a fast login to a session of an hour.
const USUAL: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 3600.0,
];
/// The same for probes. There are few, because each member has its own.
const PROBES: [f64; 8] = [0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 2.0, 5.0];
/// The same for lags.
const LAGS: [f64; 7] = [0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];

/// How often a time was in each range.
#[derive(Clone, Debug)]
pub struct Times(Histogram);

impl Default for Times {
    fn default() -> Times {
        Times(Histogram::new(USUAL))
    }
}

impl Times {
    /// A histogram for the times of probes.
    pub fn of_probes() -> Times {
        Times(Histogram::new(PROBES))
    }

    /// A histogram for lags.
    pub fn of_lags() -> Times {
        Times(Histogram::new(LAGS))
    }

    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }

    /// The histogram, in seconds, for the metrics.
    pub fn histogram(&self) -> Histogram {
        self.0.clone()
    }
}
