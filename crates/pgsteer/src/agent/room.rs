//! The agent's waiting room, for those whose line is not there when they come.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::question::{LINE_BYTES_MAX, Unclear};
use rustix::process::{Resource, getrlimit, nice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Desk;
use super::client::{Client, STALL, Senders, take_the_rest};

/// How long a line may take from its first byte to its end.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the answer may take to leave. It is shorter than any socket's buffer, so this is only
/// for a system that is at its end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are waited for at the same time. When there are more, the one that has been
/// there longest goes: an answer takes less than a millisecond, so that one is idle, slow or hostile.
const CONNECTIONS_MAX: usize = 8_192;

/// A crowd in here takes its time from itself, and not from those at the door.
const NICE: i32 = 10;

/// Words from the door that are not read yet.
pub const WORDS_MAX: usize = 1_024;

/// What the door has to say.
pub enum Word {
    /// Somebody who has to be waited for.
    Comes(Client),
    /// There are no files left for more.
    MakeRoom,
}

/// Answers all whom the door sends.
pub async fn serve_all(mut door: Receiver<Word>, desk: Desk, senders: Arc<Senders>) {
    // Of this thread alone, as Linux has it. Where it is not allowed, it is not needed to answer.
    let _ = nice(NICE);
    let desk = Rc::new(desk);
    let mut guests = Guests { here: VecDeque::new(), most: affordable() };
    while let Some(word) = door.recv().await {
        let Word::Comes(client) = word else {
            guests.make_room();
            continue;
        };
        let (desk, senders) = (Rc::clone(&desk), Arc::clone(&senders));
        let task = tokio::task::spawn_local(async move {
            // What goes wrong on a connection is its client's affair.
            let _ = serve(client, &desk, &senders).await;
        });
        guests.admit(task.abort_handle());
    }
}

/// Leaves most of the files to the sessions and the sources.
fn affordable() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS_MAX.min(usize::try_from(files / 8).unwrap_or(CONNECTIONS_MAX)).max(1)
}

/// The connections in the order in which they came.
struct Guests {
    here: VecDeque<AbortHandle>,
    most: usize,
}

impl Guests {
    fn admit(&mut self, guest: AbortHandle) {
        self.see_off();
        if self.here.len() >= self.most {
            // Some may have left behind one that is slow.
            self.here.retain(|guest| !guest.is_finished());
        }
        if self.here.len() >= self.most {
            self.make_room();
        }
        self.here.push_back(guest);
    }

    /// Forgets those in front who have left.
    fn see_off(&mut self) {
        while self.here.front().is_some_and(AbortHandle::is_finished) {
            self.here.pop_front();
        }
    }

    /// The one that has been there longest goes.
    fn make_room(&mut self) {
        self.see_off();
        if let Some(oldest) = self.here.pop_front() {
            oldest.abort();
        }
    }
}

async fn serve(client: Client, desk: &Desk, senders: &Senders) -> io::Result<()> {
    let Client { stream, from, came, mut said } = client;
    let mut stream = TcpStream::from_std(stream)?;
    let mut too_long = STALL;
    if said.is_empty() {
        let wait = senders.wait(from, desk.config.borrow().line_wait, Instant::now());
        too_long += wait;
        // Whether it says nothing, or has nothing to say, is the same.
        timeout(wait, stream.read_buf(&mut said)).await.unwrap_or(Ok(0))?;
    }
    if !said.is_empty() {
        senders.note(from, Instant::now());
    }
    let answer = match read_line(&mut stream, &mut said).await? {
        Ok(()) => desk.answer_to(&said),
        Err(unclear) => desk.refuse(&unclear),
    };
    if came.elapsed() > too_long {
        // Nobody is waited for so long: this was stopped meanwhile. No answer is no news.
        return Ok(());
    }
    // One write, so that it leaves as one packet: HAProxy 2.x reads no further than the first.
    timeout(WRITE_TIMEOUT, stream.write_all(answer.as_bytes())).await??;
    stream.shutdown().await?;
    take_the_rest(&stream.into_std()?);
    Ok(())
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
