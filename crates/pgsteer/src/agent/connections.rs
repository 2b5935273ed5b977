//! Connections to the agent: one line in, one line out, and what each of them may cost.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use pgsteer_core::agent::{LINE_BYTES_MAX, Unclear};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Desk;

/// How long a line may take from its first byte to its end.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the answer may take to leave. It is shorter than any socket's buffer, so this is only
/// for a system that is at its end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are waited for at the same time. When there are more, the one that has been there longest goes: an
/// answer takes less than a millisecond, so that one is idle, slow or hostile.
const CONNECTIONS_MAX: usize = 8_192;

/// How long the door waits for a line: HAProxy's comes a few microseconds after its connection. It
/// is all that a client who says nothing can take from the others.
const DOOR_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000 };

/// Words from the door to the waiting room that are not read yet.
pub const WORDS_MAX: usize = 1_024;

/// The pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A client that has to be waited for, and what it has said so far.
pub struct Client {
    stream: TcpStream,
    said: Vec<u8>,
}

/// What the door has for the waiting room.
pub enum Word {
    /// Somebody who has to be waited for.
    Comes(Client),
    /// There is no room for more.
    MakeRoom,
}

/// Takes in whoever comes, and answers at once whose line is there already, as HAProxy's mostly is:
/// without a task, a timer, or a runtime between the client and its answer, which take longer than
/// all the rest. Blocks, and ends with the waiting room.
pub fn take_in(listener: &TcpListener, desk: &Desk, room: &Sender<Word>) {
    let mut is_failing = false;
    while !room.is_closed() {
        match listener.accept() {
            Ok((stream, _)) => {
                is_failing = false;
                // What goes wrong on a connection is its client's affair.
                if let Ok(Some(client)) = serve_at_once(stream, desk) {
                    // A room that is full has no time for one more, who has to come again.
                    let _ = room.try_send(Word::Comes(client));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the agent cannot take a connection in");
                }
                let _ = room.try_send(Word::MakeRoom);
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve_at_once(mut stream: TcpStream, desk: &Desk) -> io::Result<Option<Client>> {
    let may_come = !desk.config.borrow().line_wait.is_zero();
    let mut there = [0; 256];
    let said = match read_soon(&mut stream, &mut there, may_come)? {
        Some(count) => &there[..count],
        None if may_come => return Ok(Some(Client { stream, said: Vec::new() })),
        None => &[],
    };
    if !said.is_empty() && !said.contains(&b'\n') {
        return Ok(Some(Client { stream, said: said.to_vec() }));
    }
    // It is shorter than any socket's buffer, so that this does not wait.
    stream.write_all(desk.answer_to(said).as_bytes())?;
    Ok(None)
}

/// How much was read of what is there, or comes while the door is open; none if nothing is.
fn read_soon(
    stream: &mut TcpStream,
    there: &mut [u8],
    may_come: bool,
) -> io::Result<Option<usize>> {
    let wait = if may_come { DOOR_WAIT } else { Timespec::default() };
    match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&wait)) {
        Ok(0) | Err(Errno::INTR) => Ok(None),
        Ok(_) => stream.read(there).map(Some),
        Err(error) => Err(error.into()),
    }
}

/// Answers those who have to be waited for.
pub async fn wait_for_all(mut door: Receiver<Word>, desk: Desk) {
    let desk = Rc::new(desk);
    let mut guests = Guests { here: VecDeque::new(), most: affordable() };
    while let Some(word) = door.recv().await {
        let Word::Comes(client) = word else {
            guests.make_room();
            continue;
        };
        let desk = Rc::clone(&desk);
        let task = tokio::task::spawn_local(async move {
            let _ = serve(client, &desk).await;
        });
        guests.admit(task.abort_handle());
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

async fn serve(client: Client, desk: &Desk) -> io::Result<()> {
    let Client { stream, mut said } = client;
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    if said.is_empty() {
        let line_wait = desk.config.borrow().line_wait;
        // Whether it says nothing, or has nothing to say, is the same.
        timeout(line_wait, stream.read_buf(&mut said)).await.unwrap_or(Ok(0))?;
    }
    let answer = match read_line(&mut stream, &mut said).await? {
        Ok(()) => desk.answer_to(&said),
        Err(unclear) => desk.refuse(&unclear),
    };
    // One write, so that it leaves as one packet: HAProxy 2.x reads no further than the first.
    timeout(WRITE_TIMEOUT, stream.write_all(answer.as_bytes())).await??;
    stream.shutdown().await
}

/// Reads on to the end of a line that has begun. Half a line may name half a member, so it is none.
async fn read_line(
    stream: &mut tokio::net::TcpStream,
    said: &mut Vec<u8>,
) -> io::Result<Result<(), Unclear>> {
    let reading = async {
        while !said.is_empty() && !said.contains(&b'\n') {
            if said.len() > LINE_BYTES_MAX {
                return Ok(Err(Unclear::TooLong));
            }
            if stream.read_buf(said).await? == 0 {
                break;
            }
        }
        Ok(Ok(()))
    };
    timeout(LINE_TIMEOUT, reading).await.unwrap_or(Ok(Err(Unclear::Unfinished)))
}
