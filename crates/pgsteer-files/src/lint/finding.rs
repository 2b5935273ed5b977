//! Findings of lint, and their severity.

use std::borrow::Cow;
use std::fmt;

use super::rule::Rule;

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

/// One finding with its rule.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// Its severity: that of the rule, or less if the file shows a reason for that.
    pub severity: Severity,
    /// Its place.
    pub place: Location,
    /// The fault, with its names and numbers.
    pub message: String,
    /// What to do, with the names of this place if the rule has a placeholder for them.
    pub remedy: Cow<'static, str>,
}

/// Collects the findings of one rule.
#[derive(Debug)]
pub struct Findings {
    rule: &'static Rule,
    all: Vec<Finding>,
}

impl Findings {
    /// No findings yet.
    pub const fn of(rule: &'static Rule) -> Findings {
        Findings { rule, all: Vec::new() }
    }

    /// Adds a finding with the severity of the rule.
    pub fn add(&mut self, place: impl Into<Location>, message: impl AsRef<str>) {
        self.add_as(self.rule.severity, place, message);
    }

    /// Adds a finding with its own severity, which is at most that of the rule.
    pub fn add_as(
        &mut self,
        severity: Severity,
        place: impl Into<Location>,
        message: impl AsRef<str>,
    ) {
        let (place, message) = (place.into(), harmless(message.as_ref()));
        // The most severe one is first in the order.
        let severity = severity.max(self.rule.severity);
        let remedy = Cow::Borrowed(self.rule.remedy);
        self.all.push(Finding { rule: self.rule, severity, place, message, remedy });
    }

    /// Puts `name` in the place of `placeholder` in the remedy of the finding that was added last.
    pub fn name_in_remedy(&mut self, placeholder: &str, name: &str) {
        if let Some(finding) = self.all.last_mut() {
            finding.remedy = Cow::Owned(harmless(&finding.rule.remedy.replace(placeholder, name)));
        }
    }

    /// Returns all findings.
    pub fn into_all(self) -> Vec<Finding> {
        self.all
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
