//! What a transaction costs in the proxy.

use std::time::Duration;

use anyhow::Result;

/// What is done.
#[derive(Debug)]
pub struct Plan {
    pairs: usize,
    run: Duration,
}

impl Plan {
    pub fn whole(pairs: usize, seconds: u64) -> Self {
        Self { pairs, run: Duration::from_secs(seconds) }
    }

    pub fn quick() -> Self {
        Self { pairs: 2, run: Duration::from_secs(3) }
    }
}

pub fn run(_plan: &Plan) -> Result<String> {
    anyhow::bail!("not there yet")
}
