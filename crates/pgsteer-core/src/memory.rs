//! What is kept on disk of a cluster.

use std::time::Duration;

use crate::claim::Found;
use crate::identity::Identity;

/// The content of the state file: the cluster's identity and its last member list. Roles, locks and lag
/// are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The identity.
    pub identity: Identity,
    /// The members, in the order of their names.
    pub members: Vec<Found>,
    /// The configured URLs of Patroni: sorted, each once, without a slash at the end.
    pub urls: Vec<String>,
}

impl Memory {
    /// The number of URLs that are among `urls` as well.
    pub fn shared_urls(&self, urls: &[String]) -> usize {
        self.urls.iter().filter(|url| urls.contains(url)).count()
    }
}

/// A [`Memory`] that was read from disk, and its age at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The content.
    pub memory: Memory,
    /// The time from its writing to the start of the engine.
    pub age: Duration,
}
