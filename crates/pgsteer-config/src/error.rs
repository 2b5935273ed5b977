//! Errors of the configuration: all of them at once, each with its place and its remedy.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::limits::ERRORS_MAX;
use crate::problem::Problem;
use crate::written::Field;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file.
    File {
        /// The file's name as the operator gave it; empty where no other file can be meant.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The key with its tables, as `services.write.hold_seconds`; empty where the text
        /// is no TOML.
        key: String,
    },
    /// In the configuration file as a whole.
    Document(Arc<str>),
    /// On the command line: the flag with its dashes.
    Flag(&'static str),
    /// On the command line by the flag, or in the environment by the variable.
    FlagOrVariable(&'static str, &'static str),
    /// Nowhere: the default of this key.
    Default(String),
    /// Nowhere in particular: something is missing.
    Whole,
}

impl Place {
    fn order(&self) -> (bool, usize, usize) {
        match self {
            Place::File { line, column, .. } => (false, *line, *column),
            Place::Document(_) => (false, 0, 0),
            Place::Flag(_) | Place::FlagOrVariable(..) | Place::Default(_) | Place::Whole => {
                (true, 0, 0)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { name, line, column, key } => {
                match name.is_empty() {
                    true => write!(f, "line {line}")?,
                    false => write!(f, "{name}:{line}:{column}")?,
                }
                if key.is_empty() {
                    return Ok(());
                }
                write!(f, ": {key}")
            }
            Place::Document(name) => f.write_str(name),
            Place::Flag(flag) => f.write_str(flag),
            Place::FlagOrVariable(flag, variable) => write!(f, "{flag} or {variable}"),
            Place::Default(key) => write!(f, "{key} (by default)"),
            Place::Whole => f.write_str("configuration"),
        }
    }
}

/// One error: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What, with the remedy.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        match self.problem.remedy() {
            Some(remedy) => write!(f, "\n    help: {remedy}"),
            None => Ok(()),
        }
    }
}

/// All errors of a configuration, file and flags together.
///
/// At most [`ERRORS_MAX`] are kept; the others are counted. It displays as one entry per
/// error, the file's in the order of their lines, and never carries a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    dropped: usize,
}

impl ConfigErrors {
    /// Notes one more error.
    pub fn push(&mut self, place: Place, problem: impl Into<Problem>) {
        if self.errors.len() >= ERRORS_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let problem = problem.into();
        let order = place.order();
        // Errors come nearly sorted, and those of equal place keep their order.
        let at = self.errors.partition_point(|e| e.place.order() <= order);
        self.errors.insert(at, ConfigError { place, problem });
    }

    /// Makes a field of a value that was read at `place`, and notes the error if it is none.
    pub fn field<T>(&mut self, place: Place, value: Result<T, Problem>) -> Field<T> {
        match value {
            Ok(value) => Field::new(value, place),
            Err(problem) => {
                self.push(place, problem);
                Field::wrong()
            }
        }
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// How many there are, the dropped ones included.
    pub fn len(&self) -> usize {
        self.errors.len().saturating_add(self.dropped)
    }

    /// The errors that were kept, the file's first.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.dropped {
            0 => Ok(()),
            dropped => write!(f, "\nand {dropped} more"),
        }
    }
}

impl Error for ConfigErrors {}
