//! The HAProxy output: each change of a gate is written to the Runtime API of every HAProxy.
//!
//! [`order`] computes from the Snapshot what each server should do, [`machine`] the commands, and
//! [`steering`] is the IO. The weight of a server carries the gate: 0 while the gate is not open. HAProxy's
//! own health check goes on beside it, and nothing sets the administrative state, which belongs to people
//! (docs/HAPROXY.md has the measurements behind this).

pub mod answer;
pub mod command;
mod connection;
mod joining;
mod machine;
pub mod order;
mod state_file;
mod steering;
#[cfg(test)]
mod tests;
pub mod view;

use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;

pub use self::steering::Inputs;
use self::steering::Steering;

/// The running output, on a thread of its own, so that neither the engine nor the pages delay it. Dropping
/// it stops it; HAProxy keeps its last state.
#[derive(Debug)]
pub struct Haproxys {
    /// The thread ends when this is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Haproxys {
    /// Starts to steer the HAProxys of the configuration; none if it names none.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(inputs: Inputs) -> anyhow::Result<Option<Haproxys>> {
        let Some(wanted) = inputs.config.haproxy.clone() else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime of the HAProxy output")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let steer = move || {
            runtime.block_on(async {
                for socket in wanted.sockets {
                    let steering = Steering::new(socket, wanted.timeout, inputs.clone());
                    tokio::spawn(steering.run());
                }
                // An error means that the sender was dropped.
                let _ = stopped.await;
            });
            // A write to a slow disk may still run.
            runtime.shutdown_background();
            inputs.views.clear();
        };
        let builder = std::thread::Builder::new().name("pgsteer-haproxy".to_owned());
        let thread =
            builder.spawn(steer).context("cannot start the thread of the HAProxy output")?;
        Ok(Some(Haproxys { stop: Some(stop), thread: Some(thread) }))
    }

    /// Returns true if the thread has ended although it was not stopped.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Haproxys {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has no result.
            let _ = thread.join();
        }
    }
}
