//! HAProxy and whatever answers its agent-checks: pgsteer, or stand-ins for what people use today.
//!
//! The end-to-end tests and `bench-agent` share this: the same HAProxy, the same faults, the same
//! judgement, so that the table in docs/AGENT.md is what the tests prove.

mod belief;
mod crew;
mod example;
mod fault;
mod haproxy;
mod judgement;
mod puppet;

pub use belief::{Beliefs, Believed, LOOK_EVERY, Watch};
pub use crew::{Agents, Beside, Crew, Post};
pub use example::Example;
pub use fault::{Expected, Fault, Patience, Phase, Scene};
pub use haproxy::Haproxy;
pub use judgement::{Judgement, judge};
pub use puppet::Puppet;
