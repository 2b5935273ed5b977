//! Checks at a fixed rate, come what may, and how long each took.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

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
    /// Whether the one who asks stays awake for the answer. The system takes its time to wake a
    /// process on an idle core, and that of the asker is not the answer's; but it costs a core.
    pub stays_awake: bool,
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
            let now = Instant::now();
            let from = match due.checked_duration_since(now) {
                Some(early) => {
                    std::thread::sleep(early);
                    Instant::now()
                }
                None => due,
            };
            self.ask().context("a check failed")?;
            took.push(from.elapsed());
            due += step;
        }
        took.sort_unstable();
        Ok(Latencies(took))
    }

    /// From the connection to the end of the answer, as HAProxy asks.
    fn ask(&self) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.addr, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        if !self.line.is_empty() {
            stream.write_all(self.line.as_bytes())?;
        }
        let answer = match self.stays_awake {
            true => poll_to_end(&mut stream)?,
            false => {
                let mut answer = Vec::with_capacity(256);
                stream.read_to_end(&mut answer)?;
                answer
            }
        };
        let begins = answer.starts_with(self.answer.as_bytes());
        ensure!(begins, "the answer is {:?}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

fn poll_to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let (mut answer, mut part, began) = (Vec::with_capacity(256), [0; 256], Instant::now());
    stream.set_nonblocking(true)?;
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(began.elapsed() < ANSWER_LIMIT, "no answer within {ANSWER_LIMIT:?}");
                std::hint::spin_loop();
            }
            Err(error) => return Err(error.into()),
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
