//! Connections to the agent: one line in, one line out, and what each of them may cost.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::rc::Rc;
use std::time::Duration;

use pgsteer_core::agent::{LINE_BYTES_MAX, Unclear};
use rustix::process::{Resource, getrlimit};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Desk;

/// How long a line may take from its first byte to its end.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the answer may take to leave. It is shorter than any socket's buffer, so this is only
/// for a system that is at its end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections at the same time. When there are more, the one that has been there longest goes: an
/// answer takes less than a millisecond, so that one is idle, slow or hostile.
const CONNECTIONS_MAX: usize = 8_192;

/// The pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Answers whoever comes.
pub async fn serve_all(listener: TcpListener, desk: Desk) {
    let desk = Rc::new(desk);
    let mut guests = Guests { here: VecDeque::new(), most: affordable() };
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                let desk = Rc::clone(&desk);
                let task = tokio::task::spawn_local(async move {
                    // What goes wrong on such a connection is its client's affair.
                    let _ = serve(stream, &desk).await;
                });
                guests.admit(task.abort_handle());
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the agent cannot take a connection in");
                }
                guests.make_room();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Leaves most of the files to those who need them more.
fn affordable() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS_MAX.min(usize::try_from(files / 2).unwrap_or(CONNECTIONS_MAX)).max(1)
}

/// The connections in the order in which they came.
struct Guests {
    here: VecDeque<AbortHandle>,
    most: usize,
}

impl Guests {
    fn admit(&mut self, guest: AbortHandle) {
        while self.here.front().is_some_and(AbortHandle::is_finished) {
            self.here.pop_front();
        }
        if self.here.len() >= self.most {
            self.make_room();
        }
        self.here.push_back(guest);
    }

    /// The one that has been there longest goes.
    fn make_room(&mut self) {
        if let Some(oldest) = self.here.pop_front() {
            oldest.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let mut said = Vec::with_capacity(64);
    let line_wait = desk.config.borrow().line_wait;
    let line = match first_bytes(&mut stream, &mut said, line_wait).await? {
        // It says nothing, or has nothing to say.
        0 => Ok(()),
        _ => rest_of_line(&mut stream, &mut said).await?,
    };
    let text = String::from_utf8_lossy(&said);
    let answer = desk.answer(line.map(|()| (!text.is_empty()).then_some(&*text)));
    // One write, so that it leaves as one packet: HAProxy 2.x reads no further than the first.
    timeout(WRITE_TIMEOUT, stream.write_all(answer.as_bytes())).await??;
    stream.shutdown().await
}

/// How many bytes came within `line_wait`. Where nobody is waited for, what is there already is
/// read all the same; a timer would wait for a millisecond at least, and the runtime has not heard
/// of it yet.
async fn first_bytes(
    stream: &mut TcpStream,
    said: &mut Vec<u8>,
    line_wait: Duration,
) -> io::Result<usize> {
    if line_wait.is_zero() {
        let mut there = [0; 64];
        let count = match (&*SockRef::from(&*stream)).read(&mut there) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            read => read?,
        };
        said.extend_from_slice(&there[..count]);
        return Ok(count);
    }
    timeout(line_wait, stream.read_buf(said)).await.unwrap_or(Ok(0))
}

/// Reads on to the end of the line, and keeps what is before it. Half a line may name half a
/// member, so it is none.
async fn rest_of_line(
    stream: &mut TcpStream,
    said: &mut Vec<u8>,
) -> io::Result<Result<(), Unclear>> {
    let reading = async {
        while !said.contains(&b'\n') {
            if said.len() > LINE_BYTES_MAX {
                return Ok(Err(Unclear::TooLong));
            }
            if stream.read_buf(said).await? == 0 {
                break;
            }
        }
        Ok(Ok(()))
    };
    let read = timeout(LINE_TIMEOUT, reading).await.unwrap_or(Ok(Err(Unclear::Unfinished)));
    if let Some(end) = said.iter().position(|byte| *byte == b'\n') {
        said.truncate(end);
    }
    read
}
