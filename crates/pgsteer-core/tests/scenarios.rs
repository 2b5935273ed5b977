//! Every scenario in `tests/scenarios/` behaves as in its file, and all of them together reach
//! every row of the decision table and every reason.
//!
//! Each file is a test with the file's name: `cargo test -p pgsteer-core --test scenarios
//! switchover`. After an intended change of behaviour run `SCENARIOS=update cargo test -p
//! pgsteer-core --test scenarios` and read the difference.

// The bans on files, the environment and panics are for the core itself. Helpers of tests stand
// outside the functions that clippy recognises as tests.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod cluster;
mod script;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Failed, Trial};
use pgsteer_core::reason::Reason;
use script::{Outcome, run};

/// One file of `tests/scenarios/`. It runs at its first use.
struct Scenario {
    name: String,
    path: PathBuf,
    written: String,
    outcome: OnceLock<Result<Outcome, String>>,
}

impl Scenario {
    fn read(path: PathBuf) -> Scenario {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let written = std::fs::read_to_string(&path).unwrap();
        Scenario { name, path, written, outcome: OnceLock::new() }
    }

    fn outcome(&self) -> Result<&Outcome, Failed> {
        let outcome = self.outcome.get_or_init(|| run(&self.written));
        outcome.as_ref().map_err(|err| format!("{}: {err}", self.path.display()).into())
    }

    /// Fails if the outcome differs from the file, or updates the file.
    fn goes_as_written(&self) -> Result<(), Failed> {
        let outcome = self.outcome()?;
        if outcome.text == self.written {
            return Ok(());
        }
        if std::env::var("SCENARIOS").is_ok_and(|word| word == "update") {
            return Ok(std::fs::write(&self.path, &outcome.text)?);
        }
        let difference = difference(&self.written, &outcome.text);
        Err(format!("{}\n{difference}", self.path.display()).into())
    }
}

fn main() -> ExitCode {
    let scenarios: &'static [Scenario] = Vec::leak(read_all());
    let of_one = scenarios
        .iter()
        .map(|scenario| Trial::test(scenario.name.clone(), || scenario.goes_as_written()));
    let of_all = [
        Trial::test("the_scenarios_reach_every_reason", || reach_every_reason(scenarios)),
        Trial::test("the_scenarios_reach_every_row_of_the_decision_table", || {
            reach_every_row(scenarios)
        }),
    ];
    let trials = of_one.chain(of_all).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn read_all() -> Vec<Scenario> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(Scenario::read).collect()
}

fn outcomes(scenarios: &[Scenario]) -> Result<Vec<&Outcome>, Failed> {
    scenarios.iter().map(Scenario::outcome).collect()
}

fn reach_every_reason(scenarios: &[Scenario]) -> Result<(), Failed> {
    let mut seen = BTreeSet::new();
    for outcome in outcomes(scenarios)? {
        for snapshot in &outcome.driver.snapshots {
            let gates = snapshot.services.values().flat_map(|service| service.gates.values());
            seen.extend(gates.filter_map(|gate| gate.reason()).map(Reason::code));
            // Some reasons are shown for a pooler only.
            let poolers = snapshot.members.values().flat_map(|member| member.poolers.values());
            seen.extend(poolers.filter_map(|pooler| pooler.trouble.as_ref()).map(Reason::code));
        }
    }
    let all: BTreeSet<&str> = Reason::CODES.iter().copied().collect();
    let unseen: Vec<_> = all.difference(&seen).collect();
    match unseen.is_empty() {
        true => Ok(()),
        false => Err(format!("no scenario shows the reason {unseen:?}").into()),
    }
}

fn reach_every_row(scenarios: &[Scenario]) -> Result<(), Failed> {
    let outcomes = outcomes(scenarios)?;
    let is_reached = |row: &table::Row| {
        outcomes.iter().any(|Outcome { config, driver, .. }| {
            driver.snapshots.iter().any(|snapshot| (row.seen)(config, snapshot))
        })
    };
    let rows = table::ROWS.iter().filter(|row| !is_reached(row));
    let unseen: Vec<_> = rows.map(|row| row.text).collect();
    match unseen.is_empty() {
        true => Ok(()),
        false => Err(format!("no scenario reaches {unseen:#?}").into()),
    }
}

/// The lines that differ, with the last equal line before them.
fn difference(written: &str, found: &str) -> String {
    let (written, found): (Vec<_>, Vec<_>) = (written.lines().collect(), found.lines().collect());
    let same = written.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let same_at_end =
        written[same..].iter().rev().zip(found[same..].iter().rev()).take_while(|(a, b)| a == b);
    let same_at_end = same_at_end.count();
    let context = same.saturating_sub(3);
    let mut lines: Vec<String> =
        written[context..same].iter().map(|line| format!("    {line}")).collect();
    let cut = |lines: &[&str], sign: &str| -> Vec<String> {
        lines[same..lines.len() - same_at_end]
            .iter()
            .map(|line| format!("  {sign} {line}"))
            .collect()
    };
    lines.extend(cut(&written, "-"));
    lines.extend(cut(&found, "+"));
    lines.join("\n")
}
