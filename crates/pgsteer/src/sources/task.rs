//! Tasks that run beside their owner, end with it, and restart after a panic.

use std::fmt::Display;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::error;

/// The pause before a failed source restarts. A source that fails repeatedly costs at most one
/// start and one log line in this time.
const REST: Duration = Duration::from_secs(1);

/// The receiver of a source's reports has ended, so the source ends too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A task that ends when its owner drops it.
#[derive(Debug)]
pub struct Task(JoinHandle<Gone>);

impl Task {
    /// Runs `work` until it ends, or until the returned task is dropped.
    pub fn spawn(work: impl Future<Output = Gone> + Send + 'static) -> Task {
        Task(tokio::spawn(work))
    }

    /// Same as [`Task::spawn`], for a source that the log calls `what`. If the source panics, it
    /// restarts from a copy of `source` after a pause. Its reports grow stale meanwhile, as those
    /// of a silent source.
    pub fn keep<S, R, W>(what: impl Display + Send + 'static, source: S, run: R) -> Task
    where
        S: Clone + Send + 'static,
        R: Fn(S) -> W + Send + 'static,
        W: Future<Output = Gone> + Send + 'static,
    {
        Task::spawn(async move {
            loop {
                let mut task = Task::spawn(run(source.clone()));
                match (&mut task.0).await {
                    Ok(gone) => return gone,
                    Err(failure) => {
                        error!("{what} has failed, restart in {REST:?}: {failure}")
                    }
                }
                sleep(REST).await;
            }
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::sources::fake::Log;

    /// A source that reports its start and then runs `act`.
    fn source(act: fn() -> Gone) -> (Task, mpsc::UnboundedReceiver<Instant>) {
        let (started, starts) = mpsc::unbounded_channel();
        let run = move |started: mpsc::UnboundedSender<Instant>| async move {
            started.send(Instant::now()).unwrap();
            act()
        };
        (Task::keep("the tether of n1", started, run), starts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_panics_is_restarted_after_a_pause_and_logged() {
        let log = Log::default();
        let _guard = log.listen();
        let (_task, mut starts) = source(|| panic!("on purpose"));
        let first = starts.recv().await.unwrap();
        for number in 1..3 {
            assert_eq!(starts.recv().await.unwrap() - first, REST * number);
        }
        sleep(REST / 2).await;
        let text = log.text();
        assert_eq!(text.lines().count(), 3, "{text}");
        let is_told = |line: &str| {
            ["ERROR", "the tether of n1", "on purpose"].iter().all(|word| line.contains(word))
        };
        assert!(text.lines().all(is_told), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_whose_receiver_is_closed_is_not_restarted() {
        let (_task, mut starts) = source(|| Gone);
        assert!(starts.recv().await.is_some());
        assert!(starts.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_ends_with_its_owner() {
        let held = Arc::new(());
        let run = |held: Arc<()>| async move {
            pending::<()>().await;
            drop(held);
            Gone
        };
        let task = Task::keep("the tether of n1", Arc::clone(&held), run);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 3);
        drop(task);
        sleep(REST).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
