//! A set of files: compared with the existing files, and written all or none.
//!
//! Every file is first written beside its place under another name. The files are renamed only
//! after all of them are on the disk. So no process ever reads half a file, and an error before
//! that changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pgsteer_files::render::Rendered;

/// Readable for every user, because the files contain no secret.
const MODE_PLAIN: u32 = 0o644;
/// Only the owner may read a file with a password. HAProxy reads its file before it drops root.
const MODE_SECRET: u32 = 0o600;

/// The state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The file does not exist yet.
    Missing,
    /// A different file exists.
    Other,
    /// The same file exists.
    Same,
}

impl State {
    /// The word for it: for a file that is checked, or for one that is written.
    pub const fn word(self, is_check: bool) -> &'static str {
        match (self, is_check) {
            (State::Same, _) => "unchanged",
            (State::Missing, true) => "missing",
            (State::Other, true) => "differs",
            (State::Missing, false) => "new",
            (State::Other, false) => "changed",
        }
    }
}

/// Files with their places, and their present states.
#[derive(Debug)]
pub struct Set(Vec<(PathBuf, Rendered, State)>);

impl Set {
    /// Compares `files` with the existing files below `folder`.
    ///
    /// # Errors
    /// An existing file cannot be read.
    pub fn compare(folder: &Path, files: Vec<Rendered>) -> anyhow::Result<Set> {
        let compared = files.into_iter().map(|file| {
            let path = folder.join(&file.path);
            let state = state(&path, &file.text)?;
            Ok((path, file, state))
        });
        compared.collect::<anyhow::Result<_>>().map(Set)
    }

    /// Each place, and its state.
    pub fn states(&self) -> impl Iterator<Item = (&Path, State)> {
        self.0.iter().map(|(path, _, state)| (path.as_path(), *state))
    }

    /// Writes the files that are missing or differ.
    ///
    /// # Errors
    /// One of them cannot be written. Then no file is replaced, unless a rename itself fails.
    pub fn write(&self) -> anyhow::Result<()> {
        let mut drafts = Vec::new();
        for (path, file, state) in &self.0 {
            if *state != State::Same {
                let draft = Draft::write(path, file);
                drafts.push(draft.with_context(|| format!("writing {}", path.display()))?);
            }
        }
        for draft in drafts {
            let path = draft.place.clone();
            draft.publish().with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

fn state(path: &Path, text: &str) -> anyhow::Result<State> {
    match fs::read(path) {
        Ok(bytes) if bytes == text.as_bytes() => Ok(State::Same),
        Ok(_) => Ok(State::Other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::Missing),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    }
}

/// A file beside its place, before the rename. It is removed if it is not renamed.
struct Draft {
    place: PathBuf,
    waiting: PathBuf,
    is_published: bool,
}

impl Draft {
    fn write(place: &Path, file: &Rendered) -> std::io::Result<Draft> {
        let folder = place.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let waiting = folder.join(format!(".{name}.new-{}", std::process::id()));
        let mode = if file.is_secret { MODE_SECRET } else { MODE_PLAIN };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut opened = options.open(&waiting)?;
        let draft = Draft { place: place.to_owned(), waiting, is_published: false };
        opened.write_all(file.text.as_bytes())?;
        opened.sync_all()?;
        Ok(draft)
    }

    fn publish(mut self) -> std::io::Result<()> {
        fs::rename(&self.waiting, &self.place)?;
        self.is_published = true;
        // Syncs the folder, so that the new name is on the disk too.
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            // The error that led here is already reported.
            let _ = fs::remove_file(&self.waiting);
        }
    }
}
