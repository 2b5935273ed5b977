//! Signals of an operator: stop, and reload the file.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Signal};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted, file_of};

const SOON: Duration = Duration::from_secs(10);

/// New clients are refused, sessions may finish, and the last ones get an error before they end.
pub fn after_sigterm_sessions_may_finish_and_are_then_ended(lab: &Lab) -> Result<()> {
    let grace = "shutdown_grace_seconds = 2";
    let mut steer = Steer::start(lab, &Wanted { proxy: grace, ..Wanted::default() })?;
    let mut sessions = Kept::several(steer.doors.write, 3)?;
    let began = Instant::now();
    steer.signal(Signal::TERM)?;
    steer.wait_for("the door to be shut", SOON, |steer| {
        std::net::TcpStream::connect(steer.doors.write).is_err()
    })?;
    ensure!(steer.status()?["stopping"] == true, "the status page does not show the stop");
    for session in &mut sessions {
        session.ensure_alive()?;
    }
    drop(sessions.pop());
    let status = steer.wait(SOON)?;
    ensure!(status.success(), "{status}");
    for session in &mut sessions {
        let words = session.ensure_ended()?;
        ensure!(words.contains("57P01") && words.contains("shutting down"), "{words}");
    }
    ensure!(began.elapsed() >= Duration::from_secs(2), "after {:?}", began.elapsed());
    Ok(())
}

pub fn sigterm_without_sessions_is_quick(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    steer.signal(Signal::TERM)?;
    let status = steer.wait(SOON)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Services are added, removed and changed; sessions of other services are not affected.
pub fn sighup_keeps_sessions_that_the_new_file_still_allows(lab: &Lab) -> Result<()> {
    let first = Wanted::default();
    let mut steer = Steer::start(lab, &first)?;
    let (mut writer, mut reader) = (Kept::open(steer.doors.write)?, Kept::open(steer.doors.read)?);
    let ip = lab.host_ip();
    let reports = format!("[services.reports]\nlisten = '{ip}:5002'\nrole = 'replica'\n");
    let second = Wanted { more: &reports, read: "hold_seconds = 1", ..first };
    ensure!(steer.reload(lab, &second)? == "reloaded");
    let mut reporter = Kept::open((ip, 5002).into())?;
    for session in [&mut writer, &mut reader, &mut reporter] {
        session.ensure_alive()?;
    }
    let third = Wanted { read: "hold_seconds = 1\ntags = { nowhere = 'yes' }", ..first };
    ensure!(steer.reload(lab, &third)? == "reloaded");
    let words = reporter.ensure_ends(Duration::from_secs(1))?;
    ensure!(words.contains("57P01") && words.contains("service was removed"), "{words}");
    ensure!(Kept::open((ip, 5002).into()).is_err(), "the door of a removed service is open");
    // The new limit applies to new readers, and keeps the old one.
    let refused = Session::connect(steer.doors.read, SUPERUSER, "postgres", SOON);
    let words = refused.err().context("a reader without the tag was let in")?.to_string();
    ensure!(words.contains("57P03"), "{words}");
    for session in [&mut writer, &mut reader] {
        session.ensure_alive()?;
    }
    ensure!(steer.reload(lab, &first)? == "reloaded");
    Kept::open(steer.doors.read)?.ensure_alive()?;
    writer.ensure_alive()
}

pub fn sighup_with_a_broken_file_changes_nothing(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    let mut writer = Kept::open(steer.doors.write)?;
    let file = file_of(lab, "pgsteer");
    std::fs::write(&file, "[patroni]\nurl = 'http://x'\n[proxy]\nworkers = 'many'\n")?;
    let words = steer.reload_as_it_is()?;
    ensure!(words.contains("the old configuration stays"), "{words}");
    // Each error has a line of its own.
    for wrong in ["patroni.url:", "proxy.workers:"] {
        steer.wait_for_log(wrong, Duration::from_secs(5))?;
    }
    std::fs::remove_file(&file)?;
    let words = steer.reload_as_it_is()?;
    ensure!(words.contains("cannot read the file"), "{words}");
    writer.ensure_alive()?;
    Kept::open(steer.doors.write)?.ensure_alive()?;
    Kept::open(steer.doors.read)?.ensure_alive()?;
    // A port that another program has.
    let taken = std::net::TcpListener::bind((lab.host_ip(), 5002))?;
    let more = format!("[services.x]\nlisten = '{}'\nrole = 'replica'\n", taken.local_addr()?);
    let words = steer.reload(lab, &Wanted { more: &more, ..Wanted::default() })?;
    ensure!(words.contains("service x cannot listen on"), "{words}");
    writer.ensure_alive()?;
    ensure!(steer.reload(lab, &Wanted::default())? == "reloaded");
    Kept::open(steer.doors.write)?.ensure_alive()
}
