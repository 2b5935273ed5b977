//! The tether against fake servers: what it claims of them, and when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Claim, Fact, Failure, PoolerFacts, Report, ServerStart, TetherFacts};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::plan::{Ask, Pace};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::fake::{self, welcome};
use super::login::{LoggedIn, Login};
use super::session::Session;
use super::*;
use crate::clock::Clock;
use crate::sources::Task;

const LIMIT: Duration = Duration::from_millis(500);
const PRIMARY: TetherFacts = TetherFacts { in_recovery: false, started_at: None };
const STANDBY: TetherFacts = TetherFacts { in_recovery: true, started_at: None };

/// A tether at work, and its claims.
struct Rig {
    plan: watch::Sender<Ask>,
    reports: mpsc::Receiver<Report>,
    clock: Clock,
    _task: Task,
}

impl Rig {
    fn new(address: SocketAddr, pace_ms: u64) -> Rig {
        Rig::tied_to(Subject::Server, address, pace_ms)
    }

    /// At the pooler on this address. The member's server is said to listen elsewhere.
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
            patroni_url: None,
            poolers: Default::default(),
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
        let beat = Beat::new(plan_rx, |pace| pace.tether, Clock::start());
        let login = Arc::new(Login::fake(None, limit));
        let tether = Tether::tied_to(subject, beat, login, reporter, None);
        Rig { plan, reports, clock, _task: Task::spawn(tether.run()) }
    }

    async fn claim(&mut self) -> (Claim, Result<TetherFacts, Failure>) {
        let Some(Report::Claim(claim)) = self.reports.recv().await else { panic!("no claim") };
        let Fact::Tether(answer) = claim.fact.clone() else { panic!("{claim:?}") };
        (claim, answer)
    }

    async fn of_pooler(&mut self) -> Result<PoolerFacts, Failure> {
        let Some(Report::Claim(claim)) = self.reports.recv().await else { panic!("no claim") };
        let Fact::Pooler { said, .. } = claim.fact else { panic!("{claim:?}") };
        said
    }

    async fn answer(&mut self) -> Result<TetherFacts, Failure> {
        self.claim().await.1
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(&address.ip().to_string(), address.port()).unwrap()
}

async fn login(address: SocketAddr, password: Option<&str>) -> Result<Session, Failure> {
    let login = Login::fake(password, LIMIT);
    let logged_in = login.log_in(&endpoint(address), &[address.ip()]).await;
    logged_in.map(|LoggedIn { session, .. }| session).map_err(|missed| missed.failure)
}

async fn refusal(address: SocketAddr) -> Failure {
    match login(address, Some("geheim")).await {
        Ok(_) => panic!("logged in"),
        Err(failure) => failure,
    }
}

async fn forever(stream: TcpStream) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(stream);
}

#[tokio::test]
async fn the_login_tells_the_role_and_a_sync_the_promotion() {
    let address = fake::server(|stream, _| {
        fake::standby(stream, |number| match number {
            2 => [fake::status("in_hot_standby", "off"), fake::ready()].concat(),
            _ => fake::ready(),
        })
    })
    .await;
    let mut rig = Rig::new(address, 5);
    let said = [rig.answer().await, rig.answer().await, rig.answer().await];
    assert_eq!(said, [Ok(STANDBY), Ok(STANDBY), Ok(STANDBY)]);
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
        fake::drip(&mut stream, &welcome(&[("in_hot_standby", "off")])).await;
        forever(stream).await;
    })
    .await;
    let session = login(address, None).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(session.told_in_login(), Some(PRIMARY));
}

#[tokio::test]
async fn the_startup_packet_says_who_we_are() {
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

    let falls_silent = fake::server(|mut stream, _| async move {
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
    assert_eq!(rig.answer().await, Ok(PRIMARY), "a new login was tried");
}

#[tokio::test]
async fn whoever_is_not_postgresql_is_told_apart() {
    for (garbage, how) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "`HTTP/1.1 400 Bad Request....`"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "`SSH-2.0-OpenSSH_9.2..`"),
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
async fn a_server_that_is_well_but_refuses_is_no_server_that_is_down() {
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
        assert!(failure.to_string().contains("sorry, too many clients already"), "{failure}");
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
    assert!(login(address, Some("geheim")).await.is_ok());
    assert!(login(address, Some("falsch")).await.is_err());
    let failure = login(address, None).await.err().unwrap();
    assert!(failure.is_login_refused(), "{failure:?}");
}

#[tokio::test]
async fn a_server_that_cannot_prove_to_know_the_password_is_not_believed() {
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
    assert!(failure.to_string().contains("proof"), "{failure:?}");
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
async fn the_end_of_a_session_is_felt_at_once_and_a_new_one_is_tried_at_once() {
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
        // The next question is the Sync again.
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
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "off")])).await;
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

fn recovery_question() -> Vec<u8> {
    [progress::RECOVERY.as_bytes(), b"\0"].concat()
}

/// The answer to it, without the second column.
fn recovery(answer: &str) -> Vec<u8> {
    answer_of(&[answer])
}

fn answer_of(columns: &[&str]) -> Vec<u8> {
    let complete = fake::message(b'C', b"SELECT 1\0");
    [fake::message(b'T', &[0, 0]), fake::row(columns), complete, fake::ready()].concat()
}

#[tokio::test]
async fn a_server_tells_when_it_was_started_once_a_session_and_a_pooler_each_time() {
    let server = fake::server(|mut stream, number| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[("in_hot_standby", "off")])).await;
        loop {
            let (tag, body) = fake::read_message(&mut stream).await;
            let started = if number == 0 { "1000" } else { "2000" };
            let answer = match (tag, &body[..]) {
                (b'S', _) => fake::ready(),
                (b'Q', asked) if asked.starts_with(progress::FIRST.as_bytes()) => {
                    answer_of(&["f", started])
                }
                (b'Q', _) => answer_of(&["f", "16", "00000001", "f", "", "1", "97", ""]),
                _ => return,
            };
            fake::write(&mut stream, &answer).await;
        }
    });
    let mut rig = Rig::new(server.await, 5);
    // The role is not kept waiting for it.
    assert_eq!(rig.answer().await, Ok(PRIMARY));
    assert!(matches!(
        rig.reports.recv().await,
        Some(Report::Claim(Claim { fact: Fact::Progress(_), .. }))
    ));
    let started_at = Some(ServerStart(1000));
    for _ in 0..2 {
        assert_eq!(rig.answer().await, Ok(TetherFacts { started_at, ..PRIMARY }));
    }

    let pooler = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        for started in ["1000", "2000"] {
            fake::read_message(&mut stream).await;
            fake::write(&mut stream, &answer_of(&["f", started])).await;
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
async fn a_pooler_is_believed_in_a_query_and_not_in_its_welcome() {
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
async fn a_pooler_that_dies_is_felt_without_a_question() {
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
async fn a_pooler_that_lets_nobody_through_is_up_and_leads_nowhere() {
    let silent = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        // As PgBouncer does as long as it has never had a connection to its server.
        fake::write(&mut stream, &fake::authentication(0, &[])).await;
        forever(stream).await;
    });
    let said = Rig::at_pooler(silent.await, 5).of_pooler().await;
    let nowhere = matches!(said, Ok(PoolerFacts::LeadsNowhere(Failure::Timeout { .. })));
    assert!(nowhere, "{said:?}");
    let failing = fake::server(|mut stream, _| async move {
        fake::read_startup(&mut stream).await;
        fake::write(&mut stream, &welcome(&[])).await;
        fake::read_message(&mut stream).await;
        let words = "server login has been failing, try again later (server_login_retry)";
        fake::write(&mut stream, &fake::error("FATAL", "08P01", words)).await;
    });
    let said = Rig::at_pooler(failing.await, 5).of_pooler().await;
    assert!(matches!(said, Ok(PoolerFacts::LeadsNowhere(Failure::Network(_)))), "{said:?}");
}

/// What goes to the log.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_pooler_that_lets_in_and_then_fails_the_question_is_logged_once() {
    let log = Log::default();
    let writer = std::sync::Mutex::new(log.clone());
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish(),
    );
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
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("has been failing") && lines[1].contains("logged in"), "{text}");
}

#[tokio::test]
async fn a_pooler_that_refuses_the_login_is_up_and_one_that_says_nothing_is_not() {
    let refused = fake::error("FATAL", "08P01", "no such user: pgcheck");
    let said = Rig::at_pooler(fake::answering_login(refused).await, 5).of_pooler().await;
    assert!(matches!(said, Ok(PoolerFacts::RefusesLogin(_))), "{said:?}");
    let starting = fake::error("FATAL", "57P03", "the database system is starting up");
    let said = Rig::at_pooler(fake::answering_login(starting).await, 5).of_pooler().await;
    assert!(matches!(said, Err(Failure::Unavailable { .. })), "{said:?}");
    let frozen = fake::server(|stream, _| forever(stream)).await;
    let said = Rig::at_pooler(frozen, 5).of_pooler().await;
    assert!(matches!(said, Err(Failure::Timeout { .. })), "{said:?}");
}

/// Answers requests for TLS and logins, and the query `number` of each session as told.
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
        let Fact::Pooler { said, .. } = fact else { panic!("{fact:?}") };
        assert!(asked_at >= last, "an answer is as old as its own question");
        last = asked_at;
        match said {
            Ok(PoolerFacts::Busy(Failure::Timeout { .. })) => {}
            said => break assert_eq!(said, leads),
        }
    }
    let waited = paused_at.elapsed();
    assert!((LIMIT * 2..LIMIT * 5).contains(&waited), "resumed after {waited:?}");
}

/// As PgBouncer does by `trust` as long as it has no session to its server: not one byte.
#[tokio::test]
async fn a_pooler_that_greets_nobody_and_answers_a_request_for_tls_is_up() {
    let address = fake::server(|mut stream, _| async move {
        while fake::read_startup(&mut stream).await[..4] == *b"\x04\xd2\x16\x2f" {
            fake::write(&mut stream, b"N").await;
        }
        forever(stream).await;
    });
    let said = Rig::at_pooler(address.await, 5).of_pooler().await;
    assert!(matches!(said, Ok(PoolerFacts::LeadsNowhere(_))), "{said:?}");
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

/// Fresh logins go on all the while, every five seconds.
#[tokio::test]
async fn that_a_pooler_keeps_a_query_waiting_is_said_again_before_it_expires() {
    const LONG: Duration = Duration::from_secs(3);
    let address = fake::server(|stream, _| {
        pooler_at(stream, async |number| (number == 0).then(|| recovery("f")))
    })
    .await;
    let subject = Subject::Pooler { port: address.port() };
    let mut rig = Rig::with_limit(LONG, subject, address, 250);
    // As the engine has it: the pace of a knock, the limit, and some slack.
    let lifetime = Duration::from_millis(1500) + LONG;
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < LONG * 4 {
        let Some(Report::Claim(Claim { asked_at, fact, .. })) = rig.reports.recv().await else {
            panic!("no claim");
        };
        let is_first = last.is_none();
        let Fact::Pooler { said: Ok(said), .. } = fact else { panic!("{fact:?}") };
        assert_eq!(matches!(said, PoolerFacts::Leads { .. }), is_first, "{said:?}");
        let gap = last.map(|last| rig.clock.now().since(last)).unwrap_or_default();
        assert!(gap < lifetime, "{gap:?} after {:?}", started.elapsed());
        last = Some(asked_at);
    }
}

#[tokio::test]
async fn nobody_logs_in_through_a_pooler_whose_server_has_just_gone_however_urgent_it_is() {
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
async fn one_that_waits_in_a_pooler_hears_from_a_fresh_login_that_the_server_is_gone() {
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

#[tokio::test]
async fn a_knock_is_answered_by_any_word_but_that_nobody_can_come_in() {
    let knock = |address: SocketAddr| async move {
        Login::of_nobody(LIMIT).knock(&endpoint(address), &[address.ip()]).await
    };
    for answer in [
        fake::authentication(10, b"SCRAM-SHA-256\0\0"),
        fake::error("FATAL", "08P01", "no such user: pgsteer"),
        fake::error("FATAL", "53300", "sorry, too many clients already"),
    ] {
        assert_eq!(knock(fake::answering_login(answer).await).await, Ok(()));
    }
    let starting = fake::error("FATAL", "57P03", "the database system is starting up");
    let said = knock(fake::answering_login(starting).await).await;
    assert!(matches!(said, Err(Failure::Unavailable { .. })), "{said:?}");
    let said = knock(fake::answering_login([]).await).await;
    assert!(matches!(said, Err(Failure::Closed(_))), "{said:?}");
}
