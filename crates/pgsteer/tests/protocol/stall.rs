//! A stall: while the engine does not run, pgsteer sends nothing to a write member.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];

/// A server that does not report its role, and counts the statements that it executes.
fn counting() -> (FakeServer, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = FakeServer::new(move |talk| {
        let key = wire::message(b'K', &KEY);
        talk.send(&[wire::authentication(0, b""), key, wire::ready()].concat());
        while let Some(message) = talk.receive() {
            if message[0] == b'Q' {
                counted.fetch_add(1, Ordering::SeqCst);
                talk.send(&wire::done());
            }
        }
    });
    (server, count)
}

#[test]
fn statements_wait_for_the_engine_and_are_not_lost() {
    let (server, statements) = counting();
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.ask();
    front.stall();
    client.send(&wire::query("INSERT"));
    client.expect_silence();
    assert_eq!(statements.load(Ordering::SeqCst), 1);
    front.run_again();
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(client.read_message().0, b'Z');
    client.ask();
    assert_eq!(statements.load(Ordering::SeqCst), 3);
}

#[test]
fn readers_do_not_wait_for_the_engine() {
    let server = FakeServer::welcoming("on");
    let front = Front::of(&[&server]);
    let mut client = Client::log_in(front.read);
    front.stall();
    client.ask();
    Client::log_in(front.read).ask();
}

#[test]
fn no_writer_is_connected_while_the_engine_does_not_run() {
    let (server, statements) = counting();
    let front = Front::of(&[&server]);
    front.stall();
    let mut client = Client::connect(front.write);
    client.send(&[wire::startup(0), wire::query("INSERT")].concat());
    let mut asking = Client::connect(front.write);
    asking.send(&wire::ssl_request());
    let mut direct = Client::connect(front.write);
    direct.send(&[0x16, 3, 1, 0, 5]);
    for client in [&mut client, &mut asking, &mut direct] {
        client.expect_silence();
    }
    assert_eq!(server.connections(), 0);
    front.run_again();
    client.read_burst();
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(statements.load(Ordering::SeqCst), 1);
}

/// The worker and the engine continue at the same time, and the worker is first.
#[test]
fn nothing_reaches_the_old_primary_after_the_stall() {
    let (old, statements) = counting();
    let new = FakeServer::welcoming("off");
    let front = Front::of(&[&old, &new]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::log_in(front.write)).collect();
    front.stall();
    for client in &mut clients {
        client.send(&wire::query("INSERT"));
    }
    let mut late = Client::start(front.write);
    std::thread::sleep(Duration::from_millis(100));
    front.move_primary("n1", "n2");
    eventually("the sessions to the old primary are ended", || old.connections_open() == 0);
    front.run_again();
    late.read_burst();
    late.ask();
    assert_eq!(statements.load(Ordering::SeqCst), 0);
    assert_eq!((old.connections(), new.connections()), (8, 1));
}

#[test]
fn a_login_that_has_begun_does_not_go_on_while_the_engine_does_not_run() {
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asking, answering) = (Arc::clone(&asked), Arc::clone(&answered));
    let server = FakeServer::new(move |talk| {
        talk.send(&wire::authentication(3, b""));
        asking.fetch_add(1, Ordering::SeqCst);
        if talk.receive().is_some() {
            answering.fetch_add(1, Ordering::SeqCst);
            talk.send(&wire::burst("off", &KEY));
            talk.answer_queries();
        }
    });
    let front = Front::of(&[&server]);
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    front.stall();
    client.send(&wire::message(b'p', b"secret\0"));
    client.expect_silence();
    assert_eq!((asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (1, 0));
    front.run_again();
    client.read_burst();
    client.ask();
}
