//! History: the newest events, for the Snapshot and for the shell that polls them.

use std::collections::VecDeque;

use crate::event::{Event, EventKind};
use crate::snapshot::EVENTS_MAX;
use crate::time::Moment;

/// The newest events, oldest first, and how many of them have not been polled yet.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Event>,
    unpolled: usize,
}

impl History {
    /// Records an event. Above [`EVENTS_MAX`] the oldest one is dropped.
    pub(super) fn record(&mut self, kind: EventKind, now: Moment) {
        self.events.push_back(Event { at: now, kind });
        self.unpolled += 1;
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.unpolled = self.unpolled.min(EVENTS_MAX);
        }
    }

    /// Returns the oldest event that has not been polled yet.
    pub(super) fn poll(&mut self) -> Option<Event> {
        let index = self.events.len().checked_sub(self.unpolled)?;
        let event = self.events.get(index)?.clone();
        self.unpolled -= 1;
        Some(event)
    }

    /// All recorded events.
    pub(super) fn events(&self) -> &VecDeque<Event> {
        &self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_polls_is_forgotten_in_the_end() {
        let mut history = History::default();
        for index in 0..EVENTS_MAX + 7 {
            history.record(EventKind::Reloaded, Moment::from_millis(index as u64));
        }
        assert_eq!(history.events().len(), EVENTS_MAX);
        assert_eq!(history.poll().map(|event| event.at), Some(Moment::from_millis(7)));
        let rest = std::iter::from_fn(|| history.poll()).count();
        assert_eq!(rest, EVENTS_MAX - 1);
        assert_eq!(history.events().len(), EVENTS_MAX);
    }
}
