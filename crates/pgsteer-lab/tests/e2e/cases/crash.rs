//! The primary crashes without closing its connections.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

/// The leader lock expires, a replica is promoted, and clients that connect meanwhile have waited.
pub fn clients_wait_for_the_new_primary(lab: &Lab) -> Result<()> {
    primary_dies(lab, &Steer::start(lab, &Wanted::default())?)
}

/// Same test with Patroni alone, without a check login.
pub fn clients_wait_for_the_new_primary_without_a_check_login(lab: &Lab) -> Result<()> {
    let steer = Steer::newcomer(lab)?;
    steer.wait_until_ready()?;
    primary_dies(lab, &steer)
}

fn primary_dies(lab: &Lab, steer: &Steer) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let mut kept = Kept::several(steer.doors.write, 3)?;
    let mut readers = Kept::several(steer.doors.read, 4)?;
    let (every, limit) = (Duration::from_millis(200), Duration::from_secs(40));
    let writes = Traffic::writes(lab, steer.doors.write, every, limit)?;
    let reads = Traffic::reads(steer.doors.read, every, limit);
    // A table that only the old primary has would be lost with it.
    for replica in lab.replicas()? {
        wait_for_table(lab, &replica.name)?;
    }
    lab.crash(&old)?;
    for session in &mut kept {
        session.ensure_ended()?;
    }
    lab.expire_lock()?;
    let new = truth.wait_for_successor(&old, Duration::from_secs(40))?;
    steer.wait_for_gate("write", &new.member, "open", Duration::from_secs(10))?;
    std::thread::sleep(Duration::from_millis(500));
    let (writes, reads) = (writes.finish()?, reads.finish()?);
    writes.ensure_none_refused()?;
    reads.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    ensure!(writes.done_by(lab, &new.member)? > 0, "{writes}");
    writes.ensure_cut_only_with(&old, &truth)?;
    ensure!(reads.cut().is_empty(), "{reads}");
    for session in &mut readers {
        session.ensure_alive()?;
    }
    Ok(())
}

fn wait_for_table(lab: &Lab, replica: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.sql(replica, "SELECT 1 FROM pg_class WHERE relname = 'tries'")?.is_empty() {
        ensure!(Instant::now() < deadline, "{replica} has no table");
    }
    Ok(())
}
