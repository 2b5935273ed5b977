//! New sessions without a check login: does the server still accept them?
//!
//! With a check login the tether answers that question. Without one, the only evidence is Patroni's
//! report, and Patroni reports a server in a smart shutdown as healthy. So a refused client makes
//! this source connect, as `pg_isready` does, and repeat that until the server accepts again.
//! Without such a hint it sends nothing: each connection of an unknown user may leave a line in the
//! server's log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Fact, Failure};
use pgsteer_core::plan::Ask;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::absence::Absence;
use super::tether::Login;
use super::{Gone, Reporter};

/// The time between two attempts, while the server refuses and after it has accepted.
const PACE: Duration = Duration::from_millis(500);

/// Waits for a hint that the member refused a client, and then tries until the server accepts a
/// session.
pub async fn run(
    mut ask: watch::Receiver<Ask>,
    login: Arc<Login>,
    reporter: Reporter,
    doubt: Arc<Notify>,
) -> Gone {
    // This source may have restarted after it reported a refusal. This claim withdraws the refusal.
    if let Err(gone) = reporter.claim(Instant::now(), Fact::NewSessions(Ok(()))).await {
        return gone;
    }
    loop {
        tokio::select! {
            () = doubt.notified() => {}
            gone = gone(&mut ask) => return gone,
        }
        if let Err(gone) = until_accepted(&ask, &login, &reporter).await {
            return gone;
        }
        sleep(PACE).await;
    }
}

async fn until_accepted(
    ask: &watch::Receiver<Ask>,
    login: &Login,
    reporter: &Reporter,
) -> Result<(), Gone> {
    let mut absence = Absence::default();
    let mut last_address = None;
    loop {
        let Ask { postgres, addresses, .. } = ask.borrow().clone();
        let addresses = postgres.ip().map_or(addresses, |address| vec![address]);
        let address = (postgres, addresses);
        if last_address.as_ref() != Some(&address) {
            absence = Absence::default();
        }
        let asked = Instant::now();
        let answer = login.knock(&address.0, &address.1, login.late_limit()).await;
        last_address = Some(address);
        // The resolver reports this failure.
        if let Err(Failure::Unresolved(_)) = answer {
            return Ok(());
        }
        let is_accepted = answer.is_ok();
        if absence.counts(asked.into(), answer.as_ref().err()) {
            reporter.claim(asked, Fact::NewSessions(answer)).await?;
        }
        if is_accepted {
            return Ok(());
        }
        sleep(PACE).await;
    }
}

/// Waits until the plan ends.
async fn gone(ask: &mut watch::Receiver<Ask>) -> Gone {
    while ask.changed().await.is_ok() {}
    Gone
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pgsteer_core::claim::{Claim, Report};
    use pgsteer_core::names::{Endpoint, MemberName};
    use pgsteer_core::pace::RUN_ON;
    use pgsteer_core::plan::Pace;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::Clock;
    use crate::sources::{Task, fake};

    const PASSWORD_REQUEST: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const STOPPING: &[u8] = b"E\0\0\0\x1eSFATAL\0VFATAL\0C57P03\0Mno\0\0";

    async fn answer(reports: &mut mpsc::Receiver<Report>) -> Result<(), Failure> {
        match reports.recv().await {
            Some(Report::Claim(Claim { fact: Fact::NewSessions(answer), .. })) => answer,
            other => panic!("{other:?}"),
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A running source, and its claims.
    struct Rig {
        _plan: watch::Sender<Ask>,
        doubt: Arc<Notify>,
        reports: mpsc::Receiver<Report>,
        _task: Task,
    }

    impl Rig {
        fn new(address: SocketAddr, limit: Duration) -> Rig {
            let (plan, ask) = watch::channel(Ask {
                postgres: Endpoint::new("127.0.0.1", address.port()).unwrap(),
                addresses: Vec::new(),
                new_host: None,
                patroni_url: None,
                poolers: Default::default(),
                has_tether: true,
                pace: Pace { tether: SECOND, patroni: SECOND, pooler: SECOND },
            });
            let (sender, reports) = mpsc::channel(8);
            let member = MemberName::new("n1").unwrap();
            let reporter = Reporter { member, clock: Clock::start(), reports: sender };
            let doubt = Arc::<Notify>::default();
            let login = Arc::new(Login::anonymous(limit));
            let task = Task::spawn(run(ask, login, reporter, doubt.clone()));
            Rig { _plan: plan, doubt, reports, _task: task }
        }
    }

    #[tokio::test]
    async fn a_server_that_answers_late_does_not_refuse_and_a_silent_one_does_after_five_seconds() {
        for (pause, is_accepted) in [(SECOND, true), (Duration::from_secs(60), false)] {
            let address = fake::server(move |mut stream, _| async move {
                sleep(pause).await;
                let _ = stream.write_all(PASSWORD_REQUEST).await;
            });
            let mut rig = Rig::new(address.await, SECOND / 4);
            assert_eq!(answer(&mut rig.reports).await, Ok(()));
            rig.doubt.notify_one();
            let began = Instant::now();
            let answer = answer(&mut rig.reports).await;
            assert_eq!(answer.is_ok(), is_accepted, "{answer:?}");
            assert!(began.elapsed() >= pause.min(RUN_ON), "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn new_sessions_are_tried_after_a_failure_until_one_is_accepted_and_never_without_one() {
        let refuses = Arc::new(AtomicBool::new(true));
        let is_refusing = refuses.clone();
        let address = fake::server(move |mut stream, _| {
            let answer =
                if is_refusing.load(Ordering::SeqCst) { STOPPING } else { PASSWORD_REQUEST };
            async move {
                let _ = stream.write_all(answer).await;
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        let Rig { _plan, doubt, mut reports, _task } = Rig::new(address, SECOND);
        assert_eq!(answer(&mut reports).await, Ok(()), "no refusal is known");
        let quiet = tokio::time::timeout(SECOND, reports.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        doubt.notify_one();
        for _ in 0..2 {
            let answer = answer(&mut reports).await;
            assert!(matches!(answer, Err(Failure::Unavailable { .. })), "{answer:?}");
        }
        refuses.store(false, Ordering::SeqCst);
        assert_eq!(answer(&mut reports).await, Ok(()));
    }
}
