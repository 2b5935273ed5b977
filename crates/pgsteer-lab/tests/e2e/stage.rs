//! The stage: one real cluster at a time, kept from test to test.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pgsteer_lab::{Lab, LabOptions, Network, PatroniVersion};

/// The clusters of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// Debian's Patroni 3.0.2, which reports the role as `master`, on loopback.
    Old,
    /// The Patroni of pip, which reports `primary`; in network namespaces if the tests run as root.
    New,
}

/// The body of a test, on a healthy cluster.
pub type Play = fn(&Lab) -> Result<()>;

/// The cluster that runs now.
static STANDING: Mutex<Option<(Cluster, Lab)>> = Mutex::new(None);

/// The logs of the programs of the current test.
static LOGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starting a new cluster is faster than waiting longer than this for repair.
const PATIENCE: Duration = Duration::from_secs(15);

/// The number of log lines that a failed test shows.
const TAIL_LINES: usize = 60;

impl Cluster {
    /// The network in which a cable can be pulled.
    pub const CABLES: Network = Network::Namespaces;

    pub fn name(self) -> &'static str {
        match self {
            Cluster::Old => "old",
            Cluster::New => "new",
        }
    }

    pub fn network(self) -> Network {
        match self {
            Cluster::New if is_root() => Network::Namespaces,
            Cluster::New | Cluster::Old => Network::Loopback,
        }
    }

    fn patroni(self) -> PatroniVersion {
        match self {
            Cluster::Old => PatroniVersion::Debian,
            Cluster::New => PatroniVersion::Pip,
        }
    }
}

/// Runs a test on its cluster. The log of pgsteer during the test becomes part of a failure.
pub fn play(name: &str, cluster: Cluster, play: Play) -> Result<()> {
    let mut standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let lab = set(&mut standing, cluster)?;
    let made_ready = began.elapsed();
    LOGS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let began = Instant::now();
    let result = play(lab);
    if std::env::var_os("PGSTEER_TIMES").is_some() {
        let (ready, played) = (made_ready.as_secs_f64(), began.elapsed().as_secs_f64());
        eprintln!("{name}: the cluster was ready after {ready:.1} s, the test took {played:.1} s");
    }
    result.with_context(|| LOGS.lock().unwrap_or_else(PoisonError::into_inner).join("\n"))
}

/// Removes the running cluster, if there is one.
pub fn strike() {
    *STANDING.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Keeps the end of a log for the report of a failure.
pub fn keep_log(program: &str, log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.push(format!("--- the end of the log of {program} ---\n{tail}\n---"));
}

/// Makes `cluster` run and be healthy. A cluster that cannot be repaired is replaced.
fn set(standing: &mut Option<(Cluster, Lab)>, cluster: Cluster) -> Result<&Lab> {
    let is_usable = standing
        .as_ref()
        .is_some_and(|(stands, lab)| *stands == cluster && lab.reset_within(PATIENCE).is_ok());
    if !is_usable {
        // The old cluster ends first, because two at once overload a small machine.
        *standing = None;
    }
    match standing {
        Some((_, lab)) => Ok(lab),
        None => {
            let (patroni, network) = (cluster.patroni(), cluster.network());
            let options = LabOptions { patroni, network, ..LabOptions::default() };
            let lab = Lab::start(options).context("the cluster does not stand")?;
            Ok(&standing.insert((cluster, lab)).1)
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
