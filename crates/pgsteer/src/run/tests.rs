//! A running pgsteer without a cluster: reloads, and parts that fail.

use std::io::Read as _;
use std::net::TcpStream;

use pgsteer_core::claim::{Found, Role};
use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
use pgsteer_core::settings::{
    ClusterConfig, Membership, ProxyConfig, ServiceConfig, SplitBrain, Vocabulary, Weight,
};

use super::reload::overlap;
use super::*;

#[test]
fn an_agent_cannot_move_to_where_it_partly_is() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert!(overlap(at("0.0.0.0:5555"), at("127.0.0.1:5555")));
    assert!(overlap(at("10.0.0.1:5555"), at("[::]:5555")));
    assert!(!overlap(at("10.0.0.1:5555"), at("10.0.0.2:5555")));
    assert!(!overlap(at("0.0.0.0:5555"), at("127.0.0.1:5556")));
}

fn config() -> Config {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let postgres = Endpoint::new("127.0.0.1", 1).unwrap();
    let name = MemberName::new("n1").unwrap();
    Config {
        cluster: ClusterConfig {
            name: Some(ClusterName::new("demo").unwrap()),
            members: Membership::Listed(vec![Found { name, postgres, patroni_url: None }]),
            check: None,
            etcd: None,
            split_brain: SplitBrain::Block,
            patroni_loss_grace: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            here: pgsteer_core::settings::Here::default(),
        },
        services: [(ServiceName::new("write").unwrap(), ServiceConfig::new(free, Role::Primary))]
            .into(),
        http: None,
        agent: None,
        haproxy: None,
        vips: Default::default(),
        proxy: ProxyConfig { workers: Some(2), ..ProxyConfig::default() },
        control: None,
    }
}

fn with_agent(config: &Config, listen: SocketAddr, vocabulary: Vocabulary) -> Config {
    let agent = AgentConfig {
        listen,
        vocabulary,
        default: None,
        pooler_port: None,
        line_wait: Duration::ZERO,
        awaits_first_line: true,
        weight: Weight::Unsaid,
        maxconn: None,
    };
    Config { agent: Some(agent), ..config.clone() }
}

/// Returns the first word of the agent's answer; none if no agent listens.
fn first_word(agent: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(agent).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').next().filter(|word| !word.is_empty()).map(str::to_owned)
}

async fn eventually(agent: SocketAddr, word: Option<&str>) {
    let is_so = async {
        while tokio::task::spawn_blocking(move || first_word(agent)).await.unwrap().as_deref()
            != word
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(10), is_so).await;
    assert!(seen.is_ok(), "{agent} does not come to {word:?}");
}

#[tokio::test]
async fn a_reload_starts_changes_moves_and_ends_the_agent() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (here, there) = (free(), free());
    let without = config();
    let mut running = Running::start(without.clone(), Outputs::All, Calls::channel().0).unwrap();
    running.change(with_agent(&without, here, Vocabulary::Health)).await.unwrap();
    eventually(here, Some("ready")).await;
    running.change(with_agent(&without, here, Vocabulary::Admin)).await.unwrap();
    eventually(here, Some("maint")).await;
    running.change(with_agent(&without, there, Vocabulary::Admin)).await.unwrap();
    eventually(there, Some("maint")).await;
    eventually(here, None).await;
    // A port that another process uses leaves the configuration unchanged.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = with_agent(&without, taken.local_addr().unwrap(), Vocabulary::Health);
    assert!(running.change(elsewhere).await.is_err());
    eventually(there, Some("maint")).await;
    running.change(without).await.unwrap();
    eventually(there, None).await;
    assert!(!running.agent.as_ref().is_some_and(Agent::has_failed));
}

#[tokio::test]
async fn an_engine_that_has_failed_is_noticed_and_so_are_the_workers_that_end_with_it() {
    let running = Running::start(config(), Outputs::All, Calls::channel().0).unwrap();
    let short = LOOK_AFTER_PARTS / 5;
    assert!(tokio::time::timeout(short, running.failed()).await.is_err(), "all is well");
    running.observer.conductor.abort();
    assert_eq!(running.failed().await, "the engine");
    let workers = async {
        while !running.proxy.as_ref().is_some_and(Proxy::has_failed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), workers).await.is_ok());
}
