//! Cancel requests: each is sent to the member that runs the query.
//!
//! A cancel request arrives on a connection of its own and contains only the key that the server issued
//! in the login. An unknown key belongs to a session of another pgsteer, or to a session with TLS. Such
//! a request is sent to every member, and the member that has the key acts on it. So several pgsteers
//! need no shared state.
//!
//! Any client can send unknown keys. Their connections come from one small pool, which is a part of the
//! reserved open files. A request that gets no connection within [`POOL_TIMEOUT`] is dropped and
//! counted. A server that does not answer occupies its own share of the pool only. A request can return
//! to pgsteer if the address of a member leads to another pgsteer or to this one. Such a loop ends when
//! [`SAME_KEY_MAX`] requests with one key are under way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_wire::startup::CancelKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::by_name::ByName;
use crate::dial;

/// The maximum number of pool connections.
pub const CONNECTIONS_MAX: usize = 32;

/// The maximum number of pool connections to one server.
const SERVER_CONNECTIONS_MAX: usize = 8;

/// The maximum number of requests that wait for the pool or use it. Each belongs to one client
/// connection.
const POOLED_REQUESTS_MAX: usize = 256;

/// How long a request waits for a connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of concurrent requests with one key. A client may repeat its request while the
/// first one is under way; a loop repeats it until it is stopped.
const SAME_KEY_MAX: usize = 4;

/// The time limit for a server to receive a cancel request and to close the connection.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The budget that the connection of a cancel request is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// That of the client's session: the request goes to one server, and its client has no other server
    /// connection.
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

/// The key of a session. It is removed when this is dropped.
#[derive(Debug)]
pub struct Registered {
    cancels: Arc<Cancels>,
    key: CancelKey,
}

impl Registered {
    /// The key.
    pub fn key(&self) -> &CancelKey {
        &self.key
    }
}

/// A request under way. It is counted until this is dropped.
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
    /// Adds `key`, which the server at `server` has issued.
    pub fn register(self: &Arc<Self>, key: CancelKey, server: SocketAddr) -> Registered {
        lock(&self.servers).insert(key.clone(), server);
        Registered { cancels: Arc::clone(self), key }
    }

    /// The server that has issued `key`, if it is known.
    pub fn server_of(&self, key: &CancelKey) -> Option<SocketAddr> {
        lock(&self.servers).get(key).copied()
    }

    /// Sends the request to each of `servers` concurrently, and returns when all have closed the
    /// connection. Each server has one or several addresses. Returns false if a limit prevented a request.
    ///
    /// The client waits until its connection is closed. pgsteer waits for the servers before it closes
    /// that connection: otherwise the server could cancel the next query of the client.
    pub async fn send(
        self: &Arc<Self>,
        key: &CancelKey,
        servers: Vec<Vec<SocketAddr>>,
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
                        send_within(&request, &server).await;
                        true
                    }
                    Budget::Pool => cancels.send_pooled(&request, &server).await,
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

    /// Counts one more request with `key`. None if [`SAME_KEY_MAX`] are under way.
    fn begin<'a>(&'a self, key: &'a CancelKey) -> Option<UnderWay<'a>> {
        let mut under_way = lock(&self.under_way);
        let count = under_way.entry(key.clone()).or_default();
        if *count >= SAME_KEY_MAX {
            return None;
        }
        *count += 1;
        Some(UnderWay { cancels: self, key })
    }

    async fn send_pooled(&self, request: &[u8], server: &[SocketAddr]) -> bool {
        let Some(first) = server.first() else { return true };
        let of_server = self.of_servers.of(first);
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

async fn send_within(request: &[u8], server: &[SocketAddr]) {
    if let Ok(Err(error)) = timeout(CANCEL_TIMEOUT, send_one(request, server)).await {
        tracing::debug!(?server, %error, "cancel request not delivered");
    }
}

async fn send_one(request: &[u8], server: &[SocketAddr]) -> std::io::Result<()> {
    let mut stream = dial::connect(server, CANCEL_TIMEOUT).await?;
    stream.write_all(request).await?;
    // The server sends nothing, and closes the connection when it has acted.
    stream.read(&mut [0; 1]).await.map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    /// As `localhost` with an IPv6 address at which the server does not listen.
    #[tokio::test]
    async fn a_request_reaches_a_server_whose_first_address_refuses() {
        let refusing = {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            free.local_addr().unwrap()
        };
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = vec![refusing, server.local_addr().unwrap()];
        let key = CancelKey::new(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let expected = key.to_request();
        let receive = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = vec![0; expected.len()];
            stream.read_exact(&mut request).await.unwrap();
            request
        };
        let cancels = Arc::new(Cancels::default());
        let send = cancels.send(&key, vec![addresses], Budget::Pool);
        let (is_sent, request) =
            LocalSet::new().run_until(async { tokio::join!(send, receive) }).await;
        assert!(is_sent);
        assert_eq!(request, expected);
    }
}
