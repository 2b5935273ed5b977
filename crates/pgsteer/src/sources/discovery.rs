//! Discovery: which members there are, as `GET /cluster` of any one of them tells.
//!
//! `/cluster` costs Patroni a read of the DCS, so it is asked seldom, and of one member only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Failure, Report, Topology};
use pgsteer_core::plan::Plan;
use pgsteer_core::wire::patroni::{Cluster, excerpt, parse_cluster};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::http::{Base, Client, not_patroni};
use super::{Gone, Hint};
use crate::clock::Clock;

/// The time from one round to the next until somebody has answered.
const SEARCH: Duration = Duration::from_millis(200);

/// The time from one question to the next while all is well.
const REST: Duration = Duration::from_secs(10);

/// The least time to the next question, however much is hinted.
const HURRY: Duration = Duration::from_secs(2);

/// Finds the members.
pub struct Discovery {
    /// Asks.
    pub http: Arc<Client>,
    /// The configured addresses.
    pub seeds: Vec<Base>,
    /// Names the members' own addresses.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Given when a member's Patroni fails.
    pub hint: Hint,
    /// Turns instants into moments.
    pub clock: Clock,
    /// Where the topology is reported.
    pub reports: mpsc::Sender<Report>,
}

/// Who told which members, and when.
struct Told {
    by: Base,
    asked: Instant,
    cluster: Cluster,
}

impl Discovery {
    /// Searches until somebody answers, and follows the cluster from then on.
    pub async fn run(mut self) -> Gone {
        let told = self.search().await;
        info!(by = %told.by.url(), members = told.cluster.members.len(), "cluster found");
        let mut last = told.by.clone();
        if let Err(gone) = self.report(told).await {
            return gone;
        }
        let mut is_lost = false;
        let mut seen = self.plan.borrow_and_update().clone();
        loop {
            if let Err(gone) = self.wait(&mut seen).await {
                return gone;
            }
            match self.ask_in_turn(&last).await {
                Ok(told) => {
                    if is_lost {
                        info!(by = %told.by.url(), "members are listed again");
                    }
                    is_lost = false;
                    last = told.by.clone();
                    if let Err(gone) = self.report(told).await {
                        return gone;
                    }
                }
                Err(failure) if !is_lost => {
                    is_lost = true;
                    warn!("nobody lists the members, the last list stays: {failure}");
                }
                Err(_) => {}
            }
        }
    }

    /// Asks all seeds at once, again and again, until the first answers.
    async fn search(&self) -> Told {
        let mut asking = JoinSet::new();
        for seed in self.seeds.iter().cloned() {
            let http = self.http.clone();
            asking.spawn(async move { ask_until_told(&http, seed).await });
        }
        loop {
            match asking.join_next().await {
                Some(Ok(told)) => return told,
                // A task that was cut short; the others go on.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }

    /// Asks one address after the other, from the one that answered last.
    async fn ask_in_turn(&self, last: &Base) -> Result<Told, Failure> {
        let mut candidates = vec![last.clone()];
        let plan = self.plan.borrow().clone();
        let urls = plan.values().filter_map(|ask| ask.patroni_url.as_deref());
        let members = urls.filter_map(|url| Base::parse(url).ok());
        for base in members.chain(self.seeds.iter().cloned()) {
            if !candidates.contains(&base) {
                candidates.push(base);
            }
        }
        let mut told = ask(&self.http, last).await;
        for base in &candidates[1..] {
            if told.is_ok() {
                break;
            }
            told = ask(&self.http, base).await;
        }
        told
    }

    /// Waits for the next question: some time, or less if something may have changed.
    async fn wait(&mut self, seen: &mut Arc<Plan>) -> Result<(), Gone> {
        sleep(HURRY).await;
        let hint = self.hint.clone();
        let hinted = async {
            tokio::select! {
                () = hint.given() => Ok(()),
                quickened = quickened(&mut self.plan, seen) => quickened,
            }
        };
        timeout(REST - HURRY, hinted).await.unwrap_or(Ok(()))
    }

    async fn report(&self, told: Told) -> Result<(), Gone> {
        for reason in &told.cluster.skipped {
            debug!(by = %told.by.url(), "not asked: {reason}");
        }
        let topology = Topology {
            asked_at: self.clock.moment(told.asked),
            scope: told.cluster.scope,
            members: told.cluster.members,
        };
        let sent = self.reports.send(Report::Topology(topology)).await;
        sent.map_err(|_| Gone)
    }
}

/// Waits until the pace of some member is shorter than when the plan was `seen` last.
async fn quickened(
    plan: &mut watch::Receiver<Arc<Plan>>,
    seen: &mut Arc<Plan>,
) -> Result<(), Gone> {
    loop {
        let now = plan.borrow_and_update().clone();
        let was = std::mem::replace(seen, now.clone());
        let is_quicker = now.iter().any(|(name, ask)| {
            was.get(name).is_some_and(|was| ask.pace.patroni < was.pace.patroni)
        });
        if is_quicker {
            return Ok(());
        }
        plan.changed().await.map_err(|_| Gone)?;
    }
}

async fn ask_until_told(http: &Client, seed: Base) -> Told {
    let mut was_warned = false;
    loop {
        match ask(http, &seed).await {
            Ok(told) => return told,
            Err(failure) if !was_warned => {
                was_warned = true;
                warn!("no members listed yet: {failure}");
            }
            Err(_) => {}
        }
        sleep(SEARCH).await;
    }
}

async fn ask(http: &Client, base: &Base) -> Result<Told, Failure> {
    let answer = http.get(base, &[], "/cluster").await?;
    if answer.status != 200 {
        let how = format!("status {}, `{}`", answer.status, excerpt(&answer.body));
        return Err(not_patroni(base, &how));
    }
    let cluster = parse_cluster(&answer.body).map_err(|bad| not_patroni(base, &bad.to_string()))?;
    Ok(Told { by: base.clone(), asked: answer.asked, cluster })
}
