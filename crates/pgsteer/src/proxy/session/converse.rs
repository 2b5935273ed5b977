//! The established session: bytes flow until the server, the client or the gate ends it.

use std::sync::atomic::Ordering;

use pgsteer_wire::error::{ErrorFields, sqlstate};

use super::{RECONNECT_HINT, Session};
use crate::proxy::affinity::Opaque;
use crate::proxy::cancel::Registered;
use crate::proxy::connected::Connected;
use crate::proxy::flow::Flow;
use crate::proxy::guard::Guard;
use crate::proxy::pump::{End, pump};

impl Session {
    /// Serves a session whose login has just succeeded.
    pub(super) async fn begin(
        self,
        connected: Connected,
        flow: Flow,
        registered: Option<Registered>,
        opaque: Option<&Opaque>,
    ) {
        connected.seat.stats().sessions_total.fetch_add(1, Ordering::Relaxed);
        self.converse(connected, flow, registered, opaque).await;
    }

    /// Moves bytes between the client and its member. `opaque` records who sends, if pgsteer cannot read
    /// the bytes.
    pub(super) async fn converse(
        mut self,
        mut connected: Connected,
        flow: Flow,
        registered: Option<Registered>,
        opaque: Option<&Opaque>,
    ) {
        let service = &self.context.service;
        connected.slot = None;
        connected.seat.establish();
        let guard = Guard::of(&self.context.worker, service);
        let Connected { server, seat, .. } = &mut connected;
        let end = pump(&mut self.client.stream, server, seat, guard, flow, opaque).await;
        if let End::Moves(flow) = end {
            let key = registered.as_ref().map(|registered| registered.key().clone());
            return self.move_session(connected, flow, key, opaque.is_some()).await;
        }
        let Connected { server, seat, permit, sticking, .. } = connected;
        let member = seat.member().clone();
        service.stats.sessions.observe(self.since.elapsed());
        drop(server);
        drop(seat);
        drop((permit, sticking, registered));
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
