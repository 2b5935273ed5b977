//! The stored orders: a small file in the state directory, so that they survive a restart.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgsteer_core::orders::{DrainOrder, OrderText, Orders, Until};
use pgsteer_core::settings::{ClusterConfig, ControlConfig};
use pgsteer_wire::orders::{ORDERS_BYTES_MAX, StoredOrder, orders_text, parse_orders};

use crate::clock::Clock;
use crate::memory;

/// The file of the orders that were given through one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderStore {
    file: PathBuf,
    /// When the orders were last read or taken over.
    read_at: Option<SystemTime>,
}

/// The kernel dates files by a clock that advances in steps, of 10 ms at most.
const FILE_CLOCK_STEP: Duration = Duration::from_millis(20);

/// The longest time of an order with an end: a year.
pub const LASTS_SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Returns a time of day as it is shown.
pub fn shown_time(at: SystemTime) -> OrderText {
    OrderText::new(&humantime::format_rfc3339_seconds(at).to_string())
}

impl OrderStore {
    /// The store of that control socket; none without a state directory. Each socket has its own file, so
    /// that two processes can share a directory.
    pub fn of(cluster: &ClusterConfig, control: &ControlConfig) -> Option<OrderStore> {
        let directory = memory::state_directory(cluster)?;
        let socket = control.socket.display().to_string();
        let hash = memory::hash([socket.as_str()]);
        let file = directory.join(format!("orders-{hash:016x}.json"));
        Some(OrderStore { file, read_at: None })
    }

    /// The orders of an earlier run that have not expired. A file that cannot be used is a warning.
    pub fn read(&self, clock: &Clock) -> Vec<DrainOrder> {
        match self.read_bytes().and_then(|text| parse(&text, clock)) {
            Ok(orders) => orders,
            Err(error) => {
                let is_absent = error
                    .downcast_ref::<io::Error>()
                    .is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                if !is_absent {
                    let file = self.file.display();
                    tracing::warn!(
                        "the stored orders {file} are not used, so no member is drained: {error:#}"
                    );
                }
                Vec::new()
            }
        }
    }

    /// Notes that the orders in force are those of this time of day, from the file or from another process.
    pub fn note_read(&mut self, at: SystemTime) {
        self.read_at = Some(at);
    }

    /// The stored orders if they were written after the last [`OrderStore::note_read`].
    pub fn read_newer(&self, clock: &Clock) -> Option<Vec<DrainOrder>> {
        let written_at = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok()?;
        let is_newer = self.read_at.is_none_or(|read_at| written_at + FILE_CLOCK_STEP > read_at);
        is_newer.then(|| self.read(clock))
    }

    fn read_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let file = File::open(&self.file)?;
        anyhow::ensure!(file.metadata()?.is_file(), "it is no regular file");
        let mut text = Vec::new();
        let limit = u64::try_from(ORDERS_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit + 1).read_to_end(&mut text)?;
        anyhow::ensure!(
            text.len() <= ORDERS_BYTES_MAX,
            "it has more than {ORDERS_BYTES_MAX} bytes"
        );
        Ok(text)
    }

    /// Replaces the stored orders.
    ///
    /// # Errors
    /// The directory or the file cannot be written; the message names it.
    pub fn write(&self, orders: &Orders, clock: &Clock) -> anyhow::Result<()> {
        memory::write_file(&self.file, text(orders, clock).as_bytes())
    }
}

/// Returns orders as they are stored.
pub fn text(orders: &Orders, clock: &Clock) -> String {
    let now = (SystemTime::now(), clock.now());
    let stored: Vec<StoredOrder> = orders
        .iter()
        .map(|order: &Arc<DrainOrder>| {
            let left = order.until.as_ref().map(|until| until.at.since(now.1));
            StoredOrder {
                target: order.target.clone(),
                until_unix_seconds: left.map(|left| unix_seconds(now.0 + left)),
                why: order.why.clone(),
                by: order.by.clone(),
                since: order.since.clone(),
                is_forced: order.is_forced,
            }
        })
        .collect();
    orders_text(&stored)
}

/// Returns the orders of [`text`] that have not expired.
///
/// # Errors
/// The text is another one.
pub fn parse(text: &[u8], clock: &Clock) -> anyhow::Result<Vec<DrainOrder>> {
    let now = SystemTime::now();
    let stored = parse_orders(text)?;
    Ok(stored.into_iter().filter_map(|order| restored(order, clock, now)).collect())
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The order of an earlier run; none if its time is over.
fn restored(stored: StoredOrder, clock: &Clock, now: SystemTime) -> Option<DrainOrder> {
    let until = match stored.until_unix_seconds {
        None => None,
        Some(seconds) => {
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
            let left = at.duration_since(now).ok().filter(|left| !left.is_zero())?;
            // The clock of the machine may have been set back since.
            let left = left.min(Duration::from_secs(LASTS_SECONDS_MAX));
            Some(Until { at: clock.now() + left, shown: shown_time(now + left) })
        }
    };
    Some(DrainOrder {
        target: stored.target,
        until,
        why: stored.why,
        by: stored.by,
        since: stored.since,
        is_forced: stored.is_forced,
    })
}
