//! Ranges of numbers, with their defaults.

use std::fmt;
use std::time::Duration;

use pgsteer_core::units::seconds_text;

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

    /// Returns true if `number` is in the range.
    pub fn contains(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number)
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
