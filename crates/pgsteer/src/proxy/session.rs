//! A session from its first byte to its last, one function per state.
//!
//! `opening` → `cancel`, or `opening` → (`tls` | `direct_tls` | `login`) → `converse`. A `login` may
//! begin while its client is on hold, at a member that is about to be the primary. Everything
//! that waits with a member's connection in hand also waits for the seat to be ended, so that a
//! gate that shuts is obeyed at once wherever the session stands.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgsteer_core::claim::Role;
use pgsteer_core::text::clean;
use pgsteer_wire::error::{ErrorFields, is_server_full, sqlstate};
use pgsteer_wire::startup::{CancelKey, SSL_REQUEST_PACKET, user_and_database};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::admission::Limit;
use super::affinity::Opaque;
use super::balance::addresses;
use super::cancel::Budget;
use super::capacity::{PROBE_PAUSE, Permit, Refusal};
use super::client::{Client, ClientError, Wish};
use super::guard::Guard;
use super::hold::{Connected, Search};
use super::login::{Login, Opening, Outcome};
use super::pump::{End, Tail, pump};
use super::tcp::tune_client;
use super::vain::Vain;
use super::worker::Worker;
use super::{Admitted, Service};

/// Serves one client connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    service: Arc<Service>,
    stream: TcpStream,
    admitted: Admitted,
) {
    if tune_client(&stream, worker.limits()).is_err() {
        return;
    }
    let doubts = Arc::clone(&worker.shared().stats.doubts);
    let search = Search::begin(admitted.address(), doubts);
    let (client, exceeded) = (Client::new(stream), admitted.exceeded());
    let session = Session { worker, service, client, search, admitted };
    match exceeded {
        Some(limit) => session.turn_away(limit).await,
        None => session.run().await,
    }
}

struct Session {
    worker: Rc<Worker>,
    service: Arc<Service>,
    client: Client,
    search: Search,
    /// Declared last, so that the connections are closed before the client counts no more.
    admitted: Admitted,
}

impl Session {
    async fn run(mut self) {
        match self.opening().await {
            None => {}
            Some(Wish::Cancel(key)) => self.cancel(key).await,
            Some(Wish::Login(startup)) => self.login(startup, None).await,
            Some(Wish::Tls) => self.tls().await,
            Some(Wish::DirectTls) => self.direct_tls().await,
        }
    }

    /// Reads what the client wants. None if it never says, or nonsense.
    async fn opening(&mut self) -> Option<Wish> {
        let mut silence = self.admitted.silence();
        let wish = tokio::select! {
            biased;
            wish = timeout(self.worker.limits().login_timeout, self.client.wish()) => wish,
            () = silence.gives_way() => return None,
        };
        if !silence.end() {
            return None;
        }
        match wish {
            Ok(Ok(wish)) => Some(wish),
            Ok(Err(ClientError::Gone(_))) | Err(_) => None,
            Ok(Err(error)) => {
                self.worker.shared().stats.garbage.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(service = %self.service.name, %error, "client refused");
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

    /// Refuses the client by the limit that it exceeds, once it has sent its first packet.
    async fn turn_away(mut self, limit: Limit) {
        let wish = loop {
            match self.opening().await {
                Some(Wish::Tls) if self.client.deny_tls().await.is_ok() => {}
                other => break other,
            }
        };
        match wish {
            Some(Wish::Login(_)) => {}
            // It takes no room, and may make some.
            Some(Wish::Cancel(key)) => return self.cancel(key).await,
            _ => return,
        }
        self.client.pass_on_refusal(&no_room(limit)).await;
    }

    /// Sends a cancel request to the member that gave out its key, or to all members if the key is
    /// not known here.
    async fn cancel(&self, key: CancelKey) {
        let shared = self.worker.shared();
        shared.stats.cancels.fetch_add(1, Ordering::Relaxed);
        let (mut servers, budget) = match (shared.cancels.server_of(&key), self.admitted.exceeded())
        {
            (Some(server), None) => (vec![server], Budget::Session),
            (Some(server), Some(_)) => (vec![server], Budget::Pool),
            (None, _) => {
                let snapshot = self.worker.snapshot();
                let of = |name| addresses(&snapshot, &self.service, name).into_iter().next();
                (snapshot.members.keys().filter_map(of).collect(), Budget::Pool)
            }
        };
        servers.retain(|server| !shared.own.contain(*server));
        if !shared.cancels.send(&key, servers, budget).await {
            shared.stats.cancels_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client asks for TLS: the member answers, and if it agrees all else is between them.
    async fn tls(mut self) {
        self.search.is_opaque();
        loop {
            let Some(mut connected) = self.connect_for_tls().await else { return };
            let asked = timeout(self.service.config.connect_timeout, ask_for_tls(&mut connected));
            match asked.await {
                Ok(Ok(b'S')) => {
                    if self.client.stream.write_all(b"S").await.is_ok() {
                        self.handshake(connected).await;
                    }
                    return;
                }
                Ok(Ok(b'N')) => {
                    if self.client.deny_tls().await.is_err() {
                        return;
                    }
                    return self.login_after_tls_was_denied(connected).await;
                }
                Ok(Ok(_)) => {
                    self.search.failed(&connected.seat, "its answer to SSLRequest is none")
                }
                Ok(Err(why)) => self.search.failed(&connected.seat, &why),
                Err(_) => self.search.failed(&connected.seat, "no answer to SSLRequest in time"),
            }
        }
    }

    /// A member for a client that asked for TLS. If there is none the client has to be told
    /// in clear: libpq reads an error in answer to its request as the end of all tries, but
    /// goes on to its next host after a refused login.
    async fn connect_for_tls(&mut self) -> Option<Connected> {
        let vain = match self.search.connect(&self.worker, &self.service, &self.client).await {
            Ok(connected) => return Some(connected),
            Err(vain) => vain,
        };
        if vain != Vain::ClientGone && self.client.deny_tls().await.is_ok() {
            match self.opening().await {
                Some(Wish::Login(_)) => self.refuse(&vain).await,
                Some(Wish::Cancel(key)) => self.cancel(key).await,
                // A client that requires TLS closes. Its own error names no reason, so the log has to.
                _ => drop(self.search.note_refusal(&vain, &self.worker, &self.service)),
            }
        }
        None
    }

    async fn login_after_tls_was_denied(mut self, connected: Connected) {
        let wish = tokio::select! {
            biased;
            _ = connected.seat.ending() => None,
            wish = self.opening() => Some(wish),
        };
        let (wish, at_hand) = match wish {
            Some(wish) => (wish, Some(connected)),
            // The gate was shut while the client was thinking. Nothing is lost: it has been
            // promised nothing but that this connection is in clear.
            None => {
                drop(connected);
                (self.opening().await, None)
            }
        };
        match wish {
            Some(Wish::Login(startup)) => self.login(startup, at_hand).await,
            Some(Wish::Cancel(key)) => {
                // Nobody would notice here that the seat has to be given back.
                drop(at_hand);
                self.cancel(key).await;
            }
            _ => {}
        }
    }

    /// The member has agreed to TLS: the client has to send its hello within `login_timeout`.
    async fn handshake(mut self, connected: Connected) {
        let (mut silence, mut byte) = (self.admitted.silence(), [0; 1]);
        let hello = tokio::select! {
            biased;
            _ = connected.seat.ending() => return,
            hello = timeout(self.worker.limits().login_timeout, self.client.hello()) => hello,
            // The member closes the connection, or it sends what only the client can judge.
            _ = connected.server.peek(&mut byte) => Ok(Ok(())),
            () = silence.gives_way() => return,
        };
        if !silence.end() || !matches!(hello, Ok(Ok(()))) {
            return;
        }
        self.pass_hello(connected).await;
    }

    /// TLS without a request for it: the member gets all bytes from the first one on.
    async fn direct_tls(mut self) {
        self.search.is_opaque();
        let connected = match self.search.connect(&self.worker, &self.service, &self.client).await {
            Ok(connected) => connected,
            // An error in clear would be read as broken TLS.
            Err(vain) => {
                if self.search.note_refusal(&vain, &self.worker, &self.service).is_some() {
                    self.client.refuse_tls().await;
                }
                return;
            }
        };
        self.pass_hello(connected).await;
    }

    /// Sends the member the client's hello; all that follows is between them.
    async fn pass_hello(mut self, mut connected: Connected) {
        let ahead = std::mem::take(&mut self.client.ahead);
        let guard = Guard::of(&self.worker, &self.service);
        let sent = async {
            guard.pass().await;
            connected.server.write_all(&ahead).await
        };
        let is_sent = tokio::select! {
            biased;
            _ = connected.seat.ending() => false,
            sent = sent => sent.is_ok(),
        };
        if is_sent {
            self.converse_opaquely(connected).await;
        }
    }

    /// Logs the client in at a member, and at the next one as long as that does not show.
    async fn login(mut self, startup: Vec<u8>, mut at_hand: Option<Connected>) {
        let mut login = Login::new(startup);
        // Whoever does not wait for the answer to its startup packet may have asked something.
        if self.client.ahead.is_empty() {
            self.search.allow_early();
        }
        loop {
            let connected = match at_hand.take() {
                Some(connected) => Ok(connected),
                None => self.search.connect(&self.worker, &self.service, &self.client).await,
            };
            let mut connected = match connected {
                Ok(connected) => connected,
                Err(vain) => return self.refuse(&vain).await,
            };
            match self.attempt(&mut login, &mut connected).await {
                Outcome::Ready { key, tail } => {
                    connected.permit.accepted();
                    let address = connected.server.peer_addr().ok();
                    let cancels = &self.worker.shared().cancels;
                    let _registered =
                        key.zip(address).map(|(key, address)| cancels.register(key, address));
                    return self.converse(connected, tail, None).await;
                }
                Outcome::Refused { raw, retry } => {
                    if let Some(why) = retry {
                        self.search.failed(&connected.seat, &why);
                        if self.search.has_alternative(&self.worker, &self.service) {
                            continue;
                        }
                    }
                    if is_server_full(&raw) {
                        refused(&connected.permit, Refusal::Full);
                    }
                    // A client that does not read must not keep the seat.
                    drop(connected);
                    return self.client.pass_on_refusal(&raw).await;
                }
                Outcome::Elsewhere(why) => {
                    self.search.failed(&connected.seat, &why);
                    if !login.can_start_again() {
                        drop(connected);
                        return self.refuse_midway(&why).await;
                    }
                }
                Outcome::Full { cause, why } => {
                    self.search.full(&connected.seat, &why);
                    refused(&connected.permit, cause);
                }
                Outcome::Vain(vain) => {
                    drop(connected);
                    return self.refuse(&vain).await;
                }
                Outcome::Over => return self.log_unfinished(&login),
            }
        }
    }

    /// Tries to log the client in at the member that it is connected to, early or not.
    async fn attempt(&mut self, login: &mut Login, connected: &mut Connected) -> Outcome {
        let limit = self.worker.limits().login_timeout;
        let member = connected.seat.member().clone();
        let deserted = self.worker.shut(&self.service.name, &member);
        let guard = Guard::of(&self.worker, &self.service);
        let (service, client) = (&self.service, &mut self.client);
        if connected.held.is_none() {
            let trying = login.attempt(service, guard, client, connected, deserted);
            return timeout(limit, trying).await.unwrap_or(Outcome::Over);
        }
        let opened = self.search.opened(&self.worker, service, &member);
        let opening = Opening { opened, deserted, limit };
        login.attempt_early(service, guard, client, connected, opening).await
    }

    /// Bytes flow that cannot be read.
    async fn converse_opaquely(&mut self, connected: Connected) {
        let (address, member) = (self.admitted.address(), connected.seat.member().clone());
        let session = self.service.affinity.opaque(address, member, Instant::now());
        self.converse(connected, Tail::default(), Some(session.opaque())).await;
    }

    /// Bytes flow until the server, the client or the gate ends it. `tail` is what the server said
    /// last, where that can be read.
    async fn converse(&mut self, mut connected: Connected, tail: Tail, opaque: Option<&Opaque>) {
        let stats = connected.seat.stats();
        stats.sessions_total.fetch_add(1, Ordering::Relaxed);
        connected.slot = None;
        let guard = Guard::of(&self.worker, &self.service);
        let Connected { server, seat, .. } = &mut connected;
        let end = pump(&mut self.client.stream, server, seat, guard, tail, opaque).await;
        let Connected { server, seat, permit, sticking, .. } = connected;
        let member = seat.member().clone();
        drop(server);
        drop(seat);
        drop((permit, sticking));
        tracing::debug!(service = %self.service.name, %member, ?end, "session over");
        if let End::Told { ending, at_boundary: true } = end {
            let message = ending.message(&member);
            let fields = ErrorFields {
                sqlstate: sqlstate::ADMIN_SHUTDOWN,
                message: &message,
                detail: "",
                hint: "Connect again: pgsteer leads to the member that serves now.",
            };
            self.client.refuse(&fields).await;
        }
    }

    async fn refuse(&mut self, vain: &Vain) {
        self.search.refuse(vain, &self.worker, &self.service, &mut self.client).await;
    }

    /// The login failed at a point at which it cannot be repeated without the client.
    async fn refuse_midway(&mut self, why: &str) {
        let message = match self.service.config.role {
            Role::Primary => "the primary changed during the login",
            _ => "the member changed during the login",
        };
        let fields = ErrorFields {
            sqlstate: sqlstate::CANNOT_CONNECT_NOW,
            message,
            detail: why,
            hint: "Connect again: pgsteer leads to the member that serves now.",
        };
        self.client.refuse(&fields).await;
    }

    fn log_unfinished(&self, login: &Login) {
        let (user, database) = user_and_database(login.startup());
        let (user, database) = (user.map(clean), database.map(clean));
        tracing::debug!(service = %self.service.name, user = user.as_deref(), database = database.as_deref(), "login not finished");
    }
}

/// Notes that the member of `permit` has refused a login. As long as clients wait for it, one after
/// the other is let through to try it again.
fn refused(permit: &Permit, cause: Refusal) {
    if !permit.refused(cause) {
        return;
    }
    let (capacity, member) = (Arc::clone(permit.capacity()), permit.member().clone());
    spawn_local(async move {
        loop {
            sleep(PROBE_PAUSE).await;
            if !capacity.probe(&member) {
                return;
            }
        }
    });
}

/// What a client above a limit reads.
pub fn no_room(limit: Limit) -> Vec<u8> {
    let (message, hint) = match limit {
        Limit::All(max) => (
            format!("pgsteer has {max} clients already, its limit (sessions_max)"),
            "Raise sessions_max under [proxy], or use a connection pool.",
        ),
        Limit::Address(max) => (
            format!(
                "pgsteer has {max} clients of this address already, its limit \
                 (sessions_per_address_max)"
            ),
            "Raise sessions_per_address_max under [proxy], or use a connection pool.",
        ),
    };
    let fields = ErrorFields {
        sqlstate: sqlstate::TOO_MANY_CONNECTIONS,
        message: &message,
        detail: "",
        hint,
    };
    fields.to_fatal()
}

/// Sends SSLRequest and reads the one byte of its answer.
async fn ask_for_tls(connected: &mut Connected) -> Result<u8, String> {
    let Connected { server, seat, slot, .. } = connected;
    let asking = async {
        server.write_all(&SSL_REQUEST_PACKET).await?;
        server.read_u8().await
    };
    tokio::select! {
        biased;
        _ = seat.ending() => Err("its gate was shut during the login".to_owned()),
        answer = asking => {
            if let Some(slot) = slot.take() {
                slot.answered();
            }
            answer.map_err(|error| error.to_string())
        }
    }
}
