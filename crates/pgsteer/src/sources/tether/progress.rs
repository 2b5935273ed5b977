//! The progress query: WAL positions and replication state, as SQL tells them.
//!
//! One statement serves primaries and replicas of PostgreSQL 10 to 18, and asks for nothing
//! that a login without any privilege may not see. Functions that raise an error on the
//! other kind of server stand behind a CASE; they are volatile, so the planner does not run
//! them ahead (PostgreSQL documentation, "Expression Evaluation Rules"). A server can only
//! leave recovery, so what was true for the CASE is true for the function behind it.

use std::time::Duration;

use pgsteer_core::claim::{Progress, ServerStart};
use pgsteer_core::load::Load;

/// The columns: in recovery, location in bytes, timeline as the first 8 hexadecimal digits
/// of a WAL file's name, WAL receiver, replay lag in microseconds, backends, the most of them,
/// timeline of the last checkpoint.
///
/// Backends are those with a database, which leaves out WAL senders and PostgreSQL's own: that
/// much everybody may see, while `pg_stat_activity` shows its kinds to few. With a hundred of them
/// it takes 0.1 ms. `reserved_connections` is there since PostgreSQL 16.
///
/// `pg_stat_wal_receiver` has a row exactly while a WAL receiver has reached its upstream;
/// without `pg_monitor` all its columns but `pid` are NULL, so only the row counts. OFFSET 0
/// keeps the subquery from being merged, so recovery is asked for once.
const QUERY: &str = "\
SELECT r.in_recovery,
       pg_wal_lsn_diff(CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_lsn() END, '0/0'),
       CASE WHEN NOT r.in_recovery
            THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       EXISTS (SELECT 1 FROM pg_stat_wal_receiver),
       CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
            ELSE (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
                  * 1000000)::bigint END,
       (SELECT count(*) FROM pg_stat_get_backend_idset() b
         WHERE pg_stat_get_backend_dbid(b) <> 0),
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0),
       ";
const TIMELINE_HIDDEN: &str = "NULL";
const TIMELINE_SHOWN: &str =
    "CASE WHEN r.in_recovery THEN (SELECT timeline_id FROM pg_control_checkpoint()) END";
const FROM: &str = " FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r";

/// Once a session: whether the login may see the last checkpoint, and when the server was started.
/// PostgreSQL checks the right to a function when the statement starts, behind a CASE or not, so
/// this has to be known before.
pub const FIRST: &str = "\
SELECT has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE'),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";

/// Whether the server is in recovery, and when it was started.
pub const RECOVERY: &str = "\
SELECT pg_is_in_recovery(), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";

/// Reads the second column of either.
pub fn started_at(row: &[Option<String>]) -> Option<ServerStart> {
    text(row.get(1)?)?.parse().ok().map(ServerStart)
}

/// The statement for a login that may or may not see the last checkpoint.
pub fn query(may_see_checkpoint: bool) -> String {
    let timeline = match may_see_checkpoint {
        true => TIMELINE_SHOWN,
        false => TIMELINE_HIDDEN,
    };
    format!("{QUERY}{timeline}{FROM}")
}

/// Reads the one row of the answer; none if it has not the shape of one.
pub fn read(row: &[Option<String>]) -> Option<Progress> {
    let [in_recovery, location, wal_file, receiver, lag_micros, backends, max, checkpoint] = row
    else {
        return None;
    };
    let in_recovery = is_true(in_recovery)?;
    let timeline = match in_recovery {
        true => text(checkpoint).and_then(|id| id.parse().ok()),
        false => text(wal_file).and_then(|hex| u32::from_str_radix(hex, 16).ok()),
    };
    // The clocks of two hosts differ a little, so a lag can come out below zero.
    let lag_micros = text(lag_micros).and_then(|micros| micros.parse::<i64>().ok());
    let lag_micros = lag_micros.map(|micros| u64::try_from(micros).unwrap_or(0));
    Some(Progress {
        in_recovery,
        location: text(location).and_then(|bytes| bytes.parse().ok()),
        timeline,
        streaming: is_true(receiver)?,
        replay_lag: lag_micros.map(Duration::from_micros),
        load: load(backends, max),
    })
}

fn load(backends: &Option<String>, max: &Option<String>) -> Option<Load> {
    let number = |value: &Option<String>| text(value)?.parse().ok();
    Some(Load { backends: number(backends)?, backends_max: number(max)? })
}

/// A boolean as PostgreSQL writes it.
pub fn is_true(value: &Option<String>) -> Option<bool> {
    match text(value)? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

fn text(value: &Option<String>) -> Option<&str> {
    value.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: [&str; 8]) -> Vec<Option<String>> {
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        columns.into_iter().map(value).collect()
    }

    #[test]
    fn a_primary_tells_its_write_position_and_its_timeline() {
        let progress = read(&row(["f", "50331648", "0000001B", "f", "", "12", "97", ""])).unwrap();
        assert!(!progress.in_recovery);
        assert_eq!(progress.location, Some(50_331_648));
        assert_eq!(progress.timeline, Some(27));
        assert_eq!(progress.load, Some(Load { backends: 12, backends_max: 97 }));
    }

    #[test]
    fn a_replica_tells_its_replay_its_receiver_and_its_lag() {
        let progress = read(&row(["t", "50331648", "", "t", "1500000", "", "", "3"])).unwrap();
        assert!(progress.in_recovery && progress.streaming);
        assert_eq!(progress.timeline, Some(3));
        assert_eq!(progress.replay_lag, Some(Duration::from_millis(1500)));
        assert_eq!(progress.load, None);
    }

    #[test]
    fn a_lag_below_zero_is_none_at_all_and_an_unknown_one_stays_unknown() {
        let ahead = read(&row(["t", "1", "", "t", "-20", "", "", ""])).unwrap();
        assert_eq!(ahead.replay_lag, Some(Duration::ZERO));
        let unknown = read(&row(["t", "", "", "f", "", "", "", ""])).unwrap();
        assert_eq!((unknown.replay_lag, unknown.location), (None, None));
    }

    #[test]
    fn a_row_of_another_shape_is_no_progress() {
        assert_eq!(read(&row(["x", "1", "", "t", "0", "1", "9", "1"])), None);
        assert_eq!(read(&row(["t", "1", "", "t", "0", "1", "9", "1"])[..7]), None);
    }
}
