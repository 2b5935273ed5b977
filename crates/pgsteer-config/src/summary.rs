//! The configuration in a few lines that a person can check quickly.

use std::fmt;

use pgsteer_core::claim::Found;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{
    AgentConfig, CheckConfig, ClusterConfig, Config, ControlConfig, EtcdConfig, Membership,
    OnPromotion, PatroniConfig, PoolerDown, ServiceConfig, StateDirectory, Stick, Verify, Weight,
};
use pgsteer_core::units::{seconds_text, size_text};

/// Displays a configuration, one fact a line.
pub struct Summary<'a>(pub &'a Config);

/// The same for an agent without a proxy: it answers for the services, and does not listen for
/// their clients.
pub struct AgentSummary<'a>(pub &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        cluster_lines(f, &config.cluster)?;
        for (name, service) in sorted(config) {
            let hold = seconds_text(service.hold);
            write!(f, "{name} on {} → {}, hold {hold} s", service.listen, service.role)?;
            conditions(f, service)?;
        }
        pages_line(f, config)?;
        writeln!(f)?;
        if let Some(agent) = &config.agent {
            agent_lines(f, agent)?;
        }
        haproxy_lines(f, config)?;
        control_line(f, config)?;
        vip_lines(f, config)?;
        write!(f, "at most {} sessions", config.proxy.sessions_max)?;
        if let Some(max) = config.proxy.sessions_per_address_max {
            write!(f, ", {max} from one address")?;
        }
        f.write_str(" on ")?;
        match config.proxy.workers {
            Some(1) => f.write_str("1 worker"),
            Some(workers) => write!(f, "{workers} workers"),
            None => f.write_str("one worker per core"),
        }
    }
}

impl fmt::Display for AgentSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        cluster_lines(f, &config.cluster)?;
        match &config.agent {
            Some(agent) => agent_lines(f, agent)?,
            None => writeln!(f, "no agent-checks")?,
        }
        for (name, service) in sorted(config) {
            write!(f, "check of {name}: a {}", service.role)?;
            conditions(f, service)?;
        }
        haproxy_lines(f, config)?;
        if config.control.is_some() {
            control_line(f, config)?;
        }
        vip_lines(f, config)?;
        pages_line(f, config)
    }
}

fn haproxy_lines(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let Some(haproxy) = &config.haproxy else { return Ok(()) };
    let sockets: Vec<String> = haproxy.sockets.iter().map(ToString::to_string).collect();
    let backends = sorted(config).into_iter().map(|(service, _)| {
        let backend = haproxy.backends.get(service).map_or(service.as_str(), String::as_str);
        format!("{service} in backend {backend}")
    });
    let backends: Vec<String> = backends.collect();
    writeln!(f, "HAProxy at {} is controlled: {}", sockets.join(", "), backends.join(", "))
}

fn cluster_lines(f: &mut fmt::Formatter<'_>, cluster: &ClusterConfig) -> fmt::Result {
    write!(f, "cluster {}: ", cluster.label())?;
    match &cluster.members {
        Membership::Patroni(patroni) => members_found(f, patroni)?,
        Membership::Listed(members) => members_listed(f, members)?,
    }
    if matches!(cluster.members, Membership::Patroni(_)) {
        match &cluster.here.state_directory {
            StateDirectory::Usual => {}
            StateDirectory::Never => writeln!(f, "the member list is not stored")?,
            StateDirectory::At(directory) => {
                writeln!(f, "the member list is stored in {}", directory.display())?;
            }
        }
    }
    match &cluster.check {
        Some(check) => login(f, check)?,
        None => writeln!(f, "no check login: roles come from Patroni alone")?,
    }
    match &cluster.etcd {
        Some(etcd) => watched(f, etcd),
        None => Ok(()),
    }
}

/// The services, write services first.
fn sorted(config: &Config) -> Vec<(&ServiceName, &ServiceConfig)> {
    let mut services: Vec<_> = config.services.iter().collect();
    services.sort_by_key(|(name, service)| (service.role, *name));
    services
}

fn pages_line(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    match &config.http {
        Some(http) => write!(f, "status pages on {}://{}", http.scheme(), http.listen),
        None => write!(f, "no status pages"),
    }
}

/// Where orders are taken, unless that is the default.
fn control_line(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    match &config.control {
        None => writeln!(f, "no control socket"),
        Some(control) if *control == ControlConfig::default() => Ok(()),
        Some(ControlConfig { socket, mode }) => {
            writeln!(f, "orders at {}, mode {mode:04o}", socket.display())
        }
    }
}

fn agent_lines(f: &mut fmt::Formatter<'_>, agent: &AgentConfig) -> fmt::Result {
    let words = agent.vocabulary.as_str();
    write!(f, "agent-checks on {}, vocabulary {words}", agent.listen)?;
    match agent.weight {
        Weight::Unsaid => {}
        weight => write!(f, ", weight by {}", weight.as_str())?,
    }
    match agent.maxconn {
        Some(maxconn) => writeln!(f, ", maxconn {maxconn}")?,
        None => writeln!(f)?,
    }
    match &agent.default {
        Some(question) => writeln!(f, "check without a line: {question}")?,
        None => writeln!(f, "check without a line: always no")?,
    }
    match agent.pooler_port {
        Some(port) => {
            writeln!(f, "health check: as Patroni, through the pooler on port {port}")
        }
        None => writeln!(f, "health check: as Patroni"),
    }
}

fn vip_lines(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    for (name, vip) in &config.vips {
        writeln!(f, "address {name}: {vip} on {} follows {}", vip.interface, vip.service)?;
    }
    Ok(())
}

fn members_found(f: &mut fmt::Formatter<'_>, patroni: &PatroniConfig) -> fmt::Result {
    writeln!(
        f,
        "members from Patroni at {}{}",
        patroni.urls.join(", "),
        unverified(patroni.verify)
    )?;
    match patroni.pins.is_unknown() {
        true => Ok(()),
        false => writeln!(f, "only the cluster of {} is served", patroni.pins),
    }
}

fn members_listed(f: &mut fmt::Formatter<'_>, members: &[Found]) -> fmt::Result {
    let each: Vec<String> =
        members.iter().map(|member| format!("{} at {}", member.name, member.postgres)).collect();
    writeln!(f, "no Patroni, members {}", each.join(", "))
}

/// The part of a certificate that is not verified.
fn unverified(verify: Verify) -> &'static str {
    match verify {
        Verify::Full => "",
        Verify::Ca => ", whose certificates may name any host",
        Verify::None => ", whose certificates are not verified",
    }
}

fn watched(f: &mut fmt::Formatter<'_>, etcd: &EtcdConfig) -> fmt::Result {
    write!(f, "switchovers are watched in etcd at {}", etcd.urls.join(", "))?;
    write!(f, "{}, ", unverified(etcd.verify))?;
    match &etcd.scope {
        Some(scope) => writeln!(f, "keys below {}/{scope}", etcd.namespace),
        None => writeln!(f, "keys below {}/ and the scope that Patroni reports", etcd.namespace),
    }
}

fn login(f: &mut fmt::Formatter<'_>, check: &CheckConfig) -> fmt::Result {
    let CheckConfig { user, dbname, .. } = check;
    write!(f, "check login {user} to database {dbname}, ")?;
    match &check.password_file {
        Some(file) => write!(f, "password from {}", file.display())?,
        None => f.write_str("no password")?,
    }
    write!(f, ", sslmode {}", check.sslmode.as_str())?;
    match &check.password_file {
        Some(_) => writeln!(f, ", require_auth {}", check.require_auth),
        None => writeln!(f),
    }
}

fn conditions(f: &mut fmt::Formatter<'_>, service: &ServiceConfig) -> fmt::Result {
    if let Some(bytes) = service.lag_bytes_max {
        write!(f, ", at most {} behind", size_text(bytes))?;
    }
    if let Some(lag) = service.lag_max {
        write!(f, ", at most {} s behind", seconds_text(lag))?;
    }
    if service.fallback_primary {
        f.write_str(", primary if there is no replica")?;
    }
    if let Some(max) = service.sessions_max {
        write!(f, ", at most {max} sessions")?;
    }
    if let Some(max) = service.member_sessions_max {
        write!(f, ", at most {max} sessions at a member")?;
    }
    if service.stick == Stick::Address {
        f.write_str(", one member for each client address")?;
    }
    if service.on_promotion == OnPromotion::End {
        f.write_str(", sessions end on a promotion")?;
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
