//! Complaints: how the commands tell on stderr what is wrong, all of them alike. Where it is and what
//! it is, below it what to do, and at the end that nothing was done:
//!
//! ```text
//! --hold: `-1` is out of range
//!     help: from 0 to 3600 seconds
//! 1 error, nothing was started
//! ```
//!
//! What goes wrong later, once there is a log, is a line of that.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

/// What is wrong, and what to do about it where that is known.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}")]
pub struct Complaint {
    what: String,
    remedy: Option<String>,
}

impl Complaint {
    /// `what` is one sentence, with the place in front of it where there is one; so is `remedy`.
    pub fn new(what: impl Into<String>, remedy: Option<String>) -> Complaint {
        Complaint { what: what.into(), remedy }
    }

    /// A file that cannot be read.
    pub fn unreadable(file: &Path, error: &io::Error) -> Complaint {
        let remedy = "check the path, and that pgsteer's user may read it".to_owned();
        Complaint::new(format!("{}: cannot be read: {error}", file.display()), Some(remedy))
    }

    /// The same for `error`, with what led to it, whether it has a remedy or none.
    fn of(error: &anyhow::Error) -> Complaint {
        let remedy = error.downcast_ref().and_then(|own: &Complaint| own.remedy.clone());
        Complaint::new(format!("{error:#}"), remedy)
    }

    fn lines(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}\n    help: {remedy}", self.what),
            None => self.what.clone(),
        }
    }
}

/// `error` with its remedy below it.
pub fn in_lines(error: &anyhow::Error) -> String {
    Complaint::of(error).lines()
}

/// `error` with its remedy, for whoever reads one line.
pub fn in_one_line(error: &anyhow::Error) -> String {
    let Complaint { what, remedy } = Complaint::of(error);
    match remedy {
        Some(remedy) => format!("{what}; {remedy}"),
        None => what,
    }
}

/// Complains of one error. `undone` is what was not done for it, as in `started`.
pub fn complain(error: &anyhow::Error, undone: &str) {
    complain_of_all(&in_lines(error), 1, undone);
}

/// Complains of `count` errors, which show themselves as they should.
pub fn complain_of_all(errors: &dyn Display, count: usize, undone: &str) {
    // Nobody is left to be told if stderr is gone.
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
    fn a_remedy_is_found_below_what_led_to_it() {
        let remedy = Some("as in x".to_owned());
        let error = Err::<(), _>(Complaint::new("it is y", remedy)).context("--flag").unwrap_err();
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
