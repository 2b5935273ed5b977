//! The configuration in a few lines that a person can check at a glance.

use std::fmt;

use super::units::{seconds_text, size_text};
use super::{
    CheckConfig, Config, EtcdConfig, Membership, PatroniConfig, PoolerDown, ServiceConfig,
};
use crate::claim::Found;

/// Shows what was understood of a configuration, one fact a line.
pub struct Summary<'a>(pub &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let cluster = &config.cluster;
        write!(f, "cluster {}: ", cluster.name)?;
        match &cluster.members {
            Membership::Patroni(patroni) => members_found(f, patroni)?,
            Membership::Listed(members) => members_listed(f, members)?,
        }
        match &cluster.check {
            Some(check) => login(f, check)?,
            None => writeln!(f, "no check login: Patroni's word alone decides")?,
        }
        if let Some(etcd) = &cluster.etcd {
            watched(f, etcd)?;
        }
        let mut services: Vec<_> = config.services.iter().collect();
        services.sort_by_key(|(name, service)| (service.role, *name));
        for (name, service) in services {
            write!(f, "{name} on ")?;
            service_line(f, service)?;
        }
        match &config.http {
            Some(http) => writeln!(f, "status pages on http://{}", http.listen)?,
            None => writeln!(f, "no status pages")?,
        }
        if let Some(agent) = &config.agent {
            let words = agent.vocabulary.as_str();
            writeln!(f, "agent-checks on {}, answered in words of {words}", agent.listen)?;
        }
        write!(f, "at most {} sessions on ", config.proxy.sessions_max)?;
        match config.proxy.workers {
            Some(1) => f.write_str("1 worker"),
            Some(workers) => write!(f, "{workers} workers"),
            None => f.write_str("one worker per core"),
        }
    }
}

fn members_found(f: &mut fmt::Formatter<'_>, patroni: &PatroniConfig) -> fmt::Result {
    writeln!(f, "members from Patroni at {}", patroni.urls.join(", "))
}

fn members_listed(f: &mut fmt::Formatter<'_>, members: &[Found]) -> fmt::Result {
    let each: Vec<String> =
        members.iter().map(|member| format!("{} at {}", member.name, member.postgres)).collect();
    writeln!(f, "no Patroni, members {}", each.join(", "))
}

fn watched(f: &mut fmt::Formatter<'_>, etcd: &EtcdConfig) -> fmt::Result {
    write!(f, "switchovers known from etcd at {}, ", etcd.urls.join(", "))?;
    match &etcd.scope {
        Some(scope) => writeln!(f, "keys below {}/{scope}", etcd.namespace),
        None => writeln!(f, "keys below {}/ and the scope that Patroni tells", etcd.namespace),
    }
}

fn login(f: &mut fmt::Formatter<'_>, check: &CheckConfig) -> fmt::Result {
    let CheckConfig { user, dbname, .. } = check;
    write!(f, "check login {user} to database {dbname}, ")?;
    match &check.password_file {
        Some(file) => write!(f, "password from {}", file.display())?,
        None => f.write_str("no password")?,
    }
    writeln!(f, ", sslmode {}", check.sslmode.as_str())
}

fn service_line(f: &mut fmt::Formatter<'_>, service: &ServiceConfig) -> fmt::Result {
    let hold = seconds_text(service.hold);
    write!(f, "{} → {}, hold {hold} s", service.listen, service.role)?;
    if let Some(bytes) = service.lag_bytes_max {
        write!(f, ", at most {} behind", size_text(bytes))?;
    }
    if let Some(lag) = service.lag_max {
        write!(f, ", at most {} s behind", seconds_text(lag))?;
    }
    if service.fallback_primary {
        f.write_str(", primary if there is no replica")?;
    }
    for (tag, value) in &service.tags {
        write!(f, ", tag {tag} = {value}")?;
    }
    match (service.pooler_port, service.pooler_down) {
        (Some(port), PoolerDown::Shut) => writeln!(f, ", pooler on port {port}"),
        (Some(port), PoolerDown::Bypass) => {
            writeln!(f, ", pooler on port {port}, bypassed while it is down")
        }
        (None, _) => writeln!(f),
    }
}
