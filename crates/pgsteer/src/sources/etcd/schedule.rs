//! Switchovers that are ordered for a time of day.
//!
//! Patroni leaves the order where it is and sleeps until its time (`should_run_scheduled_action`),
//! so nothing is written when that has come. The core knows no time of day; here it is told when
//! it is now.

use std::future::pending;
use std::time::{Duration, SystemTime};

use pgsteer_core::claim::{News, Order};
use pgsteer_wire::etcd::Ordered;
use tokio::time::sleep;

/// An order is told so much before its time, because no two clocks agree.
const EARLY: Duration = Duration::from_millis(500);

/// An order whose time has been over for so long is none any more.
const STALE: Duration = Duration::from_secs(5);

/// The clock of the machine may be set, so it is looked at that often.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// An order whose time has not come yet.
#[derive(Debug, Default)]
pub struct Schedule(Option<(SystemTime, Order)>);

impl Schedule {
    /// Takes in what is ordered now, which replaces whatever was. Gives what is to be told at once.
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

    /// Waits for the time of the order, and gives it then. May be dropped while it waits.
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

/// Reads a time as Python's `isoformat` writes it: `2026-01-14T10:09:57.139400+02:00`. Patroni
/// refuses one without an offset.
fn time_of_day(text: &str) -> Option<SystemTime> {
    const STAMP_BYTES: usize = "2026-01-14T10:09:57".len();
    let split = text.char_indices().skip(STAMP_BYTES).find(|(_, c)| matches!(c, '+' | '-' | 'Z'));
    let (stamp, offset) = text.split_at(split?.0);
    let time = humantime::parse_rfc3339_weak(stamp).ok()?;
    let Some((hours, minutes)) = offset.get(1..).and_then(|rest| rest.split_once(':')) else {
        return (offset == "Z").then_some(time);
    };
    let seconds = |digits: &str, unit: u64| Some(u64::from(digits.parse::<u8>().ok()?) * unit);
    // Python writes seconds behind it where an offset has some, which none of today has.
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
    fn an_order_without_a_time_is_told_at_once() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.set(ordered(None)), Some(News::Ordered(Order::default())));
        assert_eq!(schedule.set(None), Some(News::NoOrder));
    }

    #[tokio::test]
    async fn an_order_for_later_is_told_when_its_time_has_come() {
        let mut schedule = Schedule::default();
        let text = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let soon = text(SystemTime::now() + EARLY + Duration::from_secs(2));
        assert_eq!(schedule.set(ordered(Some(&soon))), Some(News::NoOrder));
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, schedule.due()).await.is_err(), "too early");
        assert_eq!(schedule.due().await, Order::default());
        assert!(tokio::time::timeout(wait, schedule.due()).await.is_err(), "told twice");
    }

    #[tokio::test]
    async fn an_order_that_is_taken_back_or_stale_is_never_told() {
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
