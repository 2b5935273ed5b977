//! The control socket with an engine behind it, as a client sees it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgsteer_core::claim::Found;
use pgsteer_core::engine::Engine;
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::{
    ClusterConfig, Config, ControlConfig, Here, Membership, ProxyConfig, SplitBrain, StateDirectory,
};
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use super::apply::Desk;
use super::call::{Accepted, Call, Calls};
use super::client::ask;
use super::protocol::{Answer, DrainRequest, FilterText, REQUEST_BYTES_MAX, Request};
use super::server::Control;
use super::socket::ControlSocket;
use super::store::OrderStore;
use crate::clock::Clock;

fn config(name: &str) -> Config {
    let folder = std::env::temp_dir().join(format!("pgsteer-o{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let member = |name: &str| Found {
        name: MemberName::new(name).unwrap(),
        postgres: Endpoint::new(name, 5432).unwrap(),
        patroni_url: None,
    };
    Config {
        cluster: ClusterConfig {
            name: None,
            members: Membership::Listed(vec![member("n1"), member("n2")]),
            check: None,
            etcd: None,
            split_brain: SplitBrain::Block,
            patroni_loss_grace: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            here: Here {
                state_directory: StateDirectory::At(folder.join("state")),
                ..Here::default()
            },
        },
        services: Default::default(),
        http: None,
        agent: None,
        haproxy: None,
        vips: Default::default(),
        proxy: ProxyConfig::default(),
        control: Some(ControlConfig { socket: folder.join("c.sock"), mode: 0o600 }),
    }
}

/// Answers calls as the conductor does.
fn run_engine(
    config: &Config,
    clock: Clock,
    mut calls: mpsc::Receiver<Call>,
) -> watch::Receiver<Arc<Snapshot>> {
    let mut engine = Engine::new(config, clock.now());
    let (publish, snapshots) = watch::channel(engine.snapshot());
    std::thread::spawn(move || {
        while let Some(call) = calls.blocking_recv() {
            match call {
                Call::Order { order, reply } => {
                    let applied = engine.handle_order(order, clock.now());
                    publish.send_replace(engine.snapshot());
                    let generation = engine.snapshot().generation;
                    let _ = reply.send(applied.map(|()| Accepted { generation }));
                }
                Call::Restore { orders, reply } => {
                    engine.restore_orders(orders, clock.now());
                    publish.send_replace(engine.snapshot());
                    let _ = reply.send(());
                }
                Call::Explain { service, reply } => {
                    let _ = reply.send(engine.explain(&service, clock.now()));
                }
            }
        }
    });
    snapshots
}

struct Running {
    socket: PathBuf,
    store: OrderStore,
    clock: Clock,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    _control: Control,
}

fn start(name: &str) -> Running {
    let config = config(name);
    let wanted = config.control.clone().unwrap();
    let clock = Clock::start();
    let (calls, received) = Calls::channel();
    let snapshots = run_engine(&config, clock, received);
    let store = OrderStore::of(&config.cluster, &wanted).unwrap();
    let desk =
        Desk::new(calls, Calls::channel().0, snapshots.clone(), clock, None, Some(store.clone()));
    let control = Control::start(ControlSocket::bind(&wanted).ok(), wanted.clone(), desk).unwrap();
    Running { socket: wanted.socket, store, clock, snapshots, _control: control }
}

fn drain(member: &str, lasts_seconds: Option<u64>) -> Request {
    Request::Drain(DrainRequest {
        member: member.to_owned(),
        lasts_seconds,
        why: Some("disk".to_owned()),
        ..DrainRequest::default()
    })
}

/// Sends bytes and returns the answer's text.
fn send(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The server may have answered a line that is too long before it is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn an_order_is_applied_stored_and_withdrawn() {
    let running = start("order");
    let answer = ask(&running.socket, &drain("n2", Some(600))).unwrap();
    assert!(matches!(&answer, Answer::Drained(it) if it.not_stored.is_none()), "{answer:?}");
    let orders = || running.snapshots.borrow().orders.clone();
    assert_eq!(orders().len(), 1);
    let stored = running.store.read(&running.clock);
    let [order] = stored.as_slice() else { panic!("{stored:?}") };
    assert_eq!(order.why.as_ref().map(|why| why.as_str()), Some("disk"));
    let left = order.until.as_ref().unwrap().at.since(running.clock.now());
    assert!((Duration::from_secs(590)..=Duration::from_secs(600)).contains(&left), "{left:?}");
    let undrain = Request::Undrain { member: "n2".to_owned(), service: None };
    assert!(matches!(ask(&running.socket, &undrain).unwrap(), Answer::Undrained(_)));
    assert!(orders().is_empty() && running.store.read(&running.clock).is_empty());
}

#[test]
fn an_order_that_expired_meanwhile_is_not_restored() {
    let running = start("expired");
    ask(&running.socket, &drain("n1", Some(1))).unwrap();
    ask(&running.socket, &drain("n2", None)).unwrap();
    std::thread::sleep(Duration::from_millis(2_100));
    let stored = running.store.read(&running.clock);
    let members: Vec<&str> = stored.iter().map(|order| order.target.member.as_str()).collect();
    assert_eq!(members, ["n2"]);
}

/// The clock of the machine was set back after the order was given, or the file was edited.
#[test]
fn a_stored_order_lasts_a_year_at_most() {
    let running = start("century");
    for until in [i64::MAX, 253_402_300_800, 32_503_680_000] {
        let text = format!(
            r#"{{"version": 1, "orders": [{{"member": "n2", "service": null, "until": {until}, "why": null,
             "by": "root", "since": "x", "forced": false}}]}}"#
        );
        let orders = super::store::parse(text.as_bytes(), &running.clock).unwrap();
        let [order] = orders.as_slice() else { continue };
        let left = order.until.as_ref().unwrap().at.since(running.clock.now());
        assert!(left <= Duration::from_secs(super::store::LASTS_SECONDS_MAX), "{left:?}");
    }
}

/// A process that takes over has the orders of the former one; the file counts if it is newer.
#[test]
fn stored_orders_count_if_they_are_newer_than_those_in_force() {
    let running = start("newer");
    ask(&running.socket, &drain("n1", None)).unwrap();
    let mut successor = running.store.clone();
    std::thread::sleep(Duration::from_millis(100));
    let offered_at = SystemTime::now();
    successor.note_read(offered_at);
    assert_eq!(successor.read_newer(&running.clock), None);
    // Accepted between the offer and the start of its reader.
    ask(&running.socket, &drain("n2", None)).unwrap();
    successor.note_read(offered_at);
    assert_eq!(successor.read_newer(&running.clock).map(|orders| orders.len()), Some(2));
}

#[test]
fn what_is_unknown_is_refused_with_what_is_known() {
    let running = start("unknown");
    let error = |request: &Request| match ask(&running.socket, request).unwrap() {
        Answer::Refused { error } | Answer::Unclear { error } => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error(&drain("n9", None)), "there is no member n9; the members are n1, n2");
    let explain = Request::Explain { service: "read".to_owned() };
    assert_eq!(error(&explain), "there is no service read; no service is known yet");
    let all = Request::EndSessions { filter: FilterText::default() };
    assert!(error(&all).contains("no sessions are ended without one"));
    let wrong = FilterText { client: Some("x".to_owned()), ..FilterText::default() };
    assert!(error(&Request::Sessions { filter: wrong }).contains("neither an address"));
    assert!(error(&drain("n1", Some(0))).starts_with("an order lasts 1 to "));
}

#[test]
fn the_socket_is_removed_at_the_end() {
    let running = start("end");
    let socket = running.socket.clone();
    assert!(socket.exists());
    drop(running);
    assert!(!socket.exists());
}

#[test]
fn garbage_gets_one_sentence_and_harms_nothing() {
    let running = start("garbage");
    let long = vec![b'x'; REQUEST_BYTES_MAX + 1];
    for bytes in [&b""[..], b"\n", b"{}\n", b"GET / HTTP/1.0\r\n\r\n", b"\xff\n", b"[]", &long] {
        let answer = send(&running.socket, bytes);
        assert!(answer.starts_with("{\"answer\":\"unclear\""), "{bytes:?}: {answer}");
        assert_eq!(answer.matches('\n').count(), 1);
    }
    assert!(matches!(ask(&running.socket, &drain("n2", None)).unwrap(), Answer::Drained(_)));
}
