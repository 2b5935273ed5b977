//! The view: the newest word of each source on one member, and how old it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::claim::{
    Claim, Fact, Failure, PatroniFacts, PoolerFacts, Progress, ServerStart, TetherFacts,
};
use crate::lateness::Lateness;
use crate::time::Moment;

/// How long each kind of claim may be acted on, from the moment its question was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// For what Patroni says.
    pub patroni: Duration,
    /// How long Patroni may take for an answer before it counts as slow: `timeout_seconds`.
    pub patroni_limit: Duration,
    /// For what the tether feels.
    pub tether: Duration,
    /// For WAL positions.
    pub progress: Duration,
    /// For what is said of a pooler.
    pub pooler: Duration,
}

/// A word and when its question was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard<T> {
    /// When the question was sent.
    pub asked_at: Moment,
    /// The answer.
    pub said: T,
}

/// What a source's newest word is worth now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word<'a, T> {
    /// The source has not spoken yet.
    Unheard,
    /// It has, but too long ago to act on.
    Expired,
    /// It could not tell.
    Failed(&'a Failure),
    /// It said so.
    Said(&'a T),
}

/// An unbroken run of answers in which Patroni claimed the leader lock.
///
/// The lock is exclusive, so of two members whose runs overlap one is wrong. A failure does not
/// break the run: a host that was frozen may not know yet that the lock has moved meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRun {
    /// When the first of these answers came in: by then the lock was the member's.
    pub first_heard: Moment,
    /// When the last of these questions was sent: until then it still was.
    pub last_asked: Moment,
}

impl LockRun {
    /// Both members claimed the lock before and after one and the same moment.
    pub fn overlaps(&self, other: &LockRun) -> bool {
        self.last_asked > other.first_heard && other.last_asked > self.first_heard
    }
}

/// An unbroken run of answers of one and the same server, as the tether got them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRun {
    /// When the server was started.
    pub started_at: ServerStart,
    /// When the first of the questions was sent.
    pub first_asked: Moment,
    /// When the last of them was.
    pub last_asked: Moment,
}

impl ServerRun {
    /// The run after another answer; none after a failure, because the next may come of a server
    /// that was started anew.
    fn after(
        old: Option<ServerRun>,
        said: &Result<TetherFacts, Failure>,
        asked_at: Moment,
    ) -> Option<ServerRun> {
        let facts = said.as_ref().ok()?;
        // A session that has just begun does not know yet when its server did.
        let Some(started_at) = facts.started_at else { return old };
        let same = old.filter(|old| old.started_at == started_at);
        let first_asked = same.map_or(asked_at, |old| old.first_asked);
        Some(ServerRun { started_at, first_asked, last_asked: asked_at })
    }
}

/// For how long PgBouncer does not try its server again after a login there has failed
/// (`server_login_retry`, 15 s unless told otherwise), and for two questions that make it try.
pub const POOLER_RETRY: Duration = Duration::from_secs(17);

/// What has been said of one pooler.
#[derive(Clone, Debug, PartialEq)]
struct PoolerView {
    heard: Heard<Result<PoolerFacts, Failure>>,
    /// When the first of the questions was sent that have had the same answer ever since.
    same_since: Moment,
    /// Set while it keeps queries waiting.
    wait: Option<PoolerWait>,
    /// When the last question was sent to which it led to the server that the tether was tied to. None
    /// again as soon as it leads elsewhere, or has been seen to be gone, because whoever starts it may
    /// have changed its file; or if it leads nowhere while that server is there.
    led_here: Option<Moment>,
}

/// A pooler that keeps queries waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolerWait {
    /// When the first of the questions was sent that have been kept waiting ever since.
    pub since: Moment,
    /// When the server was started that it led to by its last word before, if it told.
    pub led_to: Option<ServerStart>,
}

impl PoolerWait {
    /// What is known of the wait after another word. Waiting tells nothing of where a pooler leads,
    /// so what it said before remains; any other word takes its place.
    fn after(
        old: Option<&PoolerView>,
        heard: &Heard<Result<PoolerFacts, Failure>>,
    ) -> Option<PoolerWait> {
        let Ok(PoolerFacts::Busy(_)) = heard.said else { return None };
        let led_to = match old.map(|old| &old.heard.said) {
            Some(Ok(PoolerFacts::Leads { started_at, .. })) => *started_at,
            _ => None,
        };
        let begins = PoolerWait { since: heard.asked_at, led_to };
        Some(old.and_then(|old| old.wait).unwrap_or(begins))
    }
}

impl PoolerView {
    /// What is known after another word, unless that is older than the last. `own` is the run of the
    /// server that the tether is tied to.
    fn after(
        old: Option<&PoolerView>,
        heard: Heard<Result<PoolerFacts, Failure>>,
        own: Option<ServerRun>,
    ) -> Option<Self> {
        if old.is_some_and(|old| old.heard.asked_at > heard.asked_at) {
            return None;
        }
        let same = old.filter(|old| old.heard.said == heard.said);
        let same_since = same.map_or(heard.asked_at, |old| old.same_since);
        let wait = PoolerWait::after(old, &heard);
        let led_before = old.and_then(|old| old.led_here);
        let led_here = match (&heard.said, own) {
            (Ok(PoolerFacts::Leads { started_at, .. }), Some(own)) => {
                (*started_at == Some(own.started_at)).then_some(heard.asked_at)
            }
            (Ok(PoolerFacts::LeadsNowhere(_)), Some(own)) => led_before
                .filter(|led_at| heard.asked_at < own.first_asked.max(*led_at) + POOLER_RETRY),
            // Too slow to answer it is still the same that it was.
            (Ok(_) | Err(Failure::Timeout { .. } | Failure::Unreachable { .. }), _) => led_before,
            (Err(_), _) => None,
        };
        Some(PoolerView { heard, same_since, wait, led_here })
    }
}

/// All that has been said of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    known_since: Moment,
    patroni: Option<Heard<Result<PatroniFacts, Failure>>>,
    patroni_facts: Option<Heard<PatroniFacts>>,
    lateness: Lateness,
    lock_run: Option<LockRun>,
    /// When the newest of the questions was sent to which Patroni answered that it leads.
    lock_claimed_at: Option<Moment>,
    tether: Option<Heard<Result<TetherFacts, Failure>>>,
    server_run: Option<ServerRun>,
    progress: Option<Heard<Progress>>,
    /// Whether the server accepts new sessions.
    new_sessions: Option<Heard<Result<(), Failure>>>,
    /// By port.
    poolers: BTreeMap<u16, PoolerView>,
    addresses: Vec<IpAddr>,
    address_failure: Option<Failure>,
    is_here: bool,
    last_sign_of_life: Moment,
    /// The name that the Patroni there reported last, with the time of the question.
    reported_name: Option<(Moment, String)>,
}

impl View {
    /// A view of a member that has just become known.
    pub fn new(now: Moment) -> View {
        View {
            known_since: now,
            patroni: None,
            patroni_facts: None,
            lateness: Lateness::default(),
            lock_run: None,
            lock_claimed_at: None,
            tether: None,
            server_run: None,
            progress: None,
            new_sessions: None,
            poolers: BTreeMap::new(),
            addresses: Vec::new(),
            address_failure: None,
            is_here: false,
            last_sign_of_life: now,
            reported_name: None,
        }
    }

    /// A view of the same member at another place: what was said was said of the old one. Only
    /// that the lock was there is still true.
    pub fn of_another_place(&self, now: Moment) -> View {
        View { lock_claimed_at: self.lock_claimed_at, ..View::new(now) }
    }

    /// Takes a claim in, unless a newer one of the same source is already here, or the question
    /// was sent before the member became known: it went to another place then.
    pub fn apply(&mut self, claim: Claim, now: Moment) {
        // An answer from the future would shut out all that come after it.
        let asked_at = claim.asked_at.min(now);
        if asked_at < self.known_since {
            return;
        }
        if claim.fact.is_sign_of_life() {
            self.last_sign_of_life = self.last_sign_of_life.max(asked_at);
        }
        if claim.fact.claims_lock() {
            // Even an answer that comes too late to count tells that the lock was here.
            self.lock_claimed_at = self.lock_claimed_at.max(Some(asked_at));
        }
        match claim.fact {
            Fact::Patroni(said) if is_newer(&self.patroni, asked_at) => {
                if let Ok(facts) = &said {
                    self.note_lock(facts.leads(), asked_at, now);
                    self.patroni_facts = Some(Heard { asked_at, said: facts.clone() });
                }
                self.lateness.note_answer(now.since(asked_at));
                self.patroni = Some(Heard { asked_at, said });
            }
            Fact::PatroniLate(failure) => self.lateness.note_late(asked_at, failure),
            Fact::Tether(said) if is_newer(&self.tether, asked_at) => {
                self.server_run = ServerRun::after(self.server_run, &said, asked_at);
                self.tether = Some(Heard { asked_at, said });
            }
            Fact::Progress(said) if is_newer(&self.progress, asked_at) => {
                self.progress = Some(Heard { asked_at, said });
            }
            Fact::Pooler { port, said } => {
                let old = self.poolers.get(&port);
                let new = PoolerView::after(old, Heard { asked_at, said }, self.server_run);
                if let Some(new) = new {
                    self.poolers.insert(port, new);
                }
            }
            Fact::Addresses(Ok(addresses)) => {
                if self.addresses.iter().any(|old| !addresses.contains(old)) {
                    // Whatever is there now is another pooler.
                    self.poolers.values_mut().for_each(|pooler| pooler.led_here = None);
                }
                self.addresses = addresses;
                self.address_failure = None;
            }
            Fact::Addresses(Err(failure)) => self.address_failure = Some(failure),
            Fact::Here(is_here) => self.is_here = is_here,
            Fact::NewSessions(said) if is_newer(&self.new_sessions, asked_at) => {
                self.new_sessions = Some(Heard { asked_at, said });
            }
            Fact::Patroni(_) | Fact::Tether(_) | Fact::Progress(_) | Fact::NewSessions(_) => {}
        }
    }

    /// Notes the name that the Patroni there reports of itself.
    pub fn note_reported_name(&mut self, name: Option<&str>, asked_at: Moment) {
        let is_newer = self.reported_name.as_ref().is_none_or(|(at, _)| *at <= asked_at);
        if let (Some(name), true) = (name, is_newer && asked_at >= self.known_since) {
            self.reported_name = Some((asked_at, name.to_owned()));
        }
    }

    /// The name that the Patroni there reported last, with the time of the question.
    pub fn reported_name(&self) -> Option<(Moment, &String)> {
        self.reported_name.as_ref().map(|(at, name)| (*at, name))
    }

    /// Returns true if Patroni or the tether answered or failed to.
    pub fn was_asked(&self) -> bool {
        self.patroni.is_some() || self.tether.is_some()
    }

    /// Returns true if the newest question to Patroni was answered.
    pub fn patroni_answers(&self) -> bool {
        self.patroni.as_ref().is_some_and(|heard| heard.said.is_ok())
    }

    /// Forgets what Patroni answered last, if it does not answer any more.
    pub fn forget_last_facts(&mut self) {
        if !self.patroni_answers() {
            self.patroni_facts = None;
        }
    }

    /// Forgets all poolers but those on `ports`: the others are not asked any more.
    pub fn keep_poolers(&mut self, ports: &BTreeSet<u16>) {
        self.poolers.retain(|port, _| ports.contains(port));
    }

    fn note_lock(&mut self, leads: bool, asked_at: Moment, now: Moment) {
        let run = self.lock_run.unwrap_or(LockRun { first_heard: now, last_asked: asked_at });
        self.lock_run = leads.then_some(LockRun { last_asked: asked_at, ..run });
    }

    /// What Patroni's newest word is worth.
    pub fn patroni(&self, now: Moment, freshness: &Freshness) -> Word<'_, PatroniFacts> {
        self.lateness.word(self.patroni.as_ref(), now, freshness)
    }

    /// What Patroni answered last, while a later question is late and runs on.
    pub fn patroni_before_late(&self, now: Moment) -> Option<&PatroniFacts> {
        self.lateness.before_late(self.patroni.as_ref(), now)
    }

    /// How long Patroni's newest answer took, if that is longer than `timeout_seconds`.
    pub fn patroni_slow(&self, freshness: &Freshness) -> Option<Duration> {
        self.lateness.slow(freshness)
    }

    /// What the tether's newest word is worth.
    pub fn tether(&self, now: Moment, freshness: &Freshness) -> Word<'_, TetherFacts> {
        word(self.tether.as_ref(), now, freshness.tether)
    }

    /// The run of the server that the tether is tied to, if it has told.
    pub fn server_run(&self) -> Option<ServerRun> {
        self.server_run
    }

    /// The newest WAL positions, while they are fresh.
    pub fn progress(&self, now: Moment, freshness: &Freshness) -> Option<&Heard<Progress>> {
        self.progress.as_ref().filter(|heard| now.since(heard.asked_at) < freshness.progress)
    }

    /// Why the server refuses new sessions, by the newest attempt; none if that succeeded or if no
    /// attempt was made. A refusal does not expire: its source repeats the attempt until it succeeds.
    pub fn new_sessions_refused(&self) -> Option<&Failure> {
        self.new_sessions.as_ref().and_then(|heard| heard.said.as_ref().err())
    }

    /// What the newest word on the pooler on `port` is worth.
    pub fn pooler(&self, port: u16, now: Moment, freshness: &Freshness) -> Word<'_, PoolerFacts> {
        let heard = self.poolers.get(&port).map(|pooler| &pooler.heard);
        word(heard, now, freshness.pooler)
    }

    /// When the newest question to the pooler on `port` was sent.
    pub fn pooler_asked_at(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).map(|pooler| pooler.heard.asked_at)
    }

    /// When the first of the questions was sent to which the pooler on `port` has given the same
    /// answer ever since.
    pub fn pooler_same_since(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).map(|pooler| pooler.same_since)
    }

    /// Since when the pooler on `port` has kept queries waiting, if its last word was that.
    pub fn pooler_wait(&self, port: u16) -> Option<PoolerWait> {
        self.poolers.get(&port).and_then(|pooler| pooler.wait)
    }

    /// When the pooler on `port` last led to the server that the tether was tied to then, unless it
    /// led elsewhere or was gone since.
    pub fn pooler_led_here(&self, port: u16) -> Option<Moment> {
        self.poolers.get(&port).and_then(|pooler| pooler.led_here)
    }

    /// For how long the pooler on `port` has said one and the same.
    pub fn pooler_steady_for(&self, port: u16) -> Duration {
        let steady = |pooler: &PoolerView| pooler.heard.asked_at.since(pooler.same_since);
        self.poolers.get(&port).map_or(Duration::ZERO, steady)
    }

    /// What Patroni last said when it spoke, however long ago: for tags and the page.
    pub fn patroni_facts(&self) -> Option<&Heard<PatroniFacts>> {
        self.patroni_facts.as_ref()
    }

    /// The run in which Patroni claims the lock, while its last word is a fresh claim of it.
    pub fn lock_run(&self, now: Moment, freshness: &Freshness) -> Option<LockRun> {
        match self.patroni(now, freshness) {
            Word::Said(facts) if facts.leads() => self.lock_run,
            _ => None,
        }
    }

    /// When the newest of the questions was sent to which Patroni answered that it leads, however
    /// long ago and whatever it said since.
    pub fn lock_claimed_at(&self) -> Option<Moment> {
        self.lock_claimed_at
    }

    /// When the tether or Patroni, whichever was later, was last asked with success; and where the
    /// way there is through a pooler, the query through it as well.
    pub fn evidence_asked_at(&self, pooler_port: Option<u16>) -> Moment {
        let tether = self.tether.as_ref().filter(|heard| heard.said.is_ok());
        let patroni = self.patroni.as_ref().filter(|heard| heard.said.is_ok());
        let asked = |at: Option<Moment>| at.unwrap_or(Moment::START);
        let of_member = asked(tether.map(|heard| heard.asked_at))
            .max(asked(patroni.map(|heard| heard.asked_at)));
        let pooler = pooler_port.and_then(|port| self.poolers.get(&port));
        match pooler.map(|pooler| &pooler.heard) {
            Some(Heard { asked_at, said: Ok(PoolerFacts::Leads { .. }) }) => {
                of_member.min(*asked_at)
            }
            // A mere knock adds nothing to what is known of the member.
            _ => of_member,
        }
    }

    /// The addresses its host was last resolved to.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its host is this machine.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// Why the addresses could not be refreshed, if so.
    pub fn address_failure(&self) -> Option<&Failure> {
        self.address_failure.as_ref()
    }

    /// When its host last gave any sign of life: an answer, a refusal, a closed connection.
    pub fn last_sign_of_life(&self) -> Moment {
        self.last_sign_of_life
    }

    /// The next moment at which something said expires.
    pub fn next_expiry(&self, now: Moment, freshness: &Freshness) -> Option<Moment> {
        let poolers = self.poolers.values();
        [
            self.tether.as_ref().map(|heard| heard.asked_at + freshness.tether),
            self.progress.as_ref().map(|heard| heard.asked_at + freshness.progress),
        ]
        .into_iter()
        .flatten()
        .chain(poolers.map(|pooler| pooler.heard.asked_at + freshness.pooler))
        .chain(self.lateness.expiries(self.patroni.as_ref(), freshness))
        .filter(|expiry| *expiry > now)
        .min()
    }
}

impl Fact {
    fn claims_lock(&self) -> bool {
        matches!(self, Fact::Patroni(Ok(facts)) if facts.leads())
    }

    /// The host of the member did something: silence is the absence of this.
    fn is_sign_of_life(&self) -> bool {
        let failure = match self {
            Fact::Patroni(said) => said.as_ref().err(),
            Fact::PatroniLate(failure) => Some(failure),
            Fact::Tether(said) => said.as_ref().err(),
            Fact::Pooler { said, .. } => said.as_ref().err(),
            Fact::NewSessions(said) => said.as_ref().err(),
            Fact::Progress(_) => None,
            // What a name server says is no sign of the member.
            Fact::Addresses(_) | Fact::Here(_) => return false,
        };
        !matches!(
            failure,
            Some(
                Failure::Timeout { .. }
                    | Failure::Unreachable { .. }
                    | Failure::Late { .. }
                    | Failure::Network(_)
                    | Failure::Unresolved(_)
            )
        )
    }
}

fn is_newer<T>(old: &Option<Heard<T>>, asked_at: Moment) -> bool {
    old.as_ref().is_none_or(|old| old.asked_at <= asked_at)
}

fn word<T>(
    heard: Option<&Heard<Result<T, Failure>>>,
    now: Moment,
    lifetime: Duration,
) -> Word<'_, T> {
    match heard {
        None => Word::Unheard,
        // A failure does not go stale: it stays true until the source speaks again.
        Some(Heard { said: Err(failure), .. }) => Word::Failed(failure),
        Some(heard) if now.since(heard.asked_at) >= lifetime => Word::Expired,
        Some(Heard { said: Ok(said), .. }) => Word::Said(said),
    }
}
