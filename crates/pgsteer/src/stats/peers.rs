//! What other pgsteers have answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pgsteer_core::time::Moment;

/// The other pgsteers, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Peers(Mutex<BTreeMap<usize, Peer>>);

/// One of them.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its URL, as configured.
    pub url: String,
    /// Why there is no answer.
    pub error: Option<String>,
    /// The time of the last answer or attempt; none before the first.
    pub asked_at: Option<Moment>,
    /// Its version.
    pub version: Option<String>,
    /// The name of its cluster.
    pub cluster: Option<String>,
    /// The members to which it routes writers.
    pub write: Option<String>,
    /// The level of its state.
    pub state: Option<&'static str>,
    /// Its state in one sentence.
    pub sentence: Option<String>,
}

impl Peers {
    /// Replaces what is known of one.
    pub fn set(&self, index: usize, peer: Peer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, peer);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Peer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
