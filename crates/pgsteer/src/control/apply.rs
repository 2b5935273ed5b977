//! Carries out a request of an operator.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgsteer_core::advice::advice;
use pgsteer_core::claim::Role;
use pgsteer_core::explain::{Explanation, MemberExplanation};
use pgsteer_core::gate::Gate;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::orders::{DrainOrder, DrainTarget, OperatorOrder, OrderText, Until};
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::{Mutex, watch};

use super::author::Author;
use super::call::{Accepted, Call, Calls};
use super::protocol::{
    Answer, DrainRequest, DrainedAnswer, Explained, ExplainedFact, ExplainedMember, FilterText,
    Request, SessionLine, SessionsAnswer, UndrainedAnswer, UpgradedAnswer,
};
use super::replace::{UpgradeRequest, Upgraded};
use super::store::{LASTS_SECONDS_MAX, OrderStore, shown_time};
use crate::clock::Clock;
use crate::log::limit::DECISIONS;
use crate::proxy::{ClientFilter, RollCall, SessionFilter, SessionInfo};

/// How long an answer waits for the workers of the proxy.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a request needs to be carried out.
#[derive(Debug)]
pub struct Desk {
    calls: Calls<Call>,
    upgrades: Calls<UpgradeRequest>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Clock,
    /// None without a proxy, as in `pgsteer agent`.
    sessions: Option<RollCall>,
    /// None if nothing is stored.
    store: Option<OrderStore>,
    /// Held while an order is applied and stored, so that the file has the newest orders.
    writing: Mutex<()>,
}

/// Why a request is not carried out.
#[derive(Debug)]
enum Denial {
    /// pgsteer refuses it.
    Refused(String),
    /// It cannot be understood.
    Unclear(String),
}

impl From<Denial> for Answer {
    fn from(denial: Denial) -> Answer {
        match denial {
            Denial::Refused(error) => Answer::Refused { error },
            Denial::Unclear(error) => Answer::Unclear { error },
        }
    }
}

impl Desk {
    /// A desk of a running pgsteer.
    pub fn new(
        calls: Calls<Call>,
        upgrades: Calls<UpgradeRequest>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        sessions: Option<RollCall>,
        store: Option<OrderStore>,
    ) -> Desk {
        Desk { calls, upgrades, snapshots, clock, sessions, store, writing: Mutex::new(()) }
    }

    /// Carries out a request.
    pub async fn apply(&self, request: Request, author: &Author) -> Answer {
        let applied = match request {
            Request::Drain(request) => self.drain(request, author).await,
            Request::Undrain { member, service } => self.undrain(&member, service, author).await,
            Request::Sessions { filter } => self.sessions(&filter).await,
            Request::EndSessions { filter } => self.end_sessions(&filter, author).await,
            Request::Explain { service } => self.explain(&service).await,
            Request::Upgrade { program } => self.upgrade(program, author).await,
        };
        applied.unwrap_or_else(Answer::from)
    }

    /// Replaces all orders by the stored ones if those are newer than the ones in force.
    pub async fn restore_orders(&self) {
        let newer = self.store.as_ref().and_then(|store| store.read_newer(&self.clock));
        let Some(orders) = newer else { return };
        // The engine has ended with the process otherwise.
        let _ = self.calls.ask(|reply| Call::Restore { orders, reply }).await;
    }

    async fn drain(&self, request: DrainRequest, author: &Author) -> Result<Answer, Denial> {
        let target = target(&request.member, request.service.as_deref())?;
        let until = match request.lasts_seconds {
            None => None,
            Some(seconds @ 1..=LASTS_SECONDS_MAX) => {
                let lasts = Duration::from_secs(seconds);
                let shown = shown_time(SystemTime::now() + lasts);
                Some(Until { at: self.clock.now() + lasts, shown })
            }
            Some(seconds) => {
                let error = format!("an order lasts 1 to {LASTS_SECONDS_MAX} s, not {seconds} s");
                return Err(Denial::Unclear(error));
            }
        };
        let why = request.why.as_deref().map(OrderText::new);
        let order = DrainOrder {
            target: target.clone(),
            until: until.clone(),
            why: why.filter(|why| !why.as_str().is_empty()),
            by: OrderText::new(&author.name),
            since: shown_time(SystemTime::now()),
            is_forced: request.force,
        };
        let (in_force_after, not_stored) = self.order(OperatorOrder::Drain(order)).await?;
        Ok(Answer::Drained(DrainedAnswer {
            not_drained: self.leader_gates_open(&target),
            member: target.member.to_string(),
            service: target.service.map(|service| service.to_string()),
            until: until.map(|until| until.shown.to_string()),
            in_force_after_ms: millis(in_force_after),
            not_stored,
        }))
    }

    async fn undrain(
        &self,
        member: &str,
        service: Option<String>,
        author: &Author,
    ) -> Result<Answer, Denial> {
        let target = target(member, service.as_deref())?;
        let by = OrderText::new(&author.name);
        let order = OperatorOrder::Undrain { target: target.clone(), by };
        let (in_force_after, not_stored) = self.order(order).await?;
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let is_open = |gate: &Gate| gate.is_open();
        let open = snapshot
            .services
            .iter()
            .filter(|(_, state)| state.gates.get(&target.member).is_some_and(is_open))
            .map(|(name, _)| name.to_string())
            .collect();
        Ok(Answer::Undrained(UndrainedAnswer {
            member: target.member.to_string(),
            service: target.service.map(|service| service.to_string()),
            open,
            in_force_after_ms: millis(in_force_after),
            not_stored,
        }))
    }

    /// Gives an order to the engine, waits until the proxy follows it, and stores it. Returns how long
    /// that took, and why the orders are not stored.
    async fn order(&self, order: OperatorOrder) -> Result<(Duration, Option<String>), Denial> {
        let _writing = self.writing.lock().await;
        let began = Instant::now();
        let accepted = self.calls.ask(|reply| Call::Order { order, reply }).await;
        let Accepted { generation } =
            accepted.ok_or_else(no_engine)?.map_err(|error| Denial::Refused(error.to_string()))?;
        if let Some(sessions) = &self.sessions
            && !sessions.acted_on(generation, WORKERS_TIMEOUT).await
        {
            tracing::warn!(
                "an order is given, and a worker has not followed it for {WORKERS_TIMEOUT:?}"
            );
        }
        let in_force_after = began.elapsed();
        Ok((in_force_after, self.store_orders().await))
    }

    /// Stores the orders. Returns why they are not stored.
    async fn store_orders(&self) -> Option<String> {
        let Some(store) = self.store.clone() else {
            return Some("there is no state directory ([cluster] state_directory)".to_owned());
        };
        let (orders, clock) = (self.snapshots.borrow().orders.clone(), self.clock);
        let written = tokio::task::spawn_blocking(move || store.write(&orders, &clock)).await;
        let error = match written {
            Ok(written) => format!("{:#}", written.err()?),
            Err(error) => error.to_string(),
        };
        tracing::warn!("the orders are not stored, a restart will not know them: {error}");
        Some(error)
    }

    /// The services of a leader for which the member is open although an order for all services drains
    /// it: the order is not forced.
    fn leader_gates_open(&self, target: &DrainTarget) -> Vec<String> {
        let snapshot = self.snapshots.borrow();
        let is_meant = |name: &ServiceName| target.service.as_ref().is_none_or(|it| it == name);
        let services = snapshot.services.iter().filter(|(name, state)| {
            state.role != Role::Replica
                && is_meant(name)
                && snapshot.orders.draining(&target.member, name, state.role).is_none()
        });
        services.map(|(name, _)| name.to_string()).collect()
    }

    fn roll_call(&self) -> Result<&RollCall, Denial> {
        let error = "this process has no sessions: it is `pgsteer agent`";
        self.sessions.as_ref().ok_or_else(|| Denial::Refused(error.to_owned()))
    }

    async fn sessions(&self, filter: &FilterText) -> Result<Answer, Denial> {
        let filter = self.filter(filter)?;
        let (sessions, omitted) =
            self.roll_call()?.list(&filter).await.ok_or_else(no_answer_of_workers)?;
        let now = SystemTime::now();
        let mut sessions: Vec<SessionLine> =
            sessions.iter().map(|session| session_line(session, now)).collect();
        sessions.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
        Ok(Answer::Sessions(SessionsAnswer { sessions, omitted }))
    }

    async fn end_sessions(&self, filter: &FilterText, author: &Author) -> Result<Answer, Denial> {
        let filter = self.filter(filter)?;
        if filter.is_empty() {
            let error = "name a member or a criterion: no sessions are ended without one";
            return Err(Denial::Unclear(error.to_owned()));
        }
        let by = OrderText::new(&author.name).as_str().into();
        let ended = self.roll_call()?.end(&filter, &by).await.ok_or_else(no_answer_of_workers)?;
        tracing::warn!(target: DECISIONS, "order: {} ended {ended} sessions", author.name);
        Ok(Answer::Ended { ended })
    }

    /// The filter. A member or a service that does not exist is an error.
    fn filter(&self, text: &FilterText) -> Result<SessionFilter, Denial> {
        let snapshot = self.snapshots.borrow();
        let member =
            text.member.as_deref().map(|name| match snapshot.members.get_key_value(name) {
                Some((name, _)) => Ok(name.clone()),
                None => Err(unknown("member", name, snapshot.members.keys())),
            });
        let service =
            text.service.as_deref().map(|name| match snapshot.services.get_key_value(name) {
                Some((name, _)) => Ok(name.clone()),
                None => Err(unknown("service", name, snapshot.services.keys())),
            });
        let client = text.client.as_deref().map(client_filter).transpose()?;
        let idle = text.idle_longer_seconds.map(|seconds| {
            let error = || format!("{seconds} is not a number of seconds");
            Duration::try_from_secs_f64(seconds).map_err(|_| Denial::Unclear(error()))
        });
        Ok(SessionFilter {
            member: member.transpose()?,
            service: service.transpose()?,
            user: text.user.clone(),
            database: text.database.clone(),
            client,
            idle_longer: idle.transpose()?,
        })
    }

    async fn upgrade(&self, program: Option<PathBuf>, author: &Author) -> Result<Answer, Denial> {
        if let Some(program) = &program {
            check_program(program, author)?;
        }
        let upgraded = self
            .upgrades
            .ask(|reply| UpgradeRequest::new(program, Some(reply)))
            .await
            .ok_or_else(no_engine)?;
        let Upgraded { pid, moved, took } = upgraded.map_err(|why| {
            Denial::Refused(format!("not upgraded, the running process goes on: {why}"))
        })?;
        Ok(Answer::Upgraded(UpgradedAnswer { pid, moved, took_ms: millis(took) }))
    }

    async fn explain(&self, service: &str) -> Result<Answer, Denial> {
        let name = ServiceName::new(service)
            .map_err(|error| Denial::Unclear(format!("service: {error}")))?;
        let explained = self
            .calls
            .ask(|reply| Call::Explain { service: name, reply })
            .await
            .ok_or_else(no_engine)?;
        explained
            .map(|explanation| Answer::Explained(shown(&explanation)))
            .ok_or_else(|| unknown("service", service, self.snapshots.borrow().services.keys()))
    }
}

/// Checks a program that a request names. The process starts it with its own rights, so a member of the
/// socket's group must not choose it.
fn check_program(program: &Path, author: &Author) -> Result<(), Denial> {
    let own = rustix::process::geteuid().as_raw();
    if author.uid != 0 && author.uid != own {
        return Err(Denial::Refused(format!(
            "only root and the user of pgsteer (uid {own}) may choose the program, and {} is neither; \
             without --binary pgsteer starts its own file again",
            author.name
        )));
    }
    match program.is_absolute() {
        true => Ok(()),
        false => Err(Denial::Unclear("the path of the program must be absolute".to_owned())),
    }
}

fn no_engine() -> Denial {
    Denial::Refused("pgsteer is stopping".to_owned())
}

fn no_answer_of_workers() -> Denial {
    Denial::Refused("a worker of the proxy did not answer within 5 s; try again".to_owned())
}

fn unknown<'a, T: ToString + 'a>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a T>,
) -> Denial {
    let known: Vec<String> = known.map(ToString::to_string).collect();
    let known = match known.is_empty() {
        true => format!("no {what} is known yet"),
        false => format!("the {what}s are {}", known.join(", ")),
    };
    let name = pgsteer_core::text::clean(name);
    Denial::Refused(format!("there is no {what} {name}; {known}"))
}

fn target(member: &str, service: Option<&str>) -> Result<DrainTarget, Denial> {
    let unclear = |what: &str, error| Denial::Unclear(format!("{what}: {error}"));
    let member = MemberName::new(member).map_err(|error| unclear("member", error))?;
    let service = service.map(ServiceName::new).transpose();
    let service = service.map_err(|error| unclear("service", error))?;
    Ok(DrainTarget { member, service })
}

fn client_filter(text: &str) -> Result<ClientFilter, Denial> {
    let host = text.parse::<IpAddr>().map(ClientFilter::Host);
    let filter = host.or_else(|_| text.parse::<SocketAddr>().map(ClientFilter::Connection));
    filter.map_err(|_| {
        Denial::Unclear(format!(
            "client {} is neither an address nor an address with a port, as 10.0.0.5 or \
             10.0.0.5:4711",
            pgsteer_core::text::clean(text)
        ))
    })
}

fn session_line(session: &SessionInfo, now: SystemTime) -> SessionLine {
    let client = session.client.as_ref();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let since = now.checked_sub(session.age).unwrap_or(now);
    SessionLine {
        client: client.map(|client| client.address.to_string()),
        user: text(client.and_then(|client| client.user.as_deref())),
        database: text(client.and_then(|client| client.database.as_deref())),
        member: session.member.to_string(),
        service: session.service.to_string(),
        since: shown_time(since).to_string(),
        age_seconds: seconds(session.age),
        idle_seconds: seconds(session.idle),
        bytes_in: session.bytes_in,
        bytes_out: session.bytes_out,
        tls: client.is_some_and(|client| client.is_tls),
    }
}

fn shown(explanation: &Explanation) -> Explained {
    Explained {
        service: explanation.service.to_string(),
        role: explanation.role.to_string(),
        members: explanation.members.iter().map(shown_member).collect(),
    }
}

fn shown_member(explained: &MemberExplanation) -> ExplainedMember {
    let reason = explained.gate.reason();
    let facts = explained.facts.iter().map(|fact| ExplainedFact {
        source: fact.source.clone(),
        age_seconds: fact.age.map(seconds),
        text: pgsteer_core::text::clean(&fact.text).into_owned(),
    });
    ExplainedMember {
        member: explained.member.to_string(),
        chosen: explained.gate.is_open(),
        gate: explained.gate.state().to_string(),
        gate_age_seconds: seconds(explained.gate_age),
        code: reason.map(|reason| reason.code().to_owned()),
        reason: reason.map(ToString::to_string),
        advice: reason.and_then(advice).map(str::to_owned),
        facts: facts.collect(),
    }
}

/// Seconds with three digits.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds with three digits.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_choose_a_program() {
        let own = rustix::process::geteuid().as_raw();
        let author = |uid| Author { name: "ann".to_owned(), uid, pid: None };
        let program = Path::new("/opt/pgsteer");
        for allowed in [0, own] {
            assert!(check_program(program, &author(allowed)).is_ok());
        }
        let refused = check_program(program, &author(own + 1));
        let Err(Denial::Refused(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("ann is neither"), "{why}");
        let relative = check_program(Path::new("pgsteer"), &author(own));
        assert!(matches!(relative, Err(Denial::Unclear(_))), "{relative:?}");
    }
}
