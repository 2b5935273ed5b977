//! The thread of the pages. It has its own runtime, so that many requests delay neither the engine nor the
//! acceptors of the services. Its priority is the normal one: load balancers use its health checks, which
//! would time out on a busy machine with a lower priority.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::peers::ask_all;
use super::{Pages, serve};
use crate::history::record;

/// The running pages. Dropping it stops them; the port is free a moment later.
#[derive(Debug)]
pub struct PagesThread {
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
    /// The listening socket, for a process that takes over.
    socket: TcpListener,
    thread: JoinHandle<()>,
}

impl PagesThread {
    /// Serves the pages at a socket of [`super::bind`].
    ///
    /// # Errors
    /// The thread or the runtime cannot be started.
    pub fn start(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        pages: Pages,
    ) -> anyhow::Result<PagesThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime of the status pages")?;
        let socket = listener.try_clone().context("cannot copy the socket of the status pages")?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("pgsteer-http".to_owned())
            .spawn(move || {
                let (snapshots, stats) = (pages.snapshot.clone(), Arc::clone(&pages.stats));
                let recorder = record(Arc::clone(&pages.history), snapshots, stats, pages.clock);
                let stats = Arc::clone(&pages.stats);
                let asking = ask_all(pages.peers.clone(), stats, pages.clock);
                runtime.block_on(async {
                    tokio::spawn(recorder);
                    tokio::spawn(asking);
                    tokio::select! {
                        Err(error) = serve(listener, tls, pages) => {
                            tracing::error!("the status pages have ended: {error:#}");
                        }
                        _ = stopped => {}
                    }
                });
            })
            .context("cannot start the thread of the status pages")?;
        Ok(PagesThread { _stop: stop, socket, thread })
    }

    /// The listening socket.
    pub fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// Returns true if the thread has ended although the pages were not stopped.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}
