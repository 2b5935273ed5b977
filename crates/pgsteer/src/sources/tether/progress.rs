//! The progress query: WAL positions and replication state from SQL.
//!
//! One statement works on primaries and replicas of PostgreSQL 10 to 18, and reads nothing that
//! requires a privilege. Functions that raise an error on the other kind of server are behind a
//! CASE. They are volatile, so the planner does not evaluate them early (PostgreSQL documentation,
//! "Expression Evaluation Rules"). A server can only leave recovery, so a condition that was true
//! for the CASE is true for the function behind it.

use std::time::{SystemTime, UNIX_EPOCH};

use pgsteer_core::claim::{Progress, ServerStart};
use pgsteer_core::load::Load;
use pgsteer_core::skew::ClockOffset;

/// The columns: in recovery, location in bytes, timeline as the first 8 hexadecimal digits of a WAL
/// file's name, WAL receiver, age of the last replayed commit in microseconds, the server's clock
/// in microseconds since 1970, backends, the maximum of backends, timeline of the last checkpoint.
///
/// Backends are those with a database, which excludes WAL senders and PostgreSQL's own processes.
/// Every user may see that much, while `pg_stat_activity` shows the kinds of backends to few users.
/// With a hundred of them it takes 0.1 ms. `reserved_connections` exists since PostgreSQL 16.
///
/// `pg_stat_wal_receiver` has a row exactly while a WAL receiver is connected to its upstream.
/// Without `pg_monitor` all its columns except `pid` are NULL, so only the row counts. OFFSET 0
/// keeps the subquery from being merged, so the recovery state is read once.
const QUERY: &str = "\
SELECT r.in_recovery,
       pg_wal_lsn_diff(CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_lsn() END, '0/0'),
       CASE WHEN NOT r.in_recovery
            THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       EXISTS (SELECT 1 FROM pg_stat_wal_receiver),
       CASE WHEN r.in_recovery
            THEN (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
                  * 1000000)::bigint END,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
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

/// Sent once a session: whether the login may see the last checkpoint, when the server was started,
/// and whether the login may see the system identifier. Every user may, unless an administrator
/// revoked it. PostgreSQL checks the privilege for a function when the statement starts, even behind a
/// CASE, so this has to be known before.
pub const FIRST: &str = "\
SELECT has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE'),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";

/// Sent once a session, if the login may see it.
pub const IDENTIFIER: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// Whether the server is in recovery, and when it was started.
pub const RECOVERY: &str = "\
SELECT pg_is_in_recovery(), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";

/// Parses the second column of [`FIRST`] or [`RECOVERY`].
pub fn started_at(row: &[Option<String>]) -> Option<ServerStart> {
    text(row.get(1)?)?.parse().ok().map(ServerStart)
}

/// Parses the row of [`FIRST`]: whether the login may see the system identifier.
pub fn may_see_identifier(row: &[Option<String>]) -> bool {
    row.get(2).and_then(is_true) == Some(true)
}

/// Parses the row of [`IDENTIFIER`]. PostgreSQL returns the unsigned number as a signed one.
pub fn system_identifier(row: &[Option<String>]) -> Option<u64> {
    text(row.first()?)?.parse().ok().map(i64::cast_unsigned)
}

/// Returns the statement for a login with or without the privilege for the last checkpoint.
pub fn query(may_see_checkpoint: bool) -> String {
    let timeline = match may_see_checkpoint {
        true => TIMELINE_SHOWN,
        false => TIMELINE_HIDDEN,
    };
    format!("{QUERY}{timeline}{FROM}")
}

/// Parses the one row of the answer. The query took from `asked` to `answered` by our own clock.
/// Returns none if the row has the wrong shape.
pub fn read(row: &[Option<String>], asked: SystemTime, answered: SystemTime) -> Option<Progress> {
    let [in_recovery, location, wal_file, receiver, age, clock, backends, max, checkpoint] = row
    else {
        return None;
    };
    let in_recovery = is_true(in_recovery)?;
    let timeline = match in_recovery {
        true => text(checkpoint).and_then(|id| id.parse().ok()),
        false => text(wal_file).and_then(|hex| u32::from_str_radix(hex, 16).ok()),
    };
    let micros = |value: &Option<String>| text(value)?.parse::<i64>().ok();
    Some(Progress {
        in_recovery,
        location: text(location).and_then(|bytes| bytes.parse().ok()),
        timeline,
        streaming: is_true(receiver)?,
        replay_age_micros: micros(age),
        clock_offset: micros(clock).and_then(|clock| clock_offset(clock, asked, answered)),
        load: load(backends, max),
    })
}

/// Returns how far `clock` is ahead of ours. The server read it at the middle of query and answer.
fn clock_offset(clock: i64, asked: SystemTime, answered: SystemTime) -> Option<ClockOffset> {
    let micros =
        |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok();
    let (asked, answered) = (micros(asked)?, micros(answered)?);
    // Negative if our clock was set back meanwhile.
    let underway = answered.checked_sub(asked).filter(|micros| *micros >= 0)?;
    Some(ClockOffset::from_micros(clock.saturating_sub(asked + underway / 2)))
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
    use std::time::Duration;

    use super::*;

    fn read(row: &[Option<String>]) -> Option<Progress> {
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        super::read(row, at(1_000), at(1_001))
    }

    fn row(columns: [&str; 9]) -> Vec<Option<String>> {
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        columns.into_iter().map(value).collect()
    }

    #[test]
    fn a_primary_reports_its_write_position_and_its_timeline() {
        let row = row(["f", "50331648", "0000001B", "f", "", "1000500000", "12", "97", ""]);
        let progress = read(&row).unwrap();
        assert!(!progress.in_recovery);
        assert_eq!(progress.location, Some(50_331_648));
        assert_eq!(progress.timeline, Some(27));
        assert_eq!(progress.clock_offset, Some(ClockOffset::from_micros(0)));
        assert_eq!(progress.load, Some(Load { backends: 12, backends_max: 97 }));
    }

    #[test]
    fn a_replica_reports_replay_receiver_and_age_of_the_last_commit() {
        let row = row(["t", "50331648", "", "t", "1500000", "997500000", "", "", "3"]);
        let progress = read(&row).unwrap();
        assert!(progress.in_recovery && progress.streaming);
        assert_eq!(progress.timeline, Some(3));
        assert_eq!(progress.replay_age_micros, Some(1_500_000));
        assert_eq!(progress.clock_offset, Some(ClockOffset::from_micros(-3_000_000)));
        assert_eq!(progress.load, None);
    }

    #[test]
    fn the_system_identifier_is_unsigned() {
        let identifier = |text: &str| system_identifier(&[Some(text.to_owned())]);
        assert_eq!(identifier("7713006245330045767"), Some(7_713_006_245_330_045_767));
        assert_eq!(identifier("-1"), Some(u64::MAX));
        assert_eq!((identifier("x"), system_identifier(&[None])), (None, None));
    }

    #[test]
    fn a_value_that_the_server_does_not_report_stays_unknown() {
        let unknown = read(&row(["t", "", "", "f", "", "", "", "", ""])).unwrap();
        assert_eq!((unknown.replay_age_micros, unknown.location), (None, None));
        assert_eq!(unknown.clock_offset, None);
    }

    #[test]
    fn a_clock_of_ours_that_was_set_back_meanwhile_measures_nothing() {
        assert_eq!(clock_offset(7, UNIX_EPOCH + Duration::from_secs(9), UNIX_EPOCH), None);
    }

    #[test]
    fn a_row_of_another_shape_is_no_progress() {
        assert_eq!(read(&row(["x", "1", "", "t", "0", "1", "1", "9", "1"])), None);
        assert_eq!(read(&row(["t", "1", "", "t", "0", "1", "1", "9", "1"])[..8]), None);
    }
}
