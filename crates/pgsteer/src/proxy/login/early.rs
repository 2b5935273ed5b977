//! An early login: a login at a member that is being promoted, while its client is on hold.
//!
//! The gate of the member is shut when the login begins. The server's burst is held back until the
//! login is complete and the gate is open to all workers. Then a Sync makes the server report whether
//! it has been promoted, and the client receives the burst.
//!
//! ```text
//!              login complete
//!   LoggingIn ----------------> HeldBack
//!       |                          |
//!       | gate opened              | gate opened
//!       v                          v
//!   Admitted -----------------> Confirming ---> delivered
//!              login complete      Sync
//! ```

use std::mem::replace;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::relay::{Refused, Relay, RelayError};
use super::{FIRST_ANSWER_TIMEOUTS, Login, Outcome, is_pooler};
use crate::proxy::client::Client;
use crate::proxy::connected::Connected;
use crate::proxy::guard::Guard;
use crate::proxy::held::Held;
use crate::proxy::hold_error::HoldError;
use crate::proxy::login::relay::Rules;
use crate::proxy::queue::Slot;
use crate::proxy::seat::Seat;
use crate::proxy::service::Service;

/// The gate of the member of an early login.
#[derive(Debug)]
pub struct GateWatch<O, S> {
    /// Completes when the gate is open to all workers, or when the hold has ended.
    pub opened: O,
    /// Completes when the gate is shut again. It is polled after `opened` has completed.
    pub shut: S,
    /// The time limit of the login from the opening on.
    pub limit: Duration,
}

/// The state of an early login.
#[derive(Debug)]
enum State {
    /// The gate is shut, and the login is not complete.
    LoggingIn(Parked),
    /// The gate is shut, and the login is complete: the burst is held back.
    HeldBack(Parked),
    /// The gate is open, and the login is not complete.
    Admitted,
    /// The gate is open, and the login is complete: the server has to confirm its promotion.
    Confirming(Option<Slot>),
}

/// What an early login occupies while the gate is shut.
#[derive(Debug)]
struct Parked {
    /// A slot in the member's login queue. There are few, so few logins are early.
    slot: Option<Slot>,
    /// The client counts as on hold.
    _held: Option<Held>,
}

/// Why an early login has ended.
enum Stop {
    /// The client has to leave the member, with the reason.
    Leave(&'static str),
    /// The hold has ended.
    Hold(HoldError),
    /// The login takes too long.
    TimedOut,
    /// The relay has ended.
    Relay(RelayError),
}

impl State {
    /// The gate is open to all workers. The client is not on hold any more. A login that is not complete
    /// gives its slot back, because a slow client must not delay others.
    fn gate_opened(self) -> State {
        match self {
            State::LoggingIn(_) => State::Admitted,
            State::HeldBack(parked) => State::Confirming(parked.slot),
            other => other,
        }
    }

    /// The server is ready for the first time.
    fn login_completed(self) -> State {
        match self {
            State::LoggingIn(parked) => State::HeldBack(parked),
            State::Admitted => State::Confirming(None),
            other => other,
        }
    }

    fn is_held_back(&self) -> bool {
        matches!(self, State::HeldBack(_))
    }

    /// The slot that is still occupied.
    fn into_slot(self) -> Option<Slot> {
        match self {
            State::LoggingIn(parked) | State::HeldBack(parked) => parked.slot,
            State::Admitted => None,
            State::Confirming(slot) => slot,
        }
    }
}

/// An early login with its seat and its gate.
struct EarlyLogin<'a, O, S> {
    state: State,
    seat: &'a Seat,
    opened: Pin<&'a mut O>,
    shut: Pin<&'a mut S>,
    limit: Duration,
    /// The time limit of the login, once the gate is open.
    deadline: Option<Instant>,
}

impl<O, S> EarlyLogin<'_, O, S>
where
    O: Future<Output = Result<(), HoldError>>,
    S: Future<Output = ()>,
{
    /// Relays the login to its end.
    async fn run(
        mut self,
        relay: &mut Relay<'_>,
        client: &mut Client,
        server: &mut TcpStream,
    ) -> Result<Outcome, Stop> {
        // The gate is shut at the start, so that is no reason to give up the server.
        let ignored = std::future::pending();
        let ready = self.meanwhile(relay.run(client, server, &mut None, ignored)).await?;
        self.state = replace(&mut self.state, State::Admitted).login_completed();
        self.meanwhile(relay.hold_back(ready, client)).await?;
        while self.state.is_held_back() {
            let bytes = tokio::select! {
                biased;
                event = self.gate_or_seat() => {
                    event?;
                    continue;
                }
                () = client.gone() => return Err(Stop::Relay(RelayError::Abandoned)),
                bytes = Relay::read(server) => bytes?,
            };
            relay.handle_unrequested(&bytes, client).await?;
        }
        let ready = self.meanwhile(relay.synchronize(client, server)).await?;
        if let Some(slot) = replace(&mut self.state, State::Admitted).into_slot() {
            slot.answered();
        }
        let delivering = async { Ok(relay.deliver(ready, client, server).await) };
        self.meanwhile(delivering).await
    }

    /// Runs `work`, and handles the events of the gate and of the seat meanwhile.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = Result<T, RelayError>>,
    ) -> Result<T, Stop> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                event = self.gate_or_seat() => event?,
                done = &mut work => return Ok(done?),
            }
        }
    }

    /// Waits for the gate to open, and changes the state then. Safe to cancel.
    ///
    /// # Errors
    /// The login has to end.
    async fn gate_or_seat(&mut self) -> Result<(), Stop> {
        let Some(deadline) = self.deadline else {
            let opened = tokio::select! {
                biased;
                _ = self.seat.ending() => return Err(Stop::Leave(NOT_PROMOTED)),
                opened = self.opened.as_mut() => opened,
            };
            opened.map_err(Stop::Hold)?;
            self.seat.admit();
            self.state = replace(&mut self.state, State::Admitted).gate_opened();
            self.deadline = Some(Instant::now() + self.limit);
            return Ok(());
        };
        tokio::select! {
            biased;
            _ = self.seat.ending() => Err(Stop::Leave(NOT_PROMOTED)),
            () = sleep_until(deadline) => Err(Stop::TimedOut),
            () = self.shut.as_mut() => Err(Stop::Leave("its gate was shut during the login")),
        }
    }
}

const NOT_PROMOTED: &str = "it did not become the primary";

impl Login {
    /// Tries to log the client in at a member whose gate is not open yet.
    pub async fn attempt_early(
        &mut self,
        service: &Service,
        guard: Guard<'_>,
        client: &mut Client,
        connected: &mut Connected,
        gate: GateWatch<impl Future<Output = Result<(), HoldError>>, impl Future<Output = ()>>,
    ) -> Outcome {
        let Connected { server, seat, slot, held, .. } = connected;
        self.client_bytes.append(&mut client.ahead);
        let rules = Rules {
            refuses_standby: !is_pooler(service, server),
            ends_client_input: true,
            first_answer_limit: service.config.connect_timeout * FIRST_ANSWER_TIMEOUTS,
        };
        let GateWatch { opened, shut, limit } = gate;
        let (opened, shut) = (pin!(opened), pin!(shut));
        let early = EarlyLogin {
            state: State::LoggingIn(Parked { slot: slot.take(), _held: held.take() }),
            seat,
            opened,
            shut,
            limit,
            deadline: None,
        };
        let mut relay = Relay::new(self, guard, rules);
        let stop = match early.run(&mut relay, client, server).await {
            Ok(outcome) => return outcome,
            Err(stop) => stop,
        };
        match stop {
            Stop::Leave(why) => self.leave(why),
            Stop::Hold(error) => Outcome::HoldEnded(error),
            Stop::TimedOut | Stop::Relay(RelayError::Abandoned) => Outcome::Abandoned,
            // A standby may refuse what it accepts as the primary.
            Stop::Relay(RelayError::Refused(Refused { sqlstate, message, .. })) => {
                Outcome::MemberFailed(format!("{message} ({sqlstate})"))
            }
            Stop::Relay(RelayError::Closed) => {
                let why = "it closed the connection before it was the primary";
                Outcome::MemberFailed(why.to_owned())
            }
            Stop::Relay(RelayError::Failed(why)) => Outcome::MemberFailed(why),
        }
    }
}

impl From<RelayError> for Stop {
    fn from(error: RelayError) -> Stop {
        Stop::Relay(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgsteer_core::claim::Role;
    use pgsteer_core::names::ServiceName;
    use pgsteer_core::settings::ServiceConfig;

    use super::*;
    use crate::proxy::queue::Queue;

    fn begun(queue: &Arc<Queue>, service: &Arc<Service>) -> State {
        let slot = Arc::clone(queue).early_slot();
        assert!(slot.is_some());
        State::LoggingIn(Parked { slot, _held: Some(Held::new(service)) })
    }

    #[tokio::test]
    async fn the_order_of_gate_and_login_decides_which_session_keeps_the_slot() {
        let config = ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary);
        let service = Arc::new(Service::alone(ServiceName::new("write").unwrap(), config));
        let held = || service.stats.holds.clients();
        let queue = Arc::new(Queue::default());
        // The login is complete first.
        let state = begun(&queue, &service).login_completed();
        assert!(state.is_held_back());
        assert_eq!(held(), 1);
        let state = state.gate_opened();
        assert!(matches!(state, State::Confirming(Some(_))), "{state:?}");
        assert_eq!(held(), 0, "its client is not on hold any more");
        drop(state);
        // The gate opens first.
        let state = begun(&queue, &service).gate_opened();
        assert!(matches!(state, State::Admitted), "{state:?}");
        assert_eq!(held(), 0);
        let state = state.login_completed();
        assert!(matches!(state, State::Confirming(None)), "{state:?}");
        // No event repeats.
        assert!(matches!(state.gate_opened().login_completed(), State::Confirming(None)));
    }
}
