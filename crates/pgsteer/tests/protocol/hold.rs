//! The hold: a client waits, with no answer sent yet, until a gate opens or its time is over.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::Config;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

fn hold(config: &mut Config, hold: Duration) {
    config.services.get_mut(&ServiceName::new("write").unwrap()).unwrap().hold = hold;
}

#[test]
fn a_client_on_hold_is_connected_when_a_gate_opens() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut client = Client::start(front.write);
    front.wait_until_held("write", 1);
    client.expect_silence();
    assert_eq!(server.connections(), 0);
    front.open("write", "n1");
    client.read_burst();
    client.ask();
    assert_eq!(front.held("write"), 0);
}

#[test]
fn a_client_gets_the_reason_at_the_end_of_the_hold() {
    let server = FakeServer::welcoming("off");
    let time = Duration::from_millis(500);
    let front = Front::wanting(&[&server], |config| hold(config, time));
    front.shut("write", "n1");
    let began = Instant::now();
    let refusal = Client::start(front.write).read_refusal();
    assert!(began.elapsed() >= time);
    // libpq tries its next host for this SQLSTATE only.
    assert_eq!(refusal.sqlstate, "57P03");
    assert!(refusal.message.starts_with("pgsteer has no primary for service write"), "{refusal:?}");
    assert!(refusal.text.contains("n1: promotion under way"), "{refusal:?}");
    front.wait_until_empty();
}

#[test]
fn without_a_hold_a_client_gets_its_error_at_once() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::ZERO));
    front.shut("write", "n1");
    assert_eq!(Client::start(front.write).read_refusal().sqlstate, "57P03");
}

#[test]
fn a_client_that_vanishes_while_on_hold_is_noticed() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_secs(600)));
    front.shut("write", "n1");
    let quiet = Client::start(front.write);
    let mut chatty = Client::start(front.write);
    chatty.send(&wire::message(b'p', b"secret\0"));
    front.wait_until_held("write", 2);
    drop(quiet);
    front.wait_until_held("write", 1);
    // The end of the stream follows bytes that pgsteer has not read yet.
    drop(chatty);
    front.wait_until_held("write", 0);
    front.wait_until_empty();
    assert_eq!(server.connections(), 0);
}

/// libpq ends all tries if the answer to its request for TLS is an error.
#[test]
fn a_client_that_requests_tls_without_an_open_gate_gets_the_reason_without_tls() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_millis(300)));
    front.shut("write", "n1");
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"N");
    client.send(&wire::startup(0));
    assert_eq!(client.read_refusal().sqlstate, "57P03");
    front.wait_until_empty();
}

#[test]
fn a_client_that_requests_tls_waits_for_the_gate_as_well() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    front.wait_until_held("write", 1);
    front.open("write", "n1");
    assert_eq!(client.read(1), b"N");
    client.send(&wire::startup(0));
    client.read_burst();
}

#[test]
fn a_gate_that_shuts_after_tls_was_denied_does_not_fail_the_client() {
    let (old, new) = (FakeServer::welcoming("off"), FakeServer::welcoming("off"));
    let front = Front::of(&[&old, &new]);
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"N");
    front.move_primary("n1", "n2");
    eventually("the old one is left alone", || old.connections_open() == 0);
    client.send(&wire::startup(0));
    client.read_burst();
    assert_eq!(new.connections(), 1);
}

#[test]
fn clients_on_hold_get_an_error_at_once_when_pgsteer_stops() {
    let server = FakeServer::welcoming("off");
    let mut front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut client = Client::start(front.write);
    front.wait_until_held("write", 1);
    front.stop(Duration::from_secs(5));
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P03");
    assert_eq!(refusal.message, "pgsteer is shutting down");
}

fn refused(front: &Front) -> u64 {
    front.stats.service(&ServiceName::new("write").unwrap()).refused_total.load(Ordering::Relaxed)
}

/// The client's own error is that the server does not support TLS. Only the log has the reason.
#[test]
fn a_client_that_requires_tls_is_counted_as_refused() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_millis(300)));
    front.shut("write", "n1");
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"N");
    drop(client);
    front.wait_until_empty();
    assert_eq!(refused(&front), 1);
}

/// For a hello of any length: pgsteer reads it, because otherwise a reset would arrive before the
/// alert.
#[test]
fn a_client_that_starts_tls_at_once_gets_an_alert() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_millis(300)));
    front.shut("write", "n1");
    // The hello is complete with its first record of 10 bytes.
    for length in [10, 517, 1_800, 16_000] {
        let mut client = Client::connect(front.write);
        client.send(&[&[0x16, 3, 1, 0, 5][..], &vec![0; length - 5]].concat());
        assert_eq!(client.read(7), [0x15, 3, 3, 0, 2, 2, 80], "fatal, internal_error");
        let mut rest = Vec::new();
        assert_eq!(client.stream.read_to_end(&mut rest).unwrap(), 0, "an end, and no reset");
    }
    front.wait_until_empty();
    assert_eq!(refused(&front), 4);
}
