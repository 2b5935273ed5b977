//! The agent beside the programs that it replaces: what HAProxy shows during faults, and the time
//! and cost of an answer.

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
/// The blog's daemon cannot answer more than this on a small machine.
const BLOG_PER_SECOND: u32 = 100;
/// Shows the speed of the machine.
const BARE: &str = "a bare server instead";
const CROWD: usize = 5_000;

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    faults: Vec<Fault>,
    /// The time of each measurement of answers.
    time: Duration,
    rounds: usize,
    rest: Duration,
}

impl Plan {
    pub fn whole() -> Self {
        let (time, rest) = (Duration::from_secs(15), Duration::from_secs(30));
        Self { faults: Fault::ALL.to_vec(), time, rounds: 3, rest }
    }

    /// One fault, and short measurements of the rest.
    pub fn quick() -> Self {
        let (time, rest) = (Duration::from_secs(3), Duration::from_secs(3));
        Self { faults: vec![Fault::Switchover], time, rounds: 1, rest }
    }

    /// No faults.
    pub fn answers() -> Self {
        Self { faults: Vec::new(), ..Self::whole() }
    }
}

/// All measured figures.
#[derive(Debug)]
struct Measured {
    versions: String,
    rows: Vec<Row>,
    answering: Answering,
    rest: Rest,
    plan: Plan,
}

/// The times and costs of answers.
#[derive(Debug)]
struct Answering {
    answers: Vec<Answers>,
    pgsteer: Vec<Cost>,
    blog: Vec<Cost>,
    /// The stand-in's HTTP library, as it prints it.
    blog_words: String,
}

/// One measurement of answers.
#[derive(Debug)]
struct Answers {
    name: &'static str,
    latencies: Latencies,
    note: String,
}

/// Runs the benchmark and returns the text of its section.
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

/// The blog's daemon expects the role `master`, which Patroni does not report since 4.0.
fn start_lab(members: usize) -> Result<Lab> {
    let patroni = PatroniVersion::Debian;
    Lab::start(LabOptions { patroni, members, ..LabOptions::default() })
}

/// One agent that only watches three members.
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

/// The times and costs of answers, on a machine with one member, as in production.
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
    let mut answers = vec![measure("with a line", &asking)?, beside_crowd(&asking, pid)?];
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

/// Measures answers while a crowd holds connections.
fn beside_crowd(load: &Load<'_>, pid: u32) -> Result<Answers> {
    println!("answers: beside a crowd of {CROWD}");
    let crowd = Crowd::gather(load.addr, CROWD)?;
    let (opened, began) = (crowd.opened(), std::time::Instant::now());
    ensure!(crowd.held() == CROWD, "only {} connections could be made", crowd.held());
    let latencies = load.run()?;
    let per_second = (crowd.opened() - opened) as f64 / began.elapsed().as_secs_f64();
    ensure!(crowd.held() == CROWD, "the crowd has shrunk to {}", crowd.held());
    let at_hand = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let note = format!(
        "{per_second:.0} of these clients a second connect again; the agent had {at_hand} open files at the end"
    );
    Ok(Answers { name: "with a line, beside 5,000 clients", latencies, note })
}
