//! The type of a rule, and the list of all rules.

use super::finding::{Findings, Severity};
use super::haproxy::Haproxy;
use super::hba::Hba;
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
            severity: $crate::lint::finding::Severity::$severity,
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

/// Returns every rule, by subject.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    super::haproxy::RULES
        .iter()
        .chain(super::hba::RULES)
        .chain(super::pgsteer::RULES)
        .copied()
        .chain([&super::template::TEMPLATE_NOT_RENDERED, &super::allow::ALLOW_WRONG])
}

/// Returns the rule with this name.
pub fn find(id: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.id == id)
}
