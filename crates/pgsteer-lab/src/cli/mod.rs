//! The commands of the binary, one file each.

pub mod act;
pub mod bench_agent;
pub mod bench_failover;
pub mod bench_proxy;
pub mod bench_render;
pub mod channel;
pub mod demo;
pub mod up;
