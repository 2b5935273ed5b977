//! The tether against fakes: its claims about servers and poolers, and their times.

mod pooler;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{Claim, Fact, Failure, PoolerFacts, Report, TetherFacts};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::plan::{Ask, Pace};
use tokio::sync::{Notify, mpsc, watch};

use super::login::Login;
use super::subject::Subject;
use super::{Tether, progress};
use crate::clock::Clock;
use crate::sources::probe_timer::ProbeTimer;
use crate::sources::{Reporter, Task};

const LIMIT: Duration = Duration::from_millis(500);

/// A running tether, and its claims.
struct Rig {
    plan: watch::Sender<Ask>,
    reports: mpsc::Receiver<Report>,
    clock: Clock,
    doubt: Arc<Notify>,
    _task: Task,
}

impl Rig {
    fn new(address: SocketAddr, pace_ms: u64) -> Rig {
        Rig::tied_to(Subject::Server, address, pace_ms)
    }

    /// A tether through the pooler at this address. The member's server listens on another port.
    fn at_pooler(address: SocketAddr, pace_ms: u64) -> Rig {
        Rig::tied_to(Subject::Pooler { port: address.port() }, address, pace_ms)
    }

    fn tied_to(subject: Subject, address: SocketAddr, pace_ms: u64) -> Rig {
        Rig::with_limit(LIMIT, subject, address, pace_ms)
    }

    fn with_limit(limit: Duration, subject: Subject, address: SocketAddr, pace_ms: u64) -> Rig {
        let (plan, plan_rx) = watch::channel(Ask {
            postgres: endpoint(address),
            addresses: Vec::new(),
            new_host: None,
            patroni_url: None,
            poolers: Default::default(),
            has_tether: true,
            pace: Pace {
                tether: Duration::from_millis(pace_ms),
                patroni: Duration::from_secs(1),
                pooler: Duration::from_millis(pace_ms),
            },
        });
        let (reports_tx, reports) = mpsc::channel(8);
        let clock = Clock::start();
        let member = MemberName::new("pg1").unwrap();
        let reporter = Reporter { member, clock, reports: reports_tx };
        let timer = ProbeTimer::new(plan_rx, |pace| pace.tether, Clock::start());
        let login = Arc::new(Login::fake(None, limit));
        let doubt = Arc::<Notify>::default();
        let tether = Tether::tied_to(subject, timer, login, reporter);
        let tether = Tether { doubt: Some(doubt.clone()), ..tether };
        Rig { plan, reports, clock, doubt, _task: Task::spawn(tether.run()) }
    }

    /// The next claim, without claims that the server accepts new sessions.
    async fn next_claim(&mut self) -> Claim {
        loop {
            match self.reports.recv().await {
                Some(Report::Claim(Claim { fact: Fact::NewSessions(Ok(())), .. })) => {}
                Some(Report::Claim(claim)) => return claim,
                other => panic!("no claim: {other:?}"),
            }
        }
    }

    async fn claim(&mut self) -> (Claim, Result<TetherFacts, Failure>) {
        let claim = self.next_claim().await;
        let Fact::Tether(answer) = claim.fact.clone() else { panic!("{claim:?}") };
        (claim, answer)
    }

    async fn of_pooler(&mut self) -> Result<PoolerFacts, Failure> {
        let Some(Report::Claim(claim)) = self.reports.recv().await else { panic!("no claim") };
        let Fact::Pooler { answer, .. } = claim.fact else { panic!("{claim:?}") };
        answer
    }

    async fn answer(&mut self) -> Result<TetherFacts, Failure> {
        self.claim().await.1
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(&address.ip().to_string(), address.port()).unwrap()
}

/// The query of a session that does not know its role from the login.
fn recovery_question() -> Vec<u8> {
    [progress::RECOVERY.as_bytes(), b"\0"].concat()
}
