//! From a parked client to a connected member: wait for a gate, dial, try the next one.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgsteer_core::names::MemberName;
use pgsteer_core::wire::error::{ErrorFields, sqlstate};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::balance::{Target, pick};
use super::client::Client;
use super::queue::Turn;
use super::seat::{Place, Seat};
use super::tcp::dial;
use super::worker::Worker;
use super::{Phase, Service};

/// When every open member has failed, the next round starts after this, then after twice that,
/// up to the longest; or at once when a gate moves.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// A server connection, and the seat that keeps it endable.
#[derive(Debug)]
pub struct Connected {
    /// The connection to the member. Declared before the seat, so that it is closed first.
    pub server: TcpStream,
    /// The turn at the member, given back when it has said its first word.
    pub turn: Option<Turn>,
    /// The seat.
    pub seat: Seat,
}

/// One client's way to a member, over as many tries as it takes.
#[derive(Debug)]
pub struct Search {
    /// When the client first wanted a member.
    began: Option<Instant>,
    /// Members that failed in this round.
    tried: BTreeSet<MemberName>,
    /// Rounds in which every open member failed.
    rounds: u32,
    was_held: bool,
    last_failure: Option<String>,
}

/// Why a search came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Vain {
    /// The time on hold is up.
    TimeUp,
    /// The client went away.
    ClientGone,
    /// pgsteer is shutting down.
    Stopping,
}

impl Search {
    /// A search that begins when a member is first asked for.
    pub fn begin() -> Search {
        Search {
            began: None,
            tried: BTreeSet::new(),
            rounds: 0,
            was_held: false,
            last_failure: None,
        }
    }

    fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }

    /// Notes that a member did not do, and why.
    pub fn failed(&mut self, seat: &Seat, why: &str) {
        seat.stats().failed_total.fetch_add(1, Ordering::Relaxed);
        let member = seat.member();
        tracing::debug!(%member, why, "member did not do, trying on");
        self.last_failure = Some(format!("{member}: {why}"));
        self.tried.insert(member.clone());
    }

    /// Another open member is there that was not tried yet.
    pub fn has_alternative(&self, worker: &Worker, service: &Service) -> bool {
        pick(&worker.snapshot(), service, &self.tried, 0).is_some()
    }

    /// Connects to a member, after waiting for one if need be.
    pub async fn connect(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
    ) -> Result<Connected, Vain> {
        self.began();
        loop {
            let target = match pick(&worker.snapshot(), service, &self.tried, worker.next_turn()) {
                Some(target) => target,
                None => {
                    self.park(worker, service, client).await?;
                    continue;
                }
            };
            if !worker.barrier().is_passed(target.generation) {
                // The gate may have moved again by the time all workers have acted.
                worker.barrier().wait(target.generation).await;
                continue;
            }
            if let Some(connected) = self.dial(worker, service, client, target).await? {
                return Ok(connected);
            }
        }
    }

    /// Dials one member; no await lies between the look at the gate and the taking of the seat.
    async fn dial(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
        target: Target,
    ) -> Result<Option<Connected>, Vain> {
        let stats = service.stats.member(&target.member);
        let (service_name, member) = (service.name.clone(), target.member);
        let place = Place { service: service_name, member, postgres: target.postgres };
        let seat = worker.registry().take(place, stats);
        let Some(turn) = self.turn(worker, service, client, &seat).await? else {
            self.failed(&seat, "its gate was shut before it was this client's turn");
            return Ok(None);
        };
        let limit = service.config.connect_timeout;
        let failure = tokio::select! {
            biased;
            _ = seat.ending() => "its gate was shut before it was connected".to_owned(),
            dialled = dial(&target.addresses, limit, worker.limits()) => match dialled {
                Ok(server) => return Ok(Some(Connected { server, turn: Some(turn), seat })),
                Err(error) => error.to_string(),
            },
        };
        self.failed(&seat, &failure);
        Ok(None)
    }

    /// Waits for a turn at the member whose seat was taken. None if there will be none.
    async fn turn(
        &mut self,
        worker: &Worker,
        service: &Service,
        client: &Client,
        seat: &Seat,
    ) -> Result<Option<Turn>, Vain> {
        let queue = worker.shared().queues.before(seat.member());
        // Somebody who may not be held at all can still be second.
        let patience = Instant::now() + service.config.connect_timeout;
        let deadline = patience.max(self.began() + service.config.hold);
        tokio::select! {
            biased;
            _ = seat.ending() => Ok(None),
            turn = queue.turn() => Ok(Some(turn)),
            () = worker.shut(service.name.clone(), seat.member().clone()) => Ok(None),
            () = client.gone() => Err(Vain::ClientGone),
            () = sleep_until(deadline) => {
                self.last_failure = Some(format!("{}: too many wait for it", seat.member()));
                Err(Vain::TimeUp)
            }
        }
    }

    /// Waits until another look is worth while.
    async fn park(
        &mut self,
        worker: &Worker,
        service: &Arc<Service>,
        client: &Client,
    ) -> Result<(), Vain> {
        let deadline = self.began() + service.config.hold;
        if Instant::now() >= deadline {
            return Err(Vain::TimeUp);
        }
        if worker.phase() == Phase::Stopping {
            return Err(Vain::Stopping);
        }
        if !std::mem::replace(&mut self.was_held, true) {
            service.stats.held_total.fetch_add(1, Ordering::Relaxed);
        }
        let retry = self.next_round();
        let _held = Held::new(service);
        tokio::select! {
            biased;
            () = worker.moved() => Ok(()),
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

    /// Tells the client why it cannot be served.
    pub async fn refuse(
        &self,
        vain: &Vain,
        worker: &Worker,
        service: &Service,
        client: &mut Client,
    ) {
        let message = match vain {
            Vain::ClientGone => return,
            Vain::Stopping => "pgsteer is shutting down".to_owned(),
            Vain::TimeUp => format!(
                "pgsteer has no {} for service {} (waited {:.1} s)",
                service.config.role,
                service.name,
                self.began.map_or(Duration::ZERO, |began| began.elapsed()).as_secs_f64(),
            ),
        };
        service.stats.refused_total.fetch_add(1, Ordering::Relaxed);
        let snapshot = worker.snapshot();
        let mut detail =
            snapshot.services.get(&service.name).map_or_else(String::new, |state| state.why_shut());
        if let Some(failure) = &self.last_failure {
            detail = format!("{detail}; last try: {failure}");
        }
        tracing::info!(service = %service.name, %message, %detail, "client refused");
        client
            .refuse(&ErrorFields {
                sqlstate: sqlstate::CANNOT_CONNECT_NOW,
                message: &message,
                detail: &detail,
                hint: "`pgsteer status` shows every member and why its gate is shut.",
            })
            .await;
    }
}

/// A client on hold, counted.
struct Held<'a> {
    service: &'a Service,
    since: Instant,
}

impl<'a> Held<'a> {
    fn new(service: &'a Service) -> Held<'a> {
        service.stats.held.fetch_add(1, Ordering::Relaxed);
        Held { service, since: Instant::now() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let stats = &self.service.stats;
        stats.held.fetch_sub(1, Ordering::Relaxed);
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.held_ms_total.fetch_add(millis, Ordering::Relaxed);
    }
}
