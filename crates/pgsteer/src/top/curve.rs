//! The curves of the last two minutes, from the readings of this program alone.

use std::collections::VecDeque;
use std::time::Duration;

use super::look::Look;
use crate::status::document::Cluster;

/// The length of a curve in seconds.
const SECONDS: u64 = 120;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Sessions that begin per second.
    pub new_sessions: f64,
    /// Bytes per second in both directions.
    pub bytes: f64,
    /// Clients on hold.
    pub held: f64,
}

impl Reading {
    /// The sums over all services of `cluster`.
    pub fn of(cluster: &Cluster) -> Reading {
        let mut reading = Reading::default();
        for service in &cluster.services {
            let traffic = &service.traffic;
            reading.new_sessions += traffic.new_sessions_per_second;
            reading.bytes += traffic.bytes_in_per_second + traffic.bytes_out_per_second;
            // A count of clients fits into an f64 exactly.
            reading.held += service.held as f64;
        }
        reading
    }
}

/// The readings of the last two minutes, by second.
#[derive(Clone, Debug, Default)]
pub struct Readings(VecDeque<(u64, Reading)>);

impl Readings {
    /// Adds a reading of the time `at`.
    pub fn push(&mut self, reading: Reading, at: Duration) {
        let second = at.as_secs();
        self.0.retain(|(other, _)| *other != second && other + SECONDS > second);
        self.0.push_back((second, reading));
    }

    /// The last reading.
    pub fn last(&self) -> Reading {
        self.0.back().map(|(_, reading)| *reading).unwrap_or_default()
    }

    /// A curve of `cells` until `now`: the highest value of each part of the time. A part without a reading
    /// is blank.
    pub fn curve(
        &self,
        value: fn(&Reading) -> f64,
        now: Duration,
        cells: usize,
        look: Look,
    ) -> String {
        let cells_wide = u64::try_from(cells.max(1)).unwrap_or(SECONDS);
        let step = SECONDS.div_ceil(cells_wide);
        let highest = self.0.iter().map(|(_, reading)| value(reading)).fold(0.0, f64::max);
        // Parts begin at whole multiples of their length, so a curve moves and does not change its form.
        let newest = now.as_secs() / step;
        let part = |back: u64| {
            let part = newest.checked_sub(back)?;
            let of_part = self.0.iter().filter(|(second, _)| second / step == part);
            of_part.map(|(_, reading)| value(reading)).reduce(f64::max)
        };
        let parts = (0..cells_wide).rev().map(|back| match part(back) {
            None => ' ',
            Some(value) => step_of(value, highest, look),
        });
        parts.collect()
    }
}

fn step_of(value: f64, highest: f64, look: Look) -> char {
    let steps = look.steps();
    let share = if highest > 0.0 { (value / highest).clamp(0.0, 1.0) } else { 0.0 };
    // The lowest step is zero alone.
    let number = match share {
        0.0 => 0,
        share => ((share * 7.0).ceil() as usize).clamp(1, 7),
    };
    steps.get(number).copied().unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::table::Ink;

    const PLAIN: Look = Look { ink: Ink::Plain, is_unicode: false };

    fn held(held: f64) -> Reading {
        Reading { held, ..Reading::default() }
    }

    #[test]
    fn a_curve_has_the_highest_value_of_each_part_and_blanks_where_nothing_was_read() {
        let mut readings = Readings::default();
        for (second, value) in [(100, 0.0), (110, 4.0), (119, 1.0), (130, 7.0)] {
            readings.push(held(value), Duration::from_secs(second));
        }
        let curve = |cells| readings.curve(|it| it.held, Duration::from_secs(130), cells, PLAIN);
        assert_eq!(curve(12), "        _= #");
        assert_eq!(curve(120).chars().count(), 120);
        assert_eq!(curve(1).chars().count(), 1);
    }

    #[test]
    fn readings_older_than_two_minutes_are_dropped() {
        let mut readings = Readings::default();
        for second in 0..1_000 {
            readings.push(held(1.0), Duration::from_secs(second));
        }
        assert_eq!(readings.0.len(), 120);
    }
}
