//! Fills the view from the status document.

use std::time::Duration;

use super::look::{GateLook, role_class, role_word};
use super::past::{CURVE_SECONDS, Curves};
use super::picture::{self, Door, DoorCard, MemberCard, Picture, PictureGate, Place};
use super::range;
use super::sparkline::curve;
use super::state::{self, advice, waiting_short};
use super::texts::{UNKNOWN, bytes_per_second, cut, per_second, seconds};
use super::timeline::{self, MemberPast, PastChange};
use super::view::{
    ChangeRow, ConfigShown, Curve, EventRow, GateMark, GateRow, MemberRow, Rows, ServiceRow, Title,
    Traffic, View,
};
use crate::http::past::Range;
use crate::status::document::{
    self, Cause, Change, Cluster, Document, Event, Gate, Member, Service,
};
use crate::status::human::{age, size};
use crate::status::sentence::Level;

/// The most rows of each table. A cluster has at most 64 members; /api/v1/status has everything.
const MEMBERS_MAX: usize = 64;
const GATES_MAX: usize = 16;
const ALL_GATES_MAX: usize = 40;
const EVENTS_MAX: usize = 8;
const CHANGES_MAX: usize = 8;
const STEPS_MAX: usize = 24;
/// In larger clusters the members have no curves: the page would become too large.
const MEMBERS_WITH_CURVES_MAX: usize = 16;
const CONFIG_LINES_MAX: usize = 60;

/// The longest name and the longest text, in characters.
const NAME_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 240;

/// The inputs of the page.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The state.
    pub document: &'a Document,
    /// The configuration in force.
    pub config: &'a ConfigShown,
    /// The past of the members.
    pub pasts: &'a [MemberPast],
    /// The samples of the curves.
    pub curves: &'a Curves,
    /// The range of the timeline.
    pub range: Range,
    /// The time since the engine's last turn.
    pub engine_age: Duration,
}

/// The view of the first cluster of `input`.
pub fn view(input: &Input<'_>) -> Option<View> {
    let document = input.document;
    let cluster = document.clusters.first()?;
    let gates = gates(document, cluster);
    let mattering = gates.iter().filter(|gate| gate.look.matters()).cloned().collect();
    Some(View {
        title: title(document, cluster),
        state: state::state(document, input.engine_age),
        picture: picture(cluster, input.config),
        services: cluster
            .services
            .iter()
            .map(|service| service_row(cluster, service, input))
            .collect(),
        members: Rows::first(
            cluster.members.iter().map(|member| member_row(member, input)).collect(),
            MEMBERS_MAX,
        ),
        gates: Rows::first(mattering, GATES_MAX),
        all_gates: Rows::first(gates, ALL_GATES_MAX),
        changes: changes(cluster),
        events: events(cluster),
        timeline: timeline::draw(input.pasts, &past_changes(cluster), document.now, input.range),
        ranges: range::links(input.range),
        range: range::key(input.range),
        around: super::around::groups(document, cluster),
        facts: super::facts::facts(document, cluster),
        config: input
            .config
            .lines
            .iter()
            .take(CONFIG_LINES_MAX)
            .map(|line| cut(line, TEXT_CHARS_MAX))
            .collect(),
    })
}

fn title(document: &Document, cluster: &Cluster) -> Title {
    let scope = cluster.scope.as_deref().filter(|scope| *scope != cluster.name);
    Title {
        cluster: cut(&cluster.name, NAME_CHARS_MAX),
        scope: scope.map(|scope| cut(scope, NAME_CHARS_MAX)),
        version: cut(&document.version, 40),
        uptime: age_in_steps(Duration::from_secs(document.uptime_seconds)),
        clients: document.clients,
        clock: document.now.clock(),
        date: document.now.date(),
    }
}

fn service_row(cluster: &Cluster, service: &Service, input: &Input<'_>) -> ServiceRow {
    let sessions = sessions_of(cluster, service);
    ServiceRow {
        name: cut(&service.name, NAME_CHARS_MAX),
        listen: input.config.listen.get(&service.name).map(|at| listen(at)),
        role: role_word(&service.role).to_owned(),
        open: match service.open.len() {
            0 => "no member".to_owned(),
            1..=4 => cut(&service.open.join(", "), NAME_CHARS_MAX),
            many => format!("{many} members"),
        },
        is_shut: service.open.is_empty(),
        sessions: match service.sessions_max {
            Some(max) => format!("{sessions} of {max}"),
            None => sessions.to_string(),
        },
        traffic: traffic_row(&service.traffic),
        held: service.held,
        longest: service.oldest_hold_seconds.map_or(UNKNOWN.to_owned(), seconds),
        refused: service.refused_total,
        curve: sessions_curve(input.curves.services.get(&service.name)),
    }
}

/// The address of a service, or only its port if it listens on all addresses.
fn listen(address: &str) -> String {
    let port = ["0.0.0.0:", "[::]:"].iter().find_map(|all| address.strip_prefix(all));
    port.map_or_else(|| cut(address, NAME_CHARS_MAX), |port| format!("port {port}"))
}

fn sessions_of(cluster: &Cluster, service: &Service) -> u64 {
    let gates = cluster.members.iter().filter_map(|member| member.services.get(&service.name));
    gates.map(|gate| gate.sessions).sum()
}

fn traffic_row(traffic: &document::Traffic) -> Traffic {
    Traffic {
        new: per_second(traffic.new_sessions_per_second),
        bytes_in: bytes_per_second(traffic.bytes_in_per_second),
        bytes_out: bytes_per_second(traffic.bytes_out_per_second),
    }
}

/// The rates of a member for all services.
fn sum(member: &Member) -> document::Traffic {
    let mut all = document::Traffic::default();
    for gate in member.services.values() {
        all.new_sessions_per_second += gate.traffic.new_sessions_per_second;
        all.bytes_in_per_second += gate.traffic.bytes_in_per_second;
        all.bytes_out_per_second += gate.traffic.bytes_out_per_second;
    }
    all
}

fn sessions_curve(samples: Option<&Vec<f32>>) -> Option<Curve> {
    curve("sessions", samples?, CURVE_SECONDS, |top| format!("{top:.0}"))
}

fn member_row(member: &Member, input: &Input<'_>) -> MemberRow {
    let mark = |(service, gate): (&String, &Gate)| GateMark {
        service: cut(service, NAME_CHARS_MAX),
        look: GateLook::of(gate),
        word: cut(&gate.gate, 20),
    };
    let samples = input.curves.members.get(&member.name);
    let samples = samples.filter(|_| input.curves.members.len() <= MEMBERS_WITH_CURVES_MAX);
    MemberRow {
        name: cut(&member.name, NAME_CHARS_MAX),
        endpoint: cut(&endpoint(member), NAME_CHARS_MAX),
        role_class: role_class(&member.role),
        role: cut(role_word(&member.role), 20),
        timeline: member.timeline.map_or(UNKNOWN.to_owned(), |timeline| timeline.to_string()),
        lag: lag(member).unwrap_or(UNKNOWN.to_owned()),
        load: member.load_percent.map_or(UNKNOWN.to_owned(), |load| format!("{load} %")),
        sessions: sessions_at(member),
        traffic: traffic_row(&sum(member)),
        gates: member.services.iter().map(mark).collect(),
        level: level(member),
        trouble: trouble(member).map(|text| cut(&text, TEXT_CHARS_MAX)),
        advice: advice(member.advice.as_ref()),
        curve: sessions_curve(samples),
    }
}

fn endpoint(member: &Member) -> String {
    match member.host.contains(':') {
        true => format!("[{}]:{}", member.host, member.port),
        false => format!("{}:{}", member.host, member.port),
    }
}

fn sessions_at(member: &Member) -> u64 {
    member.services.values().map(|gate| gate.sessions).sum()
}

fn level(member: &Member) -> Level {
    let matters = member.services.values().any(|gate| GateLook::of(gate).matters());
    match (member.rogue, member.trouble.is_some() || matters) {
        (true, _) => Level::Bad,
        (_, true) => Level::Note,
        _ => Level::Well,
    }
}

fn trouble(member: &Member) -> Option<String> {
    let own = member.trouble.as_ref().map(|cause| cause.text.clone());
    let same = member.same_as.as_ref().map(|other| format!("it is the same server as {other}"));
    let address = member.address_trouble.clone();
    own.or(same).or(address)
}

/// The lag of a member that has one.
fn lag(member: &Member) -> Option<String> {
    let bytes = member.lag_bytes.map(size);
    // The number may be negative in a document from another program.
    let time = member.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let known: Vec<String> = bytes.into_iter().chain(time.map(age)).collect();
    match (known.is_empty(), member.role.as_str()) {
        (false, _) => Some(known.join(", ")),
        (true, "replica" | "standby_leader") => Some("unknown".to_owned()),
        (true, _) => None,
    }
}

fn gates(document: &Document, cluster: &Cluster) -> Vec<GateRow> {
    let row = |service: &Service, member: &Member| {
        let gate = member.services.get(&service.name)?;
        Some(GateRow {
            service: cut(&service.name, NAME_CHARS_MAX),
            member: cut(&member.name, NAME_CHARS_MAX),
            look: GateLook::of(gate),
            word: cut(&gate.gate, 20),
            since: age_in_steps(document.now.since(gate.since)),
            sessions: gate.sessions,
            total: gate.sessions_total,
            ended: gate.sessions_ended_total,
            failed: gate.failed_total,
            reason: cut(reason(gate.reason.as_ref()), TEXT_CHARS_MAX),
            advice: advice(gate.advice.as_ref()),
        })
    };
    let of_service =
        |service| cluster.members.iter().filter_map(move |member| row(service, member));
    cluster.services.iter().flat_map(of_service).collect()
}

fn reason(cause: Option<&Cause>) -> &str {
    cause.map_or("", |cause| cause.text.as_str())
}

/// An age that changes rarely: most frames are then equal to the one before.
fn age_in_steps(exact: Duration) -> String {
    let seconds = exact.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        _ => age(exact),
    }
}

/// The changes, newest first, with their steps.
fn changes(cluster: &Cluster) -> Vec<ChangeRow> {
    let row = |change: &Change| {
        let steps = cluster.events.iter().filter(|event| change.contains(event)).map(event_row);
        let steps = Rows::first(steps.collect(), STEPS_MAX);
        ChangeRow {
            id: format!("change-{}", change.at.unix_millis()),
            clock: change.at.clock(),
            text: cut(&change.text, TEXT_CHARS_MAX),
            is_on: change.until.is_none(),
            steps: steps.rows,
            more: steps.more,
        }
    };
    cluster.changes.iter().rev().take(CHANGES_MAX).map(row).collect()
}

fn past_changes(cluster: &Cluster) -> Vec<PastChange> {
    let past = |change: &Change| PastChange {
        from: change.at,
        until: change.until,
        kind: cut(&change.kind, 20),
        text: cut(&change.text, TEXT_CHARS_MAX),
    };
    cluster.changes.iter().map(past).collect()
}

/// The events that are no step of a shown change, newest first.
fn events(cluster: &Cluster) -> Vec<EventRow> {
    let shown = cluster.changes.iter().rev().take(CHANGES_MAX);
    let is_step = |event: &&Event| shown.clone().any(|change| change.contains(event));
    let others = cluster.events.iter().rev().filter(|event| !is_step(event));
    others.take(EVENTS_MAX).map(event_row).collect()
}

fn event_row(event: &Event) -> EventRow {
    let (kind, text) = (cut(&event.kind, 30), cut(&event.text, TEXT_CHARS_MAX));
    EventRow { clock: event.at.clock(), kind, text }
}

fn picture(cluster: &Cluster, config: &ConfigShown) -> Picture {
    let door = |service: &Service| Door {
        card: DoorCard {
            name: cut(&service.name, 24),
            listen: config.listen.get(&service.name).map(|at| listen(at)),
            role: role_word(&service.role).to_owned(),
            sessions: sessions_of(cluster, service),
            waiting: waiting_short(service),
            is_shut: service.open.is_empty(),
        },
    };
    // Writers first, as the ports are usually numbered.
    let mut services: Vec<&Service> = cluster.services.iter().collect();
    services.sort_by_key(|service| service.role != "primary");
    let doors: Vec<Door> = services.iter().map(|service| door(service)).collect();
    let place = |member: &Member| Place {
        card: member_card(member),
        is_notable: level(member) > Level::Well || member.role == "primary",
        gates: services.iter().map(|service| picture_gate(member, service)).collect(),
    };
    picture::draw(&doors, cluster.members.iter().map(place).collect())
}

fn member_card(member: &Member) -> MemberCard {
    let timeline = member.timeline.map(|timeline| format!("timeline {timeline}"));
    let lag = lag(member).map(|lag| format!("lag {lag}"));
    let load = member.load_percent.map(|load| format!("load {load} %"));
    MemberCard {
        name: cut(&member.name, 40),
        role_class: role_class(&member.role),
        role: cut(role_word(&member.role), 20),
        facts: [timeline, lag, load].into_iter().flatten().collect(),
        sessions: sessions_at(member),
        level: level(member),
        trouble: trouble(member).map(|text| cut(&text, 120)),
    }
}

fn picture_gate(member: &Member, service: &Service) -> Option<PictureGate> {
    let gate = member.services.get(&service.name)?;
    Some(PictureGate {
        look: GateLook::of(gate),
        code: gate.reason.as_ref().map(|cause| cause.code.clone()),
        reason: gate.reason.as_ref().map(|cause| cut(&cause.text, TEXT_CHARS_MAX)),
        bytes_per_second: Some(
            gate.traffic.bytes_in_per_second + gate.traffic.bytes_out_per_second,
        ),
        sessions: gate.sessions,
    })
}
