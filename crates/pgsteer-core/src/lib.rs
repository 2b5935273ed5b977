//! The decision of pgsteer, without IO: which member is the primary, which gates are open, and why.
//!
//! Sources report what they observed ([`claim`]). The view keeps the newest claim of each source.
//! The judge concludes the role of each member and which services it can serve. A [`gate`] per
//! service and member keeps the state. The [`engine`] drives all of these and publishes a
//! [`snapshot`], which is all that the outputs read. View and judge are private, and only the
//! engine changes a gate, so no source and no output can decide anything.
//!
//! Nothing here reads a clock, a socket, a file or the environment. Time comes in as a
//! [`time::Moment`]. The same claims in the same order give the same Snapshots.

#![warn(missing_docs)]

pub mod advice;
pub mod agent;
pub mod answer;
pub mod claim;
pub mod engine;
pub mod event;
pub mod explain;
pub mod gate;
pub mod gate_key;
pub mod identity;
mod judge;
pub mod load;
pub mod memory;
pub mod names;
pub mod orders;
pub mod pace;
pub mod plan;
pub mod probe;
pub mod question;
pub mod rank;
pub mod reason;
pub mod route;
pub mod settings;
pub mod skew;
pub mod snapshot;
mod sql_server;
pub mod text;
pub mod time;
pub mod units;
pub mod verdict;
mod view;
pub mod vip;
mod write_head;
