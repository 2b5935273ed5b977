//! Answers: whether a member may serve, read from the Snapshot.
//!
//! For a health check it is Patroni's answer (see [`crate::probe`]), by the gates of the plain
//! roles. For a question about a service it is the state of the service's gate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use crate::claim::{Role, Standby};
use crate::gate::{Gate, HeldBy, OpenGate};
use crate::names::MemberName;
use crate::probe::{Probe, ProbePath};
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
        /// A reservation; none if nothing is wrong.
        note: Option<Reason>,
        /// The route of new sessions to it.
        route: Route,
    },
    /// No new sessions; the existing ones may stay.
    Drain(Objection),
    /// It may not serve.
    No(Objection),
}

/// Why a member may not serve.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Objection {
    /// The reason of its gate.
    #[error(transparent)]
    Gate(#[from] Reason),
    /// No member of that name or address is known.
    #[error("there is no member {}", Cleaned(.0))]
    NoSuchMember(String),
    /// No source has reported on the member yet.
    #[error("no source has reported on it yet")]
    NoReport,
    /// The question is about the local member, which is unknown.
    #[error("no member is known to run on this machine: set `local` in [cluster], or --local")]
    NoLocalMember,
    /// Commits on the primary do not wait for it.
    #[error("it is not a {0} standby")]
    NotSynchronous(&'static str),
    /// Commits on the primary wait for it.
    #[error("it is a synchronous standby")]
    Synchronous,
    /// The engine has not run for a while, so its state is out of date.
    #[error("the engine of pgsteer is stuck")]
    Stuck,
}

impl Objection {
    /// Returns true if the question cannot be answered: the objection is not about a known member.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Objection::NoSuchMember(_)
                | Objection::NoReport
                | Objection::NoLocalMember
                | Objection::Stuck
        )
    }
}

impl Answer {
    /// Returns true if the member may serve.
    pub fn is_yes(&self) -> bool {
        matches!(self, Answer::Yes { .. })
    }

    /// Returns the answer for the state of a gate.
    pub fn of_gate(gate: &Gate) -> Answer {
        let reason = || gate.reason().cloned().unwrap_or(Reason::Unheard);
        match gate {
            Gate::Open(open) => Answer::of_open(open, open.reason().cloned()),
            // The sessions there still work, and the client has no other member to use.
            Gate::HeldBack { by: HeldBy::Switchover, instead, reason, .. } => {
                Answer::of_open(instead, Some(reason.clone()))
            }
            Gate::HeldBack { by: HeldBy::Operator, .. } | Gate::Draining { .. } => {
                Answer::Drain(reason().into())
            }
            Gate::Shut { .. } | Gate::Probation { .. } => Answer::No(reason().into()),
        }
    }

    /// The answer that PostgreSQL runs, without regard to the result of new sessions.
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

    /// Returns this answer if it is a refusal, else a refusal for `objection`. A refusal replaces
    /// `Drain`.
    fn and(self, objection: Objection) -> Answer {
        match self {
            Answer::Yes { .. } | Answer::Drain(_) => Answer::No(objection),
            no @ Answer::No(_) => no,
        }
    }
}

impl Question {
    /// Returns whether the member of the question may serve, by the Snapshot.
    pub fn answer(&self, snapshot: &Snapshot) -> Answer {
        let member = match self.member(snapshot) {
            Ok(member) => member,
            Err(objection) => return Answer::No(objection),
        };
        if self.awaits_first_report(snapshot) {
            return Answer::No(Objection::NoReport);
        }
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

    /// Returns true if no source has reported on the member of the question yet.
    pub fn awaits_first_report(&self, snapshot: &Snapshot) -> bool {
        let state = self.member(snapshot).ok().and_then(|member| snapshot.members.get(member));
        state.is_some_and(|state| state.awaits_first_report)
    }

    /// Returns the member of the question.
    ///
    /// # Errors
    /// The member is unknown.
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
    /// Returns whether the member passes the check.
    pub fn answer(&self, snapshot: &Snapshot, member: &MemberName) -> Answer {
        match snapshot.members.get(member) {
            Some(state) => self.answer_by(snapshot, Gates { state, of_roles: &state.health.roles }),
            None => Answer::No(Objection::NoSuchMember(member.to_string())),
        }
    }

    /// Returns whether the member passes for clients of the agent's pooler, if one is configured.
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
            ProbePath::Primary => gates.role(Role::Primary),
            ProbePath::StandbyLeader => gates.role(Role::StandbyLeader),
            ProbePath::Leader => gates.leader(),
            ProbePath::Replica => self.replica(gates),
            ProbePath::ReadOnly => self.leader_or(gates, self.replica(gates)),
            ProbePath::Sync => self.synchronous(gates),
            ProbePath::Async => match health.standby {
                Standby::Async => self.replica(gates),
                _ => self.replica(gates).and(Objection::Synchronous),
            },
            ProbePath::Quorum => self.quorum(gates),
            ProbePath::ReadOnlySync => self.leader_or(gates, self.synchronous(gates)),
            ProbePath::ReadOnlyQuorum => self.leader_or(gates, self.quorum(gates)),
            ProbePath::Health => gates.healthy(),
            ProbePath::Liveness if snapshot.paused => gates.running(&None),
            ProbePath::Liveness => gates.running(&health.patroni_trouble),
            ProbePath::Readiness if gates.leads() => gates.leader(),
            ProbePath::Readiness => self.replica(gates),
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

/// A member with its gates for the plain roles, either direct or through the pooler.
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

    /// PostgreSQL runs, in any role. A rogue primary runs as well, but no client may be routed
    /// there. For other members the note has the reason of their trouble.
    fn healthy(self) -> Answer {
        match (self.running(&self.state.health.postgres_trouble), &self.state.trouble) {
            (Answer::Yes { .. }, Some(reason)) if self.state.rogue => {
                Answer::No(reason.clone().into())
            }
            (Answer::Yes { .. }, reason) => Answer::runs(reason.clone()),
            (no, _) => no,
        }
    }

    /// PostgreSQL runs, in any role, and its pooler leads to it if clients have to use the pooler.
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

/// Returns the member of that name, or else the only one whose PostgreSQL has that host or address.
pub fn find<'a>(snapshot: &'a Snapshot, named: &str) -> Option<&'a MemberName> {
    if let Some((name, _)) = snapshot.members.get_key_value(named) {
        return Some(name);
    }
    let address: Option<IpAddr> = named.parse().ok();
    let is_there = |state: &MemberState| {
        state.postgres.host() == named
            || address.is_some_and(|address| state.addresses.contains(&address))
    };
    // A member that left may have the address of the one that replaced it under another name.
    let is_member = |state: &MemberState| state.listed;
    let mut found = snapshot.members.iter().filter(|(_, it)| is_there(it) && is_member(it));
    let (name, _) = found.next()?;
    found.next().is_none().then_some(name)
}
