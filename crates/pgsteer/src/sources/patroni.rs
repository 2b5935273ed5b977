//! Patroni's report about one member: `GET /primary` of the member's own REST API.
//!
//! One request returns both the leader lock and PostgreSQL's condition; the source of that fact is
//! at [`pgsteer_wire::patroni`].

use std::mem::discriminant;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use pgsteer_core::claim::{Fact, Failure, PatroniFacts};
use pgsteer_core::pace::patroni_gap;
use pgsteer_core::plan::Ask;
use pgsteer_wire::excerpt::excerpt;
use pgsteer_wire::patroni::parse_status;
use tokio::time::timeout;
use tracing::{info, trace, warn};

use super::http::Client;
use super::probe_timer::ProbeTimer;
use super::{Gone, Hint, Reporter};
use crate::base::{Base, strange};
use crate::exchange::Answer;

/// The time and duration of the last request.
#[derive(Default)]
struct Last {
    condition: Condition,
    /// How long the answer took.
    took: Duration,
}

/// The last outcome that was logged.
#[derive(Default)]
enum Condition {
    #[default]
    Well,
    Slow,
    Failed(Failure),
}

/// Sends requests at the pace of `timer`, one at a time, and less often if the answers take long. A
/// failure notifies discovery.
pub async fn run(mut timer: ProbeTimer, http: Arc<Client>, reporter: Reporter, hint: Hint) -> Gone {
    let mut last = Last::default();
    loop {
        let done = step(&mut timer, &http, &reporter, &hint, &mut last).await;
        if let Err(gone) = done {
            return gone;
        }
    }
}

async fn step(
    timer: &mut ProbeTimer,
    http: &Client,
    reporter: &Reporter,
    hint: &Hint,
    last: &mut Last,
) -> Result<(), Gone> {
    timer.due_no_sooner_than(patroni_gap(last.took)).await?;
    let ask = timer.ask();
    let Some(url) = &ask.patroni_url else {
        return timer.changed().await;
    };
    let (started, limit) = (Instant::now(), http.late_after());
    let mut asking = pin!(question(http, url, &ask));
    let (asked, facts) = match timeout(limit, &mut asking).await {
        Ok(done) => done,
        Err(_) => {
            if let Condition::Well = last.condition {
                hint.give();
            }
            let late = Failure::Late { peer: url.clone(), limit, waited: limit };
            reporter.claim(started, Fact::PatroniLate(late)).await?;
            tokio::select! {
                done = &mut asking => done,
                // A member with a new address is asked there at once.
                moved = timer.moved() => return moved,
            }
        }
    };
    let facts = facts.map_err(|failure| match failure {
        Failure::Timeout { peer, limit: waited } => Failure::Late { peer, limit, waited },
        other => other,
    });
    if facts.is_err() {
        hint.give();
    }
    let took = if facts.is_ok() { asked.elapsed() } else { Duration::ZERO };
    note(reporter, &mut last.condition, &facts, (took, limit));
    last.took = took;
    reporter.claim(asked, Fact::Patroni(facts)).await
}

async fn question(http: &Client, url: &str, ask: &Ask) -> (Instant, Result<PatroniFacts, Failure>) {
    let started = Instant::now();
    let base = match Base::parse(url) {
        Ok(base) => base,
        Err(why) => return (started, Err(Failure::Malformed(Arc::from(why)))),
    };
    match http.get_or_name(&base, known(&base, ask), "/primary").await {
        Ok(answer) => (answer.asked, read(&base, &answer)),
        Err(failure) => (started, Err(failure)),
    }
}

/// Returns the addresses of Patroni's host if the plan has them. Patroni usually runs on the host
/// of its PostgreSQL.
fn known<'a>(base: &Base, ask: &'a Ask) -> &'a [IpAddr] {
    if base.host() == ask.postgres.host() { &ask.addresses } else { &[] }
}

fn read(base: &Base, answer: &Answer) -> Result<PatroniFacts, Failure> {
    let holds_lock = match answer.status {
        StatusCode::OK => true,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => {
            let how = format!("status {}, `{}`", other.as_u16(), excerpt(&answer.body));
            return Err(strange(base, &how));
        }
    };
    parse_status(holds_lock, &answer.body).map_err(|bad| strange(base, &bad.to_string()))
}

/// Logs an outcome if its kind differs from the one before. `time` is how long the answer took, and
/// after how long it counts as slow.
fn note(
    reporter: &Reporter,
    condition: &mut Condition,
    facts: &Result<PatroniFacts, Failure>,
    time: (Duration, Duration),
) {
    let member = &reporter.member;
    let (took, limit) = time;
    let now = match facts {
        Ok(_) if took > limit => Condition::Slow,
        Ok(_) => Condition::Well,
        Err(failure) => Condition::Failed(failure.clone()),
    };
    match (&now, &*condition) {
        (Condition::Well, Condition::Well) => trace!(%member, "Patroni answers"),
        (Condition::Well, Condition::Slow) => info!(%member, "Patroni answers in time again"),
        (Condition::Well, Condition::Failed(_)) => info!(%member, "Patroni answers again"),
        (Condition::Slow, Condition::Slow) => trace!(%member, "Patroni answers after {took:?}"),
        (Condition::Slow, _) => {
            let limit = limit.as_secs_f64();
            warn!(%member, "Patroni answers after {took:.1?}; [patroni] timeout_seconds is {limit}");
        }
        (Condition::Failed(now), Condition::Failed(was))
            if discriminant(now) == discriminant(was) =>
        {
            trace!(%member, "Patroni: {now}");
        }
        (Condition::Failed(now), _) => warn!(%member, "Patroni: {now}"),
    }
    *condition = now;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pgsteer_core::claim::{Report, Role};
    use pgsteer_core::names::{Endpoint, MemberName};
    use pgsteer_core::plan::Pace;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::clock::Clock;
    use crate::sources::fake;

    const BODY: &str = r#"{"state": "running", "role": "master", "xlog": {"location": 7}}"#;

    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}")
    }

    fn ask(address: SocketAddr) -> Ask {
        Ask {
            postgres: Endpoint::new("127.0.0.1", 5432).unwrap(),
            addresses: Vec::new(),
            new_host: None,
            patroni_url: Some(Arc::from(format!("http://{address}"))),
            poolers: Default::default(),
            has_tether: true,
            pace: Pace {
                tether: Duration::from_millis(5),
                patroni: Duration::from_millis(5),
                pooler: Duration::from_secs(1),
            },
        }
    }

    /// Returns what is reported of the member at `address` within half a second.
    async fn asked(address: SocketAddr) -> Result<PatroniFacts, Failure> {
        asked_within(Duration::from_secs(60), address).await
    }

    async fn asked_within(limit: Duration, address: SocketAddr) -> Result<PatroniFacts, Failure> {
        let http = Client::new(limit, None);
        let ask = ask(address);
        question(&http, ask.patroni_url.as_ref().unwrap(), &ask).await.1
    }

    #[tokio::test]
    async fn the_status_code_reports_the_lock_and_the_body_reports_postgresql() {
        let leader = asked(fake::http_server(response("200 OK", BODY)).await).await.unwrap();
        assert!(leader.holds_lock && leader.is_running());
        assert_eq!((leader.role, leader.location), (Role::Primary, Some(7)));
        let other = asked(fake::http_server(response("503 No", BODY)).await).await.unwrap();
        assert!(!other.holds_lock);
    }

    #[tokio::test]
    async fn the_request_is_plain_old_http() {
        let (seen_tx, mut seen) = mpsc::channel(1);
        let address = fake::server(move |mut stream, _| {
            let seen_tx = seen_tx.clone();
            async move { seen_tx.send(fake::read_head(&mut stream).await).await.unwrap() }
        })
        .await;
        let _ = asked(address).await;
        let head = seen.recv().await.unwrap();
        assert!(head.starts_with("GET /primary HTTP/1.0\r\n"), "{head}");
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    }

    #[tokio::test]
    async fn an_answer_of_single_bytes_is_an_answer() {
        let address = fake::server(|mut stream, _| async move {
            fake::read_head(&mut stream).await;
            fake::drip(&mut stream, response("200 OK", BODY).as_bytes()).await;
        })
        .await;
        assert_eq!(asked(address).await.unwrap().role, Role::Primary);
    }

    /// PostgreSQL closes a connection that begins with anything but a startup packet.
    #[tokio::test]
    async fn postgresqls_port_in_place_of_patronis_is_called_so() {
        let address = fake::server(|mut stream, _| async move {
            let mut first = [0; 8];
            let _ = stream.read_exact(&mut first).await;
            if first == [0, 0, 0, 8, 4, 210, 22, 47] {
                let _ = stream.write_all(b"N").await;
            }
        })
        .await;
        let sentence = asked(address).await.unwrap_err().to_string();
        let what = format!("http://{address} answers as PostgreSQL or PgBouncer: give the port");
        assert!(sentence.starts_with(&what), "{sentence}");
        let closes = fake::server(|stream, _| async move { drop(stream) }).await;
        assert!(matches!(asked(closes).await, Err(Failure::Closed(_))));
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let address = fake::server(|stream, _| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        })
        .await;
        let limit = Duration::from_millis(500);
        let failure = asked_within(limit, address).await.unwrap_err();
        let peer = Arc::from(format!("http://{address}"));
        assert_eq!(failure, Failure::Timeout { peer, limit });
    }

    #[tokio::test]
    async fn ten_megabytes_are_too_much_with_or_without_an_announcement() {
        let body = format!("{{\"state\": \"{}\"}}", "x".repeat(10 * 1024 * 1024));
        let announced = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        for answer in [response("200 OK", &body), announced] {
            let failure = asked(fake::http_server(answer).await).await.unwrap_err();
            assert!(matches!(failure, Failure::TooLarge { .. }), "{failure:?}");
        }
        let head = format!("HTTP/1.0 200 OK\r\nX: {}", "x".repeat(10 * 1024 * 1024));
        let failure = asked(fake::http_server(head).await).await.unwrap_err();
        assert!(failure.to_string().contains("not as Patroni does"), "{failure}");
    }

    #[tokio::test]
    async fn another_program_at_the_address_is_reported_as_not_patroni() {
        let not_patroni = [
            (response("200 OK", "<h1>It works!</h1>"), "`<h1>It works!</h1>`"),
            (response("404 Not Found", "no\nsuch page"), "status 404, `no.such page`"),
            (response("200 OK", ""), "no JSON object"),
            (response("200 OK", "{}"), "no `state`"),
            ("\0\x01\x02 garbage\r\n\r\n".to_owned(), "invalid HTTP"),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "invalid HTTP"),
        ];
        for (answer, how) in not_patroni {
            let address = fake::http_server(answer).await;
            let failure = asked(address).await.unwrap_err();
            let sentence = failure.to_string();
            let start = format!("http://{address} answers, but not as Patroni does: ");
            assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
            assert!(sentence.starts_with(&start) && sentence.contains(how), "{sentence}");
        }
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_no_answer() {
        let whole = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
        for length in [0, 5, 20, 40, whole.len() - 1] {
            let failure = asked(fake::http_server(&whole[..length]).await).await.unwrap_err();
            assert!(matches!(failure, Failure::Closed(_)), "{length}: {failure:?}");
        }
        // Without a Content-Length only the JSON shows that the body is incomplete.
        let open_ended = response("200 OK", BODY);
        let cut = &open_ended[..open_ended.len() - 1];
        let failure = asked(fake::http_server(cut).await).await.unwrap_err();
        assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
    }

    /// The facts that are reported for a Patroni that waits before each answer.
    async fn reported(wait: Duration, run_on: Duration, count: usize) -> Vec<(Fact, Instant)> {
        let address = fake::server(move |mut stream, _| async move {
            fake::read_head(&mut stream).await;
            tokio::time::sleep(wait).await;
            let _ = stream.write_all(response("200 OK", BODY).as_bytes()).await;
        })
        .await;
        let (reports_tx, mut reports) = mpsc::channel(8);
        let (_plan, plan_rx) = watch::channel(ask(address));
        let clock = Clock::start();
        let reporter =
            Reporter { member: MemberName::new("pg1").unwrap(), clock, reports: reports_tx };
        let http = Client::new(run_on, None).with_connect_limit(Duration::from_millis(100));
        let timer = ProbeTimer::new(plan_rx, |pace| pace.patroni, clock);
        let _task =
            crate::sources::Task::spawn(run(timer, Arc::new(http), reporter, Hint::default()));
        let mut facts = Vec::new();
        for _ in 0..count {
            let Some(Report::Claim(claim)) = reports.recv().await else { panic!("no claim") };
            facts.push((claim.fact, clock.instant(claim.asked_at)));
        }
        facts
    }

    #[tokio::test]
    async fn a_late_answer_is_marked_first_and_counts_from_its_question() {
        let wait = Duration::from_millis(400);
        let started = Instant::now();
        let facts = reported(wait, Duration::from_secs(5), 4).await;
        let (late, answer) = (&facts[0], &facts[1]);
        let Fact::PatroniLate(Failure::Late { limit, waited, .. }) = &late.0 else {
            panic!("{late:?}")
        };
        assert_eq!((limit.as_millis(), waited.as_millis()), (100, 100));
        assert!(matches!(answer.0, Fact::Patroni(Ok(_))), "{answer:?}");
        assert!(answer.1 >= late.1 && answer.1.duration_since(started) < wait, "{answer:?}");
        // The next request is sent after half of the duration of that answer.
        assert!(matches!(facts[3].0, Fact::Patroni(Ok(_))), "{:?}", facts[3]);
        assert!(facts[3].1.duration_since(answer.1) >= wait * 3 / 2, "{facts:?}");
    }

    #[tokio::test]
    async fn a_member_that_moves_is_asked_elsewhere_before_a_late_answer_is_here() {
        let silent = fake::server(|stream, _| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        })
        .await;
        let elsewhere = fake::http_server(response("200 OK", BODY)).await;
        let (reports_tx, mut reports) = mpsc::channel(8);
        let (plan, plan_rx) = watch::channel(ask(silent));
        let clock = Clock::start();
        let reporter =
            Reporter { member: MemberName::new("pg1").unwrap(), clock, reports: reports_tx };
        let http = Client::new(Duration::from_secs(50), None)
            .with_connect_limit(Duration::from_millis(50));
        let timer = ProbeTimer::new(plan_rx, |pace| pace.patroni, clock);
        let _task =
            crate::sources::Task::spawn(run(timer, Arc::new(http), reporter, Hint::default()));
        let Some(Report::Claim(claim)) = reports.recv().await else { panic!("no claim") };
        assert!(matches!(claim.fact, Fact::PatroniLate(_)), "{claim:?}");
        plan.send_replace(ask(elsewhere));
        let Some(Report::Claim(claim)) = reports.recv().await else { panic!("no claim") };
        assert!(matches!(claim.fact, Fact::Patroni(Ok(_))), "{claim:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_never_answered_is_given_up_with_the_time_and_the_key() {
        let facts = reported(Duration::from_secs(60), Duration::from_millis(600), 2).await;
        assert!(matches!(facts[0].0, Fact::PatroniLate(_)), "{facts:?}");
        let Fact::Patroni(Err(failure)) = &facts[1].0 else { panic!("{facts:?}") };
        let text = failure.to_string();
        assert!(text.contains("within 600ms; [patroni] timeout_seconds is 0.1"), "{text}");
    }

    #[tokio::test]
    async fn a_member_is_never_asked_twice_at_a_time() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let address = fake::server(|mut stream, _| async move {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            fake::read_head(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(response("200 OK", BODY).as_bytes()).await;
        })
        .await;
        let (reports_tx, mut reports) = mpsc::channel(8);
        let (plan, plan_rx) = watch::channel(ask(address));
        let reporter = Reporter {
            member: MemberName::new("pg1").unwrap(),
            clock: Clock::start(),
            reports: reports_tx,
        };
        let http = Arc::new(Client::new(Duration::from_secs(5), None));
        let timer = ProbeTimer::new(plan_rx, |pace| pace.patroni, Clock::start());
        let task = tokio::spawn(run(timer, http, reporter, Hint::default()));
        for _ in 0..5 {
            let Some(Report::Claim(claim)) = reports.recv().await else { panic!("no claim") };
            assert!(matches!(claim.fact, Fact::Patroni(Ok(_))), "{claim:?}");
            plan.send_modify(|ask| ask.pace.patroni /= 2);
        }
        assert_eq!(MOST.load(Ordering::SeqCst), 1);
        drop(plan);
        assert_eq!(task.await.unwrap(), Gone);
    }
}
