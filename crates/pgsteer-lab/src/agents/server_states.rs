//! The state of each server as HAProxy reports it over its socket, with the time of each change.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The interval between two reads of HAProxy's state, and so the precision of the recorded times.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One server's row of `show stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// `UP`, `UP 1/3`, `no check`, `DOWN`, `DOWN (agent)`, `MAINT`, `DRAIN` or `NOLB`.
    pub status: String,
    /// How the last agent-check went, as `L7OK`.
    pub agent_status: String,
    /// The text after `#` in the agent's answer.
    pub last_agent: String,
    /// The weight; at 0 there are no new connections.
    pub weight: u32,
}

impl ServerState {
    /// HAProxy sends new connections to this server. A server without a health check counts as up,
    /// unless its agent-check reports otherwise. A server of weight 0 counts as down.
    pub fn is_up(&self) -> bool {
        self.weight > 0 && (self.status.starts_with("UP") || self.status == "no check")
    }
}

/// Server states by backend and server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerStates(BTreeMap<(String, String), ServerState>);

impl ServerStates {
    /// Reads the state from HAProxy's socket.
    pub fn ask(socket: SocketAddr) -> Result<Self> {
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&socket, ANSWER_LIMIT)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.write_all(b"show stat -1 4 -1\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().context("HAProxy's socket does not answer")?;
        Self::read(&answer).with_context(|| format!("no statistics: {answer:?}"))
    }

    /// Reads the CSV by column names, because each version of HAProxy adds columns.
    fn read(csv: &str) -> Option<Self> {
        let mut lines = csv.lines().filter(|line| !line.is_empty());
        let names = cells(lines.next()?.strip_prefix("# ")?);
        let at = |name: &str| names.iter().position(|each| each == name);
        let columns = ["pxname", "svname", "status", "agent_status", "last_agt", "weight"].map(at);
        let rows = lines.map(|line| {
            let cells = cells(line);
            let cell = |column: usize| cells.get(columns[column]?).cloned();
            let (status, agent_status, last_agent) = (cell(2)?, cell(3)?, cell(4)?);
            let weight = cell(5)?.parse().ok()?;
            Some(((cell(0)?, cell(1)?), ServerState { status, agent_status, last_agent, weight }))
        });
        Some(Self(rows.collect::<Option<_>>()?))
    }

    #[cfg(test)]
    pub fn of_one(backend: &str, server: &str, state: ServerState) -> Self {
        Self([((backend.to_owned(), server.to_owned()), state)].into())
    }

    pub fn of(&self, backend: &str, server: &str) -> Option<&ServerState> {
        self.0.get(&(backend.to_owned(), server.to_owned()))
    }

    /// The servers of a backend that are up.
    pub fn up(&self, backend: &str) -> Vec<&str> {
        let of_backend = self.0.iter().filter(|((of, _), _)| of == backend);
        of_backend.filter(|(_, it)| it.is_up()).map(|((_, name), _)| name.as_str()).collect()
    }

    /// The servers of a backend, each with its state.
    pub fn all<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = (&'a str, &'a ServerState)> {
        let of_backend = self.0.iter().filter(move |((of, _), _)| of == backend);
        of_backend.map(|((_, name), it)| (name.as_str(), it))
    }
}

/// The cells of a CSV line. A cell that contains a comma is quoted.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match (c, cells.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => cells.push(String::new()),
            (c, Some(cell)) => cell.push(c),
            (_, None) => {}
        }
    }
    cells
}

/// Reads the state every [`LOOK_EVERY`] and records each change, until it is dropped.
#[derive(Debug)]
pub struct StateWatch {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// The states, each with the time from which it was observed.
    log: Mutex<Vec<(Instant, ServerStates)>>,
}

impl StateWatch {
    pub fn start(socket: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.log().push((Instant::now(), ServerStates::ask(socket)?));
        let its = shared.clone();
        let watcher =
            std::thread::Builder::new().name("server states".to_owned()).spawn(move || {
                while !its.ended.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY);
                    // When HAProxy has ended, its last state stays in the log.
                    let Ok(server_states) = ServerStates::ask(socket) else { continue };
                    let mut log = its.log();
                    if log.last().is_none_or(|(_, last)| *last != server_states) {
                        log.push((Instant::now(), server_states));
                    }
                }
            })?;
        Ok(Self { shared, watcher: Some(watcher) })
    }

    /// All changes up to now, oldest first.
    pub fn log(&self) -> Vec<(Instant, ServerStates)> {
        self.shared.log().clone()
    }

    pub fn now(&self) -> ServerStates {
        self.shared.log().last().map(|(_, server_states)| server_states.clone()).unwrap_or_default()
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<(Instant, ServerStates)>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StateWatch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // If the watcher thread panicked, its message is already on stderr.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let csv = "# pxname,svname,status,weight,last_chk,agent_status,last_agt,\n\
                   write,n1,UP 1/3,1,\"Layer7, \"\"wrong\"\"\",L7OK,,\n\
                   write,n2,MAINT,1,,L7OK,not primary; but replica,\n\
                   write,n3,UP,0,,L7OK,,\n";
        let server_states = ServerStates::read(csv).unwrap();
        assert_eq!(server_states.up("write"), ["n1"]);
        assert_eq!(server_states.of("write", "n2").unwrap().last_agent, "not primary; but replica");
        assert_eq!(server_states.up("read"), [""; 0]);
        assert_eq!(ServerStates::read("Unknown command"), None);
    }
}
