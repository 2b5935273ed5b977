//! Connections: accepts clients of the pages, and limits what each of them may cost.
//!
//! At the limit the oldest connection is closed. An answer takes milliseconds, so the oldest connection
//! is idle, slow or hostile, and a client that holds many connections closes its own. Each request
//! takes one turn: a client that sends many at once waits behind the others.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
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

/// Connections to the pages at the same time.
const CONNECTIONS_MAX: usize = 128;

/// Clients that are accepted before those that are connected have a turn.
const ACCEPTS_PER_TURN: usize = 8;

/// The share of the open files that the pages may take, as a divisor. The sources need the others.
const FILES_SHARE: u64 = 32;

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
    /// How long a client may read nothing of an answer, before the kernel closes its connection.
    pub stall: Duration,
    /// The bytes of all pages that are kept or being sent. Above it the oldest connection is closed.
    pub page_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: CONNECTIONS_MAX,
            head: Duration::from_secs(8),
            keep_alive: Duration::from_secs(60),
            farewell: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            page_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// The usual limits, with fewer connections where few files can be open.
    pub fn affordable() -> Limits {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(files / FILES_SHARE).unwrap_or(usize::MAX);
        Limits { connections_max: CONNECTIONS_MAX.min(share).max(1), ..Limits::default() }
    }
}

/// Serves `pages` to all clients. Dropping it ends every connection.
pub async fn accept_all(listener: TcpListener, pages: Arc<Pages>, limits: Limits) -> Infallible {
    let mut accepted: usize = 0;
    let mut connections = Connections { tasks: JoinSet::new(), open: Arc::default(), limits };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.admit(stream, pages.clone());
                // The clients have their turn before too many others can close their connections.
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
                    yield_now().await;
                }
            }
            Err(error) => {
                warn!(%error, "the status pages cannot accept a connection");
                connections.open.close_oldest();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connections {
    tasks: JoinSet<()>,
    open: Arc<Open>,
    limits: Limits,
}

/// The open connections, oldest first.
#[derive(Default)]
struct Open(Mutex<VecDeque<AbortHandle>>);

impl Connections {
    fn admit(&mut self, stream: TcpStream, pages: Arc<Pages>) {
        while self.tasks.try_join_next().is_some() {}
        if self.open.count() >= self.limits.connections_max {
            debug!("too many connections to the status pages, the oldest one is closed");
            self.open.close_oldest();
        }
        let open = Arc::clone(&self.open);
        self.open.push(self.tasks.spawn(converse(stream, pages, open, self.limits)));
    }
}

impl Open {
    fn count(&self) -> usize {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.is_finished());
        open.len()
    }

    fn push(&self, connection: AbortHandle) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(connection);
    }

    fn close_oldest(&self) {
        let oldest = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(oldest) = oldest {
            oldest.abort();
        }
    }
}

async fn converse(stream: TcpStream, pages: Arc<Pages>, open: Arc<Open>, limits: Limits) {
    // Without it a client that reads nothing keeps its connection for as long as `keep_alive`.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall));
    let show = service_fn(move |request| {
        let (pages, open) = (Arc::clone(&pages), Arc::clone(&open));
        async move {
            // Requests that came at once are answered in turn with those of other clients.
            yield_now().await;
            if pages.ready.bytes() > limits.page_bytes_max {
                debug!("too many bytes of pages are unread, the oldest connection is closed");
                open.close_oldest();
            }
            Ok::<_, Infallible>(answer(&pages, &request))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_LINES_MAX)
        .serve_connection(TokioIo::new(stream), show);
    let mut connection = pin!(connection);
    // The errors of such a connection concern its client only.
    let talk = poll_fn(|context| connection.as_mut().poll(context));
    if timeout(limits.keep_alive, talk).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.farewell, connection).await;
    }
}
