//! The pump: moves bytes in both directions until the client, the server or the gate ends the session.
//!
//! Bytes are read into a scratch buffer that all sessions of a worker share, and are written at once.
//! Bytes that the other side does not accept are copied to a buffer of the session, so an idle session
//! has no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::affinity::Opaque;
use super::flow::{Flow, READY_FOR_QUERY, TAIL_BYTES, Tail};
use super::guard::{Guard, PolledGuard};
use super::seat::{Ending, Seat};

/// The maximum size of one read: large enough for COPY and dumps, small enough for the CPU's cache.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The session has to move to another process, and continues there.
    Moves(Flow),
    /// The server has closed its side, and the client has received all bytes.
    Finished,
    /// One of the connections is broken.
    Broken(io::ErrorKind),
    /// The worker has ended the session.
    Ordered {
        /// The reason.
        ending: Ending,
        /// The last bytes of the server were ReadyForQuery, and the client has received them: an error
        /// message can follow without violating the protocol.
        at_boundary: bool,
    },
}

/// Moves bytes between `client` and `server` until the end of the session. Bytes to the server wait for
/// `guard`. `opaque` records who sends, if the bytes cannot be read.
pub async fn pump(
    client: &mut TcpStream,
    server: &mut TcpStream,
    seat: &Seat,
    guard: Guard<'_>,
    flow: Flow,
    opaque: Option<&Opaque>,
) -> End {
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let mut up = Pipe { pending: flow.to_server, ..Pipe::default() };
    let mut down = Pipe { tail: flow.tail, pending: flow.to_client, ..Pipe::default() };
    let (mut guard_up, mut guard_down) = (PolledGuard::from(guard), PolledGuard::from(Guard::NONE));
    let end = poll_fn(|cx| {
        if let Poll::Ready(ending) = seat.poll_ending(cx) {
            return Poll::Ready(End::Ordered { ending, at_boundary: down.is_at_boundary() });
        }
        if seat.is_moving() {
            let (to_server, to_client) = (up.take_unsent(), down.take_unsent());
            return Poll::Ready(End::Moves(Flow { tail: down.tail, to_server, to_client }));
        }
        let upward = up.poll(cx, &mut client_read, &mut server_write, &mut guard_up);
        let downward = down.poll(cx, &mut server_read, &mut client_write, &mut guard_down);
        let (bytes_in, bytes_out) = (take(&mut up.read_bytes), take(&mut down.read_bytes));
        seat.count_bytes(bytes_in, bytes_out);
        if let Some(opaque) = opaque {
            if bytes_out > 0 {
                opaque.answered(Instant::now());
            }
            // Recorded last: a client that sends now has probably received the answer already.
            if bytes_in > 0 {
                opaque.asked();
            }
        }
        match (upward, downward) {
            // The session is over when the server has closed its side, although the client may still
            // send bytes.
            (_, Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(End::Broken(error.kind()))
            }
            _ => Poll::Pending,
        }
    })
    .await;
    if let End::Ordered { ending: Ending::Gate(_), .. } = end {
        // Discards the bytes in the socket's buffer. Otherwise a member that was unreachable could
        // receive them after the sessions at the next primary have begun.
        let _ = SockRef::from(&*server).set_linger(Some(Duration::ZERO));
    }
    end
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes that were read and that the other side has not accepted.
    pending: Vec<u8>,
    /// How many of them were written.
    written: usize,
    /// The reading side is closed.
    ended: bool,
    /// The writing side was closed after that.
    closed: bool,
    /// The last bytes that were read.
    tail: Tail,
    /// How many bytes were read since the last check.
    read_bytes: u64,
}

impl Pipe {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        guard: &mut PolledGuard<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_pending(cx, to, guard))?;
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                // An error means that the peer has closed the connection already.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.closed = true;
                continue;
            }
            ready!(
                SCRATCH.with_borrow_mut(|scratch| self.poll_chunk(cx, scratch, from, to, guard))
            )?;
        }
    }

    /// Writes the bytes that are left of an earlier read.
    fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut WriteHalf<'_>,
        guard: &mut PolledGuard<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            ready!(guard.poll(cx));
            let rest = &self.pending[self.written..];
            self.written += positive(ready!(Pin::new(&mut *to).poll_write(cx, rest))?)?;
        }
        if !self.pending.is_empty() {
            // Freed, so that a session that was slow once does not keep the memory.
            self.pending = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes as many bytes as the other side accepts.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        guard: &mut PolledGuard<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        let mut rest = buffer.filled();
        self.ended = rest.is_empty();
        self.read_bytes += u64::try_from(rest.len()).unwrap_or(0);
        self.note_tail(rest);
        while !rest.is_empty() {
            if guard.poll(cx).is_pending() {
                self.pending = rest.to_vec();
                return Poll::Pending;
            }
            match Pin::new(&mut *to).poll_write(cx, rest)? {
                Poll::Ready(written) => rest = &rest[positive(written)?..],
                Poll::Pending => {
                    self.pending = rest.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note_tail(&mut self, read: &[u8]) {
        // Behind ReadyForQuery a server may send whole messages at any time.
        if self.tail.starts_with(&READY_FOR_QUERY) && are_unasked_messages(read) {
            return;
        }
        match read.last_chunk() {
            Some(tail) => self.tail = *tail,
            None => {
                self.tail.copy_within(read.len().., 0);
                self.tail[TAIL_BYTES - read.len()..].copy_from_slice(read);
            }
        }
    }

    /// Takes the bytes that the other side has not accepted.
    fn take_unsent(&mut self) -> Vec<u8> {
        let mut unsent = take(&mut self.pending);
        unsent.drain(..take(&mut self.written));
        unsent
    }

    fn is_at_boundary(&self) -> bool {
        self.pending.is_empty() && self.tail.starts_with(&READY_FOR_QUERY)
    }
}

/// Returns true for whole messages that a server sends without a query: notifications, notices, and changes of
/// parameters (PostgreSQL documentation, "Frontend/Backend Protocol", "Asynchronous Operations").
fn are_unasked_messages(mut bytes: &[u8]) -> bool {
    while let Some((kind, rest)) = bytes.split_first() {
        let Some(length) = rest.first_chunk().map(|length| u32::from_be_bytes(*length)) else {
            return false;
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match rest.split_at_checked(length) {
            Some((_, after)) if b"ANS".contains(kind) && length >= size_of::<u32>() => {
                bytes = after
            }
            _ => return false,
        }
    }
    true
}

fn positive(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::flow::tail;
    use super::super::seat::{Assignment, Registry};
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_that_a_lost_member_has_not_received_are_discarded() {
        let ((mut client, mut ours), (mut server, mut member)) = (pair().await, pair().await);
        let assignment = Assignment {
            service: ServiceName::new("write").unwrap(),
            member: MemberName::new("n1").unwrap(),
            postgres: Endpoint::new("n1", 5432).unwrap(),
        };
        let registry = Rc::new(Registry::default());
        let seat = registry.take(assignment, Arc::default());
        let losing = async {
            // More than the member's buffer holds, so that the rest stays in the proxy's socket.
            let _ = tokio::time::timeout(PAUSE, client.write_all(&vec![0; 64 << 20])).await;
            registry.end(|_, _| Some(Ending::Gate(None)));
        };
        let (end, ()) = tokio::join!(
            pump(&mut ours, &mut server, &seat, Guard::NONE, Flow::default(), None),
            losing
        );
        assert!(matches!(end, End::Ordered { .. }), "{end:?}");
        drop(server);
        let rest = member.read_to_end(&mut Vec::new()).await;
        assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_tail_is_kept_over_short_reads() {
        let mut pipe = Pipe::default();
        for chunk in [&b"DATA"[..], b"Z\0", b"\0\0\x05", b"T"] {
            pipe.note_tail(chunk);
        }
        assert!(pipe.is_at_boundary());
        pipe.note_tail(b"");
        assert!(pipe.is_at_boundary());
        pipe.note_tail(b"D");
        assert!(!pipe.is_at_boundary());
    }

    #[test]
    fn a_session_stays_at_the_boundary_after_a_notification() {
        const NOTIFICATION: &[u8] = b"A\0\0\0\x0b\0\0\0\x07ch\0";
        let mut pipe = Pipe::default();
        pipe.note_tail(b"Z\0\0\0\x05I");
        for _ in 0..2 {
            pipe.note_tail(NOTIFICATION);
            assert!(pipe.is_at_boundary());
        }
        pipe.note_tail(&[NOTIFICATION, b"S\0\0\0\x08a\0b\0"].concat());
        assert!(pipe.is_at_boundary());
        // A part of one, and then the answer to a query.
        pipe.note_tail(&NOTIFICATION[..5]);
        assert!(!pipe.is_at_boundary());
        pipe.note_tail(b"Z\0\0\0\x05I");
        pipe.note_tail(b"D\0\0\0\x06\0\0");
        assert!(!pipe.is_at_boundary());
    }

    #[test]
    fn a_server_whose_bytes_cannot_be_read_is_at_no_boundary() {
        let of = |tail| Pipe { tail, ..Pipe::default() }.is_at_boundary();
        assert!(of(tail(b"K\0\0\0\x0c12345678Z\0\0\0\x05I")));
        // A notification has begun behind it.
        assert!(!of(tail(b"Z\0\0\0\x05IA\0\0")));
        // TLS, in which an unencrypted message would be garbage.
        assert!(!of(Tail::default()));
    }
}
