//! The pgsteer under test: the one that was built into the same folder as this test.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

const REMEDY: &str = "run `cargo build -p pgsteer` first, with the profile of this test";

/// The path of pgsteer: `PGSTEER_BIN` if it is set, otherwise the program beside this test.
///
/// # Errors
///
/// The program is missing, or it is older than one of its sources. A test of an outdated program
/// would prove nothing.
pub fn pgsteer() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PGSTEER_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().context("cannot find the path of this test")?;
    // target/PROFILE/deps/e2e-HASH
    let profile = test.ancestors().nth(2).context("this test is not in a target folder")?;
    let path = profile.join("pgsteer");
    if !path.is_file() {
        bail!("there is no {}: {REMEDY}", path.display());
    }
    if let Some(source) = newer_source(&path)? {
        bail!("{} is older than {}: {REMEDY}", path.display(), source.display());
    }
    Ok(path)
}

/// The first source that changed after the build of the program, according to the list that `cargo build`
/// writes beside it. Without a list the program is of `cargo test`, as this test is.
fn newer_source(program: &Path) -> Result<Option<PathBuf>> {
    let list = program.with_extension("d");
    let text = match std::fs::read_to_string(&list) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", list.display()))?,
    };
    let made = changed_at(program)?;
    let sources = text.split_once(": ").map_or("", |(_, sources)| sources);
    // Cargo writes a space inside a path with a backslash before it.
    let sources = sources.replace("\\ ", "\0");
    let mut sources =
        sources.split_whitespace().map(|source| PathBuf::from(source.replace('\0', " ")));
    Ok(sources.find(|source| changed_at(source).is_ok_and(|at| at > made)))
}

fn changed_at(path: &Path) -> Result<SystemTime> {
    let metadata = path.metadata().with_context(|| format!("cannot see {}", path.display()))?;
    metadata.modified().context("this system has no modification time of files")
}
