//! Figures and names in short form.

use pgsteer_core::text::clean_to;

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
    match rate {
        9.95.. => format!("{rate:.0}/s"),
        0.05.. => format!("{rate:.1}/s"),
        _ => "0/s".to_owned(),
    }
}

/// A rate of bytes, as `1.2 MB/s`.
pub fn bytes_per_second(rate: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)];
    match UNITS.into_iter().find(|(_, factor)| rate >= 0.9995 * factor) {
        None => format!("{:.0} B/s", rate.max(0.0)),
        Some((unit, factor)) if rate / factor < 9.95 => format!("{:.1} {unit}", rate / factor),
        Some((unit, factor)) => format!("{:.0} {unit}", rate / factor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_two_figures_at_least_and_one_unit() {
        for (rate, text) in [
            (0.0, "0 B/s"),
            (999.0, "999 B/s"),
            (999.9, "1.0 kB/s"),
            (9_949.0, "9.9 kB/s"),
            (12_345.0, "12 kB/s"),
            (1_240_000.0, "1.2 MB/s"),
            (3e9, "3.0 GB/s"),
            (-1.0, "0 B/s"),
        ] {
            assert_eq!(bytes_per_second(rate), text);
        }
        assert_eq!([0.0, 0.4, 12.3].map(per_second), ["0/s", "0.4/s", "12/s"]);
    }
}
