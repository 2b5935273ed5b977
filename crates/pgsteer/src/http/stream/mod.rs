//! The stream of the page and of the status document, as server-sent events.
//!
//! Each frame is written once and shared by all its readers. No frame is written while there is no reader. A
//! reader that is slow skips frames: it gets the newest one when it can take it.

mod body;
mod frame;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use self::body::EventBody;
use self::body::Source;
use self::frame::Frame;
pub use self::writer::write_frames;
use super::past::Range;
use crate::connections::STREAMS;

/// The document that a reader requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The status document as JSON.
    Status,
    /// The parts of the page as HTML, with the timeline of this range.
    Page(Range),
}

impl View {
    /// The view that a query names: `view=page` with a range, otherwise the status document.
    pub fn of_query(query: &str) -> View {
        match query.split('&').any(|pair| pair == "view=page") {
            true => View::Page(Range::of_query(query).unwrap_or(Range::TenMinutes)),
            false => View::Status,
        }
    }

    /// The views, each with frames of its own.
    const ALL: [View; 5] = [
        View::Status,
        View::Page(Range::TenMinutes),
        View::Page(Range::Hour),
        View::Page(Range::SixHours),
        View::Page(Range::Day),
    ];
}

/// The readers of all streams.
#[derive(Debug)]
pub struct Streams {
    streams_max: usize,
    open: Arc<AtomicUsize>,
    channels: [watch::Sender<Option<Arc<Frame>>>; 5],
    /// Wakes the writer when the first reader comes.
    arrivals: watch::Sender<()>,
}

/// A place among the readers. Dropping it makes room for another one.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    /// Streams for `streams_max` readers at most.
    pub fn new(streams_max: usize) -> Streams {
        Streams {
            streams_max,
            open: Arc::default(),
            channels: View::ALL.map(|_| watch::Sender::new(None)),
            arrivals: watch::Sender::new(()),
        }
    }

    /// A place for one more reader; none if there are too many.
    pub fn place(&self) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.open));
        (before < self.streams_max).then_some(place)
    }

    /// The body of a new stream on `connection`, which is closed if it takes nothing for `stall`.
    pub fn subscribe(
        &self,
        view: View,
        place: Place,
        connection: Option<AbortHandle>,
        stall: Duration,
    ) -> EventBody {
        let frames = self.channel(view).subscribe();
        self.arrivals.send_replace(());
        body::start(Source { frames, place, connection, stall })
    }

    /// Streams for the usual number of readers, or fewer where few files can be open.
    pub fn affordable() -> Streams {
        Streams::new(STREAMS.max())
    }

    /// The most readers.
    pub fn max(&self) -> usize {
        self.streams_max
    }

    /// Returns true if there is a reader.
    #[cfg(test)]
    pub fn is_read(&self) -> bool {
        self.read_views().next().is_some()
    }

    fn channel(&self, view: View) -> &watch::Sender<Option<Arc<Frame>>> {
        let [status, ten_minutes, hour, six_hours, day] = &self.channels;
        match view {
            View::Status => status,
            View::Page(Range::TenMinutes) => ten_minutes,
            View::Page(Range::Hour) => hour,
            View::Page(Range::SixHours) => six_hours,
            View::Page(Range::Day) => day,
        }
    }

    /// The views that have a reader.
    fn read_views(&self) -> impl Iterator<Item = View> + '_ {
        View::ALL.into_iter().filter(|view| self.channel(*view).receiver_count() > 0)
    }
}
