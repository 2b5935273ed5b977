//! How long one turn of the engine takes: a claim, its judgement and the new snapshot.

// The bans on panics are for the core itself.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs)]

#[path = "../../pgsteer-core/tests/cluster/mod.rs"]
mod cluster;

use std::hint::black_box;

use cluster::{config, found, member, service, service_name, topology};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pgsteer_core::claim::{Claim, Fact, PatroniFacts, Report, Role, TetherFacts, Topology};
use pgsteer_core::engine::Engine;
use pgsteer_core::pace::CALM;
use pgsteer_core::settings::Config;
use pgsteer_core::settings::defaults::MEMBERS_MAX;
use pgsteer_core::time::Moment;

/// As many members as most clusters have, as a large one has, and the most that pgsteer takes.
const MEMBERS: [usize; 3] = [3, 16, MEMBERS_MAX];

/// A cluster whose members report in turn.
struct Turns {
    engine: Engine,
    now: Moment,
    members: usize,
    primary: usize,
    next: usize,
}

impl Turns {
    /// A cluster that serves writes and reads.
    fn of(members: usize) -> Turns {
        let mut config: Config = config();
        for (name, role) in [("write", Role::Primary), ("read", Role::Replica)] {
            config.services.insert(service_name(name), service(role));
        }
        let now = Moment::START;
        let mut turns =
            Turns { engine: Engine::new(&config, now), now, members, primary: 0, next: 0 };
        let listed = (0..members).map(|it| found(&name(it), None)).collect();
        turns.report(Report::Topology(Topology { members: listed, ..topology(now) }));
        // The second round confirms the first.
        for _ in 0..2 {
            turns.all_report();
        }
        let snapshot = turns.engine.snapshot();
        let open = snapshot.services.values().flat_map(|it| it.gates.values());
        assert_eq!(open.filter(|gate| gate.is_open()).count(), members, "one gate of each is open");
        turns
    }

    fn report(&mut self, report: Report) {
        self.engine.handle_report(report, self.now);
        while self.engine.poll_event().is_some() {}
        black_box(self.engine.snapshot());
    }

    fn claim(&mut self, member_number: usize, fact: Fact) {
        let member = member(&name(member_number));
        self.report(Report::Claim(Claim { member, asked_at: self.now, fact }));
    }

    /// One answer over SQL, at the pace of a healthy cluster.
    fn answer(&mut self) {
        let member_number = self.next;
        self.next = (member_number + 1) % self.members;
        if self.next == 0 {
            self.now = self.now + CALM.tether;
        }
        let in_recovery = member_number != self.primary;
        self.claim(member_number, Fact::Tether(Ok(TetherFacts::of_role(in_recovery))));
    }

    /// Both sources of one member report its role.
    fn role(&mut self, member_number: usize) {
        let is_primary = member_number == self.primary;
        let role = if is_primary { Role::Primary } else { Role::Replica };
        let mut facts = PatroniFacts::new("running", role);
        facts.holds_lock = is_primary;
        facts.timeline = Some(1);
        facts.replication_state = (!is_primary).then(|| "streaming".to_owned());
        self.claim(member_number, Fact::Tether(Ok(TetherFacts::of_role(!is_primary))));
        self.claim(member_number, Fact::Patroni(Ok(facts)));
    }

    fn all_report(&mut self) {
        self.now = self.now + CALM.tether;
        (0..self.members).for_each(|it| self.role(it));
    }

    /// The primary's role goes to the next member.
    fn switchover(&mut self) {
        self.now = self.now + CALM.tether;
        let old = self.primary;
        self.primary = (old + 1) % self.members;
        self.role(old);
        self.role(self.primary);
    }
}

fn name(number: usize) -> String {
    format!("n{number}")
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    for members in MEMBERS {
        let mut turns = Turns::of(members);
        group.bench_function(BenchmarkId::new("answer that changes nothing", members), |bencher| {
            bencher.iter(|| turns.answer());
        });
        let mut turns = Turns::of(members);
        group.bench_function(BenchmarkId::new("switchover", members), |bencher| {
            bencher.iter(|| turns.switchover());
        });
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
