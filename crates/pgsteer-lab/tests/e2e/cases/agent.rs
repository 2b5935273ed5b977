//! HAProxy's agent-checks: the examples of docs/haproxy, each with pgsteer instead of the daemon
//! that it was written for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use pgsteer_lab::agents::{AgentAddresses, AgentProcesses, Agents, Example, Haproxy, ServerState};
use pgsteer_lab::{Lab, Member, SUPERUSER, Session, Signal};

use crate::clients::psql;
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};
use crate::{binary, stage};

/// The longest time until HAProxy shows the right states. The intervals are 300 ms, and the machine
/// is busy.
const SOON: Duration = Duration::from_secs(10);

const SCENARIO_A: &str = include_str!("../../../../../docs/haproxy/scenario-a.cfg");
const SCENARIO_B: &str = include_str!("../../../../../docs/haproxy/scenario-b.cfg");
const SCENARIO_C: &str = include_str!("../../../../../docs/haproxy/scenario-c.cfg");
const BLOG: &str = include_str!("../../../../../docs/haproxy/blog.cfg");
const RECOMMENDED: &str = include_str!("../../../../../docs/haproxy/recommended.cfg");
const ONE_FOR_ALL: &str = include_str!("../../../../../docs/haproxy/one-for-all.cfg");

/// The state that HAProxy must show for members that do not serve the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Down,
    InMaintenance,
}

/// One backend with its expected states. `{n}` in the name of a server is the member's number.
#[derive(Debug, Clone, Copy)]
struct ExpectedBackend {
    backend: &'static str,
    server: &'static str,
    others: Others,
    /// The backend serves readers: all members except the primary.
    read: bool,
    /// HAProxy gets the reason from an agent-check.
    agent: bool,
}

const WRITE: ExpectedBackend =
    ExpectedBackend { backend: "", server: "n{n}", others: Others::Down, read: false, agent: true };

pub fn happacs_scenarios_work_with_pgsteer_as_the_agent(lab: &Lab) -> Result<()> {
    // Without a vocabulary in the file happac's flags make the answers bare, without reasons.
    let agents_of_members = start_agents(lab, "agent", 0, "vocabulary = 'health'")?;
    let addresses = |member: &Member| agents_of_members.addresses(lab, member);
    let example = |text: &str| Ok::<_, Error>(Example::of(text, lab, addresses, None)?.quicker());
    let named = |name: &'static str| [("listen master\n", name)];
    let pages = example(SCENARIO_A)?.renamed(&named("listen pages\n"));
    let patroni = SCENARIO_A.replace("check port 7000", "check port 8008");
    let patroni = example(&patroni)?.renamed(&named("listen patroni\n"));
    let b = example(SCENARIO_B)?.renamed(&named("listen b\n"));
    let c = example(SCENARIO_C)?.renamed(&named("listen c\n"));
    let sections = [&pages.text, &patroni.text, &b.text, &c.text].map(String::as_str).concat();
    let haproxy = Haproxy::start(lab, "haproxy-scenarios", &sections)?;
    let server = "patroni-{n}-pgbouncer";
    let expected = [
        ExpectedBackend { backend: "pages", server, agent: false, ..WRITE },
        ExpectedBackend { backend: "patroni", server, agent: false, ..WRITE },
        ExpectedBackend { backend: "b", server, ..WRITE },
        ExpectedBackend { backend: "master_pgbouncer", server, ..WRITE },
        ExpectedBackend { backend: "master_patroni", server, agent: false, ..WRITE },
    ];
    before_and_after_a_switchover(lab, &haproxy, Some(&agents_of_members), &expected, || {
        let up = haproxy.server_states()?;
        ensure!(up.up("happac").len() == 3, "{up:?}");
        [&pages, &patroni, &b, &c].iter().try_for_each(|each| leads_to_the_primary(lab, each))
    })
}

pub fn no_server_is_shown_down_in_normal_operation(lab: &Lab) -> Result<()> {
    let agents_of_members = start_agents(lab, "agent", 0, "vocabulary = 'admin'")?;
    let agents = Agents::pgsteer(lab, &binary::pgsteer()?, "", 1.0)?;
    let beside = agents.beside_haproxy(lab)?;
    let addresses = |member: &Member| agents_of_members.addresses(lab, member);
    let example = |text: &str| {
        Ok::<_, Error>(Example::of(text, lab, addresses, Some(beside.addresses))?.quicker())
    };
    let (blog, recommended) = (example(BLOG)?, example(RECOMMENDED)?);
    let haproxy = Haproxy::start(lab, "haproxy-admin", &(blog.text + &recommended.text))?;
    let admin = ExpectedBackend { others: Others::InMaintenance, ..WRITE };
    let expected = [
        ExpectedBackend { backend: "mast-pgX_psql_readwrite", server: "mast-pg{n}", ..admin },
        ExpectedBackend { backend: "write", ..admin },
        ExpectedBackend { backend: "read", read: true, ..admin },
    ];
    before_and_after_a_switchover(lab, &haproxy, Some(&agents_of_members), &expected, || {
        leads_to_the_primary(lab, &Example { text: String::new(), ..recommended })
    })
}

/// Uses the agent of a `pgsteer run`.
pub fn one_agent_answers_for_all_members(lab: &Lab) -> Result<()> {
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\nvocabulary = 'admin'\n");
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let addresses = AgentAddresses { agent, pages: steer.doors.http };
    let example = Example::of(ONE_FOR_ALL, lab, |_| addresses, Some(addresses))?.quicker();
    let haproxy = Haproxy::start(lab, "haproxy-one", &example.text)?;
    let admin = ExpectedBackend { others: Others::InMaintenance, ..WRITE };
    let expected = [
        ExpectedBackend { backend: "write", ..admin },
        ExpectedBackend { backend: "read", read: true, ..admin },
    ];
    before_and_after_a_switchover(lab, &haproxy, None, &expected, || {
        leads_to_the_primary(lab, &example)
    })
}

/// HAProxy's weight follows the sessions of a real server, down and up again.
pub fn the_weight_falls_as_sessions_open(lab: &Lab) -> Result<()> {
    let agent = SocketAddr::from((lab.host_ip(), 5555));
    let more = format!("[agent]\nlisten = '{agent}'\nweight = 'sessions'\n");
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let replica = lab.replicas()?[0];
    let line = format!("read {}\n", replica.name);
    let answers = |wanted: &str| {
        steer.wait_for(&format!("{line:?} to be answered {wanted:?}"), SOON, |_| {
            ask(agent, &line).is_ok_and(|answer| answer.trim_end() == wanted)
        })
    };
    answers("ready up 100%")?;
    let max: usize = most_sessions(replica)?;
    let half = (0..max / 2).map(|_| Kept::open(replica.postgres_addr()));
    let mut half: Vec<Kept> = half.collect::<Result<_>>()?;
    answers("ready up 50%")?;
    // A change of 4 % is less than half a step, so the weight stays. pgsteer reads the number of
    // sessions every second, so it has read the new one after two.
    half.truncate(max / 2 - max / 25);
    std::thread::sleep(Duration::from_secs(2));
    ensure!(ask(agent, &line)?.trim_end() == "ready up 50%");
    drop(half);
    answers("ready up 100%")
}

/// A process that was stopped for a while, as by a move of its virtual machine, has only old claims
/// when it continues, while every member is healthy. HAProxy's request waits during the stop.
pub fn an_agent_that_was_stopped_reports_no_member_down(lab: &Lab) -> Result<()> {
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

/// The number of sessions that the server admits, without the reserved ones.
fn most_sessions(member: &Member) -> Result<usize> {
    let sql = "SELECT current_setting('max_connections')::int
                    - current_setting('superuser_reserved_connections')::int";
    let mut session = Session::connect(member.postgres_addr(), SUPERUSER, "postgres", SOON)?;
    let row = session.query(sql, SOON)?.into_iter().flatten().flatten().next();
    row.context("an empty answer")?.parse().context("no number")
}

/// One request, as HAProxy sends it.
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

fn start_agents(lab: &Lab, name: &str, number: u16, agent: &str) -> Result<AgentProcesses> {
    let agents = Agents::pgsteer(lab, &binary::pgsteer()?, agent, 1.0)?;
    AgentProcesses::start(lab, name, number, agents)
}

fn before_and_after_a_switchover(
    lab: &Lab,
    haproxy: &Haproxy,
    agents_of_members: Option<&AgentProcesses>,
    expected: &[ExpectedBackend],
    and: impl Fn() -> Result<()>,
) -> Result<()> {
    let both = || {
        reaches(lab, haproxy, expected)?;
        and()?;
        lab.switchover(None)?;
        reaches(lab, haproxy, expected)?;
        and()
    };
    both().inspect_err(|_| {
        for (member, log) in agents_of_members.into_iter().flat_map(AgentProcesses::logs) {
            stage::keep_log(&format!("the agent at {member}"), &log);
        }
        stage::keep_log("HAProxy", &haproxy.log());
    })
}

fn reaches(lab: &Lab, haproxy: &Haproxy, expected: &[ExpectedBackend]) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let all = expected.iter().try_for_each(|each| shows(lab, haproxy, each));
        match all {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn shows(lab: &Lab, haproxy: &Haproxy, expected: &ExpectedBackend) -> Result<()> {
    let primary = &lab.primary()?.name;
    let server_states = haproxy.server_states()?;
    let servers: BTreeMap<&str, &ServerState> = server_states.all(expected.backend).collect();
    for member in lab.members() {
        let server = expected.server.replace("{n}", member.name.trim_start_matches('n'));
        let state = servers.get(&*server).with_context(|| format!("no {server}: {servers:?}"))?;
        let serves = (member.name == *primary) != expected.read;
        let backend = expected.backend;
        let status = match (serves, expected.others) {
            (true, _) => "UP",
            (false, Others::Down) => "DOWN",
            (false, Others::InMaintenance) => "MAINT",
        };
        let is_it = state.status.split([' ', '/']).next() == Some(status);
        ensure!(is_it, "{server} of {backend} should be {status}: {state:?}");
        let wanted = match (expected.agent, serves, expected.read) {
            (false, ..) | (_, true, _) => "",
            (true, false, false) => "replica",
            (true, false, true) => "primary",
        };
        ensure!(state.last_agent.contains(wanted), "{server} of {backend}: {state:?}");
    }
    Ok(())
}

fn leads_to_the_primary(lab: &Lab, example: &Example) -> Result<()> {
    let primary = lab.primary()?;
    let output = psql(lab, example.write).args(["-c", "SELECT inet_server_addr()"]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if printed != primary.ip.to_string() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("a client came to {printed:?}, {} is primary: {error}", primary.ip);
    }
    Ok(())
}
