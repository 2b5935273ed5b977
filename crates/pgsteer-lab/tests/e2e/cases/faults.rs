//! The fault table of docs/AGENT.md, as far as it speaks of pgsteer: HAProxy is right in every row.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::agents::{Agents, Crew, Example, Fault, Haproxy, Patience, Scene, judge};
use pgsteer_lab::{Lab, Member, Truth};

use crate::{binary, stage};

const RECOMMENDED: &str = include_str!("../../../../../docs/haproxy/recommended.cfg");

/// A hang is taken for one after so long.
const TIMEOUT_SECONDS: f64 = 0.5;

/// What is measured exactly by `make bench-agent` only has to happen at all here, on a machine that
/// has much else to do.
const LIMIT: Duration = Duration::from_secs(5);
const PATIENCE: Patience =
    Patience { least: Duration::from_millis(500), most: Duration::from_secs(12) };

pub fn haproxy_is_right_about_the_primary_in_every_row(lab: &Lab) -> Result<()> {
    let agents =
        Agents::pgsteer(lab, &binary::pgsteer()?, "vocabulary = 'admin'", TIMEOUT_SECONDS)?
            .pooled();
    let beside = agents.beside_haproxy(lab)?;
    let mut crews = [Crew::start(lab, "agent", 0, agents)?];
    let post = |member: &Member| crews[0].post(lab, member);
    let example = Example::of(RECOMMENDED, lab, post, Some(beside.post))?.quicker();
    let haproxy = Haproxy::start(lab, "haproxy-faults", &example.text)?;
    let all = Fault::ALL.into_iter().try_for_each(|fault| row(lab, &haproxy, &mut crews, fault));
    all.inspect_err(|_| {
        crews[0].logs().for_each(|(member, log)| {
            stage::keep_log(&format!("the agent at {member}"), &log);
        });
        stage::keep_log("the pgsteer beside HAProxy", &beside.log());
        stage::keep_log("HAProxy", &haproxy.log());
    })
}

fn row(lab: &Lab, haproxy: &Haproxy, crews: &mut [Crew], fault: Fault) -> Result<()> {
    let (truth, watch) = (Truth::watch(lab)?, haproxy.watch()?);
    let scene =
        Scene { lab, truth: &truth, watch: &watch, backends: &["write"], patience: PATIENCE };
    scene.settle(Duration::from_secs(15))?;
    let phases = fault.happen(&scene, crews)?;
    let log = watch.log();
    let limit = LIMIT + fault.notice(Duration::from_secs_f64(TIMEOUT_SECONDS));
    for phase in phases {
        for expected in &phase.expected {
            let judged = judge(&log, "write", expected, phase.end);
            if std::env::var_os("PGSTEER_TIMES").is_some() {
                eprintln!("{}: {} {}: {judged:?}", phase.name, expected.server, expected.up);
            }
            let (server, up) = (&expected.server, expected.up);
            ensure!(
                judged.is_within(limit),
                "{}: {server} should be {}: {judged:?}",
                phase.name,
                if up { "up" } else { "shut" }
            );
        }
    }
    for crew in crews {
        crew.mend(lab)?;
    }
    lab.reset()
}
