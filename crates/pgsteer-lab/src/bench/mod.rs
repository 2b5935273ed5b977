//! The benchmarks: what a client sees of a failover, what a transaction costs in the proxy, and what
//! HAProxy hears from the agent.
//!
//! They run pgsteer beside what people use today, on one real cluster, and say in
//! docs/BENCHMARKS.md and docs/AGENT.md what came of it, also where a bar was missed.

pub mod agent;
mod bars;
pub(crate) mod client;
mod clock;
mod doc;
pub mod failover;
mod household;
pub mod proxy;
mod table;
mod usage;
mod versions;

pub use doc::write_section;
