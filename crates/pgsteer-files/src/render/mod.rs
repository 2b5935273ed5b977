//! Render: the files around the cluster, from one configuration and the members there are.
//!
//! Text in, text out. The members come with the question, listed or found by the shell, and so do
//! the texts of files that the operator names. What makes no sense is refused before anything is
//! written.

mod around;
pub mod escape;
mod haproxy;
mod host;
mod label;
pub mod packet;
mod paper;
mod profile;
mod reach;
pub mod refusal;
pub mod timing;

use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_config::conflict::Conflict;
use pgsteer_config::purpose::Purpose;
use pgsteer_core::claim::{Found, Role};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::Config;

use self::host::is_host;
pub use self::profile::{HaproxyVersion, Profile};
use self::refusal::Refusal;

/// What can be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy's configuration.
    Haproxy,
    /// The lines that let the checks in, and their login.
    PgHba,
    /// One address that moves between front doors.
    Keepalived,
    /// The units.
    Systemd,
    /// The pooler beside each member.
    Pgbouncer,
    /// Scraping and alerts.
    Prometheus,
    /// A dashboard.
    Grafana,
    /// How applications connect.
    Clients,
    /// A role for HAProxy.
    Ansible,
    /// Consul's services.
    Consul,
}

impl Kind {
    /// Every kind, in the order in which they are explained.
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

    /// The word on the command line.
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

    /// What it is, in one line.
    pub const fn about(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy.cfg for HAProxy 2.6 and later, by profile",
            Kind::PgHba => {
                "the lines of pg_hba.conf for the login of the checks, and its CREATE ROLE"
            }
            Kind::Keepalived => {
                "an address that moves between front doors: one file for each --door"
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

/// What is rendered, and from what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The members, listed or found.
    pub members: &'a [Found],
    /// What the operator wants of the files.
    pub wishes: &'a Wishes,
    /// From what they are made and by which command, for their headers.
    pub made_from: &'a str,
    /// The operator's own template in the place of the first file's.
    pub template: Option<&'a str>,
}

/// What the operator wants of the files, beyond what the configuration says.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// How HAProxy learns who is primary.
    pub profile: Profile,
    /// The HAProxy that reads the file.
    pub haproxy: HaproxyVersion,
    /// How soon a lost member is to be noticed.
    pub detect: Duration,
    /// Where HAProxy shows its statistics, if not at the usual place.
    pub stats_listen: Option<SocketAddr>,
    /// Who may see them; without it, this machine alone.
    pub stats_login: Option<StatsLogin>,
    /// Where the agent answers; beside each member if none is named.
    pub agent: Option<Endpoint>,
    /// Host names are resolved again and again by DNS, not only at HAProxy's start.
    pub resolve: bool,
    /// The hosts of the front doors: where pgsteer runs.
    pub doors: Vec<String>,
    /// Source addresses and networks that are let pass to the local member.
    pub pass: Vec<String>,
    /// The login of the checks needs no password.
    pub trust: bool,
    /// repmgr gets its lines in pg_hba.conf.
    pub repmgr: bool,
    /// The address that moves between the front doors.
    pub vip: Option<String>,
    /// The interface that it moves on.
    pub interface: Option<String>,
    /// The number by which keepalived knows its own.
    pub router_id: u8,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
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

/// Who may see HAProxy's statistics. The password is not shown by `Debug`.
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

/// A file that was rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Where it belongs, relative to the folder of the set.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// It holds a password, so that nobody else may read it.
    pub is_secret: bool,
}

/// The files of `kind`.
///
/// # Errors
/// A configuration or a wish that makes no sense. Then there is no file at all.
pub fn render(kind: Kind, request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    check_members(request)?;
    check_hosts(request)?;
    match kind {
        Kind::Haproxy => haproxy::render(request),
        other => around::render(other, request),
    }
}

/// What the configuration could not know before the members were found.
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

/// Hosts are written as they are, and each member and each front door has one of its own.
fn check_hosts(request: &Request<'_>) -> Result<(), Refusal> {
    let names: Vec<&str> = request.members.iter().map(|member| member.name.as_str()).collect();
    ensure_once("member", &names)?;
    let doors: Vec<&str> = request.wishes.doors.iter().map(String::as_str).collect();
    ensure_once("front door", &doors)?;
    let members = request.members.iter().map(|member| member.postgres.host());
    let agent = request.wishes.agent.iter().map(Endpoint::host);
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
