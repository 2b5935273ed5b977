//! The hold: a client waits, promised nothing, until a gate opens or its time is up.

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
fn a_client_on_hold_is_let_in_when_a_gate_opens() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut client = Client::knock(front.write);
    front.wait_until_held("write", 1);
    client.hears_nothing();
    assert_eq!(server.connections(), 0);
    front.open("write", "n1");
    client.read_burst();
    client.ask();
    assert_eq!(front.held("write"), 0);
}

#[test]
fn a_client_hears_the_reason_when_its_time_is_up() {
    let server = FakeServer::welcoming("off");
    let time = Duration::from_millis(500);
    let front = Front::wanting(&[&server], |config| hold(config, time));
    front.shut("write", "n1");
    let began = Instant::now();
    let refusal = Client::knock(front.write).read_refusal();
    assert!(began.elapsed() >= time);
    // libpq goes on to its next host on this one only.
    assert_eq!(refusal.sqlstate, "57P03");
    assert!(refusal.message.starts_with("pgsteer has no primary for service write"), "{refusal:?}");
    assert!(refusal.text.contains("n1: promotion under way"), "{refusal:?}");
    front.wait_until_empty();
}

#[test]
fn without_a_hold_a_client_hears_at_once() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::ZERO));
    front.shut("write", "n1");
    assert_eq!(Client::knock(front.write).read_refusal().sqlstate, "57P03");
}

#[test]
fn a_client_that_vanishes_while_on_hold_is_noticed() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_secs(600)));
    front.shut("write", "n1");
    let quiet = Client::knock(front.write);
    let mut chatty = Client::knock(front.write);
    chatty.send(&wire::message(b'p', b"secret\0"));
    front.wait_until_held("write", 2);
    drop(quiet);
    front.wait_until_held("write", 1);
    // Its end is hidden behind the bytes that nobody has read yet.
    drop(chatty);
    front.wait_until_held("write", 0);
    front.wait_until_empty();
    assert_eq!(server.connections(), 0);
}

/// libpq takes an error in answer to its request for the end of all tries.
#[test]
fn a_client_that_asks_for_tls_while_nobody_is_there_hears_the_reason_in_clear() {
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
fn a_client_that_asks_for_tls_waits_for_the_gate_as_well() {
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
fn a_gate_that_shuts_while_a_client_thinks_about_the_denied_tls_costs_it_nothing() {
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
fn clients_on_hold_hear_at_once_that_pgsteer_stops() {
    let server = FakeServer::welcoming("off");
    let mut front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut client = Client::knock(front.write);
    front.wait_until_held("write", 1);
    front.stop(Duration::from_secs(5));
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P03");
    assert_eq!(refusal.message, "pgsteer is shutting down");
}

fn refused(front: &Front) -> u64 {
    front.stats.service(&ServiceName::new("write").unwrap()).refused_total.load(Ordering::Relaxed)
}

/// Its own error says that the server does not support TLS. Only the log has the reason.
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

/// However long its hello is: it is read, or the connection would be reset before the alert.
#[test]
fn a_client_that_starts_tls_at_once_gets_an_alert() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| hold(config, Duration::from_millis(300)));
    front.shut("write", "n1");
    // The hello is whole with its first record of 10 bytes.
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
