//! How often each kind of event happened.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pgsteer_core::event::EventKind;
use pgsteer_core::reason::Reason;

/// The code of an event, and the code of its reason or the empty text. Both are of a fixed set, so
/// their number is bounded.
pub type EventCode = (&'static str, &'static str);

/// The number of events of each kind and reason since the start.
#[derive(Debug, Default)]
pub struct EventCounts(Mutex<BTreeMap<EventCode, u64>>);

impl EventCounts {
    /// Counts one event.
    pub fn count(&self, kind: &EventKind) {
        let code = (kind.code(), kind.reason().map_or("", Reason::code));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(code).or_default() += 1;
    }

    /// All counts.
    pub fn all(&self) -> BTreeMap<EventCode, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
