//! Connects to one of several addresses of a host, as in RFC 8305 ("happy eyeballs"): first to the
//! address that worked last, to the next one 250 ms later or as soon as the previous attempt fails.
//! Addresses that have not answered are tried again then, because a lost packet would cost a second
//! (the kernel's first retransmission).
//!
//! All outgoing connections use this module: to Patroni, etcd, members, poolers, and for the
//! sessions of clients. So a dead address, such as an IPv6 address without a route, costs 250 ms
//! once and not at each connection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The time between two attempts while none has an outcome. It doubles with each repetition.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// How often an address is tried again while it does not answer.
const REPEATS_MAX: u32 = 2;

/// The maximum number of repeated attempts at a time, over the whole process. Each takes a file. Without
/// room an attempt is not repeated.
pub const REPEATS_AT_ONCE_MAX: usize = 16;

/// The maximum number of working addresses that are remembered. Only hosts with several addresses
/// count.
const REMEMBERED_MAX: usize = 1_024;

static WORKED: Mutex<Worked> = Mutex::new(Worked { order: BTreeMap::new(), newest: 0 });

static REPEATS: Semaphore = Semaphore::const_new(REPEATS_AT_ONCE_MAX);

/// Connects to the first of `addresses` that accepts. The error is that of the last failed attempt,
/// or [`ErrorKind::TimedOut`] if no attempt has failed by the end of `limit`.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let addresses = in_order(addresses);
    let Some(first) = addresses.first().copied() else {
        return Err(ErrorKind::AddrNotAvailable.into());
    };
    let end = Instant::now() + limit;
    let mut attempt = Box::pin(TcpStream::connect(first));
    let outcome = timeout(NEXT_AFTER.min(limit), &mut attempt).await;
    let mut race = Race::after_first(&addresses);
    match outcome {
        Ok(Ok(stream)) => {
            race.note_winner(first);
            return Ok(stream);
        }
        Ok(Err(error)) => race.note_failure(first, error),
        Err(_) => {
            race.attempts.spawn(async move { (first, attempt.await, None) });
        }
    }
    race.run(end).await.ok_or_else(|| late(limit))?
}

/// Attempts beside each other. The first one to connect wins.
struct Race {
    /// The addresses to try, each with the number of attempts before.
    untried: VecDeque<(SocketAddr, u32)>,
    attempts: JoinSet<(SocketAddr, io::Result<TcpStream>, Option<SemaphorePermit<'static>>)>,
    next_at: Instant,
    /// The addresses that have not failed.
    alive: Vec<SocketAddr>,
    failure: Option<io::Error>,
    has_alternatives: bool,
}

impl Race {
    /// The race after the first attempt at the first address.
    fn after_first(addresses: &[SocketAddr]) -> Race {
        let rounds =
            (0..=REPEATS_MAX).flat_map(|round| addresses.iter().map(move |at| (*at, round)));
        Race {
            untried: rounds.skip(1).collect(),
            attempts: JoinSet::new(),
            next_at: Instant::now(),
            alive: addresses.to_vec(),
            failure: None,
            has_alternatives: addresses.len() > 1,
        }
    }

    /// Runs until an attempt connects or all addresses have failed. None at `end` without an outcome.
    async fn run(mut self, end: Instant) -> Option<io::Result<TcpStream>> {
        while !self.alive.is_empty() {
            if Instant::now() >= self.next_at {
                self.begin_next();
            }
            tokio::select! {
                biased;
                Some(attempt) = self.attempts.join_next() => match attempt {
                    Ok((address, Ok(stream), _)) => {
                        self.note_winner(address);
                        return Some(Ok(stream));
                    }
                    Ok((address, Err(error), _)) => self.note_failure(address, error),
                    Err(error) => self.failure = Some(io::Error::other(error)),
                },
                () = sleep_until(self.next_at), if !self.untried.is_empty() => {}
                () = sleep_until(end) => return self.failure.map(Err),
            }
        }
        let unknown = || ErrorKind::AddrNotAvailable.into();
        Some(Err(self.failure.unwrap_or_else(unknown)))
    }

    fn begin_next(&mut self) {
        let Some((address, round)) = self.untried.pop_front() else { return };
        self.next_at = Instant::now() + NEXT_AFTER * 2_u32.pow(round);
        let permit = match round {
            0 => None,
            _ => match REPEATS.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return,
            },
        };
        self.attempts.spawn(async move { (address, TcpStream::connect(address).await, permit) });
    }

    /// Notes that an address refuses. It is not tried again, and an address that was not tried yet is
    /// tried at once.
    fn note_failure(&mut self, failed: SocketAddr, error: io::Error) {
        self.failure = Some(error);
        self.alive.retain(|address| *address != failed);
        self.untried.retain(|(address, _)| *address != failed);
        if self.untried.front().is_some_and(|(_, round)| *round == 0) {
            self.next_at = Instant::now();
        }
    }

    fn note_winner(&self, address: SocketAddr) {
        if self.has_alternatives {
            worked().note(address);
        }
    }
}

/// The addresses in the order in which they are tried.
fn in_order(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    if addresses.len() > 1 {
        let worked = worked();
        addresses.sort_by_key(|address| Reverse(worked.order.get(address)));
    }
    addresses
}

fn late(limit: Duration) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("no connection within {limit:?}"))
}

fn worked() -> std::sync::MutexGuard<'static, Worked> {
    WORKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses that worked, each with a number that grows with time.
struct Worked {
    order: BTreeMap<SocketAddr, u64>,
    newest: u64,
}

impl Worked {
    fn note(&mut self, address: SocketAddr) {
        if self.order.len() >= REMEMBERED_MAX && !self.order.contains_key(&address) {
            self.order.clear();
        }
        self.newest += 1;
        self.order.insert(address, self.newest);
    }
}

#[cfg(test)]
pub mod tests {
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// An address that does not answer: its queue of connections is full as long as this lives.
    pub struct Silent {
        /// The address.
        pub address: SocketAddr,
        socket: Socket,
        _first: TcpStream,
    }

    /// Returns such an address.
    pub async fn silent() -> Silent {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let first = TcpStream::connect(address).await.unwrap();
        Silent { address, socket, _first: first }
    }

    #[tokio::test]
    async fn an_address_that_keeps_silent_costs_250_ms_once() {
        let silent = silent().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        for (first, last) in [(NEXT_AFTER, LIMIT / 2), (Duration::ZERO, NEXT_AFTER)] {
            let started = Instant::now();
            let stream = connect(&[silent.address, alive], LIMIT).await.unwrap();
            let took = started.elapsed();
            assert_eq!(stream.peer_addr().unwrap(), alive);
            assert!(took >= first && took < last, "{took:?}");
        }
    }

    /// The kernel sends a lost packet again after a second.
    #[tokio::test]
    async fn an_address_that_answers_after_a_while_costs_no_retransmission() {
        let silent = silent().await;
        let began = Instant::now();
        let connecting = tokio::spawn(async move { connect(&[silent.address], LIMIT).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        // There is room for the next connection now.
        silent.socket.accept().unwrap();
        connecting.await.unwrap().unwrap();
        let took = began.elapsed();
        assert!(took >= NEXT_AFTER && took < Duration::from_millis(900), "{took:?}");
    }

    #[tokio::test]
    async fn an_etcd_that_refuses_is_replaced_by_the_next_at_once() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let started = Instant::now();
        let stream = connect(&[gone, alive], LIMIT).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(started.elapsed() < NEXT_AFTER, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn the_address_that_worked_last_may_die_and_another_takes_its_place() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
        assert_eq!(connect(&addresses, LIMIT).await.unwrap().peer_addr().unwrap(), addresses[0]);
        drop(first);
        assert_eq!(connect(&addresses, LIMIT).await.unwrap().peer_addr().unwrap(), addresses[1]);
        assert_eq!(in_order(&addresses), [addresses[1], addresses[0]]);
    }

    #[tokio::test]
    async fn the_error_is_that_of_an_attempt_or_that_there_was_no_answer_in_time() {
        let limit = Duration::from_millis(400);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (one, other) = (silent().await, silent().await);
        for (addresses, kind) in [
            (vec![one.address], ErrorKind::TimedOut),
            (vec![one.address, other.address], ErrorKind::TimedOut),
            (vec![one.address, gone], ErrorKind::ConnectionRefused),
            (vec![gone], ErrorKind::ConnectionRefused),
            (vec![], ErrorKind::AddrNotAvailable),
        ] {
            let error = connect(&addresses, limit).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{addresses:?}: {error}");
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut worked = Worked { order: BTreeMap::new(), newest: 0 };
        for port in 0..3_000 {
            worked.note(([127, 0, 0, 1], port).into());
        }
        assert!(worked.order.len() <= REMEMBERED_MAX);
    }
}
