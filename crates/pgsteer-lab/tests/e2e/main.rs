//! End to end: pgsteer in front of real clusters that are broken on purpose.
//!
//! The tests of one cluster share it and run one after the other; each test starts with a healthy
//! cluster. An argument selects the tests whose names contain it, `--list` shows the names, and
//! `PGSTEER_TIMES=1` prints the time of each test.

mod binary;
mod browser;
mod cases;
mod clients;
mod crowd;
mod installed;
mod kept;
mod rendered;
mod sockets;
mod stage;
mod steer;
mod traffic;
mod vip_nodes;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use self::cases::Case;
use self::stage::Cluster;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, so one test at a time.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = binary::pgsteer()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(&arguments, cases::all().into_iter().map(trial).collect());
    stage::strike();
    conclusion.exit_code()
}

fn trial(case: Case) -> Trial {
    let name = format!("{}::{}", case.cluster.name(), case.name);
    let test_name = name.clone();
    let trial = Trial::test(name, move || {
        stage::play(&test_name, case.cluster, case.play)
            .map_err(|error| Failed::from(format!("{error:#}")))
    });
    let needs_root = case.needs_cables && case.cluster.network() != Cluster::CABLES;
    if needs_root {
        trial.with_kind("skipped: needs root").with_ignored_flag(true)
    } else if case.needs_haproxy_3_0 && !cases::has_haproxy_3_0() {
        let kind = "skipped: needs scripts/install-haproxy-3.0.sh";
        trial.with_kind(kind).with_ignored_flag(true)
    } else if case.needs_browser && !browser::is_installed() {
        let kind = "skipped: needs scripts/install-lab.sh readers";
        trial.with_kind(kind).with_ignored_flag(true)
    } else {
        trial
    }
}
