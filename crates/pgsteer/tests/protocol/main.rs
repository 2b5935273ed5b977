//! The protocol: what clients and servers can do to each other and to the proxy, without a cluster.
//!
//! The proxy is the real one, with a Snapshot made by hand. Servers are fakes, because a real one
//! cannot be made to misbehave in the right place.

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
mod wire;
