//! The pages over real sockets: the responses, and the limits for slow and hostile clients.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use pgsteer_core::names::MemberName;
use pgsteer_core::settings::{PeersConfig, Protect};
use pgsteer_core::time::Moment;

use super::connections::{Limits, accept_all};
use super::*;
use crate::ask::{Credentials, Target};
use crate::diagnostic::in_one_line;

/// Longer than any step here takes, so that a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const SHORT: Limits = Limits {
    connections_max: 4,
    head: Duration::from_millis(300),
    keep_alive: Duration::from_millis(900),
    farewell: Duration::from_millis(300),
    stall: Duration::from_millis(300),
    page_bytes_max: 1024 * 1024,
};

pub struct Served {
    pub address: SocketAddr,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub pages: Arc<Pages>,
    task: JoinHandle<Infallible>,
    writer: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        self.writer.abort();
    }
}

/// The pages of the sample cluster, with the sender of its Snapshots.
fn sample_pages() -> (watch::Sender<Arc<Snapshot>>, Pages) {
    let (sender, snapshot) = watch::channel(Arc::new(sample::snapshot()));
    let pages = Pages {
        peers: Vec::new(),
        access: Access::open(),
        snapshot,
        stats: Arc::new(sample::stats()),
        clock: Clock::start(),
        heartbeat: Arc::default(),
        history: Arc::default(),
        config: watch::channel(Arc::default()).1,
        streams: Streams::affordable(),
        ready: ReadyPages::default(),
    };
    // Later than the end of the test.
    pages.heartbeat.beat(Moment::from_millis(1_000_000));
    (sender, pages)
}

/// The pages have a thread of their own. A page that locked the Snapshot twice would wait for the engine,
/// and the engine for the page.
#[test]
fn pages_and_an_engine_that_publishes_all_the_time_do_not_block_each_other() {
    const ANSWERS: usize = 20_000;
    let (sender, pages) = sample_pages();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || while sender.send(Arc::new(sample::snapshot())).is_ok() {});
    std::thread::spawn(move || {
        let paths = ["/members/n1/primary", "/services/write", "/nowhere"];
        for path in paths.iter().cycle().take(ANSWERS) {
            let request = Request::get(*path).body(Empty::<Bytes>::new()).unwrap();
            routes::answer(&pages, Ipv4Addr::LOCALHOST.into(), &request);
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).unwrap();
}

/// Serves the sample cluster on a free port of loopback.
pub fn served(limits: Limits) -> Served {
    served_with(limits, Streams::affordable())
}

/// Same, with other streams.
pub fn served_with(limits: Limits, streams: Streams) -> Served {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (sender, pages) = sample_pages();
    let pages = Arc::new(Pages { streams, ..pages });
    let task = tokio::spawn(accept_all(listener, None, Arc::clone(&pages), limits));
    let writer = tokio::spawn(stream::write_frames(Arc::clone(&pages)));
    Served { address, snapshot: sender, pages, task, writer }
}

impl Served {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request on a connection of its own and returns all that comes back.
    pub async fn talk(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest_of(&mut stream).await
    }

    pub async fn get(&self, path: &str) -> String {
        self.talk(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }
}

/// All bytes up to the end of the connection, which may be a reset.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection is not closed");
    String::from_utf8(bytes).unwrap()
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn each_page_is_served_with_its_media_type() {
    let served = served(Limits::default());
    for (path, media_type, content) in [
        ("/", "text/plain", "cluster demo (scope batman)"),
        ("/?x=1", "text/plain", "cluster demo (scope batman)"),
        ("/api/v1/status", "application/json", "\"generation\":42"),
        ("/api/v1/history?range=1h", "application/json", "\"step_seconds\":60"),
        ("/metrics", "text/plain; version=0.0.4", "# TYPE pgsteer_holds_total counter"),
        ("/;csv", "text/plain", "write,BACKEND,4,"),
        ("/healthz", "text/plain", "ok\n"),
    ] {
        let answer = served.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        assert!(answer.contains(&format!("content-type: {media_type}")), "{path}: {answer}");
        assert!(body_of(&answer).contains(content), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_format_of_the_metrics_is_the_one_that_the_scraper_accepts() {
    let served = served(Limits::default());
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    let answer = served.talk(&request).await;
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    assert!(!served.get("/metrics").await.contains("# EOF"));
}

#[tokio::test]
async fn by_https_the_pages_are_the_same_and_plain_http_gets_nothing() {
    let file = |name: &str| format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert_file, key_file) = (file("good.crt"), file("leaf.key"));
    let (_snapshot, pages) = sample_pages();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = tls::server_config(tls::Identity {
        cert_file: cert_file.as_ref(),
        key_file: key_file.as_ref(),
    });
    let acceptor = TlsAcceptor::from(config.unwrap());
    tokio::spawn(accept_all(listener, Some(acceptor), Arc::new(pages), Limits::default()));
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    let client = tls::client_config(tls::Trust::ANY, None).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = tls::server_name("localhost").unwrap();
    let mut secure = tokio_rustls::TlsConnector::from(client).connect(name, stream).await.unwrap();
    secure.write_all(request).await.unwrap();
    let mut answer = String::new();
    let _ = secure.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn the_commands_read_the_pages_by_https_with_a_token_and_say_what_is_missing() {
    let file = |name: &str| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
    };
    let token_file = std::env::temp_dir().join(format!("pgsteer-{}-token", std::process::id()));
    std::fs::write(&token_file, "t0ken\n").unwrap();
    std::fs::set_permissions(&token_file, Permissions::from_mode(0o600)).unwrap();
    let (_snapshot, mut pages) = sample_pages();
    let config = HttpConfig {
        peers: PeersConfig::default(),
        listen: ([127, 0, 0, 1], 0).into(),
        allow: Vec::new(),
        hosts: Vec::new(),
        token_file: Some(token_file.clone()),
        login_file: None,
        protect: Protect::Metrics,
        tls: Some((file("good.crt"), file("leaf.key"))),
    };
    pages.access = Access::read(&config).unwrap();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = acceptor(&config).unwrap();
    tokio::spawn(accept_all(listener, acceptor, Arc::new(pages), Limits::default()));
    let ask = async |credentials: &Credentials, path: &str| {
        let target = Target::parse(&url, credentials).unwrap();
        let answered = target.get(path, PATIENCE).await;
        answered.map(|it| it.status.as_u16()).map_err(|error| in_one_line(&error))
    };
    let anonymous = Credentials { ca_file: Some(file("ca.crt")), ..Credentials::default() };
    let known = Credentials { token_file: Some(token_file.clone()), ..anonymous.clone() };
    assert_eq!(ask(&known, "/api/v1/status").await, Ok(200));
    assert_eq!(ask(&anonymous, "/healthz").await, Ok(200), "health checks are open");
    let refused = ask(&anonymous, "/api/v1/status").await.unwrap_err();
    assert!(refused.contains("(401)") && refused.contains("--token-file"), "{refused}");
    let untrusted = ask(&Credentials::default(), "/healthz").await.unwrap_err();
    assert!(untrusted.contains("TLS: "), "{untrusted}");
    let of_peer = async |token_file: Option<&PathBuf>| {
        let (token_file, ca_file) = (token_file.cloned(), Some(file("ca.crt")));
        let peers = PeersConfig { urls: vec![url.clone()], token_file, ca_file };
        let [(_, target)] = <[_; 1]>::try_from(peers::targets(&peers).unwrap()).unwrap();
        target.get("/api/v1/status", PATIENCE).await.map_err(|error| in_one_line(&error))
    };
    assert!(of_peer(Some(&token_file)).await.is_ok());
    let refused = of_peer(None).await.map(|_| ()).unwrap_err();
    assert!(refused.contains("(401)") && refused.contains("peers_token_file"), "{refused}");
    std::fs::remove_file(token_file).unwrap();
}

#[tokio::test]
async fn an_unknown_range_of_the_history_is_refused_with_the_known_ones() {
    let answer = served(Limits::default()).get("/api/v1/history?range=2y").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(body_of(&answer).contains("10m, 1h, 6h, 24h"), "{answer}");
}

#[tokio::test]
async fn a_browser_gets_the_page_and_other_programs_get_the_text() {
    let served = served(Limits::default());
    let get = |accept: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n")
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = served.talk(&get(browser, "/?range=24h")).await;
    assert!(page.contains("content-type: text/html; charset=utf-8"), "{page}");
    for header in [
        "content-security-policy: default-src 'none'",
        "vary: accept",
        "no-store",
        "nosniff",
        "no-referrer",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    assert!(page.contains("<h1>demo <small>scope batman</small></h1>"), "{page}");
    assert!(page.contains("data-range=\"24h\""));
    for (accept, path) in [("*/*", "/"), ("text/plain", "/"), (browser, "/status.txt")] {
        let text = served.talk(&get(accept, path)).await;
        assert!(text.contains("content-type: text/plain"), "{accept} {path}: {text}");
        assert!(text.contains("cluster demo (scope batman)"), "{text}");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let served = served(Limits::default());
    let whole = served.get("/healthz").await;
    let head = served.talk("HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(body_of(&whole), "ok\n");
    assert_eq!(body_of(&head), "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-length: 3\r\n"));
}

#[tokio::test]
async fn an_unknown_path_gets_the_list_of_pages() {
    let answer = served(Limits::default()).get("/api/v1/stat").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    for path in ["/api/v1/status", "/metrics", "/healthz"] {
        assert!(body_of(&answer).contains(path), "{answer}");
    }
}

#[tokio::test]
async fn other_methods_get_the_list_of_allowed_ones() {
    let served = served(Limits::default());
    for method in ["POST", "DELETE", "OPTIONS", "BREW"] {
        let answer = served.talk(&format!("{method} /metrics HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_refused_at_once() {
    let served = served(Limits::default());
    for length in ["content-length: 1000000000", "transfer-encoding: chunked"] {
        let answer = served.talk(&format!("GET / HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn garbage_and_an_endless_head_are_refused() {
    let served = served(Limits::default());
    assert!(served.talk("\u{0}\u{0}\u{0}\u{8}garbage\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let endless = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!served.talk(&endless).await.contains(" 200 "));
    assert!(served.get("/healthz").await.contains(" 200 "));
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_a_byte_at_a_time_loses_its_connection() {
    let served = served(SHORT);
    let started = Instant::now();
    assert_eq!(served.talk("").await, "");
    assert!(started.elapsed() >= SHORT.head);
    let mut slow = served.connect().await;
    let started = Instant::now();
    for byte in "GET /healthz HTTP/1.1\r\nhost: x\r\n".bytes().cycle() {
        if slow.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(started.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn silent_connections_do_not_lock_out_others() {
    let limits = Limits { head: PATIENCE * 2, keep_alive: PATIENCE * 2, ..SHORT };
    let served = served(limits);
    let mut silent = Vec::new();
    for _ in 0..SHORT.connections_max {
        silent.push(served.connect().await);
    }
    // The limit is reached, so the oldest connection is closed.
    assert!(served.get("/healthz").await.contains(" 200 "));
    assert_eq!(rest_of(&mut silent[0]).await, "");
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest_of(last).await.contains(" 200 "));
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_loses_its_connection() {
    let served = served(SHORT);
    let mut greedy = served.connect().await;
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let started = Instant::now();
    while timeout(PATIENCE, greedy.write_all(request.as_bytes()))
        .await
        .expect("the connection hangs")
        .is_ok()
    {
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(served.get("/healthz").await.contains(" 200 "));
}

/// A cluster with pages of several hundred kilobytes.
pub fn large(generation: u64) -> Arc<Snapshot> {
    let mut snapshot = sample::snapshot();
    snapshot.generation = generation;
    let one = snapshot.members.values().next().unwrap().clone();
    for number in 0..500 {
        snapshot.members.insert(MemberName::new(&format!("m{number}")).unwrap(), one.clone());
    }
    Arc::new(snapshot)
}

#[tokio::test]
async fn pages_that_are_not_read_take_bounded_memory() {
    let limits = Limits { connections_max: 64, head: PATIENCE, keep_alive: PATIENCE, ..SHORT };
    let limits = Limits { stall: PATIENCE, page_bytes_max: 2 * 1024 * 1024, ..limits };
    let served = served(limits);
    let mut greedy = Vec::new();
    let mut most = 0;
    for generation in 100..140 {
        // Each client gets a page of its own, because the Snapshot has changed.
        served.snapshot.send_replace(large(generation));
        let socket = TcpSocket::new_v4().unwrap();
        // Only a small part of the answer fits into this buffer.
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(served.address).await.unwrap();
        let request = "GET /api/v1/status HTTP/1.1\r\nhost: x\r\n\r\n".repeat(300);
        stream.write_all(request.as_bytes()).await.unwrap();
        greedy.push(stream);
        // Waits for the first pages, on a busy machine too.
        let expected = if greedy.len() <= 8 { most + 100_000 } else { 0 };
        let began = Instant::now();
        while served.pages.ready.bytes() < expected && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(served.pages.ready.bytes());
    }
    let page = served.get("/api/v1/status").await.len();
    assert!(page > 100_000, "{page} bytes, too small for this test");
    assert!(most > page * 3, "only {most} bytes were unread, too few for this test");
    assert!(most <= limits.page_bytes_max + 2 * page, "{most} bytes, {page} each");
}

#[tokio::test]
async fn many_requests_of_one_client_do_not_delay_those_of_another() {
    let limits = Limits { head: PATIENCE, keep_alive: PATIENCE, farewell: PATIENCE, ..SHORT };
    let served = served(limits);
    served.snapshot.send_replace(large(1));
    let mut greedy = served.connect().await;
    // Small answers, which all fit into the buffers.
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    greedy.write_all(request.as_bytes()).await.unwrap();
    let mut other = served.connect().await;
    other.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest_of(&mut other).await.contains(" 200 "));
    let mut answers = vec![0; 1024 * 1024];
    let bytes = timeout(PATIENCE, greedy.read(&mut answers)).await.unwrap().unwrap();
    let count = String::from_utf8_lossy(&answers[..bytes]).matches(" 200 ").count();
    assert!(count < 400, "all {count} were answered before the one of the other client");
}

#[test]
fn the_thread_of_the_pages_frees_its_port_when_it_is_dropped() {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let (_sender, pages) = sample_pages();
    let thread = PagesThread::start(listener, None, pages).unwrap();
    assert!(!thread.has_failed());
    std::net::TcpStream::connect(address).unwrap();
    drop(thread);
    let began = Instant::now();
    while bind(address).is_err() {
        assert!(began.elapsed() < PATIENCE, "{address} is still bound");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_busy_connection_is_kept_alive_for_a_while_and_then_closed_after_an_answer() {
    let served = served(SHORT);
    let mut stream = served.connect().await;
    let started = Instant::now();
    let mut answers = 0;
    let mut answer = vec![0; 4_096];
    while stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
        match timeout(PATIENCE, stream.read(&mut answer)).await.expect("the connection hangs") {
            Ok(bytes) if bytes > 0 => answers += 1,
            _ => break,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answers > 1, "{answers}");
    assert!(started.elapsed() >= SHORT.keep_alive && started.elapsed() < PATIENCE);
}

#[test]
fn the_error_for_a_port_in_use_names_the_port_its_user_and_a_remedy() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = holder.local_addr().unwrap();
    let error = bind(address).unwrap_err().to_string();
    for part in [address.to_string(), "status pages".into(), format!("sport = :{}", address.port())]
    {
        assert!(error.contains(&part), "{error}");
    }
}

#[tokio::test]
async fn health_checks_have_the_paths_of_patroni() {
    let served = served(Limits::default());
    for (path, status, body) in [
        ("/members/n1/primary", 503, "n1: no source has reported on it yet\n"),
        (
            "/members/n9/replica?lag=16MB",
            503,
            "there is no member `n9`; there are n1, n2, n3\\\"} 1\n",
        ),
        (
            "/members/n2/health",
            200,
            "n2: ok, but promotion under way: it holds the leader lock and is still in recovery\n",
        ),
        (
            "/members/n2/services/write",
            503,
            "n2: promotion under way: it holds the leader lock and is still in recovery\n",
        ),
        ("/services/read", 200, "read: n2\n"),
        ("/services/x%20y", 404, "there is no service `x y`; there are read, write\n"),
        ("/members/n2/services/x", 404, "there is no service `x`; there are read, write\n"),
        (
            "/primary",
            503,
            "no member is known to run on this machine: set `local` in [cluster], or --local\n",
        ),
        ("/replica?lag=16XB", 400, "`16XB` is not a valid lag: a size, as in lag=16MB\n"),
        (
            "/replica?lag=16mb",
            400,
            "`16mb` is not a valid lag: a size, as in lag=16MB; did you mean 16MB?\n",
        ),
    ] {
        for method in ["GET", "OPTIONS"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = served.talk(&request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{method} {path}: {answer}"
            );
            assert_eq!(body_of(&answer), body, "{method} {path}");
        }
    }
    for (path, is_unknown) in
        [("/members/n9/primary", true), ("/primary", true), ("/members/n1/primary", false)]
    {
        let answer = served.get(path).await;
        assert_eq!(answer.contains("pgsteer-answer: unknown"), is_unknown, "{path}: {answer}");
    }
    let head = served.talk("HEAD /members/n2/health HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && body_of(&head).is_empty(), "{head}");
    for path in ["/members/n2/nonsense", "/members/n2", "/services/nobody", "/primary/"] {
        assert!(served.get(path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

/// As `nc -N` and simple scripts of a health check do.
#[tokio::test]
async fn a_client_that_ends_its_side_after_the_request_gets_the_answer() {
    let served = served(Limits::default());
    for count in [1, 3] {
        let mut stream = served.connect().await;
        let request = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(count);
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answers = rest_of(&mut stream).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), count, "{answers}");
    }
}

/// One peer answers, and at the address of the other one nothing listens.
#[tokio::test]
async fn the_state_of_other_pgsteers_is_read_again_and_again() {
    let (_snapshot, pages) = sample_pages();
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let up = format!("http://{}", listener.local_addr().unwrap());
    let down = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        format!("http://{}", free.local_addr().unwrap())
    };
    tokio::spawn(serve(listener, None, pages));
    let credentials = Credentials::default();
    let targets = [&up, &down].map(|url| (url.clone(), Target::parse(url, &credentials).unwrap()));
    let stats = Arc::<Stats>::default();
    let asking = peers::ask_all(targets.to_vec(), Arc::clone(&stats), Clock::start());
    let asking = tokio::spawn(asking);
    let [(_, first), (_, second)] = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let all = stats.peers.all();
        if all.len() == 2 && all.iter().all(|(asked_at, _)| asked_at.is_some()) {
            break <[_; 2]>::try_from(all).unwrap();
        }
    };
    asking.abort();
    assert_eq!((first.url, first.error), (up, None));
    assert_eq!(first.cluster.as_deref(), Some("demo"));
    assert_eq!(first.state.as_deref(), Some("bad"), "{:?}", first.sentence);
    let error = second.error.unwrap();
    assert!(second.url == down && error.contains("refused"), "{error}");
}
