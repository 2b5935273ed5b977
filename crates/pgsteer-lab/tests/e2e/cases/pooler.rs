//! PgBouncer on every member, with services that go through it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pgsteer_lab::{CHECK, Lab, Truth};
use serde_json::Value;

use crate::clients;
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

const EVERY: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(5);
/// pgsteer replaces its session through PgBouncer by a new one after five to six seconds.
const FRESH: Duration = Duration::from_secs(9);
/// Longer than `server_login_retry` (15 s), for which PgBouncer delays logins.
const RETRIED: Duration = Duration::from_secs(25);

/// With a check login the tether notices the stop; without one the next probe of the port does.
pub fn a_stopped_pooler_only_makes_clients_wait(lab: &Lab) -> Result<()> {
    let name = lab.primary()?.name.clone();
    let pooled = pooled(lab, "shut");
    let wanted = Wanted { write: &pooled, read: &pooled, ..Wanted::default() };
    let steer = Steer::start(lab, &wanted)?;
    let waited_ms = ms_between(&steer, &name)?;
    report(&format!("at the start the pooler's answer came {waited_ms} ms after the primary's"));
    ensure!(waited_ms < 500, "pgsteer waited {waited_ms} ms for the pooler's answer");
    let knocking = Wanted { name: "knocking", shift: 10, check: false, ..wanted };
    let knocking = Steer::start(lab, &knocking)?;
    let mut kept = Kept::open(steer.doors.write)?;
    let mut reader = Kept::open(steer.doors.read)?;
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, LIMIT)?;
    let others = Traffic::reads(knocking.doors.write, EVERY, LIMIT);
    lab.stop_pgbouncer(&name)?;
    for steer in [&steer, &knocking] {
        shows(steer, &name, "shut", "pooler_down")?;
    }
    kept.ensure_ended()?;
    lab.start_pgbouncer(&name)?;
    for steer in [&steer, &knocking] {
        steer.wait_for_gate("write", &name, "open", SOON)?;
    }
    for traffic in [writes, others] {
        let tries = traffic.finish()?;
        tries.ensure_none_refused()?;
        ensure!(tries.done_by(lab, &name)? > 0, "{tries}");
    }
    reader.ensure_alive()
}

/// No client waits, and no session stays beside the pooler once the pooler is back.
pub fn a_stopped_pooler_is_bypassed_until_it_returns(lab: &Lab) -> Result<()> {
    let name = lab.primary()?.name.clone();
    let pooled = pooled(lab, "bypass");
    let steer = Steer::start(lab, &Wanted { write: &pooled, read: &pooled, ..Wanted::default() })?;
    let mut through = Kept::open(steer.doors.write)?;
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, SOON)?;
    lab.stop_pgbouncer(&name)?;
    through.ensure_ended()?;
    shows(&steer, &name, "open", "pooler_bypassed")?;
    // This session cannot go through the pooler, which is down.
    let mut past = Kept::open(steer.doors.write)?;
    lab.start_pgbouncer(&name)?;
    shows(&steer, &name, "open", "")?;
    past.ensure_alive()?;
    let mut through = Kept::open(steer.doors.write)?;
    let tries = writes.finish()?;
    tries.ensure_none_refused()?;
    tries.ensure_none_read_only()?;
    ensure!(tries.done_by(lab, &name)? > 0, "{tries}");
    // A session that ends with the pooler went through it.
    lab.stop_pgbouncer(&name)?;
    through.ensure_ended()?;
    past.ensure_alive()
}

/// A changed configuration file makes PgBouncer lead to a replica, and then to no server.
pub fn a_pooler_that_leads_to_another_member_gets_no_client(lab: &Lab) -> Result<()> {
    let primary = lab.primary()?.clone();
    let replica = lab.replicas()?[0].clone();
    let shut = pooled(lab, "shut");
    let steer = Steer::start(lab, &Wanted { write: &shut, read: &shut, ..Wanted::default() })?;
    let bypass = pooled(lab, "bypass");
    let bypassing = Wanted { name: "bypassing", shift: 10, write: &bypass, ..Wanted::default() };
    let bypassing = Steer::start(lab, &bypassing)?;
    let mut kept = Kept::open(steer.doors.write)?;
    lab.lead_pgbouncer(&primary.name, replica.postgres_addr())?;
    let is_seen = |steer: &Steer, state: &str, reason: &str| {
        steer.wait_for(&format!("{reason} to be shown"), FRESH, |steer| {
            steer.gate("write", &primary.name).is_ok_and(|gate| gate.is(state, reason))
        })
    };
    is_seen(&steer, "shut", "pooler_astray")?;
    is_seen(&bypassing, "open", "pooler_bypassed")?;
    // PgBouncer keeps its old sessions where they are, and so does pgsteer.
    kept.ensure_alive()?;
    let writes = Traffic::writes(lab, bypassing.doors.write, EVERY, SOON)?;
    lab.lead_pgbouncer(&primary.name, primary.nowhere())?;
    lab.stop_pgbouncer(&primary.name)?;
    lab.start_pgbouncer(&primary.name)?;
    is_seen(&steer, "shut", "pooler_nowhere")?;
    let writes = writes.finish()?;
    writes.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    ensure!(writes.cut().is_empty() && writes.done_by(lab, &primary.name)? > 0, "{writes}");
    lab.lead_pgbouncer(&primary.name, primary.postgres_addr())?;
    // A reload alone would have to wait for `server_login_retry`.
    lab.stop_pgbouncer(&primary.name)?;
    lab.start_pgbouncer(&primary.name)?;
    is_seen(&steer, "open", "")?;
    is_seen(&bypassing, "open", "")?;
    Kept::open(steer.doors.write)?.ensure_alive()
}

/// Clients wait in a paused PgBouncer until RESUME, and pgsteer distinguishes a paused PgBouncer
/// from a hung one.
pub fn a_paused_pooler_keeps_its_clients_and_is_not_bypassed(lab: &Lab) -> Result<()> {
    let name = lab.primary()?.name.clone();
    let pooled = pooled(lab, "bypass");
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\n{}", pooled_agent(lab));
    let wanted = Wanted { write: &pooled, read: &pooled, more: &more, ..Wanted::default() };
    let steer = Steer::start(lab, &wanted)?;
    let line = format!("primary {name}\n");
    let answers = |word: &str| {
        let answer = super::agent::ask(agent, &line)?;
        ensure!(answer.starts_with(word), "{answer}");
        Ok(())
    };
    answers("ready up")?;
    lab.pgbouncer_console(&name, "PAUSE")?;
    shows(&steer, &name, "open", "pooler_busy")?;
    let door = steer.doors.write;
    let waits = std::thread::spawn(move || Kept::open(door));
    // Longer than the interval of pgsteer's new logins, so at least one login was tried and is
    // waiting.
    std::thread::sleep(FRESH);
    ensure!(steer.gate("write", &name)?.is("open", "pooler_busy"));
    ensure!(!waits.is_finished(), "a session got through a PgBouncer that is paused");
    answers("ready up #PgBouncer")?;
    lab.pgbouncer_console(&name, "RESUME")?;
    shows(&steer, &name, "open", "")?;
    super::join(waits)??.ensure_alive()?;
    ensure!(!steer.log().contains("bypass its pooler"), "{}", steer.log());

    lab.freeze_pgbouncer(&name)?;
    shows(&steer, &name, "open", "pooler_bypassed")?;
    answers("ready down #PgBouncer")?;
    Kept::open(steer.doors.write)?.ensure_alive()?;
    lab.thaw_pgbouncer(&name)?;
    shows(&steer, &name, "open", "")?;
    answers("ready up")
}

/// A client may wait for a free connection of `max_db_connections`.
pub fn a_full_pooler_keeps_its_clients_and_is_not_bypassed(lab: &Lab) -> Result<()> {
    let name = lab.primary()?.name.clone();
    let (pooled, pooler) = (pooled(lab, "bypass"), lab.member(&name)?.pgbouncer_addr());
    let steer = Steer::start(lab, &Wanted { write: &pooled, read: &pooled, ..Wanted::default() })?;
    let full = full(lab, &steer, &name, pooler);
    lab.restart_pgbouncer(&name)?;
    full
}

fn full(lab: &Lab, steer: &Steer, name: &str, pooler: SocketAddr) -> Result<()> {
    let mut both = Kept::several(pooler, 2)?;
    // pgsteer has the third connection. `one_more` takes it when pgsteer starts a new login. Both
    // have the same user, so no other login of that pool can be before it.
    lab.pgbouncer_console(name, "SET max_db_connections = 3")?;
    let mut one_more = as_check(lab, pooler).args(["-c", "SELECT pg_sleep(60)"]).spawn()?;
    let was_full = is_busy_while_full(steer, name, &mut both);
    drop(both);
    let is_well_again = was_full.and_then(|()| shows(steer, name, "open", ""));
    one_more.kill()?;
    one_more.wait()?;
    is_well_again?;
    ensure!(!steer.log().contains("bypass its pooler"), "{}", steer.log());
    Ok(())
}

fn is_busy_while_full(steer: &Steer, name: &str, others: &mut [Kept]) -> Result<()> {
    steer.wait_for("pooler_busy to be shown", FRESH, |steer| {
        steer.gate("write", name).is_ok_and(|gate| gate.is("open", "pooler_busy"))
    })?;
    std::thread::sleep(FRESH);
    ensure!(steer.gate("write", name)?.is("open", "pooler_busy"));
    others.iter_mut().try_for_each(Kept::ensure_alive)
}

/// After a failed login PgBouncer does not try that server again for 15 seconds
/// (`server_login_retry`), in the pool of that user. The server is back long before.
pub fn a_pooler_that_delays_logins_does_not_block_the_primary(lab: &Lab) -> Result<()> {
    let name = lab.primary()?.name.clone();
    let (shut, bypass) = (pooled(lab, "shut"), pooled(lab, "bypass"));
    let steer = Steer::start(lab, &Wanted { write: &shut, read: &shut, ..Wanted::default() })?;
    let bypassing = Wanted { name: "bypassing", shift: 10, write: &bypass, ..Wanted::default() };
    let bypassing = Steer::start(lab, &bypassing)?;
    restart_under_logins(lab, &name)?;
    shows(&steer, &name, "open", "pooler_puts_off")?;
    shows(&bypassing, &name, "open", "pooler_bypassed")?;
    // The application has another pool.
    Kept::open(steer.doors.write)?.ensure_alive()?;
    for steer in [&steer, &bypassing] {
        steer.wait_for("the next try to be shown", RETRIED, |steer| {
            steer.gate("write", &name).is_ok_and(|gate| gate.is("open", ""))
        })?;
    }
    Ok(())
}

/// Restarts the primary's PostgreSQL while another client logs in again and again with pgsteer's
/// check login, so that PgBouncer tries its server during the restart.
fn restart_under_logins(lab: &Lab, name: &str) -> Result<()> {
    let pooler = lab.member(name)?.pgbouncer_addr();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let logins = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                let mut login = as_check(lab, pooler).args(["-c", "SELECT 1"]).spawn()?;
                std::thread::sleep(Duration::from_millis(100));
                login.kill()?;
                login.wait()?;
            }
            Ok(())
        });
        let restarted = lab.restart_postgres(name);
        is_over.store(true, Ordering::Relaxed);
        logins.join().map_err(|_| anyhow!("a thread of the test died"))??;
        restarted
    })
}

/// PgBouncer leads to another server in the same role: clients would read or write there unnoticed.
pub fn a_pooler_that_leads_to_a_server_of_the_same_role_gets_no_client(lab: &Lab) -> Result<()> {
    let (old, replicas) = (lab.primary()?.clone(), lab.replicas()?);
    let [new, other] = [replicas[0].clone(), replicas[1].clone()];
    let shut = pooled(lab, "shut");
    let wanted = Wanted { write: &shut, read: &shut, ..Wanted::default() };
    let steer = Steer::start(lab, &wanted)?;
    let is_seen = |steer: &Steer, service: &str, state: &str, reason: &str| {
        steer.wait_for(&format!("{service} {state} {reason} to be shown"), FRESH, |steer| {
            steer.gate(service, &new.name).is_ok_and(|gate| gate.is(state, reason))
        })
    };
    lab.lead_pgbouncer(&new.name, other.postgres_addr())?;
    is_seen(&steer, "read", "shut", "pooler_astray")?;
    lab.lead_pgbouncer(&new.name, new.postgres_addr())?;
    is_seen(&steer, "read", "open", "")?;
    // Two runs of one server are not two servers.
    let before = steer.messages().len();
    lab.restart_postgres(&new.name)?;
    lab.wait_healthy(LIMIT)?;
    is_seen(&steer, "read", "open", "")?;
    let printed = steer.messages().split_off(before);
    ensure!(!printed.iter().any(|line| line.contains("another server")), "{printed:#?}");
    drop(steer);

    // Two primaries, and a policy that chooses the right one. Its PgBouncer leads to the wrong one.
    for member in lab.members() {
        lab.kill_patroni(&member.name)?;
    }
    let cluster = "split_brain = 'highest_timeline'";
    let steer = Steer::start(lab, &Wanted { patroni: false, cluster, ..wanted })?;
    lab.promote_by_hand(&new.name)?;
    is_seen(&steer, "write", "open", "split_brain")?;
    lab.lead_pgbouncer(&new.name, old.postgres_addr())?;
    is_seen(&steer, "write", "shut", "pooler_astray")?;
    lab.lead_pgbouncer(&new.name, new.postgres_addr())?;
    is_seen(&steer, "write", "open", "split_brain")
}

/// pgsteer waits for the pooler's answer, but not long.
pub fn a_switchover_behind_poolers_refuses_no_client(lab: &Lab) -> Result<()> {
    let pooled = pooled(lab, "shut");
    let steer = Steer::start(lab, &Wanted { write: &pooled, read: &pooled, ..Wanted::default() })?;
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let writes = Traffic::writes(lab, steer.doors.write, EVERY, LIMIT)?;
    lab.switchover(None)?;
    let new = truth.wait_for_successor(&old, LIMIT)?;
    steer.wait_for_gate("write", &new.member, "open", SOON)?;
    let waited_ms = ms_between(&steer, &new.member)?;
    report(&format!("the pooler's answer came {waited_ms} ms after the primary's"));
    ensure!(waited_ms < 200, "pgsteer waited {waited_ms} ms for the pooler's answer");
    std::thread::sleep(Duration::from_millis(500));
    let writes = writes.finish()?;
    writes.ensure_none_refused()?;
    writes.ensure_none_read_only()?;
    writes.ensure_by_the_writable(lab, &truth)?;
    ensure!(writes.done_by(lab, &new.member)? > 0, "{writes}");
    // PgBouncer delays for 15 seconds a client that requested a server that was down.
    lab.wait_healthy(LIMIT)?;
    steer.wait_for_gate("read", &old, "open", SOON)
}

/// psql with pgsteer's check login.
fn as_check(lab: &Lab, pooler: SocketAddr) -> Command {
    let mut psql = clients::psql(lab, pooler);
    psql.env("PGUSER", CHECK).env("PGPASSWORD", CHECK).env("PGDATABASE", "postgres");
    psql.stdout(Stdio::null()).stderr(Stdio::null());
    psql
}

fn pooled(lab: &Lab, pooler_down: &str) -> String {
    let port = lab.members().first().map_or(0, |member| member.pgbouncer_port);
    format!("pooler_port = {port}\npooler_down = '{pooler_down}'")
}

fn pooled_agent(lab: &Lab) -> String {
    let port = lab.members().first().map_or(0, |member| member.pgbouncer_port);
    format!("pooler_port = {port}")
}

fn shows(steer: &Steer, member: &str, state: &str, reason: &str) -> Result<()> {
    let began = Instant::now();
    steer.wait_for(&format!("{state} {reason} to be shown"), SOON, |steer| {
        steer.gate("write", member).is_ok_and(|gate| gate.is(state, reason))
    })?;
    report(&format!("{state} {reason} was shown after {:?}", began.elapsed()));
    Ok(())
}

/// The time from the event "is primary" of the member to the event "write gate is open", in
/// milliseconds.
fn ms_between(steer: &Steer, member: &str) -> Result<u32> {
    let status = steer.status()?;
    let events = status["clusters"][0]["events"].as_array().cloned().unwrap_or_default();
    let at = |begins: &str| {
        let is_it =
            |event: &&Value| event["text"].as_str().is_some_and(|it| it.starts_with(begins));
        let event =
            events.iter().rev().find(is_it).with_context(|| format!("not yet: {begins}"))?;
        ms_of_day(event["at"].as_str().unwrap_or_default()).context("no time of day")
    };
    let [primary, open] =
        [at(&format!("{member} is primary"))?, at(&format!("write gate of {member} is open"))?];
    Ok(open.saturating_sub(primary))
}

/// The milliseconds of the day of a time such as `2026-07-04T12:00:00.250Z`.
fn ms_of_day(stamp: &str) -> Option<u32> {
    let (_, time) = stamp.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u32>().ok());
    let mut next = || parts.next().flatten();
    Some(((next()? * 60 + next()?) * 60 + next()?) * 1000 + next()?)
}

fn report(what: &str) {
    if std::env::var_os("PGSTEER_TIMES").is_some() {
        eprintln!("{what}");
    }
}
