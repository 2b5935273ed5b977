//! Series of numbers: one point a second for ten minutes, one a minute for a day.

use std::collections::BTreeMap;

use pgsteer_core::names::{MemberName, ServiceName};
use serde::{Deserialize, Serialize};

use super::handed::{numbers, pairs};

/// Points of one second each that are kept: ten minutes.
pub const SECONDS: usize = 600;
/// Points of one minute each that are kept: a day.
pub const MINUTES: usize = 24 * 60;
/// The most series. One takes 8 kB, so all take 5 MB. Further ones are not recorded.
const SERIES_MAX: usize = 640;

/// What a series measures.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Measure {
    /// Sessions at the moment.
    Sessions,
    /// Sessions that began, per second.
    NewSessions,
    /// Bytes from clients, per second.
    BytesIn,
    /// Bytes to clients, per second.
    BytesOut,
    /// Clients on hold at the moment.
    Held,
    /// Clients that were refused, per second.
    Refused,
    /// The lag of the replay, in seconds.
    Lag,
    /// The used part of the member's session limit, in percent.
    Load,
}

impl Measure {
    /// The name, for machines.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Sessions => "sessions",
            Measure::NewSessions => "new_sessions_per_second",
            Measure::BytesIn => "bytes_in_per_second",
            Measure::BytesOut => "bytes_out_per_second",
            Measure::Held => "held",
            Measure::Refused => "refused_per_second",
            Measure::Lag => "lag_seconds",
            Measure::Load => "load_percent",
        }
    }

    /// A minute of a gauge is shown by its highest value, a minute of a rate by its mean.
    fn is_gauge(self) -> bool {
        matches!(self, Measure::Sessions | Measure::Held | Measure::Lag | Measure::Load)
    }
}

/// What a series is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Subject {
    /// A service at all members.
    Service(ServiceName),
    /// A member for all services.
    Member(MemberName),
}

/// All series. Points are pushed for all of them at the same moments.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct AllSeries {
    #[serde(with = "pairs")]
    series: BTreeMap<(Subject, Measure), Series>,
    /// Seconds since the start.
    ticks: usize,
}

/// One series. A point that was not recorded is NaN.
#[derive(Debug, Deserialize, Serialize)]
struct Series {
    #[serde(with = "numbers")]
    seconds: Box<[f32]>,
    #[serde(with = "numbers")]
    minutes: Box<[f32]>,
    /// The minute that is not complete: the sum, the highest value and the number of its points.
    minute: (f32, f32, u16),
    /// When the last point was pushed.
    ticked: usize,
}

impl AllSeries {
    /// Removes what a history from outside must not have.
    pub fn remove_malformed(&mut self) {
        let ticks = self.ticks;
        self.series.retain(|_, series| series.is_whole() && series.ticked <= ticks);
    }

    /// Pushes the points of one second. A series without a point has a gap there.
    pub fn push(&mut self, points: impl IntoIterator<Item = (Subject, Measure, f32)>) {
        let at = self.ticks;
        self.ticks += 1;
        for (subject, measure, value) in points {
            let is_full = self.series.len() >= SERIES_MAX;
            match self.series.get_mut(&(subject.clone(), measure)) {
                Some(series) => series.push(at, value),
                None if is_full => {}
                None => {
                    let series = self.series.entry((subject, measure)).or_insert_with(Series::new);
                    series.push(at, value);
                }
            }
        }
        for ((_, measure), series) in &mut self.series {
            if series.ticked != at {
                series.seconds[at % SECONDS] = f32::NAN;
            }
            if self.ticks.is_multiple_of(60) {
                series.end_minute(self.ticks / 60 - 1, *measure);
            }
        }
        // A series that had no point for a day belongs to a member or service that is gone.
        self.series.retain(|_, series| at - series.ticked < MINUTES * 60);
    }

    /// The newest `count` points of one second each, oldest first; NaN where none was recorded.
    pub fn seconds(&self, subject: &Subject, measure: Measure, count: usize) -> Vec<f32> {
        let series = self.series.get(&(subject.clone(), measure));
        newest(series.map(|series| &*series.seconds), self.ticks, count.min(SECONDS))
    }

    /// The newest `count` points of one minute each, oldest first; NaN where none was recorded.
    pub fn minutes(&self, subject: &Subject, measure: Measure, count: usize) -> Vec<f32> {
        let series = self.series.get(&(subject.clone(), measure));
        newest(series.map(|series| &*series.minutes), self.ticks / 60, count.min(MINUTES))
    }

    /// What is recorded.
    pub fn names(&self) -> impl Iterator<Item = &(Subject, Measure)> {
        self.series.keys()
    }
}

fn newest(ring: Option<&[f32]>, end: usize, count: usize) -> Vec<f32> {
    let point = |ago: usize| {
        let at = end.checked_sub(ago)?;
        ring.map(|ring| ring[at % ring.len()])
    };
    (1..=count).rev().map(|ago| point(ago).unwrap_or(f32::NAN)).collect()
}

impl Series {
    fn new() -> Series {
        let gaps = |count| vec![f32::NAN; count].into_boxed_slice();
        Series { seconds: gaps(SECONDS), minutes: gaps(MINUTES), minute: (0.0, 0.0, 0), ticked: 0 }
    }

    fn is_whole(&self) -> bool {
        self.seconds.len() == SECONDS && self.minutes.len() == MINUTES
    }

    fn push(&mut self, at: usize, value: f32) {
        self.seconds[at % SECONDS] = value;
        self.ticked = at;
        let (sum, max, count) = self.minute;
        self.minute = (sum + value, max.max(value), count + 1);
    }

    fn end_minute(&mut self, minute: usize, measure: Measure) {
        let (sum, max, count) = std::mem::take(&mut self.minute);
        self.minutes[minute % MINUTES] = match count {
            0 => f32::NAN,
            _ if measure.is_gauge() => max,
            _ => sum / f32::from(count),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write() -> Subject {
        Subject::Service(ServiceName::new("write").unwrap())
    }

    fn push(all: &mut AllSeries, value: f32) {
        all.push([(write(), Measure::Held, value), (write(), Measure::BytesIn, value)]);
    }

    #[test]
    fn seconds_and_minutes_end_with_the_newest_point() {
        let mut all = AllSeries::default();
        for second in 0..120_u8 {
            push(&mut all, f32::from(second));
        }
        assert_eq!(all.seconds(&write(), Measure::Held, 3), [117.0, 118.0, 119.0]);
        assert_eq!(all.minutes(&write(), Measure::Held, 2), [59.0, 119.0], "the highest value");
        assert_eq!(all.minutes(&write(), Measure::BytesIn, 2), [29.5, 89.5], "the mean");
    }

    #[test]
    fn a_second_without_a_point_is_a_gap() {
        let mut all = AllSeries::default();
        push(&mut all, 1.0);
        all.push([]);
        push(&mut all, 3.0);
        let held = all.seconds(&write(), Measure::Held, 4);
        assert!(held[0].is_nan() && held[2].is_nan(), "{held:?}");
        assert_eq!((held[1], held[3]), (1.0, 3.0));
    }

    #[test]
    fn the_memory_of_a_day_with_many_members_is_bounded() {
        let mut all = AllSeries::default();
        for number in 0..5_000 {
            let member = MemberName::new(&format!("n{number}")).unwrap();
            all.push([(Subject::Member(member), Measure::Lag, 1.0)]);
        }
        assert_eq!(all.series.len(), SERIES_MAX);
        let bytes = SERIES_MAX * (SECONDS + MINUTES) * size_of::<f32>();
        assert!(bytes < 6 << 20, "{bytes}");
    }
}
