//! What render writes: golden files for review, and refusals. The real programs have their say in
//! pgsteer-lab, which has them installed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod around;
mod clusters;
mod haproxy;
mod metrics;
