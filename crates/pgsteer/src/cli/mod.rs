//! The command line: commands, flags and their help.

mod flags;
mod keys;
mod lint;
mod load;
mod orders;
mod render;
mod typed;

use std::path::PathBuf;
use std::time::Duration;

use crate::ask::Credentials;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use flags::listed;
use keys::KeyFlags;
pub use lint::{LintArgs, LintFormat};
pub use load::{load, load_agent, load_render};
pub use orders::{
    DrainArgs, EndSessionsArgs, ExplainArgs, FilterArgs, SessionsArgs, SocketArgs, UndrainArgs,
    UpgradeArgs,
};
use pgsteer_config::limits::ASK_TIMEOUT;
pub use render::RenderArgs;
pub use typed::typed;

/// The exit code of a process that failed while it ran.
pub const EXIT_FAILED: u8 = 1;
/// The exit code of a process with an invalid flag or file.
pub const EXIT_WRONG_CONFIG: u8 = 2;

/// Routes clients to the right member of a highly available PostgreSQL cluster.
///
/// pgsteer detects which member is the primary and which replicas can serve reads, and routes
/// every client there.
#[derive(Debug, Parser)]
#[command(name = "pgsteer", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Start:  pgsteer run --patroni http://10.0.0.11:8008\nHelp:   pgsteer run --help"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What pgsteer can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy: writes on port 5000, reads on port 5001, status on port 7000
    Run(Box<RunArgs>),
    /// Answer HAProxy's agent-checks without a proxy; accepts happac's flags
    Agent(Box<AgentArgs>),
    /// Query a running pgsteer: exit 0 for yes, 1 for no, 2 if the answer is unknown
    Check(CheckArgs),
    /// Write the files around the cluster: haproxy.cfg and others
    Render(Box<RenderArgs>),
    /// Check a haproxy.cfg, a pg_hba.conf or a pgsteer.toml, and report its faults
    Lint(LintArgs),
    /// Show members, gates and sessions of a running pgsteer, or several pgsteers as one table
    Status(StatusArgs),
    /// Show the live state of a running pgsteer in the terminal
    Top(TopArgs),
    /// Send no new sessions to a member, for a limited time and with a reason
    Drain(DrainArgs),
    /// Withdraw a drain order, so that the member receives new sessions again
    Undrain(UndrainArgs),
    /// List the sessions of a running pgsteer
    Sessions(SessionsArgs),
    /// End sessions
    EndSessions(EndSessionsArgs),
    /// Show why a service uses each member or does not, and the facts behind it
    Explain(ExplainArgs),
    /// Replace a running pgsteer by a new process that takes over its sessions
    Upgrade(UpgradeArgs),
    /// Remove the addresses of `[vip]` from this machine, if a stopped pgsteer left them there
    Vip(VipArgs),
}

const RUN_EXAMPLES: &str = "\
A flag overrides the key of the configuration file. SIGHUP reads the file again.

Examples:
  pgsteer run --patroni http://10.0.0.11:8008
  pgsteer run --patroni http://10.0.0.11:8008 --check-user pgcheck
  pgsteer run --member n1=10.0.0.11 --member n2=10.0.0.12 --check-user pgcheck
  pgsteer run --config /etc/pgsteer/pgsteer.toml --check-config

Exit codes: 0 stopped by a signal, 1 failed while running, 2 invalid flags or file (not started).";

/// The arguments of `pgsteer run`, as written. [`load`] merges them with the file.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// Configuration file [default: /etc/pgsteer/pgsteer.toml, unless --patroni or --member
    /// is given]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The flags of keys.
    #[command(flatten)]
    pub keys: KeyFlags<keys::Run>,

    /// A member of a cluster without Patroni, checked by SQL. May be repeated
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub member: Vec<String>,

    /// Address of the write service [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDR")]
    pub write: Option<String>,

    /// Address of the read service [default: 0.0.0.0:5001]
    #[arg(long, value_name = "ADDR")]
    pub read: Option<String>,

    /// How long a client waits for an available member [default: 30 for writes, 10 for reads]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub hold: Option<String>,

    /// Maximum lag of a replica, as 16MB, or with --check-user as 10s [default: no limit]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub max_lag: Option<String>,

    /// The flags for the start.
    #[command(flatten)]
    pub start: StartArgs,
}

/// The flags for the start of a process that runs until a signal stops it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct StartArgs {
    /// Format of the log on stderr
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Check flags and file, show the resulting configuration, and exit
    #[arg(long)]
    pub check_config: bool,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

const AGENT_EXAMPLES: &str = "\
The agent watches the whole cluster and answers for all members on one port. HAProxy sends the
check and the member, as in `agent-send \"replica?lag=16MB n2\\n\"`. If HAProxy sends nothing, the
answer is for the check of -k and the local member.

Examples:
  pgsteer agent -h 10.0.0.11
  pgsteer agent -h 10.0.0.11 -k replica?lag=16MB --vocabulary admin
  pgsteer agent --config /etc/pgsteer/pgsteer.toml

The environment has the same names as happac's: PATRONI_HOST, PATRONI_API_PORT, PATRONI_ENDPOINT,
AGENT_PORT, PGISREADY_PORT, PGISREADY_PATH.
Exit codes: 0 stopped by a signal, 1 failed while running, 2 invalid flags or file (not started).";

/// `pgsteer agent`, as written.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = AGENT_EXAMPLES, disable_help_flag = true)]
pub struct AgentArgs {
    /// Host of the local Patroni's REST API
    #[arg(short = 'h', long, value_name = "HOST", env = "PATRONI_HOST", hide_env = true)]
    pub patroni_host: Option<String>,

    // The program was started as `happac`.
    #[arg(skip)]
    pub is_happac: bool,

    /// Port of the local Patroni's REST API [default: 8008]
    #[arg(short = 'o', long, value_name = "PORT", env = "PATRONI_API_PORT", hide_env = true)]
    pub patroni_port: Option<String>,

    /// Port to listen on [default: 5555]
    #[arg(short = 'p', long, value_name = "PORT", env = "AGENT_PORT", hide_env = true)]
    pub port: Option<String>,

    /// Ignored: pgsteer checks PostgreSQL without pg_isready
    #[arg(short = 'x', long, visible_alias = "pg-is-ready-path", value_name = "PATH")]
    #[arg(env = "PGISREADY_PATH", hide_env = true)]
    pub pgisready_path: Option<String>,

    /// Configuration file, as of `pgsteer run`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The flags of keys.
    #[command(flatten)]
    pub keys: KeyFlags<keys::Agent>,

    /// The flags for the start.
    #[command(flatten)]
    pub start: StartArgs,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  pgsteer check                        is the local member the primary?
  pgsteer check write                  is a member available for the service `write`?
  pgsteer check write --member n2      is n2 available for the service `write`?
  pgsteer check replica?lag=16MB       as Patroni's GET /replica?lag=16MB
  pgsteer check vip write              should this machine have the address of [vip.write]?

keepalived:  vrrp_script pgsteer { script \"/usr/bin/pgsteer check write\" interval 1 weight -100 }
HAProxy:     external-check command /usr/bin/pgsteer-check
             (a link to pgsteer; the proxy's name is the service, the server's address the member)
Exit codes: 0 yes, 1 no, 2 unknown or no answer.";

/// The credentials with which `check`, `status` and `top` query a pgsteer, as written.
#[derive(Clone, Debug, Default, Args)]
pub struct AskArgs {
    /// File whose first line is the token, as token_file of the running pgsteer
    #[arg(long, value_name = "FILE", conflicts_with = "login_file")]
    pub token_file: Option<PathBuf>,

    /// File whose first line is `user:password`, as login_file of the running pgsteer
    #[arg(long, value_name = "FILE")]
    pub login_file: Option<PathBuf>,

    /// The authorities to trust for https, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl AskArgs {
    /// The same for the client.
    pub fn credentials(self) -> Credentials {
        let AskArgs { token_file, login_file, ca_file } = self;
        Credentials { token_file, login_file, ca_file, ..Credentials::default() }
    }
}

/// `pgsteer check`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// A service, or a health check of Patroni with its parameters
    #[arg(value_name = "CHECK", default_value = "primary")]
    pub of: String,

    /// After `vip`: the name of an address in `[vip]`
    #[arg(value_name = "NAME", conflicts_with = "member")]
    pub name: Option<String>,

    /// The member, by name or address [default: the local one]
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<String>,

    /// Status pages of the running pgsteer
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7000")]
    pub http: String,

    /// Maximum time for one answer
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = check_timeout)]
    pub timeout: Duration,

    /// Take the arguments of HAProxy's external-check
    #[arg(long, hide = true, num_args = 4, conflicts_with_all = ["of", "name", "member"])]
    pub external: Option<Vec<String>>,

    /// The credentials
    #[command(flatten)]
    pub ask: AskArgs,
}

fn check_timeout(text: &str) -> Result<Duration, String> {
    // clap shows one line for an error, and has no place for the remedy below it.
    ASK_TIMEOUT.read(text).map_err(|problem| match problem.remedy() {
        Some(remedy) => format!("{problem}: {remedy}"),
        None => problem.to_string(),
    })
}

/// Returns the value with the name `text`, or an error with all names.
fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(word, _)| *word == text);
    let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
    found.map(|(_, it)| *it).ok_or_else(|| format!("one of {}", words.join(", ")))
}

const STATUS_EXAMPLES: &str = "\
Examples:
  pgsteer status
  pgsteer status http://10.0.0.20:7000 --watch
  pgsteer status 10.0.0.20:7000 10.0.0.21:7000     one line for each

Exit codes: 0 all services have an open member, 1 a service has none or there is a rogue primary,
2 no answer. With several URLs the highest.";

/// The default address of the status pages.
const HTTP_DEFAULT: &str = "http://127.0.0.1:7000";

/// `pgsteer status`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// Status pages of the running pgsteers [default: http://127.0.0.1:7000]
    #[arg(value_name = "URL", conflicts_with = "http")]
    pub urls: Vec<String>,

    /// Same as URL, for a single one
    #[arg(long, value_name = "URL")]
    pub http: Option<String>,

    /// Print the whole status as JSON instead of a table; with several URLs a list
    #[arg(long)]
    pub json: bool,

    /// Repeat the output until Ctrl-C
    #[arg(long)]
    pub watch: bool,

    /// The credentials
    #[command(flatten)]
    pub ask: AskArgs,
}

impl StatusArgs {
    /// The URLs to ask, at least one.
    pub fn all_urls(&self) -> Vec<String> {
        match (&self.http, self.urls.is_empty()) {
            (Some(http), _) => vec![http.clone()],
            (None, true) => vec![HTTP_DEFAULT.to_owned()],
            (None, false) => self.urls.clone(),
        }
    }
}

const TOP_EXAMPLES: &str = "\
Keys: q quit, arrows or j k select, tab next panel, enter explain, S sessions, s sort, / filter,
      e events, p pause, ? help.

Examples:
  pgsteer top
  pgsteer top http://10.0.0.20:7000

Without a terminal: pgsteer status.";

/// `pgsteer top`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = TOP_EXAMPLES)]
pub struct TopArgs {
    /// Status pages of the running pgsteer
    #[arg(value_name = "URL", default_value = HTTP_DEFAULT)]
    pub url: String,

    /// No colours, as with NO_COLOR in the environment
    #[arg(long)]
    pub no_color: bool,

    /// Control socket for the list of sessions [default: the usual one if URL is of the loopback]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// The credentials
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `pgsteer vip`, as written.
#[derive(Clone, Debug, Args)]
pub struct VipArgs {
    /// What to do with the addresses.
    #[command(subcommand)]
    pub command: VipCommand,
}

/// What `pgsteer vip` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum VipCommand {
    /// Remove the addresses that pgsteer added for `[vip]` from this machine. It needs CAP_NET_ADMIN, and
    /// reads no configuration
    Release {
        /// Accepted for units that pass it, and not read.
        #[arg(long, value_name = "FILE", hide = true)]
        config: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_invalid_timeout_is_rejected_with_the_range() {
        let parsed = |text: &str| Cli::try_parse_from(["pgsteer", "check", "--timeout", text]);
        for (wrong, why) in [
            ("0", "is out of range: from 0.1 to 60 seconds"),
            ("x", "found `x`: a bare number"),
            ("2s", "found `2s`: did you mean 2? A bare number"),
        ] {
            let error = parsed(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(parsed("0.1").is_ok());
    }

    fn help_of(name: &str) -> String {
        let mut cli = Cli::command().term_width(100);
        cli.build();
        let subcommand = cli.find_subcommand_mut(name).unwrap();
        subcommand.render_help().to_string()
    }

    #[test]
    fn the_help_of_run_reads_well() {
        insta::assert_snapshot!(help_of("run"));
    }

    #[test]
    fn the_help_of_agent_reads_well() {
        insta::assert_snapshot!(help_of("agent"));
    }

    #[test]
    fn the_help_of_check_reads_well() {
        insta::assert_snapshot!(help_of("check"));
    }

    #[test]
    fn the_help_of_render_reads_well() {
        insta::assert_snapshot!(help_of("render"));
    }

    #[test]
    fn the_help_of_lint_reads_well() {
        insta::assert_snapshot!(help_of("lint"));
    }

    #[test]
    fn the_help_of_status_reads_well() {
        insta::assert_snapshot!(help_of("status"));
    }

    #[test]
    fn the_help_of_top_reads_well() {
        insta::assert_snapshot!(help_of("top"));
    }

    #[test]
    fn the_help_of_the_orders_reads_well() {
        let names = ["drain", "undrain", "sessions", "end-sessions", "explain"];
        insta::assert_snapshot!(names.map(help_of).join("\n"));
    }

    #[test]
    fn status_takes_urls_or_http_and_has_a_default() {
        let urls = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["pgsteer", "status"], words].concat()).ok()?;
            let Command::Status(status) = cli.command else { return None };
            Some(status.all_urls())
        };
        assert_eq!(urls(&[]).unwrap(), ["http://127.0.0.1:7000"]);
        assert_eq!(urls(&["--http", "h:1"]).unwrap(), ["h:1"]);
        assert_eq!(urls(&["a:1", "b:1"]).unwrap(), ["a:1", "b:1"]);
        assert_eq!(urls(&["a:1", "--http", "b:1"]), None);
    }
}
