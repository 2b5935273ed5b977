//! Why a client cannot be served, and what it reads of that.

use std::time::Duration;

use pgsteer_wire::error::sqlstate;
use tokio::time::Instant;

use super::Service;
use super::capacity::{Refusal, Shortage};

/// Why a search came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Vain {
    /// The time on hold is up.
    TimeUp,
    /// The time is up, and the sessions of the service are limited.
    NoRoom(Shortage),
    /// The client went away.
    ClientGone,
    /// pgsteer is shutting down.
    Stopping,
}

/// What a client reads that was refused for the state of the cluster.
const STATUS_HINT: &str = "`pgsteer status` shows every member and why its gate is shut.";

/// What a client reads that cannot be served.
#[derive(Debug)]
pub struct Words {
    /// SQLSTATE.
    pub sqlstate: &'static str,
    /// One sentence: what is wrong.
    pub message: String,
    /// Why, in full.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

/// What a client reads that cannot be served, without the detail. None if it has left.
pub fn words(vain: &Vain, service: &Service, began: Option<Instant>) -> Option<Words> {
    let (sqlstate, message, hint) = triple(vain, service, began)?;
    Some(Words { sqlstate, message, detail: String::new(), hint })
}

/// The SQLSTATE, the message and the hint for a client that cannot be served.
fn triple(
    vain: &Vain,
    service: &Service,
    began: Option<Instant>,
) -> Option<(&'static str, String, &'static str)> {
    let Service { name, config, .. } = service;
    let began = began.map_or(Duration::ZERO, |began| began.elapsed());
    let waited = format!("(waited {:.1} s)", began.as_secs_f64());
    let (message, hint) = match vain {
        Vain::ClientGone => return None,
        Vain::Stopping => {
            let message = "pgsteer is shutting down".to_owned();
            return Some((sqlstate::CANNOT_CONNECT_NOW, message, STATUS_HINT));
        }
        Vain::TimeUp | Vain::NoRoom(Shortage::Refused(Refusal::Unavailable)) => {
            let message = format!("pgsteer has no {} for service {name} {waited}", config.role);
            return Some((sqlstate::CANNOT_CONNECT_NOW, message, STATUS_HINT));
        }
        Vain::NoRoom(Shortage::Service(max)) => (
            format!("service {name} has {max} sessions already, its sessions_max {waited}"),
            "Raise sessions_max of the service, or use a connection pool.",
        ),
        Vain::NoRoom(Shortage::Member(max)) => (
            format!(
                "every open member has {max} sessions of service {name} already, its \
                 member_sessions_max {waited}"
            ),
            "Raise member_sessions_max of the service, or use a connection pool.",
        ),
        Vain::NoRoom(Shortage::Refused(Refusal::Full)) => (
            format!("no member has a free connection for service {name} {waited}"),
            "Raise max_connections, or set member_sessions_max below it.",
        ),
    };
    Some((sqlstate::TOO_MANY_CONNECTIONS, message, hint))
}
