//! More clients than a server has connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session};

use crate::steer::{Steer, Wanted};

const CLIENTS: usize = 450;
const LIMIT: Duration = Duration::from_secs(120);

/// 450 clients connect at once, and `max_connections` (200 in the lab) is too small for most of
/// them. No client is refused, and each is served when others have ended.
pub fn clients_beyond_max_connections_wait_and_all_are_served(lab: &Lab) -> Result<()> {
    let hold = "hold_seconds = 100";
    for limit in ["", "member_sessions_max = 50"] {
        let write = format!("{hold}\n{limit}");
        let steer = Steer::start(lab, &Wanted { write: &write, ..Wanted::default() })?;
        let (served, refused) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| match one(&steer) {
                    Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => refused.lock().unwrap_or_else(|e| e.into_inner()).push(error),
                });
            }
        });
        let refused = refused.into_inner().unwrap_or_else(|e| e.into_inner());
        ensure!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused.first());
        ensure!(served.into_inner() == CLIENTS);
        let status = steer.status()?;
        let services = status["clusters"][0]["services"].as_array().cloned().unwrap_or_default();
        ensure!(services.iter().all(|service| service["queued"] == 0), "{services:?}");
    }
    Ok(())
}

fn one(steer: &Steer) -> Result<()> {
    let mut session = Session::connect(steer.doors.write, SUPERUSER, "postgres", LIMIT)?;
    session.query("SELECT pg_sleep(0.5)", LIMIT)?;
    Ok(())
}
