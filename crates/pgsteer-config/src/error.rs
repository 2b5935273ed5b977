//! Errors of the configuration: all of them at once, each with its place and remedy.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::limits::ERRORS_MAX;
use crate::problem::Problem;
use crate::written::Field;

/// The place of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
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

impl Origin {
    fn order(&self) -> (bool, usize, usize) {
        match self {
            Origin::File { line, column, .. } => (false, *line, *column),
            Origin::Document(_) => (false, 0, 0),
            Origin::Flag(_) | Origin::FlagOrVariable(..) | Origin::Default(_) | Origin::Whole => {
                (true, 0, 0)
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line, column, key } => {
                match name.is_empty() {
                    true => write!(f, "line {line}")?,
                    false => write!(f, "{name}:{line}:{column}")?,
                }
                if key.is_empty() {
                    return Ok(());
                }
                write!(f, ": {key}")
            }
            Origin::Document(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::FlagOrVariable(flag, variable) => write!(f, "{flag} or {variable}"),
            Origin::Default(key) => write!(f, "{key} (by default)"),
            Origin::Whole => f.write_str("configuration"),
        }
    }
}

/// One error: its place, the problem, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The place.
    pub origin: Origin,
    /// The problem, with the remedy.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)?;
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
    pub fn push(&mut self, origin: Origin, problem: impl Into<Problem>) {
        if self.errors.len() >= ERRORS_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let problem = problem.into();
        let order = origin.order();
        // Errors arrive nearly sorted. Errors with the same place keep their order.
        let at = self.errors.partition_point(|e| e.origin.order() <= order);
        self.errors.insert(at, ConfigError { origin, problem });
    }

    /// Converts a value from `place` to a field, and adds its error if it is invalid.
    pub fn field<T>(&mut self, origin: Origin, value: Result<T, Problem>) -> Field<T> {
        match value {
            Ok(value) => Field::new(value, origin),
            Err(problem) => {
                self.push(origin, problem);
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
