//! The byte formats of pgsteer, without IO: startup packets and cancel requests, the messages of a
//! login, the errors of PostgreSQL, the JSON of Patroni and of etcd, and the state files.
//!
//! Everything here parses bytes of a peer, which may be hostile: no input causes a panic, and the
//! stored part of an input is bounded. The types that the core's decisions need are in
//! `pgsteer_core`.

#![warn(missing_docs)]

pub mod error;
pub mod etcd;
pub mod excerpt;
pub mod login;
pub mod memory;
pub mod orders;
pub mod patroni;
pub mod startup;
