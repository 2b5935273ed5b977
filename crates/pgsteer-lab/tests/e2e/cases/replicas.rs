//! The replicas that serve readers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::clients::{pg_dump, psql, run, run_failing};
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::{Traffic, Tries};

const SOON: Duration = Duration::from_secs(20);

/// Traffic of readers for a while.
fn reads_for(steer: &Steer, time: Duration) -> Result<Tries> {
    let every = Duration::from_millis(20);
    let reads = Traffic::reads(steer.doors.read, every, Duration::from_secs(20));
    std::thread::sleep(time);
    reads.finish()
}

/// A session of the read service at this member.
pub(super) fn reader_at(lab: &Lab, steer: &Steer, member: &str) -> Result<Kept> {
    let ip = lab.member(member)?.ip.to_string();
    let readers = Kept::several(steer.doors.read, 4)?;
    readers
        .into_iter()
        .find(|reader| reader.member_ip() == ip)
        .context("no session reached that member")
}

pub(super) fn two_replicas(lab: &Lab) -> Result<[String; 2]> {
    let names: Vec<String> = lab.replicas()?.iter().map(|member| member.name.clone()).collect();
    names.try_into().ok().context("the lab has not two replicas")
}

/// New readers get other members, and old sessions continue.
pub(super) fn is_drained(
    lab: &Lab,
    steer: &Steer,
    member: &str,
    old: &mut Kept,
    why: &str,
) -> Result<()> {
    steer.wait_for_gate("read", member, "draining", SOON)?;
    ensure!(steer.gate("read", member)?.is("draining", why), "{:?}", steer.gate("read", member));
    let reads = reads_for(steer, Duration::from_millis(400))?;
    reads.ensure_none_refused()?;
    ensure!(reads.cut().is_empty() && reads.done_by(lab, member)? == 0, "{reads}");
    old.ensure_alive()
}

pub(super) fn is_back(lab: &Lab, steer: &Steer, member: &str, old: &mut Kept) -> Result<()> {
    steer.wait_for_gate("read", member, "open", SOON)?;
    reader_at(lab, steer, member)?.ensure_alive()?;
    old.ensure_alive()
}

pub fn a_lagging_replica_is_drained_and_returns(lab: &Lab) -> Result<()> {
    let limit = "lag_bytes_max = '1MB'";
    let steer = Steer::start(lab, &Wanted { read: limit, ..Wanted::default() })?;
    let [lagging, _] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &lagging)?;
    let primary = lab.primary()?.name.clone();
    lab.wal_replay_pause(&lagging)?;
    lab.sql(&primary, "DROP TABLE IF EXISTS ballast")?;
    lab.sql(
        &primary,
        "CREATE TABLE ballast AS SELECT repeat('x', 500) FROM generate_series(1, 8000)",
    )?;
    is_drained(lab, &steer, &lagging, &mut old, "lag_bytes")?;
    lab.wal_replay_resume(&lagging)?;
    is_back(lab, &steer, &lagging, &mut old)
}

pub fn a_replica_tagged_noloadbalance_is_drained_and_returns(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let [tagged, _] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &tagged)?;
    lab.set_noloadbalance(&tagged, true)?;
    is_drained(lab, &steer, &tagged, &mut old, "noloadbalance")?;
    lab.set_noloadbalance(&tagged, false)?;
    is_back(lab, &steer, &tagged, &mut old)
}

/// PostgreSQL of the replica runs on without its Patroni, as in Patroni's maintenance. While the
/// pause lasts it serves on.
pub fn a_replica_that_left_the_member_list_is_drained_and_returns(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let [leaving, _] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &leaving)?;
    lab.pause()?;
    lab.stop_patroni(&leaving)?;
    steer.wait_for("the loss of its Patroni", SOON, |steer| {
        steer.gate("read", &leaving).is_ok_and(|gate| gate.is("open", "sql_suffices"))
    })?;
    // Longer than the interval at which pgsteer reads the member list.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(steer.gate("read", &leaving)?.is("open", "sql_suffices"));
    lab.resume()?;
    is_drained(lab, &steer, &leaving, &mut old, "left")?;
    lab.start_patroni(&leaving)?;
    is_back(lab, &steer, &leaving, &mut old)
}

pub fn a_crash_of_a_replica_refuses_no_reader(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let truth = Truth::watch(lab)?;
    let [crashing, staying] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &staying)?;
    let every = Duration::from_millis(20);
    let reads = Traffic::reads(steer.doors.read, every, Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(300));
    lab.crash(&crashing)?;
    steer.wait_for_gate("read", &crashing, "shut", SOON)?;
    std::thread::sleep(Duration::from_millis(300));
    let reads = reads.finish()?;
    reads.ensure_none_refused()?;
    reads.ensure_cut_only_with(&crashing, &truth)?;
    ensure!(reads.done_by(lab, &staying)? > 0);
    old.ensure_alive()
}

/// During a smart shutdown PostgreSQL refuses every new session with 57P03, its old sessions
/// continue, and Patroni reports a healthy member.
pub fn a_replica_in_smart_shutdown_gets_no_reader_and_keeps_its_sessions(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let [stopping, staying] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &stopping)?;
    let pid_file = lab.member(&stopping)?.data_folder().join("postmaster.pid");
    let pid = std::fs::read_to_string(pid_file)?.lines().next().context("no pid")?.to_owned();
    let signal = |name: &str| run(Command::new("kill").args([name, pid.as_str()]));
    signal("-TERM")?;
    // No client connects there: pgsteer finds out by itself.
    steer.wait_for("the refusal to be found out", Duration::from_secs(5), |steer| {
        steer.gate("read", &stopping).is_ok_and(|gate| gate.is("shut", "no_new_sessions"))
    })?;
    let reads = reads_for(&steer, Duration::from_millis(400))?;
    reads.ensure_none_refused()?;
    ensure!(reads.cut().is_empty() && reads.done_by(lab, &staying)? > 0, "{reads}");
    old.ensure_alive()?;
    // The shutdown does not wait for pgsteer's own session.
    steer.wait_for("the end of the tether", SOON, |steer| {
        steer.gate("read", &stopping).is_ok_and(|gate| gate.is("shut", "down"))
    })?;
    old.ensure_alive()?;
    signal("-INT")?;
    steer.wait_for_gate("read", &stopping, "open", Duration::from_secs(40))?;
    Ok(())
}

pub fn without_replicas_the_primary_serves_reads_if_configured(lab: &Lab) -> Result<()> {
    let fallback = "fallback = 'primary'";
    let steer = Steer::start(lab, &Wanted { read: fallback, ..Wanted::default() })?;
    let truth = Truth::watch(lab)?;
    let primary = lab.primary()?.name.clone();
    let every = Duration::from_millis(20);
    let reads = Traffic::reads(steer.doors.read, every, Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(300));
    let replicas = two_replicas(lab)?;
    for replica in &replicas {
        lab.crash(replica)?;
    }
    steer.wait_for_gate("read", &primary, "open", SOON)?;
    ensure!(steer.gate("read", &primary)?.is("open", "fallback"));
    let mut stand_in = Kept::open(steer.doors.read)?;
    ensure!(stand_in.member_ip() == lab.member(&primary)?.ip.to_string());
    let reads = reads.finish()?;
    reads.ensure_none_refused()?;
    reads.ensure_cut_only_with(&replicas[1], &truth)?;
    for replica in &replicas {
        lab.revive(replica)?;
    }
    for replica in &replicas {
        steer.wait_for_gate("read", replica, "open", Duration::from_secs(40))?;
    }
    // Sessions at the primary stay there, and it gets no new ones.
    steer.wait_for("the read gate of the primary to close", SOON, |steer| {
        !steer.gates().open("read").contains(&primary.as_str())
    })?;
    let reads = reads_for(&steer, Duration::from_millis(400))?;
    ensure!(reads.cut().is_empty() && reads.done_by(lab, &primary)? == 0, "{reads}");
    stand_in.ensure_alive()
}

/// All connections of a `pg_dump -j` use the snapshot of the first one, which exists at one member
/// only.
pub fn pg_dump_with_jobs_works_with_sticky_addresses(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    let tables = "DROP SCHEMA IF EXISTS dumped CASCADE; CREATE SCHEMA dumped; \
                  CREATE TABLE dumped.a AS SELECT generate_series(1, 20000) AS n; \
                  CREATE TABLE dumped.b AS TABLE dumped.a; CREATE TABLE dumped.c AS TABLE dumped.a; \
                  CREATE TABLE dumped.d AS TABLE dumped.a";
    run(psql(lab, steer.doors.write).args(["-c", tables]))?;
    // Both replicas must have the tables.
    std::thread::sleep(Duration::from_secs(2));
    let folder = lab.folder().join("dumped");
    let dump = |steer: &Steer| {
        let _ = std::fs::remove_dir_all(&folder);
        let mut dump = pg_dump(lab, steer.doors.read);
        dump.args(["-n", "dumped", "-Fd", "-j", "4", "-f"]).arg(&folder);
        dump
    };
    let words = run_failing(&mut dump(&steer))?;
    ensure!(words.contains("snapshot"), "{words}");
    let stick = Wanted { read: "stick = 'address'", ..Wanted::default() };
    ensure!(steer.reload(lab, &stick)? == "reloaded");
    for _ in 0..3 {
        run(&mut dump(&steer))?;
        ensure!(std::fs::read_dir(&folder)?.count() > 4);
    }
    Ok(())
}

pub fn read_sessions_at_a_promoted_replica_end_if_configured(lab: &Lab) -> Result<()> {
    let end = "on_promotion = 'end'";
    let steer = Steer::start(lab, &Wanted { read: end, ..Wanted::default() })?;
    let other = Wanted { name: "other", shift: 100, ..Wanted::default() };
    let keeping = Steer::start(lab, &other)?;
    let [promoted, _] = two_replicas(lab)?;
    let mut ended = reader_at(lab, &steer, &promoted)?;
    let mut kept = reader_at(lab, &keeping, &promoted)?;
    lab.order_switchover(Some(&promoted))?.wait()?;
    steer.wait_for_gate("write", &promoted, "open", SOON)?;
    steer.wait_for("the sessions to be ended", SOON, |steer| {
        steer.log().contains("sessions ended")
    })?;
    kept.ensure_alive()?;
    ensure!(ended.ensure_alive().is_err(), "it goes on at the primary");
    Ok(())
}
