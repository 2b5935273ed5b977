//! The benchmarks: what a client sees of a failover, what a transaction costs in the proxy, what
//! HAProxy hears from the agent, and how soon it knows by the rendered checks.
//!
//! They run pgsteer beside what people use today, on one real cluster, and say in
//! docs/BENCHMARKS.md, docs/AGENT.md and docs/RENDER.md what came of it, also where a bar was missed.

pub mod agent;
mod bars;
pub(crate) mod client;
mod clock;
mod doc;
pub mod failover;
mod household;
pub mod proxy;
pub mod render;
mod table;
mod usage;
mod versions;

pub use doc::write_section;
