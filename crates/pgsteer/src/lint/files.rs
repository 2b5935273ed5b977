//! Reads the files to lint.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pgsteer_files::lint::{FILE_BYTES_MAX, text};

/// The name that stands for stdin.
const STDIN: &str = "-";
/// The maximum number of files of one directory. HAProxy itself has no limit.
const FILES_MAX: usize = 1_000;

/// A file to lint.
pub struct Input {
    /// Its name in the output.
    pub name: String,
    /// Its text, or the reason why it could not be read.
    pub text: Result<String, String>,
    /// The directory that contains the file, by its index among the arguments.
    pub group: Option<usize>,
}

/// Reads the named files. Of a directory it reads the files that HAProxy reads: those whose names
/// end in `.cfg` and do not begin with a dot, in byte order.
pub fn read(names: &[String]) -> Vec<Input> {
    let each = names.iter().enumerate().flat_map(|(at, name)| match Path::new(name).is_dir() {
        true => directory(at, name),
        false => vec![file(name, None)],
    });
    each.collect()
}

fn directory(at: usize, name: &str) -> Vec<Input> {
    let wrong = |why: String| vec![Input { name: name.to_owned(), text: Err(why), group: None }];
    let entries = match std::fs::read_dir(name) {
        Ok(entries) => entries.take(FILES_MAX + 1),
        Err(error) => return wrong(format!("cannot be read: {error}")),
    };
    let mut files: Vec<String> = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => return wrong(format!("cannot be read: {error}")),
        }
    }
    if files.len() > FILES_MAX {
        return wrong(format!("the directory has more than {FILES_MAX} files"));
    }
    let path = |file: &String| Path::new(name).join(file).to_string_lossy().into_owned();
    files.retain(|file| {
        let is_shown = !file.starts_with('.') && file.ends_with(".cfg");
        is_shown && Path::new(&path(file)).is_file()
    });
    files.sort_unstable();
    match files.is_empty() {
        true => wrong(
            "the directory has no file whose name ends in .cfg, as HAProxy reads them".to_owned(),
        ),
        false => files.iter().map(|name| file(&path(name), Some(at))).collect(),
    }
}

fn file(name: &str, group: Option<usize>) -> Input {
    let shown = if name == STDIN { "(stdin)" } else { name }.to_owned();
    let read = bytes(name).map_err(|error| format!("cannot be read: {error}"));
    let text = read.and_then(|bytes| match text(&bytes) {
        Ok(text) => Ok(text.into_owned()),
        Err(why) => Err(format!("the file {why}")),
    });
    Input { name: shown, text, group }
}

fn bytes(name: &str) -> io::Result<Vec<u8>> {
    // One byte more than the limit shows that the file is too large.
    let bytes_max = FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    match name {
        STDIN => io::stdin().lock().take(bytes_max).read_to_end(&mut bytes)?,
        name => File::open(name)?.take(bytes_max).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}
