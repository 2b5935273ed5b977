//! Times of day in the pages, and their conversion from moments.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgsteer_core::time::Moment;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Clock;

/// The last second that RFC 3339 can write: the end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A time of day in UTC, written as `2026-07-04T12:00:00.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(SystemTime);

/// The present, both as a moment and as a time of day.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The moment.
    pub at: Moment,
    /// The time of day of that moment.
    pub wall: SystemTime,
    /// How long this process has run.
    pub uptime: Duration,
}

impl Stamp {
    /// The stamp of `wall`. A time that RFC 3339 cannot express becomes the nearest one that it can: a
    /// machine whose clock is not set yet needs its pages too.
    pub fn new(wall: SystemTime) -> Stamp {
        Stamp(wall.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
    }

    /// The stamp of this time since 1970 in milliseconds.
    pub fn of_unix_millis(millis: u64) -> Stamp {
        Stamp::new(
            UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH + LAST),
        )
    }

    /// The time since 1970 in milliseconds.
    pub fn unix_millis(self) -> u64 {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time of day to the second, as `12:00:00`.
    pub fn clock(self) -> String {
        self.to_string().get(11..19).unwrap_or_default().to_owned()
    }

    /// The date, as `2026-07-04`.
    pub fn date(self) -> String {
        self.to_string().get(..10).unwrap_or_default().to_owned()
    }

    /// The time since `earlier`; zero if this is before it.
    pub fn since(self, earlier: Stamp) -> Duration {
        self.0.duration_since(earlier.0).unwrap_or_default()
    }
}

impl JsonSchema for Stamp {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Now {
    /// The present by `clock`.
    pub fn of(clock: &Clock) -> Now {
        Now { at: clock.now(), wall: SystemTime::now(), uptime: clock.uptime() }
    }

    /// The time of day of `moment`. It is counted back from the present, because the clock may have been set
    /// since the start. All stamps of one page keep their distances.
    pub fn stamp(&self, moment: Moment) -> Stamp {
        let wall = self
            .wall
            .checked_sub(self.at.since(moment))
            .and_then(|wall| wall.checked_add(moment.since(self.at)));
        Stamp::new(wall.unwrap_or(UNIX_EPOCH))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_rfc3339_millis(self.0), f)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wall = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(Stamp::new(wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_before_now_is_that_much_earlier_in_the_day() {
        let now = Now {
            at: Moment::from_millis(10_000),
            wall: UNIX_EPOCH + Duration::from_secs(1_783_166_400),
            uptime: Duration::ZERO,
        };
        let stamp = now.stamp(Moment::from_millis(8_877));
        assert_eq!(stamp.to_string(), "2026-07-04T11:59:58.877Z");
        assert_eq!(now.stamp(now.at).since(stamp), Duration::from_millis(1_123));
    }

    #[test]
    fn a_clock_that_was_never_set_has_stamps_too() {
        let now = Now { at: Moment::from_millis(10_000), wall: UNIX_EPOCH, uptime: Duration::ZERO };
        assert_eq!(now.stamp(Moment::START).to_string(), "1970-01-01T00:00:00.000Z");
        let end = Stamp::new(UNIX_EPOCH + LAST + Duration::from_secs(1));
        assert_eq!(end.to_string(), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn a_stamp_has_a_date_and_a_time_of_day() {
        let stamp = Stamp::of_unix_millis(1_783_166_400_123);
        assert_eq!((stamp.date().as_str(), stamp.clock().as_str()), ("2026-07-04", "12:00:00"));
        assert_eq!(stamp.unix_millis(), 1_783_166_400_123);
        assert_eq!(Stamp::of_unix_millis(u64::MAX).date(), "9999-12-31");
    }

    #[test]
    fn a_stamp_reads_back_as_it_was_written() {
        let stamp = Stamp::new(UNIX_EPOCH + Duration::from_millis(1_783_166_400_123));
        let json = serde_json::to_string(&stamp).unwrap();
        assert_eq!(json, "\"2026-07-04T12:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), stamp);
        assert!(serde_json::from_str::<Stamp>("\"yesterday\"").is_err());
    }
}
