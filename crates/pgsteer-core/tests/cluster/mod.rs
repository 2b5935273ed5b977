//! Shared helpers of the core's tests: a base configuration, and short constructors.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{Found, Role, Topology};
use pgsteer_core::identity::About;
use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
use pgsteer_core::settings::{
    CheckConfig, ClusterConfig, Config, Membership, PatroniConfig, PoolerDown, ProxyConfig,
    RequireAuth, ServiceConfig, SplitBrain, SslMode,
};
use pgsteer_core::time::Moment;

/// The time limit of one answer of Patroni or of the tether.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A cluster with Patroni and a check login, without services.
pub fn config() -> Config {
    Config {
        cluster: ClusterConfig {
            name: Some(ClusterName::new("demo").unwrap()),
            members: patroni_at("http://n1:8008"),
            check: Some(check()),
            etcd: None,
            split_brain: SplitBrain::Block,
            patroni_loss_grace: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            here: pgsteer_core::settings::Here::default(),
        },
        services: BTreeMap::new(),
        http: None,
        agent: None,
        haproxy: None,
        proxy: ProxyConfig::default(),
        control: None,
        vips: BTreeMap::new(),
    }
}

/// Members that are discovered through the Patroni at `url`.
pub fn patroni_at(url: &str) -> Membership {
    patroni_at_any(&[url])
}

/// Members that are discovered through the first Patroni of `urls` that answers.
pub fn patroni_at_any(urls: &[&str]) -> Membership {
    Membership::Patroni(PatroniConfig {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        verify: Default::default(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        timeout: ANSWER_TIMEOUT,
        pins: Default::default(),
    })
}

/// An empty member list from the first configured URL, whose Patroni reports nothing of itself.
pub fn topology(asked_at: Moment) -> Topology {
    Topology {
        asked_at,
        url: Arc::from("http://n1:8008"),
        about: About::default(),
        scope: None,
        paused: false,
        members: Vec::new(),
        skipped: Vec::new(),
    }
}

/// A check login for the tether.
pub fn check() -> CheckConfig {
    CheckConfig {
        user: "pgcheck".to_owned(),
        dbname: "postgres".to_owned(),
        password_file: None,
        sslmode: SslMode::Prefer,
        require_auth: RequireAuth::usual(SslMode::Prefer),
        ca_file: None,
        timeout: ANSWER_TIMEOUT,
    }
}

/// A service with defaults in all but the role.
pub fn service(role: Role) -> ServiceConfig {
    ServiceConfig {
        listen: ([127, 0, 0, 1], 5000).into(),
        role,
        hold: Duration::from_secs(10),
        lag_bytes_max: None,
        lag_max: None,
        fallback_primary: false,
        tags: BTreeMap::new(),
        pooler_port: None,
        pooler_down: PoolerDown::Shut,
        connect_timeout: Duration::from_secs(2),
        ..ServiceConfig::new(([127, 0, 0, 1], 5000).into(), role)
    }
}

/// A member at `postgres`, or at its name and PostgreSQL's default port.
pub fn found(name: &str, postgres: Option<&str>) -> Found {
    Found {
        name: member(name),
        postgres: Endpoint::parse(postgres.unwrap_or(name), Some(5432)).unwrap(),
        patroni_url: Some(Arc::from(format!("http://{name}:8008"))),
    }
}

/// The name of a member.
pub fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

/// The name of a service.
pub fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}
