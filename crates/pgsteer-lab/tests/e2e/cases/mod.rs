//! All tests, in the order in which they are played.

mod crash;
mod newcomer;
mod switchover;

use crate::stage::{Cluster, Play};

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub cluster: Cluster,
    pub name: &'static str,
    pub play: Play,
    /// It pulls cables, which takes network namespaces and therefore root.
    pub needs_cables: bool,
}

/// `cluster: module::test, ...`, with the names as they are written.
macro_rules! cases {
    ($($cluster:ident: $($name:path),+ $(,)?;)+) => {
        vec![$($(Case {
            cluster: Cluster::$cluster,
            name: stringify!($name),
            play: $name,
            needs_cables: false,
        }),+),+]
    };
}

pub fn all() -> Vec<Case> {
    cases! {
        Old:
            newcomer::one_address_of_patroni_is_enough,
            switchover::no_client_is_turned_away,
            crash::clients_wait_for_the_successor;
        New:
            newcomer::one_address_of_patroni_is_enough,
            switchover::no_client_is_turned_away,
            crash::clients_wait_for_the_successor;
    }
}
