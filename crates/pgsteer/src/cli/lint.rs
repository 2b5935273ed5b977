//! The flags of `pgsteer lint`.

use clap::{Args, ValueEnum};
use pgsteer_files::lint::Kind;

use super::one_of;

/// The maximum that PostgreSQL accepts.
const MAX_CONNECTIONS_MAX: u64 = 262_143;

/// The range of PostgreSQL versions that rules can be selected for.
const POSTGRES_MIN: u16 = 9;
const POSTGRES_MAX: u16 = 99;

const LINT_EXAMPLES: &str = "\
Each finding has the line, the effect and the remedy. For haproxy.cfg the report also has the time until
HAProxy detects a lost member, server by server.

Examples:
  pgsteer lint /etc/haproxy/haproxy.cfg
  pgsteer lint /etc/haproxy/conf.d
  pgsteer lint haproxy.cfg pg_hba.conf pgsteer.toml --max-connections 100
  pgsteer lint --format sarif haproxy.cfg > lint.sarif
  ssh lb1 cat /etc/haproxy/haproxy.cfg | pgsteer lint -
  pgsteer lint --explain no-guard-against-two-primaries

Several files of HAProxy are read as one configuration, in their order, as `haproxy -f FILE -f FILE`
reads them; in a directory, the files that end in .cfg. If more than one file has a `global`, each
file is checked separately.

A comment allows a finding, on its line or on the line before:
  # pgsteer-lint: allow(stats-open) the network is ours alone

Exit codes: 0 no errors (maybe warnings and notes); 1 errors; 2 a file that cannot be read.";

/// `pgsteer lint`, as written.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = LINT_EXAMPLES)]
pub struct LintArgs {
    /// Files or directories to look at; `-` is stdin
    #[arg(value_name = "FILE", required_unless_present_any = ["list", "explain"])]
    pub files: Vec<String>,

    /// How the findings are shown
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: LintFormat,

    /// The kind of the files: haproxy, pg-hba or pgsteer [default: by name or content]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Option<Kind>,

    /// The HAProxy that reads the file [default: 2.6]
    #[arg(long, value_name = "VERSION")]
    pub haproxy_version: Option<String>,

    /// The major version of PostgreSQL [default: unknown; rules name the versions]
    #[arg(long, value_name = "VERSION", value_parser = postgres_version)]
    pub postgres_version: Option<u16>,

    /// max_connections of every member, to compare with the `maxconn` of its server lines
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=MAX_CONNECTIONS_MAX))]
    pub max_connections: Option<u64>,

    /// Explain one rule
    #[arg(long, value_name = "RULE")]
    pub explain: Option<String>,

    /// Name all rules
    #[arg(long)]
    pub list: bool,
}

/// How findings are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LintFormat {
    #[default]
    Text,
    Json,
    Sarif,
}

/// `15`, `15.4`, `9.6`.
fn postgres_version(text: &str) -> Result<u16, String> {
    let major = text.split('.').next().unwrap_or(text).parse().ok();
    let major = major.filter(|major| (POSTGRES_MIN..=POSTGRES_MAX).contains(major));
    major.ok_or_else(|| {
        format!("a major version of PostgreSQL, from {POSTGRES_MIN} to {POSTGRES_MAX}")
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    let kinds = Kind::ALL.into_iter().map(|kind| (kind.as_str(), kind));
    one_of(text, &kinds.collect::<Vec<_>>())
}
