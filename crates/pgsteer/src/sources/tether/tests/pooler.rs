//! Poolers: whether they are up, and where a query through them leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Claim, Fact, Failure, PoolerFacts, Report, ServerStart};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{LIMIT, Rig, endpoint, recovery_question};
use crate::sources::fake::Log;
use crate::sources::tether::HOLD_OFF;
use crate::sources::tether::fake::{self, forever, welcome};
use crate::sources::tether::login::Login;
use crate::sources::tether::subject::Subject;

/// The answer to the query for the role, without the second column.
fn recovery(answer: &str) -> Vec<u8> {
    fake::answer(&[answer])
}

#[tokio::test]
async fn a_pooler_reports_each_time_when_its_server_was_started() {
    let pooler = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        for started in ["1000", "2000"] {
            fake::read_message(&mut stream).await;
            fake::write(&mut stream, &fake::answer(&["f", started])).await;
        }
    });
    let mut rig = Rig::at_pooler(pooler.await, 5);
    for start in [1000, 2000] {
        let started_at = Some(ServerStart(start));
        let leads = PoolerFacts::Leads { in_recovery: false, started_at };
        assert_eq!(rig.of_pooler().await, Ok(leads));
    }
}

#[tokio::test]
async fn the_role_behind_a_pooler_comes_from_a_query_not_from_the_login() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        let cached = welcome(&[("in_hot_standby", "off"), ("server_version", "15.1")]);
        fake::write(&mut stream, &cached).await;
        for answer in ["t", "t", "f"] {
            let (tag, body) = fake::read_message(&mut stream).await;
            assert_eq!((tag, &body[..]), (b'Q', &recovery_question()[..]));
            fake::write(&mut stream, &recovery(answer)).await;
        }
    })
    .await;
    let mut rig = Rig::at_pooler(address, 5);
    for in_recovery in [true, true, false] {
        assert_eq!(rig.of_pooler().await, Ok(PoolerFacts::Leads { in_recovery, started_at: None }));
    }
    assert!(matches!(rig.of_pooler().await, Err(Failure::Closed(_))));
}

#[tokio::test]
async fn a_pooler_that_dies_is_detected_without_a_query() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        fake::read_message(&mut stream).await;
        fake::write(&mut stream, &recovery("f")).await;
    })
    .await;
    let mut rig = Rig::at_pooler(address, 60_000);
    assert_eq!(
        rig.of_pooler().await,
        Ok(PoolerFacts::Leads { in_recovery: false, started_at: None })
    );
    let felt = tokio::time::timeout(LIMIT, rig.of_pooler()).await.unwrap();
    assert!(matches!(felt, Err(Failure::Closed(_))), "{felt:?}");
}

#[tokio::test]
async fn a_pooler_that_opens_no_session_to_its_server_is_up_and_leads_nowhere() {
    let silent = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        // As PgBouncer does while it has never had a connection to its server.
        fake::write(&mut stream, &fake::authentication(0, &[])).await;
        forever(stream).await;
    });
    let answer = Rig::at_pooler(silent.await, 5).of_pooler().await;
    let nowhere = matches!(answer, Ok(PoolerFacts::LeadsNowhere(Failure::Timeout { .. })));
    assert!(nowhere, "{answer:?}");
    let failing = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        fake::read_message(&mut stream).await;
        let words = "server login has been failing, try again later (server_login_retry)";
        fake::write(&mut stream, &fake::error("FATAL", "08P01", words)).await;
    });
    let answer = Rig::at_pooler(failing.await, 5).of_pooler().await;
    let Ok(PoolerFacts::LeadsNowhere(failure)) = answer else { panic!("{answer:?}") };
    let sentence = failure.to_string();
    assert!(sentence.starts_with("PgBouncer at 127.0.0.1:"), "{sentence}");
    assert!(sentence.contains(" reports: server login has been failing"), "{sentence}");
}

#[tokio::test]
async fn a_pooler_that_accepts_the_login_and_fails_the_query_is_logged_once() {
    let log = Log::default();
    let _guard = log.listen();
    let failing = fake::server(|mut stream, number| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        fake::read_message(&mut stream).await;
        let answer = match number {
            0..4 => fake::error("FATAL", "08P01", "server login has been failing"),
            _ => recovery("f"),
        };
        fake::write(&mut stream, &answer).await;
        forever(stream).await;
    });
    let mut rig = Rig::at_pooler(failing.await, 5);
    while !matches!(rig.of_pooler().await, Ok(PoolerFacts::Leads { .. })) {}
    let text = log.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("has been failing") && lines[1].contains("logged in"), "{text}");
}

#[tokio::test]
async fn a_pooler_that_refuses_the_login_is_up_and_a_silent_one_is_not() {
    let refused = fake::error("FATAL", "08P01", "no such user: pgcheck");
    let answer = Rig::at_pooler(fake::answering_login(refused).await, 5).of_pooler().await;
    let Ok(PoolerFacts::RefusesLogin(failure)) = answer else { panic!("{answer:?}") };
    let sentence = failure.to_string();
    assert!(sentence.starts_with("PgBouncer at 127.0.0.1:"), "{sentence}");
    assert!(sentence.contains(" refuses the check login: no such user"), "{sentence}");
    let starting = fake::error("FATAL", "57P03", "the database system is starting up");
    let answer = Rig::at_pooler(fake::answering_login(starting).await, 5).of_pooler().await;
    assert!(matches!(answer, Err(Failure::Unavailable { .. })), "{answer:?}");
    let frozen = fake::server(|stream, _| forever(stream)).await;
    let answer = Rig::at_pooler(frozen, 5).of_pooler().await;
    assert!(matches!(answer, Err(Failure::Timeout { .. })), "{answer:?}");
}

/// Answers requests for TLS and logins, and answers query number N of each session with
/// `answer(N)`.
async fn pooler_at(mut stream: TcpStream, answer: impl AsyncFn(usize) -> Option<Vec<u8>>) {
    while fake::read_startup(&mut stream).await[..4] == *b"\x04\xd2\x16\x2f" {
        fake::write(&mut stream, b"N").await;
    }
    fake::write(&mut stream, &welcome(&[])).await;
    for number in 0.. {
        fake::read_message(&mut stream).await;
        match answer(number).await {
            Some(answer) => fake::write(&mut stream, &answer).await,
            None => return forever(stream).await,
        }
    }
}

#[tokio::test]
async fn a_query_that_waits_in_a_pooler_is_waited_for_as_long_as_it_is_there() {
    let address = fake::server(|stream, _| {
        pooler_at(stream, async |number| {
            let pause = if number == 1 { LIMIT * 3 } else { Duration::ZERO };
            tokio::time::sleep(pause).await;
            Some(recovery("f"))
        })
    });
    let mut rig = Rig::at_pooler(address.await, 5);
    let leads = Ok(PoolerFacts::Leads { in_recovery: false, started_at: None });
    assert_eq!(rig.of_pooler().await, leads);
    let paused_at = Instant::now();
    let mut last = rig.clock.moment(paused_at);
    loop {
        let Some(Report::Claim(Claim { asked_at, fact, .. })) = rig.reports.recv().await else {
            panic!("no claim");
        };
        let Fact::Pooler { answer, .. } = fact else { panic!("{fact:?}") };
        assert!(asked_at >= last, "an answer is as old as its own question");
        last = asked_at;
        match answer {
            Ok(PoolerFacts::Busy(Failure::Timeout { .. })) => {}
            answer => break assert_eq!(answer, leads),
        }
    }
    let waited = paused_at.elapsed();
    assert!((LIMIT * 2..LIMIT * 5).contains(&waited), "resumed after {waited:?}");
}

/// As PgBouncer with `trust` while it has no session to its server: it sends no byte.
#[tokio::test]
async fn a_pooler_that_answers_only_an_ssl_request_is_up() {
    let address = fake::server(|mut stream, _| async move {
        while fake::read_startup(&mut stream).await[..4] == *b"\x04\xd2\x16\x2f" {
            fake::write(&mut stream, b"N").await;
        }
        forever(stream).await;
    });
    let answer = Rig::at_pooler(address.await, 5).of_pooler().await;
    assert!(matches!(answer, Ok(PoolerFacts::LeadsNowhere(_))), "{answer:?}");
}

#[tokio::test]
async fn a_pooler_that_stops_while_a_query_waits_in_it_is_down() {
    let is_stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = is_stopped.clone();
    let address = fake::server(move |stream, _| {
        let stopped = stopped.clone();
        async move {
            match stopped.load(Ordering::SeqCst) {
                true => forever(stream).await,
                false => pooler_at(stream, async |_| None).await,
            }
        }
    });
    let mut rig = Rig::at_pooler(address.await, 5);
    assert!(matches!(rig.of_pooler().await, Ok(PoolerFacts::Busy(_))));
    is_stopped.store(true, Ordering::SeqCst);
    let down = async { while rig.of_pooler().await.is_ok() {} };
    assert!(tokio::time::timeout(LIMIT * 6, down).await.is_ok());
}

/// Fresh logins continue meanwhile, every five seconds.
#[tokio::test]
async fn a_waiting_query_in_a_pooler_is_reported_again_before_the_claim_expires() {
    const LONG: Duration = Duration::from_secs(3);
    let address = fake::server(|stream, _| {
        pooler_at(stream, async |number| (number == 0).then(|| recovery("f")))
    })
    .await;
    let subject = Subject::Pooler { port: address.port() };
    let mut rig = Rig::with_limit(LONG, subject, address, 250);
    // As the engine computes it: the pace of a knock, the limit, and some slack.
    let lifetime = Duration::from_millis(1500) + LONG;
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < LONG * 4 {
        let Some(Report::Claim(Claim { asked_at, fact, .. })) = rig.reports.recv().await else {
            panic!("no claim");
        };
        let is_first = last.is_none();
        let Fact::Pooler { answer: Ok(answer), .. } = fact else { panic!("{fact:?}") };
        assert_eq!(matches!(answer, PoolerFacts::Leads { .. }), is_first, "{answer:?}");
        let gap = last.map(|last| rig.clock.now().since(last)).unwrap_or_default();
        assert!(gap < lifetime, "{gap:?} after {:?}", started.elapsed());
        last = Some(asked_at);
    }
}

#[tokio::test]
async fn no_login_goes_through_a_pooler_whose_server_has_just_gone_even_if_it_is_urgent() {
    let (logins_tx, mut logins) = mpsc::channel(8);
    let address = fake::server(move |stream, _| {
        let logins_tx = logins_tx.clone();
        async move {
            logins_tx.send(Instant::now()).await.unwrap();
            pooler_at(stream, async |number| {
                Some(match number {
                    0 => recovery("f"),
                    _ => fake::error("FATAL", "57P01", "terminating connection"),
                })
            })
            .await;
        }
    });
    let mut rig = Rig::at_pooler(address.await, 100);
    assert!(matches!(rig.of_pooler().await, Ok(PoolerFacts::Leads { .. })));
    assert!(logins.recv().await.is_some());
    assert!(matches!(rig.of_pooler().await, Ok(PoolerFacts::LeadsNowhere(_))));
    let lost_at = Instant::now();
    rig.plan.send_modify(|ask| ask.pace.tether = Duration::from_millis(5));
    let next = logins.recv().await.unwrap().duration_since(lost_at);
    assert!(next >= HOLD_OFF - Duration::from_millis(20), "{next:?}");
    assert!(next < HOLD_OFF * 3, "{next:?}");
}

#[tokio::test]
async fn a_query_that_waits_in_a_pooler_ends_when_a_new_login_finds_the_server_gone() {
    let address = fake::server(|mut stream, number| async move {
        let words = "server login has been failing, try again later (server_login_retry)";
        match number {
            0 => pooler_at(stream, async |_| None).await,
            _ if fake::read_startup(&mut stream).await[..4] == *b"\x04\xd2\x16\x2f" => {
                fake::write(&mut stream, b"N").await;
            }
            _ => fake::write(&mut stream, &fake::error("FATAL", "08P01", words)).await,
        }
    });
    let mut rig = Rig::at_pooler(address.await, 5);
    assert!(matches!(rig.of_pooler().await, Ok(PoolerFacts::Busy(_))));
    let nowhere = async {
        loop {
            if let Ok(PoolerFacts::LeadsNowhere(_)) = rig.of_pooler().await {
                break;
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(8), nowhere).await.is_ok());
}

/// An operator pointed the pooler to another server. The old session still goes to the old server.
#[tokio::test]
async fn a_fresh_login_beside_a_query_under_way_takes_its_place_all_the_same() {
    let address = fake::server(|stream, number| {
        pooler_at(stream, async move |_| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some(recovery(if number == 0 { "t" } else { "f" }))
        })
    })
    .await;
    let subject = Subject::Pooler { port: address.port() };
    let mut rig = Rig::with_limit(Duration::from_secs(2), subject, address, 5);
    let leads_elsewhere = async {
        loop {
            if let Ok(PoolerFacts::Leads { in_recovery: false, .. }) = rig.of_pooler().await {
                break;
            }
        }
    };
    // A login is due every five seconds, plus jitter.
    assert!(tokio::time::timeout(Duration::from_secs(9), leads_elsewhere).await.is_ok());
}

/// Same, on a machine so busy that each answer of the old session is late.
#[tokio::test]
async fn a_fresh_login_beside_late_answers_takes_the_place_of_the_session() {
    let address = fake::server(|stream, number| {
        pooler_at(stream, async move |_| {
            let pause = if number == 0 { LIMIT * 2 } else { Duration::ZERO };
            tokio::time::sleep(pause).await;
            Some(recovery(if number == 0 { "t" } else { "f" }))
        })
    });
    let mut rig = Rig::at_pooler(address.await, 5);
    let leads_elsewhere = async {
        while !matches!(rig.of_pooler().await, Ok(PoolerFacts::Leads { in_recovery: false, .. })) {}
    };
    assert!(tokio::time::timeout(Duration::from_secs(9), leads_elsewhere).await.is_ok());
}

#[tokio::test]
async fn any_answer_to_a_pooler_probe_counts_except_that_no_login_is_possible() {
    let knock = |address: SocketAddr| async move {
        Login::anonymous(LIMIT).knock(&endpoint(address), &[address.ip()], LIMIT).await
    };
    for answer in [
        fake::authentication(10, b"SCRAM-SHA-256\0\0"),
        fake::error("FATAL", "08P01", "no such user: pgsteer"),
        fake::error("FATAL", "53300", "sorry, too many clients already"),
    ] {
        assert_eq!(knock(fake::answering_login(answer).await).await, Ok(()));
    }
    let starting = fake::error("FATAL", "57P03", "the database system is starting up");
    let answer = knock(fake::answering_login(starting).await).await;
    assert!(matches!(answer, Err(Failure::Unavailable { .. })), "{answer:?}");
    let answer = knock(fake::answering_login([]).await).await;
    assert!(matches!(answer, Err(Failure::Closed(_))), "{answer:?}");
}
