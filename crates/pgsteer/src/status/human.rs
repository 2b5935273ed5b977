//! Sizes and ages in short form, and texts of servers made safe to print.

use std::time::Duration;

/// PostgreSQL's units of size, as in the configuration.
const SIZES: [(&str, u64); 4] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];

/// A size as `812B`, `1.2MB` or `34GB`.
pub fn size(bytes: u64) -> String {
    let Some((unit, factor)) = SIZES.into_iter().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes}B");
    };
    // Truncated: 1023.9kB is shown as 1023kB.
    let (whole, rest) = (bytes / factor, bytes % factor);
    match whole {
        0..10 if rest * 10 / factor > 0 => format!("{whole}.{}{unit}", rest * 10 / factor),
        _ => format!("{whole}{unit}"),
    }
}

/// Bytes per second, as a size.
pub fn bytes(rate: f64) -> String {
    // The conversion of a float saturates, and NaN becomes 0.
    size(rate.round() as u64)
}

/// Events per second, as `0`, `0.4` or `12`.
pub fn rate(rate: f64) -> String {
    match rate {
        9.95.. => format!("{rate:.0}"),
        0.05.. => format!("{rate:.1}"),
        _ => "0".to_owned(),
    }
}

/// An age as `340ms`, `12s`, `3m12s`, `5h03m` or `12d04h`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `text` on one line, without characters that control a terminal or change the order of the letters.
/// Names and messages come from servers.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|letter| {
            let (plain, escaped) = match is_harmless(letter) {
                true => (Some(letter), None),
                false => (None, Some(letter.escape_default())),
            };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

fn is_harmless(letter: char) -> bool {
    let is_invisible = matches!(letter,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !letter.is_control() && !is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_two_figures_at_least_and_one_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1kB"),
            (1_258_291, "1.1MB"),
            (10_485_760, "10MB"),
            (1_048_575, "1023kB"),
            (u64::MAX, "16777215TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn rates_are_short_and_a_negative_or_absurd_one_from_another_program_is_shown_too() {
        assert_eq!(
            [0.0, 0.04, 0.4, 12.3, -1.0, f64::NAN].map(rate),
            ["0", "0", "0.4", "12", "0", "0"]
        );
        assert_eq!([0.0, 1_048_576.0, -5.0].map(bytes), ["0B", "1MB", "0B"]);
        assert_eq!(bytes(f64::INFINITY), "16777215TB");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (192_000, "3m12s"),
            (18_180_000, "5h03m"),
            (1_051_200_000, "12d04h"),
        ] {
            assert_eq!(age(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn control_characters_are_printed_as_their_codes() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(printable("n\u{202e}x\u{9b}"), "n\\u{202e}x\\u{9b}");
        assert_eq!(printable("zürich \"1\""), "zürich \"1\"");
    }
}
