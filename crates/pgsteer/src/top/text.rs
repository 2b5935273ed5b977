//! Texts in a limited width, measured in cells of the terminal.

use ratatui::text::Span;

/// The cells that `text` takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The longest start of `text` that takes at most `cells`.
fn start(text: &str, cells: usize) -> &str {
    let mut end = 0;
    for (at, letter) in text.char_indices() {
        let next = at + letter.len_utf8();
        let candidate = text.get(..next).unwrap_or_default();
        if width(candidate) > cells {
            break;
        }
        end = next;
    }
    text.get(..end).unwrap_or_default()
}

/// A name in at most `cells`, with `mark` where it was cut.
pub fn cut_name(name: &str, cells: usize, mark: &str) -> String {
    match width(name) <= cells {
        true => name.to_owned(),
        false if cells <= width(mark) => start(name, cells).to_owned(),
        false => format!("{}{mark}", start(name, cells - width(mark))),
    }
}

/// A sentence in at most `cells`, cut between two words, so that no number is cut.
pub fn cut_words(text: &str, cells: usize, mark: &str) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let fitting = start(text, cells.saturating_sub(width(mark) + 1));
    let rest = text.get(fitting.len()..).unwrap_or_default();
    let whole = match (rest.starts_with(' '), fitting.rfind(' ')) {
        (true, _) => fitting,
        (false, Some(blank)) => fitting.get(..blank).unwrap_or_default(),
        (false, None) => "",
    };
    match whole.trim_end() {
        // No whole word fits.
        "" => cut_name(text.trim_start(), cells, mark),
        whole => format!("{whole} {mark}"),
    }
}

/// `text` in lines of at most `cells`, broken between words. A word that is longer than a line is broken.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let joined = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if width(&joined) <= cells {
            line = joined;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        let mut rest = word;
        while width(rest) > cells {
            let piece = start(rest, cells);
            // A letter that is wider than the line is left out.
            let skipped = rest.chars().next().map_or(0, char::len_utf8);
            rest = rest.get(piece.len().max(skipped)..).unwrap_or_default();
            if !piece.is_empty() {
                lines.push(piece.to_owned());
            }
        }
        line = rest.to_owned();
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_cut_with_a_mark() {
        assert_eq!(cut_name("pg1", 3, "..."), "pg1");
        assert_eq!(cut_name("pg1.example", 8, "..."), "pg1.e...");
        assert_eq!(cut_name("pg1.example", 2, "..."), "pg");
        // A Chinese character takes two cells.
        assert_eq!(cut_name("\u{6570}\u{636e}\u{5e93}", 4, "\u{2026}"), "\u{6570}\u{2026}");
    }

    #[test]
    fn a_sentence_is_cut_between_words_and_never_in_a_number() {
        assert_eq!(cut_words("lag 48 MB exceeds 16 MB", 23, "..."), "lag 48 MB exceeds 16 MB");
        assert_eq!(cut_words("lag 48 MB exceeds 16 MB", 11, "..."), "lag 48 ...");
        assert_eq!(cut_words("lag 1234567 MB", 10, "..."), "lag ...");
        assert_eq!(cut_words("abcdefghijkl", 6, "..."), "abc...");
        assert_eq!(cut_words(" A", 1, "..."), "A");
    }

    #[test]
    fn a_text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_cells(text in "\\PC{0,60}", cells in 1_usize..30) {
            for mark in ["...", "\u{2026}"] {
                prop_assert!(width(&cut_name(&text, cells, mark)) <= cells);
                prop_assert!(width(&cut_words(&text, cells, mark)) <= cells);
            }
            prop_assert!(wrap(&text, cells).iter().all(|line| width(line) <= cells));
        }
    }
}
