//! PostgreSQL alone fails on the primary, and Patroni repairs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::steer::{Steer, Wanted};
use crate::traffic::{Traffic, Tries};

const EVERY: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(40);

/// Writes during `act`, and until they succeed again.
fn writes_during(lab: &Lab, act: impl Fn(&str) -> Result<()>) -> Result<Tries> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, LIMIT)?;
    std::thread::sleep(Duration::from_millis(300));
    act(&old)?;
    steer.wait_for("a write gate to be open", LIMIT, |steer| {
        steer.gates().open("write").len() == 1
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let writes = writes.finish()?;
    writes.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    writes.ensure_cut_only_with(&old, &truth)?;
    Ok(writes)
}

pub fn a_restart_only_makes_clients_wait(lab: &Lab) -> Result<()> {
    let old = lab.primary()?.name.clone();
    let writes = writes_during(lab, |name| lab.restart_postgres(name))?;
    ensure!(lab.primary()?.name == old);
    writes.ensure_all_kept(lab)
}

pub fn a_sudden_stop_only_makes_clients_wait(lab: &Lab) -> Result<()> {
    writes_during(lab, |name| {
        lab.stop_postgres(name)?;
        // Patroni may start it again or promote another member.
        lab.wait_healthy(LIMIT)
    })
    .map(drop)
}

/// A hung postmaster: the kernel accepts connections, and PostgreSQL does not answer.
pub fn a_hang_only_makes_clients_wait(lab: &Lab) -> Result<()> {
    let writes = writes_during(lab, |name| {
        lab.freeze_postgres(name)?;
        std::thread::sleep(Duration::from_secs(3));
        lab.thaw_postgres(name)
    })?;
    ensure!(writes.cut().is_empty(), "{writes}");
    Ok(())
}
