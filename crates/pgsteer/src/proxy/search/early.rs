//! The search's part of an early login: the connection to the member that is being promoted, and the
//! wait for its gate.

use pgsteer_core::names::MemberName;
use tokio::time::{sleep_until, timeout};

use super::{Search, dial_member};
use crate::proxy::balance::{Target, opened_in, pick_early};
use crate::proxy::client::Client;
use crate::proxy::connected::Connected;
use crate::proxy::hold_error::HoldError;
use crate::proxy::seat::Assignment;
use crate::proxy::service::Context;

impl Search {
    /// Connects to the member that is being promoted, if the client may log in early and if one of the
    /// first slots and a permit are free.
    pub(super) async fn connect_early(
        &mut self,
        client: &Client,
    ) -> Result<Option<Connected>, HoldError> {
        if !self.may_log_in_early {
            return Ok(None);
        }
        let Context { worker, service } = self.context.clone();
        let Some(target) = pick_early(&worker.snapshot(), &service) else { return Ok(None) };
        let deadline = self.deadline()?;
        let Some(slot) = worker.shared().queues.of(&target.member).early_slot() else {
            return Ok(None);
        };
        let permit = service.capacity.take_early(&target.member);
        let Some(permit) = permit else { return Ok(None) };
        (self.position, self.movable) = (None, None);
        self.may_log_in_early = false;
        let held = self.hold();
        let stats = service.stats.member(&target.member);
        let Target { member, postgres, addresses, .. } = target;
        let assignment = Assignment { service: service.name.clone(), member, postgres };
        let seat = worker.registry().take_early(assignment, stats);
        let limit = service.config.connect_timeout;
        let failure = tokio::select! {
            biased;
            _ = seat.ending() => "its promotion has ended".to_owned(),
            dialled = dial_member(&worker, &addresses, limit) => match dialled {
                Ok(server) => {
                    let (slot, held, sticking) = (Some(slot), Some(held), None);
                    return Ok(Some(Connected { server, slot, seat, permit, sticking, held }));
                }
                Err(error) => error.to_string(),
            },
            // The ordinary search follows, whose limits do not end with the hold.
            () = worker.gate_opened(&service.name, seat.member()) => return Ok(None),
            () = client.gone() => return Err(HoldError::ClientGone),
            () = sleep_until(deadline) => return Err(HoldError::TimedOut),
        };
        self.failed(&seat, &failure);
        Ok(None)
    }

    /// Waits until the gate of `member` is open and all workers have acted on that Snapshot. If the
    /// promotion ends without success, the seat of the early login is ended instead.
    ///
    /// # Errors
    /// The hold is over, or pgsteer is shutting down.
    pub async fn gate_opened(&self, member: &MemberName) -> Result<(), HoldError> {
        let Context { worker, service } = &self.context;
        loop {
            let observed = worker.observe();
            let opened_in = opened_in(&worker.snapshot(), &service.name, member);
            match opened_in {
                Some(generation) if worker.barrier().is_passed(generation) => return Ok(()),
                // The gate may have changed by the time all workers have acted.
                Some(generation) => {
                    let acted = worker.barrier().wait(generation);
                    let limit = service.config.connect_timeout;
                    timeout(limit, acted).await.map_err(|_| HoldError::TimedOut)?;
                }
                None => {
                    let deadline = self.deadline()?;
                    tokio::select! {
                        biased;
                        () = worker.changed_since(observed) => {}
                        () = sleep_until(deadline) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{self, Poll, Waker};
    use std::time::Duration;

    use pgsteer_core::claim::Role;
    use pgsteer_core::names::ServiceName;
    use pgsteer_core::settings::ServiceConfig;
    use tokio::sync::watch;

    use super::*;
    use crate::http::sample;
    use crate::proxy::service::Service;
    use crate::proxy::shared::Shared;
    use crate::proxy::worker::Worker;

    #[tokio::test]
    async fn an_early_login_waits_until_all_workers_have_acted_on_the_open_gate() {
        let snapshot = sample::calm();
        let name = ServiceName::new("write").unwrap();
        let member = snapshot.services[&name].open().next().unwrap().clone();
        let generation = opened_in(&snapshot, &name, &member).unwrap();
        let (_publish, snapshots) = watch::channel(Arc::new(snapshot));
        let worker = Rc::new(Worker::new(0, Shared::of_workers(2, snapshots)));
        let config = ServiceConfig {
            hold: Duration::from_secs(60),
            ..ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary)
        };
        let service = Arc::new(Service::alone(name, config));
        let context = Context { worker: Rc::clone(&worker), service };
        let search = Search::new(context, [127, 0, 0, 1].into());
        let mut opened = pin!(search.gate_opened(&member));
        let mut look = || opened.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
        assert_eq!(look(), Poll::Pending);
        worker.barrier().acknowledge(0, generation);
        assert_eq!(look(), Poll::Pending);
        worker.barrier().acknowledge(1, generation);
        assert_eq!(look(), Poll::Ready(Ok(())));
    }
}
