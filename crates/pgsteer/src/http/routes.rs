//! The routes: the page of each path.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper::header::{ACCEPT, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, StatusCode};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use tokio::task::AbortHandle;

use super::Pages;
use super::access::Class;
use super::answer::{
    Page, body_refused, broken, events, not_allowed, plain, text, too_many_streams,
};
use super::check;
use super::csv;
use super::metrics::{self, Facts, Format};
use super::openapi;
use super::page;
use super::past::{self, Range};
use super::ready::Version;
use super::stream::View;
use crate::heartbeat::Heartbeat;
use crate::status::picture::draw;
use crate::status::stamp::Now;
use crate::status::table::Ink;

/// The paths, each with its description.
const PATHS: [(&str, &str, Show); 9] = [
    ("/", "the page for browsers; the tables for other programs", front),
    ("/status.txt", "the tables of `pgsteer status`", table),
    ("/api/v1/status", "the same as JSON", status),
    ("/api/v1/history", "what happened, as JSON; ?range=10m, 1h, 6h or 24h", history),
    (STREAM, "the same, at each change and each second; ?view=page as HTML", stream_head),
    (openapi::PATH, "what these answers contain, as OpenAPI 3.1", openapi),
    ("/metrics", "for Prometheus", scrape),
    ("/;csv", "for readers of HAProxy's statistics", csv),
    ("/healthz", "200 while the engine is alive", health),
];

type Show = fn(&Pages, &Asked<'_>) -> Page;

/// The parts of a request that pages read.
struct Asked<'a> {
    query: &'a str,
    headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// The Accept header; empty without a readable one.
    fn accept(&self) -> &str {
        self.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns true for a browser. Other programs accept everything and get the text.
    fn wants_html(&self) -> bool {
        let mut accepted = self.accept().split([',', ';']);
        accepted.any(|part| part.trim().eq_ignore_ascii_case("text/html"))
    }
}

/// The path of the streams.
const STREAM: &str = "/api/v1/stream";

/// Answers `request` if it is for a stream. `release` takes the connection out of the list of short ones and
/// returns its task.
pub fn stream<B: Body>(
    pages: &Pages,
    peer: IpAddr,
    request: &Request<B>,
    stall: Duration,
    release: impl FnOnce() -> Option<AbortHandle>,
) -> Option<Page> {
    let is_stream = request.uri().path() == STREAM && *request.method() == Method::GET;
    if !is_stream || !request.body().is_end_stream() {
        return None;
    }
    if let Some(refusal) = pages.access.refusal(Class::Page, peer, request.headers()) {
        return Some(refusal);
    }
    let Some(place) = pages.streams.place() else {
        return Some(too_many_streams(pages.streams.max()));
    };
    let view = View::of_query(request.uri().query().unwrap_or_default());
    Some(events(pages.streams.subscribe(view, place, release(), stall)))
}

/// Answers `request` of the client at `peer`.
pub fn answer<B: Body>(pages: &Pages, peer: IpAddr, request: &Request<B>) -> Page {
    let path = request.uri().path();
    let found = PATHS.iter().find(|(known, ..)| *known == path);
    let class = match (found, path) {
        (None, _) | (_, "/healthz") => Class::Health,
        (_, "/metrics") => Class::Metrics,
        (Some(_), _) => Class::Page,
    };
    if let Some(refusal) = pages.access.refusal(class, peer, request.headers()) {
        return refusal;
    }
    let Some((_, _, show)) = found else {
        // The Snapshot is read once and the lock released. A second read with the lock held would deadlock
        // if the engine published between the two.
        let snapshot = Arc::clone(&pages.snapshot.borrow());
        return match check::parse(request.uri(), &snapshot) {
            Some(check) => check::answer(pages, &snapshot, request.method(), check),
            None => not_found(),
        };
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    if !request.body().is_end_stream() {
        return body_refused();
    }
    let query = request.uri().query().unwrap_or_default();
    show(pages, &Asked { query, headers: request.headers() })
}

fn front(pages: &Pages, asked: &Asked<'_>) -> Page {
    let mut answer = match asked.wants_html() {
        // A link from somewhere may have any query.
        true => html(pages, Range::of_query(asked.query).unwrap_or(Range::TenMinutes)),
        false => table(pages, asked),
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

fn html(pages: &Pages, range: Range) -> Page {
    let write = |snapshot: &Arc<Snapshot>| page::write(pages, snapshot, range);
    match ready(pages, page::path(range), write) {
        Ok(html) => {
            let mut answer = text(StatusCode::OK, "text/html; charset=utf-8", html);
            page::protect(&mut answer);
            answer
        }
        Err(error) => broken(&error),
    }
}

fn table(pages: &Pages, _: &Asked<'_>) -> Page {
    let write =
        |snapshot: &Arc<Snapshot>| Ok::<_, Infallible>(draw(&pages.document(snapshot), Ink::Plain));
    match ready(pages, "/status.txt", write) {
        Ok(page) => plain(StatusCode::OK, page),
        Err(never) => match never {},
    }
}

fn status(pages: &Pages, _: &Asked<'_>) -> Page {
    let write = |snapshot: &Arc<Snapshot>| {
        Ok::<_, serde_json::Error>(serde_json::to_string(&pages.document(snapshot))? + "\n")
    };
    match ready(pages, "/api/v1/status", write) {
        Ok(json) => text(StatusCode::OK, "application/json", json),
        Err(error) => broken(&error),
    }
}

/// What HEAD gets of a stream.
fn stream_head(_: &Pages, _: &Asked<'_>) -> Page {
    text(StatusCode::OK, "text/event-stream", "")
}

fn scrape(pages: &Pages, asked: &Asked<'_>) -> Page {
    let (path, format) = match metrics::accepts_open_metrics(asked.accept()) {
        true => ("/metrics as OpenMetrics", Format::Open),
        false => ("/metrics", Format::Classic),
    };
    let write = |snapshot: &Arc<Snapshot>| {
        let now = pages.clock.now();
        let facts = Facts {
            snapshot: Arc::clone(snapshot),
            stats: pages.stats.clone(),
            now,
            uptime: pages.clock.uptime(),
            heartbeat_age: pages.heartbeat.age(now),
        };
        metrics::exposition(facts, format)
    };
    match ready(pages, path, write) {
        Ok(page) => text(StatusCode::OK, format.media_type(), page),
        Err(error) => broken(&error),
    }
}

fn history(pages: &Pages, asked: &Asked<'_>) -> Page {
    let Some(range) = Range::of_query(asked.query) else {
        let known: Vec<&str> = Range::ALL.iter().map(|(name, _)| *name).collect();
        let body = format!("the range is one of {}, as in ?range=1h\n", known.join(", "));
        return plain(StatusCode::BAD_REQUEST, body);
    };
    let write = |_: &Arc<Snapshot>| {
        let now = Now::of(&pages.clock);
        let document = past::compose(&pages.history.read(), range, &now);
        Ok::<_, serde_json::Error>(serde_json::to_string(&document)? + "\n")
    };
    match ready(pages, range.path(), write) {
        Ok(json) => text(StatusCode::OK, "application/json", json),
        Err(error) => broken(&error),
    }
}

fn openapi(_: &Pages, _: &Asked<'_>) -> Page {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", openapi::document()));
    text(StatusCode::OK, "application/json", TEXT.as_str())
}

fn csv(pages: &Pages, _: &Asked<'_>) -> Page {
    let write =
        |snapshot: &Arc<Snapshot>| Ok::<_, Infallible>(csv::write(&pages.document(snapshot)));
    match ready(pages, "/;csv", write) {
        Ok(page) => text(StatusCode::OK, "text/plain", page),
        Err(never) => match never {},
    }
}

fn health(pages: &Pages, _: &Asked<'_>) -> Page {
    if pages.stats.stopping.load(Ordering::Relaxed) {
        return check::stopping();
    }
    health_at(&pages.heartbeat, pages.clock.now())
}

fn health_at(heartbeat: &Heartbeat, now: Moment) -> Page {
    let age = heartbeat.age(now);
    if age < Heartbeat::STUCK_AFTER {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    let body = format!(
        "the engine is stuck: its last turn was {:.1} s ago, the limit is {} s\n",
        age.as_secs_f64(),
        Heartbeat::STUCK_AFTER.as_secs()
    );
    plain(StatusCode::SERVICE_UNAVAILABLE, body)
}

/// The text of the page at `path`. `write` is called if there is no fresh one.
fn ready<E>(
    pages: &Pages,
    path: &'static str,
    write: impl FnOnce(&Arc<Snapshot>) -> Result<String, E>,
) -> Result<Bytes, E> {
    let snapshot = Arc::clone(&pages.snapshot.borrow());
    let stopping = pages.stats.stopping.load(Ordering::Relaxed);
    let version = Version { generation: snapshot.generation, stopping };
    pages.ready.get(path, version, || write(&snapshot))
}

fn not_found() -> Page {
    let list: Vec<String> =
        PATHS.iter().map(|(path, what, _)| format!("  {path:<22}{what}\n")).collect();
    let body =
        format!("This page does not exist. The pages are:\n{}{}", list.concat(), check::PATHS_HELP);
    plain(StatusCode::NOT_FOUND, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_has_every_page_for_programs() {
        let document = openapi::document();
        for (path, ..) in PATHS.iter().filter(|(path, ..)| path.starts_with("/api/")) {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
    }

    #[test]
    fn health_is_503_from_five_seconds_after_the_last_heartbeat() {
        let heartbeat = Heartbeat::default();
        heartbeat.beat(Moment::from_millis(1_000));
        let status = |millis| health_at(&heartbeat, Moment::from_millis(millis)).status();
        assert_eq!(status(5_999), StatusCode::OK);
        assert_eq!(status(6_000), StatusCode::SERVICE_UNAVAILABLE);
    }
}
