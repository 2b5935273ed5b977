//! The binary's parts: sources, outputs, and `run`, which alone knows both.

pub mod clock;
pub mod proxy;
pub mod sources;
pub mod stats;
pub mod tls;
