//! What lint finds: in the examples of its own pages, in configurations of the kind that people have,
//! and in nonsense.

// A test may read files and the environment, the core may not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod corpus;
mod edges;
mod found;
mod pages;
mod random;
mod shown;

use std::collections::BTreeSet;

use pgsteer_files::lint::{Kind, Options, Report, lint};

/// The names of the rules that a report is about.
pub fn ids(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.rule.id).collect()
}

pub fn judged(kind: Kind, text: &str, options: &Options) -> Report {
    lint(kind, text, options).unwrap_or_else(|why| panic!("{why}: {text}"))
}
