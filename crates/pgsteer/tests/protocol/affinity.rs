//! The member for a client address: by its cancel requests inside TLS, or by `stick`.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use pgsteer_core::settings::Stick;

use crate::client::Client;
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const HELLO: &[u8] = b"\x16\x03\x01\0\x05hello";

/// A server that accepts TLS. It answers the hello with its name, and every `?` with a `!`.
fn opaque(name: u8) -> FakeServer {
    FakeServer::raw(move |mut stream| {
        let mut request = [0; 8];
        if stream.read_exact(&mut request).is_err() || stream.write_all(b"S").is_err() {
            return;
        }
        let mut hello = [0; HELLO.len()];
        if stream.read_exact(&mut hello).is_err() || stream.write_all(&[name]).is_err() {
            return;
        }
        let mut byte = [0; 1];
        while stream.read_exact(&mut byte).is_ok() {
            if byte == *b"?" && stream.write_all(b"!").is_err() {
                return;
            }
        }
    })
}

/// A session inside TLS, and the name of its server.
fn session(front: &Front) -> (Client, u8) {
    let mut client = Client::connect(front.read);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"S");
    client.send(HELLO);
    let name = client.read(1)[0];
    (client, name)
}

fn ask(client: &mut Client) {
    client.send(b"?");
    assert_eq!(client.read(1), b"!");
}

#[test]
fn a_connection_inside_tls_goes_to_the_member_that_is_busy_for_its_address() {
    let servers = [opaque(b'1'), opaque(b'2')];
    let front = Front::of(&[&servers[0], &servers[1]]);
    for _ in 0..6 {
        let (mut busy, name) = session(&front);
        ask(&mut busy);
        // A long query: the client waits, and the server is silent.
        busy.send(b".");
        std::thread::sleep(Duration::from_millis(100));
        let (_cancel, reached) = session(&front);
        assert_eq!(reached, name);
        drop(busy);
        drop(_cancel);
        front.wait_until_empty();
    }
}

#[test]
fn idle_sessions_and_those_that_open_at_once_are_spread() {
    let servers = [opaque(b'1'), opaque(b'2')];
    let front = Front::of(&[&servers[0], &servers[1]]);
    let spread = |sessions: &[(Client, u8)]| {
        let first = sessions.iter().filter(|(_, name)| *name == b'1').count();
        (first, sessions.len() - first)
    };
    let mut sessions: Vec<(Client, u8)> = (0..8).map(|_| session(&front)).collect();
    assert_eq!(spread(&sessions), (4, 4));
    std::thread::sleep(Duration::from_millis(100));
    sessions.iter_mut().for_each(|(client, _)| ask(client));
    // All sessions at one member are busy, and none at the other: the busy member gets only a
    // limited number.
    sessions.iter_mut().filter(|(_, name)| *name == b'1').for_each(|(client, _)| client.send(b"."));
    std::thread::sleep(Duration::from_millis(100));
    sessions.extend((0..40).map(|_| session(&front)));
    let (first, second) = spread(&sessions);
    assert_eq!(first + second, 48);
    assert!((1..=17).contains(&(first - second)), "{first} and {second}");
}

#[test]
fn connections_of_one_address_stick_to_one_member_while_it_is_open() {
    let servers = [FakeServer::welcoming("on"), FakeServer::welcoming("on")];
    let front = Front::wanting(&[&servers[0], &servers[1]], |config| {
        config.services.get_mut("read").unwrap().stick = Stick::Address;
    });
    let log_in = |from: [u8; 4]| {
        let mut client = Client::connect_from(IpAddr::from(from), front.read);
        client.send(&wire::startup(0));
        client.read_burst();
        client
    };
    let counts = || [front.sessions("read", "n1").1, front.sessions("read", "n2").1];
    let mut sessions: Vec<Client> = (0..5).map(|_| log_in([127, 0, 0, 1])).collect();
    let first = counts();
    assert!(first == [5, 0] || first == [0, 5], "{first:?}");
    sessions.extend((0..5).map(|_| log_in([127, 0, 0, 2])));
    assert_eq!(counts(), [5, 5], "another address goes to the other");
    let (own, other) = if first[0] > 0 { ("n1", "n2") } else { ("n2", "n1") };
    front.shut("read", own);
    sessions.push(log_in([127, 0, 0, 1]));
    assert_eq!(front.sessions("read", other).1, 6);
    // It stays there when the first gate is open again.
    front.open("read", own);
    sessions.push(log_in([127, 0, 0, 1]));
    assert_eq!(front.sessions("read", other).1, 7);
    sessions.iter_mut().for_each(Client::ask);
}

#[test]
fn short_sessions_take_turns_at_equal_members() {
    let servers = [FakeServer::welcoming("on"), FakeServer::welcoming("on")];
    let front = Front::of(&[&servers[0], &servers[1]]);
    for _ in 0..16 {
        let mut client = Client::log_in(front.read);
        client.send(&wire::message(b'X', b""));
        client.read_end();
        front.wait_until_empty();
    }
    let counts = ["n1", "n2"].map(|member| front.sessions("read", member).0);
    assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
}
