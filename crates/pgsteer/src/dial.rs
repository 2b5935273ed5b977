//! Connects to one of several addresses of a host, as in RFC 8305 ("happy eyeballs"): first to the
//! address that worked last, to the next one 250 ms later or as soon as the previous attempt fails.
//!
//! All outgoing connections use this module: to Patroni, etcd, members, poolers, and for the
//! sessions of clients. So a dead address, such as an IPv6 address without a route, costs 250 ms
//! once and not at each connection.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The time between two attempts while none has an outcome.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// The maximum number of working addresses that are remembered. Only hosts with several addresses
/// count.
const REMEMBERED_MAX: usize = 1_024;

static WORKED: Mutex<Worked> = Mutex::new(Worked { order: BTreeMap::new(), newest: 0 });

/// Connects to the first of `addresses` that accepts. The error is that of the last failed attempt,
/// or [`ErrorKind::TimedOut`] if no attempt has failed by the end of `limit`.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    match addresses {
        [] => Err(ErrorKind::AddrNotAvailable.into()),
        [only] => {
            timeout(limit, TcpStream::connect(only)).await.unwrap_or_else(|_| Err(late(limit)))
        }
        several => race(in_order(several), limit).await,
    }
}

async fn race(addresses: Vec<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + limit;
    let mut untried = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut next_at = Instant::now();
    let mut failure = None;
    loop {
        if Instant::now() >= next_at
            && let Some(address) = untried.next()
        {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            next_at = Instant::now() + NEXT_AFTER;
        }
        if attempts.is_empty() && untried.len() == 0 {
            return Err(failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()));
        }
        tokio::select! {
            biased;
            Some(attempt) = attempts.join_next() => match attempt {
                Ok((address, Ok(stream))) => {
                    worked().note(address);
                    return Ok(stream);
                }
                Ok((_, Err(error))) => {
                    failure = Some(error);
                    next_at = Instant::now();
                }
                Err(error) => failure = Some(io::Error::other(error)),
            },
            () = sleep_until(next_at), if untried.len() > 0 => {}
            () = sleep_until(end) => return Err(failure.unwrap_or_else(|| late(limit))),
        }
    }
}

/// The addresses in the order in which they are tried.
fn in_order(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    let worked = worked();
    addresses.sort_by_key(|address| Reverse(worked.order.get(address)));
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
        _socket: Socket,
        _first: TcpStream,
    }

    /// Returns such an address.
    pub async fn silent() -> Silent {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let first = TcpStream::connect(address).await.unwrap();
        Silent { address, _socket: socket, _first: first }
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

    #[tokio::test]
    async fn one_that_refuses_is_followed_by_the_next_at_once() {
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
