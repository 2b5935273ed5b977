//! The sources and the engine: they publish the Snapshots that the outputs apply.

use std::sync::Arc;

use pgsteer_core::claim::Report;
use pgsteer_core::settings::Config;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::conductor::{Conductor, Published};
use super::orders::Orders;
use super::predecessor::Predecessor;
use crate::clock::Clock;
use crate::control::orders_text;
use crate::heartbeat::Heartbeat;
use crate::history::History;
use crate::memory::{self, Store};
use crate::sources::{Prepared, Sources};
use crate::stats::Stats;

/// The maximum number of reports that wait for the engine. It takes microseconds for each, so a
/// full channel means that the engine is stuck, and then the sources have to wait too.
const REPORTS_MAX: usize = 1_024;

/// The sources and the engine.
pub struct Observer {
    /// The clock of all moments.
    pub clock: Clock,
    /// The time of the engine's last turn.
    pub heartbeat: Arc<Heartbeat>,
    /// The counters.
    pub stats: Arc<Stats>,
    /// The last day.
    pub history: Arc<History>,
    /// Where sources report.
    pub reports: mpsc::Sender<Report>,
    /// Where the engine receives another configuration.
    pub configs: mpsc::Sender<Config>,
    /// What the engine publishes.
    pub published: Published,
    /// The sources.
    pub sources: Sources,
    /// The engine.
    pub conductor: JoinHandle<()>,
    /// Stores the member list; none if that is disabled or impossible.
    pub keeper: Option<JoinHandle<()>>,
    /// The control socket until it accepts requests; none without one.
    pub orders: Option<Orders>,
}

impl Observer {
    /// The orders of operators in force, as they are stored.
    pub fn orders_in_force(&self) -> String {
        orders_text(&self.published.snapshots.borrow().orders, &self.clock)
    }
}

impl Observer {
    /// Starts both. `predecessor` is the process that serves and from which this one takes over; none without
    /// one.
    pub fn start(
        config: &Config,
        prepared: Prepared,
        predecessor: Option<&Predecessor>,
    ) -> Observer {
        let clock = predecessor.map_or_else(Clock::start, |it| Clock::continued(it.now));
        let heartbeat = Arc::new(Heartbeat::default());
        let stats = Arc::new(Stats::default());
        let store = Store::of(&config.cluster);
        let (urls, pins) = (config.cluster.sorted_seeds(), config.cluster.pins());
        let stored = store.as_ref().and_then(|store| store.read(&urls, &pins));
        let (mut conductor, published) =
            Conductor::new(config, stored, clock, Arc::clone(&heartbeat), Arc::clone(&stats));
        let orders = Orders::open(config, &mut conductor, clock, predecessor);
        let keeper = memory::keep(store, published.memories.clone());
        let (reports, reports_heard) = mpsc::channel(REPORTS_MAX);
        let (configs, configs_heard) = mpsc::channel(1);
        let plans = published.plans.clone();
        let sources = prepared.start(clock, reports.clone(), plans, &stats.refusal_hints);
        let conductor = tokio::spawn(conductor.run(reports_heard, configs_heard));
        Observer {
            clock,
            heartbeat,
            stats,
            history: Arc::default(),
            reports,
            configs,
            published,
            sources,
            conductor,
            keeper,
            orders,
        }
    }
}
