//! HAProxy pushed by its Runtime API, with the file of `pgsteer render haproxy --profile push`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Truth};

use super::profiles::HAPROXY_3_0;
use crate::installed::installed;
use crate::kept::Kept;
use crate::rendered::{Rendered, SOON, Version, follows_a_switchover, push_section};
use crate::steer::{Steer, Wanted};
use crate::traffic::Traffic;

/// The longest time from pgsteer's new gate to HAProxy's `show stat`, on a busy machine.
const PUSHED: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(20);

fn steer(lab: &Lab) -> Result<Steer> {
    let more = push_section(lab);
    Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })
}

/// Fails unless HAProxy sends writers to the primary and to no other member.
fn is_right_for_writers(lab: &Lab, haproxy: &Rendered) -> Result<()> {
    let (shown, primary) = (haproxy.shown()?, lab.primary()?.name.clone());
    for member in lab.members() {
        let serves = shown.get(&format!("write {}", member.name)).is_some_and(|it| it.serves());
        ensure!(serves == (member.name == primary), "{} as a primary: {shown:#?}", member.name);
    }
    Ok(())
}

/// Fails unless HAProxy serves exactly the primary and the replicas.
fn is_right(lab: &Lab, haproxy: &Rendered) -> Result<()> {
    is_right_for_writers(lab, haproxy)?;
    let (shown, primary) = (haproxy.shown()?, lab.primary()?.name.clone());
    for member in lab.members() {
        let serves = shown.get(&format!("read {}", member.name)).is_some_and(|it| it.serves());
        ensure!(serves == (member.name != primary), "{} as a replica: {shown:#?}", member.name);
    }
    Ok(())
}

pub fn a_switchover_is_pushed_within_milliseconds(lab: &Lab) -> Result<()> {
    pushed(lab, Rendered::start(lab, "push", &[])?)
}

pub fn a_switchover_is_pushed_to_haproxy_3_0(lab: &Lab) -> Result<()> {
    let version = Version { of_file: "3.0", program: Some(installed(HAPROXY_3_0)?) };
    let haproxy = Rendered::launch_of(lab, &version, "push", &[])?;
    haproxy.wait("the primary is found", |it| it.leads_right(lab))?;
    pushed(lab, haproxy)
}

fn pushed(lab: &Lab, haproxy: Rendered) -> Result<()> {
    let steer = steer(lab)?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    let mut old = Kept::several(haproxy.write, 5)?;
    let old_primary = lab.primary()?.name.clone();
    let truth = Truth::watch(lab)?;
    let traffic = Traffic::writes(lab, haproxy.write, EVERY, SOON)?;
    lab.switchover(None)?;
    let new = lab.primary()?.name.clone();
    let writable = truth.writable_since(&new).context("the new primary takes no writes")?;
    haproxy
        .wait("writers are led right after the switchover", |it| is_right_for_writers(lab, it))?;
    let left = haproxy.shown()?.get(&format!("write {old_primary}")).map(|it| it.sessions);
    ensure!(left == Some(0), "sessions at the old primary: {left:?}");
    for session in &mut old {
        session.ensure_ended()?;
    }
    std::thread::sleep(Duration::from_millis(200));
    let tries = traffic.finish()?;
    tries.ensure_none_read_only()?;
    tries.ensure_by_the_writable(lab, &truth)?;
    let ip = lab.member(&new)?.ip.to_string();
    let mut done = tries.done().filter(|(_, by)| *by == ip).map(|(it, _)| it.ended);
    let first: Instant = done.next().context("no write at the new primary")?;
    let wait = first.saturating_duration_since(writable);
    println!("first write through HAProxy {wait:?} after the new primary was writable");
    ensure!(wait < PUSHED, "the first write through HAProxy came after {wait:?}");
    // pgsteer's view of HAProxy is that of HAProxy.
    let status = steer.status()?;
    let servers = status["haproxys"][0]["servers"].as_array().cloned().unwrap_or_default();
    ensure!(servers.len() == 2 * lab.members().len(), "{status:#}");
    follows_a_switchover(lab, &haproxy)
}

pub fn what_a_person_has_set_stays(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "push", &[])?;
    let steer = steer(lab)?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    let replica = lab.replicas()?.first().context("no replica")?.name.clone();
    let server = format!("read/{replica}");
    haproxy.ask(&format!("set server {server} state maint"))?;
    let shown = |it: &Rendered| -> Result<String> {
        let shown = it.shown()?;
        Ok(shown.get(&format!("read {replica}")).context("no such server")?.status.clone())
    };
    let by_hand = format!("{server} is set to maint by hand");
    steer.wait_for("status to show maintenance by hand", SOON, |steer| {
        steer.page("/status.txt").is_ok_and(|page| page.contains(&by_hand))
    })?;
    lab.switchover(Some(&replica))?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(shown(&haproxy)? == "MAINT", "the state is {}", shown(&haproxy)?);
    haproxy.ask(&format!("set server {server} state ready"))?;
    // The member is the primary now, so it does not serve readers although its maintenance has ended.
    std::thread::sleep(Duration::from_secs(1));
    let serves = haproxy.shown()?.get(&format!("read {replica}")).is_some_and(|it| it.serves());
    ensure!(!serves, "a primary serves readers");
    haproxy.wait("writers are led right", |it| is_right_for_writers(lab, it))
}

/// The servers of the primary are deleted from HAProxy; pgsteer adds them again.
pub fn a_member_without_a_server_gets_one(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "push", &[])?;
    let primary = lab.primary()?;
    for backend in ["write", "read"] {
        let server = format!("{backend}/{}", primary.name);
        haproxy.wait("the server is deleted", |it| {
            it.ask(&format!("set server {server} state maint"))?;
            let answer = it.ask(&format!("del server {server}"))?;
            ensure!(answer.contains("deleted"), "{answer}");
            Ok(())
        })?;
    }
    let port = primary.patroni_addr().port();
    let keywords = format!(
        "add_servers = 'check port {port} inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions'\n"
    );
    let more = push_section(lab) + &keywords;
    let _steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    let mut old = Kept::open(haproxy.write)?;
    ensure!(old.member_ip() == primary.ip.to_string(), "the writer is at {}", old.member_ip());
    lab.switchover(None)?;
    old.ensure_ended()?;
    haproxy.wait("all is right after a switchover", |it| is_right(lab, it))
}

/// The number of reloads at least, in as many switchovers as that takes. One switchover by default.
const RELOADS: &str = "PGSTEER_RELOADS";

pub fn a_switchover_amid_reloads_sends_no_session_to_a_wrong_member(lab: &Lab) -> Result<()> {
    let wanted = std::env::var(RELOADS).map_or(Ok(1), |number| number.parse()).context(RELOADS)?;
    let mut haproxy = Rendered::start(lab, "push", &[])?;
    let _steer = steer(lab)?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    let truth = Truth::watch(lab)?;
    let traffic = Traffic::writes(lab, haproxy.write, EVERY, SOON)?;
    let (mut reloads, mut switchovers) = (0, 0);
    while reloads < wanted {
        switchovers += 1;
        reloads += reloads_in_a_switchover(lab, &mut haproxy)?;
        haproxy
            .wait("writers are led right after the reloads", |it| is_right_for_writers(lab, it))?;
    }
    let tries = traffic.finish()?;
    println!("{reloads} reloads in {switchovers} switchovers, {} tries", tries.0.len());
    tries.ensure_none_read_only()?;
    tries.ensure_by_the_writable(lab, &truth)
}

fn reloads_in_a_switchover(lab: &Lab, haproxy: &mut Rendered) -> Result<usize> {
    let mut reloads = 0;
    std::thread::scope(|scope| {
        let switchover = scope.spawn(|| lab.switchover(None));
        while !switchover.is_finished() {
            haproxy.reload(lab)?;
            reloads += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        let switched =
            switchover.join().map_err(|_| anyhow::anyhow!("a thread of the test died"))?;
        switched.map(|_| reloads)
    })
}

pub fn without_pgsteer_the_health_checks_go_on(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "push", &[])?;
    let steer = steer(lab)?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    // HAProxy's checks keep the replicas out, so no weight has to be 0.
    std::thread::sleep(Duration::from_secs(1));
    drop(steer);
    lab.switchover(None)?;
    haproxy.wait("the new primary is found without pgsteer", |it| it.leads_right(lab))
}

pub fn faulty_haproxys_are_reported_and_the_others_are_still_controlled(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "push", &[])?;
    let right = push_section(lab);
    // Patroni's port is no HAProxy, and there is no such file.
    let lines = right.lines().filter(|line| !line.starts_with("state_file"));
    let right: String = lines.map(|line| format!("{line}\n")).collect();
    let patroni = lab.members().first().context("no member")?.patroni_addr();
    let more =
        right.replace("sockets = [", &format!("sockets = ['/nowhere/x.sock', '{patroni}', "));
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    steer.wait_for_log("no such socket", SOON)?;
    steer.wait_for_log("is not steered: no HAProxy answers there", SOON)?;
    haproxy.wait("all is right", |it| is_right(lab, it))?;
    let named = |word: &str| steer.messages().iter().filter(|line| line.contains(word)).count();
    std::thread::sleep(Duration::from_secs(2));
    ensure!(named("no such socket") == 1, "it is said once: {:?}", steer.messages());
    let mut session = Session::connect(haproxy.write, SUPERUSER, "postgres", SOON)?;
    session.query("SELECT 1", SOON)?;
    Ok(())
}
