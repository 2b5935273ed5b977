//! What other pgsteers have answered.

use std::sync::{Mutex, PoisonError};

use pgsteer_core::time::Moment;

use crate::status::document::Peer;

/// The other pgsteers, in the order of the configuration, each with the moment of its last answer or of the last
/// attempt without one.
#[derive(Debug, Default)]
pub struct Peers(Mutex<Vec<(Option<Moment>, Peer)>>);

impl Peers {
    /// Names them; none has been asked yet.
    pub fn begin(&self, urls: impl Iterator<Item = String>) {
        let peers = urls.map(|url| (None, Peer { url, ..Peer::default() }));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = peers.collect();
    }

    /// Replaces what is known of one since `at`.
    pub fn set(&self, index: usize, at: Moment, peer: Peer) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = peers.get_mut(index) {
            *place = (Some(at), peer);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Option<Moment>, Peer)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
