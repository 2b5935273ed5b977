//! Discovery: the member lists that Patroni returns at `GET /cluster`.
//!
//! The plan contains the URLs to ask, and the core decides which list it accepts. Discovery first
//! asks a Patroni about itself (`GET /patroni`), because its list counts only if it belongs to the
//! cluster. `/cluster` costs Patroni a read of the DCS. So it is requested rarely, and from one URL
//! only once a list is known.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use pgsteer_core::claim::{Failure, Report, Topology, Unlisted};
use pgsteer_core::identity::About;
use pgsteer_core::plan::{Plan, When};
use pgsteer_wire::excerpt::excerpt;
use pgsteer_wire::patroni::{Cluster, parse_cluster, parse_status};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::http::Client;
use super::{Gone, Hint, dial};
use crate::base::Base;
use crate::clock::Clock;
use crate::diagnostic::Diagnostic;

/// The time between two requests to a URL that has not returned a list. It doubles with each
/// failure, because each request occupies a thread of a Patroni whose DCS is down.
const SEARCH: Duration = Duration::from_millis(200);

/// The time between two requests while a URL returns lists, and the maximum of [`SEARCH`]'s
/// backoff.
const REST: Duration = Duration::from_secs(10);

/// A failure that ends within this time after a start or restart is not logged as a warning.
const SETTLES: Duration = Duration::from_secs(1);

/// The minimum time to the next request, even after a hint.
const HURRY: Duration = Duration::from_secs(2);

/// Requests the member lists.
#[derive(Clone)]
pub struct Discovery {
    /// Sends the requests.
    pub http: Arc<Client>,
    /// Contains the URLs.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Notified when a request to a member's Patroni fails.
    pub hint: Hint,
    /// Converts instants to the core's moments.
    pub clock: Clock,
    /// Where the lists are reported.
    pub reports: mpsc::Sender<Report>,
}

/// The answer of one URL.
struct Answered {
    by: Base,
    /// What Patroni reports about itself; none if it does not.
    about: Option<About>,
    list: Result<ReadList, Failure>,
}

/// A member list, and when it was requested.
struct ReadList {
    asked: Instant,
    cluster: Cluster,
}

/// When the search sends the next request to one URL, and the URL's last failure.
#[derive(Default)]
struct Attempt {
    is_running: bool,
    due: Option<Instant>,
    pause: Duration,
    failure: Option<Failure>,
    /// Since when every answer has been a failure.
    failing_since: Option<Instant>,
    /// The last failure that was logged.
    logged: Option<Failure>,
}

impl Discovery {
    /// Asks the URLs of the plan until the plan ends.
    pub async fn run(self) -> Gone {
        let turns = self.clone();
        tokio::select! {
            gone = self.search() => gone,
            gone = turns.take_turns() => gone,
        }
    }

    /// Asks the URLs that are always asked, concurrently and repeatedly.
    async fn search(mut self) -> Gone {
        let mut attempts: BTreeMap<Arc<str>, Attempt> = BTreeMap::new();
        let mut asking = JoinSet::new();
        loop {
            let wanted = self.urls(|when| when == When::Always);
            let wanted: BTreeSet<Arc<str>> = wanted.into_iter().collect();
            attempts.retain(|url, attempt| attempt.is_running || wanted.contains(url));
            for url in wanted {
                let attempt = attempts.entry(url.clone()).or_default();
                let is_due = attempt.due.is_none_or(|due| due <= Instant::now());
                if let (false, true, Ok(base)) = (attempt.is_running, is_due, Base::parse(&url)) {
                    attempt.is_running = true;
                    let http = self.http.clone();
                    asking.spawn(async move { (url, ask(&http, &base).await) });
                }
            }
            let waiting = attempts.values().filter(|attempt| !attempt.is_running);
            let due = waiting.filter_map(|attempt| attempt.due).min();
            tokio::select! {
                Some(done) = asking.join_next() => {
                    // A cancelled task has no answer.
                    let Ok((url, answered)) = done else { continue };
                    let attempt = attempts.entry(url).or_default();
                    if let Err(gone) = self.take(answered, attempt).await {
                        return gone;
                    }
                }
                changed = self.plan.changed() => if changed.is_err() { return Gone },
                () = until(due) => {}
            }
        }
    }

    /// Reports an answer of the search. A failure is reported only if it differs from the one
    /// before.
    async fn take(&self, answered: Answered, attempt: &mut Attempt) -> Result<(), Gone> {
        attempt.is_running = false;
        let failure = match answered.list {
            Ok(list) => {
                *attempt = Attempt { due: Some(Instant::now() + HURRY), ..Attempt::default() };
                info!(by = %answered.by.url(), members = list.cluster.members.len(), "a member list was read");
                return self.report(&answered.by, answered.about, list).await;
            }
            Err(failure) => failure,
        };
        attempt.pause = (attempt.pause * 2).clamp(SEARCH, REST);
        attempt.due = Some(Instant::now() + attempt.pause);
        let failing_since = *attempt.failing_since.get_or_insert_with(Instant::now);
        let has_lasted = failing_since.elapsed() >= SETTLES;
        if has_lasted && is_other_kind(&failure, attempt.logged.as_ref()) {
            warn!(url = %answered.by.url(), "this URL of Patroni returns no member list: {failure}");
            attempt.logged = Some(failure.clone());
        }
        let is_news = attempt.failure.as_ref() != Some(&failure) || answered.about.is_some();
        attempt.failure = Some(failure.clone());
        if !is_news {
            return Ok(());
        }
        let asked = answered.by.url().clone();
        let unlisted = Unlisted { asked, about: answered.about, failure };
        self.reports.send(Report::Unlisted(unlisted)).await.map_err(|_| Gone)
    }

    /// Once a list is known, asks one URL after the other until one returns a list, at a slow pace.
    async fn take_turns(mut self) -> Gone {
        let mut lost: Option<Failure> = None;
        let mut last: Option<Arc<str>> = None;
        let mut seen = self.plan.borrow_and_update().clone();
        loop {
            if self.urls(|when| when != When::Always).is_empty() {
                if self.plan.changed().await.is_err() {
                    return Gone;
                }
                continue;
            }
            if let Err(gone) = self.wait(&mut seen, last.as_deref()).await {
                return gone;
            }
            let turn = self.round(last.as_ref()).await;
            match turn {
                Err(gone) => return gone,
                Ok(Ok(by)) => {
                    if lost.take().is_some() {
                        info!(%by, "a member list was read again");
                    }
                    last = Some(by);
                }
                Ok(Err(failure)) => {
                    if is_other_kind(&failure, lost.as_ref()) {
                        warn!("no member list, the last one is kept: {failure}");
                    }
                    lost = Some(failure);
                }
            }
        }
    }

    /// Asks one URL after the other, starting with the one that answered last. The URLs of another
    /// cluster come last, and then all of them are asked.
    async fn round(&self, last: Option<&Arc<str>>) -> Result<Result<Arc<str>, Failure>, Gone> {
        let mut urls = self.urls(|when| when == When::InTurn);
        urls.sort_by_key(|url| Some(url) != last);
        let strangers = self.urls(|when| when == When::Last);
        let own = urls.len();
        let mut outcome = None;
        for (index, url) in urls.into_iter().chain(strangers).enumerate() {
            let Ok(base) = Base::parse(&url) else { continue };
            let answered = ask(&self.http, &base).await;
            match answered.list {
                Ok(list) => {
                    self.report(&base, answered.about, list).await?;
                    if index < own {
                        return Ok(Ok(url));
                    }
                }
                Err(failure) => outcome = outcome.or(Some(failure)),
            }
        }
        let no_list =
            || Failure::Malformed(Arc::from("only URLs of other clusters returned a member list"));
        Ok(Err(outcome.unwrap_or_else(no_list)))
    }

    fn urls(&self, is_wanted: impl Fn(When) -> bool) -> Vec<Arc<str>> {
        let plan = self.plan.borrow();
        let listers = plan.listers.iter().filter(|lister| is_wanted(lister.when));
        listers.map(|lister| lister.url.clone()).collect()
    }

    /// Waits for the next turn. The wait is shorter if the cluster may have changed.
    async fn wait(&mut self, seen: &mut Arc<Plan>, last: Option<&str>) -> Result<(), Gone> {
        sleep(HURRY).await;
        let hint = self.hint.clone();
        let hinted = async {
            tokio::select! {
                () = hint.given() => Ok(()),
                quickened = quickened(&mut self.plan, seen, last) => quickened,
            }
        };
        timeout(REST - HURRY, hinted).await.unwrap_or(Ok(()))
    }

    async fn report(&self, by: &Base, about: Option<About>, list: ReadList) -> Result<(), Gone> {
        for reason in &list.cluster.skipped {
            debug!(by = %by.url(), "not asked: {reason}");
        }
        let topology = Topology {
            asked_at: self.clock.moment(list.asked),
            url: by.url().clone(),
            about: about.unwrap_or_default(),
            scope: list.cluster.scope,
            paused: list.cluster.paused,
            members: list.cluster.members,
            skipped: list.cluster.skipped,
        };
        let sent = self.reports.send(Report::Topology(topology)).await;
        sent.map_err(|_| Gone)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Asks one URL after the other for the member list, once.
///
/// # Errors
/// No URL returns a list; the message contains every failure.
pub async fn ask_once(http: &Client, seeds: &[Base]) -> anyhow::Result<Cluster> {
    let mut failures = Vec::new();
    for seed in seeds {
        // A command asks once, so it waits for a slow lookup. The request below reports a failed
        // lookup.
        let _ = dial::look_up(seed.endpoint()).await;
        match ask_for_list(http, seed).await {
            Ok(list) => return Ok(list.cluster),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    let remedy = "name one that answers, as --patroni URL; or the members themselves, as --member \
                  n1=HOST:PORT, and --patroni-port 8008 where there is Patroni";
    let what = format!("no Patroni lists the members: {}", failures.join("; "));
    Err(Diagnostic::new(what, Some(remedy.to_owned())).into())
}

/// Waits until the pace of a member is shorter than in `seen`, or until `last` belongs to another
/// cluster.
async fn quickened(
    plan: &mut watch::Receiver<Arc<Plan>>,
    seen: &mut Arc<Plan>,
    last: Option<&str>,
) -> Result<(), Gone> {
    loop {
        let now = plan.borrow_and_update().clone();
        let was = std::mem::replace(seen, now.clone());
        let is_quicker = now.members.iter().any(|(name, ask)| {
            was.members.get(name).is_some_and(|was| ask.pace.patroni < was.pace.patroni)
        });
        let is_last = |plan: &Plan| {
            let mut strangers = plan.listers.iter().filter(|it| it.when == When::Last);
            strangers.any(|lister| Some(&*lister.url) == last)
        };
        if is_quicker || (is_last(&now) && !is_last(&was)) {
            return Ok(());
        }
        plan.changed().await.map_err(|_| Gone)?;
    }
}

fn is_other_kind(failure: &Failure, last: Option<&Failure>) -> bool {
    last.is_none_or(|last| discriminant(last) != discriminant(failure))
}

/// Asks one Patroni about itself and then for the member list.
async fn ask(http: &Client, base: &Base) -> Answered {
    match ask_for_itself(http, base).await {
        Ok(about) => {
            let list = ask_for_list(http, base).await;
            Answered { by: base.clone(), about: Some(about), list }
        }
        Err(failure) => Answered { by: base.clone(), about: None, list: Err(failure) },
    }
}

async fn ask_for_itself(http: &Client, base: &Base) -> Result<About, Failure> {
    const PATH: &str = "/patroni";
    let answer = http.get_or_name_at_leisure(base, PATH).await;
    let answer = answer.map_err(|failure| at(base, PATH, failure))?;
    // Patroni answers 503 here if PostgreSQL is not running.
    let facts = parse_status(false, &answer.body).map_err(|bad| {
        let how = format!("status {}, {bad}", answer.status.as_u16());
        unlike(base, PATH, &how)
    })?;
    Ok(facts.about())
}

async fn ask_for_list(http: &Client, base: &Base) -> Result<ReadList, Failure> {
    const PATH: &str = "/cluster";
    let answer = http.get_at_leisure(base, PATH).await.map_err(|failure| match failure {
        // Patroni's handler raises an exception if it cannot read the DCS, which closes the
        // connection.
        Failure::Closed(_) => Failure::Network(Arc::from(format!(
            "{}{PATH} closed the connection without an answer; Patroni does so while it cannot read \
             its DCS (etcd, Consul, ...)",
            base.url()
        ))),
        failure => at(base, PATH, failure),
    })?;
    if answer.status != StatusCode::OK {
        let how = format!("status {}, `{}`", answer.status.as_u16(), excerpt(&answer.body));
        return Err(unlike(base, PATH, &how));
    }
    let cluster =
        parse_cluster(&answer.body).map_err(|bad| unlike(base, PATH, &bad.to_string()))?;
    Ok(ReadList { asked: answer.asked, cluster })
}

/// Adds the URL of `path` to a failure of its request.
fn at(base: &Base, path: &str, failure: Failure) -> Failure {
    let peer: Arc<str> = Arc::from(format!("{}{path}", base.url()));
    match failure {
        Failure::Refused(_) => Failure::Refused(peer),
        Failure::Closed(_) => Failure::Closed(peer),
        Failure::Timeout { limit, .. } => Failure::Timeout { peer, limit },
        Failure::Unreachable { limit, .. } => Failure::Unreachable { peer, limit },
        Failure::TooLarge { bytes_max, .. } => Failure::TooLarge { peer, bytes_max },
        other => other,
    }
}

fn unlike(base: &Base, path: &str, how: &str) -> Failure {
    let url = base.url();
    Failure::Malformed(Arc::from(format!("{url}{path} answers, but not as Patroni does: {how}")))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pgsteer_core::names::{Endpoint, MemberName};
    use pgsteer_core::plan::{Ask, Lister, Pace};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::sources::http::TURN_WAIT;
    use crate::sources::{Task, fake};

    const CLUSTER: &str = "HTTP/1.0 200 OK\r\n\r\n{\"scope\": \"demo\", \"members\": \
        [{\"name\": \"pg1\", \"host\": \"10.0.0.1\", \"port\": 5432}, {\"name\": \"new\"}]}";
    const PATRONI: &str = "HTTP/1.0 200 OK\r\n\r\n{\"state\": \"running\", \
        \"database_system_identifier\": \"7001\", \"patroni\": {\"scope\": \"demo\", \"name\": \"pg1\"}}";
    const FAILS: &str = "HTTP/1.0 503 Oh\r\n\r\n";

    fn base(address: SocketAddr) -> Base {
        Base::parse(&format!("http://{address}")).unwrap()
    }

    /// A fake Patroni that answers `/cluster` with `list` from request number `from` on.
    async fn patroni_from(from: usize, list: &'static str) -> Base {
        let asked = Arc::new(Mutex::new(0));
        let address = fake::server(move |mut stream, _| {
            let asked = asked.clone();
            async move {
                let head = fake::read_head(&mut stream).await;
                let answer = match head.starts_with("GET /cluster ") {
                    true => {
                        let mut asked = asked.lock().unwrap();
                        *asked += 1;
                        if *asked > from { list } else { "" }
                    }
                    false => PATRONI,
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        base(address.await)
    }

    async fn patroni(list: &'static str) -> Base {
        patroni_from(0, list).await
    }

    async fn silent() -> Base {
        let address = fake::server(|stream, _| async move {
            sleep(Duration::from_secs(60)).await;
            drop(stream);
        });
        base(address.await)
    }

    fn plan_of(listers: &[(&Base, When)]) -> Plan {
        let lister = |(base, when): &(&Base, When)| Lister { url: base.url().clone(), when: *when };
        Plan { listers: listers.iter().map(lister).collect(), ..Plan::default() }
    }

    fn discovery(plan: Plan) -> (Discovery, mpsc::Receiver<Report>, watch::Sender<Arc<Plan>>) {
        let (reports, received) = mpsc::channel(1);
        let (planned, plan) = watch::channel(Arc::new(plan));
        let discovery = Discovery {
            http: Arc::new(Client::new(Duration::from_secs(5), None)),
            plan,
            hint: Hint::default(),
            clock: Clock::start(),
            reports,
        };
        (discovery, received, planned)
    }

    #[tokio::test]
    async fn one_url_that_answers_is_enough_and_silent_ones_do_not_delay_it() {
        let (one, answering, other) = (silent().await, patroni(CLUSTER).await, silent().await);
        let always = [(&one, When::Always), (&answering, When::Always), (&other, When::Always)];
        let (discovery, mut reports, _planned) = discovery(plan_of(&always));
        let started = Instant::now();
        let _task = Task::spawn(discovery.run());
        let Some(Report::Topology(topology)) = reports.recv().await else { panic!() };
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(topology.url, *answering.url());
        assert_eq!(topology.scope.as_deref(), Some("demo"));
        assert_eq!(topology.about.name.as_deref(), Some("pg1"));
        assert_eq!(topology.about.identity.system_identifier.as_deref(), Some("7001"));
        let names: Vec<&str> = topology.members.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["pg1"], "a member without a host cannot be asked");
        assert_eq!(topology.skipped.len(), 1);
    }

    #[tokio::test]
    async fn a_url_is_tried_again_until_it_answers_and_its_failures_are_reported() {
        let url = patroni_from(2, CLUSTER).await;
        let (discovery, mut reports, _planned) = discovery(plan_of(&[(&url, When::Always)]));
        let _task = Task::spawn(discovery.run());
        let Some(Report::Unlisted(unlisted)) = reports.recv().await else { panic!() };
        assert_eq!(unlisted.asked, *url.url());
        let sentence = unlisted.failure.to_string();
        let path = format!("{}/cluster closed the connection", url.url());
        assert!(sentence.starts_with(&path) && sentence.contains("its DCS"), "{sentence}");
        let about = unlisted.about.unwrap();
        assert_eq!(about.identity.scope.as_deref(), Some("demo"));
        loop {
            match reports.recv().await {
                Some(Report::Topology(_)) => return,
                Some(Report::Unlisted(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Patroni has five threads, and a request for the list may occupy one of them for long.
    #[tokio::test]
    async fn the_list_and_the_role_are_not_asked_for_at_the_same_time() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let address = fake::server(|mut stream, _| async move {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let head = fake::read_head(&mut stream).await;
            sleep(Duration::from_millis(20)).await;
            let answer = if head.starts_with("GET /cluster ") { CLUSTER } else { PATRONI };
            NOW.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let (base, http) = (base(address.await), Client::new(Duration::from_secs(5), None));
        let roles = async {
            for _ in 0..8 {
                assert!(http.get(&base, &[], "/primary").await.is_ok());
            }
        };
        let lists = async {
            for _ in 0..4 {
                assert!(ask(&http, &base).await.list.is_ok());
            }
        };
        tokio::join!(roles, lists);
        assert_eq!(MOST.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_member_list_that_hangs_does_not_delay_the_probe_of_the_role() {
        let address = fake::server(|mut stream, _| async move {
            match fake::read_head(&mut stream).await.starts_with("GET /cluster ") {
                true => sleep(Duration::from_secs(60)).await,
                false => drop(stream.write_all(PATRONI.as_bytes()).await),
            }
        });
        let (base, http) = (base(address.await), Client::new(Duration::from_secs(5), None));
        let started = Instant::now();
        tokio::select! {
            _ = http.get_at_leisure(&base, "/cluster") => panic!("it hangs"),
            answer = async {
                sleep(Duration::from_millis(50)).await;
                http.get(&base, &[], "/primary").await
            } => assert!(answer.is_ok()),
        }
        let took = started.elapsed();
        assert!(took >= TURN_WAIT && took < TURN_WAIT * 10, "{took:?}");
    }

    #[tokio::test]
    async fn a_failure_names_the_path_and_the_status() {
        let url = patroni(FAILS).await;
        let (discovery, mut reports, _planned) = discovery(plan_of(&[(&url, When::Always)]));
        let _task = Task::spawn(discovery.run());
        let Some(Report::Unlisted(unlisted)) = reports.recv().await else { panic!() };
        let text = unlisted.failure.to_string();
        assert!(text.starts_with(&format!("{}/cluster answers", url.url())), "{text}");
        assert!(text.contains("status 503"), "{text}");
    }

    #[tokio::test]
    async fn in_a_turn_the_next_url_stands_in_and_another_cluster_is_asked_last() {
        let (gone, stranger, member) =
            (patroni(FAILS).await, patroni(CLUSTER).await, patroni(CLUSTER).await);
        let listers = [(&gone, When::InTurn), (&member, When::InTurn), (&stranger, When::Last)];
        let (asker, mut reports, _planned) = discovery(plan_of(&listers));
        let asking = tokio::spawn(async move { asker.round(None).await });
        let Some(Report::Topology(topology)) = reports.recv().await else { panic!() };
        assert_eq!(topology.url, *member.url());
        assert_eq!(asking.await.unwrap().unwrap().ok(), Some(member.url().clone()));
        // No other URL answers. The URL of another cluster is then asked, and its list is rejected.
        let listers = [(&gone, When::InTurn), (&stranger, When::Last)];
        let (asker, mut reports, _planned) = discovery(plan_of(&listers));
        let asking = tokio::spawn(async move { asker.round(None).await });
        let Some(Report::Topology(topology)) = reports.recv().await else { panic!() };
        assert_eq!(topology.url, *stranger.url());
        assert!(asking.await.unwrap().unwrap().is_err());
    }

    #[tokio::test]
    async fn a_quicker_pace_is_noticed_and_a_slower_one_is_not() {
        let quick = |ms: u64| {
            let every = Duration::from_millis(ms);
            let ask = Ask {
                postgres: Endpoint::new("10.0.0.1", 5432).unwrap(),
                addresses: Vec::new(),
                new_host: None,
                patroni_url: None,
                poolers: Default::default(),
                has_tether: true,
                pace: Pace { tether: every, patroni: every, pooler: every },
            };
            let members = [(MemberName::new("pg1").unwrap(), ask)].into();
            Arc::new(Plan { members, ..Plan::default() })
        };
        let (plan, mut plan_rx) = watch::channel(quick(1000));
        let mut seen = quick(1000);
        plan.send_replace(quick(2000));
        let waited = quickened(&mut plan_rx, &mut seen, None);
        assert!(timeout(Duration::from_millis(50), waited).await.is_err());
        plan.send_replace(quick(25));
        assert_eq!(quickened(&mut plan_rx, &mut seen, None).await, Ok(()));
    }

    #[tokio::test]
    async fn a_url_of_another_cluster_makes_the_next_turn_come_earlier() {
        let url = silent().await;
        let plan_with = |when: When| Arc::new(plan_of(&[(&url, when)]));
        let (plan, mut plan_rx) = watch::channel(plan_with(When::InTurn));
        let mut seen = plan_with(When::InTurn);
        plan.send_replace(plan_with(When::Last));
        assert_eq!(quickened(&mut plan_rx, &mut seen, Some(url.url())).await, Ok(()));
    }
}
