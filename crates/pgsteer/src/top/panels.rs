//! Services, members and sessions as tables.

use std::time::Duration;

use super::columns::Column;
use super::state::{rates, sessions};
use crate::control::protocol::SessionLine;
use crate::status::document::{Gate, Member, Service};
use crate::status::human::{age, bytes, rate, size};
use crate::status::picture::endpoint;
use crate::status::table::Paint;

/// Where a value is unknown or does not apply.
const NONE: &str = "-";

/// The most cells of a name, on a wide terminal and on a narrow one.
const NAME_CELLS: [usize; 2] = [24, 12];

/// Terminals below this width are narrow.
const NARROW_BELOW: usize = 60;

fn name_cells(cells: usize) -> usize {
    NAME_CELLS[usize::from(cells < NARROW_BELOW)]
}

/// The services, for a terminal of this width.
pub fn services(services: &[&Service], cells: usize) -> Vec<Column> {
    let name_cells = name_cells(cells);
    let mut columns = Column::all([
        Column::names("SERVICE", 0, name_cells),
        Column::names("ROLE", 8, 14),
        Column::names("OPEN", 1, name_cells),
        Column::numbers("SESS", 4, 4),
        Column::numbers("NEW/s", 5, 5),
        Column::numbers("IN/s", 6, 6),
        Column::numbers("OUT/s", 6, 6),
        Column::numbers("HELD", 2, 4),
        Column::numbers("OLDEST", 3, 6),
        Column::numbers("REFUSED/s", 7, 9),
        Column::numbers("QUEUED", 9, 6),
    ]);
    for service in services {
        let traffic = &service.traffic;
        let open = match service.open.is_empty() {
            true => ("no member".to_owned(), Paint::Bad),
            false => (service.open.join(","), Paint::Good),
        };
        let waits = |number: u64| if number > 0 { Paint::Warning } else { Paint::None };
        let refused = service.refused_per_second;
        let oldest = service.oldest_hold_seconds.map(|held| format!("{held:.1}s"));
        columns.row([
            plain(&service.name),
            plain(&service.role),
            open,
            plain(&of_limit(service.sessions, service.sessions_max)),
            plain(&rate(traffic.new_sessions_per_second)),
            plain(&bytes(traffic.bytes_in_per_second)),
            plain(&bytes(traffic.bytes_out_per_second)),
            (service.held.to_string(), waits(service.held)),
            plain(oldest.as_deref().unwrap_or(NONE)),
            (rate(refused), if refused > 0.0 { Paint::Bad } else { Paint::None }),
            (service.queued.to_string(), waits(service.queued)),
        ]);
    }
    columns.0
}

/// The members with their gates to `services`, for a terminal of this width.
pub fn members(members: &[&Member], services: &[&Service], cells: usize) -> Vec<Column> {
    let gates = services.len();
    // After the role come the gates, then the figures.
    let after = |priority: usize| priority + gates;
    let mut columns = vec![
        Column::names("MEMBER", 0, name_cells(cells)),
        Column::names("ROLE", 1, 14),
        Column::numbers("TL", after(6), 2),
        Column::numbers("LAG", after(3), 6),
        Column::numbers("LOAD", after(7), 4),
        Column::numbers("SESS", after(2), 4),
        Column::numbers("IN/s", after(4), 6),
        Column::numbers("OUT/s", after(5), 6),
    ];
    for (number, service) in services.iter().enumerate() {
        let title = service.name.to_uppercase();
        columns.push(Column::names(&title, number + 2, 10));
    }
    columns.push(Column::names("HOST:PORT", after(8), 40));
    let mut columns = Columns(columns);
    for member in members {
        let [bytes_in, bytes_out] = rates(member);
        let lag = lag(member);
        let timeline = member.timeline.map(|timeline| timeline.to_string());
        let load = member.load_percent.map(|load| format!("{load}%"));
        let mut row = vec![
            (member.name.clone(), if member.trouble.is_some() { Paint::Bad } else { Paint::None }),
            (member.role.clone(), if member.rogue { Paint::Bad } else { Paint::None }),
            plain(timeline.as_deref().unwrap_or(NONE)),
            plain(&lag),
            plain(load.as_deref().unwrap_or(NONE)),
            plain(&sessions(member).to_string()),
            plain(&bytes(bytes_in)),
            plain(&bytes(bytes_out)),
        ];
        row.extend(services.iter().map(|service| gate(member.services.get(&service.name))));
        row.push(plain(&endpoint(member)));
        columns.row(row);
    }
    columns.0
}

/// Sessions at a member, for a terminal of this width.
pub fn at_member(sessions: &[SessionLine], cells: usize) -> Vec<Column> {
    let name_cells = name_cells(cells);
    let mut columns = Column::all([
        Column::names("CLIENT", 0, 47),
        Column::names("USER", 1, name_cells),
        Column::names("DATABASE", 3, name_cells),
        Column::names("SERVICE", 4, name_cells),
        Column::numbers("AGE", 5, 4),
        Column::numbers("IDLE", 2, 4),
        Column::numbers("IN", 6, 6),
        Column::numbers("OUT", 7, 6),
        Column::names("TLS", 8, 3),
    ]);
    let time = |seconds: f64| age(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    for session in sessions {
        columns.row([
            plain(session.client.as_deref().unwrap_or(NONE)),
            plain(session.user.as_deref().unwrap_or(NONE)),
            plain(session.database.as_deref().unwrap_or(NONE)),
            plain(&session.service),
            plain(&time(session.age_seconds)),
            plain(&time(session.idle_seconds)),
            plain(&size(session.bytes_in)),
            plain(&size(session.bytes_out)),
            plain(if session.tls { "yes" } else { "no" }),
        ]);
    }
    columns.0
}

/// The columns of a table.
struct Columns(Vec<Column>);

impl Columns {
    fn row(&mut self, cells: impl IntoIterator<Item = (String, Paint)>) {
        for (column, (text, paint)) in self.0.iter_mut().zip(cells) {
            column.push(&text, paint);
        }
    }
}

impl Column {
    fn all<const N: usize>(columns: [Column; N]) -> Columns {
        Columns(columns.into())
    }
}

fn plain(text: &str) -> (String, Paint) {
    (text.to_owned(), Paint::None)
}

/// The state of a gate as a word. An open gate with a reservation has an asterisk. The gate of a member
/// with another role is a dash, as in every healthy cluster.
pub fn gate(gate: Option<&Gate>) -> (String, Paint) {
    let Some(gate) = gate else { return plain(NONE) };
    match (gate.gate.as_str(), &gate.reason) {
        (_, Some(cause)) if cause.code == "wrong_role" => plain(NONE),
        ("open", None) => ("open".to_owned(), Paint::Good),
        ("open", Some(_)) => ("open*".to_owned(), Paint::Warning),
        ("shut", _) => ("shut".to_owned(), Paint::Bad),
        (other, _) => (other.to_owned(), Paint::Warning),
    }
}

/// The lag in short form: as time where that is known, else in bytes.
pub fn lag(member: &Member) -> String {
    let time = member.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match (time, member.lag_bytes, member.role.as_str()) {
        (Some(time), ..) => age(time),
        (None, Some(bytes), _) => size(bytes),
        (None, None, "replica" | "standby_leader") => "?".to_owned(),
        (None, None, _) => NONE.to_owned(),
    }
}

/// A number with its limit, if there is one.
pub fn of_limit(number: u64, limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!("{number}/{limit}"),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn a_number_has_its_limit_beside_it() {
        assert_eq!((of_limit(7, None), of_limit(7, Some(100))), ("7".into(), "7/100".into()));
    }

    #[test]
    fn a_gate_is_a_word_and_another_role_is_no_trouble() {
        let document = sample::document_of(&sample::snapshot());
        let members = &document.clusters[0].members;
        let word = |member: usize, service: &str| gate(members[member].services.get(service)).0;
        assert_eq!(word(0, "write"), "shut");
        assert_eq!(word(0, "read"), "probation");
        assert_eq!(word(1, "read"), "open*");
        assert_eq!(word(2, "read"), "draining");
        assert_eq!(word(2, "write"), "-", "a replica at the write service");
        assert_eq!(word(2, "no such service"), "-");
    }

    #[test]
    fn a_lag_is_a_time_if_it_is_known() {
        let document = sample::document_of(&sample::snapshot());
        let lags: Vec<String> = document.clusters[0].members.iter().map(lag).collect();
        assert_eq!(lags, ["-", "340ms", "?"]);
    }
}
