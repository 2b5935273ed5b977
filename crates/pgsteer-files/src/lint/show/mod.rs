//! Formats of a report: text for people, JSON for programs, SARIF for code review.

mod json;
mod sarif;
mod text;

pub use self::json::json;
pub use self::sarif::sarif;
pub use self::text::{list, text};

use super::{Report, Unreadable};

/// A file that was linted.
#[derive(Debug)]
pub struct Looked {
    /// Its name, as given.
    pub name: String,
    /// Its text, to show lines of it.
    pub source: String,
    /// The report, or the reason why there is none.
    pub outcome: Result<Report, String>,
}

impl Looked {
    /// A file that could be read.
    pub fn new(name: String, source: String, outcome: Result<Report, Unreadable>) -> Looked {
        Looked { name, source, outcome: outcome.map_err(|why| format!("the file {why}")) }
    }
}
