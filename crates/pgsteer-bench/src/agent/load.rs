//! Checks at a fixed rate, independent of the answers, and the time of each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The request, its address, and its rate.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub addr: SocketAddr,
    /// The line to send, or an empty string to send nothing.
    pub line: &'a str,
    /// The expected start of an answer.
    pub answer: &'a str,
    pub per_second: u32,
    pub time: Duration,
}

/// The times of the checks, shortest first.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time within which this share of the checks was answered.
    pub fn within(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * share).ceil() as usize).clamp(1, last + 1) - 1;
        self.0.get(at).copied().unwrap_or_default()
    }
}

impl Load<'_> {
    /// Sends the checks, one after the other, from one thread. This is still an open loop: each
    /// check has its scheduled time, and a check that starts late because of earlier ones counts
    /// from its scheduled time. The delay of the thread's wake-up is not counted.
    pub fn run(&self) -> Result<Latencies> {
        let step = Duration::from_secs(1) / self.per_second;
        let began = Instant::now();
        let mut took = Vec::new();
        let mut due = began;
        while due - began < self.time {
            let socket = self.socket()?;
            let from = match due.checked_duration_since(Instant::now()) {
                Some(early) => {
                    std::thread::sleep(early);
                    Instant::now()
                }
                None => due,
            };
            let (answer, took_so_far) = self.ask(socket, from).context("a check failed")?;
            let begins = answer.starts_with(self.answer.as_bytes());
            ensure!(begins, "the answer is {:?}", String::from_utf8_lossy(&answer));
            took.push(took_so_far);
            due += step;
        }
        took.sort_unstable();
        Ok(Latencies(took))
    }

    /// Sleeps as for checks, for this time, without a request: the cost of the timer alone.
    pub fn keep_time(&self, time: Duration) {
        let step = Duration::from_secs(1) / self.per_second;
        let began = Instant::now();
        let mut due = began;
        while due - began < time {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += step;
        }
    }

    /// A socket whose every operation has a time limit.
    fn socket(&self) -> Result<OwnedFd> {
        let socket = rustix::net::socket_with(
            match self.addr {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            },
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, way, Some(ANSWER_LIMIT))?;
        }
        Ok(socket)
    }

    /// Measures from the connect to the end of the answer, with a request like HAProxy's.
    fn ask(&self, socket: OwnedFd, from: Instant) -> Result<(Vec<u8>, Duration)> {
        rustix::net::connect(&socket, &self.addr)?;
        let mut stream = TcpStream::from(socket);
        if !self.line.is_empty() {
            stream.write_all(self.line.as_bytes())?;
        }
        let (mut answer, mut part) = (Vec::new(), [0; 256]);
        loop {
            match stream.read(&mut part)? {
                0 => return Ok((answer, from.elapsed())),
                count => answer.extend_from_slice(&part[..count]),
            }
        }
    }
}

/// A server that does the least possible: accept, read, answer, close. Its times are the machine's
/// share of every figure. It runs as long as the process.
pub fn bare_server(answer: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    std::thread::Builder::new().name("bare server".to_owned()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that disconnects early is not measured.
            let _ = stream.read(&mut [0; 256]).and_then(|_| stream.write_all(answer.as_bytes()));
        }
    })?;
    Ok(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_from_the_shortest() {
        let ms = Duration::from_millis;
        let latencies = Latencies((1..=200).map(ms).collect());
        assert_eq!(latencies.within(0.5), ms(100));
        assert_eq!(latencies.within(0.99), ms(198));
        assert_eq!(latencies.within(1.0), ms(200));
        assert_eq!(Latencies(vec![ms(7)]).within(0.99), ms(7));
    }
}
