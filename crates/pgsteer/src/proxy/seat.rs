//! Seats: each session at a member has one, by which it can be ended.
//!
//! An early login has a seat too, before the gate of its member is open. It is not a session then, and
//! other rules end it, until it is admitted.
//!
//! A worker has one registry, on the same thread as its sessions. A session that is ended drops its
//! server connection before its seat. So when no ended session has a seat any more, all their
//! connections are closed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pgsteer_core::gate::Gate;
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use pgsteer_core::snapshot::Snapshot;
use slab::Slab;
use tokio::sync::Notify;

use super::listing::{Activity, ClientFacts, SessionInfo};
use crate::stats::MemberStats;

/// Why a session is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The gate of its member ends it, with the reason; none if the gate does not exist any more.
    Gate(Option<Reason>),
    /// A reload has removed its service.
    ServiceRemoved,
    /// An operator ended it, with the operator's name.
    Operator(Arc<str>),
    /// pgsteer is shutting down, and the time to stop is over.
    Shutdown,
}

impl Ending {
    /// Why `snapshot` ends the session or the early login with this assignment; none if it goes on.
    pub fn by(snapshot: &Snapshot, assignment: &Assignment, purpose: Purpose) -> Option<Ending> {
        let Assignment { service, member, postgres } = assignment;
        let ends = match purpose {
            Purpose::EarlyLogin => snapshot.ends_early_login(service, member, postgres),
            Purpose::Session => snapshot.ends_session(service, member, postgres),
        };
        if !ends {
            return None;
        }
        let Some(service) = snapshot.services.get(service) else {
            return Some(Ending::ServiceRemoved);
        };
        let reason = service.gates.get(member).and_then(Gate::reason);
        Some(Ending::Gate(reason.cloned()))
    }

    /// The code of the reason, for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Ending::Gate(reason) => reason.as_ref().map_or("forgotten", Reason::code),
            Ending::ServiceRemoved => "service_gone",
            Ending::Operator(_) => "operator",
            Ending::Shutdown => "shutdown",
        }
    }

    /// The error message that the client receives.
    pub fn message(&self, member: &MemberName) -> String {
        match self {
            Ending::Gate(Some(reason)) => format!(
                "pgsteer ended this session: member {member} is no longer open for the service ({reason})"
            ),
            Ending::Gate(None) => {
                format!(
                    "pgsteer ended this session: member {member} is no longer open for the service"
                )
            }
            Ending::ServiceRemoved => {
                "pgsteer ended this session: its service was removed from the configuration"
                    .to_owned()
            }
            Ending::Operator(by) => {
                format!("pgsteer ended this session: it was ended by operator {by}")
            }
            Ending::Shutdown => "pgsteer ended this session: it is shutting down".to_owned(),
        }
    }
}

/// All seats of one worker.
#[derive(Debug, Default)]
pub struct Registry {
    seats: RefCell<Slab<Rc<Entry>>>,
    /// How many ended sessions still have their seat.
    ending: Cell<usize>,
    all_ended: Notify,
    /// How many sessions are established.
    established: Cell<usize>,
    /// How many of these are on their way to another process.
    moving: Cell<usize>,
    has_moved: Notify,
}

/// The service and the member of a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The service that the client uses.
    pub service: ServiceName,
    /// The member.
    pub member: MemberName,
    /// The endpoint of the member's PostgreSQL when it was dialled.
    pub postgres: Endpoint,
}

/// The purpose of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A login whose client is on hold: the gate is not open yet.
    EarlyLogin,
    /// A session, its login included.
    Session,
}

/// The registry's entry of a seat.
#[derive(Debug)]
struct Entry {
    assignment: Assignment,
    purpose: Cell<Purpose>,
    client: RefCell<Option<Rc<ClientFacts>>>,
    activity: Activity,
    ending: RefCell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    travel: Cell<Travel>,
}

/// Whether a session can move to another process, and has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Travel {
    /// It is in its login.
    NotYet,
    /// It is established and can move.
    Possible,
    /// It has to move now.
    Ordered,
}

/// The seat of a session. Dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    registry: Rc<Registry>,
    index: usize,
    entry: Rc<Entry>,
    stats: Arc<MemberStats>,
}

impl Registry {
    /// Takes a seat for a session.
    pub fn take(self: &Rc<Self>, assignment: Assignment, stats: Arc<MemberStats>) -> Seat {
        let seat = self.take_early(assignment, stats);
        seat.admit();
        seat
    }

    /// Takes a seat for an early login.
    pub fn take_early(self: &Rc<Self>, assignment: Assignment, stats: Arc<MemberStats>) -> Seat {
        let entry = Rc::new(Entry {
            assignment,
            purpose: Cell::new(Purpose::EarlyLogin),
            client: RefCell::new(None),
            activity: Activity::new(),
            ending: RefCell::new(None),
            waker: RefCell::new(None),
            travel: Cell::new(Travel::NotYet),
        });
        let index = self.seats.borrow_mut().insert(Rc::clone(&entry));
        Seat { registry: Rc::clone(self), index, entry, stats }
    }

    /// Ends every session for which `why` returns a reason. Returns how many were ended.
    pub fn end(&self, mut why: impl FnMut(&Assignment, Purpose) -> Option<Ending>) -> usize {
        self.end_entries(|entry| why(&entry.assignment, entry.purpose.get()))
    }

    /// Ends every session that `is_meant` selects, by order of `by`. Returns how many were ended.
    pub fn end_selected(&self, by: &Arc<str>, is_meant: impl Fn(&SessionInfo) -> bool) -> usize {
        let now = Instant::now();
        self.end_entries(|entry| {
            let session = entry.session(now)?;
            is_meant(&session).then(|| Ending::Operator(Arc::clone(by)))
        })
    }

    /// Returns the sessions that `is_meant` selects, and adds at most `max`; the second number is how
    /// many more there are.
    pub fn list(
        &self,
        max: usize,
        is_meant: impl Fn(&SessionInfo) -> bool,
    ) -> (Vec<SessionInfo>, usize) {
        let now = Instant::now();
        let seats = self.seats.borrow();
        let all =
            seats.iter().filter_map(|(_, entry)| entry.session(now)).filter(|it| is_meant(it));
        let (mut listed, mut omitted) = (Vec::new(), 0);
        for session in all {
            match listed.len() < max {
                true => listed.push(session),
                false => omitted += 1,
            }
        }
        (listed, omitted)
    }

    fn end_entries(&self, mut why: impl FnMut(&Entry) -> Option<Ending>) -> usize {
        let mut ended = 0;
        for (_, entry) in self.seats.borrow().iter() {
            if entry.ending.borrow().is_some() {
                continue;
            }
            if let Some(ending) = why(entry) {
                *entry.ending.borrow_mut() = Some(ending);
                ended += 1;
                if let Some(waker) = entry.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
        self.ending.set(self.ending.get() + ended);
        ended
    }

    /// Makes established sessions move to another process, until `moving_max` are on their way. Returns
    /// how many have not left yet.
    pub fn move_out(&self, moving_max: usize) -> usize {
        // Half of them at once, because finding them takes longer than moving one.
        if self.moving.get() <= moving_max / 2 {
            let seats = self.seats.borrow();
            let waiting = seats.iter().filter(|(_, entry)| entry.travel.get() == Travel::Possible);
            for (_, entry) in waiting.take(moving_max - self.moving.get()) {
                entry.travel.set(Travel::Ordered);
                self.moving.set(self.moving.get() + 1);
                if let Some(waker) = entry.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
        self.established.get()
    }

    /// Counts a seat that is dropped.
    fn note_gone(&self, travel: Travel) {
        if travel != Travel::NotYet {
            self.established.set(self.established.get() - 1);
        }
        if travel == Travel::Ordered {
            self.moving.set(self.moving.get() - 1);
            self.has_moved.notify_one();
        }
    }

    /// Waits until a session has moved since the last call.
    pub async fn has_moved(&self) {
        self.has_moved.notified().await;
    }

    /// Cancels [`Registry::move_out`] for sessions that have not moved yet.
    pub fn stay(&self) {
        for (_, entry) in self.seats.borrow().iter() {
            if entry.travel.get() == Travel::Ordered {
                entry.travel.set(Travel::Possible);
            }
        }
        self.moving.set(0);
    }

    /// Waits until every ended session has closed its server connection.
    pub async fn ended(&self) {
        while self.ending.get() > 0 {
            // On one thread no seat can be dropped between the check and the wait.
            self.all_ended.notified().await;
        }
    }
}

impl Entry {
    /// The session; none for an early login.
    fn session(&self, now: Instant) -> Option<SessionInfo> {
        if self.purpose.get() != Purpose::Session {
            return None;
        }
        let Assignment { service, member, .. } = &self.assignment;
        let client = self.client.borrow();
        Some(SessionInfo::new((service, member), client.as_deref(), &self.activity, now))
    }
}

impl Seat {
    /// Notes the client of the session.
    pub fn set_client(&self, client: &Rc<ClientFacts>) {
        *self.entry.client.borrow_mut() = Some(Rc::clone(client));
    }

    /// The client of the session; none if it is not known.
    pub fn client(&self) -> Option<Rc<ClientFacts>> {
        self.entry.client.borrow().clone()
    }

    /// Counts bytes that the session has moved.
    pub fn count_bytes(&self, bytes_in: u64, bytes_out: u64) {
        self.stats.count_bytes(bytes_in, bytes_out);
        self.entry.activity.count(bytes_in, bytes_out);
    }

    /// The member.
    pub fn member(&self) -> &MemberName {
        &self.entry.assignment.member
    }

    /// The counters of the member.
    pub fn stats(&self) -> &MemberStats {
        &self.stats
    }

    /// Admits an early login: the gate of its member is open, and the seat is that of a session.
    pub fn admit(&self) {
        if self.entry.purpose.replace(Purpose::Session) == Purpose::EarlyLogin {
            self.stats.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends this session.
    pub fn end(&self, ending: Ending) {
        if self.entry.ending.replace(Some(ending)).is_none() {
            self.registry.ending.set(self.registry.ending.get() + 1);
        }
    }

    /// Notes that the session is established, so that it can move to another process.
    pub fn establish(&self) {
        if self.entry.travel.replace(Travel::Possible) == Travel::NotYet {
            self.registry.established.set(self.registry.established.get() + 1);
        }
    }

    /// Returns true if the session has to move to another process now.
    pub fn is_moving(&self) -> bool {
        self.entry.travel.get() == Travel::Ordered
    }

    /// The service, the member and the endpoint.
    pub fn assignment(&self) -> &Assignment {
        &self.entry.assignment
    }

    /// Returns true if this is the seat of an early login.
    pub fn is_early(&self) -> bool {
        self.entry.purpose.get() == Purpose::EarlyLogin
    }

    /// Ready with the reason if the session has to end. Otherwise the task is woken later.
    pub fn poll_ending(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Some(ending) = self.entry.ending.borrow().as_ref() {
            return Poll::Ready(ending.clone());
        }
        let mut waker = self.entry.waker.borrow_mut();
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
        let entry = self.registry.seats.borrow_mut().remove(self.index);
        self.registry.note_gone(entry.travel.get());
        if entry.ending.borrow().is_some() {
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

    fn assignment(member: &str) -> Assignment {
        Assignment {
            service: ServiceName::new("write").unwrap(),
            member: MemberName::new(member).unwrap(),
            postgres: Endpoint::new(member, 5432).unwrap(),
        }
    }

    #[test]
    fn an_operator_lists_and_ends_the_sessions_of_a_client() {
        let registry = Rc::new(Registry::default());
        let take = |member: &str, user: &str| {
            let seat = registry.take(assignment(member), Arc::default());
            seat.set_client(&Rc::new(ClientFacts {
                address: ([10, 0, 0, 1], 4711).into(),
                user: Some(user.into()),
                database: None,
                is_tls: false,
            }));
            seat
        };
        let seats = [take("n1", "app"), take("n2", "app"), take("n1", "batch")];
        let _early = registry.take_early(assignment("n1"), Arc::default());
        seats[0].count_bytes(3, 5);
        let is_of = |user: &'static str| {
            move |session: &SessionInfo| {
                session.client.as_ref().is_some_and(|client| client.user.as_deref() == Some(user))
            }
        };
        let (listed, omitted) = registry.list(1, is_of("app"));
        assert_eq!((listed.len(), omitted, listed[0].bytes_out), (1, 1, 5));
        assert_eq!(registry.list(9, |_| true).0.len(), 3, "an early login is no session");
        let by = Arc::from("ann");
        assert_eq!(registry.end_selected(&by, is_of("app")), 2);
        assert_eq!(registry.end_selected(&by, |_| true), 1, "what ends is not ended twice");
    }

    #[test]
    fn an_early_login_is_not_a_session_until_it_is_admitted() {
        let registry = Rc::new(Registry::default());
        let stats = Arc::new(MemberStats::default());
        let sessions = || stats.sessions.load(Ordering::Relaxed);
        let seat = registry.take_early(assignment("n1"), Arc::clone(&stats));
        let not_admitted = registry.take_early(assignment("n1"), Arc::clone(&stats));
        assert_eq!(
            registry.end(|_, purpose| (purpose == Purpose::Session).then_some(Ending::Shutdown)),
            0
        );
        assert_eq!(registry.end(|_, _| Some(Ending::Shutdown)), 2);
        assert_eq!(sessions(), 0);
        seat.admit();
        assert_eq!(sessions(), 1);
        drop((seat, not_admitted));
        assert_eq!(sessions(), 0);
        assert_eq!(stats.ended_total.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn only_matching_sessions_are_ended_and_all_of_them_are_waited_for() {
        let registry = Rc::new(Registry::default());
        let stats = Arc::new(MemberStats::default());
        let first = registry.take(assignment("n1"), Arc::clone(&stats));
        let second = registry.take(assignment("n2"), Arc::clone(&stats));
        let why = |assignment: &Assignment, _| {
            (assignment.member.as_str() == "n1").then_some(Ending::Gate(Some(Reason::Left(None))))
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
