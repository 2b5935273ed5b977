//! The place and the severity of a finding, and text that is safe to show.

use std::fmt;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Clients fail, an unauthorized client gets access, or the program refuses the file.
    Error,
    /// It is slower or less robust than necessary.
    Warning,
    /// Information; the file alone does not show whether it is wrong.
    Note,
}

impl Severity {
    /// The name, which is also SARIF's `level`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a file: one line, and columns in characters from 1. The end column is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// The first column.
    pub column: usize,
    /// The column after the last one.
    pub column_end: usize,
}

impl Location {
    /// The whole line.
    pub const fn line(line: usize) -> Location {
        Location { line, column: 1, column_end: 1 }
    }
}

/// Escapes characters that affect a terminal, or the direction of the text beside them.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || acts_on_text(c) => harmless.extend(c.escape_default()),
            c => harmless.push(c),
        }
    }
    harmless
}

/// Returns true for invisible characters that change how others are shown (Unicode, "Bidirectional
/// Algorithm").
const fn acts_on_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
