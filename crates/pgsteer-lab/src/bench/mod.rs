//! The benchmarks: what a client sees of a failover, and what a transaction costs in the proxy.
//!
//! They run pgsteer beside what people use today, on one real cluster, and say in
//! docs/BENCHMARKS.md what came of it, also where a bar was missed.

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
