//! HAProxy's detection time of a failure, by server line.

use super::model::Model;
use super::proxy::Proxy;
use super::server::Server;
use super::values::Given;
use crate::detection::{CheckTimes, Wait};

/// HAProxy's defaults (configuration manual, 5.2).
pub const INTER_MS: u64 = 2_000;
const RISE: u64 = 2;
const FALL: u64 = 3;
/// The maximum time until a member that refuses connections is DOWN.
const REFUSED_MS_MAX: u64 = 5_000;
/// The maximum time until a silent member is DOWN.
const SILENT_MS_MAX: u64 = 10_000;
/// The maximum length of a chain of `track`.
const TRACK_MAX: usize = 8;

/// The result for one server line.
#[derive(Clone, Debug)]
pub struct Row {
    /// The line, from 1.
    pub line: usize,
    /// The proxy.
    pub proxy: String,
    /// The server.
    pub server: String,
    /// The result of its health check.
    pub check: Given<Times>,
    /// The interval of its agent check, in milliseconds.
    pub agent_ms: Given<u64>,
}

/// The three detection times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The time until a member that refuses, or fails the check, is DOWN.
    pub refused: Wait,
    /// The time until a silent member is DOWN.
    pub silent: Wait,
    /// The time until a member that passes its checks again is UP.
    pub up: Wait,
}

/// Returns a row for every server line outside of HTTP that has a health check or an agent check.
pub fn table(model: &Model<'_>) -> Vec<Row> {
    let rows = model
        .proxies
        .iter()
        .flat_map(|proxy| proxy.servers.iter().filter_map(|server| row(model, proxy, server)));
    rows.collect()
}

fn row(model: &Model<'_>, proxy: &Proxy<'_>, server: &Server<'_>) -> Option<Row> {
    let agent = server.has_agent().then(|| server.settings.time("agent-inter").or(INTER_MS));
    let check = tracked(model, proxy, server).map(|(proxy, server)| {
        check_times(model, proxy, server).map(|times| Times {
            refused: times.refused(),
            silent: times.silent(),
            up: times.up(),
        })
    });
    (check.is_some() || agent.is_some()).then(|| Row {
        line: server.line.number,
        proxy: proxy.shown_name().to_owned(),
        server: server.line.words.get(1).map_or("", |word| word.shown()).to_owned(),
        check: Given::of_nested(check),
        agent_ms: Given::of_nested(agent),
    })
}

/// Returns the server whose health check applies: this one, or the one that it tracks.
pub fn tracked<'m, 'a>(
    model: &'m Model<'a>,
    proxy: &'m Proxy<'a>,
    server: &'m Server<'a>,
) -> Option<(&'m Proxy<'a>, &'m Server<'a>)> {
    let (mut proxy, mut server) = (proxy, server);
    for _ in 0..TRACK_MAX {
        if server.is_checked() {
            return Some((proxy, server));
        }
        let name = match server.settings.text("track").split_once('/') {
            Some((backend, name)) => {
                proxy = model.backend(backend)?;
                name
            }
            None => server.settings.text("track"),
        };
        server = proxy.servers.iter().find(|other| other.name == name && !name.is_empty())?;
    }
    None
}

/// The server of a proxy that is DOWN last, and its times.
#[derive(Clone, Copy, Debug)]
pub struct Slowest<'m, 'a> {
    /// The first one of the slowest servers.
    pub server: &'m Server<'a>,
    /// The time until it is DOWN if it refuses, or fails the check.
    pub refused: Wait,
    /// The time until it is DOWN if it is silent.
    pub silent: Wait,
}

impl Slowest<'_, '_> {
    /// Returns true if a lost member is DOWN late.
    pub const fn is_late(&self) -> bool {
        self.refused.most_ms > REFUSED_MS_MAX || self.silent.most_ms > SILENT_MS_MAX
    }
}

/// Returns the slowest server of a proxy; none if no check of it has known times.
pub fn slowest<'m, 'a>(model: &Model<'a>, proxy: &'m Proxy<'a>) -> Option<Slowest<'m, 'a>> {
    let checked = proxy.members().filter(|server| server.is_checked());
    let all = checked.filter_map(|server| {
        let times = check_times(model, proxy, server)?;
        Some(Slowest { server, refused: times.refused(), silent: times.silent() })
    });
    all.reduce(|slowest, it| if it.silent.most_ms > slowest.silent.most_ms { it } else { slowest })
}

/// Returns the timings of the health check of `server`; none if the environment decides.
pub fn check_times(
    model: &Model<'_>,
    proxy: &Proxy<'_>,
    server: &Server<'_>,
) -> Option<CheckTimes> {
    let settings = &server.settings;
    if settings.is_unclear() {
        return None;
    }
    let (check_timeout, _) = proxy.timeout("check");
    let (connect_timeout, _) = proxy.timeout("connect");
    // `defaults` in another file may set what a piece does not set.
    let is_set = ["inter", "rise", "fall"].into_iter().all(|name| settings.has(name));
    let is_timed = check_timeout != Given::Absent && connect_timeout != Given::Absent;
    if proxy.is_piece && !(is_set && is_timed) {
        return None;
    }
    let inter_ms = settings.time("inter").or(INTER_MS)?;
    let (connect_ms, answer_ms) = match check_timeout {
        Given::Absent => (inter_ms, inter_ms),
        check => (connect_timeout.or(u64::MAX)?.min(inter_ms), check.known()?),
    };
    Some(CheckTimes {
        inter_ms,
        fastinter_ms: settings.time("fastinter").or(inter_ms)?,
        downinter_ms: settings.time("downinter").or(inter_ms)?,
        rise: settings.number("rise").or(RISE)?,
        fall: settings.number("fall").or(FALL)?,
        connect_ms,
        answer_ms,
        spread_percent: model.spread_percent.or(0)?,
    })
}
