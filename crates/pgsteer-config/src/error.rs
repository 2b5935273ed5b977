//! Errors of the configuration: all of them at once, each with its place and remedy.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::limits::ERRORS_MAX;
use crate::problem::Problem;
use crate::written::Field;

/// The place of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file.
    File {
        /// The file's name as the operator gave it; empty if only one file is possible.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The key with its tables, as `services.write.hold_seconds`; empty if the text is not
        /// TOML.
        key: String,
    },
    /// In the configuration file as a whole.
    Document(Arc<str>),
    /// On the command line: the flag with its dashes.
    Flag(&'static str),
    /// On the command line by the flag, or in the environment by the variable.
    FlagOrVariable(&'static str, &'static str),
    /// In no text: the default of this key.
    Default(String),
    /// No place: something is missing.
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

/// One error: its place, the problem, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The place.
    pub place: Place,
    /// The problem, with the remedy.
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

/// All errors of a configuration, of file and flags together.
///
/// At most [`ERRORS_MAX`] are kept; the others are only counted. It displays one entry per error,
/// those of the file in the order of their lines, and never contains a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    dropped: usize,
}

impl ConfigErrors {
    /// Adds an error.
    pub fn push(&mut self, place: Place, problem: impl Into<Problem>) {
        if self.errors.len() >= ERRORS_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let problem = problem.into();
        let order = place.order();
        // Errors arrive nearly sorted. Errors with the same place keep their order.
        let at = self.errors.partition_point(|e| e.place.order() <= order);
        self.errors.insert(at, ConfigError { place, problem });
    }

    /// Converts a value from `place` to a field, and adds its error if it is invalid.
    pub fn field<T>(&mut self, place: Place, value: Result<T, Problem>) -> Field<T> {
        match value {
            Ok(value) => Field::new(value, place),
            Err(problem) => {
                self.push(place, problem);
                Field::wrong()
            }
        }
    }

    /// Returns true if there are no errors.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns the number of errors, including the dropped ones.
    pub fn len(&self) -> usize {
        self.errors.len().saturating_add(self.dropped)
    }

    /// Returns the errors that were kept, those of the file first.
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
