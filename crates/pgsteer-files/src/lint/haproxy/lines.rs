//! Splits a text in HAProxy's language into lines and words (configuration manual, 2.2 "Quoting and
//! escaping", 2.3 "Environment variables").

use crate::lint::kind::without_byte_order_mark;
use crate::lint::location::Location;

/// The maximum number of words of a line (`MAX_LINE_ARGS`). HAProxy refuses longer lines.
const WORDS_MAX: usize = 64;
/// The maximum length of a line. Neither a person nor a template writes longer lines.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One word as HAProxy receives it: without quotes and escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    text: String,
    /// The word contains an environment variable, so its value is known only to HAProxy.
    has_variable: bool,
    /// The word contains a `$NAME` outside double quotes, which HAProxy replaces only in addresses.
    has_bare_variable: bool,
    /// Its place.
    pub place: Location,
}

impl Word {
    /// The value; none if it depends on the environment.
    pub fn known(&self) -> Option<&str> {
        (!self.has_variable).then_some(self.text.as_str())
    }

    /// Returns true if the value is exactly this text.
    pub fn is(&self, text: &str) -> bool {
        self.known() == Some(text)
    }

    /// Returns true if HAProxy takes a `$NAME` in it literally.
    pub fn has_literal_variable(&self) -> bool {
        self.has_bare_variable && !self.has_variable
    }

    /// The text to show: the value, with variables as they are written.
    pub fn shown(&self) -> &str {
        &self.text
    }
}

/// A line that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number, from 1.
    pub number: usize,
    /// The words, at least one.
    pub words: Vec<Word>,
    /// The line is between `.if` and `.endif`, so another line may apply instead.
    pub is_conditional: bool,
}

impl Line {
    /// Returns the word at `at`; empty if there is none, or if it depends on the environment.
    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).and_then(Word::known).unwrap_or_default()
    }

    /// Returns true if the line begins with these words.
    pub fn begins(&self, words: &[&str]) -> bool {
        words.len() <= self.words.len() && words.iter().zip(&self.words).all(|(a, b)| b.is(a))
    }

    /// Marks the variables in addresses, which HAProxy replaces with or without quotes
    /// (`str2sa_range`).
    fn expand_addresses(&mut self) {
        let first = match self.word(0) {
            "bind" | "dispatch" | "log" | "source" => Some(1),
            "server" | "peer" | "nameserver" | "mailer" => Some(2),
            "server-template" => Some(3),
            "stats" if self.word(1) == "socket" => Some(2),
            _ => None,
        };
        let is_lead =
            |word: &Word| ["addr", "agent-addr", "source", "usesrc"].iter().any(|it| word.is(it));
        let behind: Vec<usize> = (1..self.words.len())
            .filter(|at| self.words.get(at - 1).is_some_and(is_lead))
            .collect();
        for at in first.into_iter().chain(behind) {
            if let Some(word) = self.words.get_mut(at) {
                word.has_variable |= word.has_bare_variable;
            }
        }
    }

    /// Returns the words from `at` on.
    pub fn from(&self, at: usize) -> &[Word] {
        self.words.get(at..).unwrap_or_default()
    }

    /// Returns the place of the word at `at`, or of the whole line if there is none.
    pub fn place_of(&self, at: usize) -> Location {
        self.words.get(at).map_or(self.place(), |word| word.place)
    }

    /// Returns the place from its first word to its last.
    pub fn place(&self) -> Location {
        let column = self.words.first().map_or(1, |word| word.place.column);
        let column_end = self.words.last().map_or(1, |word| word.place.column_end);
        Location { line: self.number, column, column_end }
    }
}

/// A line that HAProxy cannot parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place.
    pub place: Location,
    /// The reason.
    pub why: &'static str,
    /// The first word of the line, as written.
    pub begins: String,
}

/// Splits `text` into the lines with words, and those that cannot be parsed. The first line has the
/// number `first`.
pub fn lines(text: &str, first: usize) -> (Vec<Line>, Vec<Fault>) {
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    let (text, has_mark) = without_byte_order_mark(text);
    if has_mark {
        let why =
            "a byte order mark stands in front of it, which HAProxy takes for a part of the word";
        faults.push(Fault { place: Location::line(first), why, begins: String::new() });
    }
    for (number, text) in (first..).zip(text.lines()) {
        match Reader::new(text, number).read() {
            Ok(words) if words.is_empty() => {}
            Ok(words) => {
                let mut line = Line { number, words, is_conditional: false };
                line.expand_addresses();
                lines.push(line);
            }
            Err(fault) => {
                let begins = text.split_whitespace().next().unwrap_or_default().to_owned();
                faults.push(Fault { begins, ..fault });
            }
        }
    }
    faults.extend(unended(text, first));
    (lines, faults)
}

/// Returns the fault of a last line without a line break. HAProxy treats such a file as truncated,
/// regardless of the content of the line (`readcfgfile`: "Missing LF on last line").
fn unended(text: &str, first: usize) -> Option<Fault> {
    let last = text.lines().next_back().filter(|_| !text.ends_with('\n'))?;
    let number = first + text.lines().count() - 1;
    let column_end = last.chars().count() + 1;
    let place = Location { line: number, column: column_end, column_end };
    Some(Fault { place, why: "the last line has no line break at its end", begins: String::new() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Weak,
    Strong,
}

/// Parses one line, character by character.
struct Reader {
    number: usize,
    chars: Vec<char>,
    at: usize,
    quote: Quote,
    /// The current word; none between words.
    text: Option<String>,
    has_variable: bool,
    started_at: usize,
    words: Vec<Word>,
}

impl Reader {
    fn new(line: &str, number: usize) -> Reader {
        let is_too_long = line.len() > LINE_BYTES_MAX;
        Reader {
            number,
            chars: if is_too_long { Vec::new() } else { line.chars().collect() },
            at: if is_too_long { usize::MAX } else { 0 },
            quote: Quote::None,
            text: None,
            has_variable: false,
            started_at: 0,
            words: Vec::new(),
        }
    }

    fn read(mut self) -> Result<Vec<Word>, Fault> {
        if self.at == usize::MAX {
            return Err(self.fault(0, "the line is longer than 64 kB"));
        }
        while let Some(&c) = self.chars.get(self.at) {
            match (self.quote, c) {
                (Quote::None, '#') => break,
                (Quote::None, c) if c.is_ascii_whitespace() => self.end_word(),
                (Quote::None, '\'') => self.turn(Quote::Strong),
                (Quote::Strong, '\'') | (Quote::Weak, '"') => self.turn(Quote::None),
                (Quote::None, '"') => self.turn(Quote::Weak),
                (Quote::None | Quote::Weak, '\\') => self.escape()?,
                (Quote::Weak, '$') => self.variable()?,
                (_, c) => self.push(c),
            }
            self.at += 1;
        }
        if self.quote != Quote::None {
            return Err(self.fault(self.started_at, "a quote is not closed"));
        }
        self.end_word();
        match self.words.get(WORDS_MAX) {
            Some(word) => Err(Fault {
                place: word.place,
                why: "the line has more than 64 words",
                begins: String::new(),
            }),
            None => Ok(self.words),
        }
    }

    fn fault(&self, at: usize, why: &'static str) -> Fault {
        let column_end = self.chars.len() + 1;
        let place = Location { line: self.number, column: at + 1, column_end };
        Fault { place, why, begins: String::new() }
    }

    /// Returns the current word, and begins one here if there is none.
    fn word(&mut self) -> &mut String {
        if self.text.is_none() {
            self.started_at = self.at;
        }
        self.text.get_or_insert_default()
    }

    fn push(&mut self, c: char) {
        self.word().push(c);
    }

    fn turn(&mut self, quote: Quote) {
        // An empty pair of quotes is a word too.
        self.word();
        self.quote = quote;
    }

    fn end_word(&mut self) {
        let Some(text) = self.text.take() else { return };
        let has_variable = std::mem::take(&mut self.has_variable);
        let place =
            Location { line: self.number, column: self.started_at + 1, column_end: self.at + 1 };
        let has_bare_variable = !has_variable && holds_variable(&text);
        self.words.push(Word { text, has_variable, has_bare_variable, place });
    }

    /// Parses the rest of an escape. A backslash that begins no escape stays as written.
    fn escape(&mut self) -> Result<(), Fault> {
        let next = self.chars.get(self.at + 1).copied();
        let meant = match next {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('x') => return self.hex(),
            Some(c @ (' ' | '\\' | '#' | '\'' | '"')) => c,
            Some('$') if self.quote == Quote::Weak => '$',
            _ => {
                self.push('\\');
                return Ok(());
            }
        };
        self.push(meant);
        self.at += 1;
        Ok(())
    }

    fn hex(&mut self) -> Result<(), Fault> {
        let digit = |at: usize| self.chars.get(at).and_then(|c| c.to_digit(16));
        let code = digit(self.at + 2).zip(digit(self.at + 3)).map(|(high, low)| high * 16 + low);
        match code.and_then(char::from_u32) {
            Some(c) => self.push(c),
            None => return Err(self.fault(self.at, "\\x needs two hexadecimal digits")),
        }
        self.at += 3;
        Ok(())
    }

    /// Parses `$NAME` or `${NAME...}`: keeps it as written, and marks the word as unknown.
    fn variable(&mut self) -> Result<(), Fault> {
        let is_braced = self.chars.get(self.at + 1) == Some(&'{');
        let name = self.at + 1 + usize::from(is_braced);
        let is_first = |c: &char| c.is_ascii_alphabetic() || "_.".contains(*c);
        if !self.chars.get(name).is_some_and(is_first) {
            return Err(self.fault(self.at, "a $ in double quotes needs the name of a variable"));
        }
        let rest = self.chars.get(name..).unwrap_or_default();
        let length = match is_braced {
            true => rest.iter().position(|c| *c == '}').map(|end| end + 1),
            false => {
                let is_part = |c: &char| c.is_ascii_alphanumeric() || "_.".contains(*c);
                Some(rest.iter().take_while(|c| is_part(c)).count())
            }
        };
        let Some(length) = length else {
            return Err(self.fault(self.at, "${ is opened and not closed"));
        };
        let end = name + length;
        let written: String = self.chars.get(self.at..end).unwrap_or_default().iter().collect();
        self.word().push_str(&written);
        self.has_variable = true;
        self.at = end - 1;
        Ok(())
    }
}

/// Returns true for `${NAME}`, and for `$NAME` in capitals, which is the usual form of variables: a
/// lone `$` may be the end of a pattern or a part of a password.
fn holds_variable(text: &str) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let name = text.get(at + 1..).unwrap_or_default();
        let (name, is_closed) = match name.strip_prefix('{') {
            Some(name) => (name, name.contains('}')),
            None => (name, true),
        };
        let is_part = |c: &char| c.is_ascii_uppercase() || *c == '_' || c.is_ascii_digit();
        let length = match text.get(at + 1..at + 2) {
            Some("{") => {
                name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count()
            }
            _ => name.chars().take_while(is_part).count(),
        };
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        is_closed && starts_well && length >= 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let (lines, faults) = lines(&format!("{text}\n"), 1);
        assert!(faults.is_empty(), "{faults:?}");
        lines.into_iter().flat_map(|line| line.words).map(|word| word.text).collect()
    }

    #[test]
    fn words_are_cut_as_the_manual_says() {
        assert_eq!(
            words(r#"a 'b c' "d e" f\ g "h\"i" 'j"k' l"m"n # no"#).join("|"),
            r#"a|b c|d e|f g|h"i|j"k|lmn"#
        );
        assert_eq!(words(r#"agent-send "read n1\n" \x41\x2e"#), ["agent-send", "read n1\n", "A."]);
        assert_eq!(words("stats auth a:b\\#c#d"), ["stats", "auth", "a:b#c"]);
        assert_eq!(words("a '' b"), ["a", "", "b"]);
        assert_eq!(words("sub \\1 $x"), ["sub", "\\1", "$x"], "no variables outside of quotes");
    }

    #[test]
    fn a_variable_is_kept_and_not_guessed() {
        let (lines, _) = lines(r#"server n1 "$HOST:${PORT-5432}" maxconn "\$5""#, 1);
        let line = &lines[0];
        assert_eq!(line.words[2].known(), None);
        assert_eq!(line.words[2].shown(), "$HOST:${PORT-5432}");
        assert_eq!(line.word(4), "$5");
    }

    #[test]
    fn a_place_is_counted_in_characters() {
        let (lines, _) = lines("\n  größe \"a b\"  c\n", 1);
        let place = |at: usize| lines[0].place_of(at);
        assert_eq!(place(0), Location { line: 2, column: 3, column_end: 8 });
        assert_eq!(place(1), Location { line: 2, column: 9, column_end: 14 });
    }

    #[test]
    fn an_unreadable_line_has_a_reason() {
        let all =
            ["a 'b", "a \"b", "\\x4", "\"$\"", "\"${a\"", &"w ".repeat(65), &"w".repeat(70_000)];
        for text in all {
            let (lines, faults) = lines(&format!("{text}\n"), 1);
            assert!(lines.is_empty() && faults.len() == 1, "{text:.9}");
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_a_fault_and_a_line() {
        let (found, faults) = lines("listen x\n bind :1", 1);
        assert_eq!(found.len(), 2);
        assert_eq!(faults[0].place, Location { line: 2, column: 9, column_end: 9 });
        assert!(lines("listen x\n", 1).1.is_empty() && lines("", 1).1.is_empty());
    }

    #[test]
    fn variables_are_replaced_in_quotes_and_in_addresses() {
        let read = |text: &str| {
            let (lines, _) = lines(&format!("{text}\n"), 1);
            let literal = lines[0].words.iter().filter(|word| word.has_literal_variable());
            let unknown = lines[0].words.iter().filter(|word| word.known().is_none());
            (literal.count(), unknown.count())
        };
        assert_eq!(read("server n1 ${HOST}:5432 check port ${PORT}"), (1, 1));
        assert_eq!(read("server n1 \"${HOST}\":5432 check port \"${PORT}\""), (0, 2));
        assert_eq!(read("bind $ADDRESS:5000"), (0, 1));
        assert_eq!(read("server a 1.1.1.1:1 addr ${HOST} agent-addr ${HOST}"), (0, 2));
        assert_eq!(read("timeout client '$TIMEOUT'"), (1, 0));
        assert_eq!(read("acl x path_reg ^/a$|^/b$ # $HOME"), (0, 0));
        assert_eq!(read("http-request set-path %[path,regsub(x$,$1)]"), (0, 0));
        assert_eq!(read("stats auth admin:pa$w0rd"), (0, 0));
    }
}
