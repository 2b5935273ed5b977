//! The timeline: a lane for each member with its roles and gates, and a mark for each change.
//!
//! All positions are percent of the width, so the drawing stretches in width only. The script zooms by
//! stretching it further.

use std::time::Duration;

use serde::Serialize;

use super::range::tick;
use super::texts::cut;
use crate::http::past::Range;
use crate::status::stamp::Stamp;

/// The heights: a lane's bar of roles, a strip of gates, the distance of lanes, the row of marks.
const BAR: usize = 14;
const STRIP: usize = 5;
const LANE_GAP: usize = 12;
const MARKS: usize = 22;

/// The most members with a lane.
const LANES_MAX: usize = 16;

/// The longest name, and the longest description of a lane for screen readers, in characters.
const NAME_CHARS_MAX: usize = 40;
const SPOKEN_CHARS_MAX: usize = 400;

/// The most changes with a mark.
const MARKS_MAX: usize = 200;

/// A member's past, as input.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberPast {
    /// The member.
    pub member: String,
    /// Its roles, oldest first.
    pub roles: Vec<Span>,
    /// Its gates by service, oldest first.
    pub gates: Vec<(String, Vec<Span>)>,
}

/// A state that lasted for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its begin.
    pub from: Stamp,
    /// Its end; none if it lasts.
    pub until: Option<Stamp>,
    /// The class of the style sheet.
    pub class: &'static str,
    /// The state in words.
    pub word: String,
}

/// A switchover, a failover or an outage, as input.
#[derive(Clone, Debug, PartialEq)]
pub struct PastChange {
    /// Its begin.
    pub from: Stamp,
    /// Its end; none if it lasts.
    pub until: Option<Stamp>,
    /// The kind.
    pub kind: String,
    /// The sentence.
    pub text: String,
}

/// The timeline.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// The height in pixels.
    pub height: usize,
    /// The height of a lane, which its name has as well.
    pub lane: usize,
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// Members without a lane.
    pub more: usize,
    /// The labels of the time.
    pub ticks: Vec<Tick>,
    /// The changes.
    pub marks: Vec<Mark>,
}

/// The lane of a member.
#[derive(Debug, Serialize)]
pub struct Lane {
    /// The member.
    pub name: String,
    /// Roles and gates.
    pub boxes: Vec<Bar>,
    /// The lane in words, for screen readers.
    pub spoken: String,
}

/// A bar or a strip.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// The left edge in percent.
    pub x: String,
    /// The width in percent.
    pub width: String,
    /// The upper edge in pixels.
    pub y: usize,
    /// The height in pixels.
    pub height: usize,
    /// The class of the style sheet.
    pub class: &'static str,
    /// What it is.
    pub title: String,
}

/// A label of the time.
#[derive(Debug, Serialize)]
pub struct Tick {
    /// The place in percent.
    pub x: String,
    /// The time of day.
    pub label: String,
}

/// A change.
#[derive(Debug, Serialize)]
pub struct Mark {
    /// The left edge in percent.
    pub x: String,
    /// The width in percent: the time without service.
    pub width: String,
    /// The kind of the change.
    pub kind: String,
    /// The sentence.
    pub title: String,
}

/// The time that is shown.
#[derive(Clone, Copy)]
struct Window {
    from_ms: u64,
    length_ms: u64,
}

impl Window {
    /// The window of `range` that ends at `now`, in steps: it moves by a pixel or so at a time.
    fn ending(now: Stamp, range: Range) -> Window {
        let length_ms = millis(range.length());
        let step = (length_ms / 1_200).max(1);
        let end = now.unix_millis().div_ceil(step).saturating_mul(step);
        Window { from_ms: end.saturating_sub(length_ms), length_ms }
    }

    /// The place of `at` in percent, within 0 and 100.
    fn place(self, at_ms: u64) -> f64 {
        let into = at_ms.saturating_sub(self.from_ms).min(self.length_ms);
        as_f64(into) / as_f64(self.length_ms) * 100.0
    }

    fn end_ms(self) -> u64 {
        self.from_ms.saturating_add(self.length_ms)
    }
}

/// The timeline of `pasts` and `changes` at `now`.
pub fn draw(pasts: &[MemberPast], changes: &[PastChange], now: Stamp, range: Range) -> Timeline {
    let window = Window::ending(now, range);
    let strips = pasts.iter().map(|past| past.gates.len()).max().unwrap_or(0);
    let lane = BAR + strips * (STRIP + 1) + LANE_GAP;
    let shown = pasts.iter().take(LANES_MAX);
    Timeline {
        height: MARKS + shown.len() * lane,
        lane,
        lanes: shown
            .enumerate()
            .map(|(number, past)| member_lane(past, MARKS + number * lane, window))
            .collect(),
        more: pasts.len().saturating_sub(LANES_MAX),
        ticks: ticks(window, range),
        marks: changes
            .iter()
            .rev()
            .take(MARKS_MAX)
            .filter_map(|change| mark(change, window))
            .collect(),
    }
}

fn member_lane(past: &MemberPast, top: usize, window: Window) -> Lane {
    let name = cut(&past.member, NAME_CHARS_MAX);
    let bars = past.roles.iter().filter_map(|span| bar(span, top, BAR, &name, window));
    let gates = past.gates.iter().enumerate().flat_map(|(number, (service, spans))| {
        let top = top + BAR + 1 + number * (STRIP + 1);
        let what = format!("{} gate of {name}", cut(service, NAME_CHARS_MAX));
        spans.iter().filter_map(move |span| bar(span, top, STRIP, &what, window))
    });
    let boxes: Vec<Bar> = bars.chain(gates).collect();
    let spoken = boxes.iter().map(|bar| bar.title.as_str()).collect::<Vec<_>>().join("; ");
    let spoken = cut(&spoken, SPOKEN_CHARS_MAX);
    Lane { name, boxes, spoken }
}

fn bar(span: &Span, y: usize, height: usize, what: &str, window: Window) -> Option<Bar> {
    let until = span.until.map_or(window.end_ms(), Stamp::unix_millis);
    if until <= window.from_ms {
        return None;
    }
    let (from, to) = (window.place(span.from.unix_millis()), window.place(until));
    let since = format!("{what}: {} from {}", span.word, span.from.clock());
    Some(Bar {
        x: percent(from),
        width: percent((to - from).max(0.05)),
        y,
        height,
        class: span.class,
        title: match span.until {
            Some(until) => format!("{since} to {}", until.clock()),
            None => since,
        },
    })
}

fn mark(change: &PastChange, window: Window) -> Option<Mark> {
    let from = change.from.unix_millis();
    let until = change.until.map_or(window.end_ms(), Stamp::unix_millis);
    (until > window.from_ms).then(|| Mark {
        x: percent(window.place(from)),
        width: percent(window.place(until) - window.place(from)),
        kind: change.kind.clone(),
        title: format!("{} {}", change.from.clock(), change.text),
    })
}

fn ticks(window: Window, range: Range) -> Vec<Tick> {
    let step = millis(tick(range));
    let first = window.from_ms.div_ceil(step);
    let last = window.end_ms() / step;
    let label = |number: u64| {
        let at = number.saturating_mul(step);
        let place = window.place(at);
        // A label at the very edge would be cut.
        (2.0..98.0).contains(&place).then(|| Tick {
            x: percent(place),
            label: Stamp::of_unix_millis(at).clock()[..5].to_owned(),
        })
    };
    (first..=last).filter_map(label).collect()
}

fn percent(place: f64) -> String {
    format!("{place:.3}")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Exact up to 2^53, which is far above any window.
fn as_f64(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp::of_unix_millis(1_783_166_400_000 + seconds * 1_000)
    }

    fn past(spans: Vec<Span>) -> MemberPast {
        MemberPast {
            member: "n1".to_owned(),
            roles: spans,
            gates: vec![("write".to_owned(), Vec::new())],
        }
    }

    fn span(from: u64, until: Option<u64>) -> Span {
        Span { from: at(from), until: until.map(at), class: "primary", word: "primary".to_owned() }
    }

    #[test]
    fn a_span_is_cut_at_the_edges_of_the_window_and_left_out_before_it() {
        let spans = vec![span(0, Some(100)), span(100, Some(750)), span(750, None)];
        let drawn = draw(&[past(spans)], &[], at(1_200), Range::TenMinutes);
        let boxes = &drawn.lanes[0].boxes;
        let places: Vec<_> = boxes.iter().map(|bar| (bar.x.as_str(), bar.width.as_str())).collect();
        assert_eq!(places, [("0.000", "25.000"), ("25.000", "75.000")]);
        assert_eq!(boxes[1].title, "n1: primary from 12:12:30");
    }

    #[test]
    fn labels_stand_at_round_times_and_not_at_the_edges() {
        let labels = |range| {
            let drawn = draw(&[], &[], at(1_200), range);
            drawn.ticks.into_iter().map(|tick| tick.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(Range::TenMinutes), ["12:12", "12:14", "12:16", "12:18"]);
        assert_eq!(
            labels(Range::Day),
            ["16:00", "20:00", "00:00", "04:00", "08:00"],
            "12:00 is at the edge"
        );
    }

    #[test]
    fn a_change_is_as_wide_as_the_time_without_service() {
        let change = PastChange {
            from: at(900),
            until: Some(at(906)),
            kind: "switchover".to_owned(),
            text: "switchover n3 to n1".to_owned(),
        };
        let drawn = draw(&[], &[change], at(1_200), Range::TenMinutes);
        assert_eq!((drawn.marks[0].x.as_str(), drawn.marks[0].width.as_str()), ("50.000", "1.000"));
        assert_eq!(drawn.marks[0].title, "12:15:00 switchover n3 to n1");
    }

    #[test]
    fn a_window_moves_in_small_steps_so_that_most_frames_are_equal() {
        let spans = vec![span(1_000, None)];
        let x = |millis| {
            let now = Stamp::of_unix_millis(1_783_167_600_000_u64 + millis);
            draw(&[past(spans.clone())], &[], now, Range::Hour).lanes[0].boxes[0].x.clone()
        };
        assert_eq!(x(1), x(2_999));
        assert_ne!(x(1), x(3_001));
    }
}
