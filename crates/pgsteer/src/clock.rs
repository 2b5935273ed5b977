//! The clock: the one place that converts the machine's time to the core's [`Moment`].

use std::time::{Duration, Instant};

use pgsteer_core::time::Moment;

/// The anchor of all moments of one process. Create one early and copy it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The start of this process.
    started: Moment,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now(), started: Moment::START }
    }

    /// A clock that shows `now`, as that of the process whose service this one takes over. Moments of that process
    /// keep their meaning.
    pub fn continued(now: Moment) -> Clock {
        let instant = Instant::now();
        match instant.checked_sub(now.since_start()) {
            Some(start) => Clock { start, started: now },
            None => Clock::start(),
        }
    }

    /// A clock that was started at `start`.
    #[cfg(test)]
    pub fn since(start: Instant) -> Clock {
        Clock { start, started: Moment::START }
    }

    /// The current moment.
    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// How long this process has run.
    pub fn uptime(&self) -> Duration {
        self.now().since(self.started)
    }

    /// The moment of `instant`; an instant before the start counts as the start.
    pub fn moment(&self, instant: Instant) -> Moment {
        Moment::after_start(instant.saturating_duration_since(self.start))
    }

    /// The instant of `moment`, to sleep until it. A moment that is out of the machine clock's
    /// range, which is centuries, becomes a year after the start.
    pub fn instant(&self, moment: Moment) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start.checked_add(moment.since_start()).unwrap_or_else(|| self.start + FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_goes_to_an_instant_and_back() {
        let clock = Clock::start();
        let moment = Moment::from_millis(1234);
        assert_eq!(clock.moment(clock.instant(moment)), moment);
    }

    #[test]
    fn the_clock_of_another_process_goes_on() {
        let clock = Clock::continued(Moment::from_millis(90_000));
        assert!(clock.now() >= Moment::from_millis(90_000));
        assert!(clock.uptime() < Duration::from_secs(60));
        let ever = Moment::after_start(Duration::MAX);
        assert!(Clock::continued(ever).now() < Moment::from_millis(60_000), "it is not possible");
    }

    #[test]
    fn moments_grow_and_begin_at_the_start() {
        let before = Instant::now();
        let clock = Clock::start();
        assert_eq!(clock.moment(before), Moment::START);
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
