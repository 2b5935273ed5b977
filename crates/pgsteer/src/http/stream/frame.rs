//! A frame: what a stream sends at one moment.

use std::sync::Arc;

use hyper::body::Bytes;

/// One frame of a view. Its number grows by one with each frame of the view.
#[derive(Debug)]
pub struct Frame {
    /// The number.
    pub number: u64,
    /// The event for a reader that has the frame before.
    pub update: Bytes,
    /// What other readers get.
    pub whole: Whole,
}

/// What a reader gets that has not the frame before.
#[derive(Debug)]
pub enum Whole {
    /// The same event.
    Same,
    /// An event of the parts that have changed since the reader's frame.
    Parts {
        /// The generation of the Snapshot.
        generation: u64,
        /// All parts.
        parts: Vec<Part>,
    },
}

/// A part of the page.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its id.
    pub id: &'static str,
    /// Its HTML as a JSON string.
    pub json: Arc<str>,
    /// The frame in which it changed last.
    pub changed: u64,
}

impl Frame {
    /// A frame whose event is the same for all readers.
    pub fn same(number: u64, event: Bytes) -> Frame {
        Frame { number, update: event, whole: Whole::Same }
    }

    /// A frame of the page: `parts` after those of the frame before.
    pub fn of_parts(
        before: Option<&Frame>,
        generation: u64,
        parts: Vec<(&'static str, Arc<str>)>,
    ) -> Frame {
        let number = before.map_or(1, |before| before.number.saturating_add(1));
        let old: &[Part] = match before.map(|before| &before.whole) {
            Some(Whole::Parts { parts, .. }) => parts,
            _ => &[],
        };
        let part = |(id, json): (&'static str, Arc<str>)| {
            let same = old.iter().find(|part| part.id == id && part.json == json);
            same.cloned().unwrap_or(Part { id, json, changed: number })
        };
        let parts: Vec<Part> = parts.into_iter().map(part).collect();
        let update = parts_event(generation, &parts, number.saturating_sub(1));
        Frame { number, update, whole: Whole::Parts { generation, parts } }
    }

    /// The event for a reader that has frame `last`; 0 for a new one.
    pub fn event_after(&self, last: u64) -> Bytes {
        match &self.whole {
            Whole::Parts { generation, parts } if last.saturating_add(1) != self.number => {
                parts_event(*generation, parts, last)
            }
            _ => self.update.clone(),
        }
    }
}

/// The event of those of `parts` that have changed after frame `last`.
fn parts_event(generation: u64, parts: &[Part], last: u64) -> Bytes {
    let changed = parts.iter().filter(|part| part.changed > last);
    let fields: Vec<String> =
        changed.map(|part| format!("\"{}\":{}", part.id, part.json)).collect();
    event("parts", generation, &format!("{{{}}}", fields.join(",")))
}

/// A server-sent event. `data` is one line of JSON.
pub fn event(name: &str, generation: u64, data: &str) -> Bytes {
    Bytes::from(format!("id: {generation}\nevent: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(before: Option<&Frame>, parts: &[(&'static str, &str)]) -> Frame {
        let json = |(id, text): &(&'static str, &str)| (*id, Arc::from(format!("\"{text}\"")));
        Frame::of_parts(before, 7, parts.iter().map(json).collect())
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_reader_gets_the_parts_that_changed_since_its_frame() {
        let first = frame(None, &[("a", "1"), ("b", "1")]);
        let second = frame(Some(&first), &[("a", "1"), ("b", "2")]);
        let third = frame(Some(&second), &[("a", "3"), ("b", "2")]);
        let data = |event: &Bytes| text(event).split("data: ").nth(1).unwrap().trim().to_owned();
        assert_eq!(data(&third.event_after(2)), r#"{"a":"3"}"#);
        assert_eq!(data(&third.event_after(1)), r#"{"a":"3","b":"2"}"#);
        assert_eq!(data(&second.event_after(0)), r#"{"a":"1","b":"2"}"#, "a new reader");
        let fourth = frame(Some(&third), &[("a", "3"), ("b", "2")]);
        assert_eq!(text(&fourth.update), "id: 7\nevent: parts\ndata: {}\n\n", "it shows life");
    }
}
