//! Discovery: which members there are, as `GET /cluster` of any one of them tells.
//!
//! `/cluster` costs Patroni a read of the DCS, so it is asked seldom, and of one member only.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Failure, Report, Topology, Unlisted};
use pgsteer_core::plan::Plan;
use pgsteer_core::wire::excerpt::excerpt;
use pgsteer_core::wire::patroni::{Cluster, parse_cluster};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::base::{Base, strange};
use super::http::Client;
use super::{Gone, Hint, dial};
use crate::clock::Clock;
use crate::complaint::Complaint;

/// The time from one round to the next until somebody has answered.
const SEARCH: Duration = Duration::from_millis(200);

/// The time from one question to the next while all is well.
const REST: Duration = Duration::from_secs(10);

/// The least time to the next question, however much is hinted.
const HURRY: Duration = Duration::from_secs(2);

/// Finds the members.
#[derive(Clone)]
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
        let Ok(told) = self.search().await else { return Gone };
        info!(by = %told.by.url(), members = told.cluster.members.len(), "cluster found");
        let mut last = told.by.clone();
        if let Err(gone) = self.report(told).await {
            return gone;
        }
        let mut lost: Option<Failure> = None;
        let mut seen = self.plan.borrow_and_update().clone();
        loop {
            if let Err(gone) = self.wait(&mut seen).await {
                return gone;
            }
            match self.ask_in_turn(&last).await {
                Ok(told) => {
                    if lost.take().is_some() {
                        info!(by = %told.by.url(), "members are listed again");
                    }
                    last = told.by.clone();
                    if let Err(gone) = self.report(told).await {
                        return gone;
                    }
                }
                Err(failure) => {
                    if is_other_kind(&failure, lost.as_ref()) {
                        warn!("nobody lists the members, the last list stays: {failure}");
                    }
                    lost = Some(failure);
                }
            }
        }
    }

    /// Asks all seeds at once, again and again, until the first answers.
    async fn search(&self) -> Result<Told, Gone> {
        let mut asking = JoinSet::new();
        for seed in self.seeds.iter().cloned() {
            let (http, reports) = (self.http.clone(), self.reports.clone());
            asking.spawn(async move { ask_until_told(&http, seed, &reports).await });
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
        let urls = plan.members.values().filter_map(|ask| ask.patroni_url.as_deref());
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
            paused: told.cluster.paused,
            members: told.cluster.members,
        };
        let sent = self.reports.send(Report::Topology(topology)).await;
        sent.map_err(|_| Gone)
    }
}

/// Asks one address after the other, once, which members there are.
///
/// # Errors
/// Nobody tells; every failure is in the message.
pub async fn ask_once(http: &Client, seeds: &[Base]) -> anyhow::Result<Cluster> {
    let mut failures = Vec::new();
    for seed in seeds {
        // A command asks once, so it waits for a slow lookup. A failed one is reported by the question.
        let _ = dial::look_up(seed.endpoint()).await;
        match ask(http, seed).await {
            Ok(told) => return Ok(told.cluster),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    let remedy = "name one that answers, as --patroni URL; or the members themselves, as --member \
                  n1=HOST:PORT, and --patroni-port 8008 where there is Patroni";
    let what = format!("no Patroni lists the members: {}", failures.join("; "));
    Err(Complaint::new(what, Some(remedy.to_owned())).into())
}

/// Waits until the pace of some member is shorter than when the plan was `seen` last.
async fn quickened(
    plan: &mut watch::Receiver<Arc<Plan>>,
    seen: &mut Arc<Plan>,
) -> Result<(), Gone> {
    loop {
        let now = plan.borrow_and_update().clone();
        let was = std::mem::replace(seen, now.clone());
        let is_quicker = now.members.iter().any(|(name, ask)| {
            was.members.get(name).is_some_and(|was| ask.pace.patroni < was.pace.patroni)
        });
        if is_quicker {
            return Ok(());
        }
        plan.changed().await.map_err(|_| Gone)?;
    }
}

/// Asks one address again and again, and reports what it fails by whenever that changes.
async fn ask_until_told(
    http: &Client,
    seed: Base,
    reports: &mpsc::Sender<Report>,
) -> Result<Told, Gone> {
    let mut last: Option<Failure> = None;
    loop {
        let failure = match ask(http, &seed).await {
            Ok(told) => return Ok(told),
            Err(failure) => failure,
        };
        if is_other_kind(&failure, last.as_ref()) {
            warn!("no members listed yet: {failure}");
        }
        if last.as_ref() != Some(&failure) {
            let unlisted = Unlisted { asked: seed.url().clone(), failure: failure.clone() };
            reports.send(Report::Unlisted(unlisted)).await.map_err(|_| Gone)?;
        }
        last = Some(failure);
        sleep(SEARCH).await;
    }
}

fn is_other_kind(failure: &Failure, last: Option<&Failure>) -> bool {
    last.is_none_or(|last| discriminant(last) != discriminant(failure))
}

async fn ask(http: &Client, base: &Base) -> Result<Told, Failure> {
    let answer = http.get(base, &[], "/cluster").await?;
    if answer.status != 200 {
        let how = format!("status {}, `{}`", answer.status, excerpt(&answer.body));
        return Err(strange(base, &how));
    }
    let cluster = parse_cluster(&answer.body).map_err(|bad| strange(base, &bad.to_string()))?;
    Ok(Told { by: base.clone(), asked: answer.asked, cluster })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use pgsteer_core::names::{Endpoint, MemberName};
    use pgsteer_core::plan::{Ask, Pace};

    use super::*;
    use crate::sources::{Task, fake};

    const CLUSTER: &str = "HTTP/1.0 200 OK\r\n\r\n{\"scope\": \"demo\", \"members\": \
        [{\"name\": \"pg1\", \"host\": \"10.0.0.1\", \"port\": 5432}, {\"name\": \"new\"}]}";

    fn base(address: SocketAddr) -> Base {
        Base::parse(&format!("http://{address}")).unwrap()
    }

    fn plan_of(patroni_url: &Base) -> Plan {
        let ask = Ask {
            postgres: Endpoint::new("10.0.0.1", 5432).unwrap(),
            addresses: Vec::new(),
            patroni_url: Some(patroni_url.url().clone()),
            poolers: Default::default(),
            pace: Pace {
                tether: Duration::from_secs(1),
                patroni: Duration::from_secs(1),
                pooler: Duration::from_secs(1),
            },
        };
        let members = [(MemberName::new("pg1").unwrap(), ask)].into();
        Plan { members, scope: None }
    }

    fn discovery(seeds: Vec<Base>, plan: Plan) -> (Discovery, mpsc::Receiver<Report>) {
        let (reports, received) = mpsc::channel(1);
        let discovery = Discovery {
            http: Arc::new(Client::new(Duration::from_secs(5), None)),
            seeds,
            plan: watch::channel(Arc::new(plan)).1,
            hint: Hint::default(),
            clock: Clock::start(),
            reports,
        };
        (discovery, received)
    }

    async fn silent() -> Base {
        let address = fake::server(|stream, _| async move {
            sleep(Duration::from_secs(60)).await;
            drop(stream);
        });
        base(address.await)
    }

    #[tokio::test]
    async fn one_seed_that_answers_is_enough_and_silent_ones_do_not_delay_it() {
        let answering = base(fake::http_server(CLUSTER).await);
        let (discovery, mut reports) =
            discovery(vec![silent().await, answering, silent().await], Plan::default());
        let started = Instant::now();
        let _task = Task::spawn(discovery.run());
        let Some(Report::Topology(topology)) = reports.recv().await else { panic!() };
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(topology.scope.as_deref(), Some("demo"));
        let names: Vec<&str> = topology.members.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["pg1"], "a member without a host cannot be asked");
    }

    #[tokio::test]
    async fn a_seed_is_tried_again_until_it_answers() {
        let address = fake::server(|mut stream, number| async move {
            fake::read_head(&mut stream).await;
            if number >= 2 {
                fake::drip(&mut stream, CLUSTER.as_bytes()).await;
            }
        })
        .await;
        let (discovery, _reports) = discovery(vec![base(address)], Plan::default());
        assert_eq!(discovery.search().await.ok().unwrap().cluster.members.len(), 1);
    }

    #[tokio::test]
    async fn what_a_seed_fails_by_is_reported_and_again_when_it_is_something_else() {
        let address = fake::server(|mut stream, number| async move {
            fake::read_head(&mut stream).await;
            if number >= 3 {
                fake::drip(&mut stream, b"HTTP/1.0 500 Oh\r\n\r\n").await;
            }
        })
        .await;
        let seed = base(address);
        let (discovery, mut reports) = discovery(vec![seed.clone()], Plan::default());
        let _task = Task::spawn(discovery.run());
        for is_expected in [
            |failure: &Failure| matches!(failure, Failure::Closed(_)),
            |failure: &Failure| matches!(failure, Failure::Malformed(_)),
        ] {
            let Some(Report::Unlisted(unlisted)) = reports.recv().await else { panic!() };
            assert_eq!(unlisted.asked, *seed.url());
            assert!(is_expected(&unlisted.failure), "{}", unlisted.failure);
        }
    }

    #[tokio::test]
    async fn a_member_stands_in_for_a_seed_that_has_gone() {
        let gone = base(fake::http_server("HTTP/1.0 500 Oh\r\n\r\n").await);
        let member = base(fake::http_server(CLUSTER).await);
        let (discovery, _reports) = discovery(vec![gone.clone()], plan_of(&member));
        let told = discovery.ask_in_turn(&gone).await.unwrap_or_else(|err| panic!("{err}"));
        assert_eq!(told.by, member);
    }

    #[tokio::test]
    async fn a_quicker_pace_is_noticed_and_a_slower_one_is_not() {
        let member = silent().await;
        let quick = |ms: u64| {
            let mut plan = plan_of(&member);
            plan.members.values_mut().for_each(|ask| ask.pace.patroni = Duration::from_millis(ms));
            Arc::new(plan)
        };
        let (plan, mut plan_rx) = watch::channel(quick(1000));
        let mut seen = quick(1000);
        plan.send_replace(quick(2000));
        let waited = quickened(&mut plan_rx, &mut seen);
        assert!(timeout(Duration::from_millis(50), waited).await.is_err());
        plan.send_replace(quick(25));
        assert_eq!(quickened(&mut plan_rx, &mut seen).await, Ok(()));
    }
}
