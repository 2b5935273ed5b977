//! Hints from the proxy to the sources that a member has refused a connection or a login.
//!
//! A hint decides nothing. It makes the tether of that member open a new session at once, and the result
//! of that is a claim. Hints are not queued, and a hint without a reader has no effect.

use std::sync::Arc;

use pgsteer_core::names::MemberName;
use tokio::sync::Notify;

use crate::by_name::ByName;

/// One hint per member, given or not.
#[derive(Debug, Default)]
pub struct RefusalHints(ByName<MemberName, Notify>);

impl RefusalHints {
    /// Gives the hint: a client's connection to `member`, or its login there, has failed.
    pub fn give(&self, member: &MemberName) {
        self.0.of(member).notify_one();
    }

    /// The hint of one member, to wait for.
    pub fn of(&self, member: &MemberName) -> Arc<Notify> {
        self.0.of(member)
    }
}
