//! The HTTP output: status, metrics and health, read-only and open to whoever reaches the port.

mod answer;
mod check;
mod compose;
mod connections;
pub mod document;
#[cfg(test)]
mod hostile;
mod metrics;
mod ready;
mod routes;
#[cfg(test)]
pub mod sample;
mod stamp;
#[cfg(test)]
mod tests;
mod thread;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::watch;

use self::connections::{Limits, accept_all};
pub use self::ready::ReadyPages;
pub use self::thread::PagesThread;
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::listen;
use crate::stats::Stats;

/// The header of a health check that could not be answered: the status says no, as to a balancer it
/// has to, and `pgsteer check` tells the two apart by it.
pub const UNKNOWN_HEADER: &str = "pgsteer-answer";

/// All that the pages show.
#[derive(Debug)]
pub struct Pages {
    /// The newest Snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What the proxy counts.
    pub stats: Arc<Stats>,
    /// The clock that the Snapshot's moments come from.
    pub clock: Clock,
    /// Whether the engine is alive.
    pub heartbeat: Arc<Heartbeat>,
    /// The texts of the last pages.
    pub ready: ReadyPages,
}

/// Binds `listen`, early, so that a port that is taken ends the start and not the run. It is
/// not shared by SO_REUSEPORT: a second pgsteer would answer for the first.
///
/// # Errors
/// The address cannot be had; the message tells for what it is needed and what can be done.
pub fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    listen::bind(listen).map_err(|error| anyhow!(no_port(listen, &error)))
}

/// Serves the pages at a socket of [`bind`] on the current runtime, until it is dropped.
///
/// # Errors
/// The runtime does not take the socket.
pub async fn serve(listener: TcpListener, pages: Pages) -> anyhow::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)
        .context("handing the socket of the status pages to the runtime")?;
    Ok(accept_all(listener, Arc::new(pages), Limits::affordable()).await)
}

fn no_port(listen: SocketAddr, error: &io::Error) -> String {
    let port = listen.port();
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program is there, `ss -ltnp 'sport = :{port}'` tells which; \
             end it, or choose another address with --http"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine does not have that address, `ip address` lists those it has".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose another with --http".to_owned()
        }
        _ => "choose another address with --http".to_owned(),
    };
    format!(
        "the status pages (/, /api/v1/status, /metrics, /healthz) cannot listen on {listen}: \
         {error}; {remedy}"
    )
}
