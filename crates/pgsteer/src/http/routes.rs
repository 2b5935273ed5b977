//! The routes: which path shows what. A request carries nothing else that matters.

use std::sync::atomic::Ordering;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::Pages;
use super::check;
use super::compose::compose;
use super::document::Document;
use super::metrics::{self, Facts};
use super::stamp::Now;
use crate::heartbeat::Heartbeat;
use crate::status::picture::{Ink, draw};

/// What a client gets.
pub type Answer = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";

/// The paths there are, each with what it shows.
const PATHS: [(&str, &str, Show); 4] = [
    ("/", "the tables of `pgsteer status`", table),
    ("/api/v1/status", "the same as JSON", status),
    ("/metrics", "for Prometheus", scrape),
    ("/healthz", "200 while the engine is alive", health),
];

type Show = fn(&Pages) -> Answer;

/// Answers `request`.
pub fn answer<B: Body>(pages: &Pages, request: &Request<B>) -> Answer {
    let Some((_, _, show)) = PATHS.iter().find(|(path, ..)| *path == request.uri().path()) else {
        let check = |snapshot: &Snapshot| check::asked(request.uri(), snapshot);
        return match check(&pages.snapshot.borrow()) {
            Some(asked) => check::answer(pages, request.method(), asked),
            None => not_found(),
        };
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    if !request.body().is_end_stream() {
        return body_refused();
    }
    show(pages)
}

fn table(pages: &Pages) -> Answer {
    plain(StatusCode::OK, draw(&document(pages), Ink::Plain))
}

fn status(pages: &Pages) -> Answer {
    match serde_json::to_string(&document(pages)) {
        Ok(mut json) => {
            json.push('\n');
            text(StatusCode::OK, "application/json", json)
        }
        Err(error) => broken(&error),
    }
}

fn scrape(pages: &Pages) -> Answer {
    let now = pages.clock.now();
    let facts = Facts {
        snapshot: pages.snapshot.borrow().clone(),
        stats: pages.stats.clone(),
        uptime: now.since_start(),
        heartbeat_age: pages.heartbeat.age(now),
    };
    match metrics::exposition(facts) {
        Ok(page) => text(StatusCode::OK, metrics::MEDIA_TYPE, page),
        Err(error) => broken(&error),
    }
}

fn health(pages: &Pages) -> Answer {
    if pages.stats.stopping.load(Ordering::Relaxed) {
        return check::stopping();
    }
    health_at(&pages.heartbeat, pages.clock.now())
}

fn health_at(heartbeat: &Heartbeat, now: Moment) -> Answer {
    let age = heartbeat.age(now);
    if age < Heartbeat::STUCK_AFTER {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    let body = format!(
        "the engine is stuck: it last gave a sign of life {:.1} s ago, {} s is too long\n",
        age.as_secs_f64(),
        Heartbeat::STUCK_AFTER.as_secs()
    );
    plain(StatusCode::SERVICE_UNAVAILABLE, body)
}

fn document(pages: &Pages) -> Document {
    let snapshot = pages.snapshot.borrow().clone();
    compose(&snapshot, &pages.stats, &Now::of(&pages.clock))
}

fn not_found() -> Answer {
    let list: Vec<String> =
        PATHS.iter().map(|(path, what, _)| format!("  {path:<16}{what}\n")).collect();
    let body =
        format!("There is no such page. These there are:\n{}{}", list.concat(), check::PATHS_HELP);
    plain(StatusCode::NOT_FOUND, body)
}

pub(super) fn not_allowed(allowed: &'static str) -> Answer {
    let body = format!("This page can only be read: {allowed}.\n");
    let mut answer = closing(plain(StatusCode::METHOD_NOT_ALLOWED, body));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn body_refused() -> Answer {
    let body = "A request for these pages has no body.\n".to_owned();
    closing(plain(StatusCode::PAYLOAD_TOO_LARGE, body))
}

fn broken(error: &dyn std::error::Error) -> Answer {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("the page cannot be written: {error}\n"))
}

/// `answer` with the end of the connection behind it, because a body may follow the request
/// that nobody is going to read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

pub(super) fn plain(status: StatusCode, body: String) -> Answer {
    text(status, PLAIN, body)
}

fn text(status: StatusCode, media_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The pages carry names and messages of others; no browser may take them for HTML.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_turns_to_503_once_the_last_beat_is_five_seconds_old() {
        let heartbeat = Heartbeat::default();
        heartbeat.beat(Moment::from_millis(1_000));
        let status = |millis| health_at(&heartbeat, Moment::from_millis(millis)).status();
        assert_eq!(status(5_999), StatusCode::OK);
        assert_eq!(status(6_000), StatusCode::SERVICE_UNAVAILABLE);
    }
}
