//! The waits of a search. Each has a limit, and ends when the client disconnects.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Search;
use crate::proxy::capacity::{Choice, Permit, Waiting};
use crate::proxy::client::Client;
use crate::proxy::guard::Guard;
use crate::proxy::held::Queued;
use crate::proxy::hold_error::HoldError;
use crate::proxy::queue::Slot;
use crate::proxy::seat::Seat;
use crate::proxy::service::Context;
use crate::proxy::shared::Phase;
use crate::proxy::worker::Observed;

/// When every open member has failed, the next round starts after the first pause. The pause doubles
/// with each round up to the longest one. A change of a gate ends it.
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(20);
const RETRY_PAUSE_LONGEST: Duration = Duration::from_millis(500);

impl Search {
    /// The time of the first request for a member.
    pub(super) fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }

    /// The end of the hold.
    ///
    /// # Errors
    /// The hold is over, pgsteer is shutting down, or the client moves to another process.
    pub(super) fn deadline(&self) -> Result<Instant, HoldError> {
        let Context { worker, service } = &self.context;
        let now = Instant::now();
        let deadline = self.began.unwrap_or(now) + service.config.hold;
        match worker.phase() {
            _ if now >= deadline => Err(HoldError::TimedOut),
            Phase::Stopping => Err(HoldError::Stopping),
            Phase::Leaving if self.may_move => Err(HoldError::Moves),
            Phase::Serving | Phase::Leaving => Ok(deadline),
        }
    }

    /// The deadline of a wait for a member whose gate is open: `connect_timeout`, or the end of the
    /// hold if that is later. A service without a hold needs these waits too.
    fn deadline_at_open_gate(&mut self) -> Instant {
        let config = &self.context.service.config;
        let (connect_timeout, hold) = (config.connect_timeout, config.hold);
        (Instant::now() + connect_timeout).max(self.began() + hold)
    }

    /// Waits for `work` at an open gate, unless the client moves to another process. `what` is the reason in
    /// the error of a client whose time is over.
    async fn wait_at_open_gate<T>(
        &mut self,
        client: &Client,
        work: impl Future<Output = T>,
        what: impl FnOnce() -> String,
    ) -> Result<T, HoldError> {
        let deadline = self.deadline_at_open_gate();
        let worker = self.context.worker.clone();
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = worker.leaving(), if self.may_move => Err(HoldError::Moves),
            () = client.gone() => Err(HoldError::ClientGone),
            () = sleep_until(deadline) => {
                self.last_failure = Some(what());
                Err(HoldError::TimedOut)
            }
        }
    }

    /// Waits until bytes may be sent to a member.
    pub(super) async fn wait_for_guard(&mut self, client: &Client) -> Result<(), HoldError> {
        let context = self.context.clone();
        let guard = Guard::of(&context.worker, &context.service);
        if guard.lets_pass() {
            return Ok(());
        }
        let what = || "pgsteer's engine has not run for a while".to_owned();
        self.wait_at_open_gate(client, guard.pass(), what).await
    }

    /// Waits until all workers have acted on the Snapshot `generation`.
    pub(super) async fn wait_for_barrier(
        &mut self,
        client: &Client,
        generation: u64,
    ) -> Result<(), HoldError> {
        let worker = self.context.worker.clone();
        let what = || "pgsteer is still ending sessions to another member".to_owned();
        self.wait_at_open_gate(client, worker.barrier().wait(generation), what).await
    }

    /// Waits for a slot in the login queue of the member. None if its gate is shut meanwhile.
    pub(super) async fn wait_for_slot(
        &mut self,
        client: &Client,
        seat: &Seat,
    ) -> Result<Option<Slot>, HoldError> {
        let Context { worker, service } = self.context.clone();
        let queue = worker.shared().queues.of(seat.member());
        let slot = async {
            tokio::select! {
                biased;
                _ = seat.ending() => None,
                slot = queue.slot() => Some(slot),
                () = worker.gate_shut(&service.name, seat.member()) => None,
            }
        };
        let what = || format!("{}: too many logins wait for an answer", seat.member());
        self.wait_at_open_gate(client, slot, what).await
    }

    /// Waits in the queue for a permit for one of `choices`. The client is on hold meanwhile. None if
    /// the gates have changed first.
    pub(super) async fn wait_for_permit(
        &mut self,
        client: &Client,
        mut waiting: Waiting,
        observed: Observed,
        choices: &[Choice],
    ) -> Result<Option<Permit>, HoldError> {
        let Context { worker, service } = self.context.clone();
        let shortage =
            || service.capacity.shortage(choices).map_or(HoldError::TimedOut, HoldError::NoPermit);
        let deadline = match self.deadline() {
            Err(HoldError::TimedOut) if service.capacity.is_paused() => {
                return self.wait_for_arrivals(client, waiting).await;
            }
            Err(HoldError::TimedOut) => return Err(shortage()),
            deadline => deadline?,
        };
        let _held = self.hold();
        let _queued = Queued::new(&service);
        tokio::select! {
            biased;
            permit = waiting.granted() => Ok(Some(permit)),
            () = worker.changed_since(observed) => Ok(waiting.granted_now()),
            () = client.gone() => Err(HoldError::ClientGone),
            () = sleep_until(deadline) => Err(shortage()),
        }
    }

    /// Waits until the sessions of another process have arrived. A service without a hold needs this wait
    /// too: before they have arrived, the number of sessions is not known.
    async fn wait_for_arrivals(
        &mut self,
        client: &Client,
        mut waiting: Waiting,
    ) -> Result<Option<Permit>, HoldError> {
        let service = Arc::clone(&self.context.service);
        let _held = self.hold();
        let _queued = Queued::new(&service);
        let what = || "the sessions of the former process of pgsteer have not arrived".to_owned();
        self.wait_at_open_gate(client, service.capacity.resumed(), what).await?;
        Ok(waiting.granted_now())
    }

    /// Waits until a gate has changed since `observed`, or until failed members can be tried again. The
    /// client is on hold meanwhile.
    pub(super) async fn wait_for_change(
        &mut self,
        client: &Client,
        observed: Observed,
    ) -> Result<(), HoldError> {
        let worker = self.context.worker.clone();
        let deadline = self.deadline()?;
        if self.may_move {
            self.begin_wait();
        }
        let _held = self.hold();
        let retry = self.retry_pause();
        tokio::select! {
            biased;
            () = worker.changed_since(observed) => Ok(()),
            () = client.gone() => Err(HoldError::ClientGone),
            () = retry => Ok(()),
            () = sleep_until(deadline) => Ok(()),
        }
    }

    /// The pause before failed members are tried again; it does not end if no member has failed.
    fn retry_pause(&mut self) -> impl Future<Output = ()> + use<> {
        let all_failed = !self.tried.is_empty();
        let factor = 1 << self.rounds.min(8);
        let pause = all_failed.then(|| RETRY_PAUSE_LONGEST.min(RETRY_PAUSE_FIRST * factor));
        self.rounds += u32::from(all_failed);
        self.tried.clear();
        async move {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => pending().await,
            }
        }
    }
}
