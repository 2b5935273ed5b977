//! New sessions beside the kept one: does the server still accept them?
//!
//! A server keeps its old sessions during a smart shutdown or while its postmaster hangs. So the
//! kept session proves nothing about new ones. Every two seconds a connection is opened and closed
//! again after the first answer to its startup packet. That is before the authentication and leaves
//! no line in the server's log except with `log_connections`. A whole login is tried at a slower
//! pace, and at once after a doubt.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ServerAddress;
use super::login::{LoggedIn, Login, Missed};
use super::subject::Subject;
use crate::sources::absence::Absence;

/// Jitter adds up to this part of the pace, so that many pgsteers do not log in at the same time.
const JITTER_PART: u64 = 10;

/// The time from the end of one attempt to the next while the server refuses new sessions.
const REFUSED_PACE: Duration = Duration::from_millis(500);

/// The minimum time from the end of one attempt to the next, even after a doubt.
const DOUBT_PACE: Duration = Duration::from_millis(250);

type Attempt = Pin<Box<dyn Future<Output = Result<Accepted, Missed>> + Send>>;

/// A successful attempt.
pub enum Accepted {
    /// A whole login.
    LoggedIn(Box<LoggedIn>),
    /// The server answered the startup packet, and the connection was closed after that.
    Answered,
}

/// The outcome of one attempt.
pub struct Outcome {
    /// When it began.
    pub asked: Instant,
    /// Its result.
    pub result: Result<Accepted, Missed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Knock,
    Login,
}

/// The next attempt, waiting or under way.
pub struct Fresh {
    subject: Subject,
    login_due: Instant,
    /// None where only a whole login proves anything.
    knock_due: Option<Instant>,
    last_end: Option<Instant>,
    attempt: Option<(Instant, Kind, Attempt)>,
    absence: Absence,
}

impl Fresh {
    /// Attempts at the pace of `subject`. The first attempt of each kind is due one pace from now.
    pub fn of(subject: Subject) -> Fresh {
        Fresh {
            subject,
            login_due: after(subject.fresh_pace()),
            knock_due: subject.knock_pace().map(after),
            last_end: None,
            attempt: None,
            absence: Absence::default(),
        }
    }

    /// Makes a whole login due now, or shortly after the previous attempt.
    pub fn hurry(&mut self) {
        self.login_due = self.login_due.min(Instant::now());
    }

    /// Makes the next attempt due soon, because the server refuses new sessions.
    pub fn repeat_soon(&mut self) {
        self.knock_due = Some(Instant::now() + REFUSED_PACE);
    }

    /// Waits for the next attempt and its outcome. One without an answer counts only after some
    /// seconds of silence, because the kept session may answer: the host may be loaded, or a packet
    /// may be lost. Cancel safe.
    pub async fn outcome(&mut self, login: &Arc<Login>, address: &ServerAddress) -> Outcome {
        loop {
            if self.attempt.is_none() {
                sleep_until(self.due()).await;
            }
            let next = self.next();
            let begin = || (Instant::now(), next, begin(next, self.subject, login, address));
            let (asked, kind, attempt) = self.attempt.get_or_insert_with(begin);
            let (asked, kind, result) = (*asked, *kind, attempt.await);
            self.attempt = None;
            let failure = result.as_ref().err().map(|missed| &missed.failure);
            if self.absence.counts(asked, failure) {
                self.note_end(kind);
                return Outcome { asked, result };
            }
            self.last_end = Some(Instant::now());
        }
    }

    fn due(&self) -> Instant {
        let due = self.knock_due.map_or(self.login_due, |knock| knock.min(self.login_due));
        self.last_end.map_or(due, |end| due.max(end + DOUBT_PACE))
    }

    fn next(&self) -> Kind {
        match self.knock_due {
            Some(knock) if knock < self.login_due => Kind::Knock,
            _ => Kind::Login,
        }
    }

    fn note_end(&mut self, kind: Kind) {
        let login_due = self.login_due;
        let (last_end, absence) = (Some(Instant::now()), self.absence);
        *self = Fresh { last_end, absence, ..Fresh::of(self.subject) };
        if kind == Kind::Knock {
            self.login_due = login_due;
        }
    }
}

fn after(pace: Duration) -> Instant {
    let pace_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
    let jitter_ms = RandomState::new().build_hasher().finish() % (pace_ms / JITTER_PART).max(1);
    Instant::now() + pace + Duration::from_millis(jitter_ms)
}

fn begin(kind: Kind, subject: Subject, login: &Arc<Login>, address: &ServerAddress) -> Attempt {
    let (login, address) = (login.clone(), address.clone());
    let limit = login.late_limit();
    Box::pin(async move {
        match kind {
            Kind::Login => {
                let logged_in = subject.log_in(&login, &address, limit).await?;
                Ok(Accepted::LoggedIn(Box::new(logged_in)))
            }
            Kind::Knock => {
                let answered = login.knock(&address.postgres, &address.addresses, limit).await;
                let missed = |failure| Missed { failure, was_answered: false };
                answered.map(|()| Accepted::Answered).map_err(missed)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pgsteer_core::claim::Failure;
    use pgsteer_core::names::Endpoint;
    use pgsteer_core::pace::RUN_ON;

    use super::super::fake;
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn server_address(address: SocketAddr) -> ServerAddress {
        ServerAddress {
            postgres: Endpoint::new("127.0.0.1", address.port()).unwrap(),
            addresses: vec![address.ip()],
        }
    }

    async fn outcome(kind: Kind, address: SocketAddr) -> Result<Accepted, Failure> {
        let mut fresh = Fresh::of(Subject::Server);
        match kind {
            Kind::Login => fresh.login_due = Instant::now(),
            Kind::Knock => fresh.knock_due = Some(Instant::now()),
        }
        let login = Arc::new(Login::fake(None, LIMIT));
        let outcome = fresh.outcome(&login, &server_address(address)).await;
        outcome.result.map_err(|missed| missed.failure)
    }

    /// A server that answers login number N after `pause(N)`, and how many logins there were.
    async fn slow_server(
        pause: impl Fn(usize) -> Duration + Send + 'static,
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let attempts = Arc::<AtomicUsize>::default();
        let count = attempts.clone();
        let address = fake::server(move |stream, number| {
            count.fetch_add(1, Ordering::SeqCst);
            let pause = pause(number);
            async move {
                tokio::time::sleep(pause).await;
                fake::standby(stream, |_| fake::ready()).await;
            }
        });
        (address.await, attempts)
    }

    #[tokio::test]
    async fn a_late_answer_counts_and_no_other_attempt_is_made_meanwhile() {
        let (address, attempts) = slow_server(|_| LIMIT * 5).await;
        for (count, kind) in [(1, Kind::Login), (2, Kind::Knock)] {
            let began = Instant::now();
            assert!(outcome(kind, address).await.is_ok(), "{kind:?}");
            assert!(began.elapsed() >= LIMIT * 5);
            assert_eq!(attempts.load(Ordering::SeqCst), count);
        }
    }

    #[tokio::test]
    async fn an_attempt_without_an_answer_counts_after_five_seconds() {
        let (address, attempts) = slow_server(|_| Duration::from_secs(60)).await;
        for kind in [Kind::Login, Kind::Knock] {
            let began = Instant::now();
            let failure = outcome(kind, address).await.err();
            assert!(matches!(failure, Some(Failure::Timeout { .. })), "{failure:?}");
            assert!(began.elapsed() >= RUN_ON, "{:?}", began.elapsed());
        }
        assert_eq!(attempts.load(Ordering::SeqCst), 2);
    }

    /// The system takes no more connections for the server: its queue is full.
    #[tokio::test]
    async fn attempts_that_get_no_connection_are_repeated_for_five_seconds_before_they_count() {
        let silent = crate::dial::tests::silent().await;
        let began = Instant::now();
        let failure = outcome(Kind::Knock, silent.address).await.err();
        assert!(matches!(failure, Some(Failure::Unreachable { .. })), "{failure:?}");
        let took = began.elapsed();
        assert!(took >= RUN_ON && took < RUN_ON * 2, "{took:?}");
    }

    #[tokio::test]
    async fn any_other_failure_counts_the_first_time() {
        let stopping = fake::error("FATAL", "57P03", "the database system is shutting down");
        let address = fake::answering_login(stopping).await;
        for kind in [Kind::Login, Kind::Knock] {
            let failure = outcome(kind, address).await.err();
            assert!(matches!(failure, Some(Failure::Unavailable { .. })), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_password_or_refuses_the_user_accepts_sessions() {
        let refused = fake::error("FATAL", "28P01", "password authentication failed");
        for answer in [b"R\0\0\0\x08\0\0\0\x03".to_vec(), refused] {
            let outcome = outcome(Kind::Knock, fake::answering_login(answer).await).await;
            assert!(matches!(outcome, Ok(Accepted::Answered)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_makes_a_login_due_at_once_but_not_in_a_loop() {
        let mut fresh = Fresh::of(Subject::Server);
        assert_eq!(fresh.next(), Kind::Knock);
        let start = Instant::now();
        assert!(fresh.due() >= start + Duration::from_secs(2), "at its pace");
        fresh.hurry();
        assert_eq!((fresh.next(), fresh.due()), (Kind::Login, start));
        fresh.note_end(Kind::Login);
        fresh.hurry();
        assert_eq!((fresh.next(), fresh.due()), (Kind::Login, start + DOUBT_PACE));
    }
}
