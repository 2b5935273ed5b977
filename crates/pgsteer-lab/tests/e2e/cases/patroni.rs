//! Patroni alone fails on the primary. PostgreSQL and writes continue until another member is
//! primary.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

pub fn writes_continue_without_patroni_until_another_has_the_lock(lab: &Lab) -> Result<()> {
    patroni_fails(lab, Lab::kill_patroni)
}

pub fn writes_continue_beside_a_frozen_patroni_until_another_has_the_lock(lab: &Lab) -> Result<()> {
    patroni_fails(lab, Lab::freeze_patroni)
}

fn patroni_fails(lab: &Lab, act: fn(&Lab, &str) -> Result<()>) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let mut kept = Kept::several(steer.doors.write, 4)?;
    let (every, limit) = (Duration::from_millis(50), Duration::from_secs(20));
    let writes = Traffic::writes(lab, steer.doors.write, every, limit)?;
    act(lab, &old)?;
    steer.wait_for("patroni_lost to be shown", Duration::from_secs(10), |steer| {
        steer.gate("write", &old).is_ok_and(|gate| gate.is("open", "patroni_lost"))
    })?;
    std::thread::sleep(Duration::from_millis(500));
    for session in &mut kept {
        session.ensure_alive()?;
    }
    // The old primary gets no notice of the change and keeps taking writes.
    lab.expire_lock()?;
    let new = truth.wait_for_successor(&old, Duration::from_secs(40))?.member;
    steer.wait_for_gate("write", &new, "open", Duration::from_secs(10))?;
    let moved = Instant::now();
    for session in &mut kept {
        session.ensure_ended()?;
    }
    ensure!(truth.writable().len() == 2, "there should be two primaries: {:?}", truth.log());
    std::thread::sleep(Duration::from_secs(1));
    let writes = writes.finish()?;
    writes.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    let old_ip = lab.member(&old)?.ip.to_string();
    let late = writes.done().filter(|(each, by)| each.began > moved && *by == old_ip).count();
    ensure!(late == 0, "{late} writes went to the old primary after the gate had moved");
    ensure!(writes.done_by(lab, &new)? > 0, "{writes}");
    Ok(())
}
