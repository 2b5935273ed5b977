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
}

/// A [`Memory`] that was read from disk, and its age at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The content.
    pub memory: Memory,
    /// The time from its writing to the start of the engine.
    pub age: Duration,
}
