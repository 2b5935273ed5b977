//! The configuration file: TOML text in, a [`Draft`] and all errors out.

mod reader;

use self::reader::Reader;
use crate::error::ConfigErrors;
use crate::written::Draft;

/// Reads the text of a configuration file; `file_name` is what errors call it.
///
/// The draft has all that could be understood, also where there are errors: flags can be
/// put on top of it and their errors reported together with those of the file.
pub fn read(text: &str, file_name: &str) -> (Draft, ConfigErrors) {
    let reader = Reader::new(text, file_name);
    let table = reader.parse(text);
    let draft = table.map_or_else(Draft::default, |table| reader.draft(table.get_ref()));
    (draft, reader.into_errors())
}
