//! The page as a function of the state, the size of the terminal and the time.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::columns::{Column, Fitted};
use super::curve::Reading;
use super::explain::{Passage, explain, help, seconds};
use super::look::Look;
use super::panels;
use super::state::{Age, Happening, Panel, State, View};
use super::text::{cut_words, width, wrap};
use crate::status::document::Document;
use crate::status::human::{self, age, printable};
use crate::status::sentence;
use crate::status::table::Paint;

/// The smallest terminal that is drawn to: columns and lines.
const SMALLEST: [usize; 2] = [20, 6];

/// The lines of the sentence of state at most, in a low terminal and in a high one.
const SENTENCE_LINES: [usize; 2] = [2, 4];

/// A terminal is high from this many lines on.
const HIGH_FROM: usize = 30;

/// The curves are shown from this many lines on.
const CURVES_FROM: usize = 18;

/// The fewest cells of a curve.
const CURVE_CELLS_MIN: usize = 8;

/// The most cells of a curve: one for each second.
const CURVE_CELLS_MAX: usize = 120;

/// Draws the page. Returns how far it can be scrolled.
pub fn draw(frame: &mut Frame<'_>, state: &State, look: Look, now: Duration) -> usize {
    let area = frame.area();
    let (cells, lines) = (usize::from(area.width), usize::from(area.height));
    let page = Page { state, look, now, cells };
    if cells < SMALLEST[0] || lines < SMALLEST[1] {
        let [cells, lines] = SMALLEST;
        place(frame, area, vec![Line::raw(format!("too small: {cells}x{lines}"))]);
        return 0;
    }
    let mut top = vec![page.headline()];
    top.extend(page.sentence(lines));
    let room = lines.saturating_sub(top.len() + 1);
    let (body, scroll_max) = page.body(lines, room);
    top.extend(body.into_iter().take(room));
    top.resize(lines.saturating_sub(1), Line::default());
    top.push(page.footer());
    place(frame, area, top);
    scroll_max
}

fn place(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

/// Reads the value of a curve.
type ValueOf = fn(&Reading) -> f64;

struct Page<'a> {
    state: &'a State,
    look: Look,
    now: Duration,
    cells: usize,
}

impl Page<'_> {
    /// The cluster on the left, the age of the answer on the right.
    fn headline(&self) -> Line<'static> {
        let (age, paint) = match self.state.age(self.now) {
            Age::None if self.state.error.is_some() => ("no answer".to_owned(), Paint::Bad),
            Age::None => ("asking".to_owned(), Paint::Warning),
            Age::Live => ("live".to_owned(), Paint::Good),
            Age::Stale(age) => (format!("no answer, {} old", seconds(age)), Paint::Bad),
            Age::Paused(age) => (format!("paused, {} old", seconds(age)), Paint::Warning),
        };
        let mut parts = vec![format!("pgsteer {}", self.name())];
        if let Some(document) = self.state.document() {
            parts.extend(self.facts(document));
        }
        let room = self.cells.saturating_sub(width(&age) + 2);
        let mut left = String::new();
        for part in parts {
            let next = if left.is_empty() { part } else { format!("{left}  {part}") };
            if width(&next) > room {
                left = if left.is_empty() {
                    cut_words(&next, room, self.look.cut_mark())
                } else {
                    left
                };
                break;
            }
            left = next;
        }
        let padding = " ".repeat(self.cells.saturating_sub(width(&left) + width(&age)));
        Line::from(vec![
            Span::styled(left, self.look.style(Paint::Head)),
            Span::raw(padding),
            Span::styled(age, self.look.style(paint)),
        ])
    }

    fn name(&self) -> String {
        self.state.cluster().map(|cluster| printable(&cluster.name)).unwrap_or_default()
    }

    fn facts(&self, document: &Document) -> Vec<String> {
        let clients = format!("{} clients", document.clients);
        let version = printable(&document.version);
        let up = age(Duration::from_secs(document.uptime_seconds));
        vec![
            format!("{} UTC", document.now.clock()),
            clients,
            format!("version {version}"),
            format!("up {up}"),
        ]
    }

    /// The error of the last request, and the state in a sentence.
    fn sentence(&self, lines: usize) -> Vec<Line<'static>> {
        let error = self.state.error.as_deref().filter(|_| !self.state.is_paused);
        let error = error
            .map(|error| (format!("{} {error}", self.look.mark(sentence::Level::Bad)), Paint::Bad));
        let document = self.state.document();
        let state = document.map(sentence::state).map(|state| {
            let text = format!("{} {}", self.look.mark(state.level), state.sentence);
            // A good state that is old is not painted as good.
            let is_live = self.state.age(self.now) == Age::Live;
            (text, if is_live { state.level.paint() } else { Paint::None })
        });
        let lines_max = SENTENCE_LINES[usize::from(lines >= HIGH_FROM)];
        let wrapped = |(text, paint): (String, Paint)| {
            let mut lines = wrap(&printable(&text), self.cells);
            if lines.len() > lines_max {
                let rest = lines.split_off(lines_max - 1).join(" ");
                lines.push(cut_words(&rest, self.cells, self.look.cut_mark()));
            }
            lines.into_iter().map(move |line| (line, paint))
        };
        let all = error.into_iter().chain(state).flat_map(wrapped);
        all.map(|(line, paint)| Line::styled(line, self.look.style(paint))).collect()
    }

    /// What is below the sentence, and how far it can be scrolled.
    fn body(&self, lines: usize, room: usize) -> (Vec<Line<'static>>, usize) {
        match &self.state.view {
            View::Overview => (self.overview(lines, room), 0),
            View::Explain(subject) => self.passages(explain(self.state, subject), room),
            View::Sessions(member) => self.sessions(member, room),
            View::Help => self.passages(help(), room),
            View::Events => {
                let happenings = self.state.happenings().into_iter();
                let lines = happenings.flat_map(|happening| {
                    let text = format!("{}  {}", happening.at(), printable(happening.text()));
                    wrap(&text, self.cells)
                });
                self.scrolled(lines.map(Line::raw).collect(), room)
            }
        }
    }

    fn passages(&self, passages: Vec<Passage>, room: usize) -> (Vec<Line<'static>>, usize) {
        let mut lines = Vec::new();
        for passage in passages {
            let indent = " ".repeat(passage.indent);
            let style = self.look.style(passage.paint);
            let wrapped =
                wrap(&printable(&passage.text), self.cells.saturating_sub(passage.indent));
            if wrapped.is_empty() {
                lines.push(Line::default());
            }
            lines.extend(
                wrapped.into_iter().map(|line| Line::styled(format!("{indent}{line}"), style)),
            );
        }
        self.scrolled(lines, room)
    }

    /// The sessions at a member: their number, the headings, and as many rows as fit.
    fn sessions(&self, member: &str, room: usize) -> (Vec<Line<'static>>, usize) {
        let head = |text: String| {
            let text = cut_words(&printable(&text), self.cells, self.look.cut_mark());
            Line::styled(text, self.look.style(Paint::Head))
        };
        let answer = match self.state.sessions_of(member) {
            None => return (vec![head(format!("sessions at {member}: asking"))], 0),
            Some(Err(why)) => {
                let passage = |text: String, paint| Passage { indent: 0, text, paint };
                let title = passage(format!("sessions at {member}: not known"), Paint::Head);
                return self.passages(vec![title, passage(why.clone(), Paint::Bad)], room);
            }
            Some(Ok(answer)) => answer,
        };
        let count = answer.sessions.len();
        let title = match answer.omitted {
            0 => format!("{count} sessions at {member}"),
            more => format!("{count} sessions at {member}, and {more} more"),
        };
        let fitted = Fitted::new(panels::at_member(&answer.sessions, self.cells), self.cells);
        let rows = (0..count).map(|row| fitted.row(row, false, self.look)).collect();
        let mut lines = vec![head(title), fitted.head(self.look)];
        let (rows, scroll_max) = self.scrolled(rows, room.saturating_sub(lines.len()));
        lines.extend(rows);
        (lines, scroll_max)
    }

    fn scrolled(&self, lines: Vec<Line<'static>>, room: usize) -> (Vec<Line<'static>>, usize) {
        let scroll_max = lines.len().saturating_sub(room);
        (lines.into_iter().skip(self.state.scroll.min(scroll_max)).collect(), scroll_max)
    }

    fn overview(&self, lines: usize, room: usize) -> Vec<Line<'static>> {
        if self.state.document().is_none() {
            return Vec::new();
        }
        let mut body = Vec::new();
        if lines >= CURVES_FROM {
            body.extend(self.curves(lines));
        }
        let (services, members) = (self.state.services(), self.state.members());
        let rest = room.saturating_sub(body.len());
        let needed = services.len() + members.len() + 2 + EVENT_LINES;
        // A blank line before each table, if nothing is left out for it.
        let blanks = usize::from(rest >= needed + 3);
        let heights = Heights::of(rest - 3 * blanks, services.len(), members.len());
        let tables = [
            (
                Panel::Services,
                panels::services(&services, self.cells),
                services.len(),
                heights.services,
            ),
            (
                Panel::Members,
                panels::members(&members, &services, self.cells),
                members.len(),
                heights.members,
            ),
        ];
        for (panel, table, rows, height) in tables {
            body.extend(vec![Line::default(); blanks]);
            body.extend(self.table(panel, table, rows, height));
        }
        body.extend(vec![Line::default(); blanks]);
        body.extend(self.events(room.saturating_sub(body.len())));
        body
    }

    /// A table with its headings in at most `height` lines. If not all rows fit, the last line has the
    /// numbers of those that are shown.
    fn table(
        &self,
        panel: Panel,
        columns: Vec<Column>,
        rows: usize,
        height: usize,
    ) -> Vec<Line<'static>> {
        let fitted = Fitted::new(columns, self.cells);
        let mut lines = vec![fitted.head(self.look)];
        let selected = self.state.selected(panel);
        let window = Window::new(rows, selected, height.saturating_sub(1));
        for row in window.first..window.end {
            let is_selected = self.state.focus == panel && row == selected;
            lines.push(fitted.row(row, is_selected, self.look));
        }
        lines.extend(window.note());
        lines.truncate(height);
        lines
    }

    /// Changes and events, newest first, each on one line.
    fn events(&self, height: usize) -> Vec<Line<'static>> {
        if height < 2 {
            return Vec::new();
        }
        let happenings = self.state.happenings();
        let selected = self.state.selected(Panel::Events);
        let mut lines = vec![Line::styled(" TIME      EVENT", self.look.style(Paint::Head))];
        let window = Window::new(happenings.len(), selected, height - 1);
        let shown =
            happenings.iter().enumerate().skip(window.first).take(window.end - window.first);
        for (row, happening) in shown {
            let is_selected = self.state.focus == Panel::Events && row == selected;
            lines.push(self.event(happening, is_selected));
        }
        lines.extend(window.note());
        lines
    }

    fn event(&self, happening: &Happening<'_>, is_selected: bool) -> Line<'static> {
        let is_lasting = matches!(happening, Happening::Change(change) if change.until.is_none());
        let mark = if is_selected { ">" } else { " " };
        let text = format!("{mark}{}  {}", happening.at().clock(), printable(happening.text()));
        let line = cut_words(&text, self.cells, self.look.cut_mark());
        let style = self.look.style(if is_lasting { Paint::Bad } else { Paint::None });
        match is_selected {
            true => Line::styled(line, style.reversed()),
            false => Line::styled(line, style),
        }
    }

    /// The curves of the last two minutes: each on a line of its own in a high terminal, else as many as
    /// fit on one line.
    fn curves(&self, lines: usize) -> Vec<Line<'static>> {
        let last = self.state.readings.last();
        let curves: [(&str, ValueOf, String); 3] = [
            ("held", |it| it.held, format!("{:.0}", last.held)),
            ("bytes/s", |it| it.bytes, human::bytes(last.bytes)),
            ("new/s", |it| it.new_sessions, human::rate(last.new_sessions)),
        ];
        // Each has a label, a curve, a value and the blanks between them.
        let room = |count: usize| (self.cells.saturating_sub(1) / count).saturating_sub(17);
        let per_line = match lines {
            0..HIGH_FROM => (2..=curves.len()).rev().find(|it| room(*it) >= CURVE_CELLS_MIN),
            _ => None,
        };
        let per_line = per_line.unwrap_or(1);
        let cells = room(per_line).min(CURVE_CELLS_MAX);
        let parts = curves.map(|(label, value, figure)| {
            let curve = self.state.readings.curve(value, self.now, cells, self.look);
            // Labels of one column line up.
            let label_cells = if per_line == 1 { 7 } else { label.len() };
            format!("{label:<label_cells$} {curve} {figure:<8}")
        });
        let count = if lines >= HIGH_FROM { parts.len() } else { 1 };
        let all = parts.chunks(per_line).take(count);
        all.map(|parts| Line::raw(format!(" {}", parts.join(" ").trim_end()))).collect()
    }

    fn footer(&self) -> Line<'static> {
        let filter = printable(&self.state.filter);
        let text = match (self.state.is_typing, &self.state.view) {
            (true, _) => format!("filter: {filter}_  enter keeps it, esc clears it"),
            (false, View::Overview) => {
                let sort = self.state.sort.name();
                let filter = if filter.is_empty() { String::new() } else { format!(": {filter}") };
                let keys = format!(
                    "q quit  ? help  enter explain  S sessions  / filter{filter}  s sort: {sort}  e events"
                );
                // The help has this one too.
                let more = format!("{keys}  p pause");
                if width(&more) <= self.cells { more } else { keys }
            }
            (false, _) => "q quit  esc back  up down scroll  p pause  ? help".to_owned(),
        };
        let text = cut_words(&text, self.cells, self.look.cut_mark());
        Line::styled(text, self.look.style(Paint::Head))
    }
}

/// The lines of the tables, their headings included. The rest is for events.
struct Heights {
    services: usize,
    members: usize,
}

/// The lines for events while there is room: a heading and three events.
const EVENT_LINES: usize = 4;

impl Heights {
    fn of(room: usize, services: usize, members: usize) -> Heights {
        let [services, members] = [services + 1, members + 1];
        let services = services.min((room / 3).max(3));
        let rest = room.saturating_sub(services);
        let for_events = if rest >= 2 * EVENT_LINES { EVENT_LINES } else { 0 };
        Heights { services, members: members.min(rest - for_events) }
    }
}

/// The rows that are shown, so that the selected one is among them.
struct Window {
    first: usize,
    end: usize,
    rows: usize,
}

impl Window {
    fn new(rows: usize, selected: usize, height: usize) -> Window {
        // The note needs a line.
        let shown = if rows > height { height.saturating_sub(1) } else { rows };
        let first = (selected + 1).saturating_sub(shown).min(rows - shown);
        Window { first, end: first + shown, rows }
    }

    fn note(&self) -> Option<Line<'static>> {
        match self.end - self.first {
            shown if shown == self.rows => None,
            0 => Some(Line::raw(format!(" {} rows", self.rows))),
            _ => {
                let (first, end) = (self.first + 1, self.end);
                Some(Line::raw(format!(" {first} to {end} of {}", self.rows)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
