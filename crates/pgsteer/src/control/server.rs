//! The connections of the control socket, on a thread of its own.

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use pgsteer_core::settings::ControlConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::apply::Desk;
use super::author::Author;
use super::protocol::{Answer, REQUEST_BYTES_MAX, Request};
use super::socket::ControlSocket;
use crate::log::limit::DECISIONS;

/// The maximum number of connections at one time. Further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 16;

/// How long a client may take to send its request, and to read the answer.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process that ends waits for clients that have not received their answer.
const ANSWERS_LIMIT: Duration = Duration::from_secs(1);

/// The pause after a failed accept, as without a free file.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a process that takes over from another one tries the control socket.
const TAKEOVER_POLL: Duration = Duration::from_millis(100);

/// The running control socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Control {
    socket: SharedSocket,
    connections: Arc<Semaphore>,
    thread: JoinHandle<()>,
}

/// The socket; none while another process listens on its path.
type SharedSocket = Arc<Mutex<Option<ControlSocket>>>;

impl Control {
    /// Starts to accept requests. Without a socket it is opened as soon as the process from which this
    /// one takes over has closed it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        socket: Option<ControlSocket>,
        config: ControlConfig,
        desk: Desk,
    ) -> anyhow::Result<Control> {
        let socket: SharedSocket = Arc::new(Mutex::new(socket));
        let opening = Arc::clone(&socket);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let places = Arc::clone(&connections);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime of the control socket")?;
        let thread = std::thread::Builder::new()
            .name("pgsteer-control".to_owned())
            .spawn(move || {
                let serving = async {
                    match listener(&opening, &config, &desk).await {
                        Ok(listener) => serve(listener, Arc::new(desk), places).await,
                        Err(error) => {
                            tracing::error!(%error, "the control socket has failed");
                            pending().await
                        }
                    }
                };
                LocalSet::new().block_on(&runtime, serving);
            })
            .context("cannot start the thread of the control socket")?;
        Ok(Control { socket, connections, thread })
    }

    /// Removes the file of the socket, so that another process can open it. The answers of requests that
    /// have arrived are still sent.
    pub fn close(&self) {
        lock(&self.socket).take();
    }

    /// Waits until all answers have been sent, for a limited time.
    pub async fn answered(&self) {
        // One place is the one in which the next connection is awaited.
        let all = u32::try_from(CONNECTIONS_MAX - 1).unwrap_or(u32::MAX);
        let _ = timeout(ANSWERS_LIMIT, self.connections.acquire_many(all)).await;
    }

    /// Returns true if the thread has ended.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Drop for Control {
    /// Removes the file of the socket: the thread runs until the process ends.
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns the listener, once the former process has closed its own.
async fn listener(
    shared: &SharedSocket,
    config: &ControlConfig,
    desk: &Desk,
) -> io::Result<UnixListener> {
    loop {
        let opened = lock(shared).as_ref().map(ControlSocket::listener).transpose()?;
        if let Some(listener) = opened {
            return UnixListener::from_std(listener);
        }
        sleep(TAKEOVER_POLL).await;
        if ControlSocket::is_living(&config.socket) {
            continue;
        }
        let Some(socket) = ControlSocket::open(config) else { return pending().await };
        // The former process may have been given orders until now.
        desk.restore_orders().await;
        *lock(shared) = Some(socket);
    }
}

fn lock(shared: &SharedSocket) -> MutexGuard<'_, Option<ControlSocket>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: UnixListener, desk: Arc<Desk>, connections: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::task::spawn_local(async move {
                    // A client that has disconnected needs no answer.
                    let _ = answer(stream, &desk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one request and sends its answer.
async fn answer(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let author = Author::new(&stream.peer_cred()?);
    let line = timeout(LINE_TIMEOUT, read_line(&mut stream)).await;
    let answer = match line {
        Err(_) => unclear(format!("no whole line within {LINE_TIMEOUT:?}")),
        Ok(line) => match line? {
            None => unclear(format!("a request is one line of at most {REQUEST_BYTES_MAX} bytes")),
            Some(line) => match serde_json::from_slice::<Request>(&line) {
                Ok(request) => {
                    log(&request, &author);
                    desk.apply(request, &author).await
                }
                Err(error) => unclear(format!("the request is not one of pgsteer's: {error}")),
            },
        },
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    text.push(b'\n');
    timeout(LINE_TIMEOUT, stream.write_all(&text)).await.map_err(io::Error::other)?
}

/// Reads one line. None if it is too long or not complete.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    Ok(line.ends_with(b"\n").then_some(line))
}

fn unclear(error: String) -> Answer {
    Answer::Unclear { error }
}

/// Logs a request that changes something, with its author.
fn log(request: &Request, author: &Author) {
    let Author { name, uid, pid } = author;
    let pid = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let what = match request {
        Request::Sessions { .. } | Request::Explain { .. } => return,
        changing => serde_json::to_string(changing).unwrap_or_default(),
    };
    let what = pgsteer_core::text::clean(&what);
    tracing::info!(target: DECISIONS, "request of {name} (uid {uid}{pid}): {what}");
}
