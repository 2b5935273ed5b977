//! Texts that are taken as they are: names of a login, paths of files.

use std::path::PathBuf;

use super::limits::{LOGIN_NAME_BYTES_MAX, PATH_BYTES_MAX};
use super::problem::{Problem, Shown};
use crate::agent::LINE_BYTES_MAX;

/// Reads a user or database name of PostgreSQL.
///
/// # Errors
/// An empty text, one longer than [`LOGIN_NAME_BYTES_MAX`], or one with a NUL, which would end
/// it early in the startup packet.
pub fn login(text: &str) -> Result<String, Problem> {
    let fits = is_within(text, LOGIN_NAME_BYTES_MAX);
    fits.then(|| text.to_owned()).ok_or(Problem::Login)
}

/// Reads the path of a file. Whether there is one, the shell finds out.
///
/// # Errors
/// An empty text, one longer than [`PATH_BYTES_MAX`], or one with a NUL.
pub fn path(text: &str) -> Result<PathBuf, Problem> {
    let fits = is_within(text, PATH_BYTES_MAX);
    fits.then(|| PathBuf::from(text)).ok_or(Problem::Path)
}

/// Reads a question for the agent. What it means depends on the services.
///
/// # Errors
/// A text that could not be sent as a line.
pub fn question(text: &str) -> Result<String, Problem> {
    let fits = is_within(text, LINE_BYTES_MAX) && !text.contains(['\n', '\r']);
    fits.then(|| text.to_owned()).ok_or(Problem::Question(Shown::of(text)))
}

fn is_within(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.contains('\0')
}
