//! Limits of the configuration, and the default ports that several sections use.

use std::net::SocketAddr;

use pgsteer_core::settings::defaults::everywhere;

use crate::range::{Seconds, Whole};

/// The maximum size of a configuration file, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// The maximum number of errors that are kept; the rest is only counted.
pub const ERRORS_MAX: usize = 100;
/// The maximum number of services.
pub const SERVICES_MAX: usize = 64;
/// The maximum number of addresses that follow a service.
pub const VIPS_MAX: usize = 16;
/// The maximum number of other pgsteers in `[http]`.
pub const PEERS_MAX: usize = 16;
/// The maximum number of tags that a service may require.
pub const TAGS_MAX: usize = 64;
/// The maximum number of HAProxys that are steered.
pub const HAPROXYS_MAX: usize = 16;
/// The maximum length of the keywords of a server that is added to HAProxy, in bytes.
pub const SERVER_KEYWORDS_BYTES_MAX: usize = 1000;
/// The maximum length of a file's path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// The maximum length of the path of a Unix socket, in bytes: `sun_path` has 108 with its NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The maximum length of a user or database name, in bytes: PostgreSQL truncates longer names.
pub const LOGIN_NAME_BYTES_MAX: usize = 63;

/// Patroni's default port, for addresses without a port.
pub const PATRONI_PORT: u16 = 8008;
/// etcd's default port, for addresses without a port.
pub const ETCD_PORT: u16 = 2379;
/// The default address of the service `write`.
pub const WRITE_LISTEN: SocketAddr = everywhere(5000);
/// The default address of the service `read`.
pub const READ_LISTEN: SocketAddr = everywhere(5001);
/// The default address of the agent.
pub const AGENT_LISTEN: SocketAddr = everywhere(5555);
/// The default address of the status pages.
pub const HTTP_LISTEN: SocketAddr = everywhere(7000);

/// The time that `pgsteer check` waits for one answer.
pub const ASK_TIMEOUT: Seconds = Seconds::within(100, 60_000).or(2_000);
/// The lag in time above which a replica is drained.
pub const LAG_SECONDS: Seconds = Seconds::within(100, 86_400_000);
/// A TCP port.
pub const PORT: Whole = Whole::within(1, 65_535);
