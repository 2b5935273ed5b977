//! Of two faults of a member, pgsteer names the more important one, and the gate follows the more
//! serious one. All pairs are tried in a cluster of three.

// Helpers of tests stand outside the functions that clippy knows to be tests.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic, dead_code)]

mod cluster;
mod script;

use pgsteer_core::answer::Answer;
use pgsteer_core::gate::GateState;
use pgsteer_core::question::Question;
use pgsteer_core::rank::Rank;
use pgsteer_core::reason::Reason;
use pgsteer_core::snapshot::Snapshot;

/// A fault of n3, a replica that is healthy otherwise.
struct Fault {
    name: &'static str,
    /// The lines of the script. A source that they name reports this from then on.
    lines: &'static [&'static str],
    /// Words that replace the ones in its Patroni's answer.
    patroni: &'static [&'static str],
    topology: bool,
}

const NOTHING: Fault = Fault { name: "", lines: &[], patroni: &[], topology: false };

const FAULTS: &[Fault] = &[
    Fault { name: "rogue", lines: &["n3 tether primary", "n3 patroni failed refused"], ..NOTHING },
    Fault { name: "slow to demote", lines: &["n3 tether primary"], ..NOTHING },
    Fault {
        name: "split",
        lines: &["n3 tether primary"],
        patroni: &["lock", "primary"],
        ..NOTHING
    },
    Fault { name: "other cluster", patroni: &["system=2"], ..NOTHING },
    Fault { name: "left", topology: true, ..NOTHING },
    Fault { name: "down", lines: &["n3 tether failed refused"], ..NOTHING },
    Fault { name: "patroni lost", lines: &["n3 patroni failed refused"], ..NOTHING },
    Fault { name: "tether refused", lines: &["n3 tether failed login:28P01"], ..NOTHING },
    Fault { name: "pooler down", lines: &["n3 pooler failed refused"], ..NOTHING },
    Fault { name: "pooler refuses", lines: &["n3 pooler refuses"], ..NOTHING },
    Fault { name: "no address", lines: &["n3 addresses failed unresolved"], ..NOTHING },
    Fault { name: "tag", patroni: &["tag.zone=b"], ..NOTHING },
    Fault { name: "lag", patroni: &["replayed=0"], ..NOTHING },
    Fault { name: "stream", patroni: &["replication=in_archive_recovery"], ..NOTHING },
];

const USUAL: [&str; 6] =
    ["running", "replica", "timeline=1", "replayed=1000", "replication=streaming", "tag.zone=a"];

impl Fault {
    /// The source whose answer the fault replaces, such as `n3 tether`.
    fn sources(&self) -> Vec<String> {
        let of_line = |line: &&str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let patroni = (!self.patroni.is_empty()).then(|| "n3 patroni".to_owned());
        self.lines.iter().map(of_line).chain(patroni).collect()
    }

    /// Returns whether both faults cannot occur together, because they give different answers of
    /// one source. The words of one Patroni answer can be combined unless they have the same key.
    fn excludes(&self, other: &Fault) -> bool {
        let key = |word: &&&str| word.split('=').next().unwrap_or_default().to_owned();
        let words: Vec<String> = self.patroni.iter().map(|word| key(&word)).collect();
        let same_word = other.patroni.iter().any(|word| words.contains(&key(&word)));
        let both_words = !self.patroni.is_empty() && !other.patroni.is_empty();
        let sources = self.sources();
        let shared = other.sources().into_iter().filter(|source| sources.contains(source));
        let shared: Vec<String> = shared.collect();
        same_word || shared.iter().any(|source| !(both_words && source == "n3 patroni"))
    }
}

/// Patroni's answer on n3 with the words of the faults.
fn patroni(faults: &[&Fault]) -> String {
    let new: Vec<&str> = faults.iter().flat_map(|fault| fault.patroni).copied().collect();
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let replaced = |word: &&&str| {
        new.iter().any(|new| key(new) == key(word) || (*new == "primary" && **word == "replica"))
    };
    let kept: Vec<&str> = USUAL.iter().filter(|word| !replaced(word)).copied().collect();
    let system = if new.iter().any(|word| word.starts_with("system=")) { "" } else { "system=1 " };
    format!("n3 patroni {system}{} {}", kept.join(" "), new.join(" "))
}

fn world(faults: &[&Fault]) -> std::sync::Arc<Snapshot> {
    let mut script = String::from(
        "cluster patroni\nservice write primary\n\
         service read replica lag_bytes_max=100 pooler tag.zone=a\nstart\ntopology n1 n2 n3\n\
         n1 patroni system=1 lock running primary timeline=1 location=1000\nn1 tether primary\n\
         n1 pooler primary\nn2 tether recovery\nn2 pooler recovery\n\
         n2 patroni system=1 running replica timeline=1 replayed=1000 replication=streaming tag.zone=a\n\
         n3 tether recovery\nn3 pooler recovery\n",
    );
    script.push_str(&format!("{}\nwait 5s\n", patroni(&[])));
    if faults.iter().any(|fault| !fault.patroni.is_empty()) {
        script.push_str(&format!("{}\n", patroni(faults)));
    }
    for line in faults.iter().flat_map(|fault| fault.lines) {
        script.push_str(&format!("{line}\n"));
    }
    script.push_str("wait 500ms\n");
    if faults.iter().any(|fault| fault.topology) {
        script.push_str("topology n1 n2\n");
    }
    script.push_str("wait 2s\n");
    let outcome = script::run(&script).unwrap_or_else(|err| panic!("{err}\n{script}"));
    outcome.driver.engine.snapshot()
}

/// The state and reason of n3 in its two places: how far its gate is shut, and why.
fn shown(snapshot: &Snapshot) -> [(GateState, Option<Reason>); 2] {
    let gate = &snapshot.services["read"].gates["n3"];
    let trouble = snapshot.members["n3"].trouble.clone();
    [(gate.state(), gate.reason().cloned()), (GateState::Open, trouble)]
}

/// The rank of the most important fault that the reason names.
fn rank(reason: &Option<Reason>) -> Rank {
    let named = match reason {
        Some(Reason::Left(Some(other))) => [Some(Rank::Membership), Some(other.rank())],
        other => [other.as_ref().map(Reason::rank), None],
    };
    named.into_iter().flatten().min().unwrap_or(Rank::Confirming)
}

#[test]
fn of_every_two_faults_the_more_important_one_is_named() {
    let alone: Vec<_> = FAULTS.iter().map(|fault| shown(&world(&[fault]))).collect();
    let mut tried = 0;
    for (index, one) in FAULTS.iter().enumerate() {
        for (other_index, other) in FAULTS.iter().enumerate().skip(index + 1) {
            if one.excludes(other) {
                continue;
            }
            tried += 1;
            let both = shown(&world(&[one, other]));
            for place in 0..2 {
                let (state, reason) = &both[place];
                let pair = [&alone[index][place], &alone[other_index][place]];
                let strictest = pair.iter().map(|(state, _)| *state).max().unwrap();
                let what =
                    format!("{} and {}: {state} {reason:?}, alone {pair:?}", one.name, other.name);
                assert!(*state >= strictest, "{what}");
                // Among the faults with the strictest gate state, the most important reason.
                let of_strictest = pair.iter().filter(|(state, _)| *state == strictest);
                let wanted = of_strictest.map(|(_, reason)| rank(reason)).min().unwrap();
                assert!(rank(reason) <= wanted, "{what}");
            }
        }
    }
    assert!(tried > 50, "{tried} pairs");
}

#[test]
fn each_fault_alone_has_its_own_reason() {
    let codes: Vec<String> = FAULTS
        .iter()
        .map(|fault| {
            let [(_, gate), (_, trouble)] = shown(&world(&[fault]));
            let code = |reason: Option<Reason>| reason.map_or("-", |reason| reason.code());
            format!("{}: {} {}", fault.name, code(gate), code(trouble))
        })
        .collect();
    insta::assert_snapshot!(codes.join("\n"));
}

#[test]
fn no_health_check_admits_a_rogue_primary_with_any_second_fault() {
    let (rogue, rest) = FAULTS.split_first().unwrap();
    for other in rest.iter().filter(|other| !rogue.excludes(other)) {
        let snapshot = world(&[rogue, other]);
        assert!(snapshot.members["n3"].rogue, "{}", other.name);
        for path in ["health", "primary", "replica", "read-only", "leader", "readiness"] {
            let question = Question::read(&format!("{path} n3"), |_| false).unwrap().unwrap();
            let answer = question.answer(&snapshot);
            assert!(matches!(answer, Answer::No(_)), "{path}, {}: {answer:?}", other.name);
        }
    }
}

#[test]
fn the_fault_of_a_member_that_left_is_shown_as_well() {
    let fault = |name: &str| FAULTS.iter().find(|fault| fault.name == name).unwrap();
    let snapshot = world(&[fault("left"), fault("down")]);
    let trouble = snapshot.members["n3"].trouble.clone().unwrap();
    assert_eq!(trouble.code(), "left");
    assert!(trouble.to_string().contains("connection refused by n3:5432"), "{trouble}");
}
