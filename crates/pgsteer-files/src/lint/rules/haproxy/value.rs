//! Single values as HAProxy parses them: times, numbers, keywords.

use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::values::number;
use crate::lint::location::Location;
use crate::lint::word_shown;

/// Receives the place and the fault.
pub type Tell<'a> = &'a mut dyn FnMut(Location, String);

/// HAProxy's maximum time: 2^31 - 1 ms, about 24.8 days.
const TIME_MS_MAX: u64 = i32::MAX as u64;

/// Reports words after the last one that HAProxy reads.
pub fn surplus(line: &Line, at: usize, report: Tell<'_>) {
    if let Some(word) = line.words.get(at) {
        let shown = word_shown(word.shown());
        report(word.place, format!("`{shown}` is one word too many"));
    }
}

/// Checks the time at `at`: HAProxy reads digits, followed by one of its units.
pub fn time(line: &Line, at: usize, report: Tell<'_>) {
    let Some(word) = line.words.get(at).filter(|word| !word.has_literal_variable()) else { return };
    let Some(text) = word.known() else { return };
    if let Some(why) = why_no_time(text) {
        report(word.place, format!("`{}` {why}", word_shown(text)));
    }
}

/// Returns the reason why HAProxy refuses a time (`parse_time_err`).
fn why_no_time(text: &str) -> Option<&'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at_checked(digits)?;
    if digits.is_empty() {
        return Some("is not a time: digits, and one of the units us, ms, s, m, h, d");
    }
    let factor_us = match unit.bytes().next() {
        None => 1_000,
        Some(b'm') if unit.starts_with("ms") => 1_000,
        Some(b'u') if unit.starts_with("us") => 1,
        Some(b's') => 1_000_000,
        Some(b'm') => 60_000_000,
        Some(b'h') => 3_600_000_000,
        Some(b'd') => 86_400_000_000,
        Some(_) => return Some("is not a time: the units are us, ms, s, m, h and d"),
    };
    let us = number(digits).and_then(|number| number.checked_mul(factor_us));
    let is_long = us.is_none_or(|us| us / 1_000 > TIME_MS_MAX);
    is_long.then_some("exceeds HAProxy's maximum of 2147483647 ms, about 24.8 days")
}

/// Checks that the number at `at` is in a range. HAProxy takes other words for 0 in some places, so
/// they are not reported.
pub fn range(line: &Line, at: usize, allowed: std::ops::RangeInclusive<u64>, report: Tell<'_>) {
    let Some(word) = line.words.get(at) else { return };
    let Some(value) = word.known().and_then(number).filter(|value| !allowed.contains(value)) else {
        return;
    };
    let (from, to) = (allowed.start(), allowed.end());
    let message = match *to {
        u64::MAX => format!("{value} is less than the minimum, {from}"),
        to => format!("{value} is out of range: {from} to {to}"),
    };
    report(word.place, message);
}

/// Checks that a keyword is one of `known`.
pub fn is_one_of(word: &Word, name: &str, known: &[&str], report: Tell<'_>) {
    if let Some(text) = word.known().filter(|text| !known.contains(text)) {
        let message = format!("`{name}` takes {}, not `{}`", any_of(known), word_shown(text));
        report(word.place, message);
    }
}

/// `a, b or c`.
fn any_of(known: &[&str]) -> String {
    match known.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => known.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_refused_as_haproxy_refuses_them() {
        for text in ["5s", "500", "0", "24d", "596h", "3sec", "1500us", "2147483647", "7ms"] {
            assert_eq!(why_no_time(text), None, "{text}");
        }
        for text in ["25d", "2147483648", "99999999999999999999", "1.5s", "5x", "-5", "s", ""] {
            assert!(why_no_time(text).is_some(), "{text}");
        }
    }
}
