//! Clients and sessions that move to another process of pgsteer, and those that arrive from one.

use std::io;
use std::rc::Rc;

use pgsteer_core::settings::Stick;
use pgsteer_wire::startup::CancelKey;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Session;
use crate::proxy::capacity::Permit;
use crate::proxy::client::Client;
use crate::proxy::connected::Connected;
use crate::proxy::flow::Flow;
use crate::proxy::listing::ClientFacts;
use crate::proxy::moved::{Moved, MovedClient, MovedSession, NotMoved, send};
use crate::proxy::search::{Search, ago};
use crate::proxy::seat::{Assignment, Ending, Purpose};
use crate::proxy::service::Context;
use crate::proxy::shared::Admitted;

/// Serves a client or a session that arrives from another process. Drops `starting` when the session has
/// its permit, or the client its position in the queue.
///
/// # Errors
/// A connection cannot be registered with the runtime.
pub async fn arrive(
    context: Context,
    moved: Moved,
    admitted: Admitted,
    starting: Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    match moved {
        Moved::Client(client) => arrive_as_client(context, client, admitted, starting).await,
        Moved::Session(session) => arrive_as_session(context, *session, admitted, starting).await,
    }
}

async fn arrive_as_client(
    context: Context,
    moved: MovedClient,
    admitted: Admitted,
    starting: Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    let MovedClient { sent, asked_for_tls, asked_for_gss, age, waited, ticket, .. } = moved;
    let stream = TcpStream::from_std(moved.stream)?;
    let client = Client { stream, ahead: sent, asked_for_tls, asked_for_gss };
    let mut search = Search::new(context.clone(), admitted.address());
    search.resume(waited, ticket);
    drop(starting);
    let since = ago(Instant::now(), age);
    Session { context, client, search, since, admitted }.run().await;
    Ok(())
}

async fn arrive_as_session(
    context: Context,
    moved: MovedSession,
    admitted: Admitted,
    starting: Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    let Context { worker, service } = context.clone();
    let MovedSession { member, postgres, age, is_opaque, key, flow, user, database, .. } = moved;
    let (client, server) = (TcpStream::from_std(moved.client)?, TcpStream::from_std(moved.server)?);
    let address = admitted.address();
    let is_sticky = service.config.stick == Stick::Address;
    let sticking = is_sticky.then(|| service.affinity.sticking_to(address, &member));
    let assignment = Assignment { service: service.name.clone(), member: member.clone(), postgres };
    let end = Ending::by(&worker.snapshot(), &assignment, Purpose::Session);
    let stats = service.stats.member(&member);
    let seat = worker.registry().take(assignment, stats);
    if let Ok(address) = client.peer_addr() {
        seat.set_client(&Rc::new(ClientFacts { address, user, database, is_tls: is_opaque }));
    }
    // The Snapshot that ends the sessions there may be older than this seat.
    if let Some(end) = end {
        seat.end(end);
    }
    let permit = service.capacity.take_moved(&member);
    drop(starting);
    let cancels = &worker.shared().cancels;
    let key = key.zip(server.peer_addr().ok());
    let registered = key.map(|(key, server)| cancels.register(key, server));
    let connected = Connected { server, slot: None, seat, permit, sticking, held: None };
    let search = Search::new(context.clone(), address);
    let since = ago(Instant::now(), age);
    let session = Session { context, client: Client::new(client), search, since, admitted };
    let opaque =
        is_opaque.then(|| service.affinity.opaque(address, member, std::time::Instant::now()));
    let opaque = opaque.as_ref().map(|session| session.opaque());
    session.converse(connected, flow, registered, opaque).await;
    Ok(())
}

impl Session {
    /// Sends a client that waits to the other process. `request` is its unanswered request.
    pub(super) async fn move_client(self, mut request: Vec<u8>) {
        let Session { context, client, mut search, since, admitted } = self;
        let Client { stream, ahead, asked_for_tls, asked_for_gss } = client;
        let Ok(stream) = stream.into_std() else { return };
        request.extend_from_slice(&ahead);
        let (waited, ticket) = search.progress();
        // The client counts as waiting until it is in the exit.
        let movable = search.end_wait();
        // Its position must not keep the clients behind it waiting.
        drop(search);
        let moved = Moved::Client(MovedClient {
            stream,
            service: context.service.name.clone(),
            sent: request,
            asked_for_tls,
            asked_for_gss,
            age: since.elapsed(),
            waited,
            ticket,
        });
        depart(context, moved, admitted, movable, None).await;
    }

    /// Sends an established session to the other process.
    pub(super) async fn move_session(
        self,
        connected: Connected,
        flow: Flow,
        key: Option<CancelKey>,
        is_opaque: bool,
    ) {
        let Session { context, client, since, admitted, .. } = self;
        let Connected { server, seat, permit, sticking, .. } = connected;
        let (Ok(client), Ok(server)) = (client.stream.into_std(), server.into_std()) else {
            return;
        };
        let Assignment { service, member, postgres } = seat.assignment().clone();
        let age = since.elapsed();
        let facts = seat.client();
        let (user, database) =
            facts.map(|facts| (facts.user.clone(), facts.database.clone())).unwrap_or_default();
        let moved = MovedSession {
            client,
            server,
            service,
            member,
            postgres,
            age,
            is_opaque,
            key,
            flow,
            user,
            database,
        };
        // Its seat keeps the session counted until it is in the queue.
        let (counted, permit) = ((seat, sticking), Some(permit));
        depart(context, Moved::Session(Box::new(moved)), admitted, counted, permit).await;
    }
}

/// Sends `moved` to the other process, then drops `counted`; its `permit` stays taken. If the other process
/// has failed, serves it here as soon as this process goes on.
async fn depart<T>(
    context: Context,
    moved: Moved,
    admitted: Admitted,
    counted: T,
    permit: Option<Permit>,
) {
    let sent = send(context.worker.exit(), moved).await;
    if let (Ok(()), Some(permit)) = (&sent, permit) {
        permit.note_moved();
    }
    drop(counted);
    if let Err(NotMoved(moved)) = sent {
        context.worker.staying().await;
        if let Err(error) = Box::pin(arrive(context, moved, admitted, None)).await {
            tracing::warn!(%error, "a client is lost in the upgrade");
        }
    }
}
