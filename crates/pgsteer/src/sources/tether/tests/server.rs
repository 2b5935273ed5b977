//! Servers: their login, their role, and changes of the role.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

use pgsteer_core::claim::{Claim, Fact, Failure, Report, ServerStart, TetherFacts};
use pgsteer_core::names::Endpoint;
use tokio::sync::mpsc;

use super::{LIMIT, Rig, endpoint, recovery_question};
use crate::sources::tether::fake::{self, forever, welcome};
use crate::sources::tether::login::{LoggedIn, Login};
use crate::sources::tether::session::Session;
use crate::sources::tether::{REFUSED_KEEP, SESSION_AGE_MIN, progress};

const PRIMARY: TetherFacts =
    TetherFacts { in_recovery: false, started_at: None, system_identifier: None };
const STANDBY: TetherFacts = TetherFacts { in_recovery: true, ..PRIMARY };

async fn login(address: SocketAddr, password: Option<&str>) -> Result<Session, Failure> {
    let login = Login::fake(password, LIMIT);
    let logged_in = login.log_in(&endpoint(address), &[address.ip()], LIMIT).await;
    logged_in.map(|LoggedIn { session, .. }| session).map_err(|missed| missed.failure)
}

async fn refusal(address: SocketAddr) -> Failure {
    match login(address, Some("geheim")).await {
        Ok(_) => panic!("logged in"),
        Err(failure) => failure,
    }
}

#[tokio::test]
async fn the_login_reports_the_role_and_a_sync_the_promotion() {
    let address = fake::server(|stream, _| {
        fake::standby(stream, |number| match number {
            2 => [fake::status("in_hot_standby", "off"), fake::ready()].concat(),
            _ => fake::ready(),
        })
    })
    .await;
    let mut rig = Rig::new(address, 5);
    let answer = [rig.answer().await, rig.answer().await, rig.answer().await];
    assert_eq!(answer, [Ok(STANDBY), Ok(STANDBY), Ok(STANDBY)]);
    assert_eq!(rig.answer().await, Ok(PRIMARY));
    assert_eq!(rig.answer().await, Ok(PRIMARY));
}

#[tokio::test]
async fn a_server_without_in_hot_standby_is_asked_by_a_query() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("server_version", "9.6.24")])).await;
        for answer in ["t", "f"] {
            let (tag, body) = fake::read_message(&mut stream).await;
            assert_eq!((tag, &body[..]), (b'Q', &recovery_question()[..]));
            let columns = fake::message(b'T', &[0, 0]);
            let complete = fake::message(b'C', b"SELECT 1\0");
            let bytes = [columns, fake::row(&[answer]), complete, fake::ready()].concat();
            fake::write(&mut stream, &bytes).await;
        }
        forever(stream).await;
    })
    .await;
    let mut rig = Rig::new(address, 5);
    assert_eq!(rig.answer().await, Ok(STANDBY));
    assert_eq!(rig.answer().await, Ok(PRIMARY));
}

#[tokio::test]
async fn a_login_of_single_bytes_is_a_login() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        let reported = welcome(&[("in_hot_standby", "off"), ("server_version", "9")]);
        fake::drip(&mut stream, &reported).await;
        forever(stream).await;
    })
    .await;
    let session = login(address, None).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(session.reported_role(), Some(PRIMARY));
}

#[tokio::test]
async fn the_startup_packet_has_user_database_and_application_name() {
    let (seen_tx, mut seen) = mpsc::channel(1);
    let address = fake::server(move |mut stream, _| {
        let seen_tx = seen_tx.clone();
        async move { seen_tx.send(fake::read_startup(&mut stream).await).await.unwrap() }
    })
    .await;
    assert!(matches!(refusal(address).await, Failure::Closed(_)));
    let packet = seen.recv().await.unwrap();
    assert_eq!(packet[..4], [0, 3, 0, 0]);
    let text = String::from_utf8(packet[4..].to_vec()).unwrap();
    for pair in ["user\0pgcheck\0", "database\0postgres\0", "application_name\0pgsteer\0"] {
        assert!(text.contains(pair), "{text:?}");
    }
}

#[tokio::test]
async fn a_silent_server_times_out_in_the_login_and_after_it() {
    let silent = fake::server(|stream, _| forever(stream)).await;
    let peer = Arc::from(silent.to_string());
    assert_eq!(refusal(silent).await, Failure::Timeout { peer, limit: LIMIT });

    let falls_silent = fake::server(|mut stream, number| async move {
        if number > 0 {
            return fake::standby(stream, |_| fake::ready()).await;
        }
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "off"), ("server_version", "9")]))
            .await;
        forever(stream).await;
    })
    .await;
    let mut rig = Rig::new(falls_silent, 5);
    assert_eq!(rig.answer().await, Ok(PRIMARY));
    let (claim, answer) = rig.claim().await;
    assert!(matches!(answer, Err(Failure::Timeout { .. })), "{answer:?}");
    let age = rig.clock.now().since(claim.asked_at);
    assert!(age >= LIMIT, "the claim is as old as its question, not {age:?}");
    let began = Instant::now();
    assert_eq!(
        rig.answer().await,
        Ok(STANDBY),
        "a new login takes the place of the silent session"
    );
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}

/// A standby that answers the startup packet of its first session after the first pause, and a Sync of
/// number 3 after the second one. It answers no other session.
async fn slow_standby(at_login: Duration, at_query: Duration) -> SocketAddr {
    fake::server(move |mut stream, number| async move {
        if number > 0 {
            return forever(stream).await;
        }
        fake::read_startup(&mut stream).await;
        tokio::time::sleep(at_login).await;
        let reported = welcome(&[("in_hot_standby", "on"), ("server_version", "9")]);
        fake::write(&mut stream, &reported).await;
        for sync in 0.. {
            if fake::read_message(&mut stream).await.0 != b'S' {
                return;
            }
            tokio::time::sleep(if sync == 3 { at_query } else { Duration::ZERO }).await;
            fake::write(&mut stream, &fake::ready()).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_late_answer_of_the_kept_session_counts_and_is_as_old_as_its_question() {
    let mut rig = Rig::new(slow_standby(Duration::ZERO, LIMIT * 3).await, 5);
    let (late, failure) = loop {
        match rig.claim().await {
            (_, Ok(facts)) => assert_eq!(facts, STANDBY),
            (claim, Err(failure)) => break (claim, failure),
        }
    };
    assert!(matches!(failure, Failure::Timeout { .. }), "{failure:?}");
    let (claim, answer) = rig.claim().await;
    assert_eq!((claim.asked_at, answer), (late.asked_at, Ok(STANDBY)));
    assert_eq!(rig.answer().await, Ok(STANDBY), "the session goes on");
}

#[tokio::test]
async fn a_login_that_takes_longer_than_the_limit_is_reported_and_succeeds() {
    let mut rig = Rig::new(slow_standby(LIMIT * 3, Duration::ZERO).await, 5);
    let answer = rig.answer().await;
    assert!(matches!(answer, Err(Failure::Timeout { .. })), "{answer:?}");
    for _ in 0..2 {
        assert_eq!(rig.answer().await, Ok(STANDBY));
    }
}

#[tokio::test]
async fn a_member_that_moves_during_a_late_login_or_query_is_dialled_at_its_new_address() {
    let long = Duration::from_secs(60);
    for (at_login, at_query) in [(long, Duration::ZERO), (Duration::ZERO, long)] {
        let mut rig = Rig::new(slow_standby(at_login, at_query).await, 5);
        while rig.answer().await.is_ok() {}
        let moved = endpoint(slow_standby(Duration::ZERO, Duration::ZERO).await);
        rig.plan.send_modify(|ask| ask.postgres = moved);
        let began = Instant::now();
        assert_eq!(rig.answer().await, Ok(STANDBY));
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn another_program_at_the_address_is_reported_as_not_postgresql() {
    for (garbage, how) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "`SSH-2.0-OpenSSH_9.2..`"),
        (b"\0\0\0\0\0\0\0\0\0", "length"),
        (b"R\xff\xff\xff\xff", "length"),
        (b"R\0\0\0\x04", "fill"),
        (b"R\0\0\0\x08\0\0\0\x63", "authentication tag"),
        (b"Z\0\0\0\x05I", "no authentication"),
        (b"?\0\0\0\x05I", "message tag"),
    ] {
        let address = fake::answering_login(garbage).await;
        let failure = refusal(address).await;
        let sentence = failure.to_string();
        let start = format!("{address} answers, but not as PostgreSQL does: ");
        assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
        assert!(sentence.starts_with(&start) && sentence.contains(how), "{sentence}");
    }
}

/// As Python's server, and so Patroni's: it waits for the end of a line and answers an invalid
/// request with the page alone.
#[tokio::test]
async fn patronis_port_in_place_of_postgresqls_is_called_so() {
    let address = fake::server(|mut stream, _| async move {
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => received.push(byte),
                Err(_) => return,
            }
        }
        fake::write(&mut stream, b"<!DOCTYPE HTML>").await;
    })
    .await;
    let sentence = refusal(address).await.to_string();
    let what = format!("{address} answers as an HTTP server: give the port of PostgreSQL");
    assert!(sentence.starts_with(&what), "{sentence}");
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"<!DOCTYPE HTML>"] {
        let sentence = refusal(fake::answering_login(answer).await).await.to_string();
        assert!(sentence.contains("answers as an HTTP server"), "{sentence}");
    }
}

#[tokio::test]
async fn ten_megabytes_are_too_much() {
    let large = fake::message(b'S', &vec![b'x'; 10 * 1024 * 1024]);
    let answer = [fake::authentication(0, &[]), large].concat();
    let failure = refusal(fake::answering_login(answer).await).await;
    assert!(matches!(failure, Failure::TooLarge { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_login_cut_short_is_a_closed_connection() {
    let whole = welcome(&[("in_hot_standby", "off")]);
    for length in [0, 3, 9, 20, whole.len() - 1] {
        let failure = refusal(fake::answering_login(&whole[..length]).await).await;
        assert!(matches!(failure, Failure::Closed(_)), "{length}: {failure:?}");
    }
}

#[tokio::test]
async fn a_healthy_server_that_refuses_the_login_is_not_down() {
    for (sqlstate, is_login) in [
        ("53300", true),
        ("28P01", true),
        ("28000", true),
        ("3D000", true),
        ("42501", true),
        ("57P01", false),
        ("57P02", false),
        ("57P03", false),
    ] {
        let answer = fake::error("FATAL", sqlstate, "sorry,\ntoo many clients already");
        let failure = refusal(fake::answering_login(answer).await).await;
        assert_eq!(failure.is_login_refused(), is_login, "{failure:?}");
        assert!(failure.to_string().contains("sorry,\\ntoo many clients already"), "{failure}");
        assert!(failure.to_string().contains(sqlstate), "{failure}");
    }
}

/// 'md5' and md5(md5('geheim' || 'pgcheck') || 'salt'), as md5sum computes it.
const MD5_ANSWER: &[u8] = b"md52579e8fc1d0731cc478f7435cc59d3e6\0";

#[tokio::test]
async fn the_md5_answer_is_the_one_that_the_server_computes() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &fake::authentication(5, b"salt")).await;
        let (tag, body) = fake::read_message(&mut stream).await;
        let is_right = tag == b'p' && body == MD5_ANSWER;
        let answer = match is_right {
            true => welcome(&[("in_hot_standby", "off")]),
            false => fake::error("FATAL", "28P01", "wrong"),
        };
        fake::write(&mut stream, &answer).await;
        forever(stream).await;
    })
    .await;
    let login = async |password: Option<&str>| {
        let login = Login::fake(password, LIMIT).requiring("md5");
        let outcome = login.log_in(&endpoint(address), &[address.ip()], LIMIT).await;
        outcome.map(drop).map_err(|missed| missed.failure)
    };
    assert_eq!(login(Some("geheim")).await, Ok(()));
    assert!(login(Some("falsch")).await.is_err());
    let failure = login(None).await.unwrap_err();
    assert!(
        failure.is_login_refused() && failure.to_string().contains("password_file"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_server_that_requests_a_clear_or_md5_password_gets_none_and_the_error_has_the_remedy() {
    for (demand, method) in [
        (fake::authentication(3, &[]), "password,scram-sha-256,none"),
        (fake::authentication(5, b"salt"), "md5,scram-sha-256,none"),
    ] {
        let (seen, mut sent) = mpsc::channel(1);
        let address = fake::server(move |mut stream, _| {
            let (demand, seen) = (demand.clone(), seen.clone());
            async move {
                fake::read_startup(&mut stream).await;
                fake::write(&mut stream, &demand).await;
                seen.send(fake::read_message(&mut stream).await).await.unwrap();
            }
        })
        .await;
        let failure = login(address, Some("geheim")).await.err().unwrap();
        assert!(failure.is_login_refused(), "the server is not down: {failure:?}");
        let sentence = failure.to_string();
        let remedy = format!("require_auth = \"{method}\"");
        assert!(sentence.contains(&remedy) && sentence.contains("verify-full"), "{sentence}");
        assert!(!sentence.contains("geheim"));
        assert_eq!(sent.recv().await.unwrap(), (0, Vec::new()), "the connection was closed");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_no_authentication_is_refused_where_that_is_excluded() {
    let address = fake::server(|stream, _| fake::standby(stream, |_| fake::ready())).await;
    for (methods, is_let_in) in [("none", true), ("scram-sha-256", false), ("!none", false)] {
        let login = Login::fake(Some("geheim"), LIMIT).requiring(methods);
        let outcome = login.log_in(&endpoint(address), &[address.ip()], LIMIT).await;
        assert_eq!(outcome.is_ok(), is_let_in, "{methods}");
    }
}

#[tokio::test]
async fn a_server_with_a_wrong_scram_signature_is_rejected() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &fake::authentication(10, b"SCRAM-SHA-256\0\0")).await;
        let (_, first) = fake::read_message(&mut stream).await;
        let first = String::from_utf8_lossy(&first).into_owned();
        let nonce = first.split("r=").nth(1).unwrap();
        let challenge = format!("r={nonce}more,s=c2FsdA==,i=16");
        fake::write(&mut stream, &fake::authentication(11, challenge.as_bytes())).await;
        fake::read_message(&mut stream).await;
        let proof = [fake::authentication(12, b"v=bm90aGluZw=="), welcome(&[])].concat();
        fake::write(&mut stream, &proof).await;
        forever(stream).await;
    })
    .await;
    let failure = login(address, Some("geheim")).await.err().unwrap();
    assert!(failure.to_string().contains("SCRAM signature is wrong"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("geheim"));
}

#[tokio::test]
async fn a_method_that_we_do_not_know_is_a_refusal() {
    let gss = fake::authentication(7, &[]);
    let oauth = fake::authentication(10, b"OAUTHBEARER\0\0");
    for demand in [gss, oauth] {
        let failure = refusal(fake::answering_login(demand).await).await;
        assert!(failure.is_login_refused(), "{failure:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_detected_at_once_and_a_new_one_is_tried_at_once() {
    let shutdown = fake::error("FATAL", "57P01", "terminating connection");
    for goodbye in [shutdown, Vec::new()] {
        let is_error = !goodbye.is_empty();
        let address = fake::server(move |mut stream, _| {
            let goodbye = goodbye.clone();
            async move {
                fake::read_startup(&mut stream).await;
                let parameters = [("in_hot_standby", "off"), ("server_version", "9")];
                fake::write(&mut stream, &welcome(&parameters)).await;
                tokio::time::sleep(SESSION_AGE_MIN + Duration::from_millis(50)).await;
                fake::write(&mut stream, &goodbye).await;
            }
        })
        .await;
        let mut rig = Rig::new(address, 60_000);
        assert_eq!(rig.answer().await, Ok(PRIMARY));
        let (claim, answer) = rig.claim().await;
        match answer {
            Err(Failure::Unavailable { sqlstate, .. }) if is_error => {
                assert_eq!(&*sqlstate, "57P01");
            }
            Err(Failure::Closed(_)) if !is_error => {}
            other => panic!("{other:?}"),
        }
        let late = rig.clock.now().since(claim.asked_at);
        assert!(late < Duration::from_secs(1), "{late:?}");
        let started = Instant::now();
        assert_eq!(rig.answer().await, Ok(PRIMARY));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_ends_every_session_is_not_dialled_in_a_closed_loop() {
    static LOGINS: AtomicUsize = AtomicUsize::new(0);
    let address = fake::server(|mut stream, _| async move {
        LOGINS.fetch_add(1, Ordering::SeqCst);
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "off"), ("server_version", "9")]))
            .await;
    })
    .await;
    let mut rig = Rig::new(address, 250);
    let drain = async { while rig.reports.recv().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
    // At once, then after 5, 10, 20, 40, 80, 160 and 250 ms.
    let logins = LOGINS.load(Ordering::SeqCst);
    assert!((2..=8).contains(&logins), "{logins}");
}

/// A standby that keeps its first session. It answers all others according to `refusing`.
async fn stopping(refusing: Arc<AtomicBool>) -> SocketAddr {
    fake::server(move |mut stream, number| {
        let refusing = refusing.clone();
        async move {
            if number > 0 && refusing.load(Ordering::SeqCst) {
                fake::read_startup(&mut stream).await;
                let stopping =
                    fake::error("FATAL", "57P03", "the database system is shutting down");
                fake::write(&mut stream, &stopping).await;
            } else {
                fake::standby(stream, |_| fake::ready()).await;
            }
        }
    })
    .await
}

/// Waits for a claim on new sessions, and counts the answers of the kept session before it.
async fn new_sessions(rig: &mut Rig) -> (Result<(), Failure>, usize) {
    let mut answers = 0;
    loop {
        let Some(Report::Claim(claim)) = rig.reports.recv().await else { panic!("no claim") };
        match claim.fact {
            Fact::NewSessions(answer) => return (answer, answers),
            Fact::Tether(answer) => {
                assert_eq!(answer, Ok(STANDBY), "the kept session goes on");
                answers += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_new_sessions_is_detected_while_the_kept_session_stays() {
    let refusing = Arc::new(AtomicBool::new(false));
    let address = stopping(refusing.clone()).await;
    let mut rig = Rig::new(address, 5);
    assert_eq!(new_sessions(&mut rig).await.0, Ok(()), "the login itself");
    refusing.store(true, Ordering::SeqCst);
    let started = Instant::now();
    for _ in 0..2 {
        let (answer, answers) = new_sessions(&mut rig).await;
        assert!(matches!(answer, Err(Failure::Unavailable { .. })), "{answer:?}");
        assert!(answers > 10, "{answers}");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    refusing.store(false, Ordering::SeqCst);
    assert_eq!(new_sessions(&mut rig).await.0, Ok(()));
}

#[tokio::test]
async fn a_shutdown_that_waits_for_all_sessions_does_not_wait_for_the_kept_one() {
    let refusing = Arc::new(AtomicBool::new(false));
    let address = stopping(refusing.clone()).await;
    let mut rig = Rig::new(address, 5);
    assert_eq!(new_sessions(&mut rig).await.0, Ok(()));
    refusing.store(true, Ordering::SeqCst);
    rig.doubt.notify_one();
    let started = Instant::now();
    let given_up = loop {
        match rig.reports.recv().await {
            Some(Report::Claim(Claim { fact: Fact::Tether(Err(failure)), .. })) => break failure,
            Some(_) => {}
            None => panic!("no claim"),
        }
    };
    assert!(matches!(given_up, Failure::Unavailable { .. }), "{given_up:?}");
    let took = started.elapsed();
    assert!(took >= REFUSED_KEEP && took < REFUSED_KEEP * 2, "{took:?}");
}

#[tokio::test]
async fn a_client_that_was_refused_makes_the_tether_try_at_once() {
    let refusing = Arc::new(AtomicBool::new(false));
    let address = stopping(refusing.clone()).await;
    let mut rig = Rig::new(address, 5);
    assert_eq!(new_sessions(&mut rig).await.0, Ok(()));
    refusing.store(true, Ordering::SeqCst);
    let started = Instant::now();
    rig.doubt.notify_one();
    let (answer, _) = new_sessions(&mut rig).await;
    assert!(matches!(answer, Err(Failure::Unavailable { .. })), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_unasked_report_of_the_role_is_a_claim() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "on"), ("server_version", "9")]))
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        fake::write(&mut stream, &fake::status("in_hot_standby", "off")).await;
        forever(stream).await;
    })
    .await;
    let mut rig = Rig::new(address, 60_000);
    assert_eq!(rig.answer().await, Ok(STANDBY));
    assert_eq!(rig.answer().await, Ok(PRIMARY));
}

#[tokio::test]
async fn a_member_that_moved_is_dialled_at_its_new_place() {
    let standby = |stream, _| fake::standby(stream, |_| fake::ready());
    let (old, new) = (fake::server(standby).await, fake::answering_login(Vec::new()).await);
    let mut rig = Rig::new(old, 60_000);
    assert_eq!(rig.answer().await, Ok(STANDBY));
    rig.plan.send_modify(|ask| ask.postgres = endpoint(new));
    assert_eq!(rig.answer().await, Err(Failure::Closed(Arc::from(new.to_string()))));
}

#[tokio::test]
async fn a_progress_query_that_is_refused_is_not_repeated() {
    let address = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "on")])).await;
        let denied = fake::error("ERROR", "42501", "permission denied for function");
        for answer in [fake::row(&["f"]), denied] {
            assert_eq!(fake::read_message(&mut stream).await.0, b'Q');
            fake::write(&mut stream, &[answer, fake::ready()].concat()).await;
        }
        // The next request is the Sync again.
        assert_eq!(fake::read_message(&mut stream).await.0, b'S');
        fake::write(&mut stream, &fake::ready()).await;
        forever(stream).await;
    })
    .await;
    let mut session = login(address, None).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(session.progress().await, Ok(None));
    assert_eq!(session.progress().await, Ok(None));
    assert_eq!(session.role().await, Ok(STANDBY));
}

#[tokio::test]
async fn a_name_that_stands_for_another_address_is_asked_there() {
    let old = fake::server(|stream, _| fake::standby(stream, |_| fake::ready())).await;
    let new = tokio::net::TcpListener::bind(("127.0.0.2", old.port())).await.unwrap();
    let addresses = |ip: [u8; 4]| vec![IpAddr::from(ip)];
    let mut rig = Rig::new(old, 5);
    rig.plan.send_modify(|ask| {
        ask.postgres = Endpoint::new("pg1.example", old.port()).unwrap();
        ask.addresses = addresses([127, 0, 0, 1]);
    });
    assert_eq!(rig.answer().await, Ok(STANDBY));
    rig.plan.send_modify(|ask| ask.addresses = addresses([127, 0, 0, 2]));
    let promoted = async {
        let (mut stream, _) = new.accept().await.unwrap();
        fake::read_startup(&mut stream).await;
        let reported = welcome(&[("in_hot_standby", "off"), ("server_version", "9")]);
        fake::write(&mut stream, &reported).await;
        forever(stream).await;
    };
    let seen = async { while rig.answer().await != Ok(PRIMARY) {} };
    tokio::select! {
        () = promoted => {}
        () = seen => return,
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    panic!("it is still asked at the old address");
}

/// The answers of a primary to what is asked once a session.
fn once(asked: &[u8], may_see: &str) -> Option<Vec<u8>> {
    let is = |statement: &str| asked.strip_suffix(b"\0") == Some(statement.as_bytes());
    if is(progress::FIRST) {
        return Some(fake::answer(&["f", "1000", may_see]));
    }
    is(progress::IDENTIFIER).then(|| fake::answer(&["7001"]))
}

#[tokio::test]
async fn a_server_reports_its_start_and_its_system_identifier_before_its_role_counts() {
    for (may_see, system_identifier) in [("t", Some(7001)), ("f", None)] {
        let server = fake::server(move |mut stream, _| async move {
            fake::read_startup(&mut stream).await;
            fake::write(&mut stream, &welcome(&[("in_hot_standby", "off")])).await;
            let mut asked_once = Vec::new();
            loop {
                let (tag, body) = fake::read_message(&mut stream).await;
                let answer = match (tag, once(&body, may_see)) {
                    (b'S', _) => fake::ready(),
                    (b'Q', Some(answer)) => {
                        assert!(!asked_once.contains(&body), "it is asked once");
                        asked_once.push(body);
                        answer
                    }
                    (b'Q', None) => {
                        fake::answer(&["f", "16", "00000001", "f", "", "", "1", "97", ""])
                    }
                    _ => return,
                };
                fake::write(&mut stream, &answer).await;
            }
        });
        let mut rig = Rig::new(server.await, 5);
        let started_at = Some(ServerStart(1000));
        let facts = Ok(TetherFacts { started_at, system_identifier, ..PRIMARY });
        assert_eq!(rig.answer().await, facts);
        assert!(matches!(
            rig.reports.recv().await,
            Some(Report::Claim(Claim { fact: Fact::Progress(_), .. }))
        ));
        for _ in 0..2 {
            assert_eq!(rig.answer().await, facts);
        }
    }
}
