//! The pure heart of pgsteer: who is primary, which gate is open, and why.
//!
//! Sources say what they saw ([`claim`]); the [`view`] keeps the newest word of each; the
//! [`judge`] concludes what each member is and what it is fit for; a [`gate`] per service
//! and member remembers; the [`engine`] turns all of it and publishes a [`snapshot`], which
//! is all that the outputs ever see.
//!
//! Nothing here reads a clock, a socket, a file or the environment. Time comes in as a
//! [`time::Moment`]; the same claims in the same order give the same Snapshots.

#![warn(missing_docs)]

pub mod claim;
pub mod config;
pub mod engine;
pub mod gate;
pub mod judge;
pub mod lead;
pub mod names;
pub mod pace;
pub mod plan;
pub mod reason;
pub mod snapshot;
pub mod time;
pub mod view;
pub mod wire;
