//! Health checks by Patroni's paths, for whoever asks Patroni's REST API today: `option httpchk`,
//! the balancers of a cloud, Kubernetes' probes.
//!
//! `/primary` is the local member's, `/members/NAME/primary` that of any. `/services/write` tells
//! whether anybody is there for a service, `/members/NAME/services/write` whether that member is.
//! 200 or 503, and the reason in the body.

use std::sync::atomic::Ordering;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use pgsteer_config::problem::Shown;
use pgsteer_core::answer::{Answer, Objection};
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::question::{self, Question, Unclear};
use pgsteer_core::snapshot::Snapshot;

use super::answer::{Page, not_allowed, plain};
use super::{Pages, UNKNOWN_HEADER};
use crate::heartbeat::Heartbeat;

/// What the list of pages says of these.
pub const PATHS_HELP: &str =
    "  /primary, ...   200 or 503, by the paths of Patroni's health checks, for the local member:
                  /replica?lag=16MB, /read-only, /sync, /async, /leader, /health, /readiness, ...
  /members/NAME/primary, ...
                  the same for any member
  /services/write, /members/NAME/services/write, ...
                  whether anybody, or that member, is there for a service
";

/// What a path asks.
pub enum Asked {
    /// Something of one member.
    OfMember(Result<Question, Unclear>),
    /// Whether anybody is there for this service.
    OfService(ServiceName),
    /// Something of a service that there is not.
    NoService(String),
}

/// The question that stands in a path; none if the path is none of ours.
pub fn asked(uri: &Uri, snapshot: &Snapshot) -> Option<Asked> {
    let path = uri.path().strip_prefix('/')?;
    let (member, rest) = match path.strip_prefix("members/") {
        Some(of_member) => {
            let (name, rest) = of_member.split_once('/')?;
            (Some(unescaped(name)), rest)
        }
        None => (None, path),
    };
    if let Some(service) = rest.strip_prefix("services/") {
        return Some(asked_of_service(member, unescaped(service), snapshot));
    }
    let of = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    match Question::read(&of, |_| false) {
        Ok(None) | Err(Unclear::Neither(_)) => None,
        Ok(Some(question)) => Some(Asked::OfMember(Ok(Question { member, ..question }))),
        Err(unclear) => Some(Asked::OfMember(Err(unclear))),
    }
}

fn asked_of_service(member: Option<String>, named: String, snapshot: &Snapshot) -> Asked {
    match (snapshot.services.get_key_value(named.as_str()), member) {
        (None, _) => Asked::NoService(named),
        (Some((name, _)), None) => Asked::OfService(name.clone()),
        (Some((name, _)), member) => {
            let of = question::Asked::Service(name.clone());
            Asked::OfMember(Ok(Question { of, member }))
        }
    }
}

/// Answers such a question by `snapshot`, as Patroni does: GET, HEAD and OPTIONS alike.
pub fn answer(pages: &Pages, snapshot: &Snapshot, method: &Method, asked: Asked) -> Page {
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return not_allowed("GET, HEAD, OPTIONS");
    }
    if pages.heartbeat.age(pages.clock.now()) >= Heartbeat::STUCK_AFTER {
        return unknown(format!("{}\n", Objection::Stuck));
    }
    match asked {
        Asked::OfMember(Ok(question)) => of_member(&question, snapshot),
        Asked::OfMember(Err(unclear)) => plain(StatusCode::BAD_REQUEST, format!("{unclear}\n")),
        Asked::OfService(_) if pages.stats.stopping.load(Ordering::Relaxed) => stopping(),
        Asked::OfService(name) => of_service(&name, snapshot),
        Asked::NoService(named) => of_no_service(&named, snapshot),
    }
}

/// The doors are shut, whatever the gates say.
pub fn stopping() -> Page {
    plain(StatusCode::SERVICE_UNAVAILABLE, "pgsteer is shutting down\n".to_owned())
}

fn of_service(name: &ServiceName, snapshot: &Snapshot) -> Page {
    let service = snapshot.services.get(name);
    let gates = service.iter().flat_map(|service| &service.gates);
    let serves = gates.filter(|(_, gate)| Answer::of_gate(gate).is_yes());
    let open: Vec<&str> = serves.map(|(name, _)| name.as_str()).collect();
    if !open.is_empty() {
        return plain(StatusCode::OK, format!("{name}: {}\n", open.join(" ")));
    }
    let why = snapshot.why_shut(name);
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{name}: {why}\n"))
}

fn of_no_service(named: &str, snapshot: &Snapshot) -> Page {
    let names: Vec<&str> = snapshot.services.keys().map(ServiceName::as_str).collect();
    let are = match names.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are {}", names.join(", ")),
    };
    plain(StatusCode::NOT_FOUND, format!("there is no service {}; {are}\n", Shown::of(named)))
}

fn of_member(question: &Question, snapshot: &Snapshot) -> Page {
    let answer = question.answer(snapshot);
    let of = question.member(snapshot).map(|name| format!("{name}: ")).unwrap_or_default();
    match answer {
        Answer::Yes(None) => plain(StatusCode::OK, format!("{of}ok\n")),
        Answer::Yes(Some(note)) => plain(StatusCode::OK, format!("{of}ok, but {note}\n")),
        Answer::No(Objection::NoSuchMember(_)) => {
            let names: Vec<&str> = snapshot.members.keys().map(MemberName::as_str).collect();
            let are = match names.is_empty() {
                true => "no member is known yet".to_owned(),
                false => format!("there are {}", names.join(", ")),
            };
            let named = question.member.as_deref().unwrap_or_default();
            unknown(format!("there is no member {}; {are}\n", Shown::of(named)))
        }
        Answer::No(objection) if objection.is_unknown() => unknown(format!("{of}{objection}\n")),
        Answer::Drain(objection) | Answer::No(objection) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{of}{objection}\n"))
        }
    }
}

/// 503 for a balancer, with a header by which `pgsteer check` tells it from a no.
fn unknown(body: String) -> Page {
    let mut page = plain(StatusCode::SERVICE_UNAVAILABLE, body);
    page.headers_mut().insert(UNKNOWN_HEADER, HeaderValue::from_static("unknown"));
    page
}

/// A segment of a path as it was meant, for names with spaces or other letters.
fn unescaped(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
