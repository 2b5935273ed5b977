//! The configuration as people write it: a file, flags and the environment in; [`Config`] or all
//! errors at once out.
//!
//! Each [`key`] is one entry in the file of its section ([`sections`]): name, what it accepts, default,
//! help, flags. The reader of the [`mod@file`], the flags, the example file and the reference are made
//! of these entries.
//!
//! The text becomes a [`written::Draft`], the shell puts the flags on top, and
//! [`written::Draft::finish`] makes the [`Config`] of it, or reports all that is wrong at once. The
//! shell reads the files that the configuration names.
//!
//! [`Config`]: pgsteer_core::settings::Config

#![warn(missing_docs)]

pub mod address;
pub mod conflict;
pub mod document;
pub mod error;
pub mod file;
mod finish;
pub mod key;
pub mod kinds;
pub mod lag;
pub mod limits;
pub mod plain;
pub mod problem;
pub mod purpose;
pub mod range;
pub mod sections;
pub mod suggest;
pub mod summary;
pub mod written;
