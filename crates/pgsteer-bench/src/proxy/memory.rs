//! Memory per client: idle sessions, and clients on hold while no member takes writes.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{Bench, Contender};
use crate::bench_setup::{start_pgsteer, wait_for_door};
use crate::usage::{Rest, at_rest, resident_bytes};
use pgsteer_lab::APP;
use pgsteer_lab::scram_client::Client;
use pgsteer_lab::wait_for;

pub const IDLE_SESSIONS: usize = 400;
pub const HELD_CLIENTS: usize = 2_000;
const HELD_WATCHED: Duration = Duration::from_secs(5);

/// The memory of clients that do nothing.
#[derive(Debug)]
pub struct Memory {
    pub pgsteer: Grown,
    pub haproxy: Grown,
    pub held: Grown,
    /// The use during the hold, while pgsteer probes the cluster for a primary.
    pub held_rest: Rest,
}

/// Memory of a process before and after.
#[derive(Debug, Clone, Copy)]
pub struct Grown {
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub clients: usize,
}

impl Grown {
    pub fn per_client_bytes(&self) -> f64 {
        self.after_bytes.saturating_sub(self.before_bytes) as f64 / self.clients as f64
    }
}

pub fn measure(bench: &Bench<'_>, binary: &Path) -> Result<Memory> {
    let pgsteer = idle(bench.pgsteer)?;
    let haproxy = idle(bench.haproxy)?;
    let (held, held_rest) = held(bench, binary)?;
    wait_for_door("pgsteer", bench.pgsteer.addr)?;
    wait_for_door("HAProxy", bench.haproxy.addr)?;
    Ok(Memory { pgsteer, haproxy, held, held_rest })
}

fn idle(contender: Contender) -> Result<Grown> {
    let before_bytes = resident_bytes(contender.pid)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sessions = runtime.block_on(async {
        let mut sessions = Vec::new();
        for _ in 0..IDLE_SESSIONS {
            let client = Client::login(contender.addr).await;
            sessions.push(client.map_err(|failure| anyhow!("no session: {}", failure.label()))?);
        }
        anyhow::Ok(sessions)
    })?;
    let after_bytes = resident_bytes(contender.pid)?;
    println!("{} idle sessions: {before_bytes} to {after_bytes} bytes", sessions.len());
    Ok(Grown { before_bytes, after_bytes, clients: sessions.len() })
}

/// Uses a new pgsteer that has served no client, in front of a frozen member.
fn held(bench: &Bench<'_>, binary: &Path) -> Result<(Grown, Rest)> {
    let primary = bench.lab.primary()?.name.clone();
    let fresh = start_pgsteer(bench.lab, binary, "pgsteer-hold")?;
    let pid = fresh.process.pid();
    wait_for("pgsteer to open its gate", Duration::from_secs(10), || {
        let open = fresh.process.log().contains("write gate");
        open.then_some(()).ok_or_else(|| fresh.process.log())
    })?;
    bench.lab.freeze(&primary)?;
    wait_for("pgsteer to shut its gate", Duration::from_secs(20), || {
        let shut = fresh.process.log().contains(&format!("write gate of {primary} is shut"));
        shut.then_some(()).ok_or_else(|| fresh.process.log())
    })?;
    let before_bytes = resident_bytes(pid)?;
    let clients: Vec<TcpStream> =
        (0..HELD_CLIENTS).map(|_| start_client(fresh.write)).collect::<Result<_>>()?;
    let rest = at_rest(&[pid], HELD_WATCHED)?;
    let rest = rest.first().copied().context("no process was measured")?;
    let grown = Grown { before_bytes, after_bytes: rest.resident_bytes, clients: clients.len() };
    println!("{} clients on hold: {before_bytes} to {} bytes", clients.len(), grown.after_bytes);
    drop(clients);
    bench.lab.reset()?;
    Ok((grown, rest))
}

/// A client that sends its startup packet and waits.
fn start_client(addr: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).context("pgsteer does not accept")?;
    let mut startup = BytesMut::new();
    frontend::startup_message([("user", APP), ("database", APP)], &mut startup)?;
    stream.write_all(&startup)?;
    Ok(stream)
}
