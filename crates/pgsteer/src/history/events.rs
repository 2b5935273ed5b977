//! The events of the last day. A Snapshot has only the newest hundred.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use pgsteer_core::event::Event;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use serde::{Deserialize, Serialize};

/// The most events that are kept.
const EVENTS_MAX: usize = 2_000;
/// The most bytes of all their texts.
const BYTES_MAX: usize = 1 << 20;
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// An event in words.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PastEvent {
    /// When.
    pub at: Moment,
    /// The code of the kind.
    pub kind: Cow<'static, str>,
    /// The member, or the empty text.
    pub member: String,
    /// The service, or the empty text.
    pub service: String,
    /// The code of the reason, or the empty text.
    pub reason: Cow<'static, str>,
    /// The sentence.
    pub text: String,
}

/// The events, oldest first.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Events {
    events: VecDeque<PastEvent>,
    #[serde(skip)]
    bytes: usize,
    /// The last event of the last Snapshot.
    #[serde(skip)]
    last: Option<Event>,
}

impl Events {
    /// Adds the events that the Snapshot before did not have.
    pub fn observe(&mut self, snapshot: &Snapshot) {
        let known = self.last.as_ref();
        let known = snapshot.events.iter().rposition(|event| Some(event) == known);
        let new = known.map_or(0, |at| at + 1);
        for event in snapshot.events.iter().skip(new) {
            self.push(event);
        }
        self.last = snapshot.events.back().cloned();
    }

    /// Continues in another process.
    pub fn resume(&mut self) {
        self.bytes = self.events.iter().map(bytes).sum();
    }

    /// Leaves out the events of `snapshot`.
    pub fn skip(&mut self, snapshot: &Snapshot) {
        self.last = snapshot.events.back().cloned();
    }

    /// All events since `from`, oldest first.
    pub fn since(&self, from: Moment) -> impl Iterator<Item = &PastEvent> {
        self.events.iter().filter(move |event| event.at >= from)
    }

    fn push(&mut self, event: &Event) {
        let kind = &event.kind;
        let name = |it: Option<&dyn ToString>| it.map(ToString::to_string).unwrap_or_default();
        let past = PastEvent {
            at: event.at,
            kind: kind.code().into(),
            member: name(kind.member().map(|it| it as &dyn ToString)),
            service: name(kind.service().map(|it| it as &dyn ToString)),
            reason: kind.reason().map_or("", |reason| reason.code()).into(),
            text: kind.to_string(),
        };
        self.bytes += bytes(&past);
        self.events.push_back(past);
        let newest = event.at;
        while self.is_over_limit(newest) {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(bytes(&oldest));
        }
    }

    fn is_over_limit(&self, newest: Moment) -> bool {
        let is_old = self.events.front().is_some_and(|oldest| newest.since(oldest.at) > KEPT);
        is_old || self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX
    }
}

fn bytes(event: &PastEvent) -> usize {
    size_of::<PastEvent>() + event.member.len() + event.service.len() + event.text.len()
}

#[cfg(test)]
mod tests {
    use pgsteer_core::event::EventKind;

    use super::*;
    use crate::http::sample;

    #[test]
    fn each_event_is_kept_once() {
        let mut events = Events::default();
        let mut snapshot = sample::snapshot();
        events.observe(&snapshot);
        events.observe(&snapshot);
        assert_eq!(events.since(Moment::START).count(), snapshot.events.len());
        snapshot.events.pop_front();
        let at = Moment::from_millis(3_726_000);
        snapshot.events.push_back(Event { at, kind: EventKind::Reloaded });
        events.observe(&snapshot);
        let kinds: Vec<&str> = events.since(at).map(|event| &*event.kind).collect();
        assert_eq!(kinds, ["reloaded"]);
    }

    #[test]
    fn the_number_of_events_is_bounded() {
        let mut events = Events::default();
        let mut snapshot = sample::snapshot();
        for number in 0..3_000 {
            let at = Moment::from_millis(4_000_000 + number);
            snapshot.events.push_back(Event { at, kind: EventKind::Reloaded });
            snapshot.events.pop_front();
            events.observe(&snapshot);
        }
        assert_eq!(events.events.len(), EVENTS_MAX);
    }
}
