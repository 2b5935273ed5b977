//! Limits on sessions: clients wait in the order of arrival, and no place is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgsteer_core::settings::Config;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

/// A configuration that limits the sessions of service `write` at a member.
fn at_most(member_sessions_max: usize) -> impl Fn(&mut Config) {
    move |config| {
        let write = config.services.get_mut("write").unwrap();
        write.member_sessions_max = Some(member_sessions_max);
        write.hold = Duration::from_secs(30);
    }
}

/// A client with its own user name that has sent its startup packet.
fn start_client(front: &Front, number: usize) -> Client {
    let mut client = Client::connect(front.write);
    let body = format!("user\0app{number}\0\0");
    client.send(&wire::packet(3 << 16, body.as_bytes()));
    client
}

/// Clients that have sent their startup packets one after the other, and are on hold.
fn crowd(front: &Front, count: usize) -> Vec<Client> {
    let before = front.held("write");
    (0..count)
        .map(|number| {
            let client = start_client(front, number);
            front.wait_until_held("write", before + number + 1);
            client
        })
        .collect()
}

/// Waits until the client is logged in.
fn served(client: &mut Client) {
    client.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.read_burst();
}

fn leave(mut client: Client) {
    client.send(&wire::message(b'X', b""));
    client.read_end();
}

#[test]
fn a_client_beyond_the_limit_waits_for_its_turn() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], at_most(2));
    let mut sessions = vec![Client::log_in(front.write), Client::log_in(front.write)];
    let mut waiting = crowd(&front, 3);
    assert_eq!(front.queued("write"), 3);
    waiting[0].expect_silence();
    for _ in 0..3 {
        leave(sessions.remove(0));
        let mut next = waiting.remove(0);
        served(&mut next);
        waiting.iter_mut().for_each(Client::expect_silence);
        sessions.push(next);
    }
    assert_eq!(server.connections_open(), 2);
    drop(sessions);
    front.wait_until_empty();
    assert_eq!(front.queued("write"), 0);
}

#[test]
fn the_wait_ends_with_the_hold_and_the_error_names_the_limit() {
    let servers = [FakeServer::welcoming("on"), FakeServer::welcoming("on")];
    let front = Front::wanting(&[&servers[0], &servers[1]], |config| {
        for service in config.services.values_mut() {
            service.hold = Duration::from_millis(300);
            service.member_sessions_max = Some(1);
        }
        config.services.get_mut("write").unwrap().sessions_max = Some(1);
    });
    let _readers = [Client::log_in(front.read), Client::log_in(front.read)];
    let refusal = Client::start(front.read).read_refusal();
    assert_eq!(refusal.sqlstate, "53300");
    assert!(
        refusal.message.starts_with(
            "every open member has reached the member_sessions_max of service read, 1 (waited 0."
        ),
        "{}",
        refusal.message
    );
    let full = FakeServer::welcoming("off");
    let front = Front::wanting(&[&full], |config| {
        let write = config.services.get_mut("write").unwrap();
        (write.hold, write.sessions_max) = (Duration::ZERO, Some(1));
    });
    let _writer = Client::log_in(front.write);
    let refusal = Client::start(front.write).read_refusal();
    assert_eq!(
        (refusal.sqlstate.as_str(), refusal.message.as_str()),
        ("53300", "service write has reached its sessions_max, 1 (waited 0.0 s)")
    );
}

/// With two workers, each of which wakes its own clients.
#[test]
fn clients_on_hold_are_served_in_the_order_of_arrival_when_a_gate_opens() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], at_most(1));
    front.shut("write", "n1");
    let clients = crowd(&front, 12);
    front.open("write", "n1");
    for mut client in clients {
        served(&mut client);
        leave(client);
    }
    let users: Vec<Vec<u8>> = server.packets();
    for (number, packet) in users.iter().enumerate() {
        let name = format!("app{number}\0");
        assert!(String::from_utf8_lossy(packet).contains(&name), "{number}: {packet:?}");
    }
}

/// Serves all of them, in any order: a client on its way to the old primary when that was lost
/// returns to the queue a moment later.
fn all_served(clients: Vec<Client>) {
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                served(&mut client);
                leave(client);
            });
        }
    });
}

#[test]
fn clients_that_leave_the_queue_and_a_gate_that_shuts_lose_no_place() {
    let servers = [FakeServer::welcoming("off"), FakeServer::welcoming("off")];
    let front = Front::wanting(&[&servers[0], &servers[1]], at_most(2));
    for (from, to) in [("n1", "n2"), ("n2", "n1")].repeat(3) {
        let sessions = [Client::log_in(front.write), Client::log_in(front.write)];
        let mut waiting = crowd(&front, 6);
        drop(waiting.drain(..3));
        // The sessions to the old primary end, and waiting clients get the new one.
        front.move_primary(from, to);
        all_served(waiting);
        drop(sessions);
        front.wait_until_empty();
    }
    let sessions = [Client::log_in(front.write), Client::log_in(front.write)];
    let mut waiting = crowd(&front, 6);
    drop(waiting.drain(..3));
    drop(sessions);
    all_served(waiting);
    let _both = [Client::log_in(front.write), Client::log_in(front.write)];
}

#[test]
fn a_reload_may_raise_lower_and_remove_the_limits() {
    let server = FakeServer::welcoming("off");
    let front = Front::wanting(&[&server], at_most(1));
    let first = Client::log_in(front.write);
    let mut waiting = crowd(&front, 4);
    front.reload(at_most(2));
    served(&mut waiting[0]);
    waiting[1].expect_silence();
    // Two sessions continue; the next client gets a place only when both have ended.
    front.reload(at_most(1));
    leave(first);
    waiting[1].expect_silence();
    leave(waiting.remove(0));
    served(&mut waiting[0]);
    waiting[1].expect_silence();
    front.reload(|config| config.services.get_mut("write").unwrap().hold = Duration::from_secs(30));
    waiting[1..].iter_mut().for_each(served);
    Client::log_in(front.write).ask();
    waiting.iter_mut().for_each(Client::ask);
}

/// A server that accepts this number of connections and refuses others, as PostgreSQL does.
fn full_after(max: usize, sqlstate: &'static str) -> (FakeServer, Arc<AtomicUsize>) {
    let (sessions, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&refused);
    let server = FakeServer::new(move |talk| {
        if sessions.fetch_add(1, Ordering::SeqCst) >= max {
            counted.fetch_add(1, Ordering::SeqCst);
            talk.send(&wire::fatal(sqlstate, "sorry, too many clients already"));
        } else {
            talk.send(&wire::burst("off", &[0, 0, 0, 7, 1, 2, 3, 4]));
            talk.answer_queries();
        }
        sessions.fetch_sub(1, Ordering::SeqCst);
    });
    (server, refused)
}

/// 60 clients at once on a server with 20 connections: no client gets 53300, and all are served as
/// sessions end. pgsteer does not retry in a busy loop.
#[test]
fn clients_that_a_full_server_refuses_wait_and_are_served_as_sessions_end() {
    let (server, refused) = full_after(20, "53300");
    let front = Front::wanting(&[&server], |config| {
        config.services.get_mut("write").unwrap().hold = Duration::from_secs(30);
    });
    front.shut("write", "n1");
    let clients = crowd(&front, 60);
    let began = Instant::now();
    front.open("write", "n1");
    let served = std::thread::scope(|scope| {
        let each = clients.into_iter().map(|mut client| {
            scope.spawn(move || {
                served(&mut client);
                client.ask();
                std::thread::sleep(Duration::from_millis(300));
                leave(client);
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(|client| client.join()).filter(Result::is_ok).count()
    });
    let (took, refused) = (began.elapsed(), refused.load(Ordering::SeqCst));
    println!("60 clients by 20 took {took:?}, {refused} logins were refused");
    assert_eq!(served, 60);
    assert!(refused < 150, "{refused} logins were refused in {took:?}");
    front.wait_until_empty();
}

#[test]
fn a_full_server_that_stays_full_is_tried_ten_times_a_second_at_most() {
    let (server, refused) = full_after(0, "53300");
    let front = Front::wanting(&[&server], |config| {
        config.services.get_mut("write").unwrap().hold = Duration::from_secs(2);
    });
    let began = Instant::now();
    let clients: Vec<Client> = (0..50).map(|number| start_client(&front, number)).collect();
    let mut quoted = 0;
    for mut client in clients {
        let refusal = client.read_refusal();
        assert_eq!(refusal.sqlstate, "53300");
        // A client that never had a try of its own has no server error to show.
        quoted += usize::from(refusal.text.contains("sorry, too many clients already"));
    }
    let refused = refused.load(Ordering::SeqCst);
    assert!(quoted > 0);
    // Each client once at the start, before the first refusal, and then ten a second.
    let most = 50 + 20 + 10 * usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((10..most).contains(&refused), "{refused} in {:?}", began.elapsed());
}

#[test]
fn a_server_that_starts_up_gets_its_clients_when_it_accepts_them() {
    let accepts = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&accepts);
    let server = FakeServer::new(move |talk| {
        if state.load(Ordering::SeqCst) {
            talk.send(&wire::burst("off", &[0, 0, 0, 7, 1, 2, 3, 4]));
            talk.answer_queries();
        } else {
            talk.send(&wire::fatal("57P03", "the database system is starting up"));
        }
    });
    let front = Front::wanting(&[&server], |config| {
        config.services.get_mut("write").unwrap().hold = Duration::from_secs(20);
    });
    let mut clients: Vec<Client> = (0..40).map(|number| start_client(&front, number)).collect();
    front.wait_until_held("write", 40);
    std::thread::sleep(Duration::from_millis(500));
    let before = server.connections();
    assert!(before < 40 + 20, "{before}");
    accepts.store(true, Ordering::SeqCst);
    let began = Instant::now();
    clients.iter_mut().for_each(served);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The limit of a user or of a database is no reason to hold other clients, nor this one.
#[test]
fn the_connection_limit_of_a_user_is_passed_on() {
    let limit = b"SFATAL\0VFATAL\0C53300\0Mtoo many connections for role \"app\"\0\
                  RInitializeSessionUserId\0\0";
    let server =
        FakeServer::sending([wire::authentication(0, b""), wire::message(b'E', limit)].concat());
    let front = Front::of(&[&server]);
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    assert_eq!(client.read_refusal().message, "too many connections for role \"app\"");
    eventually("it was asked once", || server.connections() == 1);
}
