//! The handover: clients and sessions move to another proxy, and notice nothing.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::Config;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];

/// More than the buffers of both connections hold.
const RESULT_BYTES: usize = 16 << 20;

#[test]
fn sessions_go_on_and_new_ones_begin() {
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    let mut sessions: Vec<Client> = (0..40).map(|_| Client::log_in(old.write)).collect();
    let new = old.upgrade();
    eventually("all have moved", || new.sessions("write", "n1").1 == 40);
    old.wait_until_empty();
    for session in &mut sessions {
        session.ask();
    }
    Client::log_in(new.write).ask();
    assert_eq!(server.connections(), 41);
    // Those that moved began in the other process.
    assert_eq!(new.sessions("write", "n1").0, 1);
}

#[test]
fn a_session_moves_a_second_time() {
    let server = FakeServer::welcoming("off");
    let first = Front::of(&[&server]);
    let mut session = Client::log_in(first.write);
    let second = first.upgrade();
    eventually("it has moved", || second.sessions("write", "n1").1 == 1);
    second.complete();
    let third = second.upgrade();
    eventually("it has moved again", || third.sessions("write", "n1").1 == 1);
    session.ask();
}

/// The result is larger than the buffers, so a part of it is in the old process.
#[test]
fn bytes_on_their_way_arrive_once_and_in_order() {
    let server = FakeServer::new(|talk| {
        talk.send(&wire::burst("off", &KEY));
        talk.receive();
        let result: Vec<u8> =
            (0..RESULT_BYTES / 4).flat_map(|n| (n as u32).to_be_bytes()).collect();
        talk.send(&result);
        talk.answer_queries();
    });
    let mut front = Front::of(&[&server]);
    let mut client = Client::log_in(front.write);
    client.send(&wire::query("SELECT"));
    let mut read = Vec::new();
    for _ in 0..8 {
        read.extend(client.read(RESULT_BYTES / 16));
        let new = front.upgrade();
        eventually("it has moved", || new.sessions("write", "n1").1 == 1);
        new.complete();
        front = new;
    }
    read.extend(client.read(RESULT_BYTES - read.len()));
    let numbers = read.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap()));
    assert!(numbers.eq(0..(RESULT_BYTES / 4) as u32), "bytes were lost, repeated or moved");
    client.ask();
}

/// The server reads nothing for a while, so a part of the query is in the old process.
#[test]
fn bytes_to_a_slow_server_arrive_once_and_in_order() {
    let (wake, is_awake) = std::sync::mpsc::channel::<()>();
    let is_awake = std::sync::Mutex::new(is_awake);
    let (report, reported) = std::sync::mpsc::channel();
    let server = FakeServer::raw(move |mut stream| {
        let mut startup = [0; 1024];
        if !stream.read(&mut startup).is_ok_and(|count| count > 0) {
            return;
        }
        stream.write_all(&wire::burst("off", &KEY)).unwrap();
        is_awake.lock().unwrap().recv().unwrap();
        let mut all = vec![0; RESULT_BYTES];
        stream.read_exact(&mut all).unwrap();
        report.send(all).unwrap();
    });
    let old = Front::of(&[&server]);
    let mut client = Client::log_in(old.write);
    let sent: Vec<u8> = (0..RESULT_BYTES / 4).flat_map(|n| (n as u32).to_be_bytes()).collect();
    let expected = sent.clone();
    let sending = std::thread::spawn(move || {
        client.send(&sent);
        client
    });
    std::thread::sleep(Duration::from_millis(200));
    let new = old.upgrade();
    eventually("it has moved", || new.sessions("write", "n1").1 == 1);
    wake.send(()).unwrap();
    assert!(reported.recv().unwrap() == expected, "bytes were lost, repeated or moved");
    sending.join().unwrap();
}

#[test]
fn a_client_on_hold_keeps_its_wait_and_its_position() {
    let server = FakeServer::welcoming("off");
    let two = |config: &mut Config| {
        let write = config.services.get_mut(&ServiceName::new("write").unwrap()).unwrap();
        write.hold = Duration::from_secs(3);
        write.sessions_max = Some(1);
    };
    let old = Front::wanting(&[&server], two);
    old.shut("write", "n1");
    let began = Instant::now();
    let mut first = Client::start(old.write);
    old.wait_until_held("write", 1);
    let mut second = Client::start(old.write);
    old.wait_until_held("write", 2);
    std::thread::sleep(Duration::from_millis(1000));
    let new = old.upgrade_to(|config, _| two(config));
    new.wait_until_held("write", 2);
    old.wait_until_empty();
    new.complete();
    let mut third = Client::start(new.write);
    new.wait_until_held("write", 3);
    new.open("write", "n1");
    first.read_burst();
    // The limit is one session, so the second has waited for its whole time since it connected.
    assert_eq!(second.read_refusal().sqlstate, "53300");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(4), "{waited:?}");
    drop(first);
    third.read_burst();
}

/// A limit of one session for service `write`.
fn one_session(config: &mut Config) {
    let write = config.services.get_mut("write").unwrap();
    (write.sessions_max, write.hold) = (Some(1), Duration::from_secs(30));
}

/// The gate is open, so the new process could connect clients before the session has moved.
#[test]
fn a_limit_of_sessions_and_the_order_of_its_queue_hold_in_an_upgrade() {
    let server = FakeServer::welcoming("off");
    let old = Front::wanting(&[&server], one_session);
    let session = Client::log_in(old.write);
    let mut first = Client::start(old.write);
    old.wait_until_held("write", 1);
    let mut second = Client::start(old.write);
    old.wait_until_held("write", 2);
    let mut later = Vec::new();
    let new = old.upgrade_while(
        |config, _| one_session(config),
        // Both accept clients at this moment.
        |new| {
            while new.held("write") == 0 {
                later.push(Client::start(new.write));
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(server.connections(), 1);
            }
        },
    );
    old.wait_until_empty();
    eventually("the session has moved", || new.sessions("write", "n1").1 == 1);
    new.wait_until_held("write", 2 + later.len());
    new.complete();
    first.expect_silence();
    assert_eq!(server.connections(), 1);
    drop(session);
    first.read_burst();
    second.expect_silence();
    drop(first);
    second.read_burst();
    later.iter_mut().for_each(Client::expect_silence);
    assert_eq!(server.connections(), 3);
}

/// A server that answers each login when it is woken by a message.
fn server_that_waits_in_each_login() -> (std::sync::mpsc::Sender<()>, FakeServer) {
    let (wake, is_awake) = std::sync::mpsc::channel::<()>();
    let is_awake = std::sync::Mutex::new(is_awake);
    let server = FakeServer::new(move |talk| {
        is_awake.lock().unwrap().recv().unwrap();
        talk.send(&wire::burst("off", &KEY));
        talk.answer_queries();
    });
    (wake, server)
}

#[test]
fn a_login_in_progress_keeps_its_permit_in_an_upgrade() {
    let (wake, server) = server_that_waits_in_each_login();
    let old = Front::wanting(&[&server], one_session);
    let mut first = Client::start(old.write);
    eventually("its login has begun", || server.connections() == 1);
    let mut second = Client::start(old.write);
    old.wait_until_held("write", 1);
    let new = old.upgrade_to(|config, _| one_session(config));
    new.wait_until_held("write", 1);
    new.complete_from(&old);
    second.expect_silence();
    wake.send(()).unwrap();
    first.read_burst();
    eventually("it has moved", || new.sessions("write", "n1").1 == 1);
    second.expect_silence();
    assert_eq!(server.connections(), 1);
    old.wait_until_empty();
    drop(first);
    wake.send(()).unwrap();
    second.read_burst();
}

/// Until the sessions have arrived, the new process does not know whether the limit is reached.
#[test]
fn a_service_without_a_hold_refuses_only_clients_beyond_its_limit() {
    let server = FakeServer::welcoming("off");
    let no_hold = |config: &mut Config| {
        one_session(config);
        config.services.get_mut("write").unwrap().hold = Duration::ZERO;
    };
    let old = Front::wanting(&[&server], no_hold);
    let session = Client::log_in(old.write);
    let new = old.upgrade_to(|config, _| no_hold(config));
    eventually("it has moved", || new.sessions("write", "n1").1 == 1);
    let mut first = Client::start(new.write);
    new.wait_until_held("write", 1);
    let mut second = Client::start(new.write);
    new.wait_until_held("write", 2);
    first.expect_silence();
    drop(session);
    eventually("it has ended", || new.sessions("write", "n1").1 == 0);
    second.expect_silence();
    new.complete();
    first.read_burst();
    assert_eq!(second.read_refusal().sqlstate, "53300");
    first.ask();
}

/// The other process has failed, so permits of sessions that have moved there are free.
#[test]
fn a_failed_upgrade_leaves_no_permit_taken() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], one_session);
    let session = Client::log_in(front.write);
    front.lose_in_upgrade();
    drop(session);
    front.reload(one_session);
    Client::log_in(front.write).ask();
}

#[test]
fn the_limits_of_client_connections_hold_in_an_upgrade() {
    let server = FakeServer::welcoming("off");
    let three = |config: &mut Config| config.proxy.sessions_max = 3;
    let old = Front::wanting(&[&server], three);
    let mut sessions: Vec<Client> = (0..3).map(|_| Client::log_in(old.write)).collect();
    let refused = |front: &Front| {
        let refusal = Client::start(front.write).read_refusal();
        assert_eq!(refusal.message, "the limit of 3 clients is reached (sessions_max)");
    };
    let new = old.upgrade_while(
        |config, _| three(config),
        |new| {
            while new.stats.turned_away.load(Ordering::Relaxed) < 3 {
                refused(new);
            }
        },
    );
    old.wait_until_empty();
    refused(&new);
    eventually("all have moved", || new.sessions("write", "n1").1 == 3);
    new.complete();
    refused(&new);
    sessions.iter_mut().for_each(Client::ask);
    sessions.pop();
    eventually("there is room", || new.stats.clients.load(Ordering::Relaxed) == 2);
    Client::log_in(new.write).ask();
}

/// A session that ends in the old process does not arrive, and its place is free.
#[test]
fn a_place_is_reserved_for_a_connection_until_all_have_arrived() {
    let server = FakeServer::welcoming("off");
    let two = |config: &mut Config| config.proxy.sessions_max = 2;
    let old = Front::wanting(&[&server], two);
    let (mut kept, gone) = (Client::log_in(old.write), Client::log_in(old.write));
    let new = old.upgrade_while(
        |config, _| two(config),
        |_| {
            drop(gone);
            eventually("it has ended", || old.stats.clients.load(Ordering::Relaxed) == 1);
        },
    );
    old.wait_until_empty();
    eventually("it has moved", || new.sessions("write", "n1").1 == 1);
    assert_eq!(Client::start(new.write).read_refusal().sqlstate, "53300");
    new.complete();
    Client::log_in(new.write).ask();
    kept.ask();
}

#[test]
fn a_thousand_clients_on_hold_move_and_are_served() {
    const CLIENTS: usize = 1_000;
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    old.shut("write", "n1");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::start(old.write)).collect();
    old.wait_until_held("write", CLIENTS);
    let new = old.upgrade();
    new.wait_until_held("write", CLIENTS);
    old.wait_until_empty();
    new.complete();
    new.open("write", "n1");
    for client in &mut clients {
        client.read_burst();
    }
    assert_eq!(server.connections(), CLIENTS);
}

#[test]
fn a_client_that_has_sent_a_part_of_its_packet_moves() {
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    let mut silent = Client::connect(old.write);
    let mut halfway = Client::connect(old.write);
    let startup = wire::startup(0);
    halfway.send(&startup[..6]);
    eventually("both are there", || old.stats.clients.load(Ordering::Relaxed) == 2);
    std::thread::sleep(Duration::from_millis(100));
    let _new = old.upgrade();
    old.wait_until_empty();
    silent.send(&startup);
    halfway.send(&startup[6..]);
    silent.read_burst();
    halfway.read_burst();
}

#[test]
fn a_client_that_has_requested_tls_gets_its_answer_from_the_new_process() {
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    old.shut("write", "n1");
    let mut client = Client::connect(old.write);
    client.send(&wire::ssl_request());
    old.wait_until_held("write", 1);
    let new = old.upgrade();
    new.wait_until_held("write", 1);
    new.complete();
    new.open("write", "n1");
    assert_eq!(client.read(1), b"N");
    client.send(&wire::startup(0));
    client.read_burst();
    client.ask();
}

/// The new process starts the login again, with all bytes that the client has sent.
#[test]
fn a_client_that_a_full_server_has_refused_moves_and_is_held_in_the_new_process() {
    let accepts = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&accepts);
    let server = FakeServer::new(move |talk| {
        if state.load(Ordering::SeqCst) {
            talk.send(&wire::burst("off", &KEY));
            talk.answer_queries();
        } else {
            talk.send(&wire::fatal("53300", "sorry, too many clients already"));
        }
    });
    let old = Front::of(&[&server]);
    let mut client = Client::start(old.write);
    eventually("it was refused", || old.queued("write") == 1 && server.connections() > 0);
    client.send(&wire::query("SELECT"));
    // The query is read with the next attempt.
    let attempts = server.connections();
    eventually("it was tried again", || server.connections() > attempts + 1);
    let new = old.upgrade();
    old.wait_until_empty();
    new.complete();
    new.wait_until_held("write", 1);
    client.expect_silence();
    accepts.store(true, Ordering::SeqCst);
    client.read_burst();
    assert_eq!((client.read_message().0, client.read_message().0), (b'C', b'Z'));
    eventually("the new process has its session", || new.sessions("write", "n1").1 == 1);
}

/// A login cannot move, because its state is in the old process.
#[test]
fn a_login_in_progress_ends_in_the_old_process_and_its_session_moves() {
    let (wake, server) = server_that_waits_in_each_login();
    let old = Front::of(&[&server]);
    let mut client = Client::start(old.write);
    eventually("its login has begun", || server.connections() == 1);
    let new = old.upgrade();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((old.sessions("write", "n1").1, new.sessions("write", "n1").1), (1, 0));
    wake.send(()).unwrap();
    client.read_burst();
    eventually("it has moved", || new.sessions("write", "n1").1 == 1);
    client.ask();
    old.wait_until_empty();
}

#[test]
fn the_key_of_a_session_cancels_its_query_after_the_move() {
    let keys = [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 2, 2, 2, 2, 2]];
    let servers = [FakeServer::with_key("on", &keys[0]), FakeServer::with_key("on", &keys[1])];
    let old = Front::of(&[&servers[0], &servers[1]]);
    let _sessions = [Client::log_in(old.read), Client::log_in(old.read)];
    let new = old.upgrade();
    old.wait_until_empty();
    for (server, key) in servers.iter().zip(&keys) {
        let mut client = Client::connect(new.read);
        client.send(&wire::cancel_request(key));
        client.read_end();
        let packets = server.packets();
        let cancels = packets.iter().filter(|packet| **packet == wire::cancel_request(key));
        assert_eq!(cancels.count(), 1);
    }
    // Neither went to the other server.
    assert_eq!(servers.map(|server| server.packets().len()), [2, 2]);
}

/// The new process may know already that the member has lost its role.
#[test]
fn a_session_at_a_member_that_the_new_process_has_shut_ends_with_the_reason() {
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    let mut client = Client::log_in(old.write);
    let _new = old.upgrade_to(|_, snapshot| {
        let service = snapshot.services.get_mut(&ServiceName::new("write").unwrap()).unwrap();
        service.gates.remove(&MemberName::new("n1").unwrap());
    });
    assert_eq!(client.read_refusal().sqlstate, "57P01");
    eventually("the server's side is closed", || server.connections_open() == 0);
}

#[test]
fn a_session_of_a_removed_service_ends_with_the_reason() {
    let server = FakeServer::welcoming("off");
    let old = Front::of(&[&server]);
    let mut client = Client::log_in(old.read);
    let _new = old.upgrade_to(|config, snapshot| {
        let name = ServiceName::new("read").unwrap();
        config.services.remove(&name);
        snapshot.services.remove(&name);
    });
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P01");
    assert!(refusal.message.contains("its service was removed"), "{refusal:?}");
}

/// Invariant 7 over two processes: the old one may still have sessions to the old primary.
#[test]
fn a_gate_that_opens_during_the_handover_waits_for_its_end() {
    let servers = [FakeServer::welcoming("off"), FakeServer::welcoming("off")];
    let old = Front::of(&[&servers[0], &servers[1]]);
    let new = old.upgrade();
    old.wait_until_empty();
    Client::log_in(new.write).ask();
    new.move_primary("n1", "n2");
    let mut client = Client::start(new.write);
    client.expect_silence();
    assert_eq!(servers[1].connections(), 0);
    new.complete();
    client.read_burst();
    assert_eq!(servers[1].connections(), 1);
}

#[test]
fn a_new_process_that_dies_takes_no_session_along() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let mut session = Client::log_in(front.write);
    let mut other = Client::log_in(front.read);
    front.fail_to_upgrade(Duration::from_millis(100));
    session.ask();
    other.ask();
    Client::log_in(front.write).ask();
    front.shut("write", "n1");
    let mut held = Client::start(front.write);
    front.wait_until_held("write", 1);
    front.fail_to_upgrade(Duration::from_millis(100));
    front.open("write", "n1");
    held.read_burst();
    session.ask();
}
