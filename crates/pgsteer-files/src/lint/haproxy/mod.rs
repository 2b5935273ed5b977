//! HAProxy's configuration: its model, its timings, and its faults.

pub mod checks;
pub mod condition;
pub mod detection;
pub mod lines;
pub mod lives;
pub mod model;
pub mod patroni;
pub mod postgres;
pub mod proxy;
pub mod role;
pub mod roles;
pub mod sections;
pub mod server;
pub mod values;
pub mod words;

use self::model::Model;
use super::Options;

/// The input of the rules.
#[derive(Debug)]
pub struct Haproxy<'a> {
    /// The file.
    pub model: Model<'a>,
    /// The options of lint.
    pub options: &'a Options,
}

/// Returns true if the text has a `global` section: it is a configuration, or its main file.
pub fn has_global(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().next() == Some("global"))
}
