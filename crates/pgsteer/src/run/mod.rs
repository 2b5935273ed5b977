//! `pgsteer run`: the one module that knows both the sources and the outputs.

mod conductor;
mod orders;
mod program;
mod signals;
mod stall;
mod systemd;
mod takeover;
mod upgrade;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pgsteer_config::summary::{AgentSummary, Summary};
use pgsteer_core::claim::Report;
use pgsteer_core::settings::{AgentConfig, Config};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::conductor::{Conductor, Published};
use self::orders::Orders;
use self::program::Program;
use self::signals::{Order, Signals};
use self::upgrade::Successor;
use crate::agent::{self, Agent};
use crate::clock::Clock;
use crate::control::Control;
use crate::haproxy::{self, Haproxys};
use crate::heartbeat::{Heartbeat, Pulse};
use crate::http::{self, Access, ConfigShown, Pages, PagesThread, ReadyPages, Streams};
use crate::listen::Listeners;
use crate::log::limit::DECISIONS;
use crate::memory::{self, Store};
use crate::proxy::{Inheritance, Proxy};
use crate::sources::{self, Sources};
use crate::stats::Stats;

/// The maximum number of reports that wait for the engine. It takes microseconds for each, so a
/// full channel means that the engine is stuck, and then the sources have to wait too.
const REPORTS_MAX: usize = 1_024;

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
        Some(parent) => takeover::start(parent, config, outputs).await?,
        None => Running::start(config, outputs)?,
    };
    loop {
        tokio::select! {
            order = signals.next() => match order {
                Order::Reload => running.reload(reread()).await,
                Order::Upgrade => match upgrade(&mut running, &program, &mut signals).await {
                    Upgraded::Done(successor) => {
                        match running.leave(successor, &mut signals).await? {
                            Some(resumed) => running = resumed,
                            None => return Ok(()),
                        }
                    }
                    Upgraded::Failed { reload: true } => running.reload(reread()).await,
                    Upgraded::Failed { reload: false } => {}
                    Upgraded::Stopped => break,
                },
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
    Failed { reload: bool },
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
                    Upgraded::Failed { reload }
                }
            },
            order = signals.next() => match order {
                Order::Reload => reload = true,
                Order::Upgrade => tracing::warn!("an upgrade is under way already"),
                Order::Stop => return Upgraded::Stopped,
            },
        }
    }
}

/// The sources and the engine: they publish the Snapshots.
struct Observer {
    clock: Clock,
    heartbeat: Arc<Heartbeat>,
    stats: Arc<Stats>,
    reports: mpsc::Sender<Report>,
    configs: mpsc::Sender<Config>,
    published: Published,
    sources: Sources,
    conductor: JoinHandle<()>,
    keeper: Option<JoinHandle<()>>,
    /// None without a control socket.
    orders: Option<Orders>,
}

impl Observer {
    /// `is_successor`: another process of pgsteer serves, and this one takes over from it.
    fn start(config: &Config, is_successor: bool) -> anyhow::Result<Observer> {
        let clock = Clock::start();
        let heartbeat = Arc::new(Heartbeat::default());
        let stats = Arc::new(Stats::default());
        let store = Store::of(&config.cluster);
        let stored = store.as_ref().and_then(Store::read);
        let (mut conductor, published) =
            Conductor::new(config, stored, clock, Arc::clone(&heartbeat), Arc::clone(&stats));
        let orders = Orders::open(config, &mut conductor, clock, is_successor);
        let keeper = memory::keep(store, published.memories.clone(), false);
        let (reports, reports_heard) = mpsc::channel(REPORTS_MAX);
        let (configs, configs_heard) = mpsc::channel(1);
        let sources = sources::prepare(&config.cluster)?;
        let plans = published.plans.clone();
        let sources = sources.start(clock, reports.clone(), plans, &stats.doubts);
        let conductor = tokio::spawn(conductor.run(reports_heard, configs_heard));
        Ok(Observer {
            clock,
            heartbeat,
            stats,
            reports,
            configs,
            published,
            sources,
            conductor,
            keeper,
            orders,
        })
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

/// All running parts.
struct Running {
    config: Config,
    clock: Clock,
    heartbeat: Arc<Heartbeat>,
    stats: Arc<Stats>,
    reports: mpsc::Sender<Report>,
    configs: mpsc::Sender<Config>,
    published: Published,
    sources: Sources,
    conductor: JoinHandle<()>,
    /// Stores the member list; none if that is disabled or impossible.
    keeper: Option<JoinHandle<()>>,
    /// None in the agent, which only answers checks.
    proxy: Option<Proxy>,
    agent: Option<Agent>,
    /// None if no HAProxy is steered.
    haproxys: Option<Haproxys>,
    /// None if no port is configured for the pages.
    pages: Option<PagesThread>,
    /// None without a control socket.
    control: Option<Control>,
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
    fn start(config: Config, outputs: Outputs) -> anyhow::Result<Running> {
        // Reads the files and binds the ports first, so that an error occurs before any part is
        // started.
        check_files(&config)?;
        let listeners = bind_all(&config, outputs, |_| false)?;
        let observer = Observer::start(&config, false)?;
        Running::open(
            observer,
            config,
            outputs,
            Inheritance { listeners, ..Inheritance::default() },
        )
    }

    /// Starts the outputs at the sockets in `inherited`.
    fn open(
        observer: Observer,
        config: Config,
        outputs: Outputs,
        mut inherited: Inheritance,
    ) -> anyhow::Result<Running> {
        let Observer {
            clock,
            heartbeat,
            stats,
            reports,
            configs,
            published,
            sources,
            conductor,
            keeper,
            orders,
        } = observer;
        let proxy = match outputs {
            Outputs::All => Some({
                let pulse = Pulse::new(Arc::clone(&heartbeat), clock);
                let snapshots = published.snapshots.clone();
                Proxy::start(&config, &stats, snapshots, pulse, &mut inherited)?
            }),
            Outputs::AnswersOnly => None,
        };
        let control = orders.map(|orders| orders.start(proxy.as_ref(), &published, clock));
        let control = control.transpose()?;
        let listeners = &mut inherited.listeners;
        let asked = config.agent.as_ref().and_then(|agent| listeners.take(agent.listen));
        let pages = config.http.as_ref().and_then(|http| listeners.take(http.listen));
        let tls = config.http.as_ref().map(http::acceptor).transpose()?.flatten();
        let agent = match (asked, &config.agent) {
            (Some(listener), Some(wanted)) => {
                Some(start_agent(listener, wanted, &published, clock, &heartbeat)?)
            }
            _ => None,
        };
        let haproxys = start_haproxys(&config, &published, clock, &heartbeat, &stats)?;
        let snapshots = published.snapshots.clone();
        systemd::tell_always(snapshots, clock, Arc::clone(&heartbeat))?;
        let shown_config = watch::Sender::new(Arc::new(shown_of(&config, outputs)));
        let shown = config.http.as_ref().map(Access::read).transpose()?.map(|access| Pages {
            access,
            snapshot: published.snapshots.clone(),
            stats: Arc::clone(&stats),
            clock,
            heartbeat: Arc::clone(&heartbeat),
            history: Arc::default(),
            config: shown_config.subscribe(),
            streams: Streams::affordable(),
            ready: ReadyPages::default(),
        });
        let pages = pages.zip(shown);
        let pages = pages.map(|(listener, shown)| PagesThread::start(listener, tls, shown));
        let pages = pages.transpose()?;
        log_doors(&config, outputs);
        Ok(Running {
            config,
            clock,
            heartbeat,
            stats,
            reports,
            configs,
            published,
            sources,
            conductor,
            keeper,
            proxy,
            agent,
            haproxys,
            pages,
            control,
            outputs,
            shown_config,
        })
    }

    /// Applies another configuration, or keeps the old one if the new one cannot be applied.
    async fn reload(&mut self, reread: anyhow::Result<Config>) {
        let changed = match reread {
            Ok(config) => self.change(config).await,
            Err(error) => Err(error),
        };
        match changed {
            Ok(()) => tracing::info!(target: DECISIONS, "reloaded"),
            Err(error) => log_not_reloaded(&error),
        }
    }

    async fn change(&mut self, config: Config) -> anyhow::Result<()> {
        // Also if the configuration is unchanged: a password in a file may have changed.
        let prepared = sources::prepare(&config.cluster)?;
        let is_same =
            config.cluster == self.config.cluster && self.sources.know_the_files_of(&prepared);
        let agent = self.new_agent(&config)?;
        if let Some(proxy) = &mut self.proxy {
            proxy.reload(&config)?;
        }
        if !is_same {
            let (reports, plans) = (self.reports.clone(), self.published.plans.clone());
            self.sources = prepared.start(self.clock, reports, plans, &self.stats.doubts);
        }
        self.log_moved_doors(&config);
        self.warn_of_restart(&config);
        self.configs.send(config.clone()).await.context("the engine is gone")?;
        self.change_store(&config);
        self.change_agent(&config, agent);
        self.change_haproxys(&config)?;
        self.shown_config.send_replace(Arc::new(shown_of(&config, self.outputs)));
        self.config = config;
        Ok(())
    }

    /// Warns of changes that take effect at the next start.
    fn warn_of_restart(&self, config: &Config) {
        if config.http != self.config.http || config.proxy != self.config.proxy {
            tracing::warn!("changes of [http] and [proxy] take effect at the next start");
        }
        if config.control != self.config.control {
            tracing::warn!("changes of [control] take effect at the next start");
        }
    }

    /// Changes where the member list is stored, if the configuration changes that.
    fn change_store(&mut self, config: &Config) {
        let store = Store::of(&config.cluster);
        if store == Store::of(&self.config.cluster) {
            return;
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
        let is_moved = config.cluster.members == self.config.cluster.members;
        self.keeper = memory::keep(store, self.published.memories.clone(), is_moved);
    }

    /// Logs the new addresses for clients, as far as they have changed.
    fn log_moved_doors(&self, config: &Config) {
        if self.proxy.is_none() {
            return;
        }
        let old = &self.config.services;
        for (name, service) in &config.services {
            if old.get(name).is_none_or(|old| old.listen != service.listen) {
                tracing::info!("service {name} listens on {}", service.listen);
            }
        }
        for name in old.keys().filter(|name| !config.services.contains_key(*name)) {
            tracing::info!("there is no service {name} any more");
        }
    }

    /// Starts an agent if there was none, or if its address has changed.
    fn new_agent(&self, config: &Config) -> anyhow::Result<Option<Agent>> {
        let Some(wanted) = &config.agent else { return Ok(None) };
        match self.agent.as_ref().map(Agent::listen) {
            Some(old) if old == wanted.listen => return Ok(None),
            Some(old) if overlap(old, wanted.listen) => bail!(
                "the agent listens on {old}; that it moves to {} on the same port takes a restart",
                wanted.listen
            ),
            _ => {}
        }
        let door = agent::bind(wanted.listen)?;
        start_agent(door, wanted, &self.published, self.clock, &self.heartbeat).map(Some)
    }

    /// Keeps the agent, stops it, or replaces it by `new`, according to `config`.
    fn change_agent(&mut self, config: &Config, new: Option<Agent>) {
        match (&config.agent, new) {
            (None, _) => {
                if self.agent.take().is_some() {
                    tracing::info!("agent-checks are not answered any more");
                }
            }
            (Some(_), Some(new)) => self.agent = Some(new),
            (Some(wanted), None) => {
                if let Some(agent) = &self.agent {
                    agent.change(wanted.clone());
                }
            }
        }
    }

    /// Starts the HAProxy output anew if its part of the configuration has changed.
    fn change_haproxys(&mut self, config: &Config) -> anyhow::Result<()> {
        let old = &self.config;
        if config.haproxy == old.haproxy && config.services == old.services {
            return Ok(());
        }
        self.haproxys = None;
        let (published, clock) = (&self.published, self.clock);
        self.haproxys = start_haproxys(config, published, clock, &self.heartbeat, &self.stats)?;
        Ok(())
    }

    /// Waits until a part that should run forever has ended, and returns its name.
    async fn failed(&self) -> &'static str {
        loop {
            if self.conductor.is_finished() {
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
            tokio::time::sleep(LOOK_AFTER_PARTS).await;
        }
    }

    async fn stop(self) {
        // Set before the listeners close, so that load balancers can send clients elsewhere.
        self.stats.stopping.store(true, Ordering::Relaxed);
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
    published: &Published,
    clock: Clock,
    heartbeat: &Arc<Heartbeat>,
) -> anyhow::Result<Agent> {
    tracing::info!("agent-checks are answered on {}", wanted.listen);
    let (wanted, snapshots) = (wanted.clone(), published.snapshots.clone());
    Agent::start(listener, wanted, snapshots, clock, Arc::clone(heartbeat))
}

fn start_haproxys(
    config: &Config,
    published: &Published,
    clock: Clock,
    heartbeat: &Arc<Heartbeat>,
    stats: &Stats,
) -> anyhow::Result<Option<Haproxys>> {
    Haproxys::start(haproxy::Inputs {
        config: Arc::new(config.clone()),
        snapshots: published.snapshots.clone(),
        clock,
        heartbeat: Arc::clone(heartbeat),
        views: Arc::clone(&stats.haproxys),
    })
}

/// Logs each error of a configuration on its own line, with its remedy.
fn log_not_reloaded(error: &anyhow::Error) {
    let text = format!("{error:#}");
    let mut errors: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        match (line.strip_prefix("help: "), errors.last_mut()) {
            (Some(help), Some(error)) => {
                error.push_str("; ");
                error.push_str(help);
            }
            _ => errors.push(line.to_owned()),
        }
    }
    for (number, error) in errors.iter().enumerate() {
        let context = match number {
            0 => "not reloaded, the old configuration stays",
            _ => "also in the configuration",
        };
        tracing::error!(target: DECISIONS, "{context}: {error}");
    }
}

/// Returns true if it is impossible to listen on both addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip().is_unspecified() || other.ip().is_unspecified())
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use pgsteer_core::claim::{Found, Role};
    use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
    use pgsteer_core::settings::{
        ClusterConfig, Membership, ProxyConfig, ServiceConfig, SplitBrain, Vocabulary, Weight,
    };

    use super::*;

    #[test]
    fn an_agent_cannot_move_to_where_it_partly_is() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(overlap(at("0.0.0.0:5555"), at("127.0.0.1:5555")));
        assert!(overlap(at("10.0.0.1:5555"), at("[::]:5555")));
        assert!(!overlap(at("10.0.0.1:5555"), at("10.0.0.2:5555")));
        assert!(!overlap(at("0.0.0.0:5555"), at("127.0.0.1:5556")));
    }

    fn config() -> Config {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let postgres = Endpoint::new("127.0.0.1", 1).unwrap();
        let name = MemberName::new("n1").unwrap();
        Config {
            cluster: ClusterConfig {
                name: Some(ClusterName::new("demo").unwrap()),
                members: Membership::Listed(vec![Found { name, postgres, patroni_url: None }]),
                check: None,
                etcd: None,
                split_brain: SplitBrain::Block,
                patroni_loss_grace: Duration::from_secs(60),
                silence: Duration::from_secs(30),
                here: pgsteer_core::settings::Here::default(),
            },
            services: [(
                ServiceName::new("write").unwrap(),
                ServiceConfig::new(free, Role::Primary),
            )]
            .into(),
            http: None,
            agent: None,
            haproxy: None,
            proxy: ProxyConfig { workers: Some(2), ..ProxyConfig::default() },
            control: None,
        }
    }

    fn with_agent(config: &Config, listen: SocketAddr, vocabulary: Vocabulary) -> Config {
        let agent = AgentConfig {
            listen,
            vocabulary,
            default: None,
            pooler_port: None,
            line_wait: Duration::ZERO,
            weight: Weight::Unsaid,
            maxconn: None,
        };
        Config { agent: Some(agent), ..config.clone() }
    }

    /// Returns the first word of the agent's answer; none if no agent listens.
    fn first_word(agent: SocketAddr) -> Option<String> {
        let mut stream = TcpStream::connect(agent).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').next().filter(|word| !word.is_empty()).map(str::to_owned)
    }

    async fn eventually(agent: SocketAddr, word: Option<&str>) {
        let is_so = async {
            while tokio::task::spawn_blocking(move || first_word(agent)).await.unwrap().as_deref()
                != word
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(10), is_so).await;
        assert!(seen.is_ok(), "{agent} does not come to {word:?}");
    }

    #[tokio::test]
    async fn a_reload_starts_changes_moves_and_ends_the_agent() {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (here, there) = (free(), free());
        let without = config();
        let mut running = Running::start(without.clone(), Outputs::All).unwrap();
        running.change(with_agent(&without, here, Vocabulary::Health)).await.unwrap();
        eventually(here, Some("ready")).await;
        running.change(with_agent(&without, here, Vocabulary::Admin)).await.unwrap();
        eventually(here, Some("maint")).await;
        running.change(with_agent(&without, there, Vocabulary::Admin)).await.unwrap();
        eventually(there, Some("maint")).await;
        eventually(here, None).await;
        // A port that another process uses leaves the configuration unchanged.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = with_agent(&without, taken.local_addr().unwrap(), Vocabulary::Health);
        assert!(running.change(elsewhere).await.is_err());
        eventually(there, Some("maint")).await;
        running.change(without).await.unwrap();
        eventually(there, None).await;
        assert!(!running.agent.as_ref().is_some_and(Agent::has_failed));
    }

    #[tokio::test]
    async fn an_engine_that_has_failed_is_noticed_and_so_are_the_workers_that_end_with_it() {
        let running = Running::start(config(), Outputs::All).unwrap();
        let short = LOOK_AFTER_PARTS / 5;
        assert!(tokio::time::timeout(short, running.failed()).await.is_err(), "all is well");
        running.conductor.abort();
        assert_eq!(running.failed().await, "the engine");
        let workers = async {
            while !running.proxy.as_ref().is_some_and(Proxy::has_failed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), workers).await.is_ok());
    }
}
