//! Answers that take long.
//!
//! A loaded host may take seconds for a login or a query. If a server has not answered within the time
//! limit, that is reported as a failure, which shuts its gates early. The attempt continues, and its
//! late answer counts: otherwise a server that is always a little too slow would never serve. Beside a
//! late query a fresh login is tried, because the connection may be lost while the server lives.
//!
//! A pooler delays a query for as long as it is paused or full, so its answers have no limit.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Failure, TetherFacts};
use tokio::time::{sleep_until, timeout};

use super::fresh::{Accepted, Fresh};
use super::login::{LoggedIn, Missed};
use super::looks::{Looked, Looks};
use super::subject::{Stage, Subject};
use super::{ServerAddress, State, Tether, Tied};
use crate::sources::{Gone, dial};

/// A login counts as late after the time limit and this time. An attempt that gets no connection fails
/// at the time limit, and that failure is more precise.
const LATE_BY: Duration = Duration::from_millis(100);

/// The answer of a pooler to a query that it may delay.
struct Answered {
    facts: TetherFacts,
    /// The last login beside the query; none if none was due or none succeeded.
    spare: Option<Box<LoggedIn>>,
}

/// Why a query has no answer.
pub(super) enum Unanswered {
    /// The session has failed.
    Failed(Failure),
    /// A fresh login beside the query has failed, so that the query is not waited for any more.
    Missed(Missed),
    /// A fresh login beside the late query has succeeded.
    LoggedIn(Box<LoggedIn>),
    /// The member has moved.
    Moved,
}

impl Tether {
    /// Logs in. None if the member moves meanwhile.
    pub(super) async fn log_in(
        &mut self,
        address: &ServerAddress,
        started: Instant,
    ) -> Result<Option<Result<LoggedIn, Missed>>, Gone> {
        let (subject, login) = (self.subject, Arc::clone(&self.login));
        let limit = subject.login_limit(&login);
        let mut logging_in = pin!(subject.log_in(&login, address, limit));
        if subject == Subject::Server {
            if let Ok(outcome) = timeout(login.limit + LATE_BY, &mut logging_in).await {
                return Ok(Some(outcome));
            }
            // A failure counts until the next answer, so one is enough.
            if self.failed_at.as_ref() != Some(address) {
                let late = self.timed_out(address, login.limit);
                self.fail(started, address, late, Stage::Knocking).await?;
            }
        }
        loop {
            tokio::select! {
                biased;
                outcome = &mut logging_in => return Ok(Some(outcome)),
                changed = self.timer.changed() => changed?,
            }
            if self.has_moved(address) {
                return Ok(None);
            }
        }
    }

    /// Waits for the answer to a query to the server.
    pub(super) async fn outlast<T>(
        &mut self,
        asked: Instant,
        answer: impl Future<Output = Result<T, Failure>>,
        fresh: &mut Fresh,
        address: &ServerAddress,
    ) -> Result<Result<T, Unanswered>, Gone> {
        let (limit, late_limit) = (self.login.limit, self.login.late_limit());
        let end = tokio::time::Instant::now() + late_limit;
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(limit, &mut answer).await {
            return Ok(answer.map_err(Unanswered::Failed));
        }
        let late = self.timed_out(address, limit);
        self.fail(asked, address, late, Stage::Kept).await?;
        fresh.hurry();
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer.map_err(Unanswered::Failed)),
                outcome = fresh.outcome(&self.login, address) => match outcome.result {
                    Ok(Accepted::LoggedIn(logged_in)) => {
                        return Ok(Err(Unanswered::LoggedIn(logged_in)));
                    }
                    Ok(Accepted::Answered) => {}
                    Err(missed) if missed.failure.is_login_refused() => {}
                    Err(missed) => return Ok(Err(Unanswered::Missed(missed))),
                },
                changed = self.timer.changed() => {
                    changed?;
                    if self.has_moved(address) {
                        return Ok(Err(Unanswered::Moved));
                    }
                }
                () = sleep_until(end) => {
                    return Ok(Err(Unanswered::Failed(self.timed_out(address, late_limit))));
                }
            }
        }
    }

    /// Queries where a pooler leads, without a time limit.
    pub(super) async fn ask_pooler(&mut self, mut tied: Box<Tied>) -> Result<State, Gone> {
        loop {
            let asked = Instant::now();
            match self.outwait(&mut tied).await? {
                // The answer may be out of date by now, but it shows that the query had to wait.
                Ok(Answered { spare, .. }) if asked.elapsed() > self.login.limit => {
                    self.note_wait(Instant::now(), &tied.address).await?;
                    if let Some(logged_in) = spare {
                        return self.replace(tied, *logged_in).await;
                    }
                }
                Ok(Answered { facts, .. }) => {
                    self.note_answer(&mut tied);
                    self.claim(asked, facts).await?;
                    return Ok(State::Tied(tied));
                }
                Err(unanswered) => {
                    return self.unanswered(tied, Instant::now(), unanswered).await;
                }
            }
        }
    }

    /// Waits for the answer of a pooler while the pooler itself answers. A paused pooler, or one
    /// without a free session, delays this query as it delays those of its clients. Once the answer
    /// is late, fresh logins are tried, because PgBouncer does not report a server that is down
    /// to waiting clients. Before that, due logins wait for the answer, because a successful login
    /// replaces this session. A login beside a late query replaces it after the answer: a query of
    /// the new session would wait behind all others.
    async fn outwait(&self, tied: &mut Tied) -> Result<Result<Answered, Unanswered>, Gone> {
        let Tied { session, address, fresh, .. } = tied;
        let mut spare: Option<Box<LoggedIn>> = None;
        let mut looks = Looks::beside_a_query(self.login.limit);
        let mut answer = pin!(session.role());
        let mut has_to_wait = false;
        while !self.has_moved(address) {
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let answered = answer.map(|facts| Answered { facts, spare });
                    return Ok(answered.map_err(Unanswered::Failed));
                }
                outcome = fresh.outcome(&self.login, address), if has_to_wait => match outcome.result {
                    Ok(Accepted::LoggedIn(logged_in)) => {
                        if let Some(earlier) = spare.replace(logged_in) {
                            earlier.session.close().await;
                        }
                    }
                    Ok(Accepted::Answered) => {}
                    Err(missed) if missed.is_put_off() => {}
                    Err(missed) => return Ok(Err(Unanswered::Missed(missed))),
                },
                Looked { asked, is_late, outcome } = looks.outcome(&self.login, address) => {
                    if let Err(failure) = outcome {
                        let missed = Missed { failure, was_answered: false };
                        return Ok(Err(Unanswered::Missed(missed)));
                    }
                    has_to_wait = is_late;
                    if is_late {
                        self.note_wait(asked.into_std(), address).await?;
                    }
                }
            }
        }
        Ok(Err(Unanswered::Moved))
    }

    /// Reports that the pooler answered at `asked` but delayed a query for too long.
    async fn note_wait(&self, asked: Instant, address: &ServerAddress) -> Result<(), Gone> {
        let late = self.timed_out(address, self.login.limit);
        self.report(asked, self.subject.failure(late, Stage::Waiting)).await
    }

    fn timed_out(&self, address: &ServerAddress, limit: Duration) -> Failure {
        dial::timed_out(&Arc::from(address.postgres.to_string()), limit)
    }
}
