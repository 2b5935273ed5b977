//! A crowd of clients that hold connections to the agent and misuse them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The time after which each connection is dropped and opened again. The agent has finished with it
/// long before.
pub const RENEWED_EVERY: Duration = Duration::from_secs(2);

/// The number of connections that are renewed before the thread sleeps.
const BATCH: usize = 25;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Holds connections until it is dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    held: AtomicUsize,
    opened: AtomicUsize,
}

impl Crowd {
    /// Returns when all connections are open.
    pub fn gather(addr: SocketAddr, size: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            // In production a crowd is on other machines. On Linux this call affects this thread
            // only.
            let _ = rustix::process::nice(19);
            keep(addr, size, &its);
        })?;
        let crowd = Self { shared, thread: Some(thread) };
        let deadline = Instant::now() + Duration::from_secs(30);
        while crowd.held() < size && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(crowd)
    }

    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// The number of connections opened so far.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::Relaxed)
    }
}

fn keep(addr: SocketAddr, size: usize, shared: &Shared) {
    let mut held: Vec<Option<TcpStream>> = Vec::new();
    held.resize_with(size, || None);
    let pause = RENEWED_EVERY.mul_f64(BATCH as f64 / size as f64);
    let mut next = Instant::now();
    for (turn, slot) in (0..size).cycle().enumerate() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let gone = held[slot].take().is_some();
        let come = open(addr, slot);
        shared.opened.fetch_add(usize::from(come.is_some()), Ordering::Relaxed);
        match (gone, come.is_some()) {
            (false, true) => drop(shared.held.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(shared.held.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        held[slot] = come;
        if turn % BATCH == BATCH - 1 {
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// In turn: half a line, nothing, a request whose answer is never read, and a flood of garbage.
fn open(addr: SocketAddr, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, CONNECT_LIMIT).ok()?;
    stream.set_nonblocking(true).ok()?;
    let bytes: &[u8] = match number % 4 {
        0 => b"wri",
        1 => b"",
        2 => b"primary\n",
        _ => &[b'x'; 64 * 1024],
    };
    // The agent may accept only a part of it.
    let _ = stream.write(bytes);
    Some(stream)
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
