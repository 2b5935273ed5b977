//! Health checks with the paths of Patroni's REST API, for HAProxy's `option httpchk`, the load balancers
//! of cloud providers, and Kubernetes' probes.
//!
//! `/primary` checks the local member, `/members/NAME/primary` any member. `/services/write` checks
//! whether a service has an open gate, `/members/NAME/services/write` whether that member's gate is open.
//! The status is 200 or 503, and the body contains the reason.

use std::sync::atomic::Ordering;
use std::time::Duration;

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
use crate::stats::{Holding, Stats};

/// The health checks in the list of pages.
pub const PATHS_HELP: &str =
    "  /primary, ...         200 or 503, by the paths of Patroni's health checks, for the local member:
                        /replica?lag=16MB, /read-only, /sync, /async, /leader, /health, ...
  /members/NAME/primary, ...
                        the same for any member
  /services/write, /members/NAME/services/write, ...
                        200 while the service has an open gate, or that member's gate to it is open
  /vips/NAME            200 while this machine should have the address of [vip.NAME], and has it
";

/// The check of a path.
pub enum HealthCheck {
    /// A question about one member.
    OfMember(Result<Question, Unclear>),
    /// Has this service an open gate?
    OfService(ServiceName),
    /// A question about a service that does not exist.
    NoService(String),
    /// Has this machine the address of this name?
    OfVip(String),
}

/// The check that `uri` requests; none if its path is not that of a check.
pub fn parse(uri: &Uri, snapshot: &Snapshot) -> Option<HealthCheck> {
    let path = uri.path().strip_prefix('/')?;
    if let Some(name) = path.strip_prefix("vips/") {
        return Some(HealthCheck::OfVip(unescaped(name)));
    }
    let (member, rest) = match path.strip_prefix("members/") {
        Some(of_member) => {
            let (name, rest) = of_member.split_once('/')?;
            (Some(unescaped(name)), rest)
        }
        None => (None, path),
    };
    if let Some(service) = rest.strip_prefix("services/") {
        return Some(check_of_service(member, unescaped(service), snapshot));
    }
    let of = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    match Question::read(&of, |_| false) {
        Ok(None) | Err(Unclear::Neither(_)) => None,
        Ok(Some(question)) => Some(HealthCheck::OfMember(Ok(Question { member, ..question }))),
        Err(unclear) => Some(HealthCheck::OfMember(Err(unclear))),
    }
}

fn check_of_service(member: Option<String>, named: String, snapshot: &Snapshot) -> HealthCheck {
    match (snapshot.services.get_key_value(named.as_str()), member) {
        (None, _) => HealthCheck::NoService(named),
        (Some((name, _)), None) => HealthCheck::OfService(name.clone()),
        (Some((name, _)), member) => {
            let of = question::Asked::Service(name.clone());
            HealthCheck::OfMember(Ok(Question { of, member, drain: Duration::ZERO }))
        }
    }
}

/// Answers a check by `snapshot`. GET, HEAD and OPTIONS get the same answer, as from Patroni.
pub fn answer(pages: &Pages, snapshot: &Snapshot, method: &Method, check: HealthCheck) -> Page {
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return not_allowed("GET, HEAD, OPTIONS");
    }
    if pages.heartbeat.age(pages.clock.now()) >= Heartbeat::STUCK_AFTER {
        return unknown(format!("{}\n", Objection::Stuck));
    }
    match check {
        HealthCheck::OfMember(Ok(question)) => of_member(&question, snapshot),
        HealthCheck::OfMember(Err(unclear)) => {
            plain(StatusCode::BAD_REQUEST, format!("{unclear}\n"))
        }
        HealthCheck::OfService(_) if pages.stats.stopping.load(Ordering::Relaxed) => stopping(),
        HealthCheck::OfService(name) => of_service(&name, snapshot),
        HealthCheck::OfVip(name) => of_vip(&name, &pages.stats),
        HealthCheck::NoService(named) => of_no_service(&named, snapshot),
    }
}

/// 503: the listeners are closed, although gates may be open.
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

/// 200 while this machine should have the address and has it alone.
fn of_vip(name: &str, stats: &Stats) -> Page {
    let vips = stats.vips.all();
    let Some(vip) = vips.iter().find(|vip| vip.name.as_str() == name) else {
        let names: Vec<&str> = vips.iter().map(|vip| vip.name.as_str()).collect();
        let are = match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        let body = format!("there is no [vip.NAME] called {}; {are}\n", Shown::of(name));
        return plain(StatusCode::NOT_FOUND, body);
    };
    let held = vip.holding.as_str();
    let more = match (&vip.trouble, &vip.duplicate) {
        (Some(trouble), _) => format!("; {trouble}"),
        (None, Some(mac)) => format!("; the machine with {mac} answers for it too"),
        (None, None) => String::new(),
    };
    let body =
        format!("{name}: {} on {} is {held}: {}{more}\n", vip.address, vip.interface, vip.why);
    match (vip.holding, vip.duplicate.is_some()) {
        (Holding::Held, false) => plain(StatusCode::OK, body),
        (Holding::Unconfirmed, _) => unknown(body),
        (Holding::Held, true) | (Holding::Released, _) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn of_member(question: &Question, snapshot: &Snapshot) -> Page {
    let answer = question.answer(snapshot);
    let of = question.member(snapshot).map(|name| format!("{name}: ")).unwrap_or_default();
    match answer {
        Answer::Yes { note: None, .. } => plain(StatusCode::OK, format!("{of}ok\n")),
        Answer::Yes { note: Some(note), .. } => {
            plain(StatusCode::OK, format!("{of}ok, but {note}\n"))
        }
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

/// 503 with a header by which `pgsteer check` reports "unknown" instead of "no".
fn unknown(body: String) -> Page {
    let mut page = plain(StatusCode::SERVICE_UNAVAILABLE, body);
    page.headers_mut().insert(UNKNOWN_HEADER, HeaderValue::from_static("unknown"));
    page
}

/// A segment of a path without its percent-encoding.
fn unescaped(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
