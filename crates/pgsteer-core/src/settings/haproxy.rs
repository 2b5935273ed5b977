//! The settings of the HAProxys that pgsteer controls by their Runtime API.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::{Endpoint, ServiceName};

/// The HAProxys, and their backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaproxyConfig {
    /// The sockets of the Runtime API, one for each HAProxy; at least one.
    pub sockets: Vec<HaproxySocket>,
    /// The backend of each service whose backend does not have the service's name.
    pub backends: BTreeMap<ServiceName, String>,
    /// Where the state of the servers is written for the next start of HAProxy (its
    /// `server-state-file`); only with one socket.
    pub state_file: Option<PathBuf>,
    /// The keywords of the servers that are added for members without one; none if none is added.
    pub add_servers: Option<String>,
    /// How long HAProxy may take for an answer.
    pub timeout: Duration,
}

/// A socket of HAProxy's Runtime API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HaproxySocket {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp(Endpoint),
}

impl fmt::Display for HaproxySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HaproxySocket::Unix(path) => write!(f, "{}", path.display()),
            HaproxySocket::Tcp(endpoint) => write!(f, "{endpoint}"),
        }
    }
}
