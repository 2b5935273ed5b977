//! The thread of the pages. It has its own runtime, so that a flood of requests delays neither the
//! engine nor the acceptors of the services. Its priority is as usual: balancers decide by its health
//! checks, and on a busy machine a lower one makes these time out.

use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::{Pages, serve};

/// The running pages. Dropping it ends them, and frees the port a moment later.
#[derive(Debug)]
pub struct PagesThread {
    /// The thread ends when this is dropped.
    _stay: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl PagesThread {
    /// Serves the pages at a socket of [`super::bind`].
    ///
    /// # Errors
    /// The system has no thread or no runtime for it.
    pub fn start(listener: TcpListener, pages: Pages) -> anyhow::Result<PagesThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime of the status pages")?;
        let (stay, left) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("pgsteer-http".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        Err(error) = serve(listener, pages) => {
                            tracing::error!("there are no status pages: {error:#}");
                        }
                        _ = left => {}
                    }
                });
            })
            .context("cannot start the thread of the status pages")?;
        Ok(PagesThread { _stay: stay, thread })
    }

    /// The thread has ended although it was not asked to.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}
