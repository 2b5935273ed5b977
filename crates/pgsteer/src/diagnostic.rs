//! Diagnostics: the errors that a command writes to stderr, all in one form. First what is wrong and
//! where, below it what to do, and at the end what was not done:
//!
//! ```text
//! --hold: `-1` is out of range
//!     help: from 0 to 3600 seconds
//! 1 error, nothing was started
//! ```
//!
//! An error that occurs after the start is a line of the log.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

/// An error and, where it is known, its remedy.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}")]
pub struct Diagnostic {
    what: String,
    remedy: Option<String>,
}

impl Diagnostic {
    /// `what` is one sentence that begins with the location, where there is one. `remedy` is one
    /// sentence too.
    pub fn new(what: impl Into<String>, remedy: Option<String>) -> Diagnostic {
        Diagnostic { what: what.into(), remedy }
    }

    /// The diagnostic of a file that cannot be read.
    pub fn unreadable(file: &Path, error: &io::Error) -> Diagnostic {
        let remedy = "check the path, and that pgsteer's user may read it".to_owned();
        Diagnostic::new(format!("{}: cannot be read: {error}", file.display()), Some(remedy))
    }

    /// The diagnostic of `error` with its context, and with the remedy of the diagnostic in it.
    fn of(error: &anyhow::Error) -> Diagnostic {
        let remedy = error.downcast_ref().and_then(|inner: &Diagnostic| inner.remedy.clone());
        Diagnostic::new(format!("{error:#}"), remedy)
    }

    fn lines(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}\n    help: {remedy}", self.what),
            None => self.what.clone(),
        }
    }
}

/// `error` with its remedy on the next line.
pub fn in_lines(error: &anyhow::Error) -> String {
    Diagnostic::of(error).lines()
}

/// `error` with its remedy on the same line.
pub fn in_one_line(error: &anyhow::Error) -> String {
    let Diagnostic { what, remedy } = Diagnostic::of(error);
    match remedy {
        Some(remedy) => format!("{what}; {remedy}"),
        None => what,
    }
}

/// Writes one error to stderr. `undone` is what the command did not do, as in `started`.
pub fn report(error: &anyhow::Error, undone: &str) {
    report_all(&in_lines(error), 1, undone);
}

/// Writes `count` errors, which `errors` displays in lines.
pub fn report_all(errors: &dyn Display, count: usize, undone: &str) {
    // If stderr is closed the error cannot be reported at all.
    let _ = writeln!(io::stderr(), "{errors}\n{}, nothing was {undone}", Errors(count));
}

struct Errors(usize);

impl Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 error"),
            several => write!(f, "{several} errors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_remedy_of_an_error_is_found_below_its_context() {
        let remedy = Some("as in x".to_owned());
        let error = Err::<(), _>(Diagnostic::new("it is y", remedy)).context("--flag").unwrap_err();
        assert_eq!(in_lines(&error), "--flag: it is y\n    help: as in x");
        assert_eq!(in_one_line(&error), "--flag: it is y; as in x");
    }

    #[test]
    fn an_error_without_a_remedy_is_one_line() {
        let error = anyhow::anyhow!("down there").context("a file");
        assert_eq!(in_lines(&error), "a file: down there");
        assert_eq!(in_one_line(&error), "a file: down there");
    }
}
