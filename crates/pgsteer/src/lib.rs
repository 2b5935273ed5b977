//! The binary's parts: sources, and what they need. The only IO of pgsteer.

pub mod clock;
pub mod sources;
pub mod tls;
