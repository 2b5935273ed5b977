//! The history as JSON: the shape of `/api/v1/history`, described in docs/status.md.

use std::time::Duration;

use pgsteer_core::time::Moment;
use schemars::JsonSchema;
use serde::Serialize;

use crate::history::{Line, Measure, Past, State, Subject};
use crate::status::stamp::{Now, Stamp};

/// The times that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Ten minutes.
    TenMinutes,
    /// One hour.
    Hour,
    /// Six hours.
    SixHours,
    /// One day.
    Day,
}

impl Range {
    /// All ranges, each with its name in a query.
    pub const ALL: [(&str, Range); 4] = [
        ("10m", Range::TenMinutes),
        ("1h", Range::Hour),
        ("6h", Range::SixHours),
        ("24h", Range::Day),
    ];

    /// Reads `range=` of a query. Ten minutes if it is absent; none if it is no range.
    pub fn of_query(query: &str) -> Option<Range> {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let Some((_, name)) = pairs.find(|(key, _)| *key == "range") else {
            return Some(Range::TenMinutes);
        };
        Range::ALL.iter().find(|(known, _)| *known == name).map(|(_, range)| *range)
    }

    /// The path with its query, under which its text is kept.
    pub fn path(self) -> &'static str {
        match self {
            Range::TenMinutes => "/api/v1/history?range=10m",
            Range::Hour => "/api/v1/history?range=1h",
            Range::SixHours => "/api/v1/history?range=6h",
            Range::Day => "/api/v1/history?range=24h",
        }
    }

    /// Its length.
    pub fn length(self) -> Duration {
        Duration::from_secs(60 * self.minutes() as u64)
    }

    fn minutes(self) -> usize {
        match self {
            Range::TenMinutes => 10,
            Range::Hour => 60,
            Range::SixHours => 6 * 60,
            Range::Day => 24 * 60,
        }
    }

    /// The time between two points of a series.
    pub fn step(self) -> Duration {
        Duration::from_secs(if self == Range::TenMinutes { 1 } else { 60 })
    }

    /// The points of a series, oldest first; NaN where none was recorded.
    pub fn points(self, past: &Past, subject: &Subject, measure: Measure) -> Vec<f32> {
        match self {
            Range::TenMinutes => past.series.seconds(subject, measure, 60 * self.minutes()),
            _ => past.series.minutes(subject, measure, self.minutes()),
        }
    }
}

/// The history of a range.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Document {
    /// The end of the range.
    now: Stamp,
    /// Its beginning.
    from: Stamp,
    /// The time between two points of a curve.
    step_seconds: u64,
    /// The curves.
    series: Vec<Series>,
    /// The bars: roles of members, and gates.
    segments: Vec<Segments>,
    /// What happened, the oldest first.
    events: Vec<Event>,
}

/// A curve of a service or of a member.
#[derive(Debug, Serialize, JsonSchema)]
struct Series {
    /// The service; null for a member's curve.
    service: Option<String>,
    /// The member; null for a service's curve.
    member: Option<String>,
    /// What it shows, with its unit last.
    measure: &'static str,
    /// Oldest first; null where none was recorded.
    points: Vec<Option<f32>>,
}

/// The states of a member, or of its gate to a service.
#[derive(Debug, Serialize, JsonSchema)]
struct Segments {
    /// The member.
    member: String,
    /// The service; null for the member's roles.
    service: Option<String>,
    /// The states, the oldest first.
    segments: Vec<Segment>,
}

/// One state.
#[derive(Debug, Serialize, JsonSchema)]
struct Segment {
    /// Its beginning.
    from: Stamp,
    /// Its end; the end of the range if it lasts.
    until: Stamp,
    /// The role, or the state of the gate.
    state: String,
    /// The reason's code; null without one.
    reason: Option<String>,
}

/// Something that happened.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HistoryEvent")]
struct Event {
    /// When.
    at: Stamp,
    /// Its kind, as in the events of the status document.
    kind: String,
    /// The member that it is about; null if none.
    member: Option<String>,
    /// The service that it is about; null if none.
    service: Option<String>,
    /// The reason's code; null without one.
    reason: Option<String>,
    /// It in a sentence.
    text: String,
}

/// The text; none if it is empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The history of `range` until `now`.
pub fn compose(past: &Past, range: Range, now: &Now) -> Document {
    let from = Moment::START + now.at.since_start().saturating_sub(range.length());
    let series = past.series.names().map(|(subject, measure)| {
        let (service, member) = match subject {
            Subject::Service(service) => (Some(service.to_string()), None),
            Subject::Member(member) => (None, Some(member.to_string())),
        };
        let points = range.points(past, subject, *measure).into_iter();
        let points = points.map(|point| (!point.is_nan()).then_some(point)).collect();
        Series { service, member, measure: measure.name(), points }
    });
    Document {
        now: now.stamp(now.at),
        from: now.stamp(from),
        step_seconds: range.step().as_secs(),
        series: series.collect(),
        segments: segments(past, from, now),
        events: past
            .events
            .since(from)
            .map(|event| Event {
                at: now.stamp(event.at),
                kind: event.kind.to_string(),
                member: some(&event.member),
                service: some(&event.service),
                reason: some(&event.reason),
                text: event.text.clone(),
            })
            .collect(),
    }
}

fn segments(past: &Past, from: Moment, now: &Now) -> Vec<Segments> {
    let lines = past.segments.since(from, now.at).into_iter();
    lines
        .map(|(line, segments)| {
            let (service, member) = match line {
                Line::Role(member) => (None, member.to_string()),
                Line::Gate(service, member) => (Some(service.to_string()), member.to_string()),
            };
            let segments = segments.into_iter().map(|segment| {
                let (state, reason) = match &segment.state {
                    State::Role(role) => (role.to_string(), None),
                    State::Gate(gate, reason) => (gate.to_string(), some(reason)),
                    State::Absent => ("absent".to_owned(), None),
                };
                let (from, until) = (now.stamp(segment.from), now.stamp(segment.until));
                Segment { from, until, state, reason }
            });
            Segments { member, service, segments: segments.collect() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::sample;

    #[test]
    fn a_range_has_a_name_and_ten_minutes_are_the_default() {
        assert_eq!(Range::of_query(""), Some(Range::TenMinutes));
        assert_eq!(Range::of_query("x=1&range=6h"), Some(Range::SixHours));
        assert_eq!(Range::of_query("range=7h"), None);
    }

    #[test]
    fn the_history_of_a_cluster_has_its_series_segments_and_events() {
        let (mut past, stats, now) = (sample::past(), sample::stats(), sample::now());
        let snapshot = sample::snapshot();
        past.segments.observe(&snapshot, Moment::from_millis(3_700_000));
        past.events.observe(&snapshot);
        let points = past.rates.points(&snapshot, &stats);
        past.series.push(points);
        let json = serde_json::to_value(compose(&past, Range::TenMinutes, &now)).unwrap();
        let series = json["series"].as_array().unwrap();
        let held = |it: &&serde_json::Value| it["service"] == "write" && it["measure"] == "held";
        let points = series.iter().find(held).unwrap()["points"].as_array().unwrap();
        assert_eq!((points.len(), &points[598], &points[599]), (600, &json!(null), &json!(4.0)));
        let gate = |it: &&serde_json::Value| it["service"] == "write" && it["member"] == "n2";
        let gates = json["segments"].as_array().unwrap();
        assert_eq!(gates.iter().find(gate).unwrap()["segments"][0]["reason"], "promoting");
        assert_eq!(json["events"].as_array().unwrap().len(), 5, "one is older than ten minutes");
    }
}
