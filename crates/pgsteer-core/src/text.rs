//! Text from outside: what a peer sent, made safe for logs, pages, terminals and error packets.
//!
//! A control character can forge a log line or control a terminal. A bidirectional or invisible
//! character can hide a part of a text. A long text can fill a log. So each text of a peer passes
//! [`clean`] where it enters, and [`Cleaned`] where it is shown in a sentence.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// The most characters of one text from outside.
pub const TEXT_CHARS_MAX: usize = 200;

/// The most characters of a sentence that pgsteer composes from such texts and its own.
pub const SENTENCE_CHARS_MAX: usize = 500;

/// The mark after a text that was cut. It counts as a part of the text.
const CUT_MARK: &str = "...";

/// Returns true if `c` is not shown as a character of its own: a control character (C0, DEL, C1), a
/// line or paragraph separator, or an invisible character that changes how others are shown
/// (Unicode categories Cc, Cf, Zl and Zp, fillers and variation selectors).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
                | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Returns `text` on one line, with each hidden character as a visible escape (`\n`, `\u{1b}`), cut
/// to [`TEXT_CHARS_MAX`] characters. Cleaning twice changes nothing.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_to(text, TEXT_CHARS_MAX)
}

/// Same as [`clean`], cut to `chars_max` characters.
pub fn clean_to(text: &str, chars_max: usize) -> Cow<'_, str> {
    // A character has at most four bytes, so most texts need no count.
    let is_short = text.len() <= chars_max || text.chars().nth(chars_max).is_none();
    if is_short && !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::new();
    let mut room = chars_max;
    // Where to cut if the text is too long.
    let mut cut_at = 0;
    for c in text.chars() {
        let escaped: Option<String> = is_hidden(c).then(|| c.escape_default().collect());
        let width = escaped.as_ref().map_or(1, String::len);
        if width > room {
            cleaned.truncate(cut_at);
            cleaned.push_str(CUT_MARK);
            break;
        }
        room -= width;
        match escaped {
            Some(escaped) => cleaned.push_str(&escaped),
            None => cleaned.push(c),
        }
        if room >= CUT_MARK.len() {
            cut_at = cleaned.len();
        }
    }
    Cow::Owned(cleaned)
}

/// Returns `json`, a whole JSON text, with each hidden character in its strings as JSON's own
/// escape, so its value is the same. Line feeds between its values stay.
pub fn json_escaped(json: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c != '\n' && is_hidden(c);
    if !json.contains(is_bad) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // These are outside of strings: inside they have to be escaped already.
            '\t' | '\r' => escaped.push(' '),
            c if is_bad(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Displays a sentence that may contain texts from outside: cleaned, cut to [`SENTENCE_CHARS_MAX`].
pub struct Cleaned<'a>(pub &'a str);

impl fmt::Display for Cleaned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean_to(self.0, SENTENCE_CHARS_MAX))
    }
}

/// A text of a peer's JSON. It is cleaned when it is parsed, so a parser that uses this type cannot
/// skip that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideText(String);

impl OutsideText {
    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<OutsideText> for String {
    fn from(text: OutsideText) -> String {
        text.0
    }
}

impl<'de> Deserialize<'de> for OutsideText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OutsideText, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(OutsideText(clean(&text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_hidden_becomes_visible() {
        assert_eq!(clean("streaming"), "streaming");
        assert_eq!(clean("größer 東京 ✓"), "größer 東京 ✓");
        assert_eq!(clean("a\r\nWARN \u{1b}[31m"), "a\\r\\nWARN \\u{1b}[31m");
        assert_eq!(clean("\u{202e}txt\u{200b}\u{feff}"), "\\u{202e}txt\\u{200b}\\u{feff}");
        assert_eq!(clean("\u{85}\u{2028}\u{7f}\0"), "\\u{85}\\u{2028}\\u{7f}\\u{0}");
    }

    #[test]
    fn a_long_text_is_cut_with_a_mark_and_an_escape_is_never_halved() {
        assert_eq!(clean(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(clean(&"x".repeat(1_000_000)), format!("{}...", "x".repeat(197)));
        assert_eq!(clean_to("ab\u{202e}\u{202e}", 12), "ab...");
        assert_eq!(clean_to("ab\u{202e}\u{202e}", 13), "ab\\u{202e}...");
        assert_eq!(clean_to("ü".repeat(9).as_str(), 9), "ü".repeat(9));
    }

    proptest! {
        #[test]
        fn escaped_json_means_the_same(text in any::<String>(), c in any::<char>()) {
            let texts = vec![text, format!("{c}\u{202e}\u{e0001}\n\u{1b}")];
            let json = serde_json::to_string_pretty(&texts).unwrap();
            let escaped = json_escaped(&json);
            prop_assert!(!escaped.contains(|c| c != '\n' && is_hidden(c)));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), texts);
        }

        #[test]
        fn any_input_becomes_clean_and_bounded_text_and_cleaning_it_again_changes_nothing(
            text in any::<String>(), hidden in proptest::collection::vec(any::<char>(), 0..99),
        ) {
            let text = text + &String::from_iter(hidden);
            for chars_max in [3, 10, 64, TEXT_CHARS_MAX] {
                let cleaned = clean_to(&text, chars_max);
                prop_assert!(!cleaned.chars().any(is_hidden), "{cleaned:?}");
                prop_assert!(cleaned.chars().count() <= chars_max, "{cleaned:?}");
                prop_assert_eq!(clean_to(&cleaned, chars_max), cleaned.clone());
            }
        }
    }
}
