//! The answers of HAProxy's Runtime API, parsed: `show info`, `show backend`, `show servers state` and
//! `show stat`.
//!
//! Columns are found by the names in the header, because each version of HAProxy adds some (management
//! guide, "show stat" and "show servers state"). Lines that are not understood are an error: pgsteer
//! does not steer what it cannot read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use pgsteer_core::text::clean;
use pgsteer_files::render::HaproxyVersion;
use thiserror::Error;

/// The maximum number of servers of all backends together.
pub const SERVERS_MAX: usize = 4_096;

/// The maximum number of characters of HAProxy's texts in a message.
const SHOWN_CHARS_MAX: usize = 100;

/// Why an answer cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnswerError {
    /// The peer is another program.
    #[error("no HAProxy answers there: `show info` returned \"{0}\"")]
    NoHaproxy(String),
    /// HAProxy refuses a command because of the level of the socket.
    #[error("HAProxy refuses the command: \"{0}\"; its `stats socket` line needs `level admin`")]
    Level(String),
    /// A header without a column that is needed.
    #[error("the answer to `{command}` has no column {column}")]
    Column {
        /// The command.
        command: &'static str,
        /// The missing column.
        column: &'static str,
    },
    /// A line that does not have the columns of its header.
    #[error("the answer to `{command}` is not understood: \"{line}\"")]
    Line {
        /// The command.
        command: &'static str,
        /// The line, safe to show.
        line: String,
    },
    /// A server without statistics.
    #[error("`show stat` has no line for server {0}")]
    Statistics(String),
    /// There are more servers than [`SERVERS_MAX`].
    #[error("the backends have more than {SERVERS_MAX} servers")]
    TooMany,
}

/// A process of HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in seconds of Unix time. In a container each start may have the same process id.
    pub started_seconds: u64,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
}

/// What distinguishes a process from those before it: its id and its start.
pub type ProcessKey = (u32, u64);

impl Process {
    /// Its key.
    pub fn key(&self) -> ProcessKey {
        (self.pid, self.started_seconds)
    }

    /// Returns true if a client for which this HAProxy is connecting to a server when its sessions are ended may
    /// hang for ever: then the sessions end one observation after the weight is 0. This helps where the server
    /// refuses or answers, and not where a connection attempt takes longer.
    pub fn loses_connecting_clients(&self) -> bool {
        HaproxyVersion::read(&self.version).is_ok_and(HaproxyVersion::loses_connecting_clients)
    }
}

/// What a person has set by `set server ... state`, or the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// Nothing.
    #[default]
    Ready,
    /// `state drain`: no new sessions.
    Drain,
    /// `state maint`: no sessions, and no health checks.
    Maint,
    /// Maintenance because its host name has no address.
    Unresolved,
}

impl Admin {
    /// The bits of `srv_admin_state` (HAProxy's `server-t.h`), in hexadecimal here and in decimal in the answer: 01
    /// forced, 02 inherited and 04 configured maintenance, 08 forced and 10 inherited drain, 20 no address. 40
    /// is only the origin of the name.
    fn of_bits(bits: u32) -> Admin {
        match bits {
            _ if bits & 0x07 != 0 => Admin::Maint,
            _ if bits & 0x18 != 0 => Admin::Drain,
            _ if bits & 0x20 != 0 => Admin::Unresolved,
            _ => Admin::Ready,
        }
    }
}

/// A server of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its address; none if its name is not resolved.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// What a person has set.
    pub admin: Admin,
    /// The weight; at 0 it gets no new sessions.
    pub weight: u32,
    /// It is neither DOWN nor stopping by its health checks.
    pub is_up: bool,
    /// The state as `show stat` shows it, as `UP` or `DOWN 1/2`.
    pub status: String,
    /// The result of its last health check, as `L7OK`; empty without a check.
    pub check: String,
    /// The last health check failed.
    pub check_fails: bool,
    /// Sessions now.
    pub sessions: u64,
    /// Connections that wait for a place at this server.
    pub queue: u64,
    /// Seconds since it became UP or DOWN.
    pub changed_seconds: Option<u64>,
    /// Seconds since its last session began.
    pub session_seconds: Option<u64>,
}

impl Server {
    /// Returns true if HAProxy sends new sessions to it.
    pub fn gets_sessions(&self) -> bool {
        self.is_up && self.weight > 0 && self.admin == Admin::Ready
    }
}

/// Returns the process that answered `show info`.
///
/// # Errors
/// The text is not the answer of a HAProxy.
pub fn process(text: &str) -> Result<Process, AnswerError> {
    let mut process = Process::default();
    let mut is_haproxy = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        match key {
            "Name" => is_haproxy = value.trim() == "HAProxy",
            "Version" => process.version = shown(value),
            "Pid" => process.pid = value.trim().parse().unwrap_or(0),
            "Start_time_sec" => process.started_seconds = value.trim().parse().unwrap_or(0),
            "Uptime_sec" => process.uptime_seconds = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    if is_haproxy && process.pid != 0 {
        return Ok(process);
    }
    Err(refused(text).unwrap_or_else(|| AnswerError::NoHaproxy(shown(text))))
}

/// Returns the names that `show backend` lists.
pub fn backends(text: &str) -> BTreeSet<String> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.take(SERVERS_MAX).map(str::to_owned).collect()
}

/// Returns the servers of one backend, from `show servers state` and `show stat`.
///
/// # Errors
/// One of the texts is not such an answer.
pub fn servers(state: &str, stat: &str) -> Result<Vec<Server>, AnswerError> {
    let mut shown = statistics(stat)?;
    let table = Table::read(SERVERS_STATE, state)?;
    let server = |row: Row<'_, '_>| {
        let name = row.get("srv_name")?;
        Ok(Server {
            name: name.to_owned(),
            address: row.get("srv_addr")?.parse().ok(),
            port: row.number("srv_port")?,
            admin: Admin::of_bits(row.number("srv_admin_state")?),
            weight: row.number("srv_uweight")?,
            // 0 stopped, 1 starting, 2 running, 3 stopping.
            is_up: matches!(row.number::<u32>("srv_op_state")?, 1 | 2),
            ..shown.remove(name).ok_or_else(|| AnswerError::Statistics(name.to_owned()))?
        })
    };
    table.rows().map(server).collect()
}

const SERVERS_STATE: &str = "show servers state";
const STAT: &str = "show stat";

/// Returns the number of the backend that `show servers state` describes; none if it has no server.
///
/// A `frontend` may have the name of a `backend`, and `show stat` finds the frontend by that name.
///
/// # Errors
/// The text is not such an answer.
pub fn backend_number(state: &str) -> Result<Option<u32>, AnswerError> {
    let table = Table::read(SERVERS_STATE, state)?;
    let number = table.rows().next().map(|row| row.number("be_id"));
    number.transpose()
}

fn statistics(text: &str) -> Result<BTreeMap<String, Server>, AnswerError> {
    let table = Table::read(STAT, text)?;
    let server = |row: Row<'_, '_>| {
        let check = row.get("check_status")?.trim_start_matches("* ");
        let server = Server {
            status: shown(row.get("status")?),
            check: shown(check),
            check_fails: !check.is_empty() && !is_passed(check),
            sessions: row.number("scur")?,
            queue: row.number("qcur")?,
            changed_seconds: row.get("lastchg")?.parse().ok(),
            // -1 if there was none.
            session_seconds: row.get("lastsess")?.parse().ok(),
            ..Server::default()
        };
        Ok((row.get("svname")?.to_owned(), server))
    };
    table.rows().map(server).collect()
}

/// `INI`, `L4OK`, `L6OK`, `L7OK`, `L7OKC` and `PROCOK`; `UNK` and `CHECKED` are no failures either.
fn is_passed(check: &str) -> bool {
    check.contains("OK") || matches!(check, "INI" | "UNK" | "CHECKED")
}

/// The lines of an answer, and the columns of its header.
struct Table<'a> {
    command: &'static str,
    columns: BTreeMap<&'a str, usize>,
    lines: Vec<&'a str>,
}

/// One line.
struct Row<'t, 'a> {
    table: &'t Table<'a>,
    line: &'a str,
    values: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// The header begins with `#`. The version of the format before it (`show servers state`) is
    /// ignored.
    fn read(command: &'static str, text: &'a str) -> Result<Table<'a>, AnswerError> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let Some(header) = lines.by_ref().take(3).find_map(|line| line.strip_prefix("# ")) else {
            let line = shown(text);
            return Err(refused(text).unwrap_or(AnswerError::Line { command, line }));
        };
        let names = fields(command, header).into_iter().enumerate();
        let columns = names.map(|(at, name)| (name, at)).collect();
        let lines: Vec<&str> = lines.take(SERVERS_MAX + 1).collect();
        match lines.len() > SERVERS_MAX {
            true => Err(AnswerError::TooMany),
            false => Ok(Table { command, columns, lines }),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_, 'a>> {
        self.lines.iter().map(|line| Row { table: self, line, values: fields(self.command, line) })
    }
}

impl<'a> Row<'_, 'a> {
    fn get(&self, column: &'static str) -> Result<&'a str, AnswerError> {
        let command = self.table.command;
        let at = self.table.columns.get(column);
        let at = at.ok_or(AnswerError::Column { command, column })?;
        self.values.get(*at).copied().ok_or_else(|| self.misread())
    }

    fn number<T: FromStr>(&self, column: &'static str) -> Result<T, AnswerError> {
        self.get(column)?.parse().map_err(|_| self.misread())
    }

    fn misread(&self) -> AnswerError {
        AnswerError::Line { command: self.table.command, line: shown(self.line) }
    }
}

/// The fields of a line: separated by spaces, or by commas in `show stat`, where a field may be quoted.
fn fields<'a>(command: &str, line: &'a str) -> Vec<&'a str> {
    if command == SERVERS_STATE {
        return line.split_ascii_whitespace().collect();
    }
    let mut is_quoted = false;
    line.split(|c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    })
    .map(|field| field.trim_matches('"'))
    .collect()
}

/// The reason of a refusal, if the text is one.
pub fn refused(text: &str) -> Option<AnswerError> {
    let text = text.trim();
    text.starts_with("Permission denied").then(|| AnswerError::Level(shown(text)))
}

/// The start of a text of HAProxy, safe to show.
pub fn shown(text: &str) -> String {
    let start: String = text.trim().chars().take(SHOWN_CHARS_MAX).collect();
    clean(&start).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state \
         srv_uweight srv_iweight srv_time_since_last_change srv_port\n\
         3 write 1 n1 10.0.0.11 2 0 1 1 12 5432\n3 write 2 n2 - 0 9 0 1 12 5432\n";
    const STAT_TEXT: &str = "# pxname,svname,qcur,scur,status,lastchg,check_status,last_chk,lastsess,\n\
         write,n1,0,7,UP,12,L7OK,\"a \"\"b\"\", c\",3,\n\
         write,n2,1,0,MAINT,12,* L4CON,,-1,\n";

    #[test]
    fn servers_are_read_by_the_names_of_the_columns() {
        let servers = servers(STATE, STAT_TEXT).unwrap();
        let [n1, n2] = servers.as_slice() else { panic!("{servers:?}") };
        assert_eq!((n1.name.as_str(), n1.is_up, n1.weight, n1.sessions), ("n1", true, 1, 7));
        assert_eq!((n1.admin, n1.check_fails, n1.session_seconds), (Admin::Ready, false, Some(3)));
        assert_eq!((n2.admin, n2.check_fails, n2.check.as_str()), (Admin::Maint, true, "L4CON"));
        assert_eq!((n2.address, n2.session_seconds, n2.queue), (None, None, 1));
    }

    #[test]
    fn the_bits_of_the_administrators_state_are_written_in_decimal() {
        let unresolved = STATE.replace(" 0 9 0 1 ", " 0 32 0 1 ");
        assert_eq!(servers(&unresolved, STAT_TEXT).unwrap()[1].admin, Admin::Unresolved);
    }

    /// As `show stat` of a frontend with the name of the backend would lack it.
    #[test]
    fn a_server_without_statistics_is_an_error() {
        let (start, _) = STAT_TEXT.split_once("write,n2").unwrap();
        assert_eq!(servers(STATE, start), Err(AnswerError::Statistics("n2".to_owned())));
        assert_eq!(backend_number(STATE), Ok(Some(3)));
        let (header, _) = STATE.split_once("3 write").unwrap();
        assert_eq!(backend_number(header), Ok(None));
    }

    #[test]
    fn the_administrators_state_is_read_from_its_bits() {
        for (bits, admin) in [
            (0x00, Admin::Ready),
            (0x01, Admin::Maint),
            (0x04, Admin::Maint),
            (0x08, Admin::Drain),
            (0x20, Admin::Unresolved),
            (0x40, Admin::Ready),
            (0x49, Admin::Maint),
        ] {
            assert_eq!(Admin::of_bits(bits), admin, "{bits:x}");
        }
    }

    #[test]
    fn a_process_of_another_program_is_no_haproxy() {
        let good = "Name: HAProxy\nVersion: 2.6.12\nPid: 17\nUptime_sec: 3\n";
        assert_eq!(process(good).unwrap().pid, 17);
        assert!(matches!(process(""), Err(AnswerError::NoHaproxy(_))));
        assert!(matches!(process("HTTP/1.1 400 Bad Request"), Err(AnswerError::NoHaproxy(_))));
        assert!(matches!(process("Permission denied\n"), Err(AnswerError::Level(_))));
    }

    #[test]
    fn garbage_is_an_error_and_is_shown_short_and_clean() {
        let long = "x\u{1b}[31m".repeat(100_000);
        for text in ["", "1\n", "# a b\n1 2\n", "\0\0\0", "# \n#\n", long.as_str()] {
            let error = servers(text, STAT_TEXT).unwrap_err().to_string();
            assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
            assert!(servers(STATE, text).is_err(), "{text:.20}");
        }
        let cut = STATE.replace(" 12 5432", "");
        assert!(matches!(servers(&cut, STAT_TEXT), Err(AnswerError::Line { .. })));
        let word = STATE.replace(" 0 1 1 12", " zz 1 1 12");
        assert!(matches!(servers(&word, STAT_TEXT), Err(AnswerError::Line { .. })));
    }
}
