//! The files around a cluster, without IO. [`render`] writes configuration files from pgsteer's own
//! configuration; [`lint`] finds faults in existing files; [`detection`] computes from HAProxy's
//! timings how fast a failure is detected.

#![warn(missing_docs)]

pub mod detection;
pub mod lint;
pub mod render;
