//! The fresh login beside a kept session: now and then, to see whether one still can.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use tokio::time::{Instant, sleep_until};

use super::Place;
use super::login::{LoggedIn, Login, Missed};
use super::subject::Subject;

/// Chance adds up to this part of the pace, so that many pgsteers do not log in all at once.
const JITTER_PART: u64 = 10;

type Attempt = Pin<Box<dyn Future<Output = Result<LoggedIn, Missed>> + Send>>;

/// The fresh login, due or under way.
pub struct Fresh {
    subject: Subject,
    due: Instant,
    attempt: Option<Attempt>,
    timed_out_before: bool,
}

impl Fresh {
    /// One at every pace of `subject`; the first is due so long from now.
    pub fn of(subject: Subject) -> Fresh {
        let pace = subject.fresh_pace();
        let pace_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
        let jitter_ms = RandomState::new().build_hasher().finish() % (pace_ms / JITTER_PART).max(1);
        Fresh {
            subject,
            due: Instant::now() + pace + Duration::from_millis(jitter_ms),
            attempt: None,
            timed_out_before: false,
        }
    }

    /// Waits for the next fresh login and its outcome. One that times out is tried once more
    /// before it counts: a single lost packet must not shut the gate of a healthy member
    /// whose kept session answers. Losing the race of a `select!` loses nothing.
    pub async fn outcome(&mut self, login: &Arc<Login>, place: &Place) -> Result<LoggedIn, Missed> {
        loop {
            if self.attempt.is_none() {
                sleep_until(self.due).await;
            }
            let attempt = self.attempt.get_or_insert_with(|| begin(self.subject, login, place));
            let outcome = attempt.await;
            self.attempt = None;
            match outcome {
                Err(Missed { failure: Failure::Timeout { .. }, .. }) if !self.timed_out_before => {
                    self.timed_out_before = true;
                }
                outcome => {
                    *self = Fresh::of(self.subject);
                    return outcome;
                }
            }
        }
    }
}

fn begin(subject: Subject, login: &Arc<Login>, place: &Place) -> Attempt {
    let (login, place) = (login.clone(), place.clone());
    Box::pin(async move { subject.log_in(&login, &place).await })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pgsteer_core::names::Endpoint;

    use super::super::fake;
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    async fn outcome(address: SocketAddr) -> Result<LoggedIn, Failure> {
        let mut fresh = Fresh { due: Instant::now(), ..Fresh::of(Subject::Server) };
        let place = Place {
            postgres: Endpoint::new("127.0.0.1", address.port()).unwrap(),
            addresses: vec![address.ip()],
        };
        let login = Arc::new(Login::fake(None, LIMIT));
        fresh.outcome(&login, &place).await.map_err(|missed| missed.failure)
    }

    #[tokio::test]
    async fn a_login_that_times_out_once_and_then_succeeds_is_a_success() {
        let address = fake::server(|stream, number| async move {
            match number {
                0 => tokio::time::sleep(Duration::from_secs(60)).await,
                _ => fake::standby(stream, |_| fake::ready()).await,
            }
        })
        .await;
        assert!(outcome(address).await.is_ok());
    }

    #[tokio::test]
    async fn a_login_that_times_out_twice_is_a_failure() {
        static LOGINS: AtomicUsize = AtomicUsize::new(0);
        let address = fake::server(|stream, _| async move {
            LOGINS.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        })
        .await;
        assert!(matches!(outcome(address).await.err(), Some(Failure::Timeout { .. })));
        assert_eq!(LOGINS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn any_other_failure_counts_the_first_time() {
        let starting = fake::error("FATAL", "57P03", "the database system is shutting down");
        let failure = outcome(fake::answering_login(starting).await).await.err();
        assert!(matches!(failure, Some(Failure::Unavailable { .. })), "{failure:?}");
    }
}
