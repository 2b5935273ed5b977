//! The choice of a stored file: the configured URLs may be others than those of an earlier run.

use std::path::PathBuf;

use pgsteer_core::identity::Identity;
use pgsteer_core::memory::Memory;
use thiserror::Error;

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub file: PathBuf,
    pub memory: Memory,
    /// In seconds since 1970.
    pub written_at: u64,
}

/// Two files share URLs with the configured ones and belong to different clusters.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "[patroni] urls are those of two clusters: {} has {}, {} has {}; correct the URLs, or pin the identity \
     in [patroni]",
    .one.file.display(), .one.memory.identity, .other.file.display(), .other.memory.identity
)]
pub struct TwoClusters {
    one: Box<Stored>,
    other: Box<Stored>,
}

/// Returns the newest of `files` that shares at least half of `urls`, the configured ones. Files that the
/// pins contradict do not count.
///
/// # Errors
/// Another such file has no URL in common with that one and another identity, so `urls` contain URLs of two
/// clusters. Files of one cluster that was made anew have URLs in common.
pub fn newest_of_cluster(
    files: Vec<Stored>,
    urls: &[String],
    pins: &Identity,
) -> Result<Option<Stored>, TwoClusters> {
    let fits = |it: &Stored| {
        let shared = it.memory.shared_urls(urls);
        shared > 0 && shared * 2 >= urls.len() && pins.contradiction(&it.memory.identity).is_none()
    };
    let mut fitting: Vec<Stored> = files.into_iter().filter(fits).collect();
    // The exact set comes first among files of the same second.
    fitting.sort_by_key(|it| (it.written_at, it.memory.urls == urls));
    let Some(newest) = fitting.pop() else { return Ok(None) };
    let is_of_another = |it: &&Stored| {
        it.memory.shared_urls(&newest.memory.urls) == 0
            && newest.memory.identity.contradiction(&it.memory.identity).is_some()
    };
    match fitting.iter().find(is_of_another) {
        Some(other) => {
            Err(TwoClusters { one: Box::new(newest.clone()), other: Box::new(other.clone()) })
        }
        None => Ok(Some(newest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(names: &str) -> Vec<String> {
        names.split(' ').map(|name| format!("http://{name}:8008")).collect()
    }

    fn stored(names: &str, system: &str, written_at: u64) -> Stored {
        let system_identifier = Some(system.to_owned());
        let identity = Identity { system_identifier, ..Identity::of_scope("demo") };
        let memory = Memory { identity, members: Vec::new(), urls: urls(names) };
        Stored { file: PathBuf::from(names), memory, written_at }
    }

    fn chosen(files: &[Stored], configured: &str) -> Option<String> {
        let pins = Identity::default();
        let newest = newest_of_cluster(files.to_vec(), &urls(configured), &pins).unwrap();
        newest.map(|it| it.file.display().to_string())
    }

    #[test]
    fn at_least_half_of_the_configured_urls_are_in_the_file() {
        let files = [stored("a b", "1", 5)];
        for (configured, is_used) in [
            ("a b", true),
            ("a b c", true),
            ("a c", true),
            ("a", true),
            ("a b c d", true),
            ("a c d", false),
            ("c d", false),
        ] {
            assert_eq!(chosen(&files, configured).is_some(), is_used, "{configured}");
        }
    }

    #[test]
    fn the_newest_file_counts_and_the_exact_one_among_equals() {
        let files = [stored("a b", "1", 5), stored("a b c", "2", 6), stored("x", "3", 9)];
        assert_eq!(chosen(&files, "a b").as_deref(), Some("a b c"));
        let files = [stored("a b c", "1", 5), stored("a b", "1", 5), stored("b c", "1", 5)];
        assert_eq!(chosen(&files, "a b").as_deref(), Some("a b"));
    }

    #[test]
    fn a_file_that_the_pins_contradict_is_not_used() {
        let pins = Identity { system_identifier: Some("1".to_owned()), ..Identity::default() };
        let files = vec![stored("a b", "1", 5), stored("a b c", "2", 6)];
        let newest = newest_of_cluster(files, &urls("a b"), &pins).unwrap();
        assert_eq!(newest, Some(stored("a b", "1", 5)));
    }

    #[test]
    fn urls_of_two_clusters_use_neither_file() {
        let files = vec![stored("a", "1", 5), stored("b", "2", 6)];
        let error = newest_of_cluster(files, &urls("a b"), &Identity::default()).unwrap_err();
        assert!(error.to_string().contains("those of two clusters: b has"), "{error}");
        let of_one = [stored("a", "1", 5), stored("b", "1", 6)];
        assert_eq!(chosen(&of_one, "a b").as_deref(), Some("b"));
    }
}
