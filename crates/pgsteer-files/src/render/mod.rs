//! Render: the files around the cluster, from one configuration and the members.
//!
//! Text in, text out. The caller passes the members, listed or found by the shell, and the texts of
//! files that the operator names. Invalid inputs are refused before any file is written.

mod around;
pub mod escape;
mod haproxy;
mod host;
pub mod label;
pub mod packet;
mod panels;
mod paper;
mod profile;
mod reach;
pub mod refusal;
pub mod timing;
mod version;

use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_config::conflict::Conflict;
use pgsteer_config::purpose::Purpose;
use pgsteer_core::claim::{Found, Role};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::Config;

use self::host::is_host;
pub use self::profile::Profile;
use self::refusal::Refusal;
pub use self::version::HaproxyVersion;

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy's configuration.
    Haproxy,
    /// The lines of pg_hba.conf for the checks, and their login.
    PgHba,
    /// A virtual address that moves between hosts of pgsteer.
    Keepalived,
    /// The units of systemd.
    Systemd,
    /// The pooler beside each member.
    Pgbouncer,
    /// Scraping and alerts.
    Prometheus,
    /// A dashboard.
    Grafana,
    /// The connection settings of applications.
    Clients,
    /// A role for HAProxy.
    Ansible,
    /// Consul's services.
    Consul,
}

impl Kind {
    /// Every kind, in the order of their descriptions.
    pub const ALL: [Kind; 10] = [
        Kind::Haproxy,
        Kind::PgHba,
        Kind::Keepalived,
        Kind::Systemd,
        Kind::Pgbouncer,
        Kind::Prometheus,
        Kind::Grafana,
        Kind::Clients,
        Kind::Ansible,
        Kind::Consul,
    ];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy",
            Kind::PgHba => "pg_hba",
            Kind::Keepalived => "keepalived",
            Kind::Systemd => "systemd",
            Kind::Pgbouncer => "pgbouncer",
            Kind::Prometheus => "prometheus",
            Kind::Grafana => "grafana",
            Kind::Clients => "clients",
            Kind::Ansible => "ansible",
            Kind::Consul => "consul",
        }
    }

    /// The description in one line.
    pub const fn about(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy.cfg for HAProxy 2.6 and later, by profile",
            Kind::PgHba => {
                "the lines of pg_hba.conf for the login of the checks, and its CREATE ROLE"
            }
            Kind::Keepalived => {
                "an address that moves between hosts of pgsteer: one file for each --door"
            }
            Kind::Systemd => "the units of pgsteer and of the agent alone",
            Kind::Pgbouncer => "the PgBouncer beside each member",
            Kind::Prometheus => "what to scrape, and alerts: no primary, two, clients on hold, lag",
            Kind::Grafana => "a dashboard",
            Kind::Clients => {
                "how applications connect: libpq, psycopg, JDBC, pgx, Node, Rails, SQLAlchemy"
            }
            Kind::Ansible => {
                "a role that installs HAProxy with its file, validates before a reload, never restarts"
            }
            Kind::Consul => "Consul's services, with pgsteer's health pages as checks",
        }
    }
}

/// The inputs of rendering.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The members, listed or found.
    pub members: &'a [Found],
    /// The operator's options for the files.
    pub options: &'a RenderOptions,
    /// The sources and the command, for the headers of the files.
    pub made_from: &'a str,
    /// The operator's own template, which replaces that of the first file.
    pub template: Option<&'a str>,
}

/// The operator's options for the files, beyond the configuration.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// How HAProxy finds the primary.
    pub profile: Profile,
    /// The HAProxy that reads the file.
    pub haproxy: HaproxyVersion,
    /// The maximum time to detect a lost member.
    pub detect: Duration,
    /// The address of HAProxy's statistics, if not the default.
    pub stats_listen: Option<SocketAddr>,
    /// The login for the statistics; without it, only this machine can see them.
    pub stats_login: Option<StatsLogin>,
    /// The address of the agent; beside each member if none is given.
    pub agent: Option<Endpoint>,
    /// Host names are resolved repeatedly by DNS, not only at HAProxy's start.
    pub resolve: bool,
    /// The hosts where pgsteer runs.
    pub doors: Vec<String>,
    /// Source addresses and networks that are routed to the local member.
    pub pass: Vec<String>,
    /// The check login needs no password.
    pub trust: bool,
    /// pg_hba.conf contains lines for repmgr.
    pub repmgr: bool,
    /// The address that moves between these hosts.
    pub vip: Option<String>,
    /// The interface of that address.
    pub interface: Option<String>,
    /// The number that identifies the group of keepalived instances.
    pub router_id: u8,
}

impl Default for RenderOptions {
    fn default() -> RenderOptions {
        RenderOptions {
            profile: Profile::Httpchk,
            haproxy: HaproxyVersion::OLDEST,
            detect: timing::DETECT_DEFAULT,
            stats_listen: None,
            stats_login: None,
            agent: None,
            resolve: false,
            doors: Vec::new(),
            pass: Vec::new(),
            trust: false,
            repmgr: false,
            vip: None,
            interface: None,
            router_id: 51,
        }
    }
}

/// The login for HAProxy's statistics. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct StatsLogin {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for StatsLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatsLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A rendered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its path, relative to the folder of the set.
    pub path: String,
    /// Its text.
    pub text: String,
    /// It contains a password, so only its owner may read it.
    pub is_secret: bool,
}

/// Renders the files of `kind`.
///
/// # Errors
/// An invalid configuration or option. Then no file is returned.
pub fn render(kind: Kind, request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    check_members(request)?;
    check_hosts(request)?;
    match kind {
        Kind::Haproxy => haproxy::render(request),
        other => around::render(other, request),
    }
}

/// Checks what the configuration could not check before the members were found.
fn check_members(request: &Request<'_>) -> Result<(), Refusal> {
    let only = match request.members {
        [] => {
            return Err(Conflict::NoMembers { purpose: Purpose::Render, file: None }.into());
        }
        [only] => only,
        _ => return Ok(()),
    };
    let is_vain = |service: &pgsteer_core::settings::ServiceConfig| {
        service.role == Role::Replica && !service.fallback_primary
    };
    match request.config.services.values().any(is_vain) {
        true => Err(Conflict::NoReplica { only: only.name.clone() }.into()),
        false => Ok(()),
    }
}

/// Checks that the hosts are valid, and that members and pgsteer have different hosts.
fn check_hosts(request: &Request<'_>) -> Result<(), Refusal> {
    let names: Vec<&str> = request.members.iter().map(|member| member.name.as_str()).collect();
    ensure_once("member", &names)?;
    let doors: Vec<&str> = request.options.doors.iter().map(String::as_str).collect();
    ensure_once("host of --door", &doors)?;
    let members = request.members.iter().map(|member| member.postgres.host());
    let agent = request.options.agent.iter().map(Endpoint::host);
    let wrong = members.chain(agent).chain(doors).find(|host| !is_host(host));
    wrong.map_or(Ok(()), |host| Err(Refusal::Host(host.to_owned())))
}

fn ensure_once(what: &'static str, texts: &[&str]) -> Result<(), Refusal> {
    let twice = (1..).zip(texts).find(|(next, text)| texts[*next..].contains(text));
    twice.map_or(Ok(()), |(_, text)| Err(Refusal::Twice { what, text: (*text).to_owned() }))
}

fn is_member(members: &[Found], name: &MemberName) -> bool {
    members.iter().any(|member| member.name == *name)
}
