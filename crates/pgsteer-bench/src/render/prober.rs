//! A client that connects again and again, and records each outcome.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use pgsteer_lab::SUPERUSER;
use pgsteer_lab::Session;

/// The time between two tries.
pub const EVERY: Duration = Duration::from_millis(20);
/// A connection without an answer is given up after this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The outcome of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Served,
    ReadOnly,
    Failed,
}

/// What the client saw of an event.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// From the new primary's first write to the first session there.
    pub wait: Duration,
    /// Tries that failed, from the first of the event on.
    pub failed: usize,
    /// Tries that reached a member which takes no writes.
    pub read_only: usize,
}

/// Tries until it is dropped.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// The end of each try.
    log: Mutex<Vec<(Instant, Outcome)>>,
}

impl Prober {
    pub fn start(door: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("prober".to_owned()).spawn(move || {
            while !its.ended.load(Ordering::Relaxed) {
                let outcome = attempt(door);
                its.log().push((Instant::now(), outcome));
                std::thread::sleep(EVERY);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The first time at or after `from` at which the client was served.
    pub fn served_since(&self, from: Instant) -> Option<Instant> {
        let log = self.shared.log();
        log.iter().find(|(at, it)| *at >= from && *it == Outcome::Served).map(|(at, _)| *at)
    }

    /// What the client saw up to the first session after the new primary took writes.
    pub fn observed(&self, writable: Instant) -> Result<Observation> {
        let served = self.served_since(writable).context("it was not served yet")?;
        let log = self.shared.log();
        let count = |outcome| log.iter().filter(|(at, it)| *at < served && *it == outcome).count();
        Ok(Observation {
            wait: served - writable,
            failed: count(Outcome::Failed),
            read_only: count(Outcome::ReadOnly),
        })
    }
}

fn attempt(door: SocketAddr) -> Outcome {
    match Session::connect(door, SUPERUSER, "postgres", ANSWER_LIMIT) {
        Ok(session) if session.is_writable() => Outcome::Served,
        Ok(_) => Outcome::ReadOnly,
        Err(_) => Outcome::Failed,
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<(Instant, Outcome)>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, its message is already on stderr.
            let _ = thread.join();
        }
    }
}
