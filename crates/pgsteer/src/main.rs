use pgsteer_core::claim::Role;
use pgsteer_core::config::*;
use pgsteer_core::names::*;
use std::collections::BTreeMap;
use std::time::Duration;
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let pw = std::env::var("PW").ok().map(Into::into);
    let s = |port: u16, role| ServiceConfig {
        listen: ([127, 0, 0, 1], port).into(),
        role,
        hold: Duration::from_secs(30),
        lag_bytes_max: None,
        lag_max: None,
        fallback_primary: false,
        tags: BTreeMap::new(),
        pooler_port: None,
        connect_timeout: Duration::from_secs(2),
    };
    let config = Config {
        cluster: ClusterConfig {
            name: ClusterName::new("main")?,
            members: Membership::Patroni(PatroniConfig {
                urls,
                ca_file: None,
                cert_file: None,
                key_file: None,
                timeout: Duration::from_secs(1),
            }),
            check: pw.map(|password_file| CheckConfig {
                user: "pgcheck".into(),
                dbname: "postgres".into(),
                password_file: Some(password_file),
                sslmode: SslMode::Prefer,
                ca_file: None,
                timeout: Duration::from_secs(1),
            }),
            split_brain: SplitBrain::Block,
            patroni_loss_grace: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        },
        services: [
            (ServiceName::new("write")?, s(5000, Role::Primary)),
            (ServiceName::new("read")?, s(5001, Role::Replica)),
        ]
        .into_iter()
        .collect(),
        http: None,
        proxy: ProxyConfig {
            workers: None,
            sessions_max: 10000,
            login_timeout: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(30),
        },
    };
    let again = config.clone();
    pgsteer::run::run(config, move || Ok(again.clone()))
}
