//! Who asks the agent, and who is known to send lines.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::mem;
use std::net::{IpAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long somebody is waited for who sent a line before: long enough for TCP to repeat a packet
/// that was lost (200 ms at least). To take its silence for a question without a line would answer
/// it about another member.
const SENDER_WAIT: Duration = Duration::from_millis(300);

/// How long it is remembered. HAProxy sends its line with every check; somebody who tries the port
/// by hand from the same machine is no reason to keep those waiting for ever that send none.
const SENDER_MEMORY: Duration = Duration::from_secs(60);

/// Addresses that are known to send lines. For one more the one goes that was heard longest ago.
const SENDERS_MAX: usize = 1_024;

/// A thread that has not looked at the clock for longer was stopped (a signal, a frozen cgroup, a host
/// that has no time for its guest). All that is known is too old then, and no member has anything wrong
/// with it. The clock is the monotonic one: while the machine itself is suspended it stands still.
pub const STALL: Duration = Duration::from_secs(3);

/// A client, and what it has said so far. Its socket does not block.
pub struct Client {
    pub stream: TcpStream,
    pub from: IpAddr,
    pub came: Instant,
    pub said: Vec<u8>,
}

/// When a thread last looked at the clock.
pub struct Awake(Instant);

/// Who has sent a line, and when the last.
#[derive(Default)]
pub struct Senders(Mutex<BTreeMap<IpAddr, Instant>>);

impl Awake {
    pub fn since(now: Instant) -> Awake {
        Awake(now)
    }

    /// Whether the thread was stopped since it last asked this. Every [`STALL`] it has to ask.
    pub fn has_stalled(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(mem::replace(&mut self.0, now)) > STALL
    }
}

impl Senders {
    pub fn note(&self, from: IpAddr, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SENDERS_MAX && !known.contains_key(&from) {
            let oldest = known.iter().min_by_key(|(_, heard)| **heard).map(|(from, _)| *from);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(from, now);
    }

    /// How long to wait for the line of somebody who says nothing yet.
    pub fn wait(&self, from: IpAddr, line_wait: Duration, now: Instant) -> Duration {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = known.get(&from);
        match heard.is_some_and(|heard| now.saturating_duration_since(*heard) < SENDER_MEMORY) {
            true => line_wait.max(SENDER_WAIT),
            false => line_wait,
        }
    }
}

/// Reads what a client has sent beyond its line, a little of it: a socket that is closed with bytes
/// unread tears the connection down, and the answer may be lost with it.
pub fn take_the_rest(mut stream: &TcpStream) {
    let mut rest = [0; 4_096];
    for _ in 0..4 {
        if !stream.read(&mut rest).is_ok_and(|count| count == rest.len()) {
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
        let mut awake = Awake::since(start);
        assert!(!awake.has_stalled(start + STALL));
        assert!(!awake.has_stalled(start + STALL * 2));
        assert!(awake.has_stalled(start + STALL * 4));
        assert!(!awake.has_stalled(start + STALL * 4));
    }

    #[test]
    fn whoever_sends_lines_is_given_more_time_for_a_while() {
        let (senders, start) = (Senders::default(), Instant::now());
        assert_eq!(senders.wait(address(1), WAIT, start), WAIT);
        senders.note(address(1), start);
        assert_eq!(senders.wait(address(1), WAIT, start + SENDER_MEMORY / 2), SENDER_WAIT);
        assert_eq!(senders.wait(address(2), WAIT, start), WAIT);
        assert_eq!(senders.wait(address(1), WAIT, start + SENDER_MEMORY), WAIT);
    }

    #[test]
    fn the_one_heard_longest_ago_makes_room() {
        let (senders, start) = (Senders::default(), Instant::now());
        for number in 0..=SENDERS_MAX {
            senders.note(address(number), start + Duration::from_micros(number as u64));
        }
        assert_eq!(senders.wait(address(0), WAIT, start), WAIT);
        assert_eq!(senders.wait(address(SENDERS_MAX), WAIT, start), SENDER_WAIT);
    }
}
