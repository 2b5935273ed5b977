//! A session, from the first byte of the client to the end of the connection.
//!
//! The first request of the client decides the path: a cancel request (`cancel`), TLS on request or
//! TLS from the first byte (`tls`), or a login (`login`). Then bytes flow (`converse`). Every wait with
//! a member's connection in hand also waits for the seat to be ended, so that a gate that shuts takes
//! effect at once in every state.

mod converse;
mod login;
mod moving;
mod tls;

use std::sync::atomic::Ordering;

use pgsteer_wire::error::{ErrorFields, sqlstate};
use pgsteer_wire::startup::CancelKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub use self::moving::arrive;
use super::admission::Limit;
use super::balance::all_servers;
use super::cancel::Budget;
use super::client::{Client, ClientError, ClientRequest};
use super::hold_error::HoldError;
use super::search::Search;
use super::service::Context;
use super::shared::Admitted;
use super::tcp::tune_client;

/// The hint for a client whose session was ended by a change of the cluster.
const RECONNECT_HINT: &str = "Connect again: pgsteer routes the new connection to an open member.";

/// Serves one client connection to its end.
pub async fn serve(context: Context, stream: TcpStream, admitted: Admitted) {
    if tune_client(&stream, context.worker.limits()).is_err() {
        return;
    }
    let search = Search::new(context.clone(), admitted.address());
    let (client, exceeded) = (Client::new(stream), admitted.exceeded());
    let session = Session { context, client, search, since: Instant::now(), admitted };
    match exceeded {
        Some(limit) => session.refuse_by_limit(limit).await,
        None => session.run().await,
    }
}

struct Session {
    context: Context,
    client: Client,
    search: Search,
    /// When the client connected.
    since: Instant,
    /// Declared last: the connections are closed before the client is removed from the counters.
    admitted: Admitted,
}

impl Session {
    async fn run(mut self) {
        let worker = self.context.worker.clone();
        self.search.begin_wait();
        let request = tokio::select! {
            biased;
            request = self.request() => request,
            () = worker.leaving() => return self.move_client(Vec::new()).await,
        };
        self.search.end_wait();
        match request {
            None => {}
            Some(ClientRequest::Cancel(key)) => self.cancel(key).await,
            Some(ClientRequest::Login(startup)) => self.login(startup, None).await,
            Some(ClientRequest::Tls) => self.tls().await,
            Some(ClientRequest::DirectTls) => self.direct_tls().await,
        }
    }

    /// Reads the next request of the client. None if the client has disconnected, has sent something
    /// else, or has sent no whole request in time.
    async fn request(&mut self) -> Option<ClientRequest> {
        let worker = &self.context.worker;
        let mut silence = self.admitted.silence();
        let request = tokio::select! {
            biased;
            request = timeout(worker.limits().login_timeout, self.client.request()) => request,
            () = silence.gives_way() => return None,
        };
        if !silence.end() {
            return None;
        }
        match request {
            Ok(Ok(request)) => Some(request),
            Ok(Err(ClientError::Gone(_))) | Err(_) => None,
            Ok(Err(error)) => {
                worker.shared().stats.garbage.fetch_add(1, Ordering::Relaxed);
                let service = &self.context.service.name;
                tracing::debug!(%service, %error, "client refused");
                let message = error.to_string();
                let fields = ErrorFields {
                    sqlstate: sqlstate::PROTOCOL_VIOLATION,
                    message: &message,
                    detail: "",
                    hint: "",
                };
                self.client.refuse(&fields).await;
                None
            }
        }
    }

    /// Refuses the client by the limit that it exceeds, after its first packet.
    async fn refuse_by_limit(mut self, limit: Limit) {
        let request = loop {
            match self.request().await {
                Some(ClientRequest::Tls) if self.client.deny_tls().await.is_ok() => {}
                other => break other,
            }
        };
        match request {
            Some(ClientRequest::Login(_)) => {}
            // A cancel request needs no session, and may end one.
            Some(ClientRequest::Cancel(key)) => return self.cancel(key).await,
            _ => return,
        }
        self.client.send_refusal(&limit.refusal()).await;
    }

    /// Sends a cancel request to the member that issued its key, or to all members if this process does
    /// not know the key.
    async fn cancel(&self, key: CancelKey) {
        let shared = self.context.worker.shared();
        shared.stats.cancels.fetch_add(1, Ordering::Relaxed);
        let (mut servers, budget) = match (shared.cancels.server_of(&key), self.admitted.exceeded())
        {
            (Some(server), None) => (vec![vec![server]], Budget::Session),
            (Some(server), Some(_)) => (vec![vec![server]], Budget::Pool),
            (None, _) => {
                let (snapshot, service) = (self.context.worker.snapshot(), &self.context.service);
                let of = |name| all_servers(&snapshot, service, name);
                (snapshot.members.keys().flat_map(of).collect(), Budget::Pool)
            }
        };
        servers.retain(|server| !server.iter().any(|address| shared.own.contain(*address)));
        if !shared.cancels.send(&key, servers, budget).await {
            shared.stats.cancels_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the client the error of its hold.
    async fn refuse(&mut self, error: &HoldError) {
        self.search.refuse(error, &mut self.client).await;
    }
}
