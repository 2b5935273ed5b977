//! The pure heart of pgsteer: who is primary, which gate is open, and why.
//!
//! Sources say what they saw ([`claim`]); the view keeps the newest word of each; the judge
//! concludes what each member is and what it is fit for; a [`gate`] per service and member
//! remembers; the [`engine`] turns all of it and publishes a [`snapshot`], which is all that
//! the outputs ever see. View and judge are private, and only the engine turns a gate: whoever
//! is outside cannot hold an opinion.
//!
//! Nothing here reads a clock, a socket, a file or the environment. Time comes in as a
//! [`time::Moment`]; the same claims in the same order give the same Snapshots.

#![warn(missing_docs)]

pub mod agent;
pub mod answer;
pub mod claim;
pub mod engine;
pub mod event;
pub mod gate;
pub mod identity;
mod judge;
pub mod lateness;
pub mod load;
pub mod names;
pub mod pace;
pub mod plan;
pub mod post;
pub mod probe;
pub mod question;
pub mod rank;
pub mod reason;
pub mod route;
pub mod settings;
pub mod skew;
pub mod snapshot;
pub mod text;
pub mod time;
pub mod units;
pub mod verdict;
mod view;
mod write_head;
