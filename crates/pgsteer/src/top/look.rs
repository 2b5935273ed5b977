//! Colours and symbols. Colour never carries a meaning alone.

use std::env;

use ratatui::style::{Color, Modifier, Style};

use crate::status::sentence::Level;
use crate::status::table::{Ink, Paint};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether there are colours.
    pub ink: Ink,
    /// Whether symbols outside ASCII are used.
    pub is_unicode: bool,
}

impl Look {
    /// The look by NO_COLOR (no-color.org) and the locale.
    pub fn of_environment(no_color: bool) -> Look {
        let set = |name: &str| {
            let value = env::var_os(name).map(|value| value.to_string_lossy().into_owned());
            value.filter(|value| !value.is_empty())
        };
        // The first of these that is set decides (POSIX).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Look {
            ink: if no_color || set("NO_COLOR").is_some() { Ink::Plain } else { Ink::Colour },
            is_unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// The style of a text.
    pub fn style(self, paint: Paint) -> Style {
        let plain = Style::new();
        match (self.ink, paint) {
            (_, Paint::None) | (Ink::Plain, Paint::Good | Paint::Warning) => plain,
            (_, Paint::Head) | (Ink::Plain, Paint::Bad) => plain.add_modifier(Modifier::BOLD),
            (Ink::Colour, Paint::Good) => plain.fg(Color::Green),
            (Ink::Colour, Paint::Warning) => plain.fg(Color::Yellow),
            (Ink::Colour, Paint::Bad) => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// The mark before the sentence of state.
    pub fn mark(self, level: Level) -> &'static str {
        match (self.is_unicode, level) {
            (true, Level::Well) => "\u{25cf}",
            (true, Level::Note) => "\u{25b2}",
            (true, Level::Bad) => "\u{25a0}",
            (false, Level::Well) => "[ok]",
            (false, Level::Note) => "[!]",
            (false, Level::Bad) => "[!!]",
        }
    }

    /// The mark after a text that was cut.
    pub fn cut_mark(self) -> &'static str {
        if self.is_unicode { "\u{2026}" } else { "..." }
    }

    /// The steps of a curve, lowest first.
    pub fn steps(self) -> [char; 8] {
        match self.is_unicode {
            true => [
                '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
                '\u{2588}',
            ],
            false => ['_', '.', ':', '-', '=', '+', '*', '#'],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_a_mark_of_its_own_and_a_terminal_without_unicode_gets_ascii() {
        let levels = [Level::Well, Level::Note, Level::Bad];
        for is_unicode in [true, false] {
            let look = Look { ink: Ink::Plain, is_unicode };
            let marks = levels.map(|level| look.mark(level));
            assert!(marks[0] != marks[1] && marks[1] != marks[2] && marks[0] != marks[2]);
        }
        let plain = Look { ink: Ink::Plain, is_unicode: false };
        assert!(levels.iter().all(|level| plain.mark(*level).is_ascii()));
        assert!(plain.steps().iter().all(char::is_ascii) && plain.cut_mark().is_ascii());
    }

    #[test]
    fn a_plain_look_has_no_colour() {
        let look = Look { ink: Ink::Plain, is_unicode: true };
        for paint in [Paint::None, Paint::Good, Paint::Warning, Paint::Bad, Paint::Head] {
            assert_eq!(look.style(paint).fg, None);
        }
    }
}
