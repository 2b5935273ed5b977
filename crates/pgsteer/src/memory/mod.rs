//! The stored member list: a small file in the state directory.
//!
//! The files are read once at the start ([`choice`] picks one of them). The file of the configured URLs is
//! rewritten when the list changes, by a temporary file that replaces the old one. A directory or a file that cannot be used is only a warning. But without
//! the file a restarted pgsteer has no members while no Patroni returns a member list.

mod choice;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use pgsteer_core::identity::Identity;
use pgsteer_core::memory::{Memory, Remembered};
use pgsteer_core::settings::{ClusterConfig, StateDirectory};
use pgsteer_wire::memory::{MEMORY_BYTES_MAX, memory_text, parse_memory};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::choice::{Stored, newest_of_cluster};

/// The directory of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    directory: PathBuf,
}

/// The most files of a directory that are read, the newest first.
const FILES_MAX: usize = 64;

/// The most entries of a directory that are looked at.
const ENTRIES_MAX: usize = 4_096;

impl Store {
    /// The store that the configuration names; none without Patroni, or without a directory.
    pub fn of(cluster: &ClusterConfig) -> Option<Store> {
        if cluster.seeds().is_empty() {
            return None;
        }
        Some(Store { directory: state_directory(cluster)? })
    }

    /// The identity and the list that an earlier run stored, if they can be used.
    ///
    /// `urls` are the configured ones, sorted. Each set has its own file, so that two clusters can share a
    /// directory. After an edit of the URLs the newest file counts that shares at least half of them, unless
    /// the pins contradict it.
    pub fn read(&self, urls: &[String], pins: &Identity) -> Option<Remembered> {
        let (files, own) = (self.files(urls), self.file(urls));
        let read = files.into_iter().filter_map(|file| match read_file(&file) {
            Ok(stored) => stored,
            Err(error) => {
                if file == own {
                    let file = file.display();
                    tracing::warn!("the stored member list {file} is not used: {error:#}");
                }
                None
            }
        });
        let read = read.map(|stored| match stored.file == own && stored.memory.urls.is_empty() {
            // An early version did not store the URLs.
            true => Stored { memory: Memory { urls: urls.to_vec(), ..stored.memory }, ..stored },
            false => stored,
        });
        let stored = match newest_of_cluster(read.collect(), urls, pins) {
            Ok(stored) => stored?,
            Err(ambiguous) => {
                tracing::warn!("no stored member list is used: {ambiguous}");
                return None;
            }
        };
        if stored.file != own {
            let shared = stored.memory.shared_urls(urls);
            tracing::info!(
                "the stored member list of other [patroni] urls is used, {shared} of {} are the same: {}",
                urls.len(),
                stored.file.display()
            );
        }
        let age = now().saturating_sub(Duration::from_secs(stored.written_at));
        Some(Remembered { memory: stored.memory, age })
    }

    /// The file of these URLs, then the others in the directory, the newest first.
    fn files(&self, urls: &[String]) -> Vec<PathBuf> {
        let own = self.file(urls);
        let entries =
            fs::read_dir(&self.directory).into_iter().flatten().take(ENTRIES_MAX).flatten();
        let others = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(FILE_PREFIX) && name.ends_with(FILE_SUFFIX) && entry.path() != own
        });
        let mut others: Vec<(SystemTime, PathBuf)> = others
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        let others = others.into_iter().map(|(_, file)| file).take(FILES_MAX);
        std::iter::once(own.clone()).chain(others).collect()
    }

    fn file(&self, urls: &[String]) -> PathBuf {
        self.directory.join(file_name(urls))
    }

    /// Replaces the stored list by `memory`.
    ///
    /// # Errors
    /// The directory or the file cannot be written; the message names it.
    pub fn write(&self, memory: &Memory) -> anyhow::Result<()> {
        write_file(&self.file(&memory.urls), memory_text(memory, now().as_secs()).as_bytes())
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

/// Reads one file; none if there is none.
fn read_file(file: &Path) -> anyhow::Result<Option<Stored>> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    anyhow::ensure!(opened.metadata()?.is_file(), "it is not a regular file");
    let mut text = Vec::new();
    let limit = u64::try_from(MEMORY_BYTES_MAX).unwrap_or(u64::MAX);
    opened.take(limit + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() <= MEMORY_BYTES_MAX, "it has more than {MEMORY_BYTES_MAX} bytes");
    let (memory, written_at) = parse_memory(&text)?;
    Ok(Some(Stored { file: file.to_owned(), memory, written_at }))
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

/// Returns the name of the file for sorted URLs.
fn file_name(urls: &[String]) -> String {
    let hash = hash(urls.iter().map(String::as_str));
    format!("{FILE_PREFIX}{hash:016x}{FILE_SUFFIX}")
}

/// Returns a number that is the same for the same texts in every version (FNV-1a, 64 bits).
pub fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const FILE_PREFIX: &str = "members-";
const FILE_SUFFIX: &str = ".json";

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes the member list at once and whenever it changes. None without a store.
///
/// The URLs in the list name its file, so a list of an earlier configuration goes to the file of that one.
pub fn keep(
    store: Option<Store>,
    mut memories: watch::Receiver<Option<Arc<Memory>>>,
) -> Option<JoinHandle<()>> {
    let store = store?;
    tracing::info!("the member list is stored in {}", store.directory.display());
    memories.mark_changed();
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

    use super::*;

    fn store(name: &str) -> Store {
        let directory = std::env::temp_dir().join(format!("pgsteer-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        Store { directory: directory.join("new") }
    }

    fn urls(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("http://{name}:8008")).collect()
    }

    fn memory(scope: &str) -> Memory {
        of_urls(scope, &["a", "b"])
    }

    fn of_urls(scope: &str, names: &[&str]) -> Memory {
        Memory { identity: Identity::of_scope(scope), members: Vec::new(), urls: urls(names) }
    }

    impl Store {
        fn own(&self) -> PathBuf {
            self.file(&urls(&["a", "b"]))
        }

        fn read_of(&self, names: &[&str]) -> Option<Memory> {
            self.read(&urls(names), &Identity::default()).map(|read| read.memory)
        }

        fn read_own(&self) -> Option<Memory> {
            self.read_of(&["a", "b"])
        }
    }

    #[test]
    fn what_is_written_is_read_and_belongs_to_its_owner_alone() {
        let store = store("memory");
        assert_eq!(store.read_own(), None);
        store.write(&memory("one")).unwrap();
        store.write(&memory("two")).unwrap();
        let read = store.read(&urls(&["a", "b"]), &Identity::default()).unwrap();
        assert_eq!(read.memory, memory("two"));
        assert!(read.age < Duration::from_secs(60));
        let mode = fs::metadata(store.own()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(&store.directory).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn garbage_a_huge_file_and_a_directory_are_not_used() {
        let store = store("garbage");
        fs::create_dir_all(&store.directory).unwrap();
        fs::write(store.own(), "{\"version\": 1").unwrap();
        assert_eq!(store.read_own(), None);
        fs::write(store.own(), " ".repeat(MEMORY_BYTES_MAX + 1)).unwrap();
        assert_eq!(store.read_own(), None);
        store.write(&of_urls("one", &["a", "b", "c"])).unwrap();
        assert!(store.read_own().is_some(), "the file of similar URLs is used");
        fs::remove_dir_all(&store.directory).unwrap();
        fs::create_dir_all(store.own()).unwrap();
        assert_eq!(store.read_own(), None);
        let error = format!("{:#}", store.write(&memory("one")).unwrap_err());
        assert!(error.contains("members-"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let store = store("unwritable");
        fs::create_dir_all(store.directory.parent().unwrap()).unwrap();
        // Not even root can make a directory below a file.
        fs::write(&store.directory, "").unwrap();
        assert_eq!(store.read_own(), None);
        let error = format!("{:#}", store.write(&memory("one")).unwrap_err());
        let expected = format!("cannot make the state directory {}", store.directory.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_old_list_stays() {
        let store = store("full");
        store.write(&memory("one")).unwrap();
        // Each write to this device fails with ENOSPC.
        let temporary = temporary(&store.own());
        std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
        let error = format!("{:#}", store.write(&memory("two")).unwrap_err());
        assert!(error.starts_with("cannot write ") && error.contains("No space left"), "{error}");
        assert_eq!(store.read_own(), Some(memory("one")));
        assert!(fs::symlink_metadata(&temporary).is_err(), "the temporary file is removed");
        store.write(&memory("two")).unwrap();
        assert_eq!(store.read_own(), Some(memory("two")));
    }

    #[test]
    fn two_clusters_share_a_directory_and_not_a_file() {
        let store = store("shared");
        store.write(&memory("one")).unwrap();
        assert_eq!(store.read_of(&["x"]), None);
        store.write(&of_urls("other", &["x"])).unwrap();
        assert_eq!(store.read_own(), Some(memory("one")));
        assert_eq!(store.read_of(&["x"]), Some(of_urls("other", &["x"])));
    }

    #[test]
    fn the_list_is_found_after_an_edit_of_the_urls() {
        let store = store("edited");
        store.write(&memory("one")).unwrap();
        assert_eq!(store.read_of(&["a", "c"]), Some(memory("one")));
        assert_eq!(store.read_of(&["a", "c", "d"]), None);
        let pins = Identity::of_scope("two");
        assert_eq!(store.read(&urls(&["a", "c"]), &pins), None);
    }

    #[test]
    fn the_file_of_an_early_version_is_that_of_the_configured_urls() {
        let store = store("early");
        store.write(&memory("one")).unwrap();
        let text = fs::read_to_string(store.own()).unwrap();
        let (before, after) = text.split_once("\"urls\"").unwrap();
        let after = after.split_once("],").unwrap().1;
        fs::write(store.own(), format!("{before}{after}")).unwrap();
        assert_eq!(store.read_own(), Some(memory("one")));
        assert_eq!(store.read_of(&["a", "c"]), None);
    }

    #[tokio::test]
    async fn the_present_list_is_written_at_once_and_each_new_one_to_the_file_of_its_urls() {
        let (memories, known) = watch::channel(Some(Arc::new(memory("one"))));
        let store = store("kept");
        let wait_for = async |expected: &Memory| {
            for _ in 0..1_000 {
                let read = store.read(&expected.urls, &Identity::default());
                if read.is_some_and(|read| read.memory == *expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{expected:?} is not stored");
        };
        let _keeper = keep(Some(store.clone()), known).unwrap();
        wait_for(&memory("one")).await;
        let other = of_urls("two", &["x", "y"]);
        memories.send_replace(Some(Arc::new(other.clone())));
        wait_for(&other).await;
        assert_eq!(store.read_own(), Some(memory("one")));
    }

    #[test]
    fn each_set_of_urls_has_a_file_of_its_own() {
        assert_ne!(file_name(&urls(&["a"])), file_name(&urls(&["b"])));
        assert_ne!(file_name(&urls(&["a", "b"])), file_name(&urls(&["a"])));
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
