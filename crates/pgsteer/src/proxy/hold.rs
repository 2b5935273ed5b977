//! From a parked client to a connected member: wait for a gate, wait for a permit where sessions
//! are limited, dial, try the next one.
//!
//! While a member is promoting the first few clients on hold are connected to it already, to log
//! in early: they are served as soon as its gate opens, and not a fork and a login later.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgsteer_core::names::MemberName;
use pgsteer_core::settings::Stick;
use pgsteer_wire::error::ErrorFields;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::affinity::Sticking;
use super::balance::{Target, opened_in, pick_early, prefer, targets};
use super::capacity::{Choice, Permit, Position, Waiting};
use super::client::Client;
use super::guard::Guard;
use super::held::{Held, Queued};
use super::queue::Slot;
use super::seat::{Place, Seat};
use super::tcp::dial;
use super::vain::{Vain, Words, words};
use super::worker::{Look, Worker};
use super::{Phase, Service};
use crate::doubts::Doubts;

/// When every open member has failed, the next round starts after this, then after twice that,
/// up to the longest; or at once when a gate moves.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// A server connection, and the seat that keeps it endable.
#[derive(Debug)]
pub struct Connected {
    /// The connection to the member. Declared before the seat, so that it is closed first.
    pub server: TcpStream,
    /// The slot in the member's queue, given back at its first answer.
    pub slot: Option<Slot>,
    /// The seat.
    pub seat: Seat,
    /// The session's part of what the service may have.
    pub permit: Permit,
    /// The client address keeps its member as long as this session lives.
    pub sticking: Option<Sticking>,
    /// The login is early and its client still on hold: the gate of the member is not open yet.
    pub held: Option<Held>,
}

/// One client's way to a member, over as many tries as it takes.
#[derive(Debug)]
pub struct Search {
    /// Where the members that refuse are named.
    doubts: Arc<Doubts>,
    /// The address of the client.
    address: IpAddr,
    /// The client asks for TLS, so its bytes cannot be read.
    is_opaque: bool,
    /// Its position in the order of arrival, from when it first wanted a member.
    ticket: Option<u64>,
    /// Keeps that position while there is no permit for it.
    position: Option<Position>,
    /// When the client first wanted a member.
    began: Option<Instant>,
    /// Members that failed in this round.
    tried: BTreeSet<MemberName>,
    /// Rounds in which every open member failed.
    rounds: u32,
    was_held: bool,
    /// It may log in early, for once. If nothing comes of that it waits like everybody else.
    may_go_early: bool,
    last_failure: Option<String>,
}

impl Search {
    /// A search for a client at `address`, which begins when a member is first asked for.
    pub fn begin(address: IpAddr, doubts: Arc<Doubts>) -> Search {
        Search {
            doubts,
            address,
            is_opaque: false,
            ticket: None,
            position: None,
            began: None,
            tried: BTreeSet::new(),
            rounds: 0,
            was_held: false,
            may_go_early: false,
            last_failure: None,
        }
    }

    /// Notes that the client asks for TLS.
    pub fn is_opaque(&mut self) {
        self.is_opaque = true;
    }

    /// Lets the client log in early: its login is in the clear and can be held back.
    pub fn allow_early(&mut self) {
        self.may_go_early = true;
    }

    fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }

    /// When the client has waited long enough; it ends at once if that is now, or for all.
    fn deadline(&self, worker: &Worker, service: &Service) -> Result<Instant, Vain> {
        let now = Instant::now();
        let deadline = self.began.unwrap_or(now) + service.config.hold;
        match worker.phase() {
            _ if now >= deadline => Err(Vain::TimeUp),
            Phase::Stopping => Err(Vain::Stopping),
            Phase::Serving => Ok(deadline),
        }
    }

    /// The client is on hold as long as this lives.
    fn hold(&mut self, service: &Arc<Service>) -> Held {
        if !std::mem::replace(&mut self.was_held, true) {
            service.stats.held_total.fetch_add(1, Ordering::Relaxed);
        }
        Held::new(service)
    }

    /// Notes that a member did not do, and why.
    pub fn failed(&mut self, seat: &Seat, why: &str) {
        seat.stats().failed_total.fetch_add(1, Ordering::Relaxed);
        let member = seat.member();
        tracing::debug!(%member, why, "member did not do, trying on");
        self.last_failure = Some(format!("{member}: {why}"));
        // An early login says nothing about the member that it will be.
        if !seat.is_early() {
            self.doubts.give(member);
            self.tried.insert(member.clone());
        }
    }

    /// Notes that a member takes no more sessions at present. It may be tried again as soon as there
    /// is a permit for it.
    pub fn full(&mut self, seat: &Seat, why: &str) {
        seat.stats().failed_total.fetch_add(1, Ordering::Relaxed);
        let member = seat.member();
        self.doubts.give(member);
        tracing::debug!(%member, why, "member refuses the login, the client waits");
        self.last_failure = Some(format!("{member}: {why}"));
    }

    /// Another open member is there that was not tried yet.
    pub fn has_alternative(&self, worker: &Worker, service: &Service) -> bool {
        !targets(&worker.snapshot(), service, &self.tried, 0).is_empty()
    }

    /// The members that the client may go to, best first; `turn` breaks ties.
    fn targets(&self, worker: &Worker, service: &Service, turn: usize) -> Vec<Target> {
        let mut targets = targets(&worker.snapshot(), service, &self.tried, turn);
        let now = std::time::Instant::now();
        match service.config.stick {
            Stick::Address => {
                let names = names(&targets);
                let member = service.affinity.stick(self.address, &names, now);
                targets.retain(|target| Some(&target.member) == member.as_ref());
            }
            Stick::None if self.is_opaque && targets.len() > 1 => {
                if let Some(member) = service.affinity.busy_member(self.address, now) {
                    prefer(&mut targets, &member);
                }
            }
            Stick::None => {}
        }
        targets
    }

    /// Connects to a member, after waiting for one if need be.
    pub async fn connect(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
    ) -> Result<Connected, Vain> {
        let found = self.find(worker, service, client).await;
        // A client that is refused must not keep others waiting while it reads why.
        self.position = None;
        found
    }

    async fn find(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
    ) -> Result<Connected, Vain> {
        self.began();
        let ticket = *self.ticket.get_or_insert_with(|| worker.shared().next_ticket());
        let guard = Guard::of(worker, service);
        loop {
            if !guard.lets_pass() {
                self.pass(guard, service, client).await?;
            }
            let look = worker.look();
            let seen = worker.snapshot().generation;
            // One turn for both looks: otherwise the same one of two equal members is always the first.
            let turn = worker.next_turn();
            let mut targets = self.targets(worker, service, turn);
            let Some(generation) = targets.first().map(|target| target.generation) else {
                self.position.get_or_insert_with(|| service.capacity.position(ticket));
                service.capacity.look(ticket, seen);
                if let Some(connected) = self.connect_early(worker, service, client).await? {
                    return Ok(connected);
                }
                self.park(worker, service, client, look).await?;
                continue;
            };
            targets.retain(|target| worker.barrier().is_passed(target.generation));
            if targets.is_empty() {
                // The gate may have moved again by the time all workers have acted.
                self.acted(worker, service, client, generation).await?;
                continue;
            }
            self.position.get_or_insert_with(|| service.capacity.position(ticket));
            let choices = choices(&targets);
            let permit = match service.capacity.take(ticket, seen, &choices) {
                Ok(permit) => permit,
                Err(waiting) => {
                    match self.queue(worker, service, client, (waiting, look), &choices).await? {
                        Some(permit) => permit,
                        None => continue,
                    }
                }
            };
            // The gate may have been shut while the client waited.
            let mut targets = self.targets(worker, service, turn).into_iter();
            let is_meant = |target: &Target| {
                target.member == *permit.member() && worker.barrier().is_passed(target.generation)
            };
            let Some(target) = targets.find(is_meant) else { continue };
            self.position = None;
            if let Some(connected) = self.dial(worker, service, client, target, permit).await? {
                return Ok(connected);
            }
        }
    }

    /// Waits in the queue for a permit for one of `choices`; the client is on hold meanwhile. None if
    /// it is time to look at the gates again.
    async fn queue(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
        (mut waiting, look): (Waiting, Look),
        choices: &[Choice],
    ) -> Result<Option<Permit>, Vain> {
        let shortage = || service.capacity.shortage(choices).map_or(Vain::TimeUp, Vain::NoRoom);
        let deadline = match self.deadline(worker, service) {
            Err(Vain::TimeUp) => return Err(shortage()),
            deadline => deadline?,
        };
        let _held = self.hold(service);
        let _queued = Queued::new(service);
        tokio::select! {
            biased;
            permit = waiting.granted() => Ok(Some(permit)),
            () = worker.changed_since(look) => Ok(waiting.granted_now()),
            () = client.gone() => Err(Vain::ClientGone),
            () = sleep_until(deadline) => Err(shortage()),
        }
    }

    /// Dials one member; no await lies between the look at the gate and the taking of the seat.
    async fn dial(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
        target: Target,
        permit: Permit,
    ) -> Result<Option<Connected>, Vain> {
        let is_sticky = service.config.stick == Stick::Address;
        let sticking = is_sticky.then(|| service.affinity.sticking(self.address));
        let stats = service.stats.member(&target.member);
        let (service_name, member) = (service.name.clone(), target.member);
        let place = Place { service: service_name, member, postgres: target.postgres };
        let seat = worker.registry().take(place, stats);
        let Some(slot) = self.slot(worker, service, client, &seat).await? else {
            self.failed(&seat, "its gate was shut before this client had a slot");
            return Ok(None);
        };
        let limit = service.config.connect_timeout;
        let failure = tokio::select! {
            biased;
            _ = seat.ending() => "its gate was shut before it was connected".to_owned(),
            dialled = dial_member(worker, &target.addresses, limit) => match dialled {
                Ok(server) => {
                    let (slot, held) = (Some(slot), None);
                    return Ok(Some(Connected { server, slot, seat, permit, sticking, held }));
                }
                Err(error) => error.to_string(),
            },
        };
        self.failed(&seat, &failure);
        Ok(None)
    }

    /// Connects to the member that is being promoted, if the client may and if it is among the
    /// first.
    async fn connect_early(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
    ) -> Result<Option<Connected>, Vain> {
        if !self.may_go_early {
            return Ok(None);
        }
        let Some(target) = pick_early(&worker.snapshot(), service) else { return Ok(None) };
        let deadline = self.deadline(worker, service)?;
        let Some(slot) = worker.shared().queues.of(&target.member).early_slot() else {
            return Ok(None);
        };
        let permit = service.capacity.take_early(&target.member);
        let Some(permit) = permit else { return Ok(None) };
        self.position = None;
        self.may_go_early = false;
        let held = self.hold(service);
        let stats = service.stats.member(&target.member);
        let Target { member, postgres, addresses, .. } = target;
        let place = Place { service: service.name.clone(), member, postgres };
        let seat = worker.registry().take_early(place, stats);
        let limit = service.config.connect_timeout;
        let failure = tokio::select! {
            biased;
            _ = seat.ending() => "it is promoting no more".to_owned(),
            dialled = dial_member(worker, &addresses, limit) => match dialled {
                Ok(server) => {
                    let (slot, held, sticking) = (Some(slot), Some(held), None);
                    return Ok(Some(Connected { server, slot, seat, permit, sticking, held }));
                }
                Err(error) => error.to_string(),
            },
            // The usual way is open, and does not end with the hold.
            () = worker.opened(&service.name, seat.member()) => return Ok(None),
            () = client.gone() => return Err(Vain::ClientGone),
            () = sleep_until(deadline) => return Err(Vain::TimeUp),
        };
        self.failed(&seat, &failure);
        Ok(None)
    }

    /// Waits, with an early login at `member` in hand, until its gate is open and all workers
    /// have acted on that. That nothing comes of it any more the seat is told.
    pub async fn opened(
        &self,
        worker: &Worker,
        service: &Service,
        member: &MemberName,
    ) -> Result<(), Vain> {
        loop {
            let look = worker.look();
            let opened_in = opened_in(&worker.snapshot(), &service.name, member);
            match opened_in {
                Some(generation) if worker.barrier().is_passed(generation) => return Ok(()),
                // The gate may have moved again by the time all workers have acted.
                Some(generation) => {
                    let acted = worker.barrier().wait(generation);
                    let limit = service.config.connect_timeout;
                    timeout(limit, acted).await.map_err(|_| Vain::TimeUp)?;
                }
                None => {
                    let deadline = self.deadline(worker, service)?;
                    tokio::select! {
                        biased;
                        () = worker.changed_since(look) => {}
                        () = sleep_until(deadline) => {}
                    }
                }
            }
        }
    }

    /// Waits for a slot at the member whose seat was taken. None if the gate shuts meanwhile.
    async fn slot(
        &mut self,
        worker: &Worker,
        service: &Service,
        client: &Client,
        seat: &Seat,
    ) -> Result<Option<Slot>, Vain> {
        let queue = worker.shared().queues.of(seat.member());
        let deadline = self.deadline_at_member(service);
        tokio::select! {
            biased;
            _ = seat.ending() => Ok(None),
            slot = queue.slot() => Ok(Some(slot)),
            () = worker.shut(&service.name, seat.member()) => Ok(None),
            () = client.gone() => Err(Vain::ClientGone),
            () = sleep_until(deadline) => {
                self.last_failure = Some(format!("{}: too many logins wait for an answer", seat.member()));
                Err(Vain::TimeUp)
            }
        }
    }

    /// Waits until the guard lets bytes pass to a member.
    async fn pass(
        &mut self,
        guard: Guard<'_>,
        service: &Service,
        client: &Client,
    ) -> Result<(), Vain> {
        let deadline = self.deadline_at_member(service);
        tokio::select! {
            biased;
            () = guard.pass() => Ok(()),
            () = client.gone() => Err(Vain::ClientGone),
            () = sleep_until(deadline) => {
                self.last_failure = Some("pgsteer's engine has not run for a while".to_owned());
                Err(Vain::TimeUp)
            }
        }
    }

    /// Waits until all workers have acted on the Snapshot of this generation.
    async fn acted(
        &mut self,
        worker: &Worker,
        service: &Service,
        client: &Client,
        generation: u64,
    ) -> Result<(), Vain> {
        let deadline = self.deadline_at_member(service);
        tokio::select! {
            biased;
            () = worker.barrier().wait(generation) => Ok(()),
            () = client.gone() => Err(Vain::ClientGone),
            () = sleep_until(deadline) => {
                self.last_failure = Some("pgsteer is still ending sessions elsewhere".to_owned());
                Err(Vain::TimeUp)
            }
        }
    }

    /// How long the wait for a member whose gate is open may last. Somebody who may not be held at
    /// all can still be second.
    fn deadline_at_member(&mut self, service: &Service) -> Instant {
        let patience = Instant::now() + service.config.connect_timeout;
        patience.max(self.began() + service.config.hold)
    }

    /// Waits until something has changed since `look`, or until failed members may be tried again.
    async fn park(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
        look: Look,
    ) -> Result<(), Vain> {
        let deadline = self.deadline(worker, service)?;
        let _held = self.hold(service);
        let retry = self.next_round();
        tokio::select! {
            biased;
            () = worker.changed_since(look) => Ok(()),
            () = client.gone() => Err(Vain::ClientGone),
            () = retry => Ok(()),
            () = sleep_until(deadline) => Ok(()),
        }
    }

    /// The wait before members that failed are tried again; for ever if none has.
    fn next_round(&mut self) -> impl Future<Output = ()> + use<> {
        let all_failed = !self.tried.is_empty();
        let wait = all_failed.then(|| RETRY_LONGEST.min(RETRY_FIRST * (1 << self.rounds.min(8))));
        self.rounds += u32::from(all_failed);
        self.tried.clear();
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        }
    }

    /// Refuses the client, with the reason.
    pub async fn refuse(
        &self,
        vain: &Vain,
        worker: &Worker,
        service: &Service,
        client: &mut Client,
    ) {
        let Some(refusal) = self.note_refusal(vain, worker, service) else { return };
        let Words { sqlstate, message, detail, hint } = &refusal;
        client.refuse(&ErrorFields { sqlstate, message, detail, hint }).await;
    }

    /// Counts and logs that the client is refused. Returns what it reads; none if it has left.
    pub fn note_refusal(&self, vain: &Vain, worker: &Worker, service: &Service) -> Option<Words> {
        let mut words = words(vain, service, self.began)?;
        service.stats.refused_total.fetch_add(1, Ordering::Relaxed);
        let snapshot = worker.snapshot();
        let mut detail = snapshot.why_shut(&service.name);
        if let Some(failure) = &self.last_failure {
            detail = format!("{detail}; last try: {failure}");
        }
        tracing::info!(service = %service.name, message = %words.message, %detail, "client refused");
        words.detail = detail;
        Some(words)
    }
}

fn choices(targets: &[Target]) -> Vec<Choice> {
    let choice =
        |target: &Target| Choice { member: target.member.clone(), generation: target.generation };
    targets.iter().map(choice).collect()
}

fn names(targets: &[Target]) -> Vec<MemberName> {
    targets.iter().map(|target| target.member.clone()).collect()
}

/// Dials a member, unless its address is one of pgsteer itself.
async fn dial_member(
    worker: &Worker,
    addresses: &[SocketAddr],
    limit: Duration,
) -> io::Result<TcpStream> {
    let shared = worker.shared();
    addresses.iter().try_for_each(|address| shared.own.check(*address))?;
    dial(addresses, limit, worker.limits()).await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use pgsteer_core::claim::Role;
    use pgsteer_core::names::ServiceName;
    use pgsteer_core::settings::ServiceConfig;
    use tokio::sync::watch;

    use super::*;
    use crate::http::sample;
    use crate::proxy::Shared;

    #[tokio::test]
    async fn an_early_login_waits_until_all_workers_have_acted_on_the_open_gate() {
        let snapshot = sample::calm();
        let name = ServiceName::new("write").unwrap();
        let member = snapshot.services[&name].open().next().unwrap().clone();
        let generation = opened_in(&snapshot, &name, &member).unwrap();
        let (_publish, snapshots) = watch::channel(Arc::new(snapshot));
        let worker = Worker::new(0, Shared::of_workers(2, snapshots));
        let config = ServiceConfig {
            hold: Duration::from_secs(60),
            ..ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary)
        };
        let service = Service::alone(name, config);
        let search = Search::begin([127, 0, 0, 1].into(), Arc::default());
        let mut opened = pin!(search.opened(&worker, &service, &member));
        let mut look = || opened.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(look(), Poll::Pending);
        worker.barrier().acknowledge(0, generation);
        assert_eq!(look(), Poll::Pending);
        worker.barrier().acknowledge(1, generation);
        assert_eq!(look(), Poll::Ready(Ok(())));
    }
}
