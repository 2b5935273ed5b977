//! The login: faults of a server during it, and what the client sees of them.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];
const SALT: [u8; 4] = [5, 6, 7, 8];

fn sasl() -> Vec<u8> {
    wire::authentication(10, b"SCRAM-SHA-256\0\0")
}

/// In either order of two replicas, the client gets one session in the end, at the good one.
fn is_passed_over(bad: &FakeServer) {
    let good = FakeServer::welcoming("on");
    let front = Front::of(&[bad, &good]);
    for _ in 0..4 {
        let mut client = Client::start(front.read);
        let messages = client.read_burst();
        let keys = messages.iter().filter(|(kind, _)| *kind == b'K');
        assert_eq!(keys.count(), 1, "{messages:?}");
        client.ask();
    }
    assert_eq!(good.connections(), 4);
    front.wait_until_empty();
}

#[test]
fn a_server_that_is_not_there_is_passed_over() {
    is_passed_over(&FakeServer::absent());
}

#[test]
fn a_server_that_accepts_and_sends_nothing_is_passed_over() {
    let mute = FakeServer::new(|talk| talk.stay_silent());
    is_passed_over(&mute);
    assert!(mute.connections() > 0);
}

#[test]
fn a_server_that_closes_at_once_is_passed_over() {
    is_passed_over(&FakeServer::raw(drop));
}

#[test]
fn a_server_that_closes_in_the_middle_of_its_burst_is_passed_over() {
    let burst = wire::burst("on", &KEY);
    is_passed_over(&FakeServer::sending(burst[..burst.len() - 3].to_vec()));
}

#[test]
fn a_server_that_starts_or_stops_is_passed_over() {
    for sqlstate in ["57P01", "57P02", "57P03"] {
        is_passed_over(&FakeServer::sending(wire::fatal(sqlstate, "not now")));
    }
}

#[test]
fn a_server_that_stops_after_authentication_is_passed_over() {
    let words = [wire::authentication(0, b""), wire::fatal("57P01", "shutting down")].concat();
    is_passed_over(&FakeServer::sending(words));
}

#[test]
fn a_replica_that_is_full_is_passed_over() {
    is_passed_over(&FakeServer::sending(wire::fatal("53300", "too many clients already")));
}

#[test]
fn a_burst_without_an_end_is_given_up() {
    let endless = wire::parameter("x", &"y".repeat(8_000)).repeat(1_250);
    is_passed_over(&FakeServer::sending([wire::authentication(0, b""), endless].concat()));
    let one_message = wire::message(b'S', &[b'x'; 10_000_000]);
    is_passed_over(&FakeServer::sending([wire::authentication(0, b""), one_message].concat()));
}

#[test]
fn a_server_of_another_protocol_is_passed_over() {
    is_passed_over(&FakeServer::sending(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
    is_passed_over(&FakeServer::sending(vec![b'R', 0, 0, 0, 3]));
}

#[test]
fn a_server_that_stays_full_is_quoted_when_the_hold_ends() {
    let full = FakeServer::sending(wire::fatal("53300", "too many clients already"));
    let front = Front::wanting(&[&full], |config| {
        for service in config.services.values_mut() {
            service.hold = Duration::from_millis(500);
        }
    });
    for door in [front.write, front.read] {
        let refusal = Client::start(door).read_refusal();
        assert_eq!(refusal.sqlstate, "53300");
        assert!(refusal.message.starts_with("no member has a free connection for service "));
        assert!(refusal.text.contains("n1: too many clients already (53300)"), "{}", refusal.text);
    }
}

#[test]
fn a_wrong_password_is_the_servers_own_answer() {
    let strict = FakeServer::new(|talk| {
        talk.send(&wire::authentication(3, b""));
        talk.receive();
        talk.send(&wire::fatal("28P01", "password authentication failed"));
    });
    let other = FakeServer::welcoming("on");
    let front = Front::of(&[&strict, &other]);
    front.shut("read", "n2");
    let mut client = Client::start(front.read);
    assert_eq!(client.read_message(), (b'R', vec![0, 0, 0, 3]));
    client.send(&wire::message(b'p', b"wrong\0"));
    front.open("read", "n2");
    assert_eq!(client.read_refusal().sqlstate, "28P01");
    assert_eq!(other.connections(), 0);
}

/// The role is proven in the login: a client of the write service never reaches a standby.
#[test]
fn a_writer_never_reaches_a_standby() {
    let standby = FakeServer::welcoming("on");
    let primary = FakeServer::welcoming("off");
    let front = Front::of(&[&standby, &primary]);
    let mut client = Client::start(front.write);
    client.expect_silence();
    front.move_primary("n1", "n2");
    let messages = client.read_burst();
    let standby_words = b"in_hot_standby\0on\0";
    assert!(messages.iter().all(|(_, body)| body[..] != standby_words[..]), "{messages:?}");
    assert!(standby.connections() > 0);
    assert_eq!(primary.connections(), 1);
}

#[test]
fn a_standby_that_becomes_primary_serves_the_waiting_client() {
    let began = Instant::now();
    let promoted = FakeServer::new(move |talk| {
        let is_promoted = began.elapsed() > Duration::from_millis(500);
        talk.send(&wire::burst(if is_promoted { "off" } else { "on" }, &KEY));
        talk.answer_queries();
    });
    let front = Front::of(&[&promoted]);
    let mut client = Client::start(front.write);
    client.read_burst();
    client.ask();
    assert!(began.elapsed() > Duration::from_millis(500));
}

/// A pooler sends a cached role. The server itself sends the current one.
#[test]
fn the_role_of_a_poolers_login_is_ignored_and_that_of_a_server_is_used() {
    let standby = FakeServer::welcoming("on");
    let pooler = FakeServer::beside(&standby, "on");
    let front = Front::wanting(&[&standby], |config| {
        for service in config.services.values_mut() {
            service.pooler_port = Some(pooler.address.port());
        }
    });
    let mut pooled = Client::start(front.write);
    pooled.read_burst();
    assert_eq!((pooler.connections(), standby.connections()), (1, 0));
    front.bypass("write", "n1");
    let mut past = Client::start(front.write);
    past.expect_silence();
    assert_eq!(pooler.connections(), 1);
    assert!(standby.connections() > 0);
    pooled.ask();
    front.open("write", "n1");
    past.read_burst();
    past.ask();
}

/// The list of SASL mechanisms is the same at every server, so the client does not notice the
/// change of server.
#[test]
fn a_login_starts_again_elsewhere_after_the_list_of_mechanisms() {
    let dying = FakeServer::new(|talk| {
        talk.send(&sasl());
        talk.receive();
    });
    let good = FakeServer::new(|talk| {
        talk.send(&sasl());
        assert_eq!(talk.receive().unwrap(), wire::message(b'p', b"first"));
        talk.send(&wire::authentication(11, b"nonce of the good one"));
        assert_eq!(talk.receive().unwrap(), wire::message(b'p', b"final"));
        talk.send(&wire::authentication(12, b"signature"));
        talk.send(&wire::burst("on", &KEY));
        talk.answer_queries();
    });
    let front = Front::of(&[&dying, &good]);
    for _ in 0..2 {
        let mut client = Client::start(front.read);
        assert_eq!(client.read(sasl().len()), sasl());
        client.send(&wire::message(b'p', b"first"));
        let (_, body) = client.read_message();
        assert_eq!(body[4..], b"nonce of the good one"[..]);
        client.send(&wire::message(b'p', b"final"));
        client.read_burst();
        client.ask();
    }
    assert!(dying.connections() > 0);
}

#[test]
fn a_login_starts_again_when_the_primary_moves_in_the_middle_of_it() {
    let slow = FakeServer::new(|talk| {
        talk.send(&sasl());
        talk.stay_silent();
    });
    let new = FakeServer::new(|talk| {
        talk.send(&sasl());
        talk.receive();
        talk.send(&wire::burst("off", &KEY));
        talk.answer_queries();
    });
    let front = Front::of(&[&slow, &new]);
    let mut client = Client::start(front.write);
    assert_eq!(client.read(sasl().len()), sasl());
    front.move_primary("n1", "n2");
    client.send(&wire::message(b'p', b"first"));
    client.read_burst();
    client.ask();
}

/// The salt belongs to the one server, so the client's answer is of no use at another.
#[test]
fn a_login_that_cannot_start_again_is_refused_so_that_libpq_moves_on() {
    let dying = FakeServer::new(|talk| {
        talk.send(&wire::authentication(5, &SALT));
        talk.receive();
    });
    let front = Front::of(&[&dying, &FakeServer::welcoming("on")]);
    front.shut("read", "n2");
    let mut client = Client::start(front.read);
    assert_eq!(client.read_message().1[4..], SALT);
    front.open("read", "n2");
    client.send(&wire::message(b'p', b"md5\0"));
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, "57P03");
    assert_eq!(refusal.message, "the member changed during the login");
    front.wait_until_empty();
}

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let server = FakeServer::new(|talk| {
        talk.send(&sasl());
        talk.stay_silent();
    });
    let limit = Duration::from_secs(1);
    let front = Front::wanting(&[&server], |config| config.proxy.login_timeout = limit);
    let began = Instant::now();
    let mut client = Client::start(front.write);
    assert_eq!(client.read(sasl().len()), sasl());
    client.read_end();
    assert!(began.elapsed() >= limit);
    front.wait_until_empty();
}

#[test]
fn a_client_that_sends_without_end_in_its_login_is_disconnected() {
    let server = FakeServer::new(|talk| {
        talk.send(&sasl());
        talk.stay_silent();
    });
    let front = Front::of(&[&server]);
    let mut client = Client::start(front.write);
    assert_eq!(client.read(sasl().len()), sasl());
    client.try_to_send(&vec![b'p'; 1_000_000]);
    client.read_end();
    front.wait_until_empty();
}

/// pgsteer keeps none of them, and the client does not receive them without end.
#[test]
fn messages_without_end_before_the_authentication_are_given_up() {
    let notice = wire::message(b'N', &[b'x'; 8_000]).repeat(1_000);
    let request = wire::authentication(5, &SALT).repeat(100_000);
    for (endless, why) in [(notice, "longer than 65536 bytes"), (request, "more than 32 times")] {
        let server = FakeServer::sending(endless);
        let front = Front::of(&[&server]);
        let mut client = Client::start(front.write);
        let mut received = 0;
        let refusal = loop {
            match client.read_message() {
                (b'E', body) => break String::from_utf8_lossy(&body).into_owned(),
                (_, body) => received += body.len(),
            }
        };
        assert!(refusal.contains("C57P03") && refusal.contains(why), "{refusal}");
        assert!(received < 65_536, "{received}");
        front.wait_until_empty();
    }
}
