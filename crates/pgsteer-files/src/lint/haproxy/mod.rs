//! HAProxy's configuration: its model, its timings, and its faults.

pub mod checks;
pub mod condition;
pub mod detection;
pub mod lines;
pub mod lives;
pub mod patroni;
pub mod proxy;
pub mod roles;
mod rules;
pub mod sections;
pub mod server;
pub mod values;
pub mod words;

use self::proxy::Model;
use self::sections::{File, Kind};
use super::rule::Look;
use super::{Judged, Options, Source, Unreadable};

pub use self::rules::RULES;

/// The input of the rules.
#[derive(Debug)]
pub struct Haproxy<'a> {
    /// The file.
    pub model: Model<'a>,
    /// The options of lint.
    pub options: &'a Options,
}

/// Returns true if the text has a `global` section: it is a configuration, or its main file.
pub fn has_global(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().next() == Some("global"))
}

/// Lints the files of one configuration, and computes HAProxy's detection times. The result has an
/// entry for each file.
pub(super) fn judge(sources: &[Source<'_>], options: &Options) -> Result<Vec<Judged>, Unreadable> {
    let file = File::join(sources);
    if !file.sections.iter().any(|section| section.kind != Kind::Other) {
        return Err(Unreadable::NoSection);
    }
    let haproxy = Haproxy { model: Model::new(&file), options };
    let findings = super::looked(RULES, |look, findings| {
        if let Look::Haproxy(look) = look {
            look(&haproxy, findings);
        }
    });
    let Haproxy { model, .. } = haproxy;
    let rows = detection::table(&model);
    let judged = || Judged { findings: vec![], detection: vec![], is_piece: file.is_piece() };
    let mut all: Vec<Judged> = sources.iter().map(|_| judged()).collect();
    for mut finding in findings {
        let (at, line) = file.origin(finding.place.line);
        finding.place.line = line;
        all.get_mut(at).into_iter().for_each(|judged| judged.findings.push(finding.clone()));
    }
    for mut row in rows {
        let (at, line) = file.origin(row.line);
        row.line = line;
        all.get_mut(at).into_iter().for_each(|judged| judged.detection.push(row.clone()));
    }
    Ok(all)
}
