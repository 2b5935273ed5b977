//! Every scenario in `tests/scenarios/` does what is written beneath its lines, and all of them
//! together reach every row of the decision table and every reason.
//!
//! After a wanted change of behaviour run `SCENARIOS=update cargo test -p pgsteer-core --test
//! scenarios` and read the difference.

// The bans on files, the environment and panics are for the core itself. Helpers of tests stand
// outside the functions that clippy knows to be tests.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod cluster;
mod script;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;

use pgsteer_core::reason::Reason;
use script::{Outcome, run};

struct Scenario {
    path: PathBuf,
    written: String,
    outcome: Outcome,
}

/// All scenarios, played once for all tests.
fn scenarios() -> &'static [Scenario] {
    static PLAYED: OnceLock<Vec<Scenario>> = OnceLock::new();
    PLAYED.get_or_init(play_all)
}

fn play_all() -> Vec<Scenario> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(play).collect()
}

fn play(path: PathBuf) -> Scenario {
    let written = std::fs::read_to_string(&path).unwrap();
    let outcome = run(&written).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    Scenario { path, written, outcome }
}

#[test]
fn every_scenario_goes_as_written() {
    let update = std::env::var("SCENARIOS").is_ok_and(|word| word == "update");
    let mut wrong = Vec::new();
    for Scenario { path, written, outcome } in scenarios() {
        if outcome.text == *written {
            continue;
        }
        if update {
            std::fs::write(path, &outcome.text).unwrap();
        } else {
            wrong.push(format!("{}\n{}", path.display(), difference(written, &outcome.text)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scenarios_reach_every_reason() {
    let mut seen = BTreeSet::new();
    for scenario in scenarios() {
        for snapshot in &scenario.outcome.driver.snapshots {
            let gates = snapshot.services.values().flat_map(|service| service.gates.values());
            seen.extend(gates.filter_map(|gate| gate.reason()).map(Reason::code));
        }
    }
    let all: BTreeSet<&str> = Reason::CODES.iter().copied().collect();
    let unseen: Vec<_> = all.difference(&seen).collect();
    assert!(unseen.is_empty(), "no scenario shows a gate that says {unseen:?}");
}

#[test]
fn the_scenarios_reach_every_row_of_the_decision_table() {
    let scenarios = scenarios();
    let reaches = |row: &table::Row| {
        scenarios.iter().any(|scenario| {
            let Outcome { config, driver, .. } = &scenario.outcome;
            driver.snapshots.iter().any(|snapshot| (row.seen)(config, snapshot))
        })
    };
    let unseen: Vec<_> =
        table::ROWS.iter().filter(|row| !reaches(row)).map(|row| row.says).collect();
    assert!(unseen.is_empty(), "no scenario reaches {unseen:#?}");
}

/// The lines that differ, with the last line before them that is the same.
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
