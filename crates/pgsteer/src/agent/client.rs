//! The clients of the agent, and the memory of those that send lines.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::mem;
use std::net::{IpAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The wait for the line of a client whose address has sent a line before: long enough for TCP to
/// repeat a lost packet (200 ms at least). A shorter wait could take a late line for a check without
/// a line, and the answer would be about another member.
const SENDER_WAIT: Duration = Duration::from_millis(300);

/// How long an address counts as a sender of lines after its last line. HAProxy sends its line with
/// every check. A person who tries the port once must not delay the other clients of that machine
/// for ever.
const SENDER_MEMORY: Duration = Duration::from_secs(60);

/// Addresses that are remembered as senders. At the limit the one with the oldest line is removed.
const SENDERS_MAX: usize = 1_024;

/// A thread that has not read the clock for longer than this was stopped (by a signal, a frozen
/// cgroup or a paused virtual machine). The Snapshot is then out of date although every member may be
/// healthy. The clock is monotonic: it stands still while the machine itself is suspended.
pub const STALL: Duration = Duration::from_secs(3);

/// A connected client and the bytes that it has sent so far. Its socket does not block.
pub struct Client {
    pub stream: TcpStream,
    pub address: IpAddr,
    pub connected_at: Instant,
    pub received: Vec<u8>,
}

/// Detects that its thread was stopped.
pub struct StallDetector {
    last_read: Instant,
}

/// The addresses that have sent a line, each with the time of the last one.
#[derive(Default)]
pub struct Senders(Mutex<BTreeMap<IpAddr, Instant>>);

impl StallDetector {
    /// A detector that starts at `now`.
    pub fn new(now: Instant) -> StallDetector {
        StallDetector { last_read: now }
    }

    /// Returns true if the thread was stopped since the last call. It has to be called at least once
    /// in [`STALL`].
    pub fn has_stalled(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(mem::replace(&mut self.last_read, now)) > STALL
    }
}

impl Senders {
    /// Notes that `address` has sent a line.
    pub fn note(&self, address: IpAddr, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SENDERS_MAX && !known.contains_key(&address) {
            let oldest = known.iter().min_by_key(|(_, last)| **last).map(|(address, _)| *address);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(address, now);
    }

    /// Returns true if a client has sent a line since the start.
    pub fn exist(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// How long to wait for the line of a client that has sent nothing yet.
    pub fn wait(&self, address: IpAddr, line_wait: Duration, now: Instant) -> Duration {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.get(&address);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < SENDER_MEMORY) {
            line_wait.max(SENDER_WAIT)
        } else {
            line_wait
        }
    }
}

/// Reads up to 16 KB that a client has sent behind its line: closing a socket with unread bytes resets
/// the connection, and the answer may be lost with it.
pub fn discard_unread(mut stream: &TcpStream) {
    let mut unread = [0; 4_096];
    for _ in 0..4 {
        if !stream.read(&mut unread).is_ok_and(|count| count == unread.len()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const WAIT: Duration = Duration::from_millis(50);

    fn address(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()))
    }

    #[test]
    fn a_stall_is_noticed_once() {
        let start = Instant::now();
        let mut detector = StallDetector::new(start);
        assert!(!detector.has_stalled(start + STALL));
        assert!(!detector.has_stalled(start + STALL * 2));
        assert!(detector.has_stalled(start + STALL * 4));
        assert!(!detector.has_stalled(start + STALL * 4));
    }

    #[test]
    fn an_address_that_sends_lines_gets_more_time_for_a_while() {
        let (senders, start) = (Senders::default(), Instant::now());
        assert_eq!(senders.wait(address(1), WAIT, start), WAIT);
        assert!(!senders.exist());
        senders.note(address(1), start);
        assert!(senders.exist());
        assert_eq!(senders.wait(address(1), WAIT, start + SENDER_MEMORY / 2), SENDER_WAIT);
        assert_eq!(senders.wait(address(2), WAIT, start), WAIT);
        assert_eq!(senders.wait(address(1), WAIT, start + SENDER_MEMORY), WAIT);
    }

    #[test]
    fn the_address_with_the_oldest_line_is_removed_at_the_limit() {
        let (senders, start) = (Senders::default(), Instant::now());
        for number in 0..=SENDERS_MAX {
            senders.note(address(number), start + Duration::from_micros(number as u64));
        }
        assert_eq!(senders.wait(address(0), WAIT, start), WAIT);
        assert_eq!(senders.wait(address(SENDERS_MAX), WAIT, start), SENDER_WAIT);
    }
}
