//! The fault table: the state that HAProxy shows with each kind of agent, fault by fault.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use pgsteer_lab::Lab;
use pgsteer_lab::Member;
use pgsteer_lab::Truth;
use pgsteer_lab::agents::{
    AgentProcesses, Agents, Assessment, Example, Fault, Haproxy, Patience, Scene, assess,
};

const RECOMMENDED: &str = include_str!("../../../../docs/haproxy/recommended.cfg");
const SCENARIO_B: &str = include_str!("../../../../docs/haproxy/scenario-b.cfg");
const BLOG: &str = include_str!("../../../../docs/haproxy/blog.cfg");

/// The same interval for all agents.
pub const AGENT_INTER: Duration = Duration::from_millis(500);

/// A server that does not answer within this time counts as hung.
pub const TIMEOUT: Duration = Duration::from_millis(500);

/// Longer than the slowest health check beside an agent: happac's `inter 3s fall 3`.
const PATIENCE: Patience =
    Patience { least: Duration::from_secs(6), most: Duration::from_secs(12) };

const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// The backend that pgsteer pushes to.
const PUSHED_BACKEND: &str = "pushed";

/// The backends of the one HAProxy, with the column headings of the table.
pub const BACKENDS: [(&str, &str); 5] = [
    ("write", "pgsteer"),
    (PUSHED_BACKEND, "pgsteer, pushed"),
    ("same_line", "pgsteer, happac's line"),
    ("happac", "happac"),
    ("blog", "blog's daemon"),
];

/// One server in one phase of a fault, by backend.
#[derive(Debug)]
pub struct Row {
    pub fault: Fault,
    pub phase: &'static str,
    /// The correct state.
    pub right: String,
    /// The time of the observation.
    pub looked: Duration,
    pub judgements: Vec<Assessment>,
}

/// Runs all faults, one after the other.
pub fn measure(lab: &Lab, binary: &Path, faults: &[Fault]) -> Result<Vec<Row>> {
    let timeout = TIMEOUT.as_secs_f64();
    let ours = Agents::pgsteer(lab, binary, "vocabulary = 'admin'", timeout)?.pooled();
    let beside = Agents::addresses_beside_haproxy(lab);
    let mut agent_sets = [
        AgentProcesses::start(lab, "agent", 0, ours.clone())?,
        AgentProcesses::start(lab, "happac", 1, Agents::Happac)?,
        AgentProcesses::start(lab, "blog", 2, Agents::BlogDaemon)?,
    ];
    let of = |text: &str, agents_of_members: &AgentProcesses| {
        let addresses = |member: &Member| agents_of_members.addresses(lab, member);
        let example = Example::of(text, lab, addresses, Some(beside))?;
        anyhow::Ok(named(&example.text))
    };
    let sections = [
        of(RECOMMENDED, &agent_sets[0])?,
        of(SCENARIO_B, &agent_sets[0])?.replace("listen master\n", "listen same_line\n"),
        of(SCENARIO_B, &agent_sets[1])?.replace("listen master\n", "listen happac\n"),
        through_poolers(lab, of(BLOG, &agent_sets[2])?),
        pushed_section(lab)?,
    ]
    .concat();
    let haproxy = Haproxy::start(lab, "haproxy-faults", &sections)?;
    let beside = ours.with_sections(&steering(lab, haproxy.socket())?).beside_haproxy(lab)?;
    beside.wait_for_log("is steered", SETTLE_LIMIT)?;
    let mut rows = Vec::new();
    for fault in faults {
        println!("{fault}");
        rows.extend(
            row(lab, &haproxy, &mut agent_sets, *fault).with_context(|| fault.to_string())?,
        );
    }
    Ok(rows)
}

/// A backend with Patroni's health check for a pgsteer that pushes, through the PgBouncers.
fn pushed_section(lab: &Lab) -> Result<String> {
    let servers = lab.members().iter().map(|member| {
        let (name, address, port) = (&member.name, member.pgbouncer_addr(), member.patroni_port);
        format!("    server {name} {address} check port {port}\n")
    });
    let servers: String = servers.collect();
    Ok(format!(
        "listen {PUSHED_BACKEND}\n    bind {}\n    option httpchk GET /primary\n    \
         http-check expect status 200\n    \
         default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n{servers}\n",
        crate::bench_setup::free_address()?
    ))
}

/// The sections of a pgsteer that writes the gates of the PgBouncers to the HAProxy at `socket`.
fn steering(lab: &Lab, socket: SocketAddr) -> Result<String> {
    let member = lab.members().first().context("the lab has no member")?;
    Ok(format!(
        "[haproxy]\nsockets = ['{socket}']\nbackends = {{ write = '{PUSHED_BACKEND}' }}\n\
         [services.write]\nlisten = '{}'\nrole = 'primary'\npooler_port = {}\n",
        crate::bench_setup::free_address()?,
        member.pgbouncer_port
    ))
}

/// The blog's servers are PostgreSQL itself; here all backends use the same PgBouncers.
fn through_poolers(lab: &Lab, text: String) -> String {
    lab.members().iter().fold(text, |text, member| {
        text.replace(&member.postgres_addr().to_string(), &member.pgbouncer_addr().to_string())
    })
}

/// Gives the servers the members' names, and every agent the same interval.
fn named(text: &str) -> String {
    let inter = format!("agent-inter {}ms", AGENT_INTER.as_millis());
    let mut text = text
        .replace("patroni-", "n")
        .replace("-pgbouncer ", " ")
        .replace("server mast-pg", "server n")
        .replace("backend mast-pgX_psql_readwrite", "backend blog")
        .replace("fall 2 rise 2 on-marked", &format!("fall 2 rise 2 {inter} on-marked"));
    for theirs in ["agent-inter 5s", "agent-inter 1s"] {
        text = text.replace(theirs, &inter);
    }
    text
}

fn row(
    lab: &Lab,
    haproxy: &Haproxy,
    agent_sets: &mut [AgentProcesses],
    fault: Fault,
) -> Result<Vec<Row>> {
    lab.reset()?;
    for agents_of_members in agent_sets.iter_mut() {
        agents_of_members.restart_stopped(lab)?;
    }
    let (truth, watch) = (Truth::watch(lab)?, haproxy.watch()?);
    let backends = BACKENDS.map(|(backend, _)| backend);
    let scene =
        Scene { lab, truth: &truth, watch: &watch, backends: &backends, patience: PATIENCE };
    scene.settle(SETTLE_LIMIT)?;
    let old = lab.primary()?.name.clone();
    let phases = fault.happen(&scene, agent_sets)?;
    let log = watch.log();
    let mut rows = Vec::new();
    for phase in &phases {
        for expected in &phase.expected {
            let right = match (expected.server == old, expected.up) {
                (true, true) => "primary up",
                (true, false) => "old primary not up",
                (false, _) => "new primary up",
            };
            let each = backends.iter().map(|of| assess(&log, of, expected, phase.end));
            let judgements: Vec<Assessment> = each.collect();
            println!("  {}, {right}: {judgements:?}", phase.name);
            let looked = phase.end.saturating_duration_since(expected.from);
            let right = right.to_owned();
            rows.push(Row { fault, phase: phase.name, right, looked, judgements });
        }
    }
    Ok(rows)
}
