//! Escapes a text so that the other program reads back the same text: one function per format. They
//! are the filters of the templates.

use std::fmt::Write as _;

/// A word of HAProxy's configuration (manual, 2.2 "Quoting and escaping"): unchanged if it has no
/// special characters, else in double quotes.
pub fn haproxy(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@+,=?&[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    quoted(text, &['\\', '"', '$'])
}

/// A value of pg_hba.conf: in double quotes, so that no name is a keyword. A quote in it is
/// doubled.
pub fn hba(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// An identifier of SQL.
pub fn sql_name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A JSON string, which is also a string of YAML and JavaScript.
pub fn json(text: &str) -> String {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// A part of a URI.
pub fn uri(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2E", ".")
        .replace("%2D", "-")
        .replace("%5F", "_")
}

/// A string in Prometheus' label matchers inside a YAML string.
pub fn promql(text: &str) -> String {
    quoted(text, &['\\', '"'])
}

/// The lines of a text as comments with `#`.
pub fn comment(text: &str) -> String {
    each_line(text, "# ")
}

/// The lines of a text as comments with `;`, for ini files.
pub fn semicolons(text: &str) -> String {
    each_line(text, "; ")
}

/// The lines of a text for a code block of Markdown.
pub fn block(text: &str) -> String {
    each_line(text, "    ")
}

fn each_line(text: &str, before: &str) -> String {
    let lines = text.lines().map(|line| format!("{before}{line}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Formats milliseconds for a person: `300 ms`, `2.6 s`. Rounded up, so that the real time is not
/// longer.
pub fn time(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    let tenths = ms.div_ceil(100);
    match tenths % 10 {
        0 => format!("{} s", tenths / 10),
        rest => format!("{}.{rest} s", tenths / 10),
    }
}

fn quoted(text: &str, special: &[char]) -> String {
    let mut word = String::from("\"");
    for c in text.chars() {
        if special.contains(&c) {
            word.push('\\');
        }
        let _ = word.write_char(c);
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_haproxy_are_quoted_only_where_they_must_be() {
        assert_eq!(haproxy("/etc/pgsteer/ca.pem"), "/etc/pgsteer/ca.pem");
        assert_eq!(haproxy("a b#c$d\"e\\"), r#""a b#c\$d\"e\\""#);
        assert_eq!(haproxy(""), "\"\"");
    }

    #[test]
    fn a_shown_time_is_never_shorter_than_the_real_one() {
        let said = [(300, "300 ms"), (1_000, "1 s"), (2_999, "3 s"), (2_901, "3 s")];
        for (ms, text) in said {
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn names_stay_one_word_in_every_file() {
        let odd = "o'neill \"x\" €";
        assert_eq!(hba(odd), "\"o'neill \"\"x\"\" €\"");
        assert_eq!(uri("a b/€.x"), "a%20b%2F%E2%82%AC.x");
        assert_eq!(json(odd), r#""o'neill \"x\" €""#);
    }
}
