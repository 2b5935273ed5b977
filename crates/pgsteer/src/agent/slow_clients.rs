//! The agent's slow clients: those whose line does not arrive with their connection.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::question::{LINE_BYTES_MAX, Unclear};
use rustix::process::nice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::AgentState;
use super::client::{Client, STALL, Senders, discard_unread};
use crate::connections::{Connections, SLOW_AGENT_CLIENTS};

/// The time limit for a line, from its first byte to its end.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit for sending the answer. An answer is shorter than any socket's buffer, so only a
/// system without memory reaches this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The nice value of this thread: many slow clients delay each other and not the acceptor.
const NICE: i32 = 10;

/// The maximum number of handovers in the queue.
pub const HANDOVERS_MAX: usize = 1_024;

/// A message from the acceptor.
pub enum Handover {
    /// A client whose line is missing or incomplete.
    Client(Client),
    /// No file is free: close the oldest connection.
    CloseOldest,
}

/// Serves all clients that the acceptor hands over.
pub async fn serve_all(
    mut handovers: Receiver<Handover>,
    state: AgentState,
    senders: Arc<Senders>,
) {
    // On Linux this affects the calling thread only. A failure changes the priority alone.
    let _ = nice(NICE);
    let state = Rc::new(state);
    let connections = Connections::new(SLOW_AGENT_CLIENTS.max());
    while let Some(handover) = handovers.recv().await {
        let Handover::Client(client) = handover else {
            connections.close_oldest();
            continue;
        };
        let (state, senders) = (Rc::clone(&state), Arc::clone(&senders));
        let task = tokio::task::spawn_local(async move {
            // An error of one connection affects its client only.
            let _ = serve(client, &state, &senders).await;
        });
        connections.add(task.abort_handle());
    }
}

async fn serve(client: Client, state: &AgentState, senders: &Senders) -> io::Result<()> {
    let Client { stream, address, connected_at, mut received } = client;
    let mut stream = TcpStream::from_std(stream)?;
    let mut age_max = STALL;
    if received.is_empty() {
        let wait = senders.wait(address, state.config.borrow().line_wait, Instant::now());
        age_max += wait;
        // A client that sends nothing in time gets the default answer, as one that closes its side.
        timeout(wait, stream.read_buf(&mut received)).await.unwrap_or(Ok(0))?;
    }
    if !received.is_empty() {
        senders.note(address, Instant::now());
    }
    let answer = match read_line(&mut stream, &mut received).await? {
        Ok(()) => state.answer_to(&received),
        Err(unclear) => state.refuse(&unclear),
    };
    if connected_at.elapsed() > age_max {
        // All waits together are shorter, so this process was stopped. HAProxy ignores a check that has
        // no answer.
        return Ok(());
    }
    // One write, so that the answer is one packet: HAProxy 2.x reads the first packet only.
    timeout(WRITE_TIMEOUT, stream.write_all(answer.as_bytes())).await??;
    stream.shutdown().await?;
    discard_unread(&stream.into_std()?);
    Ok(())
}

/// Reads up to the end of a line that has begun. A line without an end is refused: it may contain a
/// part of a member's name.
async fn read_line(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
) -> io::Result<Result<(), Unclear>> {
    let reading = async {
        while !received.is_empty() && !received.contains(&b'\n') {
            if received.len() > LINE_BYTES_MAX {
                return Ok(Err(Unclear::TooLong));
            }
            if stream.read_buf(received).await? == 0 {
                break;
            }
        }
        Ok(Ok(()))
    };
    timeout(LINE_TIMEOUT, reading).await.unwrap_or(Ok(Err(Unclear::Unfinished)))
}
