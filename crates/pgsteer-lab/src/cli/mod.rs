//! The commands of the binary, one file each.

pub mod act;
pub mod channel;
pub mod demo;
pub mod up;
