//! The binary's parts: sources, outputs, and `run`, which alone knows both.

pub mod cli;
pub mod clock;
pub mod heartbeat;
pub mod http;
pub mod proxy;
pub mod run;
pub mod sources;
pub mod stats;
pub mod status;
pub mod tls;
