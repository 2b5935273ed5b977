//! What is shown: the last answer, and what the operator chose. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::curve::{Reading, Readings};
use crate::control::protocol::SessionsAnswer;
use crate::status::document::{Change, Cluster, Document, Event, Member, Service};
use crate::status::stamp::Stamp;

/// An answer counts as present for this long. pgsteer is asked every second.
const LIVE_FOR: Duration = Duration::from_secs(3);

/// The longest filter, in characters.
const FILTER_CHARS_MAX: usize = 40;

/// What fills the page below the headline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Services, members and events.
    #[default]
    Overview,
    /// All that is known about the selected row.
    Explain(Subject),
    /// The sessions at a member, by its name.
    Sessions(String),
    /// All events.
    Events,
    /// The keys.
    Help,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service, by name.
    Service(String),
    /// A member, by name.
    Member(String),
    /// An event or a change, by its time and its text.
    Happening(Stamp, String),
}

/// A panel of the overview.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Panel {
    /// The services.
    Services,
    /// The members.
    #[default]
    Members,
    /// Changes and events.
    Events,
}

/// The order of the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// The primary first.
    Role,
    /// The highest lag first.
    Lag,
    /// The most sessions first.
    Sessions,
    /// The most bytes first.
    Traffic,
    /// The highest load first.
    Load,
}

/// The age of what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Age {
    /// There is no answer yet.
    None,
    /// The answer is the present state.
    Live,
    /// pgsteer does not answer.
    Stale(Duration),
    /// The operator stopped the updates.
    Paused(Duration),
}

/// A switchover, a failover or an outage, or an event.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A switchover, a failover or an outage.
    Change(&'a Change),
    /// An event.
    Event(&'a Event),
}

impl Happening<'_> {
    /// Its time.
    pub fn at(&self) -> Stamp {
        match self {
            Happening::Change(change) => change.at,
            Happening::Event(event) => event.at,
        }
    }

    /// Its sentence.
    pub fn text(&self) -> &str {
        match self {
            Happening::Change(change) => &change.text,
            Happening::Event(event) => &event.text,
        }
    }
}

/// The sessions at a member.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// The member.
    pub member: String,
    /// The sessions, or why they are not known.
    pub answer: Result<SessionsAnswer, String>,
}

/// The state of the page.
#[derive(Debug, Default)]
pub struct State {
    last: Option<(Document, Duration)>,
    sessions: Option<Sessions>,
    /// Why there was no answer to the last request.
    pub error: Option<String>,
    /// The readings of the last two minutes.
    pub readings: Readings,
    /// What fills the page.
    pub view: View,
    /// The panel that the arrows move in.
    pub focus: Panel,
    /// The order of the members.
    pub sort: Sort,
    /// A part of the names, roles, gates or reasons of the members that are shown.
    pub filter: String,
    /// The operator types the filter.
    pub is_typing: bool,
    /// The updates are stopped.
    pub is_paused: bool,
    /// How far a page that is longer than the terminal was scrolled, in lines.
    pub scroll: usize,
    selected: BTreeMap<Panel, String>,
}

impl State {
    /// Handles an answer that arrived at `at`.
    pub fn receive(&mut self, document: Document, at: Duration) {
        // The answer to a request from before the pause.
        if self.is_paused {
            return;
        }
        if let Some(cluster) = document.clusters.first() {
            self.readings.push(Reading::of(cluster), at);
        }
        self.last = Some((document, at));
        self.error = None;
    }

    /// Handles a request that failed.
    pub fn fail(&mut self, why: &str) {
        if !self.is_paused {
            self.error = Some(why.to_owned());
        }
    }

    /// Handles an answer about sessions.
    pub fn receive_sessions(&mut self, sessions: Sessions) {
        if !self.is_paused {
            self.sessions = Some(sessions);
        }
    }

    /// The member whose sessions are shown; none while the updates are stopped.
    pub fn wants_sessions_of(&self) -> Option<&str> {
        match &self.view {
            View::Sessions(member) if !self.is_paused => Some(member),
            _ => None,
        }
    }

    /// The sessions at `member`; none before the first answer.
    pub fn sessions_of(&self, member: &str) -> Option<&Result<SessionsAnswer, String>> {
        let sessions = self.sessions.as_ref().filter(|it| it.member == member);
        sessions.map(|sessions| &sessions.answer)
    }

    /// The last answer.
    pub fn document(&self) -> Option<&Document> {
        self.last.as_ref().map(|(document, _)| document)
    }

    /// Its cluster. At present a pgsteer has one.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.document()?.clusters.first()
    }

    /// The age of what is shown.
    pub fn age(&self, now: Duration) -> Age {
        let Some((_, at)) = &self.last else { return Age::None };
        let age = now.saturating_sub(*at);
        match (self.is_paused, &self.error) {
            (true, _) => Age::Paused(age),
            (false, None) if age < LIVE_FOR => Age::Live,
            (false, _) => Age::Stale(age),
        }
    }

    /// The services.
    pub fn services(&self) -> Vec<&Service> {
        self.cluster().map(|cluster| cluster.services.iter().collect()).unwrap_or_default()
    }

    /// The members that the filter lets through, in their order.
    pub fn members(&self) -> Vec<&Member> {
        let all = self.cluster().map(|cluster| cluster.members.as_slice()).unwrap_or_default();
        let filter = self.filter.to_lowercase();
        let mut members: Vec<&Member> =
            all.iter().filter(|member| matches(member, &filter)).collect();
        // The document has them by name, and the sort is stable.
        match self.sort {
            Sort::Name => {}
            Sort::Role => members.sort_by_key(|member| rank(&member.role)),
            Sort::Lag => members.sort_by(|a, b| lag(b).total_cmp(&lag(a))),
            Sort::Sessions => members.sort_by_key(|member| Reverse(sessions(member))),
            Sort::Traffic => members.sort_by(|a, b| traffic(b).total_cmp(&traffic(a))),
            Sort::Load => members.sort_by_key(|member| Reverse(member.load_percent)),
        }
        members
    }

    /// Changes and events without the steps of those changes, newest first.
    pub fn happenings(&self) -> Vec<Happening<'_>> {
        let Some(cluster) = self.cluster() else { return Vec::new() };
        let is_step = |event: &&Event| cluster.changes.iter().any(|change| change.contains(event));
        let events = cluster.events.iter().filter(|event| !is_step(event)).map(Happening::Event);
        let mut all: Vec<Happening<'_>> =
            cluster.changes.iter().map(Happening::Change).chain(events).collect();
        all.sort_by_key(Happening::at);
        all.reverse();
        all
    }

    /// The names of the rows of a panel.
    fn rows(&self, panel: Panel) -> Vec<String> {
        match panel {
            Panel::Services => self.services().iter().map(|it| it.name.clone()).collect(),
            Panel::Members => self.members().iter().map(|it| it.name.clone()).collect(),
            Panel::Events => names_of(&self.happenings()),
        }
    }

    /// The selected row of a panel. A row that is gone is replaced by the first one.
    pub fn selected(&self, panel: Panel) -> usize {
        let name = self.selected.get(&panel);
        let rows = self.rows(panel);
        rows.iter().position(|row| Some(row) == name).unwrap_or(0)
    }

    /// Moves the selection of the focused panel by `rows`.
    pub fn select(&mut self, rows: isize) {
        let panel = self.focus;
        let names = self.rows(panel);
        let last = names.len().saturating_sub(1);
        let next = self.selected(panel).saturating_add_signed(rows).min(last);
        if let Some(name) = names.into_iter().nth(next) {
            self.selected.insert(panel, name);
        }
    }

    /// Moves the focus to the next panel, or with `back` to the one before.
    pub fn focus_next(&mut self, back: bool) {
        self.focus = match (self.focus, back) {
            (Panel::Services, false) | (Panel::Events, true) => Panel::Members,
            (Panel::Members, false) | (Panel::Services, true) => Panel::Events,
            (Panel::Events, false) | (Panel::Members, true) => Panel::Services,
        };
    }

    /// Shows another view from its beginning.
    pub fn show(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    /// Explains the selected row.
    pub fn explain(&mut self) {
        let row = self.selected(self.focus);
        let subject = match self.focus {
            Panel::Services => {
                self.services().get(row).map(|service| Subject::Service(service.name.clone()))
            }
            Panel::Members => {
                self.members().get(row).map(|member| Subject::Member(member.name.clone()))
            }
            Panel::Events => {
                let happenings = self.happenings();
                happenings.get(row).map(|it| Subject::Happening(it.at(), it.text().to_owned()))
            }
        };
        if let Some(subject) = subject {
            self.show(View::Explain(subject));
        }
    }

    /// Shows the sessions at the member that is explained or selected.
    pub fn show_sessions(&mut self) {
        let member = match (&self.view, self.focus) {
            (View::Explain(Subject::Member(member)), _) => Some(member.clone()),
            (View::Overview, Panel::Members) => {
                let row = self.selected(Panel::Members);
                self.members().get(row).map(|member| member.name.clone())
            }
            _ => None,
        };
        if let Some(member) = member {
            self.show(View::Sessions(member));
        }
    }

    /// Adds a character to the filter.
    pub fn type_filter(&mut self, letter: char) {
        if self.filter.chars().count() < FILTER_CHARS_MAX && !letter.is_control() {
            self.filter.push(letter);
        }
    }
}

impl Sort {
    /// The next order.
    pub fn next(self) -> Sort {
        match self {
            Sort::Name => Sort::Role,
            Sort::Role => Sort::Lag,
            Sort::Lag => Sort::Sessions,
            Sort::Sessions => Sort::Traffic,
            Sort::Traffic => Sort::Load,
            Sort::Load => Sort::Name,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Role => "role",
            Sort::Lag => "lag",
            Sort::Sessions => "sessions",
            Sort::Traffic => "traffic",
            Sort::Load => "load",
        }
    }
}

/// Names for happenings, each of its own: the time with the kind or the text. Of those that are the same
/// each further one has a number.
fn names_of(happenings: &[Happening<'_>]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut name_of = |happening: &Happening<'_>| {
        let name = match happening {
            // The text of a change that lasts is another one each time.
            Happening::Change(change) => format!("{} {}", change.at, change.kind),
            Happening::Event(event) => format!("{} {}", event.at, event.text),
        };
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        format!("{name} {number}")
    };
    happenings.iter().map(&mut name_of).collect()
}

fn matches(member: &Member, filter: &str) -> bool {
    let gates = member.services.values();
    let of_gates = gates.flat_map(|gate| {
        [Some(gate.gate.as_str()), gate.reason.as_ref().map(|cause| cause.code.as_str())]
    });
    let own = [&member.name, &member.host, &member.role].map(|text| Some(text.as_str()));
    let trouble = member.trouble.as_ref().map(|cause| cause.code.as_str());
    let mut texts = own.into_iter().chain([trouble]).chain(of_gates).flatten();
    filter.is_empty() || texts.any(|text| text.to_lowercase().contains(filter))
}

fn rank(role: &str) -> usize {
    let roles = ["primary", "standby_leader", "replica"];
    roles.iter().position(|known| *known == role).unwrap_or(roles.len())
}

/// The lag for the order: an unknown lag of a replica is the highest.
fn lag(member: &Member) -> f64 {
    let bytes = member.lag_bytes.map(|bytes| bytes as f64);
    match (bytes, member.lag_seconds, member.role.as_str()) {
        (Some(bytes), ..) => bytes,
        // A second counts as one megabyte where only the time is known.
        (None, Some(seconds), _) => seconds * 1e6,
        (None, None, "primary") => -1.0,
        (None, None, _) => f64::INFINITY,
    }
}

/// The sessions of a member over all services.
pub fn sessions(member: &Member) -> u64 {
    member.services.values().map(|gate| gate.sessions).sum()
}

/// The bytes per second of a member over all services, in both directions.
pub fn traffic(member: &Member) -> f64 {
    let [bytes_in, bytes_out] = rates(member);
    bytes_in + bytes_out
}

/// The bytes per second from and to clients of a member over all services.
pub fn rates(member: &Member) -> [f64; 2] {
    member.services.values().fold([0.0, 0.0], |[bytes_in, bytes_out], gate| {
        let traffic = &gate.traffic;
        [bytes_in + traffic.bytes_in_per_second, bytes_out + traffic.bytes_out_per_second]
    })
}

#[cfg(test)]
mod tests;
