//! Checks at a fixed rate, come what may, and how long each took.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What is asked, where, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub addr: SocketAddr,
    /// What is sent; nothing if it is empty.
    pub line: &'a str,
    /// How an answer begins.
    pub answer: &'a str,
    pub per_second: u32,
    pub time: Duration,
}

/// How long the checks took, shortest first.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time within which this share of all were answered.
    pub fn within(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * share).ceil() as usize).clamp(1, last + 1) - 1;
        self.0.get(at).copied().unwrap_or_default()
    }
}

impl Load<'_> {
    /// One thread asks one check after the other. It is an open loop all the same: a check has its
    /// moment, and one that comes late because of those before it is counted from that moment on.
    /// How late the system wakes the thread is not counted.
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

    /// Sleeps for each check, for so long, and asks nothing: what it costs to keep time.
    pub fn keep_time(&self, time: Duration) {
        let step = Duration::from_secs(1) / self.per_second;
        let began = Instant::now();
        let mut due = began;
        while due - began < time {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += step;
        }
    }

    /// A socket that waits for nothing longer than it may.
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

    /// From the connect to the end of the answer, as HAProxy asks.
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

/// The least that a server can do: take one in, read, answer, close. What such a one takes is the
/// machine's share of every figure. It lives as long as the process.
pub fn bare_server(answer: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    std::thread::Builder::new().name("bare server".to_owned()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever leaves early is not measured.
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
