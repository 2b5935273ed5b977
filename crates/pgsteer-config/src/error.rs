//! Errors of the configuration: all of them at once, each with its place and remedy.

use std::error::Error;
use std::fmt;

use crate::field::Field;
use crate::limits::ERRORS_MAX;
use crate::origin::Origin;
use crate::problem::Problem;

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
