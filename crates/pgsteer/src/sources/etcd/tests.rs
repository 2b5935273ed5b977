//! The watch against fake etcds that behave correctly, and against faulty ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use pgsteer_core::claim::Order;
use pgsteer_core::names::MemberName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::sources::{Task, fake};

const RANGE: &str = "/v3/kv/range";
const WATCH: &str = "/v3/watch";
const CREATED: &str = r#"{"result":{"header":{"revision":"10"},"created":true}}"#;
/// Keys in base64: `/service/lab/failover` and `/service/lab/leader`.
const FAILOVER: &str = "L3NlcnZpY2UvbGFiL2ZhaWxvdmVy";
const LEADER: &str = "L3NlcnZpY2UvbGFiL2xlYWRlcg==";
/// `/service/lab/initialize`
const INITIALIZE: &str = "L3NlcnZpY2UvbGFiL2luaXRpYWxpemU=";
/// `n1` and `{"leader":"n1"}`.
const N1: &str = "bjE=";
const AWAY_FROM_N1: &str = "eyJsZWFkZXIiOiJuMSJ9";
/// `{}`
const NOTHING: &str = "e30=";

/// A request that the fake received.
struct Asked {
    path: String,
    body: String,
    token: Option<String>,
}

/// The fake's reaction to a request.
enum Act {
    /// A complete answer.
    Answer(u16, String),
    /// Chunks of a stream that stays open and silent afterwards.
    Stream(Vec<Vec<u8>>),
    /// Chunks of a stream that then ends in the middle.
    Cut(Vec<Vec<u8>>),
    /// No answer.
    Silence,
}

async fn etcd(act: impl Fn(Asked) -> Act + Clone + Send + Sync + 'static) -> SocketAddr {
    fake::server(move |stream, _| serve(stream, act.clone())).await
}

async fn serve(mut stream: TcpStream, act: impl Fn(Asked) -> Act) {
    let head = fake::read_head(&mut stream).await;
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    let Some(length) = header("content-length:").and_then(|digits| digits.parse().ok()) else {
        return;
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let asked = Asked {
        path: head.split(' ').nth(1).unwrap().to_owned(),
        body: String::from_utf8(body).unwrap(),
        token: header("authorization:"),
    };
    let (pieces, ends) = match act(asked) {
        Act::Answer(status, body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
            return;
        }
        Act::Silence => (Vec::new(), false),
        Act::Stream(pieces) => (pieces, false),
        Act::Cut(pieces) => (pieces, true),
    };
    if !pieces.is_empty() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    }
    for piece in pieces {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece[..], b"\r\n"].concat();
        // The client may close before all is written.
        let _ = stream.write_all(&chunk).await;
        tokio::task::yield_now().await;
    }
    if !ends {
        sleep(Duration::from_secs(60)).await;
    }
}

fn range(revision: u64, kvs: &[String]) -> Act {
    let kvs = kvs.join(",");
    Act::Answer(200, format!(r#"{{"header":{{"revision":"{revision}"}},"kvs":[{kvs}]}}"#))
}

/// The keys of a cluster without a leader.
fn leaderless(revision: u64) -> Act {
    range(revision, &[kv(INITIALIZE, N1, 1)])
}

fn kv(key: &str, value: &str, revision: u64) -> String {
    format!(r#"{{"key":"{key}","value":"{value}","mod_revision":"{revision}"}}"#)
}

fn event(kv: &str) -> String {
    format!(r#"{{"result":{{"header":{{}},"events":[{{"kv":{kv}}}]}}}}"#)
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

fn settings(urls: &[SocketAddr]) -> Settings {
    settings_within(Duration::from_millis(500), urls)
}

fn settings_within(timeout: Duration, urls: &[SocketAddr]) -> Settings {
    let config = EtcdConfig {
        urls: urls.iter().map(|address| format!("http://{address}")).collect(),
        namespace: "/service".to_owned(),
        scope: Some("lab".to_owned()),
        username: None,
        password_file: None,
        verify: Default::default(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        timeout,
    };
    Settings { look: Duration::from_millis(100), ..Settings::read(&config).unwrap() }
}

/// A running watch and its reports. The watch ends when this is dropped.
struct Hearing {
    reports: mpsc::Receiver<Report>,
    plan: watch::Sender<Arc<Plan>>,
    _task: Task,
}

impl Hearing {
    fn of(settings: Settings) -> Hearing {
        let (reports_tx, reports) = mpsc::channel(64);
        let (plan, plan_rx) = watch::channel(Arc::new(Plan::default()));
        let settings = Arc::new(settings);
        let watcher =
            Watcher { settings, plan: plan_rx, clock: Clock::start(), reports: reports_tx };
        Hearing { reports, plan, _task: Task::spawn(watcher.run()) }
    }

    /// The next event about the keys. `any` returns events about the watch itself too.
    async fn next(&mut self) -> News {
        loop {
            match self.any().await {
                News::Written(_) | News::Read { .. } => {}
                news => return news,
            }
        }
    }

    async fn any(&mut self) -> News {
        let report = timeout(Duration::from_secs(5), self.reports.recv()).await;
        match report.unwrap() {
            Some(Report::Notice(notice)) => notice.news,
            other => panic!("{other:?}"),
        }
    }

    async fn expect(&mut self, expected: &[News]) {
        for news in expected {
            assert_eq!(self.next().await, *news);
        }
    }

    async fn expect_nothing(&mut self) {
        let next = timeout(Duration::from_millis(300), self.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

fn n1() -> MemberName {
    MemberName::new("n1").unwrap()
}

fn ordered() -> News {
    News::Ordered(Order { leader: Some(n1()), candidate: None })
}

/// A fake that returns the leader key and streams `pieces` as its watch.
async fn watched(pieces: Vec<Vec<u8>>) -> SocketAddr {
    etcd(move |asked| match asked.path.as_str() {
        RANGE => range(10, &[kv(LEADER, N1, 7)]),
        _ => Act::Stream(pieces.clone()),
    })
    .await
}

#[tokio::test]
async fn the_watch_reports_its_own_state() {
    let address = etcd(|asked| match asked.path.as_str() {
        WATCH => Act::Stream(vec![line(CREATED), line(&event(&kv(LEADER, N1, 11)))]),
        _ if asked.body.contains("range_end") => leaderless(10),
        // The watch does not send this revision.
        _ => range(12, &[kv(LEADER, N1, 12)]),
    })
    .await;
    let mut hearing = Hearing::of(settings(&[address]));
    let mut news_so_far = Vec::new();
    while news_so_far.last() != Some(&News::Read { is_behind: true }) {
        news_so_far.push(hearing.any().await);
    }
    let [watching, read, ..] = &news_so_far[..] else { panic!("{news_so_far:?}") };
    assert_eq!([watching, read], [&News::Watching, &News::Read { is_behind: false }]);
    assert_eq!(
        news_so_far.iter().filter(|news| **news == News::Written(1)).count(),
        1,
        "{news_so_far:?}"
    );
}

#[tokio::test]
async fn the_start_and_the_end_of_an_order_are_reported() {
    let pieces = [
        CREATED.to_owned(),
        event(&kv(FAILOVER, AWAY_FROM_N1, 11)),
        event(&kv(FAILOVER, NOTHING, 12)),
        event(&kv(LEADER, "bjI=", 13)),
    ];
    let address = watched(pieces.iter().map(|text| line(text)).collect()).await;
    let mut hearing = Hearing::of(settings(&[address]));
    let n2 = MemberName::new("n2").unwrap();
    let leader = News::Leader(n1());
    hearing.expect(&[News::Watching, leader, News::NoOrder, ordered(), News::NoOrder]).await;
    hearing.expect(&[News::Leader(n2)]).await;
    hearing.expect_nothing().await;
}

#[tokio::test]
async fn a_line_may_come_in_single_bytes_and_several_in_one() {
    let all =
        [CREATED, &event(&kv(FAILOVER, AWAY_FROM_N1, 11)), &event(&kv(FAILOVER, NOTHING, 12))];
    let all: Vec<u8> = all.iter().flat_map(|text| line(text)).collect();
    for size in [1, 50, all.len()] {
        let address = watched(all.chunks(size).map(<[u8]>::to_vec).collect()).await;
        let mut hearing = Hearing::of(settings(&[address]));
        let leader = News::Leader(n1());
        hearing.expect(&[News::Watching, leader, News::NoOrder, ordered(), News::NoOrder]).await;
    }
}

#[tokio::test]
async fn keys_from_before_the_start_are_not_reported_and_keys_written_in_a_gap_are() {
    static WATCHES: AtomicUsize = AtomicUsize::new(0);
    let address = etcd(|asked| {
        let watches = WATCHES.load(Ordering::SeqCst);
        match asked.path.as_str() {
            RANGE if !asked.body.contains(FAILOVER) => range(10, &[]),
            RANGE if watches == 0 => range(10, &[kv(FAILOVER, AWAY_FROM_N1, 9)]),
            RANGE if watches == 1 => range(20, &[kv(FAILOVER, AWAY_FROM_N1, 15)]),
            RANGE => range(30, &[kv(FAILOVER, AWAY_FROM_N1, 15)]),
            _ => {
                let number = WATCHES.fetch_add(1, Ordering::SeqCst);
                let from = ["\"11\"", "\"21\"", "\"31\""][number.min(2)];
                assert!(asked.body.contains(&format!("\"start_revision\":{from}")), "{number}");
                match number {
                    0 | 1 => Act::Cut(vec![line(CREATED), b"{\"resu".to_vec()]),
                    _ => Act::Stream(vec![line(CREATED)]),
                }
            }
        }
    })
    .await;
    let mut hearing = Hearing::of(settings(&[address]));
    let closed = News::Lost(Failure::Closed(Arc::from(format!("http://{address}"))));
    hearing.expect(&[News::Watching, closed.clone(), News::Watching, ordered()]).await;
    hearing.expect(&[closed, News::Watching]).await;
    hearing.expect_nothing().await;
}

#[tokio::test]
async fn an_etcd_with_a_malformed_or_endless_answer_is_replaced_by_the_next() {
    let endless = vec![line(CREATED), vec![b'x'; 10 * 1024 * 1024]];
    for pieces in [
        vec![line("SSH-2.0-OpenSSH_9.2")],
        vec![line(CREATED), line("<h1>It works!</h1>")],
        vec![line(CREATED), line(r#"{"result":{"canceled":true,"compact_revision":"7"}}"#)],
        vec![line(CREATED), line(r#"{"result":{"events":[{"kv":{"key":"%%"}}]}}"#)],
        vec![line(CREATED), vec![0xff, 0xfe, b'\n']],
        endless,
    ] {
        let bad = watched(pieces).await;
        let good =
            watched(vec![line(CREATED), line(&event(&kv(FAILOVER, AWAY_FROM_N1, 11)))]).await;
        let mut hearing = Hearing::of(settings(&[bad, good]));
        while hearing.next().await != ordered() {}
    }
}

#[tokio::test]
async fn a_failure_at_all_addresses_is_reported_once_per_round() {
    let silent = etcd(|_| Act::Silence).await;
    let refusing = etcd(|_| Act::Answer(404, "404 page not found".to_owned())).await;
    // A wait for the answer does not count as a watch, even a long one.
    let long = STEADY + Duration::from_millis(100);
    let mut hearing = Hearing::of(settings_within(long, &[silent, refusing]));
    let why = format!("http://{refusing} refuses: 404 page not found (status 404)");
    hearing.expect(&[News::Lost(Failure::Malformed(Arc::from(why)))]).await;
    assert!(matches!(hearing.next().await, News::Lost(_)));
}

#[tokio::test]
async fn an_etcd_that_freezes_during_a_watch_is_detected() {
    static RANGES: AtomicUsize = AtomicUsize::new(0);
    let frozen = etcd(|asked| match asked.path.as_str() {
        RANGE if RANGES.fetch_add(1, Ordering::SeqCst) > 0 => Act::Silence,
        RANGE => leaderless(10),
        _ => Act::Stream(vec![line(CREATED)]),
    })
    .await;
    let well = watched(vec![line(CREATED)]).await;
    let mut hearing = Hearing::of(settings(&[frozen, well]));
    hearing.expect(&[News::Watching, News::NoOrder, News::Watching, News::Leader(n1())]).await;
}

#[tokio::test]
async fn a_watch_that_reports_no_writes_is_detected() {
    static RANGES: AtomicUsize = AtomicUsize::new(0);
    let deaf = etcd(|asked| match asked.path.as_str() {
        RANGE if RANGES.fetch_add(1, Ordering::SeqCst) > 0 => range(20, &[kv(LEADER, N1, 15)]),
        RANGE => leaderless(10),
        _ => Act::Stream(vec![line(CREATED)]),
    })
    .await;
    let well = watched(vec![line(CREATED)]).await;
    let mut hearing = Hearing::of(settings(&[deaf, well]));
    hearing.expect(&[News::Watching, News::NoOrder, News::Watching, News::Leader(n1())]).await;
}

#[tokio::test]
async fn revisions_from_before_etcd_was_restored_mean_nothing_after() {
    static RANGES: AtomicUsize = AtomicUsize::new(0);
    let restored = etcd(|asked| match asked.path.as_str() {
        RANGE => match RANGES.fetch_add(1, Ordering::SeqCst) {
            0 => range(1_000, &[kv(LEADER, N1, 990)]),
            1 => leaderless(10),
            _ => range(20, &[kv(LEADER, N1, 15)]),
        },
        _ if RANGES.load(Ordering::SeqCst) == 1 => Act::Cut(vec![line(CREATED)]),
        _ => Act::Stream(vec![line(CREATED)]),
    })
    .await;
    let mut hearing = Hearing::of(settings(&[restored]));
    let is_deaf = |news| match news {
        News::Lost(Failure::Malformed(why)) => why.contains("does not report"),
        _ => false,
    };
    while !is_deaf(hearing.next().await) {}
}

#[tokio::test]
async fn a_token_that_has_expired_is_replaced() {
    static LOGINS: AtomicUsize = AtomicUsize::new(0);
    static RANGES: AtomicUsize = AtomicUsize::new(0);
    let address = etcd(|asked| match asked.path.as_str() {
        "/v3/auth/authenticate" => {
            assert_eq!(asked.body, r#"{"name":"pgsteer","password":"geheim"}"#);
            assert_eq!(asked.token, None);
            let number = LOGINS.fetch_add(1, Ordering::SeqCst);
            Act::Answer(200, format!(r#"{{"header":{{}},"token":"token.{number}"}}"#))
        }
        path => match (path, asked.token.as_deref()) {
            (RANGE, Some("token.0")) if RANGES.fetch_add(1, Ordering::SeqCst) > 0 => {
                let complaint = r#"{"error":"etcdserver: invalid auth token","code":16}"#;
                Act::Answer(401, complaint.to_owned())
            }
            (RANGE, Some("token.0" | "token.1")) => range(10, &[kv(LEADER, N1, 7)]),
            (WATCH, Some("token.0" | "token.1")) => Act::Stream(vec![line(CREATED)]),
            other => panic!("{other:?}"),
        },
    })
    .await;
    let login = Some(("pgsteer".to_owned(), Secret::from("geheim")));
    let look = Duration::from_millis(1_200);
    let mut hearing = Hearing::of(Settings { login, look, ..settings(&[address]) });
    let all = [News::Watching, News::Leader(n1()), News::NoOrder];
    hearing.expect(&all).await;
    hearing.expect(&all).await;
    assert_eq!(LOGINS.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_login_that_is_refused_shows_no_secret() {
    for (status, body) in [
        (400, r#"{"error":"etcdserver: authentication failed","code":3}"#),
        (200, r#"{"tokens":"hush-hush"}"#),
    ] {
        let address = etcd(move |_| Act::Answer(status, body.to_owned())).await;
        let login = Some(("pgsteer".to_owned(), Secret::from("geheim")));
        let mut hearing = Hearing::of(Settings { login, ..settings(&[address]) });
        let News::Lost(failure) = hearing.next().await else { panic!() };
        let shown = format!("{failure} {failure:?}");
        assert!(!shown.contains("geheim") && !shown.contains("hush-hush"), "{shown}");
    }
}

#[tokio::test]
async fn the_scope_is_learned_from_the_members_and_may_change() {
    let address = etcd(|asked| match asked.path.as_str() {
        RANGE if asked.body.contains(FAILOVER) => range(10, &[kv(LEADER, N1, 7)]),
        RANGE => leaderless(10),
        _ => Act::Stream(vec![line(CREATED)]),
    })
    .await;
    let mut hearing = Hearing::of(Settings { scope: None, ..settings(&[address]) });
    hearing.expect_nothing().await;
    let plan = |scope: &str| Arc::new(Plan { scope: Some(Arc::from(scope)), ..Plan::default() });
    hearing.plan.send_replace(plan("other"));
    hearing.expect(&[News::Watching, News::NoOrder]).await;
    hearing.plan.send_replace(plan("lab"));
    hearing.expect(&[News::Watching, News::Leader(n1()), News::NoOrder]).await;
}

/// The keys of a Citus cluster are below SCOPE/GROUP, and Patroni's REST API does not report the group.
#[tokio::test]
async fn a_scope_without_keys_is_reported_and_one_with_a_group_is_watched() {
    let address = etcd(|asked| match asked.path.as_str() {
        // `/service/lab/0/failover`
        RANGE if asked.body.contains("L3NlcnZpY2UvbGFiLzAvZmFpbG92ZXI") => leaderless(10),
        RANGE => range(10, &[]),
        _ => Act::Stream(vec![line(CREATED)]),
    })
    .await;
    let mut hearing = Hearing::of(Settings { scope: None, ..settings(&[address]) });
    let plan = |scope: &str| Arc::new(Plan { scope: Some(Arc::from(scope)), ..Plan::default() });
    hearing.plan.send_replace(plan("lab"));
    let News::Lost(failure) = hearing.next().await else { panic!("nothing is watched") };
    let expected = format!(
        "http://{address}: it has no keys of Patroni below /service/lab/: check namespace and scope in \
         [etcd]; a Citus cluster needs its group"
    );
    assert_eq!(failure.to_string(), expected);
    hearing.plan.send_replace(plan("lab/0"));
    hearing.expect(&[News::Watching, News::NoOrder]).await;
}

#[test]
fn a_password_file_that_cannot_be_read_is_named() {
    let config = EtcdConfig {
        urls: Vec::new(),
        namespace: String::new(),
        scope: None,
        username: Some("pgsteer".to_owned()),
        password_file: Some(PathBuf::from("/nowhere/pw")),
        verify: Default::default(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        timeout: Duration::from_secs(1),
    };
    let message = format!("{:#}", Settings::read(&config).err().unwrap());
    assert!(message.contains("/nowhere/pw"), "{message}");
}
