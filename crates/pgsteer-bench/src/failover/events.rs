//! The event on the cluster, and the time at which the cluster was writable again.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::now_us;
use pgsteer_lab::Lab;
use pgsteer_lab::Member;
use pgsteer_lab::wait_for;
use pgsteer_lab::{Truth, TruthEvent};

/// Patroni's template needs six seconds to find a new primary, and the slowest clients need twelve.
const TRAFFIC_AFTER: Duration = Duration::from_secs(9);
/// The pause between two events.
const QUIET: Duration = Duration::from_secs(3);
/// The ttl of the leader lock is twenty seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Switchover,
    Crash,
    Freeze,
    Partition,
}

/// One loss of the primary, with its measured times.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: Kind,
    pub old_ip: String,
    pub new: String,
    pub new_ip: String,
    pub began_us: u64,
    /// The time at which the new primary took writes, according to the observer.
    pub writable_us: u64,
    /// The start of the repair of the cluster. What ends later may have been ended by the repair.
    pub mended_us: u64,
    /// Everything that ends before this time belongs to this event.
    pub until_us: u64,
}

impl Event {
    pub fn owns(&self, end_us: u64) -> bool {
        (self.began_us..self.until_us).contains(&end_us)
    }
}

/// Loses the primary, waits for the next one, lets the traffic continue, and repairs the cluster.
pub fn happen(lab: &Lab, truth: &Truth, kind: Kind) -> Result<Event> {
    let old = the_primary(lab)?;
    let began_us = now_us();
    let successor = lose(lab, truth, kind, &old.name).with_context(|| format!("{kind}"))?;
    let new = lab.member(&successor.member)?;
    let took = Duration::from_micros(successor.at_us.saturating_sub(began_us));
    println!("{kind}: {} to {}, writable {:.2} s after", old.name, new.name, took.as_secs_f64());
    std::thread::sleep(TRAFFIC_AFTER);
    let mended_us = now_us();
    lab.reset()?;
    std::thread::sleep(QUIET);
    Ok(Event {
        kind,
        old_ip: old.ip.to_string(),
        new: new.name.clone(),
        new_ip: new.ip.to_string(),
        began_us,
        writable_us: successor.at_us,
        mended_us,
        until_us: now_us(),
    })
}

/// A busy machine may be late with an answer.
fn the_primary(lab: &Lab) -> Result<Member> {
    wait_for("a primary to lose", PATIENCE, || {
        lab.primary().map(|_| ()).map_err(|error| error.to_string())
    })?;
    Ok(lab.primary()?.clone())
}

fn lose(lab: &Lab, truth: &Truth, kind: Kind, old: &str) -> Result<TruthEvent> {
    let order = match kind {
        Kind::Switchover => Some(lab.order_switchover(None)?),
        Kind::Crash => lab.crash(old).map(|()| None)?,
        Kind::Freeze => lab.freeze(old).map(|()| None)?,
        Kind::Partition => lab.partition(old).map(|()| None)?,
    };
    let successor = truth.wait_for_successor(old, PATIENCE)?;
    if let Some(order) = order {
        order.wait()?;
    }
    Ok(successor)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switchover => "switchover",
            Self::Crash => "crash",
            Self::Freeze => "freeze",
            Self::Partition => "partition",
        })
    }
}
