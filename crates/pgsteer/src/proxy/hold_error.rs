//! Why a hold ends without a member, and the error that the client receives.

use std::time::Duration;

use pgsteer_wire::error::sqlstate;

use super::capacity::{Refusal, Shortage};
use super::service::Service;

/// Why a hold has ended without a member.
#[derive(Debug, PartialEq, Eq)]
pub enum HoldError {
    /// `hold_seconds` are over, or a shorter limit of one step.
    TimedOut,
    /// `hold_seconds` are over, and a limit of sessions is reached.
    NoPermit(Shortage),
    /// The client has disconnected.
    ClientGone,
    /// pgsteer is shutting down.
    Stopping,
    /// Another process takes over, and the client continues its hold there.
    Moves,
}

const STATUS_HINT: &str = "`pgsteer status` shows each member and the reason why its gate is shut.";

/// The error that a refused client receives.
#[derive(Debug)]
pub struct ErrorText {
    /// SQLSTATE.
    pub sqlstate: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The whole reason.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

impl HoldError {
    /// The error for a client of `service` that has waited for `waited`, without the detail. None if
    /// the client has disconnected or moves to another process.
    pub fn text(&self, service: &Service, waited: Duration) -> Option<ErrorText> {
        let (sqlstate, message, hint) = self.parts(service, waited)?;
        Some(ErrorText { sqlstate, message, detail: String::new(), hint })
    }

    fn parts(
        &self,
        service: &Service,
        waited: Duration,
    ) -> Option<(&'static str, String, &'static str)> {
        let Service { name, config, .. } = service;
        let waited = format!("(waited {:.1} s)", waited.as_secs_f64());
        let (message, hint) = match self {
            HoldError::ClientGone | HoldError::Moves => return None,
            HoldError::Stopping => {
                let message = "pgsteer is shutting down".to_owned();
                return Some((sqlstate::CANNOT_CONNECT_NOW, message, STATUS_HINT));
            }
            HoldError::TimedOut | HoldError::NoPermit(Shortage::Refused(Refusal::Unavailable)) => {
                let message = format!("pgsteer has no {} for service {name} {waited}", config.role);
                return Some((sqlstate::CANNOT_CONNECT_NOW, message, STATUS_HINT));
            }
            HoldError::NoPermit(Shortage::Service(max)) => (
                format!("service {name} has reached its sessions_max, {max} {waited}"),
                "Raise sessions_max of the service, or use a connection pool.",
            ),
            HoldError::NoPermit(Shortage::Member(max)) => (
                format!(
                    "every open member has reached the member_sessions_max of service {name}, \
                     {max} {waited}"
                ),
                "Raise member_sessions_max of the service, or use a connection pool.",
            ),
            HoldError::NoPermit(Shortage::Refused(Refusal::Full)) => (
                format!("no member has a free connection for service {name} {waited}"),
                "Raise max_connections, or set member_sessions_max below it.",
            ),
        };
        Some((sqlstate::TOO_MANY_CONNECTIONS, message, hint))
    }
}
