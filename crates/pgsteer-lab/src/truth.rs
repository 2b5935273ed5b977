//! The observed truth about the members that take writes: an observer has a direct session to every
//! member.
//!
//! Tests and benchmarks compare pgsteer and its peers with this log. One thread per member probes
//! every [`INTERVAL`]. A probe is five bytes, so three members cost a few percent of one core.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::lab::Lab;
use crate::member::{Member, SUPERUSER};
use crate::wire::Session;

/// The interval between two probes of one member, and so the precision of the log's times.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// A member that does not answer within this time counts as silent. A shorter limit would take a
/// busy machine for a frozen one.
const SILENT_AFTER: Duration = Duration::from_millis(300);
/// How long a silent session is kept after that. A thawed member answers on it at once. Behind a
/// pulled cable it would wait for TCP's growing retransmission timeout.
const SILENT_KEPT: Duration = Duration::from_millis(700);
/// Short, so that a repaired cable is noticed soon: TCP repeats a lost first packet after a second.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);
/// Long, because a frozen member answers a pending login as soon as it is thawed.
const LOGIN_LIMIT: Duration = Duration::from_secs(1);
/// The pause before the next connection to a server that refuses.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// The state of a member, seen from a direct session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Writable,
    ReadOnly,
    /// Connected or connecting, without an answer: frozen, or unplugged.
    Silent,
    /// The connection was refused, or the session ended.
    Down,
}

/// A change of one member's standing.
#[derive(Debug, Clone)]
pub struct TruthEvent {
    pub member: String,
    pub standing: Standing,
    /// The time of the observation.
    pub at: Instant,
    /// The same time in microseconds since 1970.
    pub at_us: u64,
    /// The last observation of the old standing. The change happened between this time and `at`.
    pub not_before: Instant,
}

/// Observes all members until it is dropped.
#[derive(Debug)]
pub struct Truth {
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    record: Mutex<Record>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Record {
    log: Vec<TruthEvent>,
    /// The newest event of each member.
    now: BTreeMap<String, TruthEvent>,
}

impl Truth {
    /// Returns as soon as the standing of every member is known.
    pub fn watch(lab: &Lab) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut truth = Self { shared: shared.clone(), watchers: Vec::new() };
        for member in lab.members() {
            truth.watchers.push(watcher(member, shared.clone())?);
        }
        let members = lab.members().len();
        truth.wait(Duration::from_secs(5), "the first standing of every member", |record| {
            (record.now.len() == members).then_some(())
        })?;
        Ok(truth)
    }

    pub fn standing(&self, name: &str) -> Option<Standing> {
        let record = self.shared.record();
        record.now.get(name).map(|event| event.standing)
    }

    /// The time since when the member has taken writes without a break, or `None` if it takes none
    /// now.
    pub fn writable_since(&self, name: &str) -> Option<Instant> {
        let record = self.shared.record();
        let event = record.now.get(name)?;
        (event.standing == Standing::Writable).then_some(event.at)
    }

    /// The names of all members that take writes now.
    pub fn writable(&self) -> Vec<String> {
        let record = self.shared.record();
        let events = record.now.values();
        events
            .filter(|event| event.standing == Standing::Writable)
            .map(|event| event.member.clone())
            .collect()
    }

    /// All changes since the start, in the order of observation.
    pub fn log(&self) -> Vec<TruthEvent> {
        self.shared.record().log.clone()
    }

    /// Waits until a member other than `old` takes writes.
    pub fn wait_for_successor(&self, old: &str, limit: Duration) -> Result<TruthEvent> {
        self.wait(limit, "a successor to take writes", |record| {
            let mut events = record.now.values();
            events
                .find(|event| event.standing == Standing::Writable && event.member != old)
                .cloned()
        })
    }

    /// Waits until the member has this standing.
    pub fn wait_for_standing(
        &self,
        name: &str,
        standing: Standing,
        limit: Duration,
    ) -> Result<TruthEvent> {
        self.wait(limit, &format!("{name} to be {standing}"), |record| {
            let event = record.now.get(name)?;
            (event.standing == standing).then(|| event.clone())
        })
    }

    fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl Fn(&Record) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut record = self.shared.record();
        loop {
            if let Some(found) = look(&record) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let standings = record.now.values();
                let words: Vec<String> =
                    standings.map(|event| format!("{} {}", event.member, event.standing)).collect();
                bail!("waited {limit:?} for {what}: {}", words.join(", "));
            }
            let waited = self.shared.changed.wait_timeout(record, left);
            record = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            // If a watcher thread panicked, its message is already on stderr.
            let _ = watcher.join();
        }
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watcher(member: &Member, shared: Arc<Shared>) -> Result<JoinHandle<()>> {
    let mut watch = Watch {
        member: member.name.clone(),
        addr: member.postgres_addr(),
        last: None,
        last_seen: Instant::now(),
        shared,
    };
    Ok(std::thread::Builder::new()
        .name(format!("truth {}", member.name))
        .spawn(move || watch.run())?)
}

/// The state of one observer thread.
struct Watch {
    member: String,
    addr: SocketAddr,
    last: Option<Standing>,
    /// The last confirmation of this standing.
    last_seen: Instant,
    shared: Arc<Shared>,
}

impl Watch {
    fn run(&mut self) {
        let mut session = None;
        while !self.shared.ended.load(Ordering::Relaxed) {
            session = match session {
                Some(open) => self.ask(open),
                None => self.login(),
            };
        }
    }

    fn login(&mut self) -> Option<Session> {
        let session =
            Session::connect_within(self.addr, SUPERUSER, "postgres", CONNECT_LIMIT, LOGIN_LIMIT);
        match session {
            Ok(session) => {
                self.note(standing(session.is_writable()));
                Some(session)
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.note(Standing::Silent);
                None
            }
            Err(_) => {
                self.note(Standing::Down);
                std::thread::sleep(RETRY_AFTER);
                None
            }
        }
    }

    fn ask(&mut self, mut session: Session) -> Option<Session> {
        let mut answer = session.ask_writable(SILENT_AFTER);
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::TimedOut) {
            self.note(Standing::Silent);
            answer = session.await_ready(SILENT_KEPT);
        }
        match answer {
            Ok(writable) => {
                self.note(standing(writable));
                std::thread::sleep(INTERVAL);
                Some(session)
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => None,
            Err(_) => {
                self.note(Standing::Down);
                None
            }
        }
    }

    fn note(&mut self, standing: Standing) {
        let at = Instant::now();
        let not_before = std::mem::replace(&mut self.last_seen, at);
        if self.last.replace(standing) == Some(standing) {
            return;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = TruthEvent {
            member: self.member.clone(),
            standing,
            at,
            at_us: since_1970.map_or(0, |passed| passed.as_micros().try_into().unwrap_or(u64::MAX)),
            not_before,
        };
        let mut record = self.shared.record();
        record.now.insert(self.member.clone(), event.clone());
        record.log.push(event);
        self.shared.changed.notify_all();
    }
}

fn standing(writable: bool) -> Standing {
    if writable { Standing::Writable } else { Standing::ReadOnly }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Writable => "writable",
            Self::ReadOnly => "read-only",
            Self::Silent => "silent",
            Self::Down => "down",
        })
    }
}
