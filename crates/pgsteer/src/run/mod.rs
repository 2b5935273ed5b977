//! `pgsteer run`: the one module that knows both the sources and the outputs.

mod conductor;
mod departure;
mod observer;
mod orders;
mod predecessor;
mod program;
mod reload;
mod signals;
mod stall;
mod systemd;
mod takeover;
#[cfg(test)]
mod tests;
mod upgrade;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pgsteer_config::summary::{AgentSummary, Summary};
use pgsteer_core::settings::{AgentConfig, Config};
use tokio::sync::watch;

use self::observer::Observer;
use self::program::Program;
use self::signals::{Order, Signals};
use self::upgrade::Successor;
use crate::agent::{self, Agent};
use crate::control::{Calls, Control, UpgradeRequest};
use crate::haproxy::{self, Haproxys};
use crate::heartbeat::Pulse;
use crate::http::{self, Access, ConfigShown, Pages, PagesThread, ReadyPages, Streams};
use crate::listen::Listeners;
use crate::log::limit::DECISIONS;
use crate::proxy::{Inheritance, Proxy};
use crate::sources;
use crate::vip::{self, Vips};

/// The interval of the check that all parts still run.
const LOOK_AFTER_PARTS: Duration = Duration::from_millis(500);

/// Checks that the files of the configuration can be used, and starts nothing.
///
/// # Errors
/// The first file that cannot be used; the message names it and never shows a secret.
pub fn check_files(config: &Config) -> anyhow::Result<()> {
    sources::prepare(&config.cluster).map(drop)
}

/// Runs until SIGTERM or SIGINT. `reread` returns the new configuration at SIGHUP.
///
/// # Errors
/// pgsteer cannot start, for example because a port is taken or a file cannot be read.
pub fn run(
    config: Config,
    outputs: Outputs,
    reread: impl Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<()> {
    raise_file_limit();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(config, outputs, reread))
}

async fn serve(
    config: Config,
    outputs: Outputs,
    reread: impl Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<()> {
    let program = Program::of_this_process();
    let mut signals = Signals::listen()?;
    let mut running = match takeover::parent()? {
        Some(parent) => takeover::start(parent, config, outputs, signals.upgrades()).await?,
        None => Running::start(config, outputs, signals.upgrades())?,
    };
    loop {
        tokio::select! {
            order = signals.next() => match order {
                Order::Reload => running.reload(reread()).await,
                Order::Upgrade(mut request) => {
                    let program = program.with_file(request.program.take());
                    match upgrade(&mut running, &program, &mut signals).await {
                        Upgraded::Done(successor) => {
                            match running.leave(successor, request, &mut signals).await? {
                                Some(resumed) => running = resumed,
                                None => return Ok(()),
                            }
                        }
                        Upgraded::Failed { error, reload } => {
                            running.note_failed_upgrade(&error);
                            request.fail(&error);
                            if reload {
                                running.reload(reread()).await;
                            }
                        }
                        Upgraded::Stopped => break,
                    }
                }
                Order::Stop => break,
            },
            // The process manager restarts the process. Without this part no client would be
            // served.
            part = running.failed() => bail!("{part} has failed, and nothing works without it"),
        }
    }
    systemd::tell_stopping();
    tokio::select! {
        () = running.stop() => {}
        () = signals.stop_again() => tracing::warn!("asked to stop again: not waiting any longer"),
    }
    Ok(())
}

/// The end of an upgrade.
enum Upgraded {
    /// The new process accepts clients.
    Done(Successor),
    /// This process goes on. `reload` is set if SIGHUP arrived meanwhile.
    Failed { error: anyhow::Error, reload: bool },
    /// SIGTERM arrived meanwhile.
    Stopped,
}

/// Starts the new process and hands the listening sockets over.
async fn upgrade(running: &mut Running, program: &Program, signals: &mut Signals) -> Upgraded {
    let mut reload = false;
    let upgrading = running.upgrade(program);
    tokio::pin!(upgrading);
    loop {
        tokio::select! {
            upgraded = &mut upgrading => return match upgraded {
                Ok(successor) => Upgraded::Done(successor.with_reload(reload)),
                Err(error) => {
                    tracing::error!(target: DECISIONS, "not upgraded, this process goes on: {error:#}");
                    Upgraded::Failed { error, reload }
                }
            },
            order = signals.next() => match order {
                Order::Reload => reload = true,
                Order::Upgrade(mut other) => {
                    let error = anyhow!("an upgrade is under way already");
                    tracing::warn!("{error}");
                    other.fail(&error);
                }
                Order::Stop => return Upgraded::Stopped,
            },
        }
    }
}

/// Binds the ports of `outputs` for which `is_inherited` returns false.
fn bind_all(
    config: &Config,
    outputs: Outputs,
    is_inherited: impl Fn(SocketAddr) -> bool,
) -> anyhow::Result<Listeners> {
    let mut listeners = match outputs {
        Outputs::All => Proxy::bind(config, &is_inherited)?,
        Outputs::AnswersOnly => Listeners::default(),
    };
    if let Some(agent) = config.agent.as_ref().filter(|agent| !is_inherited(agent.listen)) {
        listeners.add(agent.listen, agent::bind(agent.listen)?);
    }
    if let Some(http) = config.http.as_ref().filter(|http| !is_inherited(http.listen)) {
        listeners.add(http.listen, http::bind(http.listen)?);
    }
    Ok(listeners)
}

/// Logs which sockets of the service manager have an address that the configuration does not have.
fn note_unused(activated: &Listeners, config: &Config, outputs: Outputs) {
    let services = match outputs {
        Outputs::All => Some(config.services.values().map(|service| service.listen)),
        Outputs::AnswersOnly => None,
    };
    let agent = config.agent.iter().map(|agent| agent.listen);
    let pages = config.http.iter().map(|http| http.listen);
    let used: Vec<SocketAddr> = services.into_iter().flatten().chain(agent).chain(pages).collect();
    for address in activated.addresses().filter(|address| !used.contains(address)) {
        tracing::warn!(
            "the service manager listens on {address}, which is no `listen` of the configuration; clients that \
             connect there get no answer: remove it from the socket unit, or set `listen`"
        );
    }
}

/// All running parts.
struct Running {
    config: Config,
    observer: Observer,
    /// None in the agent, which only answers checks.
    proxy: Option<Proxy>,
    agent: Option<Agent>,
    /// None if no HAProxy is steered.
    haproxys: Option<Haproxys>,
    /// None if no port is configured for the pages.
    pages: Option<PagesThread>,
    /// None without a control socket.
    control: Option<Control>,
    /// None without addresses in the configuration.
    vips: Option<Vips>,
    outputs: Outputs,
    /// The configuration as the pages show it.
    shown_config: watch::Sender<Arc<ConfigShown>>,
}

/// The outputs to start, out of the configured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// All of them.
    All,
    /// All but the proxy: the agent on a machine where another program accepts the clients.
    AnswersOnly,
}

impl Running {
    fn start(
        config: Config,
        outputs: Outputs,
        upgrades: Calls<UpgradeRequest>,
    ) -> anyhow::Result<Running> {
        // Reads the files and binds the ports first, so that an error occurs before any part is
        // started.
        let prepared = sources::prepare(&config.cluster)?;
        let mut listeners =
            Listeners::activated().context("cannot use a socket of the service manager")?;
        note_unused(&listeners, &config, outputs);
        let bound = bind_all(&config, outputs, |address| listeners.contain(address))?;
        listeners.merge(bound);
        let observer = Observer::start(&config, prepared, None);
        let inherited = Inheritance { listeners, ..Inheritance::default() };
        Running::open(observer, config, outputs, inherited, upgrades)
    }

    /// Starts the outputs at the sockets in `inherited`.
    fn open(
        mut observer: Observer,
        config: Config,
        outputs: Outputs,
        mut inherited: Inheritance,
        upgrades: Calls<UpgradeRequest>,
    ) -> anyhow::Result<Running> {
        let orders = observer.orders.take();
        let Observer { clock, heartbeat, stats, history, published, .. } = &observer;
        let clock = *clock;
        let proxy = match outputs {
            Outputs::All => Some({
                let pulse = Pulse::new(Arc::clone(heartbeat), clock);
                let snapshots = published.snapshots.clone();
                Proxy::start(&config, stats, snapshots, pulse, &mut inherited)?
            }),
            Outputs::AnswersOnly => None,
        };
        let control = orders.map(|orders| orders.start(proxy.as_ref(), published, clock, upgrades));
        let control = control.transpose()?;
        let listeners = &mut inherited.listeners;
        let asked = config.agent.as_ref().and_then(|agent| listeners.take(agent.listen));
        let pages = config.http.as_ref().and_then(|http| listeners.take(http.listen));
        let tls = config.http.as_ref().map(http::acceptor).transpose()?.flatten();
        let agent = match (asked, &config.agent) {
            (Some(listener), Some(wanted)) => Some(start_agent(listener, wanted, &observer)?),
            _ => None,
        };
        let haproxys = start_haproxys(&config, &observer)?;
        let snapshots = published.snapshots.clone();
        systemd::tell_always(snapshots, clock, Arc::clone(heartbeat))?;
        let shown_config = watch::Sender::new(Arc::new(shown_of(&config, outputs)));
        let peers = config.http.as_ref().map(|it| http::peer_targets(&it.peers)).transpose()?;
        let shown = config.http.as_ref().map(Access::read).transpose()?.map(|access| Pages {
            access,
            peers: peers.unwrap_or_default(),
            snapshot: published.snapshots.clone(),
            stats: Arc::clone(stats),
            clock,
            heartbeat: Arc::clone(heartbeat),
            history: Arc::clone(history),
            config: shown_config.subscribe(),
            streams: Streams::affordable(),
            ready: ReadyPages::default(),
        });
        let pages = pages.zip(shown);
        let pages = pages.map(|(listener, shown)| PagesThread::start(listener, tls, shown));
        let pages = pages.transpose()?;
        log_doors(&config, outputs);
        let vips = start_vips(&config, &observer)?;
        Ok(Running {
            config,
            observer,
            proxy,
            agent,
            haproxys,
            pages,
            control,
            vips,
            outputs,
            shown_config,
        })
    }

    /// Shows the pages that an upgrade has failed.
    fn note_failed_upgrade(&self, error: &anyhow::Error) {
        let Observer { clock, stats, .. } = &self.observer;
        stats.failed_upgrade.note(clock.now(), format!("{error:#}"));
    }

    /// Waits until a part that should run forever has ended, and returns its name.
    async fn failed(&self) -> &'static str {
        loop {
            if self.observer.conductor.is_finished() {
                return "the engine";
            }
            if self.proxy.as_ref().is_some_and(Proxy::has_failed) {
                return "a worker of the proxy";
            }
            if self.agent.as_ref().is_some_and(Agent::has_failed) {
                return "the agent";
            }
            if self.haproxys.as_ref().is_some_and(Haproxys::has_failed) {
                return "the output to HAProxy";
            }
            if self.pages.as_ref().is_some_and(PagesThread::has_failed) {
                return "the thread of the status pages";
            }
            if self.control.as_ref().is_some_and(Control::has_failed) {
                return "the thread of the control socket";
            }
            if self.vips.as_ref().is_some_and(Vips::has_failed) {
                return "the thread of the addresses in [vip]";
            }
            tokio::time::sleep(LOOK_AFTER_PARTS).await;
        }
    }

    async fn stop(self) {
        // Set before the listeners close, so that load balancers can send clients elsewhere.
        self.observer.stats.stopping.store(true, Ordering::Relaxed);
        // The addresses are removed first: another machine may need them while sessions go on here.
        drop(self.vips);
        let Some(proxy) = self.proxy else {
            tracing::info!("stopping: no answers any more");
            return;
        };
        let grace = self.config.proxy.shutdown_grace;
        tracing::info!("stopping: no new clients, sessions have {} s", grace.as_secs());
        proxy.stop(grace).await;
    }
}

/// The configuration as the pages show it, without secrets.
fn shown_of(config: &Config, outputs: Outputs) -> ConfigShown {
    let (text, services) = match outputs {
        Outputs::All => (Summary(config).to_string(), Some(&config.services)),
        Outputs::AnswersOnly => (AgentSummary(config).to_string(), None),
    };
    let listen = services.into_iter().flatten();
    ConfigShown {
        lines: text.lines().map(str::to_owned).collect(),
        listen: listen
            .map(|(name, service)| (name.to_string(), service.listen.to_string()))
            .collect(),
    }
}

/// Logs the addresses for clients and for readers of the pages. The agent logs its own address.
fn log_doors(config: &Config, outputs: Outputs) {
    for (name, service) in config.services.iter().filter(|_| outputs == Outputs::All) {
        tracing::info!("service {name} listens on {}", service.listen);
    }
    match &config.http {
        Some(http) => tracing::info!("status pages are on {}://{}", http.scheme(), http.listen),
        None => tracing::info!("there are no status pages"),
    }
}

fn start_agent(
    listener: TcpListener,
    wanted: &AgentConfig,
    observer: &Observer,
) -> anyhow::Result<Agent> {
    tracing::info!("agent-checks are answered on {}", wanted.listen);
    let Observer { published, clock, heartbeat, .. } = observer;
    let snapshots = published.snapshots.clone();
    Agent::start(listener, wanted.clone(), snapshots, *clock, Arc::clone(heartbeat))
}

fn start_haproxys(config: &Config, observer: &Observer) -> anyhow::Result<Option<Haproxys>> {
    Haproxys::start(haproxy::Inputs {
        config: Arc::new(config.clone()),
        snapshots: observer.published.snapshots.clone(),
        clock: observer.clock,
        heartbeat: Arc::clone(&observer.heartbeat),
        views: Arc::clone(&observer.stats.haproxys),
    })
}

/// Starts the thread of the addresses that follow a service; none if there are none.
fn start_vips(config: &Config, observer: &Observer) -> anyhow::Result<Option<Vips>> {
    if config.vips.is_empty() {
        return Ok(None);
    }
    for (name, vip) in &config.vips {
        tracing::info!("vip {name}: {vip} on {} follows service {}", vip.interface, vip.service);
    }
    let inputs = vip::Inputs {
        snapshots: observer.published.snapshots.clone(),
        clock: observer.clock,
        heartbeat: Arc::clone(&observer.heartbeat),
        stats: Arc::clone(&observer.stats),
    };
    Vips::start(config.vips.clone(), inputs).map(Some)
}

/// Raises the limit of open files. Every session uses two file descriptors, and the usual soft
/// limit is 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
