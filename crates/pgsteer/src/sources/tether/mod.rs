//! The tether: a kept SQL connection to a member that shows the member's role, and one through each
//! pooler beside it that shows where the pooler leads.
//!
//! It has two states. Apart: there is no session, and logins are tried repeatedly. Tied: the
//! session is queried at the plan's pace and watched in between, because its end is the earliest
//! sign of a demotion or a crash. Beside a kept session a new one is tried every two seconds: a
//! server can refuse new sessions, or its postmaster can hang, while its old sessions continue.

mod authentication;
mod backoff;
#[cfg(test)]
mod fake;
mod fresh;
mod login;
mod looks;
mod patience;
mod progress;
mod session;
mod subject;
#[cfg(test)]
mod tests;
mod wire;

use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Fact, Failure, TetherFacts};
use pgsteer_core::names::Endpoint;
use tokio::sync::Notify;
use tracing::{debug, info, trace, warn};

use super::probe_timer::ProbeTimer;
use super::{Gone, Hint, Reporter};

use self::backoff::{Backoff, HOLD_OFF};
use self::fresh::{Accepted, Fresh};
pub use self::login::Login;
use self::login::{LoggedIn, Missed};
use self::patience::Unanswered;
use self::session::Session;
use self::subject::{Stage, Subject};

/// The minimum time between two progress queries.
const PROGRESS_PACE: Duration = Duration::from_secs(1);

/// How long the kept session stays open after the first 57P03 to a new one. A smart shutdown waits
/// for the end of all sessions, and this session must not delay it.
const REFUSED_KEEP: Duration = Duration::from_secs(5);

/// A session that ends at a younger age than this counts as a failed login for the backoff.
/// Otherwise a server that ends every session at once would be dialled in a closed loop.
const SESSION_AGE_MIN: Duration = Duration::from_secs(1);

/// The tether of one member.
#[derive(Clone)]
pub struct Tether {
    subject: Subject,
    timer: ProbeTimer,
    login: Arc<Login>,
    reporter: Reporter,
    /// Notified if no server answers at the known addresses. A failure of a pooler is no evidence
    /// about the addresses, so its tether has none.
    unreachable: Option<Hint>,
    /// Notified when the member refused a client. None for a pooler, because a refusal is no
    /// evidence about it.
    doubt: Option<Arc<Notify>>,
    backoff: Backoff,
    /// No login is tried before this time.
    held_off_until: Option<Instant>,
    /// The last failure that was logged, until a session answers again.
    logged: Option<Failure>,
    /// The address whose failure was reported last; none after an answer.
    failed_at: Option<ServerAddress>,
    /// The logged reason why the server refuses new sessions beside the kept one.
    refuses_new: Option<Failure>,
}

enum State {
    Apart,
    Tied(Box<Tied>),
}

struct Tied {
    session: Session,
    address: ServerAddress,
    since: Instant,
    /// A session has answered, which was logged. A session that never answers is not logged.
    has_answered: bool,
    /// The stage of the present session.
    stage: Stage,
    fresh: Fresh,
    /// Since when the server has refused new sessions.
    refused_since: Option<Instant>,
    /// When the last progress query was sent.
    progress: Option<Instant>,
}

/// The address of a session.
#[derive(Clone, PartialEq, Eq)]
struct ServerAddress {
    postgres: Endpoint,
    addresses: Vec<IpAddr>,
}

/// An event that ends the wait on a kept session.
enum Felt {
    Unasked(Result<TetherFacts, Failure>),
    Fresh(fresh::Outcome),
    Doubted,
    Due,
}

impl Tether {
    /// A tether that queries at the pace of `timer`.
    pub fn new(
        timer: ProbeTimer,
        login: Arc<Login>,
        reporter: Reporter,
        unreachable: Hint,
        doubt: Arc<Notify>,
    ) -> Tether {
        let tether = Tether::tied_to(Subject::Server, timer, login, reporter);
        Tether { unreachable: Some(unreachable), doubt: Some(doubt), ..tether }
    }

    /// Same as [`Tether::new`], through the pooler on `port` of the member's host.
    pub fn through_pooler(
        port: u16,
        timer: ProbeTimer,
        login: Arc<Login>,
        reporter: Reporter,
    ) -> Tether {
        Tether::tied_to(Subject::Pooler { port }, timer, login, reporter)
    }

    fn tied_to(
        subject: Subject,
        timer: ProbeTimer,
        login: Arc<Login>,
        reporter: Reporter,
    ) -> Tether {
        Tether {
            subject,
            timer,
            login,
            reporter,
            unreachable: None,
            doubt: None,
            backoff: Backoff::default(),
            held_off_until: None,
            logged: None,
            failed_at: None,
            refuses_new: None,
        }
    }

    /// Runs until the receiver of the reports is gone.
    pub async fn run(mut self) -> Gone {
        let mut state = State::Apart;
        loop {
            let next = match state {
                State::Apart => self.apart().await,
                State::Tied(tied) => self.tied(tied).await,
            };
            state = match next {
                Ok(next) => next,
                Err(gone) => return gone,
            };
        }
    }

    /// Tries one login when it is due.
    async fn apart(&mut self) -> Result<State, Gone> {
        if let Some(until) = self.held_off_until.take() {
            self.timer.pause(until.into()).await?;
        }
        self.timer.due_after(self.backoff.wait()).await?;
        let Some(address) = self.address() else {
            // The resolver has not answered yet, and it reports a failed lookup itself.
            self.timer.changed().await?;
            return Ok(State::Apart);
        };
        let started = Instant::now();
        let Some(outcome) = self.log_in(&address, started).await? else {
            return Ok(self.transition_to_elsewhere());
        };
        match outcome {
            Ok(logged_in) => self.transition_to_tied(logged_in, address).await,
            Err(missed) => {
                let stage = Stage::from(&missed);
                if self.subject.leads_nowhere(&missed.failure, stage) {
                    self.hold_off();
                } else if missed.failure.is_login_refused() {
                    self.backoff.grow_at_rest();
                    self.note_new_sessions(started, Ok(())).await?;
                } else {
                    self.backoff.grow(self.timer.pace());
                    if let Some(hint) = &self.unreachable {
                        hint.give();
                    }
                }
                self.transition_to_apart(started, &address, missed.failure, stage).await
            }
        }
    }

    /// Watches the session, and queries it when a query is due.
    async fn tied(&mut self, mut tied: Box<Tied>) -> Result<State, Gone> {
        let felt = tokio::select! {
            biased;
            unasked = tied.session.unasked() => Felt::Unasked(unasked),
            outcome = tied.fresh.outcome(&self.login, &tied.address) => Felt::Fresh(outcome),
            () = doubted(self.doubt.as_deref()) => Felt::Doubted,
            due = self.timer.due() => due.map(|()| Felt::Due)?,
        };
        match felt {
            Felt::Unasked(Ok(facts)) => {
                self.claim(Instant::now(), facts).await?;
                Ok(State::Tied(tied))
            }
            Felt::Unasked(Err(failure)) => {
                self.lose(tied, Instant::now(), failure, Stage::Kept).await
            }
            Felt::Fresh(outcome) => self.refresh(tied, outcome).await,
            Felt::Doubted => {
                tied.fresh.hurry();
                Ok(State::Tied(tied))
            }
            Felt::Due if self.has_moved(&tied.address) => {
                tied.session.close().await;
                Ok(self.transition_to_elsewhere())
            }
            Felt::Due => self.ask(tied).await,
        }
    }

    /// Queries the role, and the progress if that is due too.
    async fn ask(&mut self, mut tied: Box<Tied>) -> Result<State, Gone> {
        if let Subject::Pooler { .. } = self.subject {
            return self.ask_pooler(tied).await;
        }
        let asked = Instant::now();
        let Tied { session, address, fresh, .. } = &mut *tied;
        match self.outlast(asked, session.prepared_role(), fresh, address).await? {
            Ok(facts) => {
                self.note_answer(&mut tied);
                self.claim(asked, facts).await?;
            }
            Err(unanswered) => return self.unanswered(tied, asked, unanswered).await,
        }
        let is_due = tied.progress.is_none_or(|last| last.elapsed() >= PROGRESS_PACE);
        if is_due { self.ask_progress(tied).await } else { Ok(State::Tied(tied)) }
    }

    async fn ask_progress(&mut self, mut tied: Box<Tied>) -> Result<State, Gone> {
        let asked = Instant::now();
        tied.progress = Some(asked);
        let Tied { session, address, fresh, .. } = &mut *tied;
        match self.outlast(asked, session.progress(), fresh, address).await? {
            Ok(progress) => {
                self.note_answer(&mut tied);
                if let Some(progress) = progress {
                    self.reporter.claim(asked, Fact::Progress(progress)).await?;
                }
            }
            Err(unanswered) => return self.unanswered(tied, asked, unanswered).await,
        }
        Ok(State::Tied(tied))
    }

    /// Handles a query to the server that has no answer.
    async fn unanswered(
        &mut self,
        tied: Box<Tied>,
        asked: Instant,
        unanswered: Unanswered,
    ) -> Result<State, Gone> {
        match unanswered {
            Unanswered::Failed(failure) => {
                let stage = tied.stage;
                self.lose(tied, asked, failure, stage).await
            }
            Unanswered::Missed(missed) => {
                let stage = Stage::from(&missed);
                self.lose(tied, Instant::now(), missed.failure, stage).await
            }
            Unanswered::LoggedIn(logged_in) => {
                self.note_new_sessions(logged_in.asked, Ok(())).await?;
                self.replace(tied, *logged_in).await
            }
            Unanswered::Moved => Ok(self.transition_to_elsewhere()),
        }
    }

    /// Replaces the kept session by the fresh login, or handles the login's failure.
    async fn refresh(
        &mut self,
        mut tied: Box<Tied>,
        outcome: fresh::Outcome,
    ) -> Result<State, Gone> {
        let asked = outcome.asked.into_std();
        match outcome.result {
            Ok(Accepted::Answered) => {
                tied.refused_since = None;
                self.note_new_sessions(asked, Ok(())).await?;
                Ok(State::Tied(tied))
            }
            Ok(Accepted::LoggedIn(logged_in)) => {
                self.note_new_sessions(asked, Ok(())).await?;
                self.replace(tied, *logged_in).await
            }
            // A changed password, or no free connection: the server is up and answers.
            Err(Missed { failure, .. })
                if failure.is_login_refused() && self.subject == Subject::Server =>
            {
                warn!(member = %self.reporter.member, "a new login beside the kept session failed: {failure}");
                self.note_new_sessions(asked, Ok(())).await?;
                Ok(State::Tied(tied))
            }
            Err(Missed { failure, .. }) if self.subject == Subject::Server => {
                self.refuse(tied, asked, failure).await
            }
            Err(missed) => {
                let stage = Stage::from(&missed);
                self.lose(tied, Instant::now(), missed.failure, stage).await
            }
        }
    }

    /// Replaces the kept session by a new one, and queries that at once: the login may have started
    /// before the last answer of the old session.
    async fn replace(&mut self, mut tied: Box<Tied>, logged_in: LoggedIn) -> Result<State, Gone> {
        tied.refused_since = None;
        tied.stage = Stage::Entering;
        let new = self.subject.session(logged_in);
        std::mem::replace(&mut tied.session, new).close().await;
        self.timer.hasten();
        Ok(State::Tied(tied))
    }

    /// Reports that the server accepts no new sessions. The kept session still shows the role. It
    /// is closed only if a shutdown waits for it.
    async fn refuse(
        &mut self,
        mut tied: Box<Tied>,
        asked: Instant,
        failure: Failure,
    ) -> Result<State, Gone> {
        self.note_new_sessions(asked, Err(failure.clone())).await?;
        let Failure::Unavailable { .. } = failure else {
            tied.fresh.repeat_soon();
            return Ok(State::Tied(tied));
        };
        let since = *tied.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() < REFUSED_KEEP {
            tied.fresh.repeat_soon();
            return Ok(State::Tied(tied));
        }
        let Tied { session, address, .. } = *tied;
        session.close().await;
        self.transition_to_apart(Instant::now(), &address, failure, Stage::Knocking).await
    }

    /// Reports whether the server accepts new sessions. For a pooler its sessions show that.
    async fn note_new_sessions(
        &mut self,
        asked: Instant,
        answer: Result<(), Failure>,
    ) -> Result<(), Gone> {
        if self.subject != Subject::Server {
            return Ok(());
        }
        let member = &self.reporter.member;
        match (&answer, &self.refuses_new) {
            (Ok(()), Some(_)) => info!(%member, "the server accepts new sessions again"),
            (Err(now), Some(was)) if discriminant(now) == discriminant(was) => {}
            (Err(failure), _) => {
                warn!(%member, "the server accepts no new sessions, existing sessions continue: {failure}");
            }
            (Ok(()), None) => {}
        }
        self.refuses_new = answer.as_ref().err().cloned();
        self.report(asked, Fact::NewSessions(answer)).await
    }

    async fn lose(
        &mut self,
        tied: Box<Tied>,
        asked: Instant,
        failure: Failure,
        stage: Stage,
    ) -> Result<State, Gone> {
        if self.subject.leads_nowhere(&failure, stage) {
            self.hold_off();
        } else if tied.since.elapsed() >= SESSION_AGE_MIN {
            self.backoff.reset();
        } else {
            self.backoff.grow(self.timer.pace());
        }
        self.transition_to_apart(asked, &tied.address, failure, stage).await
    }

    fn hold_off(&mut self) {
        self.backoff.hold_off();
        self.held_off_until = Some(Instant::now() + HOLD_OFF);
    }

    fn transition_to_elsewhere(&mut self) -> State {
        debug!(member = %self.reporter.member, "the member has moved");
        self.backoff.reset();
        State::Apart
    }

    async fn transition_to_apart(
        &mut self,
        asked: Instant,
        address: &ServerAddress,
        failure: Failure,
        stage: Stage,
    ) -> Result<State, Gone> {
        self.fail(asked, address, failure, stage).await?;
        Ok(State::Apart)
    }

    /// Reports a failure, and logs it if its kind differs from the last one.
    async fn fail(
        &mut self,
        asked: Instant,
        address: &ServerAddress,
        failure: Failure,
        stage: Stage,
    ) -> Result<(), Gone> {
        let (member, subject) = (&self.reporter.member, self.subject.as_str());
        match &self.logged {
            Some(last) if discriminant(last) == discriminant(&failure) => {
                trace!(%member, "{subject}: {failure}");
            }
            _ => warn!(%member, "{subject}: {failure}"),
        }
        self.logged = Some(failure.clone());
        self.failed_at = Some(address.clone());
        self.report(asked, self.subject.failure(failure, stage)).await
    }

    async fn transition_to_tied(
        &mut self,
        logged_in: LoggedIn,
        address: ServerAddress,
    ) -> Result<State, Gone> {
        let asked = logged_in.asked;
        self.note_new_sessions(asked, Ok(())).await?;
        let mut tied = Box::new(Tied {
            session: self.subject.session(logged_in),
            address,
            since: Instant::now(),
            has_answered: false,
            stage: Stage::Entering,
            fresh: Fresh::of(self.subject),
            refused_since: None,
            progress: None,
        });
        match tied.session.reported_role() {
            Some(facts) => {
                self.note_answer(&mut tied);
                self.claim(asked, facts).await?;
                self.ask_progress(tied).await
            }
            // The server has to report first which one it is.
            None => self.ask(tied).await,
        }
    }

    /// Logs the first answer of a session, and the first one after a failure. A login whose first
    /// query fails changes nothing in the log.
    fn note_answer(&mut self, tied: &mut Tied) {
        let (member, subject) = (&self.reporter.member, self.subject.as_str());
        tied.stage = Stage::Kept;
        self.failed_at = None;
        let had_failed = self.logged.take().is_some();
        if !std::mem::replace(&mut tied.has_answered, true) {
            info!(%member, postgres = %tied.address.postgres, "{subject}: logged in");
        } else if had_failed {
            info!(%member, "{subject}: answers again");
        }
    }

    async fn claim(&self, asked: Instant, facts: TetherFacts) -> Result<(), Gone> {
        self.report(asked, self.subject.answer(facts)).await
    }

    async fn report(&self, asked: Instant, fact: Fact) -> Result<(), Gone> {
        trace!(member = %self.reporter.member, ?fact);
        self.reporter.claim(asked, fact).await
    }

    /// The address to log in to; none while the addresses are unknown.
    fn address(&self) -> Option<ServerAddress> {
        let ask = self.timer.ask();
        let addresses = match ask.postgres.ip() {
            Some(address) => vec![address],
            None => ask.addresses,
        };
        let postgres = self.subject.endpoint(&ask.postgres);
        (!addresses.is_empty()).then_some(ServerAddress { postgres, addresses })
    }

    /// Returns true if the session may go to another server than new clients do: the member is
    /// listed with another address, or an address of its name is gone.
    fn has_moved(&self, address: &ServerAddress) -> bool {
        if self.subject.endpoint(&self.timer.ask().postgres) != address.postgres {
            return true;
        }
        let is_gone = |now: &ServerAddress| {
            address.addresses.iter().any(|address| !now.addresses.contains(address))
        };
        self.address().as_ref().is_some_and(is_gone)
    }
}

/// Waits for the hint that the member refused a client.
async fn doubted(doubt: Option<&Notify>) {
    match doubt {
        Some(doubt) => doubt.notified().await,
        None => std::future::pending().await,
    }
}
