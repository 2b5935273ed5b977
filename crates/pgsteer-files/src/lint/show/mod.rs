//! How a report is shown: as text for people, as JSON for programs, as SARIF for code review.

mod json;
mod sarif;
mod text;

pub use self::json::json;
pub use self::sarif::sarif;
pub use self::text::{list, text};

use super::{Report, Unreadable};

/// A file that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// Its name, as it was given.
    pub name: String,
    /// Its text, to show lines of it.
    pub source: String,
    /// What was found, or why nothing could be.
    pub outcome: Result<Report, String>,
}

impl Looked {
    /// A file that could be read.
    pub fn new(name: String, source: String, outcome: Result<Report, Unreadable>) -> Looked {
        Looked { name, source, outcome: outcome.map_err(|why| format!("the file {why}")) }
    }
}
