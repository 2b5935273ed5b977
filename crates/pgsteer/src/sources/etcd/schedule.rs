//! Switchovers that are scheduled for a time of day.
//!
//! Patroni keeps the order in its key and sleeps until its time (`should_run_scheduled_action`). So
//! Patroni writes nothing when the time comes. The core has no time of day; this module reports
//! the order when it is due.

use std::future::pending;
use std::time::{Duration, SystemTime};

use pgsteer_core::claim::{News, Order};
use pgsteer_wire::etcd::Ordered;
use tokio::time::sleep;

/// An order is reported this much before its time, because no two clocks agree.
const EARLY: Duration = Duration::from_millis(500);

/// An order whose time passed longer ago than this is ignored.
const STALE: Duration = Duration::from_secs(5);

/// The wait is split into pieces of this length, because an operator may set the machine's clock.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// An order whose time has not come yet.
#[derive(Debug, Default)]
pub struct Schedule(Option<(SystemTime, Order)>);

impl Schedule {
    /// Replaces the pending order with the current one. Returns the event to report at once, if
    /// any.
    pub fn set(&mut self, ordered: Option<Ordered>) -> Option<News> {
        self.set_at(ordered, SystemTime::now())
    }

    fn set_at(&mut self, ordered: Option<Ordered>, now: SystemTime) -> Option<News> {
        self.0 = None;
        let Some(Ordered { order, scheduled_at }) = ordered else {
            return Some(News::NoOrder);
        };
        let Some(text) = scheduled_at else {
            return Some(News::Ordered(order));
        };
        let at = time_of_day(&text);
        self.0 = at.filter(|at| *at + STALE > now).map(|at| (at, order));
        Some(News::NoOrder)
    }

    /// Waits for the time of the order and returns the order. Cancel safe.
    pub async fn due(&mut self) -> Order {
        loop {
            let Some((at, _)) = &self.0 else {
                return pending().await;
            };
            let left = (*at - EARLY).duration_since(SystemTime::now()).unwrap_or_default();
            if !left.is_zero() {
                sleep(left.min(CLOCK_LOOK)).await;
            } else if let Some((_, order)) = self.0.take() {
                return order;
            }
        }
    }
}

/// Parses a time as Python's `isoformat` writes it: `2026-01-14T10:09:57.139400+02:00`. Patroni
/// refuses a time without an offset.
fn time_of_day(text: &str) -> Option<SystemTime> {
    const STAMP_BYTES: usize = "2026-01-14T10:09:57".len();
    let split = text.char_indices().skip(STAMP_BYTES).find(|(_, c)| matches!(c, '+' | '-' | 'Z'));
    let (stamp, offset) = text.split_at(split?.0);
    let time = humantime::parse_rfc3339_weak(stamp).ok()?;
    let Some((hours, minutes)) = offset.get(1..).and_then(|rest| rest.split_once(':')) else {
        return (offset == "Z").then_some(time);
    };
    let seconds = |digits: &str, unit: u64| Some(u64::from(digits.parse::<u8>().ok()?) * unit);
    // Python appends seconds if an offset has some. No time zone of today has any.
    let minutes = minutes.split(':').next()?;
    let ahead = Duration::from_secs(seconds(hours, 3_600)? + seconds(minutes, 60)?);
    match offset.starts_with('+') {
        true => time.checked_sub(ahead),
        false => time.checked_add(ahead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(scheduled_at: Option<&str>) -> Option<Ordered> {
        let scheduled_at = scheduled_at.map(str::to_owned);
        Some(Ordered { order: Order::default(), scheduled_at })
    }

    fn seconds(text: &str) -> Option<u64> {
        let time = time_of_day(text)?;
        time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
    }

    #[test]
    fn a_time_is_read_with_its_offset() {
        let utc = 1_768_385_397;
        for text in [
            "2026-01-14T10:09:57+00:00",
            "2026-01-14T10:09:57Z",
            "2026-01-14T10:09:57.139400+00:00",
            "2026-01-14T12:09:57+02:00",
            "2026-01-14T05:39:57-04:30",
        ] {
            assert_eq!(seconds(text), Some(utc), "{text}");
        }
        for text in ["", "tomorrow", "2026-01-14T10:09:57", "2026-01-14T10:09:57+x", "2026-01-14"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_switchover_without_a_time_is_reported_at_once() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.set(ordered(None)), Some(News::Ordered(Order::default())));
        assert_eq!(schedule.set(None), Some(News::NoOrder));
    }

    #[tokio::test]
    async fn a_scheduled_switchover_is_reported_at_its_time() {
        let mut schedule = Schedule::default();
        let text = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let soon = text(SystemTime::now() + EARLY + Duration::from_secs(2));
        assert_eq!(schedule.set(ordered(Some(&soon))), Some(News::NoOrder));
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, schedule.due()).await.is_err(), "too early");
        assert_eq!(schedule.due().await, Order::default());
        assert!(tokio::time::timeout(wait, schedule.due()).await.is_err(), "reported twice");
    }

    #[tokio::test]
    async fn a_switchover_that_is_withdrawn_or_stale_is_never_reported() {
        let mut schedule = Schedule::default();
        let now = SystemTime::now();
        let text = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        schedule.set(ordered(Some(&text(now + EARLY))));
        schedule.set(None);
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, schedule.due()).await.is_err());
        for text in [text(now - STALE * 2), "nonsense".to_owned()] {
            assert_eq!(schedule.set(ordered(Some(&text))), Some(News::NoOrder));
            assert!(tokio::time::timeout(wait, schedule.due()).await.is_err());
        }
    }
}
