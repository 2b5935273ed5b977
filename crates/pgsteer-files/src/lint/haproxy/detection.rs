//! How long HAProxy takes to notice, by server line.

use super::proxy::{Model, Proxy};
use super::server::Server;
use super::values::Given;
use crate::detection::{CheckTimes, Wait};

/// HAProxy's defaults (configuration manual, 5.2).
pub const INTER_MS: u64 = 2_000;
const RISE: u64 = 2;
const FALL: u64 = 3;
/// How many `track` may stand behind each other.
const TRACK_MAX: usize = 8;

/// What one server line comes to.
#[derive(Clone, Debug)]
pub struct Row {
    /// The line, from 1.
    pub line: usize,
    /// The proxy.
    pub proxy: String,
    /// The server.
    pub server: String,
    /// What its health check comes to.
    pub check: Given<Times>,
    /// How often an agent is asked, in milliseconds.
    pub agent_ms: Given<u64>,
}

/// The three answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until a member that refuses, or says no, is DOWN.
    pub refused: Wait,
    /// Until one that says nothing any more is DOWN.
    pub silent: Wait,
    /// Until one that says yes again is UP.
    pub up: Wait,
}

/// All server lines outside of HTTP that are checked, or that an agent is asked about.
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
        check: Given::told(check),
        agent_ms: Given::told(agent),
    })
}

/// The server whose health check counts: this one, or the one that it tracks.
fn tracked<'m, 'a>(
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

/// The timings of the health check of `server`; none where the environment decides.
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
    // What a piece does not set, `defaults` in another file may.
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
