//! A world with several clusters, in which pgsteer has to keep to its own.
//!
//! Our cluster stands beside clusters with another system identifier, with the same scope, with the same
//! Citus scope, and clones of ours. Machines run PostgreSQL and Patroni at addresses. Addresses move
//! between machines and clusters, members and scopes are renamed, clusters are made anew, machines
//! stop, are cut off or answer late, the DCS is down (failsafe mode or not), pgsteer restarts with its
//! stored memory or without, with pins or without. The truth ([`truth`]) knows nothing of pgsteer. The
//! sources ([`play`]) report what real ones would: lists that are stale, empty or foreign, answers that
//! are late. The checks ([`check`]) look at Snapshots as an output does.
//!
//! What holds at every step:
//!
//! - *No gate is open at an address of another cluster* for longer than the detection takes, counted
//!   from when the other server came to the address: 3 s where the check login is accepted there, 7 s
//!   where Patroni alone is asked, 14 s where that Patroni was slow before. A connection of a client or
//!   of the check login ends when its address moves. A new one that the check login opens proves the
//!   role of a server and not its cluster, so the gate opens again only when Patroni was asked at that
//!   address since. A client that dials within the detection time reaches the other server. Such
//!   sessions are counted.
//! - *The list of another cluster changes no member*, and the identity of another cluster is not adopted.
//! - *A primary of ours is served* within 20 s if its list was read, and within 100 s if pgsteer has to
//!   learn its address, or another identity, first. A primary holds the lock, takes writes and answers.
//!   Another identity is learned from a list, so this time begins when the DCS is up.
//! - *A server with two names is one*: no two gates of a service are open at one address, no split brain
//!   is reported because of it, and the sessions of a primary that stays one go on.
//! - *At most one write gate is open.*
//!
//! What no program can tell apart ends a world and is counted:
//!
//! - At a start without memory, only another cluster answers, and no pin contradicts it; or ours answers
//!   too, but contradicts the pins.
//! - Another cluster has the names of more than half of our members at their addresses, or of two if it
//!   has our scope, or of one if it has our system identifier.
//!
//! Not modelled: PostgreSQL and Patroni of one member at different hosts, and an address that moves
//! between the two requests for one list.
//!
//! `PGSTEER_WORLD_STEPS` is the number of steps (reports, timeouts and events), `PGSTEER_WORLD_SEED` the
//! first seed, `PGSTEER_WORLD_FAULTS` after how many kinds of faults the test stops. A failure prints a
//! script that was shortened as far as possible. With `PGSTEER_WORLD_TRACE` all that happens is printed.

// The bans on the environment and on panics are for the core itself. Helpers of tests stand outside
// the functions that clippy knows to be tests.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

#[path = "world/check.rs"]
mod check;
mod cluster;
#[path = "world/play.rs"]
mod play;
#[path = "world/rng.rs"]
mod rng;
#[path = "world/script.rs"]
mod script;
#[path = "world/truth.rs"]
mod truth;

use std::collections::BTreeMap;

use play::{Outcome, Sources, play};
use script::Script;

/// How often each thing happens at least in 100,000 steps.
const FLOORS: [(&str, u64); 22] = [
    ("switchover", 20),
    ("network cut or mended", 10),
    ("Patroni stopped or started", 10),
    ("PostgreSQL stopped or started", 3),
    ("host stopped or started", 10),
    ("Patroni slow or quick", 5),
    ("address moved", 20),
    ("addresses exchanged", 20),
    ("member renamed", 5),
    ("scope renamed", 3),
    ("cluster made anew", 3),
    ("machine joined another cluster", 3),
    ("DCS down or up", 10),
    ("maintenance mode", 3),
    ("restart with memory", 5),
    ("restart without memory", 3),
    ("another cluster at a member's address", 20),
    ("list of another cluster", 100),
    ("empty list", 1),
    ("write gate opened", 50),
    ("read gate opened", 50),
    ("session opened", 50),
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// The shortest script with a fault of the same kind that leaving out events leads to.
fn shrink(script: &Script, kind: &str, sources: Sources) -> (Script, Outcome) {
    let fails = |script: &Script| {
        let outcome = play(script, sources);
        let is_same = outcome.fault.as_ref().is_some_and(|fault| fault.kind == kind);
        is_same.then_some(outcome)
    };
    let mut best = (script.clone(), fails(script).unwrap());
    let mut size = script.events.len();
    while size > 0 {
        let mut at = 0;
        while at < best.0.events.len() {
            let mut shorter = best.0.clone();
            let end = (at + size).min(shorter.events.len());
            let gone: u64 = shorter.events.drain(at..end).map(|(wait, _)| wait).sum();
            // The time that the events took passes all the same, or not.
            let mut with_time = shorter.clone();
            if let Some(next) = with_time.events.get_mut(at) {
                next.0 += gone;
            }
            let found = [shorter, with_time].into_iter().find_map(|it| Some((fails(&it)?, it)));
            match found {
                Some((outcome, script)) => best = (script, outcome),
                None => at += size,
            }
        }
        size /= 2;
    }
    best
}

#[test]
fn no_session_reaches_another_cluster_and_every_primary_is_served() {
    let wanted = number("PGSTEER_WORLD_STEPS", 100_000);
    let first = number("PGSTEER_WORLD_SEED", 1);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut steps, mut seed) = (0, first);
    let faults_max = number("PGSTEER_WORLD_FAULTS", 1);
    let mut faults: BTreeMap<&'static str, String> = BTreeMap::new();
    while steps < wanted && u64::try_from(faults.len()).unwrap() < faults_max {
        let script = Script::of(seed);
        let outcome = play(&script, Sources::AsTheyAre);
        if let Some(fault) = &outcome.fault
            && !faults.contains_key(fault.kind)
        {
            let (script, outcome) = shrink(&script, fault.kind, Sources::AsTheyAre);
            let told = format!("{}\n{script}", outcome.fault.unwrap());
            println!("{told}");
            faults.insert(fault.kind, told);
        }
        for (what, count) in outcome.counts {
            *counts.entry(what).or_default() += count;
        }
        steps += outcome.steps;
        seed += 1;
    }
    let faults: Vec<String> = faults.into_values().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{steps} steps of {} worlds from seed {first}", seed - first);
    for (what, count) in &counts {
        println!("{count:>9}  {what}");
    }
    if wanted >= 100_000 {
        is_worth_its_name(&counts);
    }
}

/// Without this the checks could hold because nothing happens.
fn is_worth_its_name(counts: &BTreeMap<&'static str, u64>) {
    for (what, floor) in FLOORS {
        let count = counts.get(what).copied().unwrap_or(0);
        assert!(count >= floor, "{what}: {count}, expected {floor} at least");
    }
}

/// The checks are able to fail: without identities in Patroni's answers pgsteer cannot keep to its own.
#[test]
fn a_world_without_identities_is_found_out() {
    let fails = |seed: &u64| play(&Script::of(*seed), Sources::WithoutIdentity).fault.is_some();
    let found = (1..200).find(fails);
    assert!(found.is_some());
}
