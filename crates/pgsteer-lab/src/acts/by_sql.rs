//! Acts that are SQL on one member.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::patience::wait_for;

impl Lab {
    /// Promotes a replica behind Patroni's back. A living Patroni would undo it, so kill all of them
    /// first; then there are two primaries.
    pub fn promote_by_hand(&self, name: &str) -> Result<()> {
        self.sql(name, "SELECT pg_promote(true, 15)")?;
        wait_for("the promotion", Duration::from_secs(15), || {
            let there = self.writable().iter().any(|member| member.name == name);
            there.then_some(()).ok_or_else(|| format!("{name} takes no writes"))
        })
    }
}
