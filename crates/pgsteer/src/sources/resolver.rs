//! The resolver of one member: the addresses that its host name stands for.

use std::time::{Duration, Instant};

use pgsteer_core::claim::Fact;
use pgsteer_core::names::Endpoint;
use pgsteer_core::plan::Ask;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Gone, Hint, Reporter, dial};

/// The time from one answer to the next while all is well.
const REST: Duration = Duration::from_secs(30);

/// The time to the next question after a failure, and the least after a hint.
const HURRY: Duration = Duration::from_secs(2);

/// Reports the addresses of the host in `ask`: those of a name again and again, a literal
/// address once. `unreachable` is given when nobody answered at the known addresses.
pub async fn run(mut ask: watch::Receiver<Ask>, reporter: Reporter, unreachable: Hint) -> Gone {
    loop {
        let postgres = ask.borrow_and_update().postgres.clone();
        let moved = moved(&mut ask, &postgres);
        let done = tokio::select! {
            done = moved => done,
            done = follow(&postgres, &reporter, &unreachable) => done,
        };
        if let Err(gone) = done {
            return gone;
        }
    }
}

/// Waits until the plan names another endpoint.
async fn moved(ask: &mut watch::Receiver<Ask>, postgres: &Endpoint) -> Result<(), Gone> {
    let moved = ask.wait_for(|ask| ask.postgres != *postgres).await;
    moved.map(|_| ()).map_err(|_| Gone)
}

async fn follow(postgres: &Endpoint, reporter: &Reporter, unreachable: &Hint) -> Result<(), Gone> {
    let mut was_resolved = true;
    loop {
        let asked = Instant::now();
        let answer = dial::resolve(postgres).await;
        let is_resolved = answer.is_ok();
        match &answer {
            Err(failure) if was_resolved => warn!(member = %reporter.member, "{failure}"),
            Ok(_) if !was_resolved => {
                info!(member = %reporter.member, "{} resolves again", postgres.host());
            }
            _ => {}
        }
        was_resolved = is_resolved;
        reporter.claim(asked, Fact::Addresses(answer)).await?;
        if postgres.ip().is_some() {
            // An address stands for itself for ever.
            return std::future::pending().await;
        }
        tokio::time::sleep(HURRY).await;
        if is_resolved {
            // A hint that came in the meantime counts as well.
            let _ = tokio::time::timeout(REST - HURRY, unreachable.given()).await;
        }
    }
}
