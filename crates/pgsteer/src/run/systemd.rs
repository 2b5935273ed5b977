//! What systemd is told: that pgsteer is ready, how it stands, and that it is alive.
//!
//! Where systemd has not started the process nobody listens, and nothing here costs anything.

use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::reason::Reason;
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

/// Tells systemd, for ever.
pub async fn tell(
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
        tokio::select! {
            _ = ticks.tick() => {}
            changed = snapshots.changed() => if changed.is_err() { return },
        }
        let snapshot = snapshots.borrow_and_update().clone();
        if !is_ready && (all_heard(&snapshot) || began.elapsed() > FIRST_WORD) {
            is_ready = true;
            notify(NotifyState::Ready);
        }
        let standing = standing(&snapshot);
        if standing != status {
            notify(NotifyState::Status(&standing));
            status = standing;
        }
        let is_alive = heartbeat.age(clock.now()) < Heartbeat::STUCK_AFTER;
        if watchdog.is_some() && is_alive {
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

/// Every member has been asked and has answered, or failed to.
fn all_heard(snapshot: &Snapshot) -> bool {
    let unheard = Some(Reason::Unheard);
    let mut members = snapshot.members.values();
    !snapshot.members.is_empty() && members.all(|member| member.health.postgres_trouble != unheard)
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

    #[test]
    fn as_long_as_a_member_is_unheard_it_is_not_ready() {
        let mut snapshot = sample::snapshot();
        assert!(all_heard(&snapshot));
        let first = snapshot.members.values_mut().next().unwrap();
        first.health.postgres_trouble = Some(Reason::Unheard);
        assert!(!all_heard(&snapshot));
        snapshot.members.clear();
        assert!(!all_heard(&snapshot), "nobody is known yet");
    }
}
