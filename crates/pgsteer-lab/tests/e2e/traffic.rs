//! Traffic: a new connection at every tick, independent of the outcome of earlier ones, and the outcome
//! of each.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Standing, Truth};

/// The address of the answering member, in every statement.
const WHO: &str = "host(inet_server_addr())";
/// The longest time of a statement once the session is open.
const STATEMENT_LIMIT: Duration = Duration::from_secs(20);

/// Running traffic. It ends when this is dropped, so that a failed test leaves none to the next.
pub struct Traffic {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<JoinHandle<Try>>>>,
}

/// One connection with one statement.
#[derive(Debug, Clone)]
pub struct Try {
    pub number: usize,
    pub began: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

/// The outcome of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The statement succeeded at the member with this address.
    Done { by: String },
    /// The session was open and was lost, or its statement failed.
    Cut(String),
    /// The session could not be opened.
    Refused(String),
}

/// All tries, in the order of their start.
#[derive(Debug, Clone)]
pub struct Tries(pub Vec<Try>);

impl Traffic {
    /// Inserts a row with every connection. Each connection must be open within `limit`.
    pub fn writes(
        lab: &Lab,
        door: SocketAddr,
        every: Duration,
        limit: Duration,
    ) -> Result<Traffic> {
        let primary = lab.primary()?.name.clone();
        lab.sql(&primary, "DROP TABLE IF EXISTS tries; CREATE TABLE tries (n int)")?;
        let insert = |n| format!("INSERT INTO tries VALUES ({n}) RETURNING {WHO}");
        Ok(Traffic::start(door, insert, every, limit))
    }

    /// Runs a query with every connection.
    pub fn reads(door: SocketAddr, every: Duration, limit: Duration) -> Traffic {
        Traffic::start(door, |_| format!("SELECT {WHO}"), every, limit)
    }

    fn start(
        door: SocketAddr,
        sql: fn(usize) -> String,
        every: Duration,
        limit: Duration,
    ) -> Traffic {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut tries = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = tries.len();
                let sql = sql(number);
                // A thread per try, because a client on hold must not delay the next try.
                tries.push(std::thread::spawn(move || try_once(number, door, &sql, limit)));
                std::thread::sleep(every);
            }
            tries
        });
        Traffic { ended, thread: Some(thread) }
    }

    /// Starts no more tries, and waits for those in progress.
    pub fn finish(mut self) -> Result<Tries> {
        let died = || anyhow!("a thread of the traffic died");
        let tries = self.end().ok_or_else(died)?;
        let tries: Result<Vec<Try>> =
            tries.into_iter().map(|each| each.join().map_err(|_| died())).collect();
        Ok(Tries(tries?))
    }

    /// Starts no more tries, and returns those that were started.
    fn end(&mut self) -> Option<Vec<JoinHandle<Try>>> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for each in self.end().into_iter().flatten() {
            // Its outcome is of no interest any more.
            let _ = each.join();
        }
    }
}

fn try_once(number: usize, door: SocketAddr, sql: &str, limit: Duration) -> Try {
    let began = Instant::now();
    let outcome = match Session::connect(door, SUPERUSER, "postgres", limit) {
        Err(error) => Outcome::Refused(words(&error)),
        Ok(mut session) => match session.query(sql, STATEMENT_LIMIT) {
            Err(error) => Outcome::Cut(words(&error)),
            Ok(rows) => match rows.first().and_then(|row| row.first()).cloned().flatten() {
                Some(by) => Outcome::Done { by },
                None => Outcome::Cut("no answer in the answer".to_owned()),
            },
        },
    };
    Try { number, began, ended: Instant::now(), outcome }
}

fn words(error: &io::Error) -> String {
    format!("{:?}: {error}", error.kind())
}

impl Tries {
    /// The tries whose session could not be opened.
    pub fn refused(&self) -> Vec<&Try> {
        self.0.iter().filter(|each| matches!(each.outcome, Outcome::Refused(_))).collect()
    }

    /// The tries whose session was lost before the answer.
    pub fn cut(&self) -> Vec<&Try> {
        self.0.iter().filter(|each| matches!(each.outcome, Outcome::Cut(_))).collect()
    }

    /// The tries that succeeded, with the address of the member.
    pub fn done(&self) -> impl Iterator<Item = (&Try, &str)> {
        self.0.iter().filter_map(|each| match &each.outcome {
            Outcome::Done { by } => Some((each, by.as_str())),
            _ => None,
        })
    }

    /// The number of tries that succeeded at this member.
    pub fn done_by(&self, lab: &Lab, member: &str) -> Result<usize> {
        let ip = lab.member(member)?.ip.to_string();
        Ok(self.done().filter(|(_, by)| *by == ip).count())
    }

    /// pgsteer's promise: a client may have to wait, but no client is refused.
    pub fn ensure_none_refused(&self) -> Result<()> {
        let refused = self.refused();
        ensure!(refused.is_empty(), "{} of {} were refused: {self}", refused.len(), self.0.len());
        Ok(())
    }

    /// No write may be answered by a read-only member.
    pub fn ensure_none_read_only(&self) -> Result<()> {
        let read_only = |each: &&Try| match &each.outcome {
            Outcome::Cut(why) | Outcome::Refused(why) => why.contains("25006"),
            Outcome::Done { .. } => false,
        };
        let found: Vec<&Try> = self.0.iter().filter(read_only).collect();
        ensure!(found.is_empty(), "answered by a read-only member: {found:?}");
        Ok(())
    }

    /// Every member that did a write took writes at that time, according to the observer.
    pub fn ensure_by_the_writable(&self, lab: &Lab, truth: &Truth) -> Result<()> {
        for (each, by) in self.done() {
            let member = lab.members().iter().find(|member| member.ip.to_string() == by);
            let name = &member.with_context(|| format!("no member is at {by}"))?.name;
            if !was_writable(truth, name, each.began, each.ended) {
                bail!("{name} was not writable when it did {each:?}: {:?}", truth.log());
            }
        }
        Ok(())
    }

    /// Only sessions that existed when `member` was lost may be cut: none that began later.
    pub fn ensure_cut_only_with(&self, member: &str, truth: &Truth) -> Result<()> {
        let log = truth.log();
        let lost = log.iter().filter(|event| event.member == member).nth(1);
        let lost = lost.with_context(|| format!("{member} was not lost: {log:?}"))?;
        let late: Vec<&Try> = self.cut().into_iter().filter(|each| each.began > lost.at).collect();
        ensure!(late.is_empty(), "cut although they came after the loss: {late:?}");
        Ok(())
    }

    /// Every acknowledged write is on the current primary.
    pub fn ensure_all_kept(&self, lab: &Lab) -> Result<()> {
        let primary = lab.primary()?.name.clone();
        let rows = lab.sql(&primary, "SELECT n FROM tries")?;
        let kept: Vec<String> = rows.into_iter().flatten().flatten().collect();
        let lost: Vec<usize> = self
            .done()
            .map(|(each, _)| each.number)
            .filter(|number| !kept.contains(&number.to_string()))
            .collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        Ok(())
    }
}

/// Returns whether the member may have taken writes at some time between the two moments. A member
/// that the observer saw as silent may still have answered the client, if it was thawed between two
/// probes.
fn was_writable(truth: &Truth, name: &str, began: Instant, ended: Instant) -> bool {
    let log = truth.log();
    let events: Vec<_> = log.iter().filter(|event| event.member == name).collect();
    events.iter().enumerate().any(|(index, event)| {
        let until = events.get(index + 1).map_or_else(Instant::now, |next| next.at);
        let may_write = matches!(event.standing, Standing::Writable | Standing::Silent);
        may_write && event.not_before <= ended && began <= until
    })
}

impl fmt::Display for Tries {
    /// Prints the failures, grouped by kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = std::collections::BTreeMap::<String, Vec<usize>>::new();
        for each in &self.0 {
            let kind = match &each.outcome {
                Outcome::Done { .. } => continue,
                Outcome::Cut(why) => format!("cut: {why}"),
                Outcome::Refused(why) => format!("refused: {why}"),
            };
            kinds.entry(kind).or_default().push(each.number);
        }
        write!(f, "{kinds:?}")
    }
}
