//! HAProxy's configuration: what it says, what it comes to, and what is wrong with it.

pub mod checks;
pub mod condition;
pub mod detection;
pub mod lines;
pub mod proxy;
mod rules;
pub mod sections;
pub mod server;
pub mod values;
pub mod words;

use self::proxy::Model;
use self::sections::{File, Kind};
use super::rule::Look;
use super::{Judged, Options, Unreadable};

pub use self::rules::RULES;

/// What the rules look at.
#[derive(Debug)]
pub struct Haproxy<'a> {
    /// The file.
    pub model: Model<'a>,
    /// What lint was told.
    pub options: &'a Options,
}

/// What is found in a text, and how long HAProxy takes to notice.
pub(super) fn judge(text: &str, options: &Options) -> Result<Judged, Unreadable> {
    let file = File::read(text);
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
    Ok(Judged { findings, detection: detection::table(&model), is_piece: file.is_piece() })
}
