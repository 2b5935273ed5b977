//! Logged-in sessions: how they continue, and how they end.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];

#[test]
fn a_gate_that_shuts_and_keeps_sessions_refuses_new_ones() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let mut old = Client::log_in(front.write);
    front.shut("write", "n1");
    let mut new = Client::start(front.write);
    front.wait_until_held("write", 1);
    old.ask();
    new.expect_silence();
}

#[test]
fn a_session_that_must_end_gets_the_reason() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.ask();
    front.end("write", "n1");
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P01");
    assert!(
        refusal.message.contains("member n1 is no longer open for the service (promotion"),
        "{refusal:?}"
    );
    eventually("the server's side is closed", || server.connections_open() == 0);
}

/// The client would take a message inside another one for data.
#[test]
fn a_session_in_the_middle_of_a_result_ends_without_a_message() {
    let server = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        talk.receive();
        talk.send(&[b'D', 0, 0, 1, 0, 0, 1]);
        talk.stay_silent();
    });
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.send(&wire::query("SELECT"));
    assert_eq!(client.read(7), [b'D', 0, 0, 1, 0, 0, 1]);
    front.end("write", "n1");
    client.read_end();
}

/// Invariant 7, checked with the kernel's list of connections: when the new primary gets its first
/// session, the old one has none left.
#[test]
fn no_session_is_left_at_the_old_primary_when_the_new_one_gets_its_first() {
    for _ in 0..20 {
        let (reported, counts) = mpsc::channel();
        let (ask, asked) = mpsc::channel::<()>();
        let asked = std::sync::Mutex::new(asked);
        let old = FakeServer::welcoming("off");
        let new = FakeServer::new(move |talk| {
            reported.send(()).unwrap();
            // The login continues when the test has read the list.
            asked.lock().unwrap().recv().unwrap();
            talk.send(&wire::burst("off", &KEY));
            talk.answer_queries();
        });
        let front = Front::of(&[&old, &new]);
        let mut kept: Vec<Client> = (0..40).map(|_| Client::log_in(front.write)).collect();
        front.shut("write", "n1");
        let mut waiting = Client::start(front.write);
        front.wait_until_held("write", 1);
        assert_eq!(old.connections_open(), 40);
        front.move_primary("n1", "n2");
        counts.recv().unwrap();
        assert_eq!(old.connections_open(), 0);
        ask.send(()).unwrap();
        waiting.read_burst();
        for client in &mut kept {
            assert_eq!(client.read_refusal().sqlstate, "57P01");
        }
    }
}

/// A client that reads nothing must not delay a failover.
#[test]
fn a_session_ends_at_once_even_if_its_client_does_not_read() {
    let talkative = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        let row = wire::message(b'D', &[7; 8_000]);
        while talk.stream.write_all(&row).is_ok() {}
    });
    let new = FakeServer::welcoming("off");
    let front = Front::of(&[&talkative, &new]);
    let _deaf = Client::log_in(front.write);
    // Long enough to fill all buffers in between.
    std::thread::sleep(Duration::from_millis(300));
    front.move_primary("n1", "n2");
    Client::log_in(front.write).ask();
    assert_eq!(talkative.connections_open(), 0);
}

/// For a session that begins while its service is removed.
#[test]
fn no_session_outlives_its_service() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let (mut writer, mut reader) = (Client::log_in(front.write), Client::log_in(front.read));
    front.forget("write");
    let refusal = writer.read_refusal();
    assert_eq!(refusal.sqlstate, "57P01");
    assert!(refusal.message.contains("its service was removed"), "{refusal:?}");
    reader.ask();
}

/// Keepalive and the limit on unacknowledged data apply to peers that are gone.
#[test]
fn an_idle_session_is_kept() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| {
        config.proxy.keepalive = Duration::from_secs(1);
        config.proxy.user_timeout = Duration::from_secs(1);
        config.proxy.login_timeout = Duration::from_secs(1);
    });
    let mut client = Client::log_in(front.write);
    std::thread::sleep(Duration::from_secs(4));
    client.ask();
}

#[test]
fn a_large_result_arrives_whole_at_a_slow_client() {
    const ROWS: usize = 4_000;
    let server = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        talk.receive();
        for number in 0..ROWS {
            talk.send(&row(number));
        }
        talk.send(&wire::done());
        talk.answer_queries();
    });
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.send(&wire::query("SELECT"));
    for number in 0..ROWS {
        if number % 1_000 == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(client.read_message(), (b'D', row(number)[5..].to_vec()), "row {number}");
    }
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(client.read_message().0, b'Z');
    client.ask();
}

fn row(number: usize) -> Vec<u8> {
    let fill = u8::try_from(number % 251).unwrap();
    wire::message(b'D', &vec![fill; 5_000 + number % 17])
}

#[test]
fn a_client_that_shuts_its_sending_side_down_still_gets_the_answer() {
    let server = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        let mut query = Vec::new();
        talk.stream.read_to_end(&mut query).unwrap();
        assert_eq!(query, wire::query("SELECT"));
        talk.send(&wire::done());
    });
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.send(&wire::query("SELECT"));
    client.end_its_side();
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(client.read_message().0, b'Z');
    client.read_end();
    front.wait_until_empty();
}

#[test]
fn a_server_that_ends_a_session_ends_it_for_the_client_too() {
    let server = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        talk.receive();
        talk.send(&wire::fatal("57P01", "terminating connection"));
    });
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.send(&wire::query("SELECT"));
    let refusal = client.read_refusal();
    assert_eq!((&refusal.sqlstate[..], &refusal.message[..]), ("57P01", "terminating connection"));
    front.wait_until_empty();
}

#[test]
fn a_client_that_vanishes_frees_the_server() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let clients: Vec<Client> = (0..10).map(|_| Client::log_in(front.write)).collect();
    assert_eq!(server.connections_open(), 10);
    drop(clients);
    eventually("the server is free", || server.connections_open() == 0);
    front.wait_until_empty();
}

#[test]
fn readers_are_spread_over_the_replicas() {
    let servers = [FakeServer::welcoming("on"), FakeServer::welcoming("on")];
    let front = Front::of(&[&servers[0], &servers[1]]);
    let _readers: Vec<Client> = (0..10).map(|_| Client::log_in(front.read)).collect();
    assert_eq!((servers[0].connections(), servers[1].connections()), (5, 5));
}

#[test]
fn at_a_stop_sessions_may_finish_and_are_then_ended() {
    let server = FakeServer::welcoming("off");
    let mut front = Front::of(&[&server]);
    let (mut finishing, mut staying) = (Client::log_in(front.write), Client::log_in(front.write));
    front.stop(Duration::from_secs(1));
    eventually("the door is shut", || std::net::TcpStream::connect(front.write).is_err());
    finishing.ask();
    finishing.send(&wire::message(b'X', b""));
    finishing.read_end();
    staying.ask();
    let refusal = staying.read_refusal();
    assert_eq!(refusal.sqlstate, "57P01");
    assert_eq!(refusal.message, "pgsteer ended this session: it is shutting down");
}

#[test]
fn stopping_ends_as_soon_as_the_last_session_has() {
    let server = FakeServer::welcoming("off");
    let mut front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    front.stop(Duration::from_secs(600));
    client.ask();
    drop(client);
    eventually("the session is over", || server.connections_open() == 0);
    front.wait_until_empty();
}
