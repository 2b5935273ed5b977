//! The place of a value: where a value was written.

use std::fmt;
use std::sync::Arc;

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
    /// Where an error about this value stands among all errors.
    pub(crate) fn order(&self) -> (bool, usize, usize) {
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
