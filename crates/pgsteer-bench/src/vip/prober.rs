//! Clients that write to an address all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgsteer_lab::{SUPERUSER, Session};

/// The time limit of one connection and its write. An address that no machine has does not answer, so a
/// client notices the new one after this time at the latest.
const LIMIT: Duration = Duration::from_millis(100);

/// Clients with this distance in time; each waits for the end of its own write before the next one.
const CLIENTS: u32 = 10;

/// The pause of each client between two writes.
const PAUSE: Duration = Duration::from_millis(50);

/// The clients of one address. They end when this is dropped.
#[derive(Debug)]
pub struct Prober {
    address: SocketAddr,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    has_ended: AtomicBool,
    /// When each write ended, and the address of the member.
    writes: Mutex<Vec<(Instant, String)>>,
}

impl Prober {
    /// Starts the clients.
    pub fn start(address: SocketAddr) -> Prober {
        let shared = Arc::new(Shared::default());
        let clients = (0..CLIENTS).map(|number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                std::thread::sleep(PAUSE / CLIENTS * number);
                while !shared.has_ended.load(Ordering::Relaxed) {
                    if let Some(ip) = write(address) {
                        let mut writes =
                            shared.writes.lock().unwrap_or_else(PoisonError::into_inner);
                        writes.push((Instant::now(), ip));
                    }
                    std::thread::sleep(PAUSE);
                }
            })
        });
        let clients = clients.collect();
        Prober { address, shared, clients }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When the first write at the member with this address ended, after `since`.
    pub fn first_write(&self, ip: &str, since: Instant) -> Option<Instant> {
        let writes = self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.iter().filter(|(at, by)| *at >= since && by == ip).map(|(at, _)| *at).min()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

/// Writes once, and returns the address of the member.
fn write(address: SocketAddr) -> Option<String> {
    let mut session = Session::connect(address, SUPERUSER, "postgres", LIMIT).ok()?;
    let sql = "INSERT INTO vip_writes VALUES (now()) RETURNING host(inet_server_addr())";
    let rows = session.query(sql, LIMIT).ok()?;
    rows.into_iter().flatten().flatten().next()
}
