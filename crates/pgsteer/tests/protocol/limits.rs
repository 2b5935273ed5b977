//! Limits: what happens when there are too many, and that the others do not suffer.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

#[test]
fn one_client_too_many_is_told_so_and_the_next_finds_room_again() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 3);
    let mut sessions: Vec<Client> = (0..3).map(|_| Client::log_in(front.write)).collect();
    let refusal = Client::knock(front.write).read_refusal();
    assert_eq!(refusal.sqlstate, "53300");
    assert_eq!(refusal.message, "pgsteer has 3 clients already, its limit");
    // Somebody who asks for TLS first has to be told in clear.
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
fn those_above_the_limit_who_say_nothing_do_not_pile_up() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], |config| config.proxy.sessions_max = 1);
    let mut session = Client::log_in(front.write);
    let _silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(front.write).unwrap()).collect();
    eventually("all are counted", || front.stats.turned_away.load(Ordering::Relaxed) == 300);
    assert!(front.stats.clients.load(Ordering::Relaxed) <= 101);
    // Nobody hears what these want, but they hear why.
    for _ in 0..50 {
        assert_eq!(Client::knock(front.write).read_refusal().sqlstate, "53300");
    }
    session.ask();
}

/// 2,000 connections that say nothing, half of something, or nonsense again and again.
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
