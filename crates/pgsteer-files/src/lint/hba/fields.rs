//! Splits pg_hba.conf into lines and fields, as `next_token` of hba.c does.

use super::Refused;
use crate::lint::location::Location;

/// `include` and similar words refer to other files.
pub const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

/// A word, with or without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The text without quotes.
    pub text: String,
    /// A quoted keyword is a name.
    pub is_quoted: bool,
}

impl Item {
    /// Returns true if it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text == keyword
    }
}

/// A field: one or more words separated by commas.
#[derive(Clone, Debug)]
pub struct Field {
    /// The words.
    pub items: Vec<Item>,
    /// Its place.
    pub place: Location,
}

impl Field {
    /// Its first word.
    pub fn text(&self) -> &str {
        self.items.first().map_or("", |item| item.text.as_str())
    }
}

/// A line with its continuation lines.
pub struct Logical {
    /// The number, from 1.
    number: usize,
    text: String,
}

impl Logical {
    /// Returns true if it includes another file.
    pub fn is_include(&self) -> bool {
        self.text.split_whitespace().next().is_some_and(|word| INCLUDES.contains(&word))
    }
}

/// Returns the lines with content; a backslash at the end continues a line.
pub fn logical_lines(text: &str) -> Vec<Logical> {
    let mut lines: Vec<Logical> = Vec::new();
    let mut is_continued = false;
    for (number, line) in (1..).zip(text.lines()) {
        let (line, continues) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut().filter(|_| is_continued) {
            Some(last) => last.text.push_str(line),
            None => lines.push(Logical { number, text: line.to_owned() }),
        }
        is_continued = continues;
    }
    lines
}

/// Splits a line into fields.
pub fn fields(line: &Logical) -> Result<Vec<Field>, Refused> {
    let mut fields: Vec<Field> = Vec::new();
    let mut reader = Reader { chars: line.text.chars().collect(), at: 0, number: line.number };
    while let Some(field) = reader.field()? {
        fields.push(field);
    }
    Ok(fields)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    number: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Returns the next field; words that are separated by a comma are one field.
    fn field(&mut self) -> Result<Option<Field>, Refused> {
        while self.peek().is_some_and(|c| c.is_whitespace() || c == ',') {
            self.at += 1;
        }
        let started_at = self.at;
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            items.push(item);
            // `a, b`: a comma joins the next word, even after spaces.
            if self.peek() != Some(',') {
                break;
            }
            while self.peek().is_some_and(|c| c.is_whitespace() || c == ',') {
                self.at += 1;
            }
        }
        let place = Location { line: self.number, column: started_at + 1, column_end: self.at + 1 };
        Ok((!items.is_empty()).then_some(Field { items, place }))
    }

    fn item(&mut self) -> Result<Option<Item>, Refused> {
        let started_at = self.at;
        let (mut text, mut is_quoted, mut is_open) = (String::new(), false, false);
        while let Some(c) = self.peek() {
            match c {
                '"' if is_open && self.chars.get(self.at + 1) == Some(&'"') => {
                    text.push('"');
                    self.at += 1;
                }
                '"' => {
                    is_open = !is_open;
                    is_quoted |= text.is_empty();
                }
                c if !is_open && (c.is_whitespace() || c == ',' || c == '#') => break,
                c => text.push(c),
            }
            self.at += 1;
        }
        if is_open {
            let place =
                Location { line: self.number, column: started_at + 1, column_end: self.at + 1 };
            return Err(Refused {
                place,
                why: "a quote is not closed".to_owned(),
                is_strange: false,
            });
        }
        if self.peek() == Some('#') && self.at == started_at {
            self.at = self.chars.len();
        }
        Ok((!text.is_empty() || is_quoted).then_some(Item { text, is_quoted }))
    }
}
