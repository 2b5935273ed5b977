//! Parses the numbers of the configuration, each within its range.

use std::fmt;
use std::time::Duration;

use pgsteer_core::units::{near_time, seconds_text};

use crate::problem::{Problem, Shown};
use crate::range::{Seconds, Whole};

impl Seconds {
    /// Parses a number of seconds.
    ///
    /// # Errors
    /// Not a number, or one out of the range.
    pub fn read(&self, text: &str) -> Result<Duration, Problem> {
        let number: f64 = text.parse().map_err(|_| Problem::NotSeconds {
            found: Shown::of(text).to_string(),
            range: *self,
            near: near_time(text).filter(|time| self.contains(*time)).map(seconds_text),
        })?;
        Duration::try_from_secs_f64(number)
            .ok()
            .filter(|time| self.contains(*time))
            .ok_or_else(|| out_of_range(text, self))
    }
}

impl Whole {
    /// Parses a whole number.
    ///
    /// # Errors
    /// Not a whole number, or one out of the range.
    pub fn read(&self, text: &str) -> Result<u64, Problem> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(Problem::NotWhole { found: Shown::of(text).to_string(), range: *self });
        }
        text.parse()
            .ok()
            .filter(|number| self.contains(*number))
            .ok_or_else(|| out_of_range(text, self))
    }
}

fn out_of_range(text: &str, range: &impl fmt::Display) -> Problem {
    Problem::OutOfRange { found: Shown::of(text), range: range.to_string() }
}
