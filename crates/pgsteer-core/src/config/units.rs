//! Sizes and times as PostgreSQL spells them: `16MB`, `500ms`.

use std::time::Duration;

use super::limits::{LAG_BYTES_MAX, LAG_SECONDS};
use super::problem::{Problem, Shown};

/// PostgreSQL's units of size, largest first. They are powers of 1024 there, too.
const SIZES: [(&str, u64); 5] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];

/// PostgreSQL's units of time in microseconds, largest first.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// How far a replica may be behind: in bytes or in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagLimit {
    /// Bytes of WAL.
    Bytes(u64),
    /// Time since the last transaction that was replayed.
    Time(Duration),
}

/// Reads a lag limit in bytes, as `16MB`.
///
/// # Errors
/// No whole number with a unit, zero, or more than [`LAG_BYTES_MAX`].
pub fn lag_bytes(text: &str) -> Result<u64, Problem> {
    let wrong = || Problem::Size { found: Shown::of(text), near: near_size(text) };
    let bytes = amount(text, &SIZES).ok_or_else(wrong)?;
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

/// Reads a lag limit of either kind: `16MB` or `10s`.
///
/// # Errors
/// Neither a size nor a time, or one out of its range.
pub fn lag(text: &str) -> Result<LagLimit, Problem> {
    if amount(text, &SIZES).is_some() {
        return lag_bytes(text).map(LagLimit::Bytes);
    }
    // A bare number may be either.
    let has_unit = text.trim().parse::<f64>().is_err();
    let time = || near_time(text).filter(|_| has_unit).map(time_text);
    let near = || near_size(text).or_else(time);
    let wrong = || Problem::Lag { found: Shown::of(text), near: near() };
    let micros = amount(text, &TIMES).ok_or_else(wrong)?;
    let time = Duration::from_micros(micros);
    if LAG_SECONDS.contains(time) {
        return Ok(LagLimit::Time(time));
    }
    Err(Problem::OutOfRange { found: Shown::of(text), range: LAG_SECONDS.to_string() })
}

/// The size that `text` was probably meant to be: in another spelling of a unit, or with a fraction.
pub fn near_size(text: &str) -> Option<String> {
    let (number, unit) = number_and_unit(text)?;
    let name = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => "B",
        "k" | "kb" | "kib" => "kB",
        "m" | "mb" | "mib" => "MB",
        "g" | "gb" | "gib" => "GB",
        "t" | "tb" | "tib" => "TB",
        _ => return None,
    };
    let bytes = number * factor(name, &SIZES)?;
    (bytes >= 1.0 && bytes <= LAG_BYTES_MAX as f64).then(|| size_text(bytes as u64))
}

/// The time that `text` was probably meant to be, in any usual spelling of its unit.
pub fn near_time(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let name = match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => "ms",
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "min",
        "h" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => return None,
    };
    let micros = number * factor(name, &TIMES)?;
    Duration::try_from_secs_f64(micros / 1e6).ok()
}

fn factor(name: &str, units: &[(&str, u64)]) -> Option<f64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor as f64)
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A size in the largest unit that needs no fraction.
pub fn size_text(bytes: u64) -> String {
    spell(bytes, &SIZES, "0B")
}

/// A time in seconds, without needless digits: `30`, `0.5`.
pub fn seconds_text(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

/// A time in the largest unit that needs no fraction; what is below a microsecond is lost.
pub fn time_text(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    spell(micros, &TIMES, "0s")
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn spell(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    units
        .iter()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
        .map_or_else(|| zero.to_owned(), |(name, factor)| format!("{}{name}", amount / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn another_spelling_of_a_unit_finds_what_was_meant() {
        for (text, meant) in [
            ("16mb", Some("16MB")),
            ("16 MiB", Some("16MB")),
            ("16M", Some("16MB")),
            ("1KB", Some("1kB")),
            ("1.5GB", Some("1536MB")),
            ("16", None),
            ("16XB", None),
            ("99999999tb", None),
            ("1e400GB", None),
            ("", None),
        ] {
            assert_eq!(near_size(text).as_deref(), meant, "{text}");
        }
        for (text, meant) in
            [("10sec", Some("10s")), ("5m", Some("5min")), ("1.5 s", Some("1500ms"))]
        {
            assert_eq!(near_time(text).map(time_text).as_deref(), meant, "{text}");
        }
        assert_eq!(lag("16mb").unwrap_err().remedy().unwrap(), "did you mean 16MB?");
        assert_eq!(lag("10sec").unwrap_err().remedy().unwrap(), "did you mean 10s?");
        assert!(lag("10").unwrap_err().remedy().unwrap().starts_with("as 16MB"));
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

    proptest! {
        #[test]
        fn a_size_reads_back_as_it_was_spelled(bytes in 1..=LAG_BYTES_MAX) {
            prop_assert_eq!(lag_bytes(&size_text(bytes)).unwrap(), bytes);
        }

        #[test]
        fn a_time_reads_back_as_it_was_spelled(millis in 100u64..=86_400_000) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(lag(&time_text(time)).unwrap(), LagLimit::Time(time));
        }

        #[test]
        fn seconds_read_back_as_they_were_spelled(millis in 0u64..=86_400_000) {
            let time = Duration::from_millis(millis);
            let number: f64 = seconds_text(time).parse().unwrap();
            prop_assert_eq!(Duration::from_secs_f64(number).as_millis(), time.as_millis());
        }
    }
}
