//! TLS: the member answers the client's request, and pgsteer cannot read the bytes after that.

use std::rc::Rc;
use std::time::Instant;

use pgsteer_wire::startup::SSL_REQUEST_PACKET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Session;
use crate::proxy::client::ClientRequest;
use crate::proxy::connected::Connected;
use crate::proxy::flow::Flow;
use crate::proxy::guard::Guard;
use crate::proxy::hold_error::HoldError;
use crate::proxy::listing::ClientFacts;

impl Session {
    /// Serves a client that requests TLS. The member answers the request.
    pub(super) async fn tls(mut self) {
        self.search.set_opaque();
        loop {
            let mut connected = match self.search.connect(&self.client).await {
                Ok(connected) => connected,
                Err(HoldError::Moves) => {
                    // The other process has to answer the request.
                    self.client.asked_for_tls = false;
                    return self.move_client(SSL_REQUEST_PACKET.to_vec()).await;
                }
                Err(error) => return self.refuse_without_tls(&error).await,
            };
            let limit = self.context.service.config.connect_timeout;
            let failure = match timeout(limit, request_tls(&mut connected)).await {
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
                    return self.login_without_tls(connected).await;
                }
                Ok(Ok(_)) => "its answer to SSLRequest is neither S nor N".to_owned(),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer to SSLRequest within {limit:?}"),
            };
            self.search.failed(&connected.seat, &failure);
        }
    }

    /// Refuses a client that requests TLS, without TLS: libpq ends all its tries after an error in answer
    /// to SSLRequest, but connects to its next host after a refused login.
    async fn refuse_without_tls(mut self, error: &HoldError) {
        if *error != HoldError::ClientGone && self.client.deny_tls().await.is_ok() {
            match self.request().await {
                Some(ClientRequest::Login(_)) => self.refuse(error).await,
                Some(ClientRequest::Cancel(key)) => self.cancel(key).await,
                // A client that requires TLS closes the connection. Its own error contains no reason, so
                // the log has to.
                _ => drop(self.search.note_refusal(error)),
            }
        }
    }

    /// The member has denied TLS: the client may log in without it.
    async fn login_without_tls(mut self, connected: Connected) {
        let request = tokio::select! {
            biased;
            _ = connected.seat.ending() => None,
            request = self.request() => Some(request),
        };
        let (request, connected) = match request {
            Some(request) => (request, Some(connected)),
            // The gate was shut before the client sent its next request. The client has received only
            // the answer N, which fits any member.
            None => {
                drop(connected);
                (self.request().await, None)
            }
        };
        match request {
            Some(ClientRequest::Login(startup)) => self.login(startup, connected).await,
            Some(ClientRequest::Cancel(key)) => {
                // The seat must be given back first: `cancel` does not wait for its end.
                drop(connected);
                self.cancel(key).await;
            }
            _ => {}
        }
    }

    /// The member has agreed to TLS: the client has to send its ClientHello within `login_timeout`.
    async fn handshake(mut self, connected: Connected) {
        let limit = self.context.worker.limits().login_timeout;
        let (mut silence, mut byte) = (self.admitted.silence(), [0; 1]);
        let hello = tokio::select! {
            biased;
            _ = connected.seat.ending() => return,
            hello = timeout(limit, self.client.read_hello()) => hello,
            // The member closes the connection, or it sends bytes that only the client can check.
            _ = connected.server.peek(&mut byte) => Ok(Ok(())),
            () = silence.gives_way() => return,
        };
        if !silence.end() || !matches!(hello, Ok(Ok(()))) {
            return;
        }
        self.send_hello(connected).await;
    }

    /// Serves a client that begins with TLS without a request (`sslnegotiation=direct`).
    pub(super) async fn direct_tls(mut self) {
        self.search.set_opaque();
        let connected = match self.search.connect(&self.client).await {
            Ok(connected) => connected,
            Err(HoldError::Moves) => return self.move_client(Vec::new()).await,
            // The client would read an error without TLS as broken TLS.
            Err(error) => {
                if self.search.note_refusal(&error).is_some() {
                    self.client.refuse_tls().await;
                }
                return;
            }
        };
        self.send_hello(connected).await;
    }

    /// Sends the client's ClientHello to the member; then bytes flow in both directions.
    async fn send_hello(mut self, mut connected: Connected) {
        if let Ok(address) = self.client.stream.peer_addr() {
            let (user, database) = (None, None);
            let facts = ClientFacts { address, user, database, is_tls: true };
            connected.seat.set_client(&Rc::new(facts));
        }
        let ahead = std::mem::take(&mut self.client.ahead);
        let context = self.context.clone();
        let guard = Guard::of(&context.worker, &context.service);
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
            let (address, member) = (self.admitted.address(), connected.seat.member().clone());
            let affinity = &context.service.affinity;
            let session = affinity.opaque(address, member, Instant::now());
            self.begin(connected, Flow::default(), None, Some(session.opaque())).await;
        }
    }
}

/// Sends SSLRequest and reads the answer, which is one byte.
async fn request_tls(connected: &mut Connected) -> Result<u8, String> {
    let Connected { server, seat, slot, .. } = connected;
    let answer = async {
        server.write_all(&SSL_REQUEST_PACKET).await?;
        server.read_u8().await
    };
    tokio::select! {
        biased;
        _ = seat.ending() => Err("its gate was shut during the login".to_owned()),
        answer = answer => {
            if let Some(slot) = slot.take() {
                slot.answered();
            }
            answer.map_err(|error| error.to_string())
        }
    }
}
