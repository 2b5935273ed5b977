//! The flags of the commands of an operator.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pgsteer_core::settings::ControlConfig;

/// How long an order lasts without `--until` and `--forever`.
const LASTS_DEFAULT: Duration = Duration::from_secs(3_600);

/// The socket of the running pgsteer.
#[derive(Clone, Debug, Args)]
pub struct SocketArgs {
    /// The control socket of the running pgsteer, as `[control] socket` there
    #[arg(long, value_name = "PATH", default_value = ControlConfig::SOCKET)]
    pub socket: PathBuf,
}

const DRAIN_EXAMPLES: &str = "\
Existing sessions continue; `pgsteer end-sessions MEMBER` ends them. The order applies to the
member's name: a member that leaves and returns is still drained. The order survives a restart of
pgsteer, and expires by itself. See docs/ORDERS.md.

Examples:
  pgsteer drain n2                                  for one hour
  pgsteer drain n2 --until 30m --why \"new disk\"
  pgsteer drain n2 --service read --forever
  pgsteer drain n1 --until 2m --force               the primary: clients that write wait

Exit codes: 0 in force, 1 refused by pgsteer, 2 wrong usage or no answer.";

/// `pgsteer drain`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub struct DrainArgs {
    /// The member that gets no new sessions
    #[arg(value_name = "MEMBER")]
    pub member: String,

    /// For this service only [default: all services and the health checks]
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,

    /// Duration of the order, as 90s, 10m or 2h30m [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    pub until: Option<Duration>,

    /// The order lasts until `pgsteer undrain`
    #[arg(long, conflicts_with = "until")]
    pub forever: bool,

    /// The reason, shown in the status
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,

    /// Drain even if a service then has no member, or if the member is or becomes the primary
    #[arg(long)]
    pub force: bool,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

impl DrainArgs {
    /// How long the order lasts, unless it has no end.
    pub fn lasts(&self) -> Duration {
        self.until.unwrap_or(LASTS_DEFAULT)
    }
}

/// `pgsteer undrain`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 done, 1 refused by pgsteer, 2 wrong usage or no answer.")]
pub struct UndrainArgs {
    /// The member
    #[arg(value_name = "MEMBER")]
    pub member: String,

    /// Withdraw only the order for this service [default: all orders for the member]
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The filter that selects sessions.
#[derive(Clone, Debug, Args)]
pub struct FilterArgs {
    /// Sessions of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,

    /// Sessions of this user; those inside TLS have no known user
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Sessions to this database; those inside TLS have no known database
    #[arg(long, value_name = "DATABASE")]
    pub database: Option<String>,

    /// Sessions of this client, as 10.0.0.5 or 10.0.0.5:4711
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<String>,

    /// Sessions that have moved no bytes for longer, as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    pub idle_longer: Option<Duration>,
}

/// `pgsteer sessions`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 listed, 1 refused by pgsteer, 2 wrong usage or no answer.")]
pub struct SessionsArgs {
    /// Sessions at this member
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<String>,

    /// The filter
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

const END_EXAMPLES: &str = "\
A session that is idle between two queries receives the error 57P01, as from a server that shuts
down. Any other session is closed without an error.

Examples:
  pgsteer end-sessions n2
  pgsteer end-sessions n2 --idle-longer 1h
  pgsteer end-sessions --user batch --client 10.0.0.5

Exit codes: 0 done, 1 refused by pgsteer, 2 wrong usage or no answer.";

/// `pgsteer end-sessions`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = END_EXAMPLES)]
pub struct EndSessionsArgs {
    /// Sessions at this member
    #[arg(value_name = "MEMBER")]
    pub member: Option<String>,

    /// The filter
    #[command(flatten)]
    pub filter: FilterArgs,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// `pgsteer explain`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 explained, 1 no such service, 2 wrong usage or no answer.")]
pub struct ExplainArgs {
    /// The service
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

const UPGRADE_EXAMPLES: &str = "\
The new process reads the configuration file, finds the members, and takes over listeners, clients
and sessions. Clients stay connected. If the new process fails, the running process continues, and
the reason is shown. SIGUSR2 does the same without an answer. See docs/UPGRADE.md.

Examples:
  pgsteer upgrade                               after the package has replaced the file
  pgsteer upgrade --binary /opt/pgsteer-2/pgsteer

Exit codes: 0 upgraded, 1 not upgraded, 2 wrong usage or no answer.";

/// `pgsteer upgrade`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = UPGRADE_EXAMPLES)]
pub struct UpgradeArgs {
    /// The program of the new process [default: the file of the running one]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// The socket
    #[command(flatten)]
    pub socket: SocketArgs,
}

fn lasting(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write 90s, 10m, 2h30m or 1d");
    let time = humantime::parse_duration(text).map_err(|_| wrong())?;
    (time >= Duration::from_secs(1)).then_some(time).ok_or_else(|| "at least 1s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(lasting("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(lasting("2h30m"), Ok(Duration::from_secs(9_000)));
        assert!(lasting("10").unwrap_err().contains("write 90s"));
        assert!(lasting("0s").is_err() && lasting("-1s").is_err());
    }
}
