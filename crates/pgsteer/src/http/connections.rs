//! The HTTP server of the pages, with limits on time, memory and connections.
//!
//! At the limit of connections the oldest one is closed ([`Connections`]). A connection with a stream leaves
//! that list and has a limit of its own ([`super::stream`]). The task of a connection
//! yields before each answer, so a client that sends many requests at once delays only itself.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Pages;
use super::routes;
use crate::connections::{Connections, PAGES};
use crate::listen;

/// The maximum size of one request's head, bytes read ahead included.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of lines in a request's head.
const HEAD_LINES_MAX: usize = 64;

/// Connections that are accepted before the tasks of the open connections run.
const ACCEPTS_PER_TURN: usize = 8;

/// The limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of connections.
    pub connections_max: usize,
    /// The time limit for one request's head, idle time before the request included.
    pub head: Duration,
    /// How long a connection accepts further requests.
    pub keep_alive: Duration,
    /// After `keep_alive`, the time limit for sending the last answer to a slow client.
    pub farewell: Duration,
    /// The kernel closes the connection of a client that reads nothing of an answer for this long.
    pub stall: Duration,
    /// The maximum size of all pages in memory. Above it the oldest connection is closed.
    pub page_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: PAGES.max(),
            head: Duration::from_secs(8),
            keep_alive: Duration::from_secs(60),
            farewell: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            page_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Serves `pages` to all clients. Dropping it closes every connection.
pub async fn accept_all(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    pages: Arc<Pages>,
    limits: Limits,
) -> Infallible {
    let mut accepted: usize = 0;
    let mut tasks = JoinSet::new();
    let open = Arc::new(Connections::new(limits.connections_max));
    loop {
        let (stream, peer) = listen::accept(&listener, |error| {
            warn!(%error, "the status pages cannot accept a connection");
            open.close_oldest();
        })
        .await;
        while tasks.try_join_next().is_some() {}
        let connection = Connection { peer: peer.ip(), pages: Arc::clone(&pages), limits };
        let serving = connection.serve(stream, tls.clone(), Arc::clone(&open));
        if open.add(tasks.spawn(serving)) {
            debug!(
                limits.connections_max,
                "too many connections to the status pages, closed the oldest one"
            );
        }
        // The open connections run before new ones can close them.
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
            yield_now().await;
        }
    }
}

/// One connection of a client.
struct Connection {
    peer: IpAddr,
    pages: Arc<Pages>,
    limits: Limits,
}

impl Connection {
    /// Serves the connection to its end, by TLS if `tls` is given.
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>, open: Arc<Connections>) {
        // Without this limit a client that reads nothing would keep its connection for `keep_alive`.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.stall));
        let Some(tls) = tls else { return self.serve_http(stream, open).await };
        match timeout(self.limits.head, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, open).await,
            Ok(Err(error)) => debug!(peer = %self.peer, %error, "no TLS session for the pages"),
            Err(_) => debug!(peer = %self.peer, "the TLS handshake for the pages took too long"),
        }
    }

    async fn serve_http<S>(self, stream: S, open: Arc<Connections>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Connection { peer, pages, limits } = self;
        let is_stream = Arc::new(AtomicBool::new(false));
        let has_stream = Arc::clone(&is_stream);
        let show = service_fn(move |request| {
            let (pages, open) = (Arc::clone(&pages), Arc::clone(&open));
            let is_stream = Arc::clone(&is_stream);
            async move {
                // Requests of other connections are answered first.
                yield_now().await;
                if pages.ready.bytes() > limits.page_bytes_max {
                    debug!(
                        limits.page_bytes_max,
                        "too many bytes of pages are unread, closed the oldest connection"
                    );
                    open.close_oldest();
                }
                let release = || {
                    is_stream.store(true, Ordering::Relaxed);
                    tokio::task::try_id().and_then(|task| open.release(task))
                };
                let streamed = routes::stream(&pages, peer, &request, limits.stall, release);
                let answer = || routes::answer(&pages, peer, &request);
                Ok::<_, Infallible>(streamed.unwrap_or_else(answer))
            }
        });
        // A client that shuts its sending side down after the request still reads the answer.
        let connection = http1::Builder::new()
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEAD_LINES_MAX)
            .serve_connection(TokioIo::new(stream), show);
        let mut connection = pin!(connection);
        // An error of one connection affects its client only.
        let serving = poll_fn(|context| connection.as_mut().poll(context));
        if timeout(limits.keep_alive, serving).await.is_err() {
            // A stream goes on until its reader leaves, and is the last answer of its connection.
            connection.as_mut().graceful_shutdown();
            if has_stream.load(Ordering::Relaxed) {
                let _ = connection.await;
            } else {
                let _ = timeout(limits.farewell, connection).await;
            }
        }
    }
}
