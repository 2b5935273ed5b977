//! Two HAProxys that check PostgreSQL itself: one with the rendered file, one with the check of
//! haproxy-postgresql.
//!
//! The latter is a stand-in. It is written from the description of what that check sends and
//! expects, with its timings. It leaves out the second Terminate after the answer, which can show a
//! healthy primary as failed; this is in its favour.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench_setup::free_address;
use pgsteer_lab::Lab;
use pgsteer_lab::SUPERUSER;
use pgsteer_lab::Spawned;
use pgsteer_lab::agents::ServerStates;
use pgsteer_lab::suited;

const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The timings of the check of haproxy-postgresql, and its action when a server is lost.
const OTHER_TIMES: &str =
    "inter 5s fastinter 2s downinter 5s rise 2 fall 3 on-marked-down shutdown-sessions";
const OTHER_TIMEOUTS: &str = "    retries 3\n    option redispatch\n    timeout connect 1s\n    \
                             timeout client 1h\n    timeout server 1h\n    timeout check 2s\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The unchanged output of `pgsteer render haproxy --profile sql`.
    Rendered,
    /// The stand-in.
    Other,
}

/// A running HAProxy. Dropping it kills it.
#[derive(Debug)]
pub struct Door {
    pub write: SocketAddr,
    /// The time from its start until it recognised every standby.
    pub standbys_known: Duration,
    _process: Spawned,
}

impl Door {
    /// Returns when it has recognised the primary and the standbys.
    pub fn open(lab: &Lab, pgsteer: &Path, kind: Kind) -> Result<Self> {
        let (write, socket) = (free_address()?, free_address()?);
        let (name, backend, text) = match kind {
            Kind::Rendered => ("sql", "pgsteer:primary", rendered(lab, pgsteer, write)?),
            Kind::Other => ("other", "members", other(lab, write)),
        };
        let process = lab.haproxy(name, &suited(&text, socket, lab.id()))?;
        let started = Instant::now();
        while !ServerStates::ask(socket)
            .is_ok_and(|server_states| server_states.up(backend).len() == 1)
        {
            if started.elapsed() > START_LIMIT {
                bail!("{name}: the standbys are not known:\n{}", process.log());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let standbys_known = started.elapsed();
        Ok(Self { write, standbys_known, _process: process })
    }
}

fn rendered(lab: &Lab, pgsteer: &Path, write: SocketAddr) -> Result<String> {
    let (read, stats) = (free_address()?, free_address()?);
    let file = lab.folder().join("sql.toml");
    let text = format!(
        "[services.write]\nlisten = '{write}'\n[services.read]\nlisten = '{read}'\n\
         [proxy]\nsessions_max = 1000\n"
    );
    std::fs::write(&file, text).context("cannot write a configuration of pgsteer")?;
    let mut command = Command::new(pgsteer);
    command.args(["render", "haproxy", "--profile", "sql", "--check-user", SUPERUSER]);
    command.args(["--stats-listen", &stats.to_string(), "--config"]).arg(file);
    for member in lab.members() {
        command.arg(format!("--member={}={}", member.name, member.postgres_addr()));
    }
    let output = command.output().context("cannot run pgsteer")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("the rendered file is not UTF-8")
}

fn other(lab: &Lab, write: SocketAddr) -> String {
    let mut startup = b"\x00\x03\x00\x00".to_vec();
    for word in ["user", SUPERUSER, "database", "template1", ""] {
        startup.extend_from_slice(word.as_bytes());
        startup.push(0);
    }
    let question = b"select pg_is_in_recovery();\0";
    let mut text = format!(
        "global\n    maxconn 4000\n    spread-checks 5\n    stats socket /of/the/lab\n\n\
         defaults\n    mode tcp\n{OTHER_TIMEOUTS}\n\
         frontend write\n    bind {write}\n    acl single nbsrv(members) eq 1\n    \
         tcp-request connection reject if !single\n    default_backend members\n\n\
         backend members\n    option tcp-check\n    tcp-check connect\n    \
         tcp-check send-binary {}\n    tcp-check expect binary 520000000800000000\n    \
         tcp-check send-binary 51{}\n    tcp-check send-binary 5800000004\n    \
         tcp-check expect binary 54\n    tcp-check expect binary 440000000b00010000000166\n    \
         default-server {OTHER_TIMES}\n",
        with_length(&startup),
        with_length(question),
    );
    for member in lab.members() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    server {} {} check", member.name, member.postgres_addr());
    }
    text
}

/// The bytes in hex, after a length that includes itself.
fn with_length(body: &[u8]) -> String {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let bytes = length.to_be_bytes().into_iter().chain(body.iter().copied());
    bytes.fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_the_documented_length() {
        assert!(with_length(b"select pg_is_in_recovery();\0").starts_with("0000002073656c656374"));
    }
}
