//! "Did you mean ...?": the known name that is nearest to a text.

/// Longer names are not typing errors, and would be expensive to compare.
const BYTES_MAX: usize = 64;

/// Returns the one of `known` that was probably intended by `written`.
///
/// That is a name that contains all words of `written`, as `lag_bytes_max` contains those of
/// `max_lag`. Otherwise it is the name with the fewest typing errors, at most one in three
/// characters.
pub fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    if written.is_empty() || written.len() > BYTES_MAX {
        return None;
    }
    let written = written.to_ascii_lowercase().replace('-', "_");
    let shortened = known.iter().find(|name| written.split('_').all(|word| has_word(name, word)));
    let typed = known
        .iter()
        .map(|name| (slips(&written, name), name))
        .filter(|(slips, _)| *slips <= (written.len() / 3).max(1))
        .min();
    shortened.or(typed.map(|(_, name)| name)).copied()
}

fn slips(written: &str, name: &str) -> usize {
    strsim::damerau_levenshtein(written, &name.replace('-', "_"))
}

fn has_word(name: &str, word: &str) -> bool {
    name.split('_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["hold_seconds", "lag_bytes_max", "listen", "verify-full"];

    #[test]
    fn a_typing_error_finds_what_was_meant() {
        assert_eq!(nearest("hold_second", &KNOWN), Some("hold_seconds"));
        assert_eq!(nearest("Listne", &KNOWN), Some("listen"));
        assert_eq!(nearest("verify_full", &KNOWN), Some("verify-full"));
    }

    #[test]
    fn a_shortened_name_finds_what_was_meant() {
        assert_eq!(nearest("hold", &KNOWN), Some("hold_seconds"));
        assert_eq!(nearest("max_lag", &KNOWN), Some("lag_bytes_max"));
    }

    #[test]
    fn something_else_finds_nothing() {
        assert_eq!(nearest("balance", &KNOWN), None);
        assert_eq!(nearest("", &KNOWN), None);
        assert_eq!(nearest(&"listen".repeat(100), &KNOWN), None);
    }
}
