//! The beginning of received bytes, in a form that is safe for a message or a log.

use pgsteer_core::text::is_hidden;

/// The maximum number of characters of an excerpt.
const EXCERPT_CHARS_MAX: usize = 80;

/// Returns the beginning of `bytes` for a message: printable, on one line, bounded.
pub fn excerpt(bytes: &[u8]) -> String {
    // A character has at most four bytes, so more bytes are not needed.
    let head = &bytes[..bytes.len().min(4 * EXCERPT_CHARS_MAX)];
    let text = String::from_utf8_lossy(head);
    let printable = |c: char| if is_hidden(c) { '.' } else { c };
    let mut shown: String = text.chars().take(EXCERPT_CHARS_MAX).map(printable).collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() || head.len() < bytes.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_bounded_line() {
        assert_eq!(excerpt(b"a\r\nb"), "a..b");
        assert_eq!(excerpt("a\u{202e}b\u{200b}".as_bytes()), "a.b.");
        assert_eq!(excerpt("\u{fc}".repeat(500).as_bytes()).chars().count(), 83);
        assert_eq!(excerpt(&[b'x'; 80]), "x".repeat(80));
    }
}
