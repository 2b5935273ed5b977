//! The protocol: what clients and servers can do to each other and to the proxy, without a cluster.
//!
//! The proxy is real, with a Snapshot from the test. The servers are fakes, because a real server
//! cannot be made to fail at a chosen byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod affinity;
mod cancel;
mod capacity;
mod client;
mod crowd;
mod early;
mod exhaustion;
#[path = "../cli/fake_patroni.rs"]
mod fake_patroni;
mod fake_server;
mod flood;
mod front;
mod hold;
mod limits;
mod login;
mod repeat;
mod sessions;
mod stall;
mod startup;
mod upgrade;
mod wire;
