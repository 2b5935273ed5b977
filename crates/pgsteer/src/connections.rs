//! A bounded list of open connections. At the limit the oldest connection is closed.
//!
//! The connections listed here are answered within milliseconds, so the oldest one is idle, slow or
//! hostile. A client that opens many connections closes its own.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::task::{AbortHandle, Id};

/// The tasks of the open connections, oldest first. Aborting a task closes its connection.
#[derive(Debug)]
pub struct Connections {
    connections_max: usize,
    open: Mutex<VecDeque<AbortHandle>>,
}

impl Connections {
    /// A list of `connections_max` connections at most.
    pub fn new(connections_max: usize) -> Connections {
        Connections { connections_max, open: Mutex::default() }
    }

    /// Adds a connection. At the limit it closes the oldest one and returns true.
    pub fn add(&self, connection: AbortHandle) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        remove_closed_in_front(&mut open);
        if open.len() >= self.connections_max {
            // Connections behind an open one may be closed as well.
            open.retain(|connection| !connection.is_finished());
        }
        let is_full = open.len() >= self.connections_max;
        if is_full && let Some(oldest) = open.pop_front() {
            oldest.abort();
        }
        open.push_back(connection);
        is_full
    }

    /// Takes the connection of `task` out of the list: it is bounded elsewhere from now on.
    pub fn release(&self, task: Id) -> Option<AbortHandle> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|connection| connection.id() == task)?;
        open.remove(at)
    }

    /// Closes the oldest open connection.
    pub fn close_oldest(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        remove_closed_in_front(&mut open);
        if let Some(oldest) = open.pop_front() {
            oldest.abort();
        }
    }
}

fn remove_closed_in_front(open: &mut VecDeque<AbortHandle>) {
    while open.front().is_some_and(AbortHandle::is_finished) {
        open.pop_front();
    }
}

/// The connections of one kind: a number, or a part of the limit of open files if that is fewer. Sessions and
/// sources need the other files.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    connections_max: usize,
    divisor: u64,
}

/// The connections to the pages.
pub const PAGES: Share = Share { connections_max: 128, divisor: 32 };

/// The readers of the page's events.
pub const STREAMS: Share = Share { connections_max: 200, divisor: 32 };

/// The clients of the agent that send their line slowly.
pub const SLOW_AGENT_CLIENTS: Share = Share { connections_max: 8_192, divisor: 8 };

impl Share {
    /// The number of connections under the present limit of open files, at least 1.
    pub fn max(self) -> usize {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(files / self.divisor).unwrap_or(usize::MAX);
        self.connections_max.min(share).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    fn connection() -> JoinHandle<()> {
        tokio::spawn(pending())
    }

    #[tokio::test]
    async fn the_oldest_open_connection_is_closed_at_the_limit() {
        let connections = Connections::new(2);
        let tasks = [connection(), connection(), connection(), connection()];
        assert!(!connections.add(tasks[0].abort_handle()));
        assert!(!connections.add(tasks[1].abort_handle()));
        // The second one closes by itself, so the third one takes its place.
        tasks[1].abort();
        yield_now().await;
        assert!(!connections.add(tasks[2].abort_handle()));
        assert!(connections.add(tasks[3].abort_handle()));
        yield_now().await;
        assert_eq!(tasks.each_ref().map(JoinHandle::is_finished), [true, true, false, false]);
        connections.close_oldest();
        yield_now().await;
        assert_eq!(tasks.each_ref().map(JoinHandle::is_finished), [true, true, true, false]);
    }

    #[tokio::test]
    async fn a_released_connection_is_not_counted_and_not_closed() {
        let connections = Connections::new(1);
        let tasks = [connection(), connection(), connection()];
        connections.add(tasks[0].abort_handle());
        let released = connections.release(tasks[0].abort_handle().id()).unwrap();
        assert_eq!(released.id(), tasks[0].abort_handle().id());
        assert!(!connections.add(tasks[1].abort_handle()), "there is room");
        assert!(connections.add(tasks[2].abort_handle()));
        yield_now().await;
        assert_eq!(tasks.each_ref().map(JoinHandle::is_finished), [false, true, false]);
        assert!(connections.release(tasks[0].abort_handle().id()).is_none());
    }
}
