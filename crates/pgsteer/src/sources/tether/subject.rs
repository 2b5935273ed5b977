//! The subject of a tether: the member's server, or a pooler beside it.
//!
//! A pooler has to answer two questions: is it up, and does it lead to the server? So the meaning
//! of a failure depends on how far the tether had come.

use std::time::Duration;

use pgsteer_core::claim::{Fact, Failure, PoolerFacts, TetherFacts};
use pgsteer_core::names::Endpoint;

use super::ServerAddress;
use super::login::{LoggedIn, Login, Missed};
use super::session::Session;

/// The other end of a tether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// PostgreSQL.
    Server,
    /// The pooler on this port of the same host.
    Pooler {
        /// The port.
        port: u16,
    },
}

/// How far a tether had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There was no answer yet.
    Knocking,
    /// There was an answer, and the session behind it failed.
    Entering,
    /// The login had succeeded, which PgBouncer allows once it has had a session to its configured
    /// server, and the pooler itself answers: it is paused, or all of its sessions are in use.
    Waiting,
    /// The session had answered queries before.
    Kept,
}

impl Subject {
    /// Its endpoint, derived from the endpoint of the member's PostgreSQL.
    pub fn endpoint(self, postgres: &Endpoint) -> Endpoint {
        match self {
            Subject::Server => postgres.clone(),
            Subject::Pooler { port } => postgres.with_port(port),
        }
    }

    /// The time between two fresh logins beside a kept session.
    ///
    /// A server rarely refuses new sessions while its old ones continue. The old sessions of a
    /// pooler continue to its old server whenever an operator points the pooler to another server.
    pub fn fresh_pace(self) -> Duration {
        match self {
            Subject::Server => Duration::from_secs(30),
            Subject::Pooler { .. } => Duration::from_secs(5),
        }
    }

    /// The time between two attempts to connect beside a kept session. A pooler answers these
    /// itself, so only a whole login proves anything about it.
    pub fn knock_pace(self) -> Option<Duration> {
        match self {
            Subject::Server => Some(Duration::from_secs(2)),
            Subject::Pooler { .. } => None,
        }
    }

    /// The session to use after a login.
    pub fn session(self, logged_in: LoggedIn) -> Session {
        match self {
            Subject::Server => logged_in.session,
            Subject::Pooler { .. } => logged_in.session.through_pooler(),
        }
    }

    /// The fact that its answer shows.
    pub fn answer(self, facts: TetherFacts) -> Fact {
        match self {
            Subject::Server => Fact::Tether(Ok(facts)),
            Subject::Pooler { port } => {
                let TetherFacts { in_recovery, started_at, .. } = facts;
                Fact::Pooler { port, answer: Ok(PoolerFacts::Leads { in_recovery, started_at }) }
            }
        }
    }

    /// The fact that a missing answer shows.
    pub fn failure(self, failure: Failure, stage: Stage) -> Fact {
        match self {
            Subject::Server => Fact::Tether(Err(failure)),
            Subject::Pooler { port } => {
                Fact::Pooler { port, answer: of_pooler(failure.of_pgbouncer(), stage) }
            }
        }
    }

    /// Returns true if the pooler itself answers, but has no server.
    pub fn leads_nowhere(self, failure: &Failure, stage: Stage) -> bool {
        let Subject::Pooler { .. } = self else { return false };
        matches!(of_pooler(failure.clone(), stage), Ok(PoolerFacts::LeadsNowhere(_)))
    }

    /// The time limit of a login while there is no session. A server may take long, and its late
    /// answer counts. PgBouncer keeps a client waiting while its server is down, so that a late
    /// answer of a pooler shows nothing about the present.
    pub fn login_limit(self, login: &Login) -> Duration {
        match self {
            Subject::Server => login.late_limit(),
            Subject::Pooler { .. } => login.limit,
        }
    }

    /// Logs in within `limit`. For a pooler whose answer is late, this also checks whether the
    /// pooler itself answers.
    pub async fn log_in(
        self,
        login: &Login,
        address: &ServerAddress,
        limit: Duration,
    ) -> Result<LoggedIn, Missed> {
        let ServerAddress { postgres, addresses } = address;
        match self {
            Subject::Server => login.log_in(postgres, addresses, limit).await,
            Subject::Pooler { .. } => login.log_in_or_look(postgres, addresses, limit).await,
        }
    }

    /// The name for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Server => "tether",
            Subject::Pooler { .. } => "pooler",
        }
    }
}

impl From<&Missed> for Stage {
    fn from(missed: &Missed) -> Stage {
        if missed.was_answered { Stage::Entering } else { Stage::Knocking }
    }
}

fn of_pooler(failure: Failure, stage: Stage) -> Result<PoolerFacts, Failure> {
    match (&failure, stage) {
        (Failure::Malformed(_) | Failure::TooLarge { .. }, _) => Err(failure),
        (Failure::LoginRefused { .. }, _) => Ok(of_refused(failure)),
        (Failure::LoginDeclined(_), _) => Ok(PoolerFacts::RefusesLogin(failure)),
        // The pooler answered the request for TLS.
        (Failure::Tls(_), _) => Ok(PoolerFacts::RefusesLogin(failure)),
        (Failure::Timeout { .. }, Stage::Waiting) => Ok(PoolerFacts::Busy(failure)),
        (_, Stage::Entering) | (Failure::Unavailable { .. }, Stage::Waiting | Stage::Kept) => {
            Ok(PoolerFacts::LeadsNowhere(failure))
        }
        (_, Stage::Knocking | Stage::Waiting | Stage::Kept) => Err(failure),
    }
}

/// Classifies a refusal. PgBouncer sends its own refusals and forwards those of the server, mostly
/// with the same SQLSTATE. Only its message shows that it has no server.
fn of_refused(failure: Failure) -> PoolerFacts {
    match &failure {
        Failure::LoginRefused { by, sqlstate, message } => {
            let unavailable = || Failure::Unavailable {
                by: by.clone(),
                sqlstate: sqlstate.clone(),
                message: message.clone(),
            };
            if has_waited_in_vain(message) {
                PoolerFacts::Busy(unavailable())
            } else if has_no_server(message) || is_system_error(sqlstate) {
                PoolerFacts::LeadsNowhere(unavailable())
            } else {
                PoolerFacts::RefusesLogin(failure)
            }
        }
        _ => PoolerFacts::RefusesLogin(failure),
    }
}

/// Returns true for the class of SQLSTATEs for errors outside of PostgreSQL, such as a failed
/// connection to it. The class of connection errors (08) proves nothing: PgBouncer uses 08P01 for
/// nearly all of its errors.
fn is_system_error(sqlstate: &str) -> bool {
    sqlstate.starts_with("58")
}

/// Returns true if PgBouncer's message means that it has no server. The texts are those of all
/// versions (1.18: `src/objects.c`, `src/janitor.c`, `src/server.c`). "server login has been
/// failing" may also mean a login that the server itself refused. Since 1.24 the message contains
/// the server's own message for that, without its SQLSTATE. The messages of a server that is
/// starting or stopping are known here only in English (`lc_messages`).
fn has_no_server(message: &str) -> bool {
    const WORDS: [&str; 9] = [
        "server login has been failing, try again later",
        "server conn crashed",
        "server DNS lookup failed",
        "server down",
        "cannot connect to server",
        "connect failed",
        "connect timeout",
        "the database system is",
        "terminating connection due to",
    ];
    let cause = message.split_once("cached error: ").map_or(message, |(_, cause)| cause);
    WORDS.iter().any(|words| cause.contains(words))
}

/// Returns true if PgBouncer closed a client because of `query_wait_timeout`. That alone is no
/// evidence about the server: if it has no server, PgBouncer reports that to later clients.
fn has_waited_in_vain(message: &str) -> bool {
    message.contains("query_wait_timeout")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgsteer_core::claim::Speaker;

    use super::*;

    fn refused(message: &str) -> Failure {
        let by = Speaker::pgbouncer("n1:6432");
        Failure::LoginRefused { by, sqlstate: Arc::from("08P01"), message: Arc::from(message) }
    }

    fn unavailable(message: &str) -> Failure {
        let by = Speaker::pgbouncer("n1:6432");
        Failure::Unavailable { by, sqlstate: Arc::from("08P01"), message: Arc::from(message) }
    }

    #[test]
    fn errors_of_pgbouncer_about_its_server_and_about_the_login_are_distinguished() {
        for message in [
            "server login has been failing, try again later (server_login_retry)",
            "server login has been failing, cached error: connect failed (server_login_retry)",
            "server login has been failing, cached error: the database system is shutting down (server_login_retry)",
            "server login has been failing, cached error: terminating connection due to administrator command (server_login_retry)",
            "server conn crashed?",
        ] {
            let answer = of_pooler(refused(message), Stage::Entering);
            let nowhere = PoolerFacts::LeadsNowhere(unavailable(message));
            assert_eq!(answer, Ok(nowhere));
        }
        for message in [
            "SASL authentication failed",
            "no such database: postgres",
            "no more connections allowed (max_client_conn)",
            "password authentication failed for user \"pgcheck\"",
            "server login has been failing, cached error: password authentication failed",
        ] {
            let answer = of_pooler(refused(message), Stage::Entering);
            assert_eq!(answer, Ok(PoolerFacts::RefusesLogin(refused(message))));
        }
    }

    #[test]
    fn a_pooler_that_keeps_a_client_waiting_is_up_and_leads_to_its_server() {
        let timeout =
            Failure::Timeout { peer: Arc::from("n1:6432"), limit: Duration::from_secs(1) };
        let busy = PoolerFacts::Busy(timeout.clone());
        assert_eq!(of_pooler(timeout.clone(), Stage::Waiting), Ok(busy));
        let nowhere = PoolerFacts::LeadsNowhere(timeout.clone());
        assert_eq!(of_pooler(timeout.clone(), Stage::Entering), Ok(nowhere));
        assert_eq!(of_pooler(timeout.clone(), Stage::Knocking), Err(timeout));
        let answer = of_pooler(refused("query_wait_timeout"), Stage::Kept);
        assert_eq!(answer, Ok(PoolerFacts::Busy(unavailable("query_wait_timeout"))));
    }

    #[test]
    fn any_answer_shows_that_the_pooler_is_up() {
        let closed = Failure::Closed(Arc::from("n1:6432"));
        let nowhere = PoolerFacts::LeadsNowhere(closed.clone());
        assert_eq!(of_pooler(closed.clone(), Stage::Entering), Ok(nowhere));
        for stage in [Stage::Knocking, Stage::Kept] {
            assert_eq!(of_pooler(closed.clone(), stage), Err(closed.clone()));
        }
        let no_tls = Failure::Tls(Arc::from("n1:6432: the server offers none"));
        let refuses = PoolerFacts::RefusesLogin(no_tls.clone());
        assert_eq!(of_pooler(no_tls, Stage::Knocking), Ok(refuses));
    }
}
