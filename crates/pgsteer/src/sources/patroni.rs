//! Patroni's word on one member: `GET /primary` of the member's own REST API.
//!
//! One request tells both the leader lock and PostgreSQL's condition; the source of that
//! fact is at [`pgsteer_core::wire::patroni`].

use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pgsteer_core::claim::{Fact, Failure, PatroniFacts};
use pgsteer_core::plan::Ask;
use pgsteer_core::wire::patroni::{excerpt, parse_status};
use tracing::{info, trace, warn};

use super::beat::Beat;
use super::http::{Answer, Base, Client, not_patroni};
use super::{Gone, Hint, Reporter};

/// Asks at the pace of `beat`, one question at a time. A failure is hinted to discovery.
pub async fn run(mut beat: Beat, http: Arc<Client>, reporter: Reporter, hint: Hint) -> Gone {
    let mut last: Option<Failure> = None;
    loop {
        let done = step(&mut beat, &http, &reporter, &hint, &mut last).await;
        if let Err(gone) = done {
            return gone;
        }
    }
}

async fn step(
    beat: &mut Beat,
    http: &Client,
    reporter: &Reporter,
    hint: &Hint,
    last: &mut Option<Failure>,
) -> Result<(), Gone> {
    beat.due().await?;
    let ask = beat.ask();
    let Some(url) = &ask.patroni_url else {
        return beat.changed().await;
    };
    let (asked, facts) = question(http, url, &ask).await;
    if facts.is_err() {
        hint.give();
    }
    note(reporter, last, &facts);
    reporter.claim(asked, Fact::Patroni(facts)).await
}

async fn question(http: &Client, url: &str, ask: &Ask) -> (Instant, Result<PatroniFacts, Failure>) {
    let started = Instant::now();
    let base = match Base::parse(url) {
        Ok(base) => base,
        Err(why) => return (started, Err(Failure::Malformed(Arc::from(why)))),
    };
    match http.get(&base, known(&base, ask), "/primary").await {
        Ok(answer) => (answer.asked, read(&base, &answer)),
        Err(failure) => (started, Err(failure)),
    }
}

/// Patroni mostly lives on the host of its PostgreSQL, whose addresses the plan knows.
fn known<'a>(base: &Base, ask: &'a Ask) -> &'a [IpAddr] {
    if base.host() == ask.postgres.host() { &ask.addresses } else { &[] }
}

fn read(base: &Base, answer: &Answer) -> Result<PatroniFacts, Failure> {
    let holds_lock = match answer.status {
        200 => true,
        503 => false,
        other => {
            let how = format!("status {other}, `{}`", excerpt(&answer.body));
            return Err(not_patroni(base, &how));
        }
    };
    parse_status(holds_lock, &answer.body).map_err(|bad| not_patroni(base, &bad.to_string()))
}

/// Logs an answer of another kind than the one before.
fn note(reporter: &Reporter, last: &mut Option<Failure>, facts: &Result<PatroniFacts, Failure>) {
    let member = &reporter.member;
    match (facts, last.as_ref()) {
        (Ok(_), None) => trace!(%member, "Patroni answers"),
        (Ok(_), Some(_)) => info!(%member, "Patroni answers again"),
        (Err(now), Some(was)) if discriminant(now) == discriminant(was) => {
            trace!(%member, "Patroni: {now}");
        }
        (Err(now), _) => warn!(%member, "Patroni: {now}"),
    }
    *last = facts.as_ref().err().cloned();
}
