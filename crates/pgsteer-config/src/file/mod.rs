//! The configuration file: converts TOML text to a [`Draft`] and all its errors.

mod reader;

use self::reader::Reader;
use crate::error::ConfigErrors;
use crate::written::Draft;

/// Parses the text of a configuration file; errors call the file `file_name`.
///
/// The draft contains all values that could be parsed, even if there are errors. The caller can add
/// the flags to it and report their errors together with those of the file.
pub fn read(text: &str, file_name: &str) -> (Draft, ConfigErrors) {
    let reader = Reader::new(text, file_name);
    let table = reader.parse(text);
    let draft = table.map_or_else(Draft::default, |table| reader.draft(table.get_ref()));
    (draft, reader.into_errors())
}
