//! The parts of the binary: sources, outputs, and `run`, the only module that knows both.

mod agent;
pub mod ask;
mod by_name;
pub mod check;
pub mod cli;
pub mod clock;
mod connections;
pub mod diagnostic;
mod dial;
mod doubts;
pub mod heartbeat;
mod history;
mod http;
pub mod lint;
mod listen;
pub mod log;
mod lookup;
mod memory;
pub mod proxy;
pub mod render;
pub mod run;
mod secret;
mod sources;
pub mod stats;
pub mod status;
mod tls;
pub mod top;
