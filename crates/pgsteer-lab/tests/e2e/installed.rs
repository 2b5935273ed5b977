//! What `scripts/install-lab.sh` has installed in one of its folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub fn installed(what: &str) -> Result<PathBuf> {
    let mut places = vec![PathBuf::from("/var/cache")];
    places.extend(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from));
    places.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let at = |place: &PathBuf| place.join("pgsteer-lab").join(what);
    let found = places.iter().map(at).find(|path| path.exists());
    found.with_context(|| format!("there is no {what}; run scripts/install-lab.sh readers"))
}
