//! Acts that are SQL on one member.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::member::SUPERUSER;
use crate::patience::wait_for;
use crate::wire::Session;

/// `PAUSE` waits for the sessions that are in progress.
const CONSOLE_LIMIT: Duration = Duration::from_secs(20);

impl Lab {
    /// Runs a command in the admin console of the member's PgBouncer: `PAUSE`, `RESUME`, `SET ...`.
    pub fn pgbouncer_console(&self, name: &str, command: &str) -> Result<()> {
        let console = self.member(name)?.pgbouncer_addr();
        let mut session = Session::connect(console, SUPERUSER, "pgbouncer", CONSOLE_LIMIT)
            .with_context(|| format!("no console of PgBouncer at {console}"))?;
        session.query(command, CONSOLE_LIMIT).with_context(|| format!("{name}: {command}"))?;
        Ok(())
    }

    /// Promotes a replica without Patroni. A running Patroni would undo it, so kill all Patronis
    /// first. The cluster then has two primaries.
    pub fn promote_by_hand(&self, name: &str) -> Result<()> {
        self.sql(name, "SELECT pg_promote(true, 15)")?;
        wait_for("the promotion", Duration::from_secs(15), || {
            let there = self.writable().iter().any(|member| member.name == name);
            there.then_some(()).ok_or_else(|| format!("{name} takes no writes"))
        })
    }
}
