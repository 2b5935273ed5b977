//! The page for browsers: one document with its style sheet and its script.
//!
//! The server writes everything. The script only puts newer parts in the place of older ones, so the page
//! shows the same with and without it.

mod around;
mod facts;
mod fill;
mod look;
mod past;
mod picture;
mod policy;
mod range;
mod render;
#[cfg(test)]
mod scenes;
mod sparkline;
mod state;
#[cfg(test)]
mod tests;
mod texts;
mod timeline;
mod view;

use pgsteer_core::snapshot::Snapshot;

use self::fill::Input;
pub use self::policy::protect;
pub use self::range::path;
pub use self::render::RenderError;
pub use self::view::ConfigShown;
use self::view::View;
use super::Pages;
use super::compose::compose;
use super::past::Range;
use crate::status::stamp::Now;

/// The style sheet, which the page contains.
const STYLE: &str = include_str!("page.css");
/// The script, which the page contains.
const SCRIPT: &str = include_str!("page.js");

/// The whole page of `snapshot`.
///
/// # Errors
/// A template that cannot be filled in.
pub fn write(pages: &Pages, snapshot: &Snapshot, range: Range) -> Result<String, RenderError> {
    render::page(&view(pages, snapshot, range)?)
}

/// The parts of the page of `snapshot` by their ids, and some texts by names.
///
/// # Errors
/// A template that cannot be filled in.
pub fn write_parts(
    pages: &Pages,
    snapshot: &Snapshot,
    range: Range,
) -> Result<Vec<(&'static str, String)>, RenderError> {
    let view = view(pages, snapshot, range)?;
    let mut parts = render::parts(&view)?;
    parts.extend([
        ("edition", policy::edition().to_owned()),
        ("tab", view.state.tab),
        ("spoken", view.state.spoken),
        ("clock", view.title.clock),
    ]);
    Ok(parts)
}

fn view(pages: &Pages, snapshot: &Snapshot, range: Range) -> Result<View, RenderError> {
    let now = Now::of(&pages.clock);
    let history = pages.history.read();
    let document = compose(snapshot, &pages.stats, &history, &now);
    let pasts = past::members(&history, range, &now);
    let curves = past::curves(&history, snapshot);
    drop(history);
    let config = pages.config.borrow().clone();
    let (document, config) = (&document, &*config);
    let engine_age = pages.heartbeat.age(now.at);
    let input = Input { document, config, pasts: &pasts, curves: &curves, range, engine_age };
    fill::view(&input).ok_or(RenderError::NoCluster)
}
