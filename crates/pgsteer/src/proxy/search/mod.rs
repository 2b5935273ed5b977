//! The search of one client for a member: it waits for an open gate, waits for a permit where
//! sessions are limited, dials, and tries the next member after a failure.
//!
//! While a member is being promoted, the first few clients on hold are connected to it before its gate
//! opens, and log in early. They do not wait for a fork and a login after the gate has opened.

mod early;
mod wait;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgsteer_core::names::MemberName;
use pgsteer_core::settings::Stick;
use pgsteer_wire::error::ErrorFields;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::balance::{Target, prefer, targets};
use super::capacity::{Choice, Permit, Position};
use super::client::Client;
use super::connected::Connected;
use super::held::Held;
use super::hold_error::{ErrorText, HoldError};
use super::seat::{Assignment, Seat};
use super::service::Context;
use super::shared::{Movable, Phase};
use super::tcp::dial;
use super::worker::Worker;

/// Lower than the generation of any Snapshot.
const NONE_READ: u64 = 0;

/// The search of one client for a member, over as many tries as it takes.
#[derive(Debug)]
pub struct Search {
    context: Context,
    /// The address of the client.
    address: IpAddr,
    /// The client uses TLS, so pgsteer cannot read its bytes.
    is_opaque: bool,
    /// The position of the client in the order of arrival, from its first request for a member on.
    ticket: Option<u64>,
    /// Keeps that position in the queue while the client has no permit.
    position: Option<Position>,
    /// The time of the first request for a member.
    began: Option<Instant>,
    /// The members that have failed in this round.
    tried: BTreeSet<MemberName>,
    /// The rounds in which every open member has failed.
    rounds: u32,
    was_held: bool,
    /// The client may log in early. This is tried once; after a failure the client waits for the gate.
    may_log_in_early: bool,
    /// The client has received nothing from a member, and can move to another process.
    may_move: bool,
    /// Counts the client while it waits and can move.
    movable: Option<Movable>,
    last_failure: Option<String>,
}

impl Search {
    /// A search for a client at `address`. It begins when a member is first requested.
    pub fn new(context: Context, address: IpAddr) -> Search {
        Search {
            context,
            address,
            is_opaque: false,
            ticket: None,
            position: None,
            began: None,
            tried: BTreeSet::new(),
            rounds: 0,
            was_held: false,
            may_log_in_early: false,
            may_move: true,
            movable: None,
            last_failure: None,
        }
    }

    /// The search of a client that another process has begun: the client has been on hold for
    /// `waited`, and has the position `ticket`. It keeps the clients behind it waiting until it has read
    /// the Snapshot.
    pub fn resume(&mut self, waited: Option<Duration>, ticket: Option<u64>) {
        self.began = waited.map(|waited| ago(Instant::now(), waited));
        self.ticket = ticket;
        // The other process has counted it.
        self.was_held = waited.is_some();
        if let Some(ticket) = ticket {
            let capacity = &self.context.service.capacity;
            self.position = Some(capacity.position(ticket));
            capacity.look(ticket, NONE_READ);
        }
    }

    /// Counts the client as one that waits and can move to another process.
    pub fn begin_wait(&mut self) {
        let shared = self.context.worker.shared();
        self.movable.get_or_insert_with(|| Movable::new(shared));
    }

    /// Ends [`Search::begin_wait`] when the result is dropped.
    pub fn end_wait(&mut self) -> Option<Movable> {
        self.movable.take()
    }

    /// How long the client has been on hold, and its position.
    pub fn progress(&self) -> (Option<Duration>, Option<u64>) {
        (self.began.map(|began| began.elapsed()), self.ticket)
    }

    /// Notes that a login begins, so the client cannot move to another process before its end.
    pub fn stays(&mut self) {
        self.may_move = false;
    }

    /// Notes that no login is under way and that the client has received nothing from a member, so it
    /// can move to another process.
    pub fn may_move(&mut self) {
        self.may_move = true;
    }

    /// Notes that the client uses TLS.
    pub fn set_opaque(&mut self) {
        self.is_opaque = true;
    }

    /// Permits an early login: the login is not encrypted and can be held back.
    pub fn allow_early_login(&mut self) {
        self.may_log_in_early = true;
    }

    /// Notes that a member has failed, and why.
    pub fn failed(&mut self, seat: &Seat, why: &str) {
        seat.stats().failed_total.fetch_add(1, Ordering::Relaxed);
        let member = seat.member();
        tracing::debug!(%member, why, "member failed, the client is connected to another one");
        self.last_failure = Some(format!("{member}: {why}"));
        // The failure of an early login does not show whether the member works after its promotion.
        if !seat.is_early() {
            self.context.worker.shared().stats.refusal_hints.give(member);
            self.tried.insert(member.clone());
        }
    }

    /// Notes that a member accepts no more sessions at present. The client tries it again when it has
    /// a permit.
    pub fn full(&mut self, seat: &Seat, why: &str) {
        seat.stats().failed_total.fetch_add(1, Ordering::Relaxed);
        let member = seat.member();
        self.context.worker.shared().stats.refusal_hints.give(member);
        tracing::debug!(%member, why, "member refuses the login, the client waits");
        self.last_failure = Some(format!("{member}: {why}"));
    }

    /// Returns true if an open member was not tried yet.
    pub fn has_alternative(&self) -> bool {
        let Context { worker, service } = &self.context;
        !targets(&worker.snapshot(), service, &self.tried, 0).is_empty()
    }

    /// The members that the client can use, best first; `rotation` orders equal ones.
    fn targets(&self, rotation: usize) -> Vec<Target> {
        let Context { worker, service } = &self.context;
        let mut targets = targets(&worker.snapshot(), service, &self.tried, rotation);
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

    /// Connects to a member; the client is on hold while there is none.
    ///
    /// # Errors
    /// The hold has ended without a member.
    pub async fn connect(&mut self, client: &Client) -> Result<Connected, HoldError> {
        let found = self.find(client).await;
        // A client that reads its error must not keep its position in front of other clients.
        self.position = None;
        if !matches!(found, Err(HoldError::Moves)) {
            self.movable = None;
        }
        found
    }

    async fn find(&mut self, client: &Client) -> Result<Connected, HoldError> {
        let Context { worker, service } = self.context.clone();
        self.began();
        let ticket = *self.ticket.get_or_insert_with(|| worker.shared().next_ticket());
        loop {
            if self.may_move {
                self.begin_wait();
                if worker.phase() == Phase::Leaving {
                    return Err(HoldError::Moves);
                }
            }
            self.wait_for_guard(client).await?;
            let observed = worker.observe();
            let seen = worker.snapshot().generation;
            // One rotation for this round: with two, the same one of two equal members would always be
            // the first.
            let rotation = worker.next_rotation();
            let mut targets = self.targets(rotation);
            self.position.get_or_insert_with(|| service.capacity.position(ticket));
            let Some(generation) = targets.first().map(|target| target.generation) else {
                service.capacity.look(ticket, seen);
                if let Some(connected) = self.connect_early(client).await? {
                    return Ok(connected);
                }
                self.wait_for_change(client, observed).await?;
                continue;
            };
            targets.retain(|target| worker.barrier().is_passed(target.generation));
            if targets.is_empty() {
                // The gate may have changed by the time all workers have acted.
                self.wait_for_barrier(client, generation).await?;
                continue;
            }
            let choices = choices(&targets);
            let permit = match service.capacity.take(ticket, seen, &choices) {
                Ok(permit) => permit,
                Err(waiting) => {
                    match self.wait_for_permit(client, waiting, observed, &choices).await? {
                        Some(permit) => permit,
                        None => continue,
                    }
                }
            };
            // The gate may have been shut while the client waited for the permit.
            let mut targets = self.targets(rotation).into_iter();
            let is_permitted = |target: &Target| {
                target.member == *permit.member() && worker.barrier().is_passed(target.generation)
            };
            let Some(target) = targets.find(is_permitted) else { continue };
            self.position = None;
            if let Some(connected) = self.dial(client, target, permit).await? {
                return Ok(connected);
            }
        }
    }

    /// Dials one member. Returns none if it cannot be reached. The seat is taken before the first
    /// await, so that no Snapshot can shut the gate between the check of the gate and the seat.
    async fn dial(
        &mut self,
        client: &Client,
        target: Target,
        permit: Permit,
    ) -> Result<Option<Connected>, HoldError> {
        let Context { worker, service } = self.context.clone();
        let is_sticky = service.config.stick == Stick::Address;
        let sticking = is_sticky.then(|| service.affinity.sticking(self.address));
        let stats = service.stats.member(&target.member);
        let (service_name, member) = (service.name.clone(), target.member);
        let assignment = Assignment { service: service_name, member, postgres: target.postgres };
        let seat = worker.registry().take(assignment, stats);
        let Some(slot) = self.wait_for_slot(client, &seat).await? else {
            self.failed(&seat, "its gate was shut before this client had a slot");
            return Ok(None);
        };
        // The attempt may take long, so the upgrade does not wait for its end.
        self.movable = None;
        let (limit, began) = (service.config.connect_timeout, Instant::now());
        let failure = tokio::select! {
            biased;
            _ = seat.ending() => "its gate was shut before it was connected".to_owned(),
            dialled = dial_member(&worker, &target.addresses, limit) => match dialled {
                Ok(server) => {
                    service.stats.dials.observe(began.elapsed());
                    let (slot, held) = (Some(slot), None);
                    return Ok(Some(Connected { server, slot, seat, permit, sticking, held }));
                }
                Err(error) => error.to_string(),
            },
        };
        self.failed(&seat, &failure);
        Ok(None)
    }

    /// Counts the client as on hold until the result is dropped.
    fn hold(&mut self) -> Held {
        let service = &self.context.service;
        if !std::mem::replace(&mut self.was_held, true) {
            service.stats.holds.clients_total.fetch_add(1, Ordering::Relaxed);
        }
        Held::new(service)
    }

    /// Sends the client the error of its hold.
    pub async fn refuse(&self, error: &HoldError, client: &mut Client) {
        let Some(text) = self.note_refusal(error) else { return };
        let ErrorText { sqlstate, message, detail, hint } = &text;
        client.refuse(&ErrorFields { sqlstate, message, detail, hint }).await;
    }

    /// Counts and logs a refused client. Returns the error for it; none if it has disconnected.
    pub fn note_refusal(&self, error: &HoldError) -> Option<ErrorText> {
        let Context { worker, service } = &self.context;
        let waited = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let mut text = error.text(service, waited)?;
        service.stats.refused_total.fetch_add(1, Ordering::Relaxed);
        let snapshot = worker.snapshot();
        let mut detail = snapshot.why_shut(&service.name);
        if let Some(failure) = &self.last_failure {
            detail = format!("{detail}; last try: {failure}");
        }
        tracing::info!(service = %service.name, message = %text.message, %detail, "client refused");
        text.detail = detail;
        Some(text)
    }
}

/// The time `age` before `now`.
pub fn ago(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
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
