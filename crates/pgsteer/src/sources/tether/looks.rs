//! Checks of a pooler that delays a query: does the pooler itself answer?

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use tokio::time::{Instant, sleep_until};

use super::ServerAddress;
use super::login::Login;

/// The maximum time between two checks. A report about a pooler expires later than that: after this
/// time, the time limit of an answer, and some slack (`Freshness` in the core).
const PACE_MAX: Duration = Duration::from_secs(1);

type Attempt = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The next check, waiting or under way.
pub struct Looks {
    /// From this time on the query's answer is late.
    late_at: Instant,
    due: Instant,
    /// The check under way, with its start.
    attempt: Option<(Instant, Attempt)>,
}

/// The outcome of one check.
pub struct Looked {
    /// When it started.
    pub asked: Instant,
    /// True if the query has now waited for longer than an answer may take.
    pub is_late: bool,
    /// Whether the pooler answered.
    pub outcome: Result<(), Failure>,
}

impl Looks {
    /// Checks beside a query that is sent now and may take `limit`: one after half of the limit,
    /// one when the query is late, and then one after the other.
    pub fn beside_a_query(limit: Duration) -> Looks {
        let now = Instant::now();
        Looks { late_at: now + limit, due: now + limit / 2, attempt: None }
    }

    /// Waits for the next check and its outcome. Cancel safe: other events of a `select!` delay no
    /// check.
    pub async fn outcome(&mut self, login: &Arc<Login>, address: &ServerAddress) -> Looked {
        if self.attempt.is_none() {
            sleep_until(self.due).await;
        }
        let (asked, attempt) =
            self.attempt.get_or_insert_with(|| (Instant::now(), begin(login, address)));
        let (outcome, asked) = (attempt.await, *asked);
        self.attempt = None;
        let now = Instant::now();
        let next = asked + PACE_MAX.min(login.limit);
        self.due = if now < self.late_at { self.late_at } else { next };
        Looked { asked, is_late: now >= self.late_at, outcome }
    }
}

fn begin(login: &Arc<Login>, address: &ServerAddress) -> Attempt {
    let (login, address) = (login.clone(), address.clone());
    Box::pin(async move { login.look(&address.postgres, &address.addresses).await })
}
