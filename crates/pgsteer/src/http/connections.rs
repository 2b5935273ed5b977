//! Connections: takes clients in, and bounds what each of them may cost.
//!
//! When the house is full, the connection that has been there longest goes. An answer takes
//! milliseconds, so whoever has been there longest is idle, slow or hostile, and a client
//! that sits on a hundred connections only ever ends its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Pages;
use super::routes::answer;

/// The most bytes of one request's head, and of what is read ahead of it.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most lines in a request's head.
const HEAD_LINES_MAX: usize = 64;

/// The pause after an accept that failed, mostly for want of file descriptors: without it the
/// same connection would fail again and again as fast as the processor goes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections_max: usize,
    /// The time for one request's head, and as well the time that a connection may idle
    /// between two requests.
    pub head: Duration,
    /// How long a connection is kept alive for further requests.
    pub keep_alive: Duration,
    /// How long the last answer may take after that, to a client that reads slowly.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 128,
            head: Duration::from_secs(8),
            keep_alive: Duration::from_secs(60),
            farewell: Duration::from_secs(10),
        }
    }
}

/// Serves `pages` to whoever comes. Dropping it ends every connection.
pub async fn accept_all(listener: TcpListener, pages: Arc<Pages>, limits: Limits) -> Infallible {
    let mut house = House { tasks: JoinSet::new(), guests: VecDeque::new(), limits };
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                house.admit(stream, pages.clone());
            }
            Err(error) => {
                // It fails again ten times a second until the cause is gone; once is enough
                // for the log.
                if !is_failing {
                    warn!(%error, "the status pages cannot take a connection in");
                }
                is_failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct House {
    tasks: JoinSet<()>,
    /// The connections in the order in which they came.
    guests: VecDeque<AbortHandle>,
    limits: Limits,
}

impl House {
    fn admit(&mut self, stream: TcpStream, pages: Arc<Pages>) {
        while self.tasks.try_join_next().is_some() {}
        self.guests.retain(|guest| !guest.is_finished());
        if self.guests.len() >= self.limits.connections_max
            && let Some(oldest) = self.guests.pop_front()
        {
            debug!("too many connections to the status pages, the oldest one goes");
            oldest.abort();
        }
        self.guests.push_back(self.tasks.spawn(converse(stream, pages, self.limits)));
    }
}

async fn converse(stream: TcpStream, pages: Arc<Pages>, limits: Limits) {
    let show = service_fn(move |request| {
        let answer = answer(&pages, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_LINES_MAX)
        .serve_connection(TokioIo::new(stream), show);
    let mut connection = pin!(connection);
    // What goes wrong on such a connection is its client's affair, so no result is looked at.
    let talk = poll_fn(|context| connection.as_mut().poll(context));
    if timeout(limits.keep_alive, talk).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.farewell, connection).await;
    }
}
