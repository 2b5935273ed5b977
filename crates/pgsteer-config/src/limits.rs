//! Limits of the configuration, and the ports that several sections know.

use std::net::SocketAddr;

use pgsteer_core::settings::defaults::everywhere;

use crate::range::{Seconds, Whole};

/// The largest configuration file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// How many errors are kept; the rest is only counted.
pub const ERRORS_MAX: usize = 100;
/// The most services.
pub const SERVICES_MAX: usize = 64;
/// The most tags that a service may ask for.
pub const TAGS_MAX: usize = 64;
/// The longest path of a file, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// The longest user or database name, in bytes: PostgreSQL cuts off what is longer.
pub const LOGIN_NAME_BYTES_MAX: usize = 63;

/// Patroni's own port, for addresses that name none.
pub const PATRONI_PORT: u16 = 8008;
/// etcd's own port, for addresses that name none.
pub const ETCD_PORT: u16 = 2379;
/// Where the service `write` listens unless told otherwise.
pub const WRITE_LISTEN: SocketAddr = everywhere(5000);
/// Where the service `read` listens unless told otherwise.
pub const READ_LISTEN: SocketAddr = everywhere(5001);
/// Where the agent listens unless told otherwise.
pub const AGENT_LISTEN: SocketAddr = everywhere(5555);
/// Where the status pages are unless told otherwise.
pub const HTTP_LISTEN: SocketAddr = everywhere(7000);

/// The time that `pgsteer check` waits for one answer.
pub const ASK_TIMEOUT: Seconds = Seconds::within(100, 60_000).or(2_000);
/// The lag in time above which a replica is drained.
pub const LAG_SECONDS: Seconds = Seconds::within(100, 86_400_000);
/// A TCP port.
pub const PORT: Whole = Whole::within(1, 65_535);
