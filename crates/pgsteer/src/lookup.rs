//! Lookups of host names: one at a time for each name, each on its own thread.
//!
//! The system's resolver cannot be interrupted and may take long: glibc waits 5 s for a name server
//! that does not answer before it asks the next. So a lookup runs independently of its callers and
//! does not count against their time limits, and its late answer counts. While a name cannot be
//! looked up, its last good addresses stay in use.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::by_name::ByName;

/// How long a lookup may take before it counts as failed and another one may start.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a caller waits if no address is known.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long a caller waits for a newer answer if an older one is known.
const PATIENCE_FOR_NEWER: Duration = Duration::from_millis(250);

/// How long an answer is used without another lookup.
const FRESH: Duration = Duration::from_secs(2);

/// The maximum number of concurrent lookups, over all names. A thread is occupied until the
/// system's resolver returns.
const THREADS_MAX: usize = 32;

/// The maximum number of addresses of one host. A name server may return thousands.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a name, each once, in the resolver's order; or the reason for the failure.
pub type Answer = Result<Vec<IpAddr>, Arc<str>>;

/// The function that asks the system. Tests replace it.
type Resolver = fn(&str) -> Answer;

/// The lookups of this process.
static LOOKUPS: LazyLock<Lookups> = LazyLock::new(|| Lookups::new(ask_system));

/// Returns the addresses of `host` to dial now. Waits for a lookup for [`PATIENCE`] at most. A
/// slower lookup continues, and the next call returns its answer.
pub async fn addresses(host: &str) -> Answer {
    LOOKUPS.addresses(host).await
}

/// Returns the answer of the next lookup of `host` that ends, even of a late one.
pub async fn look_up(host: &str) -> Answer {
    LOOKUPS.look_up(host).await
}

struct Lookups {
    names: ByName<Box<str>, Name>,
    threads: Arc<Semaphore>,
    resolver: Resolver,
}

/// The state of one name.
#[derive(Debug, Default)]
struct Name(watch::Sender<State>);

#[derive(Clone, Debug, Default)]
struct State {
    /// The addresses of the last successful lookup.
    good: Vec<IpAddr>,
    /// The last answer, and when it came.
    last: Option<(Instant, Answer)>,
    /// When the current lookup began.
    began: Option<Instant>,
    /// The number of lookups that have ended.
    ended: u64,
}

impl State {
    fn is_under_way(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() < LIMIT)
    }

    fn last_if_fresh(&self) -> Option<&Answer> {
        let (at, answer) = self.last.as_ref()?;
        (at.elapsed() < FRESH).then_some(answer)
    }
}

impl Lookups {
    fn new(resolver: Resolver) -> Lookups {
        let threads = Arc::new(Semaphore::new(THREADS_MAX));
        Lookups { names: ByName::default(), threads, resolver }
    }

    async fn addresses(&self, host: &str) -> Answer {
        let name = self.names.of(&Box::from(host));
        let known = name.0.borrow().clone();
        match known.last_if_fresh() {
            Some(Err(_)) if !known.good.is_empty() => return Ok(known.good),
            Some(answer) => return answer.clone(),
            None => {}
        }
        let ending = self.begin(host, &name);
        if known.good.is_empty() {
            return timeout(PATIENCE, ending).await.unwrap_or_else(|_| Err(late(PATIENCE)));
        }
        match timeout(PATIENCE_FOR_NEWER, ending).await {
            Ok(Ok(newer)) => Ok(newer),
            Ok(Err(_)) | Err(_) => Ok(known.good),
        }
    }

    async fn look_up(&self, host: &str) -> Answer {
        let name = self.names.of(&Box::from(host));
        let ending = self.begin(host, &name);
        timeout(LIMIT, ending).await.unwrap_or_else(|_| Err(late(LIMIT)))
    }

    /// Starts a lookup unless one is under way. Returns a future that waits for its end.
    fn begin(&self, host: &str, name: &Arc<Name>) -> impl Future<Output = Answer> + use<> {
        let mut states = name.0.subscribe();
        let ended = states.borrow_and_update().ended;
        let is_ours = name.0.send_if_modified(|state| {
            let is_ours = !state.is_under_way();
            if is_ours {
                state.began = Some(Instant::now());
            }
            is_ours
        });
        if is_ours {
            self.start(host, name);
        }
        async move {
            match states.wait_for(|state| state.ended > ended).await {
                Ok(state) => state.last.clone().map_or_else(|| Err(late(LIMIT)), |(_, last)| last),
                Err(_) => Err(late(LIMIT)),
            }
        }
    }

    fn start(&self, host: &str, name: &Arc<Name>) {
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            let why = format!("{THREADS_MAX} lookups are under way, the limit");
            return name.end(Err(Arc::from(why)));
        };
        let (resolver, looked_up) = (self.resolver, host.to_owned());
        let ending = Arc::clone(name);
        let thread = std::thread::Builder::new().name("pgsteer-lookup".to_owned());
        let started = thread.spawn(move || {
            let answer = resolver(&looked_up);
            drop(permit);
            ending.end(answer);
        });
        if let Err(error) = started {
            name.end(Err(Arc::from(format!("no thread for the lookup: {error}"))));
        }
    }
}

impl Name {
    fn end(&self, answer: Answer) {
        self.0.send_modify(|state| {
            if let Ok(addresses) = &answer {
                state.good.clone_from(addresses);
            }
            state.last = Some((Instant::now(), answer));
            state.began = None;
            state.ended += 1;
        });
    }
}

fn late(patience: Duration) -> Arc<str> {
    Arc::from(match patience {
        LIMIT => {
            format!("no answer within {LIMIT:?}; check the name servers in /etc/resolv.conf")
        }
        _ => format!("no answer within {patience:?}, the lookup continues for up to {LIMIT:?}"),
    })
}

/// Asks the system's resolver (`getaddrinfo`).
fn ask_system(host: &str) -> Answer {
    const ANY_PORT: u16 = 0;
    let found = (host, ANY_PORT).to_socket_addrs().map_err(|err| Arc::from(err.to_string()))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|socket| socket.ip()) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(Arc::from("no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
    use std::thread::sleep;

    use super::*;

    const LATE: Duration = Duration::from_millis(2_500);

    fn address(last: u8) -> Vec<IpAddr> {
        vec![Ipv4Addr::new(10, 0, 0, last).into()]
    }

    #[tokio::test]
    async fn a_late_answer_counts_and_one_name_is_looked_up_once_at_a_time() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = Lookups::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            sleep(LATE);
            Ok(address(1))
        });
        let (early, other, late) =
            tokio::join!(lookups.addresses("n1"), lookups.addresses("n1"), lookups.look_up("n1"));
        for early in [early, other] {
            assert!(early.unwrap_err().contains("the lookup continues"));
        }
        assert_eq!(late, Ok(address(1)));
        assert_eq!(lookups.addresses("n1").await, Ok(address(1)));
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_lookup_that_fails_or_is_late_leaves_the_last_good_addresses() {
        static TURN: AtomicU8 = AtomicU8::new(0);
        let lookups = Lookups::new(|_| match TURN.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(address(1)),
            1 => Err(Arc::from("no such name")),
            2 => {
                sleep(LATE);
                Ok(address(2))
            }
            _ => Ok(address(3)),
        });
        assert_eq!(lookups.addresses("n1").await, Ok(address(1)));
        assert_eq!(lookups.look_up("n1").await, Err(Arc::from("no such name")));
        assert_eq!(lookups.addresses("n1").await, Ok(address(1)), "the failure is fresh");
        tokio::time::sleep(FRESH).await;
        let started = Instant::now();
        assert_eq!(lookups.addresses("n1").await, Ok(address(1)), "the next one is late");
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        tokio::time::sleep(LATE).await;
        assert_eq!(lookups.addresses("n1").await, Ok(address(2)));
    }

    #[tokio::test]
    async fn lookups_that_hang_use_a_bounded_number_of_threads() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = Lookups::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(300));
            Ok(address(1))
        });
        let names: Vec<Arc<Name>> =
            (0..THREADS_MAX + 1).map(|n| lookups.names.of(&Box::from(n.to_string()))).collect();
        let endings: Vec<_> =
            names.iter().enumerate().map(|(n, name)| lookups.begin(&n.to_string(), name)).collect();
        let mut answers = Vec::new();
        for ending in endings {
            answers.push(ending.await);
        }
        let refused = answers.pop().unwrap().unwrap_err();
        assert!(refused.contains("32 lookups are under way"), "{refused}");
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(ASKED.load(Ordering::SeqCst), THREADS_MAX);
    }
}
