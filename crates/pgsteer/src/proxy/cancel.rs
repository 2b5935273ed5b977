//! Cancel requests: each goes to the member that runs the query it means.
//!
//! A cancel request comes on a connection of its own and carries nothing but the key that the
//! server gave out in the login. A key that is not known here belongs to a session of another
//! pgsteer, or to one whose login went through as TLS; such a request is sent to every member,
//! and the one that knows the key acts on it. So several front doors need no shared state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgsteer_core::wire::startup::CancelKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a server has to take a cancel request and to close the connection after it.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of all sessions of this process.
#[derive(Debug, Default)]
pub struct Cancels {
    servers: Mutex<HashMap<CancelKey, SocketAddr>>,
}

/// A session's entry, taken out when the session ends.
#[derive(Debug)]
pub struct Registered {
    cancels: Arc<Cancels>,
    key: CancelKey,
}

impl Cancels {
    /// Remembers that the server at `server` gave out `key`.
    pub fn register(self: &Arc<Self>, key: CancelKey, server: SocketAddr) -> Registered {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(key.clone(), server);
        Registered { cancels: Arc::clone(self), key }
    }

    /// The server that gave out `key`, if that is known.
    pub fn server_of(&self, key: &CancelKey) -> Option<SocketAddr> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut servers = self.cancels.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.remove(&self.key);
    }
}

/// Sends the request to each of `servers` at once, and comes back when all have taken it.
///
/// The client waits for its connection to close before it goes on, and so do we: otherwise its
/// next query could be the one that is cancelled.
pub async fn send(key: &CancelKey, servers: Vec<SocketAddr>) {
    let request = key.to_request();
    let each = servers.into_iter().map(|server| {
        let request = request.clone();
        async move {
            let sent = tokio::time::timeout(CANCEL_TIMEOUT, send_one(&request, server)).await;
            if let Ok(Err(error)) = sent {
                tracing::debug!(%server, %error, "cancel request not delivered");
            }
        }
    });
    let tasks: Vec<_> = each.map(tokio::task::spawn_local).collect();
    for task in tasks {
        let _ = task.await;
    }
}

async fn send_one(request: &[u8], server: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request).await?;
    // The server says nothing and closes when it has acted.
    stream.read(&mut [0; 1]).await.map(drop)
}
