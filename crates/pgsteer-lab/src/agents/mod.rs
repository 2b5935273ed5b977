//! HAProxy, and the programs that answer its agent-checks: pgsteer, or stand-ins for the programs
//! in use today.
//!
//! The end-to-end tests and `bench-agent` share this code: the same HAProxy, the same faults, the
//! same rules. So the tests prove the table in docs/AGENT.md.

mod agent_processes;
mod assessment;
mod example;
mod fake_patroni;
mod fault;
mod haproxy;
mod server_states;

pub use agent_processes::{AgentAddresses, AgentBesideHaproxy, AgentProcesses, Agents};
pub use assessment::{Assessment, assess};
pub use example::Example;
pub use fake_patroni::FakePatroni;
pub use fault::{Fault, Patience, Phase, Scene};
pub use haproxy::Haproxy;
pub use server_states::{LOOK_EVERY, ServerState, ServerStates, StateWatch};
