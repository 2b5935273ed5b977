//! The view: the newest claim of each source on one member, and its age.

mod facts;
mod lateness;
mod write_run;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use crate::claim::{
    Claim, Fact, Failure, PatroniFacts, PoolerFacts, Progress, ServerStart, TetherFacts,
};
use crate::identity::Identity;
use crate::sql_server::SqlServer;
use crate::time::Moment;
use lateness::Lateness;
use write_run::Writes;

/// How long each kind of claim may be used, from the moment its question was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// For Patroni's answers.
    pub patroni: Duration,
    /// How long Patroni may take for an answer before it counts as slow: `timeout_seconds`.
    pub patroni_limit: Duration,
    /// For the tether's answers.
    pub tether: Duration,
    /// For WAL positions.
    pub progress: Duration,
    /// For answers about a pooler.
    pub pooler: Duration,
}

/// An answer, and when its question was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Dated<T> {
    /// When the question was sent.
    pub asked_at: Moment,
    /// The answer.
    pub answer: T,
}

/// The state of a source's newest answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading<'a, T> {
    /// The source has not answered yet.
    Never,
    /// Its newest answer is too old to act on.
    Stale,
    /// Its newest question failed.
    Failed(&'a Failure),
    /// Its newest answer is usable.
    Fresh(&'a T),
}

/// An unbroken series of answers in which Patroni claimed the leader lock.
///
/// The lock is exclusive, so if the runs of two members overlap, one member is wrong. A failure
/// does not break the run: a host that was frozen may not know yet that the lock has moved
/// meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRun {
    /// When the first of these answers came in: the member held the lock by then.
    pub first_heard: Moment,
    /// When the last of these questions was sent: the member held the lock until then.
    pub last_asked: Moment,
}

impl LockRun {
    /// Returns true if both members claimed the lock before and after the same moment.
    pub fn overlaps(&self, other: &LockRun) -> bool {
        self.last_asked > other.first_heard && other.last_asked > self.first_heard
    }
}

/// An unbroken series of the tether's answers from one run of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRun {
    /// When the server was started.
    pub started_at: ServerStart,
    /// When the first of the questions was sent.
    pub first_asked: Moment,
    /// When the last of them was sent.
    pub last_asked: Moment,
}

impl ServerRun {
    /// Returns the run after another answer; none after a failure, because the next answer may come
    /// from a server that was restarted.
    fn after(
        old: Option<ServerRun>,
        answer: &Result<TetherFacts, Failure>,
        asked_at: Moment,
    ) -> Option<ServerRun> {
        let facts = answer.as_ref().ok()?;
        // A new session does not know yet when its server was started.
        let Some(started_at) = facts.started_at else { return old };
        let same = old.filter(|old| old.started_at == started_at);
        let first_asked = same.map_or(asked_at, |old| old.first_asked);
        Some(ServerRun { started_at, first_asked, last_asked: asked_at })
    }
}

/// How long PgBouncer does not retry its server after a failed login there (`server_login_retry`,
/// 15 s by default), plus the time of two questions that make it retry.
pub const POOLER_RETRY: Duration = Duration::from_secs(17);

/// What is known of one pooler.
#[derive(Clone, Debug, PartialEq)]
struct PoolerView {
    newest: Dated<Result<PoolerFacts, Failure>>,
    /// When the first question was sent that got the present answer; all later ones got the same.
    same_since: Moment,
    /// Set while it keeps queries waiting.
    wait: Option<PoolerWait>,
    /// When the last question was sent that showed that it leads to the server of the tether. Reset
    /// to none when it leads to another server, or when it was down, because its configuration may
    /// have changed before the restart. Also reset when it reaches no server for `POOLER_RETRY`
    /// although the server of the tether is up.
    led_here: Option<Moment>,
}

/// A pooler that keeps queries waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolerWait {
    /// When the first question was sent that was kept waiting; all later ones were, too.
    pub since: Moment,
    /// When the server behind it was started, by its last answer before the wait; none if unknown.
    pub led_to: Option<ServerStart>,
}

impl PoolerWait {
    /// Returns the wait after another answer. A wait does not show where a pooler leads, so the
    /// last answer before it still counts. Any other answer ends the wait.
    fn after(
        old: Option<&PoolerView>,
        newest: &Dated<Result<PoolerFacts, Failure>>,
    ) -> Option<PoolerWait> {
        let Ok(PoolerFacts::Busy(_)) = newest.answer else { return None };
        let led_to = match old.map(|old| &old.newest.answer) {
            Some(Ok(PoolerFacts::Leads { started_at, .. })) => *started_at,
            _ => None,
        };
        let begins = PoolerWait { since: newest.asked_at, led_to };
        Some(old.and_then(|old| old.wait).unwrap_or(begins))
    }
}

impl PoolerView {
    /// Returns the state after another answer; none if that is older than the last. `own` is the
    /// run of the tether's server.
    fn after(
        old: Option<&PoolerView>,
        newest: Dated<Result<PoolerFacts, Failure>>,
        own: Option<ServerRun>,
    ) -> Option<Self> {
        if old.is_some_and(|old| old.newest.asked_at > newest.asked_at) {
            return None;
        }
        let same = old.filter(|old| old.newest.answer == newest.answer);
        let same_since = same.map_or(newest.asked_at, |old| old.same_since);
        let wait = PoolerWait::after(old, &newest);
        let led_before = old.and_then(|old| old.led_here);
        let led_here = match (&newest.answer, own) {
            (Ok(PoolerFacts::Leads { started_at, .. }), Some(own)) => {
                (*started_at == Some(own.started_at)).then_some(newest.asked_at)
            }
            (Ok(PoolerFacts::LeadsNowhere(_)), Some(own)) => led_before
                .filter(|led_at| newest.asked_at < own.first_asked.max(*led_at) + POOLER_RETRY),
            // A pooler that is too slow to answer still has the same configuration.
            (Ok(_) | Err(Failure::Timeout { .. } | Failure::Unreachable { .. }), _) => led_before,
            (Err(_), _) => None,
        };
        Some(PoolerView { newest, same_since, wait, led_here })
    }
}

/// What all sources reported of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    known_since: Moment,
    patroni: Option<Dated<Result<PatroniFacts, Failure>>>,
    patroni_facts: Option<Dated<PatroniFacts>>,
    lateness: Lateness,
    lock_run: Option<LockRun>,
    /// When the newest of the questions was sent to which Patroni answered that it leads, and the
    /// cluster of which it reported that.
    lock_claim: Option<(Moment, Identity)>,
    tether: Option<Dated<Result<TetherFacts, Failure>>>,
    server_run: Option<ServerRun>,
    writes: Writes,
    sql_server: SqlServer,
    progress: Option<Dated<Progress>>,
    /// Whether the server accepts new sessions.
    new_sessions: Option<Dated<Result<(), Failure>>>,
    /// By port.
    poolers: BTreeMap<u16, PoolerView>,
    host: Host,
    last_sign_of_life: Moment,
    /// The name that the Patroni at this URL reported last, with the time of the question.
    reported_name: Option<(Moment, String)>,
}

/// What is known of the host under the name by which a member is listed. It is not a fact about the server
/// there, so it stays when a server is found to be another member's.
#[derive(Clone, Debug, Default, PartialEq)]
struct Host {
    addresses: Vec<IpAddr>,
    address_failure: Option<Failure>,
    is_here: bool,
}

impl View {
    /// Returns an empty view of a member that has just become known.
    pub fn new(now: Moment) -> View {
        View {
            known_since: now,
            patroni: None,
            patroni_facts: None,
            lateness: Lateness::default(),
            lock_run: None,
            lock_claim: None,
            tether: None,
            server_run: None,
            writes: Writes::default(),
            sql_server: SqlServer::default(),
            progress: None,
            new_sessions: None,
            poolers: BTreeMap::new(),
            host: Host::default(),
            last_sign_of_life: now,
            reported_name: None,
        }
    }

    /// Returns a view of the same member at another endpoint. The claims were about the old one.
    /// Only the time of the last lock claim is kept.
    pub fn of_another_place(&self, now: Moment) -> View {
        View { lock_claim: self.lock_claim.clone(), ..View::new(now) }
    }

    /// Returns the view of the server, which is another member's. What remains is the host.
    pub fn give_up_server(&mut self, now: Moment) -> View {
        let rest = View { host: self.host.clone(), ..View::new(now) };
        mem::replace(self, rest)
    }

    /// Replaces all that is known of the server. The host stays, if it was resolved.
    pub fn take_over_server(&mut self, server: View) {
        let host = mem::take(&mut self.host);
        *self = match host.addresses.is_empty() {
            true => server,
            false => View { host, ..server },
        };
    }

    /// Applies a claim. A claim is ignored if a newer one of the same source is known, or if its
    /// question was sent before the member became known: that question went to another endpoint.
    pub fn apply(&mut self, claim: Claim, now: Moment) {
        // A date in the future would make all later answers look old.
        let asked_at = claim.asked_at.min(now);
        if asked_at < self.known_since {
            return;
        }
        if claim.fact.is_sign_of_life() {
            self.last_sign_of_life = self.last_sign_of_life.max(asked_at);
        }
        if let Fact::Patroni(Ok(facts)) = &claim.fact
            && facts.leads()
            && self.lock_claim.as_ref().is_none_or(|(newest, _)| *newest <= asked_at)
        {
            // An answer that is too old to apply still shows that the member had the lock.
            self.lock_claim = Some((asked_at, facts.identity()));
        }
        match claim.fact {
            Fact::Patroni(answer) if is_newer(&self.patroni, asked_at) => {
                if let Ok(facts) = &answer {
                    self.note_lock(facts.leads(), asked_at, now);
                    self.patroni_facts = Some(Dated { asked_at, answer: facts.clone() });
                }
                self.lateness.note_answer(now.since(asked_at));
                self.patroni = Some(Dated { asked_at, answer });
            }
            Fact::PatroniLate(failure) => self.lateness.note_late(asked_at, failure),
            Fact::Tether(answer) if is_newer(&self.tether, asked_at) => {
                self.server_run = ServerRun::after(self.server_run, &answer, asked_at);
                self.writes.note(&answer, now);
                self.sql_server.note(&answer, asked_at);
                self.tether = Some(Dated { asked_at, answer });
            }
            Fact::Progress(answer) if is_newer(&self.progress, asked_at) => {
                self.progress = Some(Dated { asked_at, answer });
            }
            Fact::Pooler { port, answer } => {
                let old = self.poolers.get(&port);
                let new = PoolerView::after(old, Dated { asked_at, answer }, self.server_run);
                if let Some(new) = new {
                    self.poolers.insert(port, new);
                }
            }
            Fact::Addresses(Ok(addresses)) => {
                if self.host.addresses.iter().any(|old| !addresses.contains(old)) {
                    // The new address may be that of another pooler.
                    self.poolers.values_mut().for_each(|pooler| pooler.led_here = None);
                }
                self.host.addresses = addresses;
                self.host.address_failure = None;
            }
            Fact::Addresses(Err(failure)) => self.host.address_failure = Some(failure),
            // The roster compares it with the present host.
            Fact::NewHost { .. } => {}
            Fact::Here(is_here) => self.host.is_here = is_here,
            Fact::NewSessions(answer) if is_newer(&self.new_sessions, asked_at) => {
                self.new_sessions = Some(Dated { asked_at, answer });
            }
            Fact::Patroni(_) | Fact::Tether(_) | Fact::Progress(_) | Fact::NewSessions(_) => {}
        }
        self.sql_server.note_patroni(self.patroni_facts.as_ref().map(|newest| newest.asked_at));
    }

    /// Notes the name that the Patroni at this URL reports of itself.
    pub fn note_reported_name(&mut self, name: Option<&str>, asked_at: Moment) {
        let is_newer = self.reported_name.as_ref().is_none_or(|(at, _)| *at <= asked_at);
        if let (Some(name), true) = (name, is_newer && asked_at >= self.known_since) {
            self.reported_name = Some((asked_at, name.to_owned()));
        }
    }

    /// The name that the Patroni at this URL reported last, with the time of the question.
    pub fn reported_name(&self) -> Option<(Moment, &String)> {
        self.reported_name.as_ref().map(|(at, name)| (*at, name))
    }

    /// Returns true if Patroni or the tether answered or failed to.
    pub fn was_asked(&self) -> bool {
        self.patroni.is_some() || self.tether.is_some()
    }

    /// Returns true if the newest question to Patroni was answered.
    pub fn patroni_answers(&self) -> bool {
        self.patroni.as_ref().is_some_and(|newest| newest.answer.is_ok())
    }

    /// Removes Patroni's last answer, if Patroni no longer answers.
    pub fn forget_last_facts(&mut self) {
        if !self.patroni_answers() {
            self.patroni_facts = None;
        }
    }

    /// Removes all poolers except those on `ports`: the others are not probed any more.
    pub fn keep_poolers(&mut self, ports: &BTreeSet<u16>) {
        self.poolers.retain(|port, _| ports.contains(port));
    }

    fn note_lock(&mut self, leads: bool, asked_at: Moment, now: Moment) {
        let run = self.lock_run.unwrap_or(LockRun { first_heard: now, last_asked: asked_at });
        self.lock_run = leads.then_some(LockRun { last_asked: asked_at, ..run });
    }

    /// The state of Patroni's newest answer.
    pub fn patroni(&self, now: Moment, freshness: &Freshness) -> Reading<'_, PatroniFacts> {
        self.lateness.reading(self.patroni.as_ref(), now, freshness)
    }

    /// Patroni's last answer, while a later question is late and still running.
    pub fn patroni_before_late(&self, now: Moment) -> Option<&PatroniFacts> {
        self.lateness.before_late(self.patroni.as_ref(), now)
    }

    /// How long Patroni's newest answer took, if that is longer than `timeout_seconds`.
    pub fn patroni_slow(&self, freshness: &Freshness) -> Option<Duration> {
        self.lateness.slow(freshness)
    }

    /// The state of the tether's newest answer.
    pub fn tether(&self, now: Moment, freshness: &Freshness) -> Reading<'_, TetherFacts> {
        reading(self.tether.as_ref(), now, freshness.tether)
    }

    /// The run of the tether's server; none if its start is unknown.
    pub fn server_run(&self) -> Option<ServerRun> {
        self.server_run
    }

    /// Since when the server is known to take writes in its present run, by the check login; none if it
    /// takes none or if that is not known.
    pub fn writes_since(&self) -> Option<Moment> {
        self.writes.since()
    }

    /// The newest WAL positions, while they are fresh.
    pub fn progress(&self, now: Moment, freshness: &Freshness) -> Option<&Dated<Progress>> {
        self.progress.as_ref().filter(|newest| now.since(newest.asked_at) < freshness.progress)
    }

    /// Why the server refuses new sessions, by the newest attempt; none if that succeeded or if no
    /// attempt was made. A refusal does not expire: its source repeats the attempt until it
    /// succeeds.
    pub fn new_sessions_refused(&self) -> Option<&Failure> {
        self.new_sessions.as_ref().and_then(|newest| newest.answer.as_ref().err())
    }

    /// The state of the newest answer of the pooler on `port`.
    pub fn pooler(
        &self,
        port: u16,
        now: Moment,
        freshness: &Freshness,
    ) -> Reading<'_, PoolerFacts> {
        let newest = self.poolers.get(&port).map(|pooler| &pooler.newest);
        reading(newest, now, freshness.pooler)
    }

    /// When the newest question to the pooler on `port` was sent.
    pub fn pooler_asked_at(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).map(|pooler| pooler.newest.asked_at)
    }

    /// When the first question was sent that got the present answer of the pooler on `port`.
    pub fn pooler_same_since(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).map(|pooler| pooler.same_since)
    }

    /// Since when the pooler on `port` has kept queries waiting; none if its last answer was
    /// another.
    pub fn pooler_wait(&self, port: u16) -> Option<PoolerWait> {
        self.poolers.get(&port).and_then(|pooler| pooler.wait)
    }

    /// When the pooler on `port` last led to the server of the tether; none if it led to another
    /// server or was down since.
    pub fn pooler_led_here(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).and_then(|pooler| pooler.led_here)
    }

    /// How long the pooler on `port` has given the same answer.
    pub fn pooler_steady_for(&self, port: u16) -> Duration {
        let steady = |pooler: &PoolerView| pooler.newest.asked_at.since(pooler.same_since);
        self.poolers.get(&port).map_or(Duration::ZERO, steady)
    }

    /// Patroni's last successful answer, of any age: for tags and the page.
    pub fn patroni_facts(&self) -> Option<&Dated<PatroniFacts>> {
        self.patroni_facts.as_ref()
    }

    /// The run in which Patroni claims the lock; none unless its newest answer is a fresh claim of
    /// it.
    pub fn lock_run(&self, now: Moment, freshness: &Freshness) -> Option<LockRun> {
        match self.patroni(now, freshness) {
            Reading::Fresh(facts) if facts.leads() => self.lock_run,
            _ => None,
        }
    }

    /// The system identifier of the server that the check login reaches, by SQL; none if it is unknown.
    pub fn sql_system_identifier(&self) -> Option<u64> {
        self.sql_server.system_identifier()
    }

    /// Returns true if the newest answer of Patroni is about the server that the check login reaches.
    pub fn is_sql_server_identified(&self) -> bool {
        let asked_at = self.patroni_facts.as_ref().map(|newest| newest.asked_at);
        self.sql_server.is_identified(asked_at)
    }

    /// Returns true if Patroni has neither answered nor failed to since the check login reached another
    /// server, and that server is not known.
    pub fn awaits_identification(&self) -> bool {
        let asked_at = self.patroni.as_ref().map(|newest| newest.asked_at);
        !self.is_sql_server_identified() && self.sql_server.awaits_patroni(asked_at)
    }

    /// Returns true if the check login reached another server that is not known, and SQL has not reported
    /// yet when it was started. Until then it may be the server of another member.
    pub fn awaits_server_start(&self, now: Moment) -> bool {
        !self.is_sql_server_identified() && self.sql_server.awaits_start(now)
    }

    /// When the newest of the questions was sent to which a Patroni of the cluster `identity` answered
    /// that it leads, regardless of its age and of later reports.
    pub fn lock_claimed_at(&self, identity: &Identity) -> Option<Moment> {
        let claim = self.lock_claim.as_ref();
        claim.filter(|(_, of)| identity.contradiction(of).is_none()).map(|(at, _)| *at)
    }

    /// When the tether or Patroni, whichever was later, was last asked with success. With a pooler
    /// in the path, at most the time of the last query through it.
    pub fn evidence_asked_at(&self, pooler_port: Option<u16>) -> Moment {
        let tether = self.tether.as_ref().filter(|newest| newest.answer.is_ok());
        let patroni = self.patroni.as_ref().filter(|newest| newest.answer.is_ok());
        let asked = |at: Option<Moment>| at.unwrap_or(Moment::START);
        let of_member = asked(tether.map(|newest| newest.asked_at))
            .max(asked(patroni.map(|newest| newest.asked_at)));
        let pooler = pooler_port.and_then(|port| self.poolers.get(&port));
        match pooler.map(|pooler| &pooler.newest) {
            Some(Dated { asked_at, answer: Ok(PoolerFacts::Leads { .. }) }) => {
                of_member.min(*asked_at)
            }
            // An answer without a query adds nothing to what is known of the member.
            _ => of_member,
        }
    }

    /// The addresses to which the member's host was last resolved.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.host.addresses
    }

    /// Returns true if the member's host is this machine.
    pub fn is_here(&self) -> bool {
        self.host.is_here
    }

    /// Why the addresses could not be refreshed; none if they are fresh.
    pub fn address_failure(&self) -> Option<&Failure> {
        self.host.address_failure.as_ref()
    }

    /// When the member's host last gave a sign of life: an answer, a refusal, a closed connection.
    pub fn last_sign_of_life(&self) -> Moment {
        self.last_sign_of_life
    }

    /// The next moment at which a claim expires.
    pub fn next_expiry(&self, now: Moment, freshness: &Freshness) -> Option<Moment> {
        let poolers = self.poolers.values();
        [
            self.tether.as_ref().map(|newest| newest.asked_at + freshness.tether),
            self.progress.as_ref().map(|newest| newest.asked_at + freshness.progress),
        ]
        .into_iter()
        .flatten()
        .chain(poolers.map(|pooler| pooler.newest.asked_at + freshness.pooler))
        .chain(self.lateness.expiries(self.patroni.as_ref(), freshness))
        .filter(|expiry| *expiry > now)
        .min()
    }
}

impl Fact {
    /// The host of the member did something: silence is the absence of this.
    fn is_sign_of_life(&self) -> bool {
        let failure = match self {
            Fact::Patroni(answer) => answer.as_ref().err(),
            Fact::PatroniLate(failure) => Some(failure),
            Fact::Tether(answer) => answer.as_ref().err(),
            Fact::Pooler { answer, .. } => answer.as_ref().err(),
            Fact::NewSessions(answer) => answer.as_ref().err(),
            Fact::Progress(_) => None,
            // The answer of a name server is no sign of the member.
            Fact::Addresses(_) | Fact::NewHost { .. } | Fact::Here(_) => return false,
        };
        failure.is_none_or(|failure| !failure.is_silence())
    }
}

fn is_newer<T>(old: &Option<Dated<T>>, asked_at: Moment) -> bool {
    old.as_ref().is_none_or(|old| old.asked_at <= asked_at)
}

fn reading<T>(
    newest: Option<&Dated<Result<T, Failure>>>,
    now: Moment,
    lifetime: Duration,
) -> Reading<'_, T> {
    match newest {
        None => Reading::Never,
        // A failure does not go stale: it counts until the source answers again.
        Some(Dated { answer: Err(failure), .. }) => Reading::Failed(failure),
        Some(newest) if now.since(newest.asked_at) >= lifetime => Reading::Stale,
        Some(Dated { answer: Ok(answer), .. }) => Reading::Fresh(answer),
    }
}
