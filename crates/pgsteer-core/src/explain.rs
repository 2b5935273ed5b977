//! Explanations: why a service uses a member or not, and the facts on which that rests.

use std::time::Duration;

use crate::claim::Role;
use crate::gate::Gate;
use crate::names::{MemberName, ServiceName};

/// The members of a service, each with its gate and the newest facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The role that it requires.
    pub role: Role,
    /// All members, in the order of their names.
    pub members: Vec<MemberExplanation>,
}

/// Why a service uses a member or not.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberExplanation {
    /// The member.
    pub member: MemberName,
    /// Its gate, with the reason.
    pub gate: Gate,
    /// How long the gate has been in this state.
    pub gate_age: Duration,
    /// The newest facts, by source.
    pub facts: Vec<SourceFact>,
}

/// What a source reported last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFact {
    /// The source.
    pub source: String,
    /// How long ago the question was sent; none if it has no time.
    pub age: Option<Duration>,
    /// What it reported, or how it failed.
    pub text: String,
}
