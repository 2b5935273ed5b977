//! Sizes and times in PostgreSQL's units: `16MB`, `500ms`.

use std::time::Duration;

/// The largest lag limit in bytes: 1024TB.
pub const LAG_BYTES_MAX: u64 = 1 << 50;

/// PostgreSQL's units of size, largest first. They are powers of 1024, as in PostgreSQL.
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

/// Parses a size, as `16MB`.
pub fn size(text: &str) -> Option<u64> {
    amount(text, &SIZES)
}

/// Parses a time, as `500ms`.
pub fn time(text: &str) -> Option<Duration> {
    amount(text, &TIMES).map(Duration::from_micros)
}

/// Returns the size that `text` probably means: another spelling of a unit, or a fraction.
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

/// Returns the time that `text` probably means, with any common spelling of its unit.
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

/// Returns a size in the largest unit that needs no fraction.
pub fn size_text(bytes: u64) -> String {
    spell(bytes, &SIZES, "0B")
}

/// Returns a time in seconds, without trailing zeros: `30`, `0.5`.
pub fn seconds_text(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

/// Returns a time in the largest unit that needs no fraction; the part below a microsecond is
/// dropped.
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
    }

    proptest! {
        #[test]
        fn a_size_reads_back_as_it_was_spelled(bytes in 1..=LAG_BYTES_MAX) {
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn a_time_reads_back_as_it_was_spelled(millis in 100u64..=86_400_000) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(super::time(&time_text(time)), Some(time));
        }

        #[test]
        fn seconds_read_back_as_they_were_spelled(millis in 0u64..=86_400_000) {
            let time = Duration::from_millis(millis);
            let number: f64 = seconds_text(time).parse().unwrap();
            prop_assert_eq!(Duration::from_secs_f64(number).as_millis(), time.as_millis());
        }
    }
}
