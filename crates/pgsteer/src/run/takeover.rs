//! The new process of a handover ([`crate::handover`]): it takes over from its parent.

use std::env;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pgsteer_core::settings::Config;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{getpid, getuid};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::observer::Observer;
use super::predecessor::Predecessor;
use super::{Outputs, Running, bind_all};
use crate::control::{Calls, UpgradeRequest};
use crate::handover::channel::Channel;
use crate::handover::message::{self, MessageError, Offer, Standing, ToNew, ToOld};
use crate::handover::{ARRIVALS_AT_ONCE, VARIABLE, VERSION};
use crate::listen::Listeners;
use crate::log::limit::DECISIONS;
use crate::proxy::moved::LoginsLeft;
use crate::proxy::{Arrivals, Inheritance};
use crate::sources;

/// How long the parent may take for its first message.
const OFFER_LIMIT: Duration = Duration::from_secs(5);

/// How long places stay reserved for the old process, and services with a limit grant no permit, while it
/// sends nothing.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The parent process.
pub struct Parent(Channel);

/// The process that this one has to take over from; none at an ordinary start.
///
/// # Errors
/// The standard input is not the connection to a pgsteer of the same user.
pub fn parent() -> anyhow::Result<Option<Parent>> {
    if env::var_os(VARIABLE).is_none_or(|value| value != "stdin") {
        return Ok(None);
    }
    let end = io::stdin().as_fd().try_clone_to_owned()?;
    let Ok(peer) = socket_peercred(&end) else {
        // A process that this one has started in another way inherits the variable.
        return Ok(None);
    };
    if peer.uid != getuid() || peer.pid == getpid() {
        bail!(
            "the standard input is a socket of user {} (process {}); a handover needs one of this user",
            peer.uid.as_raw(),
            peer.pid.as_raw_nonzero()
        );
    }
    release_stdin()?;
    Ok(Some(Parent(Channel::new(end).context("cannot use the connection to the old process")?)))
}

/// Replaces the standard input, so that the connection ends with the handover.
fn release_stdin() -> anyhow::Result<()> {
    let null = File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(OwnedFd::from(null)).context("cannot replace the standard input")
}

/// Starts the service as the successor of `parent`. The parent gets the reason if that is impossible.
///
/// # Errors
/// This process cannot take over; the parent goes on.
pub async fn start(
    parent: Parent,
    config: Config,
    outputs: Outputs,
    upgrades: Calls<UpgradeRequest>,
) -> anyhow::Result<Running> {
    let Parent(channel) = parent;
    let started = take_over(&channel, config, outputs, upgrades).await;
    match started {
        Ok((running, arrivals)) => {
            tokio::spawn(receive_all(channel, arrivals));
            Ok(running)
        }
        Err(error) => {
            let why = format!("{error:#}");
            let _ = message::send(&channel, &ToOld::Refusal { why }, &[]).await;
            Err(error)
        }
    }
}

async fn take_over(
    channel: &Channel,
    config: Config,
    outputs: Outputs,
    upgrades: Calls<UpgradeRequest>,
) -> anyhow::Result<(Running, Option<Arrivals>)> {
    let offer = timeout(OFFER_LIMIT, receive(channel)).await;
    let Some((ToNew::Offer(offer), _)) = offer.context("the old process makes no offer")?? else {
        bail!("the old process makes no offer");
    };
    let now = offer.time();
    let Offer { version, addresses, first_ticket, orders, sent_at, .. } = offer;
    if version != VERSION {
        bail!(
            "the running pgsteer hands over by version {version}, this one takes over by version \
             {VERSION}: restart pgsteer instead"
        );
    }
    let prepared = sources::prepare(&config.cluster)?;
    let mut listeners = bind_all(&config, outputs, |address| addresses.contains(&address))?;
    let observer = Observer::start(&config, prepared, Some(&Predecessor { now, orders, sent_at }));
    let (generation, connections) = agree(channel, &observer, &mut listeners).await?;
    let generation_max = Some(generation);
    let inherited = Inheritance { listeners, generation_max, first_ticket, connections };
    let running = Running::open(observer, config, outputs, inherited, upgrades)?;
    message::send(channel, &ToOld::Accepting, &[]).await?;
    let arrivals = running.proxy.as_ref().map(|proxy| proxy.arrivals());
    Ok((running, arrivals))
}

/// Reports each change of the Snapshot until the old process sends its sockets. Returns the generation
/// of the Snapshot that it has accepted, and the number of its connections for each client address.
async fn agree(
    channel: &Channel,
    observer: &Observer,
    listeners: &mut Listeners,
) -> anyhow::Result<(u64, Vec<(IpAddr, usize)>)> {
    let mut snapshots = observer.published.snapshots.clone();
    let mut connections = Vec::new();
    let (mut reported, mut has_history) = (None, false);
    loop {
        let standing = Standing::of(&snapshots.borrow_and_update());
        if reported.as_ref() != Some(&standing) {
            message::send(channel, &ToOld::Standing(standing.clone()), &[]).await?;
            reported = Some(standing);
        }
        tokio::select! {
            changed = snapshots.changed() => changed.context("the engine is gone")?,
            received = receive(channel) => {
                let (addresses, generation, files) = match received? {
                    Some((ToNew::Listeners { addresses, generation }, files)) => {
                        (addresses, generation, files)
                    }
                    Some((ToNew::History, files)) => {
                        has_history = resume_history(observer, files).await;
                        continue;
                    }
                    Some((ToNew::Connections { counts }, _)) => {
                        connections.extend(counts);
                        continue;
                    }
                    _ => bail!("the old process does not hand over"),
                };
                if addresses.len() != files.len() {
                    return Err(anyhow!(
                        "{} of {} sockets have arrived; the limit of open files may be too low",
                        files.len(),
                        addresses.len()
                    ));
                }
                if has_history {
                    observer.history.skip_events(&observer.published.snapshots.borrow());
                }
                for (address, file) in addresses.into_iter().zip(files) {
                    listeners.add(address, file.into());
                }
                return Ok((generation, connections));
            }
        }
    }
}

/// Continues the history of the old process. Returns false if it begins now.
async fn resume_history(observer: &Observer, files: Vec<OwnedFd>) -> bool {
    let history = Arc::clone(&observer.history);
    let resuming = async {
        let [file] = message::files(files)?;
        anyhow::Ok(spawn_blocking(move || history.resume(File::from(file))).await??)
    };
    let resumed = resuming.await;
    if let Err(error) = &resumed {
        tracing::warn!(target: DECISIONS, "the history of the old process cannot be read: {error:#}");
    }
    resumed.is_ok()
}

/// Receives clients and sessions until the old process ends.
async fn receive_all(channel: Channel, arrivals: Option<Arrivals>) {
    let Some(arrivals) = arrivals else { return };
    // A session that cannot be used is counted too: the old process waits for it.
    let mut arrived = 0_usize;
    let mut silence_max = SILENCE_MAX;
    loop {
        let moved = match receive_or_release(&channel, &arrivals, silence_max).await {
            Ok(Some((ToNew::Client(client), files))) => client.into_moved(files),
            Ok(Some((ToNew::Session(session), files))) => session.into_moved(files),
            Ok(Some((ToNew::SessionsLeft(logins), _))) => {
                arrivals.complete(logins).await;
                silence_max = arrivals.grace() + SILENCE_MAX;
                report_arrivals(&channel, arrived).await;
                tracing::info!(target: DECISIONS, arrived, "upgrade: all sessions have arrived");
                continue;
            }
            Ok(Some((
                ToNew::Offer(_)
                | ToNew::History
                | ToNew::Connections { .. }
                | ToNew::Listeners { .. },
                _,
            ))) => continue,
            Ok(None) => break,
            Err(ReceiveError::Message(error)) => Err(error),
            Err(ReceiveError::Connection(error)) => {
                tracing::error!(target: DECISIONS, "the old process is gone: {error}");
                break;
            }
        };
        arrived += 1;
        match moved {
            Ok(moved) => arrivals.take(moved).await,
            // The others go on.
            Err(error) => {
                tracing::error!(target: DECISIONS, "a session is lost in the upgrade: {error}");
            }
        }
        if arrived.is_multiple_of(ARRIVALS_AT_ONCE) {
            report_arrivals(&channel, arrived).await;
        }
    }
    // Also if the old process has died: then its sessions have ended with it.
    arrivals.complete(LoginsLeft::default()).await;
    tracing::info!(target: DECISIONS, arrived, "upgrade: the old process has ended");
}

/// Receives the next message. If the old process sends nothing for `silence_max`, its places are given to
/// other clients meanwhile.
async fn receive_or_release(
    channel: &Channel,
    arrivals: &Arrivals,
    silence_max: Duration,
) -> Result<Option<(ToNew, Vec<OwnedFd>)>, ReceiveError> {
    let mut receiving = pin!(receive(channel));
    if let Ok(received) = timeout(silence_max, &mut receiving).await {
        return received;
    }
    tracing::warn!(
        target: DECISIONS,
        "the old process has sent nothing for {} s: its places go to other clients",
        silence_max.as_secs()
    );
    arrivals.reserve_only(LoginsLeft::default());
    receiving.await
}

async fn report_arrivals(channel: &Channel, count: usize) {
    // The old process notices by itself that this one does not report.
    let _ = message::send(channel, &ToOld::Arrived { count }, &[]).await;
}

/// Why no message was received.
#[derive(Debug, Error)]
enum ReceiveError {
    /// The connection is broken.
    #[error("the connection to the old process is broken: {0}")]
    Connection(#[from] io::Error),
    /// The packet is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

async fn receive(channel: &Channel) -> Result<Option<(ToNew, Vec<OwnedFd>)>, ReceiveError> {
    let Some(packet) = channel.receive().await? else { return Ok(None) };
    let message = message::read(&packet)?;
    Ok(Some((message, packet.files)))
}
