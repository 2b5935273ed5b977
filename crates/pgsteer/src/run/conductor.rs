//! The conductor: the one task that owns the engine, and publishes what it decides.

use std::future::pending;
use std::sync::Arc;

use pgsteer_core::claim::Report;
use pgsteer_core::config::Config;
use pgsteer_core::engine::Engine;
use pgsteer_core::plan::Plan;
use pgsteer_core::snapshot::{Event, EventKind, Snapshot};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::heartbeat::Heartbeat;

/// Owns the engine.
#[derive(Debug)]
pub struct Conductor {
    engine: Engine,
    clock: Clock,
    heartbeat: Arc<Heartbeat>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    plans: watch::Sender<Arc<Plan>>,
}

/// Where the engine's decisions are to be had.
#[derive(Clone, Debug)]
pub struct Published {
    /// For the outputs.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// For the sources.
    pub plans: watch::Receiver<Arc<Plan>>,
}

impl Conductor {
    /// A conductor whose engine has heard nothing yet.
    pub fn new(config: &Config, clock: Clock, heartbeat: Arc<Heartbeat>) -> (Conductor, Published) {
        let engine = Engine::new(config, clock.now());
        let (snapshots, snapshots_published) = watch::channel(engine.snapshot());
        let (plans, plans_published) = watch::channel(engine.plan());
        let published = Published { snapshots: snapshots_published, plans: plans_published };
        (Conductor { engine, clock, heartbeat, snapshots, plans }, published)
    }

    /// Turns the engine for ever, on reports, on configurations and on time.
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        mut configs: mpsc::Receiver<Config>,
    ) {
        loop {
            self.publish();
            self.heartbeat.beat(self.clock.now());
            tokio::select! {
                Some(config) = configs.recv() => self.engine.handle_config(&config, self.clock.now()),
                Some(report) = reports.recv() => self.engine.handle_report(report, self.clock.now()),
                () = self.timeout() => self.engine.handle_timeout(self.clock.now()),
                // A beat even when nothing is heard and nothing expires.
                () = tokio::time::sleep(Heartbeat::INTERVAL) => {}
            }
        }
    }

    async fn timeout(&self) {
        match self.engine.poll_timeout(self.clock.now()) {
            Some(moment) => tokio::time::sleep_until(self.clock.instant(moment).into()).await,
            None => pending().await,
        }
    }

    fn publish(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            log(&event);
        }
        replace_if_other(&self.snapshots, self.engine.snapshot());
        replace_if_other(&self.plans, self.engine.plan());
    }
}

fn replace_if_other<T>(published: &watch::Sender<Arc<T>>, newest: Arc<T>) {
    published.send_if_modified(|current| {
        let is_other = !Arc::ptr_eq(current, &newest);
        *current = newest;
        is_other
    });
}

/// Bad news at warn, the rest at info; a probation is too short-lived to be news.
fn log(event: &Event) {
    match &event.kind {
        EventKind::Gate { now: "probation", .. } => tracing::debug!("{}", event.kind),
        EventKind::Gate { now: "shut" | "draining", .. }
        | EventKind::Gate { now: "open", reason: Some(_), .. }
        | EventKind::Left { .. }
        | EventKind::AddressLost { .. }
        | EventKind::StrangeCluster { .. } => tracing::warn!("{}", event.kind),
        _ => tracing::info!("{}", event.kind),
    }
}
