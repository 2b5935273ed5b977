//! The time between two tries on one path, as short as the machine can bear: one that cannot start the
//! sessions of four paths in time would measure only its own lack of CPU.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use pgsteer_lab::scram_client::Client;
use tokio::time::timeout;

use super::traffic::{INSERT, TRY_LIMIT};

/// The step on a machine that is large enough.
pub const WANTED: Duration = Duration::from_millis(20);

/// Sessions that a step of all four paths opens: libpq opens up to three for one of its own.
const SESSIONS: u32 = 6;

/// The part of the cores that these sessions may take. Doors, clients and servers need the rest.
const PART_OF_CORES: u32 = 2;

/// Sessions whose time is measured.
const MEASURED: u32 = 30;

/// The step that this machine can bear, by the time of sessions at `primary` with nothing beside them.
pub fn affordable(primary: SocketAddr) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    for _ in 0..MEASURED {
        runtime
            .block_on(async { timeout(TRY_LIMIT, session(primary)).await })
            .map_err(|_| anyhow!("a session at {primary} took longer than {TRY_LIMIT:?}"))??;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(step(began.elapsed() / MEASURED, u32::try_from(cores).unwrap_or(u32::MAX)))
}

async fn session(primary: SocketAddr) -> Result<()> {
    let failed = |failure| anyhow!("a session at {primary} failed: {failure:?}");
    let mut client = Client::login(primary).await.map_err(failed)?;
    client.ask(INSERT).await.map_err(failed)?;
    client.leave().await;
    Ok(())
}

/// The step in whole tens of milliseconds.
fn step(session: Duration, cores: u32) -> Duration {
    let needed = session * SESSIONS * PART_OF_CORES / cores;
    let tens = u64::try_from(needed.as_millis().div_ceil(10)).unwrap_or(u64::MAX);
    Duration::from_millis(tens.saturating_mul(10)).max(WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_a_longer_step() {
        let step = |millis, cores| step(Duration::from_millis(millis), cores).as_millis();
        assert_eq!([step(3, 2), step(5, 2), step(12, 2), step(12, 16)], [20, 30, 80, 20]);
    }
}
