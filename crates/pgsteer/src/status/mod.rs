//! `pgsteer status`: shows the status document of a running pgsteer to people.

mod human;
pub mod picture;
mod table;
