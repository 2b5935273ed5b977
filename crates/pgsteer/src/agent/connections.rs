//! Connections to the agent: one line in, one line out, and what each of them may cost.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
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

/// How long somebody is waited for who sent a line before: long enough for TCP to repeat a packet
/// that was lost (200 ms at least). To take its silence for a question without a line would answer
/// it about another member.
const SENDER_WAIT: Duration = Duration::from_millis(300);

/// Addresses that are known to send lines. Beyond them nobody is remembered.
const SENDERS_MAX: usize = 1_024;

/// How long the answer may take to leave. It is shorter than any socket's buffer, so this is only
/// for a system that is at its end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections at the same time. When there are more, the one that has been there longest goes: an
/// answer takes less than a millisecond, so that one is idle, slow or hostile.
const CONNECTIONS_MAX: usize = 8_192;

/// The pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A client that has to be waited for, and what it has said so far.
struct Client {
    stream: TcpStream,
    from: IpAddr,
    said: Vec<u8>,
}

/// Who has ever sent a line.
#[derive(Default)]
struct Senders(RefCell<BTreeSet<IpAddr>>);

impl Senders {
    fn note(&self, from: IpAddr) {
        let mut known = self.0.borrow_mut();
        if known.len() < SENDERS_MAX {
            known.insert(from);
        }
    }

    /// How long to wait for the line of somebody who says nothing yet.
    fn wait(&self, from: IpAddr, line_wait: Duration) -> Duration {
        match self.0.borrow().contains(&from) {
            true => line_wait.max(SENDER_WAIT),
            false => line_wait,
        }
    }
}

/// Answers whoever comes.
pub async fn serve_all(listener: TcpListener, desk: Desk) {
    let (desk, senders) = (Rc::new(desk), Rc::<Senders>::default());
    let mut guests = Guests { here: VecDeque::new(), most: affordable() };
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            // What goes wrong on a connection is its client's affair.
            Ok((stream, from)) => {
                is_failing = false;
                if let Ok(Some(client)) = serve_at_once(stream, from.ip(), &desk, &senders) {
                    let (desk, senders) = (Rc::clone(&desk), Rc::clone(&senders));
                    let task = tokio::task::spawn_local(async move {
                        let _ = serve(client, &desk, &senders).await;
                    });
                    guests.admit(task.abort_handle());
                }
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

/// Answers a client whose line is there already, as HAProxy's mostly is, without a task, a timer or
/// another round of the runtime, which has not heard of the line yet. Gives back whoever has to be
/// waited for.
fn serve_at_once(
    stream: TcpStream,
    from: IpAddr,
    desk: &Desk,
    senders: &Senders,
) -> io::Result<Option<Client>> {
    let mut there = [0; 256];
    let socket = SockRef::from(&stream);
    let said = match (&*socket).read(&mut there) {
        Ok(count) => &there[..count],
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            if !desk.config.borrow().line_wait.is_zero() {
                return Ok(Some(Client { stream, from, said: Vec::new() }));
            }
            &[]
        }
        Err(error) => return Err(error),
    };
    if !said.is_empty() {
        senders.note(from);
        if !said.contains(&b'\n') {
            return Ok(Some(Client { stream, from, said: said.to_vec() }));
        }
    }
    // It is shorter than any socket's buffer.
    (&*socket).write_all(desk.answer_to(said).as_bytes())?;
    Ok(None)
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

async fn serve(client: Client, desk: &Desk, senders: &Senders) -> io::Result<()> {
    let Client { mut stream, from, mut said } = client;
    if said.is_empty() {
        let wait = senders.wait(from, desk.config.borrow().line_wait);
        // Whether it says nothing, or has nothing to say, is the same.
        timeout(wait, stream.read_buf(&mut said)).await.unwrap_or(Ok(0))?;
    }
    if !said.is_empty() {
        senders.note(from);
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
async fn read_line(stream: &mut TcpStream, said: &mut Vec<u8>) -> io::Result<Result<(), Unclear>> {
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
