//! The options of a lab.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The most members of a lab. etcd gains nothing from more.
pub const MEMBERS_MAX: usize = 7;

/// Which of the two installed Patronis runs the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatroniVersion {
    /// The distribution's package. On Debian 12 that is 3.0.2, which reports the role as `master`.
    Debian,
    /// The newer one from the Python environment that `scripts/install-lab.sh` makes. It reports
    /// `primary`.
    Pip,
}

/// The network of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Addresses 127.0.X.1 and up, with ports that are unlikely to be taken. Needs no privileges.
    Loopback,
    /// One network namespace per member, joined by a switch, with the standard ports. Needs root. A
    /// partition needs this network.
    Namespaces,
}

/// Everything that can be chosen before a lab starts.
#[derive(Debug, Clone)]
pub struct LabOptions {
    pub patroni: PatroniVersion,
    pub network: Network,
    /// 1 to [`MEMBERS_MAX`].
    pub members: usize,
    /// PostgreSQL's `max_connections`.
    pub connections_max: u32,
    /// If set, the logs of all processes are copied here before the lab's folder is removed. The
    /// environment variable `PGSTEER_LAB_LOGS` has the same effect when this is `None`.
    pub keep_logs_in: Option<PathBuf>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            patroni: PatroniVersion::Pip,
            network: Network::Loopback,
            members: 3,
            connections_max: 200,
            keep_logs_in: None,
        }
    }
}

impl LabOptions {
    pub(crate) fn logs_target(&self) -> Option<PathBuf> {
        let from_environment = || std::env::var_os("PGSTEER_LAB_LOGS").map(PathBuf::from);
        self.keep_logs_in.clone().or_else(from_environment)
    }
}

impl FromStr for PatroniVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "debian" => Ok(Self::Debian),
            "pip" => Ok(Self::Pip),
            _ => Err(format!("{text:?} is not one of: debian, pip")),
        }
    }
}

impl fmt::Display for PatroniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Pip => "pip",
        })
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "loopback" => Ok(Self::Loopback),
            "namespaces" => Ok(Self::Namespaces),
            _ => Err(format!("{text:?} is not one of: loopback, namespaces")),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Namespaces => "namespaces",
        })
    }
}
