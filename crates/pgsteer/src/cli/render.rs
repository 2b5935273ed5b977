//! The flags of `pgsteer render`.

use std::path::PathBuf;

use clap::Args;
use pgsteer_files::render::{Kind, Profile};

use super::one_of;

const RENDER_EXAMPLES: &str = "\
Without --out the text goes to stdout; if a kind has several files, a line `==> NAME <==` precedes
each. With --out each file is written to that folder: all files or none. Files that would not change
are not written.

Examples:
  pgsteer render --list
  pgsteer render haproxy --profile httpchk --detect 2s --patroni http://10.0.0.11:8008
  pgsteer render haproxy --profile agent --config pgsteer.toml --out /etc/haproxy
  pgsteer render haproxy --profile agent --config pgsteer.toml --out /etc/haproxy --check
  pgsteer render haproxy --profile sql --member n1=10.0.0.11 --member n2=10.0.0.12 \\
      --check-user pgcheck

The password for HAProxy's statistics is in --stats-password-file or in the environment, as
PGSTEER_STATS_PASSWORD. Without a password the statistics listen on 127.0.0.1 only.
Exit codes: 0 done, or no difference; 1 with --check: a difference; 2 no file was written.";

/// `pgsteer render`, as written.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = RENDER_EXAMPLES)]
pub struct RenderArgs {
    /// The kind of file to write; --list explains the kinds
    #[arg(value_name = "KIND", value_parser = kind, required_unless_present = "list")]
    pub kind: Option<Kind>,

    /// Explain the kinds and the profiles
    #[arg(long)]
    pub list: bool,

    /// Configuration file, as of `pgsteer run`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// REST API of a Patroni, which returns the members once. May be repeated
    #[arg(long, value_name = "URL")]
    pub patroni: Vec<String>,

    /// A member, instead of --patroni. May be repeated
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub member: Vec<String>,

    /// The port of Patroni beside each --member [default: there is no Patroni]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub patroni_port: Option<u16>,

    /// Folder to write to [default: stdout]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,

    /// Write nothing; exit 1 if the files in the folder differ
    #[arg(long, requires = "out")]
    pub check: bool,

    /// Template to use instead of the one built in
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,

    /// How HAProxy finds the primary [default: httpchk]
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    pub profile: Option<Profile>,

    /// The HAProxy that reads the file [default: 2.6]
    #[arg(long, value_name = "VERSION")]
    pub haproxy_version: Option<String>,

    /// The maximum time until HAProxy detects a lost member [default: 3s]
    #[arg(long, value_name = "TIME")]
    pub detect: Option<String>,

    /// Address of HAProxy's statistics [default: port 7000; without a password 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR")]
    pub stats_listen: Option<String>,

    /// The user for the statistics
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub stats_user: String,

    /// File with the password for the statistics
    #[arg(long, value_name = "FILE")]
    pub stats_password_file: Option<PathBuf>,

    /// Address of one agent for all members [default: an agent on each member's host]
    #[arg(long, value_name = "HOST:PORT")]
    pub agent: Option<String>,

    /// Let HAProxy resolve host names repeatedly, with DNS and not with /etc/hosts
    #[arg(long)]
    pub resolve: bool,

    /// A host where pgsteer runs; a single one is the agent of profiles agent and agent-bypass. May be
    /// repeated [default: the members; keepalived and profile pgsteer need it]
    #[arg(long, value_name = "HOST")]
    pub door: Vec<String>,

    /// The address that keepalived moves between the hosts of --door
    #[arg(long, value_name = "ADDR/BITS")]
    pub vip: Option<String>,

    /// The interface of that address [default: eth0]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// The virtual router number of these keepalived, unique in their network
    #[arg(long, value_name = "NUMBER", default_value = "51", value_parser = clap::value_parser!(u8).range(1..))]
    pub router_id: u8,

    /// pg_hba.conf admits the check login without a password
    #[arg(long)]
    pub trust: bool,

    /// pg_hba.conf has the lines for repmgr too
    #[arg(long)]
    pub repmgr: bool,

    /// The member that runs on this machine
    #[arg(long, value_name = "NAME")]
    pub local: Option<String>,

    /// Address or network whose clients profile redirect routes to that member. May be repeated
    #[arg(long, value_name = "NETWORK")]
    pub pass: Vec<String>,

    /// PostgreSQL user for checks; it needs no rights
    #[arg(long, value_name = "NAME")]
    pub check_user: Option<String>,

    /// Database for checks [default: postgres]
    #[arg(long, value_name = "NAME")]
    pub check_dbname: Option<String>,

    /// Defined so that it is refused: clap would suggest --stats-password-file, and the password of
    /// the checks would be written to haproxy.cfg.
    #[arg(long, value_name = "FILE", hide = true)]
    pub check_password_file: Option<PathBuf>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let kinds = Kind::ALL.into_iter().map(|kind| (kind.as_str(), kind));
    one_of(text, &kinds.collect::<Vec<_>>())
}

fn profile(text: &str) -> Result<Profile, String> {
    let profiles = Profile::ALL.into_iter().map(|profile| (profile.as_str(), profile));
    one_of(text, &profiles.collect::<Vec<_>>())
}
