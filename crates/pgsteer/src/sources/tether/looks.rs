//! The looks at a pooler that keeps a query waiting: is it there itself?

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use tokio::time::{Instant, sleep_until};

use super::Place;
use super::login::Login;

/// The time from one look to the next at most. A word of a pooler lasts longer than that by what an
/// answer may take, and a little (`Freshness` in the core).
const PACE_MAX: Duration = Duration::from_secs(1);

type Attempt = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The next look, due or under way.
pub struct Looks {
    /// From here on an answer is late.
    late_at: Instant,
    due: Instant,
    /// With when it began.
    attempt: Option<(Instant, Attempt)>,
}

/// What came of one look.
pub struct Looked {
    /// When it began.
    pub asked: Instant,
    /// The query has waited for longer than an answer may take by now.
    pub is_late: bool,
    /// It is there, or not.
    pub outcome: Result<(), Failure>,
}

impl Looks {
    /// Looks beside a query that is sent now and may take `limit`: one halfway, one when it is late,
    /// and then one after the other.
    pub fn beside_a_query(limit: Duration) -> Looks {
        let now = Instant::now();
        Looks { late_at: now + limit, due: now + limit / 2, attempt: None }
    }

    /// Waits for the next look and its outcome. Losing the race of a `select!` loses nothing: what
    /// else happens meanwhile puts no look off.
    pub async fn outcome(&mut self, login: &Arc<Login>, place: &Place) -> Looked {
        if self.attempt.is_none() {
            sleep_until(self.due).await;
        }
        let (asked, attempt) =
            self.attempt.get_or_insert_with(|| (Instant::now(), begin(login, place)));
        let (outcome, asked) = (attempt.await, *asked);
        self.attempt = None;
        let now = Instant::now();
        let next = asked + PACE_MAX.min(login.limit);
        self.due = if now < self.late_at { self.late_at } else { next };
        Looked { asked, is_late: now >= self.late_at, outcome }
    }
}

fn begin(login: &Arc<Login>, place: &Place) -> Attempt {
    let (login, place) = (login.clone(), place.clone());
    Box::pin(async move { login.look(&place.postgres, &place.addresses).await })
}
