//! The agent beside those that it replaces: what HAProxy believes while things go wrong, and what an
//! answer takes and costs.

mod cost;
mod crowd;
mod load;
mod report;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::cost::Cost;
use self::crowd::Crowd;
use self::load::{Latencies, Load};
use self::table::Row;
use crate::usage::{Rest, at_rest};
use crate::{bench_setup, versions};
use pgsteer_lab::Lab;
use pgsteer_lab::agents::{AgentProcesses, Agents, Fault};
use pgsteer_lab::{LabOptions, PatroniVersion};

const PER_SECOND: u32 = 1_000;
/// More than this the blog's daemon does not manage on a small machine.
const BLOG_PER_SECOND: u32 = 100;
/// Says how fast the machine is.
const BARE: &str = "a bare server in its place";
const CROWD: usize = 5_000;

/// What is done.
#[derive(Debug)]
pub struct Plan {
    faults: Vec<Fault>,
    /// Each measurement of answers.
    time: Duration,
    rounds: usize,
    rest: Duration,
}

impl Plan {
    pub fn whole() -> Self {
        let (time, rest) = (Duration::from_secs(15), Duration::from_secs(30));
        Self { faults: Fault::ALL.to_vec(), time, rounds: 3, rest }
    }

    /// One fault, and short looks at the rest.
    pub fn quick() -> Self {
        let (time, rest) = (Duration::from_secs(3), Duration::from_secs(3));
        Self { faults: vec![Fault::Switchover], time, rounds: 1, rest }
    }

    /// No faults at all.
    pub fn answers() -> Self {
        Self { faults: Vec::new(), ..Self::whole() }
    }
}

/// All that was measured.
#[derive(Debug)]
struct Measured {
    versions: String,
    rows: Vec<Row>,
    answering: Answering,
    rest: Rest,
    plan: Plan,
}

/// What answers take and cost.
#[derive(Debug)]
struct Answering {
    answers: Vec<Answers>,
    pgsteer: Vec<Cost>,
    blog: Vec<Cost>,
    /// By what the stand-in asks Patroni.
    blog_words: String,
}

/// One measurement of answers.
#[derive(Debug)]
struct Answers {
    name: &'static str,
    latencies: Latencies,
    note: String,
}

/// Runs the benchmark; the text of its section.
pub fn run(plan: Plan) -> Result<String> {
    let binary = bench_setup::pgsteer_binary()?;
    bench_setup::raise_file_limit();
    let alone = start_lab(1)?;
    println!("one node is up");
    let answering = answering(&alone, &binary, &plan)?;
    drop(alone);
    let lab = start_lab(3)?;
    println!("the cluster is up");
    let rest = resting(&lab, &binary, plan.rest)?;
    let rows = table::measure(&lab, &binary, &plan.faults)?;
    let versions = versions::lines(&lab, &binary);
    Ok(report::section(&Measured { versions, rows, answering, rest, plan }))
}

/// The blog's daemon looks for the role `master`, which Patroni has not said since 4.0.
fn start_lab(members: usize) -> Result<Lab> {
    let patroni = PatroniVersion::Debian;
    Lab::start(LabOptions { patroni, members, ..LabOptions::default() })
}

/// One agent that has nothing to do but to watch three members.
fn resting(lab: &Lab, binary: &Path, time: Duration) -> Result<Rest> {
    let mut agents_of_members =
        AgentProcesses::start(lab, "resting", 0, Agents::pgsteer(lab, binary, "", 1.0)?)?;
    let primary = lab.primary()?.name.clone();
    for member in lab.members().iter().filter(|member| member.name != primary) {
        agents_of_members.kill(&member.name)?;
    }
    std::thread::sleep(Duration::from_secs(3));
    println!("{} s at rest", time.as_secs());
    let [rest] = at_rest(&[agents_of_members.pid(&primary)?], time)?
        .try_into()
        .ok()
        .context("one was watched")?;
    Ok(rest)
}

/// What answers take and cost, on a machine with one member, as the agent's is in life.
fn answering(lab: &Lab, binary: &Path, plan: &Plan) -> Result<Answering> {
    let primary = lab.primary()?;
    let mut ours = AgentProcesses::start(lab, "agent", 0, Agents::pgsteer(lab, binary, "", 1.0)?)?;
    let wait = "line_wait_seconds = 0";
    let unasked =
        AgentProcesses::start(lab, "unasked", 1, Agents::pgsteer(lab, binary, wait, 1.0)?)?;
    let mut blog = AgentProcesses::start(lab, "blog", 2, Agents::BlogDaemon)?;
    std::thread::sleep(Duration::from_secs(3));
    let pid = ours.pid(&primary.name)?;
    let asking = Load {
        addr: ours.addresses(lab, primary).agent,
        line: "primary\n",
        answer: "ready up",
        per_second: PER_SECOND,
        time: plan.time,
    };
    let unasking = Load { addr: unasked.addresses(lab, primary).agent, line: "", ..asking };
    let asking_blog = Load {
        addr: blog.addresses(lab, primary).agent,
        line: "",
        answer: "READY",
        per_second: BLOG_PER_SECOND,
        ..asking
    };
    let bare = Load { addr: load::bare_server("ready up\n")?, ..asking };
    let mut answers = vec![measure("with a line", &asking)?, beset(&asking, pid)?];
    answers.push(measure("without one, `--line-wait 0`", &unasking)?);
    drop(unasked);
    answers.push(measure(BARE, &bare)?);
    answers.push(measure("blog's daemon, 100 a second", &asking_blog)?);
    let mut answering = Answering {
        answers,
        pgsteer: Vec::new(),
        blog: Vec::new(),
        blog_words: blog.first_words(&primary.name),
    };
    for round in 1..=plan.rounds {
        println!("cost, round {round}");
        answering.pgsteer.push(cost::measure(lab, &asking, pid)?);
        answering.blog.push(cost::measure(lab, &asking_blog, blog.pid(&primary.name)?)?);
    }
    Ok(answering)
}

fn measure(name: &'static str, load: &Load<'_>) -> Result<Answers> {
    println!("answers: {name}");
    Ok(Answers { name, latencies: load.run()?, note: String::new() })
}

/// Answers while a crowd is there.
fn beset(load: &Load<'_>, pid: u32) -> Result<Answers> {
    println!("answers: beset by {CROWD}");
    let crowd = Crowd::gather(load.addr, CROWD)?;
    let (opened, began) = (crowd.opened(), std::time::Instant::now());
    ensure!(crowd.held() == CROWD, "only {} connections could be made", crowd.held());
    let latencies = load.run()?;
    let per_second = (crowd.opened() - opened) as f64 / began.elapsed().as_secs_f64();
    ensure!(crowd.held() == CROWD, "the crowd has shrunk to {}", crowd.held());
    let at_hand = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let note = format!(
        "{per_second:.0} of the crowd a second come anew; {at_hand} files were open in the agent at the end"
    );
    Ok(Answers { name: "with a line, beset by 5,000", latencies, note })
}
