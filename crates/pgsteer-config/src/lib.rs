//! The configuration as users write it: converts a file, flags and the environment to a [`Config`],
//! or reports all errors at once.
//!
//! Each [`key`] is one entry in the file of its section ([`sections`]): name, accepted values,
//! default, help, flags. The reader of the [`mod@file`], the flags, the example file and the
//! reference are generated from these entries.
//!
//! The text becomes a [`written::Draft`], the shell adds the flags, and [`written::Draft::finish`]
//! converts it to the [`Config`] or reports all errors at once. The shell reads the files that the
//! configuration names.
//!
//! [`Config`]: pgsteer_core::settings::Config

#![warn(missing_docs)]

pub mod address;
mod api;
pub mod conflict;
pub mod document;
pub mod error;
pub mod field;
pub mod file;
mod finish;
pub mod key;
pub mod kinds;
pub mod lag;
pub mod limits;
mod numbers;
pub mod origin;
pub mod plain;
pub mod problem;
pub mod purpose;
pub mod range;
pub mod sections;
pub mod suggest;
pub mod summary;
pub mod written;
