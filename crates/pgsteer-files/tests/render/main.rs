//! What render writes: golden files for review, and refusals. The real programs check the files in
//! pgsteer-lab, which has them installed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod around;
mod clusters;
mod haproxy;
mod metrics;
