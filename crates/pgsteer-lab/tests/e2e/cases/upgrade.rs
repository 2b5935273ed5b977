//! A new process takes over from the running one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Truth};
use serde_json::Value;

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

/// Clients that connect all the time.
const EVERY: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_secs(10);

/// How many times in a row the process is replaced.
const UPGRADES: usize = 5;

/// A limit of open files that is enough for few sessions beside what pgsteer reserves.
const FILES_MAX: u32 = 280;

pub fn no_session_and_no_new_client_notices(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let mut kept = Kept::several(steer.doors.write, 20)?;
    kept.extend(Kept::several(steer.doors.read, 20)?);
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, LIMIT)?;
    let reads = Traffic::reads(steer.doors.read, EVERY, LIMIT);
    let mut busy = Session::connect(steer.doors.write, SUPERUSER, "postgres", LIMIT)?;
    let before = events(&steer)?;
    let long = std::thread::spawn(move || busy.query("SELECT pg_sleep(4)", LIMIT));
    let mut pid = steer.pid();
    for number in 1..=UPGRADES {
        let (new, took) = steer.upgrade(pid)?;
        println!("upgrade {number}: {took:.0?} from the signal to the end of the old process");
        pid = new;
        for session in &mut kept {
            session.ensure_alive()?;
        }
    }
    let slept = long.join().ok().context("the thread of the long query")?;
    slept.context("a query that ran during the upgrades was lost")?;
    let (writes, reads) = (writes.finish()?, reads.finish()?);
    writes.ensure_none_refused()?;
    reads.ensure_none_refused()?;
    ensure!(writes.cut().is_empty() && reads.cut().is_empty(), "{writes}, {reads}");
    writes.ensure_all_kept(lab)?;
    let status = steer.status()?;
    let services = status["clusters"][0]["services"].as_array().context("no services")?;
    let sessions = services.iter().filter_map(|service| service["sessions"].as_u64());
    ensure!(sessions.sum::<u64>() == 40, "{status:#}");
    let after = events(&steer)?;
    ensure!(!before.is_empty() && after == before, "the history: {before:?}, then {after:?}");
    Ok(())
}

/// As many sessions as the limit of open files permits, and a client that waits for one of them to end.
pub fn with_few_open_files_every_session_goes_on(lab: &Lab) -> Result<()> {
    let proxy = "sessions_per_address_max = 10000";
    let wanted = Wanted { proxy, files_max: Some(FILES_MAX), ..Wanted::default() };
    let steer = Steer::start(lab, &wanted)?;
    let sessions_max = sessions_max(&steer)?;
    let mut kept = Kept::several(steer.doors.write, sessions_max - 1)?;
    let mut pid = steer.pid();
    let before = open_files(pid)?;
    for _ in 0..UPGRADES {
        pid = steer.upgrade(pid)?.0;
        for session in &mut kept {
            session.ensure_alive()?;
        }
    }
    let after = open_files(pid)?;
    ensure!(after <= before + 10, "{before} open files, {after} after {UPGRADES} upgrades");
    // One more fits, and the next one is refused at once with the reason.
    kept.push(Kept::open(steer.doors.write)?);
    let refused = Session::connect(steer.doors.write, SUPERUSER, "postgres", LIMIT).err();
    let refused = refused.context("a session above the limit")?.to_string();
    ensure!(refused.contains("sessions_max"), "{refused}");
    kept.pop();
    steer.wait_for("one of its sessions to end", LIMIT, |steer| {
        Session::connect(steer.doors.write, SUPERUSER, "postgres", LIMIT).is_ok()
    })
}

/// The limit that pgsteer reports to have set itself.
fn sessions_max(steer: &Steer) -> Result<usize> {
    let messages = steer.messages();
    let of = |message: &String| message.strip_prefix("at most ")?.split(' ').next()?.parse().ok();
    messages.iter().find_map(of).with_context(|| format!("no limit is reported: {messages:?}"))
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The events of the history.
fn events(steer: &Steer) -> Result<Vec<String>> {
    let history = steer.page("/api/v1/history?range=10m")?;
    let history: Value = serde_json::from_str(&history)?;
    let events = history["events"].as_array().context("no events")?;
    Ok(events.iter().map(|event| event["text"].to_string()).collect())
}

/// The order of the switchover comes first, so the upgrade meets every stage of it.
pub fn in_a_switchover_no_client_is_refused(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let old = lab.primary()?.name.clone();
    let truth = Truth::watch(lab)?;
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, LIMIT)?;
    std::thread::sleep(Duration::from_millis(300));
    let mut pid = steer.pid();
    std::thread::scope(|scope| -> Result<()> {
        let switching = scope.spawn(|| lab.switchover(None).map(|member| member.name.clone()));
        for _ in 0..3 {
            pid = steer.upgrade(pid)?.0;
            std::thread::sleep(Duration::from_millis(200));
        }
        let new = switching.join().ok().context("the thread of the switchover")??;
        steer.wait_for_gate("write", &new, "open", LIMIT)
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let writes = writes.finish()?;
    writes.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    writes.ensure_all_kept(lab)?;
    writes.ensure_cut_only_with(&old, &truth)
}
