//! The established session: bytes flow until the server, the client or the gate ends it.

use std::sync::atomic::Ordering;

use pgsteer_wire::error::{ErrorFields, sqlstate};

use super::{RECONNECT_HINT, Session};
use crate::proxy::affinity::Opaque;
use crate::proxy::connected::Connected;
use crate::proxy::guard::Guard;
use crate::proxy::pump::{End, Tail, pump};

impl Session {
    /// Moves bytes between the client and its member. `tail` contains the last bytes of the server, if
    /// they can be read. `opaque` records who sends, if they cannot.
    pub(super) async fn converse(
        mut self,
        mut connected: Connected,
        tail: Tail,
        opaque: Option<&Opaque>,
    ) {
        let service = &self.context.service;
        let stats = connected.seat.stats();
        stats.sessions_total.fetch_add(1, Ordering::Relaxed);
        connected.slot = None;
        let guard = Guard::of(&self.context.worker, service);
        let Connected { server, seat, .. } = &mut connected;
        let end = pump(&mut self.client.stream, server, seat, guard, tail, opaque).await;
        let Connected { server, seat, permit, sticking, .. } = connected;
        let member = seat.member().clone();
        service.stats.sessions.observe(self.since.elapsed());
        drop(server);
        drop(seat);
        drop((permit, sticking));
        tracing::debug!(service = %service.name, %member, ?end, "session over");
        if let End::Ordered { ending, at_boundary: true } = end {
            let message = ending.message(&member);
            let fields = ErrorFields {
                sqlstate: sqlstate::ADMIN_SHUTDOWN,
                message: &message,
                detail: "",
                hint: RECONNECT_HINT,
            };
            self.client.refuse(&fields).await;
        }
    }
}
