//! The pgsteer under test: the one that was built into the same folder as this test.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

const REMEDY: &str = "run `cargo build -p pgsteer` first, with the profile of this test";

/// The crates of the program.
const CRATES: [&str; 5] =
    ["pgsteer", "pgsteer-config", "pgsteer-core", "pgsteer-files", "pgsteer-wire"];

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

/// A source that changed after the build of the program. Cargo's own list of them is written by `cargo build` and not
/// by `cargo test`, so the folders of its crates are searched.
fn newer_source(program: &Path) -> Result<Option<PathBuf>> {
    let made = changed_at(program)?;
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> =
        CRATES.iter().map(|name| crates.join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir();
        let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if changed_at(&path)? > made {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn changed_at(path: &Path) -> Result<SystemTime> {
    let metadata = path.metadata().with_context(|| format!("cannot see {}", path.display()))?;
    metadata.modified().context("this system has no modification time of files")
}
