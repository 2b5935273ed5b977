//! The load: idle sessions, busy sessions, and new clients, with the time of each answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::fake::{ANSWER, BURST_BYTES, QUERY, STARTUP};

/// A new client connects this often.
const NEW_CLIENT_EVERY: Duration = Duration::from_millis(20);
/// A busy session sends a query this long after the last answer.
const QUERY_PAUSE: Duration = Duration::from_millis(200);
/// Sessions that are opened at the same time.
const OPENED_AT_ONCE: usize = 64;
const LIMIT: Duration = Duration::from_secs(10);

/// One answer: when it was requested, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub asked: Instant,
    pub took: Duration,
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The answers of each busy session.
    pub busy: Vec<Vec<Answer>>,
    /// The logins of new clients.
    pub new: Vec<Answer>,
    /// New clients that were refused or got no answer.
    pub failed: usize,
    /// Sessions that were lost, busy and idle.
    pub lost: usize,
}

/// The running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl Load {
    /// Opens all sessions at `addr`, and returns when they are open.
    pub fn start(addr: SocketAddr, sessions: usize, busy: usize) -> Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(addr, sessions, busy, is_over, count))
        });
        while open.load(Ordering::Relaxed) < sessions {
            ensure!(!thread.is_finished(), "the sessions cannot be opened");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Load { stop, thread })
    }

    /// Ends the load and returns what the clients have seen.
    pub fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load has failed"))?
    }
}

async fn run(
    addr: SocketAddr,
    count: usize,
    busy: usize,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
) -> Result<Seen> {
    let mut sessions = Vec::new();
    while sessions.len() < count {
        let mut opening = JoinSet::new();
        for _ in sessions.len()..count.min(sessions.len() + OPENED_AT_ONCE) {
            opening.spawn(log_in(addr));
        }
        while let Some(opened) = opening.join_next().await {
            sessions.push(opened??);
        }
        open.store(sessions.len(), Ordering::Relaxed);
    }
    let mut seen = Seen::default();
    let mut asking = JoinSet::new();
    for session in sessions.drain(..busy) {
        asking.spawn(ask_always(session, Arc::clone(&stop)));
    }
    let mut new_clients = JoinSet::new();
    let mut ticks = interval(NEW_CLIENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        new_clients.spawn(async move {
            let asked = Instant::now();
            log_in(addr).await.map(|_| Answer { asked, took: asked.elapsed() })
        });
    }
    while let Some(new) = new_clients.join_next().await {
        match new? {
            Ok(answer) => seen.new.push(answer),
            Err(_) => seen.failed += 1,
        }
    }
    while let Some(asked) = asking.join_next().await {
        let (answers, is_alive) = asked?;
        seen.busy.push(answers);
        seen.lost += usize::from(!is_alive);
    }
    for mut session in sessions {
        seen.lost += usize::from(ask(&mut session).await.is_err());
    }
    Ok(seen)
}

/// Asks until the end. Returns the answers, and whether the session still works.
async fn ask_always(mut session: TcpStream, stop: Arc<AtomicBool>) -> (Vec<Answer>, bool) {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match ask(&mut session).await {
            Ok(answer) => answers.push(answer),
            Err(_) => return (answers, false),
        }
        sleep(QUERY_PAUSE).await;
    }
    (answers, true)
}

async fn ask(session: &mut TcpStream) -> Result<Answer> {
    let asked = Instant::now();
    let mut answer = [0; ANSWER.len()];
    let asking = async {
        session.write_all(QUERY).await?;
        session.read_exact(&mut answer).await
    };
    timeout(LIMIT, asking).await??;
    ensure!(answer == ANSWER, "a wrong answer");
    Ok(Answer { asked, took: asked.elapsed() })
}

async fn log_in(addr: SocketAddr) -> Result<TcpStream> {
    let logging_in = async {
        let mut session = TcpStream::connect(addr).await?;
        session.set_nodelay(true)?;
        session.write_all(STARTUP).await?;
        let mut burst = [0; BURST_BYTES];
        session.read_exact(&mut burst).await?;
        anyhow::Ok(session)
    };
    timeout(LIMIT, logging_in).await?.context("no session")
}
