//! How a gate and a role look on the page: a class for the style sheet, and a name in words.
//!
//! Colour never carries a meaning alone: each state also has its own shape and its own name.

use serde::Serialize;

use crate::status::document::Gate;

/// The look of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateLook {
    /// Open.
    Open,
    /// Open, with a reservation.
    Marked,
    /// A second answer has to confirm the member.
    Probation,
    /// No new sessions; the existing ones continue.
    Draining,
    /// Shut for a reason that an operator should know.
    Shut,
    /// Shut because the member has another role, as in every healthy cluster.
    Idle,
}

impl GateLook {
    /// The look of `gate`.
    pub fn of(gate: &Gate) -> GateLook {
        match (gate.gate.as_str(), gate.reason.as_ref().map(|cause| cause.code.as_str())) {
            (_, Some("wrong_role")) => GateLook::Idle,
            (state, reason) => GateLook::of_state(state, reason.is_some()),
        }
    }

    /// The look of a gate in `state`.
    pub fn of_state(state: &str, has_reason: bool) -> GateLook {
        match state {
            "open" if has_reason => GateLook::Marked,
            "open" => GateLook::Open,
            "probation" => GateLook::Probation,
            "draining" => GateLook::Draining,
            _ => GateLook::Shut,
        }
    }

    /// The class of the style sheet, which is the name in templates too.
    pub fn class(self) -> &'static str {
        match self {
            GateLook::Open => "open",
            GateLook::Marked => "marked",
            GateLook::Probation => "probation",
            GateLook::Draining => "draining",
            GateLook::Shut => "shut",
            GateLook::Idle => "idle",
        }
    }

    /// Returns true if new sessions may begin.
    pub fn is_open(self) -> bool {
        matches!(self, GateLook::Open | GateLook::Marked)
    }

    /// Returns true if its reason is worth the room on the page.
    pub fn matters(self) -> bool {
        !matches!(self, GateLook::Open | GateLook::Idle)
    }
}

/// The class of a role.
pub fn role_class(role: &str) -> &'static str {
    match role {
        "primary" => "primary",
        "replica" => "replica",
        "standby_leader" => "leader",
        _ => "unknown",
    }
}

/// The role in words.
pub fn role_word(role: &str) -> &str {
    match role {
        "standby_leader" => "standby leader",
        other => other,
    }
}
