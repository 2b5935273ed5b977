//! Writes the frames: at each change of the Snapshot, and each second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::frame::{Frame, event};
use super::{Streams, View};
use crate::http::past::Range;
use crate::http::{Pages, page};

/// The longest time between two frames: the counters change all the time.
const FRAME_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two frames. The first change after a pause makes a frame at once.
const FRAME_GAP: Duration = Duration::from_millis(25);

/// Writes frames for `pages.streams` until the Snapshots end. Waits while there is no reader.
pub async fn write_frames(pages: Arc<Pages>) {
    let mut snapshots = pages.snapshot.clone();
    let mut arrivals = pages.streams.arrivals.subscribe();
    loop {
        if pages.streams.read_views().next().is_none() {
            pages.streams.forget();
            if arrivals.changed().await.is_err() {
                return;
            }
        }
        let began = Instant::now();
        snapshots.borrow_and_update();
        arrivals.borrow_and_update();
        for view in pages.streams.read_views() {
            write(&pages, view);
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = arrivals.changed() => if changed.is_err() { return },
            () = sleep_until(began + FRAME_EVERY) => {}
        }
        sleep_until(began + FRAME_GAP).await;
    }
}

fn write(pages: &Pages, view: View) {
    let channel = pages.streams.channel(view);
    let before = channel.borrow().clone();
    let frame = match view {
        View::Status => status_frame(pages, before.as_deref()),
        View::Page(range) => page_frame(pages, before.as_deref(), range),
    };
    match frame {
        Ok(frame) => {
            channel.send_replace(Some(Arc::new(frame)));
        }
        Err(why) => error!("the stream cannot be written: {why:#}"),
    }
}

fn status_frame(pages: &Pages, before: Option<&Frame>) -> anyhow::Result<Frame> {
    let snapshot = Arc::clone(&pages.snapshot.borrow());
    let json = serde_json::to_string(&pages.document(&snapshot))?;
    let number = before.map_or(1, |before| before.number.saturating_add(1));
    Ok(Frame::same(number, event("status", snapshot.generation, &json)))
}

fn page_frame(pages: &Pages, before: Option<&Frame>, range: Range) -> anyhow::Result<Frame> {
    let snapshot = Arc::clone(&pages.snapshot.borrow());
    let json =
        |(id, text): (&'static str, String)| Ok((id, Arc::from(serde_json::to_string(&text)?)));
    let parts: anyhow::Result<Vec<(&'static str, Arc<str>)>> =
        page::write_parts(pages, &snapshot, range)?.into_iter().map(json).collect();
    Ok(Frame::of_parts(before, snapshot.generation, parts?))
}

impl Streams {
    /// Drops the frames, which have no reader.
    fn forget(&self) {
        for channel in &self.channels {
            channel.send_if_modified(|frame| {
                *frame = None;
                false
            });
        }
    }
}
