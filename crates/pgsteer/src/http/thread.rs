//! The thread of the pages. It has its own runtime, so that a flood of requests delays neither the
//! engine nor the acceptors of the services.

use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::Context as _;
use rustix::process::nice;
use tokio::sync::oneshot;

use super::{Pages, serve};

/// How much lower the priority of the thread is, as `nice` counts. The engine, the proxy and the agent
/// run first when the processors are busy.
const NICE: i32 = 5;

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
                // On Linux this concerns the calling thread only. The pages work without it.
                let _ = nice(NICE);
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
