//! The pooler beside a member, without a check login: is it up?
//!
//! This sends the same request as `pg_isready`, without a process. With a check login a tether
//! connects through the pooler instead and shows where the pooler leads.

use std::sync::Arc;
use std::time::Instant;

use pgsteer_core::claim::{Fact, PoolerFacts};
use tracing::{trace, warn};

use super::probe_timer::ProbeTimer;
use super::tether::Login;
use super::{Gone, Reporter};

/// Probes the pooler on `port` at the pace of `timer`, until the receiver of the reports is gone.
pub async fn run(port: u16, mut timer: ProbeTimer, login: Arc<Login>, reporter: Reporter) -> Gone {
    let mut is_up = true;
    loop {
        match knock(port, &mut timer, &login, &reporter, &mut is_up).await {
            Ok(()) => {}
            Err(gone) => return gone,
        }
    }
}

async fn knock(
    port: u16,
    timer: &mut ProbeTimer,
    login: &Login,
    reporter: &Reporter,
    is_up: &mut bool,
) -> Result<(), Gone> {
    timer.due().await?;
    let ask = timer.ask();
    let addresses = ask.postgres.ip().map_or(ask.addresses, |address| vec![address]);
    if addresses.is_empty() {
        // The resolver has not answered yet, and it reports a failed lookup itself.
        return timer.changed().await;
    }
    let asked = Instant::now();
    let answer = login.knock(&ask.postgres.with_port(port), &addresses).await;
    let member = &reporter.member;
    match &answer {
        Err(failure) if *is_up => warn!(%member, "pooler: {failure}"),
        answer => trace!(%member, ?answer, "pooler"),
    }
    *is_up = answer.is_ok();
    let answer = answer.map(|()| PoolerFacts::Answers);
    reporter.claim(asked, Fact::Pooler { port, answer }).await
}
