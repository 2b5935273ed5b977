//! The primary dies without a word.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

/// The leader lock runs out, a replica is promoted, and whoever came meanwhile has waited.
pub fn clients_wait_for_the_successor(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let mut kept = Kept::several(steer.doors.write, 3)?;
    let mut readers = Kept::several(steer.doors.read, 4)?;
    let (every, limit) = (Duration::from_millis(200), Duration::from_secs(40));
    let writes = Traffic::writes(lab, steer.doors.write, every, limit)?;
    let reads = Traffic::reads(steer.doors.read, every, limit);
    lab.crash(&old)?;
    for session in &mut kept {
        session.ensure_ended()?;
    }
    lab.expire_lock()?;
    let new = truth.wait_for_successor(&old, Duration::from_secs(40))?;
    let waited_from = Instant::now();
    steer.wait_for_gate("write", &new.member, "open", Duration::from_secs(10))?;
    println!("open {:?} after the truth saw it", waited_from.elapsed());
    std::thread::sleep(Duration::from_millis(500));
    let (writes, reads) = (writes.finish()?, reads.finish()?);
    writes.ensure_none_refused()?;
    reads.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    ensure!(writes.done_by(lab, &new.member)? > 0, "{writes}");
    ensure!(writes.cut().len() <= 2, "{writes}");
    ensure!(reads.cut().is_empty(), "{reads}");
    for session in &mut readers {
        session.ensure_alive()?;
    }
    Ok(())
}
