//! Wire formats: bytes in, meaning out, and the other way round. No sockets.

pub mod error;
pub mod etcd;
pub mod excerpt;
pub mod login;
pub mod memory;
pub mod patroni;
pub mod startup;
