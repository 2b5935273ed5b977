//! The fault table of docs/AGENT.md, the rows of pgsteer: HAProxy shows the right state in every
//! row.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::agents::{
    AgentProcesses, Agents, Example, Fault, Haproxy, Patience, Scene, assess,
};
use pgsteer_lab::{Lab, Member, Truth};

use crate::{binary, stage};

const RECOMMENDED: &str = include_str!("../../../../../docs/haproxy/recommended.cfg");

/// A server that does not answer within this time counts as hung.
const TIMEOUT_SECONDS: f64 = 0.5;

/// `make bench-agent` measures the times exactly. Here the change must only happen, on a busy
/// machine.
const LIMIT: Duration = Duration::from_secs(5);
const PATIENCE: Patience =
    Patience { least: Duration::from_millis(500), most: Duration::from_secs(12) };

pub fn haproxy_shows_the_right_primary_in_every_row(lab: &Lab) -> Result<()> {
    let agents =
        Agents::pgsteer(lab, &binary::pgsteer()?, "vocabulary = 'admin'", TIMEOUT_SECONDS)?
            .pooled();
    let beside = agents.beside_haproxy(lab)?;
    let mut agent_sets = [AgentProcesses::start(lab, "agent", 0, agents)?];
    let addresses = |member: &Member| agent_sets[0].addresses(lab, member);
    let example = Example::of(RECOMMENDED, lab, addresses, Some(beside.addresses))?.quicker();
    let haproxy = Haproxy::start(lab, "haproxy-faults", &example.text)?;
    let all =
        Fault::ALL.into_iter().try_for_each(|fault| row(lab, &haproxy, &mut agent_sets, fault));
    all.inspect_err(|_| {
        agent_sets[0].logs().for_each(|(member, log)| {
            stage::keep_log(&format!("the agent at {member}"), &log);
        });
        stage::keep_log("the pgsteer beside HAProxy", &beside.log());
        stage::keep_log("HAProxy", &haproxy.log());
    })
}

fn row(
    lab: &Lab,
    haproxy: &Haproxy,
    agent_sets: &mut [AgentProcesses],
    fault: Fault,
) -> Result<()> {
    let (truth, watch) = (Truth::watch(lab)?, haproxy.watch()?);
    let scene =
        Scene { lab, truth: &truth, watch: &watch, backends: &["write"], patience: PATIENCE };
    scene.settle(Duration::from_secs(15))?;
    let phases = fault.happen(&scene, agent_sets)?;
    let log = watch.log();
    let limit = LIMIT + fault.notice(Duration::from_secs_f64(TIMEOUT_SECONDS));
    for phase in phases {
        for expected in &phase.expected {
            let assessed = assess(&log, "write", expected, phase.end);
            if std::env::var_os("PGSTEER_TIMES").is_some() {
                eprintln!("{}: {} {}: {assessed:?}", phase.name, expected.server, expected.up);
            }
            let (server, up) = (&expected.server, expected.up);
            ensure!(
                assessed.is_within(limit),
                "{}: {server} should be {}: {assessed:?}",
                phase.name,
                if up { "up" } else { "shut" }
            );
        }
    }
    for agents_of_members in agent_sets {
        agents_of_members.restart_stopped(lab)?;
    }
    lab.reset()
}
