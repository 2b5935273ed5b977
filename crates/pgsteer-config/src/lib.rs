//! The configuration as people write it: a file, flags and the environment in; [`Config`] or all
//! errors at once out.
//!
//! What people write is a [`draft`]: [`mod@file`] makes one of a TOML text, the shell puts the
//! flags on top, and [`draft::Draft::finish`] makes the [`Config`] of it, or reports all
//! that is wrong at once. Nothing else in pgsteer sees that text. The shell reads the files
//! that the configuration names.
//!
//! [`Config`]: pgsteer_core::settings::Config

#![warn(missing_docs)]

pub mod address;
pub mod conflict;
pub mod draft;
pub mod error;
pub mod file;
mod finish;
pub mod lag;
pub mod limits;
pub mod plain;
pub mod problem;
pub mod purpose;
pub mod suggest;
pub mod summary;
pub mod words;
