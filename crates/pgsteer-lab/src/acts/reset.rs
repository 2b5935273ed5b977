//! Resets the lab to health after any acts.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::files::pgbouncer_ini;
use crate::lab::Lab;
use crate::member::Member;
use crate::options::Network;
use crate::patience::wait_for;
use crate::processes::Part;

/// Longer than the leader lock's ttl, so that a cluster without a primary can still elect one.
const PATIENCE: Duration = Duration::from_secs(45);

impl Lab {
    /// Undoes all acts and waits until the cluster is healthy. A member that does not recover by
    /// itself is rebuilt.
    pub fn reset(&self) -> Result<()> {
        if self.reset_within(PATIENCE).is_ok() {
            return Ok(());
        }
        for ailment in self.ailments() {
            // Without a primary there is no source for a copy, and the ailment belongs to no single
            // member.
            if self.member(&ailment.member).is_ok() {
                self.reinit(&ailment.member)?;
            }
        }
        self.wait_healthy(PATIENCE).context("reset has failed")
    }

    /// Same as [`Lab::reset`] with a time limit, for callers that start a new lab instead of
    /// waiting longer.
    pub fn reset_within(&self, limit: Duration) -> Result<()> {
        for member in self.members() {
            self.undo_acts(member)
                .with_context(|| format!("cannot undo the acts on {}", member.name))?;
        }
        wait_for("a Patroni to answer", Duration::from_secs(15), || {
            let paused = self.is_paused().map_err(|error| format!("{error:#}"))?;
            if paused {
                self.resume().map_err(|error| format!("{error:#}"))?;
            }
            Ok(())
        })?;
        self.wait_healthy(limit)
    }

    /// Deletes the member's data; Patroni then copies it from the primary.
    pub fn reinit(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        self.kill_parts(name, &[Part::Patroni, Part::Postgres], "stop")?;
        remove_data(member)?;
        self.start_part(name, Part::Patroni)
    }

    fn undo_acts(&self, member: &Member) -> Result<()> {
        let name = &member.name;
        if self.options.network == Network::Namespaces {
            self.heal(name)?;
        }
        self.continue_parts(name, &Part::ALL_BUT_ETCD, "thaw")?;
        let yml = std::fs::read_to_string(member.folder.join("patroni.yml")).unwrap_or_default();
        if yml.contains("noloadbalance: true") {
            self.write_patroni_yml(member, false)?;
            // A stopped Patroni reads the file when it starts below.
            let running = self.launcher.children.is_running(member, Part::Patroni);
            if running {
                self.set_noloadbalance(name, false)?;
            }
        }
        let ini = std::fs::read_to_string(member.pgbouncer_ini()).unwrap_or_default();
        if ini != pgbouncer_ini(member, member.postgres_addr()) {
            self.kill_parts(name, &[Part::PgBouncer], "stop PgBouncer")?;
            self.lead_pgbouncer(name, member.postgres_addr())?;
        }
        for part in [Part::Etcd, Part::Patroni, Part::PgBouncer] {
            self.start_part(name, part)?;
        }
        Ok(())
    }
}

fn remove_data(member: &Member) -> Result<()> {
    let data = member.data_folder();
    // A killed postmaster leaves a System V shared memory segment. Line 7 of its pid file has the
    // key and the id.
    if let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid"))
        && let Some(line) = text.lines().nth(6)
        && let Some(segment) = line.split_whitespace().nth(1)
    {
        let _ = Command::new("ipcrm").args(["-m", segment]).output();
    }
    if !data.exists() {
        return Ok(());
    }
    std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))
}
