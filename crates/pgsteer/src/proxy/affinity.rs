//! Affinity: the preferred member of a client address.
//!
//! With `stick = "address"` all connections of an address go to one member while its gate is open.
//! Otherwise connections are distributed by the number of sessions, and only an *opaque* connection can
//! have a preferred member. An opaque connection uses TLS, so it may contain a cancel request that
//! pgsteer cannot read. A cancel request belongs to a member that is busy for the same address. If
//! exactly one member is busy, the connection goes there, unless that member has many more sessions than
//! another: otherwise all sessions of an application behind one address would be at one member.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgsteer_core::names::MemberName;

/// How long an address without sessions keeps its member.
const STICK_IDLE: Duration = Duration::from_secs(600);

/// The maximum number of remembered addresses without sessions. At the limit the address that has been
/// idle for longest is removed.
const STICK_IDLE_MAX: usize = 10_000;

/// How many more sessions than the least busy member a preferred one may have.
pub const IMBALANCE_MAX: usize = 16;

/// An address with more opaque sessions than this has no preference.
const OPAQUE_SESSIONS_MAX: usize = 256;

/// A younger session is in its handshake or its login and does not count as busy. Otherwise the
/// connections that a pool opens at once would all follow the first one.
const LOGIN: Duration = Duration::from_millis(50);

/// A session that is older than `SETTLED` and has received bytes within `RECENT` may be receiving a
/// long result, and counts as busy.
const SETTLED: Duration = Duration::from_secs(2);
const RECENT: Duration = Duration::from_secs(1);

/// The addresses of one service.
#[derive(Debug, Default)]
pub struct Affinity {
    stuck: Mutex<HashMap<IpAddr, Stuck>>,
    opaque: Mutex<HashMap<IpAddr, Vec<Arc<Opaque>>>>,
}

#[derive(Debug)]
struct Stuck {
    member: MemberName,
    sessions: usize,
    /// When it last had a session, or first asked for one.
    used: Instant,
}

/// A session of an address with a fixed member. The address keeps the member until this is dropped.
#[derive(Debug)]
pub struct Sticking {
    affinity: Arc<Affinity>,
    address: IpAddr,
}

/// The activity of a session whose bytes cannot be read.
#[derive(Debug)]
pub struct Opaque {
    member: MemberName,
    began: Instant,
    /// The client has sent bytes, and the server has sent none since.
    waits: AtomicBool,
    /// When the server last sent bytes, in milliseconds after `began`.
    answered_ms: AtomicU64,
}

/// An opaque session. It is removed from the list when this is dropped.
#[derive(Debug)]
pub struct OpaqueSession {
    affinity: Arc<Affinity>,
    address: IpAddr,
    opaque: Arc<Opaque>,
}

impl Affinity {
    /// The member of `address` out of `open`, which is sorted best first. An address whose member is not
    /// in `open` gets the first one and keeps it. None if `open` is empty.
    pub fn stick(&self, address: IpAddr, open: &[MemberName], now: Instant) -> Option<MemberName> {
        let first = open.first()?;
        let mut stuck = lock(&self.stuck);
        if let Some(known) = stuck.get_mut(&address) {
            let is_fresh = known.sessions > 0 || now.duration_since(known.used) < STICK_IDLE;
            if !is_fresh || !open.contains(&known.member) {
                known.member = first.clone();
            }
            known.used = now;
            return Some(known.member.clone());
        }
        if stuck.len() >= STICK_IDLE_MAX {
            forget_idle(&mut stuck, now);
        }
        let member = first.clone();
        stuck.insert(address, Stuck { member: member.clone(), sessions: 0, used: now });
        Some(member)
    }

    /// Counts a session of `address`. An address with sessions keeps its member.
    pub fn sticking(self: &Arc<Self>, address: IpAddr) -> Sticking {
        if let Some(known) = lock(&self.stuck).get_mut(&address) {
            known.sessions += 1;
        }
        Sticking { affinity: Arc::clone(self), address }
    }

    /// Same as [`Affinity::sticking`], for a session at `member` that arrives from another process.
    pub fn sticking_to(self: &Arc<Self>, address: IpAddr, member: &MemberName) -> Sticking {
        self.stick(address, std::slice::from_ref(member), Instant::now());
        self.sticking(address)
    }

    /// The only member that is busy for opaque sessions of `address`, if there is exactly one.
    pub fn busy_member(&self, address: IpAddr, now: Instant) -> Option<MemberName> {
        let opaque = lock(&self.opaque);
        let sessions = opaque.get(&address)?;
        if sessions.len() > OPAQUE_SESSIONS_MAX {
            return None;
        }
        let mut busy = sessions.iter().filter(|session| session.is_busy(now));
        let first = busy.next()?;
        busy.all(|other| other.member == first.member).then(|| first.member.clone())
    }

    /// Adds an opaque session of `address` at `member`.
    pub fn opaque(
        self: &Arc<Self>,
        address: IpAddr,
        member: MemberName,
        now: Instant,
    ) -> OpaqueSession {
        let (waits, answered_ms) = (AtomicBool::new(true), AtomicU64::new(0));
        let opaque = Arc::new(Opaque { member, began: now, waits, answered_ms });
        lock(&self.opaque).entry(address).or_default().push(Arc::clone(&opaque));
        OpaqueSession { affinity: Arc::clone(self), address, opaque }
    }
}

impl Opaque {
    /// Notes that the client has sent bytes.
    pub fn asked(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// Notes that the server has sent bytes.
    pub fn answered(&self, now: Instant) {
        let age = now.duration_since(self.began).as_millis();
        self.answered_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.waits.store(false, Ordering::Relaxed);
    }

    fn is_busy(&self, now: Instant) -> bool {
        let age = now.duration_since(self.began);
        let answered = Duration::from_millis(self.answered_ms.load(Ordering::Relaxed));
        let waits = self.waits.load(Ordering::Relaxed);
        (waits && age >= LOGIN) || (age >= SETTLED && age.saturating_sub(answered) < RECENT)
    }
}

impl OpaqueSession {
    /// Its activity.
    pub fn opaque(&self) -> &Opaque {
        &self.opaque
    }
}

impl Drop for OpaqueSession {
    fn drop(&mut self) {
        let mut opaque = lock(&self.affinity.opaque);
        if let Some(sessions) = opaque.get_mut(&self.address) {
            if let Some(index) = sessions.iter().position(|other| Arc::ptr_eq(other, &self.opaque))
            {
                sessions.swap_remove(index);
            }
            if sessions.is_empty() {
                opaque.remove(&self.address);
            }
        }
    }
}

impl Drop for Sticking {
    fn drop(&mut self) {
        if let Some(known) = lock(&self.affinity.stuck).get_mut(&self.address) {
            known.sessions = known.sessions.saturating_sub(1);
            known.used = Instant::now();
        }
    }
}

/// Makes space for one more address: removes those that have been idle for [`STICK_IDLE`], or the one
/// that has been idle for longest. Addresses with sessions stay; the sessions are limited.
fn forget_idle(stuck: &mut HashMap<IpAddr, Stuck>, now: Instant) {
    stuck.retain(|_, known| known.sessions > 0 || now.duration_since(known.used) < STICK_IDLE);
    if stuck.len() >= STICK_IDLE_MAX {
        let idle = stuck.iter().filter(|(_, known)| known.sessions == 0);
        let oldest = idle.min_by_key(|(_, known)| known.used).map(|(address, _)| *address);
        oldest.and_then(|address| stuck.remove(&address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn names(names: &[&str]) -> Vec<MemberName> {
        names.iter().map(|name| MemberName::new(name).unwrap()).collect()
    }

    #[test]
    fn an_address_keeps_its_member_while_the_gate_is_open_and_for_a_while_without_sessions() {
        let affinity = Arc::new(Affinity::default());
        let mut now = Instant::now();
        let stick = |open: &[&str], now| affinity.stick(HERE, &names(open), now).unwrap();
        assert_eq!(stick(&["n2", "n3"], now).as_str(), "n2");
        assert_eq!(stick(&["n3", "n2"], now).as_str(), "n2");
        assert_eq!(affinity.stick(THERE, &names(&["n3", "n2"]), now).unwrap().as_str(), "n3");
        let session = affinity.sticking(HERE);
        now += STICK_IDLE * 2;
        assert_eq!(stick(&["n3", "n2"], now).as_str(), "n2", "it has a session there");
        assert_eq!(stick(&["n3"], now).as_str(), "n3", "n2 is not open any more");
        assert_eq!(stick(&["n2", "n3"], now).as_str(), "n3");
        drop(session);
        now += STICK_IDLE * 2;
        assert_eq!(stick(&["n2", "n3"], now).as_str(), "n2", "it was idle for too long");
        assert_eq!(affinity.stick(HERE, &[], now), None);
    }

    #[test]
    fn the_number_of_remembered_addresses_is_limited() {
        let affinity = Arc::new(Affinity::default());
        let (open, start) = (names(&["n2"]), Instant::now());
        affinity.stick(HERE, &open, start);
        let _session = affinity.sticking(HERE);
        for number in 0..u32::try_from(STICK_IDLE_MAX).unwrap() + 100 {
            let now = start + Duration::from_millis(u64::from(number));
            affinity.stick(Ipv4Addr::from_bits(number).into(), &open, now);
        }
        let stuck = lock(&affinity.stuck);
        assert_eq!(stuck.len(), STICK_IDLE_MAX);
        assert!(stuck.contains_key(&HERE));
        assert!(!stuck.contains_key(&IpAddr::from([0, 0, 0, 1])), "the oldest is removed first");
    }

    #[test]
    fn a_member_is_preferred_only_if_it_alone_is_busy_for_the_address() {
        let affinity = Arc::new(Affinity::default());
        let start = Instant::now();
        let [n2, n3] = [&names(&["n2"])[0], &names(&["n3"])[0]].map(Clone::clone);
        let busy = |now| affinity.busy_member(HERE, now);
        let first = affinity.opaque(HERE, n2.clone(), start);
        assert_eq!(busy(start), None, "it logs in");
        let now = start + LOGIN;
        first.opaque().answered(now);
        assert_eq!(busy(now), None, "it is idle");
        first.opaque().asked();
        assert_eq!(busy(now), Some(n2.clone()));
        assert_eq!(affinity.busy_member(THERE, now), None);
        let second = affinity.opaque(HERE, n3, start);
        assert_eq!(busy(now), None, "both are busy");
        second.opaque().answered(now);
        assert_eq!(busy(now), Some(n2.clone()));
        // A long result arrives.
        let now = start + SETTLED;
        first.opaque().answered(now);
        assert_eq!(busy(now), Some(n2));
        assert_eq!(busy(now + RECENT), None);
        drop((first, second));
        assert!(lock(&affinity.opaque).is_empty());
    }
}
