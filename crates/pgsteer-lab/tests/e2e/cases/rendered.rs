//! HAProxy with the files that `pgsteer render` writes. It routes to the right member, also right
//! after a switchover and past a stopped pooler, and to no member while two take writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::agents::FakePatroni;
use pgsteer_lab::{Lab, Member, SUPERUSER, Session};

use crate::kept::Kept;
use crate::rendered::{
    DETECT_TIME, Rendered, SOON, agent, agent_section, follows_a_switchover, pooler_port,
};
use crate::steer::{Steer, Wanted};

pub fn httpchk_follows_a_switchover(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "httpchk", &[])?;
    follows_a_switchover(lab, &haproxy)
}

pub fn redirect_routes_to_the_right_primary(lab: &Lab) -> Result<()> {
    let old = lab.primary()?.name.clone();
    let haproxy = Rendered::start(lab, "redirect", &["--local", &old, "--pass", "192.0.2.1"])?;
    follows_a_switchover(lab, &haproxy)?;
    drop(haproxy);
    // A client from a `--pass` network reaches the old primary, although that is a standby now.
    let named = format!("{}/8", lab.host_ip());
    let haproxy = Rendered::launch(lab, "redirect", &["--local", &old, "--pass", &named])?;
    let old = lab.member(&old)?.ip.to_string();
    haproxy.wait("the old one is reached", |it| {
        ensure!(Kept::open(it.write)?.member_ip() == old, "a named client is led elsewhere");
        Ok(())
    })
}

pub fn agent_follows_a_switchover_and_no_server_is_down(lab: &Lab) -> Result<()> {
    let more = agent_section(lab);
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let haproxy = Rendered::start(lab, "agent", &["--agent", &agent(lab).to_string()])?;
    let all_well = |it: &Rendered| {
        let shown = it.shown()?;
        let count = |status| shown.values().filter(|shown| shown.status == status).count();
        let members = lab.members().len();
        ensure!((count("UP"), count("MAINT")) == (members, members), "not all is well");
        Ok(())
    };
    haproxy.wait("all is well", all_well)?;
    follows_a_switchover(lab, &haproxy)?;
    haproxy.wait("all is well again", all_well)?;
    // Without the agent the health check beside it still sends writers to no old primary.
    drop(steer);
    lab.switchover(None)?;
    haproxy.wait("no writer is served", Rendered::refuses_writers)
}

/// The agent for the profiles agent and agent-bypass, with services behind poolers.
fn agent_behind_poolers(lab: &Lab) -> Result<Steer> {
    let (pooled, more) = (pooler_port(lab), agent_section(lab));
    let wanted = Wanted { write: &pooled, read: &pooled, more: &more, ..Wanted::default() };
    Steer::start(lab, &wanted)
}

/// Routes past a stopped pooler, for that member only.
pub fn agent_bypass_routes_past_a_stopped_pooler(lab: &Lab) -> Result<()> {
    let _steer = agent_behind_poolers(lab)?;
    let haproxy = Rendered::start(lab, "agent-bypass", &["--agent", &agent(lab).to_string()])?;
    let primary = lab.primary()?.clone();
    let replicas: Vec<Member> = lab.replicas()?.into_iter().cloned().collect();
    let writes = |it: &Rendered, pooled| leads(it.write, &[&primary], pooled);
    let reads = |it: &Rendered, from: &[&Member], pooled| leads(it.read, from, pooled);
    let both: Vec<&Member> = replicas.iter().collect();
    let all_pooled = |it: &Rendered| writes(it, true).and_then(|()| reads(it, &both, true));
    haproxy.wait("all go through their poolers", all_pooled)?;
    let mut through = Kept::open(haproxy.write)?;
    lab.stop_pgbouncer(&primary.name)?;
    through.ensure_ended()?;
    haproxy.wait("writers bypass the primary's pooler", |it| writes(it, false))?;
    // A stopped pooler of another member does not change the route of this one.
    reads(&haproxy, &both, true)?;
    let mut past = Kept::open(haproxy.write)?;
    lab.start_pgbouncer(&primary.name)?;
    haproxy.wait("writers go through it again", all_pooled)?;
    past.ensure_alive()?;

    let (first, second) = (&replicas[0], &replicas[1]);
    lab.stop_pgbouncer(&first.name)?;
    haproxy.wait("readers go to the pooler that is left", |it| reads(it, &[second], true))?;
    writes(&haproxy, true)?;
    lab.stop_pgbouncer(&second.name)?;
    haproxy.wait("readers bypass the poolers", |it| reads(it, &both, false))?;
    writes(&haproxy, true)?;
    for replica in &replicas {
        lab.start_pgbouncer(&replica.name)?;
    }
    haproxy.wait("all go through their poolers again", all_pooled)?;
    follows_a_switchover(lab, &haproxy)
}

/// New sessions reach exactly these members, all through their poolers or all past them.
fn leads(door: std::net::SocketAddr, to: &[&Member], pooled: bool) -> Result<()> {
    let mut found = Vec::new();
    for _ in 0..2 * to.len() {
        let kept = Kept::open(door)?;
        ensure!(kept.is_pooled() == pooled, "through a pooler: {}", kept.is_pooled());
        found.push(kept.member_ip().to_owned());
    }
    found.sort();
    found.dedup();
    let mut wanted: Vec<String> = to.iter().map(|member| member.ip.to_string()).collect();
    wanted.sort();
    ensure!(found == wanted, "sessions came to {found:?} instead of {wanted:?}");
    Ok(())
}

pub fn pgsteer_behind_haproxy_holds_clients_through_a_switchover(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let door = lab.host_ip().to_string();
    let haproxy = Rendered::start(lab, "pgsteer", &["--door", &door])?;
    follows_a_switchover(lab, &haproxy)?;
    drop(steer);
    Ok(())
}

/// A standby was promoted without Patroni. While one Patroni alone reports the leader lock, its
/// member gets the writers. If two Patronis report it, no member gets them.
pub fn a_second_primary_gets_no_writer_in_any_profile(lab: &Lab) -> Result<()> {
    let first = lab.primary()?.clone();
    let second = lab.replicas()?[0].clone();
    let _steer = agent_behind_poolers(lab)?;
    let (agent, host) = (agent(lab).to_string(), lab.host_ip().to_string());
    let redirect = ["--local", second.name.as_str(), "--pass", "192.0.2.1"];
    let doors = [
        Rendered::start(lab, "httpchk", &[])?,
        Rendered::start(lab, "redirect", &redirect)?,
        Rendered::start(lab, "agent", &["--agent", &agent])?,
        Rendered::start(lab, "agent-bypass", &["--agent", &agent])?,
        Rendered::start(lab, "pgsteer", &["--door", &host])?,
    ];
    // Otherwise Patroni would undo the promotion.
    lab.pause()?;
    lab.promote_by_hand(&second.name)?;
    let until = Instant::now() + 2 * DETECT_TIME;
    while Instant::now() < until {
        for door in &doors {
            let led = Kept::open(door.write)?.member_ip().to_owned();
            ensure!(led == first.ip.to_string(), "a writer is led to {led}, which has no lock");
        }
    }
    // HAProxy alone only refuses new sessions. With pgsteer existing sessions end as well.
    let steered: Result<Vec<Kept>> = doors[2..].iter().map(|door| Kept::open(door.write)).collect();
    let mut steered = steered?;
    // A fake Patroni reports that it has the lock as well, as a Patroni cut off from the others
    // does.
    let reported = lab.patroni_status(&second.name)?.to_string();
    lab.kill_patroni(&second.name)?;
    let fake = FakePatroni::start(second.patroni_addr(), &reported)?;
    for door in &doors {
        door.wait(
            "no writer is served while two members have the lock",
            Rendered::refuses_writers,
        )?;
    }
    for session in &mut steered {
        session.ensure_ended()?;
    }
    // An operator decides.
    drop(fake);
    lab.crash(&second.name)?;
    for door in &doors {
        door.wait("the one that is left is found", |it| leads_to(it, &first))?;
    }
    Ok(())
}

fn leads_to(haproxy: &Rendered, member: &Member) -> Result<()> {
    let mut session = Session::connect(haproxy.write, SUPERUSER, "postgres", SOON)?;
    let rows = session.query("SELECT host(inet_server_addr())", SOON)?;
    let came = rows.into_iter().flatten().flatten().next().context("an empty answer")?;
    ensure!(came == member.ip.to_string(), "a writer is led to {came}");
    Ok(())
}

/// One check is enough to recognise a standby: HAProxy reads its answer and runs into no time
/// limit.
pub fn sql_recognises_a_standby_within_one_check(lab: &Lab) -> Result<()> {
    let words = ["--check-user", SUPERUSER, "--detect", "3s"];
    let haproxy = Rendered::launch(lab, "sql", &words)?;
    // The value of `inter` for --detect 3s. A check without an answer takes as long.
    let interval = Duration::from_millis(814);
    let began = Instant::now();
    let server = |member: &Member| format!("pgsteer:primary {}", member.name);
    let primary = server(lab.primary()?);
    let standbys: Vec<String> = lab.replicas()?.into_iter().map(server).collect();
    haproxy.wait("the standbys are known", |it| {
        let shown = it.shown()?;
        ensure!(shown[&primary].check == "L7OK", "the primary is not known");
        ensure!(standbys.iter().all(|it| shown[it].status == "DOWN"), "not yet");
        Ok(())
    })?;
    let took = began.elapsed();
    ensure!(took < interval, "a standby was taken for a primary for {took:?}");
    let shown = haproxy.shown()?;
    for standby in &standbys {
        let shown = &shown[standby];
        let in_time = Duration::from_millis(shown.check_ms) < interval;
        // L7RSP: a wrong answer. A check that timed out is L7TOUT.
        ensure!(shown.check == "L7RSP" && in_time, "{standby}: {shown:?}");
    }
    Ok(())
}

pub fn sql_follows_a_switchover_and_blocks_two_primaries(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "sql", &["--check-user", SUPERUSER])?;
    follows_a_switchover(lab, &haproxy)?;
    haproxy.wait("the old primary is a replica", |_| {
        let answers = |member: &&Member| lab.sql(&member.name, "SELECT 1").is_ok();
        ensure!(lab.members().iter().filter(answers).count() == lab.members().len(), "not yet");
        Ok(())
    })?;
    for member in lab.members() {
        // A running Patroni would undo the promotion.
        lab.kill_patroni(&member.name)?;
    }
    let first = lab.primary()?.clone();
    let second = lab.replicas()?[0].name.clone();
    // Without Patroni this profile checks in the same way.
    let listed: Vec<String> =
        lab.members().iter().map(|it| format!("{}={}", it.name, it.postgres_addr())).collect();
    let mut words = vec!["--check-user", SUPERUSER, "--local", &second, "--pass", "192.0.2.1"];
    words.extend(listed.iter().flat_map(|it| ["--member", it.as_str()]));
    let doors = [haproxy, Rendered::start(lab, "redirect", &words)?];
    let writers: Result<Vec<Kept>> = doors.iter().map(|it| Kept::open(it.write)).collect();
    lab.promote_by_hand(&second)?;
    let promoted = Instant::now();
    for mut writer in writers? {
        // HAProxy checks at intervals that --detect sets.
        while writer.ensure_alive().is_ok() {
            let took = promoted.elapsed();
            ensure!(took < 2 * DETECT_TIME, "a writer goes on beside a second primary");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for door in &doors {
        door.wait("no writer is served", Rendered::refuses_writers)?;
    }
    // An operator decides.
    lab.crash(&second)?;
    for door in &doors {
        door.wait("the one that is left is found", |it| leads_to(it, &first))?;
    }
    Ok(())
}
