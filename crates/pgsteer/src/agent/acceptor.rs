//! The agent's acceptor: accepts all clients, and answers those whose line arrives at once.
//!
//! It polls the sockets without a runtime: between a client and its answer, a task, a timer and a
//! second thread would take longer than everything else.

use std::io::{self, Read as _};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, acceptfrom_with, send};
use tokio::sync::mpsc::Sender;

use super::AgentState;
use super::client::{Client, Senders, StallDetector, discard_unread};
use super::slow_clients::Handover;

/// How long clients wait after the start for the first complete Snapshot. HAProxy ignores a check
/// without an answer. The answer "down" would end the sessions of a healthy server because pgsteer was
/// restarted.
const FIRST_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the Snapshot is read while the acceptor waits for a complete one.
const FIRST_SNAPSHOT_STEP: Duration = Duration::from_millis(5);

/// The longest poll, so that a stall is noticed although no client connects.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long no client is answered after a stall, while every member is probed again. Two probes of
/// each member take this long.
const AFTER_STALL: Duration = Duration::from_millis(1_500);

/// How long the acceptor keeps a client that has sent nothing. HAProxy's line arrives a few
/// microseconds after its connection. Other clients are answered meanwhile.
const LINE_TIMEOUT: Duration = Duration::from_millis(1);

/// Clients that the acceptor keeps while their line is missing. At the limit the oldest one is handed
/// over.
const WAITING_MAX: usize = 64;

/// The pause after a failed accept, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The acceptor, which runs on a thread of its own.
pub struct Acceptor {
    pub listener: TcpListener,
    /// Closed when the agent is stopped.
    pub stopped: UnixStream,
    pub state: AgentState,
    pub senders: Arc<Senders>,
    /// The queue of the thread that waits for slow clients.
    pub handovers: Sender<Handover>,
}

/// The sockets that have something to read.
struct Readable {
    is_stopped: bool,
    has_connection: bool,
    /// For each waiting client, in the same order.
    clients: Vec<bool>,
}

impl Acceptor {
    /// Accepts and answers clients until the agent is stopped, or the thread for slow clients has
    /// ended.
    pub fn run(&self) {
        self.wait_for_first_snapshot();
        let (mut waiting, mut is_failing) = (Vec::new(), false);
        let mut detector = StallDetector::new(Instant::now());
        while !self.handovers.is_closed() {
            match self.step(&mut waiting, &mut detector) {
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(())) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "the agent cannot accept a connection");
                    }
                    is_failing = true;
                    self.hand_over(Handover::CloseOldest);
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Polls once and handles what is readable.
    fn step(
        &self,
        waiting: &mut Vec<Client>,
        detector: &mut StallDetector,
    ) -> Result<ControlFlow<()>, Errno> {
        let readable = self.poll(waiting);
        // Checked before the result: SIGSTOP and SIGCONT interrupt the poll with an error.
        if detector.has_stalled(Instant::now()) && self.is_stopped_within(AFTER_STALL) {
            return Ok(ControlFlow::Break(()));
        }
        let readable = match readable {
            Err(Errno::INTR) => return Ok(ControlFlow::Continue(())),
            readable => readable?,
        };
        if readable.is_stopped {
            return Ok(ControlFlow::Break(()));
        }
        let now = Instant::now();
        for (client, is_readable) in mem::take(waiting).into_iter().zip(readable.clients) {
            if is_readable {
                waiting.extend(self.read(client, detector));
            } else if client.connected_at + LINE_TIMEOUT <= now {
                match self.awaits_line() {
                    true => self.hand_over(Handover::Client(client)),
                    false => self.answer(&client, &[], detector),
                }
            } else {
                waiting.push(client);
            }
        }
        if readable.has_connection
            && let Some(client) = self.accept()?
        {
            waiting.extend(self.read(client, detector));
        }
        if waiting.len() > WAITING_MAX {
            self.hand_over(Handover::Client(waiting.remove(0)));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn wait_for_first_snapshot(&self) {
        let deadline = Instant::now() + FIRST_SNAPSHOT_TIMEOUT;
        while !self.state.snapshot.borrow().is_settled()
            && Instant::now() < deadline
            && !self.is_stopped_within(FIRST_SNAPSHOT_STEP)
        {}
    }

    /// Waits for `time` and returns false, or returns true as soon as the agent is stopped.
    fn is_stopped_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut stopped = [PollFd::new(&self.stopped, PollFlags::IN)];
            match poll(&mut stopped, Some(&timespec(left))) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Waits until a socket is readable or the oldest of the waiting clients has timed out.
    fn poll(&self, waiting: &[Client]) -> Result<Readable, Errno> {
        let mut sockets = Vec::with_capacity(2 + waiting.len());
        sockets.push(PollFd::new(&self.stopped, PollFlags::IN));
        sockets.push(PollFd::new(&self.listener, PollFlags::IN));
        sockets.extend(waiting.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        let oldest = waiting.iter().map(|client| client.connected_at).min();
        let wait = oldest.map(|oldest| LINE_TIMEOUT.saturating_sub(oldest.elapsed()));
        poll(&mut sockets, Some(&timespec(wait.unwrap_or(POLL_TIMEOUT))))?;
        let mut readable = sockets.iter().map(|socket| !socket.revents().is_empty());
        Ok(Readable {
            is_stopped: readable.next() == Some(true),
            has_connection: readable.next() == Some(true),
            clients: readable.collect(),
        })
    }

    /// Accepts a connection. None if the client has closed it meanwhile.
    fn accept(&self) -> Result<Option<Client>, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = match acceptfrom_with(&self.listener, flags) {
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(None),
            accepted => accepted?,
        };
        let peer =
            peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(Errno::AFNOSUPPORT)?;
        let (stream, connected_at) = (TcpStream::from(socket), Instant::now());
        Ok(Some(Client { stream, address: peer.ip(), connected_at, received: Vec::new() }))
    }

    /// Answers a client that has sent a whole line, or that sends none. Hands over a client that has
    /// sent a part of a line. Returns the client if it has sent nothing yet.
    fn read(&self, mut client: Client, detector: &mut StallDetector) -> Option<Client> {
        let mut buffer = [0; 256];
        let count = match client.stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.state.config.borrow().line_wait.is_zero() {
                    return Some(client);
                }
                0
            }
            Err(_) => return None,
            Ok(count) => count,
        };
        let received = &buffer[..count];
        if !received.is_empty() {
            self.senders.note(client.address, Instant::now());
        }
        if received.is_empty() || received.contains(&b'\n') {
            self.answer(&client, received, detector);
            if count == buffer.len() {
                discard_unread(&client.stream);
            }
        } else {
            client.received = received.to_vec();
            self.hand_over(Handover::Client(client));
        }
        None
    }

    /// Answers a client that has sent a whole line, or nothing.
    fn answer(&self, client: &Client, received: &[u8], detector: &mut StallDetector) {
        let mut answer = self.state.answer_to(received);
        if detector.has_stalled(Instant::now()) {
            // The answer may be older than the stall.
            self.is_stopped_within(AFTER_STALL);
            answer = self.state.answer_to(received);
        }
        // An error of one connection affects its client only.
        let _ = send_answer(&client.stream, &answer);
    }

    /// Returns true if a client that has sent nothing yet may still send a line: one of this port has, or
    /// the configuration expects lines.
    fn awaits_line(&self) -> bool {
        self.state.config.borrow().awaits_first_line || self.senders.exist()
    }

    /// Sends to the thread for slow clients. A full queue drops the client, which has to connect again.
    fn hand_over(&self, handover: Handover) {
        let _ = self.handovers.try_send(handover);
    }
}

/// Sends the answer and the end of the connection in one packet, so that the client wakes up once. An
/// answer is shorter than any socket's buffer.
fn send_answer(stream: &TcpStream, answer: &str) -> io::Result<()> {
    send(stream, answer.as_bytes(), SendFlags::NOSIGNAL | SendFlags::MORE)?;
    stream.shutdown(Shutdown::Write)
}

fn timespec(time: Duration) -> Timespec {
    // A time that is too long for the type becomes the longest one.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
