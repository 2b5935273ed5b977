//! A typed reader over a TOML table that collects errors instead of stopping at the first.
//!
//! Sections are asked for each key that they may have; what nobody asked for is unknown.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::draft::Field;
use crate::error::{ConfigErrors, Place};
use crate::limits::FILE_BYTES_MAX;
use crate::problem::{Problem, key_text};
use crate::suggest::nearest;

/// A value as the parser gives it.
pub type Value<'t> = DeValue<'t>;

/// Knows the file and collects what is wrong with it.
pub struct Reader {
    file_name: Arc<str>,
    line_starts: Vec<usize>,
    text: Arc<str>,
    findings: RefCell<Findings>,
}

#[derive(Default)]
struct Findings {
    errors: ConfigErrors,
    /// Lines that are no TOML. What the parser makes of them is a guess, so nothing else is
    /// said of them.
    broken_lines: BTreeSet<usize>,
}

impl Reader {
    /// A reader of `text`, which errors call `file_name`.
    pub fn new(text: &str, file_name: &str) -> Reader {
        let text = if text.len() > FILE_BYTES_MAX { "" } else { text };
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Reader {
            file_name: Arc::from(file_name),
            line_starts: std::iter::once(0).chain(breaks).collect(),
            text: Arc::from(text),
            findings: RefCell::default(),
        }
    }

    /// What errors call the file.
    pub fn file_name(&self) -> Arc<str> {
        self.file_name.clone()
    }

    /// The table of the whole file, as far as it is TOML; nothing if it is too large.
    pub fn parse<'t>(&self, text: &'t str) -> Option<Spanned<DeTable<'t>>> {
        if text.len() > FILE_BYTES_MAX {
            let place = Place::Document(self.file_name.clone());
            self.findings.borrow_mut().errors.push(place, Problem::TooLarge);
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken_lines = BTreeSet::new();
        let is_unclosed = errors.iter().any(|error| unclosed_string(error.message()).is_some());
        for error in errors {
            let mut at = error.span().unwrap_or(0..0).start;
            // The error's own text would quote the line, and with it any secret.
            let mut message = error.message().to_owned();
            if let Some(quote) = unclosed_string(&message) {
                // One of several lines ends where the file does; it is named by its begin.
                at = if quote.len() > 1 { text.rfind(quote).unwrap_or(at) } else { at };
                message = format!("a string has no closing {quote}");
            }
            // One slip often makes the parser complain several times in a line, and a missing quote
            // makes it take each line that follows for an item of a list.
            let is_next_item = message.starts_with("missing comma between array elements");
            let is_new_line = broken_lines.insert(self.position(at).0);
            if is_new_line && !(is_unclosed && is_next_item) {
                self.report(at..at, "", Problem::Syntax(message));
            }
        }
        self.findings.borrow_mut().broken_lines = broken_lines;
        Some(table)
    }

    /// All that was found to be wrong.
    pub fn into_errors(self) -> ConfigErrors {
        self.findings.into_inner().errors
    }

    fn place(&self, span: &Range<usize>, key: &str) -> Place {
        let (line, column) = self.position(span.start);
        Place::File { name: self.file_name.clone(), line, column, key: key.to_owned() }
    }

    fn report(&self, span: Range<usize>, key: &str, problem: Problem) {
        let place = self.place(&span, key);
        let mut findings = self.findings.borrow_mut();
        if !findings.broken_lines.contains(&self.position(span.start).0) {
            findings.errors.push(place, problem);
        }
    }

    /// Line and column, both from 1, of a byte of the text.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts.get(line.saturating_sub(1));
        let before = start.and_then(|start| self.text.get(*start..at));
        (line, before.map_or(0, |text| text.chars().count()) + 1)
    }
}

/// One entry of a table: a key that somebody chose, with its value.
pub struct Entry<'r, 't> {
    /// The key.
    pub key: &'t str,
    reader: &'r Reader,
    path: String,
    key_span: Range<usize>,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'r, 't> Entry<'r, 't> {
    /// Where the key stands.
    pub fn place(&self) -> Place {
        self.reader.place(&self.key_span, &self.path)
    }

    /// Reports that something is wrong with the key.
    pub fn report_key(&self, problem: impl Into<Problem>) {
        self.reader.report(self.key_span.clone(), &self.path, problem.into());
    }

    /// The value, made by `make`.
    pub fn read<T>(&self, make: impl FnOnce(&Value<'t>) -> Result<T, Problem>) -> Field<T> {
        match make(self.value.get_ref()) {
            Ok(value) => Field::new(value, self.reader.place(&self.value.span(), &self.path)),
            Err(problem) => self.wrong(problem),
        }
    }

    /// The value as a table with known keys, made by `make`.
    pub fn section<T>(&self, make: impl FnOnce(&mut Section<'r, 't>) -> T) -> Field<T> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return self.wrong(self.not_a_table());
        };
        let mut section = Section::new(self.reader, &self.path, table);
        let made = make(&mut section);
        section.finish();
        Field::new(made, self.place())
    }

    /// The entries of the value, a table whose keys people choose.
    pub fn entries(&self) -> Field<Vec<Entry<'r, 't>>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return self.wrong(self.not_a_table());
        };
        let section = Section::new(self.reader, &self.path, table);
        let entries = table.iter().map(|(key, value)| section.entry(key, value));
        Field::new(entries.collect(), self.place())
    }

    /// The items of the value, a list.
    pub fn items(&self, example: &'static str) -> Field<Vec<Entry<'r, 't>>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.wrong(Problem::WrongType {
                wants: "a list",
                example: example.to_owned(),
                found: kind(self.value.get_ref()),
            });
        };
        let entries = items.iter().map(|value| Entry {
            key: self.key,
            reader: self.reader,
            path: self.path.clone(),
            key_span: value.span(),
            value,
        });
        Field::new(entries.collect(), self.place())
    }

    fn not_a_table(&self) -> Problem {
        Problem::WrongType {
            wants: "a table",
            example: format!("[{}]", self.path),
            found: kind(self.value.get_ref()),
        }
    }

    fn wrong<T>(&self, problem: Problem) -> Field<T> {
        self.reader.report(self.value.span(), &self.path, problem);
        Field::wrong()
    }
}

/// A table with known keys.
pub struct Section<'r, 't> {
    reader: &'r Reader,
    path: String,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'r, 't> Section<'r, 't> {
    /// The table at `path`; empty for the whole file.
    pub fn new(reader: &'r Reader, path: &str, table: &'t DeTable<'t>) -> Section<'r, 't> {
        Section { reader, path: path.to_owned(), table, known: Vec::new() }
    }

    /// The entry of a key, if it is there. From now on the key is known.
    pub fn find(&mut self, key: &'static str) -> Option<Entry<'r, 't>> {
        self.known.push(key);
        let (found, value) = self.table.get_key_value(key)?;
        Some(self.entry(found, value))
    }

    /// The value of a key, made by `make`. From now on the key is known.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        make: impl FnOnce(&Value<'t>) -> Result<T, Problem>,
    ) -> Field<T> {
        self.find(key).map_or_else(Field::default, |entry| entry.read(make))
    }

    /// Reports all keys that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.table.iter() {
            let text: &str = key.get_ref();
            if self.known.contains(&text) {
                continue;
            }
            let problem =
                if holds_secret(text) { Problem::PasswordInFile } else { self.unknown(text) };
            self.reader.report(key.span(), &self.path_of(text), problem);
        }
    }

    fn unknown(&self, key: &str) -> Problem {
        Problem::UnknownKey {
            key: key_text(key),
            table: self.path.clone(),
            near: nearest(key, &self.known),
            known: self.known.clone(),
        }
    }

    fn entry(
        &self,
        key: &'t Spanned<toml::de::DeString<'t>>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Entry<'r, 't> {
        Entry {
            key: key.get_ref(),
            reader: self.reader,
            path: self.path_of(key.get_ref()),
            key_span: key.span(),
            value,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key_text(key)
        } else {
            format!("{}.{}", self.path, key_text(key))
        }
    }
}

/// The quote that is missing, if the parser's message is about a string without an end.
fn unclosed_string(message: &str) -> Option<&'static str> {
    let of_kind = message.strip_prefix("invalid ")?.split_once(" string, expected ")?.0;
    match of_kind {
        "basic" => Some("\""),
        "literal" => Some("'"),
        "multi-line basic" => Some("\"\"\""),
        "multi-line literal" => Some("'''"),
        _ => None,
    }
}

/// The key is one that people put a password into.
fn holds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names = ["pass", "passphrase", "secret", "pwd"];
    names.contains(&&*key) || (key.contains("passw") && !key.ends_with("file"))
}

/// The type of a value in words.
pub fn kind(value: &Value<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
