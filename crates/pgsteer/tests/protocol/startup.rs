//! The first bytes of a client.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;
use crate::wire;

const PROTOCOL_VIOLATION: &str = "08P01";

/// A refusal is a PostgreSQL error, costs the server nothing, and does not affect other clients.
fn is_refused(bytes: &[u8]) -> String {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.write);
    client.try_to_send(bytes);
    let refusal = client.read_refusal();
    assert_eq!(refusal.sqlstate, PROTOCOL_VIOLATION, "{refusal:?}");
    assert_eq!(server.connections(), 0);
    assert_eq!(front.stats.garbage.load(Ordering::Relaxed), 1);
    Client::log_in(front.write).ask();
    refusal.message
}

#[test]
fn a_browser_gets_an_error_that_names_postgresql() {
    let message = is_refused(b"GET / HTTP/1.1\r\nHost: db\r\nUser-Agent: x\r\n\r\n");
    assert_eq!(message, "the first bytes are not of a PostgreSQL client");
}

#[test]
fn a_flood_of_garbage_is_refused_by_its_first_byte() {
    is_refused(&[0xff; 200_000]);
}

#[test]
fn a_packet_above_the_limit_is_refused_by_its_length() {
    let mut packet = wire::packet(3 << 16, &[b'x'; 20_000]);
    assert!(is_refused(&packet).contains("startup packet is 20008 bytes"));
    // A length just above the limit, without a body.
    packet.truncate(8);
    packet[..4].copy_from_slice(&10_005_u32.to_be_bytes());
    is_refused(&packet);
}

#[test]
fn a_packet_below_its_own_header_is_refused() {
    is_refused(&[0, 0, 0, 7, 0, 3, 0, 0]);
}

#[test]
fn the_protocol_before_the_present_one_is_refused() {
    let message = is_refused(&wire::packet(2 << 16, b"user\0app\0\0"));
    assert!(message.contains("2.0"), "{message}");
}

#[test]
fn a_packet_may_come_one_byte_at_a_time() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.write);
    for byte in wire::startup(0) {
        client.send(&[byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    client.read_burst();
    client.ask();
    assert_eq!(server.packets(), [wire::startup(0)]);
}

#[test]
fn a_packet_of_the_longest_length_goes_through() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let longest = wire::packet(3 << 16, &[&b"user\0"[..], &[b'x'; 9_989], b"\0\0"].concat());
    assert_eq!(longest.len(), 10_004);
    let mut client = Client::connect(front.write);
    client.send(&longest);
    client.read_burst();
    assert_eq!(server.packets(), [longest]);
}

#[test]
fn newer_and_invented_minor_versions_go_through_untouched() {
    let negotiation = wire::message(b'v', &[0, 3, 0, 2, 0, 0, 0, 0]);
    let words = [negotiation.clone(), wire::burst("off", &[0, 0, 0, 1, 9, 9, 9, 9])].concat();
    let server = FakeServer::new(move |talk| {
        talk.send(&words);
        talk.stay_silent();
    });
    let front = Front::of(&[&server]);
    for minor in [2, 9999] {
        let mut client = Client::connect(front.write);
        client.send(&wire::startup(minor));
        assert_eq!(client.read(negotiation.len()), negotiation);
        client.read_burst();
    }
    assert_eq!(server.packets(), [wire::startup(2), wire::startup(9999)]);
}

/// A client that sends nothing, or too little, is disconnected at its time limit.
#[test]
fn a_client_without_a_complete_startup_packet_is_disconnected() {
    let server = FakeServer::welcoming("off");
    let limit = Duration::from_secs(1);
    let front = Front::wanting(&[&server], |config| config.proxy.login_timeout = limit);
    let began = Instant::now();
    let beginnings: [&[u8]; 4] = [b"", &[0], &wire::startup(0)[..9], &wire::gssenc_request()];
    let mut clients = Vec::new();
    for beginning in beginnings {
        let mut client = Client::connect(front.write);
        client.send(beginning);
        clients.push(client);
    }
    assert_eq!(clients[3].read(1), b"N");
    for client in &mut clients {
        client.read_end();
    }
    assert!(began.elapsed() >= limit);
    front.wait_until_empty();
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_client_may_ask_for_both_encryptions_and_go_on_in_clear() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    let (gss, ssl) = (wire::gssenc_request(), wire::ssl_request());
    for requests in [vec![&gss, &ssl], vec![&ssl, &gss], vec![&ssl], vec![&gss]] {
        let mut client = Client::connect(front.write);
        for request in requests {
            client.send(request);
            assert_eq!(client.read(1), b"N");
        }
        client.send(&wire::startup(0));
        client.read_burst();
        client.ask();
    }
    front.wait_until_empty();
}

#[test]
fn repeated_requests_for_encryption_are_refused() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    for request in [wire::gssenc_request(), wire::ssl_request()] {
        let mut client = Client::connect(front.write);
        client.send(&request);
        assert_eq!(client.read(1), b"N");
        // PostgreSQL accepts no second request either.
        client.send(&request);
        assert_eq!(client.read_refusal().sqlstate, PROTOCOL_VIOLATION);
    }
    front.wait_until_empty();
}

/// A third party may have inserted them, so that they seem to come from the client after
/// encryption.
#[test]
fn bytes_behind_a_request_for_encryption_are_refused() {
    is_refused(&[wire::ssl_request(), wire::startup(0)].concat());
    is_refused(&[wire::gssenc_request(), wire::startup(0)].concat());
}

#[test]
fn bytes_inside_tls_are_passed_on_unread() {
    let server = FakeServer::raw(|mut stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request[..], wire::ssl_request());
        stream.write_all(b"S").unwrap();
        let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    });
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.write);
    client.send(&wire::ssl_request());
    assert_eq!(client.read(1), b"S");
    let hello: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut sender = client.stream.try_clone().unwrap();
    let echoed = hello.clone();
    let sending = std::thread::spawn(move || sender.write_all(&echoed).unwrap());
    assert_eq!(client.read(hello.len()), hello);
    sending.join().unwrap();
}

#[test]
fn direct_tls_reaches_the_server_from_its_first_byte() {
    let server = FakeServer::raw(|mut stream| {
        let mut hello = [0; 11];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"\x16\x03\x01\x00\x06client");
        stream.write_all(b"server").unwrap();
    });
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.write);
    client.send(b"\x16\x03\x01\x00\x06client");
    assert_eq!(client.read(6), b"server");
    client.read_end();
}

#[test]
fn a_server_with_an_invalid_answer_to_a_request_for_tls_is_passed_over() {
    let answers = [&b"?"[..], b"E", b""];
    for answer in answers {
        let strange = FakeServer::raw(move |mut stream| {
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let good = FakeServer::welcoming("on");
        let front = Front::of(&[&strange, &good]);
        // Both servers are equally good, so one of two clients meets the faulty one.
        for _ in 0..4 {
            let mut client = Client::connect(front.read);
            client.send(&wire::ssl_request());
            assert_eq!(client.read(1), b"N");
            client.send(&wire::startup(0));
            client.read_burst();
        }
        assert!(strange.connections() > 0);
    }
}

#[test]
fn data_sent_before_the_login_is_kept_in_order() {
    let server = FakeServer::new(|talk| {
        talk.send(&wire::authentication(3, b""));
        assert_eq!(talk.receive().unwrap(), wire::message(b'p', b"secret\0"));
        talk.send(&wire::burst("off", &[0, 0, 0, 1, 9, 9, 9, 9]));
        talk.answer_queries();
    });
    let front = Front::of(&[&server]);
    let mut client = Client::connect(front.write);
    let (password, query) = (wire::message(b'p', b"secret\0"), wire::query("SELECT"));
    client.send(&[wire::startup(0), password, query].concat());
    client.read_burst();
    assert_eq!(client.read_message().0, b'C');
    assert_eq!(client.read_message().0, b'Z');
    client.ask();
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_its_packet_leaves_nothing_behind() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    for length in [0, 1, 4, 8, 20] {
        Client::connect(front.write).send(&wire::startup(0)[..length]);
    }
    eventually("the clients are gone", || front.stats.clients.load(Ordering::Relaxed) == 0);
    assert_eq!(server.connections(), 0);
}
