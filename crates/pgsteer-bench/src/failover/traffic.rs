//! The traffic on one path: new connections with an INSERT each, at even steps, and kept sessions.
//!
//! The tries are an open loop: each starts on time, independent of the outcome of earlier ones. Each path
//! has a thread, so that its clients never wait for those of another path.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout, timeout_at};

use super::record::{Kept, Log, Outcome, Server, Try};
use crate::clock::now_us;
use pgsteer_lab::scram_client::{Client, Failure, Row};

pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
pub const TRY_LIMIT: Duration = Duration::from_secs(12);
/// Far more than can wait within the limits. A client that is lost must not fill the memory.
pub const OUTSTANDING_MAX: usize = 1_500;
pub const KEPT_SESSIONS: usize = 5;
pub const PING_EVERY: Duration = Duration::from_millis(50);

/// The statement of a try; its answer names the server. It is simple, because the catalog lookups
/// of a new backend cost more than the INSERT.
pub const INSERT: &str = "INSERT INTO tries DEFAULT VALUES \
     RETURNING inet_server_addr(), pg_walfile_name(pg_current_wal_insert_lsn())";
pub const PING: &str = "INSERT INTO pings DEFAULT VALUES \
     RETURNING inet_server_addr(), pg_walfile_name(pg_current_wal_insert_lsn())";
/// The tables of both statements.
pub const TABLES: &str = "CREATE TABLE tries (n int DEFAULT 1); CREATE TABLE pings (n int DEFAULT 1); \
     ALTER TABLE tries OWNER TO app; ALTER TABLE pings OWNER TO app";

/// Traffic that runs until it is stopped.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    thread: JoinHandle<Result<()>>,
}

impl Traffic {
    pub fn start(name: &str, door: SocketAddr, every: Duration) -> Result<Self> {
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Log::default())));
        let flow = Flow { door, every, stop: stop.clone(), log: log.clone() };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || flow.run())
            .context("cannot start a thread")?;
        Ok(Self { stop, log, thread })
    }

    /// Starts no more tries, waits for those in progress, and returns all records.
    pub fn stop(self) -> Result<Log> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("a thread of the traffic has died"))??;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(log)
    }
}

#[derive(Debug, Clone)]
struct Flow {
    door: SocketAddr,
    every: Duration,
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
}

impl Flow {
    fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.flow());
        Ok(())
    }

    async fn flow(self) {
        for _ in 0..KEPT_SESSIONS {
            tokio::task::spawn_local(self.clone().keep());
        }
        let outstanding = Rc::new(Cell::new(0));
        let mut ticks = interval_at(Instant::now(), self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !self.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            if outstanding.get() < OUTSTANDING_MAX {
                outstanding.set(outstanding.get() + 1);
                let (flow, outstanding) = (self.clone(), outstanding.clone());
                tokio::task::spawn_local(async move {
                    flow.try_once().await;
                    outstanding.set(outstanding.get() - 1);
                });
            } else {
                let now = now_us();
                let outcome = Outcome::NoConnection("too many waiting".to_owned());
                self.note(Try { start_us: now, login_us: None, end_us: now, outcome });
            }
        }
        let deadline = Instant::now() + TRY_LIMIT;
        while outstanding.get() > 0 && Instant::now() < deadline {
            sleep(self.every).await;
        }
    }

    async fn try_once(&self) {
        let (start_us, began) = (now_us(), Instant::now());
        let mut client = match timeout_at(began + CONNECT_LIMIT, Client::login(self.door)).await {
            Ok(Ok(client)) => client,
            failed => {
                let word = failed.map_or("timeout".to_owned(), |failed| word(failed.err()));
                let outcome = Outcome::NoConnection(word);
                return self.note(Try { start_us, login_us: None, end_us: now_us(), outcome });
            }
        };
        let login_us = Some(now_us());
        let answer = timeout_at(began + TRY_LIMIT, client.ask(INSERT)).await;
        let end_us = now_us();
        let outcome = answer.map_or(Outcome::Cut("timeout".to_owned()), outcome);
        self.note(Try { start_us, login_us, end_us, outcome });
        client.leave().await;
    }

    /// Keeps one session, and opens another when it is lost.
    async fn keep(self) {
        loop {
            if let Ok(Ok(client)) = timeout(CONNECT_LIMIT, Client::login(self.door)).await {
                self.keep_one(client).await;
            }
            sleep(PING_EVERY).await;
        }
    }

    async fn keep_one(&self, mut client: Client) {
        let opened_us = now_us();
        let Some(server) = client.ask(PING).await.ok().and_then(server) else { return };
        let kept = Kept { opened_us, server, closed_us: None };
        let index = self.with_log(|log| {
            log.kept.push(kept);
            log.kept.len() - 1
        });
        loop {
            // Between two pings it reads, so that it sees the end at once.
            if timeout(PING_EVERY, client.ended()).await.is_ok() || client.ask(PING).await.is_err()
            {
                break;
            }
        }
        let closed_us = Some(now_us());
        self.with_log(|log| log.kept[index].closed_us = closed_us);
    }

    fn note(&self, tried: Try) {
        self.with_log(|log| log.tries.push(tried));
    }

    fn with_log<T>(&self, act: impl FnOnce(&mut Log) -> T) -> T {
        act(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn outcome(answer: Result<Row, Failure>) -> Outcome {
    match answer {
        Ok(row) => server(row).map_or(Outcome::Failed("no row".to_owned()), Outcome::Done),
        Err(Failure::Sqlstate(code)) if code == "25006" => Outcome::ReadOnly,
        // Class 57 is operator intervention, and class 08 a lost connection.
        Err(Failure::Sqlstate(code)) if !code.starts_with("57P") && !code.starts_with("08") => {
            Outcome::Failed(code)
        }
        Err(failure) => Outcome::Cut(failure.label()),
    }
}

fn server(row: Row) -> Option<Server> {
    let [Some(ip), Some(wal_file)] = row.as_slice() else { return None };
    // The name of a WAL file begins with the timeline.
    let timeline = u32::from_str_radix(wal_file.get(..8)?, 16).ok()?;
    Some(Server { ip: ip.clone(), timeline })
}

fn word(failure: Option<Failure>) -> String {
    failure.map_or_else(String::new, |failure| failure.label())
}
