//! The old process of a handover ([`crate::handover`]): it starts the new one and hands everything over.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use pgsteer_core::claim::Role;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::text::clean_to;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::departure::{Departure, Unsent};
use super::program::Program;
use super::signals::{Order, Signals};
use super::{Running, systemd};
use crate::agent::Agent;
use crate::control::{Control, UpgradeRequest};
use crate::handover::channel::{self, Channel};
use crate::handover::message::{self, Offer, Standing, ToNew, ToOld};
use crate::handover::{VARIABLE, VERSION};
use crate::http::PagesThread;
use crate::listen::Listeners;
use crate::log::limit::DECISIONS;
use crate::proxy::{Leaving, Proxy};
use crate::vip::Vips;

/// How long the new process may take to know what this one knows. It reads the configuration, connects
/// to all members and confirms each state, which takes one or two seconds.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(30);

/// How long the new process may take to start. It reads its configuration before it answers.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a process may take from the end of its connection to its exit.
const EXIT_PAUSE: Duration = Duration::from_millis(100);

/// How long the new process may take to accept clients once it has the sockets.
const ACCEPTING_LIMIT: Duration = Duration::from_secs(5);

/// Positions that this process may give out between the offer and the end of its service.
const TICKETS_BETWEEN: u64 = 1 << 32;

/// The interval of the check for clients that are left.
const LOOK: Duration = Duration::from_millis(2);

/// How long the upgrade waits for the next waiting client to move, after the sessions have moved. The new
/// process waits longer ([`super::takeover::SILENCE_MAX`]).
const NEXT_CLIENT_LIMIT: Duration = Duration::from_secs(2);

/// The longest text of the new process in an error.
const WHY_CHARS_MAX: usize = 400;

/// The new process, which accepts clients already.
pub struct Successor {
    child: Process,
    channel: Channel,
    /// SIGHUP arrived during the upgrade.
    reload: bool,
}

/// The new process. It is killed unless it has taken over.
struct Process {
    child: Child,
    has_taken_over: bool,
}

impl Successor {
    /// The same, with the note that SIGHUP arrived.
    pub fn with_reload(self, reload: bool) -> Successor {
        Successor { reload, ..self }
    }
}

impl Process {
    fn start(program: &Program, end: OwnedFd) -> anyhow::Result<Process> {
        let file = program.file.as_ref().context("the system does not know the program's file")?;
        let child = Command::new(file)
            .args(&program.arguments)
            .env(VARIABLE, "stdin")
            // It names this process: the new one would send the watchdog nothing (sd_watchdog_enabled(3)).
            .env_remove("WATCHDOG_PID")
            // The sockets of the service manager are handed over like all others.
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::from(end))
            .spawn()
            .with_context(|| format!("cannot start {}", file.display()))?;
        Ok(Process { child, has_taken_over: false })
    }

    /// Why the process has not answered: it has ended, or it has closed its connection.
    async fn why_gone(&mut self) -> anyhow::Error {
        // The end of the process follows the end of its connection.
        sleep(EXIT_PAUSE).await;
        match self.child.try_wait() {
            Ok(Some(status)) => {
                anyhow!("the new process has ended ({status}); its log has the reason")
            }
            _ => anyhow!("the new process does not know the handover, or has ended just now"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_taken_over {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Passes SIGHUP on to the new process, which may have read the configuration before the signal arrived.
fn pass_reload_to(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::HUP)) {
        tracing::warn!("the new process does not get SIGHUP: {error}");
    }
}

impl Running {
    /// Starts `program`, waits until it knows the cluster as this process does, and hands the listening
    /// sockets over.
    ///
    /// # Errors
    /// The new process cannot take over. This process goes on as before.
    pub async fn upgrade(&mut self, program: &Program) -> anyhow::Result<Successor> {
        let (ours, theirs) = channel::pair().context("cannot make a pair of sockets")?;
        let channel = Channel::new(ours).context("cannot use a pair of sockets")?;
        let mut child = Process::start(program, theirs)?;
        let pid = child.child.id();
        tracing::info!(target: DECISIONS, pid, "upgrade: started a new process");
        let mut missing = None;
        let agreed = self.agree(&channel, &mut child, &mut missing);
        let Ok(standing) = timeout(AGREEMENT_LIMIT, agreed).await else {
            let why = missing.unwrap_or_else(|| "it does not answer".to_owned());
            bail!("the new process is not ready within {} s: {why}", AGREEMENT_LIMIT.as_secs());
        };
        let Standing { generation, takes_connections, .. } = standing?;
        if takes_connections {
            self.send_connections(&channel).await.context("cannot send the connections")?;
        }
        let (addresses, files): (Vec<SocketAddr>, Vec<BorrowedFd<'_>>) =
            self.sockets().into_iter().unzip();
        let listeners = ToNew::Listeners { addresses, generation };
        message::send(&channel, &listeners, &files).await.context("cannot send the sockets")?;
        match timeout(ACCEPTING_LIMIT, accepts(&channel)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(child.why_gone().await),
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("the new process does not accept clients within {ACCEPTING_LIMIT:?}"),
        }
        child.has_taken_over = true;
        Ok(Successor { child, channel, reload: false })
    }

    /// Sends the history. The new process can do without it.
    async fn send_history(&self, channel: &Channel) {
        let sending = async {
            let mut file = File::from(memfd_create("pgsteer-history", MemfdFlags::CLOEXEC)?);
            let history = Arc::clone(&self.observer.history);
            let writing = move || history.write(&mut file).map(|()| file);
            let file = spawn_blocking(writing).await??;
            anyhow::Ok(message::send(channel, &ToNew::History, &[file.as_fd()]).await?)
        };
        if let Err(error) = sending.await {
            tracing::warn!(target: DECISIONS, "the history is not handed over: {error:#}");
        }
    }

    /// Sends the number of connections of each client address, for which the new process reserves places.
    async fn send_connections(&self, channel: &Channel) -> io::Result<()> {
        let counts = self.proxy.as_ref().map(Proxy::connections).unwrap_or_default();
        for message in ToNew::connections(&counts) {
            message::send(channel, &message, &[]).await?;
        }
        Ok(())
    }

    /// Makes the offer, and waits until both processes have the same members and gates. Returns what the new
    /// process knows then.
    async fn agree(
        &self,
        channel: &Channel,
        child: &mut Process,
        why: &mut Option<String>,
    ) -> anyhow::Result<Standing> {
        let offer = ToNew::Offer(Offer {
            version: VERSION,
            addresses: self.sockets().into_iter().map(|(address, _)| address).collect(),
            first_ticket: self.proxy.as_ref().map_or(0, Proxy::next_ticket) + TICKETS_BETWEEN,
            now: self.observer.clock.now(),
            sent_at: SystemTime::now(),
            orders: Some(self.observer.orders_in_force()),
        });
        if message::send(channel, &offer, &[]).await.is_err() {
            return Err(child.why_gone().await);
        }
        let first_answer_by = Instant::now() + FIRST_ANSWER_LIMIT;
        let mut snapshots = self.observer.published.snapshots.clone();
        let mut new = None;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            *why = missing(&snapshot, new.as_ref());
            if let (None, Some(standing)) = (&why, &new) {
                return Ok(standing.clone());
            }
            tokio::select! {
                changed = snapshots.changed() => changed.context("the engine is gone")?,
                () = sleep_until(first_answer_by), if new.is_none() => bail!(
                    "the new process does not answer within {} s",
                    FIRST_ANSWER_LIMIT.as_secs()
                ),
                answer = receive(channel) => match answer? {
                    Some(ToOld::Standing(standing)) => {
                        if new.is_none() && standing.takes_history {
                            self.send_history(channel).await;
                        }
                        new = Some(standing);
                    }
                    Some(ToOld::Refusal { why }) => {
                        bail!("the new process refuses: {}", cut(&why))
                    }
                    Some(message @ (ToOld::Accepting | ToOld::Arrived { .. })) => {
                        return Err(unexpected(&message));
                    }
                    None => return Err(child.why_gone().await),
                },
            }
        }
    }

    /// All listening sockets.
    fn sockets(&self) -> Vec<(SocketAddr, BorrowedFd<'_>)> {
        let of_proxy = self.proxy.iter().flat_map(Proxy::listeners);
        let of_agent = self.agent.iter().map(Agent::socket);
        let of_pages = self.pages.iter().map(PagesThread::socket);
        // The configuration may name another address meanwhile, for the next process.
        let others = of_agent.chain(of_pages);
        let others = others.filter_map(|socket| Some((socket.local_addr().ok()?, socket)));
        of_proxy.chain(others).map(|(address, socket)| (address, socket.as_fd())).collect()
    }

    /// Sends all clients and sessions to the new process, and waits for logins in progress. Returns this
    /// process's parts if the new process has failed before it had all sessions: the service goes on
    /// here.
    ///
    /// # Errors
    /// The service cannot go on here.
    pub async fn leave(
        mut self,
        successor: Successor,
        mut request: UpgradeRequest,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<Running>> {
        let Successor { mut child, channel, reload } = successor;
        let pid = child.child.id();
        if reload {
            pass_reload_to(pid);
        }
        let Some(mut proxy) = self.proxy.take() else {
            self.end_outputs();
            systemd::tell_main_process(pid);
            request.succeed(pid, 0);
            tracing::info!(target: DECISIONS, pid, "upgraded: the new process has taken over");
            self.end(pid, signals).await;
            return Ok(None);
        };
        let mut sockets = Listeners::default();
        for (address, socket) in proxy.listeners() {
            sockets.add(address, socket.try_clone().context("cannot copy a listening socket")?);
        }
        let (departure, exit) = Departure::start(channel)?;
        proxy.leave(exit.clone()).await;
        wait_for_departures(&proxy, &departure).await;
        let finishing = match departure.complete(proxy.logins_left()).await {
            Ok((finishing, arrived)) => {
                self.end_outputs();
                request.succeed(pid, arrived);
                finishing
            }
            Err(unsent) => {
                request.fail(&unsent.error);
                child.has_taken_over = false;
                drop((child, exit));
                return self.resume(proxy, sockets, unsent).await.map(Some);
            }
        };
        drop(sockets);
        systemd::tell_main_process(pid);
        self.wait_for_logins(&proxy, pid, signals).await;
        proxy.stop(Duration::ZERO).await;
        drop(exit);
        match finishing.end().await {
            Ok(sent) => tracing::info!(
                target: DECISIONS, pid, sent, "upgraded: the new process has taken over"
            ),
            Err(Unsent { error, lost }) => tracing::error!(
                target: DECISIONS, pid, lost = lost.len(),
                "the new process failed after it had taken over: {error:#}"
            ),
        }
        self.end(pid, signals).await;
        Ok(None)
    }

    /// Waits until the clients that are left have logged in and have gone to the new process `pid`: for the
    /// grace of a shutdown at most, and not after SIGTERM.
    async fn wait_for_logins(&self, proxy: &Proxy, pid: u32, signals: &mut Signals) {
        let grace = self.config.proxy.shutdown_grace;
        let emptied = async {
            while proxy.left().clients > 0 {
                sleep(LOOK).await;
            }
        };
        let mut emptied = pin!(timeout(grace, emptied));
        loop {
            tokio::select! {
                emptied = &mut emptied => {
                    if emptied.is_err() {
                        let clients = proxy.left().clients;
                        tracing::warn!(clients, ?grace, "logins are not complete in time, ending them");
                    }
                    return;
                }
                order = signals.stop_or_reload() => match order {
                    Order::Reload => pass_reload_to(pid),
                    Order::Stop | Order::Upgrade(_) => {
                        tracing::warn!("asked to stop: not waiting any longer");
                        return;
                    }
                },
            }
        }
    }

    /// Ends this process's last part once the process `pid` has taken over: answers are sent, and a signal that
    /// arrived late is not lost.
    async fn end(&mut self, pid: u32, signals: &mut Signals) {
        if let Some(control) = self.control.take() {
            control.answered().await;
        }
        if signals.has_reload().await {
            pass_reload_to(pid);
        }
    }

    /// Ends what the new process does from now on. The addresses of `[vip]` stay on this machine.
    fn end_outputs(&mut self) {
        (self.agent, self.pages, self.haproxys) = (None, None, None);
        self.control.iter().for_each(Control::close);
        self.vips.take().into_iter().for_each(Vips::leave);
    }

    /// Continues the service here, because the new process has failed.
    async fn resume(
        mut self,
        mut proxy: Proxy,
        mut sockets: Listeners,
        unsent: Unsent,
    ) -> anyhow::Result<Running> {
        let Unsent { error, lost } = unsent;
        tracing::error!(
            target: DECISIONS,
            "not upgraded, this process goes on: the new process failed while it took over: {error:#}"
        );
        self.note_failed_upgrade(&error);
        proxy.stay(&self.config, &mut sockets).await?;
        let arrivals = proxy.arrivals();
        for moved in lost {
            arrivals.take(moved).await;
        }
        self.proxy = Some(proxy);
        Ok(self)
    }
}

/// Waits until all sessions and waiting clients have been given to the exit, or the new process has failed.
/// Does not wait longer for clients of which none moves.
async fn wait_for_departures(proxy: &Proxy, departure: &Departure) {
    let (mut movable_before, mut since) = (usize::MAX, Instant::now());
    while !departure.has_failed() {
        let Leaving { sessions, movable, .. } = proxy.left();
        if sessions != Some(0) || movable != movable_before {
            (movable_before, since) = (movable, Instant::now());
        }
        let are_stuck = since.elapsed() >= NEXT_CLIENT_LIMIT;
        if sessions == Some(0) && (movable == 0 || are_stuck) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Waits until the new process, which has the sockets, accepts clients. Returns false if it has gone.
async fn accepts(channel: &Channel) -> anyhow::Result<bool> {
    loop {
        match receive(channel).await? {
            Some(ToOld::Accepting) => return Ok(true),
            // Sent before the sockets arrived. Until this process has no session, no gate opens that was
            // shut in the accepted state.
            Some(ToOld::Standing(_)) => {}
            Some(ToOld::Refusal { why }) => bail!("the new process refuses: {}", cut(&why)),
            Some(message @ ToOld::Arrived { .. }) => return Err(unexpected(&message)),
            None => return Ok(false),
        }
    }
}

fn unexpected(message: &ToOld) -> anyhow::Error {
    let name = match message {
        ToOld::Refusal { .. } => "refusal",
        ToOld::Standing(_) => "standing",
        ToOld::Accepting => "accepting",
        ToOld::Arrived { .. } => "arrived",
    };
    anyhow!("the new process sends the message {name} too early; it is no pgsteer of this version")
}

async fn receive(channel: &Channel) -> anyhow::Result<Option<ToOld>> {
    let packet = channel.receive().await.context("the connection to the new process is broken")?;
    Ok(packet.map(|packet| message::read(&packet)).transpose()?)
}

/// What the new process does not know yet; none if it can take over.
fn missing(snapshot: &Arc<Snapshot>, new: Option<&Standing>) -> Option<String> {
    let Some(new) = new else { return Some("it has not reported its state".to_owned()) };
    let is_write = |name: &str| {
        let service = snapshot.services.iter().find(|(service, _)| service.as_str() == name);
        service.is_some_and(|(_, state)| state.role == Role::Primary)
    };
    Standing::of(snapshot).missing_in(new, is_write)
}

fn cut(why: &str) -> String {
    clean_to(why, WHY_CHARS_MAX).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of the cluster can change between the agreement and the arrival of the sockets.
    #[tokio::test]
    async fn a_state_that_crosses_the_sockets_is_no_fault() {
        let (ours, theirs) = channel::pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        for message in [ToOld::Standing(Standing::default()), ToOld::Accepting] {
            message::send(&theirs, &message, &[]).await.unwrap();
        }
        assert!(accepts(&ours).await.unwrap());
        message::send(&theirs, &ToOld::Arrived { count: 1 }, &[]).await.unwrap();
        let error = accepts(&ours).await.unwrap_err().to_string();
        assert!(error.contains("arrived too early"), "{error}");
        drop(theirs);
        assert!(!accepts(&ours).await.unwrap());
    }
}
