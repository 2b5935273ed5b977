//! A real cluster to break on purpose: etcd, Patroni, PostgreSQL and PgBouncer for each member, on
//! one machine, in one temporary folder.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use pgsteer_lab::{Lab, LabOptions};
//!
//! let lab = Lab::start(LabOptions::default())?;
//! let old = lab.primary()?.name.clone();
//! lab.crash(&old)?;
//! lab.reset()?;
//! # Ok(())
//! # }
//! ```
//!
//! Dropping the [`Lab`] removes everything. Any other end of the process, SIGKILL included, does
//! the same: see `guardian.rs`, which has all cleanup.

mod account;
mod acts;
mod address;
pub mod agents;
pub mod demo;
mod files;
mod guardian;
mod health;
mod lab;
mod launcher;
mod member;
mod namespaces;
mod options;
mod patience;
mod processes;
mod rest;
pub mod scram_client;
mod spawned;
mod start;
mod suited;
mod tools;
mod truth;
mod wire;

pub use acts::{ACTS_HELP, SwitchoverOrder};
pub use files::{SCOPE, TTL};
pub use health::Ailment;
pub use lab::Lab;
pub use member::{APP, CHECK, Member, SUPERUSER};
pub use namespaces::member_namespace;
pub use options::{LabOptions, MEMBERS_MAX, Network, PatroniVersion};
pub use patience::wait_for;
pub use processes::Part;
pub use rustix::process::Signal;
pub use spawned::Spawned;
pub use suited::suited;
pub use tools::which;
pub use truth::{INTERVAL as TRUTH_INTERVAL, Standing, Truth, TruthEvent};
pub use wire::{Rows, Session};
