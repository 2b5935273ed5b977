//! Notifications to systemd: that pgsteer is ready, its status, and that it is alive.
//!
//! If systemd did not start the process there is no receiver, and this module costs nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pgsteer_core::snapshot::Snapshot;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::heartbeat::Heartbeat;

/// How long to wait for the first report of every source. After that systemd is notified that
/// pgsteer is ready anyway: its ports are open and report the problem, and a failed start would
/// help no client.
const FIRST_WORD: Duration = Duration::from_secs(20);

/// The interval of the check for a changed status, unless the watchdog needs a shorter one.
const LOOK: Duration = Duration::from_secs(1);

/// Notifies systemd until the process ends, on its own thread: a systemd that does not read must
/// block nothing else.
///
/// # Errors
/// The system cannot start the thread.
pub fn tell_always(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Clock,
    heartbeat: Arc<Heartbeat>,
) -> anyhow::Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name("pgsteer-systemd".to_owned())
        .spawn(move || runtime.block_on(tell(snapshots, clock, heartbeat)))
        .context("cannot start the thread that talks to systemd")?;
    Ok(())
}

async fn tell(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Clock,
    heartbeat: Arc<Heartbeat>,
) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half of the limit, as sd_watchdog_enabled(3) recommends, so that one delay does not kill the
    // process.
    let look = watchdog.map_or(LOOK, |limit| LOOK.min(limit / 2)).max(Duration::from_millis(1));
    let mut ticks = interval(look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut is_ready, mut status) = (Instant::now(), false, String::new());
    loop {
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            changed = snapshots.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
        };
        let snapshot = snapshots.borrow_and_update().clone();
        if !is_ready && (snapshot.is_settled() || began.elapsed() > FIRST_WORD) {
            is_ready = true;
            notify(NotifyState::Ready);
        }
        let standing = standing(&snapshot);
        if standing != status {
            notify(NotifyState::Status(&standing));
            status = standing;
        }
        let is_alive = heartbeat.age(clock.now()) < Heartbeat::STUCK_AFTER;
        if watchdog.is_some() && is_tick && is_alive {
            notify(NotifyState::Watchdog);
        }
    }
}

/// Notifies systemd that the process `pid` has taken over from this one.
pub fn tell_main_process(pid: u32) {
    notify(NotifyState::MainPid(pid));
}

/// Notifies systemd that pgsteer is stopping on its own.
pub fn tell_stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

/// Returns where clients are routed, for `systemctl status`.
fn standing(snapshot: &Snapshot) -> String {
    let each = snapshot.services.iter().map(|(name, service)| {
        let open: Vec<&str> = service.open().map(|member| member.as_str()).collect();
        match open.is_empty() {
            true => format!("{name}: nobody"),
            false => format!("{name}: {}", open.join(" ")),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn the_status_names_who_serves() {
        assert_eq!(standing(&sample::calm()), "read: n2, write: n2");
    }
}
