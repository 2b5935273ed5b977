//! Who asks the agent, and who is known to send lines.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long somebody is waited for who sent a line before: long enough for TCP to repeat a packet
/// that was lost (200 ms at least). To take its silence for a question without a line would answer
/// it about another member.
const SENDER_WAIT: Duration = Duration::from_millis(300);

/// Addresses that are known to send lines. Beyond them nobody is remembered.
const SENDERS_MAX: usize = 1_024;

/// A client, and what it has said so far. Its socket does not block.
pub struct Client {
    pub stream: TcpStream,
    pub from: IpAddr,
    pub said: Vec<u8>,
}

/// Who has ever sent a line.
#[derive(Default)]
pub struct Senders(Mutex<BTreeSet<IpAddr>>);

impl Senders {
    pub fn note(&self, from: IpAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < SENDERS_MAX {
            known.insert(from);
        }
    }

    /// How long to wait for the line of somebody who says nothing yet.
    pub fn wait(&self, from: IpAddr, line_wait: Duration) -> Duration {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.contains(&from) {
            true => line_wait.max(SENDER_WAIT),
            false => line_wait,
        }
    }
}
