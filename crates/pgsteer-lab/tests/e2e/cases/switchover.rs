//! A planned switchover: clients may wait, and nothing else.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

/// Often enough that several clients arrive in every stage of it.
const EVERY: Duration = Duration::from_millis(40);

/// With a login for the tether, and a usual connect timeout.
pub fn no_client_is_refused(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let old = lab.primary()?.ip.to_string();
    let mut kept = Kept::several(steer.doors.write, 3)?;
    let mut readers = Kept::several(steer.doors.read, 4)?;
    under_load(lab, &steer, Duration::from_secs(10))?;
    for session in &mut kept {
        ensure!(session.member_ip() == old);
        session.ensure_ended()?;
    }
    let mut fresh = Kept::open(steer.doors.write)?;
    ensure!(fresh.member_ip() == lab.primary()?.ip.to_string());
    fresh.ensure_alive()?;
    // Sessions at the promoted member may end or continue; those at the third member must continue.
    let third = third_member(lab, &old)?;
    for session in readers.iter_mut().filter(|session| session.member_ip() == third) {
        session.ensure_alive()?;
    }
    Ok(())
}

/// Writers and readers connect all the time, during the switchover and after it.
pub fn under_load(lab: &Lab, steer: &Steer, limit: Duration) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, limit)?;
    let reads = Traffic::reads(steer.doors.read, EVERY, limit);
    std::thread::sleep(Duration::from_millis(300));
    let new = lab.switchover(None)?.name.clone();
    steer.wait_for_gate("write", &new, "open", Duration::from_secs(10))?;
    std::thread::sleep(Duration::from_millis(500));
    let (writes, reads) = (writes.finish()?, reads.finish()?);
    writes.ensure_none_refused()?;
    reads.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    writes.ensure_all_kept(lab)?;
    ensure!(writes.done_by(lab, &old)? > 0 && writes.done_by(lab, &new)? > 0, "{writes}");
    writes.ensure_cut_only_with(&old, &truth)
}

fn third_member(lab: &Lab, old: &str) -> Result<String> {
    let new = lab.primary()?.ip.to_string();
    let mut ips = lab.members().iter().map(|member| member.ip.to_string());
    Ok(ips.find(|ip| ip != old && *ip != new).unwrap_or_default())
}
