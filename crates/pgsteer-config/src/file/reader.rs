//! Reads TOML text according to the tables of keys, and collects all errors instead of stopping at
//! the first.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use pgsteer_core::names::{MemberName, NameError, ServiceName, VipName};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::error::ConfigErrors;
use crate::field::{Field, Given, Leaf, Raw};
use crate::key::SectionKeys;
use crate::limits::FILE_BYTES_MAX;
use crate::origin::Origin;
use crate::problem::{Problem, key_text};
use crate::sections::SECTIONS;
use crate::suggest::nearest;
use crate::written::{Draft, Section};

/// Reads the file and collects its errors.
pub struct Reader {
    file_name: Arc<str>,
    line_starts: Vec<usize>,
    text: Arc<str>,
    findings: RefCell<Findings>,
}

#[derive(Default)]
struct Findings {
    errors: ConfigErrors,
    /// Lines that are not valid TOML. The parser's values on them are guesses, so no other error is
    /// reported there.
    broken_lines: BTreeSet<usize>,
}

impl Reader {
    /// A reader of `text`. Errors call the file `file_name`.
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

    /// Returns the table of the whole file, as far as it is TOML; none if the file is too large.
    pub fn parse<'t>(&self, text: &'t str) -> Option<Spanned<DeTable<'t>>> {
        if text.len() > FILE_BYTES_MAX {
            let origin = Origin::Document(self.file_name.clone());
            self.findings.borrow_mut().errors.push(origin, Problem::TooLarge);
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken_lines = BTreeSet::new();
        let is_unclosed = errors.iter().any(|error| unclosed_string(error.message()).is_some());
        for error in errors {
            let mut at = error.span().unwrap_or(0..0).start;
            // The error's own text would quote the line, and with it any secret in it.
            let mut message = error.message().to_owned();
            if let Some(quote) = unclosed_string(&message) {
                // A string of several lines ends where the file does; the error names its first
                // line.
                at = if quote.len() > 1 { text.rfind(quote).unwrap_or(at) } else { at };
                message = format!("a string has no closing {quote}");
            }
            // One mistake often makes the parser report several errors in a line. A missing quote
            // makes it report each following line as an item of a list.
            let is_next_item = message.starts_with("missing comma between array elements");
            let is_new_line = broken_lines.insert(self.position(at).0);
            if is_new_line && !(is_unclosed && is_next_item) {
                self.report(at..at, "", Problem::Syntax(message));
            }
        }
        self.findings.borrow_mut().broken_lines = broken_lines;
        Some(table)
    }

    /// Returns all errors.
    pub fn into_errors(self) -> ConfigErrors {
        self.findings.into_inner().errors
    }

    fn origin(&self, span: &Range<usize>, key: &str) -> Origin {
        let (line, column) = self.position(span.start);
        Origin::File { name: self.file_name.clone(), line, column, key: key.to_owned() }
    }

    fn report(&self, span: Range<usize>, key: &str, problem: Problem) {
        self.report_at(self.origin(&span, key), problem);
    }

    fn report_at(&self, origin: Origin, problem: Problem) {
        let mut findings = self.findings.borrow_mut();
        let is_broken = |line: &usize| findings.broken_lines.contains(line);
        if !matches!(&origin, Origin::File { line, .. } if is_broken(line)) {
            findings.errors.push(origin, problem);
        }
    }

    /// Converts the whole file.
    pub fn draft(&self, table: &DeTable<'_>) -> Draft {
        let mut draft = Draft { file: Some(self.file_name.clone()), ..Draft::default() };
        let known = SECTIONS.map(|section| section.name);
        for (key, value) in table.iter() {
            let entry = Entry { key, value, path: path_of("", key.get_ref()) };
            match SECTIONS.iter().find(|section| section.name == key.get_ref().as_ref()) {
                None => self.unknown(&entry, "", &known),
                Some(keys) if keys.name == "members" => draft.members = self.members(&entry, keys),
                Some(keys) if keys.name == "services" => {
                    draft.services = self.named(&entry, keys, ServiceName::new);
                }
                Some(keys) if keys.name == "vip" => {
                    draft.vips = self.named(&entry, keys, VipName::new);
                }
                Some(keys) => {
                    let section = self.section(&entry, keys);
                    let section = section.map_or_else(Field::wrong, |section| {
                        Field::new(section, self.key_place(&entry))
                    });
                    draft.sections.insert(keys.name, section);
                }
            }
        }
        draft
    }

    fn members(
        &self,
        entry: &Entry<'_>,
        keys: &SectionKeys,
    ) -> Field<Vec<(MemberName, Given<Section>)>> {
        let Some(table) = self.table(entry) else {
            return Field::wrong();
        };
        let mut members = Vec::new();
        for member in entries(entry, table) {
            let value = self.section(&member, keys).unwrap_or_else(Section::wrong);
            match MemberName::new(member.key.get_ref()) {
                Ok(name) => members.push((name, Given { value, origin: self.key_place(&member) })),
                Err(error) => self.report(member.key.span(), &member.path, error.into()),
            }
        }
        if members.len() < table.len() {
            // A member's name was invalid. Other checks depend on the number of members.
            return Field::wrong();
        }
        Field::new(members, self.key_place(entry))
    }

    /// Reads a table of sections by name.
    fn named<N: Ord>(
        &self,
        entry: &Entry<'_>,
        keys: &SectionKeys,
        name_of: fn(&str) -> Result<N, NameError>,
    ) -> Field<BTreeMap<N, Given<Section>>> {
        let Some(table) = self.table(entry) else {
            return Field::wrong();
        };
        let mut sections = BTreeMap::new();
        for named in entries(entry, table) {
            let section = self.section(&named, keys);
            let name = name_of(named.key.get_ref());
            let name =
                name.map_err(|error| self.report(named.key.span(), &named.path, error.into()));
            if let (Ok(name), Some(value)) = (name, section) {
                sections.insert(name, Given { value, origin: self.key_place(&named) });
            }
        }
        if sections.is_empty() && !table.is_empty() {
            return Field::wrong();
        }
        Field::new(sections, self.key_place(entry))
    }

    /// Reads one table with known keys: each key checks its value.
    fn section(&self, entry: &Entry<'_>, keys: &SectionKeys) -> Option<Section> {
        let table = self.table(entry)?;
        let mut section = Section::default();
        for entry in entries(entry, table) {
            let Some(key) = keys.keys.iter().find(|key| key.name() == entry.key.get_ref().as_ref())
            else {
                let parent = entry.path.strip_suffix(&key_text(entry.key.get_ref()));
                let parent = parent.and_then(|parent| parent.strip_suffix('.'));
                self.unknown(&entry, parent.unwrap_or_default(), &keys.names());
                continue;
            };
            let value = self.raw(entry.value, &entry.path);
            let leaf = Leaf { key: self.key_place(&entry), value };
            key.check(&leaf, &mut |origin, problem| self.report_at(origin, problem));
            section.write(key.name(), leaf);
        }
        Some(section)
    }

    fn table<'t>(&self, entry: &Entry<'t>) -> Option<&'t DeTable<'t>> {
        match entry.value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let problem = Problem::WrongType {
                    wants: "a table",
                    example: format!("[{}]", entry.path),
                    found: untyped(other).kind(),
                };
                self.report(entry.value.span(), &entry.path, problem);
                None
            }
        }
    }

    fn unknown(&self, entry: &Entry<'_>, table: &str, known: &[&'static str]) {
        let key: &str = entry.key.get_ref();
        let problem = match holds_secret(key) {
            true => Problem::PasswordInFile,
            false => Problem::UnknownKey {
                key: key_text(key),
                table: table.to_owned(),
                near: nearest(key, known),
                known: known.to_vec(),
            },
        };
        self.report(entry.key.span(), &entry.path, problem);
    }

    fn key_place(&self, entry: &Entry<'_>) -> Origin {
        self.origin(&entry.key.span(), &entry.path)
    }

    /// Returns a value with the places of everything in it.
    fn raw(&self, value: &Spanned<DeValue<'_>>, path: &str) -> Given<Raw> {
        let raw = match value.get_ref() {
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| self.raw(item, path)).collect())
            }
            DeValue::Table(table) => {
                let entries = table.iter().map(|(key, value)| {
                    let path = path_of(path, key.get_ref());
                    (key.get_ref().to_string(), self.raw(value, &path))
                });
                Raw::Table(entries.collect())
            }
            single => untyped(single),
        };
        Given { value: raw, origin: self.origin(&value.span(), path) }
    }

    /// Returns line and column, both from 1, of a byte of the text.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts.get(line.saturating_sub(1));
        let before = start.and_then(|start| self.text.get(*start..at));
        (line, before.map_or(0, |text| text.chars().count()) + 1)
    }
}

/// One entry of a table.
struct Entry<'t> {
    key: &'t Spanned<DeString<'t>>,
    value: &'t Spanned<DeValue<'t>>,
    path: String,
}

fn entries<'t>(
    of: &Entry<'_>,
    table: &'t DeTable<'t>,
) -> impl Iterator<Item = Entry<'t>> + use<'t> {
    let parent = of.path.clone();
    table.iter().map(move |(key, value)| {
        let path = path_of(&parent, key.get_ref());
        Entry { key, value, path }
    })
}

fn path_of(parent: &str, key: &str) -> String {
    match parent {
        "" => key_text(key),
        parent => format!("{parent}.{}", key_text(key)),
    }
}

/// Converts a single value. For a list or a table the contents are dropped.
fn untyped(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        // TOML also has hexadecimal, octal and binary numbers.
        DeValue::Integer(number) if number.radix() != 10 => {
            let decimal = u64::from_str_radix(number.as_str(), number.radix());
            Raw::Whole(decimal.map_or_else(|_| number.to_string(), |number| number.to_string()))
        }
        DeValue::Integer(number) => Raw::Whole(number.as_str().to_owned()),
        DeValue::Float(number) => Raw::Fraction(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Datetime(_) => Raw::Date,
        DeValue::Array(_) => Raw::List(Vec::new()),
        DeValue::Table(_) => Raw::Table(Vec::new()),
    }
}

/// Returns the missing quote if the parser's message is about an unterminated string.
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

/// Returns true if users commonly put a password into this key.
fn holds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names = ["pass", "passphrase", "secret", "pwd"];
    names.contains(&&*key) || (key.contains("passw") && !key.ends_with("file"))
}
