//! Lag limits: in bytes or in time.

use std::time::Duration;

use pgsteer_core::units::LAG_BYTES_MAX;
use pgsteer_core::units::{near_size, near_time, size, size_text, time, time_text};

use crate::limits::LAG_SECONDS;
use crate::problem::{Problem, Shown};

/// The maximum lag of a replica: in bytes or in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagLimit {
    /// Bytes of WAL.
    Bytes(u64),
    /// Time since the last replayed transaction.
    Time(Duration),
}

/// Parses a lag limit in bytes, as `16MB`.
///
/// # Errors
/// Not a whole number with a unit, zero, or more than [`LAG_BYTES_MAX`].
pub fn lag_bytes(text: &str) -> Result<u64, Problem> {
    let wrong = || Problem::Size { found: Shown::of(text), near: near_size(text) };
    let bytes = size(text).ok_or_else(wrong)?;
    lag_bytes_in_range(bytes, text)
}

/// Checks a lag limit in bytes that was written as `text`.
///
/// # Errors
/// Zero, or more than [`LAG_BYTES_MAX`].
pub fn lag_bytes_in_range(bytes: u64, text: &str) -> Result<u64, Problem> {
    if (1..=LAG_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Problem::OutOfRange {
        found: Shown::of(text),
        range: format!(
            "from 1B to {}; without the key there is no limit",
            size_text(LAG_BYTES_MAX)
        ),
    })
}

/// Parses a lag limit of either kind: `16MB` or `10s`.
///
/// # Errors
/// Neither a size nor a time, or a value out of its range.
pub fn lag(text: &str) -> Result<LagLimit, Problem> {
    if size(text).is_some() {
        return lag_bytes(text).map(LagLimit::Bytes);
    }
    // A number without a unit may be either.
    let has_unit = text.trim().parse::<f64>().is_err();
    let near_time = || near_time(text).filter(|_| has_unit).map(time_text);
    let near = || near_size(text).or_else(near_time);
    let wrong = || Problem::Lag { found: Shown::of(text), near: near() };
    let time = time(text).ok_or_else(wrong)?;
    if LAG_SECONDS.contains(time) {
        return Ok(LagLimit::Time(time));
    }
    Err(Problem::OutOfRange { found: Shown::of(text), range: LAG_SECONDS.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelled_as_postgresql_does() {
        assert_eq!(lag_bytes("16MB").unwrap(), 16 * 1024 * 1024);
        assert_eq!(lag_bytes(" 1 kB ").unwrap(), 1024);
        for wrong in ["", "MB", "16", "16mb", "16MiB", "1.5GB", "-1MB", "16 M B"] {
            assert!(matches!(lag_bytes(wrong), Err(Problem::Size { .. })), "{wrong}");
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused_without_overflow() {
        for wrong in ["0B", "1025TB"] {
            let problem = lag_bytes(wrong).unwrap_err();
            assert!(matches!(problem, Problem::OutOfRange { .. }), "{wrong}");
        }
        for wrong in ["99999999TB", "18446744073709551616B"] {
            assert!(lag_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lag_is_a_size_or_a_time() {
        assert_eq!(lag("16MB").unwrap(), LagLimit::Bytes(16 << 20));
        assert_eq!(lag("10s").unwrap(), LagLimit::Time(Duration::from_secs(10)));
        assert_eq!(lag("2min").unwrap(), LagLimit::Time(Duration::from_secs(120)));
        for wrong in ["10", "10x", "s", "", "1us", "2d"] {
            assert!(lag(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lag_with_another_spelling_of_its_unit_finds_what_was_meant() {
        assert_eq!(lag("16mb").unwrap_err().remedy().unwrap(), "did you mean 16MB?");
        assert_eq!(lag("10sec").unwrap_err().remedy().unwrap(), "did you mean 10s?");
        assert!(lag("10").unwrap_err().remedy().unwrap().starts_with("as 16MB"));
    }
}
