//! The words of a scenario: the notation of claims, services, failures and times.
//!
//! `n1 patroni lock running primary timeline=1 location=1000` is an answer of Patroni. Its words
//! are `lock` (the status was 200), a state (`running`, `starting`, `stopping` or `stopped`; any other
//! as `state=`, with `_` for a space), a role as Patroni reports it, `paused`, and `timeline=`, `location=`, `replayed=`, `replication=`,
//! `scope=`, `system=`, `as=` (the member name that it reports) and `tag.NAME=`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{
    Fact, Failure, Found, News, Order, PatroniFacts, PoolerFacts, Progress, Role, ServerStart,
    Speaker, Standby, TetherFacts, Unlisted,
};
use pgsteer_core::identity::{About, Identity};
use pgsteer_core::load::Load;
use pgsteer_core::memory::{Memory, Remembered};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::orders::{DrainOrder, DrainTarget, OperatorOrder, OrderText, Until};
use pgsteer_core::settings::{ClusterConfig, Membership, OnPromotion, PoolerDown, ServiceConfig};
use pgsteer_core::skew::ClockOffset;
use pgsteer_core::time::Moment;

use super::driver::Source;
use crate::cluster::{ANSWER_TIMEOUT, found, member, service as plain_service, service_name};

/// The port of the poolers of a script.
pub const POOLER_PORT: u16 = 6432;

pub fn source(word: &str) -> Result<Source, String> {
    match word {
        "patroni" => Ok(Source::Patroni),
        "tether" => Ok(Source::Tether),
        "progress" => Ok(Source::Progress),
        "pooler" => Ok(Source::Pooler),
        "addresses" => Ok(Source::Addresses),
        "new_sessions" => Ok(Source::NewSessions),
        other => Err(format!("no source: {other}")),
    }
}

pub fn fact(name: &MemberName, source: Source, tokens: &[&str]) -> Result<Fact, String> {
    if let (Source::Patroni, ["late"]) = (source, tokens) {
        let peer = Arc::from(format!("{name}:8008"));
        let (limit, waited) = (ANSWER_TIMEOUT, ANSWER_TIMEOUT);
        return Ok(Fact::PatroniLate(Failure::Late { peer, limit, waited }));
    }
    if let (Source::Addresses, ["of", host, rest @ ..]) = (source, tokens) {
        let postgres = Endpoint::parse(host, None).map_err(|error| error.to_string())?;
        let addresses = match rest {
            ["failed", kind] => Err(failure(name, source, kind)?),
            addresses => Ok(ip_addresses(addresses)?),
        };
        return Ok(Fact::NewHost { postgres, addresses });
    }
    let failed = match tokens {
        ["failed", kind] => Some(failure(name, source, kind)?),
        _ => None,
    };
    Ok(match (source, failed) {
        (Source::Patroni, Some(failure)) => Fact::Patroni(Err(failure)),
        (Source::Patroni, None) => Fact::Patroni(Ok(patroni(tokens)?)),
        (Source::Tether, Some(failure)) => Fact::Tether(Err(failure)),
        (Source::Tether, None) => Fact::Tether(Ok(tether(tokens)?)),
        (Source::Addresses, Some(failure)) => Fact::Addresses(Err(failure)),
        (Source::Addresses, None) => Fact::Addresses(Ok(ip_addresses(tokens)?)),
        (Source::Pooler, failed) => {
            let answer = failed.map_or_else(|| pooler(name, tokens), |failure| Ok(Err(failure)))?;
            Fact::Pooler { port: POOLER_PORT, answer }
        }
        (Source::NewSessions, Some(failure)) => Fact::NewSessions(Err(failure)),
        (Source::NewSessions, None) => Fact::NewSessions(Ok(())),
        (Source::Progress, _) => Fact::Progress(progress(tokens)?),
    })
}

fn ip_addresses(tokens: &[&str]) -> Result<Vec<IpAddr>, String> {
    let addresses: Result<_, _> = tokens.iter().map(|text| text.parse()).collect();
    addresses.map_err(|_| "no address".to_owned())
}

fn patroni(tokens: &[&str]) -> Result<PatroniFacts, String> {
    let mut facts = PatroniFacts::new("running", Role::Unknown);
    for token in tokens {
        let (key, value) = token.split_once('=').unwrap_or((token, ""));
        match key {
            "lock" => facts.holds_lock = true,
            "paused" => facts.paused = true,
            "running" | "starting" | "stopping" | "stopped" => facts.state = key.to_owned(),
            "primary" | "master" | "replica" | "standby_leader" | "uninitialized" => {
                facts.role = Role::from_patroni(key);
            }
            "state" => facts.state = value.replace('_', " "),
            "timeline" => facts.timeline = Some(number(value)?),
            "location" => facts.location = Some(number(value)?),
            "replayed" => facts.replayed_location = Some(number(value)?),
            "replication" => facts.replication_state = Some(value.replace('_', " ")),
            "sync" => facts.standby = Standby::Sync,
            "quorum" => facts.standby = Standby::Quorum,
            "as" => facts.name = Some(value.to_owned()),
            "scope" => facts.scope = Some(value.to_owned()),
            "system" => facts.system_identifier = Some(value.to_owned()),
            _ => match key.strip_prefix("tag.") {
                Some(tag) => {
                    facts.flags.no_load_balance |= tag == "noloadbalance" && value == "true";
                    facts.flags.no_stream |= tag == "nostream" && value == "true";
                    facts.tags.insert(tag.to_owned(), value.to_owned());
                }
                None => return Err(format!("not a word of Patroni's answer: {token}")),
            },
        }
    }
    Ok(facts)
}

fn tether(tokens: &[&str]) -> Result<TetherFacts, String> {
    let in_recovery = |word: &str| match word {
        "primary" => Ok(false),
        "recovery" => Ok(true),
        other => Err(format!("not a word of the tether: {other}")),
    };
    let [role, more @ ..] = tokens else { return Err("a tether without a role".to_owned()) };
    let mut facts = TetherFacts::of_role(in_recovery(role)?);
    for token in more {
        match token.strip_prefix("system=") {
            Some(text) => facts.system_identifier = Some(number(text)?),
            None => facts.started_at = Some(started(token)?),
        }
    }
    Ok(facts)
}

fn pooler(name: &MemberName, tokens: &[&str]) -> Result<Result<PoolerFacts, Failure>, String> {
    let failure = |kind| failure(name, Source::Pooler, kind);
    Ok(Ok(match tokens {
        ["primary" | "recovery", ..] => {
            let TetherFacts { in_recovery, started_at, .. } = tether(tokens)?;
            PoolerFacts::Leads { in_recovery, started_at }
        }
        ["answers"] => PoolerFacts::Answers,
        ["refuses"] => PoolerFacts::RefusesLogin(failure("login:28P01")?),
        ["busy"] => PoolerFacts::Busy(failure("timeout")?),
        ["nowhere"] => PoolerFacts::LeadsNowhere(failure("timeout")?),
        other => return Err(format!("not a word of the pooler: {}", other.join(" "))),
    }))
}

/// Parses `started=7`, a time of the server's clock.
fn started(token: &str) -> Result<ServerStart, String> {
    let text = token.strip_prefix("started=").ok_or("expects started=NUMBER")?;
    number(text).map(ServerStart)
}

fn progress(tokens: &[&str]) -> Result<Progress, String> {
    let mut progress = Progress {
        in_recovery: false,
        location: None,
        timeline: None,
        streaming: false,
        replay_age_micros: None,
        clock_offset: None,
        load: None,
    };
    for token in tokens {
        match token.split_once('=').unwrap_or((token, "")) {
            ("primary", _) => progress.in_recovery = false,
            ("recovery", _) => progress.in_recovery = true,
            ("streaming", _) => progress.streaming = true,
            ("location", value) => progress.location = Some(number(value)?),
            ("timeline", value) => progress.timeline = Some(number(value)?),
            ("age", value) => progress.replay_age_micros = Some(micros(value)?),
            ("ahead", value) => {
                progress.clock_offset = Some(ClockOffset::from_micros(micros(value)?));
            }
            ("sessions", value) => progress.load = Some(load(value)?),
            _ => return Err(format!("not a word of the progress query: {token}")),
        }
    }
    Ok(progress)
}

/// Parses `2s` or `-3600s` into microseconds.
fn micros(text: &str) -> Result<i64, String> {
    let micros = |text| Ok(i64::try_from(duration(text)?.as_micros()).unwrap_or(i64::MAX));
    match text.strip_prefix('-') {
        Some(text) => micros(text).map(i64::saturating_neg),
        None => micros(text),
    }
}

/// Parses `12/97`: the number of sessions and its maximum.
fn load(text: &str) -> Result<Load, String> {
    let (backends, max) = text.split_once('/').ok_or("expects sessions=NOW/MAX")?;
    Ok(Load { backends: number(backends)?, backends_max: number(max)? })
}

/// The failure of a probe. `login:28P01` and `unavailable:57P03` contain their SQLSTATE.
fn failure(name: &MemberName, source: Source, kind: &str) -> Result<Failure, String> {
    let port = match source {
        Source::Patroni => 8008,
        Source::Pooler => POOLER_PORT,
        _ => 5432,
    };
    let peer: Arc<str> = Arc::from(format!("{name}:{port}"));
    let speaker = match source {
        Source::Pooler => Speaker::pgbouncer(peer.clone()),
        _ => Speaker::postgres(peer.clone()),
    };
    let message = |sqlstate: &str| {
        Arc::from(match sqlstate {
            "28P01" => "password authentication failed for user \"pgcheck\"",
            "53300" => "sorry, too many clients already",
            "57P01" => "terminating connection due to administrator command",
            "57P03" if source == Source::NewSessions => "the database system is shutting down",
            "57P03" => "the database system is starting up",
            _ => "something else",
        })
    };
    Ok(match kind.split_once(':').unwrap_or((kind, "")) {
        ("refused", _) => Failure::Refused(peer),
        ("timeout", _) => Failure::Timeout { peer, limit: ANSWER_TIMEOUT },
        ("unreachable", _) => Failure::Unreachable { peer, limit: ANSWER_TIMEOUT },
        ("closed", _) => Failure::Closed(peer),
        ("network", _) => Failure::Network(Arc::from("no route to host")),
        ("too_large", _) => Failure::TooLarge { peer, bytes_max: 1_048_576 },
        ("malformed", _) => Failure::Malformed(Arc::from("the answer is no JSON")),
        ("tls", _) => Failure::Tls(Arc::from("certificate has expired")),
        ("unresolved", _) => Failure::Unresolved(Arc::from(name.as_str())),
        ("login", code) => {
            Failure::LoginRefused { by: speaker, sqlstate: Arc::from(code), message: message(code) }
        }
        ("unavailable", code) => {
            Failure::Unavailable { by: speaker, sqlstate: Arc::from(code), message: message(code) }
        }
        _ => return Err(format!("no such failure: {kind}")),
    })
}

/// The base URL of the Patroni of `name`.
pub fn url(name: &str) -> Arc<str> {
    Arc::from(format!("http://{name}:8008"))
}

/// The Patroni of `name` returns no member list; `about` is what it reports of itself.
pub fn unlisted(name: &str, kind: &str, about_words: &[&str]) -> Result<Unlisted, String> {
    let failure = failure(&member(name), Source::Patroni, kind)?;
    let mut of_itself = About::default();
    for word in about_words {
        let (key, value) = word.split_once('=').ok_or("expects NAME=VALUE")?;
        about(&mut of_itself, key, value)?;
    }
    let of_itself = (!about_words.is_empty()).then_some(of_itself);
    Ok(Unlisted { asked: url(name), about: of_itself, failure })
}

/// One item of what a Patroni reports of itself.
pub fn about(about: &mut About, key: &str, value: &str) -> Result<(), String> {
    match key {
        "as" => about.name = Some(value.to_owned()),
        "about.scope" => about.identity.scope = Some(value.to_owned()),
        "system" => about.identity.system_identifier = Some(value.to_owned()),
        _ => return Err(format!("not an item that Patroni reports of itself: {key}")),
    }
    Ok(())
}

/// The identity that is configured.
pub fn pin(cluster: &mut ClusterConfig, pins: &[&str]) -> Result<(), String> {
    let Membership::Patroni(patroni) = &mut cluster.members else {
        return Err("only a cluster with Patroni has an identity".to_owned());
    };
    patroni.pins = Identity::default();
    pins.iter().try_for_each(|pin| part(&mut patroni.pins, pin))
}

fn part(identity: &mut Identity, word: &str) -> Result<(), String> {
    match word.split_once('=') {
        Some(("scope", value)) => identity.scope = Some(value.to_owned()),
        Some(("group", value)) => identity.group = Some(number(value)?),
        Some(("system", value)) => identity.system_identifier = Some(value.to_owned()),
        _ => return Err(format!("no part of an identity: {word}")),
    }
    Ok(())
}

/// What an earlier run stored.
pub fn stored(tokens: &[&str]) -> Result<Remembered, String> {
    let mut stored = Remembered { memory: Memory::default(), age: Duration::from_secs(60) };
    for token in tokens {
        match token.split_once('=') {
            Some(("age", value)) => stored.age = duration(value)?,
            Some(("scope" | "system", _)) => part(&mut stored.memory.identity, token)?,
            Some((name, postgres)) => stored.memory.members.push(found(name, Some(postgres))),
            None => stored.memory.members.push(found(token, None)),
        }
    }
    Ok(stored)
}

/// The news of the etcd watch.
pub fn news(tokens: &[&str]) -> Result<News, String> {
    let order = |leader: Option<&str>, candidate: Option<&str>| {
        News::Ordered(Order { leader: leader.map(member), candidate: candidate.map(member) })
    };
    Ok(match tokens {
        ["watched"] => News::Watching,
        ["lost"] => News::Lost(Failure::Refused(Arc::from("http://etcd:2379"))),
        ["no", "order"] => News::NoOrder,
        ["written", count] => News::Written(number(count)?),
        ["read"] => News::Read { is_behind: false },
        ["read", "behind"] => News::Read { is_behind: true },
        ["order", leader] => order(Some(leader), None),
        ["order", "to", candidate] => order(None, Some(candidate)),
        ["order", leader, "to", candidate] => order(Some(leader), Some(candidate)),
        ["leader", name] => News::Leader(member(name)),
        other => return Err(format!("not a word of etcd: {}", other.join(" "))),
    })
}

/// The words after `order`.
pub fn order(tokens: &[&str], now: Moment) -> Result<OperatorOrder, String> {
    match tokens {
        ["drain", rest @ ..] => drain(rest, now).map(OperatorOrder::Drain),
        ["undrain", rest @ ..] => {
            let DrainOrder { target, by, .. } = drain(rest, now)?;
            Ok(OperatorOrder::Undrain { target, by })
        }
        other => Err(format!("not an order: {}", other.join(" "))),
    }
}

/// The words after `order drain`.
pub fn drain(tokens: &[&str], now: Moment) -> Result<DrainOrder, String> {
    let [name, wishes @ ..] = tokens else { return Err("expects a member".to_owned()) };
    let mut order = DrainOrder {
        target: DrainTarget { member: member(name), service: None },
        until: None,
        why: None,
        by: OrderText::new("ann"),
        since: OrderText::new(&now.to_string()),
        is_forced: false,
    };
    for wish in wishes {
        match wish.split_once('=').unwrap_or((wish, "")) {
            ("service", name) => order.target.service = Some(service_name(name)),
            ("until", text) => {
                let at = now + duration(text)?;
                order.until = Some(Until { at, shown: OrderText::new(&at.to_string()) });
            }
            ("why", text) => order.why = Some(OrderText::new(text)),
            ("force", _) => order.is_forced = true,
            _ => return Err(format!("not an option of an order: {wish}")),
        }
    }
    Ok(order)
}

pub fn service(role: &str, wishes: &[&str]) -> Result<ServiceConfig, String> {
    let mut service = plain_service(Role::from_patroni(role));
    for wish in wishes {
        let (key, value) = wish.split_once('=').unwrap_or((wish, ""));
        match key {
            "pooler" => service.pooler_port = Some(POOLER_PORT),
            "bypass" => service.pooler_down = PoolerDown::Bypass,
            "end_on_promotion" => service.on_promotion = OnPromotion::End,
            "fallback" => service.fallback_primary = true,
            "lag_bytes_max" => service.lag_bytes_max = Some(number(value)?),
            "lag_max" => service.lag_max = Some(duration(value)?),
            "hold" => service.hold = duration(value)?,
            _ => match key.strip_prefix("tag.") {
                Some(tag) => {
                    service.tags.insert(tag.to_owned(), value.to_owned());
                }
                None => return Err(format!("not an option of a service: {wish}")),
            },
        }
    }
    Ok(service)
}

/// Members, each `n1` or `n1=host:port`.
pub fn members(tokens: &[&str]) -> Result<Vec<Found>, String> {
    let one = |token: &&str| match token.split_once('=') {
        Some((name, postgres)) => found(name, Some(postgres)),
        None => found(token, None),
    };
    Ok(tokens.iter().map(one).map(|found| Found { patroni_url: None, ..found }).collect())
}

/// `250ms`, `5s`, `1.5s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("not a duration: {text}");
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').ok_or_else(bad)?, 1.0),
    };
    let seconds: f64 = digits.parse().map_err(|_| bad())?;
    Ok(Duration::from_micros((seconds * unit * 1e6).round() as u64))
}

/// Seconds since the start.
pub fn moment(text: &str) -> Result<Moment, String> {
    duration(&format!("{text}s")).map(Moment::after_start)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("no number: {text}"))
}
