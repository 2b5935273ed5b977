//! Seats: every session that goes to a member holds one, so that it can be ended.
//!
//! An early login takes one as well, before the gate of its member is open. It is no session then,
//! and is ended by other rules, until it is admitted.
//!
//! A worker has one registry; sessions and registry live on the worker's one thread. A session
//! that is told to end drops its server connection before it gives back its seat, so a registry
//! in which nobody is ending any more proves that the connections are closed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use slab::Slab;
use tokio::sync::Notify;

use crate::stats::MemberStats;

/// Why a session is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The gate of its member says so; with the reason, if the gate is still there to give one.
    Gate(Option<Reason>),
    /// A reload took its service away.
    ServiceGone,
    /// pgsteer stops and the grace is over.
    Shutdown,
}

impl Ending {
    /// The cause in one word: that of the gate's reason, or of pgsteer's own.
    pub fn code(&self) -> &'static str {
        match self {
            Ending::Gate(reason) => reason.as_ref().map_or("forgotten", Reason::code),
            Ending::ServiceGone => "service_gone",
            Ending::Shutdown => "shutdown",
        }
    }

    /// The sentence that the client reads.
    pub fn message(&self, member: &MemberName) -> String {
        match self {
            Ending::Gate(Some(reason)) => format!(
                "pgsteer ended this session: member {member} may not serve it any more ({reason})"
            ),
            Ending::Gate(None) => {
                format!("pgsteer ended this session: member {member} may not serve it any more")
            }
            Ending::ServiceGone => {
                "pgsteer ended this session: its service was removed from the configuration"
                    .to_owned()
            }
            Ending::Shutdown => "pgsteer ended this session: it is shutting down".to_owned(),
        }
    }
}

/// All seats of one worker.
#[derive(Debug, Default)]
pub struct Registry {
    seats: RefCell<Slab<Rc<Taken>>>,
    /// How many sessions were told to end and still hold their seat.
    ending: Cell<usize>,
    all_ended: Notify,
}

/// Where a seat is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The service that the client came in by.
    pub service: ServiceName,
    /// The member that serves it.
    pub member: MemberName,
    /// Where the member's PostgreSQL listened when it was dialed.
    pub postgres: Endpoint,
}

/// What a seat is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A login of a client that is still on hold: the gate is not open yet.
    EarlyLogin,
    /// A session, from before its login on.
    Session,
}

/// What the registry knows of a seat.
#[derive(Debug)]
struct Taken {
    place: Place,
    purpose: Cell<Purpose>,
    ending: RefCell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
}

/// A session's hold on a member.
#[derive(Debug)]
pub struct Seat {
    registry: Rc<Registry>,
    index: usize,
    taken: Rc<Taken>,
    stats: Arc<MemberStats>,
}

impl Registry {
    /// Takes a seat for a session.
    pub fn take(self: &Rc<Self>, place: Place, stats: Arc<MemberStats>) -> Seat {
        let seat = self.take_early(place, stats);
        seat.admit();
        seat
    }

    /// Takes a seat for an early login.
    pub fn take_early(self: &Rc<Self>, place: Place, stats: Arc<MemberStats>) -> Seat {
        let taken = Rc::new(Taken {
            place,
            purpose: Cell::new(Purpose::EarlyLogin),
            ending: RefCell::new(None),
            waker: RefCell::new(None),
        });
        let index = self.seats.borrow_mut().insert(Rc::clone(&taken));
        Seat { registry: Rc::clone(self), index, taken, stats }
    }

    /// Tells everybody for whom `why` has an answer to end, and how many were told.
    pub fn end(&self, mut why: impl FnMut(&Place, Purpose) -> Option<Ending>) -> usize {
        let mut told = 0;
        for (_, taken) in self.seats.borrow().iter() {
            if taken.ending.borrow().is_some() {
                continue;
            }
            if let Some(ending) = why(&taken.place, taken.purpose.get()) {
                *taken.ending.borrow_mut() = Some(ending);
                told += 1;
                if let Some(waker) = taken.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
        self.ending.set(self.ending.get() + told);
        told
    }

    /// Waits until every session that was told to end has closed its server connection.
    pub async fn ended(&self) {
        while self.ending.get() > 0 {
            // One thread: nothing can happen between the look and the wait.
            self.all_ended.notified().await;
        }
    }
}

impl Seat {
    /// The member it is at.
    pub fn member(&self) -> &MemberName {
        &self.taken.place.member
    }

    /// What is counted of its member.
    pub fn stats(&self) -> &MemberStats {
        &self.stats
    }

    /// Its member's gate is open: from now on it is the seat of a session.
    pub fn admit(&self) {
        if self.taken.purpose.replace(Purpose::Session) == Purpose::EarlyLogin {
            self.stats.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is the seat of an early login.
    pub fn is_early(&self) -> bool {
        self.taken.purpose.get() == Purpose::EarlyLogin
    }

    /// Why the session has to end, if it has; the task is woken when it has to.
    pub fn poll_ending(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Some(ending) = self.taken.ending.borrow().as_ref() {
            return Poll::Ready(ending.clone());
        }
        let mut waker = self.taken.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until the session has to end.
    pub async fn ending(&self) -> Ending {
        poll_fn(|cx| self.poll_ending(cx)).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let counted = usize::from(!self.is_early());
        self.stats.sessions.fetch_sub(counted, Ordering::Relaxed);
        let taken = self.registry.seats.borrow_mut().remove(self.index);
        if taken.ending.borrow().is_some() {
            self.stats.ended_total.fetch_add(u64::from(!self.is_early()), Ordering::Relaxed);
            self.registry.ending.set(self.registry.ending.get() - 1);
            if self.registry.ending.get() == 0 {
                self.registry.all_ended.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(member: &str) -> Place {
        Place {
            service: ServiceName::new("write").unwrap(),
            member: MemberName::new(member).unwrap(),
            postgres: Endpoint::new(member, 5432).unwrap(),
        }
    }

    #[test]
    fn an_early_login_is_no_session_until_it_is_admitted() {
        let registry = Rc::new(Registry::default());
        let stats = Arc::new(MemberStats::default());
        let sessions = || stats.sessions.load(Ordering::Relaxed);
        let seat = registry.take_early(place("n1"), Arc::clone(&stats));
        let in_vain = registry.take_early(place("n1"), Arc::clone(&stats));
        assert_eq!(
            registry.end(|_, purpose| (purpose == Purpose::Session).then_some(Ending::Shutdown)),
            0
        );
        assert_eq!(registry.end(|_, _| Some(Ending::Shutdown)), 2);
        assert_eq!(sessions(), 0);
        seat.admit();
        assert_eq!(sessions(), 1);
        drop((seat, in_vain));
        assert_eq!(sessions(), 0);
        assert_eq!(stats.ended_total.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn only_the_sessions_meant_are_told_and_all_are_waited_for() {
        let registry = Rc::new(Registry::default());
        let stats = Arc::new(MemberStats::default());
        let first = registry.take(place("n1"), Arc::clone(&stats));
        let second = registry.take(place("n2"), Arc::clone(&stats));
        let why = |place: &Place, _| {
            (place.member.as_str() == "n1").then_some(Ending::Gate(Some(Reason::Left(None))))
        };
        assert_eq!(registry.end(why), 1);
        assert_eq!(registry.end(why), 0);
        assert_eq!(first.ending().await, Ending::Gate(Some(Reason::Left(None))));
        tokio::join!(registry.ended(), async { drop(first) });
        assert_eq!(stats.sessions.load(Ordering::Relaxed), 1);
        assert_eq!(stats.ended_total.load(Ordering::Relaxed), 1);
        drop(second);
        assert!(registry.seats.borrow().is_empty());
    }
}
