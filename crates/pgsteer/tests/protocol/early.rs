//! Early logins: while a member is promoting, the first clients on hold log in there, and are
//! served as soon as its gate opens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::Config;

use crate::client::{Client, eventually};
use crate::fake_server::{FakeServer, Talk};
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];
/// The limit of early logins.
const TURNS: usize = 4;

/// A standby that can be promoted. It reports that as PostgreSQL does: before the next
/// ReadyForQuery.
struct Standby {
    server: FakeServer,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_promoted: AtomicBool,
    logins: AtomicUsize,
    asked: AtomicUsize,
    /// Queries that arrived before its promotion.
    early_queries: AtomicUsize,
}

impl Standby {
    /// Accepts every client.
    fn new() -> Standby {
        Standby::asking(|_| true)
    }

    /// Accepts the clients that pass `authentication`.
    fn asking(authentication: impl Fn(&mut Talk) -> bool + Send + Sync + 'static) -> Standby {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let server = FakeServer::new(move |talk| {
            if authentication(talk) {
                shared.serve(talk);
            }
        });
        Standby { server, state }
    }

    fn is_promoted(&self) {
        self.state.is_promoted.store(true, Ordering::SeqCst);
    }

    fn logins(&self) -> usize {
        self.state.logins.load(Ordering::SeqCst)
    }

    /// Waits until this number of clients got its whole burst.
    fn wait_for_logins(&self, count: usize) {
        eventually(&format!("{count} early logins"), || self.logins() == count);
    }
}

impl State {
    fn role(&self) -> &'static str {
        if self.is_promoted.load(Ordering::SeqCst) { "off" } else { "on" }
    }

    fn serve(&self, talk: &mut Talk) {
        let mut reported = self.role();
        talk.send(&wire::burst(reported, &KEY));
        self.logins.fetch_add(1, Ordering::SeqCst);
        while let Some(message) = talk.receive() {
            let role = self.role();
            if role != std::mem::replace(&mut reported, role) {
                talk.send(&wire::parameter("in_hot_standby", role));
            }
            match message[0] {
                b'S' => {
                    self.asked.fetch_add(1, Ordering::SeqCst);
                    talk.send(&wire::ready());
                }
                b'Q' => {
                    if role == "on" {
                        self.early_queries.fetch_add(1, Ordering::SeqCst);
                    }
                    talk.send(&wire::done());
                }
                _ => return,
            }
        }
    }
}

/// Sends the server's own challenge, and reads any answer.
fn challenge(talk: &mut Talk) -> bool {
    talk.send(&wire::authentication(5, b"salt"));
    talk.receive().is_some()
}

fn hold(config: &mut Config, hold: Duration) {
    config.services.get_mut(&ServiceName::new("write").unwrap()).unwrap().hold = hold;
}

fn reported_roles(messages: &[(u8, Vec<u8>)]) -> Vec<&[u8]> {
    let reported = messages.iter().filter(|(kind, _)| *kind == b'S');
    reported.filter_map(|(_, body)| body.strip_prefix(b"in_hot_standby\0")).collect()
}

#[test]
fn a_client_is_logged_in_before_the_gate_opens_and_served_when_it_does() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server, &FakeServer::absent()]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    standby.wait_for_logins(1);
    // Snapshots change meanwhile, and require that sessions at this member end.
    front.shut("read", "n2");
    client.expect_silence();
    assert_eq!(front.held("write"), 1, "it is still on hold");
    assert_eq!(front.sessions("write", "n1"), (0, 0));
    assert_eq!(standby.state.asked.load(Ordering::SeqCst), 0);
    standby.is_promoted();
    front.open("write", "n1");
    let messages = client.read_burst();
    assert_eq!(reported_roles(&messages), [b"on\0".as_slice(), b"off\0"]);
    client.ask();
    assert_eq!(standby.server.connections(), 1);
    assert_eq!(front.held("write"), 0);
    assert_eq!(front.sessions("write", "n1"), (1, 1));
    drop(client);
    front.wait_until_empty();
}

#[test]
fn data_sent_after_the_password_waits_for_the_gate() {
    let standby = Standby::asking(|talk| {
        talk.send(&wire::authentication(3, b""));
        talk.receive().is_some_and(|answer| answer[0] == b'p')
    });
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    let query = wire::message(b'Q', b"DELETE FROM t\0");
    client.send(&[wire::message(b'p', b"geheim\0"), query].concat());
    standby.wait_for_logins(1);
    client.expect_silence();
    assert_eq!(standby.state.early_queries.load(Ordering::SeqCst), 0);
    standby.is_promoted();
    front.open("write", "n1");
    client.read_burst();
    // The early query is answered now.
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(client.read_message().0, b'Z');
    client.ask();
    assert_eq!(standby.state.early_queries.load(Ordering::SeqCst), 0);
}

#[test]
fn a_challenge_is_answered_while_the_client_is_on_hold() {
    let standby = Standby::asking(challenge);
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    client.send(&wire::message(b'p', b"md5\0"));
    standby.wait_for_logins(1);
    client.expect_silence();
    standby.is_promoted();
    front.open("write", "n1");
    client.read_burst();
    client.ask();
}

#[test]
fn a_client_already_on_hold_logs_in_as_soon_as_the_promotion_is_seen() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.shut("write", "n1");
    let mut client = Client::start(front.write);
    front.wait_until_held("write", 1);
    assert_eq!(standby.server.connections(), 0);
    front.promote("n1");
    standby.wait_for_logins(1);
    client.expect_silence();
}

#[test]
fn an_open_gate_is_not_enough_while_the_server_reports_a_standby() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    standby.wait_for_logins(1);
    front.open("write", "n1");
    client.expect_silence();
    standby.is_promoted();
    client.read_burst();
    client.ask();
    assert!(standby.logins() > 1);
}

#[test]
fn few_clients_log_in_early_and_all_are_served() {
    const CROWD: usize = 40;
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut clients: Vec<Client> = (0..CROWD).map(|_| Client::start(front.write)).collect();
    front.wait_until_held("write", CROWD);
    standby.wait_for_logins(TURNS);
    // The others are on hold and have seen the promotion, as the first ones have: without the limit
    // they would connect at once, too.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(standby.server.connections(), TURNS);
    standby.is_promoted();
    front.open("write", "n1");
    for client in &mut clients {
        client.read_burst();
        client.ask();
    }
    assert_eq!(standby.server.connections(), CROWD);
}

#[test]
fn clients_that_are_slow_in_their_early_login_delay_no_other_client() {
    let slow = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&slow);
    let standby = Standby::asking(move |talk| {
        counted.fetch_add(1, Ordering::SeqCst);
        challenge(talk)
    });
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let _slow: Vec<Client> = (0..TURNS).map(|_| Client::start(front.write)).collect();
    eventually("all of them are asked", || slow.load(Ordering::SeqCst) == TURNS);
    standby.is_promoted();
    front.open("write", "n1");
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    client.send(&wire::message(b'p', b"md5\0"));
    client.read_burst();
}

#[test]
fn when_another_member_is_promoted_the_client_is_served_there() {
    let (standby, primary) = (Standby::new(), FakeServer::welcoming("off"));
    let front = Front::of(&[&standby.server, &primary]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    standby.wait_for_logins(1);
    front.move_primary("n1", "n2");
    let messages = client.read_burst();
    assert_eq!(reported_roles(&messages), [b"off\0"]);
    client.ask();
    assert_eq!(standby.server.connections_open(), 0);
    assert_eq!(front.sessions("write", "n1"), (0, 0));
}

/// The salt belongs to the one server, so the client has to start again, and libpq does.
#[test]
fn when_another_member_is_promoted_a_challenged_client_must_start_again() {
    let (standby, primary) = (Standby::asking(challenge), FakeServer::welcoming("off"));
    for answers in [false, true] {
        let front = Front::of(&[&standby.server, &primary]);
        let logins = standby.logins();
        front.promote("n1");
        let mut client = Client::start(front.write);
        assert_eq!(client.read_message().0, b'R');
        if answers {
            client.send(&wire::message(b'p', b"md5\0"));
            standby.wait_for_logins(logins + 1);
        }
        front.move_primary("n1", "n2");
        let refusal = client.read_refusal();
        assert_eq!(refusal.sqlstate, "57P03");
        assert_eq!(refusal.message, "the primary changed during the login");
        front.wait_until_empty();
    }
}

#[test]
fn a_promotion_that_fails_leaves_its_clients_on_hold_and_the_member_to_its_readers() {
    let (standby, primary) = (Standby::new(), FakeServer::welcoming("off"));
    let front = Front::of(&[&standby.server, &primary]);
    front.promote("n1");
    let mut clients: Vec<Client> = (0..TURNS).map(|_| Client::start(front.write)).collect();
    standby.wait_for_logins(TURNS);
    front.shut("read", "n2");
    front.demote("n1");
    eventually("the standby is left", || standby.server.connections_open() == 0);
    drop(Client::log_in(front.read));
    eventually("the reader has left", || standby.server.connections_open() == 0);
    front.wait_until_held("write", TURNS);
    // Each of these clients has logged in early once, which is the limit. A new client logs in
    // early, so the second promotion has been seen.
    front.promote("n1");
    clients.push(Client::start(front.write));
    standby.wait_for_logins(TURNS + 1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(standby.server.connections_open(), 1);
    front.move_primary("n1", "n2");
    for client in &mut clients {
        client.read_burst();
    }
}

#[test]
fn a_server_that_crashes_during_its_promotion_does_not_fail_the_client() {
    let standby = Standby::asking(|talk| {
        let fatal = wire::fatal("57P01", "terminating connection");
        talk.send(&[wire::burst("on", &KEY), fatal].concat());
        false
    });
    let primary = FakeServer::welcoming("off");
    let front = Front::of(&[&standby.server, &primary]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    eventually("it was there", || standby.server.connections() == 1);
    client.expect_silence();
    assert_eq!(front.held("write"), 1);
    front.move_primary("n1", "n2");
    client.read_burst();
}

#[test]
fn a_login_that_a_standby_refuses_is_tried_at_the_primary() {
    let refuses = Arc::new(AtomicBool::new(true));
    let refusing = Arc::clone(&refuses);
    let standby = Standby::asking(move |talk| {
        if refusing.load(Ordering::SeqCst) {
            talk.send(&wire::fatal("28000", "role \"app\" does not exist"));
        }
        !refusing.load(Ordering::SeqCst)
    });
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    eventually("it was refused", || standby.server.connections() == 1);
    client.expect_silence();
    refuses.store(false, Ordering::SeqCst);
    standby.is_promoted();
    front.open("write", "n1");
    client.read_burst();
}

#[test]
fn a_client_that_vanishes_is_noticed_and_its_connection_ended() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let client = Client::start(front.write);
    standby.wait_for_logins(1);
    drop(client);
    eventually("the standby is left", || standby.server.connections_open() == 0);
    front.wait_until_empty();
}

/// The limit of a login covers the client's and the server's time, not the promotion.
#[test]
fn a_promotion_may_take_longer_than_a_login() {
    let standby = Standby::new();
    let limit = Duration::from_millis(200);
    let front = Front::wanting(&[&standby.server], |config| config.proxy.login_timeout = limit);
    front.promote("n1");
    let mut client = Client::start(front.write);
    standby.wait_for_logins(1);
    std::thread::sleep(3 * limit);
    standby.is_promoted();
    front.open("write", "n1");
    client.read_burst();
}

#[test]
fn a_client_gets_the_reason_at_the_end_of_the_hold() {
    let standby = Standby::asking(challenge);
    let time = Duration::from_millis(500);
    let front = Front::wanting(&[&standby.server], |config| hold(config, time));
    front.promote("n1");
    let mut client = Client::start(front.write);
    assert_eq!(client.read_message().0, b'R');
    client.send(&wire::message(b'p', b"md5\0"));
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P03");
    assert!(refusal.message.starts_with("pgsteer has no primary for service write"), "{refusal:?}");
    assert_eq!(standby.logins(), 1);
    front.wait_until_empty();
}

#[test]
fn a_client_gets_an_error_at_once_when_pgsteer_stops() {
    let standby = Standby::new();
    let mut front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    standby.wait_for_logins(1);
    front.stop(Duration::from_secs(5));
    assert_eq!(client.read_refusal().message, "pgsteer is shutting down");
}

/// Its bytes are encrypted, so pgsteer cannot hold a part of them back.
#[test]
fn a_client_that_asks_for_tls_waits_for_the_gate() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut asking = Client::connect(front.write);
    asking.send(&wire::ssl_request());
    let mut direct = Client::connect(front.write);
    direct.send(b"\x16\x03\x01\0\x05hello");
    front.wait_until_held("write", 2);
    asking.expect_silence();
    assert_eq!(standby.server.connections(), 0);
    standby.is_promoted();
    front.open("write", "n1");
    assert_eq!(asking.read(1), b"N");
}

#[test]
fn a_client_that_sends_a_query_too_early_waits_for_the_gate() {
    let standby = Standby::new();
    let front = Front::of(&[&standby.server]);
    front.promote("n1");
    let mut client = Client::connect(front.write);
    client.send(&[wire::startup(0), wire::query("INSERT")].concat());
    front.wait_until_held("write", 1);
    client.expect_silence();
    assert_eq!(standby.server.connections(), 0);
}

/// A client whose early login waits for the connection to `server`, which is promoting.
fn while_dialling(server: &FakeServer) -> (Front, Client) {
    let front = Front::of(&[server]);
    front.promote("n1");
    let client = Client::start(front.write);
    front.wait_until_held("write", 1);
    std::thread::sleep(Duration::from_millis(100));
    (front, client)
}

/// Its connection attempt is in progress when the gate opens, and is given up later. The change
/// that it waits for then has already happened.
#[test]
fn an_early_login_that_does_not_connect_finds_the_open_gate() {
    let (server, wake) = FakeServer::asleep("off");
    let (front, mut client) = while_dialling(&server);
    front.open("write", "n1");
    // Longer than `connect_timeout`.
    std::thread::sleep(Duration::from_millis(1_200));
    wake();
    client.read_burst();
    client.ask();
}

/// The packet of its connection attempt is lost. The kernel sends it again after a second, and the
/// attempt is given up after `connect_timeout`.
#[test]
fn a_lost_packet_delays_no_client_once_the_gate_is_open() {
    let (server, wake) = FakeServer::asleep("off");
    let (front, mut client) = while_dialling(&server);
    let opened = Instant::now();
    front.open("write", "n1");
    std::thread::sleep(Duration::from_millis(100));
    wake();
    client.read_burst();
    assert!(opened.elapsed() < Duration::from_millis(900), "{:?}", opened.elapsed());
    client.ask();
}

/// Servers before PostgreSQL 14 do not report the role, and the gate alone decides, as in any
/// login.
#[test]
fn a_server_that_does_not_report_its_role_serves_by_its_gate_alone() {
    let old = FakeServer::new(|talk| {
        talk.send(&[wire::authentication(0, b""), wire::ready()].concat());
        while let Some(message) = talk.receive() {
            talk.send(&if message[0] == b'Q' { wire::done() } else { wire::ready() });
        }
    });
    let front = Front::of(&[&old]);
    front.promote("n1");
    let mut client = Client::start(front.write);
    eventually("it is there", || old.connections() == 1);
    client.expect_silence();
    front.open("write", "n1");
    client.read_burst();
    client.ask();
    assert_eq!(old.connections(), 1);
}
