//! The type of a rule, and its findings.

use std::borrow::Cow;

use super::haproxy::Haproxy;
use super::hba::Hba;
use super::location::{Location, Severity, harmless};
use super::pgsteer::Pgsteer;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, as in `allow(...)`.
    pub id: &'static str,
    /// The severity of its findings.
    pub severity: Severity,
    /// Its subject, in one line.
    pub title: &'static str,
    /// The effect on clients, or on the cluster.
    pub costs: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// Its page: `docs/lint/ID.md`.
    pub page: &'static str,
    /// Its input.
    pub look: Look,
}

/// The input of a rule, and its function.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// A haproxy.cfg.
    Haproxy(fn(&Haproxy<'_>, &mut Findings)),
    /// A pg_hba.conf.
    PgHba(fn(&Hba, &mut Findings)),
    /// A pgsteer.toml.
    Pgsteer(fn(&Pgsteer, &mut Findings)),
    /// The text of a file of any kind.
    Text,
}

/// Defines a rule. Its page is part of the program.
macro_rules! rule {
    (
        $(#[$doc:meta])*
        $name:ident = $id:literal, $severity:ident, $look:expr,
        title: $title:literal,
        costs: $costs:literal,
        remedy: $remedy:literal $(,)?
    ) => {
        $(#[$doc])*
        pub static $name: $crate::lint::rule::Rule = $crate::lint::rule::Rule {
            id: $id,
            severity: $crate::lint::location::Severity::$severity,
            title: $title,
            costs: $costs,
            remedy: $remedy,
            page: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../docs/lint/",
                $id,
                ".md"
            )),
            look: $look,
        };
    };
}
pub(crate) use rule;

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
