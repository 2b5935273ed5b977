//! The last text of each page, which is kept for a moment, and the memory of all texts.
//!
//! The page of a large cluster takes milliseconds to write and can have a megabyte. Clients with
//! concurrent requests share one text, so neither time nor memory grows with their number.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;

/// How long a text is used again. This is the maximum age of the counters in it. A change of the
/// Snapshot makes a new text at once.
const FRESH: Duration = Duration::from_millis(100);

/// The texts of all pages.
#[derive(Debug, Default)]
pub struct ReadyPages {
    pages: Mutex<Vec<Ready>>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Ready {
    path: &'static str,
    version: Version,
    made: Instant,
    text: Bytes,
}

/// The inputs of a page, apart from its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The generation of the Snapshot.
    pub generation: u64,
    /// pgsteer is shutting down.
    pub stopping: bool,
}

impl ReadyPages {
    /// The text of the page at `path`. `write` is called if there is no fresh one.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn get<E>(
        &self,
        path: &'static str,
        version: Version,
        write: impl FnOnce() -> Result<String, E>,
    ) -> Result<Bytes, E> {
        let now = Instant::now();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |ready: &Ready| {
            ready.version == version && now.saturating_duration_since(ready.made) < FRESH
        };
        if let Some(ready) = pages.iter().find(|ready| ready.path == path)
            && is_fresh(ready)
        {
            return Ok(ready.text.clone());
        }
        pages.retain(|ready| ready.path != path);
        let text = Bytes::from_owner(Counted::new(write()?, Arc::clone(&self.bytes)));
        pages.push(Ready { path, version, made: now, text: text.clone() });
        Ok(text)
    }

    /// The size of all texts in memory, those that are being sent included.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A text. Its size is counted until it is dropped.
struct Counted {
    text: String,
    bytes: Arc<AtomicUsize>,
}

impl Counted {
    fn new(text: String, bytes: Arc<AtomicUsize>) -> Counted {
        bytes.fetch_add(text.len(), Ordering::Relaxed);
        Counted { text, bytes }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn version(generation: u64) -> Version {
        Version { generation, stopping: false }
    }

    #[test]
    fn a_page_is_written_once_for_concurrent_requests() {
        let pages = ReadyPages::default();
        let get = |generation, text: &str| {
            pages.get("/", version(generation), || Ok::<_, Infallible>(text.to_owned())).unwrap()
        };
        assert_eq!(get(1, "one"), "one");
        assert_eq!(get(1, "other"), "one");
        assert_eq!(get(2, "two"), "two", "another Snapshot");
        std::thread::sleep(FRESH);
        assert_eq!(get(2, "three"), "three", "the counters may have changed");
    }

    #[test]
    fn the_bytes_are_counted_until_the_last_client_has_received_them() {
        let pages = ReadyPages::default();
        let get = |generation, text: &str| {
            pages.get("/", version(generation), || Ok::<_, Infallible>(text.to_owned())).unwrap()
        };
        let (first, again) = (get(1, "four"), get(1, ""));
        assert_eq!(pages.bytes(), 4);
        let second = get(2, "seven..");
        assert_eq!(pages.bytes(), 11, "the first is still being sent");
        drop((first, again));
        assert_eq!(pages.bytes(), 7);
        drop(second);
        assert_eq!(pages.bytes(), 7, "kept for the next client");
    }
}
