//! Cancel requests: each goes to the member that runs the query it means.
//!
//! A cancel request comes on a connection of its own and carries nothing but the key that the
//! server gave out in the login. A key that is not known here belongs to a session of another
//! pgsteer, or to one whose login went through as TLS; such a request is sent to every member,
//! and the one that knows the key acts on it. So several front doors need no shared state.
//!
//! Any client can send unknown keys, so the connections for them come out of one small pool that
//! is a part of the budget of open files. A request that finds no place in it for a second is
//! dropped and counted. A server that does not answer keeps its own share of the pool occupied,
//! and no more. A request that comes back to pgsteer, because a member's address leads to another
//! pgsteer or to this one, is dropped when the same key is under way too often.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_wire::startup::CancelKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::by_name::ByName;

/// Connections of the pool, over all servers.
pub const CONNECTIONS_MAX: usize = 32;

/// Connections of the pool to one server.
const SERVER_CONNECTIONS_MAX: usize = 8;

/// Requests that wait for the pool or use it. One client connection stands behind each.
const POOLED_REQUESTS_MAX: usize = 256;

/// How long a request waits for a connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests with one key at the same time. A client may repeat its request while the first one is
/// under way; a loop repeats it until it is stopped.
const SAME_KEY_MAX: usize = 4;

/// How long a server has to take a cancel request and to close the connection after it.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose file the connection for a cancel request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// That of the client's session: it goes to one server, and has no other server connection.
    Session,
    /// That of the pool.
    Pool,
}

/// The keys of all sessions of this process, and the requests under way.
#[derive(Debug)]
pub struct Cancels {
    servers: Mutex<HashMap<CancelKey, SocketAddr>>,
    /// How many requests with each key are under way.
    under_way: Mutex<HashMap<CancelKey, usize>>,
    requests: Semaphore,
    connections: Semaphore,
    of_servers: ByName<SocketAddr, OfServer>,
}

/// The pool's connections to one server.
#[derive(Debug)]
struct OfServer(Semaphore);

/// A session's entry, taken out when the session ends.
#[derive(Debug)]
pub struct Registered {
    cancels: Arc<Cancels>,
    key: CancelKey,
}

/// A request under way, counted.
struct UnderWay<'a> {
    cancels: &'a Cancels,
    key: &'a CancelKey,
}

impl Default for Cancels {
    fn default() -> Cancels {
        Cancels {
            servers: Mutex::default(),
            under_way: Mutex::default(),
            requests: Semaphore::new(POOLED_REQUESTS_MAX),
            connections: Semaphore::new(CONNECTIONS_MAX),
            of_servers: ByName::default(),
        }
    }
}

impl Default for OfServer {
    fn default() -> OfServer {
        OfServer(Semaphore::new(SERVER_CONNECTIONS_MAX))
    }
}

impl Cancels {
    /// Remembers that the server at `server` gave out `key`.
    pub fn register(self: &Arc<Self>, key: CancelKey, server: SocketAddr) -> Registered {
        lock(&self.servers).insert(key.clone(), server);
        Registered { cancels: Arc::clone(self), key }
    }

    /// The server that gave out `key`, if that is known.
    pub fn server_of(&self, key: &CancelKey) -> Option<SocketAddr> {
        lock(&self.servers).get(key).copied()
    }

    /// Sends the request to each of `servers` at once, and returns when all have taken it. Returns
    /// false if it was not sent to all of them for lack of room.
    ///
    /// The client waits for its connection to close before it goes on, and so do we: otherwise its
    /// next query could be the one that is cancelled.
    pub async fn send(
        self: &Arc<Self>,
        key: &CancelKey,
        servers: Vec<SocketAddr>,
        budget: Budget,
    ) -> bool {
        let Some(_under_way) = self.begin(key) else { return false };
        let _pooled = match budget {
            Budget::Session => None,
            Budget::Pool => match self.requests.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return false,
            },
        };
        let request: Arc<[u8]> = key.to_request().into();
        let each = servers.into_iter().map(|server| {
            let (cancels, request) = (Arc::clone(self), Arc::clone(&request));
            tokio::task::spawn_local(async move {
                match budget {
                    Budget::Session => {
                        send_within(&request, server).await;
                        true
                    }
                    Budget::Pool => cancels.send_pooled(&request, server).await,
                }
            })
        });
        let tasks: Vec<_> = each.collect();
        let mut is_sent = true;
        for task in tasks {
            is_sent &= task.await.unwrap_or(false);
        }
        is_sent
    }

    /// Counts one more request with `key`. None if there are too many.
    fn begin<'a>(&'a self, key: &'a CancelKey) -> Option<UnderWay<'a>> {
        let mut under_way = lock(&self.under_way);
        let count = under_way.entry(key.clone()).or_default();
        if *count >= SAME_KEY_MAX {
            return None;
        }
        *count += 1;
        Some(UnderWay { cancels: self, key })
    }

    async fn send_pooled(&self, request: &[u8], server: SocketAddr) -> bool {
        let of_server = self.of_servers.of(&server);
        let permits = async {
            let of_server = of_server.0.acquire().await;
            (of_server, self.connections.acquire().await)
        };
        let Ok(_permits) = timeout(POOL_TIMEOUT, permits).await else { return false };
        send_within(request, server).await;
        true
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.cancels.servers).remove(&self.key);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.cancels.under_way);
        if let Some(count) = under_way.get_mut(self.key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(self.key);
            }
        }
    }
}

async fn send_within(request: &[u8], server: SocketAddr) {
    if let Ok(Err(error)) = timeout(CANCEL_TIMEOUT, send_one(request, server)).await {
        tracing::debug!(%server, %error, "cancel request not delivered");
    }
}

async fn send_one(request: &[u8], server: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request).await?;
    // The server says nothing and closes when it has acted.
    stream.read(&mut [0; 1]).await.map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
