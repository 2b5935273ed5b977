//! Admission: which client connections are let in, and which one gives way to a new one.
//!
//! There are two limits: one for all client connections, and one for those of a single address.
//! A connection is *silent* until its client has sent the whole first packet that the proxy waits
//! for. At a limit the oldest connection that has been silent for [`SILENT_MIN`] is closed and the
//! new one takes its place, so that connections which send nothing cannot lock out clients that
//! do. Without such a connection the new client is refused, with the name of the limit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::stats::Stats;

/// How many connections that are being refused may wait for the first packet of their client.
const REFUSED_MAX: usize = 64;

/// How many connections may have been told to close and not be closed yet. A worker closes them
/// within milliseconds.
const CLOSING_MAX: usize = 36;

/// How many connections may exist above the limit.
pub const EXCESS_MAX: usize = REFUSED_MAX + CLOSING_MAX;

/// How long a connection has to be silent before it may have to give way. The packet of a client
/// that has just connected is still under way.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// How many of the oldest connections are looked at for one that has been silent so long. An old
/// connection may be silent anew, for example after its client has asked for TLS.
const LOOK_AT_MAX: usize = 8;

/// The part of all connections that is kept free of any single address, unless the operator sets
/// a limit: a tenth.
const OTHERS_PART: usize = 10;

/// A limit that a new connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `sessions_max` of `[proxy]`.
    All(usize),
    /// `sessions_per_address_max` of `[proxy]`.
    Address(usize),
}

/// What becomes of a new connection.
#[derive(Debug)]
pub enum Decision {
    /// It is let in.
    LetIn(Ticket),
    /// It exceeds a limit. It may log in nowhere, but it may read why, and it may cancel.
    Refuse(Ticket, Limit),
    /// It exceeds a limit, and too many others are being refused at this moment.
    RefuseAtOnce(Limit),
    /// A place will be free as soon as a worker has closed a connection: try again.
    TryAgain,
}

/// The limits and the connections that they count.
#[derive(Debug)]
pub struct Admission {
    all_max: usize,
    address_max: usize,
    stats: Arc<Stats>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that were let in, those that are closing included.
    let_in: usize,
    /// Connections that are being refused.
    refused: usize,
    /// Numbers of the connections that gave way and are not closed yet.
    closing: BTreeSet<u64>,
    /// The silent connections, in the order of their arrival.
    silent: BTreeMap<u64, Silent>,
    addresses: HashMap<IpAddr, Address>,
    /// The number of the next connection.
    next: u64,
}

#[derive(Debug)]
struct Silent {
    address: IpAddr,
    since: Instant,
    give_way: oneshot::Sender<()>,
}

/// What is known of a client address; forgotten with its last connection.
#[derive(Debug, Default)]
struct Address {
    /// Connections that were let in and are not closing.
    connections: usize,
    silent: BTreeSet<u64>,
}

/// A connection that is counted as long as this lives.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    address: IpAddr,
    is_refused: bool,
}

/// The silence of one connection, from its start to [`Silence::end`].
#[derive(Debug)]
pub struct Silence<'a> {
    ticket: &'a Ticket,
    gives_way: oneshot::Receiver<()>,
}

impl Admission {
    /// `address_max` is nine tenths of `all_max` unless it is given.
    pub fn new(all_max: usize, address_max: Option<usize>, stats: Arc<Stats>) -> Admission {
        let address_max = address_max.unwrap_or(all_max - all_max / OTHERS_PART);
        Admission { all_max, address_max, stats, state: Mutex::default() }
    }

    /// Decides on a new connection from `address`.
    pub fn decide(self: &Arc<Admission>, address: IpAddr, now: Instant) -> Decision {
        let address = address.to_canonical();
        let mut state = self.lock();
        let exceeded = match self.make_room(&mut state, address, now) {
            Ok(limit) => limit,
            Err(Busy) => return Decision::TryAgain,
        };
        if let Some(limit) = exceeded {
            self.stats.turned_away.fetch_add(1, Ordering::Relaxed);
            if state.refused >= REFUSED_MAX {
                return Decision::RefuseAtOnce(limit);
            }
            state.refused += 1;
        } else {
            state.let_in += 1;
            state.addresses.entry(address).or_default().connections += 1;
        }
        let number = state.next;
        state.next += 1;
        drop(state);
        self.stats.clients.fetch_add(1, Ordering::Relaxed);
        let is_refused = exceeded.is_some();
        let ticket = Ticket { admission: Arc::clone(self), number, address, is_refused };
        match exceeded {
            Some(limit) => Decision::Refuse(ticket, limit),
            None => Decision::LetIn(ticket),
        }
    }

    /// Finds room for one more connection from `address`. Returns the limit that leaves none.
    fn make_room(
        &self,
        state: &mut State,
        address: IpAddr,
        now: Instant,
    ) -> Result<Option<Limit>, Busy> {
        // With an equal limit for all there is none for one address.
        let is_limited = self.address_max < self.all_max;
        if is_limited && state.connections_of(address) >= self.address_max {
            let known = state.addresses.get(&address);
            let silent = known.iter().flat_map(|known| &known.silent);
            let Some(oldest) = state.first_silent(silent, now) else {
                return Ok(Some(Limit::Address(self.address_max)));
            };
            self.give_way(state, oldest)?;
        }
        if state.let_in - state.closing.len() >= self.all_max {
            let Some(oldest) = state.first_silent(state.silent.keys(), now) else {
                return Ok(Some(Limit::All(self.all_max)));
            };
            self.give_way(state, oldest)?;
        }
        Ok(None)
    }

    /// Has the silent connection `number` closed by its worker.
    fn give_way(&self, state: &mut State, number: u64) -> Result<(), Busy> {
        if state.closing.len() >= CLOSING_MAX {
            return Err(Busy);
        }
        if let Some(silent) = state.silent.remove(&number) {
            state.closing.insert(number);
            state.leave(silent.address, number);
            self.stats.silent_closed.fetch_add(1, Ordering::Relaxed);
            // The receiver lives as long as the entry that was just removed.
            let _ = silent.give_way.send(());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many connections as may be closing are closing.
#[derive(Debug)]
struct Busy;

impl State {
    /// The first of `numbers` that has been silent for long enough.
    fn first_silent<'a>(
        &self,
        numbers: impl Iterator<Item = &'a u64>,
        now: Instant,
    ) -> Option<u64> {
        let is_long = |number: &&u64| {
            let silent = self.silent.get(*number);
            silent.is_some_and(|silent| now.duration_since(silent.since) >= SILENT_MIN)
        };
        numbers.take(LOOK_AT_MAX).find(is_long).copied()
    }

    fn connections_of(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).map_or(0, |known| known.connections)
    }

    /// A connection of `address` counts no more.
    fn leave(&mut self, address: IpAddr, number: u64) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.silent.remove(&number);
            known.connections -= 1;
            if known.connections == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

impl Ticket {
    /// The address of the client; an IPv4 address in IPv6 is an IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Begins a time in which the connection may have to give way. A connection that is being
    /// refused takes no room and never has to.
    pub fn silence(&self, now: Instant) -> Silence<'_> {
        let (give_way, gives_way) = oneshot::channel();
        if !self.is_refused {
            let mut state = self.admission.lock();
            let silent = Silent { address: self.address, since: now, give_way };
            state.silent.insert(self.number, silent);
            if let Some(known) = state.addresses.get_mut(&self.address) {
                known.silent.insert(self.number);
            }
        }
        Silence { ticket: self, gives_way }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        if self.is_refused {
            state.refused -= 1;
        } else {
            state.let_in -= 1;
            // Where it has given way already, its address does not count it any more.
            if !state.closing.remove(&self.number) {
                state.leave(self.address, self.number);
            }
        }
        drop(state);
        self.admission.stats.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Silence<'_> {
    /// Waits until the connection has to give way.
    pub async fn gives_way(&mut self) {
        if self.ticket.is_refused || (&mut self.gives_way).await.is_err() {
            std::future::pending().await
        }
    }

    /// The client has sent its packet. Returns false if the connection had to give way before.
    pub fn end(self) -> bool {
        self.forget() || self.ticket.is_refused
    }

    /// Returns true if the connection was still silent.
    fn forget(&self) -> bool {
        let mut state = self.ticket.admission.lock();
        if let Some(known) = state.addresses.get_mut(&self.ticket.address) {
            known.silent.remove(&self.ticket.number);
        }
        state.silent.remove(&self.ticket.number).is_some()
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admission(all_max: usize, address_max: Option<usize>) -> Arc<Admission> {
        Arc::new(Admission::new(all_max, address_max, Arc::default()))
    }

    /// Long after all that is silent has begun to be so.
    fn later() -> Instant {
        Instant::now() + SILENT_MIN
    }

    fn let_in(admission: &Arc<Admission>, address: IpAddr) -> Ticket {
        match admission.decide(address, later()) {
            Decision::LetIn(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn refused(admission: &Arc<Admission>, address: IpAddr) -> (Ticket, Limit) {
        match admission.decide(address, later()) {
            Decision::Refuse(ticket, limit) => (ticket, limit),
            other => panic!("{other:?}"),
        }
    }

    fn silence(ticket: &Ticket) -> Silence<'_> {
        ticket.silence(Instant::now())
    }

    #[test]
    fn a_client_that_has_just_connected_does_not_give_way() {
        let admission = admission(1, None);
        let ticket = let_in(&admission, HERE);
        let mut silence = silence(&ticket);
        assert!(matches!(admission.decide(HERE, Instant::now()), Decision::Refuse(..)));
        assert!(!has_to_go(&mut silence));
        assert!(matches!(admission.decide(HERE, later()), Decision::LetIn(_)));
        assert!(has_to_go(&mut silence));
    }

    fn has_to_go(silence: &mut Silence<'_>) -> bool {
        silence.gives_way.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_silent_connection_gives_way_and_a_client_that_has_spoken_does_not() {
        let admission = admission(3, Some(3));
        let tickets: Vec<Ticket> = (0..3).map(|_| let_in(&admission, HERE)).collect();
        let mut silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        assert!(silences.remove(0).end());
        let _new = let_in(&admission, THERE);
        assert!(has_to_go(&mut silences[0]), "the second is the oldest that is silent");
        assert!(!has_to_go(&mut silences[1]));
        assert!(!silences.remove(0).end(), "its place is taken");
        assert!(silences.remove(0).end());
        let (_kept, limit) = refused(&admission, THERE);
        assert_eq!(limit, Limit::All(3));
    }

    #[test]
    fn an_address_at_its_limit_takes_no_place_of_others() {
        let admission = admission(3, Some(2));
        let other = let_in(&admission, THERE);
        let mut silent = silence(&other);
        let tickets = [let_in(&admission, HERE), let_in(&admission, HERE)];
        let (_kept, limit) = refused(&admission, HERE);
        assert_eq!(limit, Limit::Address(2));
        let mut own = silence(&tickets[1]);
        let _new = let_in(&admission, HERE);
        assert!(has_to_go(&mut own));
        assert!(!has_to_go(&mut silent));
    }

    #[test]
    fn one_address_leaves_a_tenth_to_the_others() {
        let admission = admission(20, None);
        let _tickets: Vec<Ticket> = (0..18).map(|_| let_in(&admission, HERE)).collect();
        assert_eq!(refused(&admission, HERE).1, Limit::Address(18));
        let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
        assert_eq!(refused(&admission, mapped).1, Limit::Address(18));
        let _others = [let_in(&admission, THERE), let_in(&admission, THERE)];
    }

    /// A refused client may stay silent until the login timeout.
    #[test]
    fn refused_clients_that_send_nothing_keep_no_silent_connection_open() {
        let admission = admission(200, Some(200));
        let tickets: Vec<Ticket> = (0..200).map(|_| let_in(&admission, HERE)).collect();
        let _refused: Vec<_> = (0..REFUSED_MAX).map(|_| refused(&admission, HERE)).collect();
        let _silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        let _new: Vec<Ticket> = (0..CLOSING_MAX).map(|_| let_in(&admission, THERE)).collect();
    }

    #[test]
    fn what_is_above_the_limit_is_bounded_and_nothing_stays_counted() {
        let admission = admission(200, Some(200));
        let tickets: Vec<Ticket> = (0..200).map(|_| let_in(&admission, HERE)).collect();
        let silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        let new: Vec<Ticket> = (0..CLOSING_MAX).map(|_| let_in(&admission, THERE)).collect();
        assert!(matches!(admission.decide(THERE, later()), Decision::TryAgain));
        drop(silences);
        drop((new, tickets));
        let tickets: Vec<Ticket> = (0..200).map(|_| let_in(&admission, HERE)).collect();
        let refusals: Vec<_> = (0..REFUSED_MAX).map(|_| refused(&admission, HERE)).collect();
        let decision = admission.decide(HERE, later());
        assert!(matches!(decision, Decision::RefuseAtOnce(Limit::All(200))));
        drop((tickets, refusals));
        let state = admission.lock();
        assert_eq!((state.let_in, state.refused), (0, 0));
        assert!(state.addresses.is_empty() && state.silent.is_empty() && state.closing.is_empty());
        assert_eq!(admission.stats.clients.load(Ordering::Relaxed), 0);
    }
}
