//! Sends the clients and sessions of this process to the one that takes over.

use std::future::pending;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::handover::ARRIVALS_AT_ONCE;
use crate::handover::channel::Channel;
use crate::handover::message::{self, ToNew, ToOld};
use crate::proxy::moved::{Exit, LoginsLeft, Moved};

/// Clients and sessions that wait to be sent. They stand still meanwhile.
const WAITING_MAX: usize = 8;

/// Clients and sessions that were sent and have not arrived. They stand still too.
const ON_THE_WAY_MAX: usize = 2 * ARRIVALS_AT_ONCE;

/// How long the new process may take until the next one has arrived.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

/// The interval of the check for the end of the thread.
const LOOK: Duration = Duration::from_millis(2);

/// The running departure, on a thread of its own: it must not wait for the engine.
pub struct Departure {
    thread: JoinHandle<Result<usize, Unsent>>,
    /// Used when all established sessions have been given to the exit.
    all_sessions: oneshot::Sender<LoginsLeft>,
    /// Receives how many have arrived, when all of them have.
    confirmed: oneshot::Receiver<usize>,
}

/// The departure has failed.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: anyhow::Error,
    /// Clients and sessions that were not sent.
    pub lost: Vec<Moved>,
}

impl From<anyhow::Error> for Unsent {
    fn from(error: anyhow::Error) -> Unsent {
        Unsent { error, lost: Vec::new() }
    }
}

impl Departure {
    /// Starts to send what is given to the exit to the process at the other end of `channel`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(channel: Channel) -> anyhow::Result<(Departure, Exit)> {
        let (exit, moved) = mpsc::channel(WAITING_MAX);
        let (all_sessions, when_all) = oneshot::channel();
        let (confirm, confirmed) = oneshot::channel();
        let end = channel.into_end().context("cannot release the connection")?;
        let thread = std::thread::Builder::new()
            .name("pgsteer-handover".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.context("no runtime")?.block_on(async {
                    let channel = Channel::new(end).context("cannot use the connection")?;
                    send_all(&channel, moved, when_all, confirm).await
                })
            })
            .context("cannot start the thread of the handover")?;
        Ok((Departure { thread, all_sessions, confirmed }, exit))
    }

    /// Returns true if the new process has failed.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all established sessions have arrived and the new process knows that only `logins` are
    /// left. Returns how many clients and sessions have arrived. The caller has given all of them to the exit.
    ///
    /// # Errors
    /// The new process has failed before.
    pub async fn complete(self, logins: LoginsLeft) -> Result<(Finishing, usize), Unsent> {
        let Departure { thread, all_sessions, confirmed } = self;
        let finishing = Finishing(thread);
        // An error means that the thread has ended, which the next line notices.
        let _ = all_sessions.send(logins);
        match confirmed.await {
            Ok(arrived) => Ok((finishing, arrived)),
            Err(_) => match finishing.end().await {
                Ok(_) => Err(anyhow!("it has ended").into()),
                Err(unsent) => Err(unsent),
            },
        }
    }
}

/// The departure after all established sessions have arrived: those of logins in progress follow.
pub struct Finishing(JoinHandle<Result<usize, Unsent>>);

impl Finishing {
    /// Waits until everything was sent, and returns how many. The caller has closed the exit.
    ///
    /// # Errors
    /// The new process has failed.
    pub async fn end(self) -> Result<usize, Unsent> {
        while !self.0.is_finished() {
            sleep(LOOK).await;
        }
        let failed = |_| Err(anyhow!("the thread of the handover has failed").into());
        self.0.join().unwrap_or_else(failed)
    }
}

/// Sends until the exit is closed. Returns how many were sent.
async fn send_all(
    channel: &Channel,
    mut moved: mpsc::Receiver<Moved>,
    when_all: oneshot::Receiver<LoginsLeft>,
    confirm: oneshot::Sender<usize>,
) -> Result<usize, Unsent> {
    let (mut sent, mut arrived) = (0, 0);
    let mut all_sessions = Some((when_all, confirm));
    loop {
        // A session is given to the exit before it is counted as left, so the exit comes first.
        let next = tokio::select! {
            biased;
            next = moved.recv() => next,
            logins = is_all(&mut all_sessions) => {
                let reporting = async {
                    let all = ToNew::SessionsLeft(logins);
                    message::send(channel, &all, &[]).await.map_err(why)?;
                    wait_for_arrivals(channel, &mut arrived, sent).await
                };
                if let Err(error) = reporting.await {
                    return Err(Unsent { error, lost: rest(moved, None) });
                }
                if let Some((_, confirm)) = all_sessions.take() {
                    // The caller waits for it, unless it has ended.
                    let _ = confirm.send(arrived);
                }
                continue;
            }
        };
        let Some(next) = next else { return Ok(sent) };
        let message = ToNew::of(&next);
        if let Err(error) = message::send(channel, &message, &message::files_of(&next)).await {
            return Err(Unsent { error: why(error), lost: rest(moved, Some(next)) });
        }
        sent += 1;
        let arrived_min = (sent + 1).saturating_sub(ON_THE_WAY_MAX);
        if let Err(error) = wait_for_arrivals(channel, &mut arrived, arrived_min).await {
            return Err(Unsent { error, lost: rest(moved, None) });
        }
    }
}

/// Waits until all established sessions have been given to the exit, and returns what is left; waits for
/// ever if that is over.
async fn is_all(
    all_sessions: &mut Option<(oneshot::Receiver<LoginsLeft>, oneshot::Sender<usize>)>,
) -> LoginsLeft {
    let logins = match all_sessions {
        Some((all, _)) => all.await.ok(),
        None => None,
    };
    match logins {
        Some(logins) => logins,
        None => pending().await,
    }
}

/// Waits until `arrived_min` clients and sessions have arrived.
async fn wait_for_arrivals(
    channel: &Channel,
    arrived: &mut usize,
    arrived_min: usize,
) -> anyhow::Result<()> {
    while *arrived < arrived_min {
        let packet = timeout(ARRIVAL_LIMIT, channel.receive()).await;
        let packet = packet.map_err(|_| {
            anyhow!("it has not taken the next session within {} s", ARRIVAL_LIMIT.as_secs())
        })??;
        let Some(packet) = packet else { bail!("it has ended") };
        if let ToOld::Arrived { count } = message::read(&packet)? {
            *arrived = count;
        }
    }
    Ok(())
}

/// Why the new process takes nothing any more.
fn why(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => anyhow!("it has ended"),
        _ => error.into(),
    }
}

/// What is left in the exit, after `first`.
fn rest(mut moved: mpsc::Receiver<Moved>, first: Option<Moved>) -> Vec<Moved> {
    moved.close();
    first.into_iter().chain(std::iter::from_fn(|| moved.try_recv().ok())).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use pgsteer_core::names::ServiceName;

    use super::*;
    use crate::handover::channel::pair;
    use crate::proxy::moved::MovedClient;

    /// A departure whose new process is the test.
    fn departure() -> (Departure, Exit, Channel) {
        let (ours, theirs) = pair().unwrap();
        let (departure, exit) = Departure::start(Channel::new(ours).unwrap()).unwrap();
        (departure, exit, Channel::new(theirs).unwrap())
    }

    fn client() -> Moved {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Moved::Client(MovedClient {
            stream: TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            service: ServiceName::new("write").unwrap(),
            sent: Vec::new(),
            asked_for_tls: false,
            asked_for_gss: false,
            age: Duration::ZERO,
            waited: None,
            ticket: None,
        })
    }

    fn left() -> LoginsLeft {
        LoginsLeft { connections: vec![([10, 0, 0, 1].into(), 2)], ..LoginsLeft::default() }
    }

    async fn next(new: &Channel) -> ToNew {
        message::read(&new.receive().await.unwrap().unwrap()).unwrap()
    }

    async fn arrive(new: &Channel, count: usize) {
        message::send(new, &ToOld::Arrived { count }, &[]).await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_reported_when_all_have_arrived() {
        let (departure, exit, new) = departure();
        exit.send(client()).await.unwrap();
        exit.send(client()).await.unwrap();
        let arriving = async {
            assert!(matches!(next(&new).await, ToNew::Client(_)));
            assert!(matches!(next(&new).await, ToNew::Client(_)));
            assert!(matches!(next(&new).await, ToNew::SessionsLeft(logins) if logins == left()));
            arrive(&new, 2).await;
        };
        let (completed, ()) = tokio::join!(departure.complete(left()), arriving);
        let (finishing, arrived) = completed.unwrap();
        assert_eq!(arrived, 2);
        exit.send(client()).await.unwrap();
        assert!(matches!(next(&new).await, ToNew::Client(_)));
        drop(exit);
        assert_eq!(finishing.end().await.unwrap(), 3);
    }

    /// As with SIGSTOP: its socket takes the packets, and nothing arrives.
    #[tokio::test]
    async fn a_new_process_that_stands_still_fails_in_time_and_keeps_only_what_it_has() {
        let (departure, exit, new) = departure();
        let mut given = 0;
        while !departure.has_failed() {
            // The exit is full when too many are on their way.
            match timeout(Duration::from_millis(200), exit.send(client())).await {
                Ok(Ok(())) => given += 1,
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        let Err(Unsent { error, lost }) = departure.complete(left()).await else {
            panic!("no failure")
        };
        assert!(error.to_string().contains("within 5 s"), "{error:#}");
        assert_eq!(given - lost.len(), ON_THE_WAY_MAX, "the others stay here");
        drop(new);
    }

    #[tokio::test]
    async fn a_new_process_that_dies_is_noticed_before_the_end_is_reported() {
        let (departure, exit, new) = departure();
        exit.send(client()).await.unwrap();
        assert!(matches!(next(&new).await, ToNew::Client(_)));
        drop(new);
        let Err(Unsent { error, .. }) = departure.complete(left()).await else {
            panic!("no failure")
        };
        assert!(error.to_string().contains("it has ended"), "{error:#}");
    }
}
