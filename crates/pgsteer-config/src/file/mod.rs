//! The configuration file: TOML text in, a [`Draft`] and all errors out.

mod reader;
mod sections;
mod values;

use super::draft::Draft;
use super::error::ConfigErrors;
use reader::Reader;

/// Reads the text of a configuration file; `file_name` is what errors call it.
///
/// The draft has all that could be understood, also where there are errors: flags can be
/// put on top of it and their errors reported together with those of the file.
pub fn read(text: &str, file_name: &str) -> (Draft, ConfigErrors) {
    let reader = Reader::new(text, file_name);
    let draft = reader
        .parse(text)
        .map_or_else(Draft::default, |table| sections::draft(&reader, table.get_ref()));
    (draft, reader.into_errors())
}
