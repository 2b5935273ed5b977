//! The routes: the page of each path.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::{Body, Bytes};
use hyper::{Method, Request, StatusCode};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::Pages;
use super::answer::{Page, body_refused, broken, not_allowed, plain, text};
use super::check;
use super::compose::compose;
use super::metrics::{self, Facts};
use super::ready::Version;
use crate::heartbeat::Heartbeat;
use crate::status::document::Document;
use crate::status::picture::draw;
use crate::status::stamp::Now;
use crate::status::table::Ink;

/// The paths, each with its description.
const PATHS: [(&str, &str, Show); 4] = [
    ("/", "the tables of `pgsteer status`", table),
    ("/api/v1/status", "the same as JSON", status),
    ("/metrics", "for Prometheus", scrape),
    ("/healthz", "200 while the engine is alive", health),
];

type Show = fn(&Pages) -> Page;

/// Answers `request`.
pub fn answer<B: Body>(pages: &Pages, request: &Request<B>) -> Page {
    let Some((_, _, show)) = PATHS.iter().find(|(path, ..)| *path == request.uri().path()) else {
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
    show(pages)
}

fn table(pages: &Pages) -> Page {
    let write = |snapshot: &Arc<Snapshot>| {
        Ok::<_, Infallible>(draw(&document(pages, snapshot), Ink::Plain))
    };
    match ready(pages, "/", write) {
        Ok(page) => plain(StatusCode::OK, page),
        Err(never) => match never {},
    }
}

fn status(pages: &Pages) -> Page {
    let write = |snapshot: &Arc<Snapshot>| {
        Ok::<_, serde_json::Error>(serde_json::to_string(&document(pages, snapshot))? + "\n")
    };
    match ready(pages, "/api/v1/status", write) {
        Ok(json) => text(StatusCode::OK, "application/json", json),
        Err(error) => broken(&error),
    }
}

fn scrape(pages: &Pages) -> Page {
    let write = |snapshot: &Arc<Snapshot>| {
        let now = pages.clock.now();
        metrics::exposition(Facts {
            snapshot: Arc::clone(snapshot),
            stats: pages.stats.clone(),
            uptime: now.since_start(),
            heartbeat_age: pages.heartbeat.age(now),
        })
    };
    match ready(pages, "/metrics", write) {
        Ok(page) => text(StatusCode::OK, metrics::MEDIA_TYPE, page),
        Err(error) => broken(&error),
    }
}

fn health(pages: &Pages) -> Page {
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

fn document(pages: &Pages, snapshot: &Snapshot) -> Document {
    compose(snapshot, &pages.stats, &Now::of(&pages.clock))
}

fn not_found() -> Page {
    let list: Vec<String> =
        PATHS.iter().map(|(path, what, _)| format!("  {path:<16}{what}\n")).collect();
    let body =
        format!("This page does not exist. The pages are:\n{}{}", list.concat(), check::PATHS_HELP);
    plain(StatusCode::NOT_FOUND, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_503_from_five_seconds_after_the_last_heartbeat() {
        let heartbeat = Heartbeat::default();
        heartbeat.beat(Moment::from_millis(1_000));
        let status = |millis| health_at(&heartbeat, Moment::from_millis(millis)).status();
        assert_eq!(status(5_999), StatusCode::OK);
        assert_eq!(status(6_000), StatusCode::SERVICE_UNAVAILABLE);
    }
}
