//! The lines of the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The maximum size of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// The maximum size of an answer, in bytes. The largest one lists all sessions.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Drain a member.
    Drain(DrainRequest),
    /// Withdraw orders.
    Undrain {
        /// The member.
        member: String,
        /// The service; none for all orders of the member.
        service: Option<String>,
    },
    /// List sessions.
    Sessions {
        /// Which.
        #[serde(default)]
        filter: FilterText,
    },
    /// End sessions.
    EndSessions {
        /// Which; at least one criterion.
        filter: FilterText,
    },
    /// Explain the gates of a service.
    Explain {
        /// The service.
        service: String,
    },
    /// Replace the process by a new one.
    Upgrade {
        /// The absolute path of its program; none for the file of the running process.
        #[serde(default)]
        program: Option<PathBuf>,
    },
}

/// The parts of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The member.
    pub member: String,
    /// The service; none for all.
    #[serde(default)]
    pub service: Option<String>,
    /// How long it lasts; none for ever.
    #[serde(default)]
    pub lasts_seconds: Option<u64>,
    /// The reason.
    #[serde(default)]
    pub why: Option<String>,
    /// It may leave a service without a member.
    #[serde(default)]
    pub force: bool,
}

/// A filter of sessions, as text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterText {
    /// The member.
    pub member: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The client, as `10.0.0.5` or `10.0.0.5:4711`.
    pub client: Option<String>,
    /// The least idle time, in seconds.
    pub idle_longer_seconds: Option<f64>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The order is in force.
    Drained(DrainedAnswer),
    /// The orders are withdrawn.
    Undrained(UndrainedAnswer),
    /// The sessions.
    Sessions(SessionsAnswer),
    /// Sessions were ended.
    Ended {
        /// How many.
        ended: usize,
    },
    /// The gates of a service.
    Explained(Explained),
    /// A new process has taken over.
    Upgraded(UpgradedAnswer),
    /// pgsteer refuses the request, and nothing has changed.
    Refused {
        /// Why, and what to do.
        error: String,
    },
    /// The request cannot be understood.
    Unclear {
        /// Why.
        error: String,
    },
}

/// A drain order that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainedAnswer {
    /// The member.
    pub member: String,
    /// The service; none for all.
    pub service: Option<String>,
    /// When it expires; none if it lasts until it is withdrawn.
    pub until: Option<String>,
    /// The services whose leader gate the order leaves open, because it is not forced.
    pub not_drained: Vec<String>,
    /// The time until all workers of the proxy followed it, in milliseconds.
    pub in_force_after_ms: f64,
    /// Why the order will be lost at a restart; none if it is stored.
    pub not_stored: Option<String>,
}

/// Orders that were withdrawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndrainedAnswer {
    /// The member.
    pub member: String,
    /// The service; none if all orders of the member were withdrawn.
    pub service: Option<String>,
    /// The services for which the member is open now.
    pub open: Vec<String>,
    /// The time until all workers of the proxy followed it, in milliseconds.
    pub in_force_after_ms: f64,
    /// Why the change will be lost at a restart; none if it is stored.
    pub not_stored: Option<String>,
}

/// A new process that has taken over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradedAnswer {
    /// Its process id.
    pub pid: u32,
    /// How many clients and sessions it has taken over.
    pub moved: usize,
    /// The time since the request, in milliseconds.
    pub took_ms: f64,
}

/// Sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionsAnswer {
    /// Those that the filter selects.
    pub sessions: Vec<SessionLine>,
    /// How many more there are.
    pub omitted: usize,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionLine {
    /// The address of the client.
    pub client: Option<String>,
    /// The user; none inside TLS.
    pub user: Option<String>,
    /// The database; none inside TLS.
    pub database: Option<String>,
    /// The member.
    pub member: String,
    /// The service.
    pub service: String,
    /// Since when it has its member.
    pub since: String,
    /// The same as an age, in seconds.
    pub age_seconds: f64,
    /// How long no bytes have moved, in seconds.
    pub idle_seconds: f64,
    /// Bytes from the client to the member.
    pub bytes_in: u64,
    /// Bytes from the member to the client.
    pub bytes_out: u64,
    /// It uses TLS.
    pub tls: bool,
}

/// The gates of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The service.
    pub service: String,
    /// The role that it requires.
    pub role: String,
    /// All members.
    pub members: Vec<ExplainedMember>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedMember {
    /// The member.
    pub member: String,
    /// New sessions may go there.
    pub chosen: bool,
    /// The state of its gate.
    pub gate: String,
    /// How long it has been in that state, in seconds.
    pub gate_age_seconds: f64,
    /// The code of the reason.
    pub code: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// What would change it.
    pub advice: Option<String>,
    /// The newest facts.
    pub facts: Vec<ExplainedFact>,
}

/// A fact of one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedFact {
    /// The source.
    pub source: String,
    /// How long ago it was asked, in seconds.
    pub age_seconds: Option<f64>,
    /// What it reported.
    pub text: String,
}
