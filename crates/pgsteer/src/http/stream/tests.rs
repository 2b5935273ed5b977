//! The streams over real sockets.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Streams, View};
use crate::http::connections::Limits;
use crate::http::past::Range;
use crate::http::sample;
use crate::http::tests::{PATIENCE, SHORT, Served, large, served, served_with};

/// A reader of a stream.
struct Reader {
    stream: TcpStream,
    text: String,
}

impl Reader {
    async fn open(served: &Served, path: &str) -> Reader {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Reader { stream, text: String::new() }
    }

    /// Reads until the text that came contains `what` after the first `skipped` bytes.
    async fn until(&mut self, what: &str, skipped: usize) {
        let mut buffer = vec![0; 64 * 1024];
        let began = Instant::now();
        while !self.text.get(skipped..).is_some_and(|text| text.contains(what)) {
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let bytes = read.unwrap_or_else(|_| panic!("no {what}: {}", self.text)).unwrap();
            assert!(bytes > 0, "the stream has ended without {what}: {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
            assert!(began.elapsed() < PATIENCE, "no {what}");
        }
    }

    /// Returns true if the stream ends soon.
    async fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

#[tokio::test]
async fn a_stream_begins_with_everything_and_sends_a_change_within_50_ms() {
    let served = served(Limits::default());
    let mut status = Reader::open(&served, "/api/v1/stream").await;
    let mut page = Reader::open(&served, "/api/v1/stream?view=page&range=1h").await;
    status.until("\"generation\":42", 0).await;
    assert!(status.text.contains("content-type: text/event-stream"), "{}", status.text);
    assert!(status.text.contains("retry: 1000") && status.text.contains("id: 42\nevent: status"));
    page.until("\"config\":", 0).await;
    page.until("\n\n", page.text.rfind("data: ").unwrap()).await;
    for part in ["state", "picture", "timeline", "edition"] {
        assert!(page.text.contains(&format!("\"{part}\":\"")), "{part}: {}", page.text);
    }
    let skipped = page.text.len();
    let mut snapshot = sample::snapshot();
    snapshot.generation = 43;
    snapshot.members.retain(|name, _| name.as_str() != "n2");
    let began = Instant::now();
    served.snapshot.send_replace(std::sync::Arc::new(snapshot));
    page.until("id: 43\nevent: parts", skipped).await;
    status.until("\"generation\":43", 0).await;
    assert!(began.elapsed() < Duration::from_millis(50 + 200), "{:?}", began.elapsed());
    page.until("\n\n", page.text.rfind("id: 43").unwrap()).await;
    let update = &page.text[page.text.rfind("id: 43").unwrap()..];
    assert!(update.contains("\"members\":") && !update.contains("\"config\":"), "{update}");
}

#[tokio::test]
async fn a_stream_shows_life_each_second_although_nothing_changes() {
    let served = served(Limits::default());
    let mut page = Reader::open(&served, "/api/v1/stream?view=page").await;
    page.until("event: parts", 0).await;
    let began = Instant::now();
    for _ in 0..2 {
        page.until("event: parts", page.text.len()).await;
    }
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_stream_outlives_the_limits_of_short_connections_and_a_crowd_of_them() {
    let served = served(SHORT);
    let mut page = Reader::open(&served, "/api/v1/stream?view=page").await;
    page.until("event: parts", 0).await;
    let mut crowd = Vec::new();
    for _ in 0..SHORT.connections_max * 5 {
        crowd.push(TcpStream::connect(served.address).await.unwrap());
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(SHORT.keep_alive + SHORT.farewell + SHORT.head).await;
    page.until("event: parts", page.text.len()).await;
}

#[tokio::test]
async fn streams_above_the_limit_are_refused_until_one_ends() {
    let served = served_with(Limits::default(), Streams::new(2));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = Reader::open(&served, "/api/v1/stream").await;
        reader.until("event: status", 0).await;
        readers.push(reader);
    }
    let answer = served.get("/api/v1/stream").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 5"), "{answer}");
    assert!(served.get("/healthz").await.contains(" 200 "));
    readers.pop();
    let began = Instant::now();
    loop {
        let mut again = Reader::open(&served, "/api/v1/stream").await;
        again.until("\r\n\r\n", 0).await;
        if again.text.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "a reader that left still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed_and_holds_a_bounded_number_of_frames() {
    let served = served(SHORT);
    served.snapshot.send_replace(large(1));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(served.address).await.unwrap();
    stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let mut generation = 2;
    while served.pages.streams.place().is_some() && served.pages.streams.is_read() || generation < 4
    {
        served.snapshot.send_replace(large(generation));
        generation += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < PATIENCE, "the reader is not closed");
    }
    assert!(began.elapsed() >= SHORT.stall);
    let mut reader = Reader { stream, text: String::new() };
    assert!(reader.ends().await);
}

#[tokio::test]
async fn other_methods_and_a_head_request_open_no_stream() {
    let served = served(Limits::default());
    let head = served.talk("HEAD /api/v1/stream HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.0 200 ") && head.contains("text/event-stream"), "{head}");
    let post = served.talk("POST /api/v1/stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    assert!(!served.pages.streams.is_read());
}

#[test]
fn a_query_names_the_view() {
    assert_eq!(View::of_query(""), View::Status);
    assert_eq!(View::of_query("view=page&range=6h"), View::Page(Range::SixHours));
    assert_eq!(View::of_query("range=6h&view=page"), View::Page(Range::SixHours));
    assert_eq!(View::of_query("view=page&range=x"), View::Page(Range::TenMinutes));
}
