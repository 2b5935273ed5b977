//! HAProxy's agent-checks: the examples of docs/haproxy, each with pgsteer in the place of the daemon
//! that it was written for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use pgsteer_lab::agents::{Agents, Believed, Crew, Example, Haproxy, Post};
use pgsteer_lab::{Lab, Member, SUPERUSER, Session, Signal};

use crate::clients::psql;
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::{binary, stage};

/// How long HAProxy may take to be right. The intervals are 300 ms; the machine has much else to do.
const SOON: Duration = Duration::from_secs(10);

const SCENARIO_A: &str = include_str!("../../../../../docs/haproxy/scenario-a.cfg");
const SCENARIO_B: &str = include_str!("../../../../../docs/haproxy/scenario-b.cfg");
const SCENARIO_C: &str = include_str!("../../../../../docs/haproxy/scenario-c.cfg");
const BLOG: &str = include_str!("../../../../../docs/haproxy/blog.cfg");
const RECOMMENDED: &str = include_str!("../../../../../docs/haproxy/recommended.cfg");
const ONE_FOR_ALL: &str = include_str!("../../../../../docs/haproxy/one-for-all.cfg");

/// What HAProxy shall show of the members that do not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Down,
    InMaintenance,
}

/// One backend, and what is right about it. `{n}` in the name of a server is the member's number.
#[derive(Debug, Clone, Copy)]
struct Right {
    backend: &'static str,
    server: &'static str,
    others: Others,
    /// It serves readers: all but the primary.
    read: bool,
    /// HAProxy hears the reason from an agent.
    agent: bool,
}

const WRITE: Right =
    Right { backend: "", server: "n{n}", others: Others::Down, read: false, agent: true };

pub fn happacs_scenarios_work_with_pgsteer_in_its_place(lab: &Lab) -> Result<()> {
    let crew = crew(lab, "agent", 0, "")?;
    let post = |member: &Member| crew.post(lab, member);
    let example = |text: &str| Ok::<_, Error>(Example::of(text, lab, post, None)?.quicker());
    let named = |name: &'static str| [("listen master\n", name)];
    let pages = example(SCENARIO_A)?.renamed(&named("listen pages\n"));
    let patroni = SCENARIO_A.replace("check port 7000", "check port 8008");
    let patroni = example(&patroni)?.renamed(&named("listen patroni\n"));
    let b = example(SCENARIO_B)?.renamed(&named("listen b\n"));
    let c = example(SCENARIO_C)?.renamed(&named("listen c\n"));
    let sections = [&pages.text, &patroni.text, &b.text, &c.text].map(String::as_str).concat();
    let haproxy = Haproxy::start(lab, "haproxy-scenarios", &sections)?;
    let server = "patroni-{n}-pgbouncer";
    let rights = [
        Right { backend: "pages", server, agent: false, ..WRITE },
        Right { backend: "patroni", server, agent: false, ..WRITE },
        Right { backend: "b", server, ..WRITE },
        Right { backend: "master_pgbouncer", server, ..WRITE },
        Right { backend: "master_patroni", server, agent: false, ..WRITE },
    ];
    before_and_after_a_switchover(lab, &haproxy, Some(&crew), &rights, || {
        let up = haproxy.beliefs()?;
        ensure!(up.up("happac").len() == 3, "{up:?}");
        [&pages, &patroni, &b, &c].iter().try_for_each(|each| leads_to_the_primary(lab, each))
    })
}

pub fn nobody_is_shown_down_in_normal_running(lab: &Lab) -> Result<()> {
    let crew = crew(lab, "agent", 0, "vocabulary = 'admin'")?;
    let agents = Agents::pgsteer(lab, &binary::pgsteer()?, "", 1.0)?;
    let beside = agents.beside_haproxy(lab)?;
    let post = |member: &Member| crew.post(lab, member);
    let example =
        |text: &str| Ok::<_, Error>(Example::of(text, lab, post, Some(beside.post))?.quicker());
    let (blog, recommended) = (example(BLOG)?, example(RECOMMENDED)?);
    let haproxy = Haproxy::start(lab, "haproxy-admin", &(blog.text + &recommended.text))?;
    let admin = Right { others: Others::InMaintenance, ..WRITE };
    let rights = [
        Right { backend: "mast-pgX_psql_readwrite", server: "mast-pg{n}", ..admin },
        Right { backend: "write", ..admin },
        Right { backend: "read", read: true, ..admin },
    ];
    before_and_after_a_switchover(lab, &haproxy, Some(&crew), &rights, || {
        leads_to_the_primary(lab, &Example { text: String::new(), ..recommended })
    })
}

/// The agent of a `pgsteer run`.
pub fn one_answers_for_all_members(lab: &Lab) -> Result<()> {
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\nvocabulary = 'admin'\n");
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let post = Post { agent, pages: steer.doors.http };
    let example = Example::of(ONE_FOR_ALL, lab, |_| post, Some(post))?.quicker();
    let haproxy = Haproxy::start(lab, "haproxy-one", &example.text)?;
    let admin = Right { others: Others::InMaintenance, ..WRITE };
    let rights =
        [Right { backend: "write", ..admin }, Right { backend: "read", read: true, ..admin }];
    before_and_after_a_switchover(lab, &haproxy, None, &rights, || {
        leads_to_the_primary(lab, &example)
    })
}

/// HAProxy's own number for the weight follows the sessions of a real server, down and up again.
pub fn the_weight_falls_as_sessions_come(lab: &Lab) -> Result<()> {
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\nweight = 'sessions'\n");
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let replica = lab.replicas()?[0];
    let line = format!("read {}\n", replica.name);
    let says = |wanted: &str| {
        steer.wait_for(&format!("{line:?} to be answered {wanted:?}"), SOON, |_| {
            ask(agent, &line).is_ok_and(|answer| answer.trim_end() == wanted)
        })
    };
    says("ready up 100%")?;
    let max: usize = most_sessions(replica)?;
    let half = (0..max / 2).map(|_| Kept::open(replica.postgres_addr()));
    let mut half: Vec<Kept> = half.collect::<Result<_>>()?;
    says("ready up 50%")?;
    // A few more or less are no reason to say another word.
    half.truncate(max / 2 - max / 25);
    std::thread::sleep(Duration::from_secs(2));
    ensure!(ask(agent, &line)?.trim_end() == "ready up 50%");
    drop(half);
    says("ready up 100%")
}

/// A process that was stopped for a while, as a machine is that is moved, knows nothing fresh when it
/// goes on, and no member has anything wrong with it. HAProxy's question waits for it meanwhile.
pub fn one_that_was_stopped_says_no_to_nobody(lab: &Lab) -> Result<()> {
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\n");
    let mut steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let line = format!("write {}\n", lab.primary()?.name);
    let is_yes = |answer: &str| answer.starts_with("ready up");
    steer.wait_for("a yes of the agent", SOON, |_| {
        ask(agent, &line).is_ok_and(|answer| is_yes(&answer))
    })?;
    steer.signal(Signal::STOP)?;
    let mut waiting = question(agent, &line)?;
    std::thread::sleep(Duration::from_secs(7));
    steer.signal(Signal::CONT)?;
    let mut answers = vec![rest_of(&mut waiting)?];
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        answers.push(ask(agent, &line)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(answers.iter().all(|answer| is_yes(answer)), "{answers:?}");
    Ok(())
}

/// What the server lets in, without those that it reserves.
fn most_sessions(member: &Member) -> Result<usize> {
    let sql = "SELECT current_setting('max_connections')::int
                    - current_setting('superuser_reserved_connections')::int";
    let mut session = Session::connect(member.postgres_addr(), SUPERUSER, "postgres", SOON)?;
    let row = session.query(sql, SOON)?.into_iter().flatten().flatten().next();
    row.context("an empty answer")?.parse().context("no number")
}

/// One question, as HAProxy asks it.
pub fn ask(agent: SocketAddr, line: &str) -> Result<String> {
    rest_of(&mut question(agent, line)?)
}

fn question(agent: SocketAddr, line: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(agent)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(line.as_bytes())?;
    Ok(stream)
}

fn rest_of(stream: &mut TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn crew(lab: &Lab, name: &str, number: u16, agent: &str) -> Result<Crew> {
    let agents = Agents::pgsteer(lab, &binary::pgsteer()?, agent, 1.0)?;
    Crew::start(lab, name, number, agents)
}

fn before_and_after_a_switchover(
    lab: &Lab,
    haproxy: &Haproxy,
    crew: Option<&Crew>,
    rights: &[Right],
    and: impl Fn() -> Result<()>,
) -> Result<()> {
    let both = || {
        becomes_right(lab, haproxy, rights)?;
        and()?;
        lab.switchover(None)?;
        becomes_right(lab, haproxy, rights)?;
        and()
    };
    both().inspect_err(|_| {
        for (member, log) in crew.into_iter().flat_map(Crew::logs) {
            stage::keep_log(&format!("the agent at {member}"), &log);
        }
        stage::keep_log("HAProxy", &haproxy.log());
    })
}

fn becomes_right(lab: &Lab, haproxy: &Haproxy, rights: &[Right]) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let all = rights.iter().try_for_each(|right| is_right(lab, haproxy, right));
        match all {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn is_right(lab: &Lab, haproxy: &Haproxy, right: &Right) -> Result<()> {
    let primary = &lab.primary()?.name;
    let beliefs = haproxy.beliefs()?;
    let servers: BTreeMap<&str, &Believed> = beliefs.all(right.backend).collect();
    for member in lab.members() {
        let server = right.server.replace("{n}", member.name.trim_start_matches('n'));
        let believed =
            servers.get(&*server).with_context(|| format!("no {server}: {servers:?}"))?;
        let serves = (member.name == *primary) != right.read;
        let backend = right.backend;
        let status = match (serves, right.others) {
            (true, _) => "UP",
            (false, Others::Down) => "DOWN",
            (false, Others::InMaintenance) => "MAINT",
        };
        let is_it = believed.status.split([' ', '/']).next() == Some(status);
        ensure!(is_it, "{server} of {backend} should be {status}: {believed:?}");
        let wanted = match (right.agent, serves, right.read) {
            (false, ..) | (_, true, _) => "",
            (true, false, false) => "replica",
            (true, false, true) => "primary",
        };
        ensure!(believed.last_agent.contains(wanted), "{server} of {backend}: {believed:?}");
    }
    Ok(())
}

fn leads_to_the_primary(lab: &Lab, example: &Example) -> Result<()> {
    let primary = lab.primary()?;
    let output = psql(lab, example.write).args(["-c", "SELECT inet_server_addr()"]).output()?;
    let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if told != primary.ip.to_string() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("a client came to {told:?}, {} is primary: {error}", primary.ip);
    }
    Ok(())
}
