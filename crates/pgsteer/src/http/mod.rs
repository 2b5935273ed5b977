//! The HTTP output: status, metrics and health checks. It is read-only.

mod access;
mod answer;
mod check;
mod compose;
mod connections;
mod csv;
mod haproxy;
#[cfg(test)]
mod hostile;
mod metrics;
mod openapi;
mod page;
mod past;
mod peers;
mod ready;
mod routes;
#[cfg(test)]
pub mod sample;
mod stream;
#[cfg(test)]
mod tests;
mod thread;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use pgsteer_core::settings::HttpConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::access::Access;
use self::compose::compose;
use self::connections::{Limits, accept_all};
pub use self::page::ConfigShown;
pub use self::peers::targets as peer_targets;
pub use self::ready::ReadyPages;
pub use self::stream::Streams;
pub use self::thread::PagesThread;
use crate::ask::Target;
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::history::History;
use crate::listen::{self, ListenError};
use crate::stats::Stats;
use crate::status::document::Document;
use crate::status::stamp::Now;
use crate::tls;

/// The header of a health check that has no answer. Its status is 503, which a load balancer
/// requires; `pgsteer check` reads the header and reports "unknown" instead of "no".
pub const UNKNOWN_HEADER: &str = "pgsteer-answer";

/// The data of the pages.
#[derive(Debug)]
pub struct Pages {
    /// Who may read the pages.
    pub access: Access,
    /// The newest Snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The counters.
    pub stats: Arc<Stats>,
    /// The clock of the Snapshot's moments.
    pub clock: Clock,
    /// The time of the engine's last turn.
    pub heartbeat: Arc<Heartbeat>,
    /// What happened before.
    pub history: Arc<History>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<ConfigShown>>,
    /// The other pgsteers.
    pub peers: Vec<(String, Target)>,
    /// The readers of the streams.
    pub streams: Streams,
    /// The texts of the last pages, which are sent again for a moment.
    pub ready: ReadyPages,
}

impl Pages {
    /// The status document of `snapshot` at present.
    pub fn document(&self, snapshot: &Snapshot) -> Document {
        compose(snapshot, &self.stats, &self.history.read(), &Now::of(&self.clock))
    }
}

/// Binds the port of the pages.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let user = "the HTTP server of the status pages (/, /api/v1/status, /metrics, /healthz)";
    listen::bind(address, user, "--http or `listen` in [http]")
}

/// The TLS of the pages; none if they are plain HTTP.
///
/// # Errors
/// The certificate or the key cannot be used; the message names the file.
pub fn acceptor(http: &HttpConfig) -> anyhow::Result<Option<TlsAcceptor>> {
    let Some((cert_file, key_file)) = &http.tls else { return Ok(None) };
    let config = tls::server_config(tls::Identity { cert_file, key_file });
    let config = config.context("[http] cert_file and key_file")?;
    Ok(Some(TlsAcceptor::from(config)))
}

/// Serves the pages at a socket of [`bind`] on the current runtime, until it is dropped; with `tls`
/// by HTTPS.
///
/// # Errors
/// The socket cannot be registered with the runtime.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    pages: Pages,
) -> anyhow::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)
        .context("cannot register the socket of the status pages with the runtime")?;
    let pages = Arc::new(pages);
    // Ends with this function.
    let mut writer = JoinSet::new();
    writer.spawn(stream::write_frames(Arc::clone(&pages)));
    Ok(accept_all(listener, tls, pages, Limits::default()).await)
}
