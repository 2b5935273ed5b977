//! The login of a client whose bytes pgsteer can read.

use std::rc::Rc;
use std::sync::Arc;

use pgsteer_core::claim::Role;
use pgsteer_core::text::clean;
use pgsteer_wire::error::{ErrorFields, is_server_full, sqlstate};
use pgsteer_wire::startup::{CancelKey, user_and_database};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::{RECONNECT_HINT, Session};
use crate::proxy::capacity::{PROBE_PAUSE, Permit, Refusal};
use crate::proxy::connected::Connected;
use crate::proxy::flow::{Flow, Tail};
use crate::proxy::guard::Guard;
use crate::proxy::hold_error::HoldError;
use crate::proxy::listing::ClientFacts;
use crate::proxy::login::{GateWatch, Login, Outcome};
use crate::proxy::service::Context;

impl Session {
    /// Logs the client in at `connected` or at a member that the search finds, and at the next one as
    /// long as the client cannot notice.
    pub(super) async fn login(mut self, startup: Vec<u8>, mut connected: Option<Connected>) {
        let facts = self.client_facts(&startup);
        let mut login = Login::new(startup);
        // A client that has sent more than its startup packet may have sent a query.
        if self.client.ahead.is_empty() {
            self.search.allow_early_login();
        }
        loop {
            if login.can_move() {
                self.search.may_move();
            }
            let found = match connected.take() {
                Some(connected) => Ok(connected),
                None => self.search.connect(&self.client).await,
            };
            let mut connected = match found {
                Ok(connected) => connected,
                Err(HoldError::Moves) => return self.move_client(login.into_sent()).await,
                Err(error) => return self.refuse(&error).await,
            };
            self.search.stays();
            if let Some(facts) = &facts {
                connected.seat.set_client(facts);
            }
            match self.attempt(&mut login, &mut connected).await {
                Outcome::Ready { key, tail } => {
                    // The session does not keep what the client has sent in its login.
                    drop(login);
                    return self.begin_after_login(connected, key, tail).await;
                }
                Outcome::Refused { raw, retry } => {
                    if let Some(why) = retry {
                        self.search.failed(&connected.seat, &why);
                        if self.search.has_alternative() {
                            continue;
                        }
                    }
                    if is_server_full(&raw) {
                        note_refusal(&connected.permit, Refusal::Full);
                    }
                    // A client that does not read must not keep the seat.
                    drop(connected);
                    return self.client.send_refusal(&raw).await;
                }
                Outcome::MemberFailed(why) => {
                    self.search.failed(&connected.seat, &why);
                    if !login.can_start_again() {
                        drop(connected);
                        return self.refuse_midway(&why).await;
                    }
                }
                Outcome::Full { cause, why } => {
                    self.search.full(&connected.seat, &why);
                    note_refusal(&connected.permit, cause);
                }
                Outcome::HoldEnded(error) => {
                    drop(connected);
                    return self.refuse(&error).await;
                }
                Outcome::Abandoned => return self.log_abandoned(&login),
            }
        }
    }

    /// Begins the session after its login.
    async fn begin_after_login(self, connected: Connected, key: Option<CancelKey>, tail: Tail) {
        connected.permit.accepted();
        self.context.service.stats.logins.observe(self.since.elapsed());
        let address = connected.server.peer_addr().ok();
        let cancels = Arc::clone(&self.context.worker.shared().cancels);
        let registered = key.zip(address).map(|(key, address)| cancels.register(key, address));
        self.begin(connected, Flow::after(tail), registered, None).await;
    }

    /// The client by its startup packet; none if it has disconnected.
    fn client_facts(&self, startup: &[u8]) -> Option<Rc<ClientFacts>> {
        let (user, database) = user_and_database(startup);
        let cleaned = |text: &str| Box::from(&*clean(text));
        let (user, database) = (user.map(cleaned), database.map(cleaned));
        let address = self.client.stream.peer_addr().ok()?;
        // PostgreSQL uses the name of the user for a database that is not named.
        let database = database.or_else(|| user.clone());
        Some(Rc::new(ClientFacts { address, user, database, is_tls: false }))
    }

    /// Tries to log the client in at the connected member, early or not.
    async fn attempt(&mut self, login: &mut Login, connected: &mut Connected) -> Outcome {
        let Context { worker, service } = self.context.clone();
        let limit = worker.limits().login_timeout;
        let member = connected.seat.member().clone();
        let shut = worker.gate_shut(&service.name, &member);
        let guard = Guard::of(&worker, &service);
        let client = &mut self.client;
        if connected.held.is_some() {
            let gate = GateWatch { opened: self.search.gate_opened(&member), shut, limit };
            return login.attempt_early(&service, guard, client, connected, gate).await;
        }
        let attempt = login.attempt(&service, guard, client, connected, shut);
        timeout(limit, attempt).await.unwrap_or(Outcome::Abandoned)
    }

    /// Refuses a client whose login failed when it could not be repeated any more.
    async fn refuse_midway(&mut self, why: &str) {
        let message = match self.context.service.config.role {
            Role::Primary => "the primary changed during the login",
            _ => "the member changed during the login",
        };
        let fields = ErrorFields {
            sqlstate: sqlstate::CANNOT_CONNECT_NOW,
            message,
            detail: why,
            hint: RECONNECT_HINT,
        };
        self.client.refuse(&fields).await;
    }

    fn log_abandoned(&self, login: &Login) {
        let (user, database) = user_and_database(login.startup());
        let (user, database) = (user.map(clean), database.map(clean));
        let service = &self.context.service.name;
        tracing::debug!(%service, user = user.as_deref(), database = database.as_deref(), "login not completed");
    }
}

/// Notes that the member of `permit` has refused a login. While clients wait for it, one after the
/// other may try it again.
fn note_refusal(permit: &Permit, cause: Refusal) {
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
