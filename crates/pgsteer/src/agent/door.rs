//! The agent's door: takes in whoever comes, and answers at once whose line is there.
//!
//! It polls, without a runtime: a task, a timer and another thread between a client and its answer
//! take longer than all the rest.

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

use super::Desk;
use super::client::{Awake, Client, Senders, take_the_rest};
use super::room::Word;

/// How long the first client is kept waiting while nothing is known yet. HAProxy takes a check that
/// is not answered for no news; a no would end the sessions of a server that has nothing wrong
/// with it but that pgsteer was restarted.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const FIRST_WORD_STEP: Duration = Duration::from_millis(5);

/// A door that nobody comes to looks round as often as this.
const LOOK_ROUND: Duration = Duration::from_secs(1);

/// How long nobody is answered after a stall, while the members are asked anew. It takes two questions
/// to all of them.
const AFTER_STALL: Duration = Duration::from_millis(1_500);

/// How long a client may stand at the door without a word: HAProxy's line comes a few microseconds
/// after its connection. Nobody else waits meanwhile.
const STAND_LIMIT: Duration = Duration::from_millis(1);

/// How many may stand there. When one more comes, the first of them has to go on.
const STANDING_MAX: usize = 64;

/// The pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The door. It lives on a thread of its own.
pub struct Door {
    pub listener: TcpListener,
    /// Ends when nobody wants the agent any more.
    pub leave: UnixStream,
    pub desk: Desk,
    pub senders: Arc<Senders>,
    /// Where those go who have to be waited for.
    pub room: Sender<Word>,
}

/// What came of looking at the door.
struct Look {
    is_over: bool,
    has_knocked: bool,
    /// Of each who stands there, whether it has something to say.
    speaks: Vec<bool>,
}

impl Door {
    /// Takes clients in until it is to end, or the waiting room is gone.
    pub fn keep(&self) {
        self.await_first_word();
        let (mut standing, mut is_failing) = (Vec::new(), false);
        let mut awake = Awake::since(Instant::now());
        while !self.room.is_closed() {
            match self.turn(&mut standing, &mut awake) {
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(())) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "the agent cannot take a connection in");
                    }
                    is_failing = true;
                    self.send_on(Word::MakeRoom);
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Waits for something to happen, and sees to it.
    fn turn(
        &self,
        standing: &mut Vec<Client>,
        awake: &mut Awake,
    ) -> Result<ControlFlow<()>, Errno> {
        let look = self.look(standing);
        // However the look ended: to be stopped and to go on are signals as well.
        if awake.has_stalled(Instant::now()) && self.ends_within(AFTER_STALL) {
            return Ok(ControlFlow::Break(()));
        }
        let look = match look {
            // No reason to do anything but to look again.
            Err(Errno::INTR) => return Ok(ControlFlow::Continue(())),
            look => look?,
        };
        if look.is_over {
            return Ok(ControlFlow::Break(()));
        }
        let now = Instant::now();
        for (who, speaks) in mem::take(standing).into_iter().zip(look.speaks) {
            match speaks {
                true => standing.extend(self.listen(who, awake)),
                false if who.came + STAND_LIMIT <= now => self.send_on(Word::Comes(who)),
                false => standing.push(who),
            }
        }
        if look.has_knocked
            && let Some(client) = self.accept()?
        {
            standing.extend(self.listen(client, awake));
        }
        if standing.len() > STANDING_MAX {
            self.send_on(Word::Comes(standing.remove(0)));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn await_first_word(&self) {
        let until = Instant::now() + FIRST_WORD;
        while !self.desk.snapshot.borrow().is_settled()
            && Instant::now() < until
            && !self.ends_within(FIRST_WORD_STEP)
        {}
    }

    /// Waits, and tells whether nobody wants the agent any more.
    fn ends_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut leave = [PollFd::new(&self.leave, PollFlags::IN)];
            match poll(&mut leave, Some(&timespec(left))) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Waits until somebody knocks or speaks, or has stood there for long enough.
    fn look(&self, standing: &[Client]) -> Result<Look, Errno> {
        let mut sockets = Vec::with_capacity(2 + standing.len());
        sockets.push(PollFd::new(&self.leave, PollFlags::IN));
        sockets.push(PollFd::new(&self.listener, PollFlags::IN));
        sockets.extend(standing.iter().map(|who| PollFd::new(&who.stream, PollFlags::IN)));
        let first = standing.iter().map(|who| who.came).min();
        let wait = first.map(|came| STAND_LIMIT.saturating_sub(came.elapsed()));
        poll(&mut sockets, Some(&timespec(wait.unwrap_or(LOOK_ROUND))))?;
        let mut has_something = sockets.iter().map(|socket| !socket.revents().is_empty());
        Ok(Look {
            is_over: has_something.next() == Some(true),
            has_knocked: has_something.next() == Some(true),
            speaks: has_something.collect(),
        })
    }

    /// Lets in who has knocked, if it has not left again.
    fn accept(&self) -> Result<Option<Client>, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, from) = match acceptfrom_with(&self.listener, flags) {
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(None),
            accepted => accepted?,
        };
        let from =
            from.and_then(|from| SocketAddr::try_from(from).ok()).ok_or(Errno::AFNOSUPPORT)?;
        let stream = TcpStream::from(socket);
        Ok(Some(Client { stream, from: from.ip(), came: Instant::now(), said: Vec::new() }))
    }

    /// Answers whoever has said a line, or will say none. Gives back who may still say something.
    fn listen(&self, mut who: Client, awake: &mut Awake) -> Option<Client> {
        let mut there = [0; 256];
        let count = match who.stream.read(&mut there) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.desk.config.borrow().line_wait.is_zero() {
                    return Some(who);
                }
                0
            }
            Err(_) => return None,
            Ok(count) => count,
        };
        let said = &there[..count];
        if !said.is_empty() {
            self.senders.note(who.from, Instant::now());
        }
        if said.is_empty() || said.contains(&b'\n') {
            let mut answer = self.desk.answer_to(said);
            if awake.has_stalled(Instant::now()) {
                // It may have been made after the stall.
                self.ends_within(AFTER_STALL);
                answer = self.desk.answer_to(said);
            }
            // Who does not take it has lost it.
            let _ = say(&who.stream, &answer);
            if count == there.len() {
                take_the_rest(&who.stream);
            }
        } else {
            who.said = said.to_vec();
            self.send_on(Word::Comes(who));
        }
        None
    }

    /// A room that is full has no time for one more, who has to come again.
    fn send_on(&self, word: Word) {
        let _ = self.room.try_send(word);
    }
}

/// Sends the answer and the end in one packet, so that the client has to wake up only once. It is
/// shorter than any socket's buffer.
fn say(stream: &TcpStream, answer: &str) -> io::Result<()> {
    send(stream, answer.as_bytes(), SendFlags::NOSIGNAL | SendFlags::MORE)?;
    stream.shutdown(Shutdown::Write)
}

fn timespec(time: Duration) -> Timespec {
    // Some of the longest there is is as good as all of it.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
