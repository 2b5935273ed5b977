//! Probes: Patroni's health checks.
//!
//! Paths, parameters and meanings are those of Patroni's REST API (`api.py`, `do_GET`, read in
//! 3.0.2 and 4.1.5), so a client of Patroni can use pgsteer instead. There are two differences. A
//! path has to be written as documented; Patroni accepts any path that contains the name. An
//! invalid parameter is an error; Patroni treats `lag=16XB` as no limit.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::text::clean_to;
use crate::units::LAG_BYTES_MAX;
use crate::units::{near_size, size, size_text};

/// The longest probe that is accepted, in bytes.
pub const PROBE_BYTES_MAX: usize = 512;

/// The lag limit of `/readiness` by default: Patroni's `maximum_lag_on_failover`.
const READINESS_LAG_BYTES: u64 = 1024 * 1024;

/// One of Patroni's health checks, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub(crate) path: ProbePath,
    lag_bytes_max: Option<u64>,
    pub(crate) tags: BTreeMap<String, String>,
    streaming: bool,
}

/// The health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbePath {
    Primary,
    StandbyLeader,
    Leader,
    Replica,
    ReadOnly,
    Sync,
    Async,
    Quorum,
    ReadOnlySync,
    ReadOnlyQuorum,
    Health,
    Liveness,
    Readiness,
}

/// Every path, with Patroni's alternative spellings.
const PATHS: [(&str, ProbePath); 20] = [
    ("primary", ProbePath::Primary),
    ("master", ProbePath::Primary),
    ("read-write", ProbePath::Primary),
    ("leader", ProbePath::Leader),
    ("standby-leader", ProbePath::StandbyLeader),
    ("standby_leader", ProbePath::StandbyLeader),
    ("replica", ProbePath::Replica),
    ("read-only", ProbePath::ReadOnly),
    ("sync", ProbePath::Sync),
    ("synchronous", ProbePath::Sync),
    ("async", ProbePath::Async),
    ("asynchronous", ProbePath::Async),
    ("quorum", ProbePath::Quorum),
    ("read-only-sync", ProbePath::ReadOnlySync),
    ("read-only-synchronous", ProbePath::ReadOnlySync),
    ("read-only-quorum", ProbePath::ReadOnlyQuorum),
    ("health", ProbePath::Health),
    ("liveness", ProbePath::Liveness),
    ("liveliness", ProbePath::Liveness),
    ("readiness", ProbePath::Readiness),
];

/// Why a text is not a probe.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProbeError {
    /// Patroni has no such path.
    #[error("`{0}` is none of Patroni's health checks (primary, replica, read-only, sync, ...)")]
    Path(String),
    /// Patroni's health checks have no such parameter.
    #[error("`{0}` is not a parameter of a health check (lag, tag_NAME, replication_state, mode)")]
    Parameter(String),
    /// The value of a parameter is invalid.
    #[error("`{value}` is not a valid {name}: {wanted}{}", did_you_mean(.near))]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        wanted: &'static str,
        /// The value that was probably meant.
        near: Option<String>,
    },
    /// It is longer than [`PROBE_BYTES_MAX`].
    #[error("a health check of {0} bytes is too long")]
    TooLong(usize),
}

impl fmt::Display for Probe {
    /// Writes the probe as in a URL, without the leading slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = PATHS.iter().find(|(_, path)| *path == self.path).map_or("", |(name, _)| name);
        let lag = self.lag_bytes_max.map(|bytes| format!("lag={}", size_text(bytes)));
        let tags = self.tags.iter().map(|(name, value)| format!("tag_{name}={value}"));
        let streaming = self.streaming.then(|| "replication_state=streaming".to_owned());
        let parameters: Vec<String> = lag.into_iter().chain(tags).chain(streaming).collect();
        let mark = if parameters.is_empty() { "" } else { "?" };
        write!(f, "{path}{mark}{}", parameters.join("&"))
    }
}

impl Probe {
    /// Parses a probe as written in a URL, with or without the leading slash: `replica?lag=16MB`.
    ///
    /// # Errors
    /// The path or a parameter is not one of Patroni's, or a value is invalid.
    pub fn read(text: &str) -> Result<Probe, ProbeError> {
        if text.len() > PROBE_BYTES_MAX {
            return Err(ProbeError::TooLong(text.len()));
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let found = PATHS.iter().find(|(name, _)| *name == path);
        let (_, path) = found.ok_or_else(|| ProbeError::Path(shown(path)))?;
        let mut probe =
            Probe { path: *path, lag_bytes_max: None, tags: BTreeMap::new(), streaming: false };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            probe.take(&decoded(name), decoded(value))?;
        }
        Ok(probe)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), ProbeError> {
        let wrong =
            |name, wanted| ProbeError::Value { name, value: shown(&value), wanted, near: None };
        match (name, name.strip_prefix("tag_")) {
            ("lag", _) => {
                let bytes = size(&value).filter(|bytes| (1..=LAG_BYTES_MAX).contains(bytes));
                self.lag_bytes_max = Some(bytes.ok_or_else(|| ProbeError::Value {
                    name: "lag",
                    value: shown(&value),
                    wanted: "a size, as in lag=16MB",
                    near: near_size(&value),
                })?);
            }
            ("replication_state", _) => match value.as_str() {
                "streaming" => self.streaming = true,
                _ => return Err(wrong("replication_state", "only streaming")),
            },
            // The two modes give the same result here: WAL that was received and not replayed
            // counts as lag. That is the stricter mode.
            ("mode", _) if matches!(value.as_str(), "apply" | "write") => {}
            ("mode", _) => return Err(wrong("mode", "apply or write")),
            (_, Some(tag)) if !tag.is_empty() => drop(self.tags.insert(tag.to_owned(), value)),
            _ => return Err(ProbeError::Parameter(shown(name))),
        }
        Ok(())
    }

    /// The lag above which a replica is drained, in bytes.
    pub fn lag_bytes_max(&self) -> Option<u64> {
        match self.path {
            ProbePath::Readiness => Some(self.lag_bytes_max.unwrap_or(READINESS_LAG_BYTES)),
            _ => self.lag_bytes_max,
        }
    }
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// Returns a text from a client, cut for a message and with its hidden characters escaped.
fn shown(text: &str) -> String {
    clean_to(text, 60).into_owned()
}

/// Decodes a part of a query string.
fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}
