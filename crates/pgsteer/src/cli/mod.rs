//! The command line: what one can type, and the help that one reads at night.

mod flags;
mod load;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use load::load;

/// The exit code of a process that failed while it ran.
pub const EXIT_FAILED: u8 = 1;
/// The exit code of a process that was told something wrong, by flag or by file.
pub const EXIT_WRONG_CONFIG: u8 = 2;

/// Prints the errors, of which there are `count`, and says that nothing happened.
pub fn complain(errors: &dyn Display, count: usize) {
    let count = match count {
        1 => "1 error".to_owned(),
        several => format!("{several} errors"),
    };
    // Nobody is left to be told if stderr is gone.
    let _ = writeln!(io::stderr(), "{errors}\n{count}, nothing was started");
}

/// The front door of a highly available PostgreSQL cluster.
///
/// It knows which member is the primary and which replicas are fit to read from, and steers
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
    /// Open the front door: writes on 5000, reads on 5001, status on 7000
    Run(Box<RunArgs>),
    /// Show members, gates and sessions of a running pgsteer
    Status(StatusArgs),
}

const RUN_EXAMPLES: &str = "\
Flags and file say the same things; flags win. SIGHUP reads the file again.

Examples:
  pgsteer run --patroni http://10.0.0.11:8008
  pgsteer run --patroni http://10.0.0.11:8008 --check-user pgcheck
  pgsteer run --member n1=10.0.0.11 --member n2=10.0.0.12 --check-user pgcheck
  pgsteer run --config /etc/pgsteer/pgsteer.toml --check-config

Exit codes: 0 stopped as told, 1 failed while running, 2 wrong flags or file (nothing was started).";

/// `pgsteer run`, as written. What it means, [`load`] tells.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// Configuration file [default: /etc/pgsteer/pgsteer.toml, unless --patroni or --member
    /// is given]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// REST API of any one Patroni; the members are found through it. May be repeated
    #[arg(long, value_name = "URL")]
    pub patroni: Vec<String>,

    /// A member of a cluster without Patroni, judged by SQL. May be repeated
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub member: Vec<String>,

    /// An etcd of Patroni, to know of a switchover before it begins. May be repeated
    #[arg(long, value_name = "URL")]
    pub etcd: Vec<String>,

    /// Where clients that write connect [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDR")]
    pub write: Option<String>,

    /// Where clients that read connect [default: 0.0.0.0:5001]
    #[arg(long, value_name = "ADDR")]
    pub read: Option<String>,

    /// Where status, health and metrics are, or `none` [default: 0.0.0.0:7000]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,

    /// How long a client waits for a member that is fit [default: 30 for writes, 10 for reads]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub hold: Option<String>,

    /// How far behind a replica may be, as 16MB or 10s [default: no limit]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub max_lag: Option<String>,

    /// PostgreSQL user for checks; it needs no rights [default: no checks, Patroni alone decides]
    #[arg(long, value_name = "NAME")]
    pub check_user: Option<String>,

    /// Database for checks [default: postgres]
    #[arg(long, value_name = "NAME")]
    pub check_dbname: Option<String>,

    /// File that holds the password for checks [default: no password]
    #[arg(long, value_name = "FILE")]
    pub check_password_file: Option<String>,

    /// How the log on stderr looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Check flags and file, show what they mean, and exit
    #[arg(long)]
    pub check_config: bool,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  pgsteer status
  pgsteer status --http http://10.0.0.20:7000 --watch";

/// `pgsteer status`, as written.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// Where the running pgsteer has its status pages
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7000")]
    pub http: String,

    /// The whole status as JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Show it again and again until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
    fn the_help_of_status_reads_well() {
        insta::assert_snapshot!(help_of("status"));
    }
}
