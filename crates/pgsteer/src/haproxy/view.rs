//! HAProxy's own view of the servers beside pgsteer's gates, for the pages, and the differences between
//! the two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgsteer_core::time::Moment;

use super::answer::{Admin, Process, Server};
use super::command::ServerKey;
use super::machine::Steered;
use super::order::{Order, Wanted};

/// A difference that lasts longer is shown. Health checks and orders need a moment to agree.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// The views of all HAProxys, by socket. The tasks of the sockets write them, and the pages read them.
#[derive(Debug, Default)]
pub struct Views(Mutex<BTreeMap<String, Arc<View>>>);

/// One HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Why it is not steered; none if it is.
    pub trouble: Option<String>,
    /// The process that answered last.
    pub process: Option<Process>,
    /// What its configuration lacks.
    pub lacks: Vec<String>,
    /// The steered servers.
    pub servers: Vec<ServerView>,
    /// Commands that were sent since the start.
    pub commands: u64,
}

/// One steered server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// The service.
    pub service: String,
    /// The member.
    pub member: String,
    /// Its backend and its name in HAProxy.
    pub key: ServerKey,
    /// The order for it.
    pub order: Order,
    /// What HAProxy shows.
    pub server: Server,
    /// How the two differ, if they have differed for [`SHOWN_AFTER`].
    pub difference: Option<Difference>,
}

impl Views {
    /// All views, by socket.
    pub fn all(&self) -> BTreeMap<String, Arc<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the view of one HAProxy.
    pub fn put(&self, socket: &str, view: View) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.insert(socket.to_owned(), Arc::new(view));
    }

    /// Removes all views.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Since when each server differs.
#[derive(Debug, Default)]
pub struct Differences(BTreeMap<ServerKey, (Difference, Moment)>);

impl Differences {
    /// Returns the views of `steered` at `now`.
    pub fn views(&mut self, steered: &[Steered<'_>], now: Moment) -> Vec<ServerView> {
        let mut old = std::mem::take(&mut self.0);
        let view = |steered: &Steered<'_>| {
            let Steered { key, target, server } = steered;
            let found = difference(server, target.order);
            let since = found.map(|found| match old.remove(key) {
                Some((kind, since)) if kind.is_like(found) => since,
                _ => now,
            });
            if let Some((found, since)) = found.zip(since) {
                self.0.insert(key.clone(), (found, since));
            }
            ServerView {
                service: target.service.to_string(),
                member: target.member.to_string(),
                key: key.clone(),
                order: target.order,
                server: (*server).clone(),
                difference: found.filter(|_| since.is_some_and(|at| now.since(at) >= SHOWN_AFTER)),
            }
        };
        steered.iter().map(view).collect()
    }
}

/// How HAProxy's view of a server differs from its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A person has set it to drain or maintenance.
    ByHand(Admin),
    /// HAProxy has no address for its host name.
    Unresolved,
    /// HAProxy's own health check fails, and the gate is open.
    CheckFails,
    /// The weight is 0, and the gate is open.
    NoWeight,
    /// It gets sessions, and the gate is not open.
    Serves,
    /// Sessions are left that should have ended.
    Sessions(u64),
}

/// Returns how `server` differs from `order`.
pub fn difference(server: &Server, order: Order) -> Option<Difference> {
    match (order.wanted, server.admin) {
        (Wanted::Serve, Admin::Maint | Admin::Drain) => Some(Difference::ByHand(server.admin)),
        (Wanted::Serve, Admin::Unresolved) => Some(Difference::Unresolved),
        (Wanted::Serve, Admin::Ready) if !server.is_up => Some(Difference::CheckFails),
        (Wanted::Serve, Admin::Ready) if server.weight == 0 => Some(Difference::NoWeight),
        (Wanted::End | Wanted::Pause, _) if server.gets_sessions() => Some(Difference::Serves),
        (Wanted::End, _) if server.sessions > 0 => Some(Difference::Sessions(server.sessions)),
        _ => None,
    }
}

impl Difference {
    fn is_like(self, other: Difference) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// The difference at the server `key`, and what to do.
    pub fn sentence(self, key: &ServerKey, server: &Server) -> String {
        match self {
            Difference::ByHand(admin) => {
                let state = if admin == Admin::Drain { "drain" } else { "maint" };
                format!(
                    "the gate is open, and in HAProxy {key} is set to {state} by hand: pgsteer leaves it; `set server {key} state ready` ends it"
                )
            }
            Difference::Unresolved => {
                format!("the gate is open, and HAProxy has no address for the host of {key}")
            }
            Difference::CheckFails => format!(
                "the gate is open, and HAProxy's own health check of {key} fails ({}): compare its address and port with the member's",
                server.check
            ),
            Difference::NoWeight => format!(
                "the gate is open, and the weight of {key} is 0: another program or a person sets it"
            ),
            Difference::Serves => format!(
                "the gate is not open, and HAProxy sends new sessions to {key}: see the log of pgsteer"
            ),
            Difference::Sessions(count) => format!(
                "{count} sessions are left at {key} although they should have ended: see the log of pgsteer"
            ),
        }
    }
}
