//! Admission: which client connections are accepted, and which one is closed for a new one.
//!
//! There are two limits: one for all client connections, and one for those of a single address. A
//! connection is *silent* until its client has sent the whole packet that the proxy waits for. At a
//! limit the oldest connection that has been silent for [`SILENT_MIN`] is closed and the new one is
//! admitted, so that connections that send nothing cannot lock out clients that do. If there is no such
//! connection, the new client is refused with the name of the limit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgsteer_wire::error::{ErrorFields, sqlstate};
use tokio::sync::oneshot;

use crate::stats::Stats;

/// The maximum number of refused connections that wait for the first packet of their client.
const REFUSED_MAX: usize = 64;

/// The maximum number of connections that are about to be closed. A worker closes them within
/// milliseconds.
const CLOSING_MAX: usize = 36;

/// The maximum number of connections above the limit.
pub const EXCESS_MAX: usize = REFUSED_MAX + CLOSING_MAX;

/// A connection is closed for a new one only after it has been silent for this long. The packet of a
/// client that has just connected is still on the network.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// How many of the oldest connections are checked for one that has been silent for long enough. The
/// silence of an old connection may be new, for example after a request for TLS.
const LOOK_AT_MAX: usize = 8;

/// One tenth of all connections is reserved for other addresses than any single one, unless
/// `sessions_per_address_max` is set.
const OTHERS_DIVISOR: usize = 10;

/// A limit that a new connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `sessions_max` of `[proxy]`.
    All(usize),
    /// `sessions_per_address_max` of `[proxy]`.
    Address(usize),
}

impl Limit {
    /// The error that a client above the limit receives.
    pub fn refusal(self) -> Vec<u8> {
        let (message, hint) = match self {
            Limit::All(max) => (
                format!("the limit of {max} clients is reached (sessions_max)"),
                "Raise sessions_max under [proxy], or use a connection pool.",
            ),
            Limit::Address(max) => (
                format!(
                    "the limit of {max} clients from this address is reached \
                     (sessions_per_address_max)"
                ),
                "Raise sessions_per_address_max under [proxy], or use a connection pool.",
            ),
        };
        let fields = ErrorFields {
            sqlstate: sqlstate::TOO_MANY_CONNECTIONS,
            message: &message,
            detail: "",
            hint,
        };
        fields.to_fatal()
    }
}

/// The decision on a new connection.
#[derive(Debug)]
pub enum Decision {
    /// It is admitted.
    Admit(Ticket),
    /// It exceeds a limit. The client cannot log in; it receives the reason, and its cancel request is
    /// sent.
    Refuse(Ticket, Limit),
    /// It exceeds a limit, and [`REFUSED_MAX`] others are being refused at this moment.
    RefuseAtOnce(Limit),
    /// A worker is closing connections, and then there is space: try again.
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
    /// Admitted connections, those that are closing included.
    admitted: usize,
    /// Connections that are being refused.
    refused: usize,
    /// The numbers of the connections that are closing.
    closing: BTreeSet<u64>,
    /// The silent connections, in the order of their arrival.
    silent: BTreeMap<u64, Silent>,
    addresses: HashMap<IpAddr, Address>,
    /// Connections of another process that may still arrive here. They are counted as admitted.
    reserved: HashMap<IpAddr, usize>,
    /// The number of the next connection.
    next: u64,
}

#[derive(Debug)]
struct Silent {
    address: IpAddr,
    since: Instant,
    give_way: oneshot::Sender<()>,
}

/// The connections of a client address. Removed with the last one.
#[derive(Debug, Default)]
struct Address {
    /// Admitted connections that are not closing.
    connections: usize,
    silent: BTreeSet<u64>,
}

/// A connection, which is counted until this is dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    address: IpAddr,
    is_refused: bool,
}

/// The silence of one connection, up to [`Silence::end`].
#[derive(Debug)]
pub struct Silence<'a> {
    ticket: &'a Ticket,
    gives_way: oneshot::Receiver<()>,
}

impl Admission {
    /// Limits without connections. `address_max` is nine tenths of `all_max` unless it is given.
    pub fn new(all_max: usize, address_max: Option<usize>, stats: Arc<Stats>) -> Admission {
        let address_max = address_max.unwrap_or(all_max - all_max / OTHERS_DIVISOR);
        Admission { all_max, address_max, stats, state: Mutex::default() }
    }

    /// Decides on a new connection from `address`.
    pub fn decide(self: &Arc<Admission>, address: IpAddr, now: Instant) -> Decision {
        let address = address.to_canonical();
        let mut state = self.lock();
        let exceeded = match self.make_space(&mut state, address, now) {
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
            state.admit(address, 1);
        }
        let ticket = self.ticket(state, address, exceeded.is_some());
        match exceeded {
            Some(limit) => Decision::Refuse(ticket, limit),
            None => Decision::Admit(ticket),
        }
    }

    /// Counts connections of another process, which may arrive here, as admitted. They replace those that
    /// were reserved before and have not arrived.
    pub fn reserve(&self, connections: &[(IpAddr, usize)]) {
        let mut state = self.lock();
        for (address, count) in std::mem::take(&mut state.reserved) {
            state.release(address, count);
        }
        for (address, count) in connections {
            let address = address.to_canonical();
            state.admit(address, *count);
            *state.reserved.entry(address).or_default() += count;
        }
    }

    /// The number of admitted connections of each address, the largest first.
    pub fn connections(&self) -> Vec<(IpAddr, usize)> {
        let state = self.lock();
        let counts = state.addresses.iter().map(|(address, known)| (*address, known.connections));
        let mut counts: Vec<_> = counts.collect();
        drop(state);
        counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// Admits a connection that moves here from another process. Limits do not apply: it was admitted
    /// there.
    pub fn admit_moved(self: &Arc<Admission>, address: IpAddr) -> Ticket {
        let address = address.to_canonical();
        let mut state = self.lock();
        match state.reserved.get_mut(&address) {
            Some(reserved) if *reserved > 0 => *reserved -= 1,
            _ => state.admit(address, 1),
        }
        self.ticket(state, address, false)
    }

    /// Counts a client and gives it a number.
    fn ticket(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        address: IpAddr,
        is_refused: bool,
    ) -> Ticket {
        let number = state.next;
        state.next += 1;
        drop(state);
        self.stats.clients.fetch_add(1, Ordering::Relaxed);
        Ticket { admission: Arc::clone(self), number, address, is_refused }
    }

    /// Makes space for one more connection from `address`. Returns the limit that prevents it.
    fn make_space(
        &self,
        state: &mut State,
        address: IpAddr,
        now: Instant,
    ) -> Result<Option<Limit>, Busy> {
        // A limit that is not below that of all connections is no limit for one address.
        let is_limited = self.address_max < self.all_max;
        if is_limited && state.connections_of(address) >= self.address_max {
            let known = state.addresses.get(&address);
            let silent = known.iter().flat_map(|known| &known.silent);
            let Some(oldest) = state.first_silent(silent, now) else {
                return Ok(Some(Limit::Address(self.address_max)));
            };
            self.give_way(state, oldest)?;
        }
        if state.admitted - state.closing.len() >= self.all_max {
            let Some(oldest) = state.first_silent(state.silent.keys(), now) else {
                return Ok(Some(Limit::All(self.all_max)));
            };
            self.give_way(state, oldest)?;
        }
        Ok(None)
    }

    /// Requests the worker of the silent connection `number` to close it.
    fn give_way(&self, state: &mut State, number: u64) -> Result<(), Busy> {
        if state.closing.len() >= CLOSING_MAX {
            return Err(Busy);
        }
        if let Some(silent) = state.silent.remove(&number) {
            state.closing.insert(number);
            state.leave(silent.address, number);
            self.stats.silent_closed.fetch_add(1, Ordering::Relaxed);
            // The receiver exists as long as the entry that was just removed.
            let _ = silent.give_way.send(());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`CLOSING_MAX`] connections are closing.
#[derive(Debug)]
struct Busy;

impl State {
    /// Counts admitted connections from `address`.
    fn admit(&mut self, address: IpAddr, count: usize) {
        self.admitted += count;
        self.addresses.entry(address).or_default().connections += count;
    }

    /// Ends a reservation for connections from `address`.
    fn release(&mut self, address: IpAddr, count: usize) {
        self.admitted -= count;
        self.remove_from(address, count);
    }

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

    /// Removes a connection from the counters of `address`.
    fn leave(&mut self, address: IpAddr, number: u64) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.silent.remove(&number);
        }
        self.remove_from(address, 1);
    }

    fn remove_from(&mut self, address: IpAddr, count: usize) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.connections -= count;
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

    /// Begins a silence, during which the connection may be closed for a new one. A refused connection
    /// is above the limit and is not closed for others.
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
            state.admitted -= 1;
            // A closing connection was removed from its address before.
            if !state.closing.remove(&self.number) {
                state.leave(self.address, self.number);
            }
        }
        drop(state);
        self.admission.stats.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Silence<'_> {
    /// Waits until the connection has to be closed for a new one.
    pub async fn gives_way(&mut self) {
        if self.ticket.is_refused || (&mut self.gives_way).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends the silence: the client has sent its packet. Returns false if the connection has to be closed.
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

    /// A time at which every silent connection has been silent for long enough.
    fn later() -> Instant {
        Instant::now() + SILENT_MIN
    }

    fn admit(admission: &Arc<Admission>, address: IpAddr) -> Ticket {
        match admission.decide(address, later()) {
            Decision::Admit(ticket) => ticket,
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
    fn a_client_that_has_just_connected_is_not_closed() {
        let admission = admission(1, None);
        let ticket = admit(&admission, HERE);
        let mut silence = silence(&ticket);
        assert!(matches!(admission.decide(HERE, Instant::now()), Decision::Refuse(..)));
        assert!(!has_to_close(&mut silence));
        assert!(matches!(admission.decide(HERE, later()), Decision::Admit(_)));
        assert!(has_to_close(&mut silence));
    }

    fn has_to_close(silence: &mut Silence<'_>) -> bool {
        silence.gives_way.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_silent_connection_is_closed_and_one_that_has_sent_its_packet_is_not() {
        let admission = admission(3, Some(3));
        let tickets: Vec<Ticket> = (0..3).map(|_| admit(&admission, HERE)).collect();
        let mut silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        assert!(silences.remove(0).end());
        let _new = admit(&admission, THERE);
        assert!(has_to_close(&mut silences[0]), "the second is the oldest that is silent");
        assert!(!has_to_close(&mut silences[1]));
        assert!(!silences.remove(0).end(), "it has to be closed");
        assert!(silences.remove(0).end());
        let (_kept, limit) = refused(&admission, THERE);
        assert_eq!(limit, Limit::All(3));
    }

    #[test]
    fn an_address_at_its_limit_closes_no_connection_of_others() {
        let admission = admission(3, Some(2));
        let other = admit(&admission, THERE);
        let mut silent = silence(&other);
        let tickets = [admit(&admission, HERE), admit(&admission, HERE)];
        let (_kept, limit) = refused(&admission, HERE);
        assert_eq!(limit, Limit::Address(2));
        let mut own = silence(&tickets[1]);
        let _new = admit(&admission, HERE);
        assert!(has_to_close(&mut own));
        assert!(!has_to_close(&mut silent));
    }

    #[test]
    fn connections_of_another_process_are_counted_until_they_have_arrived() {
        let admission = admission(4, Some(3));
        admission.reserve(&[(HERE, 2), (THERE, 1)]);
        let arrived = admission.admit_moved(HERE);
        let mapped = std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped();
        let other = admission.admit_moved(mapped.into());
        let new = admit(&admission, HERE);
        let (kept, limit) = refused(&admission, HERE);
        assert_eq!(limit, Limit::Address(3), "one is still reserved");
        assert_eq!(refused(&admission, THERE).1, Limit::All(4));
        assert_eq!(admission.connections(), [(HERE, 3), (THERE, 1)]);
        admission.reserve(&[]);
        let instead = admit(&admission, HERE);
        drop((arrived, other, new, kept, instead));
        assert!(admission.connections().is_empty());
        assert_eq!(admission.lock().admitted, 0);
    }

    #[test]
    fn one_address_leaves_a_tenth_to_other_addresses() {
        let admission = admission(20, None);
        let _tickets: Vec<Ticket> = (0..18).map(|_| admit(&admission, HERE)).collect();
        assert_eq!(refused(&admission, HERE).1, Limit::Address(18));
        let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
        assert_eq!(refused(&admission, mapped).1, Limit::Address(18));
        let _others = [admit(&admission, THERE), admit(&admission, THERE)];
    }

    /// A refused client may stay silent until the login timeout.
    #[test]
    fn silent_connections_are_closed_although_refused_clients_send_nothing() {
        let admission = admission(200, Some(200));
        let tickets: Vec<Ticket> = (0..200).map(|_| admit(&admission, HERE)).collect();
        let _refused: Vec<_> = (0..REFUSED_MAX).map(|_| refused(&admission, HERE)).collect();
        let _silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        let _new: Vec<Ticket> = (0..CLOSING_MAX).map(|_| admit(&admission, THERE)).collect();
    }

    #[test]
    fn what_is_above_the_limit_is_bounded_and_nothing_stays_counted() {
        let admission = admission(200, Some(200));
        let tickets: Vec<Ticket> = (0..200).map(|_| admit(&admission, HERE)).collect();
        let silences: Vec<Silence<'_>> = tickets.iter().map(silence).collect();
        let new: Vec<Ticket> = (0..CLOSING_MAX).map(|_| admit(&admission, THERE)).collect();
        assert!(matches!(admission.decide(THERE, later()), Decision::TryAgain));
        drop(silences);
        drop((new, tickets));
        let tickets: Vec<Ticket> = (0..200).map(|_| admit(&admission, HERE)).collect();
        let refusals: Vec<_> = (0..REFUSED_MAX).map(|_| refused(&admission, HERE)).collect();
        let decision = admission.decide(HERE, later());
        assert!(matches!(decision, Decision::RefuseAtOnce(Limit::All(200))));
        drop((tickets, refusals));
        let state = admission.lock();
        assert_eq!((state.admitted, state.refused), (0, 0));
        assert!(state.addresses.is_empty() && state.silent.is_empty() && state.closing.is_empty());
        assert_eq!(admission.stats.clients.load(Ordering::Relaxed), 0);
    }
}
