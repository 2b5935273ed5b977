//! Clients that log in again and again through a switchover, and those among them that hang.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use pgsteer_lab::{SUPERUSER, Session};

/// A login without an answer and without an end for so long hangs: HAProxy and PostgreSQL need a few
/// seconds at most in a switchover, and a hold of pgsteer ends with it.
pub const HANGS_AFTER: Duration = Duration::from_secs(20);
/// Clients at a time. Each one that hangs is missing from then on.
const CLIENTS: usize = 16;
const EVERY: Duration = Duration::from_millis(400);

/// What became of the logins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub logins: usize,
    /// Those that got in.
    pub served: usize,
    /// Those that had neither an answer nor an end.
    pub hung: usize,
}

/// Clients that log in until they are counted.
pub struct Crowd {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Crowd {
    pub fn start(door: SocketAddr) -> Result<Crowd> {
        let is_over = Arc::<AtomicBool>::default();
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let is_over = is_over.clone();
            let offset = EVERY * u32::try_from(number)? / u32::try_from(CLIENTS)?;
            let client = move || client(door, offset, &is_over);
            clients.push(std::thread::Builder::new().name("client".to_owned()).spawn(client)?);
        }
        Ok(Crowd { is_over, clients })
    }

    /// Stops the clients. Each client still completes the login that it has begun.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Ends the clients and counts.
    pub fn count(self) -> Result<Tally> {
        self.end();
        let mut sum = Tally::default();
        for client in self.clients {
            let tally = client.join().map_err(|_| anyhow!("a client died"))?;
            sum.logins += tally.logins;
            sum.served += tally.served;
            sum.hung += tally.hung;
        }
        Ok(sum)
    }
}

fn client(door: SocketAddr, offset: Duration, is_over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    std::thread::sleep(offset);
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        tally.logins += 1;
        match Session::connect(door, SUPERUSER, "postgres", HANGS_AFTER) {
            Ok(_) => tally.served += 1,
            Err(_) if began.elapsed() >= HANGS_AFTER => tally.hung += 1,
            Err(_) => {}
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    tally
}
