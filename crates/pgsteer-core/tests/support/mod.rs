//! What the tests of the core share: a cluster to begin with, and a shell that drives the engine.

pub mod cluster;
pub mod driver;
