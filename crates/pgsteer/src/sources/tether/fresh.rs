//! The fresh login beside a kept session: now and then, to see whether one still can.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use tokio::time::{Instant, sleep_until};

use super::Place;
use super::login::{LoggedIn, Login};

/// The time from one fresh login to the next, and what chance adds to it, so that many
/// pgsteers do not log in all at once.
const PACE: Duration = Duration::from_secs(30);
const JITTER_MS_MAX: u64 = 3000;

type Attempt = Pin<Box<dyn Future<Output = Result<LoggedIn, Failure>> + Send>>;

/// The fresh login, due or under way.
pub struct Fresh {
    due: Instant,
    attempt: Option<Attempt>,
    timed_out_before: bool,
}

impl Fresh {
    /// The first one is due a while from now.
    pub fn later() -> Fresh {
        let jitter_ms = RandomState::new().build_hasher().finish() % JITTER_MS_MAX;
        Fresh {
            due: Instant::now() + PACE + Duration::from_millis(jitter_ms),
            attempt: None,
            timed_out_before: false,
        }
    }

    /// Waits for the next fresh login and its outcome. One that times out is tried once more
    /// before it counts: a single lost packet must not shut the gate of a healthy member
    /// whose kept session answers. Losing the race of a `select!` loses nothing.
    pub async fn outcome(
        &mut self,
        login: &Arc<Login>,
        place: &Place,
    ) -> Result<LoggedIn, Failure> {
        loop {
            if self.attempt.is_none() {
                sleep_until(self.due).await;
            }
            let attempt = self.attempt.get_or_insert_with(|| begin(login, place));
            let outcome = attempt.await;
            self.attempt = None;
            match outcome {
                Err(Failure::Timeout { .. }) if !self.timed_out_before => {
                    self.timed_out_before = true;
                }
                outcome => {
                    *self = Fresh::later();
                    return outcome;
                }
            }
        }
    }
}

fn begin(login: &Arc<Login>, place: &Place) -> Attempt {
    let (login, place) = (login.clone(), place.clone());
    Box::pin(async move { login.log_in(&place.postgres, &place.addresses).await })
}
