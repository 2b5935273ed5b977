//! What HAProxy believes of its servers, as its own socket tells it, and since when.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks; what is told of a belief is this exact.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One server's row of `show stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// `UP`, `UP 1/3`, `no check`, `DOWN`, `DOWN (agent)`, `MAINT`, `DRAIN` or `NOLB`.
    pub status: String,
    /// How the last agent-check went, as `L7OK`.
    pub agent_status: String,
    /// What was behind `#` in the agent's answer.
    pub last_agent: String,
}

impl Believed {
    /// New connections are sent there. A server without a check of its own is up, unless its agent
    /// says otherwise.
    pub fn is_up(&self) -> bool {
        self.status.starts_with("UP") || self.status == "no check"
    }
}

/// By backend and server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beliefs(BTreeMap<(String, String), Believed>);

impl Beliefs {
    /// Asks the HAProxy whose socket this is.
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

    /// Reads the CSV by the names of its columns, because every version has more of them.
    fn read(csv: &str) -> Option<Self> {
        let mut lines = csv.lines().filter(|line| !line.is_empty());
        let names = cells(lines.next()?.strip_prefix("# ")?);
        let at = |name: &str| names.iter().position(|each| each == name);
        let columns = ["pxname", "svname", "status", "agent_status", "last_agt"].map(at);
        let rows = lines.map(|line| {
            let cells = cells(line);
            let cell = |column: usize| cells.get(columns[column]?).cloned();
            let (status, agent_status, last_agent) = (cell(2)?, cell(3)?, cell(4)?);
            Some(((cell(0)?, cell(1)?), Believed { status, agent_status, last_agent }))
        });
        Some(Self(rows.collect::<Option<_>>()?))
    }

    #[cfg(test)]
    pub fn of_one(backend: &str, server: &str, believed: Believed) -> Self {
        Self([((backend.to_owned(), server.to_owned()), believed)].into())
    }

    pub fn of(&self, backend: &str, server: &str) -> Option<&Believed> {
        self.0.get(&(backend.to_owned(), server.to_owned()))
    }

    /// The servers of a backend that are up.
    pub fn up(&self, backend: &str) -> Vec<&str> {
        let of_backend = self.0.iter().filter(|((of, _), _)| of == backend);
        of_backend.filter(|(_, it)| it.is_up()).map(|((_, name), _)| name.as_str()).collect()
    }

    /// The servers of a backend, each with its state.
    pub fn all<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = (&'a str, &'a Believed)> {
        let of_backend = self.0.iter().filter(move |((of, _), _)| of == backend);
        of_backend.map(|((_, name), it)| (name.as_str(), it))
    }
}

/// The cells of a line of CSV; those with commas stand in quotation marks.
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

/// Looks every [`LOOK_EVERY`] and writes down what changes, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// What was believed from each of these moments on.
    log: Mutex<Vec<(Instant, Beliefs)>>,
}

impl Watch {
    pub fn start(socket: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.log().push((Instant::now(), Beliefs::ask(socket)?));
        let its = shared.clone();
        let watcher = std::thread::Builder::new().name("belief".to_owned()).spawn(move || {
            while !its.ended.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
                // A HAProxy that ends has its last word in the log.
                let Ok(beliefs) = Beliefs::ask(socket) else { continue };
                let mut log = its.log();
                if log.last().is_none_or(|(_, last)| *last != beliefs) {
                    log.push((Instant::now(), beliefs));
                }
            }
        })?;
        Ok(Self { shared, watcher: Some(watcher) })
    }

    /// All changes up to now, oldest first.
    pub fn log(&self) -> Vec<(Instant, Beliefs)> {
        self.shared.log().clone()
    }

    pub fn now(&self) -> Beliefs {
        self.shared.log().last().map(|(_, beliefs)| beliefs.clone()).unwrap_or_default()
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<(Instant, Beliefs)>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // A watcher that died has said so on stderr.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let csv = "# pxname,svname,status,last_chk,agent_status,last_agt,\n\
                   write,n1,UP 1/3,\"Layer7, \"\"wrong\"\"\",L7OK,,\n\
                   write,n2,MAINT,,L7OK,not primary; but replica,\n";
        let beliefs = Beliefs::read(csv).unwrap();
        assert_eq!(beliefs.up("write"), ["n1"]);
        assert_eq!(beliefs.of("write", "n2").unwrap().last_agent, "not primary; but replica");
        assert_eq!(beliefs.up("read"), [""; 0]);
        assert_eq!(Beliefs::read("Unknown command"), None);
    }
}
