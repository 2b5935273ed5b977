//! The pooler beside a member, without a check login: is it up?
//!
//! This sends the same request as `pg_isready`, without a process. An answer that takes longer than the
//! limit is reported as missing, and counts when it comes. With a check login a tether
//! connects through the pooler instead and shows where the pooler leads.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use pgsteer_core::claim::{Fact, Failure, PoolerFacts};
use tokio::time::timeout;
use tracing::{trace, warn};

use super::probe_timer::ProbeTimer;
use super::tether::Login;
use super::{Gone, Reporter, dial};

/// Probes the pooler on `port` at the pace of `timer`, until the receiver of the reports is gone.
pub async fn run(port: u16, mut timer: ProbeTimer, login: Arc<Login>, reporter: Reporter) -> Gone {
    let mut is_up = true;
    loop {
        match knock(port, &mut timer, &login, &reporter, &mut is_up).await {
            Ok(()) => {}
            Err(gone) => return gone,
        }
    }
}

async fn knock(
    port: u16,
    timer: &mut ProbeTimer,
    login: &Login,
    reporter: &Reporter,
    is_up: &mut bool,
) -> Result<(), Gone> {
    timer.due().await?;
    let ask = timer.ask();
    let addresses = ask.postgres.ip().map_or(ask.addresses, |address| vec![address]);
    if addresses.is_empty() {
        // The resolver has not answered yet, and it reports a failed lookup itself.
        return timer.changed().await;
    }
    let asked = Instant::now();
    let pooler = ask.postgres.with_port(port);
    let mut knocking = pin!(login.knock(&pooler, &addresses, login.late_limit()));
    let answer = match timeout(login.limit, &mut knocking).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = Err(dial::timed_out(&Arc::from(pooler.to_string()), login.limit));
            report(port, asked, late, reporter, is_up).await?;
            tokio::select! {
                answer = &mut knocking => answer,
                // A pooler at a new address is probed there at once.
                moved = timer.moved() => return moved,
            }
        }
    };
    report(port, asked, answer, reporter, is_up).await
}

async fn report(
    port: u16,
    asked: Instant,
    answer: Result<(), Failure>,
    reporter: &Reporter,
    is_up: &mut bool,
) -> Result<(), Gone> {
    let member = &reporter.member;
    match &answer {
        Err(failure) if *is_up => warn!(%member, "pooler: {failure}"),
        answer => trace!(%member, ?answer, "pooler"),
    }
    *is_up = answer.is_ok();
    let answer = answer.map(|()| PoolerFacts::Answers);
    reporter.claim(asked, Fact::Pooler { port, answer }).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgsteer_core::claim::{Claim, Report};
    use pgsteer_core::names::{Endpoint, MemberName};
    use pgsteer_core::plan::{Ask, Pace};
    use tokio::io::AsyncWriteExt;
    use tokio::sync::{mpsc, watch};
    use tokio::time::sleep;

    use super::*;
    use crate::clock::Clock;
    use crate::sources::{Task, fake};

    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_late_answer_of_a_pooler_counts() {
        let address = fake::server(|mut stream, _| async move {
            sleep(LIMIT * 3).await;
            let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await;
        })
        .await;
        let pace = Duration::from_secs(60);
        let (_plan, ask) = watch::channel(Ask {
            postgres: Endpoint::new("127.0.0.1", 1).unwrap(),
            addresses: Vec::new(),
            new_host: None,
            patroni_url: None,
            poolers: Default::default(),
            has_tether: false,
            pace: Pace { tether: pace, patroni: pace, pooler: pace },
        });
        let (sender, mut reports) = mpsc::channel(8);
        let clock = Clock::start();
        let member = MemberName::new("n1").unwrap();
        let reporter = Reporter { member, clock, reports: sender };
        let timer = ProbeTimer::new(ask, |pace| pace.pooler, clock);
        let login = Arc::new(Login::anonymous(LIMIT));
        let _task = Task::spawn(run(address.port(), timer, login, reporter));
        let mut next = async || match reports.recv().await {
            Some(Report::Claim(Claim { asked_at, fact: Fact::Pooler { answer, .. }, .. })) => {
                (asked_at, answer)
            }
            other => panic!("{other:?}"),
        };
        let (asked_at, late) = next().await;
        assert!(matches!(late, Err(Failure::Timeout { .. })), "{late:?}");
        assert_eq!(next().await, (asked_at, Ok(PoolerFacts::Answers)));
    }
}
