//! A session of the tether: logged in, and queried repeatedly.

use std::collections::BTreeMap;
use std::time::SystemTime;

use fallible_iterator::FallibleIterator;
use pgsteer_core::claim::{Failure, Progress, ServerStart, TetherFacts};
use postgres_protocol::message::backend::{DataRowBody, Message, ParameterStatusBody};
use postgres_protocol::message::frontend;

use super::progress;
use super::wire::{Connection, Refusal};

/// PostgreSQL 10 introduced the present names of the progress query's functions.
const PROGRESS_SINCE: u32 = 10;

/// The parameter that identifies a standby, PostgreSQL 14 and later.
const IN_HOT_STANDBY: &str = "in_hot_standby";

/// A session after the login.
pub struct Session {
    connection: Connection,
    recovery: Recovery,
    progress: ProgressQuery,
    /// When the server was started; none before the server has reported it.
    started_at: Option<ServerStart>,
    /// The system identifier; none before the server has reported it, or if it does not.
    system_identifier: Option<u64>,
}

/// How this server reports whether it is in recovery.
#[derive(Clone, Copy)]
enum Recovery {
    /// By the parameter `in_hot_standby`, as last reported (PostgreSQL 14 and later). The server
    /// reports it in the login, and again before the ReadyForQuery that follows a promotion
    /// (`ReportChangedGUCOptions` in `src/backend/utils/misc/guc.c`). A server that returns to
    /// recovery restarts, which ends this session.
    Reported(bool),
    /// Only by a query (PostgreSQL 13 and earlier).
    Asked,
}

/// The state of the progress query on this server.
enum ProgressQuery {
    /// [`Session::prepare`] has not run yet.
    Unprepared,
    /// The statement.
    Ready(String),
    /// This server refuses it. Repeating it would only fill the server's log.
    Refused,
}

/// The remaining messages of an answer up to ReadyForQuery.
#[derive(Default)]
struct Rest {
    row: Option<Vec<Option<String>>>,
    refusal: Option<Refusal>,
}

impl Session {
    /// The session after a login in which the server reported these parameters.
    pub fn new(connection: Connection, reported: &BTreeMap<String, String>) -> Session {
        let recovery = match reported.get(IN_HOT_STANDBY).map(String::as_str) {
            Some(value) => Recovery::Reported(value != "off"),
            None => Recovery::Asked,
        };
        let version = reported.get("server_version");
        let progress = match version.and_then(|text| major(text)) {
            Some(version) if version < PROGRESS_SINCE => ProgressQuery::Refused,
            _ => ProgressQuery::Unprepared,
        };
        Session { connection, recovery, progress, started_at: None, system_identifier: None }
    }

    /// The same session, but its unsolicited reports are ignored: a pooler reports what its own
    /// connection once received.
    pub fn through_pooler(self) -> Session {
        Session { recovery: Recovery::Asked, progress: ProgressQuery::Refused, ..self }
    }

    /// The role that the server reported by itself; none on a server before PostgreSQL 14, and none
    /// before the server has reported which one it is.
    pub fn reported_role(&self) -> Option<TetherFacts> {
        match (self.recovery, &self.progress) {
            (Recovery::Asked, _) | (_, ProgressQuery::Unprepared) => None,
            (Recovery::Reported(in_recovery), _) => Some(self.facts(in_recovery)),
        }
    }

    fn facts(&self, in_recovery: bool) -> TetherFacts {
        let Session { started_at, system_identifier, .. } = *self;
        TetherFacts { in_recovery, started_at, system_identifier }
    }

    /// Queries the role: a Sync, which is the smallest request, or a query where a Sync is not
    /// enough.
    pub async fn role(&mut self) -> Result<TetherFacts, Failure> {
        match self.recovery {
            Recovery::Reported(_) => self.sync().await,
            Recovery::Asked => {
                let row = self.query(progress::RECOVERY).await?;
                let row = row.map_err(|refusal| self.connection.failed(refusal))?;
                // Through a pooler each answer may come from another server.
                self.started_at = progress::started_at(&row);
                match row.first().and_then(progress::is_true) {
                    Some(in_recovery) => Ok(self.facts(in_recovery)),
                    None => {
                        Err(self.connection.nonsense("a boolean column without a boolean value"))
                    }
                }
            }
        }
    }

    /// Same as [`Session::role`], after the facts that are queried once a session. Another server
    /// may have answered the login, so its answers must not be reported as those of the server of
    /// an earlier session.
    pub async fn prepared_role(&mut self) -> Result<TetherFacts, Failure> {
        self.prepare().await?;
        self.role().await
    }

    /// Queries the facts that need to be queried only once.
    async fn prepare(&mut self) -> Result<(), Failure> {
        let ProgressQuery::Unprepared = self.progress else { return Ok(()) };
        let row = self.query(progress::FIRST).await?.unwrap_or_default();
        self.started_at = progress::started_at(&row);
        let may_see_checkpoint = row.first().and_then(progress::is_true) == Some(true);
        if progress::may_see_identifier(&row) {
            let row = self.query(progress::IDENTIFIER).await?.unwrap_or_default();
            self.system_identifier = progress::system_identifier(&row);
        }
        self.progress = ProgressQuery::Ready(progress::query(may_see_checkpoint));
        Ok(())
    }

    /// Queries the progress; none if this server refuses the query.
    pub async fn progress(&mut self) -> Result<Option<Progress>, Failure> {
        self.prepare().await?;
        let ProgressQuery::Ready(statement) = &self.progress else {
            return Ok(None);
        };
        let statement = statement.clone();
        let asked = SystemTime::now();
        match self.query(&statement).await? {
            Ok(row) => match progress::read(&row, asked, SystemTime::now()) {
                Some(progress) => Ok(Some(progress)),
                None => Err(self.connection.nonsense("a row with unexpected columns")),
            },
            Err(refusal) => {
                let postgres = self.connection.peer();
                tracing::warn!(%postgres, "no lag by SQL, the server refuses the query: {refusal}");
                self.progress = ProgressQuery::Refused;
                Ok(None)
            }
        }
    }

    /// Waits for unsolicited messages of the server, which are rare. Returns an error when the
    /// session ends. Cancel safe.
    pub async fn unasked(&mut self) -> Result<TetherFacts, Failure> {
        loop {
            match self.connection.receive().await? {
                Message::ParameterStatus(body) => {
                    self.note(&body);
                    if let Some(facts) = self.reported_role() {
                        return Ok(facts);
                    }
                }
                Message::NoticeResponse(_) | Message::NotificationResponse(_) => {}
                Message::ErrorResponse(body) => return Err(self.connection.refused(&body)),
                _ => return Err(self.connection.nonsense("a message although no query was sent")),
            }
        }
    }

    /// Ends the session.
    pub async fn close(self) {
        self.connection.close().await;
    }

    async fn sync(&mut self) -> Result<TetherFacts, Failure> {
        self.connection
            .send(|buf| {
                frontend::sync(buf);
                Ok(())
            })
            .await?;
        if let Some(refusal) = self.rest().await?.refusal {
            return Err(self.connection.failed(refusal));
        }
        match self.recovery {
            Recovery::Reported(in_recovery) => Ok(self.facts(in_recovery)),
            Recovery::Asked => Err(self.connection.nonsense("no role in the login")),
        }
    }

    /// Returns the row of a statement that returns one, or the failure.
    async fn query(
        &mut self,
        statement: &str,
    ) -> Result<Result<Vec<Option<String>>, Refusal>, Failure> {
        self.connection.send(|buf| frontend::query(statement, buf)).await?;
        let rest = self.rest().await?;
        match (rest.refusal, rest.row) {
            (Some(refusal), _) => Ok(Err(refusal)),
            (None, Some(row)) => Ok(Ok(row)),
            (None, None) => Err(self.connection.nonsense("no row in the result of a query")),
        }
    }

    async fn rest(&mut self) -> Result<Rest, Failure> {
        let mut rest = Rest::default();
        loop {
            match self.connection.receive().await? {
                Message::ReadyForQuery(_) => return Ok(rest),
                Message::ParameterStatus(body) => self.note(&body),
                Message::DataRow(body) => match texts(&body) {
                    Some(row) => rest.row = Some(row),
                    None => return Err(self.connection.nonsense("a malformed row")),
                },
                Message::ErrorResponse(body) => {
                    let refusal = Refusal::of(&body);
                    if refusal.is_fatal {
                        return Err(self.connection.failed(refusal));
                    }
                    rest.refusal = Some(refusal);
                }
                Message::NoticeResponse(_)
                | Message::NotificationResponse(_)
                | Message::RowDescription(_)
                | Message::CommandComplete(_) => {}
                _ => {
                    return Err(self
                        .connection
                        .nonsense("an unexpected message in the result of a query"));
                }
            }
        }
    }

    fn note(&mut self, body: &ParameterStatusBody) {
        let is_role = matches!(body.name(), Ok(IN_HOT_STANDBY));
        if let (true, Recovery::Reported(in_recovery), Ok(value)) =
            (is_role, &mut self.recovery, body.value())
        {
            *in_recovery = value != "off";
        }
    }
}

fn texts(body: &DataRowBody) -> Option<Vec<Option<String>>> {
    let buffer = body.buffer();
    let text = |range: std::ops::Range<usize>| {
        let bytes = buffer.get(range)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let ranges: Vec<_> = body.ranges().collect().ok()?;
    Some(ranges.into_iter().map(|range| range.and_then(text)).collect())
}

/// The first number of `15.18 (Debian ...)`, `9.6.24` or `18beta1`.
fn major(version: &str) -> Option<u32> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_any_version_text() {
        let versions = ["15.18 (Debian 15.18-0+deb12u1)", "9.6.24", "18beta1", "devel"];
        assert_eq!(versions.map(major), [Some(15), Some(9), Some(18), None]);
    }
}
