//! The inputs of rendering: the members, and the options from the flags.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pgsteer_config::address;
use pgsteer_config::lag::{LagLimit, lag};
use pgsteer_config::problem::Problem;
use pgsteer_core::claim::Found;
use pgsteer_core::names::Endpoint;
use pgsteer_core::settings::{Membership, PatroniConfig};
use pgsteer_files::render::refusal::Refusal;
use pgsteer_files::render::{HaproxyVersion, RenderOptions, StatsLogin};

use crate::cli::{self, RenderArgs};
use crate::diagnostic::Diagnostic;
use crate::sources;

/// The environment variable with the password for the statistics, if no file is named.
const STATS_PASSWORD: &str = "PGSTEER_STATS_PASSWORD";

/// Returns the members by name: as listed, or as Patroni reports them.
///
/// # Errors
/// No Patroni returns a list.
pub fn members(args: &RenderArgs, of: &Membership) -> anyhow::Result<Vec<Found>> {
    let mut members = match of {
        Membership::Listed(members) => members.clone(),
        Membership::Patroni(_) if !args.member.is_empty() => listed_with_patroni(args)?,
        Membership::Patroni(patroni) => found(patroni)?,
    };
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(members)
}

/// The listed members that have Patroni beside them.
fn listed_with_patroni(args: &RenderArgs) -> anyhow::Result<Vec<Found>> {
    let scheme =
        if args.patroni.iter().any(|url| url.starts_with("https:")) { "https" } else { "http" };
    let port = args.patroni_port;
    let mut members = cli::listed(&args.member)?;
    for member in &mut members {
        let patroni = port.map(|port| member.postgres.with_port(port));
        member.patroni_url = patroni.map(|at| Arc::from(format!("{scheme}://{at}")));
    }
    Ok(members)
}

fn found(patroni: &PatroniConfig) -> anyhow::Result<Vec<Found>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let found = runtime.block_on(sources::find_members(patroni));
    // A lookup that is still under way must not keep the command from ending.
    runtime.shutdown_background();
    found
}

/// Converts the flags to options.
///
/// # Errors
/// A flag is invalid.
pub fn options(args: &RenderArgs) -> anyhow::Result<RenderOptions> {
    let usual = RenderOptions::default();
    Ok(RenderOptions {
        profile: args.profile.unwrap_or(usual.profile),
        haproxy: match &args.haproxy_version {
            Some(version) => HaproxyVersion::read(version).context("--haproxy-version")?,
            None => usual.haproxy,
        },
        detect: args.detect.as_deref().map_or(Ok(usual.detect), detect)?,
        stats_listen: match &args.stats_listen {
            Some(listen) => Some(stats_listen(listen)?),
            None => None,
        },
        stats_login: stats_login(args)?,
        agent: match &args.agent {
            Some(agent) => Some(Endpoint::parse(agent, Some(5555)).context("--agent")?),
            None => None,
        },
        resolve: args.resolve,
        doors: args.door.clone(),
        pass: args.pass.clone(),
        trust: args.trust,
        repmgr: args.repmgr,
        vip: args.vip.clone(),
        interface: args.interface.clone(),
        router_id: args.router_id,
    })
}

fn detect(text: &str) -> anyhow::Result<Duration> {
    match lag(text) {
        Ok(LagLimit::Time(time)) => Ok(time),
        // It is a time, but it is also outside of the range for a lag.
        Err(Problem::OutOfRange { .. }) => {
            Err(Diagnostic::new(Refusal::Detect.to_string(), None).into())
        }
        _ => {
            let remedy = Some("as 3s or 700ms".to_owned());
            Err(Diagnostic::new(format!("--detect: `{text}` is not a time"), remedy).into())
        }
    }
}

fn stats_listen(text: &str) -> anyhow::Result<SocketAddr> {
    let wrong = |problem: Problem| Diagnostic::new(problem.to_string(), problem.remedy());
    address::listen(text).map_err(wrong).context("--stats-listen")
}

fn stats_login(args: &RenderArgs) -> anyhow::Result<Option<StatsLogin>> {
    let password = match &args.stats_password_file {
        Some(file) => Some(sources::read_secret(file)?),
        None => std::env::var(STATS_PASSWORD).ok(),
    };
    let user = args.stats_user.clone();
    Ok(password.map(|password| StatsLogin { user, password }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::in_lines;

    #[test]
    fn an_invalid_detection_time_is_rejected_with_the_range_or_the_format() {
        let wrong = |text: &str| in_lines(&detect(text).unwrap_err());
        assert_eq!(wrong("1ms"), "--detect is not between 500 ms and 60 s");
        assert_eq!(wrong("soon"), "--detect: `soon` is not a time\n    help: as 3s or 700ms");
        assert_eq!(wrong("3MB"), "--detect: `3MB` is not a time\n    help: as 3s or 700ms");
        assert_eq!(detect("700ms").unwrap(), Duration::from_millis(700));
    }
}
