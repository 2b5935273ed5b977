//! Probes: Patroni's health checks, answered from the Snapshot.
//!
//! Paths, parameters and meanings are those of Patroni's REST API (`api.py`, `do_GET`, read in
//! 3.0.2 and 4.1.5), so that whoever asks Patroni today can ask pgsteer instead. Two things differ:
//! a path has to be written as documented (Patroni takes any that contains the word), and a
//! parameter that makes no sense is an error (Patroni takes `lag=16XB` for no limit).

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::claim::{Role, Standby};
use crate::config::units::{lag_bytes, size_text};
use crate::gate::Gate;
use crate::names::MemberName;
use crate::reason::Reason;
use crate::snapshot::{MemberState, Snapshot};

/// The longest probe that is read, in bytes.
pub const PROBE_BYTES_MAX: usize = 512;

/// The lag that `/readiness` allows unless told otherwise: Patroni's `maximum_lag_on_failover`.
const READINESS_LAG_BYTES: u64 = 1024 * 1024;

/// One of Patroni's health checks, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    path: Path,
    lag_bytes_max: Option<u64>,
    tags: BTreeMap<String, String>,
    streaming: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Primary,
    StandbyLeader,
    Leader,
    Replica,
    ReadOnly,
    Sync,
    Async,
    Quorum,
    ReadOnlySync,
    ReadOnlyQuorum,
    Health,
    Liveness,
    Readiness,
}

/// Every path, with Patroni's other spellings of it.
const PATHS: [(&str, Path); 20] = [
    ("primary", Path::Primary),
    ("master", Path::Primary),
    ("read-write", Path::Primary),
    ("leader", Path::Leader),
    ("standby-leader", Path::StandbyLeader),
    ("standby_leader", Path::StandbyLeader),
    ("replica", Path::Replica),
    ("read-only", Path::ReadOnly),
    ("sync", Path::Sync),
    ("synchronous", Path::Sync),
    ("async", Path::Async),
    ("asynchronous", Path::Async),
    ("quorum", Path::Quorum),
    ("read-only-sync", Path::ReadOnlySync),
    ("read-only-synchronous", Path::ReadOnlySync),
    ("read-only-quorum", Path::ReadOnlyQuorum),
    ("health", Path::Health),
    ("liveness", Path::Liveness),
    ("liveliness", Path::Liveness),
    ("readiness", Path::Readiness),
];

/// Why a text is no probe.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProbeError {
    /// Patroni has no such path.
    #[error("`{0}` is none of Patroni's health checks (primary, replica, read-only, sync, ...)")]
    Path(String),
    /// Patroni has no such parameter there.
    #[error("`{0}` is no parameter of a health check (lag, tag_NAME, replication_state, mode)")]
    Parameter(String),
    /// The value of a parameter makes no sense.
    #[error("`{value}` is no value for {name}: {wanted}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// It is longer than [`PROBE_BYTES_MAX`].
    #[error("a health check of {0} bytes is too long")]
    TooLong(usize),
}

/// The answer to a probe or to a question about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may serve; with a reservation, if there is one.
    Yes(Option<Reason>),
    /// Nobody new, while those who are there may stay.
    Drain(Objection),
    /// It may not serve.
    No(Objection),
}

/// Why not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Objection {
    /// Its gate says so.
    #[error(transparent)]
    Gate(#[from] Reason),
    /// Nobody knows such a member.
    #[error("there is no member {0}")]
    NoSuchMember(String),
    /// The local member was meant, and nobody knows which that is.
    #[error("no member is known to run on this machine")]
    NoLocalMember,
    /// Commits of the primary do not wait for it.
    #[error("it is no {0} standby")]
    NotSynchronous(&'static str),
    /// Commits of the primary wait for it.
    #[error("it is a synchronous standby")]
    Synchronous,
    /// Nothing has turned the engine for a while, so nothing that is known may be relied on.
    #[error("the engine of pgsteer is stuck")]
    Stuck,
}

impl fmt::Display for Probe {
    /// As it stands in a URL, without its slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = PATHS.iter().find(|(_, path)| *path == self.path).map_or("", |(name, _)| name);
        let lag = self.lag_bytes_max.map(|bytes| format!("lag={}", size_text(bytes)));
        let tags = self.tags.iter().map(|(name, value)| format!("tag_{name}={value}"));
        let streaming = self.streaming.then(|| "replication_state=streaming".to_owned());
        let parameters: Vec<String> = lag.into_iter().chain(tags).chain(streaming).collect();
        let mark = if parameters.is_empty() { "" } else { "?" };
        write!(f, "{path}{mark}{}", parameters.join("&"))
    }
}

impl Verdict {
    /// It may serve.
    pub fn is_yes(&self) -> bool {
        matches!(self, Verdict::Yes(_))
    }

    /// What an open, draining or shut gate comes to.
    pub fn of_gate(gate: &Gate) -> Verdict {
        let reason = || gate.reason().cloned().unwrap_or(Reason::Unheard);
        match gate {
            Gate::Open { note, .. } => Verdict::Yes(note.as_ref().map(|note| note.reason.clone())),
            // Nobody there is cut off yet, and whoever asks has no other place to go to.
            Gate::HeldBack { instead, .. } => match instead.reason() {
                Some(past @ Reason::PoolerBypassed(_)) => Verdict::Yes(Some(past.clone())),
                _ => Verdict::Yes(Some(Reason::SwitchoverPlanned)),
            },
            Gate::Draining { .. } => Verdict::Drain(reason().into()),
            Gate::Shut { .. } | Gate::Probation { .. } => Verdict::No(reason().into()),
        }
    }
}

impl Probe {
    /// Reads a probe as it stands in a URL, with or without its slash: `replica?lag=16MB`.
    ///
    /// # Errors
    /// A path or a parameter that Patroni does not have, or a value that makes no sense.
    pub fn read(text: &str) -> Result<Probe, ProbeError> {
        if text.len() > PROBE_BYTES_MAX {
            return Err(ProbeError::TooLong(text.len()));
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let found = PATHS.iter().find(|(name, _)| *name == path);
        let (_, path) = found.ok_or_else(|| ProbeError::Path(shown(path)))?;
        let mut probe =
            Probe { path: *path, lag_bytes_max: None, tags: BTreeMap::new(), streaming: false };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            probe.take(&decoded(name), decoded(value))?;
        }
        Ok(probe)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), ProbeError> {
        let wrong = |name, wanted| ProbeError::Value { name, value: shown(&value), wanted };
        match (name, name.strip_prefix("tag_")) {
            ("lag", _) => {
                let bytes =
                    lag_bytes(&value).map_err(|_| wrong("lag", "a size, as in lag=16MB"))?;
                self.lag_bytes_max = Some(bytes);
            }
            ("replication_state", _) => match value.as_str() {
                "streaming" => self.streaming = true,
                _ => return Err(wrong("replication_state", "only streaming")),
            },
            // What was received and not replayed yet is not told apart here: replay is the
            // stricter of the two.
            ("mode", _) if matches!(value.as_str(), "apply" | "write") => {}
            ("mode", _) => return Err(wrong("mode", "apply or write")),
            (_, Some(tag)) if !tag.is_empty() => drop(self.tags.insert(tag.to_owned(), value)),
            _ => return Err(ProbeError::Parameter(shown(name))),
        }
        Ok(())
    }

    /// The lag above which a replica is drained, in bytes.
    pub fn lag_bytes_max(&self) -> Option<u64> {
        match self.path {
            Path::Readiness => Some(self.lag_bytes_max.unwrap_or(READINESS_LAG_BYTES)),
            _ => self.lag_bytes_max,
        }
    }

    /// Whether the member passes.
    pub fn verdict(&self, snapshot: &Snapshot, member: &MemberName) -> Verdict {
        match snapshot.members.get(member) {
            Some(state) => {
                self.verdict_by(snapshot, Gates { state, of_roles: &state.health.roles })
            }
            None => Verdict::No(Objection::NoSuchMember(member.to_string())),
        }
    }

    /// Whether it passes for those who have to take the agent's pooler, if there is one.
    pub fn verdict_through_pooler(&self, snapshot: &Snapshot, member: &MemberName) -> Verdict {
        let pooled = snapshot.members.get(member).filter(|state| !state.health.pooled.is_empty());
        match pooled {
            Some(state) => {
                self.verdict_by(snapshot, Gates { state, of_roles: &state.health.pooled })
            }
            None => self.verdict(snapshot, member),
        }
    }

    fn verdict_by(&self, snapshot: &Snapshot, gates: Gates<'_>) -> Verdict {
        let health = &gates.state.health;
        match self.path {
            Path::Primary => gates.role(Role::Primary),
            Path::StandbyLeader => gates.role(Role::StandbyLeader),
            Path::Leader => gates.leader(),
            Path::Replica => self.replica(gates),
            Path::ReadOnly => self.leader_or(gates, self.replica(gates)),
            Path::Sync => self.synchronous(gates),
            Path::Async => match health.standby {
                Standby::Async => self.replica(gates),
                _ => self.replica(gates).and(Objection::Synchronous),
            },
            Path::Quorum => self.quorum(gates),
            Path::ReadOnlySync => self.leader_or(gates, self.synchronous(gates)),
            Path::ReadOnlyQuorum => self.leader_or(gates, self.quorum(gates)),
            Path::Health => gates.running(&health.postgres_trouble),
            Path::Liveness if snapshot.paused => gates.running(&None),
            Path::Liveness => gates.running(&health.patroni_trouble),
            Path::Readiness if gates.leads() => gates.leader(),
            Path::Readiness => self.replica(gates),
        }
    }

    fn leader_or(&self, gates: Gates<'_>, replica: Verdict) -> Verdict {
        match (gates.leader(), self.refusal_by_tags(gates.state)) {
            (Verdict::Yes(_), Some(reason)) => Verdict::Drain(reason.into()),
            (verdict, _) if gates.leads() => verdict,
            _ => replica,
        }
    }

    fn replica(&self, gates: Gates<'_>) -> Verdict {
        let refusal =
            || self.refusal_by_tags(gates.state).or_else(|| self.refusal_by_lag(gates.state));
        match gates.role(Role::Replica) {
            Verdict::Yes(note) => match refusal() {
                Some(reason) => Verdict::Drain(reason.into()),
                None => Verdict::Yes(note),
            },
            other => other,
        }
    }

    fn synchronous(&self, gates: Gates<'_>) -> Verdict {
        match gates.state.health.standby {
            Standby::Sync => self.replica(gates),
            _ => self.replica(gates).and(Objection::NotSynchronous("synchronous")),
        }
    }

    fn quorum(&self, gates: Gates<'_>) -> Verdict {
        match gates.state.health.standby {
            Standby::Quorum => self.replica(gates),
            _ => self.replica(gates).and(Objection::NotSynchronous("quorum")),
        }
    }

    fn refusal_by_tags(&self, state: &MemberState) -> Option<Reason> {
        let differs = |(name, wanted): &(&String, &String)| state.tags.get(*name) != Some(*wanted);
        self.tags.iter().find(differs).map(|(name, wanted)| Reason::TagMismatch {
            name: name.clone(),
            wanted: wanted.clone(),
        })
    }

    fn refusal_by_lag(&self, state: &MemberState) -> Option<Reason> {
        let lag_bytes_max = self.lag_bytes_max()?;
        match state.lag_bytes {
            None => Some(Reason::LagUnknown),
            Some(lag_bytes) => {
                (lag_bytes > lag_bytes_max).then_some(Reason::LagBytes { lag_bytes, lag_bytes_max })
            }
        }
    }
}

impl Verdict {
    /// The same, unless it is no no: then it is one for this reason. What has to be left goes before
    /// what may only get nobody new.
    fn and(self, objection: Objection) -> Verdict {
        match self {
            Verdict::Yes(_) | Verdict::Drain(_) => Verdict::No(objection),
            no @ Verdict::No(_) => no,
        }
    }
}

/// A member with its gates for the plain roles, by one way or the other.
#[derive(Clone, Copy)]
struct Gates<'a> {
    state: &'a MemberState,
    of_roles: &'a BTreeMap<Role, Gate>,
}

impl Gates<'_> {
    fn role(self, role: Role) -> Verdict {
        self.of_roles.get(&role).map_or(Verdict::No(Reason::Unheard.into()), Verdict::of_gate)
    }

    fn leader(self) -> Verdict {
        match self.state.role {
            Role::StandbyLeader => self.role(Role::StandbyLeader),
            _ => self.role(Role::Primary),
        }
    }

    fn leads(self) -> bool {
        matches!(self.state.role, Role::Primary | Role::StandbyLeader)
    }

    /// Whatever its role is, it runs, and who is to come by a pooler gets there.
    fn running(self, trouble: &Option<Reason>) -> Verdict {
        if let Some(reason) = trouble {
            return Verdict::No(reason.clone().into());
        }
        match self.role(self.state.role) {
            Verdict::No(Objection::Gate(reason)) if reason.is_pooler() => {
                Verdict::No(reason.into())
            }
            _ => Verdict::Yes(None),
        }
    }
}

/// What somebody wrote, short enough for a message and without what would break a line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// A part of a query string as it was meant.
fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}
