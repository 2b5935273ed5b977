//! Addresses that follow a service (`[vip.NAME]`), on the machine of a member.
//!
//! One thread looks at the Snapshot, the kernel's addresses and the network: at each change of the
//! Snapshot, and every half second. [`pgsteer_core::vip`] concludes what the Snapshot demands, `machine`
//! has the steps to reach it, and `keeper` runs them.

mod announcer;
mod arp;
mod interface;
mod keeper;
mod kernel;
mod machine;
#[cfg(test)]
mod namespace_tests;
mod ndp;
mod netlink;
pub mod release;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pgsteer_core::names::VipName;
use pgsteer_core::settings::VipConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::keeper::{Keeper, Look};
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::stats::Stats;

/// How often the kernel and the network are looked at while the Snapshot does not change.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the end of the thread is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often the end of the thread is looked for.
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The addresses of one configuration.
pub type VipConfigs = BTreeMap<VipName, VipConfig>;

/// What the thread reads.
#[derive(Debug)]
pub struct Inputs {
    /// The newest Snapshot.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The clock of the heartbeat.
    pub clock: Clock,
    /// The time of the engine's last turn.
    pub heartbeat: Arc<Heartbeat>,
    /// Where the pages read the state.
    pub stats: Arc<Stats>,
}

/// The running thread. Dropping it removes the addresses that pgsteer added from this machine.
#[derive(Debug)]
pub struct Vips {
    /// Closed to stop the thread.
    configs: Option<watch::Sender<VipConfigs>>,
    /// The addresses stay on this machine at the end: another process has taken them over.
    is_left: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Vips {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start the thread.
    pub fn start(configs: VipConfigs, inputs: Inputs) -> anyhow::Result<Vips> {
        let (configs, changes) = watch::channel(configs);
        let is_left = Arc::<AtomicBool>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new()
            .name("pgsteer-vip".to_owned())
            .spawn({
                let is_left = Arc::clone(&is_left);
                move || runtime.block_on(keep(changes, inputs, &is_left))
            })
            .context("cannot start the thread of the addresses in [vip]")?;
        Ok(Vips { configs: Some(configs), is_left, thread: Some(thread) })
    }

    /// Stops the thread and leaves the addresses where they are, for the process that takes over.
    pub fn leave(self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// Replaces the addresses. Those that are gone or different are removed from this machine first.
    pub fn change(&self, configs: VipConfigs) {
        if let Some(sender) = &self.configs {
            sender.send_replace(configs);
        }
    }

    /// Returns true if the thread has ended although it was not stopped.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Vips {
    fn drop(&mut self) {
        self.configs = None;
        let Some(thread) = self.thread.take() else { return };
        // Each request for addresses has a time limit; the C library's request for interfaces has none.
        let deadline = Instant::now() + STOP_LIMIT;
        while !thread.is_finished() {
            if Instant::now() > deadline {
                tracing::error!(
                    "vip: the kernel does not answer, so the addresses may still be on this machine; \
                     `pgsteer vip release` removes them"
                );
                return;
            }
            std::thread::sleep(STOP_LOOK_INTERVAL);
        }
        let _ = thread.join();
    }
}

/// Keeps the addresses until the configuration's sender is gone, then removes them.
async fn keep(mut changes: watch::Receiver<VipConfigs>, mut inputs: Inputs, is_left: &AtomicBool) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keepers: Vec<Keeper> = Vec::new();
    loop {
        let configs = changes.borrow_and_update().clone();
        adapt(&mut keepers, &configs, &inputs);
        look(&mut keepers, &mut inputs);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            changed = inputs.snapshots.changed() => if changed.is_err() { break },
            _ = ticks.tick() => {}
        }
    }
    if is_left.load(Ordering::Relaxed) {
        return;
    }
    for keeper in &mut keepers {
        keeper.release("pgsteer stops");
    }
    inputs.stats.vips.set(Vec::new());
}

/// Replaces the keepers whose configuration is gone or different.
fn adapt(keepers: &mut Vec<Keeper>, configs: &VipConfigs, inputs: &Inputs) {
    keepers.retain_mut(|keeper| {
        let is_kept = configs.iter().any(|(name, config)| keeper.is_of(name, config));
        if !is_kept {
            keeper.release("the configuration has changed");
        }
        is_kept
    });
    for (name, config) in configs {
        if !keepers.iter().any(|keeper| keeper.is_of(name, config)) {
            keepers.push(Keeper::new(name.clone(), config.clone(), inputs.clock.now()));
        }
    }
}

fn look(keepers: &mut [Keeper], inputs: &mut Inputs) {
    if keepers.is_empty() {
        inputs.stats.vips.set(Vec::new());
        return;
    }
    // Read before the Snapshot, because the engine publishes its Snapshot before each heartbeat.
    let now = inputs.clock.now();
    let is_current = inputs.heartbeat.age(now) < Heartbeat::OLD_AFTER;
    let snapshot = Arc::clone(&inputs.snapshots.borrow_and_update());
    let addresses = kernel::addresses();
    let seen = Look { snapshot: &snapshot, is_current, addresses: &addresses, now };
    for keeper in keepers.iter_mut() {
        keeper.look(&seen);
    }
    inputs.stats.vips.set(keepers.iter().map(|keeper| keeper.shown().clone()).collect());
}
