//! Limits: the excess clients are refused, and the others are not affected.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

#[test]
fn a_client_beyond_the_limit_is_refused_and_a_later_one_is_served() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 3);
    let mut sessions: Vec<Client> = (0..3).map(|_| Client::log_in(front.write)).collect();
    let refusal = Client::start(front.write).read_refusal();
    assert_eq!(refusal.sqlstate, "53300");
    assert_eq!(refusal.message, "the limit of 3 clients is reached (sessions_max)");
    // A client that requests TLS first must get its error without TLS.
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"N");
    client.send(&wire::startup(0));
    assert_eq!(client.read_refusal().sqlstate, "53300");
    assert_eq!(front.stats.turned_away.load(Ordering::Relaxed), 2);
    sessions.pop();
    eventually("there is room", || front.stats.clients.load(Ordering::Relaxed) == 2);
    Client::log_in(front.write).ask();
    sessions[0].ask();
}

#[test]
fn silent_clients_above_the_limit_do_not_accumulate() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 1);
    let mut session = Client::log_in(front.write);
    let _silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(front.write).unwrap()).collect();
    eventually("all are counted", || front.stats.turned_away.load(Ordering::Relaxed) == 300);
    assert!(front.stats.clients.load(Ordering::Relaxed) <= 101);
    // pgsteer does not read the requests of these clients, but they get the reason.
    for _ in 0..50 {
        assert_eq!(Client::start(front.write).read_refusal().sqlstate, "53300");
    }
    session.ask();
}

/// Connections without a complete first packet.
fn silent(to: SocketAddr) -> [Client; 3] {
    [&b""[..], &wire::startup(0)[..9], b"\x16\x03\x01\0\x06hel"].map(|bytes| {
        let mut client = Client::connect(to);
        client.send(bytes);
        client
    })
}

#[test]
fn silent_connections_give_way_oldest_first_and_sessions_do_not() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 4);
    let clients = |count| {
        let what = format!("{count} clients");
        eventually(&what, || front.stats.clients.load(Ordering::Relaxed) == count);
    };
    let mut session = Client::log_in(front.write);
    let mut silent = silent(front.write);
    clients(4);
    // A client that has just connected is not dropped for a new one.
    assert_eq!(Client::start(front.write).read_refusal().sqlstate, "53300");
    std::thread::sleep(Duration::from_millis(1_200));
    let mut sessions = vec![Client::log_in(front.write)];
    silent[0].read_end();
    silent[1].expect_silence();
    sessions.extend([Client::log_in(front.write), Client::log_in(front.write)]);
    silent[1].read_end();
    silent[2].read_end();
    assert_eq!(Client::start(front.write).read_refusal().sqlstate, "53300");
    sessions.iter_mut().chain([&mut session]).for_each(Client::ask);
    assert_eq!(front.stats.silent_closed.load(Ordering::Relaxed), 3);
    assert_eq!(front.stats.turned_away.load(Ordering::Relaxed), 2);
}

#[test]
fn a_client_that_sends_no_hello_after_its_request_for_tls_gives_way() {
    let server = FakeServer::raw(|mut stream| {
        use std::io::{Read, Write};
        let mut request = [0; 8];
        if stream.read_exact(&mut request).is_ok() && request == *wire::ssl_request() {
            stream.write_all(b"S").unwrap();
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 2);
    let tls = |hello: &[u8]| {
        let mut client = Client::connect(front.write);
        client.send(&wire::ssl_request());
        assert_eq!(client.read(1), b"S");
        client.send(hello);
        client
    };
    let mut half = tls(b"\x16\x03\x01\0\x06hel");
    let mut whole = tls(b"\x16\x03\x01\0\x05hello");
    eventually("both are connected", || server.connections_open() == 2);
    std::thread::sleep(Duration::from_millis(1_200));
    let _third = tls(b"");
    half.read_end();
    whole.expect_silence();
    eventually("its server connection is closed", || server.connections_open() == 2);
}

#[test]
fn a_hello_that_never_completes_ends_with_the_login_timeout() {
    let server = FakeServer::raw(|mut stream| {
        use std::io::Write;
        let _ = stream.write_all(b"S");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let front = Front::wanting(&[&server], |config| {
        config.proxy.login_timeout = Duration::from_secs(1);
    });
    let began = Instant::now();
    let mut silent = silent(front.write);
    silent.iter_mut().for_each(Client::read_end);
    assert_eq!(server.connections(), 0);
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"S");
    client.send(b"\x16\x03\x01\0\x06hel");
    client.read_end();
    assert!((2..5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    eventually("its server connection is closed", || server.connections_open() == 0);
}

#[test]
fn one_client_address_cannot_use_up_the_limit() {
    let server = FakeServer::with_key("off", &[0, 0, 0, 7, 1, 2, 3, 4]);
    let front = Front::wanting(&[&server], |config| {
        config.proxy.sessions_max = 10;
        config.proxy.sessions_per_address_max = Some(2);
    });
    let _sessions = [Client::log_in(front.write), Client::log_in(front.write)];
    let refusal = Client::start(front.write).read_refusal();
    assert_eq!(refusal.sqlstate, "53300");
    assert_eq!(
        refusal.message,
        "the limit of 2 clients from this address is reached (sessions_per_address_max)"
    );
    // Its cancel requests must still work.
    let mut cancel = Client::connect(front.write);
    cancel.send(&wire::cancel_request(&[0, 0, 0, 7, 1, 2, 3, 4]));
    cancel.read_end();
    assert_eq!(server.connections(), 3);
    let mut other = Client::connect_from("127.0.0.2".parse().unwrap(), front.write);
    other.send(&wire::startup(0));
    other.read_burst();
}

/// 2,000 connections that repeatedly send nothing, half a packet, or garbage.
#[test]
fn a_crowd_of_idle_and_hostile_clients_does_not_slow_a_good_one() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let alone = slowest_of_logins(front.write);
    let mut crowd = Vec::new();
    for number in 0..2_000 {
        let mut client = Client::connect(front.write);
        if number % 2 == 0 {
            client.send(&wire::startup(0)[..9]);
        }
        crowd.push(client);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let hostile = hostile(front.write, Arc::clone(&ended));
    eventually("the crowd is in", || front.stats.clients.load(Ordering::Relaxed) >= 2_000);
    let in_the_crowd = slowest_of_logins(front.write);
    ended.store(true, Ordering::Relaxed);
    hostile.join().unwrap();
    println!("slowest of 20 logins: {alone:?} alone, {in_the_crowd:?} in the crowd");
    assert!(
        in_the_crowd < Duration::from_secs(1),
        "{alone:?} alone, {in_the_crowd:?} in the crowd"
    );
    drop(crowd);
    front.wait_until_empty();
}

fn slowest_of_logins(to: SocketAddr) -> Duration {
    let login = |_| {
        let began = Instant::now();
        Client::log_in(to).ask();
        began.elapsed()
    };
    (0..20).map(login).max().unwrap()
}

fn hostile(to: SocketAddr, ended: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let mut client = Client::connect(to);
            client.try_to_send(b"GET / HTTP/1.1\r\n\r\n");
            client.read_refusal();
        }
    })
}
