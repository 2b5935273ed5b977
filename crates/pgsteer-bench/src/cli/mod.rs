//! The commands of the binary, one file each.

pub mod agent;
pub mod failover;
pub mod proxy;
pub mod render;
pub mod upgrade;
pub mod vip;
