//! libpq's path: no proxy, but a list of hosts and `target_session_attrs=read-write`.
//!
//! It is the real libpq, through Python's psycopg2, in a separate process.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::record::{Line, Log};
use super::traffic::{
    CONNECT_LIMIT, INSERT, KEPT_SESSIONS, OUTSTANDING_MAX, PING, PING_EVERY, TRY_LIMIT,
};
use pgsteer_lab::APP;
use pgsteer_lab::Lab;
use pgsteer_lab::Spawned;

const SCRIPT: &str = include_str!("libpq.py");
/// The system's Python, which has psycopg2 from apt.
const PYTHON: &str = "/usr/bin/python3";

/// Starts the script and its traffic.
pub fn start(lab: &Lab, every: Duration) -> Result<Spawned> {
    let file = lab.folder().join("libpq.py");
    std::fs::write(&file, SCRIPT).context("cannot write the script of libpq's path")?;
    let limits = json!({
        "every_seconds": every.as_secs_f64(),
        "ping_seconds": PING_EVERY.as_secs_f64(),
        "try_seconds": TRY_LIMIT.as_secs(),
        "outstanding": OUTSTANDING_MAX,
        "kept": KEPT_SESSIONS,
    });
    let mut command = Command::new(PYTHON);
    command.arg(&file).args([&dsn(lab), INSERT, PING, &limits.to_string()]);
    lab.spawn("libpq", command)
}

/// Ends the traffic and reads its records.
pub fn stop(mut script: Spawned) -> Result<Log> {
    script.terminate(Duration::from_secs(20)).context("the script of libpq's path")?;
    let mut log = Log::default();
    for line in script.log().lines() {
        match serde_json::from_str(line) {
            Ok(Line::Try(tried)) => log.tries.push(tried),
            Ok(Line::Kept(kept)) => log.kept.push(kept),
            Err(_) => eprintln!("the script of libpq's path printed: {line}"),
        }
    }
    log.tries.sort_by_key(|tried| tried.start_us);
    Ok(log)
}

fn dsn(lab: &Lab) -> String {
    let hosts: Vec<String> = lab.members().iter().map(|member| member.ip.to_string()).collect();
    let ports: Vec<String> =
        lab.members().iter().map(|member| member.postgres_port.to_string()).collect();
    format!(
        "host={} port={} user={APP} password={APP} dbname={APP} sslmode=disable \
         gssencmode=disable connect_timeout={} target_session_attrs=read-write",
        hosts.join(","),
        ports.join(","),
        CONNECT_LIMIT.as_secs()
    )
}
