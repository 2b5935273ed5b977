//! Figures and names in short form.

use pgsteer_core::text::clean_to;

use crate::status::human;

/// A dash, for what is unknown.
pub const UNKNOWN: &str = "\u{2013}";

/// `text` on one line, without hidden characters, in at most `chars_max` characters.
pub fn cut(text: &str, chars_max: usize) -> String {
    clean_to(text, chars_max).into_owned()
}

/// `1 client waits`, `2 clients wait`.
pub fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Seconds as `2.1 s`, from a hundred on as whole seconds.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        100.0.. => format!("{seconds:.0} s"),
        _ => format!("{seconds:.1} s"),
    }
}

/// A rate of sessions, as `0.4/s` or `12/s`.
pub fn per_second(rate: f64) -> String {
    format!("{}/s", human::rate(rate))
}

/// A rate of bytes, as `1.2MB/s`.
pub fn bytes_per_second(rate: f64) -> String {
    format!("{}/s", human::bytes(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_commands_with_their_unit() {
        assert_eq!([-1.0, 999.0, 1_258_291.0].map(bytes_per_second), ["0B/s", "999B/s", "1.1MB/s"]);
        assert_eq!([0.0, 0.4, 12.3].map(per_second), ["0/s", "0.4/s", "12/s"]);
    }
}
