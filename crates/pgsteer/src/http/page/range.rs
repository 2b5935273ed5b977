//! The ranges of the timeline: their links, and the labels of the time.

use std::time::Duration;

use serde::Serialize;

use crate::http::past::Range;

/// A link to a range.
#[derive(Debug, Serialize)]
pub struct RangeLink {
    /// Its value in the query.
    pub key: &'static str,
    /// Its name.
    pub name: &'static str,
    /// It is shown now.
    pub is_current: bool,
}

/// The value of `range` in a query.
pub fn key(range: Range) -> &'static str {
    Range::ALL.iter().find(|(_, known)| *known == range).map_or("", |(key, _)| key)
}

/// The path of the page with `range`, under which its text is kept.
pub fn path(range: Range) -> &'static str {
    match range {
        Range::TenMinutes => "/?range=10m",
        Range::Hour => "/?range=1h",
        Range::SixHours => "/?range=6h",
        Range::Day => "/?range=24h",
    }
}

/// The distance of the labels.
pub fn tick(range: Range) -> Duration {
    Duration::from_secs(match range {
        Range::TenMinutes => 120,
        Range::Hour => 600,
        Range::SixHours => 3_600,
        Range::Day => 4 * 3_600,
    })
}

/// The links to all ranges, of which `current` is shown.
pub fn links(current: Range) -> Vec<RangeLink> {
    let name = |range: Range| match range {
        Range::TenMinutes => "10 min",
        Range::Hour => "1 h",
        Range::SixHours => "6 h",
        Range::Day => "24 h",
    };
    let link = |(key, range): (&'static str, Range)| RangeLink {
        key,
        name: name(range),
        is_current: range == current,
    };
    Range::ALL.into_iter().map(link).collect()
}
