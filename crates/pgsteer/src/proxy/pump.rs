//! Bytes from one side to the other, both ways, until one of them or the gate ends it.
//!
//! Bytes are read into a scratch buffer that all sessions of a worker share and are written on
//! at once. Only what the other side does not take is kept in a buffer of the session's own, so
//! an idle session has none.

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
use super::guard::{Guard, PolledGuard};
use super::seat::{Ending, Seat};

/// One read takes at most this much: what a COPY or a dump fills, and small enough to stay in
/// the processor's cache.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// A whole ReadyForQuery is `Z`, the length 5, and the state of the transaction.
const READY_FOR_QUERY: [u8; 5] = [b'Z', 0, 0, 0, 5];
const TAIL_BYTES: usize = READY_FOR_QUERY.len() + 1;

/// The last bytes that a server said; zeroes where there are none that could be read.
pub type Tail = [u8; TAIL_BYTES];

/// The last of `bytes`.
pub fn tail(bytes: &[u8]) -> Tail {
    bytes.last_chunk().copied().unwrap_or_default()
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The server has said its last word, and the client has it.
    Finished,
    /// One of the connections broke.
    Broken(io::ErrorKind),
    /// It was told to end.
    Told {
        /// Why.
        ending: Ending,
        /// The server's last word was ReadyForQuery and the client has it: a message may be
        /// put behind it without breaking the protocol.
        at_boundary: bool,
    },
}

/// Moves bytes between `client` and `server` until the end, those to the server as `guard` lets them
/// pass. `tail` is what the server sent last. Where the bytes cannot be read, `opaque` is told who
/// has sent some.
pub async fn pump(
    client: &mut TcpStream,
    server: &mut TcpStream,
    seat: &Seat,
    guard: Guard<'_>,
    tail: Tail,
    opaque: Option<&Opaque>,
) -> End {
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let mut up = Pipe::default();
    let mut down = Pipe { tail, ..Pipe::default() };
    let (mut guard_up, mut guard_down) = (PolledGuard::from(guard), PolledGuard::from(Guard::NONE));
    let end = poll_fn(|cx| {
        if let Poll::Ready(ending) = seat.poll_ending(cx) {
            return Poll::Ready(End::Told { ending, at_boundary: down.is_at_boundary() });
        }
        let upward = up.poll(cx, &mut client_read, &mut server_write, &mut guard_up);
        let downward = down.poll(cx, &mut server_read, &mut client_write, &mut guard_down);
        let (asked, answered) = (take(&mut up.has_read), take(&mut down.has_read));
        if let Some(opaque) = opaque {
            if answered {
                opaque.answered(Instant::now());
            }
            // A client that sends at the same time has most likely the answer already.
            if asked {
                opaque.asked();
            }
        }
        match (upward, downward) {
            // A session is over when the server has said its last word, whatever the client
            // may still want to say.
            (_, Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(End::Broken(error.kind()))
            }
            _ => Poll::Pending,
        }
    })
    .await;
    if let End::Told { ending: Ending::Gate(_), .. } = end {
        // What was sent and has not arrived shall not: a member that was out of reach would get it
        // when it is back, after the sessions to the next one have begun.
        let _ = SockRef::from(&*server).set_linger(Some(Duration::ZERO));
    }
    end
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// What was read and not yet taken by the other side.
    pending: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// The reading side has ended.
    ended: bool,
    /// That end was passed on.
    closed: bool,
    /// The last bytes that were read.
    tail: Tail,
    /// Bytes were read since this was last looked at.
    has_read: bool,
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
                // A peer that is gone already need not be told.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.closed = true;
                continue;
            }
            ready!(
                SCRATCH.with_borrow_mut(|scratch| self.poll_chunk(cx, scratch, from, to, guard))
            )?;
        }
    }

    /// Writes what is left over from an earlier read.
    fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut WriteHalf<'_>,
        guard: &mut PolledGuard<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.pending.len() {
            ready!(guard.poll(cx));
            let rest = &self.pending[self.taken..];
            self.taken += positive(ready!(Pin::new(&mut *to).poll_write(cx, rest))?)?;
        }
        if !self.pending.is_empty() {
            // Given back, so that a session that once was slow is not large for ever.
            self.pending = Vec::new();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes as much of it as the other side takes.
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
        self.has_read |= !self.ended;
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
        match read.last_chunk() {
            Some(tail) => self.tail = *tail,
            None => {
                self.tail.copy_within(read.len().., 0);
                self.tail[TAIL_BYTES - read.len()..].copy_from_slice(read);
            }
        }
    }

    fn is_at_boundary(&self) -> bool {
        self.pending.is_empty() && self.tail.starts_with(&READY_FOR_QUERY)
    }
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

    use super::super::seat::{Place, Registry};
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_a_lost_member_has_not_received_it_never_will() {
        let ((mut client, mut ours), (mut server, mut member)) = (pair().await, pair().await);
        let place = Place {
            service: ServiceName::new("write").unwrap(),
            member: MemberName::new("n1").unwrap(),
            postgres: Endpoint::new("n1", 5432).unwrap(),
        };
        let registry = Rc::new(Registry::default());
        let seat = registry.take(place, Arc::default());
        let lose = async {
            // More than the member's buffer holds, so that the rest waits on this side.
            let _ = tokio::time::timeout(PAUSE, client.write_all(&vec![0; 64 << 20])).await;
            registry.end(|_, _| Some(Ending::Gate(None)));
        };
        let (end, ()) = tokio::join!(
            pump(&mut ours, &mut server, &seat, Guard::NONE, Tail::default(), None),
            lose
        );
        assert!(matches!(end, End::Told { .. }), "{end:?}");
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
    fn a_server_whose_words_cannot_be_read_is_at_no_boundary() {
        let of = |tail| Pipe { tail, ..Pipe::default() }.is_at_boundary();
        assert!(of(tail(b"K\0\0\0\x0c12345678Z\0\0\0\x05I")));
        // A notification behind it has begun.
        assert!(!of(tail(b"Z\0\0\0\x05IA\0\0")));
        // TLS, in which a word in clear would be garbage.
        assert!(!of(Tail::default()));
    }
}
