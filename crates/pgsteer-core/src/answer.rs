//! Answers: whether a member may serve, read from the Snapshot.
//!
//! To a health check it is Patroni's answer (see [`crate::probe`]), by the gates of the plain roles; to
//! a question about a service it is what the service's gate says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use crate::claim::{Role, Standby};
use crate::gate::{Gate, OpenGate};
use crate::names::MemberName;
use crate::probe::{Path, Probe};
use crate::question::{Asked, Question};
use crate::reason::Reason;
use crate::route::Route;
use crate::snapshot::{MemberState, Snapshot};
use crate::text::Cleaned;
use crate::verdict::Cause;

/// Whether a member may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may serve.
    Yes {
        /// A reservation, if there is one.
        note: Option<Reason>,
        /// How new sessions reach it.
        route: Route,
    },
    /// No new sessions; the existing ones may stay.
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
    #[error("there is no member {}", Cleaned(.0))]
    NoSuchMember(String),
    /// The local member was meant, and nobody knows which that is.
    #[error("no member is known to run on this machine: set `local` in [cluster], or --local")]
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

impl Objection {
    /// It is not the member that was judged, but the question that cannot be answered.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Objection::NoSuchMember(_) | Objection::NoLocalMember | Objection::Stuck)
    }
}

impl Answer {
    /// Returns true if the member may serve.
    pub fn is_yes(&self) -> bool {
        matches!(self, Answer::Yes { .. })
    }

    /// What an open, draining or shut gate comes to.
    pub fn of_gate(gate: &Gate) -> Answer {
        let reason = || gate.reason().cloned().unwrap_or(Reason::Unheard);
        match gate {
            Gate::Open(open) => Answer::of_open(open, open.reason().cloned()),
            // The sessions there still work, and the client that asks has no other member.
            Gate::HeldBack { instead, .. } => {
                Answer::of_open(instead, Some(Reason::SwitchoverPlanned))
            }
            Gate::Draining { .. } => Answer::Drain(reason().into()),
            Gate::Shut { .. } | Gate::Probation { .. } => Answer::No(reason().into()),
        }
    }

    /// PostgreSQL runs, whatever new sessions would find.
    fn runs(note: Option<Reason>) -> Answer {
        Answer::Yes { note, route: Route::Configured }
    }

    fn of_open(open: &OpenGate, note: Option<Reason>) -> Answer {
        let note = match &open.route {
            Route::PastPooler(bypass) => {
                let past = Reason::PoolerBypassed(Box::new(bypass.reason.clone()));
                Some(note.map_or(past.clone(), |note| note.or_stronger(past)))
            }
            Route::Configured => note,
        };
        Answer::Yes { note, route: open.route.clone() }
    }

    /// This refusal, or one for `objection`. A refusal goes before an answer that ends no sessions.
    fn and(self, objection: Objection) -> Answer {
        match self {
            Answer::Yes { .. } | Answer::Drain(_) => Answer::No(objection),
            no @ Answer::No(_) => no,
        }
    }
}

impl Question {
    /// Whether the member that is meant may serve, as the Snapshot has it.
    pub fn answer(&self, snapshot: &Snapshot) -> Answer {
        let member = match self.member(snapshot) {
            Ok(member) => member,
            Err(objection) => return Answer::No(objection),
        };
        match &self.of {
            Asked::Probe(probe) => probe.answer(snapshot, member),
            Asked::Service(service) => snapshot
                .services
                .get(service)
                .and_then(|state| state.gates.get(member))
                .map_or_else(
                    || Answer::No(Objection::NoSuchMember(member.to_string())),
                    Answer::of_gate,
                ),
        }
    }

    /// The member that is meant.
    ///
    /// # Errors
    /// There is none.
    pub fn member<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a MemberName, Objection> {
        match &self.member {
            None => snapshot.local.as_ref().ok_or(Objection::NoLocalMember),
            Some(named) => {
                find(snapshot, named).ok_or_else(|| Objection::NoSuchMember(named.clone()))
            }
        }
    }
}

impl Probe {
    /// Whether the member passes.
    pub fn answer(&self, snapshot: &Snapshot, member: &MemberName) -> Answer {
        match snapshot.members.get(member) {
            Some(state) => self.answer_by(snapshot, Gates { state, of_roles: &state.health.roles }),
            None => Answer::No(Objection::NoSuchMember(member.to_string())),
        }
    }

    /// Whether it passes for those who have to take the agent's pooler, if there is one.
    pub fn answer_through_pooler(&self, snapshot: &Snapshot, member: &MemberName) -> Answer {
        let pooled = snapshot.members.get(member).filter(|state| !state.health.pooled.is_empty());
        match pooled {
            Some(state) => {
                self.answer_by(snapshot, Gates { state, of_roles: &state.health.pooled })
            }
            None => self.answer(snapshot, member),
        }
    }

    fn answer_by(&self, snapshot: &Snapshot, gates: Gates<'_>) -> Answer {
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
            Path::Health => gates.healthy(),
            Path::Liveness if snapshot.paused => gates.running(&None),
            Path::Liveness => gates.running(&health.patroni_trouble),
            Path::Readiness if gates.leads() => gates.leader(),
            Path::Readiness => self.replica(gates),
        }
    }

    fn leader_or(&self, gates: Gates<'_>, replica: Answer) -> Answer {
        match (gates.leader(), self.refusal_by_tags(gates.state)) {
            (Answer::Yes { .. }, Some(reason)) => Answer::Drain(reason.into()),
            (verdict, _) if gates.leads() => verdict,
            _ => replica,
        }
    }

    fn replica(&self, gates: Gates<'_>) -> Answer {
        let refusal =
            || self.refusal_by_tags(gates.state).or_else(|| self.refusal_by_lag(gates.state));
        match gates.role(Role::Replica) {
            yes @ Answer::Yes { .. } => match refusal() {
                Some(reason) => Answer::Drain(reason.into()),
                None => yes,
            },
            other => other,
        }
    }

    fn synchronous(&self, gates: Gates<'_>) -> Answer {
        match gates.state.health.standby {
            Standby::Sync => self.replica(gates),
            _ => self.replica(gates).and(Objection::NotSynchronous("synchronous")),
        }
    }

    fn quorum(&self, gates: Gates<'_>) -> Answer {
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

/// A member with its gates for the plain roles, by one way or the other.
#[derive(Clone, Copy)]
struct Gates<'a> {
    state: &'a MemberState,
    of_roles: &'a BTreeMap<Role, Gate>,
}

impl Gates<'_> {
    fn role(self, role: Role) -> Answer {
        self.of_roles.get(&role).map_or(Answer::No(Reason::Unheard.into()), Answer::of_gate)
    }

    fn leader(self) -> Answer {
        match self.state.role {
            Role::StandbyLeader => self.role(Role::StandbyLeader),
            _ => self.role(Role::Primary),
        }
    }

    fn leads(self) -> bool {
        matches!(self.state.role, Role::Primary | Role::StandbyLeader)
    }

    /// PostgreSQL runs, in whatever role. A rogue primary runs as well, but no client may be led
    /// there; of any other member the answer says what is wrong beside that.
    fn healthy(self) -> Answer {
        match (self.running(&self.state.health.postgres_trouble), &self.state.trouble) {
            (Answer::Yes { .. }, Some(reason)) if self.state.rogue => {
                Answer::No(reason.clone().into())
            }
            (Answer::Yes { .. }, reason) => Answer::runs(reason.clone()),
            (no, _) => no,
        }
    }

    /// PostgreSQL runs, whatever its role, and the pooler leads there if clients have to use it.
    fn running(self, trouble: &Option<Reason>) -> Answer {
        if let Some(reason) = trouble {
            return Answer::No(reason.clone().into());
        }
        match self.of_roles.get(&self.state.role) {
            Some(Gate::Shut { cause: Cause::Pooler, reason, .. }) => {
                Answer::No(reason.clone().into())
            }
            _ => Answer::runs(None),
        }
    }
}

/// The member of that name, or else the only one whose PostgreSQL is at that host or address.
pub fn find<'a>(snapshot: &'a Snapshot, named: &str) -> Option<&'a MemberName> {
    if let Some((name, _)) = snapshot.members.get_key_value(named) {
        return Some(name);
    }
    let address: Option<IpAddr> = named.parse().ok();
    let is_there = |state: &MemberState| {
        state.postgres.host() == named
            || address.is_some_and(|address| state.addresses.contains(&address))
    };
    // One that was made anew under another name has the address of the one that left.
    let is_member = |state: &MemberState| state.listed;
    let mut found = snapshot.members.iter().filter(|(_, it)| is_there(it) && is_member(it));
    let (name, _) = found.next()?;
    found.next().is_none().then_some(name)
}
