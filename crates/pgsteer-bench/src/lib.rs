//! The benchmarks: what a client sees of a failover, what a transaction costs in the proxy, what
//! HAProxy learns from the agent, and how soon the rendered checks find a standby and a new
//! primary.
//!
//! Each one runs pgsteer beside the program in use today, on one real cluster, in the same run. It
//! writes its tables to docs/BENCHMARKS.md, docs/AGENT.md or docs/RENDER.md, missed bars included.

pub mod agent;
mod bars;
mod bench_setup;
mod clock;
mod doc;
pub mod failover;
pub mod proxy;
pub mod render;
mod table;
pub mod upgrade;
mod usage;
mod versions;
pub mod vip;

pub use doc::write_section;
