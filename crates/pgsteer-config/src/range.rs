//! Ranges of numbers, with their defaults.

use std::fmt;
use std::time::Duration;

use pgsteer_core::units::{near_time, seconds_text};

use crate::problem::{Problem, Shown};

fn out_of_range(text: &str, range: &impl fmt::Display) -> Problem {
    Problem::OutOfRange { found: Shown::of(text), range: range.to_string() }
}

/// The range of a time, and its default if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds {
    min: Duration,
    max: Duration,
    default: Option<Duration>,
}

impl Seconds {
    /// A range from `min_millis` to `max_millis`.
    pub const fn within(min_millis: u64, max_millis: u64) -> Seconds {
        Seconds {
            min: Duration::from_millis(min_millis),
            max: Duration::from_millis(max_millis),
            default: None,
        }
    }

    /// The same with a default, in milliseconds.
    pub const fn or(self, default_millis: u64) -> Seconds {
        self.or_default(Duration::from_millis(default_millis))
    }

    /// The same with a default.
    pub const fn or_default(self, default: Duration) -> Seconds {
        Seconds { default: Some(default), ..self }
    }

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

    /// Returns true if `time` is in the range.
    pub fn contains(&self, time: Duration) -> bool {
        (self.min..=self.max).contains(&time)
    }

    /// The default, if it is fixed.
    pub fn default(&self) -> Option<Duration> {
        self.default
    }

    /// The range in words.
    pub fn range_text(&self) -> String {
        format!("from {} to {} seconds", seconds_text(self.min), seconds_text(self.max))
    }

    /// The default; the minimum if there is no fixed default.
    pub fn usual(&self) -> Duration {
        self.default.unwrap_or(self.min)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.range_text())?;
        match self.default {
            Some(default) => write!(f, "; the default is {}", seconds_text(default)),
            None => Ok(()),
        }
    }
}

/// The range of a whole number, and its default if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    min: u64,
    max: u64,
    default: Option<u64>,
}

impl Whole {
    /// A range from `min` to `max`.
    pub const fn within(min: u64, max: u64) -> Whole {
        Whole { min, max, default: None }
    }

    /// The same with a default.
    pub const fn or(self, default: u64) -> Whole {
        Whole { default: Some(default), ..self }
    }

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
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| out_of_range(text, self))
    }

    /// The default, if it is fixed.
    pub fn default(&self) -> Option<u64> {
        self.default
    }

    /// The range in words.
    pub fn range_text(&self) -> String {
        format!("from {} to {}", self.min, self.max)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.range_text())?;
        match self.default {
            Some(default) => write!(f, "; the default is {default}"),
            None => Ok(()),
        }
    }
}
