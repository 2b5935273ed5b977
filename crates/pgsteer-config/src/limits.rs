//! The limits and the defaults of the configuration, in one place.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_core::settings::defaults::{self, everywhere};
use pgsteer_core::units::{near_time, seconds_text};

use crate::problem::{Problem, Shown};

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
/// Patroni's own namespace in etcd.
pub const ETCD_NAMESPACE: &str = "/service";
/// Where the service `write` listens unless told otherwise.
pub const WRITE_LISTEN: SocketAddr = everywhere(5000);
/// Where the service `read` listens unless told otherwise.
pub const READ_LISTEN: SocketAddr = everywhere(5001);
/// Where the agent listens unless told otherwise.
pub const AGENT_LISTEN: SocketAddr = everywhere(5555);
/// Where the status pages are unless told otherwise.
pub const HTTP_LISTEN: SocketAddr = everywhere(7000);
/// The cluster's name unless told otherwise.
pub const CLUSTER_NAME: &str = "main";
/// What the agent answers a client that sends no line, unless told otherwise.
pub const AGENT_DEFAULT: &str = "primary";
/// The database of the check login unless told otherwise.
pub const CHECK_DBNAME: &str = "postgres";

/// How long a client waits for a gate to open.
pub const HOLD: Seconds = Seconds::within(0, 3_600_000);
/// How long one member has to accept a connection.
pub const CONNECT_TIMEOUT: Seconds =
    Seconds::within(100, 60_000).or_default(defaults::CONNECT_TIMEOUT);
/// How long Patroni has for one answer.
pub const PATRONI_TIMEOUT: Seconds = Seconds::within(100, 60_000).or(1_000);
/// How long etcd has for one answer.
pub const ETCD_TIMEOUT: Seconds = Seconds::within(100, 60_000).or(2_000);
/// How long PostgreSQL has for one answer to the tether.
pub const CHECK_TIMEOUT: Seconds = Seconds::within(100, 60_000).or_default(defaults::CHECK_TIMEOUT);
/// How long `pgsteer check` waits for one answer.
pub const ASK_TIMEOUT: Seconds = Seconds::within(100, 60_000).or(2_000);
/// How long an open gate outlives the silence of its member's Patroni.
pub const PATRONI_LOSS_GRACE: Seconds = Seconds::within(0, 86_400_000).or(60_000);
/// After how long without a word the sessions to a member are ended.
pub const SILENCE: Seconds = Seconds::within(1_000, 3_600_000).or(30_000);
/// The lag in time above which a replica is drained.
pub const LAG_SECONDS: Seconds = Seconds::within(100, 86_400_000);
/// How long a login may take.
pub const LOGIN_TIMEOUT: Seconds =
    Seconds::within(1_000, 600_000).or_default(defaults::LOGIN_TIMEOUT);
/// How long sessions may go on after SIGTERM.
pub const SHUTDOWN_GRACE: Seconds =
    Seconds::within(0, 86_400_000).or_default(defaults::SHUTDOWN_GRACE);
/// Idle time before TCP keepalive probes.
pub const KEEPALIVE: Seconds = Seconds::within(1_000, 7_200_000).or_default(defaults::KEEPALIVE);
/// How long a client may leave bytes unacknowledged or unread; zero is as long as the system says.
pub const USER_TIMEOUT: Seconds = Seconds::within(0, 3_600_000).or_default(defaults::USER_TIMEOUT);

/// How long a client of the agent may take for its line.
pub const LINE_WAIT: Seconds = Seconds::within(0, 5_000).or(50);

/// The `maxconn` of a server.
pub const MAXCONN: Whole = Whole::within(1, 1_000_000);
/// A group of a Citus cluster.
pub const GROUP: Whole = Whole::within(0, 2_147_483_647);
/// A TCP port.
pub const PORT: Whole = Whole::within(1, 65_535);
/// Worker threads.
pub const WORKERS: Whole = Whole::within(1, 256);
/// Client connections at once.
pub const SESSIONS: Whole = Whole::within(1, 1_000_000).or(defaults::SESSIONS_MAX as u64);
/// Sessions of one service, in all or at one member.
pub const SERVICE_SESSIONS: Whole = Whole::within(1, 1_000_000);
/// Client connections of one address at once.
pub const SESSIONS_PER_ADDRESS: Whole = Whole::within(1, 1_000_000);

fn out_of_range(text: &str, range: &impl fmt::Display) -> Problem {
    Problem::OutOfRange { found: Shown::of(text), range: range.to_string() }
}

/// The range of a time, and its default where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds {
    min: Duration,
    max: Duration,
    default: Option<Duration>,
}

impl Seconds {
    const fn within(min_millis: u64, max_millis: u64) -> Seconds {
        Seconds {
            min: Duration::from_millis(min_millis),
            max: Duration::from_millis(max_millis),
            default: None,
        }
    }

    const fn or(self, default_millis: u64) -> Seconds {
        self.or_default(Duration::from_millis(default_millis))
    }

    const fn or_default(self, default: Duration) -> Seconds {
        Seconds { default: Some(default), ..self }
    }

    /// Reads a number of seconds.
    ///
    /// # Errors
    /// No number, or one outside of the range.
    pub fn read(&self, text: &str) -> Result<Duration, Problem> {
        let number: f64 = text.parse().map_err(|_| Problem::NotSeconds {
            found: Shown::of(text).to_string(),
            range: *self,
            near: near_time(text).filter(|time| self.contains(*time)).map(seconds_text),
        })?;
        Duration::try_from_secs_f64(number)
            .ok()
            .filter(|time| self.contains(*time))
            .ok_or_else(|| out_of_range(text, self))
    }

    /// `time` lies in the range.
    pub fn contains(&self, time: Duration) -> bool {
        (self.min..=self.max).contains(&time)
    }

    /// What holds when nothing is said; the least where there is no fixed default.
    pub fn usual(&self) -> Duration {
        self.default.unwrap_or(self.min)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (seconds_text(self.min), seconds_text(self.max));
        write!(f, "from {min} to {max} seconds")?;
        match self.default {
            Some(default) => write!(f, "; the default is {}", seconds_text(default)),
            None => Ok(()),
        }
    }
}

/// The range of a whole number, and its default where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    min: u64,
    max: u64,
    default: Option<u64>,
}

impl Whole {
    const fn within(min: u64, max: u64) -> Whole {
        Whole { min, max, default: None }
    }

    const fn or(self, default: u64) -> Whole {
        Whole { default: Some(default), ..self }
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// No whole number, or one outside of the range.
    pub fn read(&self, text: &str) -> Result<u64, Problem> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(Problem::NotWhole { found: Shown::of(text).to_string(), range: *self });
        }
        text.parse()
            .ok()
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| out_of_range(text, self))
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.min, self.max)?;
        match self.default {
            Some(default) => write!(f, "; the default is {default}"),
            None => Ok(()),
        }
    }
}
