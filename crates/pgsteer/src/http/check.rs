//! Health checks by Patroni's paths, for whoever asks Patroni's REST API today: `option httpchk`,
//! the balancers of a cloud, Kubernetes' probes.
//!
//! `/primary` is the local member's, `/members/NAME/primary` that of any. A service's name does in
//! the place of a path. 200 or 503, and the reason in the body.

use hyper::{Method, StatusCode, Uri};
use pgsteer_core::agent::{Question, Unclear};
use pgsteer_core::names::ServiceName;
use pgsteer_core::probe::{Objection, Verdict};
use pgsteer_core::snapshot::Snapshot;

use super::Pages;
use super::routes::{Answer, not_allowed, plain};
use crate::heartbeat::Heartbeat;

/// What the list of pages says of these.
pub const PATHS_HELP: &str = "\
  /primary, ...   200 or 503, by the paths of Patroni's health checks, for the local member:
                  /replica?lag=16MB, /read-only, /sync, /async, /leader, /health, /readiness, ...
  /members/NAME/primary, /services/SERVICE, /members/NAME/services/SERVICE
                  the same for any member, and for a service
";

/// The question that stands in a path; none if the path is none of ours.
pub fn asked(uri: &Uri, snapshot: &Snapshot) -> Option<Result<Question, Unclear>> {
    let path = uri.path().strip_prefix('/')?;
    let (member, rest) = match path.strip_prefix("members/") {
        Some(of_member) => {
            let (name, rest) = of_member.split_once('/')?;
            (Some(unescaped(name)), rest)
        }
        None => (None, path),
    };
    let of = match rest.strip_prefix("services/") {
        Some(service) => unescaped(service),
        None => match uri.query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        },
    };
    let is_service =
        |name: &ServiceName| rest.starts_with("services/") && snapshot.services.contains_key(name);
    match Question::read(&of, is_service) {
        Ok(question) => question.map(|question| Ok(Question { member, ..question })),
        Err(Unclear::Neither(_)) => None,
        Err(unclear) => Some(Err(unclear)),
    }
}

/// Answers such a question, as Patroni does: GET, HEAD and OPTIONS alike.
pub fn answer(pages: &Pages, method: &Method, asked: Result<Question, Unclear>) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return not_allowed("GET, HEAD, OPTIONS");
    }
    let question = match asked {
        Ok(question) => question,
        Err(unclear) => return plain(StatusCode::BAD_REQUEST, format!("{unclear}\n")),
    };
    let snapshot = pages.snapshot.borrow().clone();
    let verdict = match pages.heartbeat.age(pages.clock.now()) < Heartbeat::STUCK_AFTER {
        true => question.verdict(&snapshot),
        false => Verdict::No(Objection::Stuck),
    };
    let of = question.member(&snapshot).map(|name| format!("{name}: ")).unwrap_or_default();
    match verdict {
        Verdict::Yes(None) => plain(StatusCode::OK, format!("{of}ok\n")),
        Verdict::Yes(Some(note)) => plain(StatusCode::OK, format!("{of}ok, but {note}\n")),
        Verdict::Drain(objection) | Verdict::No(objection) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{of}{objection}\n"))
        }
    }
}

/// A segment of a path as it was meant, for names with spaces or other letters.
fn unescaped(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
