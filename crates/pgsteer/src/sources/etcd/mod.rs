//! The watch of etcd: reports at once what Patroni writes there about a switchover.
//!
//! The source first reads the current keys and then watches all later writes. If the watch fails,
//! the source does the same at the next address. Beside the watch it reads the leader key every few
//! seconds: an etcd that is frozen or partitioned keeps the watch open and sends nothing, but a
//! read of the leader key needs a quorum.

mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use hyper::StatusCode;
use pgsteer_core::claim::{Failure, News, Notice, Report};
use pgsteer_core::plan::Plan;
use pgsteer_core::settings::EtcdConfig;
use pgsteer_wire::etcd::{
    BadAnswer, Entry, Found, Keys, Meaning, WatchMessage, complaint, login_request, parse_range,
    parse_token, parse_watch,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use self::schedule::Schedule;
use super::http::{Client, Following, Lines};
use super::{Gone, http_client};
use crate::base::{Base, Peer, strange};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::tls::Trust;

/// The time between two reads of the leader key.
const LOOK: Duration = Duration::from_secs(5);

/// A watch that fails sooner than this counts as never established.
const STEADY: Duration = Duration::from_secs(1);

/// If no address works, the next round starts after this time. The wait then doubles up to the
/// maximum.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long the source waits for a Patroni to report its scope before it logs a warning.
const SCOPE_PATIENCE: Duration = Duration::from_secs(30);

/// The settings of the configuration, parsed and checked.
pub struct Settings {
    http: Client,
    bases: Vec<Base>,
    login: Option<(String, Secret)>,
    namespace: String,
    scope: Option<Arc<str>>,
    limit: Duration,
    look: Duration,
}

impl Settings {
    /// Parses the addresses and reads the configured files.
    ///
    /// # Errors
    /// An address or a file that cannot be used. The message names it and shows no secret.
    pub fn read(config: &EtcdConfig) -> anyhow::Result<Settings> {
        let base = |url: &String| Base::of(Peer::Etcd, url).map_err(|why| anyhow!("etcd: {why}"));
        let login = match (&config.username, &config.password_file) {
            (Some(name), Some(file)) => Some((name.clone(), Secret::read(file)?)),
            // The configuration has both or neither.
            _ => None,
        };
        let EtcdConfig { verify, ca_file, cert_file, key_file, timeout, .. } = config;
        let trust = Trust { verify: *verify, ca_file: ca_file.as_deref() };
        let bases = config.urls.iter().map(base).collect::<Result<Vec<_>, _>>()?;
        if login.is_some() {
            warn_of_clear_password(&bases);
        }
        Ok(Settings {
            http: http_client(*timeout, trust, cert_file, key_file)?,
            bases,
            login,
            namespace: config.namespace.clone(),
            scope: config.scope.as_deref().map(Arc::from),
            limit: *timeout,
            look: LOOK,
        })
    }
}

/// Warns that the password is sent in clear if an etcd address uses http.
fn warn_of_clear_password(bases: &[Base]) {
    for base in bases.iter().filter(|base| !base.is_https() && !base.endpoint().is_loopback()) {
        warn!(
            "etcd's password goes to {} in clear: use https there and in [etcd] urls",
            base.url()
        );
    }
}

/// Watches the keys at the first etcd that works.
#[derive(Clone)]
pub struct Watcher {
    /// The parsed configuration.
    pub settings: Arc<Settings>,
    /// Contains the scope.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Converts instants to the core's moments.
    pub clock: Clock,
    /// Where events are reported.
    pub reports: mpsc::Sender<Report>,
}

/// Why a watch ended.
enum End {
    /// The receiver of the reports is gone.
    Gone,
    /// It failed, or was never established.
    Failed(Failure),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> End {
        End::Gone
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

/// One etcd, with its authentication token.
#[derive(Clone, Copy)]
struct EtcdServer<'a> {
    base: &'a Base,
    keys: &'a Keys,
    token: Option<&'a str>,
}

/// State that is kept from one watch to the next.
#[derive(Default)]
struct Known {
    /// Since when a watch is established.
    watching_since: Option<Instant>,
    /// The newest revision of any key. None before the first answer: keys that existed before the
    /// start are not events.
    newest: Option<u64>,
    /// The revision of the leader key. The periodic read compares with it.
    leader: AtomicU64,
}

impl Known {
    /// Clears the revisions if `revision` is lower than the newest. The revision of an etcd falls
    /// only if it was restored from a backup or created anew, and the old revisions mean nothing
    /// there.
    fn forget_if_restored(&mut self, revision: u64) {
        if self.newest.is_some_and(|newest| revision < newest) {
            *self = Known::default();
        }
    }

    /// Returns true if the watch that ended had been established.
    fn was_steady(&mut self) -> bool {
        self.watching_since.take().is_some_and(|since| since.elapsed() >= STEADY)
    }
}

impl Watcher {
    /// Watches until the receiver of the reports is gone.
    pub async fn run(mut self) -> Gone {
        let mut known = Known::default();
        let (mut address, mut failures) = (0, 0);
        loop {
            let Ok(scope) = self.scope().await else { return Gone };
            let keys = Keys::new(&self.settings.namespace, &scope);
            let base = &self.settings.bases[address % self.settings.bases.len()];
            let mut plan = self.plan.clone();
            let end = tokio::select! {
                end = self.watch(base, &keys, &mut known) => end,
                gone = other_scope(&mut plan, &self.settings, &scope) => match gone {
                    Ok(()) => continue,
                    Err(Gone) => return Gone,
                },
            };
            let Err(End::Failed(failure)) = end else { return Gone };
            debug!(etcd = %base.url(), "the watch is over: {failure}");
            address += 1;
            failures = if known.was_steady() { 0 } else { failures + 1 };
            if self.pause(failures, failure).await.is_err() {
                return Gone;
            }
        }
    }

    /// Logs a round in which no address worked, and waits before the next round.
    async fn pause(&self, failures: usize, failure: Failure) -> Result<(), Gone> {
        let addresses = self.settings.bases.len();
        if failures == 0 || !failures.is_multiple_of(addresses) {
            return Ok(());
        }
        self.report(News::Lost(failure)).await?;
        let rounds = u32::try_from(failures / addresses).unwrap_or(u32::MAX);
        let doubled = RETRY_FIRST.saturating_mul(1 << rounds.min(10).saturating_sub(1));
        sleep(doubled.min(RETRY_LONGEST)).await;
        Ok(())
    }

    /// Returns the scope: as configured, or as soon as a member reports it.
    async fn scope(&mut self) -> Result<Arc<str>, Gone> {
        let patience = sleep(SCOPE_PATIENCE);
        tokio::pin!(patience);
        let mut is_patient = true;
        loop {
            if let Some(scope) = scope_of(&self.plan.borrow_and_update(), &self.settings) {
                return Ok(scope);
            }
            tokio::select! {
                changed = self.plan.changed() => changed.map_err(|_| Gone)?,
                () = &mut patience, if is_patient => {
                    is_patient = false;
                    let why = "no Patroni has reported the scope yet; set `scope` in [etcd]";
                    self.report(News::Lost(Failure::Malformed(Arc::from(why)))).await?;
                }
            }
        }
    }

    /// Runs one watch at one etcd, from the login to its end.
    async fn watch(&self, base: &Base, keys: &Keys, known: &mut Known) -> Result<(), End> {
        let token = self.log_in(base).await?;
        let etcd = EtcdServer { base, keys, token: token.as_deref() };
        let found = self.ask(etcd, keys.range_request()).await?;
        if found.entries.is_empty() {
            return Err(no_keys(base, keys).into());
        }
        known.forget_if_restored(found.revision);
        let mut lines = self.follow(etcd, found.revision + 1).await?;
        known.watching_since = Some(Instant::now());
        self.report(News::Watching).await?;
        self.report(News::Read { is_behind: false }).await?;
        let mut schedule = Schedule::default();
        for entry in &found.entries {
            let is_news = known.newest.is_some_and(|newest| entry.revision > newest);
            self.tell(keys, entry, is_news, &mut schedule, &known.leader).await?;
        }
        if !found.entries.iter().any(|entry| keys.is_order(entry)) {
            self.report(News::NoOrder).await?;
        }
        known.newest = Some(found.revision);
        let Known { newest, leader, .. } = known;
        let leader = &*leader;
        let looks = self.look_again(etcd, leader);
        tokio::pin!(looks);
        loop {
            tokio::select! {
                line = lines.next() => {
                    let entries = written(base, &line?)?;
                    for entry in &entries {
                        *newest = (*newest).max(Some(entry.revision));
                        self.tell(keys, entry, true, &mut schedule, leader).await?;
                    }
                    // All events of these entries have been reported by now.
                    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
                    self.report(News::Written(count)).await?;
                }
                end = &mut looks => return Err(end),
                order = schedule.due() => self.report(News::Ordered(order)).await?,
            }
        }
    }

    async fn log_in(&self, base: &Base) -> Result<Option<String>, Failure> {
        let Some((name, password)) = &self.settings.login else {
            return Ok(None);
        };
        let question = login_request(name, password.expose());
        let answer = self.settings.http.post(base, "/v3/auth/authenticate", question, None).await?;
        match answer.status {
            StatusCode::OK => {
                parse_token(&answer.body).map(Some).map_err(|bad| not_etcd(base, &bad))
            }
            status => Err(refused(base, status, &answer.body)),
        }
    }

    async fn ask(&self, etcd: EtcdServer<'_>, question: String) -> Result<Found, Failure> {
        let EtcdServer { base, token, .. } = etcd;
        let answer = self.settings.http.post(base, "/v3/kv/range", question, token).await?;
        match answer.status {
            StatusCode::OK => parse_range(&answer.body).map_err(|bad| not_etcd(base, &bad)),
            status => Err(refused(base, status, &answer.body)),
        }
    }

    /// Opens the watch and waits until etcd confirms it.
    async fn follow(&self, etcd: EtcdServer<'_>, start_revision: u64) -> Result<Lines, Failure> {
        let EtcdServer { base, keys, token } = etcd;
        let question = keys.watch_request(start_revision);
        let mut lines = match self.settings.http.follow(base, "/v3/watch", question, token).await? {
            Following::Lines(lines) => lines,
            Following::Refused { status, body } => return Err(refused(base, status, &body)),
        };
        let limit = self.settings.limit;
        let timed_out = |_| Failure::Timeout { peer: base.url().clone(), limit };
        let first = timeout(limit, lines.next()).await.map_err(timed_out)??;
        match parse_watch(&first).map_err(|bad| not_etcd(base, &bad))? {
            WatchMessage::Created => Ok(lines),
            WatchMessage::Ended(why) => Err(ended(base, &why)),
            WatchMessage::Written(_) => {
                Err(strange(base, "a watch event before the watch was created"))
            }
        }
    }

    /// Reads the leader key periodically. Ends when a read fails, or when two reads have returned a
    /// revision that the watch has not sent.
    async fn look_again(&self, etcd: EtcdServer<'_>, newest: &AtomicU64) -> End {
        let mut unheard = None;
        loop {
            sleep(self.settings.look).await;
            let found = match self.ask(etcd, etcd.keys.leader_request()).await {
                Ok(found) => found,
                Err(failure) => return failure.into(),
            };
            let seen = found.entries.first().map(|entry| entry.revision);
            let missed = seen.filter(|seen| *seen > newest.load(Ordering::Relaxed));
            if missed.is_some() && missed == unheard {
                return strange(etcd.base, "the watch does not report the writes").into();
            }
            if let Err(gone) = self.report(News::Read { is_behind: missed.is_some() }).await {
                return gone.into();
            }
            unheard = missed;
        }
    }

    /// Reports the event of an entry. The time of an order that causes no event is over.
    async fn tell(
        &self,
        keys: &Keys,
        entry: &Entry,
        is_news: bool,
        schedule: &mut Schedule,
        leader: &AtomicU64,
    ) -> Result<(), Gone> {
        let news = match keys.meaning(entry) {
            Some(Meaning::Order(ordered)) => {
                debug!(?ordered, is_news, "the key `failover` of Patroni");
                match schedule.set(ordered) {
                    Some(News::Ordered(_)) if !is_news => None,
                    news => news,
                }
            }
            Some(Meaning::Leader(name)) => {
                debug!(?name, "the key `leader` of Patroni");
                leader.fetch_max(entry.revision, Ordering::Relaxed);
                name.map(News::Leader)
            }
            None => None,
        };
        match news {
            Some(news) => self.report(news).await,
            None => Ok(()),
        }
    }

    async fn report(&self, news: News) -> Result<(), Gone> {
        let notice = Notice { heard_at: self.clock.now(), news };
        self.reports.send(Report::Notice(notice)).await.map_err(|_| Gone)
    }
}

fn scope_of(plan: &Plan, settings: &Settings) -> Option<Arc<str>> {
    settings.scope.clone().or_else(|| plan.scope.clone())
}

/// Waits until the scope differs from `scope`.
async fn other_scope(
    plan: &mut watch::Receiver<Arc<Plan>>,
    settings: &Settings,
    scope: &Arc<str>,
) -> Result<(), Gone> {
    let is_other = |plan: &Arc<Plan>| scope_of(plan, settings).as_ref() != Some(scope);
    plan.wait_for(is_other).await.map(drop).map_err(|_| Gone)
}

fn written(base: &Base, line: &[u8]) -> Result<Vec<Entry>, Failure> {
    match parse_watch(line).map_err(|bad| not_etcd(base, &bad))? {
        WatchMessage::Written(entries) => Ok(entries),
        WatchMessage::Created => Ok(Vec::new()),
        WatchMessage::Ended(why) => Err(ended(base, &why)),
    }
}

fn not_etcd(base: &Base, bad: &BadAnswer) -> Failure {
    strange(base, &bad.to_string())
}

/// Every cluster that was ever initialized has the key `initialize` there.
fn no_keys(base: &Base, keys: &Keys) -> Failure {
    let how = format!(
        "it has no keys of Patroni below {}: check namespace and scope in [etcd]; a Citus cluster needs \
         its group",
        keys.prefix()
    );
    Failure::Malformed(Arc::from(format!("{}: {how}", base.url())))
}

fn refused(base: &Base, status: StatusCode, body: &[u8]) -> Failure {
    let complaint = complaint(body);
    Failure::Malformed(Arc::from(format!(
        "{} refuses: {complaint} (status {})",
        base.url(),
        status.as_u16()
    )))
}

fn ended(base: &Base, why: &str) -> Failure {
    Failure::Malformed(Arc::from(format!("{} ended the watch: {why}", base.url())))
}
