//! The body of a stream, and the task that feeds it the newest frame whenever it can take one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame as BodyFrame};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::debug;

use super::Place;
use super::frame::Frame;

/// Sent first: how soon a browser connects again, in milliseconds.
const GREETING: &str = "retry: 1000\n\n";

/// The body of one stream. At most one frame waits in it.
#[derive(Debug)]
pub struct EventBody(mpsc::Receiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(BodyFrame::data(event))))
    }
}

/// The source of a stream.
#[derive(Debug)]
pub(super) struct Source {
    pub frames: watch::Receiver<Option<Arc<Frame>>>,
    pub place: Place,
    /// The task of the connection. Aborting it closes the connection.
    pub connection: Option<AbortHandle>,
    /// The connection of a reader that takes nothing for this long is closed.
    pub stall: Duration,
}

/// The body of `source`, which a task of its own feeds.
pub(super) fn start(source: Source) -> EventBody {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(feed(source, sender));
    EventBody(receiver)
}

async fn feed(mut source: Source, sender: mpsc::Sender<Bytes>) {
    let mut last = 0;
    // There is room for the first event.
    let _ = sender.try_send(Bytes::from_static(GREETING.as_bytes()));
    loop {
        let Ok(permit) = timeout(source.stall, sender.reserve()).await else {
            debug!("a reader of the stream took nothing for {:?}, closed", source.stall);
            if let Some(connection) = &source.connection {
                connection.abort();
            }
            break;
        };
        let Ok(permit) = permit else { break };
        tokio::select! {
            changed = source.frames.changed() => if changed.is_err() { break },
            () = sender.closed() => break,
        }
        let frame = source.frames.borrow_and_update().clone();
        if let Some(frame) = frame {
            permit.send(frame.event_after(last));
            last = frame.number;
        }
    }
    drop(source.place);
}
