//! What systemd is told: that pgsteer is ready, how it stands, and that it is alive.
//!
//! Where systemd has not started the process nobody listens, and nothing here costs anything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pgsteer_core::snapshot::Snapshot;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::heartbeat::Heartbeat;

/// How long it is waited for the first word of every source. Then systemd hears that pgsteer is
/// ready all the same: its ports are open and say what is wrong, and a start that is given up
/// would help nobody.
const FIRST_WORD: Duration = Duration::from_secs(20);

/// How often it is looked whether there is something to tell, unless the watchdog wants to hear
/// more often.
const LOOK: Duration = Duration::from_secs(1);

/// Tells systemd, for ever, on a thread of its own: a systemd that does not listen must hold up
/// nothing but this.
///
/// # Errors
/// The system has no thread for it.
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
    // Half of it, as sd_watchdog_enabled(3) has it, so that one delay does not kill.
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

/// Tells systemd that pgsteer stops by itself.
pub fn tell_stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

/// Where clients are led, as `systemctl status` shows it.
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
