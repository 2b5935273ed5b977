//! Cancel requests reach the server that runs the query.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

fn key(secret_bytes: usize, fill: u8) -> Vec<u8> {
    [vec![0, 0, 0, 7], vec![fill; secret_bytes]].concat()
}

fn cancels(server: &FakeServer) -> Vec<Vec<u8>> {
    let is_cancel = |packet: &Vec<u8>| packet[4..8] == 80_877_102_u32.to_be_bytes();
    server.packets().into_iter().filter(is_cancel).collect()
}

fn ask_to_cancel(front: &Front, key: &[u8]) {
    let mut client = Client::connect(front.read);
    client.send(&wire::cancel_request(key));
    client.read_end();
}

/// Protocol 3.0 has 4 bytes, PostgreSQL 18 issues 32, and protocol 3.2 allows 256.
#[test]
fn keys_of_every_length_reach_the_server_that_issued_them() {
    for secret_bytes in [4, 32, 256] {
        let keys = [key(secret_bytes, 1), key(secret_bytes, 2)];
        let servers = [FakeServer::with_key("on", &keys[0]), FakeServer::with_key("on", &keys[1])];
        let front = Front::of(&[&servers[0], &servers[1]]);
        // The second session goes to the other server.
        let _sessions = [Client::log_in(front.read), Client::log_in(front.read)];
        for (server, key) in servers.iter().zip(&keys) {
            ask_to_cancel(&front, key);
            assert_eq!(cancels(server), [wire::cancel_request(key)]);
        }
        assert_eq!(front.stats.cancels.load(Ordering::Relaxed), 2);
    }
}

/// Another pgsteer handled its login, or the login was inside TLS.
#[test]
fn a_cancel_request_with_an_unknown_key_goes_to_all_members() {
    let servers = [FakeServer::welcoming("on"), FakeServer::welcoming("on")];
    let front = Front::of(&[&servers[0], &servers[1]]);
    // A shut gate does not matter: the query may have begun before.
    front.shut("read", "n2");
    ask_to_cancel(&front, &key(4, 9));
    for server in &servers {
        assert_eq!(cancels(server), [wire::cancel_request(&key(4, 9))]);
    }
}

#[test]
fn a_key_is_forgotten_with_its_session() {
    let servers = [FakeServer::with_key("on", &key(4, 1)), FakeServer::welcoming("on")];
    let front = Front::of(&[&servers[0], &servers[1]]);
    let sessions = [Client::log_in(front.read), Client::log_in(front.read)];
    drop(sessions);
    front.wait_until_empty();
    ask_to_cancel(&front, &key(4, 1));
    assert_eq!((cancels(&servers[0]).len(), cancels(&servers[1]).len()), (1, 1));
}

/// Otherwise the request could cancel the client's next query.
#[test]
fn the_cancelling_client_waits_until_the_server_has_acted() {
    let server = FakeServer::new(|talk| {
        std::thread::sleep(Duration::from_millis(300));
        let _ = talk.stream.shutdown(std::net::Shutdown::Both);
    });
    let front = Front::of(&[&server]);
    let began = Instant::now();
    ask_to_cancel(&front, &key(4, 9));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn keys_that_no_server_issues_are_refused() {
    let server = FakeServer::welcoming("on");
    let front = Front::of(&[&server]);
    for secret_bytes in [0, 257] {
        let mut client = Client::connect(front.read);
        client.send(&wire::cancel_request(&key(secret_bytes, 1)));
        assert_eq!(client.read_refusal().sqlstate, "08P01");
    }
    assert_eq!(server.connections(), 0);
}

/// Cancel requests matter most when the limit is reached.
#[test]
fn a_query_can_be_cancelled_at_the_limit_of_clients() {
    let server = FakeServer::with_key("on", &key(4, 1));
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 1);
    let mut session = Client::log_in(front.read);
    ask_to_cancel(&front, &key(4, 1));
    assert_eq!(cancels(&server).len(), 1);
    session.ask();
}

/// libpq from version 17 on requests TLS before it cancels, and continues without TLS if that is
/// denied.
#[test]
fn a_cancel_request_may_follow_a_denied_request_for_tls() {
    let server = FakeServer::with_key("on", &key(4, 1));
    let front = Front::wanting(&[&server], |config| {
        for service in config.services.values_mut() {
            service.hold = Duration::ZERO;
        }
    });
    let mut session = Client::log_in(front.read);
    let cancel_behind_tls = || {
        let mut client = Client::connect(front.read);
        client.send(&wire::ssl_request());
        assert_eq!(client.read(1), b"N");
        client.send(&wire::cancel_request(&key(4, 1)));
        client.read_end();
    };
    cancel_behind_tls();
    assert_eq!(cancels(&server).len(), 1);
    // No gate is open for new sessions, but the query continues.
    front.shut("read", "n1");
    cancel_behind_tls();
    assert_eq!(cancels(&server).len(), 2);
    session.ask();
}

#[test]
fn a_server_that_does_not_answer_a_cancel_request_blocks_no_client_for_ever() {
    let server = FakeServer::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.read);
    client.send(&wire::cancel_request(&key(4, 1)));
    client.read_end();
    eventually("its connection is closed", || server.connections_open() == 0);
}

/// Unknown keys cost a bounded number of connections, and do not delay requests with known keys.
#[test]
fn a_flood_of_unknown_keys_is_bounded_and_counted() {
    let silent = FakeServer::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        std::thread::sleep(Duration::from_secs(3));
    });
    let server = FakeServer::with_key("on", &key(4, 1));
    let front = Front::of(&[&silent, &server]);
    front.shut("read", "n1");
    let mut session = Client::log_in(front.read);
    let flood: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = Client::connect(front.read);
            client.send(&wire::cancel_request(&key(4, number + 50)));
            client
        })
        .collect();
    let dropped = || front.stats.cancels_dropped.load(Ordering::Relaxed);
    eventually("most are dropped at the silent server", || dropped() >= 80);
    assert!(silent.connections() <= 8, "{}", silent.connections());
    assert_eq!(cancels(&server).len(), 100, "the share of the silent server is its own");
    ask_to_cancel(&front, &key(4, 1));
    assert!(cancels(&server).contains(&wire::cancel_request(&key(4, 1))));
    session.ask();
    drop((flood, session));
    front.wait_until_empty();
}

/// By mistake a member's address may be one of pgsteer's own.
#[test]
fn neither_a_cancel_request_nor_a_login_goes_to_pgsteer_itself() {
    let itself = FakeServer::absent();
    let server = FakeServer::with_key("on", &key(4, 1));
    let front = Front::wanting(&[&itself, &server], |config| {
        config.services.get_mut("read").unwrap().listen = itself.address;
    });
    let (own, written) = (itself.address, front.write);
    let mut client = Client::connect(own);
    client.send(&wire::cancel_request(&key(4, 9)));
    client.read_end();
    assert_eq!(cancels(&server).len(), 1);
    assert_eq!(front.stats.cancels.load(Ordering::Relaxed), 1);
    // The read service tries the next member, and the write service has none.
    Client::log_in(own).ask();
    let refusal = Client::start(written).read_refusal();
    assert!(refusal.text.contains("is an address of pgsteer itself"), "{}", refusal.text);
    front.wait_until_empty();
}

/// By mistake two pgsteers may be members of each other, and a request would circulate for ever.
#[test]
fn a_request_that_circulates_is_dropped() {
    let (first, second) = (FakeServer::absent().address, FakeServer::absent());
    let at = |address| {
        move |config: &mut pgsteer_core::settings::Config| {
            config.services.get_mut("read").unwrap().listen = address;
        }
    };
    // Each one has an address for the other that is not one of its own.
    let relay = FakeServer::raw(move |mut stream| {
        let mut other = std::net::TcpStream::connect(first).unwrap();
        let mut request = [0; 16];
        if stream.read_exact(&mut request).is_ok() {
            std::io::Write::write_all(&mut other, &request).unwrap();
            let _ = other.read_to_end(&mut Vec::new());
        }
    });
    let there = Front::wanting(&[&relay], at(second.address));
    let here = Front::wanting(&[&second], at(first));
    let mut client = Client::connect(first);
    client.send(&wire::cancel_request(&key(4, 9)));
    client.read_end();
    let taken = |front: &Front| front.stats.cancels.load(Ordering::Relaxed);
    assert!(taken(&here) <= 5 && taken(&there) <= 5, "{} {}", taken(&here), taken(&there));
    assert!(here.stats.cancels_dropped.load(Ordering::Relaxed) > 0);
}
