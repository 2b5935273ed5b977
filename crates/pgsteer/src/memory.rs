//! The stored member list: a small file in the state directory.
//!
//! It is read once at the start and rewritten when the list changes, by a temporary file that
//! replaces the old one. A directory or a file that cannot be used is only a warning. But without
//! the file a restart knows no member while no Patroni returns a member list.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use pgsteer_core::memory::{Memory, Remembered};
use pgsteer_core::settings::{ClusterConfig, StateDirectory};
use pgsteer_wire::memory::{MEMORY_BYTES_MAX, memory_text, parse_memory};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The file of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    file: PathBuf,
}

impl Store {
    /// The store that the configuration names; none without Patroni, or without a directory. Each
    /// set of URLs has its own file, so that two clusters can share a directory.
    pub fn of(cluster: &ClusterConfig) -> Option<Store> {
        let seeds = cluster.seeds();
        if seeds.is_empty() {
            return None;
        }
        let directory = state_directory(cluster)?;
        Some(Store { file: directory.join(file_name(&seeds)) })
    }

    /// The list that an earlier run stored, if it can be used.
    pub fn read(&self) -> Option<Remembered> {
        match self.read_text().and_then(|text| text.map(|text| self.parse(&text)).transpose()) {
            Ok(remembered) => remembered,
            Err(error) => {
                let file = self.file.display();
                tracing::warn!("the stored member list {file} is not used: {error:#}");
                None
            }
        }
    }

    fn read_text(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        anyhow::ensure!(file.metadata()?.is_file(), "it is no regular file");
        let mut text = Vec::new();
        let limit = u64::try_from(MEMORY_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit + 1).read_to_end(&mut text)?;
        anyhow::ensure!(
            text.len() <= MEMORY_BYTES_MAX,
            "it has more than {MEMORY_BYTES_MAX} bytes"
        );
        Ok(Some(text))
    }

    fn parse(&self, text: &[u8]) -> anyhow::Result<Remembered> {
        let (memory, written_at) = parse_memory(text)?;
        let age = now().saturating_sub(Duration::from_secs(written_at));
        Ok(Remembered { memory, age })
    }

    /// Replaces the stored list by `memory`.
    ///
    /// # Errors
    /// The directory or the file cannot be written; the message names it.
    pub fn write(&self, memory: &Memory) -> anyhow::Result<()> {
        write_file(&self.file, memory_text(memory, now().as_secs()).as_bytes())
    }
}

/// The directory of all stored files; none if nothing is stored.
pub fn state_directory(cluster: &ClusterConfig) -> Option<PathBuf> {
    match &cluster.here.state_directory {
        StateDirectory::Never => None,
        StateDirectory::At(directory) => Some(directory.clone()),
        StateDirectory::Usual => usual_directory(|name| std::env::var_os(name)),
    }
}

/// Replaces a file of the state directory, by a temporary file that gets its name.
///
/// # Errors
/// The directory or the file cannot be written; the message names it.
pub fn write_file(file: &Path, text: &[u8]) -> anyhow::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make the state directory {}", directory.display()))?;
    let temporary = temporary(file);
    let written = replace(file, &temporary, directory, text);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn temporary(file: &Path) -> PathBuf {
    file.with_extension(format!("{}.tmp", std::process::id()))
}

fn replace(file: &Path, temporary: &Path, directory: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    new.write_all(text)?;
    new.sync_all()?;
    fs::rename(temporary, file)?;
    File::open(directory)?.sync_all()
}

/// systemd's `StateDirectory=` first, then the user's own directory for state files.
fn usual_directory(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_systemd = variable("STATE_DIRECTORY").and_then(|all| {
        let first = all.to_str()?.split(':').next()?.to_owned();
        Some(PathBuf::from(first)).filter(|path| path.is_absolute())
    });
    of_systemd
        .or_else(|| path("XDG_STATE_HOME").map(|home| home.join("pgsteer")))
        .or_else(|| path("HOME").map(|home| home.join(".local/state/pgsteer")))
}

/// Returns the same name for the same URLs in any order.
fn file_name(seeds: &[String]) -> String {
    let mut sorted: Vec<&str> = seeds.iter().map(|seed| seed.trim_end_matches('/')).collect();
    sorted.sort_unstable();
    format!("members-{:016x}.json", hash(sorted))
}

/// Returns a number that is the same for the same texts in every version (FNV-1a, 64 bits).
pub fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes the member list whenever it changes. None without a store.
///
/// `is_moved`: the store has another place than an earlier one of the same URLs, so the present list is
/// written at once. Otherwise the present list belongs to another configuration and is not written.
pub fn keep(
    store: Option<Store>,
    mut memories: watch::Receiver<Option<Arc<Memory>>>,
    is_moved: bool,
) -> Option<JoinHandle<()>> {
    let store = store?;
    tracing::info!("the member list is stored in {}", store.file.display());
    match is_moved {
        true => memories.mark_changed(),
        false => memories.mark_unchanged(),
    }
    Some(tokio::spawn(async move {
        let mut last_error = None;
        while memories.changed().await.is_ok() {
            let Some(memory) = memories.borrow_and_update().clone() else { continue };
            let store = store.clone();
            let written = tokio::task::spawn_blocking(move || store.write(&memory)).await;
            let error = match written {
                Ok(Err(error)) => Some(format!("{error:#}")),
                Ok(Ok(())) | Err(_) => None,
            };
            if let Some(error) = error.as_ref().filter(|error| last_error.as_ref() != Some(*error))
            {
                tracing::warn!(
                    "the member list is not stored, and a restart while no list can be read will \
                     know no member: {error}"
                );
            }
            last_error = error;
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use pgsteer_core::identity::Identity;

    use super::*;

    fn store(name: &str) -> Store {
        let directory = std::env::temp_dir().join(format!("pgsteer-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        Store { file: directory.join("new/members.json") }
    }

    fn memory(scope: &str) -> Memory {
        Memory { identity: Identity::of_scope(scope), members: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_and_belongs_to_its_owner_alone() {
        let store = store("memory");
        assert_eq!(store.read(), None);
        store.write(&memory("one")).unwrap();
        store.write(&memory("two")).unwrap();
        let read = store.read().unwrap();
        assert_eq!(read.memory, memory("two"));
        assert!(read.age < Duration::from_secs(60));
        let mode = fs::metadata(&store.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(store.file.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn garbage_a_huge_file_and_a_directory_are_not_used() {
        let store = store("garbage");
        fs::create_dir_all(store.file.parent().unwrap()).unwrap();
        fs::write(&store.file, "{\"version\": 1").unwrap();
        assert_eq!(store.read(), None);
        fs::write(&store.file, " ".repeat(MEMORY_BYTES_MAX + 1)).unwrap();
        assert_eq!(store.read(), None);
        fs::remove_file(&store.file).unwrap();
        fs::create_dir(&store.file).unwrap();
        assert_eq!(store.read(), None);
        let error = format!("{:#}", store.write(&memory("one")).unwrap_err());
        assert!(error.contains("members.json"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let store = store("unwritable");
        let directory = store.file.parent().unwrap();
        fs::create_dir_all(directory.parent().unwrap()).unwrap();
        // Not even root can make a directory below a file.
        fs::write(directory, "").unwrap();
        assert_eq!(store.read(), None);
        let error = format!("{:#}", store.write(&memory("one")).unwrap_err());
        let expected = format!("cannot make the state directory {}", directory.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_old_list_stays() {
        let store = store("full");
        store.write(&memory("one")).unwrap();
        // Each write to this device fails with ENOSPC.
        let temporary = temporary(&store.file);
        std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
        let error = format!("{:#}", store.write(&memory("two")).unwrap_err());
        assert!(error.starts_with("cannot write ") && error.contains("No space left"), "{error}");
        assert_eq!(store.read().unwrap().memory, memory("one"));
        assert!(fs::symlink_metadata(&temporary).is_err(), "the temporary file is removed");
        store.write(&memory("two")).unwrap();
        assert_eq!(store.read().unwrap().memory, memory("two"));
    }

    #[test]
    fn two_clusters_share_a_directory_and_not_a_file() {
        let one = store("shared");
        let other = Store { file: one.file.with_file_name(file_name(&["http://b:1".to_owned()])) };
        one.write(&memory("one")).unwrap();
        assert_eq!(other.read(), None);
        other.write(&memory("other")).unwrap();
        assert_eq!(one.read().unwrap().memory, memory("one"));
        assert_eq!(other.read().unwrap().memory, memory("other"));
    }

    #[tokio::test]
    async fn a_store_that_moves_gets_what_is_known_and_another_configurations_does_not() {
        let (memories, known) = watch::channel(Some(Arc::new(memory("one"))));
        let wait_for = async |store: &Store, scope: &str| {
            for _ in 0..1_000 {
                if store.read().is_some_and(|read| read.memory == memory(scope)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{scope} is not stored");
        };
        let moved = store("moved");
        let keeper = keep(Some(moved.clone()), known.clone(), true).unwrap();
        wait_for(&moved, "one").await;
        keeper.abort();
        let other = store("other");
        let _keeper = keep(Some(other.clone()), known, false).unwrap();
        memories.send_replace(Some(Arc::new(memory("two"))));
        wait_for(&other, "two").await;
        assert_eq!(moved.read().unwrap().memory, memory("one"));
    }

    #[test]
    fn each_set_of_urls_has_a_file_of_its_own() {
        let name = |seeds: &[&str]| {
            file_name(&seeds.iter().map(|seed| (*seed).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(name(&["http://a:1", "http://b:1"]), name(&["http://b:1", "http://a:1/"]));
        assert_ne!(name(&["http://a:1"]), name(&["http://b:1"]));
    }

    #[test]
    fn the_directory_of_systemd_goes_before_the_users() {
        let of = |set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(it, _)| *it == name).map(|(_, v)| v.into());
            usual_directory(found).map(|path| path.display().to_string())
        };
        let all = [("STATE_DIRECTORY", "/var/lib/pgsteer:/x"), ("HOME", "/root")];
        assert_eq!(of(&all).as_deref(), Some("/var/lib/pgsteer"));
        assert_eq!(of(&[("HOME", "/root")]).as_deref(), Some("/root/.local/state/pgsteer"));
        assert_eq!(of(&[("XDG_STATE_HOME", "/s")]).as_deref(), Some("/s/pgsteer"));
        assert_eq!(of(&[("HOME", "relative")]), None);
    }
}
